/* Messages of AF_UNIX sockets: sending and receiving, as streams and as packets. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/limits.h"
#include "sentry/errno_internal.h"
#include "sentry/net/filter.h"
#include "sentry/net/unix_priv.h"

/* A stream's bytes travel in pieces of at most this size. */
#define STREAM_PIECE 65536u

bool unix_writable(const struct unix_sock *s)
{
    return atomic_load(&s->out_bytes) * 4 <= s->base.sndbuf;
}

static bool unix_has_room(const struct unix_sock *s)
{
    return atomic_load(&s->out_bytes) < s->base.sndbuf;
}

bool unix_is_full_locked(const struct unix_sock *to)
{
    return to->queue_count > to->backlog;
}

void unix_room(struct unix_sock *s)
{
    struct net *n = s->base.net;

    (void)waitq_wake(&s->wq, EPOLLOUT);
    mutex_lock(&n->mu);
    while (!list_empty(&s->full)) {
        struct unix_sock *sender = list_first_entry(&s->full, struct unix_sock, full_node);
        list_del(&sender->full_node);
        mutex_unlock(&n->mu);
        (void)waitq_wake(&sender->wq, EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND);
        unix_put(sender);
        mutex_lock(&n->mu);
    }
    mutex_unlock(&n->mu);
}

/* ---- sending ---- */

/* A message with the next size bytes of u; its cost is charged to s. */
static int msg_new(struct unix_sock *s, struct uio *u, size_t size, const struct vfs_caller *c,
                   struct unix_msg **out)
{
    struct unix_msg *m = malloc(sizeof(*m) + size);

    if (!m)
        return -ENOBUFS;
    memset(m, 0, sizeof(*m));
    int64_t n = uio_copy_from(u, m->data, size);
    if (n < 0) {
        free(m);
        return (int)n;
    }
    m->size = (size_t)n;
    m->from = unix_get(s);
    m->ctl.cred = (struct sock_cred){c->tgid, c->cred->uid, c->cred->gid};
    atomic_fetch_add(&s->out_bytes, m->size + UNIX_MSG_COST);
    *out = m;
    return 0;
}

/* Takes control for m, which always says who sent it. The process is kept when somebody asked. */
static int msg_attach(struct unix_sock *to, struct unix_msg *m, struct sock_control *control,
                      const struct vfs_caller *c)
{
    const struct sock_cred self = m->ctl.cred;
    int r = control ? unix_scm_attach(to, m, control) : 0;

    if (r == 0 && !m->ctl.has_cred)
        m->ctl.cred = self;
    if (r == 0 && !m->ctl.process && m->ctl.cred.pid == c->tgid &&
        (unix_passes_cred(to) || unix_passes_cred(m->from)))
        m->ctl.process = procref_get(c->process);
    return r;
}

static void msg_discard(struct unix_sock *to, struct unix_msg *m)
{
    struct list one;

    unix_scm_detach(to->base.net, m);
    list_init(&one);
    list_add(&m->node, &one);
    unix_msg_free_list(to->base.net, &one);
}

static void queue_add_locked(struct unix_sock *to, struct unix_msg *m)
{
    list_add_tail(&m->node, &to->queue);
    to->queue_count++;
    to->queue_bytes += m->size;
}

/* What a sender needs to know of itself. Owned *out_peer, or NULL. */
static enum unix_state send_state(struct unix_sock *s, struct unix_sock **out_peer)
{
    mutex_lock(&s->mu);
    const enum unix_state state = s->state;
    *out_peer = s->peer ? unix_get(s->peer) : NULL;
    mutex_unlock(&s->mu);
    return state;
}

static bool send_is_shut(struct unix_sock *s)
{
    mutex_lock(&s->mu);
    const bool shut = s->shutdown & UNIX_WR;
    mutex_unlock(&s->mu);
    return shut;
}

