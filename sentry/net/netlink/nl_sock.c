/* The sockets: numbers, groups, queues (af_netlink.c of the kernel). */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/hash.h"
#include "base/objcount.h"
#include "sentry/errno_internal.h"
#include "sentry/net/filter.h"
#include "sentry/net/netlink/nl_priv.h"

/* What a queued message costs beside its bytes. */
#define NL_MSG_COST 128u
#define NL_AUTOBIND_TRIES 64u

OBJCOUNT_DEFINE(nl_sock);

/* ---- the table ---- */

int netlink_new(struct net *n, struct netns *ns, struct nl_table **out_table)
{
    struct nl_table *t = calloc(1, sizeof(*t));

    if (!t)
        return -ENOMEM;
    t->net = n;
    t->ns = ns;
    mutex_init(&t->mu, LOCK_RANK_NETLINK);
    list_init(&t->socks);
    netns_set_events(ns, &nl_events, t);
    *out_table = t;
    return 0;
}

void netlink_free(struct nl_table *t)
{
    if (!t)
        return;
    netns_set_events(t->ns, NULL, NULL);
    mutex_destroy(&t->mu);
    free(t);
}

void netlink_for_each(struct nl_table *t, nl_info_fn fn, void *arg)
{
    struct nl_sock *s;

    mutex_lock(&t->mu);
    list_for_each_entry (s, &t->socks, node) {
        struct nl_info i = {.protocol = s->base.protocol,
                            .portid = s->portid,
                            .groups = (uint32_t)s->groups,
                            .inode = s->base.file ? s->base.file->inode->ino : 0};
        mutex_lock(&s->mu);
        i.queued = s->queue_bytes;
        i.drops = s->drops;
        i.dumping = s->dump.fill != NULL;
        mutex_unlock(&s->mu);
        fn(arg, &i);
    }
    mutex_unlock(&t->mu);
}

/* ---- delivery ---- */

int nl_deliver(struct nl_sock *s, const void *data, size_t size, uint32_t from, uint32_t group,
               const struct sock_cred *cred)
{
    const struct sock_frame f = {
        .data = data, .size = size, .protocol = (uint16_t)s->base.protocol};
    const uint32_t taken = sock_filter_run(&s->base, &f);
    int r = 0;

    if (taken == 0)
        return 0;
    size = MIN(size, (size_t)taken);
    struct nl_msg *m = malloc(sizeof(*m) + size);
    mutex_lock(&s->mu);
    if (!m || s->queue_bytes + size + NL_MSG_COST > s->base.rcvbuf) {
        r = -ENOBUFS;
        s->drops++;
        if (!nl_option(s, NETLINK_NO_ENOBUFS) && !s->congested) {
            s->congested = true;
            atomic_store(&s->base.error, -ENOBUFS);
        }
    } else {
        *m = (struct nl_msg){.from = from, .group = group, .cred = *cred, .size = size};
        memcpy(m->data, data, size);
        list_add_tail(&m->node, &s->queue);
        s->queue_bytes += size + NL_MSG_COST;
    }
    mutex_unlock(&s->mu);
    if (r)
        free(m);
    (void)waitq_wake(&s->wq, r ? EPOLLERR : EPOLLIN | EPOLLRDNORM);
    return r;
}

void netlink_tell(struct sock *s, const void *data, size_t size)
{
    static const struct sock_cred kernel = {.pid = 0};

    (void)!nl_deliver(nl_of(s), data, size, 0, 0, &kernel);
}

static bool in_group(const struct nl_sock *s, int protocol, uint32_t group)
{
    return s->base.protocol == protocol && group >= 1 && group <= NL_GROUPS &&
           atomic_load(&s->groups) >> (group - 1) & 1;
}

void nl_multicast(struct nl_table *t, int protocol, uint32_t group, const void *data, size_t size,
                  uint32_t from, const struct nl_sock *except, const struct sock_cred *cred)
{
    struct nl_sock *s;

    mutex_lock(&t->mu);
    list_for_each_entry (s, &t->socks, node) {
        if (s != except && in_group(s, protocol, group))
            (void)!nl_deliver(s, data, size, from, group, cred);
    }
    mutex_unlock(&t->mu);
}

bool nl_has_listeners(struct nl_table *t, int protocol, uint32_t group)
{
    struct nl_sock *s;
    bool yes = false;

    mutex_lock(&t->mu);
    list_for_each_entry (s, &t->socks, node) {
        yes |= in_group(s, protocol, group);
    }
    mutex_unlock(&t->mu);
    return yes;
}

