/* Multicast groups that sockets have joined on links: routers, and switches that listen in, are
 * told (IGMPv3, RFC 3376, and v2, RFC 2236; MLDv2, RFC 3810, and v1, RFC 2710).
 *
 * A group is told of as wanted from anybody, whatever sources its sockets choose; they do that
 * themselves. Each record travels in a report of its own. */
#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"
#include "sentry/net/ip/ip_priv.h"

#define NS_PER_MS UINT64_C(1000000)
/* Of a change: how often it is told, and within which time again. */
#define ROBUSTNESS 2u
#define UNSOLICITED_MS 1000u
/* How long a router of an older version counts after its last query. */
#define OLD_QUERIER_NS (UINT64_C(260) * 1000 * NS_PER_MS)

#define IGMP_QUERY 0x11
#define IGMP_V2_REPORT 0x16
#define IGMP_V2_LEAVE 0x17
#define IGMP_V3_REPORT 0x22
#define MLD_QUERY 130
#define MLD_V1_REPORT 131
#define MLD_V1_DONE 132
#define MLD_V2_REPORT 143

enum record { RECORD_IS = 2, RECORD_TO_NOBODY = 3, RECORD_TO_ANYBODY = 4 };

#define REPORT_MAX 32u
/* Ethernet, IPv6 and the router alert. */
#define REPORT_HEADERS_MAX (ETH_HEADER + IP6_HEADER + 8u)

struct ext_group {
    struct list node;
    struct ext_link *link;
    struct net_addr addr;
    uint32_t users;  /* sockets; 0: it has been left, or is an address's own */
    uint32_t untold; /* how often the last change is still to be told */
    uint64_t at;     /* when to speak; UINT64_MAX: not yet */
};

/* What is sent once the lock is gone. */
struct report {
    struct ext_link *link;
    struct net_addr group;
    enum record kind;
    bool old; /* in the older version */
};

/* Some time from now, so that not all hosts speak at once, nor all groups of one. */
static uint64_t within_ms(const struct ext_group *g, uint64_t now, uint64_t ms)
{
    return now +
           hash_seeded_u64(now, hash_seeded(&g->addr, sizeof(g->addr))) % (ms * NS_PER_MS + 1);
}

/* ---- sending ---- */

static size_t put_igmp(const struct report *r, uint8_t *p, struct net_addr *dst)
{
    static const uint8_t routers[4] = {224, 0, 0, 2}, v3[4] = {224, 0, 0, 22};
    const bool leave = r->kind == RECORD_TO_NOBODY;
    size_t size = 8;

    if (r->old) {
        p[0] = leave ? IGMP_V2_LEAVE : IGMP_V2_REPORT;
        memcpy(p + 4, r->group.b, 4);
        *dst = leave ? net_addr_from(AF_INET, routers, 4) : r->group;
    } else {
        p[0] = IGMP_V3_REPORT;
        p[7] = 1; /* record */
        p[8] = (uint8_t)r->kind;
        memcpy(p + 12, r->group.b, 4);
        *dst = net_addr_from(AF_INET, v3, 4);
        size = 16;
    }
    const uint16_t sum = csum_fold(csum_add(0, p, size));
    memcpy(p + 2, &sum, 2);
    return size;
}

static size_t put_mld(const struct report *r, uint8_t *p, struct net_addr *dst)
{
    static const uint8_t routers[16] = {0xff, 2, [15] = 2}, v2[16] = {0xff, 2, [15] = 22};
    const bool leave = r->kind == RECORD_TO_NOBODY;

    if (r->old) {
        p[0] = leave ? MLD_V1_DONE : MLD_V1_REPORT;
        memcpy(p + 8, r->group.b, 16);
        *dst = leave ? net_addr_v6(routers) : r->group;
        return 24;
    }
    p[0] = MLD_V2_REPORT;
    p[7] = 1; /* record */
    p[8] = (uint8_t)r->kind;
    memcpy(p + 12, r->group.b, 16);
    *dst = net_addr_v6(v2);
    return 28;
}

