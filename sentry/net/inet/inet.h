/* AF_INET and AF_INET6 sockets: who has which port, and what reaches them from outside.
 * Depends on: sock.h, addr.h.
 * Threading: any thread. The port tables have bucket locks (rank INET_PORTS, after SOCKET); a
 * look-up takes a reference under the bucket's lock and drops the lock.
 * Ownership: a bound socket is in the tables until it is closed; they hold weak pointers.
 *
 * Peers inside the sandbox are reached without a packet: TCP as a pair of byte queues, datagrams
 * from queue to queue. For every other peer (a look-up in the routes says which) a socket carries
 * its traffic by the external stack, sentry/net/ip/ext.h, which calls what stands here. Ports are
 * one space for both. */
#ifndef RINGWALL_SENTRY_NET_INET_INET_H
#define RINGWALL_SENTRY_NET_INET_INET_H

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "sentry/net/addr.h"
#include "sentry/net/sock.h"

struct inet; /* one per namespace: port tables, counters */
struct lx_tcp_info;
struct ext_tcp; /* a connection of the external stack */

MUST_CHECK int inet_new(struct inet **out);
/* No socket is left. */
void inet_free(struct inet *in);

/* socket(2) of both families. Owned result. */
MUST_CHECK int inet_create(struct net *n, int family, int type, int protocol,
                           const struct vfs_caller *c, struct sock **out_sock);

/* CLOCK_REALTIME, ns: when a packet came. */
uint64_t inet_realtime(void);

/* ---- from outside: called by the external stack's thread, no lock held ---- */

/* A datagram or packet that came in. The payload is borrowed for the call. */
struct inet_packet {
    struct net_ep from, to; /* ports 0 where the protocol has none; to.ifindex: the link */
    uint8_t protocol;       /* IPPROTO_* */
    uint8_t ttl, tos;
    uint32_t flow;       /* flow label, v6 */
    uint64_t time_ns;    /* CLOCK_REALTIME when it came */
    const void *payload; /* after the transport's header (UDP) or the whole transport (raw) */
    size_t size;
    const void *ip_header; /* AF_INET raw sockets see it; NULL: v6 */
    size_t ip_header_size;
};
/* To the UDP socket, or for multicast and broadcast to every one, that listens there. -ECONNREFUSED
 * when nobody does: an ICMP error is due. A full queue drops and is 0. */
MUST_CHECK int inet_udp_input(struct net *n, const struct inet_packet *p);
/* A copy to every raw and ping socket that wants it; true when there was one. */
bool inet_raw_input(struct net *n, const struct inet_packet *p);

/* An ICMP error about a packet that was sent from local to remote. */
struct inet_icmp_error {
    struct net_ep local, remote;
    uint8_t protocol, origin, type, code; /* origin: SO_EE_ORIGIN_* */
    int error;                            /* positive errno, as Linux maps type and code */
    uint32_t info;                        /* the MTU, for EMSGSIZE */
    struct net_addr offender;
};
void inet_error_input(struct net *n, const struct inet_icmp_error *e);

/* The listening TCP socket for a connection from remote to local (SO_REUSEPORT is balanced by both
 * ends). Owned, or NULL. */
struct sock *inet_tcp_find_listener(struct net *n, const struct net_ep *local,
                                    const struct net_ep *remote);
/* The least TTL, or hop limit, of packets to it. */
uint8_t inet_tcp_min_ttl(struct sock *s, unsigned family);
/* Whether one more connection has room in the listener's queue. */
bool inet_tcp_room(struct sock *listener);
/* For how many ns a connection whose SYN has come is to wait for its first bytes after the
 * handshake (TCP_DEFER_ACCEPT). 0: not at all; any other counts against the listener's backlog till
 * inet_tcp_defer_end, which may be called with any lock held. */
uint64_t inet_tcp_defer_begin(struct sock *listener);
void inet_tcp_defer_end(struct sock *listener);
/* An established connection for the queue of listener: takes t on success. -ECONNREFUSED when it
 * is closed meanwhile, -ENOBUFS when the queue is full. */
MUST_CHECK int inet_tcp_accepted(struct sock *listener, struct ext_tcp *t,
                                 const struct net_ep *local, const struct net_ep *remote);

/* ---- looking at sockets: /proc/net, sock_diag ---- */

struct inet_info {
    int family, type, protocol; /* as socket(2); family of the socket, not of the address */
    int state;                  /* TCP_ESTABLISHED ..., TCP_CLOSE for unconnected datagrams */
    struct net_ep local, remote;
    bool v6only;
    uint64_t rqueue, wqueue; /* listening: connections that wait, and the backlog */
    uint32_t uid, refs, mark;
    uint64_t inode, cookie, drops;
    unsigned shutdown;
    /* the timer that runs: 0 none, 1 retransmit, 2 keep-alive, 3 TIME_WAIT, 4 probe */
    int timer;
    uint64_t timer_ns;
    unsigned retransmits;
};
/* In place of a protocol: every raw socket, every socket. */
#define INET_ANY_RAW (-1)
#define INET_ANY (-2)
/* Calls fn for every socket of the family (0: both) and protocol, TIME_WAIT included, till it
 * returns non-zero. fn may block, and may call inet_* functions. */
typedef int (*inet_info_fn)(void *arg, const struct inet_info *i, struct sock *s);
int inet_for_each(struct net *n, int family, int protocol, inet_info_fn fn, void *arg);
struct inet_counts {
    unsigned sockets, tcp4, tcp6, udp4, udp6, raw4, raw6; /* in use */
    unsigned orphans, time_wait, tcp_all, established;
    uint64_t memory; /* bytes in queues */
    uint64_t active, passive, failed, resets, segments;
    uint64_t udp_in, udp_out, udp_no_ports, udp_full;
};
MUST_CHECK int inet_counts(struct net *n, struct inet_counts *out);
/* Of a TCP socket. No lock held. */
void inet_tcp_info(struct sock *s, struct lx_tcp_info *out);
/* TCP_CONGESTION of a TCP socket, ended by a 0. No lock held. */
void inet_tcp_congestion(struct sock *s, char out[16]);
/* Ends a connection as ss -K does (SOCK_DESTROY): -ECONNABORTED to its user. */
MUST_CHECK int inet_destroy(struct sock *s);

#endif