static struct nl_sock *find_port_locked(struct nl_table *t, int protocol, uint32_t portid)
{
    struct nl_sock *s;

    list_for_each_entry (s, &t->socks, node) {
        if (s->base.protocol == protocol && atomic_load(&s->portid) == portid)
            return s;
    }
    return NULL;
}

/* ---- life ---- */

static void nl_release(struct sock *base)
{
    struct nl_sock *s = nl_of(base);

    while (!list_empty(&s->queue)) {
        struct nl_msg *m = list_first_entry(&s->queue, struct nl_msg, node);
        list_del(&m->node);
        free(m);
    }
    waitq_fini(&s->wq);
    mutex_destroy(&s->mu);
    OBJCOUNT_DEC(nl_sock);
    free(s);
}

/* Nobody finds it any more; a notice that is being handed out is through with it. */
static void nl_close(struct sock *base)
{
    struct nl_sock *s = nl_of(base);

    mutex_lock(&s->table->mu);
    list_del(&s->node);
    mutex_unlock(&s->table->mu);
}

/* ---- names ---- */

static int take_portid(struct nl_sock *s, uint32_t portid)
{
    int r = 0;

    mutex_lock(&s->table->mu);
    if (atomic_load(&s->portid))
        r = atomic_load(&s->portid) == portid ? 0 : -EINVAL;
    else if (find_port_locked(s->table, s->base.protocol, portid))
        r = -EADDRINUSE;
    else
        atomic_store(&s->portid, portid);
    mutex_unlock(&s->table->mu);
    return r;
}

/* The caller's process id, or some number that no process has. */
int nl_autobind(struct nl_sock *s, const struct vfs_caller *c)
{
    int r = take_portid(s, (uint32_t)c->tgid);

    for (unsigned i = 0; i < NL_AUTOBIND_TRIES && r == -EADDRINUSE; i++) {
        const uint64_t x = hash_seeded_u64((uint64_t)(uintptr_t)s, mono_now() + i);
        r = take_portid(s, (uint32_t)-4097 - (uint32_t)(x % 0x3fffffff));
    }
    /* Another thread was quicker: the socket has a number. */
    return r == -EINVAL ? 0 : r;
}

static int nl_addr(const struct sock_addr *a, struct sockaddr_nl *out)
{
    if (a->len < sizeof(*out))
        return -EINVAL;
    memcpy(out, &a->storage, sizeof(*out));
    return out->nl_family == AF_NETLINK ? 0 : -EINVAL;
}

static int nl_bind(struct sock *base, const struct sock_addr *a, const struct vfs_caller *c)
{
    struct nl_sock *s = nl_of(base);
    struct sockaddr_nl nl;
    int r = nl_addr(a, &nl);

    if (r)
        return r;
    if (atomic_load(&s->portid) && nl.nl_pid && nl.nl_pid != atomic_load(&s->portid))
        return -EINVAL;
    if (!atomic_load(&s->portid))
        r = nl.nl_pid ? take_portid(s, nl.nl_pid) : nl_autobind(s, c);
    if (r)
        return r;
    mutex_lock(&s->table->mu);
    atomic_store(&s->groups, (atomic_load(&s->groups) & ~(uint64_t)UINT32_MAX) | nl.nl_groups);
    mutex_unlock(&s->table->mu);
    return 0;
}

static int nl_connect(struct sock *base, const struct sock_addr *a, bool nonblock,
                      const struct vfs_caller *c)
{
    struct nl_sock *s = nl_of(base);
    struct sockaddr_nl nl;
    int r = 0;

    (void)nonblock;
    if (a->len < sizeof(sa_family_t))
        return -EINVAL;
    memset(&nl, 0, sizeof(nl));
    if (a->family != AF_UNSPEC) {
        r = nl_addr(a, &nl);
        if (r == 0 && (nl.nl_groups || nl.nl_pid) &&
            !net_capable(base->net, c->cred, CAP_NET_ADMIN) && base->protocol != NETLINK_USERSOCK)
            r = -EPERM;
        if (r == 0 && !atomic_load(&s->portid))
            r = nl_autobind(s, c);
    }
    if (r)
        return r;
    mutex_lock(&s->mu);
    s->dst_portid = nl.nl_pid;
    s->dst_groups = nl.nl_groups;
    mutex_unlock(&s->mu);
    return 0;
}

static void put_addr(struct sock_addr *out, uint32_t portid, uint32_t groups)
{
    const struct sockaddr_nl nl = {.nl_family = AF_NETLINK, .nl_pid = portid, .nl_groups = groups};

    memset(out, 0, sizeof(*out));
    memcpy(&out->storage, &nl, sizeof(nl));
    out->len = sizeof(nl);
}

