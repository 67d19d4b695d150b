/* Inside ns: the tables.
 * Depends on: netns.h.
 * Threading: tables are guarded by lock; changed only with config held as well.
 * Ownership: rows are owned by their list. */
#ifndef RINGWALL_SENTRY_NET_NS_NETNS_PRIV_H
#define RINGWALL_SENTRY_NET_NS_NETNS_PRIV_H

#include "base/list.h"
#include "base/lock.h"
#include "sentry/net/ns/netns.h"

struct ns_link {
    struct list node;
    struct netns_link l;
    struct netns_stats stats;
};

struct ns_addr {
    struct list node;
    struct netns_ifaddr a;
};

struct ns_route {
    struct list node;
    struct netns_route r;
};

struct ns_neigh {
    struct list node;
    struct netns_neigh n;
};

struct netns {
    struct mutex config; /* rank NETCONF */
    struct rwlock lock;  /* rank NETNS */
    _Atomic uint32_t generation;
    const struct netns_events *events; /* set once */
    void *events_arg;
    struct netns_stats *lo; /* set once, with the link */
    /* guard: lock */
    struct list links, addrs;
    struct list routes4, routes6; /* best first: by table, then longest prefix, then priority */
    struct list neighs;           /* most recently made first */
    size_t link_count, addr_count, route_count, neigh_count;
    int32_t last_index;
};

struct ns_link *ns_link_find_locked(struct netns *ns, int32_t index);
struct list *ns_routes(struct netns *ns, uint8_t family);
bool ns_is_local_locked(struct netns *ns, const struct net_addr *a, int32_t ifindex);
/* The address of the link to use towards dst. */
struct net_addr ns_select_src_locked(struct netns *ns, int32_t ifindex, const struct net_addr *dst,
                                     uint8_t scope);
void ns_changed(struct netns *ns);
/* Routes that come with the addresses of a link, put in or taken away; lo's are alike. */
MUST_CHECK int ns_addr_routes(struct netns *ns, const struct netns_ifaddr *a, bool add);
/* Takes away every route through the link. */
void ns_routes_flush(struct netns *ns, int32_t ifindex);
void ns_neighs_flush(struct netns *ns, int32_t ifindex);
/* Takes away the IPv6 addresses of the link, as Linux does when it goes down. */
void ns_addrs_flush_v6(struct netns *ns, int32_t ifindex);
/* Puts back the routes of every address of the link. */
void ns_addrs_up(struct netns *ns, int32_t ifindex);

void ns_tell_link(struct netns *ns, const struct netns_link *l, enum netns_change what);
void ns_tell_addr(struct netns *ns, const struct netns_ifaddr *a, bool del);
void ns_tell_route(struct netns *ns, const struct netns_route *r, bool del);
void ns_tell_neigh(struct netns *ns, const struct netns_neigh *n, bool del);

#endif
