/* What UDP, ping and raw sockets share: the queue of packets, names, readiness. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/limits.h"
#include "base/objcount.h"
#include "sentry/net/filter.h"
#include "sentry/net/inet/dgram_priv.h"

OBJCOUNT_DEFINE(dgram_sock);

int dgram_new(struct net *n, const struct sock_ops *ops, int family, int type, int protocol,
              const struct vfs_caller *c, struct dgram_sock **out)
{
    struct dgram_sock *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    inet_sock_init(&s->i, ops, n, family, type, protocol, c);
    list_init(&s->queue);
    inet_sock_show(&s->i);
    OBJCOUNT_INC(dgram_sock);
    *out = s;
    return 0;
}

void dgram_info_locked(struct inet_sock *i, struct inet_info *out)
{
    const struct dgram_sock *s = dgram_of_inet(i);

    out->rqueue = s->charged;
    out->drops = s->drops;
    out->shutdown = s->shut;
    if (i->base.type == SOCK_RAW) {
        out->local.port = (uint16_t)i->base.protocol;
        out->remote.port = 0;
    }
}

/* ---- packets ---- */

struct dgram *dgram_alloc(struct inet *in, size_t size)
{
    struct dgram *d;

    if (atomic_load_explicit(&in->memory, memory_order_relaxed) > LIMIT_INET_MEM)
        return NULL;
    d = malloc(sizeof(*d) + size);
    if (!d)
        return NULL;
    memset(d, 0, sizeof(*d));
    d->size = (uint32_t)size;
    d->charge = (uint32_t)size + DGRAM_COST;
    atomic_fetch_add_explicit(&in->memory, (int64_t)d->charge, memory_order_relaxed);
    return d;
}

void dgram_free(struct inet *in, struct dgram *d)
{
    if (!d)
        return;
    atomic_fetch_sub_explicit(&in->memory, (int64_t)d->charge, memory_order_relaxed);
    free(d);
}

/* Whether to takes d, which its filter may shorten. A filter of UDP sees the header of UDP too. */
static bool dgram_passes(struct dgram_sock *to, struct dgram *d)
{
    const bool udp = to->i.base.type == SOCK_DGRAM && inet_table_of(&to->i) != INET_PING;
    const uint16_t head[4] = {htons(d->meta.from.port), htons(d->meta.to.port),
                              htons((uint16_t)(d->size + UDP_HEAD)), 0};
    const struct sock_frame f = {
        .head = (const uint8_t *)head,
        .head_size = udp ? UDP_HEAD : 0,
        .data = d->data,
        .size = d->size,
        .protocol = d->meta.to.addr.family == AF_INET ? ETH_P_IP : ETH_P_IPV6,
        .ifindex = (int32_t)d->meta.ifindex,
        .mark = to->i.base.mark,
    };
    const uint32_t n = sock_filter_run(&to->i.base, &f);

    if (n == 0)
        return false;
    if (n < f.head_size + d->size)
        d->size = n > f.head_size ? n - (uint32_t)f.head_size : 0;
    return true;
}

int dgram_queue(struct dgram_sock *to, struct dgram *d)
{
    int r = 0;

    if (!dgram_passes(to, d)) {
        atomic_fetch_add(&to->drops, 1);
        dgram_free(to->i.in, d);
        return 0;
    }

    mutex_lock(&to->i.mu);
    if (to->closed) {
        r = -ECONNREFUSED;
    } else if (to->charged + d->charge > to->i.base.rcvbuf && to->count > 0) {
        atomic_fetch_add(&to->drops, 1);
        atomic_fetch_add(&to->i.in->udp_full, 1);
        r = -ENOBUFS;
    } else {
        d->meta.dropped = (uint32_t)atomic_load(&to->drops);
        list_add_tail(&d->node, &to->queue);
        to->count++;
        to->charged += d->charge;
        to->bytes += d->size;
    }
    mutex_unlock(&to->i.mu);
    if (r)
        dgram_free(to->i.in, d);
    else
        (void)waitq_wake(&to->i.wq, EPOLLIN | EPOLLRDNORM);
    return r;
}

