#include "sentry/net/ifioctl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <string.h>

#include "sentry/net/ns/netns.h"
#include "sentry/net/ns/prefix.h"

#define IFREQ_SIZE 40u
_Static_assert(sizeof(struct ifreq) == IFREQ_SIZE, "struct ifreq");

static void put_v4(struct ifreq *r, const struct net_addr *a)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = a->v4};

    memcpy(&r->ifr_addr, &in, sizeof(in));
}

static struct net_addr get_v4(const struct sockaddr *sa)
{
    struct sockaddr_in in;

    memcpy(&in, sa, sizeof(in));
    return in.sin_family == AF_INET ? net_addr_v4(in.sin_addr.s_addr)
                                    : (struct net_addr){.family = 0};
}

/* The address an alias ("eth0:1") or a link's plain name stands for. */
struct first_addr {
    int32_t ifindex;
    const char *label;
    const char *link_name;
    struct netns_ifaddr found;
    bool yes;
};

static bool first_row(void *arg, const struct netns_ifaddr *a)
{
    struct first_addr *f = arg;

    if (a->local.family != AF_INET || a->ifindex != f->ifindex)
        return true;
    if (strncmp(a->label[0] ? a->label : f->link_name, f->label, IFNAMSIZ) != 0)
        return true;
    f->found = *a;
    f->yes = true;
    return false;
}

static int first_v4(struct netns *ns, const struct netns_link *l, const char *label,
                    struct netns_ifaddr *out)
{
    struct first_addr f = {.ifindex = l->index, .label = label, .link_name = l->name};

    netns_for_addrs(ns, first_row, &f);
    if (!f.yes)
        return -EADDRNOTAVAIL;
    *out = f.found;
    return 0;
}

/* The link of r's name, without an alias. */
static int find_link(struct netns *ns, const struct ifreq *r, struct netns_link *out)
{
    char name[IFNAMSIZ];

    memcpy(name, r->ifr_name, IFNAMSIZ);
    name[IFNAMSIZ - 1] = '\0';
    char *colon = strchr(name, ':');
    if (colon)
        *colon = '\0';
    return netns_link_find(ns, name, out);
}

/* ---- SIOCGIFCONF ---- */

struct conf_walk {
    const struct uaccess *ua;
    struct ifreq *rows;
    size_t count, space;
    struct netns *ns;
};

static bool conf_row(void *arg, const struct netns_ifaddr *a)
{
    struct conf_walk *w = arg;

    if (a->local.family != AF_INET)
        return true;
    if (w->count < w->space) {
        struct ifreq *r = &w->rows[w->count];
        memset(r, 0, sizeof(*r));
        memcpy(r->ifr_name, a->label, IFNAMSIZ);
        r->ifr_name[IFNAMSIZ - 1] = '\0';
        put_v4(r, &a->local);
        /* Which link it is, till names can be looked up without this lock. */
        memcpy(&r->ifr_addr.sa_data[10], &a->ifindex, sizeof(a->ifindex));
    }
    w->count++;
    return true;
}

#define CONF_ROWS 64u

static int64_t get_conf(struct netns *ns, uint64_t arg, const struct uaccess *ua)
{
    struct ifreq rows[CONF_ROWS];
    struct conf_walk w = {.ua = ua, .rows = rows, .ns = ns};
    struct ifconf conf;
    int r = copyin_obj(ua, &conf, uaddr(arg));

    if (r)
        return r;
    if (conf.ifc_len < 0)
        return -EINVAL;
    const bool count_only = conf.ifc_buf == NULL;
    w.space = count_only ? 0 : MIN((size_t)conf.ifc_len / IFREQ_SIZE, (size_t)CONF_ROWS);
    netns_for_addrs(ns, conf_row, &w);
    const size_t n = MIN(w.count, w.space);
    for (size_t i = 0; i < n; i++) {
        struct netns_link l;
        int32_t index;
        memcpy(&index, &rows[i].ifr_addr.sa_data[10], sizeof(index));
        memset(&rows[i].ifr_addr.sa_data[10], 0, sizeof(index));
        if (rows[i].ifr_name[0] == '\0' && netns_link_get(ns, index, &l) == 0)
            memcpy(rows[i].ifr_name, l.name, IFNAMSIZ);
    }
    conf.ifc_len = (int)((count_only ? w.count : n) * IFREQ_SIZE);
    if (n > 0)
        r = copyout(ua, uaddr((uint64_t)(uintptr_t)conf.ifc_buf), rows, n * IFREQ_SIZE);
    return r ? r : copyout_obj(ua, uaddr(arg), &conf);
}

/* ---- SIOCGIF* ---- */

