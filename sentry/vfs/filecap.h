/* File capabilities: the extended attribute security.capability (capabilities(7)).
 * Depends on: vfs.h.
 * Threading: any thread; the hint in the inode is atomic.
 * Ownership: nothing is kept. */
#ifndef RINGWALL_SENTRY_VFS_FILECAP_H
#define RINGWALL_SENTRY_VFS_FILECAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

#define FILECAP_NAME "security.capability"
#define FILECAP_SIZE_MAX 24

/* A value that somebody with cred c sets, as it is stored: it counts in his user namespace and
 * below. Bytes put in out, or -EINVAL. */
MUST_CHECK int64_t filecap_store(const struct cred *c, const void *value, size_t size,
                                 uint8_t out[FILECAP_SIZE_MAX]);
/* A stored value as c is to see it: bytes put in out; -EOVERFLOW when it counts for somebody whom
 * c does not know. */
MUST_CHECK int64_t filecap_show(const struct cred *c, const uint8_t *value, size_t size,
                                uint8_t out[FILECAP_SIZE_MAX]);
/* The content changes: what it was trusted with goes. May ask the file system. */
MUST_CHECK int filecap_kill(struct inode *i);

#endif
