/* Notices to groups: what changed in the namespace (rtnetlink(7)), and uevents of links. */
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>

#include "sentry/net/netlink/nl_priv.h"

/* More than a link's message ever has. */
#define NOTICE_MAX 1024u

static const struct sock_cred kernel_cred = {0};

static void notify(struct nl_table *t, uint32_t group, const uint8_t *data, const struct wbuf *w)
{
    if (!w->failed)
        nl_multicast(t, NETLINK_ROUTE, group, data, w->len, 0, NULL, &kernel_cred);
}

/* A link came or went: what udev would be told. */
static void uevent(struct nl_table *t, const struct netns_link *l, const char *action)
{
    char text[512];
    struct wbuf w;

    mutex_lock(&t->mu);
    const uint64_t seq = ++t->next_cookie;
    mutex_unlock(&t->mu);
    wbuf_init(&w, text, sizeof(text));
    wbuf_printf(&w, "%s@/devices/virtual/net/%s", action, l->name);
    wbuf_u8(&w, 0);
    wbuf_printf(&w, "ACTION=%s", action);
    wbuf_u8(&w, 0);
    wbuf_printf(&w, "DEVPATH=/devices/virtual/net/%s", l->name);
    wbuf_u8(&w, 0);
    wbuf_str(&w, "SUBSYSTEM=net");
    wbuf_u8(&w, 0);
    wbuf_printf(&w, "INTERFACE=%s", l->name);
    wbuf_u8(&w, 0);
    wbuf_printf(&w, "IFINDEX=%d", l->index);
    wbuf_u8(&w, 0);
    wbuf_printf(&w, "SEQNUM=%llu", (unsigned long long)seq);
    wbuf_u8(&w, 0);
    if (!w.failed)
        nl_multicast(t, NETLINK_KOBJECT_UEVENT, 1, text, w.len, 0, NULL, &kernel_cred);
}

static void tell_link(void *arg, const struct netns_link *l, enum netns_change what)
{
    struct nl_table *t = arg;
    uint8_t buf[NOTICE_MAX];
    struct wbuf w;

    if (what != NETNS_CHANGED)
        uevent(t, l, what == NETNS_ADDED ? "add" : "remove");
    if (!nl_has_listeners(t, NETLINK_ROUTE, RTNLGRP_LINK))
        return;
    wbuf_init(&w, buf, sizeof(buf));
    nl_put_link(&w, l, what == NETNS_REMOVED ? RTM_DELLINK : RTM_NEWLINK, 0, 0, 0);
    notify(t, RTNLGRP_LINK, buf, &w);
}

static void tell_addr(void *arg, const struct netns_ifaddr *a, bool del)
{
    const uint32_t group = a->local.family == AF_INET ? RTNLGRP_IPV4_IFADDR : RTNLGRP_IPV6_IFADDR;
    struct nl_table *t = arg;
    struct netns_link l;
    uint8_t buf[256];
    struct wbuf w;

    if (!nl_has_listeners(t, NETLINK_ROUTE, group) || netns_link_get(t->ns, a->ifindex, &l))
        return;
    wbuf_init(&w, buf, sizeof(buf));
    nl_put_addr(&w, a, l.name, del ? RTM_DELADDR : RTM_NEWADDR, 0, 0, 0);
    notify(t, group, buf, &w);
}

static void tell_route(void *arg, const struct netns_route *r, bool del)
{
    const uint32_t group = r->dst.family == AF_INET ? RTNLGRP_IPV4_ROUTE : RTNLGRP_IPV6_ROUTE;
    struct nl_table *t = arg;
    uint8_t buf[256];
    struct wbuf w;

    if (!nl_has_listeners(t, NETLINK_ROUTE, group))
        return;
    wbuf_init(&w, buf, sizeof(buf));
    nl_put_route(&w, r, del ? RTM_DELROUTE : RTM_NEWROUTE, 0, 0, 0);
    notify(t, group, buf, &w);
}

static void tell_neigh(void *arg, const struct netns_neigh *n, bool del)
{
    struct nl_table *t = arg;
    uint8_t buf[256];
    struct wbuf w;

    if (!nl_has_listeners(t, NETLINK_ROUTE, RTNLGRP_NEIGH))
        return;
    wbuf_init(&w, buf, sizeof(buf));
    nl_put_neigh(&w, n, del ? RTM_DELNEIGH : RTM_NEWNEIGH, 0, 0, 0);
    notify(t, RTNLGRP_NEIGH, buf, &w);
}

const struct netns_events nl_events = {
    .link = tell_link, .addr = tell_addr, .route = tell_route, .neigh = tell_neigh};
