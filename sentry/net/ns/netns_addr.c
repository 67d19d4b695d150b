/* Addresses of links, and the routes that come and go with them (net/ipv4/fib_frontend.c,
 * net/ipv6/addrconf.c). */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>

#include "base/limits.h"
#include "sentry/net/ns/netns_priv.h"
#include "sentry/wait/wait.h"

#define V6_PREFIX_METRIC 256u

void ns_tell_addr(struct netns *ns, const struct netns_ifaddr *a, bool del)
{
    if (ns->events && ns->events->addr)
        ns->events->addr(ns->events_arg, a, del);
}

/* ---- reads ---- */

void netns_for_addrs(struct netns *ns, netns_addr_fn fn, void *arg)
{
    struct ns_addr *a;

    rwlock_rdlock(&ns->lock);
    list_for_each_entry (a, &ns->addrs, node) {
        if (!fn(arg, &a->a))
            break;
    }
    rwlock_unlock(&ns->lock);
}

bool ns_is_local_locked(struct netns *ns, const struct net_addr *a, int32_t ifindex)
{
    struct ns_addr *row;

    list_for_each_entry (row, &ns->addrs, node) {
        if (ifindex && row->a.ifindex != ifindex)
            continue;
        if (net_addr_equal(&row->a.local, a))
            return true;
        /* All of lo's network is here (the route local 127.0.0.0/8). */
        if (row->a.ifindex == NETNS_LO_INDEX && a->family == AF_INET &&
            net_addr_in_prefix(a, &row->a.local, row->a.prefix_len))
            return true;
    }
    return false;
}

bool netns_is_local(struct netns *ns, const struct net_addr *a, int32_t ifindex)
{
    rwlock_rdlock(&ns->lock);
    const bool yes = ns_is_local_locked(ns, a, ifindex);
    rwlock_unlock(&ns->lock);
    return yes;
}

struct net_addr netns_any_addr(struct netns *ns, int32_t ifindex, uint8_t family)
{
    struct net_addr none = {.family = 0};
    struct ns_addr *row;

    rwlock_rdlock(&ns->lock);
    list_for_each_entry (row, &ns->addrs, node) {
        if (row->a.local.family == family && row->a.scope < RT_SCOPE_LINK &&
            (ifindex ? row->a.ifindex == ifindex : row->a.ifindex != NETNS_LO_INDEX)) {
            none = row->a.local;
            break;
        }
    }
    rwlock_unlock(&ns->lock);
    return none;
}

/* How well an address suits dst; larger is better (RFC 6724 rules 2, 3, 8 and inet_select_addr). */
static unsigned src_rank(const struct netns_ifaddr *a, const struct net_addr *dst)
{
    unsigned rank = net_addr_common_bits(&a->local, dst);

    if (a->local.family == AF_INET)
        rank = net_addr_in_prefix(dst, &a->peer, a->prefix_len) ? 1 : 0;
    if (net_addr_is_linklocal(&a->local) == net_addr_is_linklocal(dst))
        rank += 1000;
    if (!(a->flags & IFA_F_DEPRECATED))
        rank += 500;
    if (!(a->flags & IFA_F_SECONDARY))
        rank += 200;
    return rank + 1;
}

struct net_addr ns_select_src_locked(struct netns *ns, int32_t ifindex, const struct net_addr *dst,
                                     uint8_t scope)
{
    struct net_addr best = {.family = 0};
    unsigned best_rank = 0;
    struct ns_addr *row;

    for (int pass = 0; pass < 2 && best_rank == 0; pass++) {
        list_for_each_entry (row, &ns->addrs, node) {
            if (row->a.local.family != dst->family || row->a.scope > scope ||
                (pass == 0 && row->a.ifindex != ifindex) || row->a.flags & IFA_F_TENTATIVE)
                continue;
            if (pass == 1 && row->a.scope != RT_SCOPE_UNIVERSE)
                continue;
            const unsigned rank = src_rank(&row->a, dst);
            if (rank > best_rank) {
                best_rank = rank;
                best = row->a.local;
            }
        }
    }
    return best;
}

/* ---- the routes of an address ---- */

static int put_route(struct netns *ns, const struct netns_route *r, bool add)
{
    if (add) {
        const int err = netns_route_add(ns, r, NETNS_ROUTE_CREATE | NETNS_ROUTE_EXCL);
        return err == -EEXIST ? 0 : err;
    }
    /* A guest may have taken it away before. */
    (void)!netns_route_del(ns, r);
    return 0;
}

