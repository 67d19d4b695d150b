/* IPv4 and IPv6: headers of what comes in, and of what goes out (RFC 791, 8200). */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/net/ip/ip_priv.h"

#define IP4_DF 0x4000u
#define IP4_MF 0x2000u
/* Extension headers of one IPv6 packet that are stepped over. */
#define IP6_EXTENSIONS_MAX 8u
#define DEFAULT_TTL 64u
#define PMTU_LIFE (UINT64_C(600) * 1000000000)

/* ---- in ---- */

static bool is_for_us(struct ext_link *l, const struct net_addr *dst, bool *unicast)
{
    struct netns_path p;

    *unicast = false;
    if (net_addr_is_multicast(dst))
        return groups_wants(l, dst);
    if (net_addr_is_limited_broadcast(dst))
        return true;
    if (net_addr_is_loopback(dst))
        return false;
    if (netns_is_local(l->st->ns, dst, 0)) {
        *unicast = true;
        return true;
    }
    return dst->family == AF_INET && netns_route_lookup(l->st->ns, dst, NULL, 0, &p) == 0 &&
           p.type == RTN_BROADCAST;
}

/* Nobody honest calls himself so from outside. */
static bool src_is_bad(const struct net_addr *src)
{
    return net_addr_is_multicast(src) || net_addr_is_loopback(src) ||
           net_addr_is_limited_broadcast(src);
}

void ip_deliver(const struct ip_in *in)
{
    switch (in->protocol) {
    case IPPROTO_TCP:
        if (in->unicast)
            exttcp_input(in);
        break;
    case IPPROTO_UDP:
        udp_input(in);
        break;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        icmp_input(in);
        break;
    default: {
        if (in->protocol == IPPROTO_IGMP)
            igmp_input(in);
        const struct inet_packet p = {
            .from.addr = in->src,
            .to = {.addr = in->dst, .ifindex = (uint32_t)in->link->ifindex},
            .protocol = in->protocol,
            .ttl = in->ttl,
            .tos = in->tos,
            .payload = in->data,
            .size = in->size,
            .ip_header = in->src.family == AF_INET ? in->header : NULL,
            .ip_header_size = in->src.family == AF_INET ? in->header_size : 0,
        };
        if (!inet_raw_input(in->link->st->net, &p) && in->unicast && in->protocol != IPPROTO_IGMP)
            icmp_unreachable(in, 2);
        break;
    }
    }
}

void ip4_input(struct ext_link *l, const uint8_t *p, size_t size, bool checked)
{
    struct ip_in in;

    memset(&in, 0, sizeof(in));
    if (size < IP4_HEADER || p[0] >> 4 != 4)
        return;
    const size_t header = (size_t)(p[0] & 15) * 4, total = (size_t)p[2] << 8 | p[3];
    if (header < IP4_HEADER || header > size || total < header || total > size ||
        csum_fold(csum_add(0, p, header)) != 0)
        return;
    in.link = l;
    in.src = net_addr_from(AF_INET, p + 12, 4);
    in.dst = net_addr_from(AF_INET, p + 16, 4);
    in.tos = p[1];
    in.ttl = p[8];
    in.protocol = p[9];
    in.header = p;
    in.header_size = header;
    in.data = p + header;
    in.size = total - header;
    in.checked = checked;
    if (src_is_bad(&in.src) || !is_for_us(l, &in.dst, &in.unicast))
        return;
    const unsigned frag = (unsigned)p[6] << 8 | p[7];
    if (!(frag & (IP4_MF | 0x1fff))) {
        ip_deliver(&in);
        return;
    }
    uint8_t *whole =
        frag_input(l->st, &in.src, &in.dst, (uint32_t)p[4] << 8 | p[5], in.protocol,
                   (size_t)(frag & 0x1fff) * 8, frag & IP4_MF, in.data, in.size, &in.size);
    if (!whole)
        return;
    in.data = whole;
    in.checked = false;
    ip_deliver(&in);
    free(whole);
}

