/* AF_UNIX sockets: their life, connections, readiness (unix(7)). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "base/limits.h"
#include "base/objcount.h"
#include "sentry/errno_internal.h"
#include "sentry/net/unix_priv.h"

OBJCOUNT_DEFINE(unix_sock);

struct unix_sock *unix_get(struct unix_sock *s)
{
    sock_get(&s->base);
    return s;
}

void unix_put(struct unix_sock *s)
{
    sock_put(&s->base);
}

static void ident_put(struct unix_ident *id)
{
    if (id->who)
        cred_put(id->who);
    procref_put(id->process);
}

/* Borrowed. */
static struct unix_ident ident_of(const struct vfs_caller *c)
{
    return (struct unix_ident){
        {c->tgid, c->cred->euid, c->cred->egid}, .who = c->cred, .process = c->process};
}

/* The lock of slot's socket is held, or nobody knows it. The result, who it was before, is the
 * caller's to put when it holds no lock. */
static struct unix_ident ident_set(struct unix_ident *slot, const struct unix_ident *id)
{
    const struct unix_ident before = *slot;

    *slot = *id;
    if (slot->who)
        cred_get(slot->who);
    procref_get(slot->process);
    return before;
}

static void unix_release(struct sock *base)
{
    struct unix_sock *s = unix_of(base);

    mutex_lock(&base->net->mu);
    list_del(&s->all);
    mutex_unlock(&base->net->mu);
    unix_host_free(atomic_load(&s->host));
    unix_name_put(atomic_load(&s->name));
    ident_put(&s->self_ident);
    ident_put(&s->peer_ident);
    waitq_fini(&s->wq);
    mutex_destroy(&s->mu);
    OBJCOUNT_DEC(unix_sock);
    free(s);
}

static const struct sock_ops *unix_ops_of(int type)
{
    switch (type) {
    case SOCK_STREAM:
        return &unix_stream_ops;
    case SOCK_SEQPACKET:
        return &unix_seqpacket_ops;
    default:
        return &unix_dgram_ops;
    }
}

static int unix_new(struct net *n, int type, struct unix_sock **out)
{
    struct unix_sock *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    sock_init(&s->base, unix_ops_of(type), n, AF_UNIX, type, 0);
    waitq_init(&s->wq);
    mutex_init(&s->mu, LOCK_RANK_SOCKET);
    list_init(&s->queue);
    list_init(&s->pending);
    list_init(&s->pending_node);
    list_init(&s->edges);
    list_init(&s->flight);
    list_init(&s->gc_node);
    list_init(&s->full);
    list_init(&s->full_node);
    s->peer_ident.cred.uid = s->peer_ident.cred.gid = UINT32_MAX;
    s->backlog = n->settings.max_dgram_qlen;
    mutex_lock(&n->mu);
    list_add_tail(&s->all, &n->unix_all);
    mutex_unlock(&n->mu);
    OBJCOUNT_INC(unix_sock);
    *out = s;
    return 0;
}

static int unix_check(int *type, int protocol)
{
    if (protocol != 0 && protocol != PF_UNIX)
        return -EPROTONOSUPPORT;
    /* Raw ones are datagrams here, for programs of old. */
    if (*type == SOCK_RAW)
        *type = SOCK_DGRAM;
    if (*type != SOCK_STREAM && *type != SOCK_SEQPACKET && *type != SOCK_DGRAM)
        return -ESOCKTNOSUPPORT;
    return 0;
}

int unix_create(struct net *n, int family, int type, int protocol, const struct vfs_caller *c,
                struct sock **out_sock)
{
    struct unix_sock *s;
    int r = unix_check(&type, protocol);

    (void)c;
    (void)family;
    if (r == 0)
        r = unix_new(n, type, &s);
    if (r == 0)
        *out_sock = &s->base;
    return r;
}

/* Both are new: nobody else sees them. */
static void unix_join(struct unix_sock *a, struct unix_sock *b)
{
    a->peer = unix_get(b);
    b->peer = unix_get(a);
    a->state = b->state = UNIX_CONNECTED;
}

int unix_create_pair(struct net *n, int type, int protocol, const struct vfs_caller *c,
                     struct sock *out_pair[2])
{
    const struct unix_ident me = ident_of(c);
    struct unix_sock *a, *b;
    int r = unix_check(&type, protocol);

