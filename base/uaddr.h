/* Guest addresses as a type of their own: not a pointer, not a size.
 * Depends on: compiler.h.
 * Threading: values.
 * Ownership: none. */
#ifndef RINGWALL_BASE_UADDR_H
#define RINGWALL_BASE_UADDR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

typedef struct {
    uint64_t v;
} uaddr_t;

#define UADDR_NULL ((uaddr_t){0})

static inline uaddr_t uaddr(uint64_t v)
{
    return (uaddr_t){v};
}

static inline bool uaddr_is_null(uaddr_t a)
{
    return a.v == 0;
}

/* Wraps like the machine; usercopy checks the range that is finally touched. */
static inline uaddr_t uaddr_add(uaddr_t a, uint64_t off)
{
    return (uaddr_t){a.v + off};
}

static inline uaddr_t uaddr_page_down(uaddr_t a)
{
    return (uaddr_t){ALIGN_DOWN(a.v, PAGE_SIZE)};
}

#endif
