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

/* A packet of O_DIRECT mode: where it ends in the stream of bytes. */
struct packet {
    struct list node;
    uint64_t left;
};

struct pipe {
    struct ref ref;
    struct mutex mu; /* rank PIPE: guards the rest */
    char *buf;       /* ring of capacity bytes, made at the first write */
    uint64_t capacity, start, used;
    struct list packets; /* boundaries inside used, when any was written with O_DIRECT */
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
/* Appends up to max bytes of u, as far as there is room. Lock held. */
MUST_CHECK int64_t pipe_put_locked(struct pipe *p, struct uio *u, uint64_t max);

#endif
