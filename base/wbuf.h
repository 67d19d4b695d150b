/* Bounded writer into a fixed buffer; the first overrun makes every later write do nothing.
 * Depends on: compiler.h.
 * Threading: a writer belongs to one thread.
 * Ownership: borrows the buffer. */
#ifndef RINGWALL_BASE_WBUF_H
#define RINGWALL_BASE_WBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct wbuf {
    uint8_t *data;
    size_t size, len;
    bool failed;
};

void wbuf_init(struct wbuf *w, void *data, size_t size);
/* Integers are little-endian unless the name ends in be. */
void wbuf_u8(struct wbuf *w, uint8_t v);
void wbuf_u16(struct wbuf *w, uint16_t v);
void wbuf_u32(struct wbuf *w, uint32_t v);
void wbuf_u64(struct wbuf *w, uint64_t v);
void wbuf_u16be(struct wbuf *w, uint16_t v);
void wbuf_u32be(struct wbuf *w, uint32_t v);
void wbuf_bytes(struct wbuf *w, const void *src, size_t size);
void wbuf_zero(struct wbuf *w, size_t size);
/* Pads with zeros up to a multiple of align (a power of two) from the start. */
void wbuf_align(struct wbuf *w, size_t align);
/* Text without its NUL; a text that does not fit whole is not written and fails the writer. */
PRINTF_FMT(2, 3) void wbuf_printf(struct wbuf *w, const char *fmt, ...);
void wbuf_str(struct wbuf *w, const char *s);
/* Room for size bytes to be filled by the caller, or NULL. */
void *wbuf_reserve(struct wbuf *w, size_t size);
/* Overwrites what was written at off, for lengths known only later. */
void wbuf_patch_u16(struct wbuf *w, size_t off, uint16_t v);
void wbuf_patch_u32(struct wbuf *w, size_t off, uint32_t v);
/* 0, or -ENOSPC when something did not fit. */
MUST_CHECK int wbuf_status(const struct wbuf *w);

static inline size_t wbuf_left(const struct wbuf *w)
{
    return w->failed ? 0 : w->size - w->len;
}

#endif
