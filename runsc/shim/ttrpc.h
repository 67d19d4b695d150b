/* ttrpc, containerd's protocol between itself and shims: frames of a ten-byte header and a message.
 * Depends on: shim/pb.h.
 * Threading: a connection is read by one thread; replies may come from any, one at a time (the
 * caller's lock).
 * Ownership: a request owns its frame; ttrpc_request_free. */
#ifndef RINGWALL_RUNSC_SHIM_TTRPC_H
#define RINGWALL_RUNSC_SHIM_TTRPC_H

#include "runsc/shim/pb.h"

#define TTRPC_MESSAGE_MAX (4u << 20)

/* Status codes, those of gRPC. */
enum {
    TTRPC_OK = 0,
    TTRPC_UNKNOWN = 2,
    TTRPC_INVALID = 3,
    TTRPC_NOT_FOUND = 5,
    TTRPC_EXISTS = 6,
    TTRPC_PRECONDITION = 9,
    TTRPC_UNIMPLEMENTED = 12,
};

struct ttrpc_request {
    uint8_t *frame; /* owned; the others point into it */
    uint32_t stream;
    struct pb_field service, method, payload;
};

/* 0, or a negative errno: -EPIPE at the end of the connection, -EPROTO for what is no request. */
MUST_CHECK int ttrpc_read(int fd, struct ttrpc_request *out);
void ttrpc_request_free(struct ttrpc_request *r);
/* code TTRPC_OK: payload is the answer; else message is. Takes payload's bytes. */
MUST_CHECK int ttrpc_reply(int fd, uint32_t stream, int code, const char *message,
                           struct pb_out *payload);
/* One call as a client; the answer's payload is not wanted. Borrows payload. */
MUST_CHECK int ttrpc_call(int fd, uint32_t stream, const char *service, const char *method,
                          const struct pb_out *payload);

#endif
