/* Inside sentry/kernel: what struct task does not show, and the calls between its parts.
 * Depends on: kernel_priv.h.
 * Threading: as kernel_priv.h. "owner": the task's own thread; fields others may read are atomic.
 * Ownership: one allocation holds struct task and struct task_priv. */
#ifndef RINGWALL_SENTRY_KERNEL_TASK_PRIV_H
#define RINGWALL_SENTRY_KERNEL_TASK_PRIV_H

#include <pthread.h>
#include <time.h>

#include "sentry/kernel/cgroup.h"
#include "sentry/kernel/dispatch.h"
#include "sentry/kernel/kernel_priv.h"
#include "sentry/kernel/rseq_cpu.h"
#include "sentry/wait/pairing.h"

struct trace_work;
struct seccomp_filter;
struct ns_tag;
struct io_ctx;
struct pid_ns;

/* ptrace(2): who traces this task, and how it stands with that. Guard: sig, unless said. */
struct task_trace {
    struct task *tracer; /* tree and sig to change, either to read; weak */
    struct list node;    /* tree: tracer's tracees */
    struct list tracees; /* tree: whom this task traces */
    bool seized;
    uint32_t options;            /* PTRACE_O_* */
    bool trap_stop, trap_notify; /* has a stop to make, PTRACE_EVENT_STOP when seized */
    bool stopped;                /* in a stop; what follows is of that stop */
    bool even_dying;             /* ... that a death does not end */
    bool listening;              /* PTRACE_LISTEN */
    bool resumed;                /* the tracer lets it go on */
    bool frozen;                 /* the tracer is at work on it: stays whatever comes */
    bool has_info;
    int code; /* what wait(2) shows, 0 once shown; then what to go on with */
    uint64_t message;
    struct lx_siginfo info;
    struct trace_work *work; /* to be done by the tracee for the tracer */
    uint32_t kicks;          /* start_mu: counts what start_cond was signalled for */
    _Atomic bool step;       /* one instruction only; changed while stopped */
};

/* Bits of task_priv.sys_work. */
#define SYS_WORK_TRACE 1u /* stop before and after each call */
#define SYS_WORK_EMU 2u   /* stop before each call and do not make it */
#define SYS_WORK_SECCOMP 4u
#define SYS_WORK_DISPATCH 8u /* dispatch.h */

struct task_priv {
    struct task *t;
    struct list thread_node;        /* tree and sig: thread_group.threads */
    struct uts_ns *uts;             /* guard: task.mu; owned */
    struct mount_ns *ns;            /* guard: task.mu; owned */
    struct ipc_ns *ipc;             /* guard: task.mu; owned */
    struct ns_tag *tags[7];         /* NS_TAGS; guard: task.mu; owned */
    struct pid_ns *pid_ns_children; /* owner to change, task.mu; owned: where children are born */
    struct io_ctx *io;              /* guard: task.mu; owned, NULL till it is needed */
    struct sem_undo_list *_Atomic sem_undo; /* owner; owned, NULL till it is needed */
    uint64_t start_ns;                      /* since boot; immutable */

    /* owner: what task.fs held when it was looked at last, so that the paths everybody shares are
     * not counted up and down by every call */
    struct fs_ctx *seen_fs; /* for comparison only; NULL: nothing is kept */
    uint32_t seen_version, seen_umask;
    struct vpath seen_root, seen_cwd; /* owned */
    uint32_t seen_users;              /* callers filled from it and not ended */

    /* owner */
    void (*thread_fn)(struct task *t); /* the task's life; it is gone when that returns */
    int exit_code;                     /* as wait(2) encodes it */
    uint64_t set_child_tid; /* CLONE_CHILD_SETTID: stored by the child before its first step */
    struct plat_ctx *start_ctx;
    struct pairing pairing;
    uint32_t paired_sleeps; /* blocker.sleeps when that was last looked at */
    bool sig_offered;       /* guest code may set default actions by itself: sig_offer_end */
    bool in_exec;           /* an execve cannot fail any more */
    bool exec_failed;       /* ... but did: SIGKILL */
    bool no_guest;          /* killed from outside, or never started: no user state to return to */