static int nl_getname(struct sock *base, bool peer, struct sock_addr *out)
{
    struct nl_sock *s = nl_of(base);

    mutex_lock(&s->mu);
    if (peer)
        put_addr(out, s->dst_portid, s->dst_groups);
    else
        put_addr(out, atomic_load(&s->portid), (uint32_t)atomic_load(&s->groups));
    mutex_unlock(&s->mu);
    return 0;
}

/* ---- sending ---- */

static int to_user(struct nl_sock *s, uint32_t portid, uint32_t group, const void *data,
                   size_t size, const struct vfs_caller *c)
{
    const struct sock_cred cred = {c->tgid, c->cred->uid, c->cred->gid};
    struct nl_sock *to = NULL;

    if (!net_capable(s->base.net, c->cred, CAP_NET_ADMIN))
        return -EPERM;
    if (group)
        nl_multicast(s->table, s->base.protocol, group, data, size, atomic_load(&s->portid), s,
                     &cred);
    if (!portid)
        return 0;
    mutex_lock(&s->table->mu);
    to = find_port_locked(s->table, s->base.protocol, portid);
    const int r =
        to ? nl_deliver(to, data, size, atomic_load(&s->portid), 0, &cred) : -ECONNREFUSED;
    mutex_unlock(&s->table->mu);
    return r == -ENOBUFS ? -EAGAIN : r;
}

static int nl_target(struct nl_sock *s, const struct sock_msg *m, uint32_t *portid, uint32_t *group)
{
    struct sockaddr_nl nl;
    int r;

    if (m->to && m->to->len > 0) {
        r = nl_addr(m->to, &nl);
        if (r)
            return r;
        *portid = nl.nl_pid;
        *group = nl.nl_groups ? (uint32_t)__builtin_ffs((int)nl.nl_groups) : 0;
        return 0;
    }
    mutex_lock(&s->mu);
    *portid = s->dst_portid;
    *group = s->dst_groups ? (uint32_t)__builtin_ffs((int)s->dst_groups) : 0;
    mutex_unlock(&s->mu);
    return 0;
}

static int64_t nl_send(struct sock *base, struct sock_msg *m, bool nonblock,
                       const struct vfs_caller *c)
{
    struct nl_sock *s = nl_of(base);
    const size_t size = (size_t)m->u->left;
    uint32_t portid, group;

    (void)nonblock;
    if (m->flags & MSG_OOB)
        return -EOPNOTSUPP;
    int r = nl_target(s, m, &portid, &group);
    if (r == 0 && !atomic_load(&s->portid))
        r = nl_autobind(s, c);
    if (r)
        return r;
    if (size > base->sndbuf - 32)
        return -EMSGSIZE;
    uint8_t *buf = malloc(size + 1);
    if (!buf)
        return -ENOBUFS;
    const int64_t n = uio_copy_from(m->u, buf, size);
    if (n < 0 || (size_t)n != size)
        r = -EFAULT;
    else if (portid || group)
        r = to_user(s, portid, group, buf, size, c);
    else
        nl_request(s, buf, size, c);
    free(buf);
    return r ? r : (int64_t)size;
}

/* ---- dumps ---- */

/* The next piece into the queue; the last one ends with NLMSG_DONE. mu held. */
static int dump_piece_locked(struct nl_sock *s)
{
    struct nl_dump *d = &s->dump;
    struct nl_msg *m = malloc(sizeof(*m) + NL_CHUNK);
    struct wbuf w;

    if (!m)
        return -ENOBUFS;
    wbuf_init(&w, m->data, NL_CHUNK);
    const uint32_t now = netns_generation(d->table->ns);
    d->interrupted |= now != d->generation;
    const int more = d->fill(d, &w);
    if (!more) {
        const int32_t none = 0;
        const uint16_t flags = (uint16_t)(NLM_F_MULTI | (d->interrupted ? NLM_F_DUMP_INTR : 0));
        const size_t saved = w.len, start = nl_begin(&w, NLMSG_DONE, flags, d->seq, d->portid);
        wbuf_bytes(&w, &none, sizeof(none));
        nl_end(&w, start);
        if (NL_DUMP_ROW(&w, saved))
            d->fill = NULL;
    }
    *m = (struct nl_msg){.size = w.len};
    list_add_tail(&m->node, &s->queue);
    s->queue_bytes += m->size + NL_MSG_COST;
    return 0;
}

