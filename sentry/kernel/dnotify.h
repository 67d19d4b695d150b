/* F_NOTIFY of fcntl(2): signals about what happens in a directory. And the signals about leases.
 * Depends on: task.h, fasync.h.
 * Threading: any thread, no lock held.
 * Ownership: what was asked for belongs to the open file and to the table of descriptors by which
 * it was asked; it goes with either. */
#ifndef RINGWALL_SENTRY_KERNEL_DNOTIFY_H
#define RINGWALL_SENTRY_KERNEL_DNOTIFY_H

#include "base/compiler.h"
#include "sentry/kernel/task.h"

/* /proc/sys/fs/dir-notify-enable: whether anybody may ask. */
extern _Atomic uint32_t file_notify_enabled;

/* events: DN_*; none: ends it. -EINVAL: not enabled. -ENOTDIR, -ENOSPC, -ENOMEM. */
MUST_CHECK int file_notify(struct task *t, struct file *f, int fd, uint32_t events);
/* A descriptor of fdt to f was closed. */
void file_notify_drop(struct file *f, const struct fdtable *fdt);
/* F_SETLEASE; fd is what a signal names. As lease_set. */
MUST_CHECK int file_set_lease(struct task *t, struct file *f, int fd, int type,
                              const struct vfs_caller *c);

#endif
