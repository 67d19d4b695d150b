/* A byte ring that is allocated when it is needed and grows up to a bound.
 * Depends on: base, mm (uio).
 * Threading: the owner's lock.
 * Ownership: embedded; ring_fini frees the bytes. */
#ifndef RINGWALL_SENTRY_NET_TCP_RING_H
#define RINGWALL_SENTRY_NET_TCP_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "sentry/mm/uio.h"

struct ring {
    uint8_t *data; /* NULL: nothing was needed yet */
    size_t space;  /* a power of two */
    size_t head;   /* where the first byte is */
    size_t used;   /* bytes from head on that count */
};

void ring_fini(struct ring *r);
/* Room for size bytes in all. -ENOBUFS. */
MUST_CHECK int ring_reserve(struct ring *r, size_t size);
/* Gives the memory back when nothing is in it. */
void ring_trim(struct ring *r);
/* The bytes [off, off+size) from head as at most two pieces: their count. The range lies inside
 * the space. */
int ring_pieces(const struct ring *r, size_t off, size_t size, struct iovec out[2]);
/* Copies in at off behind head, also beyond used, which does not move. Room was reserved. */
void ring_put(struct ring *r, size_t off, const void *src, size_t size);
/* Moves bytes between u and the ring: appends, or copies out from off without taking. Bytes or
 * -EFAULT. Room was reserved. */
MUST_CHECK int64_t ring_append_uio(struct ring *r, struct uio *u, size_t size);
MUST_CHECK int64_t ring_copy_uio(const struct ring *r, size_t off, struct uio *u, size_t size);
/* Drops the first size bytes. */
void ring_consume(struct ring *r, size_t size);

#endif
