/* The proc file system: what the sandbox shows of its tasks and of itself, never of the host.
 * Depends on: vfs, kernel/inspect.h, mm.
 * Threading: any thread.
 * Ownership: a proc super borrows the kernel, which outlives it. */
#ifndef RINGWALL_SENTRY_FS_PROC_PROC_H
#define RINGWALL_SENTRY_FS_PROC_PROC_H

#include "sentry/vfs/vfs.h"

/* boot_arg of its mount op is the struct kernel. */
extern const struct fs_ops proc_fs_ops;

struct kernel;
struct pid_ns;
/* The same for a container that is being made: shows pid namespace ns (NULL: the sandbox's). Owned
 * result. */
MUST_CHECK int proc_mount_for(struct kernel *k, struct pid_ns *ns, const char *source,
                              struct super **out_super);

#endif
