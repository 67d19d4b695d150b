/* TCP connections inside the sandbox: listen, connect, accept. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/limits.h"
#include "sentry/net/inet/tcp_priv.h"

#define NS_PER_SEC 1000000000ull
#define BUF_LOCK_SND 1u
#define DEFAULT_HOPS 64u

/* ---- listen ---- */

int tcp_listen(struct sock *base, int backlog, const struct vfs_caller *c)
{
    struct tcp_sock *s = tcp_of(base);
    int r = 0;

    (void)c;
    mutex_lock(&s->i.mu);
    if (s->step != TCP_UNCONNECTED || (tcp_state(s) != TCP_CLOSE && tcp_state(s) != TCP_LISTEN))
        r = -EINVAL;
    s->backlog = MIN((unsigned)backlog, (unsigned)net_settings(s->i.base.net)->somaxconn);
    if (r == 0 && tcp_state(s) == TCP_CLOSE) {
        r = s->i.port ? 0 : inet_port_bind_locked(&s->i, 0);
        if (r == 0)
            r = inet_port_listen_locked(&s->i);
        if (r == 0) {
            atomic_store(&s->shut, 0);
            atomic_store(&s->state, TCP_LISTEN);
        }
    }
    mutex_unlock(&s->i.mu);
    if (r == 0)
        (void)waitq_wake(&s->i.wq, 0);
    return r;
}

static struct tcp_sock *list_take_locked(struct list *head)
{
    if (list_empty(head))
        return NULL;
    struct tcp_sock *s = list_first_entry(head, struct tcp_sock, waiting);
    list_del(&s->waiting);
    return s;
}

void tcp_child_abort(struct tcp_sock *s)
{
    struct tcp_after a = {.put = {NULL}};
    struct tcp_sock *p = tcp_lock_both(s);

    s->closed = true;
    tcp_reset_locked(s, p, &a);
    tcp_unlock_both(s, p);
    tcp_after_run(&a);
    tcp_ext_drop(s, true);
    tcp_queue_purge(s);
    tcp_put(s);
}

/* A connect that comes to nothing. */
static void dial_fail(struct tcp_sock *s, int error)
{
    mutex_lock(&s->i.mu);
    if (tcp_state(s) == TCP_SYN_SENT) {
        atomic_store(&s->i.base.error, error);
        atomic_store(&s->state, TCP_CLOSE);
        atomic_store(&s->shut, INET_SHUT_RD | INET_SHUT_WR);
        tcp_unhash_locked(s);
        atomic_fetch_add(&s->i.in->tcp_failed, 1);
    }
    mutex_unlock(&s->i.mu);
    (void)waitq_wake(&s->i.wq, 0);
}

void tcp_listen_end(struct tcp_sock *s)
{
    struct tcp_sock *child, *dialer;

    mutex_lock(&s->i.mu);
    atomic_store(&s->state, TCP_CLOSE);
    inet_port_deaf_locked(&s->i);
    if (!s->i.port_bound)
        inet_port_drop_locked(&s->i);
    mutex_unlock(&s->i.mu);
    tcp_defer_end(s);
    mutex_lock(&s->i.mu);
    for (;;) {
        child = list_take_locked(&s->accepts);
        dialer = child ? NULL : list_take_locked(&s->dialers);
        if (child)
            s->accept_count--;
        mutex_unlock(&s->i.mu);
        if (child)
            tcp_child_abort(child);
        if (dialer) {
            dial_fail(dialer, -ECONNREFUSED);
            tcp_put(dialer);
        }
        if (!child && !dialer)
            break;
        mutex_lock(&s->i.mu);
    }
    (void)waitq_wake(&s->i.wq, 0);
}

/* ---- connect ---- */

uint8_t tcp_ttl(const struct tcp_sock *s, unsigned family)
{
    const int own = family == AF_INET ? s->i.ttl : s->i.hops;

    if (own > 0)
        return (uint8_t)own;
    return family == AF_INET ? (uint8_t)net_settings(s->i.base.net)->ttl : DEFAULT_HOPS;
}

