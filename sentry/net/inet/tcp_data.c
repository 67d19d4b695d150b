/* The bytes of TCP sockets: sending, receiving, urgent data, readiness (tcp(7)). */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "sentry/net/inet/tcp_priv.h"

/* In answers to TCP_INQ: what <netinet/tcp.h> calls like the option. */
#define LX_TCP_CM_INQ 36
#define EPOLL_READ (EPOLLIN | EPOLLRDNORM)
#define EPOLL_WRITE (EPOLLOUT | EPOLLWRNORM)

/* Owned, or NULL. */
static struct tcp_sock *peer_get(struct tcp_sock *s)
{
    mutex_lock(&s->i.mu);
    struct tcp_sock *p = s->peer ? tcp_get(s->peer) : NULL;
    mutex_unlock(&s->i.mu);
    return p;
}

/* ---- room ---- */

static uint64_t room_of(const struct tcp_sock *s, const struct tcp_sock *p)
{
    const uint64_t cap = tcp_capacity(s, p), used = tcp_queued(p);

    return used < cap ? cap - used : 0;
}

/* Room enough to tell of (sk_stream_is_writeable of the kernel). */
static bool is_writable(const struct tcp_sock *s, const struct tcp_sock *p)
{
    const uint64_t lowat = s->opt.notsent_lowat, queued = tcp_queued(p), window = tcp_window(p);

    if (UNLIKELY(lowat) && queued > window && (queued - window) * 2 >= lowat)
        return false;
    return room_of(s, p) * 2 >= queued;
}

/* Asks the reader to tell when there is room, unless there is now. */
static bool want_room(struct tcp_sock *s, struct tcp_sock *p)
{
    if (is_writable(s, p))
        return true;
    atomic_store(&p->q.want_room, true);
    return is_writable(s, p);
}

void tcp_lowat_changed(struct tcp_sock *s)
{
    struct tcp_sock *p = peer_get(s);

    if (!p)
        return;
    if (is_writable(s, p))
        (void)waitq_wake(&s->i.wq, EPOLL_WRITE);
    tcp_put(p);
}

/* After a read: the other end goes on. */
static void read_done(struct tcp_sock *s)
{
    struct tcp_after a = {.put = {NULL}};

    if (UNLIKELY(atomic_load(&s->q.fin_waits)) && tcp_queued(s) <= tcp_window(s)) {
        struct tcp_sock *p = tcp_lock_both(s);
        if (p)
            tcp_fin_locked(p, s, &a);
        tcp_unlock_both(s, p);
        tcp_after_run(&a);
    }
    if (LIKELY(!atomic_load(&s->q.want_room)))
        return;
    struct tcp_sock *p = peer_get(s);
    if (!p)
        return;
    if (is_writable(p, s)) {
        atomic_store(&s->q.want_room, false);
        (void)waitq_wake(&p->i.wq, EPOLL_WRITE);
    }
    tcp_put(p);
}

/* ---- sending ---- */

static bool can_send(const struct tcp_sock *s)
{
    const unsigned state = tcp_state(s);

    return state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT;
}

/* The first thing that speaks against sending, as the kernel looks (tcp_sendmsg_locked). */
static int send_error(struct tcp_sock *s)
{
    if (LIKELY(can_send(s) && !(s->shut & INET_SHUT_WR) &&
               atomic_load_explicit(&s->i.base.error, memory_order_relaxed) == 0))
        return 0;
    const int error = tcp_take_error(s);
    return error ? error : -EPIPE;
}

static int send_wait_connect(struct tcp_sock *s, bool nonblock, deadline_t deadline,
                             const struct vfs_caller *c)
{
    int err;

    if (tcp_state(s) != TCP_SYN_SENT)
        return 0;
    if (nonblock || !c->blocker)
        return -EAGAIN;
    WAIT_EVENT(&s->i.wq, c->blocker, 0, deadline, tcp_state(s) != TCP_SYN_SENT, err);
    return sock_wait_error(err, s->i.base.sndtimeo_ns);
}

