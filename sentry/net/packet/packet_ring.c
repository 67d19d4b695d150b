/* PACKET_RX_RING in versions 1 and 2: frames are written where the guest reads them
 * (Documentation/networking/packet_mmap.rst of the kernel). The guest can write to all of it:
 * nothing but the status word of the next frame is ever read back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/compiler.h"
#include "sentry/mem/memfile.h"
#include "sentry/net/packet/packet_priv.h"

/* TPACKET_ALIGN and TPACKET_HDRLEN of <linux/if_packet.h> are signed. */
#define HEAD_ALIGN(size) ALIGN_UP((size_t)(size), (size_t)TPACKET_ALIGNMENT)
#define HEAD_SIZE(head) ((int)(HEAD_ALIGN(sizeof(head)) + sizeof(struct sockaddr_ll)))
#define RING_SIZE_MAX (UINT64_C(64) << 20)

/* ---- the memory ---- */

static struct packet_ring *ring_of_map(struct mappable *m)
{
    return container_of(m, struct packet_ring, m);
}

static int map_translate(struct mappable *m, uint64_t off, uint64_t size, unsigned access,
                         struct mappable_range *out)
{
    struct packet_ring *r = ring_of_map(m);

    (void)access;
    if (off >= r->size)
        return -ERANGE;
    *out = (struct mappable_range){
        .in_memfile = true, .fd = -1, .off = r->off + off, .size = MIN(size, r->size - off)};
    return memfile_ref(r->mf, out->off, out->size);
}

static void map_get(struct mappable *m)
{
    ref_get(&ring_of_map(m)->ref);
}

static void map_put(struct mappable *m)
{
    packet_ring_put(ring_of_map(m));
}

static void map_mapped(struct mappable *m, bool added)
{
    if (added)
        atomic_fetch_add(&ring_of_map(m)->mapped, 1);
    else
        atomic_fetch_sub(&ring_of_map(m)->mapped, 1);
}

static void map_describe(struct mappable *m, uint64_t *out_dev, uint64_t *out_ino, char *path,
                         size_t size)
{
    (void)m;
    *out_dev = 0;
    *out_ino = 0;
    (void)snprintf(path, size, "socket:[packet]");
}

static const struct mappable_ops map_ops = {
    .translate = map_translate,
    .get = map_get,
    .put = map_put,
    .mapped = map_mapped,
    .describe = map_describe,
};

void packet_ring_put(struct packet_ring *r)
{
    if (!r || !ref_put(&r->ref))
        return;
    mappable_fini(&r->m);
    memfile_unref(r->mf, r->off, r->size);
    free(r);
}

int packet_mmap(struct sock *base, struct mappable **out)
{
    struct packet_sock *s = packet_of(base);
    int r = -EINVAL;

    mutex_lock(&s->mu);
    if (s->ring) {
        ref_get(&s->ring->ref);
        *out = &s->ring->m;
        r = 0;
    }
    mutex_unlock(&s->mu);
    return r;
}

/* ---- making one ---- */

int packet_ring_head(int version)
{
    switch (version) {
    case TPACKET_V1:
        return HEAD_SIZE(struct tpacket_hdr);
    case TPACKET_V2:
        return HEAD_SIZE(struct tpacket2_hdr);
    default:
        return -EINVAL;
    }
}

static int ring_check(const struct packet_sock *s, const struct tpacket_req *q)
{
    const uint64_t least = (uint64_t)packet_ring_head(s->version) + s->reserve;

    if ((int)q->tp_block_size <= 0 || q->tp_block_size % PAGE_SIZE || q->tp_frame_size < least ||
        q->tp_frame_size % TPACKET_ALIGNMENT)
        return -EINVAL;
    const uint32_t per_block = q->tp_block_size / q->tp_frame_size;
    if (per_block == 0 || (uint64_t)per_block * q->tp_block_nr != q->tp_frame_nr)
        return -EINVAL;
    return (uint64_t)q->tp_block_size * q->tp_block_nr > RING_SIZE_MAX ? -ENOMEM : 0;
}

static int ring_new(struct packet_sock *s, const struct tpacket_req *q, struct packet_ring **out)
{
    struct memfile *mf = net_packet(s->base.net)->mf;
    struct packet_ring *r = mf ? calloc(1, sizeof(*r)) : NULL;

    if (!r)
        return -ENOMEM;
    r->mf = mf;
    r->size = (uint64_t)q->tp_block_size * q->tp_block_nr;
    r->block_size = q->tp_block_size;
    r->frame_size = q->tp_frame_size;
    r->per_block = q->tp_block_size / q->tp_frame_size;
    r->frames = q->tp_frame_nr;
    int err = memfile_alloc(mf, NULL, r->size, &r->off);
    if (err) {
        free(r);
        return err;
    }
    r->base = memfile_ptr(mf, r->off);
    mappable_init(&r->m, &map_ops);
    ref_init(&r->ref);
    *out = r;
    return 0;
}

