/* One thread of the sentry that looks at guests which have been running for long: it lets go of
 * those that are bound to a CPU, and finds out about ends that nobody is told. It ticks only while
 * guests run. */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "platform/ptrace/ptrace_priv.h"

/* How often it looks: when a bound guest runs, when only others do; and how often in vain before it
 * sleeps. */
#define WATCH_TICK_NS (UINT64_C(4) * 1000 * 1000)
#define WATCH_SLOW_TICK_NS (UINT64_C(64) * 1000 * 1000)
#define WATCH_IDLE_TICKS 25
/* A guest that has run for so long is let go. */
#define WATCH_LONG_NS (UINT64_C(3) * 1000 * 1000)
/* How often it looks for ends, and at whom: that have run for so long. */
#define WATCH_END_NS (UINT64_C(200) * 1000 * 1000)
#define WATCH_STACK (64u << 10)

static void watch_let_go(struct pt_plat *p, struct pt_ctx *c)
{
    if (p->cpu_count < 2 || atomic_load(&c->let_go))
        return;
    atomic_store(&c->let_go, true);
    (void)sched_setaffinity(c->tid, sizeof(p->cpus), &p->cpus);
}

/* The end of a process shows at its leader only when every other thread has been waited for, by the
 * thread that traces it; which may be asleep in a system call of its guest. Waits in its place. */
static void watch_take_ended_locked(struct pt_plat *p, const struct pt_ctx *leader)
{
    struct pt_ctx *c;

    list_for_each_entry (c, &p->placed, place_node) {
        siginfo_t si = {.si_pid = 0};
        if (c->as != leader->as || c == leader || atomic_load(&c->entered_ns) != 0 ||
            atomic_load(&c->reaped))
            continue;
        if (waitid(P_PID, (id_t)c->tid, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) != 0 ||
            si.si_pid == 0 || (si.si_code != CLD_KILLED && si.si_code != CLD_EXITED))
            continue;
        if (wait4(c->tid, NULL, __WALL | WNOHANG, NULL) == c->tid)
            atomic_store(&c->reaped, true);
    }
}

enum watch_seen { WATCH_NOBODY, WATCH_FREE, WATCH_BOUND };

static enum watch_seen watch_look_locked(struct pt_plat *p, uint64_t now, bool for_ends)
{
    struct pt_ctx *c;
    enum watch_seen seen = WATCH_NOBODY;

    list_for_each_entry (c, &p->placed, place_node) {
        uint64_t entered = atomic_load(&c->entered_ns);
        if (entered == 0)
            continue;
        if (now > entered + WATCH_LONG_NS)
            watch_let_go(p, c);
        if (!atomic_load(&c->let_go))
            seen = WATCH_BOUND;
        else if (seen == WATCH_NOBODY)
            seen = WATCH_FREE;
        if (for_ends && now > entered + WATCH_END_NS && c->tid == c->as->pid &&
            atomic_load(&c->as->users) > 1)
            watch_take_ended_locked(p, c);
    }
    return seen;
}

/* Who enters from now on sees that we sleep and wakes us; who did before is seen by one more look.
 */
static void watch_sleep_locked(struct pt_plat *p)
{
    atomic_store(&p->watch_asleep, true);
    if (watch_look_locked(p, pt_now(), false) == WATCH_NOBODY)
        (void)cond_wait(&p->watch_cond, &p->place_mu, UINT64_MAX);
    atomic_store(&p->watch_asleep, false);
}

static void *watch_main(void *arg)
{
    struct pt_plat *p = arg;
    uint64_t next_ends = 0;
    unsigned idle = 0;

    (void)sched_setaffinity(0, sizeof(p->cpus), &p->cpus);
    mutex_lock(&p->place_mu);
    while (!p->watch_stop) {
        uint64_t now = pt_now(), tick = WATCH_TICK_NS;
        bool for_ends = now >= next_ends;
        enum watch_seen seen = watch_look_locked(p, now, for_ends);
        if (for_ends)
            next_ends = now + WATCH_END_NS;
        idle = seen == WATCH_NOBODY ? idle + 1 : 0;
        if (seen == WATCH_FREE)
            tick = WATCH_SLOW_TICK_NS;
        if (idle < WATCH_IDLE_TICKS) {
            (void)cond_wait(&p->watch_cond, &p->place_mu, now + tick);
        } else {
            watch_sleep_locked(p);
            idle = 0;
        }
    }
    mutex_unlock(&p->place_mu);
    return NULL;
}

void pt_watch_wake(struct pt_plat *p)
{
    mutex_lock(&p->place_mu);
    cond_signal(&p->watch_cond);
    mutex_unlock(&p->place_mu);
}

void pt_watch_start_locked(struct pt_plat *p)
{
    pthread_attr_t attr;

    if (p->watch_started || pthread_attr_init(&attr) != 0)
        return;
    if (pthread_attr_setstacksize(&attr, WATCH_STACK) == 0)
        p->watch_started = pthread_create(&p->watcher, &attr, watch_main, p) == 0;
    (void)pthread_attr_destroy(&attr);
}

void pt_watch_stop(struct pt_plat *p)
{
    mutex_lock(&p->place_mu);
    p->watch_stop = true;
    cond_signal(&p->watch_cond);
    mutex_unlock(&p->place_mu);
    if (p->watch_started)
        (void)pthread_join(p->watcher, NULL);
}
