/* What opens FIFOs and devices: given by boot, since their file systems stand above vfs.
 * Depends on: vfs.
 * Threading: set once before the first open, then read by every thread.
 * Ownership: the table is static. */
#ifndef RINGWALL_SENTRY_VFS_SPECIAL_H
#define RINGWALL_SENTRY_VFS_SPECIAL_H

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

struct vfs_special_ops {
    /* fifo(7): fills f->ops and f->priv; blocks for the other end as open(2) says. i->fifo is
     * made on first use under i->mu. */
    MUST_CHECK int (*open_fifo)(struct inode *i, struct file *f, const struct vfs_caller *c);
    /* A FIFO of the host, of which fd, non-blocking, is an open end, taken on success: fills f->ops
     * and f->priv; blocks for a writer as open(2) says. */
    MUST_CHECK int (*open_host_fifo)(int fd, struct file *f, const struct vfs_caller *c);
    /* Character and block devices by i->rdev; -ENXIO for a number nobody serves. */
    MUST_CHECK int (*open_device)(struct inode *i, struct file *f, const struct vfs_caller *c);
    /* The inode goes away: frees i->fifo. */
    void (*release_fifo)(struct inode *i);
};

void vfs_set_special(const struct vfs_special_ops *ops);
const struct vfs_special_ops *vfs_special(void);

#endif
