/* Packet sockets: their life and names (packet(7)). */
#include "sentry/net/packet/packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/if_ether.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/objcount.h"
#include "sentry/net/ns/netns.h"
#include "sentry/net/packet/packet_priv.h"

OBJCOUNT_DEFINE(packet_sock);

static const struct sock_ops packet_ops;

/* ---- the table ---- */

int packet_new(struct memfile *mf, struct packet_table **out)
{
    struct packet_table *t = calloc(1, sizeof(*t));

    if (!t)
        return -ENOMEM;
    t->mf = mf;
    mutex_init(&t->mu, LOCK_RANK_PACKET_TABLE);
    list_init(&t->socks);
    list_init(&t->fanouts);
    *out = t;
    return 0;
}

void packet_free(struct packet_table *t)
{
    if (!t)
        return;
    mutex_destroy(&t->mu);
    free(t);
}

bool packet_listens(struct net *n)
{
    return atomic_load_explicit(&net_packet(n)->running, memory_order_relaxed);
}

void packet_for_each(struct net *n, void (*fn)(void *arg, const struct packet_info *i), void *arg)
{
    struct packet_table *t = net_packet(n);
    struct packet_sock *s;

    mutex_lock(&t->mu);
    list_for_each_entry (s, &t->socks, node) {
        struct packet_info i = {.type = s->base.type, .uid = s->uid};
        mutex_lock(&s->mu);
        i.refs = ref_read(&s->base.ref);
        i.rmem = s->charged;
        i.ifindex = s->ifindex;
        i.protocol = s->protocol;
        i.running = s->running;
        i.inode = s->base.file ? s->base.file->inode->ino : 0;
        mutex_unlock(&s->mu);
        fn(arg, &i);
    }
    mutex_unlock(&t->mu);
}

/* ---- life ---- */

static void set_running_locked(struct packet_sock *s, bool on)
{
    if (on && !s->running)
        atomic_fetch_add(&net_packet(s->base.net)->running, 1);
    if (!on && s->running)
        atomic_fetch_sub(&net_packet(s->base.net)->running, 1);
    s->running = on;
}

int packet_create(struct net *n, int family, int type, int protocol, const struct vfs_caller *c,
                  struct sock **out_sock)
{
    if (!net_capable(n, c->cred, CAP_NET_RAW))
        return -EPERM;
    if (type != SOCK_RAW && type != SOCK_DGRAM)
        return -ESOCKTNOSUPPORT;
    struct packet_sock *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOBUFS;
    /* SO_PROTOCOL is 0 whatever the protocol. */
    sock_init(&s->base, &packet_ops, n, family, type, 0);
    waitq_init(&s->wq);
    mutex_init(&s->mu, LOCK_RANK_PACKET);
    list_init(&s->queue);
    s->version = TPACKET_V1;
    s->uid = c->cred->euid;
    s->protocol = ntohs((uint16_t)protocol);
    mutex_lock(&net_packet(n)->mu);
    list_add_tail(&s->node, &net_packet(n)->socks);
    mutex_lock(&s->mu);
    set_running_locked(s, s->protocol != 0);
    mutex_unlock(&s->mu);
    mutex_unlock(&net_packet(n)->mu);
    OBJCOUNT_INC(packet_sock);
    *out_sock = &s->base;
    return 0;
}

static void packet_close(struct sock *base)
{
    struct packet_sock *s = packet_of(base);
    struct packet_table *t = net_packet(base->net);

    mutex_lock(&t->mu);
    list_del(&s->node);
    packet_fanout_leave_locked(s);
    mutex_lock(&s->mu);
    set_running_locked(s, false);
    s->closed = true;
    base->file = NULL;
    struct packet_ring *ring = s->ring;
    s->ring = NULL;
    mutex_unlock(&s->mu);
    mutex_unlock(&t->mu);
    packet_ring_put(ring);
    packet_purge(s);
}

static void packet_release(struct sock *base)
{
    struct packet_sock *s = packet_of(base);

    packet_purge(s);
    free(s->members);
    waitq_fini(&s->wq);
    mutex_destroy(&s->mu);
    OBJCOUNT_DEC(packet_sock);
    free(s);
}

/* ---- names ---- */

static int packet_bind(struct sock *base, const struct sock_addr *a, const struct vfs_caller *c)
{
    struct packet_sock *s = packet_of(base);
    struct sockaddr_ll to;
    struct netns_link link = {.flags = IFF_UP};

    (void)c;
    if (a->len < sizeof(to))
        return -EINVAL;
    memcpy(&to, &a->storage, sizeof(to));
    if (to.sll_family != AF_PACKET)
        return -EINVAL;
    if (to.sll_ifindex) {
        int r = netns_link_get(net_ns(base->net), to.sll_ifindex, &link);
        if (r)
            return r;
    }
    /* What the sockets of a fanout listen to stays so. */
    if (packet_fanout_value(s))
        return -EINVAL;
    mutex_lock(&s->mu);
    s->ifindex = to.sll_ifindex;
    if (to.sll_protocol)
        s->protocol = ntohs(to.sll_protocol);
    set_running_locked(s, s->protocol != 0);
    mutex_unlock(&s->mu);
    if (!(link.flags & IFF_UP)) {
        atomic_store(&base->error, -ENETDOWN);
        (void)waitq_wake(&s->wq, EPOLLERR);
    }
    return 0;
}

static int packet_getname(struct sock *base, bool peer, struct sock_addr *out)
{
    struct packet_sock *s = packet_of(base);
    struct sockaddr_ll a;

    if (peer)
        return -EOPNOTSUPP;
    mutex_lock(&s->mu);
    const int32_t ifindex = s->ifindex;
    const uint16_t protocol = s->protocol;
    mutex_unlock(&s->mu);
    packet_name(net_ns(base->net), ifindex, protocol, &a);
    memset(out, 0, sizeof(*out));
    memcpy(&out->storage, &a, sizeof(a));
    out->len = (socklen_t)(offsetof(struct sockaddr_ll, sll_addr) + a.sll_halen);
    return 0;
}

/* ---- readiness ---- */

static uint32_t packet_poll(struct sock *base, struct waiter *w)
{
    struct packet_sock *s = packet_of(base);
    uint32_t events = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;

    if (w)
        waitq_add(&s->wq, w);
    mutex_lock(&s->mu);
    if (!list_empty(&s->queue) || packet_ring_ready_locked(s))
        events |= EPOLLIN | EPOLLRDNORM;
    if (atomic_load(&base->error))
        events |= EPOLLERR;
    mutex_unlock(&s->mu);
    return events;
}

static int64_t packet_readable(struct sock *base)
{
    struct packet_sock *s = packet_of(base);

    mutex_lock(&s->mu);
    const int64_t n =
        list_empty(&s->queue) ? 0 : list_first_entry(&s->queue, struct packet_skb, node)->size;
    mutex_unlock(&s->mu);
    return n;
}

/* A frame is with the link when the call returns. */
static int64_t packet_unsent(struct sock *base)
{
    (void)base;
    return 0;
}

static const struct sock_ops packet_ops = {
    .bind = packet_bind,
    .listen = sock_no_listen,
    .connect = sock_no_connect,
    .accept = sock_no_accept,
    .send = packet_send,
    .recv = packet_recv,
    .shutdown = sock_no_shutdown,
    .getname = packet_getname,
    .getsockopt = packet_getsockopt,
    .setsockopt = packet_setsockopt,
    .mmap = packet_mmap,
    .poll = packet_poll,
    .readable = packet_readable,
    .unsent = packet_unsent,
    .close = packet_close,
    .release = packet_release,
};
