/* The tables of a network namespace: which routes come with addresses, and which one a packet
 * takes. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>

#include "base/limits.h"
#include "sentry/net/ns/netns.h"
#include "sentry/net/ns/prefix.h"

static struct netns *ns;
static int32_t eth;

static struct net_addr addr(const char *text)
{
    uint8_t b[16];

    if (inet_pton(AF_INET, text, b) == 1)
        return net_addr_from(AF_INET, b, 4);
    cr_assert_eq(inet_pton(AF_INET6, text, b), 1, "%s", text);
    return net_addr_from(AF_INET6, b, 16);
}

static void setup(void)
{
    const struct netns_link l = {.name = "eth0", .type = ARPHRD_ETHER, .mtu = 1500};

    cr_assert_eq(netns_new(&ns), 0);
    netns_config_lock(ns);
    cr_assert_eq(netns_link_set_flags(ns, NETNS_LO_INDEX, IFF_UP, IFF_UP), 0);
    cr_assert_eq(netns_link_add(ns, &l, &eth), 0);
    cr_assert_eq(eth, 2);
    cr_assert_eq(netns_link_set_flags(ns, eth, IFF_UP, IFF_UP), 0);
}

static void teardown(void)
{
    netns_config_unlock(ns);
    netns_free(ns);
}

TestSuite(net_netns, .init = setup, .fini = teardown);

static int add(const char *text, uint8_t bits)
{
    struct netns_ifaddr a = {
        .ifindex = eth, .prefix_len = bits, .valid_s = UINT32_MAX, .preferred_s = UINT32_MAX};

    a.local = a.peer = addr(text);
    return netns_addr_add(ns, &a, false);
}

static int route(const char *dst, uint8_t bits, const char *via, uint32_t metric, unsigned how)
{
    struct netns_route r = {.dst = addr(dst),
                            .dst_len = bits,
                            .type = RTN_UNICAST,
                            .table = RT_TABLE_MAIN,
                            .priority = metric};

    if (via)
        r.gateway = addr(via);
    else
        r.oif = eth;
    return netns_route_add(ns, &r, how);
}

static int look(const char *dst, struct netns_path *p)
{
    const struct net_addr a = addr(dst);

    return netns_route_lookup(ns, &a, NULL, 0, p);
}

static void is_addr(const struct net_addr *a, const char *text)
{
    const struct net_addr want = addr(text);

    cr_assert(net_addr_equal(a, &want), "not %s", text);
}

Test(net_netns, loopback)
{
    struct netns_path p;

    cr_assert_eq(look("127.3.4.5", &p), 0);
    cr_assert_eq(p.type, RTN_LOCAL);
    cr_assert_eq(p.ifindex, NETNS_LO_INDEX);
    cr_assert_eq(look("::1", &p), 0);
    cr_assert_eq(p.type, RTN_LOCAL);
    cr_assert_eq(look("8.8.8.8", &p), -ENETUNREACH);
    cr_assert_eq(netns_link_set_flags(ns, NETNS_LO_INDEX, 0, IFF_UP), 0);
    cr_assert_eq(look("127.0.0.1", &p), -ENETUNREACH);
    cr_assert_eq(look("::1", &p), -ENETUNREACH);
    cr_assert_eq(netns_link_set_flags(ns, NETNS_LO_INDEX, IFF_UP, IFF_UP), 0);
    cr_assert_eq(look("::1", &p), 0);
}

Test(net_netns, longest_prefix)
{
    struct netns_path p;

    cr_assert_eq(add("10.1.0.2", 16), 0);
    cr_assert_eq(route("0.0.0.0", 0, "10.1.0.1", 0, NETNS_ROUTE_CREATE), 0);
    cr_assert_eq(route("10.0.0.0", 8, "10.1.0.9", 0, NETNS_ROUTE_CREATE), 0);
    cr_assert_eq(route("10.2.3.0", 24, "10.1.0.8", 0, NETNS_ROUTE_CREATE), 0);
    cr_assert_eq(look("10.1.77.1", &p), 0);
    cr_assert_eq(p.gateway.family, 0);
    is_addr(&p.src, "10.1.0.2");
    cr_assert_eq(look("10.2.3.4", &p), 0);
    is_addr(&p.gateway, "10.1.0.8");
    cr_assert_eq(look("10.2.4.4", &p), 0);
    is_addr(&p.gateway, "10.1.0.9");
    cr_assert_eq(look("1.1.1.1", &p), 0);
    is_addr(&p.gateway, "10.1.0.1");
    cr_assert_eq(look("10.1.0.2", &p), 0);
    cr_assert_eq(p.type, RTN_LOCAL);
    cr_assert_eq(look("10.1.255.255", &p), 0);
    cr_assert_eq(p.type, RTN_BROADCAST);
}

Test(net_netns, metrics_and_replacing)
{
    struct netns_path p;

    cr_assert_eq(add("10.1.0.2", 24), 0);
    cr_assert_eq(route("0.0.0.0", 0, "10.1.0.7", 50, NETNS_ROUTE_CREATE), 0);
    cr_assert_eq(route("0.0.0.0", 0, "10.1.0.1", 10, NETNS_ROUTE_CREATE), 0);
    cr_assert_eq(look("1.1.1.1", &p), 0);
    is_addr(&p.gateway, "10.1.0.1");
    cr_assert_eq(route("0.0.0.0", 0, "10.1.0.3", 10, NETNS_ROUTE_CREATE | NETNS_ROUTE_EXCL),
                 -EEXIST);
    cr_assert_eq(route("0.0.0.0", 0, "10.1.0.3", 10, NETNS_ROUTE_CREATE | NETNS_ROUTE_REPLACE), 0);
    cr_assert_eq(look("1.1.1.1", &p), 0);
    is_addr(&p.gateway, "10.1.0.3");
    cr_assert_eq(route("9.0.0.0", 8, "10.1.0.3", 0, NETNS_ROUTE_REPLACE), -ENOENT);
    cr_assert_eq(route("9.0.0.0", 8, "10.2.0.3", 0, NETNS_ROUTE_CREATE), -ENETUNREACH);
    cr_assert_eq(route("9.0.0.1", 8, "10.1.0.3", 0, NETNS_ROUTE_CREATE), -EINVAL);
}

Test(net_netns, link_goes_down_and_up)
{
    struct netns_path p;

    cr_assert_eq(add("10.1.0.2", 24), 0);
    cr_assert_eq(add("fd00::2", 64), 0);
    cr_assert_eq(look("fd00::9", &p), 0);
    is_addr(&p.src, "fd00::2");
    cr_assert_eq(netns_link_set_flags(ns, eth, 0, IFF_UP), 0);
    cr_assert_eq(look("10.1.0.9", &p), -ENETUNREACH);
    cr_assert_eq(look("fd00::9", &p), -ENETUNREACH);
    cr_assert_eq(netns_link_set_flags(ns, eth, IFF_UP, IFF_UP), 0);
    cr_assert_eq(look("10.1.0.9", &p), 0);
    cr_assert_eq(look("fd00::9", &p), -ENETUNREACH);
}

Test(net_netns, secondary_addresses)
{
    const struct net_addr second = addr("10.1.0.3");
    struct netns_ifaddr a = {.ifindex = eth, .prefix_len = 24};

    cr_assert_eq(add("10.1.0.2", 24), 0);
    cr_assert_eq(add("10.1.0.3", 24), 0);
    cr_assert_eq(add("10.1.0.3", 24), -EEXIST);
    cr_assert_eq(add("10.1.0.3", 33), -EINVAL);
    a.local = addr("10.1.0.2");
    cr_assert_eq(netns_addr_del(ns, &a), 0);
    cr_assert_eq(netns_addr_del(ns, &a), -EADDRNOTAVAIL);
    cr_assert_not(netns_is_local(ns, &second, 0));
}

Test(net_netns, bounds)
{
    char text[32];
    int r = 0;

    for (unsigned i = 0; i <= LIMIT_NETNS_ADDRS && r == 0; i++) {
        snprintf(text, sizeof(text), "10.%u.%u.1", 1 + i / 256, i % 256);
        r = add(text, 32);
    }
    cr_assert_eq(r, -ENOBUFS);
}
