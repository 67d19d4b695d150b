/* Options at SOL_SOCKET (those of AF_INET), SOL_IP and SOL_IPV6 (ip(7), ipv6(7)). */
#include <errno.h>
#include <linux/capability.h>
#include <netinet/udp.h>
#include <string.h>

#include "sentry/net/inet/inet_priv.h"

/* Names that libc's headers leave out. */
#define LX_IP_RECVFRAGSIZE 25
#define LX_IP_RECVERR_RFC4884 26
#define LX_IP_LOCAL_PORT_RANGE 51
#define LX_IP_PROTOCOL 52
#define LX_IPV6_RECVERR_RFC4884 31
#define LX_IPV6_FLOWINFO_SEND 33
#define LX_IPV6_RECVORIGDSTADDR 74
#define LX_IPV6_TRANSPARENT 75
#define LX_IPV6_UNICAST_IF 76
#define LX_IPV6_RECVFRAGSIZE 77
#define LX_IPV6_FREEBIND 78
#define LX_IPV6_MULTICAST_ALL 29
#define LX_IPV6_ADDR_PREFERENCES 72
#define LX_IPV6_AUTOFLOWLABEL 70
#define LX_IPV6_RECVFLOWINFO 11

#define FOR_RAW 1u   /* of raw sockets only */
#define FOR_ADMIN 2u /* to set it takes a capability */
#define FOR_01 4u    /* other values than 0 and 1 are errors */
#define FOR_DGRAM 8u /* not of streams */

struct flag_row {
    int level, name;
    enum inet_opt opt;
    unsigned how;
};

static const struct flag_row flag_rows[] = {
    {SOL_IP, IP_PKTINFO, INET_PKTINFO, 0},
    {SOL_IP, IP_RECVERR, INET_RECVERR, 0},
    {SOL_IP, IP_RECVTTL, INET_RECVTTL, 0},
    {SOL_IP, IP_RECVTOS, INET_RECVTOS, 0},
    {SOL_IP, IP_RECVOPTS, INET_RECVOPTS, 0},
    {SOL_IP, IP_RETOPTS, INET_RETOPTS, 0},
    {SOL_IP, IP_RECVORIGDSTADDR, INET_RECVORIGDST, 0},
    {SOL_IP, IP_FREEBIND, INET_FREEBIND, 0},
    {SOL_IP, IP_TRANSPARENT, INET_TRANSPARENT, FOR_ADMIN},
    {SOL_IP, IP_HDRINCL, INET_HDRINCL, FOR_RAW},
    {SOL_IP, IP_NODEFRAG, INET_NODEFRAG, FOR_RAW},
    {SOL_IP, IP_MULTICAST_LOOP, INET_MC_LOOP, 0},
    {SOL_IP, IP_MULTICAST_ALL, INET_MC_ALL, FOR_01},
    {SOL_IP, IP_BIND_ADDRESS_NO_PORT, INET_NO_PORT, 0},
    {SOL_IP, LX_IP_RECVFRAGSIZE, INET_RECVFRAG, FOR_DGRAM},
    {SOL_IP, IP_CHECKSUM, INET_CHECKSUM, 0},
    {SOL_IP, LX_IP_RECVERR_RFC4884, INET_RFC4884, FOR_01},
    {SOL_IPV6, IPV6_RECVERR, INET_RECVERR6, 0},
    {SOL_IPV6, IPV6_RECVPKTINFO, INET_PKTINFO6, 0},
    {SOL_IPV6, IPV6_RECVHOPLIMIT, INET_RECVHOPS, 0},
    {SOL_IPV6, IPV6_RECVTCLASS, INET_RECVTCLASS, 0},
    {SOL_IPV6, IPV6_2292PKTINFO, INET_2292PKTINFO, 0},
    {SOL_IPV6, IPV6_2292HOPLIMIT, INET_2292HOPS, 0},
    {SOL_IPV6, IPV6_RECVRTHDR, INET_RTHDR, 0},
    {SOL_IPV6, IPV6_RECVHOPOPTS, INET_HOPOPTS, 0},
    {SOL_IPV6, IPV6_RECVDSTOPTS, INET_DSTOPTS, 0},
    {SOL_IPV6, IPV6_RECVPATHMTU, INET_RECVMTU, 0},
    {SOL_IPV6, IPV6_DONTFRAG, INET_DONTFRAG, 0},
    {SOL_IPV6, IPV6_MULTICAST_LOOP, INET_MC_LOOP6, FOR_01},
    {SOL_IPV6, LX_IPV6_MULTICAST_ALL, INET_MC_ALL6, 0},
    {SOL_IPV6, LX_IPV6_RECVORIGDSTADDR, INET_RECVORIGDST6, 0},
    {SOL_IPV6, LX_IPV6_FREEBIND, INET_FREEBIND, 0},
    {SOL_IPV6, LX_IPV6_TRANSPARENT, INET_TRANSPARENT, FOR_ADMIN},
    {SOL_IPV6, LX_IPV6_RECVFRAGSIZE, INET_RECVFRAG, 0},
    {SOL_IPV6, LX_IPV6_FLOWINFO_SEND, INET_FLOWSEND, 0},
    {SOL_IPV6, LX_IPV6_RECVFLOWINFO, INET_RECVFLOW, 0},
    {SOL_IPV6, LX_IPV6_AUTOFLOWLABEL, INET_AUTOFLOW, 0},
    {SOL_IPV6, LX_IPV6_RECVERR_RFC4884, INET_RFC4884_6, FOR_01},
};