/* Both with the router alert option, which these reports must have. */
static size_t put_head4(uint8_t *h, const struct net_addr *src, const struct net_addr *dst,
                        size_t size)
{
    static const uint8_t alert[4] = {148, 4, 0, 0};
    const size_t header = IP4_HEADER + sizeof(alert), total = header + size;

    h[0] = 0x46;
    h[1] = 0xc0;
    h[2] = (uint8_t)(total >> 8);
    h[3] = (uint8_t)total;
    h[6] = 0x40; /* not to be fragmented */
    h[8] = 1;
    h[9] = IPPROTO_IGMP;
    memcpy(h + 12, src->b, 4);
    memcpy(h + 16, dst->b, 4);
    memcpy(h + IP4_HEADER, alert, sizeof(alert));
    const uint16_t sum = csum_fold(csum_add(0, h, header));
    memcpy(h + 10, &sum, 2);
    return header;
}

static size_t put_head6(uint8_t *h, const struct net_addr *src, const struct net_addr *dst,
                        size_t size)
{
    static const uint8_t alert[8] = {IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0};

    h[0] = 0x60;
    h[5] = (uint8_t)(sizeof(alert) + size);
    h[6] = IPPROTO_HOPOPTS;
    h[7] = 1;
    memcpy(h + 8, src->b, 16);
    memcpy(h + 24, dst->b, 16);
    memcpy(h + IP6_HEADER, alert, sizeof(alert));
    return IP6_HEADER + sizeof(alert);
}

struct source {
    int32_t ifindex;
    struct net_addr addr;
};

static bool own_linklocal(void *arg, const struct netns_ifaddr *a)
{
    struct source *s = arg;

    if (a->ifindex != s->ifindex || a->local.family != AF_INET6 ||
        !net_addr_is_linklocal(&a->local))
        return true;
    s->addr = a->local;
    return false;
}

/* An IPv6 report without a link-local address comes from nobody. */
static struct net_addr report_source(const struct report *r)
{
    struct netns *ns = r->link->st->ns;
    struct source s = {.ifindex = r->link->ifindex, .addr.family = AF_INET6};

    if (r->group.family == AF_INET)
        return netns_any_addr(ns, r->link->ifindex, AF_INET);
    netns_for_addrs(ns, own_linklocal, &s);
    return s.addr;
}

static void report_send(const struct report *r)
{
    uint8_t frame[REPORT_HEADERS_MAX + REPORT_MAX] = {0}, body[REPORT_MAX] = {0};
    const struct net_addr src = report_source(r);
    struct net_addr dst;
    size_t at = ETH_HEADER;

    if (r->group.family == AF_INET) {
        const size_t size = put_igmp(r, body, &dst);
        at += put_head4(frame + at, &src, &dst, size);
        memcpy(frame + at, body, size);
        at += size;
    } else {
        const size_t size = put_mld(r, body, &dst);
        const uint16_t sum =
            csum_fold(csum_add(csum_pseudo(&src, &dst, IPPROTO_ICMPV6, size), body, size));
        memcpy(body + 2, &sum, 2);
        at += put_head6(frame + at, &src, &dst, size);
        memcpy(frame + at, body, size);
        at += size;
    }
    ip_multicast_mac(&dst, frame);
    memcpy(frame + 6, r->link->mac, 6);
    const unsigned type = r->group.family == AF_INET ? ETH_P_IP : ETH_P_IPV6;
    frame[12] = (uint8_t)(type >> 8);
    frame[13] = (uint8_t)type;
    const struct iovec iov = {frame, at};
    (void)!link_send(r->link, NULL, &iov, 1, at);
}

/* ---- the table ---- */

static bool is_told(const struct net_addr *group)
{
    static const uint8_t all4[4] = {224, 0, 0, 1}, all6[16] = {0xff, 2, [15] = 1};

    if (group->family == AF_INET)
        return memcmp(group->b, all4, 4) != 0;
    return (group->b[1] & 15) > 1 && memcmp(group->b, all6, 16) != 0;
}

static struct ext_group *group_find_locked(struct ext_stack *st, const struct ext_link *l,
                                           const struct net_addr *a)
{
    struct ext_group *g;

    list_for_each_entry (g, &st->groups, node)
        if (g->link == l && net_addr_equal(&g->addr, a))
            return g;
    return NULL;
}

