/* RTM_GETADDR, RTM_NEWADDR, RTM_DELADDR (net/ipv4/devinet.c, net/ipv6/addrconf.c). */
#include <errno.h>
#include <linux/if_addr.h>
#include <string.h>

#include "sentry/net/netlink/nl_priv.h"
#include "sentry/net/ns/prefix.h"
#include "sentry/wait/wait.h"

#define NS_PER_SEC UINT64_C(1000000000)

static uint32_t left_of(uint32_t seconds, uint64_t since_ns)
{
    const uint64_t gone = (mono_now() - since_ns) / NS_PER_SEC;

    if (seconds == UINT32_MAX)
        return seconds;
    return gone < seconds ? seconds - (uint32_t)gone : 0;
}

void nl_put_addr(struct wbuf *w, const struct netns_ifaddr *a, const char *name, uint16_t type,
                 uint16_t flags, uint32_t seq, uint32_t portid)
{
    const size_t size = net_addr_size(a->local.family);
    const struct ifaddrmsg m = {.ifa_family = (uint8_t)a->local.family,
                                .ifa_prefixlen = a->prefix_len,
                                .ifa_flags = (uint8_t)a->flags,
                                .ifa_scope = a->scope,
                                .ifa_index = (uint32_t)a->ifindex};
    const struct ifa_cacheinfo ci = {.ifa_prefered = left_of(a->preferred_s, a->changed_ns),
                                     .ifa_valid = left_of(a->valid_s, a->changed_ns),
                                     .cstamp = (uint32_t)(a->changed_ns / (NS_PER_SEC / 100)),
                                     .tstamp = (uint32_t)(a->changed_ns / (NS_PER_SEC / 100))};
    const size_t start = nl_begin(w, type, flags, seq, portid);

    wbuf_bytes(w, &m, sizeof(m));
    nl_attr(w, IFA_ADDRESS, a->peer.b, size);
    if (a->local.family == AF_INET || !net_addr_equal(&a->local, &a->peer))
        nl_attr(w, IFA_LOCAL, a->local.b, size);
    if (a->bcast.family)
        nl_attr(w, IFA_BROADCAST, a->bcast.b, size);
    if (a->local.family == AF_INET)
        nl_attr_str(w, IFA_LABEL, a->label[0] ? a->label : name);
    if (a->proto)
        nl_attr(w, IFA_PROTO, &a->proto, 1);
    nl_attr_u32(w, IFA_FLAGS, a->flags);
    nl_attr(w, IFA_CACHEINFO, &ci, sizeof(ci));
    nl_end(w, start);
}

/* ---- asking ---- */

struct addr_dump {
    struct nl_dump *d;
    struct wbuf *w;
    uint64_t i;
    uint8_t family; /* one after the other, as Linux gives them */
    bool full;
    struct {
        int32_t index;
        char name[IFNAMSIZ];
    } names[64];
    size_t name_count;
};

static bool note_name(void *arg, const struct netns_link *l)
{
    struct addr_dump *x = arg;

    if (x->name_count == ARRAY_SIZE(x->names))
        return false;
    x->names[x->name_count].index = l->index;
    memcpy(x->names[x->name_count++].name, l->name, IFNAMSIZ);
    return true;
}

static const char *name_of(const struct addr_dump *x, int32_t index)
{
    for (size_t i = 0; i < x->name_count; i++)
        if (x->names[i].index == index)
            return x->names[i].name;
    return "";
}

static bool dump_row(void *arg, const struct netns_ifaddr *a)
{
    struct addr_dump *x = arg;
    const size_t saved = x->w->len;

    if (a->local.family != x->family || (x->d->ifindex && a->ifindex != x->d->ifindex))
        return true;
    if (x->i++ < x->d->pos)
        return true;
    nl_put_addr(x->w, a, name_of(x, a->ifindex), RTM_NEWADDR, NLM_F_MULTI, x->d->seq, x->d->portid);
    x->full = !NL_DUMP_ROW(x->w, saved);
    if (!x->full)
        x->d->pos++;
    return !x->full;
}

static int dump_addrs(struct nl_dump *d, struct wbuf *w)
{
    const uint8_t families[] = {AF_INET, AF_INET6};
    struct addr_dump x = {.d = d, .w = w};

    netns_for_links(d->table->ns, note_name, &x);
    for (size_t i = 0; i < ARRAY_SIZE(families) && !x.full; i++) {
        x.family = families[i];
        if (d->family == AF_UNSPEC || d->family == x.family)
            netns_for_addrs(d->table->ns, dump_row, &x);
    }
    return x.full;
}

struct addr_get {
    const struct net_addr *want;
    int32_t ifindex;
    struct netns_ifaddr found;
    bool yes;
};

static bool get_row(void *arg, const struct netns_ifaddr *a)
{
    struct addr_get *g = arg;

    if (!net_addr_equal(&a->local, g->want) || (g->ifindex && a->ifindex != g->ifindex))
        return true;
    g->found = *a;
    g->yes = true;
    return false;
}

