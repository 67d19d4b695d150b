/* RTM_GETROUTE, RTM_NEWROUTE, RTM_DELROUTE and the fixed rules (net/ipv4/fib_frontend.c,
 * net/ipv4/route.c, net/ipv6/route.c). */
#include <errno.h>
#include <linux/fib_rules.h>
#include <string.h>

#include "sentry/net/netlink/nl_priv.h"
#include "sentry/net/ns/prefix.h"

#define V6_USER_METRIC 1024u

static void put_metrics(struct wbuf *w, uint32_t mtu)
{
    const size_t nest = nl_nest(w, RTA_METRICS);

    nl_attr_u32(w, RTAX_MTU, mtu);
    if (!w->failed)
        wbuf_patch_u16(w, nest, (uint16_t)(w->len - nest));
}

static void put_body(struct wbuf *w, const struct netns_route *r, uint32_t rtm_flags)
{
    const size_t size = net_addr_size(r->dst.family);
    const struct rtmsg m = {
        .rtm_family = (uint8_t)r->dst.family,
        .rtm_dst_len = r->dst_len,
        .rtm_tos = r->tos,
        .rtm_table = (uint8_t)(r->table < 256 ? r->table : RT_TABLE_COMPAT),
        .rtm_protocol = r->protocol,
        .rtm_scope = r->scope,
        .rtm_type = r->type,
        .rtm_flags = r->flags | rtm_flags,
    };

    wbuf_bytes(w, &m, sizeof(m));
    nl_attr_u32(w, RTA_TABLE, r->table);
    if (r->dst_len > 0)
        nl_attr(w, RTA_DST, r->dst.b, size);
    if (r->priority || r->dst.family == AF_INET6)
        nl_attr_u32(w, RTA_PRIORITY, r->priority);
    if (r->prefsrc.family)
        nl_attr(w, RTA_PREFSRC, r->prefsrc.b, size);
    if (r->mtu)
        put_metrics(w, r->mtu);
    if (r->gateway.family)
        nl_attr(w, RTA_GATEWAY, r->gateway.b, size);
    if (r->oif)
        nl_attr_u32(w, RTA_OIF, (uint32_t)r->oif);
}

void nl_put_route(struct wbuf *w, const struct netns_route *r, uint16_t type, uint16_t flags,
                  uint32_t seq, uint32_t portid)
{
    const size_t start = nl_begin(w, type, flags, seq, portid);

    put_body(w, r, 0);
    if (r->dst.family == AF_INET6) {
        const struct rta_cacheinfo ci = {0};
        const uint8_t pref = 0;
        nl_attr(w, RTA_CACHEINFO, &ci, sizeof(ci));
        nl_attr(w, RTA_PREF, &pref, 1);
    }
    nl_end(w, start);
}

/* ---- asking ---- */

struct route_dump {
    struct nl_dump *d;
    struct wbuf *w;
    uint64_t i;
    bool full;
};

static bool dump_row(void *arg, const struct netns_route *r)
{
    struct route_dump *x = arg;
    const size_t saved = x->w->len;

    if ((x->d->table_id && r->table != x->d->table_id) ||
        (x->d->ifindex && r->oif != x->d->ifindex))
        return true;
    if (x->i++ < x->d->pos)
        return true;
    nl_put_route(x->w, r, RTM_NEWROUTE, NLM_F_MULTI, x->d->seq, x->d->portid);
    x->full = !NL_DUMP_ROW(x->w, saved);
    if (!x->full)
        x->d->pos++;
    return !x->full;
}

static int dump_routes(struct nl_dump *d, struct wbuf *w)
{
    const uint8_t families[] = {AF_INET, AF_INET6};
    struct route_dump x = {d, w, 0, false};

    for (size_t i = 0; i < ARRAY_SIZE(families) && !x.full; i++)
        if (d->family == AF_UNSPEC || d->family == families[i])
            netns_for_routes(d->table->ns, families[i], dump_row, &x);
    return x.full;
}

