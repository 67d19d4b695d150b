/* Connections as their sockets use them (ext.h). */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "sentry/net/ip/ext_tcp.h"

#define SEC_NS UINT64_C(1000000000)
#define BUFFER_BEGIN 131072u
#define BUFFER_LEAST 4096u

struct tce_config exttcp_config(const struct ext_tcp_options *o, uint32_t mtu, unsigned family)
{
    const uint32_t headers = family == AF_INET ? 40 : 60;
    const uint32_t path = mtu > headers ? mtu - headers : 0;

    return (struct tce_config){
        .mss = o->maxseg ? MIN(o->maxseg, path) : path,
        .sndbuf = o->sndbuf ? MAX(o->sndbuf, BUFFER_LEAST) : BUFFER_BEGIN,
        .rcvbuf = o->rcvbuf ? MAX(o->rcvbuf, BUFFER_LEAST) : BUFFER_BEGIN,
        .sndbuf_fixed = o->sndbuf != 0,
        .rcvbuf_fixed = o->rcvbuf != 0,
        .notsent_lowat = o->notsent_lowat,
        .window_clamp = o->window_clamp,
        .nodelay = o->nodelay,
        .cork = o->cork,
        .reno = o->reno,
        .keepalive = o->keepalive,
        .oob_inline = o->oob_inline,
        .keep_idle_ns = (o->keep_idle_s ? o->keep_idle_s : 7200) * SEC_NS,
        .keep_intvl_ns = (o->keep_intvl_s ? o->keep_intvl_s : 75) * SEC_NS,
        .keep_count = o->keep_count ? o->keep_count : 9,
        .syn_retries = o->syn_retries ? o->syn_retries : 6,
        .user_timeout_ns = (uint64_t)o->user_timeout_ms * 1000000u,
        .fin_wait2_ns = o->linger2_s < 0    ? 1
                        : o->linger2_s == 0 ? 60 * SEC_NS
                                            : (uint64_t)o->linger2_s * SEC_NS,
    };
}

/* Ends a call: what was armed, and what is over. mu is held, and released. */
static void done(struct ext_tcp *t)
{
    const bool over = exttcp_settle_locked(t);

    mutex_unlock(&t->mu);
    if (over)
        exttcp_remove(t);
}

int ext_tcp_connect(struct net *n, const struct net_ep *local, const struct net_ep *remote,
                    const struct ext_tcp_options *o, ext_tcp_event fn, void *user,
                    struct ext_tcp **out)
{
    struct ext_stack *st = net_ext(n);
    const int32_t oif = net_addr_is_linklocal(&remote->addr) ? (int32_t)remote->ifindex : 0;
    struct netns_path p;
    struct ext_tcp *t;

    if (!st || atomic_load(&st->link_count) == 0)
        return -ENETUNREACH;
    int r = ip_route(st, &remote->addr, &local->addr, oif, &p);
    if (r)
        return r;
    const struct tce_config cfg = exttcp_config(o, p.mtu, remote->addr.family);
    r = exttcp_new(st, local, remote, &cfg, &t);
    if (r)
        return r;
    const uint64_t now = mono_now();
    mutex_lock(&t->mu);
    t->fn = fn;
    t->user = user;
    t->ttl = o->ttl;
    t->tos = o->tos;
    t->min_ttl = o->min_ttl;
    tce_connect(&t->c, exttcp_iss(local, remote, now), now);
    done(t);
    *out = t;
    return 0;
}

void ext_tcp_attach(struct ext_tcp *t, const struct ext_tcp_options *o, ext_tcp_event fn,
                    void *user)
{
    const unsigned family = t->remote.addr.family;

    mutex_lock(&t->mu);
    t->fn = fn;
    t->user = user;
    t->ttl = o->ttl;
    t->tos = o->tos;
    t->min_ttl = o->min_ttl;
    const struct tce_config cfg =
        exttcp_config(o, t->c.cfg.mss + (family == AF_INET ? 40 : 60), family);
    tce_reconfigure(&t->c, &cfg, mono_now());
    done(t);
}

void ext_tcp_set_options(struct ext_tcp *t, const struct ext_tcp_options *o)
{
    const unsigned family = t->remote.addr.family;

    mutex_lock(&t->mu);
    t->ttl = o->ttl;
    t->tos = o->tos;
    t->min_ttl = o->min_ttl;
    const struct tce_config cfg =
        exttcp_config(o, t->c.cfg.mss + (family == AF_INET ? 40 : 60), family);
    tce_reconfigure(&t->c, &cfg, mono_now());
    done(t);
}

/* An error is told once. */
static int64_t told(struct ext_tcp *t, int64_t r)
{
    if (t->c.error && r == t->c.error)
        t->c.error = 0;
    return r;
}

int64_t ext_tcp_send(struct ext_tcp *t, struct uio *u, bool more, bool urgent)
{
    const unsigned flags = (more ? TCE_MORE : 0) | (urgent ? TCE_URGENT : 0);

    mutex_lock(&t->mu);
    const int64_t n = told(t, tce_write(&t->c, u, flags, mono_now()));
    done(t);
    return n;
}

int64_t ext_tcp_recv(struct ext_tcp *t, struct uio *u, int64_t peek_off)
{
    mutex_lock(&t->mu);
    const int64_t n = told(t, tce_read(&t->c, u, peek_off, mono_now()));
    done(t);
    return n;
}

