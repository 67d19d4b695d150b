/* Frames of packet sockets: taking them as they pass, reading and sending them. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <net/if_arp.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "sentry/net/checksum.h"
#include "sentry/net/filter.h"
#include "sentry/net/inet/inet.h"
#include "sentry/net/ip/ext.h"
#include "sentry/net/ns/netns.h"
#include "sentry/net/packet/packet_priv.h"

/* ---- packets ---- */

static void skb_put(struct packet_skb *p)
{
    if (p && ref_put(&p->ref))
        free(p);
}

void packet_purge(struct packet_sock *s)
{
    struct packet_skb *p, *next;
    struct list all;

    list_init(&all);
    mutex_lock(&s->mu);
    list_splice_tail(&s->queue, &all);
    s->charged = 0;
    mutex_unlock(&s->mu);
    list_for_each_entry_safe (p, next, &all, node) {
        list_del(&p->node);
        skb_put(p);
    }
}

void packet_name(struct netns *ns, int32_t ifindex, uint16_t protocol, struct sockaddr_ll *out)
{
    struct netns_link link;

    memset(out, 0, sizeof(*out));
    out->sll_family = AF_PACKET;
    out->sll_ifindex = ifindex;
    out->sll_protocol = htons(protocol);
    if (!ifindex || netns_link_get(ns, ifindex, &link))
        return;
    out->sll_hatype = link.type;
    out->sll_halen = NETNS_MAC_SIZE;
    memcpy(out->sll_addr, link.mac, NETNS_MAC_SIZE);
}

/* ---- taking ---- */

/* A frame laid out flat, and what is the same for all who get a copy. */
struct tap {
    const struct packet_frame *f;
    uint8_t *flat;
    uint16_t protocol, hatype;
    uint64_t time_ns, serial;
};

static bool wants_locked(const struct packet_sock *s, const struct tap *t)
{
    const bool all = s->protocol == ETH_P_ALL, out = t->f->pkttype == PACKET_OUTGOING;

    if (!s->running || (s->ifindex && s->ifindex != t->f->ifindex) || &s->base == t->f->from)
        return false;
    if (out)
        return all && !s->ignore_outgoing;
    return all || s->protocol == t->protocol;
}

/* What s's filter leaves of it, 0: nothing. Sockets of type SOCK_DGRAM see no link header. */
static uint32_t filtered(struct packet_sock *s, const struct tap *t, size_t skip)
{
    const struct sock_frame f = {
        .data = t->flat + skip,
        .size = t->f->size - skip,
        .link = t->flat,
        .link_size = t->f->size,
        .net = t->flat + PACKET_ETH_HEADER,
        .net_size = t->f->size - PACKET_ETH_HEADER,
        .protocol = t->protocol,
        .hatype = t->hatype,
        .pkttype = t->f->pkttype,
        .ifindex = t->f->ifindex,
    };
    const uint32_t n = sock_filter_run(&s->base, &f);

    return (uint32_t)MIN((size_t)n, f.size);
}

static struct packet_skb *skb_new(const struct tap *t, size_t skip, uint32_t size)
{
    struct packet_skb *p = malloc(sizeof(*p) + size);

    if (!p)
        return NULL;
    memset(p, 0, sizeof(*p));
    ref_init(&p->ref);
    p->size = size;
    p->len = (uint32_t)(t->f->size - skip);
    p->net = (uint32_t)(PACKET_ETH_HEADER - skip);
    p->time_ns = t->time_ns;
    p->status = TP_STATUS_USER | (t->f->partial   ? TP_STATUS_CSUMNOTREADY
                                  : t->f->checked ? TP_STATUS_CSUM_VALID
                                                  : 0);
    p->from = (struct sockaddr_ll){.sll_family = AF_PACKET,
                                   .sll_protocol = htons(t->protocol),
                                   .sll_ifindex = t->f->ifindex,
                                   .sll_hatype = t->hatype,
                                   .sll_pkttype = t->f->pkttype,
                                   .sll_halen = ETH_ALEN};
    memcpy(p->from.sll_addr, t->flat + ETH_ALEN, ETH_ALEN);
    memcpy(p->data, t->flat + skip, size);
    return p;
}

