/* AF_PACKET sockets: frames as they pass a link (packet(7)).
 * Depends on: sock.h, ns/netns.h, ip/ext.h.
 * Threading: any thread. packet_tap may be called with locks up to rank NET_LINK held; the table's
 * lock has rank PACKET_TABLE, a socket's queue PACKET.
 * Ownership: one table per network namespace; it holds weak pointers to its sockets. */
#ifndef RINGWALL_SENTRY_NET_PACKET_PACKET_H
#define RINGWALL_SENTRY_NET_PACKET_PACKET_H

#include <linux/if_packet.h>
#include <sys/uio.h>

#include "sentry/net/addr.h"
#include "sentry/net/sock.h"

struct memfile;
struct packet_table;

/* mf, borrowed, gives the memory of rings; NULL: none can be made. Owned result. */
MUST_CHECK int packet_new(struct memfile *mf, struct packet_table **out);
/* No socket is left. NULL is allowed. */
void packet_free(struct packet_table *t);
/* socket(2). -EPERM without CAP_NET_RAW, -ESOCKTNOSUPPORT. */
MUST_CHECK int packet_create(struct net *n, int family, int type, int protocol,
                             const struct vfs_caller *c, struct sock **out_sock);

/* A frame that passes a link. */
struct packet_frame {
    int32_t ifindex;
    uint8_t pkttype;         /* PACKET_HOST ... PACKET_OUTGOING */
    bool partial;            /* the checksum of the transport is still to be filled in */
    bool checked;            /* it is known to be right */
    const struct iovec *iov; /* Ethernet header first; borrowed for the call */
    int count;
    size_t size;             /* of all pieces */
    const struct sock *from; /* who sent it, and does not see it; or NULL */
};
/* Whether anybody looks: else packet_tap need not be called. */
bool packet_listens(struct net *n);
/* A copy for each socket that wants it. */
void packet_tap(struct net *n, const struct packet_frame *f);
/* A packet on the loopback link, which carries none: its headers are made up. transport: the bytes
 * that go before data (a header of UDP). It is seen as sent and as received. */
struct packet_loop {
    struct net_addr src, dst;
    uint8_t protocol, ttl, tos;
    const void *transport, *data;
    size_t transport_size, size;
};
void packet_tap_loop(struct net *n, const struct packet_loop *p);

/* For /proc/net/packet. */
struct packet_info {
    uint32_t refs, rmem, uid;
    int type, ifindex;
    uint16_t protocol;
    bool running;
    uint64_t inode;
};
/* fn is called with the table's lock held; it takes none. */
void packet_for_each(struct net *n, void (*fn)(void *arg, const struct packet_info *i), void *arg);

#endif
