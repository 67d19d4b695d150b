/* Connections by their ends; segments between the TCP engine and the links. */
#include "sentry/net/ip/ext_tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"
#include "base/objcount.h"

#define TCP_CSUM_AT 16u
/* How often a deferred connection looks whether the listener's queue has room. */
#define DEFER_RETRY_NS UINT64_C(1000000000)

OBJCOUNT_DEFINE(ext_tcp);

/* ---- the table ---- */

static struct ext_bucket *bucket_of(struct ext_stack *st, const struct net_ep *local,
                                    const struct net_ep *remote)
{
    uint8_t key[36];

    memcpy(key, local->addr.b, 16);
    memcpy(key + 16, remote->addr.b, 16);
    memcpy(key + 32, &local->port, 2);
    memcpy(key + 34, &remote->port, 2);
    return &st->buckets[hash_seeded(key, sizeof(key)) % EXT_BUCKETS];
}

uint32_t exttcp_iss(const struct net_ep *local, const struct net_ep *remote, uint64_t now)
{
    struct net_ep key[2] = {*local, *remote};

    /* RFC 6528: a clock of 4 us behind a keyed hash of the ends. */
    return (uint32_t)hash_seeded(key, sizeof(key)) + (uint32_t)(now >> 12);
}

static struct ext_tcp *find_locked(struct ext_bucket *b, const struct net_ep *local,
                                   const struct net_ep *remote)
{
    struct ext_tcp *t;

    list_for_each_entry (t, &b->conns, node) {
        if (t->local.port == local->port && t->remote.port == remote->port &&
            net_addr_equal(&t->remote.addr, &remote->addr) &&
            net_addr_equal(&t->local.addr, &local->addr))
            return t;
    }
    return NULL;
}

struct ext_tcp *exttcp_find(struct ext_stack *st, const struct net_ep *local,
                            const struct net_ep *remote)
{
    struct ext_bucket *b = bucket_of(st, local, remote);

    mutex_lock(&b->mu);
    struct ext_tcp *t = find_locked(b, local, remote);
    if (t)
        ref_get(&t->ref);
    mutex_unlock(&b->mu);
    return t;
}

bool ext_tcp_in_use(struct net *n, const struct net_ep *local, const struct net_ep *remote)
{
    struct ext_stack *st = net_ext(n);

    if (!st || atomic_load(&st->link_count) == 0)
        return false;
    struct ext_tcp *t = exttcp_find(st, local, remote);
    if (t)
        exttcp_put(t);
    return t != NULL;
}

void exttcp_put(struct ext_tcp *t)
{
    if (!ref_put(&t->ref))
        return;
    tce_fini(&t->c);
    if (t->listener) {
        if (t->deferred)
            inet_tcp_defer_end(t->listener);
        sock_put(t->listener);
    }
    mutex_destroy(&t->mu);
    OBJCOUNT_DEC(ext_tcp);
    free(t);
}

/* ---- the engine's side ---- */

static bool path_fresh(struct ext_tcp *t)
{
    const uint32_t g = netns_generation(t->st->ns);

    if (t->path.ifindex && g == t->path_generation)
        return true;
    const int32_t oif = net_addr_is_linklocal(&t->remote.addr) ? (int32_t)t->remote.ifindex : 0;
    t->path_generation = g;
    return ip_route(t->st, &t->remote.addr, &t->local.addr, oif, &t->path) == 0;
}

static bool send_segment(struct ext_tcp *t, const struct tce_out *o, const struct iovec *data,
                         int pieces, bool gso)
{
    uint8_t head[TCP_HEADER_MAX];
    struct iovec iov[IP_IOV_MAX];
    const size_t len = tce_build(head, t->local.port, t->remote.port, o);
    const uint16_t sum = (uint16_t)~csum_fold(
        csum_pseudo(&t->local.addr, &t->remote.addr, IPPROTO_TCP, len + o->size));

    memcpy(head + TCP_CSUM_AT, &sum, 2);
    iov[0] = (struct iovec){head, len};
    for (int i = 0; i < pieces; i++)
        iov[i + 1] = data[i];
    const struct ip_out out = {.src = t->local.addr,
                               .dst = t->remote.addr,
                               .protocol = IPPROTO_TCP,
                               .ttl = t->ttl,
                               .tos = t->tos,
                               .dont_fragment = true,
                               .iov = iov,
                               .count = pieces + 1,
                               .size = len + o->size,
                               .partial = true,
                               .csum_at = TCP_CSUM_AT,
                               .gso_size = gso ? (uint16_t)o->mss : 0,
                               .transport_header = (uint16_t)len};
    return ip_send(t->st, &t->path, &out) == 0;
}