bool groups_wants(struct ext_link *l, const struct net_addr *group)
{
    static const uint8_t solicited[13] = {0xff, 2, [11] = 1, [12] = 0xff};

    if (!is_told(group) ||
        (group->family == AF_INET6 && memcmp(group->b, solicited, sizeof(solicited)) == 0))
        return true;
    mutex_lock(&l->st->mu);
    const struct ext_group *g = group_find_locked(l->st, l, group);
    const bool yes = g && g->users > 0;
    mutex_unlock(&l->st->mu);
    return yes;
}

static struct ext_group *group_make_locked(struct ext_stack *st, struct ext_link *l,
                                           const struct net_addr *a)
{
    struct ext_group *g = group_find_locked(st, l, a);

    if (g || st->group_count >= LIMIT_EXT_GROUPS)
        return g;
    g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    g->link = l;
    g->addr = *a;
    g->at = UINT64_MAX;
    list_add_tail(&g->node, &st->groups);
    st->group_count++;
    return g;
}

static void group_free_locked(struct ext_stack *st, struct ext_group *g)
{
    list_del(&g->node);
    st->group_count--;
    free(g);
}

/* What g has to say now. */
static void group_speak_locked(struct ext_stack *st, struct ext_group *g, uint64_t now,
                               struct report *out)
{
    const bool four = g->addr.family == AF_INET;

    *out = (struct report){.link = g->link,
                           .group = g->addr,
                           .kind = g->untold == 0  ? RECORD_IS
                                   : g->users == 0 ? RECORD_TO_NOBODY
                                                   : RECORD_TO_ANYBODY,
                           .old = now < g->link->old_querier_till[four]};
    if (g->untold > 0)
        g->untold--;
    g->at = g->untold > 0 ? within_ms(g, now, UNSOLICITED_MS) : UINT64_MAX;
    if (g->untold == 0 && g->users == 0)
        group_free_locked(st, g);
}

/* The next that is due into out, or the time till then into *next. */
static bool group_take_due(struct ext_stack *st, uint64_t now, struct report *out, uint64_t *next)
{
    struct ext_group *g;
    bool due = false;

    *next = UINT64_MAX;
    mutex_lock(&st->mu);
    list_for_each_entry (g, &st->groups, node) {
        due = g->at <= now;
        if (due) {
            group_speak_locked(st, g, now, out);
            break;
        }
        *next = MIN(*next, g->at);
    }
    mutex_unlock(&st->mu);
    return due;
}

static uint64_t groups_next(struct ext_stack *st)
{
    const struct ext_group *g;
    uint64_t next = UINT64_MAX;

    mutex_lock(&st->mu);
    list_for_each_entry (g, &st->groups, node)
        next = MIN(next, g->at);
    mutex_unlock(&st->mu);
    return next;
}

static void groups_run(struct ext_timer *t, uint64_t now)
{
    struct ext_stack *st = container_of(t, struct ext_stack, groups_timer);
    struct report r;
    uint64_t next;

    /* Again, if meanwhile somebody has set the timer for a group that is due before that. */
    do {
        while (group_take_due(st, now, &r, &next))
            report_send(&r);
        (void)ext_timer_set(st, t, next);
        now = mono_now();
    } while (groups_next(st) < next);
}

void groups_init(struct ext_stack *st)
{
    list_init(&st->groups);
    st->groups_timer.at = UINT64_MAX;
    st->groups_timer.fn = groups_run;
}

void groups_fini(struct ext_stack *st)
{
    struct ext_group *g, *next;

    list_for_each_entry_safe (g, next, &st->groups, node)
        group_free_locked(st, g);
}

int ext_group_join(struct net *n, int32_t ifindex, const struct net_addr *group)
{
    struct ext_stack *st = net_ext(n);
    struct ext_link *l = ext_find_link(st, ifindex);

    if (!l || !is_told(group))
        return 0;
    mutex_lock(&st->mu);
    struct ext_group *g = group_make_locked(st, l, group);
    const bool fresh = g && g->users++ == 0;
    if (fresh) {
        g->untold = ROBUSTNESS;
        g->at = 0;
    }
    mutex_unlock(&st->mu);
    if (fresh)
        (void)ext_timer_set(st, &st->groups_timer, 0);
    return g ? 0 : -ENOBUFS;
}