/* Takes p into the ring or the queue: whether there was room. */
static bool skb_take_locked(struct packet_sock *s, struct packet_skb *p)
{
    if (s->ring)
        return packet_ring_put_locked(s, p);
    if (s->charged >= s->base.rcvbuf)
        return false;
    ref_get(&p->ref);
    p->dropped = s->dropped;
    list_add_tail(&p->node, &s->queue);
    s->charged += p->size + PACKET_COST;
    return true;
}

static void tap_one(struct packet_sock *s, const struct tap *t)
{
    const size_t skip = s->base.type == SOCK_DGRAM ? PACKET_ETH_HEADER : 0;

    mutex_lock(&s->mu);
    const bool wants = wants_locked(s, t);
    mutex_unlock(&s->mu);
    if (!wants ||
        !packet_fanout_chose_locked(s, t->serial, t->f->from, t->flat, t->f->size, t->protocol))
        return;
    const uint32_t size = filtered(s, t, skip);
    if (size == 0)
        return;
    struct packet_skb *p = skb_new(t, skip, size);
    mutex_lock(&s->mu);
    const bool taken = p && s->running && skb_take_locked(s, p);
    s->packets += taken;
    s->drops += !taken;
    s->dropped += !taken;
    mutex_unlock(&s->mu);
    skb_put(p);
    if (taken)
        (void)waitq_wake(&s->wq, EPOLLIN | EPOLLRDNORM);
}

void packet_tap(struct net *n, const struct packet_frame *f)
{
    struct tap t = {.f = f};
    struct packet_sock *s;
    size_t at = 0;

    if (f->size < PACKET_ETH_HEADER || !packet_listens(n))
        return;
    t.flat = malloc(f->size);
    if (!t.flat)
        return;
    for (int i = 0; i < f->count; i++) {
        if (f->iov[i].iov_len == 0)
            continue;
        memcpy(t.flat + at, f->iov[i].iov_base, f->iov[i].iov_len);
        at += f->iov[i].iov_len;
    }
    t.protocol = (uint16_t)(t.flat[12] << 8 | t.flat[13]);
    t.hatype = f->ifindex == NETNS_LO_INDEX ? ARPHRD_LOOPBACK : ARPHRD_ETHER;
    t.time_ns = inet_realtime();
    mutex_lock(&net_packet(n)->mu);
    t.serial = ++net_packet(n)->serial;
    list_for_each_entry (s, &net_packet(n)->socks, node)
        tap_one(s, &t);
    mutex_unlock(&net_packet(n)->mu);
    free(t.flat);
}

/* ---- the loopback link ---- */

static void tap_both(struct net *n, const struct iovec *iov, int count, size_t size,
                     const struct sock *from, bool partial)
{
    struct packet_frame f = {.ifindex = NETNS_LO_INDEX,
                             .pkttype = PACKET_OUTGOING,
                             .partial = partial,
                             .iov = iov,
                             .count = count,
                             .size = size,
                             .from = from};

    packet_tap(n, &f);
    f.pkttype = PACKET_HOST;
    f.from = NULL;
    packet_tap(n, &f);
}

/* The header of IP at h: its size. */
static size_t loop_header(uint8_t *h, const struct packet_loop *p, size_t body)
{
    if (p->dst.family != AF_INET) {
        struct ip6_hdr ip;
        memset(&ip, 0, sizeof(ip));
        ip.ip6_hlim = p->ttl;
        ip.ip6_flow = htonl(UINT32_C(6) << 28 | (uint32_t)p->tos << 20);
        ip.ip6_plen = htons((uint16_t)body);
        ip.ip6_nxt = p->protocol;
        memcpy(&ip.ip6_src, p->src.b, sizeof(ip.ip6_src));
        memcpy(&ip.ip6_dst, p->dst.b, sizeof(ip.ip6_dst));
        memcpy(h, &ip, sizeof(ip));
        return sizeof(ip);
    }
    struct iphdr ip = {.version = 4, .ihl = 5, .protocol = p->protocol};
    ip.ttl = p->ttl;
    ip.tos = p->tos;
    ip.tot_len = htons((uint16_t)(body + sizeof(ip)));
    ip.saddr = p->src.v4;
    ip.daddr = p->dst.v4;
    ip.check = csum_fold(csum_add(0, &ip, sizeof(ip)));
    memcpy(h, &ip, sizeof(ip));
    return sizeof(ip);
}

