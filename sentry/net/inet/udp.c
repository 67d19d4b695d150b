/* UDP (udp(7)): a datagram goes from queue to queue. */
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <linux/errqueue.h>

#include "sentry/net/inet/dgram_priv.h"
#include "sentry/net/packet/packet.h"

#define UDP_GROUP_MAX 256u
#define UDP_SEGMENTS_MAX 128u

static const struct sock_ops udp_ops;

int udp_create(struct net *n, int family, int protocol, const struct vfs_caller *c,
               struct sock **out_sock)
{
    struct dgram_sock *s;
    int r = dgram_new(n, &udp_ops, family, SOCK_DGRAM, protocol, c, &s);

    if (r == 0)
        *out_sock = &s->i.base;
    return r;
}

/* ---- delivery ---- */

static struct dgram *copy_of(struct inet *in, const struct inet_meta *meta, const void *data,
                             size_t size)
{
    struct dgram *d = dgram_alloc(in, size);

    if (!d)
        return NULL;
    d->meta = *meta;
    memcpy(d->data, data, size);
    return d;
}

/* To everyone who has the port and, for a group, hears it there. */
static void deliver_all(struct net *n, enum inet_table table, const struct inet_meta *meta,
                        const void *data, size_t size)
{
    struct inet_sock *all[UDP_GROUP_MAX];
    struct inet *in = net_inet(n);
    const bool group = net_addr_is_multicast(&meta->to.addr);
    const size_t count = inet_find_all(in, table, &meta->to, &meta->from, all, ARRAY_SIZE(all));
    bool joined = !group;

    /* What nobody joined does not come in at all, IP_MULTICAST_ALL or not. */
    for (size_t i = 0; i < count && !joined; i++)
        joined = inet_mcast_joined(all[i], &meta->to.addr, meta->ifindex);
    for (size_t i = 0; i < count; i++) {
        struct dgram *d = NULL;
        if (!joined)
            d = NULL;
        else if (!group ||
                 inet_mcast_wants(all[i], &meta->to.addr, meta->ifindex, &meta->from.addr))
            d = copy_of(in, meta, data, size);
        if (d)
            (void)dgram_queue(dgram_of_inet(all[i]), d);
        sock_put(&all[i]->base);
    }
}

/* Takes d. -ECONNREFUSED: nobody is there. */
static int deliver_one(struct inet *in, enum inet_table table, struct dgram *d)
{
    struct inet_sock *to = inet_find(in, table, &d->meta.to, &d->meta.from);

    if (!to) {
        atomic_fetch_add(&in->udp_no_ports, 1);
        dgram_free(in, d);
        return -ECONNREFUSED;
    }
    int r = dgram_queue(dgram_of_inet(to), d);
    sock_put(&to->base);
    if (r == 0)
        atomic_fetch_add_explicit(&in->udp_in, 1, memory_order_relaxed);
    return r == -ECONNREFUSED ? r : 0;
}

int inet_udp_input(struct net *n, const struct inet_packet *p)
{
    const struct inet_meta meta = {.from = p->from,
                                   .to = p->to,
                                   .ifindex = p->to.ifindex,
                                   .ttl = p->ttl,
                                   .tos = p->tos,
                                   .time_ns = p->time_ns};
    struct inet *in = net_inet(n);

    if (net_addr_is_multicast(&p->to.addr) || !inet_is_local(n, &p->to.addr)) {
        deliver_all(n, INET_UDP, &meta, p->payload, p->size);
        return 0;
    }
    struct dgram *d = copy_of(in, &meta, p->payload, p->size);
    return d ? deliver_one(in, INET_UDP, d) : 0;
}

/* What ICMP would say to s of a port where nobody is. */
static void refused(struct dgram_sock *s, const struct inet_meta *meta, const void *data,
                    size_t size)
{
    const bool v4 = meta->to.addr.family == AF_INET;
    const struct inet_icmp_error e = {
        .local = meta->from,
        .remote = meta->to,
        .protocol = (uint8_t)s->i.base.protocol,
        .origin = v4 ? SO_EE_ORIGIN_ICMP : SO_EE_ORIGIN_ICMP6,
        .type = v4 ? ICMP_DEST_UNREACH : ICMP6_DST_UNREACH,
        .code = v4 ? ICMP_PORT_UNREACH : ICMP6_DST_UNREACH_NOPORT,
        .error = ECONNREFUSED,
        .offender = meta->to.addr,
    };

    inet_error_add(&s->i, &e, data, size, true);
}

