/* Files of the host, reached through the gofer: names and attributes by request, bytes through the
 * host descriptors it passes. Depends on: vfs, gofer/proto.
 * Threading: any thread; requests block on the gofer, never on a guest.
 * Ownership: a super borrows the client, which outlives it. */
#ifndef RINGWALL_SENTRY_FS_GOFERFS_GOFERFS_H
#define RINGWALL_SENTRY_FS_GOFERFS_GOFERFS_H

#include <stdbool.h>
#include <stdint.h>

#include "sentry/vfs/vfs.h"

struct gof_client;

/* Who else changes the files while they are mounted. */
enum goferfs_access {
    GOFERFS_EXCLUSIVE, /* nobody: names (absent ones too) and attributes are kept */
    GOFERFS_SHARED,    /* the host, other containers: both are asked for anew at each use */
};

struct goferfs_args {
    struct gof_client *client;
    uint32_t export_id;
    enum goferfs_access access;
    const char *source; /* as /proc/mounts shows it */
};

/* The export as a file system. Its root is a regular file when the export is one. A read-only
 * export sets MS_RDONLY in the super's flags. Owned result. */
MUST_CHECK int goferfs_mount(const struct goferfs_args *args, struct super **out_super);

/* For /proc/filesystems; boot_arg of its mount op is a struct goferfs_args. */
extern const struct fs_ops goferfs_ops;

#endif
