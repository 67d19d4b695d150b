/* Inside AF_INET: what sockets of both families share, port tables, options, ancillary data.
 * Depends on: inet.h.
 * Threading: a socket's mu (rank SOCKET, pairs by address) guards its names and queues; a port
 * table's bucket (rank INET_PORTS) guards who is in it.
 * Ownership: tables hold weak pointers; a socket leaves them before it is freed. */
#ifndef RINGWALL_SENTRY_NET_INET_INET_PRIV_H
#define RINGWALL_SENTRY_NET_INET_INET_PRIV_H

#include "base/list.h"
#include "base/lock.h"
#include "sentry/net/inet/inet.h"
#include "sentry/net/settings.h"
#include "sentry/net/ns/netns.h"
#include "sentry/time/timer.h"

#define INET_BUCKETS 64u
#define INET_TUPLES 1024u
#define INET_TUPLE_LOCKS 16u
#define INET_SHUT_RD 1u
#define INET_SHUT_WR 2u
#define INET_LOOPBACK_IF 1u

enum inet_table { INET_TCP, INET_UDP, INET_UDPLITE, INET_PING, INET_TABLES };

struct inet_sock;

/* A port that somebody has; lives while it has owners or closed connections that linger. */
struct inet_port {
    struct list node; /* bucket.ports */
    enum inet_table table;
    uint16_t number;
    unsigned bound;        /* owners that asked for it by bind(2) */
    struct list owners;    /* inet_sock.owner */
    struct list listeners; /* inet_sock.listening */
    struct list closed;    /* tcp_closed.of_port */
};

struct inet_bucket {
    struct mutex mu;
    struct list ports;
};

/* A connection in TIME_WAIT. */
struct tcp_closed {
    struct list of_port; /* guard: the port's bucket */
    struct list node;    /* inet.closed; guard: inet.closed_mu */
    struct net_ep local, remote;
    struct inet_port *port; /* guard: the port's bucket; NULL: freed by who took it out */
    int family;
    bool reuse, reuseport;
    uint32_t uid;
    uint64_t expires;
};

struct inet {
    struct inet_bucket tables[INET_TABLES][INET_BUCKETS];
    struct mutex tuple_mu[INET_TUPLE_LOCKS]; /* rank INET_PORTS */
    struct inet_sock *tuples[INET_TUPLES];   /* connected TCP sockets by both ends */
    struct mutex all_mu;                     /* rank INET_PORTS */
    struct list all;                         /* inet_sock.all */
    struct mutex closed_mu;                  /* rank LEAF */
    struct list closed;                      /* oldest first */
    unsigned closed_count;
    _Atomic unsigned raw_count;
    _Atomic int64_t memory; /* bytes in queues */
    _Atomic uint32_t next_hint;
    struct timer_service *timers; /* owned */
    /* what /proc/net/snmp shows */
    _Atomic uint64_t udp_in, udp_no_ports, udp_in_errors, udp_out, udp_full;
    _Atomic uint64_t tcp_active, tcp_passive, tcp_failed, tcp_resets, tcp_pieces;
};

/* Options that are on or off, bits of inet_sock.opts. */
enum inet_opt {
    INET_RECVERR,
    INET_RECVERR6,
    INET_PKTINFO,
    INET_PKTINFO6,
    INET_RECVTTL,
    INET_RECVHOPS,
    INET_RECVTOS,
    INET_RECVTCLASS,
    INET_RECVOPTS,
    INET_RETOPTS,
    INET_RECVORIGDST,
    INET_RECVORIGDST6,
    INET_FREEBIND,
    INET_TRANSPARENT,
    INET_HDRINCL,
    INET_MC_LOOP,
    INET_MC_ALL,
    INET_MC_LOOP6,
    INET_MC_ALL6,
    INET_V6ONLY,
    INET_NODEFRAG,
    INET_NO_PORT, /* IP_BIND_ADDRESS_NO_PORT */
    INET_ROUTER_ALERT,
    INET_RECVFRAG,
    INET_CHECKSUM,
    INET_RECVFLOW,
    INET_FLOWSEND,
    INET_AUTOFLOW,
    INET_DONTFRAG,
    INET_RECVMTU,
    INET_RTHDR,
    INET_HOPOPTS,
    INET_DSTOPTS,
    INET_2292PKTINFO,
    INET_2292HOPS,
    INET_RFC4884,
    INET_RFC4884_6,
    INET_GRO,
    INET_NO_CHECK6_TX,
    INET_NO_CHECK6_RX,
};

