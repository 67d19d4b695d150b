/* TCP sockets whose peer is outside: the external stack has bytes and states, the socket waits and
 * tells. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "sentry/net/inet/tcp_priv.h"
#include "sentry/net/ip/ext.h"

#define BUF_LOCK_SND 1u
#define BUF_LOCK_RCV 2u

/* The stack's connection with the count of those who use it just now, so that connect(AF_UNSPEC)
 * does not take it away under a reader. */
struct tcp_out {
    struct ref ref;
    struct ext_tcp *t; /* owned */
    _Atomic bool abort;
};

/* Owned, or NULL. */
static struct tcp_out *out_get(struct tcp_sock *s)
{
    mutex_lock(&s->i.mu);
    struct tcp_out *o = s->out;
    if (o)
        ref_get(&o->ref);
    mutex_unlock(&s->i.mu);
    return o;
}

static void out_put(struct tcp_out *o)
{
    if (!o || !ref_put(&o->ref))
        return;
    ext_tcp_close(o->t, o->abort);
    free(o);
}

static void ext_event(void *user, uint32_t events)
{
    struct tcp_sock *s = user;

    (void)waitq_wake(&s->i.wq, events);
}

static void options_of(const struct tcp_sock *s, struct ext_tcp_options *o)
{
    const struct sock *b = &s->i.base;
    const bool v4 = s->i.remote.addr.family == AF_INET;
    const struct net_settings *set = net_settings(b->net);

    memset(o, 0, sizeof(*o));
    o->sndbuf = b->buf_lock & BUF_LOCK_SND ? b->sndbuf : 0;
    o->rcvbuf = b->buf_lock & BUF_LOCK_RCV ? b->rcvbuf : 0;
    o->maxseg = s->opt.maxseg;
    o->notsent_lowat = s->opt.notsent_lowat;
    o->window_clamp = s->opt.window_clamp;
    o->nodelay = s->opt.nodelay;
    o->cork = s->opt.cork;
    o->reno = strcmp(s->opt.congestion, "reno") == 0;
    o->keepalive = sock_option(b, SO_KEEPALIVE);
    o->oob_inline = sock_option(b, SO_OOBINLINE);
    o->keep_idle_s = s->opt.keepidle ? s->opt.keepidle : set->keepalive_time;
    o->keep_intvl_s = s->opt.keepintvl ? s->opt.keepintvl : set->keepalive_intvl;
    o->keep_count = s->opt.keepcnt ? s->opt.keepcnt : set->keepalive_probes;
    o->user_timeout_ms = s->opt.user_timeout;
    o->syn_retries = s->opt.syncnt ? s->opt.syncnt : set->syn_retries;
    o->linger2_s = s->opt.linger2 ? s->opt.linger2 : (int32_t)set->fin_timeout;
    o->ttl = tcp_ttl(s, s->i.remote.addr.family);
    o->min_ttl = tcp_min_ttl(s, s->i.remote.addr.family);
    o->tos = v4 ? s->i.tos : s->i.tclass;
}

void tcp_options_changed(struct sock *base)
{
    struct tcp_sock *s = tcp_of(base);
    struct tcp_out *out = out_get(s);
    struct ext_tcp_options o;

    if (!out)
        return;
    mutex_lock(&s->i.mu);
    options_of(s, &o);
    mutex_unlock(&s->i.mu);
    ext_tcp_set_options(out->t, &o);
    out_put(out);
}

/* ---- connections ---- */

static struct tcp_out *out_new(void)
{
    struct tcp_out *o = calloc(1, sizeof(*o));

    if (o)
        ref_init(&o->ref);
    return o;
}

int tcp_ext_connect(struct tcp_sock *s)
{
    struct tcp_out *out = out_new();
    struct ext_tcp_options o;

    if (!out)
        return -ENOBUFS;
    mutex_lock(&s->i.mu);
    const struct net_ep local = s->i.local, remote = s->i.remote;
    options_of(s, &o);
    mutex_unlock(&s->i.mu);
    int r = ext_tcp_connect(s->i.base.net, &local, &remote, &o, ext_event, s, &out->t);
    if (r) {
        free(out);
        return r;
    }
    mutex_lock(&s->i.mu);
    s->out = out;
    mutex_unlock(&s->i.mu);
    (void)waitq_wake(&s->i.wq, 0);
    return 0;
}