static void dgram_unlink_locked(struct dgram_sock *s, struct dgram *d)
{
    list_del(&d->node);
    s->count--;
    s->charged -= d->charge;
    s->bytes -= d->size;
}

/* ---- receiving ---- */

static bool recv_ready(struct dgram_sock *s)
{
    return s->count > 0 || atomic_load(&s->i.base.error) || s->shut & INET_SHUT_RD;
}

static int recv_wait(struct dgram_sock *s, bool nonblock, deadline_t deadline,
                     const struct vfs_caller *c)
{
    int err;

    if (nonblock || !c->blocker)
        return -EAGAIN;
    WAIT_EVENT(&s->i.wq, c->blocker, EPOLLIN | EPOLLERR | EPOLLHUP, deadline, recv_ready(s), err);
    return sock_wait_error(err, s->i.base.rcvtimeo_ns);
}

/* The packet that a look at off bytes into the queue finds; *off is what is left of it. */
static struct dgram *peek_locked(struct dgram_sock *s, uint64_t *off)
{
    struct dgram *d;

    list_for_each_entry (d, &s->queue, node) {
        if (*off < d->size || (d->size == 0 && *off == 0))
            return d;
        *off -= d->size;
    }
    return NULL;
}

static int64_t copy_out(struct sock_msg *m, const uint8_t *data, size_t size)
{
    const size_t want = (size_t)MIN(m->u->left, (uint64_t)size);
    const int64_t n = uio_copy_to(m->u, data, want);

    if (n < 0 || (size_t)n < want)
        return -EFAULT;
    if (want < size)
        m->out_flags |= MSG_TRUNC;
    return m->flags & MSG_TRUNC ? (int64_t)size : n;
}

static void recv_meta(struct dgram_sock *s, const struct dgram *d, struct sock_msg *m)
{
    if (m->from) {
        struct net_ep from = d->meta.from;
        inet_addr_out(s->i.base.family, &from, m->from);
    }
    if (m->control)
        inet_cmsg_recv(&s->i, &d->meta, m->control);
}

/* A look leaves the packet where it is, so it is copied under the lock. 1: nothing there. */
static int64_t recv_peek(struct dgram_sock *s, struct sock_msg *m)
{
    const int32_t peek_off = atomic_load(&s->i.base.peek_off);
    uint64_t off = peek_off > 0 ? (uint64_t)peek_off : 0;
    int64_t n = 1;

    mutex_lock(&s->i.mu);
    const struct dgram *d = peek_locked(s, &off);
    if (d) {
        n = copy_out(m, d->data + off, d->size - (size_t)off);
        if (n >= 0)
            recv_meta(s, d, m);
        if (n > 0 && peek_off >= 0)
            atomic_store(&s->i.base.peek_off, peek_off + (int32_t)n);
    }
    mutex_unlock(&s->i.mu);
    return d ? n : 1;
}

static int64_t recv_one(struct dgram_sock *s, struct sock_msg *m, bool *out_none)
{
    struct dgram *d = NULL;

    if (m->flags & MSG_PEEK) {
        const int64_t n = recv_peek(s, m);
        *out_none = n == 1 && s->count == 0;
        return n;
    }
    mutex_lock(&s->i.mu);
    if (!list_empty(&s->queue)) {
        d = list_first_entry(&s->queue, struct dgram, node);
        dgram_unlink_locked(s, d);
        const int32_t off = atomic_load(&s->i.base.peek_off);
        if (off > 0)
            atomic_store(&s->i.base.peek_off, MAX(off - (int32_t)d->size, 0));
    }
    mutex_unlock(&s->i.mu);
    *out_none = !d;
    if (!d)
        return 0;
    const int64_t n = copy_out(m, d->data, d->size);
    if (n >= 0)
        recv_meta(s, d, m);
    dgram_free(s->i.in, d);
    return n;
}