static int send_wait_room(struct unix_sock *s, bool nonblock, deadline_t deadline,
                          const struct vfs_caller *c)
{
    int err;

    if (LIKELY(unix_has_room(s)))
        return 0;
    if (nonblock || !c->blocker)
        return -EAGAIN;
    WAIT_EVENT(&s->wq, c->blocker, EPOLLOUT | EPOLLHUP, deadline,
               unix_has_room(s) || send_is_shut(s), err);
    return sock_wait_error(err, s->base.sndtimeo_ns);
}

/* oob: m is the byte out of band from now on; an older one is a byte like any other then. */
static int stream_push(struct unix_sock *peer, struct unix_msg *m, bool oob)
{
    mutex_lock(&peer->mu);
    const bool gone = peer->closed || peer->shutdown & UNIX_RD;
    if (!gone)
        queue_add_locked(peer, m);
    if (!gone && oob)
        peer->oob = m;
    mutex_unlock(&peer->mu);
    if (gone)
        return -EPIPE;
    (void)waitq_wake(&peer->wq, EPOLLIN | EPOLLRDNORM | (oob ? EPOLLPRI : 0u));
    return 0;
}

/* The last byte of a message out of band goes alone. */
static int64_t stream_piece(struct unix_sock *s, struct unix_sock *peer, struct sock_msg *m,
                            const struct vfs_caller *c)
{
    struct unix_msg *msg;
    const size_t max = MIN((size_t)STREAM_PIECE, (size_t)s->base.sndbuf / 2);
    const bool last = m->flags & MSG_OOB && m->u->left == 1;
    const uint64_t left = m->flags & MSG_OOB && !last ? m->u->left - 1 : m->u->left;
    int r = msg_new(s, m->u, (size_t)MIN(left, (uint64_t)max), c, &msg);

    if (r)
        return r;
    const int64_t n = (int64_t)msg->size;
    r = msg_attach(peer, msg, m->control, c);
    if (r == 0)
        r = stream_push(peer, msg, last);
    if (r == 0)
        return n;
    msg_discard(peer, msg);
    return r;
}

int64_t unix_stream_send(struct sock *base, struct sock_msg *m, bool nonblock,
                         const struct vfs_caller *c)
{
    struct unix_sock *s = unix_of(base), *peer;
    const deadline_t deadline = sock_deadline(base->sndtimeo_ns);
    struct unix_host *host = unix_host_of(s);
    int64_t done = 0, r = 0;

    if (UNLIKELY(host != NULL))
        return unix_host_send(s, host, m, nonblock, c);
    if (m->flags & MSG_OOB && m->u->left == 0)
        return -EOPNOTSUPP;
    const enum unix_state state = send_state(s, &peer);
    if (m->to)
        r = state == UNIX_CONNECTED ? -EISCONN : -EOPNOTSUPP;
    else if (!peer)
        r = -ENOTCONN;
    else if (send_is_shut(s))
        r = -EPIPE;
    while (r == 0 && m->u->left > 0) {
        r = send_wait_room(s, nonblock, deadline, c);
        if (r == 0 && send_is_shut(s))
            r = -EPIPE;
        if (r)
            break;
        r = stream_piece(s, peer, m, c);
        if (r <= 0)
            break;
        done += r;
        r = 0;
    }
    if (peer)
        unix_put(peer);
    return done > 0 ? done : r;
}

/* ---- sending packets ---- */

/* Whether to takes m, which its filter may shorten. A sender does not learn of it. */
static bool packet_passes(struct unix_sock *to, struct unix_msg *m)
{
    const struct sock_frame f = {.data = m->data, .size = m->size};
    const uint32_t n = sock_filter_run(&to->base, &f);

    if (n < m->size) {
        atomic_fetch_sub(&m->from->out_bytes, m->size - n);
        m->size = n;
    }
    return n > 0;
}

/* 0: queued. 1: the queue is full. */
static int packet_push(struct unix_sock *s, struct unix_sock *to, struct unix_msg *m)
{
    int r = 0;

    mutex_lock(&to->mu);
    if (to->closed)
        r = -ECONNREFUSED;
    else if (to->shutdown & UNIX_RD)
        r = -EPIPE;
    else if (unix_is_dgram(to) && to->peer && to->peer != s)
        r = -EPERM;
    else if (to != s && to->peer != s && unix_is_full_locked(to))
        r = 1;
    else
        queue_add_locked(to, m);
    mutex_unlock(&to->mu);
    if (r == 0)
        (void)waitq_wake(&to->wq, EPOLLIN | EPOLLRDNORM);
    return r;
}

