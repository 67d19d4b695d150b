/* Segments without a connection: new ones within bounds, by cookies beyond them (RFC 4987), and
 * resets. */
#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"
#include "sentry/net/ip/ext_tcp.h"

#define COOKIE_PERIOD (UINT64_C(64) * 1000000000)
#define TCP_CSUM_AT 16u
/* How long Linux tries to hand a connection over (tcp_synack_retries). */
#define HAND_OVER_NS (UINT64_C(63) * 1000000000)

static const uint16_t cookie_mss[8] = {536, 1200, 1220, 1360, 1400, 1440, 1460, 8960};

void exttcp_send_bare(const struct ip_in *in, const struct net_ep *local,
                      const struct net_ep *remote, const struct tce_out *o)
{
    uint8_t head[TCP_HEADER_MAX];
    const size_t len = tce_build(head, local->port, remote->port, o);
    const struct iovec iov = {head, len};
    struct netns_path p;
    const int32_t oif = net_addr_is_linklocal(&remote->addr) ? in->link->ifindex : 0;

    if (ip_route(in->link->st, &remote->addr, &local->addr, oif, &p))
        return;
    const uint16_t sum =
        csum_fold(csum_iov(csum_pseudo(&local->addr, &remote->addr, IPPROTO_TCP, len), &iov, 1));
    memcpy(head + TCP_CSUM_AT, &sum, 2);
    const struct ip_out out = {.src = local->addr,
                               .dst = remote->addr,
                               .protocol = IPPROTO_TCP,
                               .dont_fragment = true,
                               .iov = &iov,
                               .count = 1,
                               .size = len};
    (void)!ip_send(in->link->st, &p, &out);
}

void exttcp_send_reset(const struct ip_in *in, const struct net_ep *local,
                       const struct net_ep *remote, const struct tce_in *seg)
{
    struct tce_out o;

    if (seg->flags & TCP_F_RST)
        return;
    memset(&o, 0, sizeof(o));
    o.flags = TCP_F_RST;
    if (seg->flags & TCP_F_ACK) {
        o.seq = seg->ack;
    } else {
        o.flags |= TCP_F_ACK;
        o.ack = seg->seq + (uint32_t)seg->size + (seg->flags & TCP_F_SYN ? 1 : 0) +
                (seg->flags & TCP_F_FIN ? 1 : 0);
    }
    exttcp_send_bare(in, local, remote, &o);
}

/* ---- cookies ---- */

static uint32_t cookie(const struct net_ep *local, const struct net_ep *remote, uint32_t their_seq,
                       uint64_t period, unsigned index)
{
    struct {
        struct net_ep ends[2];
        uint64_t period;
        uint32_t seq, index;
    } key;

    memset(&key, 0, sizeof(key));
    key.ends[0] = *local;
    key.ends[1] = *remote;
    key.period = period;
    key.seq = their_seq;
    key.index = index;
    return ((uint32_t)hash_seeded(&key, sizeof(key)) & ~7u) | index;
}

static void send_cookie(const struct ip_in *in, const struct net_ep *local,
                        const struct net_ep *remote, const struct tce_in *syn)
{
    const unsigned mss = syn->o.mss ? syn->o.mss : 536;
    unsigned index = ARRAY_SIZE(cookie_mss) - 1;
    struct tce_out o;

    while (index > 0 && cookie_mss[index] > mss)
        index--;
    memset(&o, 0, sizeof(o));
    o.flags = TCP_F_SYN | TCP_F_ACK;
    o.seq = cookie(local, remote, syn->seq, mono_now() / COOKIE_PERIOD, index);
    o.ack = syn->seq + 1;
    o.window = 65535;
    o.o.mss = 1460;
    exttcp_send_bare(in, local, remote, &o);
}

/* The segment size that the cookie stands for, or 0. */
static uint32_t check_cookie(const struct net_ep *local, const struct net_ep *remote,
                             const struct tce_in *ack)
{
    const uint32_t value = ack->ack - 1;
    const uint64_t period = mono_now() / COOKIE_PERIOD;

    for (uint64_t back = 0; back < 2; back++)
        if (cookie(local, remote, ack->seq - 1, period - back, value & 7) == value)
            return cookie_mss[value & 7];
    return 0;
}

