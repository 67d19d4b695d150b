/* A network namespace: links, addresses, routes, neighbours, and who is told of changes.
 * Depends on: prefix.h, base.
 * Threading: any thread. Reads take the tables' lock (rank NETNS) for reading, so they may be made
 * with a socket's lock held. Changes must come from one thread at a time: netns_config_lock (rank
 * NETCONF), as Linux's rtnl lock; it is held while listeners are told, so events come in order.
 * Ownership: everything is handed out as values; a link's driver is owned by whoever added it. */
#ifndef RINGWALL_SENTRY_NET_NS_NETNS_H
#define RINGWALL_SENTRY_NET_NS_NETNS_H

#include <net/if.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/net/ns/prefix.h"

struct netns;

#define NETNS_LO_INDEX 1
#define NETNS_MAC_SIZE 6
/* IFF_LOWER_UP of the kernel, which <net/if.h> lacks: there is a carrier. */
#define NETNS_LOWER_UP 0x10000u

/* ---- links ---- */

struct netns_stats {
    _Atomic uint64_t rx_packets, rx_bytes, rx_errors, rx_dropped, multicast;
    _Atomic uint64_t tx_packets, tx_bytes, tx_errors, tx_dropped;
};

struct netns_link {
    int32_t index;
    char name[IFNAMSIZ]; /* NUL-terminated */
    uint16_t type;       /* ARPHRD_* */
    uint32_t flags;      /* IFF_* */
    uint32_t mtu, txqlen;
    uint8_t mac[NETNS_MAC_SIZE], bcast[NETNS_MAC_SIZE];
    struct netns_stats *stats; /* lives as long as the namespace */
    void *driver;              /* of the external stack; NULL: loopback */
};

/* ---- addresses ---- */

struct netns_ifaddr {
    int32_t ifindex;
    uint8_t prefix_len, scope, proto;
    uint32_t flags;                /* IFA_F_* */
    struct net_addr local;         /* the address itself */
    struct net_addr peer;          /* other end of a point-to-point link, else the same as local */
    struct net_addr bcast;         /* or family 0 */
    char label[IFNAMSIZ];          /* IPv4 only; "" for the link's name */
    uint32_t valid_s, preferred_s; /* seconds as set; UINT32_MAX: for ever */
    uint64_t changed_ns;           /* mono_now when it was last set */
};

/* ---- routes ---- */

struct netns_route {
    struct net_addr dst;                         /* family always set */
    uint8_t dst_len, tos, protocol, scope, type; /* RTPROT_*, RT_SCOPE_*, RTN_* */
    uint32_t table, priority, mtu, flags;        /* flags: RTNH_F_ONLINK */
    int32_t oif;                                 /* 0: none (blackhole) */
    struct net_addr gateway, prefsrc;            /* or family 0 */
};

/* What a look-up found. */
struct netns_path {
    uint8_t type;             /* RTN_UNICAST, RTN_LOCAL, RTN_BROADCAST or RTN_MULTICAST */
    int32_t ifindex;          /* the link to leave by; lo for RTN_LOCAL */
    struct net_addr gateway;  /* the next hop, or family 0 when dst itself is on the link */
    struct net_addr src;      /* what to call oneself; family 0 when there is no address */
    uint32_t mtu;             /* of the route or the link */
    struct netns_route route; /* the row that matched */
};

/* ---- neighbours ---- */

struct netns_neigh {
    int32_t ifindex;
    struct net_addr addr;
    uint8_t mac[NETNS_MAC_SIZE];
    bool has_mac;
    uint16_t state; /* NUD_* */
    uint8_t flags;  /* NTF_* */
    uint64_t updated_ns, confirmed_ns, used_ns;
};

/* ---- life ---- */

enum netns_change { NETNS_ADDED, NETNS_CHANGED, NETNS_REMOVED };
/* Told of changes with the configuration lock held; del: it is gone. Any may be NULL. */
struct netns_events {
    void (*link)(void *arg, const struct netns_link *l, enum netns_change what);
    void (*addr)(void *arg, const struct netns_ifaddr *a, bool del);
    void (*route)(void *arg, const struct netns_route *r, bool del);
    void (*neigh)(void *arg, const struct netns_neigh *n, bool del);
};

/* A namespace with lo, down, as Linux makes them. */
MUST_CHECK int netns_new(struct netns **out_ns);
void netns_free(struct netns *ns);
/* Once, before the second thread knows ns. */
void netns_set_events(struct netns *ns, const struct netns_events *ev, void *arg);
void netns_config_lock(struct netns *ns);
void netns_config_unlock(struct netns *ns);
/* Counts changes; a dump that sees it move was not consistent. */
uint32_t netns_generation(struct netns *ns);

