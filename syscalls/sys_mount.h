/* What the mount calls share.
 * Depends on: task.h, vfs.
 * Threading: the task's own thread.
 * Ownership: as said. */
#ifndef RINGWALL_SYSCALLS_SYS_MOUNT_H
#define RINGWALL_SYSCALLS_SYS_MOUNT_H

#include "sentry/kernel/task.h"

/* Flags of mount(2) that are the file system's. */
#define MOUNT_SUPER_FLAGS ((uint32_t)(MS_RDONLY | MS_SYNCHRONOUS | MS_DIRSYNC | MS_LAZYTIME))

/* A type that can be mounted, and what its mount op is given; NULL: there is none. */
const struct fs_ops *mount_fs_type(struct task *t, const char *name, void **out_arg);
bool mount_allowed(struct task *t);
/* The same, and Landlock lets the caller change what is mounted. */
bool mount_change_allowed(struct task *t);

#endif
