/* Neighbours: ARP (RFC 826) and neighbour discovery (RFC 4861), and packets that wait for an
 * answer. */
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/neighbour.h>
#include <netinet/icmp6.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/net/ip/ip_priv.h"

#define SEC_NS UINT64_C(1000000000)
#define REACHABLE_NS (30 * SEC_NS)
#define ASK_TRIES 3u
#define WAITS_MAX 64u
#define WAIT_PACKETS 16u
#define ARP_SIZE 28u

/* Somebody who has been asked for. */
struct neigh_wait {
    struct list node;
    struct ext_link *link;
    struct net_addr addr;
    uint64_t asked_ns;
    unsigned tries, count;
    struct wait_packet {
        size_t size;
        struct virtio_net_hdr v;
        uint8_t *frame;
    } packets[WAIT_PACKETS];
};

/* ---- asking and answering ---- */

static void send_frame(struct ext_link *l, uint8_t *frame, size_t size)
{
    const struct iovec iov = {frame, size};

    (void)!link_send(l, NULL, &iov, 1, size);
}

static void eth_header(uint8_t *f, const uint8_t dst[6], const uint8_t src[6], unsigned type)
{
    memcpy(f, dst, 6);
    memcpy(f + 6, src, 6);
    f[12] = (uint8_t)(type >> 8);
    f[13] = (uint8_t)type;
}

static void arp_send(struct ext_link *l, uint8_t op, const uint8_t to[6], const uint8_t from_ip[4],
                     const uint8_t *to_mac, const uint8_t to_ip[4])
{
    static const uint8_t head[6] = {0, 1, 8, 0, 6, 4};
    uint8_t f[ETH_HEADER + ARP_SIZE];
    uint8_t *p = f + ETH_HEADER;

    memset(f, 0, sizeof(f));
    eth_header(f, to, l->mac, ETH_P_ARP);
    memcpy(p, head, sizeof(head));
    p[7] = op;
    memcpy(p + 8, l->mac, 6);
    memcpy(p + 14, from_ip, 4);
    if (to_mac)
        memcpy(p + 18, to_mac, 6);
    memcpy(p + 24, to_ip, 4);
    send_frame(l, f, sizeof(f));
}

/* A neighbour solicitation or advertisement with our hardware address as its option. */
static void nd_send(struct ext_link *l, uint8_t type, const struct net_addr *src,
                    const struct net_addr *dst, const uint8_t mac[6], uint8_t flags,
                    const struct net_addr *target)
{
    uint8_t f[ETH_HEADER + IP6_HEADER + 32];
    uint8_t *ip = f + ETH_HEADER, *p = ip + IP6_HEADER;

    memset(f, 0, sizeof(f));
    eth_header(f, mac, l->mac, ETH_P_IPV6);
    ip[0] = 0x60;
    ip[5] = 32;
    ip[6] = IPPROTO_ICMPV6;
    ip[7] = 255;
    memcpy(ip + 8, src->b, 16);
    memcpy(ip + 24, dst->b, 16);
    p[0] = type;
    p[4] = flags;
    memcpy(p + 8, target->b, 16);
    p[24] = type == ND_NEIGHBOR_SOLICIT ? ND_OPT_SOURCE_LINKADDR : ND_OPT_TARGET_LINKADDR;
    p[25] = 1;
    memcpy(p + 26, l->mac, 6);
    const uint16_t sum = csum_fold(csum_add(csum_pseudo(src, dst, IPPROTO_ICMPV6, 32), p, 32));
    memcpy(p + 2, &sum, 2);
    send_frame(l, f, sizeof(f));
}

/* mac NULL: everybody is asked. */
static void ask(struct ext_link *l, const struct net_addr *a, const uint8_t *mac)
{
    static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct netns_path p;

    if (netns_route_lookup(l->st->ns, a, NULL, l->ifindex, &p) || !p.src.family)
        return;
    if (a->family == AF_INET) {
        arp_send(l, 1, mac ? mac : everybody, p.src.b, NULL, a->b);
        return;
    }
    struct net_addr group = net_addr_v6((const uint8_t[16]){0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
                                                            0xff, a->b[13], a->b[14], a->b[15]});
    const uint8_t group_mac[6] = {0x33, 0x33, 0xff, a->b[13], a->b[14], a->b[15]};
    nd_send(l, ND_NEIGHBOR_SOLICIT, &p.src, mac ? a : &group, mac ? mac : group_mac, 0, a);
}

/* ---- the queue ---- */

static void wait_free_locked(struct ext_stack *st, struct neigh_wait *w)
{
    for (unsigned i = 0; i < w->count; i++)
        free(w->packets[i].frame);
    list_del(&w->node);
    st->wait_count--;
    free(w);
}

static struct neigh_wait *wait_find_locked(struct ext_link *l, const struct net_addr *a)
{
    struct neigh_wait *w;

