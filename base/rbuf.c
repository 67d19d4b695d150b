#include "base/rbuf.h"

#include <endian.h>
#include <string.h>

void rbuf_init(struct rbuf *r, const void *data, size_t size)
{
    *r = (struct rbuf){.data = data, .size = size};
}

const void *rbuf_take(struct rbuf *r, size_t size)
{
    const uint8_t *at;

    if (r->failed || size > r->size - r->off) {
        r->failed = true;
        return NULL;
    }
    /* Arithmetic on a NULL base (an empty buffer) is undefined; any other pointer will do. */
    at = r->data == NULL ? (const uint8_t *)"" : r->data + r->off;
    r->off += size;
    return at;
}

void rbuf_bytes(struct rbuf *r, void *dst, size_t size)
{
    const void *src = rbuf_take(r, size);

    if (src == NULL)
        memset(dst, 0, size);
    else
        memcpy(dst, src, size);
}

uint8_t rbuf_u8(struct rbuf *r)
{
    uint8_t v;

    rbuf_bytes(r, &v, sizeof(v));
    return v;
}

uint16_t rbuf_u16(struct rbuf *r)
{
    uint16_t v;

    rbuf_bytes(r, &v, sizeof(v));
    return le16toh(v);
}

uint32_t rbuf_u32(struct rbuf *r)
{
    uint32_t v;

    rbuf_bytes(r, &v, sizeof(v));
    return le32toh(v);
}

uint64_t rbuf_u64(struct rbuf *r)
{
    uint64_t v;

    rbuf_bytes(r, &v, sizeof(v));
    return le64toh(v);
}

uint16_t rbuf_u16be(struct rbuf *r)
{
    uint16_t v;

    rbuf_bytes(r, &v, sizeof(v));
    return be16toh(v);
}

uint32_t rbuf_u32be(struct rbuf *r)
{
    uint32_t v;

    rbuf_bytes(r, &v, sizeof(v));
    return be32toh(v);
}

const char *rbuf_cstr(struct rbuf *r, size_t max, size_t *out_len)
{
    size_t room = MIN(rbuf_left(r), max);
    const char *s = (const char *)r->data + r->off;
    const char *end = room == 0 ? NULL : memchr(s, '\0', room);
    size_t len;

    if (end == NULL) {
        r->failed = true;
        return NULL;
    }
    len = (size_t)(end - s);
    r->off += len + 1;
    if (out_len != NULL)
        *out_len = len;
    return s;
}

void rbuf_skip(struct rbuf *r, size_t size)
{
    (void)rbuf_take(r, size);
}

void rbuf_seek(struct rbuf *r, size_t off)
{
    if (off > r->size)
        r->failed = true;
    else
        r->off = off;
}

void rbuf_align(struct rbuf *r, size_t align)
{
    rbuf_skip(r, (align - r->off % align) % align);
}

void rbuf_sub(struct rbuf *r, size_t size, struct rbuf *out)
{
    const void *at = rbuf_take(r, size);

    rbuf_init(out, at, at == NULL ? 0 : size);
    out->failed = at == NULL;
}
