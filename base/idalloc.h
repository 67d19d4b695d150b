/* Small integer ids from a range, lowest free or next free: pids, descriptors, ptys, timers.
 * Depends on: compiler.h.
 * Threading: none of its own.
 * Ownership: the allocator owns a bitmap that grows with the highest id in use. */
#ifndef RINGWALL_BASE_IDALLOC_H
#define RINGWALL_BASE_IDALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct idalloc {
    uint32_t min, max; /* inclusive */
    uint32_t next;     /* where idalloc_next looks first */
    uint32_t used;     /* ids given out */
    uint64_t *words;   /* bit set: in use; ids beyond word_count words are free */
    size_t word_count;
};

/* Cannot fail; allocates nothing yet. */
void idalloc_init(struct idalloc *a, uint32_t min, uint32_t max);
void idalloc_fini(struct idalloc *a);
/* Lowest free id >= from (and >= min). -ENOSPC when there is none, -ENOMEM. */
MUST_CHECK int idalloc_lowest(struct idalloc *a, uint32_t from, uint32_t *out_id);
/* The next free id after the last one given, wrapping to min: reuse as late as possible. */
MUST_CHECK int idalloc_next(struct idalloc *a, uint32_t *out_id);
/* This very id. -EEXIST when in use, -EINVAL out of range, -ENOMEM. */
MUST_CHECK int idalloc_take(struct idalloc *a, uint32_t id);
/* id must be in use. */
void idalloc_free(struct idalloc *a, uint32_t id);
bool idalloc_used(const struct idalloc *a, uint32_t id);

#endif
