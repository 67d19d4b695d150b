/* Options at SOL_UDP, SOL_RAW and SOL_ICMPV6 (udp(7), raw(7), ipv6(7)). */
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>

#include "sentry/net/inet/dgram_priv.h"

#define LX_SOL_UDP 17
#define LX_SOL_UDPLITE 136
#define LX_UDPLITE_SEND_CSCOV 10
#define LX_UDPLITE_RECV_CSCOV 11
#define LX_SOL_RAW 255
#define LX_SOL_ICMPV6 58
#define LX_ICMP_FILTER 1
#define LX_ICMPV6_FILTER 1

static int get_udp(struct dgram_sock *s, int name, void *buf, socklen_t *len)
{
    switch (name) {
    case UDP_CORK:
        return inet_put_int(buf, len, s->corked);
    case UDP_SEGMENT:
        return inet_put_int(buf, len, s->i.segment);
    case UDP_GRO:
        return inet_put_int(buf, len, inet_opt(&s->i, INET_GRO));
    case UDP_ENCAP:
        return inet_put_int(buf, len, 0);
    case UDP_NO_CHECK6_TX:
        return inet_put_int(buf, len, inet_opt(&s->i, INET_NO_CHECK6_TX));
    case UDP_NO_CHECK6_RX:
        return inet_put_int(buf, len, inet_opt(&s->i, INET_NO_CHECK6_RX));
    default:
        return -ENOPROTOOPT;
    }
}

static void flag(struct dgram_sock *s, enum inet_opt o, bool on)
{
    if (on)
        atomic_fetch_or(&s->i.opts, UINT64_C(1) << o);
    else
        atomic_fetch_and(&s->i.opts, ~(UINT64_C(1) << o));
}

/* What was held back goes out: an empty part that nothing follows. */
static int uncork(struct dgram_sock *s, const struct vfs_caller *c)
{
    struct uio u;
    struct sock_msg m = {.u = &u};
    char none = 0;

    atomic_store(&s->corked, 0);
    mutex_lock(&s->i.mu);
    const bool held = s->cork;
    struct sock_addr to;
    inet_addr_out(s->i.base.family, &s->cork_to, &to);
    mutex_unlock(&s->i.mu);
    if (!held)
        return 0;
    uio_init_kernel(&u, &none, 0);
    m.to = &to;
    const int64_t n = s->i.base.ops->send(&s->i.base, &m, true, c);
    return n < 0 ? (int)n : 0;
}

static int set_udp(struct dgram_sock *s, int name, const void *buf, socklen_t len,
                   const struct vfs_caller *c)
{
    int v;

    if (inet_get_int(buf, len, &v))
        return -EINVAL;
    switch (name) {
    case UDP_CORK:
        if (!v)
            return uncork(s, c);
        atomic_store(&s->corked, 1);
        return 0;
    case UDP_SEGMENT:
        if (v < 0 || v > 65535)
            return -EINVAL;
        atomic_store(&s->i.segment, (uint16_t)v);
        return 0;
    case UDP_GRO:
        flag(s, INET_GRO, v != 0);
        return 0;
    case UDP_ENCAP:
        return v ? -ENOPROTOOPT : 0;
    case UDP_NO_CHECK6_TX:
        flag(s, INET_NO_CHECK6_TX, v != 0);
        return 0;
    case UDP_NO_CHECK6_RX:
        flag(s, INET_NO_CHECK6_RX, v != 0);
        return 0;
    default:
        return -ENOPROTOOPT;
    }
}

/* How much the checksum covers: the header at least (net/ipv4/udp.c, UDP-Lite). */
static int set_udplite(struct dgram_sock *s, int name, const void *buf, socklen_t len,
                       const struct vfs_caller *c)
{
    int v;

    if (name != LX_UDPLITE_SEND_CSCOV && name != LX_UDPLITE_RECV_CSCOV)
        return set_udp(s, name, buf, len, c);
    if (inet_get_int(buf, len, &v))
        return -EINVAL;
    const uint32_t cover = v != 0 && v < (int)UDP_HEAD ? UDP_HEAD
                           : v > UINT16_MAX            ? UINT16_MAX
                                                       : (uint32_t)v;
    atomic_store(name == LX_UDPLITE_SEND_CSCOV ? &s->coverage_out : &s->coverage_in, cover);
    return 0;
}

static bool is_filter(const struct dgram_sock *s, int level, int name)
{
    if (s->i.base.type != SOCK_RAW)
        return false;
    if (s->i.base.protocol == IPPROTO_ICMP)
        return level == LX_SOL_RAW && name == LX_ICMP_FILTER;
    return s->i.base.protocol == IPPROTO_ICMPV6 && level == LX_SOL_ICMPV6 &&
           name == LX_ICMPV6_FILTER;
}

static int get_filter(struct dgram_sock *s, void *buf, socklen_t *len)
{
    mutex_lock(&s->i.mu);
    int r = sock_put_option(buf, len, s->icmp_filter,
                            s->i.base.protocol == IPPROTO_ICMP ? sizeof(uint32_t) : 32);
    mutex_unlock(&s->i.mu);
    return r;
}

static int set_filter(struct dgram_sock *s, const void *buf, socklen_t len)
{
    const size_t max = s->i.base.protocol == IPPROTO_ICMP ? sizeof(uint32_t) : 32;

    mutex_lock(&s->i.mu);
    memcpy(s->icmp_filter, buf, MIN((size_t)len, max));
    mutex_unlock(&s->i.mu);
    return 0;
}

int dgram_getsockopt(struct sock *base, int level, int name, void *buf, socklen_t *len)
{
    struct dgram_sock *s = dgram_of(base);

    if (level == LX_SOL_UDP && base->protocol == IPPROTO_UDP)
        return get_udp(s, name, buf, len);
    if (level == LX_SOL_UDPLITE && base->protocol == IPPROTO_UDPLITE) {
        if (name == LX_UDPLITE_SEND_CSCOV)
            return inet_put_int(buf, len, (int)s->coverage_out);
        if (name == LX_UDPLITE_RECV_CSCOV)
            return inet_put_int(buf, len, (int)s->coverage_in);
        return get_udp(s, name, buf, len);
    }
    if (is_filter(s, level, name))
        return get_filter(s, buf, len);
    return inet_getsockopt(base, level, name, buf, len);
}

int dgram_setsockopt(struct sock *base, int level, int name, const void *buf, socklen_t len,
                     const struct vfs_caller *c)
{
    struct dgram_sock *s = dgram_of(base);

    if (level == LX_SOL_UDP && base->protocol == IPPROTO_UDP)
        return set_udp(s, name, buf, len, c);
    if (level == LX_SOL_UDPLITE && base->protocol == IPPROTO_UDPLITE)
        return set_udplite(s, name, buf, len, c);
    if (is_filter(s, level, name))
        return set_filter(s, buf, len);
    return inet_setsockopt(base, level, name, buf, len, c);
}