int inet_put_int(void *buf, socklen_t *len, int value)
{
    return sock_put_option(buf, len, &value, sizeof(value));
}

/* Small numbers at SOL_IP fit in the single byte that a program may have asked for. */
static int put_ip_int(void *buf, socklen_t *len, int value)
{
    if (*len > 0 && *len < sizeof(int) && value >= 0 && value <= 255) {
        const uint8_t b = (uint8_t)value;
        *len = 1;
        return sock_put_option(buf, len, &b, 1);
    }
    return inet_put_int(buf, len, value);
}

int inet_get_int(const void *buf, socklen_t len, int *out)
{
    if (len < sizeof(*out))
        return -EINVAL;
    memcpy(out, buf, sizeof(*out));
    return 0;
}

static int get_ip_int(const void *buf, socklen_t len, int *out)
{
    *out = 0;
    if (len >= sizeof(int))
        memcpy(out, buf, sizeof(int));
    else if (len >= 1)
        *out = *(const uint8_t *)buf;
    return 0;
}

static const struct flag_row *flag_find(const struct inet_sock *s, int level, int name)
{
    for (size_t i = 0; i < ARRAY_SIZE(flag_rows); i++) {
        const struct flag_row *r = &flag_rows[i];
        if (r->level != level || r->name != name)
            continue;
        if (r->how & FOR_RAW && s->base.type != SOCK_RAW)
            return NULL;
        return r;
    }
    return NULL;
}

static void flag_set(struct inet_sock *s, enum inet_opt o, bool on)
{
    if (on)
        atomic_fetch_or(&s->opts, UINT64_C(1) << o);
    else
        atomic_fetch_and(&s->opts, ~(UINT64_C(1) << o));
}

static int flag_change(struct inet_sock *s, const struct flag_row *r, int value,
                       const struct vfs_caller *c)
{
    if (r->how & FOR_01 && value != 0 && value != 1)
        return -EINVAL;
    if (r->how & FOR_ADMIN && value && !net_capable(s->base.net, c->cred, CAP_NET_ADMIN) &&
        !net_capable(s->base.net, c->cred, CAP_NET_RAW))
        return -EPERM;
    if (r->how & FOR_DGRAM && s->base.type == SOCK_STREAM)
        return -EINVAL;
    flag_set(s, r->opt, value != 0);
    if (r->opt == INET_RECVERR && !value)
        atomic_store(&s->base.error, 0);
    return 0;
}

/* ---- SOL_SOCKET ---- */

static int bind_to_device(struct inet_sock *s, const void *buf, socklen_t len)
{
    char name[16] = {0};
    uint32_t ifindex = 0;

    memcpy(name, buf, MIN((size_t)len, sizeof(name) - 1));
    if (name[0]) {
        ifindex = inet_if_by_name(s->base.net, name);
        if (!ifindex)
            return -ENODEV;
    }
    atomic_store(&s->bound_if, ifindex);
    return 0;
}