static int get_address(struct netns *ns, unsigned cmd, const struct netns_link *l, struct ifreq *r)
{
    struct netns_ifaddr a;
    struct net_addr mask = {.family = AF_INET};
    int err = first_v4(ns, l, r->ifr_name, &a);

    if (err)
        return err;
    switch (cmd) {
    case SIOCGIFADDR:
        put_v4(r, &a.local);
        break;
    case SIOCGIFDSTADDR:
        put_v4(r, &a.peer);
        break;
    case SIOCGIFBRDADDR:
        put_v4(r, &a.bcast);
        break;
    default:
        memset(mask.b, 0xff, 4);
        net_addr_mask(&mask, a.prefix_len);
        put_v4(r, &mask);
        break;
    }
    return 0;
}

static int get_value(struct netns *ns, unsigned cmd, const struct netns_link *l, struct ifreq *r)
{
    switch (cmd) {
    case SIOCGIFFLAGS:
        r->ifr_flags = (short)(l->flags & 0xffff);
        return 0;
    case SIOCGIFMTU:
        r->ifr_mtu = (int)l->mtu;
        return 0;
    case SIOCGIFINDEX:
        r->ifr_ifindex = l->index;
        return 0;
    case SIOCGIFMETRIC:
        r->ifr_metric = 0;
        return 0;
    case SIOCGIFTXQLEN:
        r->ifr_qlen = (int)l->txqlen;
        return 0;
    case SIOCGIFHWADDR:
        memset(&r->ifr_hwaddr, 0, sizeof(r->ifr_hwaddr));
        r->ifr_hwaddr.sa_family = l->type;
        memcpy(r->ifr_hwaddr.sa_data, l->mac, sizeof(l->mac));
        return 0;
    case SIOCGIFMAP:
        memset(&r->ifr_map, 0, sizeof(r->ifr_map));
        return 0;
    default:
        return get_address(ns, cmd, l, r);
    }
}

/* ---- SIOCSIF* ---- */

static int set_address(struct netns *ns, unsigned cmd, const struct netns_link *l,
                       const struct ifreq *r)
{
    const struct net_addr given = get_v4(&r->ifr_addr);
    struct netns_ifaddr a, old;
    const bool there = first_v4(ns, l, r->ifr_name, &old) == 0;

    if (!given.family)
        return -EINVAL;
    if (!there && cmd != SIOCSIFADDR)
        return -EADDRNOTAVAIL;
    memset(&a, 0, sizeof(a));
    a.ifindex = l->index;
    a.flags = IFA_F_PERMANENT;
    a.valid_s = a.preferred_s = UINT32_MAX;
    if (cmd == SIOCSIFADDR) {
        const uint8_t first = given.b[0];
        a.local = a.peer = given;
        /* inet_abc_len: the class tells the network, where nothing else does. */
        a.prefix_len = there ? old.prefix_len : first < 128 ? 8 : first < 192 ? 16 : 24;
        a.scope = net_addr_is_loopback(&given) ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
        a.bcast = given;
        a.bcast.v4 |= htonl(a.prefix_len < 32 ? UINT32_MAX >> a.prefix_len : 0);
        if (l->flags & IFF_LOOPBACK)
            a.bcast.family = 0;
    } else {
        a = old;
        if (cmd == SIOCSIFBRDADDR)
            a.bcast = given;
        else if (cmd == SIOCSIFDSTADDR)
            a.peer = given;
        else
            a.prefix_len = (uint8_t)__builtin_popcount(given.v4);
    }
    if (there) {
        int err = netns_addr_del(ns, &old);
        if (err)
            return err;
    }
    return net_addr_is_any(&a.local) ? 0 : netns_addr_add(ns, &a, false);
}

static int set_value(struct netns *ns, unsigned cmd, const struct netns_link *l, struct ifreq *r)
{
    int err;

    switch (cmd) {
    case SIOCSIFFLAGS:
        return netns_link_set_flags(ns, l->index, (uint16_t)r->ifr_flags, 0xffff);
    case SIOCSIFMTU:
        return r->ifr_mtu < 0 ? -EINVAL : netns_link_set_mtu(ns, l->index, (uint32_t)r->ifr_mtu);
    case SIOCSIFTXQLEN:
        return r->ifr_qlen < 0 ? -EINVAL
                               : netns_link_set_txqlen(ns, l->index, (uint32_t)r->ifr_qlen);
    case SIOCSIFNAME:
        r->ifr_newname[IFNAMSIZ - 1] = '\0';
        return netns_link_rename(ns, l->index, r->ifr_newname);
    case SIOCSIFADDR:
        err = set_address(ns, cmd, l, r);
        /* An address is meant to be used at once (devinet_ioctl). */
        return err ? err : netns_link_set_flags(ns, l->index, IFF_UP, IFF_UP);
    default:
        return set_address(ns, cmd, l, r);
    }
}

static bool is_get(unsigned cmd)
{
    switch (cmd) {
    case SIOCGIFFLAGS:
    case SIOCGIFMTU:
    case SIOCGIFINDEX:
    case SIOCGIFMETRIC:
    case SIOCGIFTXQLEN:
    case SIOCGIFHWADDR:
    case SIOCGIFMAP:
    case SIOCGIFADDR:
    case SIOCGIFDSTADDR:
    case SIOCGIFBRDADDR:
    case SIOCGIFNETMASK:
        return true;
    default:
        return false;
    }
}