/* What `ip route get` shows. */
static int get_route(struct nl_req *q, const struct rtmsg *m, const struct nl_attr *tb)
{
    struct net_addr dst, src;
    struct netns_path p;
    int r = nl_get_addr(&tb[RTA_DST], m->rtm_family, &dst);

    if (r == 0)
        r = nl_get_addr(&tb[RTA_SRC], m->rtm_family, &src);
    if (r)
        return r;
    if (!dst.family)
        dst = net_addr_from(m->rtm_family, (uint8_t[16]){0}, net_addr_size(m->rtm_family));
    if (!dst.family)
        return -EOPNOTSUPP;
    if (src.family && !netns_is_local(q->ns, &src, 0))
        return -EINVAL;
    r = netns_route_lookup(q->ns, &dst, &src, (int32_t)nl_get_u32(&tb[RTA_OIF]), &p);
    if (r)
        return r;
    struct netns_route answer = p.route;
    if (m->rtm_flags & RTM_F_FIB_MATCH) {
        nl_put_route(q->out, &answer, RTM_NEWROUTE, 0, q->h.nlmsg_seq, atomic_load(&q->s->portid));
        return 0;
    }
    const size_t start =
        nl_begin(q->out, RTM_NEWROUTE, 0, q->h.nlmsg_seq, atomic_load(&q->s->portid));
    answer.dst = dst;
    answer.dst_len = (uint8_t)net_addr_bits(dst.family);
    answer.type = p.type;
    answer.oif = p.ifindex;
    answer.gateway = p.gateway;
    answer.prefsrc = p.src;
    if (!answer.table)
        answer.table = RT_TABLE_MAIN;
    if (dst.family == AF_INET) {
        answer.protocol = RTPROT_UNSPEC;
        answer.scope = RT_SCOPE_UNIVERSE;
        answer.priority = 0;
    }
    put_body(q->out, &answer, RTM_F_CLONED);
    nl_end(q->out, start);
    return 0;
}

/* ---- changing ---- */

static int read_metrics(const struct nl_attr *a, struct netns_route *r)
{
    struct nl_attr tb[RTAX_MAX + 1];

    if (!a->data)
        return 0;
    int err = nl_parse(a->data, a->size, tb, RTAX_MAX);
    r->mtu = nl_get_u32(&tb[RTAX_MTU]);
    return err;
}

static int read_route(struct nl_req *q, const struct rtmsg *m, const struct nl_attr *tb,
                      struct netns_route *r)
{
    memset(r, 0, sizeof(*r));
    if (m->rtm_family != AF_INET && m->rtm_family != AF_INET6)
        return -EOPNOTSUPP;
    if (tb[RTA_MULTIPATH].data || tb[RTA_VIA].data || tb[RTA_ENCAP].data || tb[RTA_NH_ID].data ||
        m->rtm_src_len) {
        q->why = "Only routes with one next hop of their own family are kept";
        return -EOPNOTSUPP;
    }
    int err = nl_get_addr(&tb[RTA_DST], m->rtm_family, &r->dst);
    if (err == 0)
        err = nl_get_addr(&tb[RTA_GATEWAY], m->rtm_family, &r->gateway);
    if (err == 0)
        err = nl_get_addr(&tb[RTA_PREFSRC], m->rtm_family, &r->prefsrc);
    if (err == 0)
        err = read_metrics(&tb[RTA_METRICS], r);
    if (err)
        return err;
    if (!r->dst.family)
        r->dst = net_addr_from(m->rtm_family, (uint8_t[16]){0}, net_addr_size(m->rtm_family));
    if (r->gateway.family && net_addr_is_any(&r->gateway))
        r->gateway.family = 0;
    r->dst_len = m->rtm_dst_len;
    r->tos = m->rtm_tos;
    r->protocol = m->rtm_protocol;
    r->type = m->rtm_type;
    r->flags = m->rtm_flags & RTNH_F_ONLINK;
    r->oif = (int32_t)nl_get_u32(&tb[RTA_OIF]);
    r->priority = nl_get_u32(&tb[RTA_PRIORITY]);
    r->table = tb[RTA_TABLE].data ? nl_get_u32(&tb[RTA_TABLE]) : m->rtm_table;
    r->scope = m->rtm_family == AF_INET ? m->rtm_scope : RT_SCOPE_UNIVERSE;
    if (!r->table)
        r->table = RT_TABLE_MAIN;
    return 0;
}

