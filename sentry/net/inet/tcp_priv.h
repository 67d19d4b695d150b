/* Inside TCP: the socket, its queue of bytes, and what happens between two ends in one sandbox.
 * Depends on: inet_priv.h.
 * Threading: both ends' mu (by address) guard what happens between them. rd and wr (rank SOCKET_IO,
 * before mu) put readers and writers of a queue in order; they are held over copies, mu never is.
 * Ownership: two ends hold references on each other till one of them is in CLOSE. */
#ifndef RINGWALL_SENTRY_NET_INET_TCP_PRIV_H
#define RINGWALL_SENTRY_NET_INET_TCP_PRIV_H

#include "sentry/net/inet/inet_priv.h"
#include "sentry/net/tcp/rtt.h"

#define TCP_CHUNK_MAX 65536u
#define TCP_SNDBUF_INITIAL 16384u
#define TCP_RCVBUF_INITIAL 131072u
/* A connection's send buffer unless SO_SNDBUF says otherwise. */
#define TCP_SNDBUF_GROWN 425984u

struct tcp_chunk {
    struct tcp_chunk *next;
    uint32_t size, filled, off;
    uint8_t data[];
};

/* What an end has sent, as the queue of the other one counts it. */
struct tcp_sent {
    uint64_t bytes, pieces, at_ns;
    struct tcp_rtt rtt;
    bool fin; /* the end of stream has arrived */
};

/* Bytes that wait to be read. in and out count from the connection's beginning. */
struct tcp_queue {
    struct mutex wr, rd;               /* rank SOCKET_IO */
    struct tcp_chunk *head, *tail;     /* guard: mu of the socket */
    uint64_t pieces;                   /* guard: mu */
    uint64_t at_ns;                    /* tcp_clock of the last bytes; guard: mu */
    struct tcp_rtt rtt;                /* what pieces took to get here; guard: mu */
    struct tcp_sent before;            /* what earlier connections brought; guard: mu */
    const struct tcp_chunk *busy;      /* a writer copies into it; guard: mu */
    _Atomic uint64_t in, out;          /* changed under mu */
    _Atomic bool want_room, fin_waits; /* the writer is to be told of room */
};

enum tcp_step { TCP_UNCONNECTED, TCP_CONNECTING, TCP_CONNECTED }; /* as enum socket_state */
enum tcp_urgent { TCP_URGENT_NONE, TCP_URGENT_VALID, TCP_URGENT_READ };

struct tcp_options {
    uint8_t nodelay, cork, quickack, thin_linear, thin_dupack, fastopen_connect, fastopen_no_cookie;
    uint8_t keepcnt, syncnt, save_syn, timestamp, inq, tx_delay_set;
    uint32_t keepidle, keepintvl, user_timeout, defer_accept, window_clamp, notsent_lowat, fastopen;
    uint16_t maxseg;
    int32_t linger2;
    char congestion[16];
};

struct tcp_dial {
    struct timer tm;
    struct tcp_sock *s; /* borrowed: the timer is cancelled before s goes */
};

struct tcp_defer;

struct tcp_sock {
    struct inet_sock i;
    _Atomic uint8_t state;    /* TCP_ESTABLISHED ...; changed under i.mu */
    _Atomic uint8_t shut;     /* INET_SHUT_*; changed under i.mu */
    _Atomic uint8_t fin_seen; /* the peer's end came: reads give 0 after the last byte */
    /* guard: i.mu */
    enum tcp_step step;
    bool closed;     /* nobody has it open */
    bool fin_queued; /* the end waits behind bytes that the peer has no room for */
    bool in_tuples;
    bool dialed;           /* it began the connection */
    struct tcp_sent past;  /* of the peer that has gone */
    struct tcp_sock *peer; /* owned */
    struct tcp_out *out;   /* owned: the peer is outside */
    struct tcp_queue q;
    _Atomic uint8_t urgent;
    uint8_t urgent_byte;
    _Atomic uint64_t urgent_pos; /* of the urgent byte, as q.in counts */
    struct list accepts;         /* listening: connections, tcp_sock.waiting, each owned */
    struct list dialers;         /* listening: those that found the queue full, each owned */
    unsigned accept_count, backlog;
    struct list waiting;       /* in accepts, dialers or defer; guard: mu of the listener */
    struct tcp_sock *listener; /* owned, while in dialers */
    struct tcp_defer *defer;   /* owned; listening: connections that wait for their first bytes */
    _Atomic unsigned defer_count; /* of those, and of the external stack's; grows under mu */
    struct tcp_sock *deferrer;    /* owned: the listener, while in its defer */
    uint64_t defer_since;         /* guard: mu of the listener */
    _Atomic bool deferred;        /* what happens to it is told by tcp_defer_event */
    struct tcp_dial *dial;        /* owned: a connect that nobody waits for gives up */
    struct tcp_options opt;
    int32_t peek_off;
};

