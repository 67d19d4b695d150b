/* The external stack as AF_INET sockets use it: datagrams and connections over a link.
 * Depends on: net/addr.h, sock.h.
 * Threading: any thread, also with a socket's lock held (rank SOCKET); nothing here blocks for a
 * peer. What comes in is handed to inet/inet.h by the stack's own thread.
 * Ownership: one ext_stack per network namespace; a connection is reference-counted. */
#ifndef RINGWALL_SENTRY_NET_IP_EXT_H
#define RINGWALL_SENTRY_NET_IP_EXT_H

#include <netinet/tcp.h>

#include "sentry/net/addr.h"
#include "sentry/net/sock.h"

struct ext_stack;
struct ext_tcp;
struct inet_info;
struct lx_tcp_info;

/* ---- life ---- */

/* Cheap: the thread starts with the first link. Owned result. */
MUST_CHECK int ext_new(struct net *n, struct ext_stack **out);
/* No socket is left. NULL is allowed. Ends the thread. */
void ext_free(struct ext_stack *st);

/* What a packet socket of the host gives: a link for the namespace. */
struct ext_link_config {
    int fd;      /* AF_PACKET, SOCK_RAW, bound; taken on success */
    int wake_fd; /* an eventfd, non-blocking; the first link's is taken */
    char name[16];
    uint8_t mac[6];
    uint32_t mtu;
    bool vnet_hdr; /* PACKET_VNET_HDR is on: checksums and segmentation are left to the host */
};
/* Makes the link, down. The configuration lock of the namespace is not held. -EEXIST, -ENOSPC ...
 */
MUST_CHECK int ext_add_link(struct net *n, const struct ext_link_config *cfg, int32_t *out_index);

/* Sends a frame, Ethernet header first, by a link. from, who sends, does not see it pass. -ENXIO,
 * -ENOBUFS, -EMSGSIZE. */
MUST_CHECK int ext_frame_send(struct net *n, int32_t ifindex, const struct iovec *frame,
                              const struct sock *from);

/* ---- groups ---- */

/* One more socket, or one less, listens to a group on a link; routers and switches there are told.
 * Nothing to do for links that are not the stack's. -ENOBUFS: there are too many. */
MUST_CHECK int ext_group_join(struct net *n, int32_t ifindex, const struct net_addr *group);
void ext_group_leave(struct net *n, int32_t ifindex, const struct net_addr *group);

/* ---- datagrams ---- */

struct ext_dgram {
    struct net_ep from, to; /* from.addr family 0: chosen by the route; ports 0 for raw */
    int32_t ifindex;        /* link to leave by; 0: by the route */
    uint8_t protocol;
    uint8_t ttl; /* 0: the default, 64 (multicast 1) */
    uint8_t tos;
    bool dont_fragment; /* longer than the path takes: -EMSGSIZE */
    bool no_checksum;   /* UDP over IPv4 only */
    bool has_header;    /* the payload begins with an IPv4 header (IP_HDRINCL) */
};
/* Sends one UDP datagram with the rest of u as payload: its size, or -EMSGSIZE, -ENETUNREACH,
 * -EHOSTUNREACH, -ENOBUFS, -EFAULT, -ENETDOWN. */
MUST_CHECK int64_t ext_udp_send(struct net *n, const struct ext_dgram *d, struct uio *u);
/* The same with a whole packet of d->protocol; ICMPv6 gets its checksum. */
MUST_CHECK int64_t ext_raw_send(struct net *n, const struct ext_dgram *d, struct uio *u);
/* Path MTU towards a, for IP_MTU; 0 without a route. */
uint32_t ext_path_mtu(struct net *n, const struct net_addr *a, int32_t ifindex);

/* ---- connections ---- */

struct ext_tcp_options {
    uint32_t sndbuf, rcvbuf; /* bytes; 0: grow as needed */
    uint32_t maxseg;         /* TCP_MAXSEG, 0: of the path */
    uint32_t notsent_lowat;  /* 0: none */
    uint32_t window_clamp;   /* 0: none */
    bool nodelay, cork, keepalive, oob_inline;
    bool reno;                                      /* TCP_CONGESTION; else cubic */
    uint32_t keep_idle_s, keep_intvl_s, keep_count; /* 0: defaults */
    uint32_t user_timeout_ms;
    uint32_t syn_retries; /* 0: default */
    int32_t linger2_s;    /* 0: default; <0: none */
    uint8_t ttl, tos;     /* ttl 0: 64 */
    uint8_t min_ttl;      /* segments with less are dropped */
};