/* ---- new connections ---- */

static struct tce_config listen_config(const struct ip_in *in, const struct net_ep *remote)
{
    const struct ext_tcp_options none = {0};
    struct netns_path p;
    const uint32_t mtu =
        ip_route(in->link->st, &remote->addr, NULL, in->link->ifindex, &p) ? 1500 : p.mtu;

    return exttcp_config(&none, mtu, remote->addr.family);
}

/* Takes listener on success. */
static int make(const struct ip_in *in, const struct net_ep *local, const struct net_ep *remote,
                struct sock *listener, struct ext_tcp **out)
{
    const struct tce_config cfg = listen_config(in, remote);
    struct ext_stack *st = in->link->st;
    struct net_ep far = *remote;

    far.ifindex = (uint32_t)in->link->ifindex;
    int r = exttcp_new(st, local, &far, &cfg, out);
    if (r)
        return r;
    (*out)->listener = listener;
    (*out)->counted = true;
    atomic_fetch_add(&st->half_open, 1);
    return 0;
}

static void new_from_syn(const struct ip_in *in, const struct net_ep *local,
                         const struct net_ep *remote, const struct tce_in *syn)
{
    struct sock *listener = inet_tcp_find_listener(in->link->st->net, local, remote);
    struct ext_tcp *t;

    if (!listener) {
        exttcp_send_reset(in, local, remote, syn);
        return;
    }
    /* A full queue: the peer asks again later (tcp_abort_on_overflow is 0). */
    if (in->ttl < inet_tcp_min_ttl(listener, remote->addr.family) || !inet_tcp_room(listener)) {
        sock_put(listener);
        return;
    }
    if (atomic_load(&in->link->st->half_open) >= LIMIT_EXT_HALF_OPEN) {
        send_cookie(in, local, remote, syn);
        sock_put(listener);
        return;
    }
    if (make(in, local, remote, listener, &t)) {
        sock_put(listener);
        return;
    }
    const uint64_t wait = inet_tcp_defer_begin(listener);
    const uint64_t now = mono_now();
    mutex_lock(&t->mu);
    t->deferred = wait > 0;
    t->defer_until = now + wait;
    t->defer_end = now + MAX(wait, HAND_OVER_NS);
    tce_accept(&t->c, syn, exttcp_iss(local, remote, now), now);
    const bool over = exttcp_settle_locked(t);
    mutex_unlock(&t->mu);
    if (over)
        exttcp_remove(t);
    exttcp_put(t);
}

static bool new_from_cookie(const struct ip_in *in, const struct net_ep *local,
                            const struct net_ep *remote, const struct tce_in *ack)
{
    const uint32_t mss = check_cookie(local, remote, ack);
    struct ext_tcp *t;

    if (!mss)
        return false;
    struct sock *listener = inet_tcp_find_listener(in->link->st->net, local, remote);
    if (!listener)
        return false;
    if (!inet_tcp_room(listener) || make(in, local, remote, listener, &t)) {
        sock_put(listener);
        return true;
    }
    const uint64_t now = mono_now();
    mutex_lock(&t->mu);
    tce_accept_cookie(&t->c, ack, mss, now);
    const bool over = exttcp_settle_locked(t);
    mutex_unlock(&t->mu);
    if (over)
        exttcp_remove(t);
    /* The segment itself, and what follows from it, goes the usual way. */
    exttcp_input(in);
    exttcp_put(t);
    return true;
}

void exttcp_stranger(const struct ip_in *in, const struct net_ep *local,
                     const struct net_ep *remote, const struct tce_in *seg)
{
    const unsigned kind = seg->flags & (TCP_F_SYN | TCP_F_ACK | TCP_F_RST);

    if (kind & TCP_F_RST)
        return;
    if (kind == TCP_F_SYN) {
        new_from_syn(in, local, remote, seg);
        return;
    }
    if (kind == TCP_F_ACK && new_from_cookie(in, local, remote, seg))
        return;
    exttcp_send_reset(in, local, remote, seg);
}