int tcp_ext_status(struct tcp_sock *s)
{
    struct tcp_out *out = out_get(s);

    if (!out)
        return -EINPROGRESS;
    const int r = ext_tcp_status(out->t);
    out_put(out);
    return r;
}

void tcp_ext_drop(struct tcp_sock *s, bool abort)
{
    mutex_lock(&s->i.mu);
    struct tcp_out *out = s->out;
    s->out = NULL;
    mutex_unlock(&s->i.mu);
    if (!out)
        return;
    out->abort = abort;
    (void)waitq_wake(&s->i.wq, 0);
    out_put(out);
}

int inet_tcp_accepted(struct sock *listener, struct ext_tcp *t, const struct net_ep *local,
                      const struct net_ep *remote)
{
    struct tcp_sock *l = tcp_of(listener), *child;
    struct tcp_out *out = out_new();
    struct ext_tcp_options o;

    if (!out)
        return -ENOBUFS;
    int r = tcp_new(listener->net, listener->family, NULL, &child);
    if (r) {
        free(out);
        return -ENOBUFS;
    }
    child->i.uid = l->i.uid;
    child->i.local = *local;
    child->i.remote = *remote;
    out->t = t;
    mutex_lock_pair(&l->i.mu, &child->i.mu);
    if (tcp_state(l) != TCP_LISTEN)
        r = -ECONNREFUSED;
    else if (l->accept_count > l->backlog)
        r = -ENOBUFS;
    else
        child->out = out;
    if (r == 0) {
        tcp_child_locked(l, child, false);
        inet_sock_show(&child->i);
    }
    options_of(child, &o);
    mutex_unlock_pair(&l->i.mu, &child->i.mu);
    if (r == 0) {
        ext_tcp_attach(t, &o, ext_event, child);
        (void)waitq_wake(&l->i.wq, EPOLLIN | EPOLLRDNORM);
    } else {
        free(out);
    }
    tcp_put(child);
    return r;
}

/* ---- bytes ---- */

static bool out_ready(struct tcp_sock *s, struct tcp_out *out, uint32_t events)
{
    mutex_lock(&s->i.mu);
    const bool gone = s->out != out;
    mutex_unlock(&s->i.mu);
    return gone || ext_tcp_poll(out->t) & (events | EPOLLHUP | EPOLLERR);
}

static int out_wait(struct tcp_sock *s, struct tcp_out *out, uint32_t events, bool nonblock,
                    uint64_t timeo, deadline_t deadline, const struct vfs_caller *c)
{
    int err;

    if (nonblock || !c->blocker)
        return -EAGAIN;
    WAIT_EVENT(&s->i.wq, c->blocker, events | EPOLLHUP | EPOLLERR, deadline,
               out_ready(s, out, events), err);
    return sock_wait_error(err, timeo);
}

int64_t tcp_ext_send(struct tcp_sock *s, struct sock_msg *m, bool nonblock,
                     const struct vfs_caller *c)
{
    const uint64_t timeo = s->i.base.sndtimeo_ns;
    const deadline_t deadline = sock_deadline(timeo);
    struct tcp_out *out = out_get(s);
    int64_t done = 0, n = 0;

    if (!out)
        return -EPIPE;
    do {
        n = ext_tcp_status(out->t) == -EINPROGRESS
                ? -EAGAIN
                : ext_tcp_send(out->t, m->u, m->flags & MSG_MORE, m->flags & MSG_OOB);
        if (n > 0)
            done += n;
        if (n == -EAGAIN)
            n = out_wait(s, out, EPOLLOUT, nonblock, timeo, deadline, c);
    } while (n >= 0 && m->u->left > 0);
    out_put(out);
    return done > 0 ? done : n;
}

/* Bytes that nobody wants (MSG_TRUNC). */
static int64_t out_discard(struct tcp_out *out, struct uio *u)
{
    char waste[2048];
    struct uio w;

    uio_init_kernel(&w, waste, (size_t)MIN(u->left, (uint64_t)sizeof(waste)));
    const int64_t n = ext_tcp_recv(out->t, &w, -1);
    if (n > 0)
        uio_advance(u, (uint64_t)n);
    return n;
}

static int64_t out_take(struct tcp_out *out, struct sock_msg *m, int64_t done)
{
    const bool peek = m->flags & MSG_PEEK;

    if (m->flags & MSG_TRUNC && !peek)
        return out_discard(out, m->u);
    return ext_tcp_recv(out->t, m->u, peek ? done : -1);
}

