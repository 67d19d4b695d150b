/* Numbers for threads in guest code: who has one, who waits, who has to give way. */
#include "sentry/kernel/rseq_cpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/kernel/rseq.h"
#include "sentry/kernel/task_priv.h"

/* How long a thread may keep a number that another waits for: as long as Linux lets one of several
 * that compute run on. */
#define SLICE_NS (UINT64_C(3) * 1000 * 1000)

struct rseq_cpus {
    struct mutex mu; /* rank RSEQ: the rest */
    struct list waiting;
    /* Counted up before the one that waits looks who sleeps; a sleeper says so before it looks. */
    _Atomic uint32_t waiters;
    int count;
    struct task_priv *holder[]; /* by number; NULL: free */
};

int rseq_cpus_new(int count, struct rseq_cpus **out_set)
{
    struct rseq_cpus *set = calloc(1, sizeof(*set) + (size_t)count * sizeof(set->holder[0]));

    if (!set)
        return -ENOMEM;
    mutex_init(&set->mu, LOCK_RANK_RSEQ);
    list_init(&set->waiting);
    set->count = count;
    *out_set = set;
    return 0;
}

void rseq_cpus_free(struct rseq_cpus *set)
{
    if (!set)
        return;
    BUG_ON(!list_empty(&set->waiting));
    for (int i = 0; i < set->count; i++)
        BUG_ON(set->holder[i] != NULL);
    mutex_destroy(&set->mu);
    free(set);
}

bool rseq_cpu_wanted(const struct rseq_cpus *set)
{
    return atomic_load_explicit(&set->waiters, memory_order_relaxed) > 0;
}

static struct rseq_cpus *set_of(const struct task_priv *p)
{
    return p->t->k->rseq_cpus;
}

static bool may_have(const struct rseq_user *u, int nr)
{
    return u->mask[nr / 64] >> (nr % 64) & 1;
}

/* ---- having a number ---- */

static void give_locked(struct rseq_cpus *set, struct task_priv *p, int nr, uint64_t now)
{
    struct rseq_user *u = &p->rseq_user;

    BUG_ON(set->holder[nr] || u->nr >= 0);
    set->holder[nr] = p;
    u->since_ns = now;
    u->give_way = u->settled = false;
    u->cid = mm_cid_take(p->t->ua.mm);
    atomic_store_explicit(&u->nr, nr, memory_order_relaxed);
    /* Whoever had it meanwhile may have undone what this one has read. */
    atomic_store(&p->rseq_event, true);
}

static void drop_locked(struct rseq_cpus *set, struct task_priv *p)
{
    struct rseq_user *u = &p->rseq_user;
    const int nr = u->nr;

    set->holder[nr] = NULL;
    u->last_nr = nr;
    u->give_way = false;
    mm_cid_put(p->t->ua.mm, u->cid);
    atomic_store_explicit(&u->nr, -1, memory_order_relaxed);
}

static void stop_waiting_locked(struct rseq_cpus *set, struct rseq_user *u)
{
    if (!u->waits)
        return;
    u->waits = false;
    list_del(&u->node);
    atomic_fetch_sub(&set->waiters, 1);
}

/* A free number goes to the first who may have it. */
static void offer_locked(struct rseq_cpus *set, int nr, uint64_t now)
{
    struct rseq_user *u;

    list_for_each_entry (u, &set->waiting, node) {
        if (!may_have(u, nr))
            continue;
        struct task_priv *p = container_of(u, struct task_priv, rseq_user);
        stop_waiting_locked(set, u);
        give_locked(set, p, nr, now);
        blocker_wake(&p->t->blocker);
        return;
    }
}

/* A read-modify-write, as the owner's step into guest code is: either it finds the mark that was
 * set before, or it is found there. */
static bool in_guest(struct task_priv *p)
{
    return atomic_fetch_or_explicit(&p->guest_seq, 0, memory_order_acq_rel) & 1;
}

/* Its holder loses the number unless it is in guest code. */
static bool rob_locked(struct rseq_cpus *set, struct task_priv *p)
{
    blocker_mark(&p->t->blocker, BLOCKER_RSEQ);
    if (in_guest(p))
        return false;
    drop_locked(set, p);
    return true;
}

static bool slice_over(const struct rseq_user *u, uint64_t now)
{
    return now - u->since_ns >= SLICE_NS;
}

