/* AF_INET and AF_INET6: the namespace's part, socket(2), and looking at sockets. */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/net/inet/dgram_priv.h"
#include "sentry/net/inet/tcp_priv.h"

#define INET_PROTO_MAX 263

int inet_new(struct inet **out)
{
    struct inet *in = calloc(1, sizeof(*in));

    if (!in)
        return -ENOMEM;
    int r = timer_service_new(&in->timers);
    if (r) {
        free(in);
        return r;
    }
    for (unsigned t = 0; t < INET_TABLES; t++) {
        for (unsigned i = 0; i < INET_BUCKETS; i++) {
            mutex_init(&in->tables[t][i].mu, LOCK_RANK_INET_PORTS);
            list_init(&in->tables[t][i].ports);
        }
    }
    for (unsigned i = 0; i < INET_TUPLE_LOCKS; i++)
        mutex_init(&in->tuple_mu[i], LOCK_RANK_INET_PORTS);
    mutex_init(&in->all_mu, LOCK_RANK_INET_PORTS);
    list_init(&in->all);
    mutex_init(&in->closed_mu, LOCK_RANK_LEAF);
    list_init(&in->closed);
    *out = in;
    return 0;
}

void inet_free(struct inet *in)
{
    if (!in)
        return;
    tcp_closed_expire(in, true);
    timer_service_free(in->timers);
    for (unsigned t = 0; t < INET_TABLES; t++)
        for (unsigned i = 0; i < INET_BUCKETS; i++)
            mutex_destroy(&in->tables[t][i].mu);
    for (unsigned i = 0; i < INET_TUPLE_LOCKS; i++)
        mutex_destroy(&in->tuple_mu[i]);
    mutex_destroy(&in->all_mu);
    mutex_destroy(&in->closed_mu);
    free(in);
}

/* ---- socket(2) ---- */

static int create_raw(struct net *n, int family, int protocol, const struct vfs_caller *c,
                      struct sock **out_sock)
{
    if (protocol == IPPROTO_IP)
        return -EPROTONOSUPPORT;
    if (!cred_capable(c->cred, CAP_NET_RAW))
        return -EPERM;
    return raw_create(n, family, protocol, c, out_sock);
}

int inet_create(struct net *n, int family, int type, int protocol, const struct vfs_caller *c,
                struct sock **out_sock)
{
    const int ping = family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;

    if (protocol < 0 || protocol >= INET_PROTO_MAX)
        return -EINVAL;
    switch (type) {
    case SOCK_STREAM:
        if (protocol != IPPROTO_IP && protocol != IPPROTO_TCP)
            return -EPROTONOSUPPORT;
        return tcp_create(n, family, c, out_sock);
    case SOCK_DGRAM:
        if (protocol == ping)
            return ping_create(n, family, protocol, c, out_sock);
        if (protocol != IPPROTO_IP && protocol != IPPROTO_UDP)
            return -EPROTONOSUPPORT;
        return udp_create(n, family, IPPROTO_UDP, c, out_sock);
    case SOCK_RAW:
        return create_raw(n, family, protocol, c, out_sock);
    default:
        return -ESOCKTNOSUPPORT;
    }
}

void inet_sock_init(struct inet_sock *s, const struct sock_ops *ops, struct net *n, int family,
                    int type, int protocol, const struct vfs_caller *c)
{
    const uint64_t opts = UINT64_C(1) << INET_MC_LOOP | UINT64_C(1) << INET_MC_ALL |
                          UINT64_C(1) << INET_MC_LOOP6 | UINT64_C(1) << INET_MC_ALL6 |
                          UINT64_C(1) << INET_AUTOFLOW;

    sock_init(&s->base, ops, n, family, type, protocol);
    waitq_init(&s->wq);
    mutex_init(&s->mu, LOCK_RANK_SOCKET);
    s->in = net_inet(n);
    s->uid = c ? c->cred->fsuid : 0;
    list_init(&s->owner);
    list_init(&s->listening);
    list_init(&s->members);
    list_init(&s->errors);
    atomic_init(&s->opts, opts);
    atomic_init(&s->ttl, -1);
    atomic_init(&s->hops, -1);
    atomic_init(&s->mc_ttl, 1);
    atomic_init(&s->mc_hops, 1);
    atomic_init(&s->pmtu, IP_PMTUDISC_WANT);
    atomic_init(&s->pmtu6, IPV6_PMTUDISC_WANT);
    mutex_lock(&s->in->all_mu);
    list_add_tail(&s->all, &s->in->all);
    mutex_unlock(&s->in->all_mu);
}

void inet_sock_fini(struct inet_sock *s)
{
    mutex_lock(&s->in->all_mu);
    list_del(&s->all);
    mutex_unlock(&s->in->all_mu);
    inet_mcast_free(s);
    inet_error_free(s);
    waitq_fini(&s->wq);
    mutex_destroy(&s->mu);
}

