/* Inside sentry/kernel: tracers and those they trace (kernel/ptrace.c, kernel/signal.c).
 * Depends on: task_priv.h.
 * Threading: said per function; "tree" and "sig" as in kernel_priv.h. "tracee": on its own thread.
 * Ownership: the relation is weak; it ends with the tracer's or the tracee's exit. */
#ifndef RINGWALL_SENTRY_KERNEL_PTRACE_PRIV_H
#define RINGWALL_SENTRY_KERNEL_PTRACE_PRIV_H

#include "sentry/kernel/task_priv.h"

/* Bits of an option's event: PTRACE_O_TRACEFORK is 1 << PTRACE_EVENT_FORK, and so on. */
#define TRACE_OPT(event) (1u << (event))

struct trace_work {
    int64_t (*fn)(struct task *t, void *arg);
    void *arg;
    int64_t ret;
    bool done; /* tracee's start_mu */
};

static inline bool task_traced(const struct task *t)
{
    return task_priv(t)->trace.tracer != NULL;
}

/* ---- ptrace.c: the relation ---- */
/* clone: c, not yet published, is traced as t is when event (0: none) or CLONE_PTRACE says so. tree
 * held, sig not. */
void trace_fork_locked(struct task *t, struct task *c, int event, bool clone_ptrace);
/* Nobody traces t, or somebody with CAP_SYS_PTRACE in ns. tree held. */
bool trace_capable_locked(struct task *t, const struct user_ns *ns);
/* o goes on alone. tree held; takes sig. */
void trace_unlink_locked(struct task *o);
/* t ends: lets go of what it traces. Zombies that nobody else waits for are put on dead, for
 * tg_reaped. tree held. */
void trace_exit_tracer_locked(struct task *t, struct list *dead);
/* The first process of ns has ended: nobody in it stops for a tracer any more. tree held. */
void trace_zap_locked(struct kernel *k, const struct pid_ns *ns);

/* ---- ptrace_stop.c: the tracee ---- */
/* Stops with code for the tracer to see until it says what to go on with: the value. The stop does
 * not happen when there is no tracer, or, unless even_dying, when the task is to end. tracee. */
int trace_stop(struct task *t, int code, int why, uint64_t message, const struct lx_siginfo *info,
               bool even_dying);
/* A stop without a signal: SIGTRAP with code in its siginfo. tracee. */
int trace_notify(struct task *t, int code, uint64_t message);
/* PTRACE_EVENT_*, when the tracer has asked for it. tracee. */
void trace_event(struct task *t, int event, uint64_t message);
bool trace_event_wanted(const struct task *t, int event);
/* execve(2) has succeeded. old_tid: the caller's number before. tracee. */
void trace_exec(struct task *t, int32_t old_tid);
/* Which event a clone with these arguments is, if it is asked for: else 0. tracee. */
int trace_clone_event(struct task *t, uint64_t flags, int exit_signal);
/* A stop of the group, PTRACE_INTERRUPT, and the like, when job_trap_due_locked. tracee. */
void trace_trap(struct task *t);
/* Signal delivery stop. False: the signal is not to be taken. tracee; *info may be another then. */
bool trace_signal(struct task *t, struct lx_siginfo *info);
/* Before and after a system call. False: the call is not to be made. tracee. */
bool trace_syscall_enter(struct task *t);
void trace_syscall_exit(struct task *t);

static inline bool trace_trap_due_locked(const struct task *t)
{
    const struct task_priv *p = task_priv(t);

    return p->trace.tracer && (p->stop_pending || p->trace.trap_stop || p->trace.trap_notify);
}
/* Something has changed that a seized tracee is to report. sig held. */
void trace_trap_notify_locked(struct task *t);
/* Makes a stopped tracee look again. Any lock below LEAF held. */
void trace_kick(struct task *t);

/* ---- ptrace_request.c and ptrace_regs.c: the tracer, of a tracee that is stopped and kept so ----
 */
MUST_CHECK int64_t trace_request(struct task *t, struct task *o, int64_t request, uint64_t addr,
                                 uint64_t data);
/* Runs fn on the tracee's own thread. */
int64_t trace_remote(struct task *o, int64_t (*fn)(struct task *t, void *arg), void *arg);
MUST_CHECK int64_t trace_regs_request(struct task *t, struct task *o, int64_t request,
                                      uint64_t addr, uint64_t data);

#endif
