/* Groups of a socket: joining, leaving, sources (ip(7), ipv6(7), RFC 3678). */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "sentry/net/inet/inet_priv.h"
#include "sentry/net/ip/ext.h"

static struct inet_member *member_find_locked(struct inet_sock *s, const struct net_addr *group,
                                              uint32_t ifindex)
{
    struct inet_member *m;

    list_for_each_entry (m, &s->members, node)
        if (net_addr_equal(&m->group, group) && (m->ifindex == ifindex || ifindex == 0))
            return m;
    return NULL;
}

static int member_new_locked(struct inet_sock *s, const struct net_addr *group, uint32_t ifindex,
                             bool excludes, struct inet_member **out)
{
    struct inet_member *m;

    if (s->member_count >= LIMIT_INET_GROUPS)
        return -ENOBUFS;
    m = calloc(1, sizeof(*m) + INET_SOURCES * sizeof(m->sources[0]));
    if (!m)
        return -ENOMEM;
    int r = ext_group_join(s->base.net, (int32_t)ifindex, group);
    if (r) {
        free(m);
        return r;
    }
    m->group = *group;
    m->ifindex = ifindex;
    m->excludes = excludes;
    list_add_tail(&m->node, &s->members);
    s->member_count++;
    if (out)
        *out = m;
    return 0;
}

static void member_drop_locked(struct inet_sock *s, struct inet_member *m)
{
    ext_group_leave(s->base.net, (int32_t)m->ifindex, &m->group);
    list_del(&m->node);
    s->member_count--;
    free(m);
}

/* The link a group is joined on. -ENODEV. */
static int group_link(struct inet_sock *s, const struct net_addr *group, uint32_t *ifindex)
{
    struct inet_route rt;
    const struct net_addr none = {.family = 0};

    if (*ifindex)
        return inet_if_exists(s->base.net, *ifindex) ? 0 : -ENODEV;
    if (inet_route(s->base.net, group, &none, 0, &rt))
        return -ENODEV;
    *ifindex = rt.ifindex;
    return 0;
}

static int group_join(struct inet_sock *s, const struct net_addr *group, uint32_t ifindex)
{
    if (!net_addr_is_multicast(group))
        return -EINVAL;
    int r = group_link(s, group, &ifindex);
    if (r)
        return r;
    mutex_lock(&s->mu);
    r = member_find_locked(s, group, ifindex) ? -EADDRINUSE
                                              : member_new_locked(s, group, ifindex, true, NULL);
    mutex_unlock(&s->mu);
    return r;
}

static int group_leave(struct inet_sock *s, const struct net_addr *group, uint32_t ifindex)
{
    int r = 0;

    if (!net_addr_is_multicast(group))
        return group->family == AF_INET ? -EADDRNOTAVAIL : -EINVAL;
    mutex_lock(&s->mu);
    struct inet_member *m = member_find_locked(s, group, ifindex);
    if (m)
        member_drop_locked(s, m);
    else
        r = -EADDRNOTAVAIL;
    mutex_unlock(&s->mu);
    return r;
}

/* ---- sources ---- */

enum source_op { SOURCE_JOIN, SOURCE_LEAVE, SOURCE_BLOCK, SOURCE_UNBLOCK };

static unsigned source_find(const struct inet_member *m, const struct net_addr *src)
{
    unsigned i = 0;

    while (i < m->source_count && !net_addr_equal(&m->sources[i], src))
        i++;
    return i;
}

