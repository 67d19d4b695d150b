/* RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK, RTM_DELLINK (net/core/rtnetlink.c). */
#include <errno.h>
#include <linux/if_link.h>
#include <net/if_arp.h>
#include <string.h>

#include "sentry/net/netlink/nl_priv.h"

#define OPER_UNKNOWN 0
#define OPER_DOWN 2
#define OPER_UP 6

static void put_stats(struct wbuf *w, const struct netns_stats *st)
{
    const struct rtnl_link_stats64 s64 = {
        .rx_packets = st->rx_packets,
        .tx_packets = st->tx_packets,
        .rx_bytes = st->rx_bytes,
        .tx_bytes = st->tx_bytes,
        .rx_errors = st->rx_errors,
        .tx_errors = st->tx_errors,
        .rx_dropped = st->rx_dropped,
        .tx_dropped = st->tx_dropped,
        .multicast = st->multicast,
    };
    const struct rtnl_link_stats s32 = {
        .rx_packets = (uint32_t)s64.rx_packets,
        .tx_packets = (uint32_t)s64.tx_packets,
        .rx_bytes = (uint32_t)s64.rx_bytes,
        .tx_bytes = (uint32_t)s64.tx_bytes,
        .rx_errors = (uint32_t)s64.rx_errors,
        .tx_errors = (uint32_t)s64.tx_errors,
        .rx_dropped = (uint32_t)s64.rx_dropped,
        .tx_dropped = (uint32_t)s64.tx_dropped,
        .multicast = (uint32_t)s64.multicast,
    };

    nl_attr(w, IFLA_STATS64, &s64, sizeof(s64));
    nl_attr(w, IFLA_STATS, &s32, sizeof(s32));
}

void nl_put_link(struct wbuf *w, const struct netns_link *l, uint16_t type, uint16_t flags,
                 uint32_t seq, uint32_t portid)
{
    const struct ifinfomsg info = {
        .ifi_family = AF_UNSPEC, .ifi_type = l->type, .ifi_index = l->index, .ifi_flags = l->flags};
    const bool up = l->flags & IFF_UP, lo = l->flags & IFF_LOOPBACK;
    const uint8_t oper = !up  ? OPER_DOWN
                         : lo ? OPER_UNKNOWN
                              : OPER_UP,
                  mode = 0, carrier = up || lo;
    const struct rtnl_link_ifmap map = {0};
    const size_t start = nl_begin(w, type, flags, seq, portid);

    wbuf_bytes(w, &info, sizeof(info));
    nl_attr_str(w, IFLA_IFNAME, l->name);
    nl_attr_u32(w, IFLA_TXQLEN, l->txqlen);
    nl_attr(w, IFLA_OPERSTATE, &oper, 1);
    nl_attr(w, IFLA_LINKMODE, &mode, 1);
    nl_attr_u32(w, IFLA_MTU, l->mtu);
    nl_attr_u32(w, IFLA_MIN_MTU, lo ? 0 : 68);
    nl_attr_u32(w, IFLA_MAX_MTU, lo ? 0 : 65535);
    nl_attr_u32(w, IFLA_GROUP, 0);
    nl_attr_u32(w, IFLA_PROMISCUITY, 0);
    nl_attr_u32(w, IFLA_NUM_TX_QUEUES, 1);
    nl_attr_u32(w, IFLA_GSO_MAX_SEGS, 65535);
    nl_attr_u32(w, IFLA_GSO_MAX_SIZE, 65536);
    nl_attr_u32(w, IFLA_NUM_RX_QUEUES, 1);
    nl_attr(w, IFLA_CARRIER, &carrier, 1);
    nl_attr_str(w, IFLA_QDISC, up ? "noqueue" : "noop");
    nl_attr_u32(w, IFLA_CARRIER_CHANGES, 0);
    nl_attr(w, IFLA_MAP, &map, sizeof(map));
    nl_attr(w, IFLA_ADDRESS, l->mac, sizeof(l->mac));
    nl_attr(w, IFLA_BROADCAST, l->bcast, sizeof(l->bcast));
    put_stats(w, l->stats);
    nl_end(w, start);
}

/* ---- asking ---- */

struct link_dump {
    struct nl_dump *d;
    struct wbuf *w;
    uint64_t i;
    bool full;
};

static bool dump_row(void *arg, const struct netns_link *l)
{
    struct link_dump *x = arg;
    const size_t saved = x->w->len;

    if (x->i++ < x->d->pos)
        return true;
    nl_put_link(x->w, l, RTM_NEWLINK, NLM_F_MULTI, x->d->seq, x->d->portid);
    x->full = !NL_DUMP_ROW(x->w, saved);
    if (!x->full)
        x->d->pos++;
    return !x->full;
}