static bool packet_can_push(struct unix_sock *to)
{
    mutex_lock(&to->mu);
    const bool yes = to->closed || to->shutdown & UNIX_RD || !unix_is_full_locked(to);
    mutex_unlock(&to->mu);
    return yes;
}

static int packet_push_wait(struct unix_sock *s, struct unix_sock *to, struct unix_msg *m,
                            bool nonblock, deadline_t deadline, const struct vfs_caller *c)
{
    int r;

    while ((r = packet_push(s, to, m)) == 1) {
        int err;
        if (nonblock || !c->blocker)
            return -EAGAIN;
        WAIT_EVENT(&to->wq, c->blocker, EPOLLOUT | EPOLLHUP, deadline, packet_can_push(to), err);
        if (err)
            return sock_wait_error(err, s->base.sndtimeo_ns);
    }
    return r;
}

/* A datagram socket forgets a peer that is gone. */
static void packet_forget_peer(struct unix_sock *s, struct unix_sock *to)
{
    struct unix_sock *old = NULL;

    mutex_lock(&s->mu);
    if (s->peer == to) {
        old = s->peer;
        s->peer = NULL;
        s->state = UNIX_IDLE;
    }
    mutex_unlock(&s->mu);
    if (old)
        unix_put(old);
}

/* Where a packet goes. Owned. */
static int packet_target(struct unix_sock *s, const struct sock_msg *m, const struct vfs_caller *c,
                         struct unix_sock **out)
{
    const int error = atomic_exchange(&s->base.error, 0);
    struct unix_sock *peer;

    if (error)
        return error;
    const enum unix_state state = send_state(s, &peer);
    if (!unix_is_dgram(s)) {
        if (state != UNIX_CONNECTED || !peer) {
            if (peer)
                unix_put(peer);
            return -ENOTCONN;
        }
    } else if (m->to) {
        struct unix_sock *to;
        const struct unix_sock *known = peer;
        int r = unix_find(s->base.net, m->to, SOCK_DGRAM, c, &to);
        if (peer)
            unix_put(peer);
        if (r)
            return r;
        r = to != known ? unix_scope(to, c) : 0;
        if (r)
            unix_put(to);
        else
            *out = to;
        return r;
    }
    if (!peer)
        return -ENOTCONN;
    *out = peer;
    return 0;
}

int64_t unix_packet_send(struct sock *base, struct sock_msg *m, bool nonblock,
                         const struct vfs_caller *c)
{
    struct unix_sock *s = unix_of(base), *to;
    const deadline_t deadline = sock_deadline(base->sndtimeo_ns);
    const uint64_t size = m->u->left;
    struct unix_host *host = unix_host_of(s);
    struct unix_msg *msg;

    if (m->flags & MSG_OOB)
        return -EOPNOTSUPP;
    if (UNLIKELY(host != NULL))
        return unix_host_send(s, host, m, nonblock, c);
    int r = packet_target(s, m, c, &to);
    if (r)
        return r;
    if (unix_passes_cred(s))
        r = unix_autobind(s);
    if (r == 0 && size > base->sndbuf - 32)
        r = -EMSGSIZE;
    if (r == 0 && send_is_shut(s))
        r = -EPIPE;
    if (r == 0)
        r = send_wait_room(s, nonblock, deadline, c);
    if (r == 0 && send_is_shut(s))
        r = -EPIPE;
    if (r == 0)
        r = msg_new(s, m->u, size, c, &msg);
    if (r)
        goto out_put;
    r = msg->size < size ? -EFAULT : msg_attach(to, msg, m->control, c);
    const bool passes = r == 0 && packet_passes(to, msg);
    if (passes)
        r = packet_push_wait(s, to, msg, nonblock, deadline, c);
    if (r || !passes)
        msg_discard(to, msg);
    if (r == -ECONNREFUSED && unix_is_dgram(s))
        packet_forget_peer(s, to);
out_put:
    unix_put(to);
    return r ? r : (int64_t)size;
}

