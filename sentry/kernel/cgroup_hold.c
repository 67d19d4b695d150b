/* Tasks that are held back: frozen groups, and groups that have used up their CPU time. A held task
 * stands still before it would run guest code; one that sleeps in a call is not disturbed. */
#include <errno.h>

#include "sentry/kernel/cgroup_priv.h"

static uint32_t held_by_locked(const struct task *t)
{
    uint32_t held = 0;

    for (unsigned i = 0; i < CGROUP_ROOTS; i++) {
        const struct cgroup *cg = task_cgroup_locked(t, i);
        if (!cg)
            continue;
        if (cg->frozen_above)
            held |= HELD_FREEZE;
        for (; cg; cg = cg->parent)
            if (cg->throttled || cg->outweighed)
                held |= HELD_CPU;
    }
    return held;
}

/* Guest code that runs comes out; who does not run it looks on the way in. Nobody's sleep ends. */
static void hold_stop_guest(struct task *t)
{
    struct sighand *sh = tg_lock_sig(t->tg);

    task_interrupt_locked(t, BLOCKER_HOLD);
    sighand_unlock(sh);
}

void cgroup_hold_task_locked(struct task *t)
{
    struct task_priv *p = task_priv(t);
    const uint32_t held = held_by_locked(t);
    const uint32_t old = atomic_exchange_explicit(&p->held, held, memory_order_acq_rel);

    if (held == old)
        return;
    if (held && !old)
        hold_stop_guest(t);
    else if (!held)
        waitq_wake(&t->k->cgroups->hold_wq, 0);
}

void cgroup_hold_below_locked(struct cgroup *cg)
{
    const unsigned root = cg->root->index;
    struct cgroup *at = NULL;
    struct cgroup_link *l;

    while ((at = cgroup_walk_locked(cg, at)) != NULL) {
        at->frozen_above = at->freeze || (at->parent && at->parent->frozen_above);
        list_for_each_entry (l, &at->tasks, node)
            cgroup_hold_task_locked(container_of(l - root, struct task_priv, cg[0])->t);
    }
}

void cgroup_set_freeze(struct cgroup *cg, bool freeze)
{
    struct kernel *k = cg->root->k;

    cgroup_lock(k);
    if (cg->freeze != freeze) {
        cg->freeze = freeze;
        cgroup_hold_below_locked(cg);
        cgroup_event(cg);
    }
    cgroup_unlock(k);
}

static bool stands_still(const struct task *t)
{
    const struct task_priv *p = task_priv(t);

    return atomic_load(&p->holding) || (task_is_asleep(t) && !(atomic_load(&p->guest_seq) & 1));
}

bool cgroup_is_frozen(struct cgroup *cg)
{
    struct kernel *k = cg->root->k;
    const unsigned root = cg->root->index;
    struct cgroup *at = NULL;
    struct cgroup_link *l;

    cgroup_lock(k);
    bool frozen = cg->frozen_above;
    while (frozen && (at = cgroup_walk_locked(cg, at)) != NULL)
        list_for_each_entry (l, &at->tasks, node)
            frozen = frozen && stands_still(container_of(l - root, struct task_priv, cg[0])->t);
    cgroup_unlock(k);
    return frozen;
}

/* Watchers of cgroup.events hear that there is something to look at. */
static void hold_tell(struct task *t)
{
    cgroup_lock(t->k);
    for (unsigned i = 0; i < CGROUP_ROOTS; i++) {
        struct cgroup *cg = task_cgroup_locked(t, i);
        if (cg && cg->frozen_above)
            cgroup_event(cg);
    }
    cgroup_unlock(t->k);
}

void cgroup_hold(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct waiter w;

    if (!atomic_load_explicit(&p->held, memory_order_acquire))
        return;
    waiter_init(&w, &t->blocker, 0);
    waitq_add(&t->k->cgroups->hold_wq, &w);
    atomic_store(&p->holding, true);
    if (atomic_load(&p->held) & HELD_FREEZE)
        hold_tell(t);
    while (atomic_load_explicit(&p->held, memory_order_acquire))
        if (blocker_wait_killable(&t->blocker, DEADLINE_NEVER) == -EINTR)
            break;
    atomic_store(&p->holding, false);
    waitq_del(&w);
}
