/* A descriptor of the host as a guest's open file: the standard streams.
 * Depends on: vfs.
 * Threading: hostfd_init once, before confinement and threads; the rest from any thread.
 * Ownership: the file owns the descriptor. */
#ifndef RINGWALL_SENTRY_FS_ANON_HOSTFD_H
#define RINGWALL_SENTRY_FS_ANON_HOSTFD_H

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

/* Makes what watches host descriptors; later it could not be made. */
MUST_CHECK int hostfd_init(void);
/* Takes fd on success. Its open flags say how the guest may use it. Reads and writes never block in
 * the host, whatever the descriptor's own flags. Owned result. */
MUST_CHECK int hostfd_new(int fd, struct file **out_file);

#endif
