/* CPU time of control groups: what they have used, and holding them to a quota per period. Times
 * are looked at when a group that does nothing but run could have used its quota up; a group that
 * has is held until the period is over, and what it took too much counts in the next. */
#include "sentry/kernel/cgroup_priv.h"
#include "sentry/kernel/timer.h"

/* Looks at times: not closer together, and not further apart while there is a quota; while there is
 * only memory to be looked at. */
#define TICK_MIN_NS 2000000ull
#define TICK_MAX_NS 100000000ull
#define TICK_MEMORY_NS 200000000ull

void cgroup_usage_locked(struct cgroup *cg, uint64_t *out_user_ns, uint64_t *out_sys_ns)
{
    const unsigned root = cg->root->index;
    uint64_t user = 0, sys = 0;
    struct cgroup *at = NULL;
    struct cgroup_link *l;

    while ((at = cgroup_walk_locked(cg, at)) != NULL) {
        user += at->gone_user_ns;
        sys += at->gone_sys_ns;
        list_for_each_entry (l, &at->tasks, node) {
            struct task *t = container_of(l - root, struct task_priv, cg[0])->t;
            user += task_utime_ns(t) - l->user_ns;
            sys += task_stime_ns(t) - l->sys_ns;
        }
    }
    *out_user_ns = user;
    *out_sys_ns = sys;
}

void cgroup_usage(struct cgroup *cg, uint64_t *out_user_ns, uint64_t *out_sys_ns)
{
    cgroup_lock(cg->root->k);
    cgroup_usage_locked(cg, out_user_ns, out_sys_ns);
    cgroup_unlock(cg->root->k);
}

/* ---- quotas ---- */

static bool has_quota(const struct cgroup *cg)
{
    return cg->quota_us != CGROUP_NO_LIMIT && !cg->quota_outside;
}

static uint64_t used_now_locked(struct cgroup *cg)
{
    uint64_t user, sys;

    cgroup_usage_locked(cg, &user, &sys);
    return user + sys;
}

static void period_begin_locked(struct cgroup *cg, uint64_t now, uint64_t used)
{
    const uint64_t quota = cg->quota_us * 1000;

    if (used > cg->period_used_ns) {
        const uint64_t took = used - cg->period_used_ns + cg->debt_ns;
        cg->debt_ns = took > quota ? took - quota : 0;
        cg->periods++;
    } else {
        cg->debt_ns = cg->debt_ns > quota ? cg->debt_ns - quota : 0;
    }
    cg->period_began_ns = now;
    cg->period_used_ns = used;
}

static void throttle_locked(struct cgroup *cg, uint64_t now, bool on)
{
    if (cg->throttled == on)
        return;
    cg->throttled = on;
    if (on) {
        cg->throttles++;
        cg->throttled_since_ns = now;
    } else {
        cg->throttled_ns += now - cg->throttled_since_ns;
    }
    cgroup_hold_below_locked(cg);
}

/* When to look again. */
static uint64_t quota_look_locked(struct cgroup *cg, uint64_t now)
{
    const uint64_t used = used_now_locked(cg), quota = cg->quota_us * 1000;
    const uint64_t period = cg->period_us * 1000;
    const uint64_t cpus = (uint64_t)cg->root->k->cfg.cpus;

    if (now - cg->period_began_ns >= period)
        period_begin_locked(cg, now, used);
    const uint64_t end = cg->period_began_ns + period;
    const uint64_t took = used - cg->period_used_ns + cg->debt_ns;
    throttle_locked(cg, now, took >= quota);
    if (took >= quota)
        return end;
    /* Nothing done in this period: it can wait for its end. */
    if (used == cg->period_used_ns)
        return MAX(end, now + TICK_MAX_NS / 2);
    return MIN(end, now + MAX((quota - took) / cpus, TICK_MIN_NS));
}

/* ---- the tick ---- */

static bool wants_memory_look(const struct cgroup *cg)
{
    return cg->acct && memacct_limit(cg->acct) != MEMACCT_NO_LIMIT;
}

/* The first group that has more memory than it may, owned. */
static struct cgroup *tick_groups_locked(struct cgroups *all, uint64_t now, uint64_t *next)
{
    struct cgroup *cg, *full = NULL;

    for (unsigned i = 0; i < CGROUP_ROOTS; i++) {
        if (!all->roots[i])
            continue;
        for (cg = NULL; (cg = cgroup_walk_locked(all->roots[i]->top, cg)) != NULL;) {
            if (has_quota(cg))
                *next = MIN(*next, quota_look_locked(cg, now));
            if (!wants_memory_look(cg))
                continue;
            *next = MIN(*next, now + TICK_MEMORY_NS);
            if (!full && memacct_reserved(cg->acct) > memacct_limit(cg->acct))
                full = cgroup_get(cg);
        }
    }
    return full;
}

void cgroup_tick(struct timer *tm)
{
    struct cgroups *all = container_of(tm, struct cgroups, tick);
    const uint64_t now = mono_now();
    uint64_t next = UINT64_MAX;

    cgroup_lock(all->k);
    struct cgroup *full = tick_groups_locked(all, now, &next);
    next = MIN(next, cgroup_weigh_locked(all, now));
    all->ticking = next != UINT64_MAX;
    if (all->ticking)
        timer_arm(tm, next);
    cgroup_unlock(all->k);
    /* What is shared and was promised as a whole is touched without anybody asking. */
    if (full && memacct_over(all->k->cfg.mf, full->acct))
        (void)cgroup_oom(all->k, full);
    cgroup_put(full);
}

void cgroup_tick_start_locked(struct cgroups *all)
{
    if (!all->tick_ready)
        all->tick_ready = timer_init(&all->tick, kernel_timer_service(all->k), cgroup_tick) == 0;
    if (!all->tick_ready)
        return;
    all->ticking = true;
    timer_arm(&all->tick, mono_now());
}

void cgroup_set_cpu(struct cgroup *cg, uint64_t quota_us, uint64_t period_us)
{
    struct kernel *k = cg->root->k;

    cgroup_lock(k);
    cg->quota_us = quota_us;
    cg->period_us = period_us;
    cg->period_began_ns = mono_now();
    cg->period_used_ns = used_now_locked(cg);
    cg->debt_ns = 0;
    throttle_locked(cg, mono_now(), false);
    if (has_quota(cg))
        cgroup_tick_start_locked(k->cgroups);
    cgroup_unlock(k);
}

/* ---- memory ---- */

uint64_t cgroup_memory(struct cgroup *cg)
{
    return cg->acct ? memacct_resident(cg->root->k->cfg.mf, cg->acct) : 0;
}

void cgroup_set_memory(struct cgroup *cg, uint64_t limit)
{
    struct kernel *k = cg->root->k;

    if (!cg->acct)
        return;
    cgroup_lock(k);
    cg->memory_max = limit;
    memacct_set_limit(cg->acct, cg->memory_outside ? MEMACCT_NO_LIMIT : limit);
    if (wants_memory_look(cg))
        cgroup_tick_start_locked(k->cgroups);
    cgroup_unlock(k);
}
