/* TCP sockets: their life, and the states of two ends in one sandbox (tcp(7), RFC 9293).
 *
 * Between two ends nothing is lost or late, so an event at one end is at once one at the other.
 * Only an end of stream waits: it comes after the bytes before it, and those beyond the receiver's
 * buffer have not arrived yet. */
#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "base/objcount.h"
#include "sentry/net/inet/tcp_priv.h"

#define NS_PER_SEC UINT64_C(1000000000)

OBJCOUNT_DEFINE(tcp_sock);

int tcp_new(struct net *n, int family, const struct vfs_caller *c, struct tcp_sock **out)
{
    struct tcp_sock *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    inet_sock_init(&s->i, &tcp_ops, n, family, SOCK_STREAM, IPPROTO_TCP, c);
    atomic_store(&s->i.base.sndbuf, TCP_SNDBUF_INITIAL);
    atomic_store(&s->i.base.rcvbuf, TCP_RCVBUF_INITIAL);
    mutex_init(&s->q.wr, LOCK_RANK_SOCKET_IO);
    mutex_init(&s->q.rd, LOCK_RANK_SOCKET_IO);
    atomic_init(&s->state, TCP_CLOSE);
    list_init(&s->accepts);
    list_init(&s->dialers);
    list_init(&s->waiting);
    tcp_options_init(&s->opt);
    s->peek_off = -1;
    OBJCOUNT_INC(tcp_sock);
    *out = s;
    return 0;
}

int tcp_create(struct net *n, int family, const struct vfs_caller *c, struct sock **out_sock)
{
    struct tcp_sock *s;
    int r = tcp_new(n, family, c, &s);

    if (r)
        return r;
    inet_sock_show(&s->i);
    *out_sock = &s->i.base;
    return 0;
}

static void tcp_release(struct sock *base)
{
    struct tcp_sock *s = tcp_of(base);

    tcp_ext_drop(s, true);
    tcp_queue_purge(s);
    atomic_fetch_add(&s->i.in->tcp_pieces, s->q.pieces);
    mutex_lock(&s->i.mu);
    inet_port_drop_locked(&s->i);
    mutex_unlock(&s->i.mu);
    mutex_destroy(&s->q.wr);
    mutex_destroy(&s->q.rd);
    inet_sock_fini(&s->i);
    OBJCOUNT_DEC(tcp_sock);
    free(s);
}

/* ---- both ends ---- */

struct tcp_sock *tcp_lock_both(struct tcp_sock *s)
{
    for (;;) {
        mutex_lock(&s->i.mu);
        struct tcp_sock *p = s->peer;
        if (!p || p == s)
            return NULL;
        if (p > s) {
            mutex_lock(&p->i.mu);
            return p;
        }
        tcp_get(p);
        mutex_unlock(&s->i.mu);
        mutex_lock_pair(&s->i.mu, &p->i.mu);
        const bool same = s->peer == p;
        if (!same)
            mutex_unlock_pair(&s->i.mu, &p->i.mu);
        /* s's own reference keeps it. */
        tcp_put(p);
        if (same)
            return p;
    }
}

void tcp_unlock_both(struct tcp_sock *s, struct tcp_sock *peer)
{
    if (peer)
        mutex_unlock(&peer->i.mu);
    mutex_unlock(&s->i.mu);
}

/* s is locked. */
static void tcp_after_wake(struct tcp_after *a, struct tcp_sock *s)
{
    size_t n = 0;

    while (n < ARRAY_SIZE(a->wake) && a->wake[n] && a->wake[n] != s)
        n++;
    BUG_ON(n == ARRAY_SIZE(a->wake));
    if (!a->wake[n])
        a->wake[n] = tcp_get(s);
}

void tcp_after_run(struct tcp_after *a)
{
    for (size_t i = 0; i < ARRAY_SIZE(a->wake) && a->wake[i]; i++) {
        if (UNLIKELY(atomic_load(&a->wake[i]->deferred)))
            (void)tcp_defer_event(a->wake[i]);
        (void)waitq_wake(&a->wake[i]->i.wq, 0);
        tcp_put(a->wake[i]);
        a->wake[i] = NULL;
    }
    for (int i = 0; i < 2; i++)
        if (a->put[i])
            tcp_put(a->put[i]);
}

void tcp_unhash_locked(struct tcp_sock *s)
{
    if (s->in_tuples)
        inet_tuple_del(&s->i);
    s->in_tuples = false;
    /* A port that was asked for by bind(2) stays with the socket till it is closed. */
    if (!s->i.port_bound || s->closed)
        inet_port_drop_locked(&s->i);
}

static void tcp_done_locked(struct tcp_sock *s)
{
    atomic_store(&s->state, TCP_CLOSE);
    atomic_store(&s->shut, INET_SHUT_RD | INET_SHUT_WR);
    s->fin_queued = false;
    tcp_unhash_locked(s);
}

void tcp_vanish_locked(struct tcp_sock *s)
{
    s->closed = true;
    tcp_done_locked(s);
}

