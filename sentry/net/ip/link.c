/* Frames over a packet socket of the host (packet(7)), with the header of virtio_net when the host
 * does checksums and segmentation. */
#include <errno.h>
#include <linux/if_ether.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include "sentry/net/ip/ip_priv.h"
#include "sentry/net/packet/packet.h"

/* Packet sockets see it leave. */
static void tap_out(struct ext_link *l, const struct virtio_net_hdr *v, const struct iovec *iov,
                    int count, size_t size, const struct sock *from)
{
    const struct packet_frame f = {.ifindex = l->ifindex,
                                   .pkttype = PACKET_OUTGOING,
                                   .partial = v && v->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                   .iov = iov,
                                   .count = count,
                                   .size = size,
                                   .from = from};

    packet_tap(l->st->net, &f);
}

static int transmit(struct ext_link *l, const struct virtio_net_hdr *v, const struct iovec *iov,
                    int count, size_t size, const struct sock *from)
{
    static const struct virtio_net_hdr none;
    struct virtio_net_hdr head = v ? *v : none;
    struct iovec all[IP_IOV_MAX + 4];
    struct msghdr m = {.msg_iov = all};
    int n = 0;

    BUG_ON(count > IP_IOV_MAX + 2);
    if (packet_listens(l->st->net))
        tap_out(l, v, iov, count, size, from);
    if (l->vnet_hdr)
        all[n++] = (struct iovec){&head, sizeof(head)};
    for (int i = 0; i < count; i++)
        all[n++] = iov[i];
    m.msg_iovlen = (size_t)n;
    ssize_t r;
    do
        r = sendmsg(l->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    if (r < 0) {
        atomic_fetch_add_explicit(&l->stats->tx_dropped, 1, memory_order_relaxed);
        return errno == EMSGSIZE ? -EMSGSIZE : -ENOBUFS;
    }
    atomic_fetch_add_explicit(&l->stats->tx_packets, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->stats->tx_bytes, size, memory_order_relaxed);
    return 0;
}

int link_send(struct ext_link *l, const struct virtio_net_hdr *v, const struct iovec *iov,
              int count, size_t size)
{
    return transmit(l, v, iov, count, size, NULL);
}

int ext_frame_send(struct net *n, int32_t ifindex, const struct iovec *frame,
                   const struct sock *from)
{
    struct ext_link *l = ext_find_link(net_ext(n), ifindex);

    return l ? transmit(l, NULL, frame, 1, frame->iov_len, from) : -ENXIO;
}

static uint8_t frame_kind(const struct ext_link *l, const uint8_t *p)
{
    static const uint8_t all[ETH_ALEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    if (p[0] & 1)
        return memcmp(p, all, sizeof(all)) == 0 ? PACKET_BROADCAST : PACKET_MULTICAST;
    return memcmp(p, l->mac, ETH_ALEN) == 0 ? PACKET_HOST : PACKET_OTHERHOST;
}

/* Packet sockets see it come, whoever it is for. partial: another on this host sent it, who left
 * its checksum to the hardware. */
static void tap_in(struct ext_link *l, const uint8_t *p, size_t size, bool partial, bool checked)
{
    const struct iovec iov = {(void *)(uintptr_t)p, size};
    const struct packet_frame f = {.ifindex = l->ifindex,
                                   .pkttype = frame_kind(l, p),
                                   .partial = partial,
                                   .checked = checked,
                                   .iov = &iov,
                                   .count = 1,
                                   .size = size};

    packet_tap(l->st->net, &f);
}

static void frame_input(struct ext_link *l, const uint8_t *p, size_t size, bool checked)
{
    atomic_fetch_add_explicit(&l->stats->rx_packets, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->stats->rx_bytes, size, memory_order_relaxed);
    if (size < ETH_HEADER)
        return;
    if (p[0] & 1)
        atomic_fetch_add_explicit(&l->stats->multicast, 1, memory_order_relaxed);
    else if (memcmp(p, l->mac, 6) != 0)
        return;
    const unsigned type = (unsigned)p[12] << 8 | p[13];
    p += ETH_HEADER;
    size -= ETH_HEADER;
    if (type == ETH_P_IP)
        ip4_input(l, p, size, checked);
    else if (type == ETH_P_IPV6)
        ip6_input(l, p, size, checked);
    else if (type == ETH_P_ARP)
        arp_input(l, p, size);
}

static void message_input(struct ext_link *l, const uint8_t *p, size_t size)
{
    bool checked = false, partial = false;

    if (l->vnet_hdr) {
        struct virtio_net_hdr v;
        if (size < sizeof(v))
            return;
        memcpy(&v, p, sizeof(v));
        partial = v.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
        checked = partial || v.flags & VIRTIO_NET_HDR_F_DATA_VALID;
        p += sizeof(v);
        size -= sizeof(v);
    }
    if (size >= ETH_HEADER && packet_listens(l->st->net))
        tap_in(l, p, size, partial, checked);
    frame_input(l, p, size, checked);
}

static bool link_is_up(struct ext_link *l)
{
    struct netns_link info;

    return netns_link_get(l->st->ns, l->ifindex, &info) == 0 && info.flags & IFF_UP;
}

void link_receive(struct ext_link *l)
{
    const bool up = link_is_up(l);

    for (int i = 0; i < EXT_BATCH; i++) {
        const ssize_t n =
            recvfrom(l->fd, l->st->rx, EXT_FRAME_MAX, MSG_DONTWAIT | MSG_TRUNC, NULL, NULL);
        if (n < 0)
            return;
        if (up && (size_t)n <= EXT_FRAME_MAX)
            message_input(l, l->st->rx, (size_t)n);
    }
}
