/* Ancillary data of packets: what a send asks for, and what a receiver wants to know (ip(7),
 * ipv6(7), socket(7)). */
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "sentry/net/inet/inet_priv.h"

#define NS_PER_SEC 1000000000ull

uint64_t inet_realtime(void)
{
    struct timespec ts;

    BUG_ON(clock_gettime(CLOCK_REALTIME, &ts) != 0);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* ---- sending ---- */

/* An integer that may also be one byte. */
static int item_int(const struct sock_item *it, const uint8_t *data, int min, int max, int *out)
{
    int v = 0;

    if (it->size == sizeof(int))
        memcpy(&v, data, sizeof(v));
    else if (it->size == 1)
        v = data[0];
    else
        return -EINVAL;
    if (v < min || v > max)
        return -EINVAL;
    *out = v;
    return 0;
}

static int send_pktinfo(const struct sock_item *it, const uint8_t *data, struct inet_send *out)
{
    struct in_pktinfo pi;

    if (it->size != sizeof(pi))
        return -EINVAL;
    memcpy(&pi, data, sizeof(pi));
    if (pi.ipi_ifindex < 0)
        return -EINVAL;
    if (pi.ipi_ifindex)
        out->ifindex = (uint32_t)pi.ipi_ifindex;
    if (pi.ipi_spec_dst.s_addr)
        out->src = inet_addr_from4(pi.ipi_spec_dst.s_addr);
    return 0;
}

static int send_pktinfo6(const struct sock_item *it, const uint8_t *data, struct inet_send *out)
{
    struct in6_pktinfo pi;

    if (it->size < sizeof(pi))
        return -EINVAL;
    memcpy(&pi, data, sizeof(pi));
    if (pi.ipi6_ifindex)
        out->ifindex = pi.ipi6_ifindex;
    const struct net_addr a = inet_addr_from6(pi.ipi6_addr.s6_addr);
    if (!net_addr_is_any(&a))
        out->src = a;
    return 0;
}

static int send_ip(const struct sock_item *it, const uint8_t *data, struct inet_send *out)
{
    switch (it->type) {
    case IP_PKTINFO:
        return send_pktinfo(it, data, out);
    case IP_TTL:
        if (it->size != sizeof(int))
            return -EINVAL;
        return item_int(it, data, 1, 255, &out->ttl);
    case IP_TOS:
        return item_int(it, data, 0, 255, &out->tos);
    default:
        return -EINVAL;
    }
}

static int send_ip6(const struct sock_item *it, const uint8_t *data, struct inet_send *out)
{
    int ignored;

    if (it->type == IPV6_PKTINFO || it->type == IPV6_2292PKTINFO)
        return send_pktinfo6(it, data, out);
    if (it->size != sizeof(int))
        return -EINVAL;
    switch (it->type) {
    case IPV6_HOPLIMIT:
    case IPV6_2292HOPLIMIT:
        return item_int(it, data, -1, 255, &out->ttl);
    case IPV6_TCLASS:
        return item_int(it, data, -1, 255, &out->tos);
    case IPV6_DONTFRAG:
        return item_int(it, data, 0, 1, &ignored);
    default:
        return -EINVAL;
    }
}

static int send_udp(const struct inet_sock *s, const struct sock_item *it, const uint8_t *data,
                    struct inet_send *out)
{
    uint16_t v;

    if (s->base.protocol != IPPROTO_UDP)
        return 0;
    if (it->type != UDP_SEGMENT || it->size != sizeof(v))
        return -EINVAL;
    memcpy(&v, data, sizeof(v));
    out->segment = v;
    return 0;
}

int inet_cmsg_send(const struct inet_sock *s, const struct sock_control *ctl, struct inet_send *out)
{
    const uint8_t *data;
    struct sock_item it;
    size_t pos = 0;
    int r = 0;

    memset(out, 0, sizeof(*out));
    out->ttl = out->tos = -1;
    while (r == 0 && ctl && sock_control_next(ctl, &pos, &it, &data)) {
        if (it.level == SOL_IP && !inet_is_v6(s))
            r = send_ip(&it, data, out);
        else if (it.level == SOL_IPV6 && inet_is_v6(s))
            r = send_ip6(&it, data, out);
        else if (it.level == SOL_UDP)
            r = send_udp(s, &it, data, out);
    }
    if (r == 0 && out->src.family && !inet_is_local(s->base.net, &out->src) &&
        !inet_opt(s, INET_FREEBIND) && !inet_opt(s, INET_TRANSPARENT))
        r = -EINVAL;
    return r;
}

/* ---- receiving ---- */

static void put(struct sock_control *ctl, int level, int type, const void *data, size_t size)
{
    /* Without memory the guest gets less, which MSG_CTRUNC cannot tell apart from little space. */
    (void)!sock_control_put(ctl, level, type, data, size);
}

static void put_int(struct sock_control *ctl, int level, int type, int value)
{
    put(ctl, level, type, &value, sizeof(value));
}

static void recv_ip(const struct inet_sock *s, const struct inet_meta *meta,
                    struct sock_control *ctl)
{
    if (inet_opt(s, INET_PKTINFO)) {
        struct in_pktinfo pi = {.ipi_ifindex = (int)meta->ifindex};
        pi.ipi_addr.s_addr = meta->to.addr.v4;
        pi.ipi_spec_dst.s_addr = net_addr_is_multicast(&meta->to.addr) ? 0 : meta->to.addr.v4;
        put(ctl, SOL_IP, IP_PKTINFO, &pi, sizeof(pi));
    }
    if (inet_opt(s, INET_RECVTTL))
        put_int(ctl, SOL_IP, IP_TTL, meta->ttl);
    if (inet_opt(s, INET_RECVTOS))
        put(ctl, SOL_IP, IP_TOS, &meta->tos, 1);
    if (inet_opt(s, INET_RECVORIGDST)) {
        struct sock_addr a;
        inet_addr_out(AF_INET, &meta->to, &a);
        put(ctl, SOL_IP, IP_ORIGDSTADDR, &a.in, sizeof(a.in));
    }
}

static void recv_ip6(const struct inet_sock *s, const struct inet_meta *meta,
                     struct sock_control *ctl)
{
    struct in6_pktinfo pi = {.ipi6_ifindex = meta->ifindex};

    inet_addr_to6(&meta->to.addr, pi.ipi6_addr.s6_addr);
    if (inet_opt(s, INET_PKTINFO6))
        put(ctl, SOL_IPV6, IPV6_PKTINFO, &pi, sizeof(pi));
    if (meta->to.addr.family == AF_INET)
        return;
    if (inet_opt(s, INET_RECVHOPS))
        put_int(ctl, SOL_IPV6, IPV6_HOPLIMIT, meta->ttl);
    if (inet_opt(s, INET_RECVTCLASS))
        put_int(ctl, SOL_IPV6, IPV6_TCLASS, meta->tos);
    if (inet_opt(s, INET_2292PKTINFO))
        put(ctl, SOL_IPV6, IPV6_2292PKTINFO, &pi, sizeof(pi));
    if (inet_opt(s, INET_2292HOPS))
        put_int(ctl, SOL_IPV6, IPV6_2292HOPLIMIT, meta->ttl);
    if (inet_opt(s, INET_RECVORIGDST6)) {
        struct sock_addr a;
        inet_addr_out(AF_INET6, &meta->to, &a);
        put(ctl, SOL_IPV6, IPV6_ORIGDSTADDR, &a.in6, sizeof(a.in6));
    }
}

void inet_cmsg_recv(struct inet_sock *s, const struct inet_meta *meta, struct sock_control *ctl)
{
    sock_stamp(&s->base, meta->time_ns, ctl);
    sock_say_dropped(&s->base, meta->dropped, ctl);
    if (!inet_is_v6(s)) {
        recv_ip(s, meta, ctl);
        return;
    }
    recv_ip6(s, meta, ctl);
    /* A v6 socket hears of v4 packets by v4 options too. */
    if (meta->to.addr.family == AF_INET)
        recv_ip(s, meta, ctl);
}
