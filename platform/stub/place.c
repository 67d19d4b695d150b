/* Which CPU a sentry thread and its stub take turns on.
 *
 * They share one, since waking another CPU costs several times the whole switch; left to itself the
 * host spreads them. But what is bound cannot be balanced, so bonds are short:
 * - a guest that computes for long is let go by a watching thread; the pair stays free until its
 *   guest calls often again;
 * - a pair that calls often is let go for one turn from time to time, so that the host can put it
 *   where there is room, and is bound again wherever it then is;
 * - it moves at once when it keeps meeting others of the sandbox while another CPU has nobody,
 *   unless it follows one of them (sentry/wait/pairing.h).
 * New threads and stubs inherit their parent's place. */
#include <errno.h>
#include <sched.h>

#include "platform/stub/seat.h"

/* Times a context must have met company before it moves: a task that wakes another and then sleeps
 * must not chase it away. */
#define PLACE_PATIENCE 64
/* Turns shorter than this, so many in a row, bind a free pair. */
#define PLACE_QUICK_NS (UINT64_C(1000) * 1000)
#define PLACE_QUICK_TURNS 8
/* How long the first bond lasts; each that follows twice as long, up to the last. */
#define PLACE_BOND_FIRST_NS (UINT64_C(4) * 1000 * 1000)
#define PLACE_BOND_LAST_NS (UINT64_C(128) * 1000 * 1000)

void stub_placer_init(struct stub_placer *p)
{
    mutex_init(&p->mu, LOCK_RANK_LEAF);
    cond_init(&p->watch_cond);
    list_init(&p->placed);
    if (sched_getaffinity(0, sizeof(p->cpus), &p->cpus) != 0)
        CPU_ZERO(&p->cpus);
    p->cpu_count = CPU_COUNT(&p->cpus);
    stub_nice_init(&p->nicer);
}

void stub_placer_fini(struct stub_placer *p)
{
    stub_watch_stop(p);
    cond_destroy(&p->watch_cond);
    mutex_destroy(&p->mu);
}

void stub_seat_init(struct stub_seat *s, struct stub_placer *p)
{
    s->placer = p;
    s->cpus = p->cpus;
    s->cpu = STUB_CPU_NEW;
    s->clock_shared = true;
    mutex_init(&s->clock_mu, LOCK_RANK_PLATFORM);
}

void stub_seat_fini(struct stub_seat *s)
{
    mutex_destroy(&s->clock_mu);
}

void stub_seat_inherit(struct stub_seat *s, const struct stub_seat *parent)
{
    s->cpus = parent->cpus;
    s->cpu = parent->split || atomic_load(&parent->let_go) ? STUB_CPU_NEW : parent->cpu;
    s->bond_ns = parent->bond_ns;
    s->bond_end_ns = parent->bond_end_ns;
}

void stub_seat_place(struct stub_seat *s)
{
    struct stub_placer *p = s->placer;

    mutex_lock(&p->mu);
    stub_watch_start_locked(p);
    list_add_tail(&s->node, &p->placed);
    mutex_unlock(&p->mu);
    s->placed = true;
}

void stub_seat_unplace(struct stub_seat *s)
{
    struct stub_placer *p = s->placer;

    if (!s->placed)
        return;
    mutex_lock(&p->mu);
    list_del(&s->node);
    mutex_unlock(&p->mu);
    s->placed = false;
    atomic_store(&s->let_go, false);
}

static int place_lowest(const cpu_set_t *set)
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((size_t)cpu, set))
            return cpu;
    return -1;
}

/* ---- the pair; called by its sentry thread ---- */

static void place_bind(struct stub_seat *s, int cpu, uint64_t now)
{
    cpu_set_t set;

    s->cpu = STUB_CPU_FREE;
    s->follows = false;
    s->company = 0;
    s->quick = 0;
    if (cpu >= 0 && cpu < CPU_SETSIZE && !CPU_ISSET((size_t)cpu, &s->cpus))
        cpu = place_lowest(&s->cpus);
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    /* A CPU that has been taken away leaves both where the host puts them. */
    if (sched_setaffinity(0, sizeof(set), &set) != 0 ||
        sched_setaffinity(s->tid, sizeof(set), &set) != 0)
        return;
    s->cpu = cpu;
    s->bond_ns = MIN(MAX(2 * s->bond_ns, PLACE_BOND_FIRST_NS), PLACE_BOND_LAST_NS);
    s->bond_end_ns = now + s->bond_ns;
}

void stub_place_fetch(const struct stub_placer *p, pid_t tid)
{
    int cpu = sched_getcpu();
    cpu_set_t set;

    if (p->cpu_count < 2 || cpu < 0 || cpu >= CPU_SETSIZE)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    (void)sched_setaffinity(tid, sizeof(set), &set);
}

/* state: STUB_CPU_FREE, or STUB_CPU_NEW to be bound at the next turn. */
static void place_free(struct stub_seat *s, int state)
{
    (void)sched_setaffinity(0, sizeof(s->cpus), &s->cpus);
    if (!atomic_exchange(&s->let_go, false))
        (void)sched_setaffinity(s->tid, sizeof(s->cpus), &s->cpus);
    s->cpu = state;
    s->follows = false;
    s->quick = 0;
    if (state == STUB_CPU_FREE)
        s->bond_ns = 0;
}

/* The first turn of the owner's thread, which may have been bound by another seat. */
static void place_first(struct stub_seat *s)
{
    cpu_set_t set;

    s->entered = true;
    if (s->cpu < 0) {
        s->cpu = STUB_CPU_NEW;
        return;
    }
    CPU_ZERO(&set);
    CPU_SET((size_t)s->cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        s->cpu = STUB_CPU_NEW;
}

/* A CPU of s other than not with no guest of ours. */
static int place_empty(const struct stub_seat *s, int not )
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (cpu != not &&CPU_ISSET((size_t)cpu, &s->cpus) &&
            atomic_load_explicit(&s->placer->cpu_guests[cpu], memory_order_relaxed) == 0)
            return cpu;
    return -1;
}

