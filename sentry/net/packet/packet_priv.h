/* Inside packet sockets.
 * Depends on: packet.h, mm/mappable.h.
 * Threading: a socket's mu (rank PACKET) guards what it says; the table's mu (rank PACKET_TABLE)
 * guards membership in the table.
 * Ownership: a queued packet belongs to its queue and to who looks at it (MSG_PEEK). */
#ifndef RINGWALL_SENTRY_NET_PACKET_PACKET_PRIV_H
#define RINGWALL_SENTRY_NET_PACKET_PACKET_PRIV_H

#include "base/list.h"
#include "base/lock.h"
#include "base/ref.h"
#include "sentry/mm/mappable.h"
#include "sentry/net/packet/packet.h"

#define PACKET_ETH_HEADER 14u
/* What a queued packet costs its socket's buffer beyond its bytes. */
#define PACKET_COST 256u
#define PACKET_MEMBERS_MAX 64u

struct packet_table {
    struct memfile *mf; /* borrowed, may be NULL */
    _Atomic unsigned running;
    struct mutex mu; /* rank PACKET_TABLE: what follows */
    struct list socks;
    struct list fanouts; /* packet_fanout.node */
    uint64_t serial;     /* of the frame that is handed out */
};

struct packet_skb {
    struct list node;
    struct ref ref;
    struct sockaddr_ll from;
    uint64_t time_ns; /* CLOCK_REALTIME */
    uint32_t status;  /* TP_STATUS_* for auxiliary data */
    uint32_t len;     /* of the frame; size is what the filter left */
    uint32_t size, net;
    uint32_t dropped; /* before it, of the socket */
    uint8_t data[];
};

/* A ring shared with the guest, which may write anything anywhere in it at any time. */
struct packet_ring {
    struct mappable m;
    struct ref ref; /* the socket's, and one per mapping */
    struct memfile *mf;
    /* immutable */
    uint64_t off, size;
    uint8_t *base;
    uint32_t block_size, frame_size, per_block, frames;
    int version;
    _Atomic unsigned mapped; /* mappings */
    uint32_t head;           /* guard: the socket's mu */
};

struct packet_member {
    struct packet_mreq req;
    unsigned count;
};

struct packet_sock {
    struct sock base;
    struct waitq wq;
    struct list node;             /* table->socks; guard: table->mu */
    struct packet_fanout *fanout; /* that it is in, or NULL; guard: table->mu */
    uint32_t uid;                 /* immutable */
    struct mutex mu;              /* rank PACKET: guards what follows */
    uint16_t protocol;
    int32_t ifindex; /* 0: all links */
    bool running, closed;
    bool auxdata, origdev, ignore_outgoing, bypass;
    int version;
    uint32_t reserve;
    struct packet_ring *ring; /* owned */
    struct list queue;        /* packet_skb.node */
    uint32_t charged;
    uint32_t dropped;              /* in all */
    uint32_t packets, drops;       /* since PACKET_STATISTICS was asked last */
    struct packet_member *members; /* owned */
    size_t member_count;
};

static inline struct packet_sock *packet_of(struct sock *s)
{
    return container_of(s, struct packet_sock, base);
}

/* ---- packet_data.c ---- */
MUST_CHECK int64_t packet_send(struct sock *s, struct sock_msg *m, bool nonblock,
                               const struct vfs_caller *c);
MUST_CHECK int64_t packet_recv(struct sock *s, struct sock_msg *m, bool nonblock,
                               const struct vfs_caller *c);
/* Frees every queued packet. */
void packet_purge(struct packet_sock *s);
/* Who is told of a link: its number, type and hardware address. */
void packet_name(struct netns *ns, int32_t ifindex, uint16_t protocol, struct sockaddr_ll *out);

/* ---- packet_ring.c ---- */
/* PACKET_RX_RING; a request of no blocks takes the ring away. -EBUSY, -EINVAL, -ENOMEM. */
MUST_CHECK int packet_ring_set(struct packet_sock *s, const struct tpacket_req *req);
/* Length of a frame's head in the given version (PACKET_HDRLEN). -EINVAL. */
MUST_CHECK int packet_ring_head(int version);
/* Puts a frame into the ring; whether it had room. s->mu held. */
bool packet_ring_put_locked(struct packet_sock *s, const struct packet_skb *p);
/* Whether the frame before the next one is the guest's. s->mu held. */
bool packet_ring_ready_locked(const struct packet_sock *s);
void packet_ring_put(struct packet_ring *r);
MUST_CHECK int packet_mmap(struct sock *s, struct mappable **out);

/* ---- packet_fanout.c ---- */
/* PACKET_FANOUT; value as setsockopt(2) has it. -EINVAL, -EALREADY, -ENOSPC, -ENOMEM. */
MUST_CHECK int packet_fanout_join(struct packet_sock *s, uint32_t value);
/* Table's mu held. */
void packet_fanout_leave_locked(struct packet_sock *s);
/* 0: it is in none. */
uint32_t packet_fanout_value(struct packet_sock *s);
/* Whether a frame that s wants, sent by from, is s's among those it shares with. Table's mu held.
 */
bool packet_fanout_chose_locked(const struct packet_sock *s, uint64_t serial,
                                const struct sock *from, const uint8_t *frame, size_t size,
                                uint16_t protocol);

/* ---- packet_opt.c ---- */
MUST_CHECK int packet_getsockopt(struct sock *s, int level, int name, void *buf, socklen_t *len);
MUST_CHECK int packet_setsockopt(struct sock *s, int level, int name, const void *buf,
                                 socklen_t len, const struct vfs_caller *c);

#endif