static int set_socket(struct inet_sock *s, int name, const void *buf, socklen_t len)
{
    int value;

    switch (name) {
    case SO_BINDTODEVICE:
        return bind_to_device(s, buf, len);
    case SO_BINDTOIFINDEX:
        if (inet_get_int(buf, len, &value))
            return -EINVAL;
        if (value < 0)
            return -EINVAL;
        if (value && !inet_if_exists(s->base.net, (uint32_t)value))
            return -ENODEV;
        atomic_store(&s->bound_if, (uint32_t)value);
        return 0;
    default:
        return -ENOPROTOOPT;
    }
}

static int get_socket(struct inet_sock *s, int name, void *buf, socklen_t *len)
{
    char ifname[16];
    const uint32_t ifindex = atomic_load(&s->bound_if);

    switch (name) {
    case SO_BINDTODEVICE:
        if (!ifindex) {
            *len = 0;
            return 0;
        }
        if (*len < sizeof(ifname))
            return -EINVAL;
        if (!inet_if_name(s->base.net, ifindex, ifname))
            return -ENODEV;
        return sock_put_option(buf, len, ifname, strlen(ifname) + 1);
    case SO_BINDTOIFINDEX:
        return inet_put_int(buf, len, (int)ifindex);
    case SO_ACCEPTCONN:
        return inet_put_int(buf, len, 0);
    default:
        return -ENOPROTOOPT;
    }
}

/* ---- SOL_IP ---- */

static int set_mc_if(struct inet_sock *s, const void *buf, socklen_t len)
{
    struct ip_mreqn r = {.imr_ifindex = 0};

    if (s->base.type == SOCK_STREAM || len < sizeof(struct in_addr))
        return -EINVAL;
    if (len >= sizeof(struct ip_mreq))
        memcpy(&r, buf, MIN((size_t)len, sizeof(r)));
    else
        memcpy(&r.imr_address, buf, sizeof(struct in_addr));
    uint32_t ifindex = (uint32_t)r.imr_ifindex;
    if (!ifindex && r.imr_address.s_addr) {
        const struct net_addr a = inet_addr_from4(r.imr_address.s_addr);
        ifindex = inet_if_by_addr(s->base.net, &a);
        if (!ifindex)
            return -EADDRNOTAVAIL;
    }
    if (ifindex && !inet_if_exists(s->base.net, ifindex))
        return -EADDRNOTAVAIL;
    atomic_store(&s->mc_if, ifindex);
    atomic_store(&s->mc_addr, r.imr_address.s_addr);
    return 0;
}

static int set_port_range(struct inet_sock *s, uint32_t v)
{
    const uint16_t low = (uint16_t)v, high = (uint16_t)(v >> 16);

    if (low && high && low > high)
        return -EINVAL;
    atomic_store(&s->port_range, v);
    return 0;
}

static int set_ip_number(struct inet_sock *s, int name, int v, socklen_t len)
{
    switch (name) {
    case IP_TOS:
        atomic_store(&s->tos,
                     s->base.type == SOCK_STREAM ? (uint8_t)((v & ~3) | (s->tos & 3)) : (uint8_t)v);
        return 0;
    case IP_TTL:
        if (len < 1 || (v != -1 && (v < 1 || v > 255)))
            return -EINVAL;
        atomic_store(&s->ttl, (int16_t)v);
        return 0;
    case IP_MTU_DISCOVER:
        if (v < IP_PMTUDISC_DONT || v > IP_PMTUDISC_OMIT)
            return -EINVAL;
        atomic_store(&s->pmtu, (uint8_t)v);
        return 0;
    case IP_MULTICAST_TTL:
        if (s->base.type == SOCK_STREAM || len < 1 || v < -1 || v > 255)
            return -EINVAL;
        atomic_store(&s->mc_ttl, (int16_t)(v == -1 ? 1 : v));
        return 0;
    case IP_MINTTL:
        if (len < 1 || v < 0 || v > 255)
            return -EINVAL;
        atomic_store(&s->min_ttl, (uint8_t)v);
        return 0;
    case IP_ROUTER_ALERT:
        if (s->base.type != SOCK_RAW || s->base.protocol == IPPROTO_RAW)
            return -EINVAL;
        flag_set(s, INET_ROUTER_ALERT, v != 0);
        return 0;
    case IP_UNICAST_IF:
        if (len != sizeof(int))
            return -EINVAL;
        if (v && !inet_if_exists(s->base.net, ntohl((uint32_t)v)))
            return -EADDRNOTAVAIL;
        atomic_store(&s->unicast_if, ntohl((uint32_t)v));
        return 0;
    case LX_IP_LOCAL_PORT_RANGE:
        return len == sizeof(uint32_t) ? set_port_range(s, (uint32_t)v) : -EINVAL;
    default:
        return -ENOPROTOOPT;
    }
}