int64_t dgram_recv(struct sock *base, struct sock_msg *m, bool nonblock, const struct vfs_caller *c)
{
    struct dgram_sock *s = dgram_of(base);
    const deadline_t deadline = sock_deadline(base->rcvtimeo_ns);

    if (m->flags & MSG_ERRQUEUE)
        return inet_error_recv(&s->i, m);
    if (m->flags & MSG_OOB && base->type == SOCK_RAW)
        return -EOPNOTSUPP;
    for (;;) {
        bool none;
        const int error = atomic_exchange(&base->error, 0);
        if (error)
            return error;
        const int64_t n = recv_one(s, m, &none);
        if (!none)
            return n;
        if (s->shut & INET_SHUT_RD)
            return 0;
        int r = recv_wait(s, nonblock, deadline, c);
        if (r)
            return r;
    }
}

/* ---- names ---- */

static int dgram_disconnect_locked(struct dgram_sock *s)
{
    struct net_ep local = s->i.local, none = {.port = 0};

    if (!s->i.addr_bound)
        memset(&local.addr, 0, sizeof(local.addr));
    inet_names_set_locked(&s->i, &local, &none);
    if (s->i.port && !s->i.port_bound) {
        inet_port_drop_locked(&s->i);
        s->i.local.port = 0;
    }
    return 0;
}

static struct net_addr loopback_for(const struct net_addr *a)
{
    static const uint8_t one[16] = {[15] = 1};

    return a->family == AF_INET ? inet_addr_from4(htonl(INADDR_LOOPBACK)) : inet_addr_from6(one);
}

static uint32_t link_for(const struct dgram_sock *s, const struct net_ep *to)
{
    if (to->ifindex)
        return to->ifindex;
    if (s->i.bound_if)
        return s->i.bound_if;
    if (net_addr_is_multicast(&to->addr))
        return to->addr.family == AF_INET ? s->i.mc_if : s->i.mc_if6;
    return 0;
}

static int dgram_connect_locked(struct dgram_sock *s, struct net_ep *to)
{
    struct net_ep local;
    struct inet_route rt;

    if (net_addr_is_any(&to->addr))
        to->addr = loopback_for(&to->addr);
    struct net_addr src = s->i.addr_bound ? s->i.local.addr : (struct net_addr){.family = 0};
    if (src.family && src.family != to->addr.family)
        return to->addr.family == AF_INET ? -EINVAL : -ENETUNREACH;
    int r = inet_route_of(&s->i, &to->addr, &src, link_for(s, to), 0, &rt);
    if (r == 0 && rt.broadcast && !sock_option(&s->i.base, SO_BROADCAST))
        r = -EACCES;
    if (r == 0 && s->i.base.type != SOCK_RAW)
        r = inet_port_auto_locked(&s->i);
    if (r)
        return r;
    local = s->i.local;
    if (!s->i.addr_bound)
        local.addr = rt.src;
    if (s->i.base.type == SOCK_RAW || inet_table_of(&s->i) == INET_PING)
        to->port = 0;
    inet_names_set_locked(&s->i, &local, to);
    return 0;
}

int dgram_connect(struct sock *base, const struct sock_addr *a, bool nonblock,
                  const struct vfs_caller *c)
{
    struct dgram_sock *s = dgram_of(base);
    struct net_ep to;
    int r = 0;

    (void)nonblock;
    (void)c;
    if (a->len < sizeof(sa_family_t))
        return -EINVAL;
    if (a->family != AF_UNSPEC)
        r = inet_addr_in(&s->i, a, &to);
    if (r)
        return r;
    if (a->family != AF_UNSPEC && to.addr.family == AF_INET && base->family == AF_INET6 &&
        inet_opt(&s->i, INET_V6ONLY))
        return -ENETUNREACH;
    mutex_lock(&s->i.mu);
    r = a->family == AF_UNSPEC ? dgram_disconnect_locked(s) : dgram_connect_locked(s, &to);
    mutex_unlock(&s->i.mu);
    return r;
}