static int dump_links(struct nl_dump *d, struct wbuf *w)
{
    struct link_dump x = {d, w, 0, false};

    netns_for_links(d->table->ns, dump_row, &x);
    return x.full;
}

/* The link that a message names by index or by name. */
static int find_link(const struct nl_req *q, const struct ifinfomsg *info, const struct nl_attr *tb,
                     struct netns_link *out)
{
    char name[IFNAMSIZ];

    if (info->ifi_index > 0)
        return netns_link_get(q->ns, info->ifi_index, out);
    const struct nl_attr *a = tb[IFLA_IFNAME].data       ? &tb[IFLA_IFNAME]
                              : tb[IFLA_ALT_IFNAME].data ? &tb[IFLA_ALT_IFNAME]
                                                         : NULL;
    if (info->ifi_index < 0 || !a)
        return -EINVAL;
    int r = nl_get_name(a, name);
    return r ? r : netns_link_find(q->ns, name, out);
}

static int get_link(struct nl_req *q, const struct ifinfomsg *info, const struct nl_attr *tb)
{
    struct netns_link l;
    int r = find_link(q, info, tb, &l);

    if (r == 0)
        nl_put_link(q->out, &l, RTM_NEWLINK, 0, q->h.nlmsg_seq, atomic_load(&q->s->portid));
    return r;
}

/* ---- changing ---- */

static int set_link(struct nl_req *q, const struct ifinfomsg *info, const struct nl_attr *tb,
                    const struct netns_link *l)
{
    char name[IFNAMSIZ];
    int r = 0;

    if (tb[IFLA_ADDRESS].data && (tb[IFLA_ADDRESS].size != sizeof(l->mac) || l->driver ||
                                  memcmp(tb[IFLA_ADDRESS].data, l->mac, sizeof(l->mac)) != 0))
        return -EOPNOTSUPP; /* lo has none, and a link to the outside is named by the outside */
    if (tb[IFLA_MTU].data)
        r = netns_link_set_mtu(q->ns, l->index, nl_get_u32(&tb[IFLA_MTU]));
    if (r == 0 && tb[IFLA_TXQLEN].data)
        r = netns_link_set_txqlen(q->ns, l->index, nl_get_u32(&tb[IFLA_TXQLEN]));
    if (r == 0 && info->ifi_index > 0 && tb[IFLA_IFNAME].data) {
        r = nl_get_name(&tb[IFLA_IFNAME], name);
        if (r == 0 && strcmp(name, l->name) != 0)
            r = netns_link_rename(q->ns, l->index, name);
    }
    if (r == 0 && (info->ifi_flags || info->ifi_change))
        r = netns_link_set_flags(q->ns, l->index, info->ifi_flags,
                                 info->ifi_change ? info->ifi_change : UINT32_MAX);
    return r;
}

static int change_link(struct nl_req *q, const struct ifinfomsg *info, const struct nl_attr *tb)
{
    struct netns_link l;

    netns_config_lock(q->ns);
    int r = find_link(q, info, tb, &l);
    if (r == -ENODEV && q->h.nlmsg_type == RTM_NEWLINK && q->h.nlmsg_flags & NLM_F_CREATE) {
        q->why = "Unknown device type";
        r = -EOPNOTSUPP;
    } else if (r == 0 && q->h.nlmsg_type == RTM_NEWLINK && q->h.nlmsg_flags & NLM_F_EXCL) {
        r = -EEXIST;
    } else if (r == 0 && q->h.nlmsg_type == RTM_DELLINK) {
        r = -EOPNOTSUPP; /* neither lo nor a link that others made can go */
    } else if (r == 0) {
        r = set_link(q, info, tb, &l);
    }
    netns_config_unlock(q->ns);
    return r;
}

int nl_route_link(struct nl_req *q)
{
    struct nl_dump d = {.fill = NULL};
    struct nl_attr tb[IFLA_ALT_IFNAME + 1];
    struct ifinfomsg info;
    int r = nl_header(q, &info, sizeof(info));

    if (q->h.nlmsg_type == RTM_GETLINK && (q->h.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP)
        return nl_dump_start(q, dump_links, &d); /* a struct rtgenmsg is enough here */
    if (r == 0)
        r = nl_parse_after(q, sizeof(info), tb, IFLA_ALT_IFNAME);
    if (r)
        return r;
    if (q->h.nlmsg_type == RTM_GETLINK)
        return get_link(q, &info, tb);
    return nl_may_admin(q) ? change_link(q, &info, tb) : -EPERM;
}