/* ---- receiving ---- */

/* What one call gathers while the queue's lock is held, and does after it. */
struct unix_recv {
    struct sock_msg *m;
    struct list done;         /* messages that are read to the end */
    struct sock_control drop; /* files nobody asked for */
    bool started;             /* m->from and the credentials are filled in */
    int64_t copied;
};

static void recv_init(struct unix_recv *x, struct sock_msg *m)
{
    memset(x, 0, sizeof(*x));
    x->m = m;
    list_init(&x->done);
}

static void recv_finish(struct unix_sock *s, struct unix_recv *x)
{
    unix_msg_free_list(s->base.net, &x->done);
    sock_control_fini(&x->drop);
}

static int recv_peek_files(const struct unix_msg *msg, struct sock_control *out)
{
    out->files = calloc(msg->ctl.file_count, sizeof(struct file *));
    if (!out->files)
        return -ENOMEM;
    for (size_t i = 0; i < msg->ctl.file_count; i++)
        out->files[i] = file_get(msg->ctl.files[i]);
    out->file_count = msg->ctl.file_count;
    return 0;
}

/* Files go with the first byte of their message. */
static int recv_files(struct unix_sock *s, struct unix_recv *x, struct unix_msg *msg)
{
    struct sock_control *to = x->m->control ? x->m->control : &x->drop;

    if (msg->ctl.file_count == 0)
        return 0;
    if (x->m->flags & MSG_PEEK)
        return x->m->control ? recv_peek_files(msg, to) : 0;
    unix_scm_detach(s->base.net, msg);
    to->files = msg->ctl.files;
    to->file_count = msg->ctl.file_count;
    msg->ctl.files = NULL;
    msg->ctl.file_count = 0;
    return 0;
}

/* Who sent what is being read. */
static void recv_start(struct unix_sock *s, struct unix_recv *x, const struct unix_msg *msg)
{
    const struct unix_name *name = atomic_load(&msg->from->name);

    x->started = true;
    if (x->m->control) {
        x->m->control->has_cred = sock_option(&s->base, SO_PASSCRED);
        x->m->control->wants_pidfd = atomic_load(&s->passes_pidfd);
        x->m->control->cred = msg->ctl.cred;
        if (x->m->control->wants_pidfd)
            x->m->control->process = procref_get(msg->ctl.process);
    }
    if (!x->m->from)
        return;
    memset(x->m->from, 0, sizeof(*x->m->from));
    if (name)
        *x->m->from = name->addr;
}

static bool recv_same_sender(struct unix_sock *s, const struct unix_recv *x,
                             const struct unix_msg *msg)
{
    const struct sock_control *to = x->m->control;

    if (!x->started || !to || !unix_passes_cred(s))
        return true;
    return memcmp(&to->cred, &msg->ctl.cred, sizeof(msg->ctl.cred)) == 0 &&
           (!to->wants_pidfd || to->process == msg->ctl.process);
}

/* SO_PEEK_OFF, when it is on: a look goes on where the last one ended, and what is taken from the
 * front brings it nearer. s->mu held. */
static uint64_t peek_begin_locked(const struct unix_sock *s, const struct unix_recv *x)
{
    const int32_t off = atomic_load(&s->base.peek_off);

    return x->m->flags & MSG_PEEK && off > 0 ? (uint64_t)off : 0;
}

static void peek_move_locked(struct unix_sock *s, const struct unix_recv *x, size_t n)
{
    const int32_t off = atomic_load(&s->base.peek_off);

    if (off < 0)
        return;
    if (x->m->flags & MSG_PEEK)
        atomic_store(&s->base.peek_off,
                     (int32_t)MIN((int64_t)off + (int64_t)n, (int64_t)INT32_MAX));
    else
        atomic_store(&s->base.peek_off, off > (int64_t)n ? off - (int32_t)n : 0);
}

/* Reads from one message, skip bytes into what is left of it; returns whether the call goes on with
 * the next one. */
