/* AF_INET and AF_INET6: the namespace's part, and socket(2). */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/net/inet/inet_priv.h"

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
    if (!net_capable(n, c->cred, CAP_NET_RAW))
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
        if (protocol != IPPROTO_IP && protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE)
            return -EPROTONOSUPPORT;
        return udp_create(n, family, protocol ? protocol : IPPROTO_UDP, c, out_sock);
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
    list_init(&s->all);
}

void inet_sock_show(struct inet_sock *s)
{
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