/* p, whom s sends to, is closed, or shut both ways: it answers with a reset (RFC 1122, 4.2.2.13).
 * What was sent is lost, as s will learn. */
static void send_reset(struct tcp_sock *s)
{
    struct tcp_after a = {.put = {NULL}};
    struct tcp_sock *p = tcp_lock_both(s);

    if (p) {
        if (!p->closed)
            atomic_store(&p->i.base.error, -ECONNRESET);
        tcp_reset_locked(p, s, &a);
    }
    tcp_unlock_both(s, p);
    tcp_after_run(&a);
}

static bool room_or_over(struct tcp_sock *s, struct tcp_sock *p)
{
    return !can_send(s) || s->shut & INET_SHUT_WR || atomic_load(&s->i.base.error) ||
           want_room(s, p);
}

static int send_wait_room(struct tcp_sock *s, struct tcp_sock *p, bool nonblock,
                          deadline_t deadline, const struct vfs_caller *c)
{
    int err;

    if (nonblock || !c->blocker) {
        /* Whoever polls for it hears of room. */
        atomic_store(&p->q.want_room, true);
        return room_of(s, p) > 0 ? 0 : -EAGAIN;
    }
    WAIT_EVENT(&s->i.wq, c->blocker, EPOLL_WRITE, deadline, room_or_over(s, p), err);
    return sock_wait_error(err, s->i.base.sndtimeo_ns);
}

/* Bytes to p till there is no more, or no room. wr is held over one piece at a time. */
static int64_t send_bytes(struct tcp_sock *s, struct tcp_sock *p, struct sock_msg *m, bool nonblock,
                          deadline_t deadline, const struct vfs_caller *c)
{
    int64_t done = 0, n = 0;

    mutex_lock(&p->q.wr);
    while (m->u->left > 0) {
        n = send_error(s);
        if (n)
            break;
        const uint64_t room = room_of(s, p);
        if (room == 0) {
            mutex_unlock(&p->q.wr);
            n = send_wait_room(s, p, nonblock, deadline, c);
            mutex_lock(&p->q.wr);
            if (n)
                break;
            continue;
        }
        n = tcp_queue_push(s, p, m->u, MIN(m->u->left, room));
        if (n <= 0)
            break;
        done += n;
        (void)waitq_wake(&p->i.wq, EPOLL_READ);
        if (UNLIKELY(atomic_load(&p->deferred)) && !tcp_defer_event(p)) {
            n = -EPIPE;
            break;
        }
    }
    mutex_unlock(&p->q.wr);
    if (n == -EPIPE && (m->u->left > 0 || done > 0) && can_send(s)) {
        send_reset(s);
        return done + (int64_t)m->u->left;
    }
    return done > 0 ? done : n;
}

/* The last byte that was sent is urgent. */
static void send_urgent(struct tcp_sock *p)
{
    mutex_lock(&p->i.mu);
    const struct tcp_chunk *tail = p->q.tail;
    if (tail && tail->filled > tail->off) {
        p->urgent_byte = tail->data[tail->filled - 1];
        atomic_store(&p->urgent_pos, atomic_load(&p->q.in) - 1);
        atomic_store(&p->urgent, TCP_URGENT_VALID);
    }
    mutex_unlock(&p->i.mu);
    (void)waitq_wake(&p->i.wq, EPOLLPRI);
}

static int64_t send_any(struct sock *base, struct sock_msg *m, bool nonblock,
                        const struct vfs_caller *c)
{
    struct tcp_sock *s = tcp_of(base);
    const deadline_t deadline = sock_deadline(base->sndtimeo_ns);

    if (m->flags & MSG_FASTOPEN && m->to && tcp_state(s) == TCP_CLOSE) {
        int r = tcp_connect(base, m->to, nonblock, c);
        if (r && r != -EINPROGRESS)
            return r;
    }
    if (UNLIKELY(tcp_is_out(s)))
        return tcp_ext_send(s, m, nonblock, c);
    int r = send_wait_connect(s, nonblock, deadline, c);
    if (r == 0)
        r = send_error(s);
    if (r)
        return r;
    struct tcp_sock *p = peer_get(s);
    if (!p)
        return send_error(s);
    const int64_t n = send_bytes(s, p, m, nonblock, deadline, c);
    if (n > 0 && m->flags & MSG_OOB && m->u->left == 0)
        send_urgent(p);
    tcp_put(p);
    return n;
}

