/* Descriptors that name a process: pidfd_open(2), CLONE_PIDFD.
 * Depends on: task.h.
 * Threading: any thread, no lock held.
 * Ownership: a pidfd keeps the (then dead) thread group; results are owned references. */
#ifndef RINGWALL_SENTRY_KERNEL_PIDFD_H
#define RINGWALL_SENTRY_KERNEL_PIDFD_H

#include "base/compiler.h"
#include "sentry/kernel/task.h"

struct thread_group;

/* flags: O_NONBLOCK (PIDFD_NONBLOCK) or 0. Owned result. */
MUST_CHECK int pidfd_new(struct thread_group *tg, uint32_t flags, struct file **out_file);
/* Of pid (a thread-group leader) of the sandbox: -ESRCH, -EINVAL when it is no leader. */
MUST_CHECK int pidfd_open_pid(struct task *t, int32_t pid, uint32_t flags, struct file **out_file);
/* The process a descriptor names: its tgid, or -EBADF; -ESRCH once it has been reaped. */
MUST_CHECK int32_t pidfd_pid(struct file *f);

#endif
