/* ICMP and ICMPv6: echoes are answered, errors reach those they are about (RFC 792, 4443). */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <string.h>

#include "sentry/net/ip/ip_priv.h"

/* Errors sent per second (net.ipv4.icmp_ratelimit bounds them likewise). */
#define ICMP_ERRORS_MAX 1000u
#define ICMP_QUOTE 548u

static bool is_v4(const struct ip_in *in)
{
    return in->src.family == AF_INET;
}

static bool checksum_ok(const struct ip_in *in)
{
    const uint32_t start =
        is_v4(in) ? 0 : csum_pseudo(&in->src, &in->dst, IPPROTO_ICMPV6, in->size);

    return in->checked || csum_fold(csum_add(start, in->data, in->size)) == 0;
}

static void send_icmp(struct ext_stack *st, const struct net_addr *src, const struct net_addr *dst,
                      int32_t oif, uint8_t head[8], const uint8_t *data, size_t size)
{
    const struct iovec iov[2] = {{head, 8}, {(void *)(uintptr_t)data, size}};
    const uint8_t protocol = dst->family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;
    struct netns_path p;

    memset(head + 2, 0, 2);
    if (ip_route(st, dst, src, net_addr_is_linklocal(dst) ? oif : 0, &p))
        return;
    const uint32_t start =
        dst->family == AF_INET ? 0 : csum_pseudo(&p.src, dst, protocol, 8 + size);
    const uint16_t sum = csum_fold(csum_iov(start, iov, 2));
    memcpy(head + 2, &sum, 2);
    const struct ip_out o = {
        .src = p.src, .dst = *dst, .protocol = protocol, .iov = iov, .count = 2, .size = 8 + size};
    (void)!ip_send(st, &p, &o);
}

static void echo(const struct ip_in *in)
{
    const struct net_addr none = {.family = 0};
    uint8_t head[8];

    memcpy(head, in->data, 8);
    head[0] = is_v4(in) ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY;
    head[1] = 0;
    /* Who was asked by a group answers in his own name; IPv4 broadcasts are not answered. */
    if (!in->unicast && is_v4(in))
        return;
    send_icmp(in->link->st, in->unicast ? &in->dst : &none, &in->src, in->link->ifindex, head,
              in->data + 8, in->size - 8);
}

static bool may_send_error(struct ext_stack *st)
{
    const uint64_t now = mono_now();
    bool yes;

    mutex_lock(&st->mu);
    if (now - st->icmp_second_ns >= 1000000000u) {
        st->icmp_second_ns = now;
        st->icmp_sent = 0;
    }
    yes = st->icmp_sent++ < ICMP_ERRORS_MAX;
    mutex_unlock(&st->mu);
    return yes;
}

void icmp_unreachable(const struct ip_in *in, uint8_t code)
{
    uint8_t head[8] = {ICMP_DEST_UNREACH, code};
    uint8_t quote[ICMP_QUOTE];

    if (!in->unicast || net_addr_is_any(&in->src) || !may_send_error(in->link->st))
        return;
    if (!is_v4(in)) {
        head[0] = ICMP6_DST_UNREACH;
        head[1] = code == ICMP_PORT_UNREACH ? ICMP6_DST_UNREACH_NOPORT : ICMP6_DST_UNREACH_ADMIN;
        if (code == ICMP_PROT_UNREACH) {
            head[0] = ICMP6_PARAM_PROB;
            head[1] = ICMP6_PARAMPROB_NEXTHEADER;
            head[7] = 6;
        }
    }
    const size_t body = MIN(in->size, ICMP_QUOTE - in->header_size);
    memcpy(quote, in->header, in->header_size);
    memcpy(quote + in->header_size, in->data, body);
    send_icmp(in->link->st, &in->dst, &in->src, in->link->ifindex, head, quote,
              in->header_size + body);
}

/* ---- errors that come ---- */

/* What Linux makes of type and code (icmp_err_convert): positive errno, 0 for what is no error. */
static int error_v4(uint8_t type, uint8_t code)
{
    static const int unreach[] = {ENETUNREACH,  EHOSTUNREACH, ENOPROTOOPT,  ECONNREFUSED,
                                  EMSGSIZE,     EOPNOTSUPP,   ENETUNREACH,  EHOSTDOWN,
                                  ENONET,       ENETUNREACH,  EHOSTUNREACH, ENETUNREACH,
                                  EHOSTUNREACH, EHOSTUNREACH, EHOSTUNREACH, EHOSTUNREACH};

    if (type == ICMP_DEST_UNREACH)
        return code < ARRAY_SIZE(unreach) ? unreach[code] : EHOSTUNREACH;
    if (type == ICMP_TIME_EXCEEDED)
        return EHOSTUNREACH;
    return type == ICMP_PARAMETERPROB ? EPROTO : 0;
}