void ext_group_leave(struct net *n, int32_t ifindex, const struct net_addr *group)
{
    struct ext_stack *st = net_ext(n);
    struct ext_link *l = ext_find_link(st, ifindex);

    if (!l || !is_told(group))
        return;
    mutex_lock(&st->mu);
    struct ext_group *g = group_find_locked(st, l, group);
    const bool last = g && g->users > 0 && --g->users == 0;
    if (last) {
        g->untold = ROBUSTNESS;
        g->at = 0;
    }
    mutex_unlock(&st->mu);
    if (last)
        (void)ext_timer_set(st, &st->groups_timer, 0);
}

/* ---- queries ---- */

struct query {
    struct ext_link *link;
    struct net_addr group; /* all zero: every one */
    uint64_t now, within_ms;
};

static void answer_locked(struct ext_group *g, const struct query *q)
{
    g->at = MIN(g->at, within_ms(g, q->now, q->within_ms));
}

/* The groups at which an address's neighbours ask for it have no socket. */
static bool answer_solicited(void *arg, const struct netns_ifaddr *a)
{
    const struct query *q = arg;
    struct net_addr group = {
        .family = AF_INET6,
        .b = {0xff, 2, [11] = 1, [12] = 0xff, a->local.b[13], a->local.b[14], a->local.b[15]}};

    if (a->ifindex != q->link->ifindex || a->local.family != AF_INET6 ||
        (!net_addr_is_any(&q->group) && !net_addr_equal(&q->group, &group)))
        return true;
    struct ext_stack *st = q->link->st;
    mutex_lock(&st->mu);
    struct ext_group *g = group_make_locked(st, q->link, &group);
    if (g)
        answer_locked(g, q);
    mutex_unlock(&st->mu);
    return true;
}

static void answer(const struct query *q, bool old)
{
    struct ext_stack *st = q->link->st;
    const bool four = q->group.family == AF_INET;
    struct ext_group *g;

    mutex_lock(&st->mu);
    if (old)
        q->link->old_querier_till[four] = q->now + OLD_QUERIER_NS;
    list_for_each_entry (g, &st->groups, node)
        if (g->link == q->link && g->addr.family == q->group.family &&
            (net_addr_is_any(&q->group) || net_addr_equal(&q->group, &g->addr)))
            answer_locked(g, q);
    mutex_unlock(&st->mu);
    if (!four)
        netns_for_addrs(st->ns, answer_solicited, (void *)(uintptr_t)q);
    groups_run(&st->groups_timer, q->now);
}

/* A number with an exponent of three bits above so many of mantissa, once its first bit is set. */
static uint64_t float_code(unsigned code, unsigned bits)
{
    const unsigned top = 1u << (bits + 3);

    if (code < top)
        return code;
    return (uint64_t)((code & ((1u << bits) - 1)) | 1u << bits) << (((code >> bits) & 7) + 3);
}

void igmp_input(const struct ip_in *in)
{
    const uint8_t *p = in->data;

    if (in->src.family != AF_INET || in->size < 8 || p[0] != IGMP_QUERY ||
        csum_fold(csum_add(0, p, in->size)) != 0)
        return;
    const bool v3 = in->size >= 12;
    struct query q = {
        .link = in->link, .group = net_addr_from(AF_INET, p + 4, 4), .now = mono_now()};

    /* In tenths of a second; the first version left it out. */
    q.within_ms = 100 * (p[1] == 0 && !v3 ? 100 : v3 ? float_code(p[1], 4) : p[1]);
    answer(&q, !v3);
}

void mld_input(const struct ip_in *in)
{
    const uint8_t *p = in->data;

    if (in->size < 24 || in->ttl != 1 || !net_addr_is_linklocal(&in->src))
        return;
    const bool v2 = in->size >= 28;
    const unsigned code = (unsigned)p[4] << 8 | p[5];
    struct query q = {.link = in->link, .group = net_addr_v6(p + 8), .now = mono_now()};

    q.within_ms = v2 ? float_code(code, 12) : code;
    answer(&q, !v2);
}
