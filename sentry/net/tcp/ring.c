#include "sentry/net/tcp/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RING_MIN 4096u

void ring_fini(struct ring *r)
{
    free(r->data);
    memset(r, 0, sizeof(*r));
}

void ring_trim(struct ring *r)
{
    if (r->used == 0)
        ring_fini(r);
}

static size_t ring_round(size_t size)
{
    size_t space = RING_MIN;

    while (space < size)
        space *= 2;
    return space;
}

int ring_reserve(struct ring *r, size_t size)
{
    if (LIKELY(size <= r->space))
        return 0;
    if (size > SIZE_MAX / 4)
        return -ENOBUFS;
    const size_t space = ring_round(size);
    uint8_t *fresh = malloc(space);
    if (!fresh)
        return -ENOBUFS;
    if (r->data) {
        /* What lies beyond used counts too: data that came out of order. */
        const size_t first = r->space - r->head;
        memcpy(fresh, r->data + r->head, first);
        memcpy(fresh + first, r->data, r->head);
        free(r->data);
    }
    r->data = fresh;
    r->space = space;
    r->head = 0;
    return 0;
}

int ring_pieces(const struct ring *r, size_t off, size_t size, struct iovec out[2])
{
    if (size == 0)
        return 0;
    BUG_ON(off > r->space || size > r->space - off);
    const size_t at = (r->head + off) & (r->space - 1);
    const size_t first = MIN(size, r->space - at);

    out[0] = (struct iovec){r->data + at, first};
    if (first == size)
        return 1;
    out[1] = (struct iovec){r->data, size - first};
    return 2;
}

void ring_put(struct ring *r, size_t off, const void *src, size_t size)
{
    struct iovec v[2];
    const int n = ring_pieces(r, off, size, v);
    size_t done = 0;

    for (int i = 0; i < n; i++) {
        memcpy(v[i].iov_base, (const uint8_t *)src + done, v[i].iov_len);
        done += v[i].iov_len;
    }
}

int64_t ring_append_uio(struct ring *r, struct uio *u, size_t size)
{
    struct iovec v[2];
    const int n = ring_pieces(r, r->used, size, v);
    int64_t done = 0;

    for (int i = 0; i < n; i++) {
        const int64_t got = uio_copy_from(u, v[i].iov_base, v[i].iov_len);
        if (got < 0)
            return done > 0 ? done : got;
        done += got;
        r->used += (size_t)got;
        if ((size_t)got < v[i].iov_len)
            break;
    }
    return done;
}

int64_t ring_copy_uio(const struct ring *r, size_t off, struct uio *u, size_t size)
{
    struct iovec v[2];
    const int n = ring_pieces(r, off, size, v);
    int64_t done = 0;

    for (int i = 0; i < n; i++) {
        const int64_t got = uio_copy_to(u, v[i].iov_base, v[i].iov_len);
        if (got < 0)
            return done > 0 ? done : got;
        done += got;
        if ((size_t)got < v[i].iov_len)
            break;
    }
    return done;
}

void ring_consume(struct ring *r, size_t size)
{
    BUG_ON(size > r->used);
    r->used -= size;
    if (r->space)
        r->head = (r->head + size) & (r->space - 1);
}
