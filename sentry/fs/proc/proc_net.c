/* /proc/<pid>/net: the network namespace as text (proc(5)). */
#include <arpa/inet.h>
#include <inttypes.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/route.h>
#include <string.h>

#include "proc_priv.h"
#include "sentry/net/netlink/netlink.h"
#include "sentry/net/ns/netns.h"
#include "sentry/net/ns/prefix.h"

/* Flags of an IPv6 route that <net/route.h> has only for IPv4. */
#define RTF6_GATEWAY 0x0002u
#define RTF6_UP 0x0001u
#define RTF6_HOST 0x0004u
#define RTF6_NONEXTHOP 0x00200000u
#define RTF6_REJECT 0x0200u
#define RTF6_LOCAL 0x80000000u

/* Rows are collected as text under the namespace's lock: stdio here writes to memory. */
struct net_text {
    struct netns *ns;
    FILE *out;
};

struct net *proc_net_get(const struct proc_ctx *pc)
{
    return kernel_net_of(pc->k, pc->t, pc->c ? pc->c->pid : 0);
}

/* ---- dev ---- */

static bool dev_row(void *arg, const struct netns_link *l)
{
    const struct net_text *x = arg;
    const struct netns_stats *s = l->stats;

    fprintf(x->out,
            "%6s: %7" PRIu64 " %7" PRIu64 " %4" PRIu64 " %4" PRIu64
            "    0     0          0 %9" PRIu64 " %8" PRIu64 " %7" PRIu64 " %4" PRIu64 " %4" PRIu64
            "    0     0       0          0\n",
            l->name, s->rx_bytes, s->rx_packets, s->rx_errors, s->rx_dropped, s->multicast,
            s->tx_bytes, s->tx_packets, s->tx_errors, s->tx_dropped);
    return true;
}

static int put_dev(struct net *n, FILE *out)
{
    struct net_text x = {net_ns(n), out};

    fputs("Inter-|   Receive                                                |  Transmit\n"
          " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs "
          "drop fifo colls carrier compressed\n",
          out);
    netns_for_links(x.ns, dev_row, &x);
    return 0;
}

/* ---- names of links, copied since rows come under the same lock ---- */

#define NAMES_MAX 64u

struct names {
    struct {
        int32_t index;
        char name[IFNAMSIZ];
    } v[NAMES_MAX];
    size_t count;
};

static bool names_row(void *arg, const struct netns_link *l)
{
    struct names *n = arg;

    if (n->count == NAMES_MAX)
        return false;
    n->v[n->count].index = l->index;
    memcpy(n->v[n->count++].name, l->name, IFNAMSIZ);
    return true;
}

static const char *name_of(const struct names *n, int32_t index)
{
    for (size_t i = 0; i < n->count; i++)
        if (n->v[i].index == index)
            return n->v[i].name;
    return "*";
}

struct named_text {
    FILE *out;
    struct names names;
};

static void named_begin(struct named_text *x, struct net *n, FILE *out)
{
    x->out = out;
    x->names.count = 0;
    netns_for_links(net_ns(n), names_row, &x->names);
}

/* ---- IPv4: route, arp ---- */

static bool route_row(void *arg, const struct netns_route *r)
{
    const struct named_text *x = arg;
    const uint32_t mask = r->dst_len ? htonl(UINT32_MAX << (32 - r->dst_len)) : 0;
    const bool reject = r->type == RTN_UNREACHABLE || r->type == RTN_PROHIBIT;
    unsigned flags = RTF_UP;

    if (r->table != RT_TABLE_MAIN || r->type == RTN_BROADCAST || r->type == RTN_MULTICAST)
        return true;
    flags |= r->gateway.family ? RTF_GATEWAY : 0;
    flags |= r->dst_len == 32 ? RTF_HOST : 0;
    flags |= reject ? RTF_REJECT : 0;
    char line[128];
    snprintf(line, sizeof(line), "%s\t%08X\t%08X\t%04X\t0\t0\t%u\t%08X\t%u\t0\t0",
             name_of(&x->names, r->oif), r->dst.v4, r->gateway.family ? r->gateway.v4 : 0, flags,
             r->priority, mask, r->mtu ? r->mtu - 40 : 0);
    fprintf(x->out, "%-127s\n", line);
    return true;
}