/* ---- finding one ---- */

static bool has_expired(const struct task_priv *p, uint64_t now)
{
    return slice_over(&p->rseq_user, now);
}

/* It may still be on its way to the number that it was given. */
static bool is_idle(const struct task_priv *p, uint64_t now)
{
    return task_is_asleep(p->t) && (p->rseq_user.settled || has_expired(p, now));
}

static int find_free_locked(const struct rseq_cpus *set, const struct rseq_user *u)
{
    if (u->last_nr >= 0 && may_have(u, u->last_nr) && !set->holder[u->last_nr])
        return u->last_nr;
    for (int i = 0; i < set->count; i++)
        if (!set->holder[i] && may_have(u, i))
            return i;
    return -1;
}

static int find_robbed_locked(struct rseq_cpus *set, const struct rseq_user *u, uint64_t now,
                              bool (*from)(const struct task_priv *p, uint64_t now))
{
    for (int i = 0; i < set->count; i++)
        if (set->holder[i] && may_have(u, i) && from(set->holder[i], now) &&
            rob_locked(set, set->holder[i]))
            return i;
    return -1;
}

static bool find_locked(struct rseq_cpus *set, struct task_priv *p, uint64_t now)
{
    int nr = find_free_locked(set, &p->rseq_user);

    if (nr < 0)
        nr = find_robbed_locked(set, &p->rseq_user, now, is_idle);
    if (nr < 0)
        nr = find_robbed_locked(set, &p->rseq_user, now, has_expired);
    if (nr < 0)
        return false;
    stop_waiting_locked(set, &p->rseq_user);
    give_locked(set, p, nr, now);
    return true;
}

/* Who has had a number that u may have for longest, a slice at least, leaves guest code for it. */
static void press_locked(struct rseq_cpus *set, const struct rseq_user *u, uint64_t now)
{
    struct task_priv *oldest = NULL;

    for (int i = 0; i < set->count; i++) {
        struct task_priv *p = set->holder[i];
        if (p && may_have(u, i) && !p->rseq_user.give_way && has_expired(p, now) &&
            (!oldest || p->rseq_user.since_ns < oldest->rseq_user.since_ns))
            oldest = p;
    }
    if (!oldest)
        return;
    oldest->rseq_user.give_way = true;
    blocker_mark(&oldest->t->blocker, BLOCKER_RSEQ);
    if (in_guest(oldest))
        plat_ctx_interrupt(oldest->t->ctx);
}

/* ---- waiting for a turn ---- */

/* As long as others wait, a thread that has nothing to do but yield is to come here for it. */
static void end_yields_locked(const struct rseq_cpus *set)
{
    for (int i = 0; i < set->count; i++)
        if (set->holder[i] && atomic_load(&set->holder[i]->yields_alone))
            task_answers_changed(set->holder[i]->t);
}

static void start_waiting_locked(struct rseq_cpus *set, struct rseq_user *u)
{
    u->waits = true;
    list_add_tail(&u->node, &set->waiting);
    if (atomic_fetch_add(&set->waiters, 1) == 0)
        end_yields_locked(set);
}

/* Each presses when its own turn should have come, so that they do not all wake up for one. */
static deadline_t turn_deadline(const struct rseq_cpus *set, uint64_t now)
{
    return now + SLICE_NS * atomic_load_explicit(&set->waiters, memory_order_relaxed);
}

static int wait_locked(struct rseq_cpus *set, struct task_priv *p, uint64_t now)
{
    struct rseq_user *u = &p->rseq_user;

    press_locked(set, u, now);
    const deadline_t deadline = turn_deadline(set, now);
    mutex_unlock(&set->mu);
    const int r = blocker_wait(&p->t->blocker, deadline);
    mutex_lock(&set->mu);
    return r;
}

static int take_locked(struct rseq_cpus *set, struct task_priv *p)
{
    struct rseq_user *u = &p->rseq_user;
    int r = 0;

    for (;;) {
        const uint64_t now = mono_now();
        if (u->nr >= 0 || find_locked(set, p, now))
            return 0;
        if (r == -EINTR)
            return r;
        if (u->waits) {
            r = wait_locked(set, p, now);
            continue;
        }
        /* Who fell asleep before it could know is found now. */
        start_waiting_locked(set, u);
    }
}

