/* Inside the client: channels and the frame of one call.
 * Depends on: client.h.
 * Threading: a channel belongs to the thread that holds its lock.
 * Ownership: a call borrows a channel between gof_call_begin and gof_call_end. */
#ifndef RINGWALL_GOFER_PROTO_CLIENT_PRIV_H
#define RINGWALL_GOFER_PROTO_CLIENT_PRIV_H

#include <stdatomic.h>

#include "base/lock.h"
#include "base/ref.h"
#include "gofer/proto/client.h"

struct gof_channel {
    struct mutex mu; /* rank GOFER_CHANNEL */
    int fd;
    /* The CPU its requests are served on: GOF_CPU_NONE at first. With mu held to change. */
    _Atomic uint32_t cpu;
    unsigned strangers; /* requests from other CPUs since the last one from there; guarded by mu */
    uint32_t seq;       /* of the last request; guarded by mu */
    uint8_t *buf;       /* GOF_MESSAGE_MAX, request and then answer; guarded by mu */
};

struct gof_client {
    struct ref ref;
    struct gof_channel channels[GOF_CHANNEL_MAX];
    size_t count;
    _Atomic bool dead;
    _Atomic uint64_t requests;
    struct mutex close_mu; /* rank LEAF: guards what follows */
    uint64_t closes[GOF_CLOSE_MAX];
    size_t close_count;
};

struct gof_call {
    struct gof_client *c;
    struct gof_channel *ch;
    struct wbuf w;
    struct rbuf r;
    int fd; /* that came with the answer, or -1 */
};

/* Takes a channel and starts a request. */
void gof_call_begin(struct gof_client *c, enum gof_op op, struct gof_call *call);
/* Sends what was written and receives the answer: its status. r then reads its fields. */
MUST_CHECK int gof_call_send(struct gof_call *call);
/* Gives the channel back. r is the call's result so far; fields that did not parse (rest must be
 * read up), or a descriptor that nobody took, count as a broken gofer. */
MUST_CHECK int gof_call_end(struct gof_call *call, int r);

#endif
