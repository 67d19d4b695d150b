/* Control groups of the sandbox (cgroups(7)): hierarchies of groups that tasks are in, with
 * controllers that count what they use and hold them to limits.
 * Depends on: task.h, mem/memacct.h.
 * Threading: fields marked "tree" are guarded by cgroup_lock(), which is struct kernel's own lock.
 * Calls that move tasks or change limits are made one at a time, under a lock of rank CGROUP that
 * they take themselves; functions named _locked want cgroup_lock() held.
 * Ownership: a group is kept by its children, the tasks in it, and references. */
#ifndef RINGWALL_SENTRY_KERNEL_CGROUP_H
#define RINGWALL_SENTRY_KERNEL_CGROUP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/compiler.h"
#include "base/list.h"
#include "base/ref.h"
#include "sentry/mem/memacct.h"
#include "sentry/wait/wait.h"

struct kernel;
struct task;
struct vfs_caller;

/* Hierarchies at a time; the first is that of version 2. */
#define CGROUP_ROOTS 8

enum cgroup_ctl {
    CG_CPU,
    CG_CPUACCT, /* version 1 only: in version 2 all groups count CPU time */
    CG_MEMORY,
    CG_PIDS,
    CG_FREEZER, /* version 1 only: in version 2 all groups can be frozen */
    CG_CTLS
};
#define CG_BIT(ctl) (1u << (ctl))
#define CG_ALL_V1 ((1u << CG_CTLS) - 1)
#define CG_ALL_V2 (CG_BIT(CG_CPU) | CG_BIT(CG_MEMORY) | CG_BIT(CG_PIDS))

#define CGROUP_NO_LIMIT UINT64_MAX
#define CGROUP_WEIGHT_DEFAULT 100u
#define CGROUP_SHARES_DEFAULT 1024u /* of version 1 */
#define CGROUP_PERIOD_DEFAULT 100000u

struct cgroup;

/* Goes with its top. */
struct cgroup_root {
    /* immutable */
    struct kernel *k;
    unsigned index; /* in kernel, and of a task's links */
    int id;         /* as /proc/<pid>/cgroup shows it; 0: version 2 */
    bool v2;
    char name[64]; /* name=, or "" */
    struct cgroup *top;
    /* tree */
    uint32_t ctls;   /* what it controls */
    unsigned supers; /* mounted file systems that show it */
};

/* Who may do what with a group's file, when that was changed. */
struct cgroup_attr {
    bool set;
    uint32_t mode, uid, gid;
};
#define CGROUP_FILES 64
#define CGROUP_FILE_PROCS 0 /* that of cgroup.procs */

struct cgroup {
    /* immutable */
    struct ref ref;
    struct cgroup_root *root;
    struct cgroup *parent; /* owned; NULL: the top */
    uint64_t id;
    unsigned depth;
    bool container;       /* the top of what a container sees: its limits are not the guest's */
    struct memacct *acct; /* owned; NULL: tasks are charged as their version 2 group says */
    char *name;

    /* tree */
    struct list children, sibling;
    struct list tasks; /* cgroup_link.node */
    bool dead;         /* removed */
    uint32_t subtree_control;
    uint64_t descendants, max_descendants, max_depth;
    uint64_t live;                      /* tasks in it and below */
    uint64_t gone_user_ns, gone_sys_ns; /* of tasks that have left it or ended */
    bool freeze, frozen_above;          /* asked for; asked for further up or here */
    uint64_t quota_us, period_us, burst_us;
    uint32_t weight;
    bool memory_outside, quota_outside; /* somebody else enforces memory_max, quota_us */
    uint64_t memory_max;
    uint64_t period_began_ns, period_used_ns, debt_ns;
    uint64_t periods, throttles, throttled_ns, throttled_since_ns;
    bool throttled;
    bool weighs; /* its children have different weights */
    uint64_t weigh_at_ns, weigh_used_ns;
    int64_t credit_ns;                      /* what it is behind its share */
    bool outweighed;                        /* held because of that */
    bool clone_children, notify_on_release; /* version 1: kept and shown */
    uint32_t maker_uid, maker_gid;
    struct cgroup_attr dir_attr, *file_attrs; /* CGROUP_FILES of them, or NULL */

    _Atomic uint64_t pids, pids_max, pids_peak, pids_refused;
    _Atomic uint64_t oom, oom_kill, oom_group_kill; /* here and below */
    _Atomic uint64_t oom_own, oom_kill_own;
    _Atomic bool oom_group;
    void (*oom_fn)(void *arg); /* tree: somebody outside is told of each victim, or NULL */
    void *oom_arg;
    _Atomic uint64_t events; /* counts changes of populated, frozen and the memory events */
    struct waitq events_wq;
};

/* A task's place in one hierarchy. Guard: tree. */
struct cgroup_link {
    struct cgroup *cg; /* owned */
    struct list node;
    bool live;
    uint64_t user_ns, sys_ns; /* the task's times when it came */
};

/* What a cgroup namespace shows: everything from these groups on. */
struct cgroup_ns {
    struct ref ref;
    struct kernel *k;
    uint64_t tag_id;                   /* its number, once it has one */
    struct cgroup *tops[CGROUP_ROOTS]; /* owned; NULL: all of that hierarchy */
};