void packet_tap_loop(struct net *n, const struct packet_loop *p)
{
    uint8_t head[PACKET_ETH_HEADER + sizeof(struct ip6_hdr)] = {0};
    const size_t body = p->transport_size + p->size;

    if (!packet_listens(n))
        return;
    const bool four = p->dst.family == AF_INET;
    const uint16_t type = htons(four ? ETH_P_IP : ETH_P_IPV6);
    memcpy(head + 12, &type, sizeof(type));
    const size_t ip = loop_header(head + PACKET_ETH_HEADER, p, body);
    const struct iovec iov[3] = {{head, PACKET_ETH_HEADER + ip},
                                 {(void *)(uintptr_t)p->transport, p->transport_size},
                                 {(void *)(uintptr_t)p->data, p->size}};
    tap_both(n, iov, 3, PACKET_ETH_HEADER + ip + body, NULL, p->transport_size > 0);
}

/* ---- reading ---- */

static bool recv_ready(struct packet_sock *s)
{
    mutex_lock(&s->mu);
    const bool yes = !list_empty(&s->queue) || atomic_load(&s->base.error);
    mutex_unlock(&s->mu);
    return yes;
}

/* The oldest packet, taken or looked at; owned reference, or NULL. */
static struct packet_skb *recv_one(struct packet_sock *s, bool peek)
{
    struct packet_skb *p = NULL;

    mutex_lock(&s->mu);
    if (!list_empty(&s->queue)) {
        p = list_first_entry(&s->queue, struct packet_skb, node);
        if (peek) {
            ref_get(&p->ref);
        } else {
            list_del(&p->node);
            s->charged -= p->size + PACKET_COST;
        }
    }
    mutex_unlock(&s->mu);
    return p;
}

static void recv_control(struct packet_sock *s, const struct packet_skb *p, struct sock_msg *m)
{
    const struct tpacket_auxdata aux = {
        .tp_status = p->status,
        .tp_len = p->len,
        .tp_snaplen = p->size,
        .tp_net = (uint16_t)p->net,
    };

    if (!m->control)
        return;
    mutex_lock(&s->mu);
    const bool wanted = s->auxdata;
    mutex_unlock(&s->mu);
    sock_stamp(&s->base, p->time_ns, m->control);
    sock_say_dropped(&s->base, p->dropped, m->control);
    if (wanted)
        (void)!sock_control_put(m->control, SOL_PACKET, PACKET_AUXDATA, &aux, sizeof(aux));
}

static int64_t recv_copy(struct packet_sock *s, const struct packet_skb *p, struct sock_msg *m)
{
    const size_t want = (size_t)MIN(m->u->left, (uint64_t)p->size);
    const int64_t n = uio_copy_to(m->u, p->data, want);

    if (n < 0 || (size_t)n < want)
        return -EFAULT;
    if (want < p->size)
        m->out_flags |= MSG_TRUNC;
    if (m->from) {
        memset(m->from, 0, sizeof(*m->from));
        memcpy(&m->from->storage, &p->from, sizeof(p->from));
        m->from->len = sizeof(p->from);
    }
    recv_control(s, p, m);
    return m->flags & MSG_TRUNC ? (int64_t)p->size : n;
}

