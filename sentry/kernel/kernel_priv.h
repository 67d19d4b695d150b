/* Inside sentry/kernel: the kernel object, thread groups, process groups, sessions, the pid table.
 * Depends on: task.h.
 * Threading: each field says its guard. "tree": struct kernel's mu (rank KERNEL). "sig": the lock
 * of the group's sighand (rank SIGHAND), taken through tg_lock_sig.
 * Ownership: a group lives while a thread, a zombie or a reference does; the pid table is weak. */
#ifndef RINGWALL_SENTRY_KERNEL_KERNEL_PRIV_H
#define RINGWALL_SENTRY_KERNEL_KERNEL_PRIV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <linux/kcmp.h>
#include <stdint.h>

#include "base/idalloc.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/objcount.h"
#include "base/ref.h"
#include "sentry/kernel/coredump.h"
#include "sentry/kernel/image.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/task.h"
#include "sentry/time/timer.h"
#include "sentry/wait/procref.h"

#define LX_NSIG 64
#define LX_RLIM_COUNT 16
#define LX_UTS_LEN 64

struct account;
struct cgroups;
struct rseq_cpus;
struct coredump;
struct kernel_timers;
struct futex_table;
struct ipc_ns;
struct user_ns;
struct ns_tag;
struct sem_undo_list;
struct tg_timers;
struct cpu_limit;
struct tty;

/* A pid namespace below the sandbox's own, which is NULL. */
struct pid_ns {
    struct ref ref;
    /* immutable */
    struct kernel *k;
    struct pid_ns *parent; /* owned */
    struct user_ns *owner; /* owned */
    uint32_t level;        /* 1 and up */
    uint64_t id;
    /* tree */
    struct idalloc ids;
    struct pid **table;        /* LIMIT_TASKS + 1 slots */
    struct thread_group *init; /* weak; NULL before the first process and once it has gone */
    bool dying;                /* its init has ended */
};

/* A number of a pid in a namespace that is not the sandbox's own. */
struct pid_slot {
    struct pid_ns *ns; /* owned */
    uint32_t nr;
};

/* A number in use, as task, group, process group or session id. Guard: tree. */
struct pid {
    uint32_t nr;       /* in the sandbox's own namespace: what everything here goes by */
    struct task *task; /* weak, all four */
    struct thread_group *tg;
    struct pgrp *pgrp;
    struct session *session;
    uint32_t level;          /* of the namespace it was made in */
    struct pid_slot slots[]; /* level of them, from the outside in */
};

struct session {
    struct ref ref; /* one per process group in it */
    struct kernel *k;
    int32_t id;
    struct list pgrps;           /* tree: pgrp.node */
    struct thread_group *leader; /* tree, weak; NULL once it has gone */
    /* Controlling terminal: tree; set and cleared by whoever serves terminals. */
    struct tty *tty;
    struct pgrp *tty_old_pgrp; /* owned: in the foreground of one that was hung up */
    void (*tty_leader_exit)(struct session *s); /* leader ends: hang up. tree held */
    void (*tty_show)(struct session *s, uint32_t *out_dev, int32_t *out_pgrp); /* tree held */
};

struct pgrp {
    struct ref ref; /* one per member, and passing holders */
    int32_t id;
    struct session *session; /* owned */
    struct list node;        /* tree: session.pgrps */
    struct list members;     /* tree: thread_group.pgrp_node */
};

struct uts_ns {
    struct ref ref;
    struct mutex mu; /* rank NAMESPACE: guards the names */
    char nodename[LX_UTS_LEN + 1], domainname[LX_UTS_LEN + 1];
};

/* sigaction(2) as the kernel ABI has it. */
struct sig_action {
    uint64_t handler, flags, restorer, mask;
};

/* Shared by CLONE_SIGHAND. */
struct sighand {
    struct ref ref;
    struct mutex mu; /* rank SIGHAND: actions, and all "sig" state of the groups that use it */
    struct sig_action action[LX_NSIG]; /* of signal i + 1 */
};

/* Signals sent and not yet taken. Guard: sig. Entries of queue belong to signal.c. */
struct sig_pending {
    uint64_t set; /* bit signo - 1 */
    struct list queue;
    uint32_t count;
};

