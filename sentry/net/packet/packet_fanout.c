/* PACKET_FANOUT: sockets that share what passes, so that each frame goes to one of them
 * (packet(7)). */
#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "sentry/net/packet/packet_priv.h"

#define FANOUT_MEMBERS_MAX 256u

/* Guard: the table's mu. */
struct packet_fanout {
    struct list node; /* table->fanouts */
    uint16_t id;
    uint8_t type;
    uint16_t protocol; /* what all members listen to */
    int32_t ifindex;
    unsigned count, turn;
    uint64_t serial; /* of the frame that was last given to somebody */
    const struct packet_sock *chosen;
    struct packet_sock *members[FANOUT_MEMBERS_MAX];
};

/* ---- who gets a frame ---- */

static uint64_t end_hash(const uint8_t *addr, size_t size, const uint8_t *port)
{
    uint8_t end[18] = {0};

    memcpy(end, addr, size);
    if (port)
        memcpy(end + 16, port, 2);
    return hash_seeded(end, sizeof(end));
}

static bool has_ports(uint8_t protocol)
{
    return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

static uint64_t hash4(const uint8_t *p, size_t size)
{
    if (size < sizeof(struct iphdr))
        return 0;
    const size_t head = (size_t)(p[0] & 15) * 4;
    const bool piece = (p[6] & 0x3f) | p[7];
    const uint8_t *ports = has_ports(p[9]) && !piece && size >= head + 4 ? p + head : NULL;

    return end_hash(p + 12, 4, ports) + end_hash(p + 16, 4, ports ? ports + 2 : NULL) + p[9];
}

static uint64_t hash6(const uint8_t *p, size_t size)
{
    const size_t head = sizeof(struct ip6_hdr);

    if (size < head)
        return 0;
    const uint8_t *ports = has_ports(p[6]) && size >= head + 4 ? p + head : NULL;

    return end_hash(p + 8, 16, ports) + end_hash(p + 24, 16, ports ? ports + 2 : NULL) + p[6];
}

/* Of the flow, the same in both directions. */
static uint64_t flow_hash(const uint8_t *frame, size_t size, uint16_t protocol)
{
    const uint8_t *p = frame + PACKET_ETH_HEADER;
    const size_t left = size - PACKET_ETH_HEADER;

    return protocol == ETH_P_IP ? hash4(p, left) : protocol == ETH_P_IPV6 ? hash6(p, left) : 0;
}

static unsigned choose(struct packet_fanout *f, const uint8_t *frame, size_t size,
                       uint16_t protocol)
{
    int cpu;

    switch (f->type) {
    case PACKET_FANOUT_LB:
        return ++f->turn % f->count;
    case PACKET_FANOUT_CPU:
        cpu = sched_getcpu();
        return cpu > 0 ? (unsigned)cpu % f->count : 0;
    case PACKET_FANOUT_RND:
        return (unsigned)(hash_seeded_u64(f->serial, f->id) % f->count);
    default:
        return (unsigned)(flow_hash(frame, size, protocol) % f->count);
    }
}

bool packet_fanout_chose_locked(const struct packet_sock *s, uint64_t serial,
                                const struct sock *from, const uint8_t *frame, size_t size,
                                uint16_t protocol)
{
    struct packet_fanout *f = s->fanout;

    if (LIKELY(!f))
        return true;
    if (f->serial != serial) {
        f->serial = serial;
        f->chosen = f->members[choose(f, frame, size, protocol)];
    }
    for (unsigned i = 0; from && i < f->count; i++)
        if (&f->members[i]->base == from)
            return false;
    return f->chosen == s;
}

/* ---- membership ---- */

static struct packet_fanout *find_locked(struct packet_table *t, uint16_t id)
{
    struct packet_fanout *f;

    list_for_each_entry (f, &t->fanouts, node)
        if (f->id == id)
            return f;
    return NULL;
}

static int make_locked(struct packet_sock *s, uint16_t id, uint8_t type, struct packet_fanout **out)
{
    struct packet_fanout *f = calloc(1, sizeof(*f));

    if (!f)
        return -ENOMEM;
    f->id = id;
    f->type = type;
    f->protocol = s->protocol;
    f->ifindex = s->ifindex;
    list_add_tail(&f->node, &net_packet(s->base.net)->fanouts);
    *out = f;
    return 0;
}

static int join_locked(struct packet_sock *s, uint16_t id, uint8_t type)
{
    struct packet_fanout *f = find_locked(net_packet(s->base.net), id);

    if (s->fanout)
        return -EALREADY;
    if (!s->running ||
        (f && (f->type != type || f->protocol != s->protocol || f->ifindex != s->ifindex)))
        return -EINVAL;
    if (f && f->count == FANOUT_MEMBERS_MAX)
        return -ENOSPC;
    int r = f ? 0 : make_locked(s, id, type, &f);
    if (r == 0) {
        f->members[f->count++] = s;
        s->fanout = f;
    }
    return r;
}

int packet_fanout_join(struct packet_sock *s, uint32_t value)
{
    struct packet_table *t = net_packet(s->base.net);
    const unsigned type = value >> 16 & 0xff, flags = value >> 24;

    if (flags || (type != PACKET_FANOUT_HASH && type != PACKET_FANOUT_LB &&
                  type != PACKET_FANOUT_CPU && type != PACKET_FANOUT_RND))
        return -EINVAL;
    mutex_lock(&t->mu);
    mutex_lock(&s->mu);
    const int r = join_locked(s, (uint16_t)value, (uint8_t)type);
    mutex_unlock(&s->mu);
    mutex_unlock(&t->mu);
    return r;
}

void packet_fanout_leave_locked(struct packet_sock *s)
{
    struct packet_fanout *f = s->fanout;

    if (!f)
        return;
    s->fanout = NULL;
    unsigned i = 0;
    while (f->members[i] != s)
        i++;
    f->members[i] = f->members[--f->count];
    if (f->count > 0)
        return;
    list_del(&f->node);
    free(f);
}

uint32_t packet_fanout_value(struct packet_sock *s)
{
    struct packet_table *t = net_packet(s->base.net);

    mutex_lock(&t->mu);
    const uint32_t v = s->fanout ? s->fanout->id | (uint32_t)s->fanout->type << 16 : 0;
    mutex_unlock(&t->mu);
    return v;
}
