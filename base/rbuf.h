/* Bounded reader over bytes that may be hostile; the first overrun makes every later read fail.
 * Depends on: compiler.h.
 * Threading: a reader belongs to one thread. The bytes must not change: copy shared memory first.
 * Ownership: borrows the bytes. */
#ifndef RINGWALL_BASE_RBUF_H
#define RINGWALL_BASE_RBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct rbuf {
    const uint8_t *data;
    size_t size, off;
    bool failed;
};

void rbuf_init(struct rbuf *r, const void *data, size_t size);
/* Reads return 0 after a failure; check rbuf_ok once at the end, and before using a value as a
 * bound. Integers are little-endian unless the name ends in be (network order). */
uint8_t rbuf_u8(struct rbuf *r);
uint16_t rbuf_u16(struct rbuf *r);
uint32_t rbuf_u32(struct rbuf *r);
uint64_t rbuf_u64(struct rbuf *r);
uint16_t rbuf_u16be(struct rbuf *r);
uint32_t rbuf_u32be(struct rbuf *r);
/* Copies size bytes; zero-fills dst on failure. */
void rbuf_bytes(struct rbuf *r, void *dst, size_t size);
/* The next size bytes in place, or NULL. */
const void *rbuf_take(struct rbuf *r, size_t size);
/* A string that ends with a NUL inside the next max bytes, in place, or NULL (failed). The NUL is
 * consumed; *out_len (may be NULL) excludes it. */
const char *rbuf_cstr(struct rbuf *r, size_t max, size_t *out_len);
void rbuf_skip(struct rbuf *r, size_t size);
/* Moves to an absolute offset. */
void rbuf_seek(struct rbuf *r, size_t off);
/* Skips up to a multiple of align (a power of two) from the start. */
void rbuf_align(struct rbuf *r, size_t align);
/* The next size bytes as a reader of their own; on failure *out is a failed reader. */
void rbuf_sub(struct rbuf *r, size_t size, struct rbuf *out);

static inline size_t rbuf_left(const struct rbuf *r)
{
    return r->failed ? 0 : r->size - r->off;
}

static inline MUST_CHECK bool rbuf_ok(const struct rbuf *r)
{
    return !r->failed;
}

/* Everything was read and nothing failed. */
static inline MUST_CHECK bool rbuf_done(const struct rbuf *r)
{
    return !r->failed && r->off == r->size;
}

#endif