struct inet_member {
    struct list node;
    struct net_addr group;
    uint32_t ifindex;
    bool excludes; /* sources are those not wanted */
    unsigned source_count;
    struct net_addr sources[]; /* INET_SOURCES */
};
#define INET_SOURCES 64u

/* A message of the error queue. */
struct inet_error {
    struct list node;
    struct inet_icmp_error e;
    uint64_t time_ns;
    uint32_t last; /* number of the last send a notice is about; the first is e.info */
    uint16_t tx_port;
    size_t size;
    uint8_t data[];
};

struct inet_sock {
    struct sock base;
    struct waitq wq;
    struct mutex mu;
    /* immutable */
    struct inet *in;
    uint32_t uid;
    struct list all; /* guard: in->all_mu */
    /* guard: mu; the names also by the bucket when it is in a table */
    struct net_ep local, remote;
    bool addr_bound, port_bound;
    struct inet_port *port;                     /* guard: mu */
    struct list owner, listening;               /* guard: the port's bucket */
    struct inet_sock *tuple_next, **tuple_link; /* guard: the tuple's lock */
    struct list members;                        /* inet_member.node; guard: mu */
    unsigned member_count;
    struct list errors; /* inet_error.node; guard: mu */
    size_t errors_size;
    _Atomic unsigned error_count;
    uint32_t zerocopy_next; /* number of the next send with MSG_ZEROCOPY; guard: mu */
    /* options, each atomic */
    _Atomic uint64_t opts;
    _Atomic int16_t ttl, mc_ttl, hops, mc_hops; /* -1: the default */
    _Atomic uint8_t tos, tclass, pmtu, pmtu6, min_ttl, min_hops;
    _Atomic uint32_t bound_if, mc_if, mc_if6, unicast_if, unicast_if6;
    _Atomic uint32_t mc_addr;
    _Atomic uint32_t port_range;
    _Atomic uint32_t src_prefs;
    _Atomic uint16_t segment; /* UDP_SEGMENT */
};

static inline struct inet_sock *inet_of(struct sock *s)
{
    return container_of(s, struct inet_sock, base);
}

static inline bool inet_opt(const struct inet_sock *s, enum inet_opt o)
{
    return atomic_load_explicit(&s->opts, memory_order_relaxed) >> o & 1;
}

static inline bool inet_is_v6(const struct inet_sock *s)
{
    return s->base.family == AF_INET6;
}

/* ---- inet.c ---- */
/* Fills a zeroed object, which nobody finds before inet_sock_show. */
void inet_sock_init(struct inet_sock *s, const struct sock_ops *ops, struct net *n, int family,
                    int type, int protocol, const struct vfs_caller *c);
/* Puts a complete one among all sockets, where /proc and sock_diag find it. May be called with the
 * lock of another socket held. */
void inet_sock_show(struct inet_sock *s);
/* What of it is not freed with its memory. It is in no table any more. */
void inet_sock_fini(struct inet_sock *s);
MUST_CHECK int tcp_create(struct net *n, int family, const struct vfs_caller *c,
                          struct sock **out_sock);
MUST_CHECK int udp_create(struct net *n, int family, int protocol, const struct vfs_caller *c,
                          struct sock **out_sock);
