/* The file systems that show control groups: cgroup2, and cgroup (version 1).
 * Depends on: vfs, kernel/cgroup.h.
 * Threading: any thread.
 * Ownership: a super owns a reference on the group it begins at. */
#ifndef RINGWALL_SENTRY_FS_CGROUP_CGROUPFS_H
#define RINGWALL_SENTRY_FS_CGROUP_CGROUPFS_H

#include "sentry/vfs/vfs.h"

struct cgroup;

/* boot_arg of their mount ops is the struct cgroup_ns whose groups are shown. */
extern const struct fs_ops cgroup2_fs_ops, cgroup_fs_ops;

/* The version 2 group whose directory f is, borrowed from f; NULL: it is none. */
struct cgroup *cgroupfs_group(const struct file *f);

#endif