/* Skips into pieces: the range [skip, skip+size). */
static int cut_pieces(const struct tce_out *o, size_t skip, size_t size, struct iovec out[2])
{
    int n = 0;

    for (int i = 0; i < o->pieces && size > 0; i++) {
        const size_t len = o->data[i].iov_len;
        if (skip >= len) {
            skip -= len;
            continue;
        }
        const size_t take = MIN(len - skip, size);
        out[n++] = (struct iovec){(uint8_t *)o->data[i].iov_base + skip, take};
        size -= take;
        skip = 0;
    }
    return n;
}

static bool op_output(struct tce_conn *c, const struct tce_out *o)
{
    struct ext_tcp *t = container_of(c, struct ext_tcp, c);

    if (!path_fresh(t))
        return false;
    const struct ext_link *l = ext_find_link(t->st, t->path.ifindex);
    if (!l)
        return false;
    if (o->size <= o->mss || l->vnet_hdr)
        return send_segment(t, o, o->data, o->pieces, o->size > o->mss);
    for (size_t skip = 0; skip < o->size; skip += o->mss) {
        struct tce_out one = *o;
        struct iovec v[2];
        one.size = MIN(o->size - skip, (size_t)o->mss);
        one.seq = o->seq + (uint32_t)skip;
        if (skip + one.size < o->size)
            one.flags &= (uint8_t) ~(TCP_F_FIN | TCP_F_PSH);
        if (!send_segment(t, &one, v, cut_pieces(o, skip, one.size, v), false))
            return false;
    }
    return true;
}

static void op_event(struct tce_conn *c, uint32_t events)
{
    struct ext_tcp *t = container_of(c, struct ext_tcp, c);

    if (t->fn)
        t->fn(t->user, events);
}

static void op_established(struct tce_conn *c)
{
    container_of(c, struct ext_tcp, c)->promote = true;
}

static const struct tce_ops ops = {op_output, op_event, op_established};

/* ---- life ---- */

/* Whether the listener is to have it now: with TCP_DEFER_ACCEPT when something came, or the time is
 * over. mu held. */
static bool is_due_locked(const struct ext_tcp *t, uint64_t now)
{
    if (!t->deferred)
        return true;
    return !t->c.dead && (tce_readable(&t->c) > 0 || t->c.fin_seen || now >= t->defer_until);
}

/* The listener's queue was full. False: it has been so for too long. */
static bool hand_over_later(struct ext_tcp *t, struct sock *listener)
{
    const uint64_t now = mono_now();

    mutex_lock(&t->mu);
    const bool again = t->deferred && now < t->defer_end && !t->c.dead;
    if (again) {
        t->listener = listener;
        t->promote = true;
        t->defer_until = now + DEFER_RETRY_NS;
        (void)exttcp_settle_locked(t);
    }
    mutex_unlock(&t->mu);
    return again;
}

static void hand_over(struct ext_tcp *t)
{
    struct sock *listener;

    mutex_lock(&t->mu);
    const bool yes = t->promote && t->listener && is_due_locked(t, mono_now());
    listener = yes ? t->listener : NULL;
    if (yes) {
        t->listener = NULL;
        t->promote = false;
    }
    mutex_unlock(&t->mu);
    if (!yes)
        return;
    ref_get(&t->ref); /* the user's */
    const int r = inet_tcp_accepted(listener, t, &t->local, &t->remote);
    if (r == -ENOBUFS && hand_over_later(t, listener)) {
        exttcp_put(t);
        return;
    }
    if (r)
        ext_tcp_close(t, true);
    if (t->deferred)
        inet_tcp_defer_end(listener);
    sock_put(listener);
    struct ext_bucket *b = bucket_of(t->st, &t->local, &t->remote);
    mutex_lock(&b->mu);
    const bool counted = t->counted;
    t->counted = false;
    mutex_unlock(&b->mu);
    if (counted)
        atomic_fetch_sub(&t->st->half_open, 1);
}

