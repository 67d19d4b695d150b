#include "runsc/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "runsc/control.h"
#include "runsc/network_lookup.h"

#define NETWORK_LINKS_MAX (CONTROL_FDS_MAX - 1)
#define NETWORK_ADDRS_MAX 256
#define NETWORK_RESOLVERS_MAX 3 /* MAXNS of resolv.conf */
#define NETWORK_RESOLVER_PORT 53
#define NETWORK_BUFFER (16u << 20)

struct taken_addr {
    struct ifaddrmsg m;
    uint8_t local[16], prefix[16]; /* the network is that of prefix */
    json_t *doc;                   /* borrowed from links */
};

struct taken {
    int nl; /* NETLINK_ROUTE socket inside the namespace */
    uint32_t seq;
    json_t *links, *routes, *neighs; /* owned */
    int fds[CONTROL_FDS_MAX];        /* an eventfd, then one per link */
    size_t fd_count;
    int loopback[2]; /* what network_lookup gave; -1: nothing */
    struct {
        int fd;
        struct in_addr addr;
    } resolvers[NETWORK_RESOLVERS_MAX]; /* of the namespace's own loopback */
    size_t resolver_count;
    struct {
        int index;
        json_t *doc; /* borrowed from links */
    } known[NETWORK_LINKS_MAX];
    size_t known_count;
    struct taken_addr addrs[NETWORK_ADDRS_MAX];
    size_t addr_count;
};

/* ---- netlink ---- */

struct attrs {
    const void *data[IFLA_MAX + 1];
    size_t size[IFLA_MAX + 1];
};

static void attrs_read(struct attrs *a, const struct rtattr *rta, size_t len)
{
    memset(a, 0, sizeof(*a));
    while (len >= sizeof(*rta) && rta->rta_len >= sizeof(*rta) && rta->rta_len <= len) {
        const unsigned type = rta->rta_type & 0x3fffu;
        const size_t step = MIN((size_t)RTA_ALIGN((size_t)rta->rta_len), len);
        if (type <= IFLA_MAX) {
            a->data[type] = rta + 1;
            a->size[type] = rta->rta_len - sizeof(*rta);
        }
        rta = (const void *)((const char *)rta + step);
        len -= step;
    }
}

typedef int (*dump_fn)(struct taken *t, const struct nlmsghdr *h, struct err *e);

/* Calls fn for every message of a dump. */
static int network_dump(struct taken *t, uint16_t type, dump_fn fn, struct err *e)
{
    struct {
        struct nlmsghdr h;
        struct rtgenmsg g;
    } req = {.h = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct rtgenmsg)),
                   .nlmsg_type = type,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                   .nlmsg_seq = ++t->seq}};
    char *buf = malloc(65536);
    int rc = 0;
    bool done = buf == NULL || send(t->nl, &req, sizeof(req), 0) < 0;

    if (done)
        rc = err_errno(e, errno, "network: ask the namespace");
    while (!done && rc == 0) {
        ssize_t n = recv(t->nl, buf, 65536, 0);
        if (n < 0) {
            rc = err_errno(e, errno, "network: read the namespace");
            break;
        }
        unsigned left = (unsigned)n;
        const struct nlmsghdr *h = (const void *)buf;
        for (; rc == 0 && !done && NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
            if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
                done = true;
            else
                rc = fn(t, h, e);
        }
    }
    free(buf);
    return rc;
}

static json_t *json_addr(int family, const void *data, size_t size)
{
    char text[INET6_ADDRSTRLEN];

    if (data == NULL || size != (family == AF_INET ? 4u : 16u) ||
        inet_ntop(family, data, text, sizeof(text)) == NULL)
        return NULL;
    return json_string(text);
}

static void json_put(json_t *o, const char *key, json_t *v)
{
    if (v != NULL)
        (void)json_object_set_new(o, key, v);
}

static json_t *known_link(const struct taken *t, int index)
{
    for (size_t i = 0; i < t->known_count; i++)
        if (t->known[i].index == index)
            return t->known[i].doc;
    return NULL;
}

/* ---- links ---- */