static bool stream_take(struct unix_sock *s, struct unix_recv *x, struct unix_msg *msg, size_t skip)
{
    const bool peek = x->m->flags & MSG_PEEK, files = msg->ctl.file_count > 0;
    struct uio *u = x->m->u;

    if (!recv_same_sender(s, x, msg))
        return false;
    const size_t from = msg->off + skip;
    const size_t want = (size_t)MIN(u->left, (uint64_t)(msg->size - from));
    int64_t n = uio_copy_to(u, msg->data + from, want);
    if (n >= 0 && !x->started)
        recv_start(s, x, msg);
    if (n >= 0) {
        int r = recv_files(s, x, msg);
        n = r ? r : n;
    }
    if (n < 0) {
        x->copied = x->copied ? x->copied : n;
        return false;
    }
    x->copied += n;
    peek_move_locked(s, x, (size_t)n);
    if (peek)
        return !files && (size_t)n == want;
    msg->off += (size_t)n;
    s->queue_bytes -= (size_t)n;
    if (msg->off < msg->size)
        return false;
    list_move_tail(&msg->node, &x->done);
    s->queue_count--;
    return !files;
}

/* ---- out of band (MSG_OOB; net/unix/af_unix.c, manage_oob, of the kernel) ---- */

/* What has been received out of band stays as an empty message, where reads end. */
static bool oob_is_spent(const struct unix_msg *msg)
{
    return msg->off == msg->size;
}

static void oob_drop_locked(struct unix_sock *s, struct unix_recv *x, struct unix_msg *msg)
{
    s->queue_bytes -= msg->size - msg->off;
    s->queue_count--;
    list_move_tail(&msg->node, &x->done);
}

enum oob_step { OOB_READ, OOB_NEXT, OOB_STOP };

/* What a read in line does with msg, which is the byte out of band or the place of one. */
static enum oob_step oob_step_locked(struct unix_sock *s, struct unix_recv *x, struct unix_msg *msg)
{
    const bool peek = x->m->flags & MSG_PEEK, in_line = sock_option(&s->base, SO_OOBINLINE);

    if (oob_is_spent(msg)) {
        if (x->copied > 0 && !s->oob)
            return OOB_STOP;
        if (!peek)
            oob_drop_locked(s, x, msg);
        return OOB_NEXT;
    }
    if (x->copied > 0)
        return OOB_STOP;
    if (!peek)
        s->oob = NULL;
    if (in_line)
        return OOB_READ;
    if (!peek)
        oob_drop_locked(s, x, msg);
    return OOB_NEXT;
}

static int64_t recv_oob(struct unix_sock *s, struct sock_msg *m)
{
    int64_t r = -EINVAL;

    mutex_lock(&s->mu);
    struct unix_msg *msg = s->state == UNIX_CONNECTED ? s->oob : NULL;
    if (msg && !sock_option(&s->base, SO_OOBINLINE)) {
        r = uio_copy_to(m->u, msg->data, 1) == 1 ? 1 : -EFAULT;
        if (!(m->flags & MSG_PEEK)) {
            s->oob = NULL;
            msg->off = msg->size;
            s->queue_bytes--;
        }
    }
    mutex_unlock(&s->mu);
    if (r > 0)
        m->out_flags |= MSG_OOB;
    return r;
}

int unix_at_mark(struct unix_sock *s)
{
    int yes = 0;

    mutex_lock(&s->mu);
    if (!list_empty(&s->queue)) {
        const struct unix_msg *first = list_first_entry(&s->queue, struct unix_msg, node);
        const bool next = s->oob && s->oob->node.prev == &first->node;
        yes = first == s->oob || (oob_is_spent(first) && (!s->oob || next));
    }
    mutex_unlock(&s->mu);
    return yes;
}

