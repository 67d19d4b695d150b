/* Looking at AF_INET sockets: what /proc/net and sock_diag show. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/net/inet/dgram_priv.h"
#include "sentry/net/inet/tcp_priv.h"

static void info_tcp(struct tcp_sock *s, struct inet_info *out)
{
    out->state = (int)tcp_state(s);
    out->shutdown = s->shut;
    if (s->out) {
        out->state = -1;
        return;
    }
    if (out->state == TCP_LISTEN) {
        out->rqueue = s->accept_count;
        out->wqueue = s->backlog;
        return;
    }
    /* Linux has only a request as yet. */
    if (atomic_load(&s->deferred))
        out->state = TCP_SYN_RECV;
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
    if (s->base.type == SOCK_STREAM)
        info_tcp(tcp_of_inet(s), out);
    else
        dgram_info_locked(s, out);
    out->inode = s->base.file ? s->base.file->inode->ino : 0;
    mutex_unlock(&s->mu);
    if (out->state == -1) {
        struct tcp_sock *t = tcp_of_inet(s);
        out->state = tcp_ext_state(t);
        out->rqueue = tcp_ext_bytes(t, false, false);
        out->wqueue = tcp_ext_bytes(t, true, false);
    }
}

static bool info_wanted(const struct inet_sock *s, int family, int protocol)
{
    if (family != 0 && s->base.family != family)
        return false;
    if (protocol == INET_ANY)
        return true;
    return protocol == INET_ANY_RAW ? s->base.type == SOCK_RAW
                                    : s->base.protocol == protocol && s->base.type != SOCK_RAW;
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

/* Connections that only the external stack knows still: gathered first, as fn may block. */
struct outside {
    struct inet_info *v;
    size_t count, space;
    int family;
};

static int outside_row(void *arg, const struct inet_info *i)
{
    struct outside *x = arg;

    if (x->family && i->family != x->family)
        return 0;
    if (x->count == x->space) {
        const size_t space = x->space * 2 + 16;
        struct inet_info *v = realloc(x->v, space * sizeof(*v));
        if (!v)
            return -ENOMEM;
        x->v = v;
        x->space = space;
    }
    x->v[x->count++] = *i;
    return 0;
}

static int info_outside(struct net *n, int family, inet_info_fn fn, void *arg)
{
    struct outside x = {.family = family};
    int r = ext_tcp_for_each(n, outside_row, &x);

    for (size_t i = 0; i < x.count && r == 0; i++)
        r = fn(arg, &x.v[i], NULL);
    free(x.v);
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
    if (r || protocol != IPPROTO_TCP)
        return r;
    r = info_closed(in, family, fn, arg);
    return r ? r : info_outside(n, family, fn, arg);
}

/* ---- counters ---- */

static void count_tcp(const struct tcp_sock *s, struct inet_counts *c)
{
    const unsigned state = tcp_state(s);

    c->tcp_all++;
    c->segments += s->q.pieces;
    if (state == TCP_CLOSE)
        return;
    c->established +=
        (state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT) && !atomic_load(&s->deferred);
    c->orphans += s->closed;
    if (s->i.base.family == AF_INET6)
        c->tcp6++;
    else
        c->tcp4++;
}

static void count_one(struct inet_sock *s, struct inet_counts *c)
{
    const bool v6 = s->base.family == AF_INET6;

    c->sockets++;
    if (s->base.type == SOCK_STREAM) {
        mutex_lock(&s->mu);
        count_tcp(tcp_of_inet(s), c);
        mutex_unlock(&s->mu);
    } else if (s->base.type == SOCK_RAW) {
        *(v6 ? &c->raw6 : &c->raw4) += 1;
    } else {
        *(v6 ? &c->udp6 : &c->udp4) += 1;
    }
}

int inet_counts(struct net *n, struct inet_counts *c)
{
    struct inet *in = net_inet(n);
    struct inet_sock **v;
    size_t count;

    memset(c, 0, sizeof(*c));
    tcp_closed_expire(in, false);
    int r = info_gather(in, 0, INET_ANY, &v, &count);
    if (r)
        return r;
    for (size_t i = 0; i < count; i++) {
        count_one(v[i], c);
        sock_put(&v[i]->base);
    }
    free(v);
    mutex_lock(&in->closed_mu);
    c->time_wait = in->closed_count;
    mutex_unlock(&in->closed_mu);
    const int64_t memory = in->memory;
    c->memory = memory > 0 ? (uint64_t)memory : 0;
    c->active = in->tcp_active;
    c->passive = in->tcp_passive;
    c->failed = in->tcp_failed;
    c->resets = in->tcp_resets;
    c->segments += in->tcp_pieces;
    c->udp_in = in->udp_in;
    c->udp_out = in->udp_out;
    c->udp_no_ports = in->udp_no_ports;
    c->udp_full = in->udp_full;
    return 0;
}