static int routes_v4(struct netns *ns, const struct netns_ifaddr *a, bool add)
{
    struct netns_route r = {
        .dst = a->local,
        .dst_len = 32,
        .protocol = RTPROT_KERNEL,
        .scope = RT_SCOPE_HOST,
        .type = RTN_LOCAL,
        .table = RT_TABLE_LOCAL,
        .oif = a->ifindex,
        .prefsrc = a->local,
    };
    int err = put_route(ns, &r, add);

    if (err == 0 && a->prefix_len < 32 && !(a->flags & IFA_F_SECONDARY)) {
        r.dst = a->peer;
        net_addr_mask(&r.dst, a->prefix_len);
        r.dst_len = a->prefix_len;
        if (a->ifindex != NETNS_LO_INDEX) {
            r.type = RTN_UNICAST;
            r.scope = RT_SCOPE_LINK;
            r.table = RT_TABLE_MAIN;
        }
        if (!(a->flags & IFA_F_NOPREFIXROUTE) || a->ifindex == NETNS_LO_INDEX)
            err = put_route(ns, &r, add);
        if (err == 0 && a->prefix_len < 31) {
            r.dst.v4 |= htonl(UINT32_MAX >> a->prefix_len);
            r.dst_len = 32;
            r.type = RTN_BROADCAST;
            r.scope = RT_SCOPE_LINK;
            r.table = RT_TABLE_LOCAL;
            err = put_route(ns, &r, add);
        }
    } else if (err == 0 && a->prefix_len == 32 && !net_addr_equal(&a->local, &a->peer)) {
        r.dst = a->peer;
        r.type = RTN_UNICAST;
        r.scope = RT_SCOPE_LINK;
        r.table = RT_TABLE_MAIN;
        err = put_route(ns, &r, add);
    }
    return err;
}

/* Another IPv6 address of the link lives in the same network. */
static bool prefix_is_shared(struct netns *ns, const struct netns_ifaddr *a)
{
    struct ns_addr *row;
    bool shared = false;

    rwlock_rdlock(&ns->lock);
    list_for_each_entry (row, &ns->addrs, node) {
        shared |= row->a.ifindex == a->ifindex && row->a.prefix_len == a->prefix_len &&
                  !net_addr_equal(&row->a.local, &a->local) &&
                  net_addr_in_prefix(&row->a.peer, &a->peer, a->prefix_len);
    }
    rwlock_unlock(&ns->lock);
    return shared;
}

static int routes_v6(struct netns *ns, const struct netns_ifaddr *a, bool add)
{
    static const uint8_t all[16] = {0xff};
    struct netns_route r = {
        .dst = a->local,
        .dst_len = 128,
        .protocol = RTPROT_KERNEL,
        .type = RTN_LOCAL,
        .table = RT_TABLE_LOCAL,
        .oif = a->ifindex,
    };
    int err = put_route(ns, &r, add);

    if (a->ifindex == NETNS_LO_INDEX)
        return err;
    if (err == 0 && !(a->flags & IFA_F_NOPREFIXROUTE) && (add || !prefix_is_shared(ns, a))) {
        r.dst = a->peer;
        net_addr_mask(&r.dst, a->prefix_len);
        r.dst_len = a->prefix_len;
        r.type = RTN_UNICAST;
        r.table = RT_TABLE_MAIN;
        r.priority = V6_PREFIX_METRIC;
        err = put_route(ns, &r, add);
    }
    if (err == 0 && add) {
        r.dst = net_addr_v6(all);
        r.dst_len = 8;
        r.type = RTN_MULTICAST;
        r.table = RT_TABLE_LOCAL;
        r.priority = V6_PREFIX_METRIC;
        err = put_route(ns, &r, true);
    }
    return err;
}

int ns_addr_routes(struct netns *ns, const struct netns_ifaddr *a, bool add)
{
    return a->local.family == AF_INET ? routes_v4(ns, a, add) : routes_v6(ns, a, add);
}

/* Copies the n-th address of the link, for changes that take the lock anew. */
static bool nth_addr(struct netns *ns, int32_t ifindex, size_t n, struct netns_ifaddr *out)
{
    struct ns_addr *row;
    bool found = false;

    rwlock_rdlock(&ns->lock);
    list_for_each_entry (row, &ns->addrs, node) {
        if (row->a.ifindex == ifindex && n-- == 0) {
            *out = row->a;
            found = true;
            break;
        }
    }
    rwlock_unlock(&ns->lock);
    return found;
}

void ns_addrs_up(struct netns *ns, int32_t ifindex)
{
    struct netns_ifaddr a;

    for (size_t i = 0; nth_addr(ns, ifindex, i, &a); i++)
        (void)!ns_addr_routes(ns, &a, true);
}