int64_t tcp_send(struct sock *base, struct sock_msg *m, bool nonblock, const struct vfs_caller *c)
{
    const int64_t n = send_any(base, m, nonblock, c);

    inet_zerocopy_sent(&tcp_of(base)->i, m->flags, n);
    return n;
}

/* ---- receiving ---- */

/* What ends a read of an empty queue: 1 when there is nothing to say yet (tcp_recvmsg_locked). */
static int recv_verdict(struct tcp_sock *s)
{
    if (s->fin_seen)
        return 0;
    const int error = tcp_take_error(s);
    if (error)
        return error;
    if (s->shut & INET_SHUT_RD)
        return tcp_queued(s) ? 1 : 0;
    const unsigned state = tcp_state(s);
    if (state == TCP_CLOSE || state == TCP_LISTEN)
        return -ENOTCONN;
    return 1;
}

static bool recv_ready(struct tcp_sock *s, uint64_t more)
{
    return tcp_queued(s) > more || s->fin_seen || atomic_load(&s->i.base.error) ||
           s->shut & INET_SHUT_RD || tcp_state(s) == TCP_CLOSE;
}

static int recv_wait(struct tcp_sock *s, uint64_t more, bool nonblock, deadline_t deadline,
                     const struct vfs_caller *c)
{
    int err;

    if (nonblock || !c->blocker)
        return -EAGAIN;
    WAIT_EVENT(&s->i.wq, c->blocker, EPOLL_READ | EPOLLHUP | EPOLLERR, deadline,
               recv_ready(s, more), err);
    return sock_wait_error(err, s->i.base.rcvtimeo_ns);
}

/* Bytes up to the urgent one, which is passed over here; *out_stop: the read ends before it. */
static uint64_t recv_to_mark(struct tcp_sock *s, uint64_t want, bool started, bool *out_stop)
{
    const uint64_t out = atomic_load(&s->q.out), pos = atomic_load(&s->urgent_pos);

    *out_stop = false;
    if (LIKELY(atomic_load(&s->urgent) == TCP_URGENT_NONE) || pos < out)
        return want;
    if (pos > out)
        return MIN(want, pos - out);
    if (started) {
        *out_stop = true;
        return 0;
    }
    if (!sock_option(&s->i.base, SO_OOBINLINE))
        (void)!tcp_queue_pull(s, NULL, 1);
    return want;
}

static void recv_past_mark(struct tcp_sock *s)
{
    if (UNLIKELY(atomic_load(&s->urgent) != TCP_URGENT_NONE) &&
        atomic_load(&s->q.out) > atomic_load(&s->urgent_pos))
        atomic_store(&s->urgent, TCP_URGENT_NONE);
}

/* What is there, up to what u takes. rd held. */
static int64_t recv_take(struct tcp_sock *s, struct sock_msg *m, int64_t before)
{
    int64_t done = 0;
    bool stop;

    while (m->u->left > 0) {
        const uint64_t want = recv_to_mark(s, m->u->left, before + done > 0, &stop);
        if (stop)
            break;
        struct uio *u = m->flags & MSG_TRUNC ? NULL : m->u;
        const int64_t n = tcp_queue_pull(s, u, want);
        if (n <= 0) {
            if (n < 0 && done == 0)
                return n;
            break;
        }
        if (!u)
            uio_advance(m->u, (uint64_t)n);
        done += n;
        recv_past_mark(s);
    }
    return done;
}

