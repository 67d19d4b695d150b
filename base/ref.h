/* Reference counts that saturate instead of wrapping and abort on underflow.
 * Depends on: compiler.h.
 * Threading: atomic; ref_put orders everything before it ahead of the final release.
 * Ownership: a count is embedded in the object it keeps alive. */
#ifndef RINGWALL_BASE_REF_H
#define RINGWALL_BASE_REF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

/* Counts above REF_LIMIT are pinned at REF_PINNED: the object leaks, it is never freed early. */
#define REF_LIMIT 0x7fffffffu
#define REF_PINNED 0xc0000000u

struct ref {
    _Atomic uint32_t count;
};

static inline void ref_init(struct ref *r)
{
    atomic_store_explicit(&r->count, 1, memory_order_relaxed);
}

/* For asserts and statistics only. */
static inline uint32_t ref_read(const struct ref *r)
{
    return atomic_load_explicit(&r->count, memory_order_relaxed);
}

/* The caller already holds a reference. */
static inline void ref_get(struct ref *r)
{
    uint32_t old = atomic_fetch_add_explicit(&r->count, 1, memory_order_relaxed);

    BUG_ON(old == 0);
    if (UNLIKELY(old >= REF_LIMIT))
        atomic_store_explicit(&r->count, REF_PINNED, memory_order_relaxed);
}

/* For tables of weak pointers, under the table's lock: false when the object is on its way out. */
static inline MUST_CHECK bool ref_tryget(struct ref *r)
{
    uint32_t old = atomic_load_explicit(&r->count, memory_order_relaxed);

    do {
        if (old == 0)
            return false;
        if (UNLIKELY(old >= REF_LIMIT))
            return true;
    } while (!atomic_compare_exchange_weak_explicit(&r->count, &old, old + 1, memory_order_acquire,
                                                    memory_order_relaxed));
    return true;
}

/* True: that was the last one, and the caller now releases the object. */
static inline MUST_CHECK bool ref_put(struct ref *r)
{
    uint32_t old = atomic_fetch_sub_explicit(&r->count, 1, memory_order_acq_rel);

    BUG_ON(old == 0);
    if (UNLIKELY(old > REF_LIMIT)) {
        atomic_store_explicit(&r->count, REF_PINNED, memory_order_relaxed);
        return false;
    }
    return old == 1;
}

#endif