    /* atomic */
    _Atomic uint32_t sys_work; /* SYS_WORK_*: what is to be done around system calls */
    _Atomic bool yields_alone; /* guest code has been told that it may yield by itself */
    _Atomic bool answers_due;  /* what guest code may be told is to be looked up (answers.c) */
    /* Odd between the last check for work and the end of plat_ctx_run; counts up. */
    _Atomic uint32_t guest_seq;
    _Atomic uint64_t min_flt, maj_flt, invol_switches;
    _Atomic int64_t heap; /* owner writes: what its calls have left in the sentry's heap, bytes */
    _Atomic uint64_t rchar, wchar, syscr, syscw; /* written by the owner alone */
    _Atomic int nice;
    _Atomic int sched_policy, sched_priority; /* sched_setscheduler(2): remembered and shown */
    _Atomic bool sched_reset_on_fork;
    _Atomic uint64_t timer_slack_ns;
    uint64_t timer_slack_born; /* immutable: what setting it to 0 gives */
    _Atomic int pdeathsig;
    _Atomic uint32_t personality;
    _Atomic int mce_kill; /* PR_MCE_KILL_* */
    _Atomic bool io_flusher;
    _Atomic bool no_tsc;                /* PR_SET_TSC */
    uint64_t affinity[LIMIT_CPU_WORDS]; /* guard: task.mu */
    _Atomic bool sched_due;             /* the context has not been told */
    struct mm_policy policy;            /* set_mempolicy(2); guard: task.mu */

    uint64_t cpu_clock_start_ns; /* what it showed at the start; immutable once cpu_clock is set */
    _Atomic clockid_t cpu_clock; /* of the thread; 0 before it runs */

    /* guard: tree and sig to change, either to read */
    bool dead;            /* past its exit: has no ctx, takes no signal */
    bool zombie;          /* a leader that waits for its group or its parent */
    bool stop_pending;    /* sig: counted in tg->stop_count, has still to stop */
    _Atomic bool stopped; /* written under sig: sleeps in job_work */
    uint64_t dead_utime_ns, dead_stime_ns;

    /* vfork: the child has let go of the parent's memory */
    _Atomic bool vfork_done;
    bool vfork_pending; /* owner (child): somebody may wait on vfork_wq */
    struct waitq vfork_wq;

    /* Start of the thread of kernel_exec_load, guard: start_mu */
    struct mutex start_mu; /* rank LEAF */
    struct cond start_cond;
    int start_state; /* START_* in task_run.c */

    struct task_trace trace;

    struct task_dispatch dispatch; /* owner, or its tracer while it is stopped */

    /* ---- rseq.c ---- */
    struct rseq_user rseq_user;
    _Atomic bool rseq_event;     /* a critical section is to be ended, and the number shown */
    struct rseq_turn rseq_shown; /* owner: what it was shown last */

    /* ---- control groups (cgroup_task.c, cgroup_hold.c) ---- */
    struct cgroup_link cg[CGROUP_ROOTS]; /* tree */
    _Atomic uint32_t held;               /* HELD_*: must not run guest code; changed under tree */
    _Atomic bool holding;                /* waits because of that */

    /* ---- seccomp (seccomp.c) ---- */
    struct seccomp_filter *seccomp; /* sig to change, owner to read; owned, as a user */
    _Atomic int seccomp_mode;       /* SECCOMP_MODE_* */
    _Atomic bool nnp_due;           /* no_new_privs by another thread's SECCOMP_FILTER_FLAG_TSYNC */