extern const struct sock_ops tcp_ops;

static inline struct tcp_sock *tcp_of(struct sock *s)
{
    return container_of(s, struct tcp_sock, i.base);
}
static inline struct tcp_sock *tcp_of_inet(struct inet_sock *i)
{
    return container_of(i, struct tcp_sock, i);
}
static inline struct tcp_sock *tcp_get(struct tcp_sock *s)
{
    sock_get(&s->i.base);
    return s;
}
static inline void tcp_put(struct tcp_sock *s)
{
    sock_put(&s->i.base);
}
static inline unsigned tcp_state(const struct tcp_sock *s)
{
    return atomic_load_explicit(&s->state, memory_order_acquire);
}
static inline uint64_t tcp_queued(const struct tcp_sock *s)
{
    const uint64_t out = atomic_load_explicit(&s->q.out, memory_order_acquire);

    return atomic_load_explicit(&s->q.in, memory_order_acquire) - out;
}

/* ---- tcp.c ---- */
/* Owned result, which still is to be shown (inet_sock_show). */
MUST_CHECK int tcp_new(struct net *n, int family, const struct vfs_caller *c,
                       struct tcp_sock **out);
/* Locks s and its peer, which is returned, or NULL with only s locked. */
struct tcp_sock *tcp_lock_both(struct tcp_sock *s);
void tcp_unlock_both(struct tcp_sock *s, struct tcp_sock *peer);
/* What must be done after the locks are gone. */
struct tcp_after {
    struct tcp_sock *put[2];  /* references to drop */
    struct tcp_sock *wake[4]; /* with references: nobody's lock keeps them any more */
};
void tcp_after_run(struct tcp_after *a);
/* s ends the connection at once; p, which may be NULL, sees a reset. Both locked. */
void tcp_reset_locked(struct tcp_sock *s, struct tcp_sock *p, struct tcp_after *a);
/* Lets s's end through when p has room for what comes before it. Both locked. */
void tcp_fin_locked(struct tcp_sock *s, struct tcp_sock *p, struct tcp_after *a);
/* s is out of every table, in state CLOSE. mu held. */
void tcp_unhash_locked(struct tcp_sock *s);
/* s, which was never accepted, is gone without its peer's knowing: that is reset when it sends or
 * ends. mu held. */
void tcp_vanish_locked(struct tcp_sock *s);
/* Takes the error that is to be told once. */
int tcp_take_error(struct tcp_sock *s);

/* ---- tcp_queue.c ---- */
/* What p may hold of what s sends, in bytes. */
uint64_t tcp_capacity(const struct tcp_sock *s, const struct tcp_sock *p);
/* The receiver's part of it: what counts as arrived. */
uint64_t tcp_window(const struct tcp_sock *p);
/* Copies up to want bytes of u, which s sends, into p's queue in one piece. p->q.wr held. -EPIPE: p
 * takes no more; -ENOBUFS, -EFAULT. */
MUST_CHECK int64_t tcp_queue_push(const struct tcp_sock *s, struct tcp_sock *p, struct uio *u,
                                  uint64_t want);
/* Copies up to want bytes from the queue's front and takes them (u NULL: throws them away).
 * s->q.rd held. 0: empty. */
MUST_CHECK int64_t tcp_queue_pull(struct tcp_sock *s, struct uio *u, uint64_t want);
/* Copies from off bytes behind the front; takes nothing. s->q.rd held. */
MUST_CHECK int64_t tcp_queue_peek(struct tcp_sock *s, struct uio *u, uint64_t off, uint64_t want);
/* Monotonic ns, as exact as a tick: last_data_sent and the like. */
uint64_t tcp_clock(void);
/* What came to s from its peer. mu held. */
struct tcp_sent tcp_queue_sent(const struct tcp_sock *s);
/* Frees what is in it. Nobody reads. */
void tcp_queue_purge(struct tcp_sock *s);

/* ---- tcp_tap.c: what the loopback link counts, and packet sockets there see ---- */
/* s has been connected to child. Both locked. */
void tcp_tap_opened(const struct tcp_sock *s, const struct tcp_sock *child);
/* Nobody listens where s wants to. */
void tcp_tap_refused(const struct tcp_sock *s);
/* s sends bytes to p, whose queue does not count them yet. p->q.wr held. */
void tcp_tap_data(const struct tcp_sock *s, const struct tcp_sock *p, const uint8_t *data,
                  size_t size);
/* s's end of stream comes to p. Both locked. */
void tcp_tap_end(const struct tcp_sock *s, const struct tcp_sock *p);
/* s resets the connection. Both locked. */
void tcp_tap_reset(const struct tcp_sock *s, const struct tcp_sock *p);

/* ---- tcp_conn.c ---- */
/* The TTL, or hop limit, of what s sends to an address of this family, and the least that it takes
 * (IP_MINTTL, IPV6_MINHOPCOUNT). */
