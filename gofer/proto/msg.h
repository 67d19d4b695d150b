/* One message over a channel's socket, with at most one descriptor.
 * Depends on: base.
 * Threading: one sender and one receiver at a time per socket.
 * Ownership: a received descriptor is the caller's. */
#ifndef RINGWALL_GOFER_PROTO_MSG_H
#define RINGWALL_GOFER_PROTO_MSG_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* fd -1: none. -EPIPE: the other end is gone. */
MUST_CHECK int gof_msg_send(int sock, const void *data, size_t size, int fd);
/* flags: 0 or MSG_DONTWAIT. Bytes received, 0 when the other end is gone. *out_fd is -1 or a
 * close-on-exec descriptor. -EPROTO: longer than size, or more than one descriptor (all closed). */
MUST_CHECK int64_t gof_msg_recv(int sock, void *data, size_t size, int flags, int *out_fd);

#endif