static int64_t recv_peek(struct tcp_sock *s, struct sock_msg *m, uint64_t off, int64_t before)
{
    const uint64_t size = m->u->left;
    bool stop;
    int64_t n;

    const uint64_t want = recv_to_mark(s, size, before > 0, &stop);
    if (m->flags & MSG_TRUNC) {
        const uint64_t have = tcp_queued(s);
        n = (int64_t)MIN(have > off ? have - off : 0, want);
        uio_advance(m->u, (uint64_t)n);
    } else {
        n = tcp_queue_peek(s, m->u, off, want);
    }
    return n;
}

/* The urgent byte itself (tcp_recv_urg). */
static int64_t recv_urgent(struct tcp_sock *s, struct sock_msg *m)
{
    int64_t n = 0;

    if (sock_option(&s->i.base, SO_OOBINLINE) || atomic_load(&s->urgent) != TCP_URGENT_VALID)
        return -EINVAL;
    if (m->u->left > 0) {
        mutex_lock(&s->i.mu);
        const uint8_t byte = s->urgent_byte;
        mutex_unlock(&s->i.mu);
        n = m->flags & MSG_TRUNC ? 1 : uio_copy_to(m->u, &byte, 1);
    } else {
        m->out_flags |= MSG_TRUNC;
    }
    m->out_flags |= MSG_OOB;
    if (n >= 0 && !(m->flags & MSG_PEEK))
        atomic_store(&s->urgent, TCP_URGENT_READ);
    return n;
}

/* rd is given up while waiting, so that others may read. */
static int64_t recv_bytes(struct tcp_sock *s, struct sock_msg *m, bool nonblock,
                          const struct vfs_caller *c)
{
    const deadline_t deadline = sock_deadline(s->i.base.rcvtimeo_ns);
    const uint64_t size = m->u->left;
    const uint64_t lowat = MAX((uint64_t)s->i.base.rcvlowat, (uint64_t)1);
    const uint64_t target = m->flags & MSG_WAITALL ? size : MIN(size, lowat);
    const bool peek = m->flags & MSG_PEEK;
    int64_t done = 0, r = 0;

    if (size == 0 && tcp_queued(s) > 0)
        return 0;
    mutex_lock(&s->q.rd);
    for (;;) {
        const uint64_t off = peek ? (uint64_t)done : 0;
        int64_t n = peek ? recv_peek(s, m, off, done) : recv_take(s, m, done);
        if (n < 0) {
            r = n;
            break;
        }
        done += n;
        if (n > 0 && !peek)
            read_done(s);
        if ((uint64_t)done >= MAX(target, (uint64_t)1) || (n > 0 && tcp_at_mark(s)))
            break;
        r = recv_verdict(s);
        if (r != 1) {
            if (done > 0 && r < 0)
                atomic_store(&s->i.base.error, (int)r);
            break;
        }
        mutex_unlock(&s->q.rd);
        r = recv_wait(s, peek ? (uint64_t)done : 0, nonblock, deadline, c);
        mutex_lock(&s->q.rd);
        if (r)
            break;
    }
    mutex_unlock(&s->q.rd);
    return done > 0 ? done : r;
}

static int64_t recv_any(struct sock *base, struct sock_msg *m, bool nonblock,
                        const struct vfs_caller *c)
{
    struct tcp_sock *s = tcp_of(base);

    if (UNLIKELY(m->flags & MSG_ERRQUEUE))
        return inet_error_recv(&s->i, m);
    if (UNLIKELY(tcp_is_out(s)))
        return tcp_ext_recv(s, m, nonblock, c);
    if (tcp_state(s) == TCP_LISTEN)
        return -ENOTCONN;
    if (UNLIKELY(m->flags & MSG_OOB))
        return recv_urgent(s, m);
    return recv_bytes(s, m, nonblock, c);
}

/* TCP_INQ: how much is left. The end of stream counts for one, so that it is read, too. */
static int recv_inq(struct sock *base, struct sock_control *ctl)
{
    const int64_t left = tcp_readable(base), end = tcp_poll(base, NULL) & EPOLLRDHUP ? 1 : 0;
    const int v = (int)MIN(MAX(left, (int64_t)0) + end, (int64_t)INT32_MAX);

    return sock_control_put(ctl, SOL_TCP, LX_TCP_CM_INQ, &v, sizeof(v));
}