/* ---- sending ---- */

/* By a link. Takes d. UDP-Lite speaks on loopback alone. */
static int send_out(struct dgram_sock *s, const struct dgram_way *w, struct dgram *d)
{
    if (s->i.base.protocol == IPPROTO_UDPLITE) {
        dgram_free(s->i.in, d);
        return -ENETUNREACH;
    }
    const struct ext_dgram e = dgram_ext(s, w, d);
    struct uio u;

    uio_init_kernel(&u, d->data, d->size);
    const int64_t n = ext_udp_send(s->i.base.net, &e, &u);
    dgram_free(s->i.in, d);
    return n < 0 ? (int)n : 0;
}

/* It passes the loopback link, where packet sockets see it. */
static void tap_local(struct dgram_sock *s, const struct dgram *d)
{
    inet_lo_passed(s->i.base.net, d->meta.to.addr.family, 1, UDP_HEAD + d->size);
    if (LIKELY(!packet_listens(s->i.base.net)))
        return;
    const uint16_t head[4] = {htons(d->meta.from.port), htons(d->meta.to.port),
                              htons((uint16_t)(d->size + UDP_HEAD)), 0};
    const struct packet_loop p = {.src = d->meta.from.addr,
                                  .dst = d->meta.to.addr,
                                  .protocol = (uint8_t)s->i.base.protocol,
                                  .ttl = d->meta.ttl,
                                  .tos = d->meta.tos,
                                  .transport = head,
                                  .transport_size = sizeof(head),
                                  .data = d->data,
                                  .size = d->size};

    packet_tap_loop(s->i.base.net, &p);
}

/* One datagram on its way. Takes d. */
static int send_one(struct dgram_sock *s, const struct dgram_way *w, struct dgram *d)
{
    struct net *n = s->i.base.net;
    struct inet *in = s->i.in;

    dgram_ttl_tos(s, w, &d->meta);
    atomic_fetch_add_explicit(&in->udp_out, 1, memory_order_relaxed);
    if (atomic_load_explicit(&in->raw_count, memory_order_relaxed))
        raw_deliver(n, (uint8_t)s->i.base.protocol, &d->meta, d->data, d->size);
    if (w->rt.local || w->rt.ifindex == INET_LOOPBACK_IF)
        tap_local(s, d);
    if (w->rt.multicast || w->rt.broadcast) {
        const bool loop =
            inet_opt(&s->i, w->to.addr.family == AF_INET ? INET_MC_LOOP : INET_MC_LOOP6);
        /* What leaves by the loopback link comes back whatever the option says. */
        if (loop || w->rt.broadcast || w->rt.ifindex == INET_LOOPBACK_IF)
            deliver_all(n, inet_table_of(&s->i), &d->meta, d->data, d->size);
        if (w->rt.ifindex != INET_LOOPBACK_IF)
            return send_out(s, w, d);
        dgram_free(in, d);
        return 0;
    }
    if (!w->rt.local)
        return send_out(s, w, d);
    /* An error tells what was sent, so a copy stays while nobody may be there. */
    const struct inet_meta meta = d->meta;
    const bool errors = inet_opt(&s->i, inet_is_v6(&s->i) ? INET_RECVERR6 : INET_RECVERR);
    struct dgram *copy = errors ? copy_of(in, &meta, d->data, d->size) : NULL;
    if (deliver_one(in, inet_table_of(&s->i), d) == -ECONNREFUSED)
        refused(s, &meta, copy ? copy->data : NULL, copy ? copy->size : 0);
    dgram_free(in, copy);
    return 0;
}

static int send_segments(struct dgram_sock *s, const struct dgram_way *w, struct sock_msg *m,
                         size_t size, size_t segment)
{
    if (size > segment * UDP_SEGMENTS_MAX)
        return -EINVAL;
    do {
        const size_t part = MIN(size, segment);
        struct dgram *d = dgram_alloc(s->i.in, part);
        if (!d)
            return -ENOBUFS;
        const int64_t n = uio_copy_from(m->u, d->data, part);
        if (n < (int64_t)part) {
            dgram_free(s->i.in, d);
            return -EFAULT;
        }
        size -= part;
        int r = send_one(s, w, d);
        if (r)
            return r;
    } while (size > 0);
    return 0;
}