/* ---- reads: the iterators' functions run under the lock and return false to stop ---- */

typedef bool (*netns_link_fn)(void *arg, const struct netns_link *l);
typedef bool (*netns_addr_fn)(void *arg, const struct netns_ifaddr *a);
typedef bool (*netns_route_fn)(void *arg, const struct netns_route *r);
typedef bool (*netns_neigh_fn)(void *arg, const struct netns_neigh *n);
void netns_for_links(struct netns *ns, netns_link_fn fn, void *arg);
void netns_for_addrs(struct netns *ns, netns_addr_fn fn, void *arg);
void netns_for_routes(struct netns *ns, uint8_t family, netns_route_fn fn, void *arg);
void netns_for_neighs(struct netns *ns, netns_neigh_fn fn, void *arg);
/* -ENODEV. */
MUST_CHECK int netns_link_get(struct netns *ns, int32_t index, struct netns_link *out);
MUST_CHECK int netns_link_find(struct netns *ns, const char *name, struct netns_link *out);
/* Whether packets to a stay here. ifindex 0: any link. */
bool netns_is_local(struct netns *ns, const struct net_addr *a, int32_t ifindex);
/* The first address of the family on the link (0: any but lo) that others may use; family 0. */
struct net_addr netns_any_addr(struct netns *ns, int32_t ifindex, uint8_t family);
/* Where a packet to dst goes. src: family 0 when not chosen yet; oif: 0, or the link it must leave
 * by. -ENETUNREACH, -EHOSTUNREACH, -EINVAL (blackhole), -EACCES (prohibit), -ENODEV. */
MUST_CHECK int netns_route_lookup(struct netns *ns, const struct net_addr *dst,
                                  const struct net_addr *src, int32_t oif, struct netns_path *out);

/* ---- changes: under the configuration lock; listeners are told ---- */

/* index 0: the next free one. Flags other than IFF_UP come from l. -EEXIST, -ENOSPC, -ENOMEM. */
MUST_CHECK int netns_link_add(struct netns *ns, const struct netns_link *l, int32_t *out_index);
/* So many packets have left by the loopback link and come back; bytes from their IP headers on. Any
 * thread, no lock. */
void netns_lo_passed(struct netns *ns, uint64_t packets, uint64_t bytes);
/* Sets and clears flags, of those a guest may change; routes follow IFF_UP. -ENODEV. */
MUST_CHECK int netns_link_set_flags(struct netns *ns, int32_t index, uint32_t flags, uint32_t mask);
MUST_CHECK int netns_link_set_mtu(struct netns *ns, int32_t index, uint32_t mtu);
MUST_CHECK int netns_link_set_txqlen(struct netns *ns, int32_t index, uint32_t len);
/* -EBUSY while the link is up, -EEXIST, -EINVAL. */
MUST_CHECK int netns_link_rename(struct netns *ns, int32_t index, const char *name);

/* Adds a with the routes that come with it. replace: an equal address takes the new values, else
 * -EEXIST. -ENODEV, -EINVAL, -ENOBUFS at the bound. */
MUST_CHECK int netns_addr_add(struct netns *ns, const struct netns_ifaddr *a, bool replace);
/* The address a->local (of a->ifindex, with a->prefix_len when that is not 0xff). -EADDRNOTAVAIL.
 */
MUST_CHECK int netns_addr_del(struct netns *ns, const struct netns_ifaddr *a);

/* How a route is put beside those of the same destination. */
#define NETNS_ROUTE_CREATE 1u
#define NETNS_ROUTE_EXCL 2u
#define NETNS_ROUTE_REPLACE 4u
#define NETNS_ROUTE_APPEND 8u
/* -EEXIST, -ENOENT (replace without create), -ENETUNREACH (gateway), -ENODEV, -ENETDOWN, -ENOBUFS.
 */
MUST_CHECK int netns_route_add(struct netns *ns, const struct netns_route *r, unsigned how);
/* The first route that fits what is set in r (zero or family 0: any). -ESRCH. */
MUST_CHECK int netns_route_del(struct netns *ns, const struct netns_route *r);

/* Makes or changes an entry; quiet: nobody is told. May be called without the configuration lock
 * when quiet. -ENOBUFS at the bound. */
MUST_CHECK int netns_neigh_set(struct netns *ns, const struct netns_neigh *n, bool quiet);
MUST_CHECK int netns_neigh_get(struct netns *ns, int32_t ifindex, const struct net_addr *a,
                               struct netns_neigh *out);
/* -ENOENT. */
MUST_CHECK int netns_neigh_del(struct netns *ns, int32_t ifindex, const struct net_addr *a);

#endif
