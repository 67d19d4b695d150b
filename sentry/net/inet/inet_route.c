/* Which way to an address: the loopback link, which never leaves the sandbox. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "sentry/net/inet/inet_priv.h"

#define LOOPBACK_MTU 65536u

static struct net_addr loopback_of(int family)
{
    static const uint8_t one[16] = {[15] = 1};

    return family == AF_INET ? inet_addr_from4(htonl(INADDR_LOOPBACK)) : inet_addr_from6(one);
}

bool inet_is_local(struct net *n, const struct net_addr *a)
{
    (void)n;
    return net_addr_is_loopback(a);
}

uint32_t inet_if_by_name(struct net *n, const char *name)
{
    (void)n;
    return strcmp(name, "lo") == 0 ? INET_LOOPBACK_IF : 0;
}

bool inet_if_name(struct net *n, uint32_t ifindex, char name[16])
{
    (void)n;
    memset(name, 0, 16);
    if (ifindex != INET_LOOPBACK_IF)
        return false;
    memcpy(name, "lo", 3);
    return true;
}

bool inet_if_exists(struct net *n, uint32_t ifindex)
{
    (void)n;
    return ifindex == INET_LOOPBACK_IF;
}

uint32_t inet_if_by_addr(struct net *n, const struct net_addr *a)
{
    return inet_is_local(n, a) ? INET_LOOPBACK_IF : 0;
}

int inet_route(struct net *n, const struct net_addr *dst, const struct net_addr *src, uint32_t oif,
               struct inet_route *out)
{
    memset(out, 0, sizeof(*out));
    out->ifindex = INET_LOOPBACK_IF;
    out->mtu = LOOPBACK_MTU;
    out->src = src->family && !net_addr_is_any(src) ? *src : loopback_of(dst->family);
    if (oif && !inet_if_exists(n, oif))
        return -ENODEV;
    if (net_addr_is_multicast(dst)) {
        out->multicast = true;
        return oif ? 0 : -ENETUNREACH;
    }
    if (!inet_is_local(n, dst))
        return -ENETUNREACH;
    out->local = true;
    return 0;
}