    /* ---- signals (signal.c) ---- */
    struct sig_pending pending; /* sig */
    uint64_t wait_set;          /* sig: what sigtimedwait(2) wants: delivered though blocked */
    struct plat_own *own;       /* sig, owner to change; borrowed of the context, or NULL: own.c */
    bool own_open;              /* sig: guest code may change what it blocks */
    uint64_t altstack_sp, altstack_size; /* owner */
    uint32_t altstack_flags;
    bool forced_fatal; /* owner: a frame could not be built */
    /* owner: of the last fault, for cr2, trapno and err of frames */
    uint64_t fault_addr, fault_trapno, fault_err;

    /* ---- futexes (futex.c) and timers (timers.c) ---- */
    _Atomic bool futex_gone; /* exiting: has given up its locks, and nobody may wait for it */
};

static inline struct task_priv *task_priv(const struct task *t)
{
    return t->impl;
}

/* A hint: it sleeps in a call, or is about to. */
static inline bool task_is_asleep(const struct task *t)
{
    return atomic_load_explicit(&t->blocker.word, memory_order_relaxed) & BLOCKER_SLEEPING;
}

/* ---- own.c ---- */
/* Owner, before guest code is entered: it may change what it blocks, and its robust list, without a
 * system call. Takes the sig lock. */
void own_begin(struct task *t);
/* Owner, before the context leaves its address space or ends: not any more. */
void own_end(struct task *t);
uint64_t task_robust_list_locked(const struct task *t);

/* ---- dispatch.c ---- */
/* Owner, at the beginning of a call. False: there is no call; the program's handler, or its end,
 * comes instead. */
MUST_CHECK bool dispatch_enter(struct task *t);

/* ---- rseq.c ---- */
/* Owner, before guest code is entered and after signals: what BLOCKER_RSEQ asks for. */
void rseq_work(struct task *t);
/* t's critical section, if it is in one, is to be ended before it goes on. Owner, or t is marked so
 * that it comes to look. */
void rseq_event(struct task *t);
/* Owner, before a handler's frame is built. False: SIGSEGV instead. */
MUST_CHECK bool rseq_signal(struct task *t);
/* Owner, which is about to wait for long, but not in its blocker. */
void rseq_stopped(struct task *t);
/* fork: c, which has not run yet, is registered as t is. Owner of t. */
void rseq_fork(struct task *t, struct task *c);
/* Owner, with the memory of the registration: it is over. */
void rseq_end(struct task *t);

/* ---- answers.c ---- */
/* Owner, before guest code is entered while task_priv.answers_due. */
void task_answers(struct task *t);
/* What getpid, getuid and their like give may have changed, or whether t's calls are looked at.
 * Owner, or whoever holds the tree or sig. */
void task_answers_changed(struct task *t);

/* How often it slept: what the host does to threads that run is not known. */
static inline uint64_t task_sleeps(const struct task *t)
{
    return atomic_load_explicit(&t->blocker.sleeps, memory_order_relaxed);
}

/* ---- task.c ---- */
/* A task with nothing but defaults, in no table: tg, ua, ctx, cred, fdt, fs are the caller's to
 * fill. Counted against LIMIT_TASKS: -EAGAIN; -ENOMEM. Owned result. */
MUST_CHECK int task_new(struct kernel *k, struct task **out_task);
MUST_CHECK int tg_new(struct kernel *k, struct thread_group **out_tg);
/* Puts t, whose tg is set, under pid p: the tables and lists. tree held; takes sig. The caller's
 * reference passes to the tables (dropped by task_release). */
void task_publish_locked(struct task *t, struct pid *p);
/* Ends t's existence for others: number, lists, group when it was the last. tree held. */
void task_unlink_locked(struct task *t);
/* Makes t look up from where it is: sets bits in its blocker and, when it runs guest code, makes
 * that stop. sig held, or t is the caller itself. */
