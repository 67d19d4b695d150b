/* Which CPU a sentry thread and its stub take turns on.
 *
 * They share one, since waking another CPU costs several times the whole switch; left to itself the
 * host spreads them. But what is bound cannot be balanced, so bonds are short:
 * - a guest that computes for long is let go by a watching thread; the pair stays free until its
 *   guest calls often again;
 * - a pair that calls often is let go for one turn from time to time, so that the host can put it
 *   where there is room, and is bound again wherever it then is;
 * - it moves at once when it keeps meeting others of the sandbox while another CPU has nobody.
 * New threads and stubs inherit their parent's place. */
#include <errno.h>
#include <sched.h>

#include "platform/ptrace/ptrace_priv.h"

/* Times a context must have met company before it moves: a task that wakes another and then sleeps
 * must not chase it away. */
#define PLACE_PATIENCE 64
/* Turns shorter than this, so many in a row, bind a free pair. */
#define PLACE_QUICK_NS (UINT64_C(100) * 1000)
#define PLACE_QUICK_TURNS 16
/* A guest that has run for so long is let go. */
#define PLACE_LONG_NS (UINT64_C(3) * 1000 * 1000)
/* A bond lasts no longer. */
#define PLACE_BOND_NS (UINT64_C(100) * 1000 * 1000)
/* How often the watching thread looks, and how often in vain before it sleeps. */
#define PLACE_TICK_NS (UINT64_C(4) * 1000 * 1000)
#define PLACE_IDLE_TICKS 25
#define PLACE_WATCHER_STACK (64u << 10)

/* ---- the watching thread ---- */

/* Lets go of guests that have run for long. True when any runs. */
static bool watch_look_locked(struct pt_plat *p, uint64_t now)
{
    struct pt_ctx *c;
    bool any = false;

    list_for_each_entry (c, &p->placed, place_node) {
        uint64_t entered = atomic_load(&c->entered_ns);
        if (entered == 0)
            continue;
        any = true;
        if (now < entered + PLACE_LONG_NS || atomic_load(&c->let_go))
            continue;
        atomic_store(&c->let_go, true);
        (void)sched_setaffinity(c->tid, sizeof(p->cpus), &p->cpus);
    }
    return any;
}

static void *watch_main(void *arg)
{
    struct pt_plat *p = arg;
    unsigned idle = 0;

    (void)sched_setaffinity(0, sizeof(p->cpus), &p->cpus);
    mutex_lock(&p->place_mu);
    while (!p->watch_stop) {
        uint64_t now = pt_now();
        idle = watch_look_locked(p, now) ? 0 : idle + 1;
        if (idle < PLACE_IDLE_TICKS) {
            (void)cond_wait(&p->watch_cond, &p->place_mu, now + PLACE_TICK_NS);
            continue;
        }
        /* Who enters from now on sees this and wakes us; who did before is seen by one more look.
         */
        atomic_store(&p->watch_asleep, true);
        if (!watch_look_locked(p, now))
            (void)cond_wait(&p->watch_cond, &p->place_mu, UINT64_MAX);
        atomic_store(&p->watch_asleep, false);
        idle = 0;
    }
    mutex_unlock(&p->place_mu);
    return NULL;
}

static void watch_wake(struct pt_plat *p)
{
    mutex_lock(&p->place_mu);
    cond_signal(&p->watch_cond);
    mutex_unlock(&p->place_mu);
}

/* The first context starts it: before, the sentry has one thread. */
static void watch_start_locked(struct pt_plat *p)
{
    pthread_attr_t attr;

    if (p->watch_started || pthread_attr_init(&attr) != 0)
        return;
    if (pthread_attr_setstacksize(&attr, PLACE_WATCHER_STACK) == 0)
        p->watch_started = pthread_create(&p->watcher, &attr, watch_main, p) == 0;
    (void)pthread_attr_destroy(&attr);
}

void pt_place_init(struct pt_plat *p)
{
    mutex_init(&p->place_mu, LOCK_RANK_LEAF);
    cond_init(&p->watch_cond);
    list_init(&p->placed);
    if (sched_getaffinity(0, sizeof(p->cpus), &p->cpus) != 0)
        CPU_ZERO(&p->cpus);
    p->cpu_count = CPU_COUNT(&p->cpus);
}

void pt_place_fini(struct pt_plat *p)
{
    mutex_lock(&p->place_mu);
    p->watch_stop = true;
    cond_signal(&p->watch_cond);
    mutex_unlock(&p->place_mu);
    if (p->watch_started)
        (void)pthread_join(p->watcher, NULL);
    cond_destroy(&p->watch_cond);
    mutex_destroy(&p->place_mu);
}

