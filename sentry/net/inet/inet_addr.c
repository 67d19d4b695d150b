/* Addresses: sockaddr_in and sockaddr_in6 to what the tables hold, and back (ip(7), ipv6(7)). */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "sentry/net/inet/inet_priv.h"

/* sockaddr_in6 of old had no scope. */
#define SIN6_LEN_MIN 24u

static const uint8_t mapped_head[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct net_addr inet_addr_from4(uint32_t be)
{
    struct net_addr a = {.family = AF_INET};

    a.v4 = be;
    return a;
}

struct net_addr inet_addr_from6(const uint8_t b[16])
{
    struct net_addr a = {.family = AF_INET6};

    if (memcmp(b, mapped_head, sizeof(mapped_head)) == 0) {
        a.family = AF_INET;
        memcpy(a.b, b + 12, 4);
    } else {
        memcpy(a.b, b, 16);
    }
    return a;
}

void inet_addr_to6(const struct net_addr *a, uint8_t out[16])
{
    if (a->family != AF_INET) {
        memcpy(out, a->b, 16);
        return;
    }
    memcpy(out, mapped_head, sizeof(mapped_head));
    memcpy(out + 12, a->b, 4);
}

static bool addr_is_linklocal(const struct net_addr *a)
{
    return a->family == AF_INET6 &&
           ((a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80) ||
            (a->b[0] == 0xff && ((a->b[1] & 0x0f) == 2 || (a->b[1] & 0x0f) == 1)));
}

int inet_addr_in(const struct inet_sock *s, const struct sock_addr *a, struct net_ep *out)
{
    memset(out, 0, sizeof(*out));
    if (s->base.family == AF_INET) {
        if (a->len < sizeof(struct sockaddr_in))
            return -EINVAL;
        if (a->family != AF_INET)
            return -EAFNOSUPPORT;
        out->addr = inet_addr_from4(a->in.sin_addr.s_addr);
        out->port = ntohs(a->in.sin_port);
        return 0;
    }
    if (a->len < sizeof(sa_family_t))
        return -EINVAL;
    if (a->family == AF_INET && a->len >= sizeof(struct sockaddr_in) &&
        s->base.type == SOCK_DGRAM) {
        if (inet_opt(s, INET_V6ONLY))
            return -ENETUNREACH;
        out->addr = inet_addr_from4(a->in.sin_addr.s_addr);
        out->port = ntohs(a->in.sin_port);
        return 0;
    }
    if (a->len < SIN6_LEN_MIN)
        return -EINVAL;
    if (a->family != AF_INET6)
        return -EAFNOSUPPORT;
    out->addr = inet_addr_from6(a->in6.sin6_addr.s6_addr);
    out->port = ntohs(a->in6.sin6_port);
    if (addr_is_linklocal(&out->addr) && a->len >= sizeof(struct sockaddr_in6))
        out->ifindex = a->in6.sin6_scope_id;
    return 0;
}

void inet_addr_out(int family, const struct net_ep *e, struct sock_addr *out)
{
    memset(out, 0, sizeof(*out));
    if (family == AF_INET) {
        out->len = sizeof(struct sockaddr_in);
        out->in.sin_family = AF_INET;
        out->in.sin_port = htons(e->port);
        out->in.sin_addr.s_addr = e->addr.v4;
        return;
    }
    out->len = sizeof(struct sockaddr_in6);
    out->in6.sin6_family = AF_INET6;
    out->in6.sin6_port = htons(e->port);
    if (e->addr.family)
        inet_addr_to6(&e->addr, out->in6.sin6_addr.s6_addr);
    if (addr_is_linklocal(&e->addr))
        out->in6.sin6_scope_id = e->ifindex;
}

void inet_getname(struct inet_sock *s, bool peer, struct sock_addr *out)
{
    mutex_lock(&s->mu);
    const struct net_ep e = peer ? s->remote : s->local;
    mutex_unlock(&s->mu);
    inet_addr_out(s->base.family, &e, out);
}