static void timer_fn(struct ext_timer *timer, uint64_t now)
{
    struct ext_tcp *t = container_of(timer, struct ext_tcp, timer);

    mutex_lock(&t->mu);
    t->timer_at = UINT64_MAX;
    tce_timers(&t->c, now);
    const bool over = exttcp_settle_locked(t), promote = t->promote;
    mutex_unlock(&t->mu);
    if (promote)
        hand_over(t);
    if (over)
        exttcp_remove(t);
    exttcp_put(t);
}

bool exttcp_settle_locked(struct ext_tcp *t)
{
    const bool waits = t->promote && t->deferred && !t->c.dead;
    const uint64_t next = MIN(tce_next_timer(&t->c), waits ? t->defer_until : TCP_NEVER);

    if (next < t->timer_at) {
        t->timer_at = next;
        ref_get(&t->ref);
        if (ext_timer_set(t->st, &t->timer, next))
            BUG_ON(ref_put(&t->ref)); /* the one it had */
    }
    return t->c.dead;
}

void exttcp_remove(struct ext_tcp *t)
{
    struct ext_bucket *b = bucket_of(t->st, &t->local, &t->remote);
    bool counted = false;

    mutex_lock(&b->mu);
    const bool hashed = t->hashed;
    if (hashed) {
        list_del(&t->node);
        t->hashed = false;
        counted = t->counted;
        t->counted = false;
    }
    mutex_unlock(&b->mu);
    if (counted)
        atomic_fetch_sub(&t->st->half_open, 1);
    if (!hashed)
        return;
    atomic_fetch_sub(&t->st->conn_count, 1);
    if (ext_timer_set(t->st, &t->timer, UINT64_MAX))
        exttcp_put(t);
    exttcp_put(t);
}

void exttcp_remove_all(struct ext_stack *st)
{
    for (size_t i = 0; st->buckets && i < EXT_BUCKETS; i++) {
        struct ext_bucket *b = &st->buckets[i];
        for (;;) {
            mutex_lock(&b->mu);
            struct ext_tcp *t =
                list_empty(&b->conns) ? NULL : list_first_entry(&b->conns, struct ext_tcp, node);
            if (t)
                ref_get(&t->ref);
            mutex_unlock(&b->mu);
            if (!t)
                break;
            exttcp_remove(t);
            exttcp_put(t);
        }
    }
}

int exttcp_new(struct ext_stack *st, const struct net_ep *local, const struct net_ep *remote,
               const struct tce_config *cfg, struct ext_tcp **out)
{
    struct ext_bucket *b = bucket_of(st, local, remote);
    struct ext_tcp *t;

    if (atomic_load(&st->conn_count) >= LIMIT_EXT_CONNS)
        return -ENOBUFS;
    t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOBUFS;
    ref_init(&t->ref);
    t->st = st;
    t->local = *local;
    t->remote = *remote;
    mutex_init(&t->mu, LOCK_RANK_EXT_TCP);
    tce_init(&t->c, &ops, cfg);
    t->timer.at = t->timer_at = UINT64_MAX;
    t->timer.fn = timer_fn;
    OBJCOUNT_INC(ext_tcp);
    mutex_lock(&b->mu);
    const bool taken = find_locked(b, local, remote) != NULL;
    if (!taken) {
        list_add(&t->node, &b->conns);
        t->hashed = true;
        ref_get(&t->ref);
        atomic_fetch_add(&st->conn_count, 1);
    }
    mutex_unlock(&b->mu);
    if (taken) {
        exttcp_put(t);
        return -EADDRNOTAVAIL;
    }
    *out = t;
    return 0;
}

/* ---- what comes in ---- */

/* A new connection may take the ends of one that only waits (RFC 9293, 3.6.1). */
static bool is_reused(const struct ext_tcp *t, const struct tce_in *seg)
{
    return t->c.state == TCP_S_TIME_WAIT && (seg->flags & (TCP_F_SYN | TCP_F_ACK)) == TCP_F_SYN &&
           (int32_t)(seg->seq - t->c.rcv_nxt) > 0;
}