/* Steps over extension headers: true with the transport in in, or a fragment put aside. */
static bool ip6_headers(struct ip_in *in, uint8_t **out_whole)
{
    for (unsigned i = 0; i < IP6_EXTENSIONS_MAX; i++) {
        const uint8_t *p = in->data;
        size_t len;
        switch (in->protocol) {
        case IPPROTO_HOPOPTS:
        case IPPROTO_DSTOPTS:
            if (in->size < 8)
                return false;
            len = ((size_t)p[1] + 1) * 8;
            break;
        case IPPROTO_ROUTING:
            /* Only one that has been used up. */
            if (in->size < 8 || p[3] != 0)
                return false;
            len = ((size_t)p[1] + 1) * 8;
            break;
        case IPPROTO_FRAGMENT: {
            if (in->size < 8 || *out_whole)
                return false;
            const unsigned frag = (unsigned)p[2] << 8 | p[3];
            uint32_t id;
            memcpy(&id, p + 4, 4);
            size_t size;
            uint8_t *whole = frag_input(in->link->st, &in->src, &in->dst, id, p[0], frag & 0xfff8,
                                        frag & 1, p + 8, in->size - 8, &size);
            if (!whole)
                return false;
            *out_whole = whole;
            in->protocol = p[0];
            in->data = whole;
            in->size = size;
            in->checked = false;
            continue;
        }
        case IPPROTO_NONE:
            return false;
        default:
            return true;
        }
        if (len > in->size)
            return false;
        in->protocol = p[0];
        in->data += len;
        in->size -= len;
    }
    return false;
}

void ip6_input(struct ext_link *l, const uint8_t *p, size_t size, bool checked)
{
    struct ip_in in;
    uint8_t *whole = NULL;

    memset(&in, 0, sizeof(in));
    if (size < IP6_HEADER || p[0] >> 4 != 6)
        return;
    const size_t body = (size_t)p[4] << 8 | p[5];
    if (body > size - IP6_HEADER)
        return;
    in.link = l;
    in.src = net_addr_v6(p + 8);
    in.dst = net_addr_v6(p + 24);
    in.tos = (uint8_t)((p[0] & 15) << 4 | p[1] >> 4);
    in.ttl = p[7];
    in.protocol = p[6];
    in.header = p;
    in.header_size = IP6_HEADER;
    in.data = p + IP6_HEADER;
    in.size = body;
    in.checked = checked;
    if (src_is_bad(&in.src) || !is_for_us(l, &in.dst, &in.unicast))
        return;
    if (ip6_headers(&in, &whole))
        ip_deliver(&in);
    free(whole);
}

/* ---- path MTU ---- */

static uint32_t pmtu_get(struct ext_stack *st, const struct net_addr *dst, uint32_t mtu)
{
    const uint64_t now = mono_now();

    mutex_lock(&st->mu);
    for (size_t i = 0; i < ARRAY_SIZE(st->pmtu); i++)
        if (st->pmtu[i].until_ns > now && st->pmtu[i].mtu < mtu &&
            net_addr_equal(&st->pmtu[i].dst, dst))
            mtu = st->pmtu[i].mtu;
    mutex_unlock(&st->mu);
    return mtu;
}

void pmtu_set(struct ext_stack *st, const struct net_addr *dst, uint32_t mtu)
{
    const uint32_t least = dst->family == AF_INET6 ? 1280 : 552;

    mutex_lock(&st->mu);
    size_t i = 0;
    while (i < ARRAY_SIZE(st->pmtu) && !net_addr_equal(&st->pmtu[i].dst, dst))
        i++;
    if (i == ARRAY_SIZE(st->pmtu))
        i = st->pmtu_next++ % ARRAY_SIZE(st->pmtu);
    st->pmtu[i].dst = *dst;
    st->pmtu[i].mtu = MAX(mtu, least);
    st->pmtu[i].until_ns = mono_now() + PMTU_LIFE;
    mutex_unlock(&st->mu);
}