uint8_t tcp_ttl(const struct tcp_sock *s, unsigned family);
uint8_t tcp_min_ttl(const struct tcp_sock *s, unsigned family);
MUST_CHECK int tcp_listen(struct sock *s, int backlog, const struct vfs_caller *c);
MUST_CHECK int tcp_connect(struct sock *s, const struct sock_addr *a, bool nonblock,
                           const struct vfs_caller *c);
MUST_CHECK int tcp_accept(struct sock *s, bool nonblock, const struct vfs_caller *c,
                          struct sock **out_sock);
/* Every connection that waits is reset. No lock held. */
void tcp_listen_end(struct tcp_sock *s);
/* Leaves a listener's queue of dialers. No lock held. */
void tcp_dial_end(struct tcp_sock *s);

/* child, whose names are set, becomes an established connection in l's queue, or, with defer, one
 * that waits for its first bytes there. Both locked. */
void tcp_child_locked(struct tcp_sock *l, struct tcp_sock *child, bool defer);
/* A connection that was never accepted is reset. Takes s. */
void tcp_child_abort(struct tcp_sock *s);
/* Whether the peer is outside; a connect that came to its end meanwhile is noted. No lock held. */
bool tcp_is_out(struct tcp_sock *s);

/* ---- tcp_defer.c ---- */
/* What Linux makes of so many seconds: those that some number of SYNs takes. */
uint32_t tcp_defer_round(uint32_t seconds);
/* Makes what l needs to let connections wait, if it wants that. No lock held. */
void tcp_defer_prepare(struct tcp_sock *l);
/* child is to wait for its first bytes; false: it need not. l locked, child new. */
MUST_CHECK bool tcp_defer_add_locked(struct tcp_sock *l, struct tcp_sock *child);
/* l's time has changed. mu held. */
void tcp_defer_rearm_locked(struct tcp_sock *l);
/* Something came to child, which is deferred, or it was reset. False: its listener has gone, and
 * nobody will read. No lock but child's q.wr held. */
bool tcp_defer_event(struct tcp_sock *child);
/* There is room in l's queue: the first that waits for it comes in. True: there was one. */
bool tcp_defer_next(struct tcp_sock *l);
/* l listens no more. No lock held. */
void tcp_defer_end(struct tcp_sock *l);

/* ---- tcp_ext.c: when the peer is outside; all are harmless when it is not ---- */
MUST_CHECK int tcp_ext_connect(struct tcp_sock *s);
/* -EINPROGRESS, 0 once established, or what went wrong. */
int tcp_ext_status(struct tcp_sock *s);
void tcp_ext_drop(struct tcp_sock *s, bool abort);
void tcp_options_changed(struct sock *s);
MUST_CHECK int64_t tcp_ext_send(struct tcp_sock *s, struct sock_msg *m, bool nonblock,
                                const struct vfs_caller *c);
MUST_CHECK int64_t tcp_ext_recv(struct tcp_sock *s, struct sock_msg *m, bool nonblock,
                                const struct vfs_caller *c);
uint32_t tcp_ext_poll(struct tcp_sock *s);
bool tcp_ext_at_mark(struct tcp_sock *s);
/* Bytes to read, or not acknowledged, or not even sent. */
uint64_t tcp_ext_bytes(struct tcp_sock *s, bool unsent, bool not_sent_only);
MUST_CHECK int tcp_ext_shutdown(struct tcp_sock *s, int how);
int tcp_ext_take_error(struct sock *s);
int tcp_ext_state(struct tcp_sock *s);
bool tcp_ext_info(struct tcp_sock *s, struct lx_tcp_info *i);

/* ---- tcp_data.c ---- */
MUST_CHECK int64_t tcp_send(struct sock *s, struct sock_msg *m, bool nonblock,
                            const struct vfs_caller *c);
MUST_CHECK int64_t tcp_recv(struct sock *s, struct sock_msg *m, bool nonblock,
                            const struct vfs_caller *c);
uint32_t tcp_poll(struct sock *s, struct waiter *w);
MUST_CHECK int64_t tcp_readable(struct sock *s);
MUST_CHECK int64_t tcp_unsent(struct sock *s);
bool tcp_at_mark(struct tcp_sock *s);
/* TCP_NOTSENT_LOWAT of s was set: who waits to write looks again. No lock held. */
void tcp_lowat_changed(struct tcp_sock *s);

/* ---- tcp_opt.c ---- */
void tcp_options_init(struct tcp_options *o);
MUST_CHECK int tcp_getsockopt(struct sock *s, int level, int name, void *buf, socklen_t *len);
MUST_CHECK int tcp_setsockopt(struct sock *s, int level, int name, const void *buf, socklen_t len,
                              const struct vfs_caller *c);

#endif