/* ---- life ---- */
struct cgroups;
MUST_CHECK int cgroups_new(struct kernel *k, struct cgroups **out_all);
void cgroups_free(struct cgroups *all); /* no task is left; NULL allowed */
void cgroup_lock(struct kernel *k);
void cgroup_unlock(struct kernel *k);
struct cgroup *cgroup_get(struct cgroup *cg);
void cgroup_put(struct cgroup *cg); /* NULL allowed; the tree may be locked */
MUST_CHECK int cgroup_ns_new(struct task *t, struct cgroup_ns **out_ns); /* from where t is */
struct cgroup_ns *cgroup_ns_get(struct cgroup_ns *ns);
void cgroup_ns_put(struct cgroup_ns *ns);
/* The caller's, borrowed for this call; never NULL. */
struct cgroup_ns *task_cgroup_ns(struct task *t);
/* Owned: that of t, or NULL when it has ended or sees all. Any thread. */
struct cgroup_ns *task_get_cgroup_ns(struct task *t);

/* ---- containers ---- */
struct cgroup_limits {
    uint64_t memory, pids; /* bytes, tasks; CGROUP_NO_LIMIT */
    uint64_t quota_us;     /* CGROUP_NO_LIMIT */
    uint64_t period_us;
    uint32_t weight; /* 1 to 10000 */
    /* Somebody else enforces them: here they are only shown. */
    bool memory_outside, quota_outside;
};
/* A group below the top of version 2 for a container, and the namespace that shows it. name must be
 * new (-EEXIST). Owned result. */
MUST_CHECK int cgroup_new_container(struct kernel *k, const char *name,
                                    const struct cgroup_limits *lim, struct cgroup_ns **out_ns);
/* Changed from outside (runsc update). */
void cgroup_container_limits(struct cgroup_ns *ns, const struct cgroup_limits *lim);
/* fn is called, with the tree locked, for each process that ends for want of memory; NULL: nobody
 * asks. */
void cgroup_container_oom(struct cgroup_ns *ns, void (*fn)(void *arg), void *arg);
/* The container has ended: nothing is left in its group. */
void cgroup_container_gone(struct cgroup_ns *ns);
/* Its group; borrowed. */
struct cgroup *cgroup_container(const struct cgroup_ns *ns);

/* ---- groups ---- */
/* -EEXIST, -ENOSPC, -EAGAIN (depth, number), -ENODEV (dead). c: who is charged. Owned result. */
MUST_CHECK int cgroup_mkdir(struct cgroup *parent, const char *name, const struct vfs_caller *c,
                            struct cgroup **out_cg);
/* -EBUSY while it has tasks or children. */
MUST_CHECK int cgroup_rmdir(struct cgroup *cg);
/* Owned; -ENOENT. */
MUST_CHECK int cgroup_child(struct cgroup *parent, const char *name, struct cgroup **out_cg);
/* The child with the smallest id > after, owned; NULL. */
struct cgroup *cgroup_next_child(struct cgroup *parent, uint64_t after);
/* Its path from top (NULL: of the hierarchy), as a namespace sees it; cut to size. tree held. */
void cgroup_path_locked(const struct cgroup *cg, const struct cgroup *top, char *buf, size_t size);
/* Controllers whose files cg has, CG_BIT()s. */
uint32_t cgroup_enabled(struct cgroup *cg);
/* Version 2: what cg may give on to its children. */
uint32_t cgroup_available(struct cgroup *cg);
/* cgroup.subtree_control: -ENOENT (not available), -EBUSY. */
MUST_CHECK int cgroup_set_subtree(struct cgroup *cg, uint32_t add, uint32_t remove);
/* Every group at and below cg, one after the other; prev NULL: cg itself. tree held. */
struct cgroup *cgroup_walk_locked(struct cgroup *cg, struct cgroup *prev);

/* ---- hierarchies ---- */
/* The one with these controllers and this name, made when there is none. -EBUSY: a controller is in
 * use elsewhere. *out_root is to be given back by cgroup_root_unmount. */
MUST_CHECK int cgroup_root_mount(struct kernel *k, uint32_t ctls, const char *name,
                                 struct cgroup_root **out_root);
struct cgroup_root *cgroup_root_v2(struct kernel *k);
void cgroup_root_unmount(struct cgroup_root *root);
const char *cgroup_ctl_name(enum cgroup_ctl ctl);
/* /proc/<pid>/cgroup of t as the reader sees it; /proc/cgroups. */
int cgroup_show_task(struct task *t, struct cgroup_ns *reader, FILE *out);
int cgroup_show_controllers(struct kernel *k, FILE *out);

/* ---- tasks ---- */
/* Puts the thread with number tid (0: the caller's own), or its whole process, into cg. c must be a
 * task's. -ESRCH, -EACCES, -EBUSY, -EOPNOTSUPP, -ENODEV. */
MUST_CHECK int cgroup_attach(struct cgroup *cg, const struct vfs_caller *c, int32_t tid,
                             bool thread);
/* The numbers of processes or threads in cg that c can see, in order; *out_pids is the caller's to
 * free. */
MUST_CHECK int cgroup_pids(struct cgroup *cg, const struct vfs_caller *c, bool threads,
                           int32_t **out_pids, size_t *out_count);
/* SIGKILL to everything in cg and below. */
void cgroup_kill(struct cgroup *cg);
/* Holds what is in cg and below, or lets it go. */
void cgroup_set_freeze(struct cgroup *cg, bool freeze);
/* Every task in cg and below stands still, because it is to. */
bool cgroup_is_frozen(struct cgroup *cg);

/* ---- figures and limits ---- */
void cgroup_usage(struct cgroup *cg, uint64_t *out_user_ns, uint64_t *out_sys_ns);
/* Version 2's 1 to 10000, version 1's shares. */
void cgroup_set_weight(struct cgroup *cg, uint32_t weight);
void cgroup_set_cpu(struct cgroup *cg, uint64_t quota_us, uint64_t period_us);
/* Bytes; what is above the limit already is taken away by ending processes. */
void cgroup_set_memory(struct cgroup *cg, uint64_t limit);
uint64_t cgroup_memory(struct cgroup *cg);

#endif