int ip_route(struct ext_stack *st, const struct net_addr *dst, const struct net_addr *src,
             int32_t oif, struct netns_path *out)
{
    if (!st)
        return -ENETUNREACH;
    int r = netns_route_lookup(st->ns, dst, src, oif, out);
    if (r)
        return r;
    if (out->type == RTN_LOCAL || !ext_find_link(st, out->ifindex))
        return -ENETUNREACH;
    if (!out->src.family)
        return -EADDRNOTAVAIL;
    out->mtu = pmtu_get(st, dst, out->mtu);
    return 0;
}

uint32_t ext_path_mtu(struct net *n, const struct net_addr *a, int32_t ifindex)
{
    struct netns_path p;

    return ip_route(net_ext(n), a, NULL, ifindex, &p) ? 0 : p.mtu;
}

/* ---- out ---- */

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static size_t put_ip4(uint8_t *h, const struct ip_out *o, size_t size, unsigned frag, uint16_t id)
{
    memset(h, 0, IP4_HEADER);
    h[0] = 0x45;
    h[1] = o->tos;
    put16(h + 2, (unsigned)(IP4_HEADER + size));
    put16(h + 4, id);
    put16(h + 6, frag | (o->dont_fragment ? IP4_DF : 0));
    h[8] = o->ttl ? o->ttl : DEFAULT_TTL;
    h[9] = o->protocol;
    memcpy(h + 12, o->src.b, 4);
    memcpy(h + 16, o->dst.b, 4);
    const uint16_t sum = csum_fold(csum_add(0, h, IP4_HEADER));
    memcpy(h + 10, &sum, 2);
    return IP4_HEADER;
}

static size_t put_ip6(uint8_t *h, const struct ip_out *o, size_t size, uint8_t next)
{
    memset(h, 0, IP6_HEADER);
    h[0] = (uint8_t)(0x60 | o->tos >> 4);
    h[1] = (uint8_t)(o->tos << 4);
    put16(h + 4, (unsigned)size);
    h[6] = next;
    h[7] = o->ttl ? o->ttl : DEFAULT_TTL;
    memcpy(h + 8, o->src.b, 16);
    memcpy(h + 24, o->dst.b, 16);
    return IP6_HEADER;
}

void ip_multicast_mac(const struct net_addr *dst, uint8_t mac[6])
{
    if (dst->family == AF_INET) {
        const uint8_t m[6] = {0x01, 0x00, 0x5e, dst->b[1] & 0x7f, dst->b[2], dst->b[3]};
        memcpy(mac, m, 6);
    } else {
        const uint8_t m[6] = {0x33, 0x33, dst->b[12], dst->b[13], dst->b[14], dst->b[15]};
        memcpy(mac, m, 6);
    }
}

/* The Ethernet header and away with it, or into the queue of its neighbour. */
static int to_link(struct ext_link *l, const struct netns_path *p, const struct net_addr *dst,
                   const struct virtio_net_hdr *v, struct iovec *iov, int count, size_t size)
{
    const struct net_addr *hop = p->gateway.family ? &p->gateway : dst;
    uint8_t *eth = iov[0].iov_base;
    int r = 0;

    put16(eth + 12, dst->family == AF_INET ? ETH_P_IP : ETH_P_IPV6);
    memcpy(eth + 6, l->mac, 6);
    if (net_addr_is_multicast(dst))
        ip_multicast_mac(dst, eth);
    else if (p->type == RTN_BROADCAST)
        memset(eth, 0xff, 6);
    else
        r = neigh_resolve(l, hop, eth);
    if (r == -EINPROGRESS)
        return neigh_queue(l, hop, v, iov, count, size);
    return r ? r : link_send(l, v, iov, count, size);
}

/* Without vnet_hdr the checksum is ours, and segments came one by one. */
static void finish_checksum(const struct ip_out *o)
{
    uint8_t *field = (uint8_t *)o->iov[0].iov_base + o->csum_at;
    uint16_t sum = csum_fold(csum_iov(0, o->iov, o->count));

    if (sum == 0 && o->protocol == IPPROTO_UDP)
        sum = 0xffff;
    memcpy(field, &sum, 2);
}