    if (r == 0)
        r = unix_new(n, type, &a);
    if (r)
        return r;
    r = unix_new(n, type, &b);
    if (r) {
        unix_put(a);
        return r;
    }
    unix_join(a, b);
    (void)ident_set(&a->self_ident, &me);
    (void)ident_set(&a->peer_ident, &me);
    (void)ident_set(&b->self_ident, &me);
    (void)ident_set(&b->peer_ident, &me);
    out_pair[0] = &a->base;
    out_pair[1] = &b->base;
    return 0;
}

/* ---- closing ---- */

/* s's peer went away: what stays in s's queue can still be read. */
static void unix_peer_closed(struct unix_sock *s, bool reset)
{
    mutex_lock(&s->mu);
    s->shutdown = UNIX_RD | UNIX_WR;
    if (reset)
        atomic_store(&s->base.error, -ECONNRESET);
    mutex_unlock(&s->mu);
    (void)waitq_wake(&s->wq, 0);
}

static void unix_close_one(struct unix_sock *s, bool embryo)
{
    mutex_lock(&s->mu);
    struct unix_sock *peer = s->peer;
    const bool unread = s->queue_count > 0;
    s->closed = true;
    s->base.file = NULL;
    s->shutdown = UNIX_RD | UNIX_WR;
    s->peer = NULL;
    mutex_unlock(&s->mu);
    (void)waitq_wake(&s->wq, 0);
    if (peer) {
        if (!unix_is_dgram(s))
            unix_peer_closed(peer, unread || embryo);
        unix_put(peer);
    }
    unix_purge(s);
}

static void unix_close_pending(struct unix_sock *s)
{
    struct list all;

    list_init(&all);
    mutex_lock(&s->mu);
    list_splice_tail(&s->pending, &all);
    s->pending_count = 0;
    mutex_unlock(&s->mu);
    while (!list_empty(&all)) {
        struct unix_sock *p = list_first_entry(&all, struct unix_sock, pending_node);
        list_del(&p->pending_node);
        unix_close_one(p, true);
        unix_scm_accepted(p);
        unix_put(p);
    }
}

static void unix_close(struct sock *base)
{
    struct unix_sock *s = unix_of(base);

    unix_unbind(s);
    unix_close_one(s, false);
    unix_close_pending(s);
    unix_scm_collect(base->net, false);
}

static int unix_shutdown(struct sock *base, int how)
{
    struct unix_sock *s = unix_of(base), *peer;
    struct unix_host *host = unix_host_of(s);

    if (how < SHUT_RD || how > SHUT_RDWR)
        return -EINVAL;
    if (UNLIKELY(host != NULL))
        return unix_host_shutdown(s, host, how);
    const unsigned bits = (unsigned)how + 1;
    mutex_lock(&s->mu);
    s->shutdown |= bits;
    peer = s->peer && !unix_is_dgram(s) ? unix_get(s->peer) : NULL;
    mutex_unlock(&s->mu);
    (void)waitq_wake(&s->wq, 0);
    if (!peer)
        return 0;
    mutex_lock(&peer->mu);
    peer->shutdown |= (bits & UNIX_RD ? UNIX_WR : 0) | (bits & UNIX_WR ? UNIX_RD : 0);
    mutex_unlock(&peer->mu);
    (void)waitq_wake(&peer->wq, 0);
    unix_put(peer);
    return 0;
}

/* ---- connections ---- */

static int unix_listen(struct sock *base, int backlog, const struct vfs_caller *c)
{
    struct unix_sock *s = unix_of(base);
    const struct unix_ident me = ident_of(c);
    struct unix_ident before = {0};
    int r = 0;

    if (!atomic_load(&s->name))
        return -EINVAL;
    mutex_lock(&s->mu);
    if (s->state == UNIX_CONNECTED) {
        r = -EINVAL;
    } else {
        s->state = UNIX_LISTENING;
        s->backlog = MIN((unsigned)backlog, (unsigned)net_settings(base->net)->somaxconn);
        before = ident_set(&s->self_ident, &me);
    }
    mutex_unlock(&s->mu);
    ident_put(&before);
    if (r == 0)
        (void)waitq_wake(&s->wq, EPOLLOUT);
    return r;
}

