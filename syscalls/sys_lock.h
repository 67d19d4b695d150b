/* The record locks of fcntl(2).
 * Depends on: task.h, vfs.
 * Threading: the task's own thread.
 * Ownership: borrows everything. */
#ifndef RINGWALL_SYSCALLS_SYS_LOCK_H
#define RINGWALL_SYSCALLS_SYS_LOCK_H

#include <stdbool.h>

#include "sentry/kernel/task.h"

bool fcntl_is_lock(int cmd);
/* F_GETLK F_SETLK F_SETLKW and their F_OFD_ kind; arg: struct flock of the guest. */
MUST_CHECK int fcntl_lock(struct task *t, struct file *f, int fd, int cmd, uaddr_t arg,
                          const struct vfs_caller *c);

#endif