/* A bound pair meets the others on its CPU. */
static void place_company(struct stub_seat *s, const struct stub_placer *p, uint64_t now)
{
    if (LIKELY(atomic_load_explicit(&p->cpu_guests[s->cpu], memory_order_relaxed) == 0) ||
        s->follows || ++s->company < PLACE_PATIENCE)
        return;
    s->company = 0;
    int cpu = place_empty(s, s->cpu);
    if (cpu >= 0)
        place_bind(s, cpu, now);
}

bool stub_seat_follow(struct stub_seat *s, int cpu)
{
    const uint64_t now = stub_now();

    if (s->split || !s->entered || s->placer->cpu_count < 2)
        return false;
    if (cpu < 0) {
        if (s->follows)
            place_free(s, STUB_CPU_NEW);
        return true;
    }
    if (cpu >= CPU_SETSIZE || !CPU_ISSET((size_t)cpu, &s->cpus))
        return false;
    if (s->cpu != cpu)
        place_bind(s, cpu, now);
    if (s->cpu != cpu)
        return false;
    s->follows = true;
    s->bond_end_ns = now + PLACE_BOND_LAST_NS;
    return true;
}

bool stub_seat_split(struct stub_seat *s)
{
    struct stub_placer *p = s->placer;
    const int cpu = sched_getcpu();
    cpu_set_t mine, others = s->cpus;

    if (s->follows || cpu < 0 || cpu >= CPU_SETSIZE || place_empty(s, cpu) < 0)
        return false;
    if (2 * (atomic_fetch_add(&p->splits, 1) + 1) > p->cpu_count)
        goto out_no;
    CPU_ZERO(&mine);
    CPU_SET((size_t)cpu, &mine);
    CPU_CLR((size_t)cpu, &others);
    if (sched_setaffinity(0, sizeof(mine), &mine) != 0 ||
        sched_setaffinity(s->tid, sizeof(others), &others) != 0)
        goto out_no;
    s->cpu = STUB_CPU_FREE;
    s->split = true;
    return true;

out_no:
    atomic_fetch_sub(&p->splits, 1);
    return false;
}

void stub_seat_join(struct stub_seat *s)
{
    if (!s->split)
        return;
    s->split = false;
    atomic_fetch_sub(&s->placer->splits, 1);
    place_free(s, STUB_CPU_NEW);
}

void stub_cpus_pick(const cpu_set_t *from, const uint64_t *mask, size_t words, cpu_set_t *out)
{
    size_t nr = 0;

    CPU_ZERO(out);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, from))
            continue;
        if (nr / 64 < words && (mask[nr / 64] >> (nr % 64) & 1))
            CPU_SET(cpu, out);
        nr++;
    }
    if (CPU_COUNT(out) == 0)
        *out = *from;
}

void stub_seat_limit(struct stub_seat *s, const uint64_t *mask, size_t words)
{
    struct stub_placer *p = s->placer;
    cpu_set_t cpus;

    stub_cpus_pick(&p->cpus, mask, words, &cpus);
    if (CPU_EQUAL(&cpus, &s->cpus))
        return;
    mutex_lock(&p->mu);
    s->cpus = cpus;
    atomic_store(&s->let_go, false);
    mutex_unlock(&p->mu);
    if (s->split)
        stub_seat_join(s);
    else
        place_free(s, STUB_CPU_NEW);
}

void stub_seat_nice(struct stub_seat *s, int nice)
{
    s->nice_stays |= stub_nice_set(&s->placer->nicer, s->tid, nice);
}

void stub_seat_enter(struct stub_seat *s, uint64_t now)
{
    struct stub_placer *p = s->placer;

    if (p->cpu_count < 2) {
        s->cpu = STUB_CPU_FREE;
        s->quick = 0;
    } else if (UNLIKELY(!s->entered)) {
        place_first(s);
    }
    if (s->split) {
        /* Nothing to decide here. */
    } else if (LIKELY(s->cpu >= 0)) {
        if (UNLIKELY(atomic_load(&s->let_go)))
            place_free(s, STUB_CPU_FREE);
        else if (UNLIKELY(now > s->bond_end_ns))
            place_free(s, STUB_CPU_NEW);
        else
            place_company(s, p, now);
    } else if (s->cpu == STUB_CPU_NEW || s->quick >= PLACE_QUICK_TURNS) {
        place_bind(s, sched_getcpu(), now);
    }
    if (s->cpu >= 0)
        atomic_fetch_add_explicit(&p->cpu_guests[s->cpu], 1, memory_order_relaxed);
    atomic_store(&s->entered_ns, now);
    if (UNLIKELY(atomic_load(&p->watch_asleep)))
        stub_watch_wake(p);
}

void stub_seat_leave(struct stub_seat *s, uint64_t entered, uint64_t now)
{
    struct stub_placer *p = s->placer;

    /* Where the host's clock counts, what a turn took may be no CPU time at all. */
    if (UNLIKELY(s->clock_shared))
        atomic_fetch_add_explicit(&s->cpu_ns, now - entered, memory_order_release);
    atomic_store_explicit(&s->entered_ns, 0, memory_order_release);
    if (s->cpu >= 0)
        atomic_fetch_sub_explicit(&p->cpu_guests[s->cpu], 1, memory_order_relaxed);
    else
        s->quick = now - entered < PLACE_QUICK_NS ? s->quick + 1 : 0;
}
