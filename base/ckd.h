/* Checked arithmetic, in the manner of C23's <stdckdint.h>: true means the result did not fit.
 * Depends on: compiler.h.
 * Threading: values.
 * Ownership: none. */
#ifndef RINGWALL_BASE_CKD_H
#define RINGWALL_BASE_CKD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* *out is written (wrapped) in any case. Operands and result may be of different integer types. */
#define ckd_add(out, a, b) ckd_must_check(__builtin_add_overflow((a), (b), (out)))
#define ckd_sub(out, a, b) ckd_must_check(__builtin_sub_overflow((a), (b), (out)))
#define ckd_mul(out, a, b) ckd_must_check(__builtin_mul_overflow((a), (b), (out)))

static inline MUST_CHECK bool ckd_must_check(bool overflow)
{
    return overflow;
}

/* Whether [off, off+size) lies inside [0, max). */
static inline MUST_CHECK bool range_ok(uint64_t off, uint64_t size, uint64_t max)
{
    return off <= max && size <= max - off;
}

/* Whether [a, a+a_size) and [b, b+b_size) share a byte; neither range wraps. */
static inline MUST_CHECK bool range_overlap(uint64_t a, uint64_t a_size, uint64_t b,
                                            uint64_t b_size)
{
    if (a_size == 0 || b_size == 0)
        return false;
    return a <= b ? b - a < a_size : a - b < b_size;
}

/* Next multiple of align (a power of two). */
static inline MUST_CHECK bool ckd_align_up(uint64_t *out, uint64_t v, uint64_t align)
{
    uint64_t sum;
    bool overflow = __builtin_add_overflow(v, align - 1, &sum);

    *out = sum & ~(align - 1);
    return overflow;
}

#endif
