/* Inside ip: the stack, its links, and the way of a packet through it.
 * Depends on: ext.h, ns/netns.h, tcp/tcp.h.
 * Threading: one thread per stack reads every link and runs every deadline; any thread sends.
 * Ownership: the stack owns links and tables; connections are reference-counted. */
#ifndef RINGWALL_SENTRY_NET_IP_IP_PRIV_H
#define RINGWALL_SENTRY_NET_IP_IP_PRIV_H

#include <linux/virtio_net.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/lock.h"
#include "base/rbtree.h"
#include "sentry/net/checksum.h"
#include "sentry/net/inet/inet.h"
#include "sentry/net/ip/ext.h"
#include "sentry/net/ns/netns.h"
#include "sentry/net/ns/prefix.h"
#include "sentry/net/tcp/tcp.h"

#define EXT_LINKS_MAX 8
#define EXT_BATCH 16
/* A frame: Ethernet header and the longest packet. */
#define EXT_FRAME_MAX (65536u + 64u)
#define ETH_HEADER 14u
#define IP4_HEADER 20u
#define IP6_HEADER 40u
#define IP_HEADERS_MAX (ETH_HEADER + IP6_HEADER + 8u)

struct ext_link {
    struct ext_stack *st;
    int fd;
    int32_t ifindex;
    bool vnet_hdr;
    uint8_t mac[6];
    struct netns_stats *stats;
    uint64_t
        old_querier_till[2]; /* of IPv6, of IPv4: who asks knows the older version; guard: mu */
};

/* Something with a deadline. */
struct ext_timer {
    struct rb_node node;
    uint64_t at;                                   /* UINT64_MAX: not in the tree */
    void (*fn)(struct ext_timer *t, uint64_t now); /* on the stack's thread, no lock held */
};

#define EXT_BUCKETS 1024u

struct ext_bucket {
    struct mutex mu; /* rank EXT_TABLE */
    struct list conns;
};

struct neigh_wait;
struct frag_table;

struct ext_stack {
    struct net *net;
    struct netns *ns;
    struct ext_link links[EXT_LINKS_MAX];
    _Atomic unsigned link_count;
    int wake_fd; /* eventfd: a deadline came nearer, or the end */
    pthread_t thread;
    bool running; /* guard: timers_mu */
    _Atomic bool stop;

    struct mutex timers_mu; /* rank EXT_TIMERS */
    struct rb_root timers;
    uint64_t sleeping_till; /* what the thread waits for; 0: it is awake */

    struct mutex mu;   /* rank NET_LINK: what follows */
    struct list waits; /* neigh_wait.node: packets for neighbours not known yet */
    size_t wait_count;
    struct list frags; /* frag.node */
    size_t frag_count, frag_bytes;
    struct {
        struct net_addr dst;
        uint32_t mtu;
        uint64_t until_ns;
    } pmtu[64];
    unsigned pmtu_next;
    struct list groups; /* ext_group.node */
    size_t group_count;
    struct ext_timer groups_timer;
    struct ext_timer upkeep; /* neighbours and fragments, once a second while there are any */
    uint64_t icmp_second_ns;
    unsigned icmp_sent;

    struct ext_bucket *buckets;
    _Atomic uint32_t conn_count, half_open;
    _Atomic uint16_t next_id;
    uint8_t *rx; /* one frame */
};

/* A packet that came in, past its IP header. */
struct ip_in {
    struct ext_link *link;
    struct net_addr src, dst;
    uint8_t protocol, ttl, tos;
    const uint8_t *header; /* the IP header */
    size_t header_size;
    const uint8_t *data; /* the transport */
    size_t size;
    bool checked; /* the checksum of the transport is known to be right */
    bool unicast; /* it was for us alone */
};

/* A packet to send, without its IP header. */
struct ip_out {
    struct net_addr src, dst;
    uint8_t protocol, ttl, tos;
    bool dont_fragment;
    const struct iovec *iov; /* the transport's header first */
    int count;
    size_t size;
    /* For the host to finish, when gso_size is set or partial says so. */
    bool partial; /* the checksum field at csum_at holds the pseudo header's sum */
    uint16_t csum_at, gso_size, transport_header;
};
#define IP_IOV_MAX 4

