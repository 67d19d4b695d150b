/* The namespace itself and its links. */
#include <errno.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "sentry/net/ns/netns_priv.h"

/* Flags that RTM_NEWLINK and SIOCSIFFLAGS reach. */
#define LINK_FLAGS_CHANGEABLE                                                                      \
    (IFF_UP | IFF_DEBUG | IFF_NOTRAILERS | IFF_NOARP | IFF_PROMISC | IFF_ALLMULTI | IFF_DYNAMIC |  \
     IFF_MULTICAST | IFF_PORTSEL | IFF_AUTOMEDIA)
#define LO_MTU 65536u
#define TXQLEN_DEFAULT 1000u

void ns_changed(struct netns *ns)
{
    atomic_fetch_add_explicit(&ns->generation, 1, memory_order_relaxed);
}

uint32_t netns_generation(struct netns *ns)
{
    return atomic_load_explicit(&ns->generation, memory_order_relaxed);
}

static int add_lo(struct netns *ns)
{
    const struct netns_link lo = {
        .name = "lo",
        .type = ARPHRD_LOOPBACK,
        .flags = IFF_LOOPBACK,
        .mtu = LO_MTU,
        .txqlen = TXQLEN_DEFAULT,
    };
    int32_t index;

    netns_config_lock(ns);
    int r = netns_link_add(ns, &lo, &index);
    netns_config_unlock(ns);
    return r;
}

int netns_new(struct netns **out_ns)
{
    struct netns *ns = calloc(1, sizeof(*ns));

    if (!ns)
        return -ENOMEM;
    mutex_init(&ns->config, LOCK_RANK_NETCONF);
    rwlock_init(&ns->lock, LOCK_RANK_NETNS);
    list_init(&ns->links);
    list_init(&ns->addrs);
    list_init(&ns->routes4);
    list_init(&ns->routes6);
    list_init(&ns->neighs);
    int r = add_lo(ns);
    if (r) {
        netns_free(ns);
        return r;
    }
    *out_ns = ns;
    return 0;
}

#define FREE_ALL(head, type)                                                                       \
    do {                                                                                           \
        while (!list_empty(head)) {                                                                \
            type *row = list_first_entry(head, type, node);                                        \
            list_del(&row->node);                                                                  \
            free(row);                                                                             \
        }                                                                                          \
    } while (0)

void netns_free(struct netns *ns)
{
    if (!ns)
        return;
    FREE_ALL(&ns->neighs, struct ns_neigh);
    FREE_ALL(&ns->routes4, struct ns_route);
    FREE_ALL(&ns->routes6, struct ns_route);
    FREE_ALL(&ns->addrs, struct ns_addr);
    FREE_ALL(&ns->links, struct ns_link);
    rwlock_destroy(&ns->lock);
    mutex_destroy(&ns->config);
    free(ns);
}

void netns_set_events(struct netns *ns, const struct netns_events *ev, void *arg)
{
    ns->events = ev;
    ns->events_arg = arg;
}

void netns_config_lock(struct netns *ns)
{
    mutex_lock(&ns->config);
}

void netns_config_unlock(struct netns *ns)
{
    mutex_unlock(&ns->config);
}

void ns_tell_link(struct netns *ns, const struct netns_link *l, enum netns_change what)
{
    if (ns->events && ns->events->link)
        ns->events->link(ns->events_arg, l, what);
}

/* ---- reads ---- */

struct ns_link *ns_link_find_locked(struct netns *ns, int32_t index)
{
    struct ns_link *l;

    list_for_each_entry (l, &ns->links, node) {
        if (l->l.index == index)
            return l;
    }
    return NULL;
}

void netns_for_links(struct netns *ns, netns_link_fn fn, void *arg)
{
    struct ns_link *l;

    rwlock_rdlock(&ns->lock);
    list_for_each_entry (l, &ns->links, node) {
        if (!fn(arg, &l->l))
            break;
    }
    rwlock_unlock(&ns->lock);
}

