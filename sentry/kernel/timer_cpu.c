/* CPU-time clocks and sleeping (kernel/time/posix-cpu-timers.c, hrtimer.c). */
#include <errno.h>
#include <time.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/timer_priv.h"

#define CPUCLOCK_MAX 3
#define CPUCLOCK_PERTHREAD 4
/* How finely CPU-time limits are watched: a tick of a kernel with HZ=250 at the best. */
#define CPU_WATCH_MIN_NS 4000000

/* ---- ids ---- */

bool clock_is_cpu(int clock)
{
    return clock < 0 || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID;
}

/* A negative id holds the inverted pid, the kind and the thread bit. */
static int cpu_clock_of_id(struct task *t, int clock, struct cpu_clock *out)
{
    const int32_t pid = ~(clock >> 3);
    int r;

    if ((clock & 3) == CPUCLOCK_MAX)
        return -EINVAL;
    out->kind = (enum cpu_kind)(clock & 3);
    out->thread = clock & CPUCLOCK_PERTHREAD;
    if (out->thread) {
        if (pid == 0 || pid == t->vtid) {
            out->task = task_get(t);
            return 0;
        }
        r = task_find(t, pid, &out->task);
        if (!r && out->task->tg != t->tg) {
            task_put(out->task);
            r = -EINVAL;
        }
        return r ? -EINVAL : 0;
    }
    if (pid == 0 || pid == t->vtid) {
        out->tg = tg_get(t->tg);
        return 0;
    }
    return kernel_find_tg(t->k, task_pid_in(t, pid), &out->tg) ? -EINVAL : 0;
}

int cpu_clock_get(struct task *t, int clock, struct cpu_clock *out)
{
    *out = (struct cpu_clock){.kind = CPU_SCHED};
    if (clock == CLOCK_PROCESS_CPUTIME_ID) {
        out->tg = tg_get(t->tg);
        return 0;
    }
    if (clock == CLOCK_THREAD_CPUTIME_ID) {
        out->thread = true;
        out->task = task_get(t);
        return 0;
    }
    return clock < 0 ? cpu_clock_of_id(t, clock, out) : -EINVAL;
}

void cpu_clock_put(struct cpu_clock *c)
{
    if (c->task)
        task_put(c->task);
    if (c->tg)
        tg_put(c->tg);
    c->task = NULL;
    c->tg = NULL;
}

int64_t cpu_clock_read(const struct cpu_clock *c)
{
    uint64_t user, system;

    if (c->thread) {
        mutex_lock(&c->task->k->mu);
        user = task_utime_ns(c->task);
        system = task_stime_ns(c->task);
        mutex_unlock(&c->task->k->mu);
    } else {
        struct task_usage u;
        tg_usage(c->tg, &u);
        user = u.utime_ns;
        system = u.stime_ns;
    }
    return (int64_t)(c->kind == CPU_VIRT ? user : user + system);
}

deadline_t cpu_clock_deadline(const struct kernel *k, int64_t left_ns)
{
    /* All CPUs may work for the group at once. */
    return deadline_after(MAX(left_ns / k->cfg.cpus, CPU_WATCH_MIN_NS));
}

/* ---- reading ---- */

/* Without what t's time namespace adds. */
static int clock_read_outside(struct task *t, int clock, int64_t *out_ns)
{
    struct cpu_clock c;

    if (!clock_is_cpu(clock))
        return clock_read(clock, out_ns);
    int r = cpu_clock_get(t, clock, &c);
    if (r)
        return r;
    *out_ns = cpu_clock_read(&c);
    cpu_clock_put(&c);
    return 0;
}

int task_clock_read(struct task *t, int clock, int64_t *out_ns)
{
    int64_t ns;
    int r = clock_read_outside(t, clock, &ns);

    if (!r)
        *out_ns = ns + task_clock_ahead(t, clock);
    return r;
}