/* ---- stack.c ---- */
/* UINT64_MAX: takes it out. Whether it was in. */
bool ext_timer_set(struct ext_stack *st, struct ext_timer *t, uint64_t at);
struct ext_link *ext_find_link(struct ext_stack *st, int32_t ifindex);
struct ext_stack *net_ext(struct net *n);

/* ---- link.c ---- */
/* Sends a frame whose first piece is ETH_HEADER and the IP header. -ENOBUFS when it had no room. */
MUST_CHECK int link_send(struct ext_link *l, const struct virtio_net_hdr *v,
                         const struct iovec *iov, int count, size_t size);
/* Reads what is there, a batch at most. */
void link_receive(struct ext_link *l);

/* ---- neigh.c ---- */
/* The hardware address of the next hop into mac: 0, or -EINPROGRESS when it is asked for and the
 * frame (copied) waits, or -ENOBUFS. */
MUST_CHECK int neigh_resolve(struct ext_link *l, const struct net_addr *hop, uint8_t mac[6]);
MUST_CHECK int neigh_queue(struct ext_link *l, const struct net_addr *hop,
                           const struct virtio_net_hdr *v, const struct iovec *iov, int count,
                           size_t size);
void neigh_seen(struct ext_link *l, const struct net_addr *a, const uint8_t mac[6], bool solicited);
void arp_input(struct ext_link *l, const uint8_t *p, size_t size);
void nd_input(const struct ip_in *in);
void neigh_upkeep(struct ext_stack *st, uint64_t now, bool *again);

/* ---- ip.c ---- */
void ip4_input(struct ext_link *l, const uint8_t *p, size_t size, bool checked);
void ip6_input(struct ext_link *l, const uint8_t *p, size_t size, bool checked);
void ip_deliver(const struct ip_in *in);
/* p: where the packet goes, from a route look-up. */
MUST_CHECK int ip_send(struct ext_stack *st, const struct netns_path *p, const struct ip_out *o);
MUST_CHECK int ip_route(struct ext_stack *st, const struct net_addr *dst,
                        const struct net_addr *src, int32_t oif, struct netns_path *out);
/* Of a multicast address. */
void ip_multicast_mac(const struct net_addr *dst, uint8_t mac[6]);
void pmtu_set(struct ext_stack *st, const struct net_addr *dst, uint32_t mtu);

/* ---- frag.c ---- */
/* A fragment: when it completes a packet, a buffer of its own (freed by the caller) with it. */
uint8_t *frag_input(struct ext_stack *st, const struct net_addr *src, const struct net_addr *dst,
                    uint32_t id, uint8_t protocol, size_t off, bool more, const uint8_t *data,
                    size_t size, size_t *out_size);
void frag_upkeep(struct ext_stack *st, uint64_t now, bool *again);

/* ---- icmp.c ---- */
void icmp_input(const struct ip_in *in);
/* Type and code of IPv4 destination unreachable; translated for IPv6. */
void icmp_unreachable(const struct ip_in *in, uint8_t code);

/* ---- groups.c ---- */
void groups_init(struct ext_stack *st);
/* The stack's thread has ended. */
void groups_fini(struct ext_stack *st);
/* Whether a packet for a group is for somebody here. */
bool groups_wants(struct ext_link *l, const struct net_addr *group);
/* Routers ask which groups are wanted. */
void igmp_input(const struct ip_in *in);
/* in: a query whose checksum is right. */
void mld_input(const struct ip_in *in);

/* ---- udp.c, ext_tcp.c ---- */
void udp_input(const struct ip_in *in);
void exttcp_input(const struct ip_in *in);
/* Forgets connections that nobody has open. The stack's thread has ended. */
void exttcp_remove_all(struct ext_stack *st);
void exttcp_icmp(struct ext_stack *st, const struct net_ep *local, const struct net_ep *remote,
                 uint32_t seq, int error, uint32_t mtu);

#endif
