/* RTM_GETNEIGH, RTM_NEWNEIGH, RTM_DELNEIGH (net/core/neighbour.c), and which handler serves which
 * message of NETLINK_ROUTE. */
#include <errno.h>
#include <linux/neighbour.h>
#include <string.h>

#include "sentry/net/netlink/nl_priv.h"
#include "sentry/net/ns/prefix.h"
#include "sentry/wait/wait.h"

#define NS_PER_TICK UINT64_C(10000000)
#define NUD_SETTABLE (NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_STALE | NUD_PROBE | NUD_DELAY)

static uint32_t age(uint64_t since)
{
    return since ? (uint32_t)((mono_now() - since) / NS_PER_TICK) : 0;
}

void nl_put_neigh(struct wbuf *w, const struct netns_neigh *n, uint16_t type, uint16_t flags,
                  uint32_t seq, uint32_t portid)
{
    const struct ndmsg m = {.ndm_family = (uint8_t)n->addr.family,
                            .ndm_ifindex = n->ifindex,
                            .ndm_state = n->state,
                            .ndm_flags = n->flags,
                            .ndm_type = RTN_UNICAST};
    const struct nda_cacheinfo ci = {.ndm_confirmed = age(n->confirmed_ns),
                                     .ndm_used = age(n->used_ns),
                                     .ndm_updated = age(n->updated_ns)};
    const size_t start = nl_begin(w, type, flags, seq, portid);

    wbuf_bytes(w, &m, sizeof(m));
    nl_attr(w, NDA_DST, n->addr.b, net_addr_size(n->addr.family));
    if (n->has_mac)
        nl_attr(w, NDA_LLADDR, n->mac, sizeof(n->mac));
    nl_attr(w, NDA_CACHEINFO, &ci, sizeof(ci));
    nl_end(w, start);
}

struct neigh_dump {
    struct nl_dump *d;
    struct wbuf *w;
    uint64_t i;
    bool full;
};

static bool dump_row(void *arg, const struct netns_neigh *n)
{
    struct neigh_dump *x = arg;
    const size_t saved = x->w->len;

    if ((x->d->family != AF_UNSPEC && n->addr.family != x->d->family) ||
        (x->d->ifindex && n->ifindex != x->d->ifindex))
        return true;
    if (x->i++ < x->d->pos)
        return true;
    nl_put_neigh(x->w, n, RTM_NEWNEIGH, NLM_F_MULTI, x->d->seq, x->d->portid);
    x->full = !NL_DUMP_ROW(x->w, saved);
    if (!x->full)
        x->d->pos++;
    return !x->full;
}

static int dump_neighs(struct nl_dump *d, struct wbuf *w)
{
    struct neigh_dump x = {d, w, 0, false};

    netns_for_neighs(d->table->ns, dump_row, &x);
    return x.full;
}

static int get_neigh(struct nl_req *q, const struct ndmsg *m, const struct net_addr *dst)
{
    struct netns_neigh n;

    if (!dst->family || m->ndm_ifindex <= 0)
        return -EINVAL;
    int r = netns_neigh_get(q->ns, m->ndm_ifindex, dst, &n);
    if (r == 0)
        nl_put_neigh(q->out, &n, RTM_NEWNEIGH, 0, q->h.nlmsg_seq, atomic_load(&q->s->portid));
    return r;
}

static int new_neigh_locked(struct nl_req *q, struct netns_neigh *n)
{
    struct netns_neigh old;
    struct netns_link l;
    int r = netns_link_get(q->ns, n->ifindex, &l);

    if (r)
        return r;
    const bool there = netns_neigh_get(q->ns, n->ifindex, &n->addr, &old) == 0;
    if (there && q->h.nlmsg_flags & NLM_F_EXCL)
        return -EEXIST;
    if (!there && !(q->h.nlmsg_flags & NLM_F_CREATE))
        return -ENOENT;
    if (there && !n->has_mac) {
        memcpy(n->mac, old.mac, sizeof(n->mac));
        n->has_mac = old.has_mac;
    }
    if (!n->has_mac && n->state & (NUD_PERMANENT | NUD_REACHABLE | NUD_STALE))
        return -EINVAL;
    n->confirmed_ns = n->used_ns = mono_now();
    return netns_neigh_set(q->ns, n, false);
}

static int change_neigh(struct nl_req *q, const struct ndmsg *m, const struct net_addr *dst,
                        const struct nl_attr *lladdr)
{
    struct netns_neigh n = {.ifindex = m->ndm_ifindex,
                            .addr = *dst,
                            .state = m->ndm_state,
                            .flags = m->ndm_flags & (NTF_ROUTER | NTF_EXT_LEARNED)};
    int r;

    if (!dst->family || m->ndm_ifindex <= 0 || (lladdr->data && lladdr->size != sizeof(n.mac)))
        return -EINVAL;
    if (lladdr->data) {
        memcpy(n.mac, lladdr->data, sizeof(n.mac));
        n.has_mac = true;
    }
    netns_config_lock(q->ns);
    if (q->h.nlmsg_type == RTM_DELNEIGH)
        r = netns_neigh_del(q->ns, n.ifindex, dst);
    else if (!(n.state & NUD_SETTABLE) || n.state & ~(unsigned)NUD_SETTABLE)
        r = -EINVAL;
    else
        r = new_neigh_locked(q, &n);
    netns_config_unlock(q->ns);
    return r;
}

int nl_route_neigh(struct nl_req *q)
{
    struct nl_attr tb[NDA_LLADDR + 1];
    struct nl_dump d = {.fill = NULL};
    struct net_addr dst;
    struct ndmsg m;
    int r = nl_header(q, &m, sizeof(m));

    if (q->h.nlmsg_type == RTM_GETNEIGH && (q->h.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP) {
        d.family = q->size > 0 ? q->body[0] : 0;
        if (nl_option(q->s, NETLINK_GET_STRICT_CHK) && r == 0)
            d.ifindex = m.ndm_ifindex;
        return nl_dump_start(q, dump_neighs, &d);
    }
    if (r == 0)
        r = nl_parse_after(q, sizeof(m), tb, NDA_LLADDR);
    if (r == 0)
        r = nl_get_addr(&tb[NDA_DST], m.ndm_family, &dst);
    if (r)
        return r;
    if (q->h.nlmsg_type == RTM_GETNEIGH)
        return get_neigh(q, &m, &dst);
    return nl_may_admin(q) ? change_neigh(q, &m, &dst, &tb[NDA_LLADDR]) : -EPERM;
}

nl_handler nl_route_handler(uint16_t type)
{
    switch (type) {
    case RTM_GETLINK:
    case RTM_NEWLINK:
    case RTM_SETLINK:
    case RTM_DELLINK:
        return nl_route_link;
    case RTM_GETADDR:
    case RTM_NEWADDR:
    case RTM_DELADDR:
        return nl_route_addr;
    case RTM_GETROUTE:
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        return nl_route_route;
    case RTM_GETNEIGH:
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
        return nl_route_neigh;
    case RTM_GETRULE:
    case RTM_NEWRULE:
    case RTM_DELRULE:
        return nl_route_rule;
    default:
        return NULL;
    }
}