static int packet_socket(int index, struct err *e)
{
    const struct sockaddr_ll a = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = index};
    const struct packet_mreq all = {.mr_ifindex = index, .mr_type = PACKET_MR_ALLMULTI};
    const int on = 1, size = NETWORK_BUFFER;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return err_errno(e, errno, "network: packet socket");
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
    /* Without its header, frames of a neighbour on this machine come with half a checksum. */
    if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) != 0 ||
        bind(fd, (const struct sockaddr *)&a, sizeof(a)) != 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) != 0) {
        (void)err_errno(e, errno, "network: packet socket");
        (void)close(fd);
        return -1;
    }
    return fd;
}

static int take_link(struct taken *t, const struct nlmsghdr *h, struct err *e)
{
    const struct ifinfomsg *m = NLMSG_DATA(h);
    struct attrs a;
    char mac[13];

    attrs_read(&a, IFLA_RTA(m), IFLA_PAYLOAD(h));
    if (m->ifi_type != ARPHRD_ETHER || !(m->ifi_flags & IFF_UP) || a.size[IFLA_ADDRESS] != 6 ||
        a.data[IFLA_IFNAME] == NULL || a.size[IFLA_MTU] != 4)
        return 0;
    if (t->known_count == NETWORK_LINKS_MAX)
        return err_set(e, E2BIG, "network: more than %u links", NETWORK_LINKS_MAX);
    int fd = packet_socket(m->ifi_index, e);
    if (fd < 0)
        return -1;
    t->fds[t->fd_count++] = fd;
    const uint8_t *b = a.data[IFLA_ADDRESS];
    snprintf(mac, sizeof(mac), "%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
    uint32_t mtu;
    memcpy(&mtu, a.data[IFLA_MTU], 4);
    json_t *doc = json_pack("{s:s,s:s,s:I,s:b,s:[]}", "name", (const char *)a.data[IFLA_IFNAME],
                            "mac", mac, "mtu", (json_int_t)mtu, "vnet", true, "addrs");
    if (doc == NULL || json_array_append_new(t->links, doc) != 0)
        return err_set(e, ENOMEM, "out of memory");
    t->known[t->known_count].index = m->ifi_index;
    t->known[t->known_count++].doc = doc;
    return 0;
}

/* ---- what is configured on them ---- */

static int take_address(struct taken *t, const struct nlmsghdr *h, struct err *e)
{
    const struct ifaddrmsg *m = NLMSG_DATA(h);
    json_t *link = known_link(t, (int)m->ifa_index);
    struct attrs a;

    if (link == NULL || (m->ifa_family != AF_INET && m->ifa_family != AF_INET6))
        return 0;
    attrs_read(&a, IFA_RTA(m), IFA_PAYLOAD(h));
    const int key = a.data[IFA_LOCAL] != NULL ? IFA_LOCAL : IFA_ADDRESS;
    json_t *local = json_addr(m->ifa_family, a.data[key], a.size[key]);
    if (local == NULL)
        return 0;
    if (t->addr_count == NETWORK_ADDRS_MAX) {
        json_decref(local);
        return err_set(e, E2BIG, "network: more than %u addresses", NETWORK_ADDRS_MAX);
    }
    struct taken_addr *row = &t->addrs[t->addr_count++];
    const int peer = a.data[IFA_ADDRESS] != NULL ? IFA_ADDRESS : key;
    row->m = *m;
    memcpy(row->local, a.data[key], a.size[key]);
    memcpy(row->prefix, a.data[peer], MIN(a.size[peer], sizeof(row->prefix)));
    json_t *o = row->doc = json_pack("{s:i,s:i}", "len", m->ifa_prefixlen, "scope", m->ifa_scope);
    json_put(o, "a", local);
    json_put(o, "peer", json_addr(m->ifa_family, a.data[IFA_ADDRESS], a.size[IFA_ADDRESS]));
    json_put(o, "bcast", json_addr(m->ifa_family, a.data[IFA_BROADCAST], a.size[IFA_BROADCAST]));
    return json_array_append_new(json_object_get(link, "addrs"), o) == 0
               ? 0
               : err_set(e, ENOMEM, "out of memory");
}

static bool same_network(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    const unsigned whole = bits / 8, rest = bits % 8;

    return memcmp(a, b, whole) == 0 && (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

/* An address brings the route to its network, but whoever set the namespace up may have taken that
 * away again (CNI's ptp). */
static void keep_prefix_route(struct taken *t, const struct rtmsg *m, int oif, const void *dst)
{
    for (size_t i = 0; i < t->addr_count; i++) {
        const struct taken_addr *a = &t->addrs[i];
        if ((int)a->m.ifa_index == oif && a->m.ifa_family == m->rtm_family &&
            a->m.ifa_prefixlen == m->rtm_dst_len && same_network(a->prefix, dst, m->rtm_dst_len))
            json_put(a->doc, "route", json_true());
    }
}

static int take_route(struct taken *t, const struct nlmsghdr *h, struct err *e)
{
    const struct rtmsg *m = NLMSG_DATA(h);
    const int family = m->rtm_family;
    int32_t oif = 0, metric = 0;
    struct attrs a;

    if ((family != AF_INET && family != AF_INET6) || m->rtm_table != RT_TABLE_MAIN ||
        m->rtm_type != RTN_UNICAST || m->rtm_flags & RTM_F_CLONED)
        return 0;
    attrs_read(&a, RTM_RTA(m), RTM_PAYLOAD(h));
    if (a.size[RTA_OIF] == 4)
        memcpy(&oif, a.data[RTA_OIF], 4);
    if (a.size[RTA_PRIORITY] == 4)
        memcpy(&metric, a.data[RTA_PRIORITY], 4);
    json_t *link = known_link(t, oif);
    if (link == NULL)
        return 0;
    if (m->rtm_protocol == RTPROT_KERNEL) {
        if (a.size[RTA_DST] == (family == AF_INET ? 4 : 16))
            keep_prefix_route(t, m, oif, a.data[RTA_DST]);
        return 0;
    }
    json_t *o =
        json_pack("{s:i,s:i,s:i,s:i,s:i,s:I,s:b,s:O}", "family", family, "len", m->rtm_dst_len,
                  "scope", m->rtm_scope, "proto", m->rtm_protocol, "type", m->rtm_type, "metric",
                  (json_int_t)(uint32_t)metric, "onlink", (m->rtm_flags & RTNH_F_ONLINK) != 0,
                  "link", json_object_get(link, "name"));
    json_put(o, "dst", json_addr(family, a.data[RTA_DST], a.size[RTA_DST]));
    json_put(o, "via", json_addr(family, a.data[RTA_GATEWAY], a.size[RTA_GATEWAY]));
    json_put(o, "src", json_addr(family, a.data[RTA_PREFSRC], a.size[RTA_PREFSRC]));
    return json_array_append_new(t->routes, o) == 0 ? 0 : err_set(e, ENOMEM, "out of memory");
}

static int take_neigh(struct taken *t, const struct nlmsghdr *h, struct err *e)
{
    const struct ndmsg *m = NLMSG_DATA(h);
    json_t *link = known_link(t, m->ndm_ifindex);
    struct attrs a;
    char mac[13];

    if (link == NULL || !(m->ndm_state & NUD_PERMANENT) ||
        (m->ndm_family != AF_INET && m->ndm_family != AF_INET6))
        return 0;
    attrs_read(&a, (const void *)((const char *)m + NLMSG_ALIGN(sizeof(*m))),
               NLMSG_PAYLOAD(h, sizeof(*m)));
    if (a.size[NDA_LLADDR] != 6)
        return 0;
    const uint8_t *b = a.data[NDA_LLADDR];
    snprintf(mac, sizeof(mac), "%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
    json_t *o = json_pack("{s:O,s:s}", "link", json_object_get(link, "name"), "mac", mac);
    json_put(o, "a", json_addr(m->ndm_family, a.data[NDA_DST], a.size[NDA_DST]));
    return json_array_append_new(t->neighs, o) == 0 ? 0 : err_set(e, ENOMEM, "out of memory");
}

/* ---- giving it over ---- */

static void drop_address(struct taken *t, const struct taken_addr *a)
{
    struct {
        struct nlmsghdr h;
        struct ifaddrmsg m;
        struct rtattr rta;
        uint8_t local[16];
    } req;
    const size_t size = a->m.ifa_family == AF_INET ? 4 : 16;
    char reply[512];

    memset(&req, 0, sizeof(req));
    req.h.nlmsg_type = RTM_DELADDR;
    req.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    req.h.nlmsg_seq = ++t->seq;
    req.m = a->m;
    req.rta.rta_type = IFA_LOCAL;
    req.rta.rta_len = (unsigned short)RTA_LENGTH(size);
    memcpy(req.local, a->local, size);
    req.h.nlmsg_len = (uint32_t)(NLMSG_LENGTH(sizeof(req.m)) + RTA_SPACE(size));
    /* A secondary address has gone with its first one. */
    if (send(t->nl, &req, req.h.nlmsg_len, 0) >= 0)
        (void)!recv(t->nl, reply, sizeof(reply), 0);
}

static int hand_over(struct taken *t, int dir_fd, struct err *e)
{
    int fd;

    if (control_connect(dir_fd, &fd, e) != 0)
        return -1;
    json_t *reply = NULL, *req = json_pack("{s:s,s:O,s:O,s:O}", "op", "network", "links", t->links,
                                           "routes", t->routes, "neighs", t->neighs);
    int code = req == NULL ? -ENOMEM : control_send(fd, req, t->fds, t->fd_count);
    if (code == 0)
        code = control_recv(fd, 0, &reply, NULL, 0, NULL);
    int rc = code != 0 ? err_errno(e, -code, "network") : control_check(reply, e);
    json_decref(req);
    json_decref(reply);
    (void)close(fd);
    return rc == 0 ? 0 : err_wrap(e, "network");
}

/* Without it the sandbox works all the same; only those who dial its ports inside the namespace
 * find nobody. */
static void take_loopback(struct taken *t, int ns_fd)
{
    struct err e = {0};

    if (network_lookup(ns_fd, &t->loopback[0], &t->loopback[1], &e) != 0)
        log_info("network: loopback of the namespace: %s", e.text);
}

static void take_resolver(struct taken *t, const char *text)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(NETWORK_RESOLVER_PORT)};

    if (t->resolver_count == NETWORK_RESOLVERS_MAX || inet_pton(AF_INET, text, &sa.sin_addr) != 1 ||
        ntohl(sa.sin_addr.s_addr) >> 24 != IN_LOOPBACKNET)
        return;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0) {
        log_warn("network: the resolver %s: %s", text, strerror(errno));
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    t->resolvers[t->resolver_count].addr = sa.sin_addr;
    t->resolvers[t->resolver_count++].fd = fd;
}

/* A resolv.conf that managers mount may name somebody on the namespace's loopback (docker in a user
 * network): the guest's loopback is another one. */
static void take_resolvers(struct taken *t, const struct oci_spec *spec)
{
    char line[256], address[64];
    FILE *f = NULL;

    for (size_t i = 0; i < spec->mount_count; i++)
        if (strcmp(spec->mounts[i].destination, "/etc/resolv.conf") == 0 &&
            spec->mounts[i].source != NULL && f == NULL)
            f = fopen(spec->mounts[i].source, "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, " nameserver %63s", address) == 1)
            take_resolver(t, address);
    if (f != NULL)
        (void)fclose(f);
}

static void give_resolvers(const struct taken *t, int dir_fd)
{
    char address[INET_ADDRSTRLEN];

    for (size_t i = 0; i < t->resolver_count; i++) {
        json_t *reply = NULL, *req;
        struct err e = {0};
        int fd = -1;
        (void)inet_ntop(AF_INET, &t->resolvers[i].addr, address, sizeof(address));
        req = json_pack("{s:s,s:s}", "op", "resolver", "addr", address);
        if (control_connect(dir_fd, &fd, &e) != 0 ||
            control_send(fd, req, &t->resolvers[i].fd, 1) != 0 ||
            control_next(fd, -1, &reply, &e) != 0)
            log_warn("network: the resolver %s: %s", address, e.text);
        if (fd >= 0)
            (void)close(fd);
        json_decref(reply);
        json_decref(req);
    }
}

static void give_loopback(const struct taken *t, int dir_fd)
{
    json_t *reply = NULL, *req = json_pack("{s:s}", "op", "loopback");
    struct err e = {0};
    int fd = -1;

    if (t->loopback[0] < 0 || control_connect(dir_fd, &fd, &e) != 0)
        goto out;
    if (control_send(fd, req, t->loopback, 2) != 0 || control_next(fd, -1, &reply, &e) != 0)
        log_info("network: the sandbox does not take its loopback: %s", e.text);
    (void)close(fd);
out:
    json_decref(reply);
    json_decref(req);
}

static int read_namespace(struct taken *t, struct err *e)
{
    t->nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    t->fds[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->fds[0] >= 0)
        t->fd_count = 1;
    if (t->nl < 0 || t->fds[0] < 0)
        return err_errno(e, errno, "network");
    if (network_dump(t, RTM_GETLINK, take_link, e) != 0)
        return -1;
    if (t->known_count == 0)
        return 0;
    if (network_dump(t, RTM_GETADDR, take_address, e) != 0 ||
        network_dump(t, RTM_GETROUTE, take_route, e) != 0 ||
        network_dump(t, RTM_GETNEIGH, take_neigh, e) != 0)
        return -1;
    return 0;
}

/* Inside the namespace ns_fd; comes back whatever happens. */
static int visit(struct taken *t, const struct oci_spec *spec, int ns_fd, int dir_fd, struct err *e)
{
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int rc;

    if (home < 0 || setns(ns_fd, CLONE_NEWNET) != 0) {
        rc = err_errno(e, errno, "network: enter the namespace");
        goto out;
    }
    rc = read_namespace(t, e);
    if (rc == 0 && t->known_count > 0)
        take_loopback(t, ns_fd);
    if (rc == 0 && t->known_count > 0)
        take_resolvers(t, spec);
    if (setns(home, CLONE_NEWNET) != 0) {
        rc = err_errno(e, errno, "network: leave the namespace");
        goto out;
    }
    if (rc == 0 && t->known_count > 0) {
        rc = hand_over(t, dir_fd, e);
        for (size_t i = 0; rc == 0 && i < t->addr_count; i++)
            drop_address(t, &t->addrs[i]);
        if (rc == 0)
            give_loopback(t, dir_fd);
        if (rc == 0)
            give_resolvers(t, dir_fd);
    }
out:
    if (home >= 0)
        (void)close(home);
    return rc;
}

int network_take_over(const struct oci_spec *spec, pid_t sentry, int dir_fd, struct err *e)
{
    const struct oci_hooks *h = &spec->hooks;
    const char *named = spec->lx.ns.path[OCI_NS_NETWORK];
    char path[64];

    /* Only hooks could have put anything into a namespace that is new. */
    if (named == NULL &&
        (!spec->lx.ns.listed[OCI_NS_NETWORK] ||
         h->prestart.count + h->create_runtime.count + h->create_container.count == 0))
        return 0;
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)sentry);
    int ns_fd = open(named != NULL ? named : path, O_RDONLY | O_CLOEXEC);
    if (ns_fd < 0)
        return err_errno(e, errno, "network namespace %s", named != NULL ? named : path);
    struct taken *t = calloc(1, sizeof(*t));
    int rc = t == NULL ? err_set(e, ENOMEM, "out of memory") : 0;
    if (rc == 0) {
        t->nl = t->loopback[0] = t->loopback[1] = -1;
        t->links = json_array();
        t->routes = json_array();
        t->neighs = json_array();
        rc = visit(t, spec, ns_fd, dir_fd, e);
        for (size_t i = 0; i < t->fd_count; i++)
            (void)close(t->fds[i]);
        for (size_t i = 0; i < t->resolver_count; i++)
            (void)close(t->resolvers[i].fd);
        for (size_t i = 0; i < ARRAY_SIZE(t->loopback); i++)
            if (t->loopback[i] >= 0)
                (void)close(t->loopback[i]);
        if (t->nl >= 0)
            (void)close(t->nl);
        json_decref(t->links);
        json_decref(t->routes);
        json_decref(t->neighs);
        free(t);
    }
    (void)close(ns_fd);
    return rc;
}