int packet_ring_set(struct packet_sock *s, const struct tpacket_req *q)
{
    struct packet_ring *fresh = NULL, *old = NULL;
    int r = 0;

    mutex_lock(&s->mu);
    if (s->ring && (atomic_load(&s->ring->mapped) || q->tp_block_nr))
        r = -EBUSY;
    else if (q->tp_block_nr)
        r = ring_check(s, q);
    else if (q->tp_frame_nr)
        r = -EINVAL;
    if (r == 0 && q->tp_block_nr) {
        r = ring_new(s, q, &fresh);
        if (r == 0)
            fresh->version = s->version;
    }
    if (r == 0) {
        old = s->ring;
        s->ring = fresh;
    }
    mutex_unlock(&s->mu);
    packet_ring_put(old);
    if (r == 0)
        packet_purge(s);
    return r;
}

/* ---- frames ---- */

static uint8_t *frame_at(const struct packet_ring *r, uint32_t i)
{
    return r->base + (uint64_t)(i / r->per_block) * r->block_size +
           (uint64_t)(i % r->per_block) * r->frame_size;
}

/* The first word of version 1 is a long, of which the low half is all there is to it. */
static uint32_t status_of(const struct packet_ring *r, uint32_t i)
{
    return __atomic_load_n((const uint32_t *)(const void *)frame_at(r, i), __ATOMIC_ACQUIRE);
}

static void put_head1(uint8_t *at, const struct packet_skb *p, uint32_t mac, uint32_t net,
                      uint32_t size)
{
    const struct tpacket_hdr h = {
        .tp_len = p->len,
        .tp_snaplen = size,
        .tp_mac = (uint16_t)mac,
        .tp_net = (uint16_t)net,
        .tp_sec = (uint32_t)(p->time_ns / 1000000000u),
        .tp_usec = (uint32_t)(p->time_ns % 1000000000u / 1000),
    };
    const size_t from = offsetof(struct tpacket_hdr, tp_len);

    memcpy(at + from, (const uint8_t *)&h + from, sizeof(h) - from);
    memcpy(at + HEAD_ALIGN(sizeof(h)), &p->from, sizeof(p->from));
}

static void put_head2(uint8_t *at, const struct packet_skb *p, uint32_t mac, uint32_t net,
                      uint32_t size)
{
    const struct tpacket2_hdr h = {
        .tp_len = p->len,
        .tp_snaplen = size,
        .tp_mac = (uint16_t)mac,
        .tp_net = (uint16_t)net,
        .tp_sec = (uint32_t)(p->time_ns / 1000000000u),
        .tp_nsec = (uint32_t)(p->time_ns % 1000000000u),
    };
    const size_t from = offsetof(struct tpacket2_hdr, tp_len);

    memcpy(at + from, (const uint8_t *)&h + from, sizeof(h) - from);
    memcpy(at + HEAD_ALIGN(sizeof(h)), &p->from, sizeof(p->from));
}

bool packet_ring_put_locked(struct packet_sock *s, const struct packet_skb *p)
{
    struct packet_ring *r = s->ring;
    const uint32_t head = (uint32_t)HEAD_ALIGN(packet_ring_head(r->version));
    const uint32_t net = head + 16 + s->reserve, mac = net - p->net;
    uint32_t size = p->size, status = p->status;

    if (net > UINT16_MAX || status_of(r, r->head) != TP_STATUS_KERNEL)
        return false;
    if (mac + size > r->frame_size)
        size = mac < r->frame_size ? r->frame_size - mac : 0;
    if (s->drops)
        status |= TP_STATUS_LOSING;
    uint8_t *at = frame_at(r, r->head);
    if (size)
        memcpy(at + mac, p->data, size);
    if (r->version == TPACKET_V1)
        put_head1(at, p, mac, net, size);
    else
        put_head2(at, p, mac, net, size);
    __atomic_store_n((uint32_t *)(void *)at, status, __ATOMIC_RELEASE);
    r->head = r->head + 1 < r->frames ? r->head + 1 : 0;
    return true;
}

bool packet_ring_ready_locked(const struct packet_sock *s)
{
    const struct packet_ring *r = s->ring;

    return r && status_of(r, (r->head ? r->head : r->frames) - 1) != TP_STATUS_KERNEL;
}
