/* Inside the AF_UNIX family: sockets, messages, names, descriptors in flight.
 * Depends on: net_priv.h.
 * Threading: a socket's mu (rank SOCKET, pairs by address) guards its state and queue; net->mu
 * (rank LEAF) guards names and what is in flight.
 * Ownership: a connected pair holds references on each other till each is closed; a message holds
 * one on its sender. */
#ifndef RINGWALL_SENTRY_NET_UNIX_PRIV_H
#define RINGWALL_SENTRY_NET_UNIX_PRIV_H

#include "sentry/net/net_priv.h"

#define UNIX_RD 1u
#define UNIX_WR 2u
/* What a message costs its sender's buffer beyond its bytes. */
#define UNIX_MSG_COST 256u

enum unix_state { UNIX_IDLE, UNIX_LISTENING, UNIX_CONNECTED };
enum unix_mark { UNIX_MARK_NONE, UNIX_MARK_CANDIDATE, UNIX_MARK_REACHED };

struct unix_sock;

struct unix_name {
    struct ref ref;
    struct list hash;        /* net->abstract; guard: net->mu */
    struct unix_sock *owner; /* weak; guard: net->mu */
    struct vpath place;      /* owned; dentry NULL: abstract */
    struct sock_addr addr;   /* immutable */
};

/* A socket whose descriptor travels in a message of somebody's queue. */
struct unix_edge {
    struct list node; /* in->edges */
    struct unix_sock *in, *sock;
};

struct unix_msg {
    struct list node;
    struct unix_sock *from; /* owned */
    struct sock_control ctl;
    struct unix_edge *edges; /* owned */
    size_t edge_count, charged;
    size_t size, off; /* bytes in data, and how many were read */
    uint8_t data[];
};

/* Somebody who listens or connects, as he was then. cred.pid 0: unknown. */
struct unix_ident {
    struct sock_cred cred;
    struct cred *who;        /* owned, or NULL */
    struct procref *process; /* owned, or NULL */
};

struct unix_sock {
    struct sock base;
    struct waitq wq;                  /* who reads, writes, accepts, connects or polls here */
    _Atomic(struct unix_name *) name; /* owned; set once */
    struct unix_host *_Atomic host;   /* owned; set once, with state UNIX_CONNECTED; NULL: none */
    _Atomic bool passes_pidfd;        /* SO_PASSPIDFD */
    _Atomic size_t out_bytes;         /* cost of own messages that nobody read yet */
    struct mutex mu;                  /* rank SOCKET: guards what follows */
    enum unix_state state;
    unsigned shutdown; /* UNIX_RD, UNIX_WR */
    bool closed;
    struct unix_sock *peer; /* owned */
    struct list queue;      /* unix_msg.node */
    struct unix_msg *oob;   /* one of them, of one byte: sent with MSG_OOB and not received yet */
    size_t queue_count, queue_bytes;
    struct list pending; /* listening: unix_sock.pending_node of connections, each owned */
    unsigned pending_count;
    unsigned backlog; /* connections that wait, packets in the queue */
    struct unix_ident self_ident, peer_ident;
    struct list pending_node; /* guard: the listener's mu */
    /* guard: net->mu */
    struct unix_sock *listener; /* while it waits to be accepted */
    struct list all;            /* net->unix_all */
    struct list edges;          /* unix_edge.node: sockets in this queue */
    struct list flight;         /* net->in_flight */
    size_t inflight, gc_refs;
    enum unix_mark mark;
    struct list gc_node;
    struct list full;      /* senders to be told when there is room again */
    struct list full_node; /* in a receiver's list; then one reference is the list's */
};

extern const struct sock_ops unix_stream_ops, unix_seqpacket_ops, unix_dgram_ops;

static inline struct unix_sock *unix_of(struct sock *s)
{
    return container_of(s, struct unix_sock, base);
}
/* Senders are to have a name, and are told apart. */
static inline bool unix_passes_cred(const struct unix_sock *s)
{
    return sock_option(&s->base, SO_PASSCRED) ||
           atomic_load_explicit(&s->passes_pidfd, memory_order_relaxed);
}
static inline bool unix_is_dgram(const struct unix_sock *s)
{
    return s->base.type == SOCK_DGRAM;
}