int64_t packet_recv(struct sock *base, struct sock_msg *m, bool nonblock,
                    const struct vfs_caller *c)
{
    struct packet_sock *s = packet_of(base);
    const deadline_t deadline = sock_deadline(base->rcvtimeo_ns);
    struct packet_skb *p;

    if (m->flags & ~(MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC | MSG_ERRQUEUE | MSG_CMSG_CLOEXEC))
        return -EINVAL;
    if (m->flags & MSG_ERRQUEUE)
        return -EAGAIN;
    for (;;) {
        int err = atomic_exchange(&base->error, 0);
        if (err)
            return err;
        p = recv_one(s, m->flags & MSG_PEEK);
        if (p)
            break;
        if (nonblock || !c->blocker)
            return -EAGAIN;
        WAIT_EVENT(&s->wq, c->blocker, EPOLLIN | EPOLLERR, deadline, recv_ready(s), err);
        err = sock_wait_error(err, base->rcvtimeo_ns);
        if (err)
            return err;
    }
    const int64_t n = recv_copy(s, p, m);
    skb_put(p);
    return n;
}

/* ---- sending ---- */

struct way {
    struct netns_link link;
    uint16_t protocol;
    uint8_t mac[ETH_ALEN];
    bool has_mac;
};

static int send_way(struct packet_sock *s, const struct sock_msg *m, struct way *out)
{
    struct sockaddr_ll to = {.sll_halen = 0};
    int32_t ifindex;

    memset(out, 0, sizeof(*out));
    mutex_lock(&s->mu);
    ifindex = s->ifindex;
    out->protocol = s->protocol;
    mutex_unlock(&s->mu);
    if (m->to) {
        if (m->to->len < sizeof(to))
            return -EINVAL;
        memcpy(&to, &m->to->storage, sizeof(to));
        if (m->to->len < to.sll_halen + offsetof(struct sockaddr_ll, sll_addr))
            return -EINVAL;
        out->protocol = ntohs(to.sll_protocol);
        ifindex = to.sll_ifindex;
        out->has_mac = to.sll_halen >= ETH_ALEN;
        memcpy(out->mac, to.sll_addr, ETH_ALEN);
    }
    if (netns_link_get(net_ns(s->base.net), ifindex, &out->link))
        return -ENXIO;
    return out->link.flags & IFF_UP ? 0 : -ENETDOWN;
}

/* The frame is whole: a link header of our own before what a SOCK_DGRAM socket sends. */
static int send_header(const struct packet_sock *s, const struct way *w, uint8_t *frame)
{
    const uint16_t type = htons(w->protocol);

    if (s->base.type == SOCK_RAW)
        return 0;
    if (!w->has_mac && w->link.index != NETNS_LO_INDEX)
        return -EINVAL;
    memcpy(frame, w->mac, ETH_ALEN);
    memcpy(frame + ETH_ALEN, w->link.mac, ETH_ALEN);
    memcpy(frame + 2 * ETH_ALEN, &type, sizeof(type));
    return 0;
}

static int send_frame(struct packet_sock *s, const struct way *w, uint8_t *frame, size_t size)
{
    const struct iovec iov = {frame, size};

    if (w->link.index != NETNS_LO_INDEX)
        return ext_frame_send(s->base.net, w->link.index, &iov, &s->base);
    tap_both(s->base.net, &iov, 1, size, &s->base, false);
    return 0;
}

int64_t packet_send(struct sock *base, struct sock_msg *m, bool nonblock,
                    const struct vfs_caller *c)
{
    struct packet_sock *s = packet_of(base);
    const size_t head = base->type == SOCK_DGRAM ? PACKET_ETH_HEADER : 0;
    const uint64_t size = m->u->left;
    struct way w;

    (void)nonblock;
    (void)c;
    int r = send_way(s, m, &w);
    if (r)
        return r;
    if (size + head > w.link.mtu + PACKET_ETH_HEADER)
        return -EMSGSIZE;
    if (size + head < PACKET_ETH_HEADER)
        return -EINVAL;
    uint8_t *frame = malloc((size_t)size + head);
    if (!frame)
        return -ENOBUFS;
    r = uio_copy_from(m->u, frame + head, (size_t)size) < (int64_t)size ? -EFAULT : 0;
    if (r == 0)
        r = send_header(s, &w, frame);
    if (r == 0)
        r = send_frame(s, &w, frame, (size_t)size + head);
    free(frame);
    return r ? r : (int64_t)size;
}
