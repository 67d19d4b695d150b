/* Routes: two ordered lists, so that the first row that fits is the best one. */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>

#include "base/limits.h"
#include "sentry/net/ns/netns_priv.h"

void ns_tell_route(struct netns *ns, const struct netns_route *r, bool del)
{
    if (ns->events && ns->events->route)
        ns->events->route(ns->events_arg, r, del);
}

struct list *ns_routes(struct netns *ns, uint8_t family)
{
    return family == AF_INET6 ? &ns->routes6 : &ns->routes4;
}

void netns_for_routes(struct netns *ns, uint8_t family, netns_route_fn fn, void *arg)
{
    struct ns_route *r;

    rwlock_rdlock(&ns->lock);
    list_for_each_entry (r, ns_routes(ns, family), node) {
        if (!fn(arg, &r->r))
            break;
    }
    rwlock_unlock(&ns->lock);
}

/* ---- looking up ---- */

/* The rules: local, then main, then default (ip-rule(8)); other tables are only kept. */
static unsigned table_rank(uint32_t table)
{
    switch (table) {
    case RT_TABLE_LOCAL:
        return 0;
    case RT_TABLE_MAIN:
        return 1;
    case RT_TABLE_DEFAULT:
        return 2;
    default:
        return 3;
    }
}

/* <0: a goes before b. */
static int route_order(const struct netns_route *a, const struct netns_route *b)
{
    const unsigned ta = table_rank(a->table), tb = table_rank(b->table);

    if (ta != tb)
        return ta < tb ? -1 : 1;
    if (a->table != b->table)
        return a->table < b->table ? -1 : 1;
    if (a->dst_len != b->dst_len)
        return a->dst_len > b->dst_len ? -1 : 1;
    if (a->tos != b->tos)
        return a->tos > b->tos ? -1 : 1;
    if (a->priority != b->priority)
        return a->priority < b->priority ? -1 : 1;
    return 0;
}

static int route_error(uint8_t type)
{
    switch (type) {
    case RTN_BLACKHOLE:
        return -EINVAL;
    case RTN_PROHIBIT:
        return -EACCES;
    case RTN_UNREACHABLE:
        return -EHOSTUNREACH;
    default:
        return 0;
    }
}

static bool route_fits(struct netns *ns, const struct netns_route *r, const struct net_addr *dst,
                       int32_t oif)
{
    if (table_rank(r->table) > 2 || !net_addr_in_prefix(dst, &r->dst, r->dst_len))
        return false;
    if (r->type == RTN_THROW || r->type == RTN_ANYCAST)
        return false;
    /* Own addresses are reached over lo, whatever link was asked for. */
    if (oif && r->oif != oif && r->type != RTN_LOCAL)
        return false;
    if (r->oif == 0)
        return true;
    const struct ns_link *l = ns_link_find_locked(ns, r->oif);
    return l && l->l.flags & IFF_UP;
}

static int take_route(struct netns *ns, const struct netns_route *r, const struct net_addr *dst,
                      const struct net_addr *src, struct netns_path *out)
{
    const int err = route_error(r->type);

    if (err)
        return err;
    const struct ns_link *l =
        ns_link_find_locked(ns, r->type == RTN_LOCAL ? NETNS_LO_INDEX : r->oif);
    if (!l)
        return -ENODEV;
    out->route = *r;
    out->type = r->type;
    if (net_addr_is_multicast(dst))
        out->type = RTN_MULTICAST;
    out->ifindex = l->l.index;
    out->gateway = r->gateway;
    out->mtu = r->mtu && r->mtu < l->l.mtu ? r->mtu : l->l.mtu;
    if (src && !net_addr_is_any(src))
        out->src = *src;
    else if (r->prefsrc.family)
        out->src = r->prefsrc;
    else if (r->type == RTN_LOCAL)
        out->src = *dst;
    else
        out->src = ns_select_src_locked(ns, r->oif, r->gateway.family ? &r->gateway : dst,
                                        r->scope > RT_SCOPE_LINK ? RT_SCOPE_LINK : r->scope);
    if (out->src.family == 0 && r->type != RTN_LOCAL)
        out->src = ns_select_src_locked(ns, r->oif, dst, RT_SCOPE_LINK);
    return 0;
}

