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
#define PLACE_QUICK_NS (UINT64_C(1000) * 1000)
#define PLACE_QUICK_TURNS 8
/* How long the first bond lasts; each that follows twice as long, up to the last. */
#define PLACE_BOND_FIRST_NS (UINT64_C(4) * 1000 * 1000)
#define PLACE_BOND_LAST_NS (UINT64_C(128) * 1000 * 1000)

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
    pt_watch_stop(p);
    cond_destroy(&p->watch_cond);
    mutex_destroy(&p->place_mu);
}

void pt_place_add(struct pt_ctx *c)
{
    struct pt_plat *p = pt_plat(c->base.plat);

    mutex_lock(&p->place_mu);
    pt_watch_start_locked(p);
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
    c->bond_ns = MIN(MAX(2 * c->bond_ns, PLACE_BOND_FIRST_NS), PLACE_BOND_LAST_NS);
    c->bond_end_ns = now + c->bond_ns;
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
    if (state == PT_CPU_FREE)
        c->bond_ns = 0;
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

    if (p->cpu_count < 2) {
        c->cpu = PT_CPU_FREE;
        c->quick = 0;
    }
    if (LIKELY(c->cpu >= 0)) {
        if (UNLIKELY(atomic_load(&c->let_go)))
            place_free(c, p, PT_CPU_FREE);
        else if (UNLIKELY(now > c->bond_end_ns))
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
        pt_watch_wake(p);
}

void pt_place_leave(struct pt_ctx *c, uint64_t entered, uint64_t now)
{
    struct pt_plat *p = pt_plat(c->base.plat);

    atomic_store_explicit(&c->entered_ns, 0, memory_order_release);
    if (c->cpu >= 0)
        atomic_fetch_sub_explicit(&p->cpu_guests[c->cpu], 1, memory_order_relaxed);
    else
        c->quick = now - entered < PLACE_QUICK_NS ? c->quick + 1 : 0;
}