/* A new connection in to's queue. 1: the queue is full. Both locks are held. */
static int connect_locked(struct unix_sock *s, struct unix_sock *to, struct unix_sock *fresh,
                          const struct vfs_caller *c)
{
    const struct unix_ident me = ident_of(c);

    if (to->closed || to->state != UNIX_LISTENING || to->shutdown & UNIX_RD)
        return -ECONNREFUSED;
    if (s->state == UNIX_CONNECTED)
        return -EISCONN;
    if (s->state != UNIX_IDLE)
        return -EINVAL;
    if (to->pending_count > to->backlog)
        return 1;
    unix_join(s, fresh);
    /* Both are connected once. */
    (void)ident_set(&fresh->peer_ident, &me);
    (void)ident_set(&s->peer_ident, &to->self_ident);
    struct unix_name *name = atomic_load(&to->name);
    if (name) {
        unix_name_get(name);
        atomic_store(&fresh->name, name);
    }
    fresh->listener = to;
    if (sock_option(&to->base, SO_PASSCRED))
        atomic_fetch_or(&fresh->base.flags, UINT64_C(1) << SO_PASSCRED);
    atomic_store(&fresh->passes_pidfd, atomic_load(&to->passes_pidfd));
    list_add_tail(&unix_get(fresh)->pending_node, &to->pending);
    to->pending_count++;
    return 0;
}

static bool connect_can_go_on(struct unix_sock *to)
{
    mutex_lock(&to->mu);
    const bool yes = to->closed || to->state != UNIX_LISTENING || to->shutdown & UNIX_RD ||
                     to->pending_count <= to->backlog;
    mutex_unlock(&to->mu);
    return yes;
}

static int connect_to(struct unix_sock *s, struct unix_sock *to, bool nonblock,
                      const struct vfs_caller *c)
{
    const deadline_t deadline = sock_deadline(s->base.sndtimeo_ns);
    struct unix_sock *fresh;
    int r = unix_new(s->base.net, s->base.type, &fresh);

    if (r)
        return r;
    for (;;) {
        int err;
        mutex_lock_pair(&s->mu, &to->mu);
        r = connect_locked(s, to, fresh, c);
        mutex_unlock_pair(&s->mu, &to->mu);
        if (r <= 0)
            break;
        r = -EAGAIN;
        if (nonblock || !c->blocker)
            break;
        WAIT_EVENT(&to->wq, c->blocker, EPOLLOUT | EPOLLHUP, deadline, connect_can_go_on(to), err);
        r = sock_wait_error(err, s->base.sndtimeo_ns);
        if (r)
            break;
    }
    if (r == 0) {
        (void)waitq_wake(&to->wq, EPOLLIN | EPOLLRDNORM);
        (void)waitq_wake(&s->wq, 0);
    }
    unix_put(fresh);
    return r;
}

static int unix_stream_connect(struct sock *base, const struct sock_addr *a, bool nonblock,
                               const struct vfs_caller *c)
{
    struct unix_sock *s = unix_of(base), *to;
    int r = unix_passes_cred(s) ? unix_autobind(s) : 0;

    if (r == 0)
        r = unix_find(base->net, a, base->type, c, &to);
    if (r)
        return r == -ECONNREFUSED ? unix_host_connect(s, a, nonblock, c) : r;
    r = unix_scope(to, c);
    if (r == 0)
        r = connect_to(s, to, nonblock, c);
    unix_put(to);
    return r;
}

static int unix_dgram_connect(struct sock *base, const struct sock_addr *a, bool nonblock,
                              const struct vfs_caller *c)
{
    struct unix_sock *s = unix_of(base), *to = NULL, *old;
    int r = 0;

    if (a->len < sizeof(sa_family_t))
        return -EINVAL;
    if (unix_host_of(s))
        return -EISCONN;
    if (a->family != AF_UNSPEC) {
        if (unix_passes_cred(s))
            r = unix_autobind(s);
        if (r == 0)
            r = unix_find(base->net, a, SOCK_DGRAM, c, &to);
        if (r)
            return r == -ECONNREFUSED ? unix_host_connect(s, a, nonblock, c) : r;
        mutex_lock(&to->mu);
        const bool taken = to->peer && to->peer != s;
        mutex_unlock(&to->mu);
        if (taken || unix_scope(to, c)) {
            unix_put(to);
            return -EPERM;
        }
    }
    mutex_lock(&s->mu);
    old = s->peer;
    s->peer = to;
    s->state = to ? UNIX_CONNECTED : UNIX_IDLE;
    mutex_unlock(&s->mu);
    if (old)
        unix_put(old);
    (void)waitq_wake(&s->wq, 0);
    return 0;
}

static bool accept_ready(struct unix_sock *s)
{
    mutex_lock(&s->mu);
    const bool yes = s->pending_count > 0 || s->shutdown & UNIX_RD || s->closed;
    mutex_unlock(&s->mu);
    return yes;
}