/* A link that was named is enough for multicast, broadcast and link-local destinations. */
static int take_link(struct netns *ns, const struct net_addr *dst, const struct net_addr *src,
                     int32_t oif, struct netns_path *out)
{
    const struct ns_link *l = ns_link_find_locked(ns, oif);

    if (!l || !(l->l.flags & IFF_UP))
        return -ENETUNREACH;
    out->type = net_addr_is_multicast(dst)           ? RTN_MULTICAST
                : net_addr_is_limited_broadcast(dst) ? RTN_BROADCAST
                                                     : RTN_UNICAST;
    out->ifindex = oif;
    out->mtu = l->l.mtu;
    out->src =
        src && !net_addr_is_any(src) ? *src : ns_select_src_locked(ns, oif, dst, RT_SCOPE_LINK);
    return 0;
}

static int lookup_locked(struct netns *ns, const struct net_addr *dst, const struct net_addr *src,
                         int32_t oif, struct netns_path *out)
{
    struct ns_route *row;

    list_for_each_entry (row, ns_routes(ns, (uint8_t)dst->family), node) {
        if (route_fits(ns, &row->r, dst, oif))
            return take_route(ns, &row->r, dst, src, out);
    }
    if (oif && (dst->family == AF_INET || net_addr_is_multicast(dst)))
        return take_link(ns, dst, src, oif, out);
    return -ENETUNREACH;
}

int netns_route_lookup(struct netns *ns, const struct net_addr *dst, const struct net_addr *src,
                       int32_t oif, struct netns_path *out)
{
    struct netns_path found;

    memset(&found, 0, sizeof(found));
    rwlock_rdlock(&ns->lock);
    const int r = lookup_locked(ns, dst, src, oif, &found);
    rwlock_unlock(&ns->lock);
    if (r == 0)
        *out = found;
    return r;
}

/* ---- changes ---- */

static bool same_key(const struct netns_route *a, const struct netns_route *b)
{
    return a->table == b->table && a->dst_len == b->dst_len && a->tos == b->tos &&
           a->priority == b->priority && net_addr_equal(&a->dst, &b->dst);
}

static bool same_route(const struct netns_route *a, const struct netns_route *b)
{
    return same_key(a, b) && a->type == b->type && a->scope == b->scope && a->oif == b->oif &&
           net_addr_equal(&a->gateway, &b->gateway) && net_addr_equal(&a->prefsrc, &b->prefsrc);
}

/* A gateway must be reached over its link without another one (fib_check_nh). */
static int check_gateway_locked(struct netns *ns, struct netns_route *r)
{
    struct netns_path p;

    if (!r->gateway.family)
        return 0;
    if (ns_is_local_locked(ns, &r->gateway, 0))
        return -EINVAL;
    if (r->flags & RTNH_F_ONLINK)
        return r->oif ? 0 : -EINVAL;
    if (r->gateway.family == AF_INET6 && net_addr_is_linklocal(&r->gateway))
        return r->oif ? 0 : -EINVAL;
    memset(&p, 0, sizeof(p));
    if (lookup_locked(ns, &r->gateway, NULL, r->oif, &p) || p.route.gateway.family ||
        p.type != RTN_UNICAST || p.route.dst.family == 0)
        return r->gateway.family == AF_INET6 ? -EHOSTUNREACH : -ENETUNREACH;
    if (!r->oif)
        r->oif = p.ifindex;
    return 0;
}

static int check_route_locked(struct netns *ns, struct netns_route *r)
{
    struct net_addr masked = r->dst;

    net_addr_mask(&masked, r->dst_len);
    if (r->dst_len > net_addr_bits(r->dst.family) || !net_addr_equal(&masked, &r->dst))
        return -EINVAL;
    if (route_error(r->type) || r->type == RTN_THROW) {
        r->oif = r->dst.family == AF_INET6 ? NETNS_LO_INDEX : 0;
        return 0;
    }
    if (r->oif) {
        const struct ns_link *l = ns_link_find_locked(ns, r->oif);
        if (!l)
            return -ENODEV;
        if (!(l->l.flags & IFF_UP))
            return -ENETDOWN;
    }
    int err = check_gateway_locked(ns, r);
    if (err)
        return err;
    if (!r->oif)
        return -ENODEV;
    if (r->prefsrc.family && !ns_is_local_locked(ns, &r->prefsrc, 0))
        return -EINVAL;
    return 0;
}

