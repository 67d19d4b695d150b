/* cpu.weight and cpu.shares: when there are more running tasks than CPUs, siblings get what their
 * weights say. A group that has had more than its share is held till the others have caught up; one
 * that cannot use its share leaves it to the rest. Nothing is done where all weights are equal, as
 * the host's scheduler shares among tasks then. */
#include "sentry/kernel/cgroup_priv.h"

#define WEIGH_NS 10000000ull
#define WEIGH_IDLE_NS 50000000ull
/* What a group may be ahead of, or behind, its share. */
#define WEIGH_CREDIT_NS 50000000ll
/* Siblings that are looked at; more are left to the host's scheduler. */
#define WEIGH_SIBLINGS 64u

struct weighed {
    struct cgroup *cg;
    uint64_t used, cap, share, running;
    bool settled;
};

/* Tasks of cg and below that run or would. */
static uint64_t running_locked(struct cgroup *cg)
{
    const unsigned root = cg->root->index;
    struct cgroup *at = NULL;
    struct cgroup_link *l;
    uint64_t n = 0;

    while ((at = cgroup_walk_locked(cg, at)) != NULL)
        list_for_each_entry (l, &at->tasks, node) {
            const struct task_priv *p = container_of(l - root, struct task_priv, cg[0]);
            n += atomic_load(&p->holding) || !task_is_asleep(p->t);
        }
    return n;
}

static size_t collect_locked(struct cgroup *parent, struct weighed *w, uint64_t *out_running)
{
    struct cgroup *cg;
    uint64_t user, sys;
    size_t n = 0;

    *out_running = 0;
    list_for_each_entry (cg, &parent->children, sibling) {
        if (n == WEIGH_SIBLINGS)
            return 0;
        cgroup_usage_locked(cg, &user, &sys);
        w[n] = (struct weighed){.cg = cg,
                                .used = user + sys - MIN(cg->weigh_used_ns, user + sys),
                                .running = running_locked(cg)};
        cg->weigh_used_ns = user + sys;
        *out_running += w[n].running;
        n++;
    }
    return n;
}

/* Each gets its share of room, but no more than its running tasks can use. */
static void share_out(struct weighed *w, size_t n, uint64_t room, uint64_t dt)
{
    for (size_t round = 0; round < n; round++) {
        uint64_t weights = 0;
        bool again = false;
        for (size_t i = 0; i < n; i++)
            weights += w[i].settled || w[i].running == 0 ? 0 : w[i].cg->weight;
        for (size_t i = 0; weights && i < n; i++) {
            if (w[i].settled || w[i].running == 0)
                continue;
            w[i].share = (uint64_t)((double)room * w[i].cg->weight / (double)weights);
            if (w[i].share <= w[i].running * dt)
                continue;
            w[i].share = w[i].running * dt;
            w[i].settled = again = true;
            room -= MIN(room, w[i].share);
            break;
        }
        if (!again)
            return;
    }
}

static void outweigh_locked(struct cgroup *cg, bool on)
{
    if (cg->outweighed == on)
        return;
    cg->outweighed = on;
    cgroup_hold_below_locked(cg);
}

static bool weigh_children_locked(struct cgroup *parent, uint64_t now)
{
    struct weighed w[WEIGH_SIBLINGS];
    const uint64_t cpus = (uint64_t)parent->root->k->cfg.cpus;
    const uint64_t dt = now - parent->weigh_at_ns;
    uint64_t running;
    const size_t n = collect_locked(parent, w, &running);
    const bool contended = n > 1 && running > cpus && dt < 10 * WEIGH_IDLE_NS;

    parent->weigh_at_ns = now;
    if (contended)
        share_out(w, n, cpus * dt, dt);
    for (size_t i = 0; i < n; i++) {
        int64_t *credit = &w[i].cg->credit_ns;
        *credit += (int64_t)w[i].share - (int64_t)w[i].used;
        *credit = contended ? MIN(MAX(*credit, -WEIGH_CREDIT_NS), WEIGH_CREDIT_NS) : 0;
        outweigh_locked(w[i].cg, *credit < 0 && w[i].running > 0);
    }
    return contended;
}

uint64_t cgroup_weigh_locked(struct cgroups *all, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    struct cgroup *cg;

    for (unsigned i = 0; i < CGROUP_ROOTS; i++) {
        if (!all->roots[i])
            continue;
        for (cg = NULL; (cg = cgroup_walk_locked(all->roots[i]->top, cg)) != NULL;) {
            if (!cg->weighs || list_empty(&cg->children))
                continue;
            if (now - cg->weigh_at_ns < WEIGH_NS / 2)
                next = MIN(next, cg->weigh_at_ns + WEIGH_NS);
            else
                next = MIN(next, now + (weigh_children_locked(cg, now) ? WEIGH_NS : WEIGH_IDLE_NS));
        }
    }
    return next;
}

void cgroup_set_weight(struct cgroup *cg, uint32_t weight)
{
    struct kernel *k = cg->root->k;
    struct cgroup *sibling;

    cgroup_lock(k);
    cg->weight = weight;
    if (cg->parent) {
        bool differ = false;
        list_for_each_entry (sibling, &cg->parent->children, sibling)
            differ |= sibling->weight != weight;
        cg->parent->weighs = differ;
        list_for_each_entry (sibling, &cg->parent->children, sibling)
            if (!cg->parent->weighs)
                outweigh_locked(sibling, false);
        if (cg->parent->weighs)
            cgroup_tick_start_locked(k->cgroups);
    }
    cgroup_unlock(k);
}