static int source_apply_locked(struct inet_sock *s, struct inet_member *m,
                               const struct net_addr *src, enum source_op op)
{
    const bool exclude = op == SOURCE_BLOCK || op == SOURCE_UNBLOCK;
    const bool add = op == SOURCE_JOIN || op == SOURCE_BLOCK;

    if (m->excludes != exclude) {
        if (m->source_count || !m->excludes)
            return -EINVAL;
        m->excludes = exclude;
    }
    const unsigned i = source_find(m, src);
    const bool there = i < m->source_count;
    if (add == there)
        return -EADDRNOTAVAIL;
    if (add) {
        if (m->source_count >= INET_SOURCES)
            return -ENOBUFS;
        m->sources[m->source_count++] = *src;
        return 0;
    }
    m->sources[i] = m->sources[--m->source_count];
    if (op == SOURCE_LEAVE && m->source_count == 0)
        member_drop_locked(s, m);
    return 0;
}

static int group_source(struct inet_sock *s, const struct net_addr *group,
                        const struct net_addr *src, uint32_t ifindex, enum source_op op)
{
    if (!net_addr_is_multicast(group))
        return -EINVAL;
    int r = group_link(s, group, &ifindex);
    if (r)
        return r;
    mutex_lock(&s->mu);
    struct inet_member *m = member_find_locked(s, group, ifindex);
    if (!m && op == SOURCE_JOIN)
        r = member_new_locked(s, group, ifindex, false, &m);
    else if (!m)
        r = -EINVAL;
    if (r == 0)
        r = source_apply_locked(s, m, src, op);
    mutex_unlock(&s->mu);
    return r;
}

/* ---- options ---- */

static int mreq4(struct inet_sock *s, int name, const void *buf, socklen_t len)
{
    struct ip_mreqn r = {.imr_ifindex = 0};

    if (len < sizeof(struct ip_mreq))
        return -EINVAL;
    memcpy(&r, buf, MIN((size_t)len, sizeof(r)));
    const struct net_addr group = inet_addr_from4(r.imr_multiaddr.s_addr);
    uint32_t ifindex = r.imr_ifindex > 0 ? (uint32_t)r.imr_ifindex : 0;
    if (!ifindex && r.imr_address.s_addr) {
        const struct net_addr local = inet_addr_from4(r.imr_address.s_addr);
        ifindex = inet_if_by_addr(s->base.net, &local);
        if (!ifindex)
            return name == IP_ADD_MEMBERSHIP ? -ENODEV : -EADDRNOTAVAIL;
    }
    return name == IP_ADD_MEMBERSHIP ? group_join(s, &group, ifindex)
                                     : group_leave(s, &group, ifindex);
}

static int mreq_source4(struct inet_sock *s, const void *buf, socklen_t len, enum source_op op)
{
    struct ip_mreq_source r;
    uint32_t ifindex = 0;

    if (len != sizeof(r))
        return -EINVAL;
    memcpy(&r, buf, sizeof(r));
    const struct net_addr group = inet_addr_from4(r.imr_multiaddr.s_addr);
    const struct net_addr src = inet_addr_from4(r.imr_sourceaddr.s_addr);
    if (r.imr_interface.s_addr) {
        const struct net_addr local = inet_addr_from4(r.imr_interface.s_addr);
        ifindex = inet_if_by_addr(s->base.net, &local);
        if (!ifindex)
            return -ENODEV;
    }
    return group_source(s, &group, &src, ifindex, op);
}

static int mreq6(struct inet_sock *s, bool join, const void *buf, socklen_t len)
{
    struct ipv6_mreq r;

    if (len < sizeof(r))
        return -EINVAL;
    memcpy(&r, buf, sizeof(r));
    const struct net_addr group = inet_addr_from6(r.ipv6mr_multiaddr.s6_addr);
    if (group.family != AF_INET6)
        return -EINVAL;
    return join ? group_join(s, &group, r.ipv6mr_interface)
                : group_leave(s, &group, r.ipv6mr_interface);
}

static int storage_addr(const struct sockaddr_storage *ss, struct net_addr *out)
{
    struct sock_addr a = {.len = sizeof(a.storage)};

    a.storage = *ss;
    if (a.family == AF_INET)
        *out = inet_addr_from4(a.in.sin_addr.s_addr);
    else if (a.family == AF_INET6)
        *out = inet_addr_from6(a.in6.sin6_addr.s6_addr);
    else
        return -EINVAL;
    return 0;
}

