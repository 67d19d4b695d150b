/* Inside sentry/kernel: what holds all control groups together, and the calls between their parts.
 * Depends on: cgroup.h, task_priv.h.
 * Threading: as cgroup.h.
 * Ownership: as cgroup.h. */
#ifndef RINGWALL_SENTRY_KERNEL_CGROUP_PRIV_H
#define RINGWALL_SENTRY_KERNEL_CGROUP_PRIV_H

#include "sentry/kernel/cgroup.h"
#include "sentry/kernel/task_priv.h"
#include "sentry/time/timer.h"

struct cgroups {
    struct kernel *k;
    struct mutex mu; /* rank CGROUP: moves of tasks and changes of limits, one at a time */
    /* tree */
    struct cgroup_root *roots[CGROUP_ROOTS];
    uint64_t next_id, count;
    struct timer tick; /* limits on CPU time, and memory that is touched without asking */
    bool ticking, tick_ready;
    struct waitq hold_wq; /* tasks that are held: somebody was let go */
    struct cgroup_ns *ns; /* of the sandbox */
};

/* Bits of task_priv.held. */
#define HELD_FREEZE 1u
#define HELD_CPU 2u

static inline struct cgroup_link *task_link(const struct task *t, unsigned root)
{
    return &task_priv(t)->cg[root];
}
static inline struct cgroup *task_cgroup_locked(const struct task *t, unsigned root)
{
    return task_priv(t)->cg[root].cg;
}

/* ---- cgroup.c ---- */
MUST_CHECK int cgroup_ns_alloc(struct kernel *k, struct cgroup_ns **out_ns); /* shows all */
/* Removes top and what is below it, from the leaves up; who is busy stays, as all above it. */
void cgroup_remove_tree(struct cgroup *top);
/* Takes name's copy. Owned result. */
MUST_CHECK int cgroup_new(struct cgroup_root *root, struct cgroup *parent, const char *name,
                          struct memacct *acct_parent, bool has_acct, struct cgroup **out_cg);
/* Links cg below its parent. tree held. */
void cgroup_publish_locked(struct cgroup *cg);
void cgroup_event(struct cgroup *cg); /* something that cgroup.events or memory.events shows */
static inline bool cgroup_is_below(const struct cgroup *cg, const struct cgroup *above)
{
    while (cg && cg != above)
        cg = cg->parent;
    return cg != NULL;
}

/* ---- cgroup_task.c; tree held ---- */
/* A new task goes where from is (NULL: into ns's groups, or the tops). into: its version 2 group
 * instead. -EAGAIN: pids.max. */
MUST_CHECK int cgroup_fork_locked(struct task *t, const struct task *from, struct cgroup *into);
/* The account of t's container has no room for another task. */
void cgroup_refused_locked(struct task *t);
MUST_CHECK int cgroup_enter_locked(struct task *t, const struct cgroup_ns *ns);
/* The task runs no more; its number is in use till cgroup_release_locked. */
void cgroup_exit_locked(struct task *t);
void cgroup_release_locked(struct task *t);
/* Takes t into root's top. */
void cgroup_adopt_locked(struct task *t, struct cgroup_root *root);
void cgroup_disown_locked(struct task *t, struct cgroup_root *root);
/* Who is charged for t's memory; owned, may be NULL. */
struct memacct *cgroup_account_locked(const struct task *t);
struct memacct *cgroup_account(struct task *t);

/* ---- cgroup_hold.c ---- */
/* Looks anew at what holds t. tree held. */
void cgroup_hold_task_locked(struct task *t);
void cgroup_hold_below_locked(struct cgroup *cg);
/* Owner: stays while t is held and not killed. */
void cgroup_hold(struct task *t);

/* ---- cgroup_weight.c ---- */
/* Looks at all weights; when to do so again, UINT64_MAX: no need. tree held. */
uint64_t cgroup_weigh_locked(struct cgroups *all, uint64_t now);

/* ---- cgroup_cpu.c; tree held ---- */
void cgroup_usage_locked(struct cgroup *cg, uint64_t *out_user_ns, uint64_t *out_sys_ns);
/* Starts the tick when a limit needs it. */
void cgroup_tick_start_locked(struct cgroups *all);
void cgroup_tick(struct timer *tm);

/* ---- oom.c ---- */
/* cg has more memory than it may: the process in it that takes most ends. No lock held. True: one
 * was found, or is on its way out. */
bool cgroup_oom(struct kernel *k, struct cgroup *cg);
/* The group whose account is full; owned, NULL. */
struct cgroup *cgroup_of_account(struct kernel *k, const struct memacct *acct);

#endif