/* True: the call is over, with what is copied or the error in *out_err. */
static bool stream_pass(struct unix_sock *s, struct unix_recv *x, uint64_t target, int *out_err)
{
    struct unix_msg *msg, *next;
    bool more = true;

    *out_err = 0;
    mutex_lock(&s->mu);
    uint64_t skip = peek_begin_locked(s, x);
    if (s->state != UNIX_CONNECTED)
        *out_err = -EINVAL;
    list_for_each_entry_safe (msg, next, &s->queue, node) {
        if (*out_err || x->m->u->left == 0)
            break;
        if (UNLIKELY(msg == s->oob || oob_is_spent(msg))) {
            const enum oob_step step = oob_step_locked(s, x, msg);
            more = step != OOB_STOP;
            if (!more)
                break;
            if (step == OOB_NEXT)
                continue;
        }
        if (skip > 0 && skip >= msg->size - msg->off) {
            skip -= msg->size - msg->off;
            continue;
        }
        more = stream_take(s, x, msg, (size_t)skip);
        skip = 0;
        if (!more)
            break;
    }
    bool over = *out_err || !more || x->copied < 0 || (uint64_t)x->copied >= target;
    if (!over) {
        *out_err = atomic_exchange(&s->base.error, 0);
        over = *out_err || s->shutdown & UNIX_RD;
    }
    mutex_unlock(&s->mu);
    return over;
}

/* Whether a look would find anything: not what has been seen, nor a byte out of band. */
static bool peek_finds_locked(struct unix_sock *s, const struct unix_recv *x)
{
    const bool packets = s->base.type != SOCK_STREAM;
    uint64_t skip = peek_begin_locked(s, x);
    const struct unix_msg *msg;

    list_for_each_entry (msg, &s->queue, node) {
        const uint64_t left = msg->size - msg->off;
        if (msg == s->oob && !sock_option(&s->base, SO_OOBINLINE))
            continue;
        if (skip < left || (packets && skip == 0))
            return true;
        skip -= left;
    }
    return false;
}

static bool recv_ready(struct unix_sock *s, const struct unix_recv *x)
{
    mutex_lock(&s->mu);
    const bool some = x->m->flags & MSG_PEEK ? peek_finds_locked(s, x) : s->queue_count > 0;
    const bool yes = some || s->shutdown & UNIX_RD || atomic_load(&s->base.error);
    mutex_unlock(&s->mu);
    return yes;
}

static int recv_wait(struct unix_sock *s, const struct unix_recv *x, bool nonblock,
                     deadline_t deadline, const struct vfs_caller *c)
{
    int err;

    if (nonblock || !c->blocker)
        return -EAGAIN;
    WAIT_EVENT(&s->wq, c->blocker, EPOLLIN | EPOLLHUP | EPOLLERR, deadline, recv_ready(s, x), err);
    return sock_wait_error(err, s->base.rcvtimeo_ns);
}

int64_t unix_stream_recv(struct sock *base, struct sock_msg *m, bool nonblock,
                         const struct vfs_caller *c)
{
    struct unix_sock *s = unix_of(base);
    const deadline_t deadline = sock_deadline(base->rcvtimeo_ns);
    const uint64_t size = m->u->left;
    const uint64_t target = m->flags & MSG_WAITALL ? size : MIN(size, (uint64_t)base->rcvlowat);
    struct unix_host *host = unix_host_of(s);
    struct unix_recv x;
    int err;

    if (UNLIKELY(host != NULL))
        return unix_host_recv(s, host, m, nonblock, c);
    if (m->flags & MSG_OOB)
        return recv_oob(s, m);
    recv_init(&x, m);
    while (!stream_pass(s, &x, target, &err)) {
        /* A look does not wait for more than there is. */
        if (x.copied > 0 && m->flags & MSG_PEEK)
            break;
        recv_finish(s, &x);
        err = recv_wait(s, &x, nonblock, deadline, c);
        if (err)
            break;
    }
    recv_finish(s, &x);
    return x.copied ? x.copied : err;
}

/* ---- receiving packets ---- */

/* The packet that a look finds, and how far into it that begins; NULL: none so far in. */
static struct unix_msg *packet_find_locked(struct unix_sock *s, const struct unix_recv *x,
                                           size_t *out_skip)
{
    uint64_t skip = peek_begin_locked(s, x);
    struct unix_msg *msg;

    list_for_each_entry (msg, &s->queue, node) {
        *out_skip = (size_t)skip;
        if (skip == 0 || skip < msg->size)
            return msg;
        skip -= msg->size;
    }
    return NULL;
}