static bool is_set(unsigned cmd)
{
    switch (cmd) {
    case SIOCSIFFLAGS:
    case SIOCSIFMTU:
    case SIOCSIFTXQLEN:
    case SIOCSIFNAME:
    case SIOCSIFADDR:
    case SIOCSIFDSTADDR:
    case SIOCSIFBRDADDR:
    case SIOCSIFNETMASK:
        return true;
    default:
        return false;
    }
}

/* ---- SIOCADDRT, SIOCDELRT ---- */

static int change_route(struct netns *ns, unsigned cmd, uint64_t arg, const struct uaccess *ua)
{
    struct rtentry e;
    struct netns_route r;
    struct netns_link l;
    char name[IFNAMSIZ];
    int err = copyin_obj(ua, &e, uaddr(arg));

    if (err)
        return err;
    memset(&r, 0, sizeof(r));
    r.dst = get_v4(&e.rt_dst);
    if (!r.dst.family)
        return -EAFNOSUPPORT;
    const struct net_addr mask = get_v4(&e.rt_genmask);
    r.dst_len = e.rt_flags & RTF_HOST ? 32 : (uint8_t)__builtin_popcount(mask.v4);
    r.table = RT_TABLE_MAIN;
    r.protocol = RTPROT_BOOT;
    r.type = e.rt_flags & RTF_REJECT ? RTN_UNREACHABLE : RTN_UNICAST;
    r.scope = e.rt_flags & RTF_REJECT ? RT_SCOPE_HOST : RT_SCOPE_LINK;
    r.priority = e.rt_metric > 0 ? (uint32_t)e.rt_metric - 1 : 0;
    if (e.rt_flags & RTF_MTU)
        r.mtu = (uint32_t)e.rt_mtu;
    if (e.rt_flags & RTF_GATEWAY) {
        r.gateway = get_v4(&e.rt_gateway);
        r.scope = RT_SCOPE_UNIVERSE;
        if (!r.gateway.family)
            return -EINVAL;
    }
    if (e.rt_dev) {
        const int64_t n =
            copyin_str(ua, name, uaddr((uint64_t)(uintptr_t)e.rt_dev), sizeof(name), -ENODEV);
        if (n < 0)
            return (int)n;
        err = netns_link_find(ns, name, &l);
        if (err)
            return err;
        r.oif = l.index;
    }
    netns_config_lock(ns);
    if (cmd == SIOCADDRT) {
        err = netns_route_add(ns, &r, NETNS_ROUTE_CREATE | NETNS_ROUTE_EXCL);
    } else {
        r.type = 0;
        r.protocol = 0;
        r.scope = RT_SCOPE_NOWHERE;
        err = netns_route_del(ns, &r);
    }
    netns_config_unlock(ns);
    return err;
}

/* ---- which is it ---- */

static int64_t one_link(struct net *n, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                        const struct vfs_caller *c)
{
    struct netns *ns = net_ns(n);
    struct netns_link l;
    struct ifreq r;
    int err = copyin(ua, &r, uaddr(arg), IFREQ_SIZE);

    if (err)
        return err;
    r.ifr_name[IFNAMSIZ - 1] = '\0';
    if (cmd == SIOCGIFNAME) {
        err = netns_link_get(ns, r.ifr_ifindex, &l);
        if (err == 0)
            memcpy(r.ifr_name, l.name, IFNAMSIZ);
        return err ? err : copyout(ua, uaddr(arg), &r, IFREQ_SIZE);
    }
    if (cmd == SIOCETHTOOL) {
        err = find_link(ns, &r, &l);
        return err ? err : net_ethtool(&l, uaddr((uint64_t)(uintptr_t)r.ifr_data), ua);
    }
    if (is_get(cmd)) {
        err = find_link(ns, &r, &l);
        if (err == 0)
            err = get_value(ns, cmd, &l, &r);
        return err ? err : copyout(ua, uaddr(arg), &r, IFREQ_SIZE);
    }
    if (!net_capable(n, c->cred, CAP_NET_ADMIN))
        return -EPERM;
    netns_config_lock(ns);
    err = find_link(ns, &r, &l);
    if (err == 0)
        err = set_value(ns, cmd, &l, &r);
    netns_config_unlock(ns);
    return err;
}

int64_t net_ifioctl(struct net *n, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                    const struct vfs_caller *c)
{
    struct netns *ns = net_ns(n);

    if (cmd == SIOCGIFCONF)
        return get_conf(ns, arg, ua);
    if (cmd == SIOCADDRT || cmd == SIOCDELRT)
        return net_capable(n, c->cred, CAP_NET_ADMIN) ? change_route(ns, cmd, arg, ua) : -EPERM;
    if (cmd == SIOCGIFNAME || cmd == SIOCETHTOOL || is_get(cmd) || is_set(cmd))
        return one_link(n, cmd, arg, ua, c);
    return -ENOTTY;
}