/* 1: nobody is there. */
static int accept_one(struct unix_sock *s, struct unix_sock **out)
{
    int r = 1;

    mutex_lock(&s->mu);
    if (s->state != UNIX_LISTENING || s->closed) {
        r = -EINVAL;
    } else if (s->pending_count > 0) {
        *out = list_first_entry(&s->pending, struct unix_sock, pending_node);
        list_del(&(*out)->pending_node);
        s->pending_count--;
        r = 0;
    } else if (s->shutdown & UNIX_RD) {
        r = -EINVAL;
    }
    mutex_unlock(&s->mu);
    return r;
}

static int unix_accept(struct sock *base, bool nonblock, const struct vfs_caller *c,
                       struct sock **out_sock)
{
    struct unix_sock *s = unix_of(base), *found;
    const deadline_t deadline = sock_deadline(base->rcvtimeo_ns);
    int r;

    while ((r = accept_one(s, &found)) == 1) {
        int err;
        if (nonblock || !c->blocker)
            return -EAGAIN;
        WAIT_EVENT(&s->wq, c->blocker, EPOLLIN | EPOLLHUP, deadline, accept_ready(s), err);
        r = sock_wait_error(err, base->rcvtimeo_ns);
        if (r)
            return r;
    }
    if (r)
        return r;
    unix_scm_accepted(found);
    (void)waitq_wake(&s->wq, EPOLLOUT);
    *out_sock = &found->base;
    return 0;
}

/* ---- what can be asked ---- */

static int unix_getname(struct sock *base, bool peer, struct sock_addr *out)
{
    struct unix_sock *s = unix_of(base), *p;

    if (!peer) {
        unix_get_addr(s, out);
        return 0;
    }
    if (unix_host_of(s)) {
        unix_host_peer(unix_host_of(s), out);
        return 0;
    }
    mutex_lock(&s->mu);
    p = s->peer ? unix_get(s->peer) : NULL;
    mutex_unlock(&s->mu);
    if (!p)
        return -ENOTCONN;
    unix_get_addr(p, out);
    unix_put(p);
    return 0;
}

static int unix_getsockopt(struct sock *base, int level, int name, void *buf, socklen_t *len)
{
    struct unix_sock *s = unix_of(base);
    struct sock_cred cred;
    int yes;

    if (level != SOL_SOCKET)
        return -EOPNOTSUPP;
    mutex_lock(&s->mu);
    yes = s->state == UNIX_LISTENING;
    cred = s->peer_ident.cred;
    mutex_unlock(&s->mu);
    if (name == SO_PEERCRED)
        return sock_put_option(buf, len, &cred, sizeof(cred));
    if (name == SO_ACCEPTCONN)
        return sock_put_option(buf, len, &yes, sizeof(yes));
    yes = atomic_load(&s->passes_pidfd);
    if (name == LX_SO_PASSPIDFD)
        return sock_put_option(buf, len, &yes, sizeof(yes));
    return -ENOPROTOOPT;
}

int sock_peer_process(struct sock *base, struct procref **out_ref)
{
    struct unix_sock *s = unix_of(base);

    if (base->family != AF_UNIX)
        return -ENODATA;
    mutex_lock(&s->mu);
    struct procref *p = procref_get(s->peer_ident.process);
    mutex_unlock(&s->mu);
    if (!p)
        return -ENODATA;
    *out_ref = p;
    return 0;
}

int64_t unix_peer_groups(struct sock *base, uint32_t *out, size_t max)
{
    struct unix_sock *s = unix_of(base);
    int64_t n = -ENODATA;

    if (base->family != AF_UNIX)
        return -ENOPROTOOPT;
    mutex_lock(&s->mu);
    if (s->peer_ident.who) {
        n = s->peer_ident.who->group_count;
        if (n > 0 && max > 0)
            memcpy(out, s->peer_ident.who->groups, MIN((size_t)n, max) * sizeof(*out));
    }
    mutex_unlock(&s->mu);
    return n;
}

static int unix_setsockopt(struct sock *s, int level, int name, const void *buf, socklen_t len,
                           const struct vfs_caller *c)
{
    int value;

    (void)c;
    if (level == SOL_SOCKET && name == LX_SO_PASSPIDFD && len >= sizeof(value)) {
        memcpy(&value, buf, sizeof(value));
        atomic_store(&unix_of(s)->passes_pidfd, value != 0);
        return 0;
    }
    return level == SOL_SOCKET ? -ENOPROTOOPT : -EOPNOTSUPP;
}

static int64_t unix_readable(struct sock *base)
{
    struct unix_sock *s = unix_of(base);
    int64_t n = 0;

    if (unix_host_of(s))
        return unix_host_readable(unix_host_of(s));
    mutex_lock(&s->mu);
    if (s->state == UNIX_LISTENING)
        n = -EINVAL;
    else if (base->type == SOCK_STREAM)
        n = (int64_t)s->queue_bytes;
    else if (s->queue_count > 0)
        n = (int64_t)list_first_entry(&s->queue, struct unix_msg, node)->size;
    mutex_unlock(&s->mu);
    return n;
}