int dgram_getname(struct sock *base, bool peer, struct sock_addr *out)
{
    struct dgram_sock *s = dgram_of(base);

    mutex_lock(&s->i.mu);
    const bool connected = s->i.remote.addr.family;
    mutex_unlock(&s->i.mu);
    if (peer && !connected)
        return -ENOTCONN;
    inet_getname(&s->i, peer, out);
    return 0;
}

int dgram_shutdown(struct sock *base, int how)
{
    struct dgram_sock *s = dgram_of(base);

    if (how < SHUT_RD || how > SHUT_RDWR)
        return -EINVAL;
    mutex_lock(&s->i.mu);
    const bool connected = s->i.remote.addr.family;
    atomic_fetch_or(&s->shut, (uint8_t)(how + 1));
    mutex_unlock(&s->i.mu);
    (void)waitq_wake(&s->i.wq, 0);
    return connected ? 0 : -ENOTCONN;
}

/* ---- where a packet goes ---- */

static int way_to(struct dgram_sock *s, const struct sock_msg *m, struct dgram_way *w)
{
    struct sock_addr a;

    if (!m->to || m->to->len == 0) {
        mutex_lock(&s->i.mu);
        w->to = s->i.remote;
        mutex_unlock(&s->i.mu);
        w->connected = true;
        return w->to.addr.family ? 0 : -EDESTADDRREQ;
    }
    a = *m->to;
    if (s->i.base.family == AF_INET && a.len >= sizeof(struct sockaddr_in) && a.family == AF_UNSPEC)
        a.family = AF_INET;
    int r = inet_addr_in(&s->i, &a, &w->to);
    if (r)
        return r;
    return inet_table_of(&s->i) != INET_PING && s->i.base.type != SOCK_RAW && w->to.port == 0
               ? -EINVAL
               : 0;
}

int dgram_way(struct dgram_sock *s, const struct sock_msg *m, struct dgram_way *w)
{
    memset(w, 0, sizeof(*w));
    int r = way_to(s, m, w);

    if (r == 0)
        r = inet_cmsg_send(&s->i, m->control, &w->ctl);
    if (r)
        return r;
    if (w->to.addr.family == AF_INET && s->i.base.family == AF_INET6 &&
        inet_opt(&s->i, INET_V6ONLY))
        return -ENETUNREACH;
    if (net_addr_is_any(&w->to.addr))
        w->to.addr = loopback_for(&w->to.addr);
    mutex_lock(&s->i.mu);
    if (s->i.base.type != SOCK_RAW)
        r = inet_port_auto_locked(&s->i);
    w->from = s->i.local;
    mutex_unlock(&s->i.mu);
    if (r)
        return r;
    if (w->ctl.src.family)
        w->from.addr = w->ctl.src;
    if (w->from.addr.family && !net_addr_is_any(&w->from.addr) &&
        w->from.addr.family != w->to.addr.family)
        return w->to.addr.family == AF_INET ? -EINVAL : -ENETUNREACH;
    r = inet_route_of(&s->i, &w->to.addr, &w->from.addr,
                      w->ctl.ifindex ? w->ctl.ifindex : link_for(s, &w->to), m->flags, &w->rt);
    if (r == 0 && w->rt.broadcast && !sock_option(&s->i.base, SO_BROADCAST))
        r = -EACCES;
    w->from.addr = w->rt.src;
    w->to.ifindex = w->rt.ifindex;
    return r;
}

