/* A descriptor of the host as a guest's open file: the standard streams, FIFOs.
 * Depends on: vfs.
 * Threading: any thread, after hostwatch_setup.
 * Ownership: the file owns the descriptor. */
#ifndef RINGWALL_SENTRY_FS_ANON_HOSTFD_H
#define RINGWALL_SENTRY_FS_ANON_HOSTFD_H

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

/* Takes fd on success. Its open flags say how the guest may use it. Reads and writes never block in
 * the host, whatever the descriptor's own flags. Owned result. */
MUST_CHECK int hostfd_new(int fd, struct file **out_file);
/* vfs_special_ops.open_host_fifo. */
MUST_CHECK int hostfd_open_fifo(int fd, struct file *f, const struct vfs_caller *c);

#endif