uint8_t tcp_min_ttl(const struct tcp_sock *s, unsigned family)
{
    return atomic_load(family == AF_INET ? &s->i.min_ttl : &s->i.min_hops);
}

/* What one sends does not reach the other, from too far away by its TTL. */
static bool too_far(const struct tcp_sock *s, const struct tcp_sock *l)
{
    const unsigned family = s->i.remote.addr.family;

    return tcp_ttl(s, family) < tcp_min_ttl(l, family) ||
           tcp_ttl(l, family) < tcp_min_ttl(s, family);
}

static void child_inherit(const struct tcp_sock *l, struct tcp_sock *child)
{
    struct sock *to = &child->i.base;
    const struct sock *from = &l->i.base;

    atomic_store(&to->sndbuf, atomic_load(&from->sndbuf));
    atomic_store(&to->rcvbuf, atomic_load(&from->rcvbuf));
    atomic_store(&to->buf_lock, atomic_load(&from->buf_lock));
    atomic_store(&to->rcvlowat, atomic_load(&from->rcvlowat));
    atomic_store(&to->priority, atomic_load(&from->priority));
    atomic_store(&to->mark, atomic_load(&from->mark));
    atomic_store(&to->sndtimeo_ns, atomic_load(&from->sndtimeo_ns));
    atomic_store(&to->rcvtimeo_ns, atomic_load(&from->rcvtimeo_ns));
    atomic_store(&to->flags, atomic_load(&from->flags));
    atomic_store(&to->linger, atomic_load(&from->linger));
    atomic_store(&child->i.opts, atomic_load(&l->i.opts));
    atomic_store(&child->i.ttl, atomic_load(&l->i.ttl));
    atomic_store(&child->i.hops, atomic_load(&l->i.hops));
    atomic_store(&child->i.min_ttl, atomic_load(&l->i.min_ttl));
    atomic_store(&child->i.min_hops, atomic_load(&l->i.min_hops));
    atomic_store(&child->i.tos, atomic_load(&l->i.tos));
    atomic_store(&child->i.tclass, atomic_load(&l->i.tclass));
    atomic_store(&child->i.pmtu, atomic_load(&l->i.pmtu));
    atomic_store(&child->i.bound_if, atomic_load(&l->i.bound_if));
    child->opt = l->opt;
    child->opt.defer_accept = 0;
}

static void grow_sndbuf(struct tcp_sock *s)
{
    if (!(atomic_load(&s->i.base.buf_lock) & BUF_LOCK_SND))
        atomic_store(&s->i.base.sndbuf, TCP_SNDBUF_GROWN);
}

void tcp_child_locked(struct tcp_sock *l, struct tcp_sock *child, bool defer)
{
    child->i.addr_bound = true;
    child_inherit(l, child);
    inet_port_share_locked(&l->i, &child->i);
    atomic_store(&child->state, TCP_ESTABLISHED);
    child->step = TCP_CONNECTED;
    grow_sndbuf(child);
    if (!defer || !tcp_defer_add_locked(l, child)) {
        list_add_tail(&tcp_get(child)->waiting, &l->accepts);
        l->accept_count++;
    }
    atomic_fetch_add(&l->i.in->tcp_passive, 1);
}

/* child is new and becomes the other end of s, in l's queue. s and l locked. */
static void join_locked(struct tcp_sock *s, struct tcp_sock *l, struct tcp_sock *child)
{
    child->i.local = s->i.remote;
    child->i.remote = s->i.local;
    child->peer = tcp_get(s);
    s->dialed = true;
    s->peer = tcp_get(child);
    atomic_store(&s->state, TCP_ESTABLISHED);
    grow_sndbuf(s);
    tcp_child_locked(l, child, true);
    child->in_tuples = inet_tuple_add_locked(&child->i) == 0;
    inet_sock_show(&child->i);
    atomic_fetch_add(&s->i.in->tcp_active, 1);
    tcp_tap_opened(s, child);
}