static int group_req(struct inet_sock *s, bool join, const void *buf, socklen_t len)
{
    struct group_req r;
    struct net_addr group;

    if (len < sizeof(r))
        return -EINVAL;
    memcpy(&r, buf, sizeof(r));
    int err = storage_addr(&r.gr_group, &group);
    if (err)
        return err;
    return join ? group_join(s, &group, r.gr_interface) : group_leave(s, &group, r.gr_interface);
}

static int group_source_req(struct inet_sock *s, const void *buf, socklen_t len, enum source_op op)
{
    struct group_source_req r;
    struct net_addr group, src;

    if (len != sizeof(r))
        return -EINVAL;
    memcpy(&r, buf, sizeof(r));
    int err = storage_addr(&r.gsr_group, &group);
    if (err == 0)
        err = storage_addr(&r.gsr_source, &src);
    return err ? err : group_source(s, &group, &src, r.gsr_interface, op);
}

int inet_mcast_set(struct inet_sock *s, int level, int name, const void *buf, socklen_t len)
{
    if (level == SOL_IP) {
        switch (name) {
        case IP_ADD_MEMBERSHIP:
        case IP_DROP_MEMBERSHIP:
            return mreq4(s, name, buf, len);
        case IP_ADD_SOURCE_MEMBERSHIP:
            return mreq_source4(s, buf, len, SOURCE_JOIN);
        case IP_DROP_SOURCE_MEMBERSHIP:
            return mreq_source4(s, buf, len, SOURCE_LEAVE);
        case IP_BLOCK_SOURCE:
            return mreq_source4(s, buf, len, SOURCE_BLOCK);
        case IP_UNBLOCK_SOURCE:
            return mreq_source4(s, buf, len, SOURCE_UNBLOCK);
        default:
            break;
        }
    } else if (name == IPV6_JOIN_GROUP || name == IPV6_LEAVE_GROUP) {
        return mreq6(s, name == IPV6_JOIN_GROUP, buf, len);
    }
    switch (name) {
    case MCAST_JOIN_GROUP:
    case MCAST_LEAVE_GROUP:
        return group_req(s, name == MCAST_JOIN_GROUP, buf, len);
    case MCAST_JOIN_SOURCE_GROUP:
        return group_source_req(s, buf, len, SOURCE_JOIN);
    case MCAST_LEAVE_SOURCE_GROUP:
        return group_source_req(s, buf, len, SOURCE_LEAVE);
    case MCAST_BLOCK_SOURCE:
        return group_source_req(s, buf, len, SOURCE_BLOCK);
    case MCAST_UNBLOCK_SOURCE:
        return group_source_req(s, buf, len, SOURCE_UNBLOCK);
    default:
        return -ENOPROTOOPT;
    }
}

bool inet_mcast_joined(struct inet_sock *s, const struct net_addr *group, uint32_t ifindex)
{
    mutex_lock(&s->mu);
    const bool yes = member_find_locked(s, group, ifindex);
    mutex_unlock(&s->mu);
    return yes;
}

bool inet_mcast_wants(struct inet_sock *s, const struct net_addr *group, uint32_t ifindex,
                      const struct net_addr *from)
{
    const bool v4 = group->family == AF_INET;
    bool wants;

    mutex_lock(&s->mu);
    const struct inet_member *m = member_find_locked(s, group, ifindex);
    if (m)
        wants = (source_find(m, from) < m->source_count) != m->excludes;
    else
        wants = inet_opt(s, v4 ? INET_MC_ALL : INET_MC_ALL6);
    mutex_unlock(&s->mu);
    return wants;
}

void inet_mcast_free(struct inet_sock *s)
{
    struct inet_member *m, *next;

    list_for_each_entry_safe (m, next, &s->members, node)
        member_drop_locked(s, m);
}
