/* Directories of several file systems shown as one: what is below (lower) stays as it is, changes
 * go above (upper). As Linux's overlayfs. Depends on: vfs.
 * Threading: any thread.
 * Ownership: a super holds its layers. */
#ifndef RINGWALL_SENTRY_FS_OVERLAY_OVERLAY_H
#define RINGWALL_SENTRY_FS_OVERLAY_OVERLAY_H

#include "sentry/vfs/vfs.h"

/* mount(2): lowerdir=, upperdir=, workdir=, redirect_dir=, index=off, metacopy=off, nfs_export=off,
 * xino=, userxattr, volatile, default_permissions. boot_arg is not used. */
extern const struct fs_ops overlay_fs_ops;

/* The root of a container: upper over lower, both of which nobody else changes; their references
 * are taken on success. Its own marks (whiteouts, attributes) are not those of mount(2), so that
 * the guest's overlays can stand on it; directories may be renamed, and hard links of lower stay
 * links. Owned result. */
MUST_CHECK int overlay_root(struct super *lower, struct super *upper, struct super **out);

#endif