/* 0: established. 1: the queue is full and s waits in it, or no answer will come. */
static int dial_once(struct tcp_sock *s, struct tcp_sock *l)
{
    const uint64_t began = mono_now();
    struct tcp_sock *child;
    int r = tcp_new(l->i.base.net, l->i.base.family, NULL, &child);

    if (r)
        return r;
    child->i.uid = l->i.uid;
    tcp_defer_prepare(l);
    mutex_lock_pair(&s->i.mu, &l->i.mu);
    if (tcp_state(l) != TCP_LISTEN) {
        r = -ECONNREFUSED;
    } else if (tcp_state(s) != TCP_SYN_SENT) {
        r = -ECONNABORTED;
    } else if (too_far(s, l)) {
        r = 1;
    } else if (l->accept_count > l->backlog) {
        s->listener = tcp_get(l);
        list_add_tail(&tcp_get(s)->waiting, &l->dialers);
        r = 1;
    } else {
        join_locked(s, l, child);
        /* What either of them measures of the handshake. */
        tcp_rtt_sample(&s->q.rtt, mono_now() - began);
        child->q.rtt = s->q.rtt;
    }
    const bool deferred = atomic_load(&child->deferred);
    mutex_unlock_pair(&s->i.mu, &l->i.mu);
    tcp_put(child);
    if (r == 0) {
        if (!deferred)
            (void)waitq_wake(&l->i.wq, EPOLLIN | EPOLLRDNORM);
        (void)waitq_wake(&s->i.wq, EPOLLOUT | EPOLLWRNORM | EPOLLIN);
    }
    return r;
}

/* There is room in l's queue: the first who waits comes in. */
static void dial_next(struct tcp_sock *l)
{
    mutex_lock(&l->i.mu);
    struct tcp_sock *s = l->accept_count <= l->backlog && tcp_state(l) == TCP_LISTEN
                             ? list_take_locked(&l->dialers)
                             : NULL;
    mutex_unlock(&l->i.mu);
    if (!s)
        return;
    mutex_lock(&s->i.mu);
    struct tcp_sock *held = s->listener;
    s->listener = NULL;
    mutex_unlock(&s->i.mu);
    int r = dial_once(s, l);
    if (r < 0)
        dial_fail(s, r == -ECONNREFUSED ? r : -ETIMEDOUT);
    if (held)
        tcp_put(held);
    tcp_put(s);
}

void tcp_dial_end(struct tcp_sock *s)
{
    mutex_lock(&s->i.mu);
    struct tcp_sock *l = s->listener;
    struct tcp_dial *d = s->dial;
    s->listener = NULL;
    s->dial = NULL;
    mutex_unlock(&s->i.mu);
    if (d) {
        timer_cancel(&d->tm);
        free(d);
    }
    if (l) {
        mutex_lock(&l->i.mu);
        const bool was = !list_empty(&s->waiting);
        list_del(&s->waiting);
        mutex_unlock(&l->i.mu);
        if (was)
            tcp_put(s);
        tcp_put(l);
    }
    dial_fail(s, -ECONNABORTED);
}

bool tcp_is_out(struct tcp_sock *s)
{
    mutex_lock(&s->i.mu);
    const bool out = s->out;
    mutex_unlock(&s->i.mu);
    if (LIKELY(!out))
        return false;
    if (tcp_state(s) != TCP_SYN_SENT)
        return true;
    const int r = tcp_ext_status(s);
    if (r == -EINPROGRESS)
        return true;
    if (r == 0) {
        mutex_lock(&s->i.mu);
        if (tcp_state(s) == TCP_SYN_SENT)
            atomic_store(&s->state, TCP_ESTABLISHED);
        mutex_unlock(&s->i.mu);
        return true;
    }
    dial_fail(s, r);
    tcp_ext_drop(s, true);
    return false;
}

/* ---- connect(2) ---- */