/* The two part: each drops its reference on the other. */
static void tcp_part_locked(struct tcp_sock *s, struct tcp_sock *p, struct tcp_after *a)
{
    if (!p || s->peer != p)
        return;
    s->past = tcp_queue_sent(p);
    p->past = tcp_queue_sent(s);
    a->put[0] = s->peer;
    a->put[1] = p->peer;
    s->peer = NULL;
    p->peer = NULL;
}

void tcp_reset_locked(struct tcp_sock *s, struct tcp_sock *p, struct tcp_after *a)
{
    tcp_done_locked(s);
    tcp_after_wake(a, s);
    if (!p)
        return;
    if (tcp_state(p) != TCP_CLOSE) {
        tcp_tap_reset(s, p);
        atomic_store(&p->i.base.error, tcp_state(p) == TCP_CLOSE_WAIT ? -EPIPE : -ECONNRESET);
        tcp_done_locked(p);
    }
    atomic_fetch_add(&s->i.in->tcp_resets, 1);
    tcp_after_wake(a, p);
    tcp_part_locked(s, p, a);
}

/* s's end of stream comes to p. */
static void tcp_fin_arrives_locked(struct tcp_sock *s, struct tcp_sock *p, struct tcp_after *a)
{
    s->fin_queued = false;
    tcp_tap_end(s, p);
    atomic_store(&p->fin_seen, true);
    atomic_fetch_or(&p->shut, INET_SHUT_RD);
    tcp_after_wake(a, s);
    tcp_after_wake(a, p);
    switch (tcp_state(p)) {
    case TCP_ESTABLISHED:
        atomic_store(&p->state, TCP_CLOSE_WAIT);
        break;
    case TCP_FIN_WAIT1:
        atomic_store(&p->state, TCP_CLOSING);
        break;
    case TCP_FIN_WAIT2:
        tcp_closed_add_locked(&p->i);
        tcp_done_locked(p);
        break;
    default:
        break;
    }
    switch (tcp_state(s)) {
    case TCP_FIN_WAIT1:
        atomic_store(&s->state, TCP_FIN_WAIT2);
        break;
    case TCP_CLOSING:
        tcp_closed_add_locked(&s->i);
        tcp_done_locked(s);
        break;
    case TCP_LAST_ACK:
        tcp_done_locked(s);
        break;
    default:
        break;
    }
    if (tcp_state(s) == TCP_CLOSE && tcp_state(p) == TCP_CLOSE)
        tcp_part_locked(s, p, a);
}

void tcp_fin_locked(struct tcp_sock *s, struct tcp_sock *p, struct tcp_after *a)
{
    if (!s->fin_queued || !p)
        return;
    atomic_store(&p->q.fin_waits, true);
    if (tcp_queued(p) > tcp_window(p))
        return;
    atomic_store(&p->q.fin_waits, false);
    /* Nobody is there, as tcp_vanish_locked says. */
    if (UNLIKELY(tcp_state(p) == TCP_CLOSE)) {
        tcp_reset_locked(p, s, a);
        return;
    }
    tcp_fin_arrives_locked(s, p, a);
}

/* s sends no more. */
static void tcp_end_locked(struct tcp_sock *s, struct tcp_sock *p, struct tcp_after *a)
{
    atomic_fetch_or(&s->shut, INET_SHUT_WR);
    if (s->peer == s) {
        atomic_store(&s->fin_seen, true);
        atomic_fetch_or(&s->shut, INET_SHUT_RD);
        return;
    }
    if (tcp_state(s) == TCP_ESTABLISHED)
        atomic_store(&s->state, TCP_FIN_WAIT1);
    else if (tcp_state(s) == TCP_CLOSE_WAIT)
        atomic_store(&s->state, TCP_LAST_ACK);
    else
        return;
    s->fin_queued = true;
    tcp_fin_locked(s, p, a);
}

int tcp_take_error(struct tcp_sock *s)
{
    if (LIKELY(atomic_load_explicit(&s->i.base.error, memory_order_relaxed) == 0))
        return 0;
    return atomic_exchange(&s->i.base.error, 0);
}

/* ---- closing ---- */

static bool tcp_lingers_zero(const struct tcp_sock *s)
{
    const uint64_t l = atomic_load(&s->i.base.linger);

    return l >> 32 != 0 && (uint32_t)l == 0;
}

static void tcp_close(struct sock *base)
{
    struct tcp_sock *s = tcp_of(base);
    struct tcp_after a = {.put = {NULL}};

    if (tcp_state(s) == TCP_LISTEN)
        tcp_listen_end(s);
    tcp_dial_end(s);
    tcp_ext_drop(s, tcp_lingers_zero(s));
    struct tcp_sock *p = tcp_lock_both(s);
    const bool unread = tcp_queued(s) > 0;
    s->closed = true;
    base->file = NULL;
    if (s->peer == s) {
        a.put[0] = s;
        s->peer = NULL;
    }
    if (!p || tcp_state(s) == TCP_CLOSE || unread || tcp_lingers_zero(s)) {
        tcp_reset_locked(s, p, &a);
    } else {
        atomic_fetch_or(&s->shut, INET_SHUT_RD);
        tcp_end_locked(s, p, &a);
    }
    if (tcp_state(s) == TCP_CLOSE)
        tcp_unhash_locked(s);
    tcp_unlock_both(s, p);
    tcp_after_run(&a);
    tcp_queue_purge(s);
}