/* 0: goes in before *out_at; 1: took the place of an older one. */
static int place_locked(struct netns *ns, const struct netns_route *r, unsigned how,
                        struct list **out_at)
{
    struct list *head = ns_routes(ns, (uint8_t)r->dst.family), *first = NULL;
    struct ns_route *row;
    bool append = how & NETNS_ROUTE_APPEND;

    *out_at = head;
    list_for_each_entry (row, head, node) {
        const int order = route_order(&row->r, r);
        if (order > 0) {
            *out_at = &row->node;
            break;
        }
        if (order == 0 && same_route(&row->r, r))
            return how & NETNS_ROUTE_REPLACE ? 1 : -EEXIST;
        if (order < 0 || !same_key(&row->r, r))
            continue;
        if (!first)
            first = &row->node;
        if (how & NETNS_ROUTE_EXCL)
            return -EEXIST;
        if (how & NETNS_ROUTE_REPLACE) {
            row->r = *r;
            return 1;
        }
    }
    if (!(how & NETNS_ROUTE_CREATE))
        return -ENOENT;
    if (first && !append)
        *out_at = first;
    return 0;
}

static int add_locked(struct netns *ns, struct netns_route *r, unsigned how)
{
    struct list *at;
    int err = check_route_locked(ns, r);

    if (err == 0)
        err = place_locked(ns, r, how, &at);
    if (err < 0)
        return err;
    ns_changed(ns);
    if (err == 1)
        return 0;
    struct ns_route *fresh =
        ns->route_count < LIMIT_NETNS_ROUTES ? calloc(1, sizeof(*fresh)) : NULL;
    if (!fresh)
        return -ENOBUFS;
    fresh->r = *r;
    list_add_tail(&fresh->node, at);
    ns->route_count++;
    return 0;
}

int netns_route_add(struct netns *ns, const struct netns_route *r, unsigned how)
{
    struct netns_route copy = *r;

    rwlock_wrlock(&ns->lock);
    const int err = add_locked(ns, &copy, how);
    rwlock_unlock(&ns->lock);
    if (err == 0)
        ns_tell_route(ns, &copy, false);
    return err;
}

static bool del_fits(const struct netns_route *row, const struct netns_route *want)
{
    return row->table == want->table && row->dst_len == want->dst_len &&
           net_addr_equal(&row->dst, &want->dst) && row->tos == want->tos &&
           (!want->priority || row->priority == want->priority) &&
           (!want->type || row->type == want->type) &&
           (!want->protocol || row->protocol == want->protocol) &&
           (want->scope == RT_SCOPE_NOWHERE || want->dst.family == AF_INET6 ||
            row->scope == want->scope) &&
           (!want->oif || row->oif == want->oif) &&
           (!want->gateway.family || net_addr_equal(&row->gateway, &want->gateway)) &&
           (!want->prefsrc.family || net_addr_equal(&row->prefsrc, &want->prefsrc));
}

int netns_route_del(struct netns *ns, const struct netns_route *want)
{
    struct ns_route *row, *found = NULL;

    rwlock_wrlock(&ns->lock);
    list_for_each_entry (row, ns_routes(ns, (uint8_t)want->dst.family), node) {
        if (del_fits(&row->r, want)) {
            found = row;
            list_del(&row->node);
            ns->route_count--;
            ns_changed(ns);
            break;
        }
    }
    rwlock_unlock(&ns->lock);
    if (!found)
        return -ESRCH;
    ns_tell_route(ns, &found->r, true);
    free(found);
    return 0;
}

static struct ns_route *take_of_link(struct netns *ns, int32_t ifindex)
{
    const uint8_t families[] = {AF_INET, AF_INET6};
    struct ns_route *row, *found = NULL;

    rwlock_wrlock(&ns->lock);
    for (size_t i = 0; i < ARRAY_SIZE(families) && !found; i++) {
        list_for_each_entry (row, ns_routes(ns, families[i]), node) {
            if (row->r.oif == ifindex && !route_error(row->r.type)) {
                found = row;
                list_del(&row->node);
                ns->route_count--;
                ns_changed(ns);
                break;
            }
        }
    }
    rwlock_unlock(&ns->lock);
    return found;
}

void ns_routes_flush(struct netns *ns, int32_t ifindex)
{
    struct ns_route *row;

    while ((row = take_of_link(ns, ifindex)) != NULL) {
        ns_tell_route(ns, &row->r, true);
        free(row);
    }
}