/* Only IPv6 has this. */
static int get_addr(struct nl_req *q, const struct ifaddrmsg *m, const struct nl_attr *tb)
{
    struct net_addr want;
    struct addr_get g = {.want = &want, .ifindex = (int32_t)m->ifa_index};
    int r = nl_get_addr(tb[IFA_LOCAL].data ? &tb[IFA_LOCAL] : &tb[IFA_ADDRESS], AF_INET6, &want);

    if (m->ifa_family != AF_INET6)
        return -EOPNOTSUPP;
    if (r || !want.family)
        return -EINVAL;
    netns_for_addrs(q->ns, get_row, &g);
    if (!g.yes)
        return -EADDRNOTAVAIL;
    nl_put_addr(q->out, &g.found, "", RTM_NEWADDR, 0, q->h.nlmsg_seq, atomic_load(&q->s->portid));
    return 0;
}

/* ---- changing ---- */

static uint8_t addr_scope(const struct net_addr *a, uint8_t given)
{
    if (a->family == AF_INET)
        return given;
    return net_addr_is_loopback(a)    ? RT_SCOPE_HOST
           : net_addr_is_linklocal(a) ? RT_SCOPE_LINK
                                      : RT_SCOPE_UNIVERSE;
}

static int read_addr(const struct ifaddrmsg *m, const struct nl_attr *tb, struct netns_ifaddr *a)
{
    memset(a, 0, sizeof(*a));
    if (m->ifa_family != AF_INET && m->ifa_family != AF_INET6)
        return -EOPNOTSUPP;
    int r = nl_get_addr(&tb[IFA_LOCAL], m->ifa_family, &a->local);
    if (r == 0)
        r = nl_get_addr(&tb[IFA_ADDRESS], m->ifa_family, &a->peer);
    if (r == 0)
        r = nl_get_addr(&tb[IFA_BROADCAST], m->ifa_family, &a->bcast);
    if (r == 0 && tb[IFA_LABEL].data)
        r = nl_get_name(&tb[IFA_LABEL], a->label);
    if (r)
        return r;
    if (!a->local.family)
        a->local = a->peer;
    if (!a->peer.family)
        a->peer = a->local;
    if (!a->local.family || m->ifa_prefixlen > net_addr_bits(m->ifa_family))
        return -EINVAL;
    a->ifindex = (int32_t)m->ifa_index;
    a->prefix_len = m->ifa_prefixlen;
    a->scope = addr_scope(&a->local, m->ifa_scope);
    a->proto = nl_get_u8(&tb[IFA_PROTO]);
    a->flags = tb[IFA_FLAGS].data ? nl_get_u32(&tb[IFA_FLAGS]) : m->ifa_flags;
    a->valid_s = a->preferred_s = UINT32_MAX;
    if (tb[IFA_CACHEINFO].size >= sizeof(struct ifa_cacheinfo)) {
        struct ifa_cacheinfo ci;
        memcpy(&ci, tb[IFA_CACHEINFO].data, sizeof(ci));
        a->valid_s = ci.ifa_valid;
        a->preferred_s = ci.ifa_prefered;
        if (!a->valid_s || a->preferred_s > a->valid_s)
            return -EINVAL;
    }
    a->flags &= IFA_F_NOPREFIXROUTE | IFA_F_MANAGETEMPADDR | IFA_F_NODAD | IFA_F_HOMEADDRESS |
                IFA_F_MCAUTOJOIN;
    if (a->valid_s == UINT32_MAX)
        a->flags |= IFA_F_PERMANENT;
    if (a->preferred_s == 0)
        a->flags |= IFA_F_DEPRECATED;
    return 0;
}

static int change_addr(struct nl_req *q, const struct ifaddrmsg *m, const struct nl_attr *tb)
{
    struct netns_ifaddr a;
    int r = read_addr(m, tb, &a);

    if (r)
        return r;
    if (net_addr_is_any(&a.local) ||
        (a.local.family == AF_INET6 && net_addr_is_multicast(&a.local)))
        return -EADDRNOTAVAIL;
    netns_config_lock(q->ns);
    if (q->h.nlmsg_type == RTM_NEWADDR)
        r = netns_addr_add(q->ns, &a,
                           (q->h.nlmsg_flags & (NLM_F_REPLACE | NLM_F_EXCL)) == NLM_F_REPLACE);
    else
        r = netns_addr_del(q->ns, &a);
    netns_config_unlock(q->ns);
    return r;
}

int nl_route_addr(struct nl_req *q)
{
    struct nl_attr tb[IFA_MAX + 1];
    struct ifaddrmsg m;
    struct nl_dump d = {.fill = NULL};
    int r = nl_header(q, &m, sizeof(m));

    if (q->h.nlmsg_type == RTM_GETADDR && (q->h.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP) {
        d.family = q->size > 0 ? q->body[0] : 0;
        if (nl_option(q->s, NETLINK_GET_STRICT_CHK)) {
            if (r)
                return r;
            d.ifindex = (int32_t)m.ifa_index;
        }
        return nl_dump_start(q, dump_addrs, &d);
    }
    if (r == 0)
        r = nl_parse_after(q, sizeof(m), tb, IFA_MAX);
    if (r)
        return r;
    if (q->h.nlmsg_type == RTM_GETADDR)
        return get_addr(q, &m, tb);
    return nl_may_admin(q) ? change_addr(q, &m, tb) : -EPERM;
}