/* It leaves its number to others, or because it may not have it any more. */
static void release_locked(struct rseq_cpus *set, struct task_priv *p)
{
    const int nr = p->rseq_user.nr;

    drop_locked(set, p);
    offer_locked(set, nr, mono_now());
}

static bool must_release(const struct rseq_cpus *set, const struct rseq_user *u)
{
    return u->nr >= 0 && (!may_have(u, u->nr) || (u->give_way && rseq_cpu_wanted(set)));
}

int rseq_cpu_take(struct task *t, struct rseq_turn *out)
{
    struct task_priv *p = task_priv(t);
    struct rseq_user *u = &p->rseq_user;
    struct rseq_cpus *set = set_of(p);
    const uint32_t sleeps = atomic_load_explicit(&t->blocker.sleeps, memory_order_relaxed);

    mutex_lock(&set->mu);
    if (must_release(set, u))
        release_locked(set, p);
    const int r = take_locked(set, p);
    stop_waiting_locked(set, u);
    if (!r) {
        u->settled = true;
        u->give_way = false;
        *out = (struct rseq_turn){.cpu = (uint32_t)u->nr, .cid = u->cid};
    }
    mutex_unlock(&set->mu);
    /* It was ready to run all the time. */
    if (atomic_load_explicit(&t->blocker.sleeps, memory_order_relaxed) != sleeps) {
        atomic_store_explicit(&t->blocker.sleeps, sleeps, memory_order_relaxed);
        atomic_fetch_add_explicit(&p->invol_switches, 1, memory_order_relaxed);
    }
    return r;
}

static void leave_turn(struct rseq_cpus *set, struct task_priv *p)
{
    mutex_lock(&set->mu);
    if (p->rseq_user.nr >= 0)
        release_locked(set, p);
    mutex_unlock(&set->mu);
    blocker_mark(&p->t->blocker, BLOCKER_RSEQ);
}

void rseq_cpu_idle(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct rseq_cpus *set = set_of(p);

    if (atomic_load_explicit(&p->rseq_user.nr, memory_order_relaxed) >= 0 &&
        atomic_load(&set->waiters) > 0)
        leave_turn(set, p);
}

static void cpu_sleeps(struct blocker *b)
{
    rseq_cpu_idle(container_of(b, struct task, blocker));
}

void task_rseq_yield(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct rseq_cpus *set = set_of(p);

    if (!p->rseq_user.joined)
        return;
    if (rseq_cpu_wanted(set))
        leave_turn(set, p);
    else if (!atomic_load(&p->yields_alone))
        atomic_store(&p->answers_due, true);
}

/* ---- being in the set ---- */

void rseq_cpu_join(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct rseq_cpus *set = set_of(p);

    if (p->rseq_user.joined)
        return;
    mutex_lock(&t->mu);
    mutex_lock(&set->mu);
    p->rseq_user.joined = true;
    p->rseq_user.last_nr = -1;
    atomic_store_explicit(&p->rseq_user.nr, -1, memory_order_relaxed);
    memcpy(p->rseq_user.mask, p->affinity, sizeof(p->rseq_user.mask));
    mutex_unlock(&set->mu);
    mutex_unlock(&t->mu);
    t->blocker.on_sleep = cpu_sleeps;
}

void rseq_cpu_leave(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct rseq_cpus *set = set_of(p);

    if (!p->rseq_user.joined)
        return;
    t->blocker.on_sleep = NULL;
    mutex_lock(&set->mu);
    p->rseq_user.joined = false;
    if (p->rseq_user.nr >= 0)
        release_locked(set, p);
    mutex_unlock(&set->mu);
}

void rseq_cpu_affinity_locked(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct rseq_user *u = &p->rseq_user;
    struct rseq_cpus *set = set_of(p);

    mutex_assert_held(&t->mu);
    mutex_lock(&set->mu);
    if (u->joined)
        memcpy(u->mask, p->affinity, sizeof(u->mask));
    if (!u->joined)
        rseq_event(t);
    else if (u->nr >= 0 && !may_have(u, u->nr))
        blocker_mark(&t->blocker, BLOCKER_RSEQ);
    if (u->waits)
        blocker_wake(&t->blocker);
    mutex_unlock(&set->mu);
}

int rseq_cpu_number(const struct task *t)
{
    return atomic_load_explicit(&task_priv(t)->rseq_user.nr, memory_order_relaxed);
}