static int64_t packet_take(struct unix_sock *s, struct unix_recv *x, struct unix_msg *msg,
                           size_t skip, bool *out_room)
{
    struct sock_msg *m = x->m;
    const size_t left = msg->size - skip, want = (size_t)MIN(m->u->left, (uint64_t)left);
    int64_t n = uio_copy_to(m->u, msg->data + skip, want);

    if (n >= 0 && (size_t)n < want)
        n = -EFAULT;
    if (n >= 0)
        peek_move_locked(s, x, m->flags & MSG_PEEK ? want : msg->size);
    recv_start(s, x, msg);
    int r = n < 0 ? 0 : recv_files(s, x, msg);
    if (r)
        n = r;
    if (!(m->flags & MSG_PEEK)) {
        *out_room = unix_is_full_locked(s);
        unix_scm_detach(s->base.net, msg);
        list_move_tail(&msg->node, &x->done);
        s->queue_count--;
        s->queue_bytes -= msg->size;
    }
    if (n < 0)
        return n;
    if (!unix_is_dgram(s))
        m->out_flags |= MSG_EOR;
    if (want < left)
        m->out_flags |= MSG_TRUNC;
    return m->flags & MSG_TRUNC ? (int64_t)left : n;
}

/* True: over, with *out. */
static bool packet_pass(struct unix_sock *s, struct unix_recv *x, bool nonblock, int64_t *out)
{
    bool over = true, room = false;
    struct unix_msg *msg;
    size_t skip = 0;

    mutex_lock(&s->mu);
    if (!unix_is_dgram(s) && s->state != UNIX_CONNECTED)
        *out = -ENOTCONN;
    else if ((*out = atomic_exchange(&s->base.error, 0)) != 0)
        over = true;
    else if ((msg = packet_find_locked(s, x, &skip)) != NULL)
        *out = packet_take(s, x, msg, skip, &room);
    else if (s->shutdown & UNIX_RD && (!nonblock || !unix_is_dgram(s)))
        *out = 0;
    else
        over = false;
    mutex_unlock(&s->mu);
    if (room)
        unix_room(s);
    return over;
}

int64_t unix_packet_recv(struct sock *base, struct sock_msg *m, bool nonblock,
                         const struct vfs_caller *c)
{
    struct unix_sock *s = unix_of(base);
    const deadline_t deadline = sock_deadline(base->rcvtimeo_ns);
    struct unix_host *host = unix_host_of(s);
    struct unix_recv x;
    int64_t n = 0;

    if (m->flags & MSG_OOB)
        return -EOPNOTSUPP;
    if (UNLIKELY(host != NULL))
        return unix_host_recv(s, host, m, nonblock, c);
    recv_init(&x, m);
    while (!packet_pass(s, &x, nonblock, &n)) {
        n = recv_wait(s, &x, nonblock, deadline, c);
        if (n)
            break;
    }
    if (n >= 0 && m->control)
        sock_stamp_now(base, m->control);
    recv_finish(s, &x);
    return n;
}

/* ---- closing ---- */

void unix_purge(struct unix_sock *s)
{
    struct unix_sock *p;
    struct unix_msg *m;
    struct list all;

    list_init(&all);
    mutex_lock(&s->mu);
    list_splice_tail(&s->queue, &all);
    s->queue_count = s->queue_bytes = 0;
    s->oob = NULL;
    list_for_each_entry (p, &s->pending, pending_node) {
        mutex_lock_nested(&p->mu);
        list_splice_tail(&p->queue, &all);
        p->queue_count = p->queue_bytes = 0;
        p->oob = NULL;
        mutex_unlock(&p->mu);
    }
    mutex_unlock(&s->mu);
    list_for_each_entry (m, &all, node)
        unix_scm_detach(s->base.net, m);
    unix_msg_free_list(s->base.net, &all);
    unix_room(s);
}
