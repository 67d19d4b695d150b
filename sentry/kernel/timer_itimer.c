/* Interval timers of a process: setitimer(2). */
#include <errno.h>
#include <signal.h>
#include <sys/time.h>

#include "sentry/kernel/timer_priv.h"

/* Shortest period at which a signal is sent: more than that nobody could take. */
#define ITIMER_PERIOD_MIN_NS 100000

static int64_t itimer_now(const struct itimer *it)
{
    const struct cpu_clock c = {.kind = it->which == ITIMER_VIRTUAL ? CPU_VIRT : CPU_PROF,
                                .tg = it->tt->tg};

    return it->which == ITIMER_REAL ? (int64_t)mono_now() : cpu_clock_read(&c);
}

/* TIMER held. */
static void itimer_arm(struct itimer *it, int64_t now)
{
    if (it->expires == 0)
        (void)timer_disarm(&it->tm);
    else if (it->which == ITIMER_REAL)
        timer_arm(&it->tm, clock_deadline(CLOCK_MONOTONIC, it->expires));
    else
        timer_arm(&it->tm, cpu_clock_deadline(it->tt->tg->k, MAX(it->expires - now, 0)));
}

static void itimer_send(const struct itimer *it)
{
    static const int signals[ITIMER_COUNT] = {SIGALRM, SIGVTALRM, SIGPROF};
    const struct lx_siginfo info = {.signo = signals[it->which], .code = SI_KERNEL};

    (void)tg_send_signal(it->tt->tg, &info);
}

static void itimer_fire(struct timer *tm)
{
    struct itimer *it = container_of(tm, struct itimer, tm);
    int64_t count;

    mutex_lock(&it->tt->mu);
    const int64_t now = itimer_now(it);
    if (it->expires != 0 && now >= it->expires) {
        itimer_send(it);
        it->expires =
            it->interval == 0
                ? 0
                : timer_forward(it->expires, MAX(it->interval, ITIMER_PERIOD_MIN_NS), now, &count);
    }
    itimer_arm(it, now);
    mutex_unlock(&it->tt->mu);
}

int itimer_init(struct itimer *it, struct tg_timers *tt, int which)
{
    it->tt = tt;
    it->which = which;
    return timer_init(&it->tm, kernel_timer_service(tt->tg->k), itimer_fire);
}

static void itimer_show(const struct itimer *it, int64_t now, struct task_itimer *out)
{
    *out = (struct task_itimer){.interval = it->interval};
    /* One that is due but has not been seen yet is still armed. */
    if (it->expires != 0)
        out->value = MAX(it->expires - now, NSEC_PER_USEC);
}

int task_getitimer(struct task *t, int which, struct task_itimer *out)
{
    if (which < 0 || which >= ITIMER_COUNT)
        return -EINVAL;
    mutex_lock(&t->tg->mu);
    struct tg_timers *tt = t->tg->timers;
    mutex_unlock(&t->tg->mu);
    *out = (struct task_itimer){0};
    if (!tt)
        return 0;
    mutex_lock(&tt->mu);
    itimer_show(&tt->it[which], itimer_now(&tt->it[which]), out);
    mutex_unlock(&tt->mu);
    return 0;
}

int task_setitimer(struct task *t, int which, const struct task_itimer *new_it,
                   struct task_itimer *old)
{
    struct tg_timers *tt;

    if (which < 0 || which >= ITIMER_COUNT)
        return -EINVAL;
    int r = tg_timers_use(t->tg, &tt);
    if (r)
        return r;
    struct itimer *it = &tt->it[which];
    mutex_lock(&tt->mu);
    const int64_t now = itimer_now(it);
    if (old)
        itimer_show(it, now, old);
    it->expires = new_it->value == 0 ? 0 : timer_add(now, new_it->value);
    it->interval = new_it->value == 0 ? 0 : new_it->interval;
    itimer_arm(it, now);
    mutex_unlock(&tt->mu);
    return 0;
}
