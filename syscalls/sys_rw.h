/* What the calls that write files share.
 * Depends on: task.h, vfs.
 * Threading: the task's own thread.
 * Ownership: borrows everything. */
#ifndef RINGWALL_SYSCALLS_SYS_RW_H
#define RINGWALL_SYSCALLS_SYS_RW_H

#include "sentry/kernel/task.h"

/* n is what a write to f gave (f NULL: no descriptor was named): raises SIGPIPE or SIGXFSZ where
 * Linux does, and returns n. */
int64_t rw_write_result(struct task *t, struct file *f, const struct vfs_caller *c, int64_t n);

#endif