MUST_CHECK int ping_create(struct net *n, int family, int protocol, const struct vfs_caller *c,
                           struct sock **out_sock);
MUST_CHECK int raw_create(struct net *n, int family, int protocol, const struct vfs_caller *c,
                          struct sock **out_sock);

/* ---- inet_addr.c ---- */
/* What the guest gave, for a socket of s's family: -EINVAL when too short, -EAFNOSUPPORT. AF_UNSPEC
 * is the caller's to look for first. */
MUST_CHECK int inet_addr_in(const struct inet_sock *s, const struct sock_addr *a,
                            struct net_ep *out);
/* An end as a socket of family shows it. */
void inet_addr_out(int family, const struct net_ep *e, struct sock_addr *out);
/* 16 bytes, v4 mapped. */
void inet_addr_to6(const struct net_addr *a, uint8_t out[16]);
struct net_addr inet_addr_from4(uint32_t be);
struct net_addr inet_addr_from6(const uint8_t b[16]);
/* getsockname, getpeername. */
void inet_getname(struct inet_sock *s, bool peer, struct sock_addr *out);

/* ---- inet_route.c ---- */
struct inet_route {
    bool local;     /* stays in the sandbox */
    bool multicast; /* a copy for members here, and one for the link */
    bool broadcast;
    bool by_gateway;
    uint32_t ifindex;
    struct net_addr src; /* what a socket without an address speaks from */
    uint32_t mtu;
};
/* -ENETUNREACH, -EHOSTUNREACH, -EINVAL. oif 0: any link. src: family 0 when none is bound. */
MUST_CHECK int inet_route(struct net *n, const struct net_addr *dst, const struct net_addr *src,
                          uint32_t oif, struct inet_route *out);
/* The same for what s sends with flags (MSG_DONTROUTE) or connects to. */
MUST_CHECK int inet_route_of(const struct inet_sock *s, const struct net_addr *dst,
                             const struct net_addr *src, uint32_t oif, int flags,
                             struct inet_route *out);
bool inet_is_local(struct net *n, const struct net_addr *a);
/* 0: none. */
uint32_t inet_if_by_name(struct net *n, const char *name);
bool inet_if_name(struct net *n, uint32_t ifindex, char name[16]);
bool inet_if_exists(struct net *n, uint32_t ifindex);
/* The link that has this address, or 0. */
uint32_t inet_if_by_addr(struct net *n, const struct net_addr *a);

/* ---- inet_port.c ---- */
enum inet_table inet_table_of(const struct inet_sock *s);
/* bind(2) after the checks of the address: port 0 finds one. mu held. -EADDRINUSE. */
MUST_CHECK int inet_port_bind_locked(struct inet_sock *s, uint16_t port);
/* For a socket that sends or connects without a port. mu held. */
MUST_CHECK int inet_port_auto_locked(struct inet_sock *s);
/* listen(2) asks again whether the port is free; then connections find s. mu held. */
MUST_CHECK int inet_port_listen_locked(struct inet_sock *s);
/* Nobody finds s by its port any more, which it keeps. mu held. */
void inet_port_deaf_locked(struct inet_sock *s);
/* A connection that was accepted shares the port of its listener. Both mu held. */
void inet_port_share_locked(struct inet_sock *listener, struct inet_sock *child);
/* mu held. */
void inet_port_drop_locked(struct inet_sock *s);
/* Changes the names while look-ups may read them. mu held. */
void inet_names_set_locked(struct inet_sock *s, const struct net_ep *local,
                           const struct net_ep *remote);
/* bind(2): all of it. */
MUST_CHECK int inet_bind(struct sock *s, const struct sock_addr *a, const struct vfs_caller *c);
/* Takes a TCP socket with both names into the table of tuples. -EADDRNOTAVAIL when another has
 * them. mu held. */
