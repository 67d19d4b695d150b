/* What is to be changed in a stub's mappings, as the state wanted rather than as a list of calls:
 * ranges in rising order that do not overlap. A later request takes the place of what an earlier
 * one said of its range, so nothing that is gone (a descriptor that was closed, memory that was
 * given back) is mapped even for a moment, and neighbours become one call. Depends on: base.
 * Threading: none of its own.
 * Ownership: owns its array; descriptors are borrowed. */
#ifndef RINGWALL_PLATFORM_STUB_QUEUE_H
#define RINGWALL_PLATFORM_STUB_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* Requests that do not fit are refused; the caller carries out what is there and asks again. */
#define STUB_QUEUE_MAX 1024

enum stub_change_kind { STUB_MAP, STUB_UNMAP, STUB_PROTECT };

struct stub_change {
    uint64_t start, end;
    enum stub_change_kind kind;
    int prot;     /* MAP, PROTECT: as mmap(2) */
    int flags;    /* MAP */
    int fd;       /* MAP */
    uint64_t off; /* MAP */
};

struct stub_queue {
    struct stub_change *changes;
    size_t count, capacity;
};

/* All zero is an empty queue. */
void stub_queue_fini(struct stub_queue *q);
/* MAP or UNMAP: what was wanted for the range before is forgotten. -ENOMEM. */
MUST_CHECK int stub_queue_replace(struct stub_queue *q, const struct stub_change *c);
/* Changes what is to be mapped in the range, and what is mapped already. -ENOMEM. */
MUST_CHECK int stub_queue_protect(struct stub_queue *q, uint64_t start, uint64_t end, int prot);
/* The one of the two that its kind asks for. -ENOMEM. */
MUST_CHECK int stub_queue_add(struct stub_queue *q, const struct stub_change *c);
/* Forgets the first count changes. */
void stub_queue_drop(struct stub_queue *q, size_t count);

#endif
