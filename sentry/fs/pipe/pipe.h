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

/* ---- splice(2), tee(2); the files are pipes ---- */
/* Bytes that fit now. */
uint64_t pipe_room(struct file *f);
/* Puts back what was read last and could not be moved on. */
void pipe_unread(struct file *f, const void *data, uint64_t size);
/* Copies up to max bytes of in to out and leaves them in in. 0: nothing in it, and no writer.
 * -EAGAIN without a blocker, -EPIPE, -EINVAL for one pipe twice, -ERESTARTSYS. */
MUST_CHECK int64_t pipe_tee(struct file *in, struct file *out, uint64_t max,
                            const struct vfs_caller *c);

/* For struct vfs_special_ops. */
MUST_CHECK int fifo_open(struct inode *i, struct file *f, const struct vfs_caller *c);
void fifo_release(struct inode *i);

#endif