/* AF_UNSPEC: back to where it was before. */
static int tcp_disconnect(struct tcp_sock *s)
{
    struct tcp_after a = {.put = {NULL}};

    if (tcp_state(s) == TCP_LISTEN)
        tcp_listen_end(s);
    else if (tcp_state(s) == TCP_SYN_SENT)
        tcp_dial_end(s);
    tcp_ext_drop(s, true);
    mutex_lock(&s->q.rd);
    struct tcp_sock *p = tcp_lock_both(s);
    tcp_reset_locked(s, p, &a);
    memset(&s->i.remote, 0, sizeof(s->i.remote));
    if (!s->i.addr_bound)
        memset(&s->i.local.addr, 0, sizeof(s->i.local.addr));
    if (!s->i.port)
        s->i.local.port = 0;
    s->step = TCP_UNCONNECTED;
    s->dialed = false;
    s->past = (struct tcp_sent){.bytes = 0};
    s->q.before = (struct tcp_sent){.bytes = atomic_load(&s->q.in), .pieces = s->q.pieces};
    s->q.at_ns = 0;
    s->q.rtt = (struct tcp_rtt){0};
    atomic_store(&s->shut, 0);
    atomic_store(&s->fin_seen, false);
    atomic_store(&s->urgent, TCP_URGENT_NONE);
    atomic_store(&s->i.base.error, 0);
    tcp_unlock_both(s, p);
    mutex_unlock(&s->q.rd);
    tcp_after_run(&a);
    tcp_queue_purge(s);
    return 0;
}

static int connect_addr(struct tcp_sock *s, const struct sock_addr *a, struct net_ep *to)
{
    int r = inet_addr_in(&s->i, a, to);

    if (r)
        return r;
    if (to->addr.family == AF_INET && s->i.base.family == AF_INET6 && inet_opt(&s->i, INET_V6ONLY))
        return -ENETUNREACH;
    if (net_addr_is_any(&to->addr)) {
        static const uint8_t one[16] = {[15] = 1};
        to->addr = to->addr.family == AF_INET ? inet_addr_from4(htonl(INADDR_LOOPBACK))
                                              : inet_addr_from6(one);
    }
    return 0;
}

/* Names for the new connection, which then is in SYN_SENT. mu held. */
static int connect_names_locked(struct tcp_sock *s, const struct net_ep *to, bool *out_local)
{
    struct inet_route rt;
    const struct net_ep before = s->i.local;

    if (net_addr_is_multicast(&to->addr))
        return -ENETUNREACH;
    if (s->i.addr_bound && s->i.local.addr.family != to->addr.family)
        return to->addr.family == AF_INET ? -EAFNOSUPPORT : -EINVAL;
    int r = inet_route_of(&s->i, &to->addr, &s->i.local.addr, s->i.bound_if, 0, &rt);
    if (r == 0 && rt.broadcast)
        r = -ENETUNREACH;
    if (r)
        return r;
    *out_local = rt.local;
    s->i.local.addr = s->i.addr_bound ? s->i.local.addr : rt.src;
    s->i.remote = *to;
    r = inet_tuple_auto_locked(&s->i);
    if (r) {
        s->i.local = before;
        memset(&s->i.remote, 0, sizeof(s->i.remote));
        return r;
    }
    s->in_tuples = true;
    s->step = TCP_CONNECTING;
    atomic_store(&s->shut, 0);
    atomic_store(&s->fin_seen, false);
    atomic_store(&s->state, TCP_SYN_SENT);
    return 0;
}

/* A connection to oneself: both SYNs cross (RFC 9293, 3.5). */
static bool connect_self(struct tcp_sock *s)
{
    mutex_lock(&s->i.mu);
    const bool self = tcp_state(s) == TCP_SYN_SENT && s->i.local.port == s->i.remote.port &&
                      net_addr_equal(&s->i.local.addr, &s->i.remote.addr);
    if (self) {
        s->peer = tcp_get(s);
        atomic_store(&s->state, TCP_ESTABLISHED);
        grow_sndbuf(s);
    }
    mutex_unlock(&s->i.mu);
    return self;
}