void task_interrupt_locked(struct task *t, uint32_t bits);
/* User and system time so far, ns. sig or tree held, or owner. */
uint64_t task_utime_ns(struct task *t);
void task_io_get(struct task *t, struct task_io *out);
void task_io_add(struct task_io *to, const struct task_io *io);
uint64_t task_stime_ns(struct task *t);
/* Swaps a pointer that other threads read; the old value is put. Owner. */
void task_set_cred(struct task *t, struct cred *c);
void task_set_comm(struct task *t, const char *name);

/* ---- task_run.c ---- */
/* Starts the thread of a task that clone made; -EAGAIN. */
MUST_CHECK int task_start_thread(struct task *t);
/* Starts the thread of a task whose image is loaded but has no context yet; returns when the
 * context exists. The thread then waits for task_go. */
MUST_CHECK int task_start_loaded(struct task *t, uint64_t entry, uint64_t stack);
void task_go(struct task *t);
/* A task that was killed before task_go: lets its thread find out. Any lock below LEAF held. */
void task_go_if_waiting(struct task *t);
/* Instead of task_go: the thread gives up its context and ends; the task is the caller's again. */
void task_start_abort(struct task *t);
/* Registers of a program's first instruction. */
void task_init_regs(struct plat_regs *regs, uint64_t entry, uint64_t stack);
/* Owner: will the task end instead of going back to the guest? */
static inline bool task_dying(const struct task *t)
{
    return atomic_load_explicit(&t->blocker.word, memory_order_acquire) & BLOCKER_KILLED;
}

/* ---- exit.c ---- */
/* The last thing a task's thread does. The task may be freed when it returns. */
void task_exit_final(struct task *t);
/* As task_exit, but wait(2) is to see that signal. Owner. */
void task_exit_signal(struct task *t, int signo);
/* The mm is being left (exit, execve): robust list, clear_tid. Owner, with the old mm. */
void task_mm_release(struct task *t);
/* The task uses its parent's memory no more: ends the wait of vfork(2). Owner. */
void task_vfork_done(struct task *t);
/* Takes a zombie group out of every table; it is put on dead, for tg_reaped. tree held. */
void tg_reap_locked(struct thread_group *tg, struct list *dead);
/* Drops the tables' references to what tg_reap_locked took out. No lock held. */
void tg_reaped(struct kernel *k, struct list *dead);
/* Tells the parent of what happened to tg, CLD_*: signal and wake-up. tree held. True: nobody wants
 * a zombie, so reap it. */
MUST_CHECK bool tg_notify_parent_locked(struct thread_group *tg, int code, int status);
/* The group's end is told to whoever waits for it: the tracer of its leader, or its parent. tree
 * held. True: nobody wants the zombie. */
MUST_CHECK bool exit_notify_end_locked(struct thread_group *tg);
/* A thread that has ended and is no leader vanishes; perhaps its group ends with that. tree held.
 */
void exit_thread_reap_locked(struct task *t, struct list *dead);
/* What wait(2) says of a thread that has ended. tree or sig held. */
int exit_thread_status_locked(const struct task *t);
/* Tells the context where it may run, if that has changed. Owner, between runs. */
void task_sched_apply(struct task *t);
/* A thread that is counted in a group stop goes. sig held. */
void job_thread_exit_locked(struct task *t);
/* One thread fewer to wait for. True: it was the last, and the parent is to be told. sig held. */
bool job_arrive_locked(struct task *t);
/* job_work has something to do. sig held. */
bool job_due_locked(const struct task *t);
/* Wait for child processes sees tg as stopped: every thread has. sig held. */
static inline bool job_stopped_locked(const struct thread_group *tg)
{
    return atomic_load_explicit(&tg->stopping, memory_order_relaxed) && tg->stop_count == 0;
}

/* ---- taskipc.c ---- */
/* CLONE_SYSVSEM: c undoes together with t. -ENOMEM. */
MUST_CHECK int task_sem_undo_share(struct task *t, struct task *c);
/* The task ends or goes its own way. Owner, no lock held. */
void task_sem_undo_exit(struct task *t);

