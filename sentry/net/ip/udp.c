/* UDP and raw datagrams over the links (RFC 768). */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <netinet/ip_icmp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sentry/net/ip/ip_priv.h"

#define UDP_HEADER 8u
#define DATAGRAM_MAX 65535u

static uint64_t real_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void udp_input(const struct ip_in *in)
{
    const uint8_t *p = in->data;

    if (in->size < UDP_HEADER)
        return;
    const size_t size = (size_t)p[4] << 8 | p[5];
    const bool summed = p[6] || p[7];
    if (size < UDP_HEADER || size > in->size || (!summed && in->src.family == AF_INET6))
        return;
    if (summed && !in->checked &&
        csum_fold(csum_add(csum_pseudo(&in->src, &in->dst, IPPROTO_UDP, size), p, size)) != 0)
        return;
    const struct inet_packet packet = {
        .from = {.addr = in->src,
                 .port = (uint16_t)(p[0] << 8 | p[1]),
                 .ifindex = (uint32_t)in->link->ifindex},
        .to = {.addr = in->dst,
               .port = (uint16_t)(p[2] << 8 | p[3]),
               .ifindex = (uint32_t)in->link->ifindex},
        .protocol = IPPROTO_UDP,
        .ttl = in->ttl,
        .tos = in->tos,
        .time_ns = real_now(),
        .payload = p + UDP_HEADER,
        .size = size - UDP_HEADER,
        .ip_header = in->src.family == AF_INET ? in->header : NULL,
        .ip_header_size = in->src.family == AF_INET ? in->header_size : 0,
    };
    if (inet_udp_input(in->link->st->net, &packet) == -ECONNREFUSED)
        icmp_unreachable(in, ICMP_PORT_UNREACH);
}

/* ---- sending ---- */

static int route_of(struct net *n, const struct ext_dgram *d, struct netns_path *p)
{
    const int32_t oif = d->ifindex ? d->ifindex
                        : net_addr_is_linklocal(&d->to.addr) || net_addr_is_multicast(&d->to.addr)
                            ? (int32_t)d->to.ifindex
                            : 0;

    return ip_route(net_ext(n), &d->to.addr, &d->from.addr, oif, p);
}

static uint8_t ttl_of(const struct ext_dgram *d)
{
    return d->ttl ? d->ttl : net_addr_is_multicast(&d->to.addr) ? 1 : 64;
}

/* The rest of u, in a buffer of the caller's to free. */
static int take_payload(struct uio *u, size_t max, uint8_t **out, size_t *out_size)
{
    const size_t size = (size_t)u->left;

    if (u->left > max)
        return -EMSGSIZE;
    uint8_t *buf = malloc(size + 1);
    if (!buf)
        return -ENOBUFS;
    const int64_t n = size ? uio_copy_from(u, buf, size) : 0;
    if (n < 0 || (size_t)n != size) {
        free(buf);
        return -EFAULT;
    }
    *out = buf;
    *out_size = size;
    return 0;
}

int64_t ext_udp_send(struct net *n, const struct ext_dgram *d, struct uio *u)
{
    struct netns_path p;
    uint8_t head[UDP_HEADER], *data;
    size_t size;
    int r = route_of(n, d, &p);

    if (r == 0)
        r = take_payload(u, DATAGRAM_MAX - UDP_HEADER - IP4_HEADER, &data, &size);
    if (r)
        return r;
    const size_t total = UDP_HEADER + size;
    const struct iovec iov[2] = {{head, UDP_HEADER}, {data, size}};
    const uint16_t fields[3] = {htons(d->from.port), htons(d->to.port), htons((uint16_t)total)};
    memcpy(head, fields, sizeof(fields));
    const bool sum = !d->no_checksum || d->to.addr.family == AF_INET6;
    const uint16_t start =
        sum ? (uint16_t)~csum_fold(csum_pseudo(&p.src, &d->to.addr, IPPROTO_UDP, total)) : 0;
    memcpy(head + 6, &start, 2);
    const struct ip_out o = {.src = p.src,
                             .dst = d->to.addr,
                             .protocol = IPPROTO_UDP,
                             .ttl = ttl_of(d),
                             .tos = d->tos,
                             .dont_fragment = d->dont_fragment,
                             .iov = iov,
                             .count = 2,
                             .size = total,
                             .partial = sum,
                             .csum_at = 6};
    r = ip_send(net_ext(n), &p, &o);
    free(data);
    /* A link that is full drops, and nobody is told (udp(7)). */
    return r == 0 || r == -ENOBUFS ? (int64_t)size : r;
}

/* The caller's own IPv4 header: what is his stays, what must be right is put right (raw(7)). */
static int send_with_header(struct net *n, const struct netns_path *p, uint8_t *data, size_t size)
{
    if (size < IP4_HEADER || (size_t)(data[0] & 15) * 4 != IP4_HEADER || data[0] >> 4 != 4)
        return -EINVAL;
    const struct iovec iov = {data + IP4_HEADER, size - IP4_HEADER};
    struct ip_out o = {.src = net_addr_from(AF_INET, data + 12, 4),
                       .dst = net_addr_from(AF_INET, data + 16, 4),
                       .protocol = data[9],
                       .ttl = data[8],
                       .tos = data[1],
                       .dont_fragment = true,
                       .iov = &iov,
                       .count = 1,
                       .size = size - IP4_HEADER};
    if (net_addr_is_any(&o.src))
        o.src = p->src;
    return ip_send(net_ext(n), p, &o);
}

int64_t ext_raw_send(struct net *n, const struct ext_dgram *d, struct uio *u)
{
    struct netns_path p;
    uint8_t *data;
    size_t size;
    int r = route_of(n, d, &p);

    if (r == 0)
        r = take_payload(u, DATAGRAM_MAX - IP4_HEADER, &data, &size);
    if (r)
        return r;
    if (d->protocol == IPPROTO_ICMPV6 && size >= 4) {
        memset(data + 2, 0, 2);
        const uint16_t sum =
            csum_fold(csum_add(csum_pseudo(&p.src, &d->to.addr, IPPROTO_ICMPV6, size), data, size));
        memcpy(data + 2, &sum, 2);
    }
    const struct iovec iov = {data, size};
    const struct ip_out o = {.src = p.src,
                             .dst = d->to.addr,
                             .protocol = d->protocol,
                             .ttl = ttl_of(d),
                             .tos = d->tos,
                             .dont_fragment = d->dont_fragment,
                             .iov = &iov,
                             .count = 1,
                             .size = size};
    r = d->has_header ? send_with_header(n, &p, data, size) : ip_send(net_ext(n), &p, &o);
    free(data);
    return r == 0 || r == -ENOBUFS ? (int64_t)size : r;
}
