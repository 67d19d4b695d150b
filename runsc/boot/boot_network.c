/* The links that runsc took over for the sandbox, put into the guest's network namespace. */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runsc/boot/boot_priv.h"
#include "sentry/net/ip/ext.h"
#include "sentry/net/ns/netns.h"
#include "sentry/net/ns/prefix.h"

static int64_t number(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "";
}

static struct net_addr addr_of(const json_t *o, const char *key)
{
    const char *s = text_of(o, key);
    struct net_addr none = {.family = 0};
    uint8_t b[16];

    if (inet_pton(AF_INET, s, b) == 1)
        return net_addr_from(AF_INET, b, 4);
    return inet_pton(AF_INET6, s, b) == 1 ? net_addr_from(AF_INET6, b, 16) : none;
}

static bool mac_of(const json_t *o, uint8_t mac[6])
{
    return sscanf(text_of(o, "mac"), "%2hhx%2hhx%2hhx%2hhx%2hhx%2hhx", &mac[0], &mac[1], &mac[2],
                  &mac[3], &mac[4], &mac[5]) == 6;
}

/* It may not have come: a network of one address has none. */
static void drop_prefix_route(struct netns *ns, const struct netns_ifaddr *a)
{
    struct netns_route r;

    memset(&r, 0, sizeof(r));
    r.dst = a->peer;
    net_addr_mask(&r.dst, a->prefix_len);
    r.dst_len = a->prefix_len;
    r.protocol = RTPROT_KERNEL;
    r.type = RTN_UNICAST;
    r.table = RT_TABLE_MAIN;
    r.scope = r.dst.family == AF_INET ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
    r.oif = a->ifindex;
    (void)!netns_route_del(ns, &r);
}

static int add_address(struct netns *ns, int32_t ifindex, const json_t *o)
{
    struct netns_ifaddr a;

    memset(&a, 0, sizeof(a));
    a.ifindex = ifindex;
    a.local = addr_of(o, "a");
    a.peer = addr_of(o, "peer");
    a.bcast = addr_of(o, "bcast");
    a.prefix_len = (uint8_t)number(o, "len");
    a.scope = (uint8_t)number(o, "scope");
    a.flags = IFA_F_PERMANENT;
    a.valid_s = a.preferred_s = UINT32_MAX;
    if (!a.peer.family)
        a.peer = a.local;
    int r = a.local.family ? netns_addr_add(ns, &a, false) : -EINVAL;
    if (r == 0 && !json_is_true(json_object_get(o, "route")))
        drop_prefix_route(ns, &a);
    return r;
}

static int add_link(struct boot *b, const json_t *o, int fd, int wake_fd)
{
    struct ext_link_config cfg = {.fd = fd,
                                  .wake_fd = wake_fd,
                                  .mtu = (uint32_t)number(o, "mtu"),
                                  .vnet_hdr = json_is_true(json_object_get(o, "vnet"))};
    struct netns *ns = net_ns(b->net);
    const json_t *addrs = json_object_get(o, "addrs");
    int32_t index;

    if (!mac_of(o, cfg.mac))
        return -EINVAL;
    snprintf(cfg.name, sizeof(cfg.name), "%.15s", text_of(o, "name"));
    int r = ext_add_link(b->net, &cfg, &index);
    if (r)
        return r;
    netns_config_lock(ns);
    r = netns_link_set_flags(ns, index, IFF_UP, IFF_UP);
    for (size_t i = 0; r == 0 && i < json_array_size(addrs); i++)
        r = add_address(ns, index, json_array_get(addrs, i));
    netns_config_unlock(ns);
    return r;
}

static int add_route(struct netns *ns, const json_t *o)
{
    const unsigned family = (unsigned)number(o, "family");
    struct netns_link l;
    struct netns_route r;

    memset(&r, 0, sizeof(r));
    if (netns_link_find(ns, text_of(o, "link"), &l))
        return -ENODEV;
    r.dst = addr_of(o, "dst");
    if (!r.dst.family)
        r.dst = net_addr_from(family, (const uint8_t[16]){0}, net_addr_size(family));
    r.gateway = addr_of(o, "via");
    r.prefsrc = addr_of(o, "src");
    r.dst_len = (uint8_t)number(o, "len");
    r.scope = (uint8_t)number(o, "scope");
    r.protocol = (uint8_t)number(o, "proto");
    r.type = (uint8_t)number(o, "type");
    r.priority = (uint32_t)number(o, "metric");
    r.flags = json_is_true(json_object_get(o, "onlink")) ? RTNH_F_ONLINK : 0;
    r.table = RT_TABLE_MAIN;
    r.oif = l.index;
    const int err = netns_route_add(ns, &r, NETNS_ROUTE_CREATE | NETNS_ROUTE_APPEND);
    return err == -EEXIST ? 0 : err;
}

static int add_neigh(struct netns *ns, const json_t *o)
{
    struct netns_neigh n;
    struct netns_link l;

    memset(&n, 0, sizeof(n));
    n.addr = addr_of(o, "a");
    if (netns_link_find(ns, text_of(o, "link"), &l) || !n.addr.family || !mac_of(o, n.mac))
        return -EINVAL;
    n.ifindex = l.index;
    n.has_mac = true;
    n.state = NUD_PERMANENT;
    return netns_neigh_set(ns, &n, false);
}

/* Routes over a gateway come after those that lead to it. */
static int add_routes(struct netns *ns, const json_t *routes, bool via)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < json_array_size(routes); i++) {
        const json_t *o = json_array_get(routes, i);
        if ((json_object_get(o, "via") != NULL) == via)
            r = add_route(ns, o);
    }
    return r;
}

int boot_network(struct boot *b, const struct json_t *req, const int *fds, size_t count)
{
    const json_t *links = json_object_get(req, "links"), *routes = json_object_get(req, "routes");
    const json_t *neighs = json_object_get(req, "neighs");
    struct netns *ns = net_ns(b->net);
    int r = 0;

    if (b->root.started || count < 2 || json_array_size(links) != count - 1) {
        for (size_t i = 0; i < count; i++)
            (void)close(fds[i]);
        return -EINVAL;
    }
    for (size_t i = 1; r == 0 && i < count; i++)
        r = add_link(b, json_array_get(links, i - 1), fds[i], fds[0]);
    if (r)
        return r; /* the sandbox ends with it */
    netns_config_lock(ns);
    r = add_routes(ns, routes, false);
    if (r == 0)
        r = add_routes(ns, routes, true);
    for (size_t i = 0; r == 0 && i < json_array_size(neighs); i++)
        r = add_neigh(ns, json_array_get(neighs, i));
    netns_config_unlock(ns);
    return r;
}
