/* Descriptors that name a process: pidfd_open(2), CLONE_PIDFD.
 * Depends on: task.h.
 * Threading: any thread, no lock held.
 * Ownership: a pidfd keeps the identity of a process; results are owned references. */
#ifndef RINGWALL_SENTRY_KERNEL_PIDFD_H
#define RINGWALL_SENTRY_KERNEL_PIDFD_H

#include "base/compiler.h"
#include "sentry/kernel/task.h"

struct procref;

/* flags: O_NONBLOCK (PIDFD_NONBLOCK) or 0. Owned result. */
MUST_CHECK int pidfd_new(struct procref *process, uint32_t flags, struct file **out_file);
/* Of pid (a thread-group leader) of the sandbox: -ESRCH, -EINVAL when it is no leader. */
MUST_CHECK int pidfd_open_pid(struct task *t, int32_t pid, uint32_t flags, struct file **out_file);
/* That of t; borrowed. */
struct procref *task_process(struct task *t);
/* The process a descriptor names: its tgid, or -EBADF; -ESRCH once it has been reaped. */
MUST_CHECK int32_t pidfd_pid(struct file *f);

#endif