void dgram_ttl_tos(const struct dgram_sock *s, const struct dgram_way *w, struct inet_meta *out)
{
    const bool v4 = w->to.addr.family == AF_INET;
    const int own = v4 ? s->i.ttl : s->i.hops, multi = v4 ? s->i.mc_ttl : s->i.mc_hops;
    const int ttl = w->ctl.ttl >= 0 ? w->ctl.ttl : w->rt.multicast ? multi : own;

    out->ttl = ttl >= 0          ? (uint8_t)ttl
               : w->rt.multicast ? 1
               : v4              ? (uint8_t)net_settings(s->i.base.net)->ttl
                                 : 64;
    out->tos = w->ctl.tos >= 0 ? (uint8_t)w->ctl.tos : v4 ? s->i.tos : s->i.tclass;
    out->from = w->from;
    out->to = w->to;
    out->ifindex = w->rt.ifindex;
    out->time_ns = inet_realtime();
}

struct ext_dgram dgram_ext(const struct dgram_sock *s, const struct dgram_way *w,
                           const struct dgram *d)
{
    const bool v4 = w->to.addr.family == AF_INET;
    const uint8_t pmtu = v4 ? s->i.pmtu : s->i.pmtu6;
    struct ext_dgram e = {.from = d->meta.from, .to = d->meta.to};

    e.ifindex = (int32_t)w->rt.ifindex;
    e.protocol = (uint8_t)s->i.base.protocol;
    e.ttl = d->meta.ttl;
    e.tos = d->meta.tos;
    e.dont_fragment = v4 ? pmtu == IP_PMTUDISC_DO || pmtu == IP_PMTUDISC_PROBE
                         : pmtu == IPV6_PMTUDISC_DO || inet_opt(&s->i, INET_DONTFRAG);
    e.no_checksum = sock_option(&s->i.base, SO_NO_CHECK);
    return e;
}

/* ---- readiness, and the end ---- */

uint32_t dgram_poll(struct sock *base, struct waiter *w)
{
    struct dgram_sock *s = dgram_of(base);
    uint32_t events = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;

    if (w)
        waitq_add(&s->i.wq, w);
    if (s->count > 0)
        events |= EPOLLIN | EPOLLRDNORM;
    if (s->shut & INET_SHUT_RD)
        events |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
    if (s->shut == (INET_SHUT_RD | INET_SHUT_WR))
        events |= EPOLLHUP;
    if (atomic_load(&base->error) || atomic_load(&s->i.error_count))
        events |= EPOLLERR | (sock_option(base, SO_SELECT_ERR_QUEUE) ? EPOLLPRI : 0);
    return events;
}

int64_t dgram_readable(struct sock *base)
{
    struct dgram_sock *s = dgram_of(base);
    int64_t n = 0;

    mutex_lock(&s->i.mu);
    if (!list_empty(&s->queue))
        n = list_first_entry(&s->queue, struct dgram, node)->size;
    mutex_unlock(&s->i.mu);
    return n;
}

/* What was sent is with its receiver, or lost. */
int64_t dgram_unsent(struct sock *s)
{
    (void)s;
    return 0;
}

void dgram_close(struct sock *base)
{
    struct dgram_sock *s = dgram_of(base);
    struct dgram *d, *next;
    struct list all;

    list_init(&all);
    mutex_lock(&s->i.mu);
    s->closed = true;
    s->i.base.file = NULL;
    inet_port_drop_locked(&s->i);
    list_splice_tail(&s->queue, &all);
    s->count = 0;
    struct dgram *cork = s->cork;
    s->cork = NULL;
    mutex_unlock(&s->i.mu);
    list_for_each_entry_safe (d, next, &all, node)
        dgram_free(s->i.in, d);
    dgram_free(s->i.in, cork);
}

void dgram_release(struct sock *base)
{
    struct dgram_sock *s = dgram_of(base);

    if (base->type == SOCK_RAW)
        atomic_fetch_sub(&s->i.in->raw_count, 1);
    inet_sock_fini(&s->i);
    OBJCOUNT_DEC(dgram_sock);
    free(s);
}