/* Counts of a task or of all that ended in a group. */
struct task_usage {
    uint64_t utime_ns, stime_ns, min_flt, maj_flt, vol_switches, invol_switches, max_rss;
    struct task_io io;
};

enum tg_state { TG_LIVE, TG_ZOMBIE, TG_DEAD };

struct thread_group {
    /* immutable */
    struct ref ref;
    struct kernel *k;
    int32_t tgid;
    int32_t vtgid;           /* in its own namespace */
    struct pid_ns *pid_ns;   /* owned; NULL: the sandbox's own */
    struct procref *self;    /* owned */
    struct account *account; /* owned; NULL: nobody counts it */
    uint64_t start_ns;       /* since boot */

    struct mutex mu;                            /* rank TASK_GROUP: guards this part */
    _Atomic uint64_t rlimits[LX_RLIM_COUNT][2]; /* mu to change, read without */
    struct vpath exe;                           /* owned; empty before the first program */

    /* Changes under tree, mu and the old lock; stable under either of them and for own threads. */
    struct sighand *sighand;

    /* guard: tree */
    enum tg_state state;
    struct thread_group *parent; /* weak; NULL for init and for what runsc exec started */
    int32_t parent_tid;          /* the thread that made it, for __WNOTHREAD and pdeathsig */
    _Atomic int32_t ppid;        /* parent's number as seen from here, or 0; read without a lock */
    struct list children, sibling;
    struct list node;  /* kernel.groups */
    struct pgrp *pgrp; /* owned */
    struct list pgrp_node;
    struct task *leader; /* owned till reaped */
    int exit_signal;     /* to the parent; 0, or what is no signal: none */
    int exit_status;     /* as wait(2) encodes it, once a zombie */
    bool did_exec;
    bool left_tty; /* TIOCNOTTY: the session's terminal is not this process's */
    _Atomic bool is_subreaper;
    struct task_usage child_usage; /* of children waited for */
    struct task_usage dead_usage;  /* of threads that ended */
    kernel_exit_fn exit_fn;        /* the sandbox's own processes */
    void *exit_arg;

    /* tree and sig to change, either to read */
    struct list threads; /* task_priv.thread_node */
    uint32_t thread_count;
    uint32_t thread_alive; /* not yet past exit */

    /* guard: sig */
    struct sig_pending pending; /* shared */
    int group_status;           /* valid when exiting */
    struct coredump *core;      /* being written; on the dumper's stack */
    struct task *exec_task;     /* thread that ends the others to execve; weak */
    uint32_t stop_count;        /* threads that still have to stop */
    int stop_signo;
    bool stop_dequeued; /* a stop signal was taken and SIGCONT has not come since */
    bool stop_reported, cont_unreported; /* wait(2): WSTOPPED taken, WCONTINUED to take */
    bool cldstop_due, cldcont_due;       /* SIGCHLD that a thread has still to send */
    uint32_t open_masks;                 /* sig: threads with task_priv.own_open */
    _Atomic bool exiting;                /* group exit has begun; written under sig */
    _Atomic bool stopping;               /* a group stop is wanted or complete; under sig */

    struct waitq child_wq; /* wait4 of this group: a child changed state */
    struct waitq stop_wq;  /* SIGCONT */
    struct waitq sig_wq;   /* signalfd: something came for this group or its threads */

    struct tg_timers *timers;            /* timer.c; NULL when none was ever made */
    struct cpu_limit *_Atomic cpu_limit; /* timer_limit.c; mu to change */
    bool cpu_limit_over;                 /* mu: no new one, the last thread has gone */
    _Atomic int32_t oom_score_adj, oom_score_adj_min;
    _Atomic int64_t heap_gone; /* task_priv.heap of threads that have ended */
    _Atomic int dumpable;
    _Atomic bool thp_disable;
    _Atomic int membarrier; /* TASK_ATTR_MEMBARRIER */
};

/* Host threads between two tasks. */
struct task_pool {
    struct mutex mu; /* rank LEAF: the rest */
    struct list idle;
    unsigned idle_count;
    bool closed;
};