static int set_ip(struct inet_sock *s, int name, const void *buf, socklen_t len,
                  const struct vfs_caller *c)
{
    const struct flag_row *row = flag_find(s, SOL_IP, name);
    int v;

    if (name == IP_MULTICAST_IF)
        return set_mc_if(s, buf, len);
    if (name == IP_OPTIONS)
        return len == 0 ? 0 : -EINVAL;
    int r = inet_mcast_set(s, SOL_IP, name, buf, len);
    if (r != -ENOPROTOOPT)
        return r;
    (void)get_ip_int(buf, len, &v);
    if (row)
        return row->name == IP_MULTICAST_LOOP && len < 1 ? -EINVAL : flag_change(s, row, v, c);
    return set_ip_number(s, name, v, len);
}

static int get_ip(struct inet_sock *s, int name, void *buf, socklen_t *len)
{
    const struct flag_row *row = flag_find(s, SOL_IP, name);
    uint32_t addr;

    if (row)
        return put_ip_int(buf, len, inet_opt(s, row->opt));
    switch (name) {
    case IP_TOS:
        return put_ip_int(buf, len, s->tos);
    case IP_TTL:
        return put_ip_int(buf, len, s->ttl < 0 ? (int)net_settings(s->base.net)->ttl : s->ttl);
    case IP_MTU_DISCOVER:
        return put_ip_int(buf, len, s->pmtu);
    case IP_MULTICAST_TTL:
        return put_ip_int(buf, len, s->mc_ttl);
    case IP_MINTTL:
        return put_ip_int(buf, len, s->min_ttl);
    case IP_ROUTER_ALERT:
        return put_ip_int(buf, len, inet_opt(s, INET_ROUTER_ALERT));
    case IP_UNICAST_IF:
        return put_ip_int(buf, len, (int)htonl(s->unicast_if));
    case LX_IP_LOCAL_PORT_RANGE:
        return put_ip_int(buf, len, (int)s->port_range);
    case LX_IP_PROTOCOL:
        return put_ip_int(buf, len, s->base.protocol);
    case IP_OPTIONS:
        *len = 0;
        return 0;
    case IP_MULTICAST_IF:
        addr = s->mc_addr;
        return sock_put_option(buf, len, &addr, sizeof(addr));
    case IP_MTU:
        return s->remote.addr.family ? put_ip_int(buf, len, inet_mtu(s)) : -ENOTCONN;
    default:
        return -ENOPROTOOPT;
    }
}

/* ---- SOL_IPV6 ---- */

static int set_v6_link(struct inet_sock *s, _Atomic uint32_t *where, int v)
{
    if (v < 0)
        return -EINVAL;
    if (v && !inet_if_exists(s->base.net, (uint32_t)v))
        return -ENODEV;
    atomic_store(where, (uint32_t)v);
    return 0;
}

static int set_v6only(struct inet_sock *s, int v)
{
    mutex_lock(&s->mu);
    const bool bound = s->port || s->addr_bound;
    mutex_unlock(&s->mu);
    if (bound)
        return -EINVAL;
    flag_set(s, INET_V6ONLY, v != 0);
    return 0;
}