static int64_t out_recv(struct tcp_sock *s, struct tcp_out *out, struct sock_msg *m, bool nonblock,
                        const struct vfs_caller *c)
{
    const uint64_t timeo = s->i.base.rcvtimeo_ns, size = m->u->left;
    const deadline_t deadline = sock_deadline(timeo);
    const uint64_t lowat = MAX((uint64_t)s->i.base.rcvlowat, (uint64_t)1);
    const uint64_t target = m->flags & MSG_WAITALL ? size : MAX(MIN(size, lowat), (uint64_t)1);
    int64_t done = 0, n;

    for (;;) {
        if (UNLIKELY(done > 0 && ext_tcp_at_mark(out->t, m->flags & MSG_PEEK ? (uint64_t)done : 0)))
            break;
        n = out_take(out, m, done);
        if (n > 0)
            done += n;
        if ((uint64_t)done >= target || n == 0 || (n < 0 && n != -EAGAIN))
            break;
        if (n == -EAGAIN) {
            if (m->flags & MSG_PEEK && done > 0)
                break;
            n = out_wait(s, out, EPOLLIN, nonblock, timeo, deadline, c);
            if (n)
                break;
        }
    }
    return done > 0 ? done : n;
}

/* The urgent byte itself. */
static int64_t out_urgent(struct tcp_out *out, struct sock_msg *m)
{
    uint8_t byte;
    int64_t n = ext_tcp_recv_urgent(out->t, m->flags & MSG_PEEK || m->u->left == 0, &byte);

    if (n != 1)
        return n;
    m->out_flags |= MSG_OOB;
    if (m->u->left > 0)
        return m->flags & MSG_TRUNC ? 1 : uio_copy_to(m->u, &byte, 1);
    m->out_flags |= MSG_TRUNC;
    return 0;
}

bool tcp_ext_at_mark(struct tcp_sock *s)
{
    struct tcp_out *out = out_get(s);
    const bool yes = out && ext_tcp_at_mark(out->t, 0);

    out_put(out);
    return yes;
}

int64_t tcp_ext_recv(struct tcp_sock *s, struct sock_msg *m, bool nonblock,
                     const struct vfs_caller *c)
{
    struct tcp_out *out = out_get(s);
    int64_t n;

    if (!out)
        return -ENOTCONN;
    if (m->flags & MSG_OOB)
        n = out_urgent(out, m);
    else if (m->u->left == 0 && ext_tcp_readable(out->t))
        n = 0;
    else
        n = out_recv(s, out, m, nonblock, c);
    out_put(out);
    return n;
}

/* ---- what can be asked ---- */

uint32_t tcp_ext_poll(struct tcp_sock *s)
{
    struct tcp_out *out = out_get(s);
    const uint32_t events = out ? ext_tcp_poll(out->t) : EPOLLHUP;

    out_put(out);
    return atomic_load(&s->i.error_count) ? events | EPOLLERR : events;
}

uint64_t tcp_ext_bytes(struct tcp_sock *s, bool unsent, bool not_sent_only)
{
    struct tcp_out *out = out_get(s);

    if (!out)
        return 0;
    const uint64_t n = unsent ? ext_tcp_unsent(out->t, not_sent_only) : ext_tcp_inq(out->t);
    out_put(out);
    return n;
}

int tcp_ext_shutdown(struct tcp_sock *s, int how)
{
    struct tcp_out *out = out_get(s);
    const int r = out ? ext_tcp_shutdown(out->t, how) : -ENOTCONN;

    out_put(out);
    (void)waitq_wake(&s->i.wq, 0);
    return r;
}

int tcp_ext_take_error(struct sock *base)
{
    struct tcp_out *out = out_get(tcp_of(base));
    const int r = out ? ext_tcp_take_error(out->t) : 0;

    out_put(out);
    return r;
}

int tcp_ext_state(struct tcp_sock *s)
{
    struct tcp_out *out = out_get(s);
    const int r = out ? ext_tcp_state(out->t) : TCP_CLOSE;

    out_put(out);
    return r;
}

bool tcp_ext_info(struct tcp_sock *s, struct lx_tcp_info *i)
{
    struct tcp_out *out = out_get(s);

    if (!out)
        return false;
    ext_tcp_info(out->t, i);
    out_put(out);
    return true;
}