struct kernel {
    /* immutable */
    struct kernel_config cfg;
    _Atomic bool strace; /* from cfg, changed by kernel_set_strace */
    struct kernel_timers *timers;
    struct cgroups *cgroups;
    struct rseq_cpus *rseq_cpus;
    struct futex_table *futexes;
    uint64_t boot_mono_ns, boot_realtime_ns;
    struct uts_ns *uts; /* of the sandbox */
    struct ipc_ns *ipc; /* of the sandbox */
    struct super *nsfs; /* inodes of files that name namespaces */
    struct ns_tag
        *tags[7]; /* NS_TAGS, of the sandbox; that of mounts comes with the first program */
    _Atomic uint64_t next_ns_id;

    struct mutex core_mu; /* rank LEAF: guards core_pattern */
    char core_pattern[CORE_PATTERN_MAX];
    _Atomic bool core_uses_pid;

    struct mutex mu; /* rank KERNEL, "tree": guards this part */
    struct idalloc ids;
    struct pid **pids;         /* LIMIT_TASKS + 1 slots */
    struct list groups;        /* in no order */
    struct thread_group *init; /* pid 1, weak */
    int32_t last_pid;
    bool dying; /* pid 1 has ended: no new tasks, no zombies */

    _Atomic uint32_t task_count;
    _Atomic uint32_t thread_count; /* of the host, that may still look at this object */
    struct task_pool pool;
    _Atomic uint64_t memory; /* bytes the guest sees */
    _Atomic uint64_t oom_kills;
    _Atomic uint64_t host_oom_seen; /* of cfg.host_oom_kills */
    _Atomic bool oom_choosing, oom_taking;
    _Atomic uint32_t sigqueue_count;
    _Atomic bool tsc_used;   /* ... or may not read the time stamp counter though its task may */
    _Atomic bool sched_used; /* some thread of the host may not be where it wants */
    _Atomic uint64_t forks;
    _Atomic uint64_t missing_logged[8]; /* system calls that are not there: named once */
    struct waitq exit_wq;               /* a group has been reaped */
    struct timer load_timer;            /* load.c, when load_begun */
    _Atomic bool load_begun;
    _Atomic uint32_t load[3];
    uint64_t kcmp_cookies[KCMP_TYPES][2]; /* immutable */
};

/* ---- task_pool.c ---- */
void task_pool_init(struct task_pool *p);
/* Nobody waits any more, or will: they end soon. */
void task_pool_close(struct task_pool *p);
/* After the last thread has ended. */
void task_pool_fini(struct task_pool *p);
/* A host thread, new or one that waited, that calls t's thread_fn. t is that thread's from here on.
 */
MUST_CHECK int task_pool_start(struct task *t);

/* ---- pid.c; all with tree held ---- */
/* A fresh number for a new task of ns, in it and all above; -EAGAIN, -EEXIST, -ENOMEM when a
 * namespace has ended. want: wish_count numbers from the inside out, NULL: any. */
MUST_CHECK int pid_new_locked(struct kernel *k, struct pid_ns *ns, const int32_t *want,
                              size_t want_count, struct pid **out_pid);
struct pid *pid_find_locked(struct kernel *k, int32_t nr);
/* By its number in ns. */
struct pid *pid_find_in_locked(struct kernel *k, const struct pid_ns *ns, int32_t nr);
/* p's number as seen from ns; 0: cannot be seen. */
int32_t pid_nr_in(const struct pid *p, const struct pid_ns *ns);
/* The same of a number of the sandbox's, in use. */
int32_t pid_out_locked(struct kernel *k, const struct pid_ns *ns, int32_t nr);
/* Frees the number when nothing uses it any more. */
void pid_release_locked(struct kernel *k, struct pid *p);
/* A new session and process group with id nr around tg, which leaves its own. */
MUST_CHECK int session_new_locked(struct thread_group *tg);
MUST_CHECK int pgrp_new_locked(struct kernel *k, int32_t id, struct session *s,
                               struct pgrp **out_pgrp);
void pgrp_join_locked(struct thread_group *tg, struct pgrp *pg);
void pgrp_leave_locked(struct thread_group *tg);
/* Drops the reference of pgrp_new_locked. */
void pgrp_release_locked(struct kernel *k, struct pgrp *pg);
bool pgrp_orphaned_locked(struct pgrp *pg, const struct thread_group *ignored);

/* ---- pidns.c ---- */
/* A child of parent with no process yet; -ENOSPC too deep. Owned result. */
MUST_CHECK int pid_ns_new(struct kernel *k, struct pid_ns *parent, struct user_ns *owner,
                          struct pid_ns **out_ns);