void ns_addrs_flush_v6(struct netns *ns, int32_t ifindex)
{
    struct netns_ifaddr a;

    for (size_t i = 0; nth_addr(ns, ifindex, i, &a);) {
        if (a.local.family != AF_INET6 || netns_addr_del(ns, &a))
            i++;
    }
}

/* ---- changes ---- */

static struct ns_addr *find_locked(struct netns *ns, const struct netns_ifaddr *a)
{
    struct ns_addr *row;

    list_for_each_entry (row, &ns->addrs, node) {
        if (row->a.ifindex == a->ifindex && net_addr_equal(&row->a.local, &a->local) &&
            (a->prefix_len == 0xff || row->a.prefix_len == a->prefix_len ||
             a->local.family == AF_INET6))
            return row;
    }
    return NULL;
}

/* IPv4: a second address of the same network is a secondary one. */
static bool is_secondary_locked(struct netns *ns, const struct netns_ifaddr *a)
{
    struct ns_addr *row;

    if (a->local.family != AF_INET)
        return false;
    list_for_each_entry (row, &ns->addrs, node) {
        if (row->a.ifindex == a->ifindex && row->a.prefix_len == a->prefix_len &&
            !(row->a.flags & IFA_F_SECONDARY) &&
            net_addr_in_prefix(&a->peer, &row->a.peer, a->prefix_len))
            return true;
    }
    return false;
}

static int add_locked(struct netns *ns, struct netns_ifaddr *a, bool replace, bool *out_up)
{
    const struct ns_link *l = ns_link_find_locked(ns, a->ifindex);
    struct ns_addr *row = find_locked(ns, a);

    if (!l)
        return -ENODEV;
    *out_up = l->l.flags & IFF_UP;
    if (row) {
        if (!replace)
            return -EEXIST;
        a->flags |= row->a.flags & IFA_F_SECONDARY;
        row->a = *a;
        ns_changed(ns);
        return 0;
    }
    if (ns->addr_count >= LIMIT_NETNS_ADDRS)
        return -ENOBUFS;
    row = calloc(1, sizeof(*row));
    if (!row)
        return -ENOBUFS;
    if (is_secondary_locked(ns, a))
        a->flags |= IFA_F_SECONDARY;
    row->a = *a;
    list_add_tail(&row->node, &ns->addrs);
    ns->addr_count++;
    ns_changed(ns);
    return 0;
}

int netns_addr_add(struct netns *ns, const struct netns_ifaddr *a, bool replace)
{
    struct netns_ifaddr copy = *a;
    bool up = false;

    if (a->prefix_len > net_addr_bits(a->local.family) || a->local.family != a->peer.family)
        return -EINVAL;
    copy.changed_ns = mono_now();
    rwlock_wrlock(&ns->lock);
    int r = add_locked(ns, &copy, replace, &up);
    rwlock_unlock(&ns->lock);
    if (r)
        return r;
    ns_tell_addr(ns, &copy, false);
    return up ? ns_addr_routes(ns, &copy, true) : 0;
}

/* With the first address of an IPv4 network its secondary ones go too (promote_secondaries is 0).
 */
static bool take_secondary(struct netns *ns, const struct netns_ifaddr *gone,
                           struct netns_ifaddr *out)
{
    struct ns_addr *row;
    bool found = false;

    rwlock_rdlock(&ns->lock);
    list_for_each_entry (row, &ns->addrs, node) {
        if (row->a.ifindex == gone->ifindex && row->a.flags & IFA_F_SECONDARY &&
            row->a.prefix_len == gone->prefix_len &&
            net_addr_in_prefix(&row->a.peer, &gone->peer, gone->prefix_len)) {
            *out = row->a;
            found = true;
            break;
        }
    }
    rwlock_unlock(&ns->lock);
    return found;
}

static int del_one(struct netns *ns, const struct netns_ifaddr *a, struct netns_ifaddr *out)
{
    rwlock_wrlock(&ns->lock);
    struct ns_addr *row = find_locked(ns, a);
    if (row) {
        list_del(&row->node);
        ns->addr_count--;
        ns_changed(ns);
    }
    rwlock_unlock(&ns->lock);
    if (!row)
        return -EADDRNOTAVAIL;
    *out = row->a;
    free(row);
    (void)!ns_addr_routes(ns, out, false);
    ns_tell_addr(ns, out, true);
    return 0;
}

int netns_addr_del(struct netns *ns, const struct netns_ifaddr *a)
{
    struct netns_ifaddr gone, more;
    int r = del_one(ns, a, &gone);

    if (r || gone.flags & IFA_F_SECONDARY || gone.local.family != AF_INET)
        return r;
    while (take_secondary(ns, &gone, &more) && del_one(ns, &more, &more) == 0)
        ;
    return 0;
}
