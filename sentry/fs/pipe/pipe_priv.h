/* Inside pipes: the ring of bytes.
 * Depends on: pipe.h.
 * Threading: a pipe's mu (rank PIPE, pairs by address) guards all but what is said to be immutable.
 * Ownership: reference-counted. */
#ifndef RINGWALL_SENTRY_FS_PIPE_PRIV_H
#define RINGWALL_SENTRY_FS_PIPE_PRIV_H

#include "base/list.h"
#include "base/lock.h"
#include "base/ref.h"
#include "sentry/fs/pipe/pipe.h"

/* Writes up to this size are not mixed with others, and no packet is longer. */
#define PIPE_ATOMIC 4096u

/* A packet of O_DIRECT mode, among the bytes of others. */
struct packet {
    struct list node;
    uint64_t gap;  /* bytes before it that are in no packet, behind the one before */
    uint64_t left; /* of its own */
};

struct pipe {
    struct ref ref;
    struct mutex mu; /* rank PIPE: guards the rest */
    char *buf;       /* ring of capacity bytes, made at the first write */
    uint64_t capacity, start, used;
    struct list packets; /* inside used, when any was written with O_DIRECT */
    uint64_t marked;     /* bytes up to the end of the last packet */
    uint64_t padding;  /* a packet has PIPE_ATOMIC bytes to itself: what they do not use of them */
    uint64_t reserved; /* room that is kept for those who splice to it */
    bool taken;        /* somebody splices what is in front: others find nothing */
    unsigned readers, writers;
    bool anonymous; /* of pipe(2): opening it through /proc waits for nobody; immutable */
    uint64_t reader_opens, writer_opens; /* FIFOs: what an opener waits for */
    struct waitq wq;
};

static inline struct pipe *pipe_of(const struct file *f)
{
    return f->priv;
}

/* Makes room for size bytes in all; -EBUSY when more is in it. Lock held. */
MUST_CHECK int64_t pipe_resize_locked(struct pipe *p, uint64_t size);
/* Bytes that fit. Lock held. */
uint64_t pipe_room_locked(const struct pipe *p);
/* Somebody finds bytes, or that there will be none. Lock held. */
bool pipe_readable_locked(const struct pipe *p);
/* Appends up to max bytes of u, as far as there is room, in no packet. Lock held. */
MUST_CHECK int64_t pipe_put_locked(struct pipe *p, struct uio *u, uint64_t max);
/* The last n bytes, PIPE_ATOMIC at most, were put as a packet; takes fresh. Lock held. */
void pipe_mark_locked(struct pipe *p, uint64_t n, struct packet *fresh);
/* Takes n bytes away in front, which are there. Lock held. */
void pipe_drop_locked(struct pipe *p, uint64_t n);

#endif