static int set_ip6_number(struct inet_sock *s, int name, int v)
{
    switch (name) {
    case IPV6_V6ONLY:
        return set_v6only(s, v);
    case IPV6_UNICAST_HOPS:
        if (v < -1 || v > 255)
            return -EINVAL;
        atomic_store(&s->hops, (int16_t)v);
        return 0;
    case IPV6_MULTICAST_HOPS:
        if (s->base.type == SOCK_STREAM)
            return -ENOPROTOOPT;
        if (v < -1 || v > 255)
            return -EINVAL;
        atomic_store(&s->mc_hops, (int16_t)(v == -1 ? 1 : v));
        return 0;
    case IPV6_MULTICAST_IF:
        return s->base.type == SOCK_STREAM ? -ENOPROTOOPT : set_v6_link(s, &s->mc_if6, v);
    case LX_IPV6_UNICAST_IF:
        return set_v6_link(s, &s->unicast_if6, (int)ntohl((uint32_t)v));
    case IPV6_TCLASS:
        if (v < -1 || v > 255)
            return -EINVAL;
        atomic_store(&s->tclass, (uint8_t)(v == -1 ? 0 : v));
        return 0;
    case IPV6_MTU_DISCOVER:
        if (v < IPV6_PMTUDISC_DONT || v > IPV6_PMTUDISC_OMIT)
            return -EINVAL;
        atomic_store(&s->pmtu6, (uint8_t)v);
        return 0;
    case IPV6_MTU:
        return v && v < 1280 ? -EINVAL : 0;
    case IPV6_MINHOPCOUNT:
        if (v < 0 || v > 255)
            return -EINVAL;
        atomic_store(&s->min_hops, (uint8_t)v);
        return 0;
    case LX_IPV6_ADDR_PREFERENCES:
        atomic_store(&s->src_prefs, (uint32_t)v);
        return 0;
    default:
        return -ENOPROTOOPT;
    }
}

static int set_ip6(struct inet_sock *s, int name, const void *buf, socklen_t len,
                   const struct vfs_caller *c)
{
    const struct flag_row *row = flag_find(s, SOL_IPV6, name);
    int v;
    int r = inet_mcast_set(s, SOL_IPV6, name, buf, len);

    if (r != -ENOPROTOOPT)
        return r;
    if (inet_get_int(buf, len, &v))
        return -EINVAL;
    return row ? flag_change(s, row, v, c) : set_ip6_number(s, name, v);
}

static int get_ip6(struct inet_sock *s, int name, void *buf, socklen_t *len)
{
    const struct flag_row *row = flag_find(s, SOL_IPV6, name);

    if (row)
        return inet_put_int(buf, len, inet_opt(s, row->opt));
    switch (name) {
    case IPV6_V6ONLY:
        return inet_put_int(buf, len, inet_opt(s, INET_V6ONLY));
    case IPV6_UNICAST_HOPS:
        return inet_put_int(buf, len, s->hops < 0 ? 64 : s->hops);
    case IPV6_MULTICAST_HOPS:
        return inet_put_int(buf, len, s->mc_hops);
    case IPV6_MULTICAST_IF:
        return inet_put_int(buf, len, (int)s->mc_if6);
    case LX_IPV6_UNICAST_IF:
        return inet_put_int(buf, len, (int)htonl(s->unicast_if6));
    case IPV6_TCLASS:
        return inet_put_int(buf, len, s->tclass);
    case IPV6_MTU_DISCOVER:
        return inet_put_int(buf, len, s->pmtu6);
    case IPV6_MTU:
        return s->remote.addr.family ? inet_put_int(buf, len, inet_mtu(s)) : -ENOTCONN;
    case IPV6_MINHOPCOUNT:
        return inet_put_int(buf, len, s->min_hops);
    case LX_IPV6_ADDR_PREFERENCES:
        return inet_put_int(buf, len, (int)s->src_prefs);
    default:
        return -ENOPROTOOPT;
    }
}

/* ---- all of them ---- */

int inet_mtu(struct inet_sock *s)
{
    struct inet_route rt;

    mutex_lock(&s->mu);
    const struct net_ep to = s->remote, from = s->local;
    mutex_unlock(&s->mu);
    return inet_route(s->base.net, &to.addr, &from.addr, s->bound_if, &rt) ? 65535 : (int)rt.mtu;
}

int inet_getsockopt(struct sock *base, int level, int name, void *buf, socklen_t *len)
{
    struct inet_sock *s = inet_of(base);

    if (level == SOL_SOCKET)
        return get_socket(s, name, buf, len);
    if (level == SOL_IP)
        return get_ip(s, name, buf, len);
    if (level == SOL_IPV6 && inet_is_v6(s))
        return get_ip6(s, name, buf, len);
    return -ENOPROTOOPT;
}

int inet_setsockopt(struct sock *base, int level, int name, const void *buf, socklen_t len,
                    const struct vfs_caller *c)
{
    struct inet_sock *s = inet_of(base);

    if (level == SOL_SOCKET)
        return set_socket(s, name, buf, len);
    if (level == SOL_IP)
        return set_ip(s, name, buf, len, c);
    if (level == SOL_IPV6 && inet_is_v6(s))
        return set_ip6(s, name, buf, len, c);
    return -ENOPROTOOPT;
}