MUST_CHECK int inet_tuple_add_locked(struct inet_sock *s);
void inet_tuple_del(struct inet_sock *s);
/* Port and tuple for connect(2) of a TCP socket whose remote is set. mu held. */
MUST_CHECK int inet_tuple_auto_locked(struct inet_sock *s);
/* Best match among who has the port; for TCP among those that listen. Owned, or NULL. */
struct inet_sock *inet_find(struct inet *in, enum inet_table table, const struct net_ep *local,
                            const struct net_ep *remote);
/* Whether a packet to local from remote is for s. */
bool inet_matches(const struct inet_sock *s, const struct net_ep *local,
                  const struct net_ep *remote);
/* All that match, at most max; owned. */
size_t inet_find_all(struct inet *in, enum inet_table table, const struct net_ep *local,
                     const struct net_ep *remote, struct inet_sock **out, size_t max);
/* TIME_WAIT for s's names. mu held. */
void tcp_closed_add_locked(struct inet_sock *s);
/* Lets go of those whose time has come (all: of every one). No bucket's lock held. */
void tcp_closed_expire(struct inet *in, bool all);

/* ---- inet_opt.c ---- */
MUST_CHECK int inet_getsockopt(struct sock *s, int level, int name, void *buf, socklen_t *len);
MUST_CHECK int inet_setsockopt(struct sock *s, int level, int name, const void *buf, socklen_t len,
                               const struct vfs_caller *c);
/* MTU of the way to the peer. */
int inet_mtu(struct inet_sock *s);
MUST_CHECK int inet_put_int(void *buf, socklen_t *len, int value);
MUST_CHECK int inet_get_int(const void *buf, socklen_t len, int *out);

/* ---- inet_mcast.c ---- */
/* Options about groups; -ENOPROTOOPT when name is none. */
MUST_CHECK int inet_mcast_set(struct inet_sock *s, int level, int name, const void *buf,
                              socklen_t len);
bool inet_mcast_joined(struct inet_sock *s, const struct net_addr *group, uint32_t ifindex);
bool inet_mcast_wants(struct inet_sock *s, const struct net_addr *group, uint32_t ifindex,
                      const struct net_addr *from);
void inet_mcast_free(struct inet_sock *s);

/* ---- inet_error.c ---- */
/* A message for the error queue of s when it asked for such, and SO_ERROR. No lock held. */
void inet_error_add(struct inet_sock *s, const struct inet_icmp_error *e, const void *data,
                    size_t size, bool hard);
/* What a send with flags gave: if it was to be told when its memory is free again (MSG_ZEROCOPY,
 * which copies here), it is now. */
void inet_zerocopy_sent(struct inet_sock *s, int flags, int64_t n);
MUST_CHECK int64_t inet_error_recv(struct inet_sock *s, struct sock_msg *m);
void inet_error_free(struct inet_sock *s);

/* ---- inet_cmsg.c ---- */
/* What the ancillary data of one send says. */
struct inet_send {
    int ttl, tos, segment; /* -1, -1, 0: not given */
    struct net_addr src;
    uint32_t ifindex;
};
MUST_CHECK int inet_cmsg_send(const struct inet_sock *s, const struct sock_control *ctl,
                              struct inet_send *out);
/* The meta data of a packet that came. */
struct inet_meta {
    struct net_ep from, to;
    uint32_t ifindex;
    uint8_t ttl, tos;
    uint64_t time_ns;
    uint32_t dropped; /* before it, by the socket whose queue it is in */
};
/* Adds what the options of s ask for. */
void inet_cmsg_recv(struct inet_sock *s, const struct inet_meta *meta, struct sock_control *ctl);

/* netns_lo_passed; bytes without the packets' IP headers. */
static inline void inet_lo_passed(struct net *n, unsigned family, uint64_t packets, uint64_t bytes)
{
    const uint64_t head = family == AF_INET ? 20 : 40;

    netns_lo_passed(net_ns(n), packets, packets * head + bytes);
}

#endif