static int tcp_shutdown(struct sock *base, int how)
{
    struct tcp_sock *s = tcp_of(base);
    struct tcp_after a = {.put = {NULL}};
    int r = 0;

    if (how < SHUT_RD || how > SHUT_RDWR)
        return -EINVAL;
    if (tcp_state(s) == TCP_LISTEN) {
        if (how != SHUT_WR)
            tcp_listen_end(s);
        return 0;
    }
    if (tcp_is_out(s) && tcp_state(s) != TCP_SYN_SENT)
        return tcp_ext_shutdown(s, how);
    if (tcp_state(s) == TCP_SYN_SENT)
        tcp_dial_end(s);
    struct tcp_sock *p = tcp_lock_both(s);
    tcp_after_wake(&a, s);
    if (tcp_state(s) == TCP_CLOSE) {
        r = -ENOTCONN;
        /* The kernel notes it all the same (inet_shutdown). */
        atomic_fetch_or(&s->shut, (uint8_t)(how + 1));
    } else {
        if (how != SHUT_WR)
            atomic_fetch_or(&s->shut, INET_SHUT_RD);
        if (how != SHUT_RD)
            tcp_end_locked(s, p, &a);
    }
    tcp_unlock_both(s, p);
    tcp_after_run(&a);
    return r;
}

static bool tcp_is_closing(struct tcp_sock *s)
{
    const unsigned state = tcp_is_out(s) ? (unsigned)tcp_ext_state(s) : tcp_state(s);

    return state == TCP_FIN_WAIT1 || state == TCP_CLOSING || state == TCP_LAST_ACK;
}

/* Till the other end has all, our end of stream too, or the time is over. Bytes that nobody read,
 * as close will find, reset the connection instead. */
static void tcp_linger(struct sock *base, const struct vfs_caller *c)
{
    struct tcp_sock *s = tcp_of(base);
    const uint64_t seconds = (uint32_t)atomic_load(&base->linger);
    const uint64_t unread = tcp_is_out(s) ? tcp_ext_bytes(s, false, false) : tcp_queued(s);
    const unsigned state = tcp_state(s);
    int err;

    if (state == TCP_LISTEN || state == TCP_CLOSE || state == TCP_SYN_SENT || unread > 0)
        return;
    (void)!tcp_shutdown(base, SHUT_RDWR);
    WAIT_EVENT(&s->i.wq, c->blocker, 0, mono_now() + seconds * NS_PER_SEC, !tcp_is_closing(s), err);
    /* A signal ends the wait too; close has no error to tell. */
    (void)err;
}

/* ---- what can be asked ---- */

static int tcp_getname(struct sock *base, bool peer, struct sock_addr *out)
{
    struct tcp_sock *s = tcp_of(base);

    if (peer && tcp_is_out(s) && tcp_ext_state(s) == TCP_CLOSE)
        return -ENOTCONN;
    if (peer &&
        (tcp_state(s) == TCP_CLOSE || tcp_state(s) == TCP_SYN_SENT || tcp_state(s) == TCP_LISTEN))
        return -ENOTCONN;
    inet_getname(&s->i, peer, out);
    return 0;
}

static int64_t tcp_ioctl(struct sock *base, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                         const struct vfs_caller *c)
{
    struct tcp_sock *s = tcp_of(base);
    int32_t value;

    (void)c;
    switch (cmd) {
    case SIOCATMARK:
        value = tcp_is_out(s) ? tcp_ext_at_mark(s) : tcp_at_mark(s);
        break;
    case SIOCOUTQNSD: {
        /* Inside a sandbox everything that the window lets through was sent, and has arrived. */
        const int64_t n = tcp_is_out(s) ? (int64_t)tcp_ext_bytes(s, true, true) : tcp_unsent(base);
        if (n < 0)
            return n;
        value = (int32_t)MIN(n, (int64_t)INT32_MAX);
        break;
    }
    default:
        return -ENOTTY;
    }
    return copyout_obj(ua, uaddr(arg), &value);
}

const struct sock_ops tcp_ops = {
    .bind = inet_bind,
    .listen = tcp_listen,
    .connect = tcp_connect,
    .accept = tcp_accept,
    .send = tcp_send,
    .recv = tcp_recv,
    .shutdown = tcp_shutdown,
    .getname = tcp_getname,
    .getsockopt = tcp_getsockopt,
    .setsockopt = tcp_setsockopt,
    .take_error = tcp_ext_take_error,
    .changed = tcp_options_changed,
    .ioctl = tcp_ioctl,
    .poll = tcp_poll,
    .readable = tcp_readable,
    .unsent = tcp_unsent,
    .linger = tcp_linger,
    .close = tcp_close,
    .release = tcp_release,
};