static int put_route(struct net *n, FILE *out)
{
    struct named_text x;

    named_begin(&x, n, out);
    fprintf(out, "%-127s\n",
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT");
    netns_for_routes(net_ns(n), AF_INET, route_row, &x);
    return 0;
}

static bool arp_row(void *arg, const struct netns_neigh *n)
{
    const struct named_text *x = arg;
    char ip[INET_ADDRSTRLEN];

    if (n->addr.family != AF_INET || n->state == NUD_NOARP)
        return true;
    (void)inet_ntop(AF_INET, n->addr.b, ip, sizeof(ip));
    fprintf(x->out, "%-16s 0x%-10x0x%-10x%02x:%02x:%02x:%02x:%02x:%02x     *        %s\n", ip, 1,
            (n->has_mac ? 2u : 0u) | (n->state & NUD_PERMANENT ? 4u : 0u), n->mac[0], n->mac[1],
            n->mac[2], n->mac[3], n->mac[4], n->mac[5], name_of(&x->names, n->ifindex));
    return true;
}

static int put_arp(struct net *n, FILE *out)
{
    struct named_text x;

    named_begin(&x, n, out);
    fputs("IP address       HW type     Flags       HW address            Mask     Device\n", out);
    netns_for_neighs(net_ns(n), arp_row, &x);
    return 0;
}

/* ---- IPv6: if_inet6, ipv6_route ---- */

static void put_v6(FILE *out, const struct net_addr *a)
{
    for (size_t i = 0; i < 16; i++)
        fprintf(out, "%02x", a->family == AF_INET6 ? a->b[i] : 0);
}

static unsigned scope_v6(uint8_t scope)
{
    return scope == RT_SCOPE_HOST ? 0x10 : scope == RT_SCOPE_LINK ? 0x20 : 0;
}

static bool inet6_row(void *arg, const struct netns_ifaddr *a)
{
    const struct named_text *x = arg;

    if (a->local.family != AF_INET6)
        return true;
    put_v6(x->out, &a->local);
    fprintf(x->out, " %02x %02x %02x %02x %8s\n", (unsigned)a->ifindex, a->prefix_len,
            scope_v6(a->scope), a->flags & 0xff, name_of(&x->names, a->ifindex));
    return true;
}

static int put_if_inet6(struct net *n, FILE *out)
{
    struct named_text x;

    named_begin(&x, n, out);
    netns_for_addrs(net_ns(n), inet6_row, &x);
    return 0;
}

static bool route6_row(void *arg, const struct netns_route *r)
{
    const struct named_text *x = arg;
    unsigned flags = RTF6_UP;

    flags |= r->gateway.family ? RTF6_GATEWAY : 0;
    flags |= r->type == RTN_LOCAL ? RTF6_LOCAL | RTF6_NONEXTHOP : 0;
    flags |= r->type == RTN_UNREACHABLE ? RTF6_REJECT : 0;
    put_v6(x->out, &r->dst);
    fprintf(x->out, " %02x ", r->dst_len);
    put_v6(x->out, &(struct net_addr){.family = 0});
    fputs(" 00 ", x->out);
    put_v6(x->out, &r->gateway);
    fprintf(x->out, " %08x %08x %08x %08x %8s\n", r->priority, 1, 0, flags,
            name_of(&x->names, r->oif));
    return true;
}

static int put_ipv6_route(struct net *n, FILE *out)
{
    struct named_text x;

    named_begin(&x, n, out);
    netns_for_routes(net_ns(n), AF_INET6, route6_row, &x);
    return 0;
}

/* ---- netlink ---- */

static void netlink_row(void *arg, const struct nl_info *i)
{
    FILE *out = arg;

    fprintf(out, "%016x %-3d %-10u %08x %-8" PRIu64 " %-8d %-8d %-8d %-8" PRIu64 " %-8" PRIu64 "\n",
            0, i->protocol, i->portid, i->groups, i->queued, 0, i->dumping, 2, i->drops, i->inode);
}

static int put_netlink(struct net *n, FILE *out)
{
    fputs("sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    "
          "Inode\n",
          out);
    netlink_for_each(net_netlink(n), netlink_row, out);
    return 0;
}

PROC_NET_SHOW(show_arp, put_arp)
PROC_NET_SHOW(show_dev, put_dev)
PROC_NET_SHOW(show_if_inet6, put_if_inet6)
PROC_NET_SHOW(show_ipv6_route, put_ipv6_route)
PROC_NET_SHOW(show_netlink, put_netlink)
PROC_NET_SHOW(show_route, put_route)

const struct proc_entry proc_net_entries[] = {
    {.name = "arp", .mode = 0444, .show = show_arp},
    {.name = "dev", .mode = 0444, .show = show_dev},
    {.name = "if_inet6", .mode = 0444, .show = show_if_inet6},
    {.name = "ipv6_route", .mode = 0444, .show = show_ipv6_route},
    {.name = "netlink", .mode = 0444, .show = show_netlink},
    {.name = "route", .mode = 0444, .show = show_route},
    {0},
};