    list_for_each_entry (w, &l->st->waits, node) {
        if (w->link == l && net_addr_equal(&w->addr, a))
            return w;
    }
    return NULL;
}

static struct neigh_wait *wait_make_locked(struct ext_link *l, const struct net_addr *a)
{
    struct ext_stack *st = l->st;

    if (st->wait_count >= WAITS_MAX)
        wait_free_locked(st, list_first_entry(&st->waits, struct neigh_wait, node));
    struct neigh_wait *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->link = l;
    w->addr = *a;
    w->tries = 1;
    w->asked_ns = mono_now();
    list_add_tail(&w->node, &st->waits);
    st->wait_count++;
    return w;
}

static int queue_locked(struct neigh_wait *w, const struct virtio_net_hdr *v,
                        const struct iovec *iov, int count, size_t size)
{
    if (w->count == WAIT_PACKETS)
        return -ENOBUFS;
    struct wait_packet *p = &w->packets[w->count];
    size_t at = 0;
    p->frame = malloc(size);
    if (!p->frame)
        return -ENOBUFS;
    for (int i = 0; i < count; i++) {
        memcpy(p->frame + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    p->size = size;
    memset(&p->v, 0, sizeof(p->v));
    if (v)
        p->v = *v;
    w->count++;
    return 0;
}

int neigh_queue(struct ext_link *l, const struct net_addr *hop, const struct virtio_net_hdr *v,
                const struct iovec *iov, int count, size_t size)
{
    struct ext_stack *st = l->st;
    bool fresh = false;
    int r = -ENOBUFS;

    mutex_lock(&st->mu);
    struct neigh_wait *w = wait_find_locked(l, hop);
    if (!w) {
        w = wait_make_locked(l, hop);
        fresh = w != NULL;
    }
    if (w)
        r = queue_locked(w, v, iov, count, size);
    mutex_unlock(&st->mu);
    if (fresh) {
        const struct netns_neigh n = {.ifindex = l->ifindex, .addr = *hop, .state = NUD_INCOMPLETE};
        (void)!netns_neigh_set(st->ns, &n, true);
        ask(l, hop, NULL);
        (void)ext_timer_set(st, &st->upkeep, mono_now() + SEC_NS);
    }
    return r;
}

int neigh_resolve(struct ext_link *l, const struct net_addr *hop, uint8_t mac[6])
{
    const uint64_t now = mono_now();
    struct netns_neigh n;

    if (netns_neigh_get(l->st->ns, l->ifindex, hop, &n) || !n.has_mac || n.state & NUD_FAILED)
        return -EINPROGRESS;
    memcpy(mac, n.mac, 6);
    /* Not heard of for long: used still, and asked whether it is there. */
    if (!(n.state & (NUD_PERMANENT | NUD_NOARP)) && now - n.confirmed_ns > REACHABLE_NS &&
        now - n.used_ns > SEC_NS) {
        n.used_ns = now;
        if (now - n.confirmed_ns > REACHABLE_NS + ASK_TRIES * 2 * SEC_NS && n.state == NUD_PROBE) {
            n.state = NUD_FAILED;
            (void)!netns_neigh_set(l->st->ns, &n, true);
            return -EINPROGRESS;
        }
        if (n.state == NUD_REACHABLE)
            n.confirmed_ns = now - REACHABLE_NS;
        n.state = NUD_PROBE;
        (void)!netns_neigh_set(l->st->ns, &n, true);
        ask(l, hop, n.mac);
    }
    return 0;
}

/* What waited for a goes out now. */
static void release(struct ext_link *l, const struct net_addr *a, const uint8_t mac[6])
{
    struct wait_packet ready[WAIT_PACKETS];
    unsigned count = 0;

    mutex_lock(&l->st->mu);
    struct neigh_wait *w = wait_find_locked(l, a);
    if (w) {
        count = w->count;
        memcpy(ready, w->packets, sizeof(ready));
        w->count = 0;
        wait_free_locked(l->st, w);
    }
    mutex_unlock(&l->st->mu);
    for (unsigned i = 0; i < count; i++) {
        const struct iovec iov = {ready[i].frame, ready[i].size};
        memcpy(ready[i].frame, mac, 6);
        (void)!link_send(l, &ready[i].v, &iov, 1, ready[i].size);
        free(ready[i].frame);
    }
}

void neigh_seen(struct ext_link *l, const struct net_addr *a, const uint8_t mac[6], bool solicited)
{
    struct netns_neigh n;
    const uint64_t now = mono_now();
    const bool known = netns_neigh_get(l->st->ns, l->ifindex, a, &n) == 0;

    if (known && n.state & NUD_PERMANENT)
        return;
    if (!known) {
        memset(&n, 0, sizeof(n));
        n.ifindex = l->ifindex;
        n.addr = *a;
        n.used_ns = now;
    }
    memcpy(n.mac, mac, 6);
    n.has_mac = true;
    n.state = solicited ? NUD_REACHABLE : NUD_STALE;
    n.confirmed_ns = now;
    (void)!netns_neigh_set(l->st->ns, &n, true);
    release(l, a, mac);
}

/* ---- what comes in ---- */

void arp_input(struct ext_link *l, const uint8_t *p, size_t size)
{
    static const uint8_t head[6] = {0, 1, 8, 0, 6, 4};
    struct netns_neigh n;

    if (size < ARP_SIZE || memcmp(p, head, sizeof(head)) != 0 || p[6] != 0)
        return;
    const struct net_addr from = net_addr_from(AF_INET, p + 14, 4);
    const struct net_addr target = net_addr_from(AF_INET, p + 24, 4);
    const bool ours = !net_addr_is_loopback(&target) && netns_is_local(l->st->ns, &target, 0);
    if (net_addr_is_multicast(&from) || net_addr_is_loopback(&from) || p[8] & 1 ||
        netns_is_local(l->st->ns, &from, 0))
        return;
    const bool known = netns_neigh_get(l->st->ns, l->ifindex, &from, &n) == 0;
    if (!net_addr_is_any(&from) && (ours || known))
        neigh_seen(l, &from, p + 8, p[7] == 2 && ours);
    if (p[7] == 1 && ours)
        arp_send(l, 2, p + 8, target.b, p + 8, from.b);
}

/* The hardware address in the options, or NULL. */
static const uint8_t *nd_option(const struct ip_in *in, uint8_t type)
{
    size_t at = 24;

    while (at + 8 <= in->size) {
        const size_t len = (size_t)in->data[at + 1] * 8;
        if (len == 0 || len > in->size - at)
            return NULL;
        if (in->data[at] == type)
            return in->data + at + 2;
        at += len;
    }
    return NULL;
}

void nd_input(const struct ip_in *in)
{
    struct ext_link *l = in->link;
    struct netns_neigh n;

    /* From this link only (RFC 4861, 7.1). */
    if (in->ttl != 255 || in->data[1] != 0 || in->size < 24)
        return;
    const struct net_addr target = net_addr_v6(in->data + 8);
    if (in->data[0] == ND_NEIGHBOR_SOLICIT && netns_is_local(l->st->ns, &target, 0) &&
        !net_addr_is_loopback(&target)) {
        const uint8_t *mac = nd_option(in, ND_OPT_SOURCE_LINKADDR);
        const uint8_t all_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
        struct net_addr all = net_addr_v6((const uint8_t[16]){0xff, 2, [15] = 1});
        if (net_addr_is_any(&in->src)) {
            nd_send(l, ND_NEIGHBOR_ADVERT, &target, &all, all_mac, 0x20, &target);
        } else if (mac) {
            neigh_seen(l, &in->src, mac, false);
            nd_send(l, ND_NEIGHBOR_ADVERT, &target, &in->src, mac, 0x60, &target);
        }
    } else if (in->data[0] == ND_NEIGHBOR_ADVERT) {
        const uint8_t *mac = nd_option(in, ND_OPT_TARGET_LINKADDR);
        if (mac && netns_neigh_get(l->st->ns, l->ifindex, &target, &n) == 0)
            neigh_seen(l, &target, mac, in->data[4] & 0x40);
    }
}

/* ---- once a second ---- */

/* Nobody answers: whoever sent is told, by what Linux's neighbour code makes of it. */
static void give_up(struct ext_link *l, const struct net_addr *a)
{
    struct netns_neigh n = {.ifindex = l->ifindex, .addr = *a, .state = NUD_FAILED};

    (void)!netns_neigh_set(l->st->ns, &n, true);
    exttcp_icmp(l->st, NULL, &(struct net_ep){.addr = *a}, 0, -EHOSTUNREACH, 0);
}

void neigh_upkeep(struct ext_stack *st, uint64_t now, bool *again)
{
    struct {
        struct ext_link *link;
        struct net_addr addr;
        bool failed;
    } due[WAITS_MAX];
    struct neigh_wait *w, *next;
    unsigned count = 0;

    mutex_lock(&st->mu);
    list_for_each_entry_safe (w, next, &st->waits, node) {
        if (now != UINT64_MAX && now - w->asked_ns < SEC_NS - SEC_NS / 10)
            continue;
        due[count].link = w->link;
        due[count].addr = w->addr;
        due[count++].failed = w->tries >= ASK_TRIES;
        w->asked_ns = now;
        if (w->tries++ >= ASK_TRIES || now == UINT64_MAX)
            wait_free_locked(st, w);
    }
    *again = st->wait_count > 0;
    mutex_unlock(&st->mu);
    for (unsigned i = 0; i < count && now != UINT64_MAX; i++) {
        if (due[i].failed)
            give_up(due[i].link, &due[i].addr);
        else
            ask(due[i].link, &due[i].addr, NULL);
    }
}