/* ---- ioctx.c ---- */
/* clone: c, not yet published, has t's I/O context or one like it. -ENOMEM. */
MUST_CHECK int task_io_clone(struct task *t, struct task *c, bool share);
void io_ctx_put(struct io_ctx *io);

/* ---- oom.c ---- */
/* What the host has ended so far does not count. */
void oom_host_begin(struct kernel *k);
/* tg ends because the host has ended its stub: maybe for want of memory. No lock. */
void oom_host_look(struct thread_group *tg);
/* A page could not be had. The process that takes most memory is killed when it is the limit that
 * is reached. True: try again, or t itself ends. Owner, no lock held. */
MUST_CHECK bool task_oom(struct task *t);
/* heap_pressed(), at a place where t holds nothing: what is not used is taken back, and when the
 * limit is reached all the same a process ends. */
void task_memory_look(struct task *t);

/* ---- session.c ---- */
/* tg, about to become a zombie, leads a session: its terminal is given up. tree held. */
void session_leader_exit_locked(struct thread_group *tg);
/* Sends a signal of the kernel's own to every member. tree held. */
void pgrp_signal_locked(struct pgrp *pg, int signo);
/* SIGHUP and SIGCONT for the stopped members of pg when it is orphaned without ignored. tree held.
 */
void pgrp_check_orphaned_locked(struct pgrp *pg, const struct thread_group *ignored);

/* ---- caller.c ---- */
/* Drops the copy of task.fs: before another takes its place, and at the end. Owner. */
void task_forget_fs(struct task *t);

/* ---- image.c: the program a group runs; while held, opening it for writing gives ETXTBSY ---- */
MUST_CHECK int exe_deny_write(struct inode *i);
void exe_allow_write(struct inode *i);
/* Owned, with the denial. -ETXTBSY. */
MUST_CHECK int exe_from_file(struct file *f, struct vpath *out);
void exe_dup(const struct vpath *from, struct vpath *out);
void exe_put(struct vpath *exe); /* empty is allowed; becomes empty */

/* ---- signal.c ---- */
/* Child half of clone: blocked mask is copied, nothing pending; the alternate stack is kept unless
 * the child shares the mm without CLONE_VFORK. Parent's thread; child not published. */
void sig_fork(struct task *parent, struct task *child, uint64_t clone_flags);
/* From here on t's calls of rt_sigaction reach the sentry, and what it has set is known. Owner. */
void sig_offer_end(struct task *t);
/* execve(2): alternate stack is forgotten. Owner. (Handlers: sighand_exec_locked.) */
void sig_exec(struct task *t);
/* A thread goes: drops what is pending for it; shared signals that only it was to take are
 * offered to another thread. sig held, t->dead already set. */
void sig_task_exit_locked(struct task *t);
/* Owner, before a return to the guest, when the task was interrupted or its call returned
 * ERESTART*: clears INTERRUPT; takes signals and acts: default actions end the group
 * (tg_exit_locked) or stop it (job_stop); one handler frame per signal that has one; the call is
 * restarted or turned to EINTR (orig_rax and rax). Returns also when the task is to
 * end or to stop: the loop looks at BLOCKER_KILLED and at job_work before it runs the guest. */
void sig_deliver(struct task *t);
/* Owner: a synchronous signal for what guest code did (siginfo from f; forced: blocked or ignored
 * becomes default and fatal). */
void sig_force_fault(struct task *t, const struct plat_fault *f);

/* ---- futex.c ---- */
/* exit or execve: walks the robust list (bounded). Owner, old mm still there. */
void futex_exit_robust(struct task *t);
/* Wakes up to count waiters on the word at addr, shared key: clear_child_tid. Owner. */
void futex_wake_word(struct task *t, uaddr_t addr, int count);

#endif
