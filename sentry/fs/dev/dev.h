/* Devices every program expects: null(4), random(4), full(4), tty(4), and their names in /dev.
 * Depends on: vfs, kernel, devpts.
 * Threading: dev_populate before the first task; dev_open from any thread.
 * Ownership: borrows everything. */
#ifndef RINGWALL_SENTRY_FS_DEV_DEV_H
#define RINGWALL_SENTRY_FS_DEV_DEV_H

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

/* Makes the nodes, links and directories of the OCI runtime specification below dir (a path as c
 * sees it); what exists already is left as it is. Links and directories are owner's. Errors of
 * mknod(2), mkdir(2), symlink(2). */
MUST_CHECK int dev_populate(const struct vfs_caller *c, const char *dir, const struct cred *owner);

/* For struct vfs_special_ops.open_device: by i->rdev. -ENXIO for a number nobody serves. */
MUST_CHECK int dev_open(struct inode *i, struct file *f, const struct vfs_caller *c);

#endif