/* Called with the connection's lock held: wakes sleepers, nothing else. EPOLL* bits. */
typedef void (*ext_tcp_event)(void *user, uint32_t events);

/* Starts a connection. The pair of ends must be free (ext_tcp_in_use). Owned result; the event
 * function comes at once or later. -EADDRNOTAVAIL (pair taken), -ENETUNREACH, -ENOBUFS. */
MUST_CHECK int ext_tcp_connect(struct net *n, const struct net_ep *local,
                               const struct net_ep *remote, const struct ext_tcp_options *o,
                               ext_tcp_event fn, void *user, struct ext_tcp **out);
/* A connection that inet_tcp_accepted took gets its listener here. */
void ext_tcp_attach(struct ext_tcp *t, const struct ext_tcp_options *o, ext_tcp_event fn,
                    void *user);
bool ext_tcp_in_use(struct net *n, const struct net_ep *local, const struct net_ep *remote);

/* Bytes taken, or -EAGAIN (no room), -EPIPE, an error of the connection (told once).
 * more: MSG_MORE, a short segment may wait; urgent: MSG_OOB, the last byte is. */
MUST_CHECK int64_t ext_tcp_send(struct ext_tcp *t, struct uio *u, bool more, bool urgent);
/* Bytes, 0 at the end, -EAGAIN, -ENOTCONN before it is established, or the connection's error.
 * peek_off: where to begin without taking anything, or -1 to take. */
MUST_CHECK int64_t ext_tcp_recv(struct ext_tcp *t, struct uio *u, int64_t peek_off);
/* SHUT_WR: FIN after what is queued; SHUT_RD: reads give 0. -ENOTCONN. */
MUST_CHECK int ext_tcp_shutdown(struct ext_tcp *t, int how);
/* The user is gone: no event comes any more, the rest is sent in the background; unread data or
 * abort: RST. Drops the user's reference. */
void ext_tcp_close(struct ext_tcp *t, bool abort);
/* connect(2) in progress: -EINPROGRESS; established: 0; or the error, which stays. */
int ext_tcp_status(struct ext_tcp *t);
/* SO_ERROR: the pending error, which is then forgotten. */
int ext_tcp_take_error(struct ext_tcp *t);
/* EPOLL* bits now. */
uint32_t ext_tcp_poll(struct ext_tcp *t);
uint64_t ext_tcp_readable(struct ext_tcp *t);
/* MSG_OOB, as tce_read_urgent; SIOCATMARK, off bytes further on; FIONREAD, which ends there. */
MUST_CHECK int ext_tcp_recv_urgent(struct ext_tcp *t, bool peek, uint8_t *out);
bool ext_tcp_at_mark(struct ext_tcp *t, uint64_t off);
uint64_t ext_tcp_inq(struct ext_tcp *t);
/* SIOCOUTQ (not acknowledged) and SIOCOUTQNSD (not sent). */
uint64_t ext_tcp_unsent(struct ext_tcp *t, bool not_sent_only);
void ext_tcp_set_options(struct ext_tcp *t, const struct ext_tcp_options *o);
void ext_tcp_info(struct ext_tcp *t, struct lx_tcp_info *out);
void ext_tcp_names(struct ext_tcp *t, struct net_ep *local, struct net_ep *remote);
/* TCP_ESTABLISHED ... as in <netinet/tcp.h>. */
int ext_tcp_state(struct ext_tcp *t);
/* Connections that no socket has any more (FIN_WAIT, TIME_WAIT, ...) and half-open ones. fn must
 * not call back into the stack. */
typedef int (*ext_tcp_fn)(void *arg, const struct inet_info *i);
int ext_tcp_for_each(struct net *n, ext_tcp_fn fn, void *arg);

#endif
