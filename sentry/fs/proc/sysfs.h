/* The sysfs file system: the sandbox's CPUs, memory node and kernel settings, in proc's tables.
 * Depends on: vfs.
 * Threading: any thread.
 * Ownership: a super borrows the kernel, which outlives it. */
#ifndef RINGWALL_SENTRY_FS_PROC_SYSFS_H
#define RINGWALL_SENTRY_FS_PROC_SYSFS_H

#include "sentry/vfs/vfs.h"

/* boot_arg of its mount op is the struct kernel. */
extern const struct fs_ops sysfs_fs_ops;

#endif
