/* Pipes and FIFOs: pipe(7), fifo(7).
 * Depends on: vfs.
 * Threading: any thread; a pipe's lock (rank PIPE) is held over copies to and from the guest.
 * Ownership: a pipe lives while a file or a FIFO's inode refers to it. */
#ifndef RINGWALL_SENTRY_FS_PIPE_PIPE_H
#define RINGWALL_SENTRY_FS_PIPE_PIPE_H

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

/* pipe2(2) without descriptors; flags: O_NONBLOCK, O_DIRECT. Owned results. */
MUST_CHECK int pipe_new(uint32_t flags, struct file **out_read, struct file **out_write);
bool pipe_is(const struct file *f);
/* F_GETPIPE_SZ: bytes; F_SETPIPE_SZ: the new size, -EBUSY when more is in it, -EPERM above the
 * limit unless privileged. -EBADF for what is no pipe. */
MUST_CHECK int64_t pipe_get_size(struct file *f);
MUST_CHECK int64_t pipe_set_size(struct file *f, uint64_t size, bool privileged);

/* ---- splice(2), tee(2), vmsplice(2); the files are pipes ---- */
/* After vfs_read with uio.stays: of what was read, size bytes go; others may read again. */
void pipe_took(struct file *f, uint64_t size);
/* Keeps room for up to max bytes, at least one, for a vfs_write with uio.reserved: how many. Waits
 * for it: -EAGAIN without a blocker, -EPIPE, -ERESTARTSYS. */
MUST_CHECK int64_t pipe_reserve(struct file *f, uint64_t max, const struct vfs_caller *c);
/* It is not needed after all. */
void pipe_unreserve(struct file *f, uint64_t size);
/* Puts what fits of u, once anything does; errors as pipe_reserve, -EFAULT, -ENOMEM. */
MUST_CHECK int64_t pipe_fill(struct file *f, struct uio *u, const struct vfs_caller *c);
/* Moves up to max bytes from in to out, as far as there is room, or with copy leaves them in in,
 * too; packets stay packets. 0: nothing in it, and no writer. Waits for either side: -EAGAIN
 * without a blocker or with O_NONBLOCK of one of them, -EPIPE, -EINVAL for one pipe twice,
 * -ENOMEM, -ERESTARTSYS. */
MUST_CHECK int64_t pipe_splice(struct file *in, struct file *out, uint64_t max, bool copy,
                               const struct vfs_caller *c);

/* For struct vfs_special_ops. */
MUST_CHECK int fifo_open(struct inode *i, struct file *f, const struct vfs_caller *c);
void fifo_release(struct inode *i);

#endif