void exttcp_input(const struct ip_in *in)
{
    struct ext_stack *st = in->link->st;
    struct net_ep local = {.addr = in->dst}, remote = {.addr = in->src};
    struct tce_in seg;
    size_t header;

    if (tce_parse(in->data, in->size, &remote.port, &local.port, &seg, &header))
        return;
    if (!in->checked && csum_fold(csum_add(csum_pseudo(&in->src, &in->dst, IPPROTO_TCP, in->size),
                                           in->data, in->size)) != 0) {
        atomic_fetch_add_explicit(&in->link->stats->rx_errors, 1, memory_order_relaxed);
        return;
    }
    struct ext_tcp *t = exttcp_find(st, &local, &remote);
    if (!t) {
        exttcp_stranger(in, &local, &remote, &seg);
        return;
    }
    const uint64_t now = mono_now();
    mutex_lock(&t->mu);
    if (in->ttl < t->min_ttl) {
        mutex_unlock(&t->mu);
        exttcp_put(t);
        return;
    }
    const bool reused = is_reused(t, &seg);
    const bool bad_ack = (t->c.state == TCP_S_SYN_SENT && seg.flags & TCP_F_ACK &&
                          seg.ack != t->c.snd_nxt && !(seg.flags & TCP_F_RST)) ||
                         (t->c.state == TCP_S_SYN_RCVD && seg.flags & TCP_F_ACK &&
                          seg.ack != t->c.snd_nxt && !(seg.flags & TCP_F_RST));
    if (reused)
        tce_abort(&t->c, 0, now);
    else
        tce_input(&t->c, &seg, now);
    const bool over = exttcp_settle_locked(t), promote = t->promote;
    mutex_unlock(&t->mu);
    if (promote)
        hand_over(t);
    if (over)
        exttcp_remove(t);
    if (reused)
        exttcp_stranger(in, &local, &remote, &seg);
    else if (bad_ack)
        exttcp_send_reset(in, &local, &remote, &seg);
    exttcp_put(t);
}

/* ---- ICMP ---- */

static void apply_error(struct ext_tcp *t, uint32_t seq, int error, uint32_t mtu, bool any_seq)
{
    const uint64_t now = mono_now();

    mutex_lock(&t->mu);
    /* Blind errors are for others' connections (RFC 5927). */
    if (any_seq || seq - t->c.snd_una < t->c.snd_nxt - t->c.snd_una) {
        if (error == -EMSGSIZE) {
            const uint32_t headers = t->remote.addr.family == AF_INET ? 40 : 60;
            t->path_generation--;
            if (mtu > headers)
                tce_set_mss(&t->c, mtu - headers, now);
        } else {
            tce_unreachable(&t->c, error);
        }
    }
    const bool over = exttcp_settle_locked(t);
    mutex_unlock(&t->mu);
    if (over)
        exttcp_remove(t);
}

/* The first connection of the bucket from the n-th on that goes over this hop. Owned. */
static struct ext_tcp *nth_over_hop(struct ext_bucket *b, const struct net_addr *hop, size_t n)
{
    struct ext_tcp *t, *found = NULL;

    mutex_lock(&b->mu);
    list_for_each_entry (t, &b->conns, node) {
        if (n > 0) {
            n--;
            continue;
        }
        ref_get(&t->ref);
        found = t;
        break;
    }
    mutex_unlock(&b->mu);
    (void)hop;
    return found;
}

static void hop_failed(struct ext_stack *st, const struct net_addr *hop, int error)
{
    struct ext_tcp *t;

    for (size_t i = 0; i < EXT_BUCKETS; i++) {
        for (size_t n = 0; (t = nth_over_hop(&st->buckets[i], hop, n)) != NULL; n++) {
            mutex_lock(&t->mu);
            const struct net_addr *mine =
                t->path.gateway.family ? &t->path.gateway : &t->remote.addr;
            const bool fits = net_addr_equal(mine, hop);
            mutex_unlock(&t->mu);
            if (fits)
                apply_error(t, 0, error, 0, true);
            exttcp_put(t);
        }
    }
}

void exttcp_icmp(struct ext_stack *st, const struct net_ep *local, const struct net_ep *remote,
                 uint32_t seq, int error, uint32_t mtu)
{
    if (!local) {
        hop_failed(st, &remote->addr, error);
        return;
    }
    struct ext_tcp *t = exttcp_find(st, local, remote);
    if (!t)
        return;
    apply_error(t, seq, error, mtu, false);
    exttcp_put(t);
}
