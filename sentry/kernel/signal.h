/* Signals for the system call layer: actions, masks, waiting, sending with permission.
 * Depends on: task.h.
 * Threading: t is the calling task, on its own thread with no lock held.
 * Ownership: values; task and file arguments are borrowed. */
#ifndef RINGWALL_SENTRY_KERNEL_SIGNAL_H
#define RINGWALL_SENTRY_KERNEL_SIGNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/kernel/task.h"

/* sigaction(2) in the kernel's form; handler 0 SIG_DFL, 1 SIG_IGN. */
struct task_sigaction {
    uint64_t handler, flags, restorer, mask;
};
/* act, old: either NULL. -EINVAL: no signal, or KILL and STOP changed. */
MUST_CHECK int task_sigaction(struct task *t, int signo, const struct task_sigaction *act,
                              struct task_sigaction *old);

struct task_altstack {
    uint64_t sp;
    uint32_t flags; /* SS_* */
    uint64_t size;
};
/* sigaltstack(2): ss, old: either NULL. -EPERM on the stack itself, -EINVAL, -ENOMEM. */
MUST_CHECK int task_sigaltstack(struct task *t, const struct task_altstack *ss,
                                struct task_altstack *old);
/* rt_sigreturn(2): registers and mask from the frame below the stack pointer, whatever stands
 * there; SIGSEGV when it cannot be. The value is that of rax. */
int64_t task_sigreturn(struct task *t);

uint64_t task_sigmask(const struct task *t);
/* KILL and STOP cannot be blocked. */
void task_set_sigmask(struct task *t, uint64_t mask);
/* Pending for the thread or its process, and blocked. */
uint64_t task_sigpending(struct task *t);
/* sigsuspend(2): -ERESTARTNOHAND once a signal is there; mask holds till then. */
MUST_CHECK int task_sigsuspend(struct task *t, uint64_t mask);
/* sigtimedwait(2): takes one of set. The signal's number, -EAGAIN at the deadline, -EINTR. */
MUST_CHECK int task_sigwait(struct task *t, uint64_t set, deadline_t deadline,
                            struct lx_siginfo *out);
/* Takes one of set if there is one: for signalfd. */
MUST_CHECK bool task_sigtake(struct task *t, uint64_t set, struct lx_siginfo *out);

/* Sending as kill(2) does, with its permission check; signo 0 only checks. info NULL: that of
 * kill(2) or tgkill(2). -EINVAL for no signal, -ESRCH, -EPERM, -EAGAIN. */
MUST_CHECK int task_kill(struct task *t, int32_t pid, int signo);
MUST_CHECK int task_kill_process(struct task *t, int32_t pid, int signo,
                                 const struct lx_siginfo *info);
/* tgid 0: any. */
MUST_CHECK int task_kill_thread(struct task *t, int32_t tgid, int32_t tid, int signo,
                                const struct lx_siginfo *info);

/* signalfd(2). flags: O_NONBLOCK. Owned result. */
MUST_CHECK int signalfd_new(struct task *t, uint64_t mask, uint32_t flags, struct file **out_file);
/* Another mask for an existing one; -EINVAL when f is none. */
MUST_CHECK int signalfd_set_mask(struct file *f, uint64_t mask);

#endif