int netns_link_get(struct netns *ns, int32_t index, struct netns_link *out)
{
    rwlock_rdlock(&ns->lock);
    const struct ns_link *l = ns_link_find_locked(ns, index);
    if (l)
        *out = l->l;
    rwlock_unlock(&ns->lock);
    return l ? 0 : -ENODEV;
}

static struct ns_link *find_name_locked(struct netns *ns, const char *name)
{
    struct ns_link *l;

    list_for_each_entry (l, &ns->links, node) {
        if (strncmp(l->l.name, name, IFNAMSIZ) == 0)
            return l;
    }
    return NULL;
}

int netns_link_find(struct netns *ns, const char *name, struct netns_link *out)
{
    rwlock_rdlock(&ns->lock);
    const struct ns_link *l = find_name_locked(ns, name);
    if (l)
        *out = l->l;
    rwlock_unlock(&ns->lock);
    return l ? 0 : -ENODEV;
}

/* ---- changes ---- */

/* dev_valid_name of the kernel. */
static bool name_is_valid(const char *name)
{
    const size_t len = strnlen(name, IFNAMSIZ);

    if (len == 0 || len == IFNAMSIZ || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (size_t i = 0; i < len; i++)
        if (name[i] == '/' || name[i] == ':' || name[i] == ' ' || (name[i] >= 9 && name[i] <= 13))
            return false;
    return true;
}

int netns_link_add(struct netns *ns, const struct netns_link *l, int32_t *out_index)
{
    struct ns_link *fresh;
    int r = 0;

    if (!name_is_valid(l->name))
        return -EINVAL;
    fresh = calloc(1, sizeof(*fresh));
    if (!fresh)
        return -ENOMEM;
    fresh->l = *l;
    fresh->l.flags &= ~(uint32_t)(IFF_UP | IFF_RUNNING | NETNS_LOWER_UP);
    fresh->l.stats = &fresh->stats;
    rwlock_wrlock(&ns->lock);
    if (find_name_locked(ns, l->name) || (l->index && ns_link_find_locked(ns, l->index)))
        r = -EEXIST;
    else if (ns->link_count >= LIMIT_NETNS_LINKS)
        r = -ENOSPC;
    if (r == 0) {
        if (fresh->l.index == 0)
            fresh->l.index = ns->last_index + 1;
        ns->last_index = MAX(ns->last_index, fresh->l.index);
        list_add_tail(&fresh->node, &ns->links);
        ns->link_count++;
        if (fresh->l.index == NETNS_LO_INDEX)
            ns->lo = fresh->l.stats;
        ns_changed(ns);
    }
    rwlock_unlock(&ns->lock);
    if (r) {
        free(fresh);
        return r;
    }
    *out_index = fresh->l.index;
    const struct netns_link copy = fresh->l;
    ns_tell_link(ns, &copy, NETNS_ADDED);
    return 0;
}

void netns_lo_passed(struct netns *ns, uint64_t packets, uint64_t bytes)
{
    struct netns_stats *s = ns->lo;

    if (!s)
        return;
    atomic_fetch_add_explicit(&s->tx_packets, packets, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->tx_bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->rx_packets, packets, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->rx_bytes, bytes, memory_order_relaxed);
}

/* lo has an address of its own as soon as it is up. */
static void lo_addresses(struct netns *ns)
{
    static const uint8_t one[16] = {[15] = 1};
    const uint8_t home[4] = {127, 0, 0, 1};
    struct netns_ifaddr a = {
        .ifindex = NETNS_LO_INDEX,
        .prefix_len = 8,
        .scope = RT_SCOPE_HOST,
        .flags = IFA_F_PERMANENT,
        .local = net_addr_from(AF_INET, home, sizeof(home)),
        .valid_s = UINT32_MAX,
        .preferred_s = UINT32_MAX,
    };

    a.peer = a.local;
    (void)!netns_addr_add(ns, &a, false);
    a.local = a.peer = net_addr_v6(one);
    a.prefix_len = 128;
    (void)!netns_addr_add(ns, &a, false);
}

static void link_went(struct netns *ns, const struct netns_link *l)
{
    if (!(l->flags & IFF_UP)) {
        ns_routes_flush(ns, l->index);
        ns_addrs_flush_v6(ns, l->index);
        ns_neighs_flush(ns, l->index);
        return;
    }
    if (l->flags & IFF_LOOPBACK)
        lo_addresses(ns);
    ns_addrs_up(ns, l->index);
}

int netns_link_set_flags(struct netns *ns, int32_t index, uint32_t flags, uint32_t mask)
{
    const uint32_t change = mask & LINK_FLAGS_CHANGEABLE;
    struct netns_link now;
    uint32_t old = 0;

    rwlock_wrlock(&ns->lock);
    struct ns_link *l = ns_link_find_locked(ns, index);
    if (l) {
        old = l->l.flags;
        l->l.flags = (old & ~change) | (flags & change);
        if (l->l.flags & IFF_UP)
            l->l.flags |= IFF_RUNNING | NETNS_LOWER_UP;
        else
            l->l.flags &= ~(uint32_t)(IFF_RUNNING | NETNS_LOWER_UP);
        now = l->l;
        ns_changed(ns);
    }
    rwlock_unlock(&ns->lock);
    if (!l)
        return -ENODEV;
    if (now.flags == old)
        return 0;
    ns_tell_link(ns, &now, NETNS_CHANGED);
    if ((now.flags ^ old) & IFF_UP)
        link_went(ns, &now);
    return 0;
}

int netns_link_set_mtu(struct netns *ns, int32_t index, uint32_t mtu)
{
    struct netns_link now;
    int r = 0;

    rwlock_wrlock(&ns->lock);
    struct ns_link *l = ns_link_find_locked(ns, index);
    if (!l)
        r = -ENODEV;
    else if (l->l.driver && (mtu < 68 || mtu > 65535))
        r = -EINVAL;
    else if (mtu > INT32_MAX)
        r = -EINVAL;
    if (r == 0) {
        l->l.mtu = mtu;
        now = l->l;
        ns_changed(ns);
    }
    rwlock_unlock(&ns->lock);
    if (r == 0)
        ns_tell_link(ns, &now, NETNS_CHANGED);
    return r;
}

int netns_link_set_txqlen(struct netns *ns, int32_t index, uint32_t len)
{
    struct netns_link now;

    rwlock_wrlock(&ns->lock);
    struct ns_link *l = ns_link_find_locked(ns, index);
    if (l) {
        l->l.txqlen = len;
        now = l->l;
        ns_changed(ns);
    }
    rwlock_unlock(&ns->lock);
    if (!l)
        return -ENODEV;
    ns_tell_link(ns, &now, NETNS_CHANGED);
    return 0;
}

int netns_link_rename(struct netns *ns, int32_t index, const char *name)
{
    struct netns_link now;
    int r = 0;

    if (!name_is_valid(name))
        return -EINVAL;
    rwlock_wrlock(&ns->lock);
    struct ns_link *l = ns_link_find_locked(ns, index), *other = find_name_locked(ns, name);
    if (!l)
        r = -ENODEV;
    else if (l->l.flags & IFF_UP && other != l)
        r = -EBUSY;
    else if (other && other != l)
        r = -EEXIST;
    if (r == 0) {
        memset(l->l.name, 0, sizeof(l->l.name));
        snprintf(l->l.name, sizeof(l->l.name), "%s", name);
        now = l->l;
        ns_changed(ns);
    }
    rwlock_unlock(&ns->lock);
    if (r == 0)
        ns_tell_link(ns, &now, NETNS_CHANGED);
    return r;
}