/* MSG_MORE, UDP_CORK: the parts of one datagram. 1: more is to come. Owned *out else. */
static int cork_add(struct dgram_sock *s, struct dgram_way *w, struct sock_msg *m, size_t size,
                    bool more, struct dgram **out)
{
    struct dgram *part = dgram_alloc(s->i.in, size);

    if (!part)
        return -ENOBUFS;
    if (uio_copy_from(m->u, part->data, size) < (int64_t)size) {
        dgram_free(s->i.in, part);
        return -EFAULT;
    }
    mutex_lock(&s->i.mu);
    struct dgram *old = s->cork, *all = part;
    const size_t old_size = old ? old->size : 0;
    int r = old_size + size > DGRAM_MAX - IP_HEAD - UDP_HEAD ? -EMSGSIZE : 0;
    if (r == 0 && old) {
        all = dgram_alloc(s->i.in, old_size + size);
        if (all) {
            memcpy(all->data, old->data, old_size);
            memcpy(all->data + old_size, part->data, size);
        } else {
            r = -ENOBUFS;
        }
    }
    if (!old)
        s->cork_to = w->to;
    if (r == 0)
        s->cork = more ? all : NULL;
    if (r == 0 && !more)
        w->to = s->cork_to;
    mutex_unlock(&s->i.mu);
    if (r || old)
        dgram_free(s->i.in, part);
    if (r)
        return r;
    dgram_free(s->i.in, old);
    *out = all;
    return more;
}

static int64_t send_any(struct sock *base, struct sock_msg *m)
{
    struct dgram_sock *s = dgram_of(base);
    const uint64_t size = m->u->left;
    struct dgram_way w;
    struct dgram *d;

    if (size > DGRAM_MAX)
        return -EMSGSIZE;
    if (m->flags & MSG_OOB)
        return -EOPNOTSUPP;
    int r = dgram_way(s, m, &w);
    const int error = r ? 0 : atomic_exchange(&base->error, 0);
    if (r || error)
        return r ? r : error;
    if (s->shut & INET_SHUT_WR)
        return -EPIPE;
    if (size > DGRAM_MAX - UDP_HEAD - (w.to.addr.family == AF_INET ? IP_HEAD : 0))
        return -EMSGSIZE;
    const bool more = m->flags & MSG_MORE || s->corked;
    const size_t segment = w.ctl.segment ? (size_t)w.ctl.segment : s->i.segment;
    if (more || s->cork) {
        r = cork_add(s, &w, m, (size_t)size, more, &d);
        if (r == 0)
            r = send_one(s, &w, d);
        return r < 0 ? r : (int64_t)size;
    }
    r = send_segments(s, &w, m, (size_t)size, segment ? segment : DGRAM_MAX);
    return r ? r : (int64_t)size;
}

static int64_t udp_send(struct sock *base, struct sock_msg *m, bool nonblock,
                        const struct vfs_caller *c)
{
    const int64_t n = send_any(base, m);

    (void)nonblock;
    (void)c;
    inet_zerocopy_sent(inet_of(base), m->flags, n);
    return n;
}

void inet_error_input(struct net *n, const struct inet_icmp_error *e)
{
    struct inet *in = net_inet(n);
    struct inet_sock *s;

    if (e->protocol != IPPROTO_UDP)
        return;
    s = inet_find(in, INET_UDP, &e->local, &e->remote);
    if (!s)
        return;
    inet_error_add(s, e, NULL, 0, true);
    sock_put(&s->base);
}

static const struct sock_ops udp_ops = {
    .bind = inet_bind,
    .listen = sock_no_listen,
    .connect = dgram_connect,
    .accept = sock_no_accept,
    .send = udp_send,
    .recv = dgram_recv,
    .shutdown = dgram_shutdown,
    .getname = dgram_getname,
    .getsockopt = dgram_getsockopt,
    .setsockopt = dgram_setsockopt,
    .poll = dgram_poll,
    .readable = dgram_readable,
    .unsent = dgram_unsent,
    .close = dgram_close,
    .release = dgram_release,
};
