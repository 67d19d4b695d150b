#include "base/wbuf.h"

#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void wbuf_init(struct wbuf *w, void *data, size_t size)
{
    *w = (struct wbuf){.data = data, .size = size};
}

void *wbuf_reserve(struct wbuf *w, size_t size)
{
    void *at;

    if (w->failed || w->data == NULL || size > w->size - w->len) {
        w->failed = true;
        return NULL;
    }
    at = w->data + w->len;
    w->len += size;
    return at;
}

void wbuf_bytes(struct wbuf *w, const void *src, size_t size)
{
    void *at = wbuf_reserve(w, size);

    if (at != NULL && size != 0)
        memcpy(at, src, size);
}

void wbuf_zero(struct wbuf *w, size_t size)
{
    void *at = wbuf_reserve(w, size);

    if (at != NULL)
        memset(at, 0, size);
}

void wbuf_u8(struct wbuf *w, uint8_t v)
{
    wbuf_bytes(w, &v, sizeof(v));
}

void wbuf_u16(struct wbuf *w, uint16_t v)
{
    v = htole16(v);
    wbuf_bytes(w, &v, sizeof(v));
}

void wbuf_u32(struct wbuf *w, uint32_t v)
{
    v = htole32(v);
    wbuf_bytes(w, &v, sizeof(v));
}

void wbuf_u64(struct wbuf *w, uint64_t v)
{
    v = htole64(v);
    wbuf_bytes(w, &v, sizeof(v));
}

void wbuf_u16be(struct wbuf *w, uint16_t v)
{
    v = htobe16(v);
    wbuf_bytes(w, &v, sizeof(v));
}

void wbuf_u32be(struct wbuf *w, uint32_t v)
{
    v = htobe32(v);
    wbuf_bytes(w, &v, sizeof(v));
}

void wbuf_align(struct wbuf *w, size_t align)
{
    wbuf_zero(w, (align - w->len % align) % align);
}

void wbuf_printf(struct wbuf *w, const char *fmt, ...)
{
    size_t left = wbuf_left(w);
    va_list ap;
    int n;

    if (w->failed)
        return;
    va_start(ap, fmt);
    n = vsnprintf((char *)w->data + w->len, left, fmt, ap);
    va_end(ap);
    /* n == left: only the NUL did not fit, but then the last character was cut for it too. */
    if (n < 0 || (size_t)n >= left)
        w->failed = true;
    else
        w->len += (size_t)n;
}

void wbuf_str(struct wbuf *w, const char *s)
{
    wbuf_bytes(w, s, strlen(s));
}

static void wbuf_patch(struct wbuf *w, size_t off, const void *src, size_t size)
{
    if (w->failed)
        return;
    BUG_ON(off > w->len || size > w->len - off);
    memcpy(w->data + off, src, size);
}

void wbuf_patch_u16(struct wbuf *w, size_t off, uint16_t v)
{
    v = htole16(v);
    wbuf_patch(w, off, &v, sizeof(v));
}

void wbuf_patch_u32(struct wbuf *w, size_t off, uint32_t v)
{
    v = htole32(v);
    wbuf_patch(w, off, &v, sizeof(v));
}

int wbuf_status(const struct wbuf *w)
{
    return w->failed ? -ENOSPC : 0;
}
