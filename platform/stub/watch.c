/* One thread of the sentry that looks at guests which have been running for long: it lets go of
 * those that are bound to a CPU, and tells the platform. It ticks only while guests run. */
#include <errno.h>

#include "platform/stub/seat.h"

/* How often it looks: when a bound guest runs, when only others do; and how often in vain before it
 * sleeps. */
#define WATCH_TICK_NS (UINT64_C(4) * 1000 * 1000)
#define WATCH_SLOW_TICK_NS (UINT64_C(64) * 1000 * 1000)
#define WATCH_IDLE_TICKS 25
/* A guest that has run for so long is let go. */
#define WATCH_LONG_NS (UINT64_C(3) * 1000 * 1000)
/* How often it tells the platform of guests that have run for so long. */
#define WATCH_TELL_NS (UINT64_C(200) * 1000 * 1000)
#define WATCH_STACK (64u << 10)

static void watch_let_go(struct stub_placer *p, struct stub_seat *s)
{
    if (p->cpu_count < 2 || atomic_load(&s->let_go))
        return;
    atomic_store(&s->let_go, true);
    (void)sched_setaffinity(s->tid, sizeof(s->cpus), &s->cpus);
}

enum watch_seen { WATCH_NOBODY, WATCH_FREE, WATCH_BOUND };

static enum watch_seen watch_look_locked(struct stub_placer *p, uint64_t now, bool long_turns)
{
    struct stub_seat *s;
    enum watch_seen seen = WATCH_NOBODY;

    list_for_each_entry (s, &p->placed, node) {
        uint64_t entered = atomic_load(&s->entered_ns);
        if (entered == 0)
            continue;
        if (now > entered + WATCH_LONG_NS)
            watch_let_go(p, s);
        if (!atomic_load(&s->let_go))
            seen = WATCH_BOUND;
        else if (seen == WATCH_NOBODY)
            seen = WATCH_FREE;
        if (long_turns && p->long_turn != NULL && now > entered + WATCH_TELL_NS)
            p->long_turn(p, s);
    }
    return seen;
}

/* Who enters from now on sees that we sleep and wakes us; who did before is seen by one more look.
 */
static void watch_sleep_locked(struct stub_placer *p)
{
    atomic_store(&p->watch_asleep, true);
    if (watch_look_locked(p, stub_now(), false) == WATCH_NOBODY)
        (void)cond_wait(&p->watch_cond, &p->mu, UINT64_MAX);
    atomic_store(&p->watch_asleep, false);
}

static void *watch_main(void *arg)
{
    struct stub_placer *p = arg;
    uint64_t next_long = 0;
    unsigned idle = 0;

    (void)sched_setaffinity(0, sizeof(p->cpus), &p->cpus);
    mutex_lock(&p->mu);
    while (!p->watch_stop) {
        uint64_t now = stub_now(), tick = WATCH_TICK_NS;
        bool long_turns = now >= next_long;
        enum watch_seen seen = watch_look_locked(p, now, long_turns);
        if (long_turns)
            next_long = now + WATCH_TELL_NS;
        idle = seen == WATCH_NOBODY ? idle + 1 : 0;
        if (seen == WATCH_FREE)
            tick = WATCH_SLOW_TICK_NS;
        if (idle < WATCH_IDLE_TICKS) {
            (void)cond_wait(&p->watch_cond, &p->mu, now + tick);
        } else {
            watch_sleep_locked(p);
            idle = 0;
        }
    }
    mutex_unlock(&p->mu);
    return NULL;
}

void stub_watch_wake(struct stub_placer *p)
{
    mutex_lock(&p->mu);
    cond_signal(&p->watch_cond);
    mutex_unlock(&p->mu);
}

void stub_watch_start_locked(struct stub_placer *p)
{
    pthread_attr_t attr;

    if (p->watch_started || pthread_attr_init(&attr) != 0)
        return;
    if (pthread_attr_setstacksize(&attr, WATCH_STACK) == 0)
        p->watch_started = pthread_create(&p->watcher, &attr, watch_main, p) == 0;
    (void)pthread_attr_destroy(&attr);
}

void stub_watch_stop(struct stub_placer *p)
{
    mutex_lock(&p->mu);
    p->watch_stop = true;
    cond_signal(&p->watch_cond);
    mutex_unlock(&p->mu);
    if (p->watch_started)
        (void)pthread_join(p->watcher, NULL);
}