/* ---- unix_name.c ---- */
/* bind(2), autobind included. */
MUST_CHECK int unix_bind(struct sock *s, const struct sock_addr *a, const struct vfs_caller *c);
/* Gives s an abstract name of its own unless it has one (SO_PASSCRED on a nameless socket). */
MUST_CHECK int unix_autobind(struct unix_sock *s);
/* The socket bound to a, of the given type. Owned. -EINVAL -ECONNREFUSED -EPROTOTYPE -EACCES ... */
/* -EPERM: the name is abstract and Landlock keeps c from whoever made the socket. */
MUST_CHECK int unix_scope(struct unix_sock *to, const struct vfs_caller *c);
MUST_CHECK int unix_find(struct net *n, const struct sock_addr *a, int type,
                         const struct vfs_caller *c, struct unix_sock **out);
/* Nobody finds s by its name any more. */
void unix_unbind(struct unix_sock *s);
void unix_name_get(struct unix_name *n);
void unix_name_put(struct unix_name *n);
/* The bound name of s as getsockname(2) gives it. */
void unix_get_addr(struct unix_sock *s, struct sock_addr *out);

/* ---- unix_host.c ---- */
/* The socket of the host that s is connected to, or NULL. */
static inline struct unix_host *unix_host_of(const struct unix_sock *s)
{
    return atomic_load_explicit(&s->host, memory_order_acquire);
}
/* Connects s to a socket of the host, when a names one that may be reached. -ECONNREFUSED: it does
 * not. */
MUST_CHECK int unix_host_connect(struct unix_sock *s, const struct sock_addr *a, bool nonblock,
                                 const struct vfs_caller *c);
MUST_CHECK int64_t unix_host_send(struct unix_sock *s, struct unix_host *h, struct sock_msg *m,
                                  bool nonblock, const struct vfs_caller *c);
MUST_CHECK int64_t unix_host_recv(struct unix_sock *s, struct unix_host *h, struct sock_msg *m,
                                  bool nonblock, const struct vfs_caller *c);
MUST_CHECK int unix_host_shutdown(struct unix_sock *s, struct unix_host *h, int how);
void unix_host_peer(const struct unix_host *h, struct sock_addr *out);
uint32_t unix_host_poll(struct unix_host *h);
MUST_CHECK int64_t unix_host_readable(struct unix_host *h);
/* NULL is allowed. */
void unix_host_free(struct unix_host *h);

/* ---- unix_scm.c ---- */
/* Takes files and credentials of ctl into m, which goes to the queue of to. -ETOOMANYREFS, -ENOMEM;
 * ctl is emptied on success only. */
MUST_CHECK int unix_scm_attach(struct unix_sock *to, struct unix_msg *m, struct sock_control *ctl);
/* m has left the queue it was attached for: its files are no longer in flight, still its own. */
void unix_scm_detach(struct net *n, struct unix_msg *m);
/* Frees messages of a list (unix_msg.node) that are on no queue. No lock held. Files are put one
 * message after the other, never one inside the other. */
void unix_msg_free_list(struct net *n, struct list *msgs);
/* s was accepted: what is in its queue no longer counts as the listener's. */
void unix_scm_accepted(struct unix_sock *s);
/* Empties the queues of sockets that only each other's messages refer to. Each look costs as much
 * as there is in flight, so with much of it only every so often one is taken, unless now. No lock
 * held.
 */
void unix_scm_collect(struct net *n, bool now);

/* ---- unix_data.c ---- */
MUST_CHECK int64_t unix_stream_send(struct sock *s, struct sock_msg *m, bool nonblock,
                                    const struct vfs_caller *c);
MUST_CHECK int64_t unix_stream_recv(struct sock *s, struct sock_msg *m, bool nonblock,
                                    const struct vfs_caller *c);
MUST_CHECK int64_t unix_packet_send(struct sock *s, struct sock_msg *m, bool nonblock,
                                    const struct vfs_caller *c);
MUST_CHECK int64_t unix_packet_recv(struct sock *s, struct sock_msg *m, bool nonblock,
                                    const struct vfs_caller *c);
/* Whether the next byte of a stream is the one out of band, or comes after its place. */
int unix_at_mark(struct unix_sock *s);
/* Room in s's own send buffer. */
bool unix_writable(const struct unix_sock *s);
/* Whether the receiver takes no more packets. to->mu held. */
bool unix_is_full_locked(const struct unix_sock *to);
/* Tells those who wait for room in s. No lock held. */
void unix_room(struct unix_sock *s);
/* Takes every message out. */
void unix_purge(struct unix_sock *s);

/* ---- unix.c ---- */
struct unix_sock *unix_get(struct unix_sock *s);
void unix_put(struct unix_sock *s);

#endif
