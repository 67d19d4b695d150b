/* RLIMIT_CPU: SIGXCPU at the soft limit and each second after it, SIGKILL at the hard one
 * (kernel/time/posix-cpu-timers.c, check_process_timers). */
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "sentry/kernel/timer_priv.h"

struct cpu_limit {
    struct timer tm;
    struct thread_group *tg; /* outlives it: the limit goes with the last thread */
};

enum limit_step { LIMIT_WAIT, LIMIT_SIGNAL, LIMIT_KILL };

/* What used ns of CPU time mean; *out_left: till the next step. tg->mu held. */
static enum limit_step limit_look_locked(struct thread_group *tg, int64_t used, int64_t *out_left)
{
    _Atomic uint64_t *limit = tg->rlimits[RLIMIT_CPU];
    const uint64_t soft = atomic_load(&limit[0]), hard = atomic_load(&limit[1]);
    const uint64_t seconds = (uint64_t)(used / NSEC_PER_SEC);

    *out_left = CLOCK_NS_MAX;
    if (seconds >= hard)
        return LIMIT_KILL;
    if (seconds >= soft) {
        atomic_store(&limit[0], seconds + 1);
        *out_left = (int64_t)(seconds + 1) * NSEC_PER_SEC - used;
        return LIMIT_SIGNAL;
    }
    if (soft < (uint64_t)(CLOCK_NS_MAX / NSEC_PER_SEC))
        *out_left = (int64_t)soft * NSEC_PER_SEC - used;
    return LIMIT_WAIT;
}

static void limit_kill(struct thread_group *tg)
{
    struct sighand *sh = tg_lock_sig(tg);

    tg_exit_locked(tg, SIGKILL);
    sighand_unlock(sh);
}

static void limit_fire(struct timer *tm)
{
    struct cpu_limit *l = container_of(tm, struct cpu_limit, tm);
    struct thread_group *tg = l->tg;
    const struct cpu_clock clock = {.kind = CPU_PROF, .tg = tg};
    const struct lx_siginfo info = {.signo = SIGXCPU, .code = SI_KERNEL};
    const int64_t used = cpu_clock_read(&clock);
    int64_t left;

    mutex_lock(&tg->mu);
    const enum limit_step step = limit_look_locked(tg, used, &left);
    if (step != LIMIT_KILL && left != CLOCK_NS_MAX)
        timer_arm(tm, cpu_clock_deadline(tg->k, left));
    mutex_unlock(&tg->mu);
    if (step == LIMIT_KILL)
        limit_kill(tg);
    else if (step == LIMIT_SIGNAL)
        (void)tg_send_signal(tg, &info);
}

/* NULL: no memory or thread for it; then the limit does not bite till it is set again. */
static struct cpu_limit *limit_new(struct thread_group *tg)
{
    struct cpu_limit *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->tg = tg;
    if (timer_init(&l->tm, kernel_timer_service(tg->k), limit_fire)) {
        free(l);
        return NULL;
    }
    return l;
}

void tg_cpu_limit_changed(struct thread_group *tg)
{
    if (!tg->cpu_limit && tg_rlimit(tg, RLIMIT_CPU) == UINT64_MAX)
        return;
    mutex_lock(&tg->mu);
    if (!tg->cpu_limit_over) {
        if (!tg->cpu_limit)
            tg->cpu_limit = limit_new(tg);
        if (tg->cpu_limit)
            timer_arm(&tg->cpu_limit->tm, mono_now());
    }
    mutex_unlock(&tg->mu);
}

void tg_cpu_limit_exit(struct thread_group *tg)
{
    mutex_lock(&tg->mu);
    struct cpu_limit *l = tg->cpu_limit;
    tg->cpu_limit = NULL;
    tg->cpu_limit_over = true;
    mutex_unlock(&tg->mu);
    if (!l)
        return;
    timer_cancel(&l->tm);
    free(l);
}