static int send_whole(struct ext_stack *st, struct ext_link *l, const struct netns_path *p,
                      const struct ip_out *o)
{
    uint8_t head[IP_HEADERS_MAX];
    struct virtio_net_hdr v;
    struct iovec iov[IP_IOV_MAX + 1];
    const bool four = o->dst.family == AF_INET;
    const size_t ip =
        four ? put_ip4(head + ETH_HEADER, o, o->size, 0,
                       atomic_fetch_add_explicit(&st->next_id, 1, memory_order_relaxed))
             : put_ip6(head + ETH_HEADER, o, o->size, o->protocol);

    memset(&v, 0, sizeof(v));
    if (o->partial && l->vnet_hdr) {
        v.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        v.csum_start = (uint16_t)(ETH_HEADER + ip);
        v.csum_offset = o->csum_at;
        if (o->gso_size) {
            v.gso_type = four ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
            v.gso_size = o->gso_size;
            v.hdr_len = (uint16_t)(ETH_HEADER + ip + o->transport_header);
        }
    } else if (o->partial) {
        finish_checksum(o);
    }
    iov[0] = (struct iovec){head, ETH_HEADER + ip};
    for (int i = 0; i < o->count; i++)
        iov[i + 1] = o->iov[i];
    return to_link(l, p, &o->dst, &v, iov, o->count + 1, ETH_HEADER + ip + o->size);
}

/* One piece of a datagram that was laid out flat. */
static int send_piece(struct ext_link *l, const struct netns_path *p, const struct ip_out *o,
                      uint8_t *flat, size_t off, size_t size, bool more, uint32_t id)
{
    uint8_t head[IP_HEADERS_MAX];
    struct iovec iov[2];
    size_t len;

    if (o->dst.family == AF_INET) {
        len = put_ip4(head + ETH_HEADER, o, size, (unsigned)(off / 8) | (more ? IP4_MF : 0),
                      (uint16_t)id);
    } else {
        uint8_t *f = head + ETH_HEADER + IP6_HEADER;
        (void)put_ip6(head + ETH_HEADER, o, size + 8, IPPROTO_FRAGMENT);
        f[0] = o->protocol;
        f[1] = 0;
        put16(f + 2, (unsigned)off | (more ? 1 : 0));
        memcpy(f + 4, &id, 4);
        len = IP6_HEADER + 8;
    }
    iov[0] = (struct iovec){head, ETH_HEADER + len};
    iov[1] = (struct iovec){flat + off, size};
    return to_link(l, p, &o->dst, NULL, iov, 2, ETH_HEADER + len + size);
}

static int send_pieces(struct ext_stack *st, struct ext_link *l, const struct netns_path *p,
                       const struct ip_out *o)
{
    const bool four = o->dst.family == AF_INET;
    const size_t room = (p->mtu - (four ? IP4_HEADER : IP6_HEADER + 8)) & ~(size_t)7;
    const uint16_t low = atomic_fetch_add_explicit(&st->next_id, 1, memory_order_relaxed);
    uint8_t *flat = malloc(o->size);
    size_t at = 0;
    int r = 0;

    if (!flat)
        return -ENOBUFS;
    if (o->partial)
        finish_checksum(o);
    for (int i = 0; i < o->count; i++) {
        memcpy(flat + at, o->iov[i].iov_base, o->iov[i].iov_len);
        at += o->iov[i].iov_len;
    }
    for (size_t off = 0; off < o->size && r == 0; off += room) {
        const size_t size = MIN(o->size - off, room);
        r = send_piece(l, p, o, flat, off, size, off + size < o->size,
                       four ? low : (uint32_t)low << 16 | 1);
    }
    free(flat);
    return r;
}

int ip_send(struct ext_stack *st, const struct netns_path *p, const struct ip_out *o)
{
    struct ext_link *l = ext_find_link(st, p->ifindex);
    const size_t header = o->dst.family == AF_INET ? IP4_HEADER : IP6_HEADER;

    if (!l)
        return -ENETUNREACH;
    if (o->gso_size || o->size + header <= p->mtu)
        return send_whole(st, l, p, o);
    if (o->dont_fragment)
        return -EMSGSIZE;
    return send_pieces(st, l, p, o);
}