int nl_dump_start(struct nl_req *q, nl_fill_fn fill, struct nl_dump *d)
{
    struct nl_sock *s = q->s;
    int r = 0;

    d->fill = fill;
    d->table = q->t;
    d->seq = q->h.nlmsg_seq;
    d->portid = atomic_load(&s->portid);
    d->generation = netns_generation(q->ns);
    d->strict = nl_option(s, NETLINK_GET_STRICT_CHK);
    mutex_lock(&s->mu);
    if (s->dump.fill) {
        r = -EBUSY;
    } else {
        s->dump = *d;
        r = s->queue_bytes < s->base.rcvbuf ? dump_piece_locked(s) : 0;
        if (r)
            s->dump.fill = NULL;
    }
    mutex_unlock(&s->mu);
    if (r)
        return r;
    (void)waitq_wake(&s->wq, EPOLLIN | EPOLLRDNORM);
    return -EINPROGRESS;
}

/* ---- receiving ---- */

static bool nl_ready(struct nl_sock *s)
{
    mutex_lock(&s->mu);
    if (list_empty(&s->queue) && s->dump.fill)
        (void)!dump_piece_locked(s);
    const bool yes = !list_empty(&s->queue);
    mutex_unlock(&s->mu);
    return yes || atomic_load(&s->base.error);
}

static int recv_wait(struct nl_sock *s, bool nonblock, const struct vfs_caller *c)
{
    const deadline_t deadline = sock_deadline(s->base.rcvtimeo_ns);
    int err = 0;

    if (nl_ready(s))
        return 0;
    if (nonblock || !c->blocker)
        return -EAGAIN;
    WAIT_EVENT(&s->wq, c->blocker, EPOLLIN | EPOLLERR, deadline, nl_ready(s), err);
    return sock_wait_error(err, s->base.rcvtimeo_ns);
}

/* Takes the first message out, or a copy when it stays there. 1: there is none. */
static int take(struct nl_sock *s, bool peek, struct nl_msg **out)
{
    int r = 1;

    mutex_lock(&s->mu);
    if (!list_empty(&s->queue)) {
        struct nl_msg *m = list_first_entry(&s->queue, struct nl_msg, node);
        r = 0;
        if (peek) {
            *out = malloc(sizeof(*m) + m->size);
            if (*out)
                memcpy(*out, m, sizeof(*m) + m->size);
            else
                r = -ENOBUFS;
        } else {
            list_del(&m->node);
            s->queue_bytes -= m->size + NL_MSG_COST;
            *out = m;
            if (list_empty(&s->queue)) {
                s->congested = false;
                if (s->dump.fill)
                    (void)!dump_piece_locked(s);
            }
        }
    }
    mutex_unlock(&s->mu);
    return r;
}

static int recv_control(struct nl_sock *s, const struct nl_msg *m, struct sock_msg *msg)
{
    const struct nl_pktinfo info = {.group = m->group};

    if (!msg->control)
        return 0;
    if (sock_option(&s->base, SO_PASSCRED)) {
        msg->control->has_cred = true;
        msg->control->cred = m->cred;
    }
    if (nl_option(s, NETLINK_PKTINFO))
        return sock_control_put(msg->control, SOL_NETLINK, NETLINK_PKTINFO, &info, sizeof(info));
    return 0;
}

static int64_t nl_recv(struct sock *base, struct sock_msg *msg, bool nonblock,
                       const struct vfs_caller *c)
{
    struct nl_sock *s = nl_of(base);
    struct nl_msg *m;
    int r;

    if (msg->flags & MSG_OOB)
        return -EOPNOTSUPP;
    do {
        r = atomic_exchange(&base->error, 0);
        if (r == 0)
            r = recv_wait(s, nonblock, c);
        if (r)
            return r;
        r = take(s, msg->flags & MSG_PEEK, &m);
    } while (r == 1);
    if (r)
        return r;
    int64_t n = m->size > 0 ? uio_copy_to(msg->u, m->data, m->size) : 0;
    if (n >= 0 && (size_t)n < m->size)
        msg->out_flags |= MSG_TRUNC;
    if (n >= 0 && msg->flags & MSG_TRUNC)
        n = (int64_t)m->size;
    if (msg->from)
        put_addr(msg->from, m->from, m->group >= 1 && m->group <= 32 ? 1u << (m->group - 1) : 0);
    r = recv_control(s, m, msg);
    free(m);
    return r && n >= 0 ? r : n;
}