static int64_t unix_unsent(struct sock *base)
{
    return (int64_t)atomic_load(&unix_of(base)->out_bytes);
}

/* A connected datagram socket can be written when its peer takes more; if not, the peer will tell.
 */
static bool unix_peer_takes(struct unix_sock *s, bool wait)
{
    struct unix_sock *peer;
    struct net *n = s->base.net;

    mutex_lock(&s->mu);
    peer = s->peer && s->peer != s ? unix_get(s->peer) : NULL;
    mutex_unlock(&s->mu);
    if (!peer)
        return true;
    mutex_lock(&peer->mu);
    const bool full = peer->peer != s && unix_is_full_locked(peer) && !peer->closed;
    if (full && wait) {
        mutex_lock(&n->mu);
        if (list_empty(&s->full_node))
            list_add_tail(&unix_get(s)->full_node, &peer->full);
        mutex_unlock(&n->mu);
    }
    mutex_unlock(&peer->mu);
    unix_put(peer);
    return !full;
}

static uint32_t unix_poll(struct sock *base, struct waiter *w)
{
    struct unix_sock *s = unix_of(base);
    uint32_t events = 0;

    if (w)
        waitq_add(&s->wq, w);
    if (unix_host_of(s))
        return unix_host_poll(unix_host_of(s));
    const bool takes = base->type == SOCK_STREAM || unix_peer_takes(s, true);
    mutex_lock(&s->mu);
    if (atomic_load(&base->error))
        events |= EPOLLERR;
    if (s->shutdown == (UNIX_RD | UNIX_WR))
        events |= EPOLLHUP;
    if (s->shutdown & UNIX_RD)
        events |= EPOLLRDHUP | EPOLLIN | EPOLLRDNORM;
    if (s->queue_count > 0 || s->pending_count > 0)
        events |= EPOLLIN | EPOLLRDNORM;
    if (s->oob)
        events |= EPOLLPRI;
    if (!unix_is_dgram(s) && s->state == UNIX_IDLE)
        events |= EPOLLHUP;
    if (s->state != UNIX_LISTENING && takes && unix_writable(s))
        events |= EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;
    mutex_unlock(&s->mu);
    return events;
}

static int64_t unix_stream_ioctl(struct sock *base, unsigned cmd, uint64_t arg,
                                 const struct uaccess *ua, const struct vfs_caller *c)
{
    (void)c;
    if (cmd != SIOCATMARK)
        return -ENOTTY;
    const int mark = unix_at_mark(unix_of(base));
    return copyout_obj(ua, uaddr(arg), &mark);
}

const struct sock_ops unix_stream_ops = {
    .ioctl = unix_stream_ioctl,
    .bind = unix_bind,
    .listen = unix_listen,
    .connect = unix_stream_connect,
    .accept = unix_accept,
    .send = unix_stream_send,
    .recv = unix_stream_recv,
    .shutdown = unix_shutdown,
    .getname = unix_getname,
    .getsockopt = unix_getsockopt,
    .setsockopt = unix_setsockopt,
    .poll = unix_poll,
    .readable = unix_readable,
    .unsent = unix_unsent,
    .close = unix_close,
    .release = unix_release,
};

const struct sock_ops unix_seqpacket_ops = {
    .bind = unix_bind,
    .listen = unix_listen,
    .connect = unix_stream_connect,
    .accept = unix_accept,
    .send = unix_packet_send,
    .recv = unix_packet_recv,
    .shutdown = unix_shutdown,
    .getname = unix_getname,
    .getsockopt = unix_getsockopt,
    .setsockopt = unix_setsockopt,
    .poll = unix_poll,
    .readable = unix_readable,
    .unsent = unix_unsent,
    .close = unix_close,
    .release = unix_release,
};

const struct sock_ops unix_dgram_ops = {
    .bind = unix_bind,
    .listen = sock_no_listen,
    .connect = unix_dgram_connect,
    .accept = sock_no_accept,
    .send = unix_packet_send,
    .recv = unix_packet_recv,
    .shutdown = unix_shutdown,
    .getname = unix_getname,
    .getsockopt = unix_getsockopt,
    .setsockopt = unix_setsockopt,
    .poll = unix_poll,
    .readable = unix_readable,
    .unsent = unix_unsent,
    .close = unix_close,
    .release = unix_release,
};