int ext_tcp_shutdown(struct ext_tcp *t, int how)
{
    mutex_lock(&t->mu);
    const int r = tce_shutdown(&t->c, how != SHUT_WR, how != SHUT_RD, mono_now());
    done(t);
    return r;
}

void ext_tcp_close(struct ext_tcp *t, bool abort)
{
    mutex_lock(&t->mu);
    t->fn = NULL;
    t->user = NULL;
    tce_close(&t->c, abort, mono_now());
    done(t);
    exttcp_put(t);
}

int ext_tcp_status(struct ext_tcp *t)
{
    int r = 0;

    mutex_lock(&t->mu);
    if (t->c.error)
        r = t->c.error;
    else if (t->c.state == TCP_S_SYN_SENT || (t->c.state == TCP_S_SYN_RCVD && !t->c.passive))
        r = -EINPROGRESS;
    else if (t->c.dead && !t->c.syn_acked)
        r = -ECONNABORTED;
    mutex_unlock(&t->mu);
    return r;
}

int ext_tcp_take_error(struct ext_tcp *t)
{
    mutex_lock(&t->mu);
    const int r = t->c.error;
    t->c.error = 0;
    mutex_unlock(&t->mu);
    return r;
}

uint32_t ext_tcp_poll(struct ext_tcp *t)
{
    mutex_lock(&t->mu);
    const uint32_t ev = tce_poll_events(&t->c);
    mutex_unlock(&t->mu);
    return ev;
}

int ext_tcp_recv_urgent(struct ext_tcp *t, bool peek, uint8_t *out)
{
    mutex_lock(&t->mu);
    const int r = tce_read_urgent(&t->c, peek, out);
    mutex_unlock(&t->mu);
    return r;
}

bool ext_tcp_at_mark(struct ext_tcp *t, uint64_t off)
{
    mutex_lock(&t->mu);
    const bool yes = tce_at_mark(&t->c, (size_t)off);
    mutex_unlock(&t->mu);
    return yes;
}

uint64_t ext_tcp_inq(struct ext_tcp *t)
{
    mutex_lock(&t->mu);
    const uint64_t n = tce_inq(&t->c);
    mutex_unlock(&t->mu);
    return n;
}

uint64_t ext_tcp_readable(struct ext_tcp *t)
{
    mutex_lock(&t->mu);
    const uint64_t n = tce_readable(&t->c);
    mutex_unlock(&t->mu);
    return n;
}

uint64_t ext_tcp_unsent(struct ext_tcp *t, bool not_sent_only)
{
    mutex_lock(&t->mu);
    const uint64_t n = not_sent_only ? tce_unsent(&t->c) : t->c.out.used;
    mutex_unlock(&t->mu);
    return n;
}

void ext_tcp_info(struct ext_tcp *t, struct lx_tcp_info *out)
{
    mutex_lock(&t->mu);
    tce_fill_info(&t->c, out, mono_now());
    if (t->remote.addr.family == AF_INET6)
        out->pmtu += 20;
    mutex_unlock(&t->mu);
}

void ext_tcp_names(struct ext_tcp *t, struct net_ep *local, struct net_ep *remote)
{
    *local = t->local;
    *remote = t->remote;
}

int ext_tcp_state(struct ext_tcp *t)
{
    mutex_lock(&t->mu);
    const int s = (int)t->c.state;
    mutex_unlock(&t->mu);
    return s;
}

static int show(struct ext_tcp *t, ext_tcp_fn fn, void *arg)
{
    struct inet_info i;

    memset(&i, 0, sizeof(i));
    mutex_lock(&t->mu);
    const bool owned = t->fn != NULL;
    i.family = t->local.addr.family;
    i.type = SOCK_STREAM;
    i.protocol = IPPROTO_TCP;
    i.state = (int)(t->promote ? TCP_S_SYN_RCVD : t->c.state);
    i.local = t->local;
    i.remote = t->remote;
    i.rqueue = t->c.in.used;
    i.wqueue = t->c.out.used;
    i.retransmits = t->c.backoff;
    if (t->c.t_end != TCP_NEVER) {
        i.timer = 3;
        i.timer_ns = t->c.t_end - MIN(t->c.t_end, mono_now());
    } else if (t->c.t_rto != TCP_NEVER) {
        i.timer = 1;
        i.timer_ns = t->c.t_rto - MIN(t->c.t_rto, mono_now());
    }
    const bool dead = t->c.dead;
    mutex_unlock(&t->mu);
    return owned || dead ? 0 : fn(arg, &i);
}

int ext_tcp_for_each(struct net *n, ext_tcp_fn fn, void *arg)
{
    struct ext_stack *st = net_ext(n);
    int r = 0;

    if (!st || atomic_load(&st->link_count) == 0)
        return 0;
    for (size_t i = 0; i < EXT_BUCKETS && r == 0; i++) {
        struct ext_bucket *b = &st->buckets[i];
        struct ext_tcp *t;
        mutex_lock(&b->mu);
        list_for_each_entry (t, &b->conns, node) {
            r = show(t, fn, arg);
            if (r)
                break;
        }
        mutex_unlock(&b->mu);
    }
    return r;
}