static uint32_t nl_poll(struct sock *base, struct waiter *w)
{
    struct nl_sock *s = nl_of(base);

    if (w)
        waitq_add(&s->wq, w);
    return (nl_ready(s) ? EPOLLIN | EPOLLRDNORM : 0) | EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND |
           (atomic_load(&base->error) ? EPOLLERR : 0);
}

static int64_t nl_readable(struct sock *base)
{
    (void)base;
    return -ENOTTY; /* netlink_ioctl knows nothing */
}

/* ---- options ---- */

#define NL_FLAG_OPTIONS                                                                            \
    (1u << NETLINK_PKTINFO | 1u << NETLINK_BROADCAST_ERROR | 1u << NETLINK_NO_ENOBUFS |            \
     1u << NETLINK_CAP_ACK | 1u << NETLINK_EXT_ACK | 1u << NETLINK_GET_STRICT_CHK)

static int nl_getsockopt(struct sock *base, int level, int name, void *buf, socklen_t *len)
{
    struct nl_sock *s = nl_of(base);

    if (level != SOL_NETLINK)
        return -ENOPROTOOPT;
    if (name == NETLINK_LIST_MEMBERSHIPS) {
        const uint64_t groups = atomic_load(&s->groups);
        const int r = sock_put_option(buf, len, &groups, sizeof(groups));
        *len = sizeof(groups);
        return r;
    }
    if (name < 0 || name > 31 || !(NL_FLAG_OPTIONS >> name & 1))
        return -ENOPROTOOPT;
    if (*len < sizeof(int))
        return -EINVAL;
    const int v = nl_option(s, name);
    return sock_put_option(buf, len, &v, sizeof(v));
}

static int set_group(struct nl_sock *s, uint32_t group, bool on)
{
    if (group < 1 || group > NL_GROUPS)
        return -EINVAL;
    mutex_lock(&s->table->mu);
    if (on)
        atomic_fetch_or(&s->groups, UINT64_C(1) << (group - 1));
    else
        atomic_fetch_and(&s->groups, ~(UINT64_C(1) << (group - 1)));
    mutex_unlock(&s->table->mu);
    return 0;
}

static int nl_setsockopt(struct sock *base, int level, int name, const void *buf, socklen_t len,
                         const struct vfs_caller *c)
{
    struct nl_sock *s = nl_of(base);
    int32_t v;

    (void)c;
    if (level != SOL_NETLINK)
        return -ENOPROTOOPT;
    if (len < sizeof(v))
        return -EINVAL;
    memcpy(&v, buf, sizeof(v));
    if (name == NETLINK_ADD_MEMBERSHIP || name == NETLINK_DROP_MEMBERSHIP)
        return set_group(s, (uint32_t)v, name == NETLINK_ADD_MEMBERSHIP);
    if (name < 0 || name > 31 || !(NL_FLAG_OPTIONS >> name & 1))
        return -ENOPROTOOPT;
    if (v)
        atomic_fetch_or(&s->options, 1u << name);
    else
        atomic_fetch_and(&s->options, ~(1u << name));
    return 0;
}

static const struct sock_ops nl_ops = {
    .bind = nl_bind,
    .listen = sock_no_listen,
    .connect = nl_connect,
    .accept = sock_no_accept,
    .send = nl_send,
    .recv = nl_recv,
    .shutdown = sock_no_shutdown,
    .getname = nl_getname,
    .getsockopt = nl_getsockopt,
    .setsockopt = nl_setsockopt,
    .poll = nl_poll,
    .readable = nl_readable,
    .unsent = nl_readable,
    .close = nl_close,
    .release = nl_release,
};

int netlink_create(struct net *n, int family, int type, int protocol, const struct vfs_caller *c,
                   struct sock **out_sock)
{
    (void)c;
    if (type != SOCK_RAW && type != SOCK_DGRAM)
        return -ESOCKTNOSUPPORT;
    if (protocol != NETLINK_ROUTE && protocol != NETLINK_KOBJECT_UEVENT &&
        protocol != NETLINK_SOCK_DIAG)
        return -EPROTONOSUPPORT;
    struct nl_sock *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    sock_init(&s->base, &nl_ops, n, family, type, protocol);
    s->table = net_netlink(n);
    waitq_init(&s->wq);
    mutex_init(&s->mu, LOCK_RANK_NETLINK_SOCK);
    list_init(&s->queue);
    list_init(&s->node);
    mutex_lock(&s->table->mu);
    list_add_tail(&s->node, &s->table->socks);
    mutex_unlock(&s->table->mu);
    OBJCOUNT_INC(nl_sock);
    *out_sock = &s->base;
    return 0;
}