static void connect_start(struct tcp_sock *s, const struct net_ep *to, bool here)
{
    int r = -ECONNREFUSED;

    if (!here) {
        r = tcp_ext_connect(s);
        if (r)
            dial_fail(s, r);
        return;
    }
    if (connect_self(s))
        return;
    const struct net_ep local = {.addr = to->addr, .port = to->port, .ifindex = INET_LOOPBACK_IF};
    mutex_lock(&s->i.mu);
    const struct net_ep from = s->i.local;
    mutex_unlock(&s->i.mu);
    struct inet_sock *found = inet_find(s->i.in, INET_TCP, &local, &from);
    if (found) {
        r = dial_once(s, tcp_of_inet(found));
        sock_put(&found->base);
    }
    if (r == -ECONNREFUSED)
        tcp_tap_refused(s);
    if (r < 0)
        dial_fail(s, r);
}

/* What is known when a wait is over, or there is none (inet_stream_connect). */
static int connect_result(struct tcp_sock *s)
{
    int r = 0;

    mutex_lock(&s->i.mu);
    if (tcp_state(s) == TCP_CLOSE) {
        r = tcp_take_error(s);
        r = r ? r : -ECONNABORTED;
        s->step = TCP_UNCONNECTED;
        memset(&s->i.remote, 0, sizeof(s->i.remote));
        if (!s->i.addr_bound)
            memset(&s->i.local.addr, 0, sizeof(s->i.local.addr));
        if (!s->i.port)
            s->i.local.port = 0;
        atomic_store(&s->shut, 0);
    } else {
        s->step = TCP_CONNECTED;
    }
    mutex_unlock(&s->i.mu);
    return r;
}

/* 1 s, 2 s, 4 s ... after the first: when the last SYN stays without an answer (tcp_syn_retries).
 */
static uint64_t connect_patience(const struct tcp_sock *s)
{
    const unsigned tries = s->opt.syncnt ? s->opt.syncnt : 6;

    if (s->opt.user_timeout)
        return (uint64_t)s->opt.user_timeout * 1000000u;
    return ((UINT64_C(2) << MIN(tries, 7u)) - 1) * NS_PER_SEC;
}

static void dial_expired(struct timer *tm)
{
    dial_fail(container_of(tm, struct tcp_dial, tm)->s, -ETIMEDOUT);
}

/* A connect that nobody waits for ends by itself. */
static void connect_arm(struct tcp_sock *s)
{
    struct tcp_dial *d = calloc(1, sizeof(*d));

    if (!d)
        return;
    d->s = s;
    if (timer_init(&d->tm, s->i.in->timers, dial_expired)) {
        free(d);
        return;
    }
    mutex_lock(&s->i.mu);
    const bool use = tcp_state(s) == TCP_SYN_SENT && !s->dial;
    if (use) {
        s->dial = d;
        timer_arm(&d->tm, mono_now() + connect_patience(s));
    }
    mutex_unlock(&s->i.mu);
    if (!use)
        free(d);
}

static bool connect_over(struct tcp_sock *s)
{
    (void)tcp_is_out(s);
    return tcp_state(s) != TCP_SYN_SENT;
}

static int connect_wait(struct tcp_sock *s, bool nonblock, const struct vfs_caller *c)
{
    const uint64_t timeo = s->i.base.sndtimeo_ns;
    const uint64_t patience = connect_patience(s);
    const bool limited = timeo && timeo < patience;
    int err;

    if (nonblock || !c->blocker) {
        if (!tcp_is_out(s) && tcp_state(s) == TCP_SYN_SENT)
            connect_arm(s);
        return -EINPROGRESS;
    }
    WAIT_EVENT(&s->i.wq, c->blocker, 0, mono_now() + (limited ? timeo : patience), connect_over(s),
               err);
    if (err == -ETIMEDOUT && limited)
        return -EINPROGRESS;
    if (err == -ETIMEDOUT) {
        dial_fail(s, -ETIMEDOUT);
        tcp_ext_drop(s, true);
        return 0;
    }
    return sock_wait_error(err, timeo);
}