int task_clock_res(struct task *t, int clock, int64_t *out_ns)
{
    struct cpu_clock c;

    if (!clock_is_cpu(clock))
        return clock_resolution(clock, out_ns);
    int r = cpu_clock_get(t, clock, &c);
    if (r)
        return r;
    *out_ns = c.kind == CPU_SCHED ? 1 : NSEC_PER_SEC / 250;
    cpu_clock_put(&c);
    return 0;
}

/* ---- sleeping ---- */

/* Till clock shows until. 0, or -EINTR. The host's clock may be set meanwhile, so look again. */
static int sleep_on_clock(struct task *t, int clock, int64_t until)
{
    for (;;) {
        int64_t now;
        int r = blocker_wait(&t->blocker, clock_deadline(clock, until));
        if (r == -EINTR)
            return r;
        r = clock_read(clock, &now);
        if (r || now >= until)
            return r;
    }
}

static int sleep_on_cpu(struct task *t, const struct cpu_clock *c, int64_t until)
{
    for (;;) {
        const int64_t now = cpu_clock_read(c);
        if (now >= until)
            return 0;
        if (blocker_wait(&t->blocker, cpu_clock_deadline(t->k, until - now)) == -EINTR)
            return -EINTR;
    }
}

static int sleep_until(struct task *t, int clock, int64_t until)
{
    struct cpu_clock c;

    if (!clock_is_cpu(clock))
        return sleep_on_clock(t, clock, until);
    int r = cpu_clock_get(t, clock, &c);
    if (r)
        return r;
    r = sleep_on_cpu(t, &c, until);
    cpu_clock_put(&c);
    return r;
}

static int64_t sleep_restart(struct task *t);

/* restart_arg: 0 clock, 1 end, 2 where the rest goes. */
static int64_t sleep_relative(struct task *t)
{
    const int clock = (int)t->restart_arg[0];
    const int64_t until = (int64_t)t->restart_arg[1];
    const uaddr_t rem = uaddr(t->restart_arg[2]);
    int64_t now;
    int r = sleep_until(t, clock, until);

    if (r != -EINTR)
        return r;
    if (!uaddr_is_null(rem)) {
        r = clock_read_outside(t, clock, &now);
        if (r)
            return r;
        if (now >= until)
            return 0;
        const struct lx_timespec ts = lx_timespec_from(until - now);
        if (copyout_obj(&t->ua, rem, &ts))
            return -EFAULT;
    }
    t->restart_fn = sleep_restart;
    return -ERESTART_RESTARTBLOCK;
}

static int64_t sleep_restart(struct task *t)
{
    return sleep_relative(t);
}

static int sleep_clock_check(struct task *t, int clock)
{
    struct cpu_clock c;

    if (!clock_is_cpu(clock)) {
        if (!clock_is_known(clock))
            return -EINVAL;
        return clock_can_sleep(clock) ? 0 : -EOPNOTSUPP;
    }
    int r = cpu_clock_get(t, clock, &c);
    if (r)
        return r;
    if (clock == CLOCK_THREAD_CPUTIME_ID)
        r = -EOPNOTSUPP;
    else if (c.thread && c.task == t)
        r = -EINVAL; /* nobody else could make it go on */
    cpu_clock_put(&c);
    return r;
}

int64_t task_nanosleep(struct task *t, int clock, bool absolute, int64_t ns, uaddr_t rem)
{
    int64_t now;
    int r = sleep_clock_check(t, clock);

    if (r)
        return r;
    if (absolute) {
        r = sleep_until(t, clock, task_clock_outside(t, clock, ns));
        return r == -EINTR ? -ERESTARTNOHAND : r;
    }
    /* A relative sleep does not follow the time of day when that is set. */
    if (clock == CLOCK_REALTIME)
        clock = CLOCK_MONOTONIC;
    r = clock_read_outside(t, clock, &now);
    if (r)
        return r;
    t->restart_arg[0] = (uint64_t)clock;
    t->restart_arg[1] = (uint64_t)timer_add(now, ns);
    t->restart_arg[2] = rem.v;
    return sleep_relative(t);
}
