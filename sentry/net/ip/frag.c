/* Putting fragments together: few at a time, for a short while, and none that overlap (RFC 5722).
 */
#include <stdlib.h>
#include <string.h>

#include "sentry/net/ip/ip_priv.h"

#define FRAG_LIFE (UINT64_C(30) * 1000000000)
#define FRAGS_MAX 64u
#define FRAG_BYTES_MAX (4u << 20)
#define FRAG_RANGES 64u
#define FRAG_PACKET_MAX 65535u

struct frag {
    struct list node;
    struct net_addr src, dst;
    uint32_t id;
    uint8_t protocol;
    uint64_t until_ns;
    size_t total, got; /* total 0: the last piece has not come */
    size_t space;
    unsigned count;
    struct {
        uint32_t start, end;
    } ranges[FRAG_RANGES];
    uint8_t *data;
};

static void frag_free_locked(struct ext_stack *st, struct frag *f)
{
    list_del(&f->node);
    st->frag_count--;
    st->frag_bytes -= f->space;
    free(f->data);
    free(f);
}

static struct frag *frag_find_locked(struct ext_stack *st, const struct net_addr *src,
                                     const struct net_addr *dst, uint32_t id, uint8_t protocol)
{
    struct frag *f;

    list_for_each_entry (f, &st->frags, node) {
        if (f->id == id && f->protocol == protocol && net_addr_equal(&f->src, src) &&
            net_addr_equal(&f->dst, dst))
            return f;
    }
    if (st->frag_count >= FRAGS_MAX)
        frag_free_locked(st, list_first_entry(&st->frags, struct frag, node));
    f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->src = *src;
    f->dst = *dst;
    f->id = id;
    f->protocol = protocol;
    f->until_ns = mono_now() + FRAG_LIFE;
    list_add_tail(&f->node, &st->frags);
    st->frag_count++;
    return f;
}

static bool frag_room_locked(struct ext_stack *st, struct frag *f, size_t size)
{
    if (size <= f->space)
        return true;
    const size_t space = MIN(MAX(size, f->space * 2), (size_t)FRAG_PACKET_MAX);
    if (st->frag_bytes + space - f->space > FRAG_BYTES_MAX)
        return false;
    uint8_t *p = realloc(f->data, space);
    if (!p)
        return false;
    st->frag_bytes += space - f->space;
    f->data = p;
    f->space = space;
    return true;
}

/* False: the packet is to be given up. */
static bool frag_add_locked(struct ext_stack *st, struct frag *f, size_t off, bool more,
                            const uint8_t *data, size_t size)
{
    const size_t end = off + size;

    if (size == 0 || end > FRAG_PACKET_MAX || (more && size % 8 != 0) || f->count == FRAG_RANGES)
        return false;
    if (!more && f->total && f->total != end)
        return false;
    if (f->total && end > f->total)
        return false;
    for (unsigned i = 0; i < f->count; i++) {
        if (f->ranges[i].start == off && f->ranges[i].end == end)
            return true; /* once more the same */
        if (off < f->ranges[i].end && f->ranges[i].start < end)
            return false;
        if (!more && f->ranges[i].end > end)
            return false;
    }
    if (!frag_room_locked(st, f, end))
        return false;
    memcpy(f->data + off, data, size);
    f->ranges[f->count].start = (uint32_t)off;
    f->ranges[f->count++].end = (uint32_t)end;
    f->got += size;
    if (!more)
        f->total = end;
    return true;
}

uint8_t *frag_input(struct ext_stack *st, const struct net_addr *src, const struct net_addr *dst,
                    uint32_t id, uint8_t protocol, size_t off, bool more, const uint8_t *data,
                    size_t size, size_t *out_size)
{
    uint8_t *whole = NULL;

    mutex_lock(&st->mu);
    struct frag *f = frag_find_locked(st, src, dst, id, protocol);
    if (f && !frag_add_locked(st, f, off, more, data, size)) {
        frag_free_locked(st, f);
    } else if (f && f->total && f->got == f->total) {
        whole = f->data;
        *out_size = f->total;
        st->frag_bytes -= f->space;
        f->space = 0;
        f->data = NULL;
        frag_free_locked(st, f);
    }
    mutex_unlock(&st->mu);
    if (!whole && st->upkeep.at == UINT64_MAX)
        (void)ext_timer_set(st, &st->upkeep, mono_now() + 1000000000u);
    return whole;
}

void frag_upkeep(struct ext_stack *st, uint64_t now, bool *again)
{
    struct frag *f, *next;

    mutex_lock(&st->mu);
    list_for_each_entry_safe (f, next, &st->frags, node) {
        if (f->until_ns <= now)
            frag_free_locked(st, f);
    }
    *again |= st->frag_count > 0;
    mutex_unlock(&st->mu);
}