int tcp_connect(struct sock *base, const struct sock_addr *a, bool nonblock,
                const struct vfs_caller *c)
{
    struct tcp_sock *s = tcp_of(base);
    struct net_ep to;
    bool start = false, here = true;
    int r = 0;

    if (a->len < sizeof(sa_family_t))
        return -EINVAL;
    if (a->family == AF_UNSPEC)
        return tcp_disconnect(s);
    (void)tcp_is_out(s);
    mutex_lock(&s->i.mu);
    if (s->step == TCP_CONNECTED) {
        r = -EISCONN;
    } else if (s->step == TCP_CONNECTING) {
        r = tcp_state(s) == TCP_SYN_SENT && (nonblock || !c->blocker) ? -EALREADY : 0;
    } else if (tcp_state(s) != TCP_CLOSE) {
        r = -EISCONN;
    } else {
        r = connect_addr(s, a, &to);
        if (r == 0)
            r = connect_names_locked(s, &to, &here);
        start = r == 0;
    }
    mutex_unlock(&s->i.mu);
    if (start)
        connect_start(s, &to, here);
    if (r == 0 && (start || tcp_state(s) == TCP_SYN_SENT))
        r = connect_wait(s, nonblock, c);
    return r ? r : connect_result(s);
}

/* ---- accept ---- */

static bool accept_ready(struct tcp_sock *s)
{
    mutex_lock(&s->i.mu);
    const bool yes = s->accept_count > 0 || tcp_state(s) != TCP_LISTEN;
    mutex_unlock(&s->i.mu);
    return yes;
}

/* 1: nobody is there. */
static int accept_one(struct tcp_sock *s, struct tcp_sock **out)
{
    int r = 1;

    mutex_lock(&s->i.mu);
    if (tcp_state(s) != TCP_LISTEN) {
        r = -EINVAL;
    } else if (s->accept_count > 0) {
        *out = list_take_locked(&s->accepts);
        s->accept_count--;
        r = 0;
    }
    mutex_unlock(&s->i.mu);
    return r;
}

int tcp_accept(struct sock *base, bool nonblock, const struct vfs_caller *c, struct sock **out_sock)
{
    struct tcp_sock *s = tcp_of(base), *found;
    const deadline_t deadline = sock_deadline(base->rcvtimeo_ns);
    int r;

    while ((r = accept_one(s, &found)) == 1) {
        struct waiter w;
        int err = 0;
        if (nonblock || !c->blocker)
            return -EAGAIN;
        waiter_init(&w, c->blocker, EPOLLIN);
        /* One connection wakes one of those who wait. */
        w.exclusive = true;
        waitq_add(&s->i.wq, &w);
        while (err == 0 && !accept_ready(s))
            err = blocker_wait(c->blocker, deadline);
        waitq_del(&w);
        /* Whoever goes away without the connection passes the wake-up on. */
        if (err && accept_ready(s))
            (void)waitq_wake(&s->i.wq, EPOLLIN);
        r = sock_wait_error(err, base->rcvtimeo_ns);
        if (r)
            return r;
    }
    if (r)
        return r;
    if (!tcp_defer_next(s))
        dial_next(s);
    *out_sock = &found->i.base;
    return 0;
}

/* ---- from outside ---- */

struct sock *inet_tcp_find_listener(struct net *n, const struct net_ep *local,
                                    const struct net_ep *remote)
{
    struct inet_sock *s = inet_find(net_inet(n), INET_TCP, local, remote);

    return s ? &s->base : NULL;
}

uint8_t inet_tcp_min_ttl(struct sock *base, unsigned family)
{
    return tcp_min_ttl(tcp_of(base), family);
}

bool inet_tcp_room(struct sock *base)
{
    struct tcp_sock *l = tcp_of(base);

    mutex_lock(&l->i.mu);
    const bool room = tcp_state(l) == TCP_LISTEN && l->accept_count <= l->backlog;
    mutex_unlock(&l->i.mu);
    return room;
}