void pt_place_add(struct pt_ctx *c)
{
    struct pt_plat *p = pt_plat(c->base.plat);

    if (p->cpu_count < 2)
        return;
    mutex_lock(&p->place_mu);
    watch_start_locked(p);
    list_add_tail(&c->place_node, &p->placed);
    mutex_unlock(&p->place_mu);
    c->placed = true;
}

void pt_place_remove(struct pt_ctx *c)
{
    struct pt_plat *p = pt_plat(c->base.plat);

    if (!c->placed)
        return;
    mutex_lock(&p->place_mu);
    list_del(&c->place_node);
    mutex_unlock(&p->place_mu);
    c->placed = false;
    atomic_store(&c->let_go, false);
}

/* ---- the pair; called by its sentry thread ---- */

static void place_bind(struct pt_ctx *c, int cpu, uint64_t now)
{
    cpu_set_t set;

    c->cpu = PT_CPU_FREE;
    c->company = 0;
    c->quick = 0;
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    /* A CPU that has been taken away leaves both where the host puts them. */
    if (sched_setaffinity(0, sizeof(set), &set) != 0 ||
        sched_setaffinity(c->tid, sizeof(set), &set) != 0)
        return;
    c->cpu = cpu;
    c->bound_ns = now;
}

void pt_place_fetch(const struct pt_plat *p, pid_t tid)
{
    int cpu = sched_getcpu();
    cpu_set_t set;

    if (p->cpu_count < 2 || cpu < 0 || cpu >= CPU_SETSIZE)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    (void)sched_setaffinity(tid, sizeof(set), &set);
}

/* state: PT_CPU_FREE, or PT_CPU_NEW to be bound at the next turn. */
static void place_free(struct pt_ctx *c, const struct pt_plat *p, int state)
{
    (void)sched_setaffinity(0, sizeof(p->cpus), &p->cpus);
    if (!atomic_exchange(&c->let_go, false))
        (void)sched_setaffinity(c->tid, sizeof(p->cpus), &p->cpus);
    c->cpu = state;
    c->quick = 0;
}

static int place_empty(const struct pt_plat *p)
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((size_t)cpu, &p->cpus) &&
            atomic_load_explicit(&p->cpu_guests[cpu], memory_order_relaxed) == 0)
            return cpu;
    return -1;
}

/* A bound pair meets the others on its CPU. */
static void place_company(struct pt_ctx *c, const struct pt_plat *p, uint64_t now)
{
    if (LIKELY(atomic_load_explicit(&p->cpu_guests[c->cpu], memory_order_relaxed) == 0) ||
        ++c->company < PLACE_PATIENCE)
        return;
    c->company = 0;
    int cpu = place_empty(p);
    if (cpu >= 0)
        place_bind(c, cpu, now);
}

void pt_place_enter(struct pt_ctx *c, uint64_t now)
{
    struct pt_plat *p = pt_plat(c->base.plat);

    if (!c->placed)
        return;
    if (LIKELY(c->cpu >= 0)) {
        if (UNLIKELY(atomic_load(&c->let_go)))
            place_free(c, p, PT_CPU_FREE);
        else if (UNLIKELY(now - c->bound_ns > PLACE_BOND_NS))
            place_free(c, p, PT_CPU_NEW);
        else
            place_company(c, p, now);
    } else if (c->cpu == PT_CPU_NEW || c->quick >= PLACE_QUICK_TURNS) {
        place_bind(c, sched_getcpu(), now);
    }
    if (c->cpu >= 0)
        atomic_fetch_add_explicit(&p->cpu_guests[c->cpu], 1, memory_order_relaxed);
    atomic_store(&c->entered_ns, now);
    if (UNLIKELY(atomic_load(&p->watch_asleep)))
        watch_wake(p);
}

void pt_place_leave(struct pt_ctx *c, uint64_t entered, uint64_t now)
{
    struct pt_plat *p = pt_plat(c->base.plat);

    if (!c->placed)
        return;
    atomic_store_explicit(&c->entered_ns, 0, memory_order_release);
    if (c->cpu >= 0)
        atomic_fetch_sub_explicit(&p->cpu_guests[c->cpu], 1, memory_order_relaxed);
    else
        c->quick = now - entered < PLACE_QUICK_NS ? c->quick + 1 : 0;
}