struct pid_ns *pid_ns_get(struct pid_ns *ns); /* NULL allowed, as below */
void pid_ns_put(struct pid_ns *ns);
/* tg is the first process of its namespace, whose end is the end of all in it. */
static inline bool tg_is_init(const struct thread_group *tg)
{
    return tg->vtgid == 1;
}

/* ---- task.c ---- */
struct thread_group *tg_get(struct thread_group *tg);
void tg_put(struct thread_group *tg);
/* Locks and returns tg->sighand. Not for callers that hold the group's mu or a sighand lock. */
struct sighand *tg_lock_sig(struct thread_group *tg);
static inline void sighand_unlock(struct sighand *sh)
{
    mutex_unlock(&sh->mu);
}
/* Owned, live or zombie; -ESRCH. */
MUST_CHECK int kernel_find_tg(struct kernel *k, int32_t tgid, struct thread_group **out_tg);
/* What all of the group's threads have used so far. Takes tree. */
void tg_usage(struct thread_group *tg, struct task_usage *out);
void tg_usage_locked(struct thread_group *tg, struct task_usage *out);
uint64_t tg_rlimit(struct thread_group *tg, int resource);

/* ---- kernel.c ---- */
/* A signal from outside the guest, against which pid 1 is not proof. tree held. */
void kernel_kill_group_locked(struct thread_group *tg, int signo);
MUST_CHECK int uts_dup(struct uts_ns *u, struct uts_ns **out_uts);
struct uts_ns *uts_get(struct uts_ns *u);
void uts_put(struct uts_ns *u);
/* Cut to what fits; domain NULL: as it is. */
void uts_rename(struct uts_ns *u, const char *node, const char *domain);

/* ---- exit.c ---- */
/* Begins the end of a group (exit_group, a fatal signal); the first status counts. sig held. */
void tg_exit_locked(struct thread_group *tg, int wait_status);
/* Wakes whoever waits for tg or, through its parent, for its state. tree held. */
void tg_wake_parent_locked(struct thread_group *tg);

/* ---- job.c: job control ---- */
/* Default action of SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, by the thread that took the signal, no
 * lock held. The taker has set stop_dequeued in the same lock section as the dequeue. The thread
 * itself stops in its next job_work. */
void job_stop(struct task *t, int signo);
/* SIGCONT was sent: everything stopped goes on, whatever the signal's action. sig held. */
void job_continue_locked(struct thread_group *tg);
/* Owner, before it returns to the guest: stops while the group is stopped, reports to the parent.
 */
void job_work(struct task *t);

/* ---- signal.c (the signal part) as the rest of the kernel uses it ---- */
MUST_CHECK int sighand_new(struct sighand **out_sh); /* all default */
MUST_CHECK int sighand_dup(struct sighand *sh, struct sighand **out_sh);
struct sighand *sighand_get(struct sighand *sh);
void sighand_put(struct sighand *sh);
/* execve: handlers become default, ignored ones stay. sig held. */
void sighand_exec_locked(struct sighand *sh);
void sig_pending_init(struct sig_pending *p);
/* Drops every entry. sig held, or nobody else knows p. */
void sig_pending_flush(struct kernel *k, struct sig_pending *p);
/* tg_send_signal and task_send_signal (task.h) may be called with tree held. */

/* ---- load.c ---- */
/* No more samples. Not from a timer's function. */
void kernel_loads_end(struct kernel *k);

/* ---- futex.c, timers.c ---- */
MUST_CHECK int futex_table_new(struct futex_table **out_ft);
void futex_table_free(struct futex_table *ft); /* no waiter is left; NULL allowed */
MUST_CHECK int kernel_timers_new(struct kernel *k, struct kernel_timers **out_kt);
void kernel_timers_free(struct kernel_timers *kt); /* nothing is armed; NULL allowed */
/* The last thread is going: disarms and frees everything in tg->timers. No lock held. */
void tg_timers_exit(struct thread_group *tg);
/* RLIMIT_CPU was set, or a group begins with it. No lock held. */
void tg_cpu_limit_changed(struct thread_group *tg);
/* execve: POSIX timers go, interval timers stay. No lock held. */
void tg_timers_exec(struct thread_group *tg);

#endif
