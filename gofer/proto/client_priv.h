/* Inside the client: channels and the frame of one call.
 * Depends on: client.h.
 * Threading: a channel belongs to the thread that holds its lock.
 * Ownership: a call borrows a channel between gof_call_begin and gof_call_end. */
#ifndef RINGWALL_GOFER_PROTO_CLIENT_PRIV_H
#define RINGWALL_GOFER_PROTO_CLIENT_PRIV_H

#include <stdatomic.h>

#include "base/list.h"
#include "base/lock.h"
#include "base/ref.h"
#include "gofer/proto/area.h"
#include "gofer/proto/client.h"

struct gof_channel {
    struct mutex mu; /* rank GOFER_CHANNEL */
    struct gof_area *area;
    int fd; /* for descriptors, and for the end of the gofer */
    /* The CPU its requests are served on: GOF_CPU_NONE at first. With mu held to change. */
    _Atomic uint32_t cpu;
    unsigned strangers; /* requests from other CPUs since the last one from there; guarded by mu */
    uint32_t seq;       /* of the last request; guarded by mu */
    uint8_t *buf;       /* GOF_MESSAGE_MAX, request and then answer; guarded by mu */
};

#define WATCHER_BUCKETS 256

/* Outlives the client by as long as its thread has something to tell. */
struct gof_watcher {
    struct ref ref;                       /* the client's and the thread's */
    struct mutex mu;                      /* rank LEAF: guards what follows */
    struct list watches[WATCHER_BUCKETS]; /* gof_watch.node by wd; weak */
    struct gof_client *client;            /* weak; NULL once it is gone */
    bool running;                         /* the thread is */
    /* the thread's */
    int fd;
    uint32_t seq;
    uint8_t *buf;
};

struct gof_client {
    struct ref ref;
    struct gof_channel channels[GOF_CHANNEL_MAX];
    struct gof_area *areas; /* of the channels */
    size_t count;
    struct gof_watcher *watcher;
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
    int fd; /* that came with the answer and was not taken yet, or -1 */
};

/* Ends every channel, so that nobody waits for an answer that cannot be trusted. */
void client_die(struct gof_client *c, const char *why);

/* Takes fd on success. */
MUST_CHECK int watcher_new(struct gof_client *c, int fd, struct gof_watcher **out);
/* The client goes. NULL is allowed. */
void watcher_end(struct gof_watcher *w);

/* Takes a channel and starts a request. */
void gof_call_begin(struct gof_client *c, enum gof_op op, struct gof_call *call);
/* Sends what was written and receives the answer: its status. r then reads its fields. */
MUST_CHECK int gof_call_send(struct gof_call *call);
/* The descriptor that belongs to the answer, into the call's fd, too; -1: there is none. */
int gof_call_fd(struct gof_call *call);
/* Gives the channel back. r is the call's result so far; fields that did not parse (rest must be
 * read up), or a descriptor that nobody took, count as a broken gofer. */
MUST_CHECK int gof_call_end(struct gof_call *call, int r);

#endif
