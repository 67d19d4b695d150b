/* Inside datagram sockets: UDP, ICMP echo (ping) and raw, which share queue, names and readiness.
 * Depends on: inet_priv.h.
 * Threading: i.mu guards queue and names.
 * Ownership: a packet belongs to the queue it is in. */
#ifndef RINGWALL_SENTRY_NET_INET_DGRAM_PRIV_H
#define RINGWALL_SENTRY_NET_INET_DGRAM_PRIV_H

#include "sentry/net/inet/inet_priv.h"
#include "sentry/net/ip/ext.h"

/* What a datagram costs its receiver's buffer beyond its bytes. */
#define DGRAM_COST 256u
#define DGRAM_MAX 65535u
#define UDP_HEAD 8u
#define IP_HEAD 20u
#define ICMP_HEAD 8u

struct dgram {
    struct list node;
    struct inet_meta meta;
    uint32_t size, charge;
    uint8_t data[];
};

struct dgram_sock {
    struct inet_sock i;
    struct list queue; /* dgram.node */
    _Atomic uint32_t count;
    _Atomic uint64_t charged; /* against rcvbuf */
    _Atomic uint64_t bytes;
    _Atomic uint64_t drops;
    _Atomic uint8_t shut;
    bool closed;
    _Atomic int32_t corked; /* UDP_CORK */
    struct dgram *cork;     /* owned: what was sent with MSG_MORE; guard: i.mu */
    struct net_ep cork_to;
    _Atomic uint32_t coverage_out, coverage_in; /* UDP-Lite */
    uint64_t icmp_filter[4];                    /* raw: bit set: not wanted */
};

static inline struct dgram_sock *dgram_of(struct sock *s)
{
    return container_of(s, struct dgram_sock, i.base);
}
static inline struct dgram_sock *dgram_of_inet(struct inet_sock *i)
{
    return container_of(i, struct dgram_sock, i);
}

/* ---- dgram.c ---- */
MUST_CHECK int dgram_new(struct net *n, const struct sock_ops *ops, int family, int type,
                         int protocol, const struct vfs_caller *c, struct dgram_sock **out);
void dgram_info_locked(struct inet_sock *s, struct inet_info *out);
/* Takes d, or drops it when the queue is full. 0, -ENOBUFS (dropped), -ECONNREFUSED (closed). */
int dgram_queue(struct dgram_sock *to, struct dgram *d);
struct dgram *dgram_alloc(struct inet *in, size_t size);
void dgram_free(struct inet *in, struct dgram *d);
MUST_CHECK int64_t dgram_recv(struct sock *s, struct sock_msg *m, bool nonblock,
                              const struct vfs_caller *c);
MUST_CHECK int dgram_connect(struct sock *s, const struct sock_addr *a, bool nonblock,
                             const struct vfs_caller *c);
MUST_CHECK int dgram_shutdown(struct sock *s, int how);
MUST_CHECK int dgram_getname(struct sock *s, bool peer, struct sock_addr *out);
uint32_t dgram_poll(struct sock *s, struct waiter *w);
MUST_CHECK int64_t dgram_readable(struct sock *s);
MUST_CHECK int64_t dgram_unsent(struct sock *s);
void dgram_close(struct sock *s);
void dgram_release(struct sock *s);
MUST_CHECK int dgram_getsockopt(struct sock *s, int level, int name, void *buf, socklen_t *len);
MUST_CHECK int dgram_setsockopt(struct sock *s, int level, int name, const void *buf, socklen_t len,
                                const struct vfs_caller *c);
/* Where a message goes and from where: what m says, or the socket is connected to. */
struct dgram_way {
    struct net_ep from, to;
    struct inet_route rt;
    struct inet_send ctl;
    bool connected;
};
MUST_CHECK int dgram_way(struct dgram_sock *s, const struct sock_msg *m, struct dgram_way *out);
/* Time to live and type of service that a packet of s goes with. */
void dgram_ttl_tos(const struct dgram_sock *s, const struct dgram_way *w, struct inet_meta *out);
/* How d, with its meta data set, is handed to the external stack. */
struct ext_dgram dgram_ext(const struct dgram_sock *s, const struct dgram_way *w,
                           const struct dgram *d);
/* The packet for everyone who hears it, raw sockets included. */
void raw_deliver(struct net *n, uint8_t protocol, const struct inet_meta *meta, const void *data,
                 size_t size);

#endif