static int change_route(struct nl_req *q, const struct rtmsg *m, const struct nl_attr *tb)
{
    struct netns_route r;
    unsigned how = 0;
    int err = read_route(q, m, tb, &r);

    if (err)
        return err;
    if (q->h.nlmsg_type == RTM_NEWROUTE) {
        if (r.type == RTN_UNSPEC)
            r.type = RTN_UNICAST;
        if (r.type > RTN_THROW)
            return -EINVAL;
        if (m->rtm_family == AF_INET6 && !r.priority)
            r.priority = V6_USER_METRIC;
        how |= q->h.nlmsg_flags & NLM_F_CREATE ? NETNS_ROUTE_CREATE : 0;
        how |= q->h.nlmsg_flags & NLM_F_EXCL ? NETNS_ROUTE_EXCL : 0;
        how |= q->h.nlmsg_flags & NLM_F_REPLACE ? NETNS_ROUTE_REPLACE : 0;
        how |= q->h.nlmsg_flags & NLM_F_APPEND ? NETNS_ROUTE_APPEND : 0;
    }
    netns_config_lock(q->ns);
    err = q->h.nlmsg_type == RTM_NEWROUTE ? netns_route_add(q->ns, &r, how)
                                          : netns_route_del(q->ns, &r);
    netns_config_unlock(q->ns);
    if (err == -ENETUNREACH)
        q->why = "Nexthop has invalid gateway";
    return err;
}

int nl_route_route(struct nl_req *q)
{
    struct nl_attr tb[RTA_MAX + 1];
    struct nl_dump d = {.fill = NULL};
    struct rtmsg m;
    int r = nl_header(q, &m, sizeof(m));

    if (q->h.nlmsg_type == RTM_GETROUTE && (q->h.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP) {
        d.family = q->size > 0 ? q->body[0] : 0;
        if (nl_option(q->s, NETLINK_GET_STRICT_CHK)) {
            if (r == 0)
                r = nl_parse_after(q, sizeof(m), tb, RTA_MAX);
            if (r)
                return r;
            d.table_id = tb[RTA_TABLE].data ? nl_get_u32(&tb[RTA_TABLE]) : m.rtm_table;
            d.ifindex = (int32_t)nl_get_u32(&tb[RTA_OIF]);
        }
        return nl_dump_start(q, dump_routes, &d);
    }
    if (r == 0)
        r = nl_parse_after(q, sizeof(m), tb, RTA_MAX);
    if (r)
        return r;
    if (q->h.nlmsg_type == RTM_GETROUTE)
        return get_route(q, &m, tb);
    return nl_may_admin(q) ? change_route(q, &m, tb) : -EPERM;
}

/* ---- rules: those every namespace begins with ---- */

static const struct {
    uint8_t family;
    uint32_t priority, table;
} rules[] = {
    {AF_INET, 0, RT_TABLE_LOCAL},       {AF_INET, 32766, RT_TABLE_MAIN},
    {AF_INET, 32767, RT_TABLE_DEFAULT}, {AF_INET6, 0, RT_TABLE_LOCAL},
    {AF_INET6, 32766, RT_TABLE_MAIN},
};

static int dump_rules(struct nl_dump *d, struct wbuf *w)
{
    for (; d->pos < ARRAY_SIZE(rules); d->pos++) {
        const size_t i = d->pos, saved = w->len;
        if (d->family != AF_UNSPEC && d->family != rules[i].family)
            continue;
        const struct fib_rule_hdr h = {
            .family = rules[i].family, .table = (uint8_t)rules[i].table, .action = FR_ACT_TO_TBL};
        const size_t start = nl_begin(w, RTM_NEWRULE, NLM_F_MULTI, d->seq, d->portid);
        const uint8_t protocol = RTPROT_KERNEL;
        wbuf_bytes(w, &h, sizeof(h));
        nl_attr_u32(w, FRA_TABLE, rules[i].table);
        nl_attr_u32(w, FRA_SUPPRESS_PREFIXLEN, UINT32_MAX);
        nl_attr(w, FRA_PROTOCOL, &protocol, 1);
        if (rules[i].priority)
            nl_attr_u32(w, FRA_PRIORITY, rules[i].priority);
        nl_end(w, start);
        if (!NL_DUMP_ROW(w, saved))
            return 1;
    }
    return 0;
}

int nl_route_rule(struct nl_req *q)
{
    struct nl_dump d = {.fill = NULL};

    if (q->h.nlmsg_type == RTM_GETRULE && (q->h.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP) {
        d.family = q->size > 0 ? q->body[0] : 0;
        return nl_dump_start(q, dump_rules, &d);
    }
    if (q->h.nlmsg_type != RTM_GETRULE && !nl_may_admin(q))
        return -EPERM;
    return -EOPNOTSUPP;
}