int inet_no_listen(struct sock *s, int backlog, const struct vfs_caller *c)
{
    (void)s;
    (void)backlog;
    (void)c;
    return -EOPNOTSUPP;
}

int inet_no_accept(struct sock *s, bool nonblock, const struct vfs_caller *c,
                   struct sock **out_sock)
{
    (void)s;
    (void)nonblock;
    (void)c;
    (void)out_sock;
    return -EOPNOTSUPP;
}

/* ---- looking at sockets ---- */

static void info_tcp(struct tcp_sock *s, struct inet_info *out)
{
    out->state = (int)tcp_state(s);
    out->shutdown = s->shut;
    if (out->state == TCP_LISTEN) {
        out->rqueue = s->accept_count;
        out->wqueue = s->backlog;
        return;
    }
    out->rqueue = tcp_queued(s);
    if (s->peer) {
        const uint64_t have = tcp_queued(s->peer), window = tcp_window(s->peer);
        out->wqueue = have > window ? have - window : 0;
    }
}

static void info_of(struct inet_sock *s, struct inet_info *out)
{
    memset(out, 0, sizeof(*out));
    out->family = s->base.family;
    out->type = s->base.type;
    out->protocol = s->base.protocol;
    out->v6only = inet_opt(s, INET_V6ONLY);
    out->uid = s->uid;
    out->mark = s->base.mark;
    out->refs = ref_read(&s->base.ref);
    out->cookie = s->base.cookie;
    mutex_lock(&s->mu);
    out->local = s->local;
    out->remote = s->remote;
    out->state = s->remote.addr.family ? TCP_ESTABLISHED : TCP_CLOSE;
    const bool closed = s->base.type == SOCK_STREAM && tcp_of_inet(s)->closed;
    if (s->base.type == SOCK_STREAM)
        info_tcp(tcp_of_inet(s), out);
    else
        dgram_info_locked(s, out);
    /* The file goes before the socket may. */
    out->inode = closed || !s->base.file ? 0 : s->base.file->inode->ino;
    mutex_unlock(&s->mu);
}

static bool info_wanted(const struct inet_sock *s, int family, int protocol)
{
    return (family == 0 || s->base.family == family) && s->base.protocol == protocol;
}

/* References on all sockets that are wanted: owned array, its length in *out_count. */
static int info_gather(struct inet *in, int family, int protocol, struct inet_sock ***out,
                       size_t *out_count)
{
    size_t n = 0, i = 0;
    struct inet_sock *s;

    mutex_lock(&in->all_mu);
    list_for_each_entry (s, &in->all, all)
        n += info_wanted(s, family, protocol);
    struct inet_sock **v = calloc(n + 1, sizeof(struct inet_sock *));
    if (v) {
        list_for_each_entry (s, &in->all, all)
            if (info_wanted(s, family, protocol) && ref_tryget(&s->base.ref))
                v[i++] = s;
    }
    mutex_unlock(&in->all_mu);
    if (!v)
        return -ENOMEM;
    *out = v;
    *out_count = i;
    return 0;
}

static int info_closed(struct inet *in, int family, inet_info_fn fn, void *arg)
{
    size_t count = 0, i = 0;
    struct tcp_closed *c;
    int r = 0;

    tcp_closed_expire(in, false);
    mutex_lock(&in->closed_mu);
    struct inet_info *v = calloc(in->closed_count + 1, sizeof(*v));
    if (v) {
        const uint64_t now = mono_now();
        list_for_each_entry (c, &in->closed, node) {
            if (family && c->family != family)
                continue;
            v[count++] = (struct inet_info){.family = c->family,
                                            .type = SOCK_STREAM,
                                            .protocol = IPPROTO_TCP,
                                            .state = TCP_TIME_WAIT,
                                            .local = c->local,
                                            .remote = c->remote,
                                            .refs = 3,
                                            .timer = 3,
                                            .timer_ns = c->expires > now ? c->expires - now : 0};
        }
    }
    mutex_unlock(&in->closed_mu);
    if (!v)
        return -ENOMEM;
    for (; i < count && r == 0; i++)
        r = fn(arg, &v[i], NULL);
    free(v);
    return r;
}

int inet_for_each(struct net *n, int family, int protocol, inet_info_fn fn, void *arg)
{
    struct inet *in = net_inet(n);
    struct inet_sock **v;
    size_t count;
    int r = info_gather(in, family, protocol, &v, &count);

    if (r)
        return r;
    for (size_t i = 0; i < count; i++) {
        struct inet_info info;
        info_of(v[i], &info);
        /* Sockets that no packet could reach are not shown. */
        const bool shown = info.local.port != 0 || info.type == SOCK_RAW;
        if (r == 0 && shown && !(info.type == SOCK_STREAM && info.state == TCP_CLOSE))
            r = fn(arg, &info, &v[i]->base);
        sock_put(&v[i]->base);
    }
    free(v);
    return r == 0 && protocol == IPPROTO_TCP ? info_closed(in, family, fn, arg) : r;
}