int64_t tcp_recv(struct sock *base, struct sock_msg *m, bool nonblock, const struct vfs_caller *c)
{
    const int64_t n = recv_any(base, m, nonblock, c);

    if (LIKELY(!tcp_of(base)->opt.inq) || n < 0 || !m->control || m->flags & MSG_ERRQUEUE)
        return n;
    const int r = recv_inq(base, m->control);
    return r ? r : n;
}

/* ---- readiness ---- */

bool tcp_at_mark(struct tcp_sock *s)
{
    return atomic_load(&s->urgent) != TCP_URGENT_NONE &&
           atomic_load(&s->urgent_pos) == atomic_load(&s->q.out);
}

/* The urgent byte itself is nothing to read (tcp_stream_is_readable). */
static bool is_readable(struct tcp_sock *s)
{
    uint64_t have = tcp_queued(s);

    if (tcp_at_mark(s) && !sock_option(&s->i.base, SO_OOBINLINE))
        have = have > 0 ? have - 1 : 0;
    return have >= MAX((uint64_t)s->i.base.rcvlowat, (uint64_t)1);
}

static uint32_t poll_write(struct tcp_sock *s)
{
    if (s->shut & INET_SHUT_WR)
        return EPOLL_WRITE;
    struct tcp_sock *p = peer_get(s);
    if (!p)
        return EPOLL_WRITE;
    const bool yes = want_room(s, p);
    tcp_put(p);
    return yes ? EPOLL_WRITE : 0;
}

uint32_t tcp_poll(struct sock *base, struct waiter *w)
{
    struct tcp_sock *s = tcp_of(base);
    uint32_t events = 0;

    if (w)
        waitq_add(&s->i.wq, w);
    if (UNLIKELY(tcp_is_out(s)))
        return tcp_ext_poll(s);
    const unsigned state = tcp_state(s), shut = s->shut;
    if (state == TCP_LISTEN) {
        mutex_lock(&s->i.mu);
        const bool any = s->accept_count > 0;
        mutex_unlock(&s->i.mu);
        return any ? EPOLL_READ : 0;
    }
    if (shut == (INET_SHUT_RD | INET_SHUT_WR) || state == TCP_CLOSE)
        events |= EPOLLHUP;
    if (shut & INET_SHUT_RD)
        events |= EPOLL_READ | EPOLLRDHUP;
    if (state != TCP_SYN_SENT) {
        if (is_readable(s))
            events |= EPOLL_READ;
        events |= poll_write(s);
        if (s->urgent == TCP_URGENT_VALID)
            events |= EPOLLPRI;
    }
    if (atomic_load(&base->error) || atomic_load(&s->i.error_count))
        events |= EPOLLERR;
    return events;
}

int64_t tcp_readable(struct sock *base)
{
    struct tcp_sock *s = tcp_of(base);
    const uint64_t have = tcp_queued(s), out = atomic_load(&s->q.out);
    const uint64_t pos = atomic_load(&s->urgent_pos);

    if (tcp_state(s) == TCP_LISTEN)
        return -EINVAL;
    if (tcp_is_out(s))
        return (int64_t)tcp_ext_bytes(s, false, false);
    if (!sock_option(base, SO_OOBINLINE) && s->urgent != TCP_URGENT_NONE && pos >= out &&
        pos < out + have)
        return (int64_t)(pos - out);
    return (int64_t)have;
}

/* What the other end has no room for yet. */
int64_t tcp_unsent(struct sock *base)
{
    struct tcp_sock *s = tcp_of(base);

    if (tcp_state(s) == TCP_LISTEN)
        return -EINVAL;
    if (tcp_is_out(s))
        return (int64_t)tcp_ext_bytes(s, true, false);
    struct tcp_sock *p = peer_get(s);
    if (!p)
        return 0;
    const uint64_t have = tcp_queued(p), window = tcp_window(p);
    tcp_put(p);
    return have > window ? (int64_t)(have - window) : 0;
}