static int error_v6(uint8_t type, uint8_t code)
{
    switch (type) {
    case ICMP6_DST_UNREACH:
        return code == 4   ? ECONNREFUSED
               : code == 0 ? ENETUNREACH
               : code == 1 ? EACCES
                           : EHOSTUNREACH;
    case ICMP6_PACKET_TOO_BIG:
        return EMSGSIZE;
    case ICMP6_TIME_EXCEEDED:
        return EHOSTUNREACH;
    case ICMP6_PARAM_PROB:
        return EPROTO;
    default:
        return 0;
    }
}

/* The packet that is quoted was ours: its ends, as far as they are there. */
static bool parse_quote(const struct ip_in *in, struct inet_icmp_error *e, uint32_t *out_seq)
{
    const uint8_t *p = in->data + 8;
    size_t size = in->size - 8, header;

    if (is_v4(in)) {
        if (size < IP4_HEADER)
            return false;
        header = (size_t)(p[0] & 15) * 4;
        e->protocol = p[9];
        e->local.addr = net_addr_from(AF_INET, p + 12, 4);
        e->remote.addr = net_addr_from(AF_INET, p + 16, 4);
    } else {
        if (size < IP6_HEADER)
            return false;
        header = IP6_HEADER;
        e->protocol = p[6];
        e->local.addr = net_addr_v6(p + 8);
        e->remote.addr = net_addr_v6(p + 24);
    }
    if (header < IP4_HEADER || size < header + 8 ||
        !netns_is_local(in->link->st->ns, &e->local.addr, 0))
        return false;
    p += header;
    if (e->protocol == IPPROTO_TCP || e->protocol == IPPROTO_UDP) {
        e->local.port = (uint16_t)(p[0] << 8 | p[1]);
        e->remote.port = (uint16_t)(p[2] << 8 | p[3]);
    } else if (e->protocol == IPPROTO_ICMP || e->protocol == IPPROTO_ICMPV6) {
        e->local.port = (uint16_t)(p[4] << 8 | p[5]); /* the echo's identifier */
    }
    *out_seq = (uint32_t)p[4] << 24 | (uint32_t)p[5] << 16 | (uint32_t)p[6] << 8 | p[7];
    return true;
}

static uint32_t told_mtu(const struct ip_in *in)
{
    const uint8_t *p = in->data;

    if (!is_v4(in))
        return (uint32_t)p[4] << 24 | (uint32_t)p[5] << 16 | (uint32_t)p[6] << 8 | p[7];
    return (uint32_t)p[6] << 8 | p[7];
}

static void error_input(const struct ip_in *in)
{
    struct ext_stack *st = in->link->st;
    struct inet_icmp_error e;
    uint32_t seq;

    memset(&e, 0, sizeof(e));
    e.type = in->data[0];
    e.code = in->data[1];
    e.origin = is_v4(in) ? SO_EE_ORIGIN_ICMP : SO_EE_ORIGIN_ICMP6;
    e.error = is_v4(in) ? error_v4(e.type, e.code) : error_v6(e.type, e.code);
    e.offender = in->src;
    if (!e.error || !parse_quote(in, &e, &seq))
        return;
    if (e.error == EMSGSIZE) {
        e.info = MIN(told_mtu(in), 65535u);
        if (e.info == 0)
            e.info = 576;
        pmtu_set(st, &e.remote.addr, e.info);
    }
    if (e.protocol == IPPROTO_TCP)
        exttcp_icmp(st, &e.local, &e.remote, seq, -e.error, e.info);
    else
        inet_error_input(st->net, &e);
}

static void to_raw(const struct ip_in *in)
{
    const struct inet_packet p = {
        .from.addr = in->src,
        .to = {.addr = in->dst, .ifindex = (uint32_t)in->link->ifindex},
        .protocol = in->protocol,
        .ttl = in->ttl,
        .tos = in->tos,
        .payload = in->data,
        .size = in->size,
        .ip_header = is_v4(in) ? in->header : NULL,
        .ip_header_size = is_v4(in) ? in->header_size : 0,
    };

    (void)inet_raw_input(in->link->st->net, &p);
}

void icmp_input(const struct ip_in *in)
{
    if (in->size < 8 || (in->protocol == IPPROTO_ICMP) != is_v4(in) || !checksum_ok(in))
        return;
    const uint8_t type = in->data[0];
    if (is_v4(in) ? type == ICMP_ECHO : type == ICMP6_ECHO_REQUEST)
        echo(in);
    else if (!is_v4(in) && type >= 133 && type <= 137)
        nd_input(in);
    else if (!is_v4(in) && type == MLD_LISTENER_QUERY)
        mld_input(in);
    else if (is_v4(in) ? error_v4(type, 0) != 0 : type < 128)
        error_input(in);
    to_raw(in);
}
