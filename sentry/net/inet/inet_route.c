/* Which way to an address: stays in the sandbox, or leaves by a link. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "sentry/net/inet/inet_priv.h"
#include "sentry/net/ns/netns.h"

bool inet_is_local(struct net *n, const struct net_addr *a)
{
    return netns_is_local(net_ns(n), a, 0);
}

uint32_t inet_if_by_name(struct net *n, const char *name)
{
    struct netns_link l;

    return netns_link_find(net_ns(n), name, &l) ? 0 : (uint32_t)l.index;
}

bool inet_if_name(struct net *n, uint32_t ifindex, char name[16])
{
    struct netns_link l;

    memset(name, 0, 16);
    if (netns_link_get(net_ns(n), (int32_t)ifindex, &l))
        return false;
    memcpy(name, l.name, sizeof(l.name));
    return true;
}

bool inet_if_exists(struct net *n, uint32_t ifindex)
{
    struct netns_link l;

    return netns_link_get(net_ns(n), (int32_t)ifindex, &l) == 0;
}

struct by_addr {
    const struct net_addr *a;
    uint32_t ifindex;
};

static bool by_addr_row(void *arg, const struct netns_ifaddr *i)
{
    struct by_addr *x = arg;

    if (!net_addr_equal(&i->local, x->a))
        return true;
    x->ifindex = (uint32_t)i->ifindex;
    return false;
}

uint32_t inet_if_by_addr(struct net *n, const struct net_addr *a)
{
    struct by_addr x = {.a = a};

    netns_for_addrs(net_ns(n), by_addr_row, &x);
    return x.ifindex;
}

/* A group goes where the sender says, or where the routes say. */
static void route_source(struct netns *ns, const struct net_addr *dst, struct inet_route *out)
{
    static const uint8_t one[16] = {[15] = 1};

    if (out->src.family)
        return;
    if (out->ifindex == NETNS_LO_INDEX)
        out->src =
            dst->family == AF_INET ? inet_addr_from4(htonl(INADDR_LOOPBACK)) : inet_addr_from6(one);
    else
        out->src = netns_any_addr(ns, (int32_t)out->ifindex, (uint8_t)dst->family);
}

int inet_route(struct net *n, const struct net_addr *dst, const struct net_addr *src, uint32_t oif,
               struct inet_route *out)
{
    const bool bound = src->family && !net_addr_is_any(src);
    const struct net_addr none = {.family = 0};
    struct netns *ns = net_ns(n);
    struct netns_path p;

    memset(out, 0, sizeof(*out));
    out->multicast = net_addr_is_multicast(dst);
    int r = netns_route_lookup(ns, dst, bound ? src : &none, (int32_t)oif, &p);
    /* A link that was named needs no route to a group. */
    if (r && !(out->multicast && oif && inet_if_exists(n, oif)))
        return r;
    out->ifindex = r ? oif : (uint32_t)p.ifindex;
    out->mtu = r ? 1500 : p.mtu;
    out->local = !out->multicast && r == 0 && p.type == RTN_LOCAL;
    out->broadcast = !out->multicast && r == 0 && p.type == RTN_BROADCAST;
    out->by_gateway = r == 0 && p.gateway.family != 0;
    out->src = bound ? *src : r ? none : p.src;
    route_source(ns, dst, out);
    return 0;
}

int inet_route_of(const struct inet_sock *s, const struct net_addr *dst, const struct net_addr *src,
                  uint32_t oif, int flags, struct inet_route *out)
{
    const int r = inet_route(s->base.net, dst, src, oif, out);
    const bool direct = (flags & MSG_DONTROUTE) != 0 || sock_option(&s->base, SO_DONTROUTE);

    return r == 0 && direct && out->by_gateway ? -ENETUNREACH : r;
}
