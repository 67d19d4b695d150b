/* Signals about readiness: O_ASYNC, F_SETOWN, F_SETSIG of fcntl(2), and SIGURG of sockets.
 * Depends on: task.h.
 * Threading: any thread, no lock held. Wake-ups of a file's wait queue only note what came; a timer
 * sends the signal.
 * Ownership: a watch belongs to its file and ends with it. */
#ifndef RINGWALL_SENTRY_KERNEL_FASYNC_H
#define RINGWALL_SENTRY_KERNEL_FASYNC_H

#include "base/compiler.h"
#include "sentry/kernel/task.h"

/* Whether signals can tell of f: sockets, pipes, terminals. */
bool file_can_async(const struct file *f);
/* O_ASYNC on or off; fd is what the signal's siginfo names. */
MUST_CHECK int file_set_async(struct task *t, struct file *f, int fd, bool on);
/* F_SETOWN: a positive process or thread, a negative group, 0 nobody. -ESRCH. */
MUST_CHECK int file_set_owner(struct task *t, struct file *f, int32_t owner);

#endif
