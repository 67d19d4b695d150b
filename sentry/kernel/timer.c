/* Timers of the kernel and of thread groups: beginning and end; sums of times. */
#include "sentry/kernel/timer.h"

#include <errno.h>
#include <stdlib.h>

#include "sentry/kernel/timer_priv.h"

struct kernel_timers {
    struct timer_service *service;
};

int kernel_timers_new(struct kernel *k, struct kernel_timers **out_kt)
{
    struct kernel_timers *kt = calloc(1, sizeof(*kt));

    (void)k;
    if (!kt)
        return -ENOMEM;
    int r = timer_service_new(&kt->service);
    if (r) {
        free(kt);
        return r;
    }
    *out_kt = kt;
    return 0;
}

void kernel_timers_free(struct kernel_timers *kt)
{
    if (!kt)
        return;
    timer_service_free(kt->service);
    free(kt);
}

struct timer_service *kernel_timer_service(struct kernel *k)
{
    return k->timers->service;
}

/* ---- a group's ---- */

static int tg_timers_new(struct thread_group *tg, struct tg_timers **out_tt)
{
    struct tg_timers *tt = calloc(1, sizeof(*tt));

    if (!tt)
        return -ENOMEM;
    mutex_init(&tt->mu, LOCK_RANK_TIMER);
    tt->tg = tg;
    for (int i = 0; i < ITIMER_COUNT; i++) {
        int r = itimer_init(&tt->it[i], tt, i);
        if (r) {
            mutex_destroy(&tt->mu);
            free(tt);
            return r;
        }
    }
    *out_tt = tt;
    return 0;
}

static void tg_timers_free(struct tg_timers *tt)
{
    for (int i = 0; i < ITIMER_COUNT; i++)
        timer_cancel(&tt->it[i].tm);
    ptimers_delete(tt);
    free(tt->timers);
    mutex_destroy(&tt->mu);
    free(tt);
}

int tg_timers_use(struct thread_group *tg, struct tg_timers **out_tt)
{
    struct tg_timers *tt;

    mutex_lock(&tg->mu);
    tt = tg->timers;
    mutex_unlock(&tg->mu);
    if (tt) {
        *out_tt = tt;
        return 0;
    }
    int r = tg_timers_new(tg, &tt);
    if (r)
        return r;
    mutex_lock(&tg->mu);
    struct tg_timers *other = tg->timers;
    if (!other)
        tg->timers = tt;
    mutex_unlock(&tg->mu);
    if (other)
        tg_timers_free(tt);
    *out_tt = other ? other : tt;
    return 0;
}

void tg_timers_exit(struct thread_group *tg)
{
    tg_cpu_limit_exit(tg);
    mutex_lock(&tg->mu);
    struct tg_timers *tt = tg->timers;
    tg->timers = NULL;
    mutex_unlock(&tg->mu);
    if (tt)
        tg_timers_free(tt);
}

void tg_timers_exec(struct thread_group *tg)
{
    struct task_priv *p;

    mutex_lock(&tg->mu);
    struct tg_timers *tt = tg->timers;
    mutex_unlock(&tg->mu);
    if (!tt)
        return;
    ptimers_delete(tt);
    struct sighand *sh = tg_lock_sig(tg);
    sig_flush_timers_locked(tg->k, &tg->pending);
    list_for_each_entry (p, &tg->threads, thread_node)
        sig_flush_timers_locked(tg->k, &p->pending);
    sighand_unlock(sh);
}

/* ---- sums ---- */

int64_t timer_add(int64_t a, int64_t b)
{
    return a > CLOCK_NS_MAX - b ? CLOCK_NS_MAX : a + b;
}

int64_t timer_forward(int64_t expires, int64_t interval, int64_t now, int64_t *out_count)
{
    if (expires > now) {
        *out_count = 0;
        return expires;
    }
    *out_count = (now - expires) / interval + 1;
    int64_t whole;
    if (__builtin_mul_overflow(*out_count, interval, &whole))
        return CLOCK_NS_MAX;
    return timer_add(expires, whole);
}
