/* Options of packet sockets at SOL_PACKET (packet(7)). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/net/ns/netns.h"
#include "sentry/net/packet/packet_priv.h"

/* ---- memberships: every frame that reaches a link is seen anyway, and its link is told ---- */

static struct packet_member *member_find_locked(struct packet_sock *s, const struct packet_mreq *q)
{
    for (size_t i = 0; i < s->member_count; i++) {
        const struct packet_mreq *have = &s->members[i].req;
        if (have->mr_ifindex == q->mr_ifindex && have->mr_type == q->mr_type &&
            have->mr_alen == q->mr_alen && !memcmp(have->mr_address, q->mr_address, q->mr_alen))
            return &s->members[i];
    }
    return NULL;
}

static int member_new_locked(struct packet_sock *s, const struct packet_mreq *q)
{
    if (s->member_count == PACKET_MEMBERS_MAX)
        return -ENOBUFS;
    struct packet_member *all = realloc(s->members, (s->member_count + 1) * sizeof(*all));
    if (!all)
        return -ENOBUFS;
    s->members = all;
    all[s->member_count++] = (struct packet_member){.req = *q, .count = 1};
    return 0;
}

static int member_add(struct packet_sock *s, const struct packet_mreq *q)
{
    struct netns_link link;
    int r = netns_link_get(net_ns(s->base.net), q->mr_ifindex, &link);

    if (r)
        return r;
    if (q->mr_alen > NETNS_MAC_SIZE)
        return -EINVAL;
    mutex_lock(&s->mu);
    struct packet_member *m = member_find_locked(s, q);
    if (m)
        m->count++;
    else
        r = member_new_locked(s, q);
    mutex_unlock(&s->mu);
    return r;
}

/* One that is not there is no error on Linux either. */
static int member_drop(struct packet_sock *s, const struct packet_mreq *q)
{
    if (q->mr_alen > sizeof(q->mr_address))
        return -EINVAL;
    mutex_lock(&s->mu);
    struct packet_member *m = member_find_locked(s, q);
    if (m && --m->count == 0)
        *m = s->members[--s->member_count];
    mutex_unlock(&s->mu);
    return 0;
}

static int set_member(struct packet_sock *s, int name, const void *buf, socklen_t len)
{
    struct packet_mreq q;

    if (len < sizeof(q))
        return -EINVAL;
    memcpy(&q, buf, sizeof(q));
    return name == PACKET_ADD_MEMBERSHIP ? member_add(s, &q) : member_drop(s, &q);
}

/* ---- setting ---- */

static int set_ring(struct packet_sock *s, const void *buf, socklen_t len)
{
    struct tpacket_req q;

    if (len < sizeof(q))
        return -EINVAL;
    memcpy(&q, buf, sizeof(q));
    return packet_ring_set(s, &q);
}

static int set_value_locked(struct packet_sock *s, int name, int value)
{
    switch (name) {
    case PACKET_AUXDATA:
        s->auxdata = value;
        return 0;
    case PACKET_ORIGDEV:
        s->origdev = value;
        return 0;
    case PACKET_QDISC_BYPASS:
        s->bypass = value;
        return 0;
    case PACKET_IGNORE_OUTGOING:
        if (value < 0 || value > 1)
            return -EINVAL;
        s->ignore_outgoing = value;
        return 0;
    case PACKET_VERSION:
        if (packet_ring_head(value) < 0)
            return -EINVAL;
        if (s->ring)
            return -EBUSY;
        s->version = value;
        return 0;
    case PACKET_RESERVE:
        if (value < 0 || value > UINT16_MAX)
            return -EINVAL;
        if (s->ring)
            return -EBUSY;
        s->reserve = (uint32_t)value;
        return 0;
    default:
        return -ENOPROTOOPT;
    }
}

int packet_setsockopt(struct sock *base, int level, int name, const void *buf, socklen_t len,
                      const struct vfs_caller *c)
{
    struct packet_sock *s = packet_of(base);
    int value;

    (void)c;
    if (level != SOL_PACKET)
        return -ENOPROTOOPT;
    if (name == PACKET_ADD_MEMBERSHIP || name == PACKET_DROP_MEMBERSHIP)
        return set_member(s, name, buf, len);
    if (name == PACKET_RX_RING)
        return set_ring(s, buf, len);
    if (len < sizeof(value))
        return -EINVAL;
    memcpy(&value, buf, sizeof(value));
    if (name == PACKET_FANOUT)
        return packet_fanout_join(s, (uint32_t)value);
    mutex_lock(&s->mu);
    int r = set_value_locked(s, name, value);
    mutex_unlock(&s->mu);
    return r;
}

/* ---- getting ---- */

static int get_statistics(struct packet_sock *s, void *buf, socklen_t *len)
{
    mutex_lock(&s->mu);
    const struct tpacket_stats st = {.tp_packets = s->packets + s->drops, .tp_drops = s->drops};
    s->packets = s->drops = 0;
    mutex_unlock(&s->mu);
    return sock_put_option(buf, len, &st, sizeof(st));
}

/* The version asked about comes in the buffer. */
static int get_head(void *buf, socklen_t *len)
{
    int value;

    if (*len < sizeof(value))
        return -EINVAL;
    memcpy(&value, buf, sizeof(value));
    value = packet_ring_head(value);
    if (value < 0)
        return value;
    /* Without the name, which follows it there. */
    value -= (int)sizeof(struct sockaddr_ll);
    return sock_put_option(buf, len, &value, sizeof(value));
}

static int get_value(struct packet_sock *s, int name, int *out)
{
    int r = 0;

    mutex_lock(&s->mu);
    switch (name) {
    case PACKET_AUXDATA:
        *out = s->auxdata;
        break;
    case PACKET_ORIGDEV:
        *out = s->origdev;
        break;
    case PACKET_QDISC_BYPASS:
        *out = s->bypass;
        break;
    case PACKET_IGNORE_OUTGOING:
        *out = s->ignore_outgoing;
        break;
    case PACKET_VERSION:
        *out = s->version;
        break;
    case PACKET_RESERVE:
        *out = (int)s->reserve;
        break;
    default:
        r = -ENOPROTOOPT;
        break;
    }
    mutex_unlock(&s->mu);
    return r;
}

int packet_getsockopt(struct sock *base, int level, int name, void *buf, socklen_t *len)
{
    struct packet_sock *s = packet_of(base);
    int value;

    if (level != SOL_PACKET)
        return -ENOPROTOOPT;
    if (name == PACKET_STATISTICS)
        return get_statistics(s, buf, len);
    if (name == PACKET_HDRLEN)
        return get_head(buf, len);
    if (name == PACKET_FANOUT)
        value = (int)packet_fanout_value(s);
    int r = name == PACKET_FANOUT ? 0 : get_value(s, name, &value);
    return r ? r : sock_put_option(buf, len, &value, sizeof(value));
}
