/* Files of the host, reached through the gofer: names and attributes by request, bytes through the
 * host descriptors it passes. Depends on: vfs, gofer/proto.
 * Threading: any thread; requests block on the gofer, never on a guest.
 * Ownership: a super holds a reference to its client. */
#ifndef RINGWALL_SENTRY_FS_GOFERFS_GOFERFS_H
#define RINGWALL_SENTRY_FS_GOFERFS_GOFERFS_H

#include <stdbool.h>
#include <stdint.h>

#include "sentry/vfs/vfs.h"

struct gof_client;

/* Export number export_id as a file system. exclusive: nobody else changes the files while they are
 * mounted, so names (absent ones too) and attributes are kept; otherwise both are asked for anew at
 * each use. source is what /proc/mounts shows. The root is a regular file when the export is one. A
 * read-only export sets MS_RDONLY in the super's flags. Owned result. */
MUST_CHECK int goferfs_mount(struct gof_client *client, uint32_t export_id, bool exclusive,
                             const char *source, struct super **out_super);

/* Of its supers. A guest cannot mount it: it has nothing on the host to name (-EPERM). */
extern const struct fs_ops goferfs_fs_ops;

#endif
