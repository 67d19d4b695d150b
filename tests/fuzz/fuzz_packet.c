/* Whatever comes from the wire: Ethernet, ARP, IPv4, IPv6, ICMP, UDP and TCP into a stack that has
 * a server, a client's connection and a socket for datagrams. The input is cut into records: a
 * kind, a length, and bytes from which a frame is made, some of them with what a sender would have
 * right (lengths, the IPv4 checksum, sequence numbers near the connection's), so that what lies
 * behind is reached. After each input the stack still answers who it is. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sentry/net/ip/ip_priv.h"
#include "sentry/net/ns/netns.h"
#include "sentry/net/ns/prefix.h"
#include "sentry/net/sock.h"

#define RECORDS_MAX 48
#define FRAME_MAX 4096
#define TIMERS_MAX 20000
#define SERVER_PORT 7
#define CLIENT_PORT 9
#define ETH 14u
#define IP4 20u
#define IP6 40u
#define TCP 20u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t our_mac[6] = {2, 0, 0, 0, 0, 1}, peer_mac[6] = {2, 0, 0, 0, 0, 2};
static const uint8_t our4[4] = {10, 0, 0, 1}, peer4[4] = {10, 0, 0, 2};
static const uint8_t our6[16] = {0xfd, [15] = 1}, peer6[16] = {0xfd, [15] = 2};

struct world {
    struct net *net;
    struct vfs_caller c;
    int wire; /* the other end of the link */
    struct sock *server, *client, *dgram, *accepted;
    uint32_t their_seq, their_ack; /* of the last segment that the stack sent */
    uint16_t their_port;
};

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v & 0xffff);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* ---- the wire ---- */

/* What the stack sent: sequence numbers are noted. Whether it was an ARP answer. */
static bool look(struct world *w, const uint8_t *p, size_t size)
{
    p += sizeof(struct virtio_net_hdr);
    if (size < sizeof(struct virtio_net_hdr) + ETH + 28)
        return false;
    size -= sizeof(struct virtio_net_hdr);
    if (p[12] == 8 && p[13] == 6)
        return p[21] == 2;
    if (p[12] == 8 && p[13] == 0 && p[ETH + 9] == IPPROTO_TCP && size >= ETH + IP4 + TCP) {
        const uint8_t *t = p + ETH + IP4;
        w->their_port = (uint16_t)(t[0] << 8 | t[1]);
        w->their_seq = get32(t + 4) + ((t[13] & 3) != 0);
        w->their_ack = get32(t + 8);
    }
    return false;
}

static bool drain(struct world *w)
{
    static uint8_t frame[65536 + 128];
    bool answered = false;
    ssize_t n;

    while ((n = recv(w->wire, frame, sizeof(frame), MSG_DONTWAIT)) > 0)
        answered |= look(w, frame, (size_t)n);
    return answered;
}

static void transmit(struct world *w, const uint8_t *frame, size_t size, uint8_t flags)
{
    struct virtio_net_hdr v = {.flags = flags};
    struct iovec iov[2] = {{&v, sizeof(v)}, {(void *)(uintptr_t)frame, size}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};

    (void)drain(w);
    if (sendmsg(w->wire, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        abort();
    link_receive(&net_ext(w->net)->links[0]);
}

static void must_answer(struct world *w)
{
    uint8_t f[ETH + 28] = {0};

    memset(f, 0xff, 6);
    memcpy(f + 6, peer_mac, 6);
    put16(f + 12, ETH_P_ARP);
    memcpy(f + ETH, (const uint8_t[]){0, 1, 8, 0, 6, 4, 0, 1}, 8);
    memcpy(f + ETH + 8, peer_mac, 6);
    memcpy(f + ETH + 14, peer4, 4);
    memcpy(f + ETH + 24, our4, 4);
    transmit(w, f, sizeof(f), 0);
    if (!drain(w)) {
        fprintf(stderr, "the stack does not answer any more\n");
        abort();
    }
}

/* ---- frames ---- */

static void ethernet(uint8_t *f, unsigned type)
{
    memcpy(f, our_mac, 6);
    memcpy(f + 6, peer_mac, 6);
    put16(f + 12, type);
}

static void checksum4(uint8_t *p)
{
    uint32_t sum = 0;

    put16(p + 10, 0);
    for (unsigned i = 0; i < (p[0] & 15u) * 4; i += 2)
        sum += (unsigned)p[i] << 8 | p[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    put16(p + 10, ~(sum + (sum >> 16)) & 0xffff);
}

static size_t header4(uint8_t *f, uint8_t protocol, size_t size)
{
    uint8_t *p = f + ETH;

    ethernet(f, ETH_P_IP);
    memset(p, 0, IP4);
    p[0] = 0x45;
    put16(p + 2, (unsigned)(IP4 + size));
    p[8] = 64;
    p[9] = protocol;
    memcpy(p + 12, peer4, 4);
    memcpy(p + 16, our4, 4);
    checksum4(p);
    return ETH + IP4 + size;
}

static size_t header6(uint8_t *f, uint8_t protocol, size_t size)
{
    uint8_t *p = f + ETH;

    ethernet(f, ETH_P_IPV6);
    memset(p, 0, 8);
    p[0] = 0x60;
    put16(p + 4, (unsigned)size);
    p[6] = protocol;
    p[7] = 255;
    memcpy(p + 8, peer6, 16);
    memcpy(p + 24, our6, 16);
    return ETH + IP6 + size;
}

/* An IPv4 packet of any header whose length and sum are right. */
static size_t packet4(uint8_t *f, const uint8_t *d, size_t n)
{
    uint8_t *p = f + ETH;

    ethernet(f, ETH_P_IP);
    memset(p, 0, 60);
    memcpy(p, d, n);
    p[0] = (uint8_t)(0x40 | (p[0] & 15));
    if ((p[0] & 15) < 5)
        p[0] = 0x45;
    const size_t size = n < 60 ? 60 : n;
    if (!(p[1] & 1))
        put16(p + 2, (unsigned)size);
    if (!(p[1] & 2))
        memcpy(p + 16, our4, 4);
    checksum4(p);
    return ETH + size;
}

/* Flags, how far from what the stack expects, window, options and data. */
static size_t segment(const struct world *w, uint8_t *f, const uint8_t *d, size_t n)
{
    uint8_t *t = f + ETH + IP4;
    const bool to_client = n > 0 && d[0] & 0x40;
    const size_t options = n > 4 ? (d[4] & 15u) * 4u : 0, fixed = n < 5 ? n : 5;
    const size_t rest = n - fixed;

    memset(t, 0, TCP);
    put16(t, to_client ? CLIENT_PORT : 1000 + (n > 3 ? d[3] & 3u : 0));
    put16(t + 2, to_client ? w->their_port : SERVER_PORT);
    put32(t + 4, w->their_ack + (n > 1 ? (uint32_t)(int8_t)d[1] : 0));
    put32(t + 8, w->their_seq + (n > 2 ? (uint32_t)(int8_t)d[2] : 0));
    t[12] = (uint8_t)((TCP + options) / 4 << 4);
    t[13] = n > 0 ? d[0] & 0x3f : 2;
    put16(t + 14, n > 3 ? d[3] * 257u : 1000);
    if (n > 4 && d[4] & 16)
        put16(t + 18, d[4]);
    memcpy(t + TCP, d + fixed, rest);
    return header4(f, IPPROTO_TCP, TCP + rest);
}

static size_t datagram(uint8_t *f, const uint8_t *d, size_t n)
{
    uint8_t *u = f + ETH + IP4;

    memset(u, 0, 8);
    put16(u, 53);
    put16(u + 2, SERVER_PORT);
    put16(u + 4, n > 0 && d[0] & 1 ? d[0] : (unsigned)(8 + n));
    memcpy(u + 8, d, n);
    return header4(f, IPPROTO_UDP, 8 + n);
}

/* An error about a segment of the stack's, or any other message. */
static size_t control(const struct world *w, uint8_t *f, const uint8_t *d, size_t n)
{
    uint8_t *i = f + ETH + IP4, inner[ETH + IP4 + 8];

    memset(i, 0, 8);
    memcpy(i, d, n < 8 ? n : 8);
    if (n == 0 || d[0] & 1) {
        (void)header4(inner, IPPROTO_TCP, 8);
        memcpy(inner + ETH + 12, our4, 4);
        memcpy(inner + ETH + 16, peer4, 4);
        put16(inner + ETH + IP4, w->their_port);
        put16(inner + ETH + IP4 + 2, CLIENT_PORT);
        put32(inner + ETH + IP4 + 4, w->their_seq);
        memcpy(i + 8, inner + ETH, IP4 + 8);
        return header4(f, IPPROTO_ICMP, 8 + IP4 + 8);
    }
    memcpy(i, d, n);
    return header4(f, IPPROTO_ICMP, n < 8 ? 8 : n);
}

/* ---- the guest ---- */

static void receive(struct world *w, struct sock *s)
{
    uint8_t buf[512];
    struct uio u;

    if (!s)
        return;
    uio_init_kernel(&u, buf, sizeof(buf));
    struct sock_msg m = {.u = &u};
    (void)!s->ops->recv(s, &m, true, &w->c);
}

static void give(struct world *w, struct sock *s, size_t size)
{
    uint8_t buf[512] = {0};
    struct uio u;

    if (!s)
        return;
    uio_init_kernel(&u, buf, size);
    struct sock_msg m = {.u = &u};
    (void)!s->ops->send(s, &m, true, &w->c);
}

static void use(struct world *w, uint8_t what)
{
    struct sock *s = what & 8 ? w->accepted : w->client;

    (void)drain(w);
    switch (what & 7) {
    case 0:
        if (!w->accepted)
            (void)!w->server->ops->accept(w->server, true, &w->c, &w->accepted);
        break;
    case 1:
        receive(w, s);
        break;
    case 2:
        give(w, s, what * 2u);
        break;
    case 3:
        if (s)
            (void)!s->ops->shutdown(s, SHUT_WR);
        break;
    case 4:
        receive(w, w->dgram);
        break;
    case 5:
        if (s)
            (void)s->ops->poll(s, NULL);
        break;
    default:
        if (w->accepted) {
            w->accepted->ops->close(w->accepted);
            sock_put(w->accepted);
            w->accepted = NULL;
        }
    }
}

static void record(struct world *w, uint8_t kind, const uint8_t *d, size_t n)
{
    uint8_t f[FRAME_MAX] = {0};
    size_t size;

    switch (kind & 7) {
    case 0:
        memcpy(f, d, n);
        size = n;
        break;
    case 1:
        ethernet(f, n > 0 && d[0] & 1 ? ETH_P_IPV6 : n > 0 && d[0] & 2 ? ETH_P_ARP : ETH_P_IP);
        memcpy(f + ETH, d, n);
        size = ETH + n;
        break;
    case 2:
        size = packet4(f, d, n);
        break;
    case 3:
        memcpy(f + ETH + IP6, d, n);
        size = header6(f, n > 0 ? d[0] : IPPROTO_ICMPV6, n);
        break;
    case 4:
        size = segment(w, f, d, n);
        break;
    case 5:
        size = datagram(f, d, n);
        break;
    case 6:
        size = control(w, f, d, n);
        break;
    default:
        use(w, n > 0 ? d[0] : 0);
        return;
    }
    /* Whoever computes no checksum is a neighbour on the same host. */
    transmit(w, f, size, kind & 8 ? 0 : VIRTIO_NET_HDR_F_DATA_VALID);
}

/* ---- the world ---- */

static void add_address(struct netns *ns, int32_t index, int family, const uint8_t *us,
                        const uint8_t *them, uint8_t bits)
{
    struct netns_ifaddr a;
    struct netns_neigh n;

    memset(&a, 0, sizeof(a));
    a.ifindex = index;
    a.local = a.peer = net_addr_from((unsigned)family, us, family == AF_INET ? 4 : 16);
    a.prefix_len = bits;
    a.flags = IFA_F_PERMANENT;
    a.valid_s = a.preferred_s = UINT32_MAX;
    memset(&n, 0, sizeof(n));
    n.ifindex = index;
    n.addr = net_addr_from((unsigned)family, them, family == AF_INET ? 4 : 16);
    memcpy(n.mac, peer_mac, 6);
    n.has_mac = true;
    n.state = NUD_PERMANENT;
    if (netns_addr_add(ns, &a, false) || netns_neigh_set(ns, &n, false))
        abort();
}

/* What the stack's thread begins with; here frames are looked at as they are sent. */
static void without_thread(struct ext_stack *st)
{
    st->buckets = calloc(EXT_BUCKETS, sizeof(*st->buckets));
    st->rx = malloc(EXT_FRAME_MAX);
    if (!st->buckets || !st->rx)
        abort();
    for (size_t i = 0; i < EXT_BUCKETS; i++) {
        mutex_init(&st->buckets[i].mu, LOCK_RANK_EXT_TABLE);
        list_init(&st->buckets[i].conns);
    }
    st->running = true;
}

static void make_link(struct world *w)
{
    struct ext_link_config cfg = {.mtu = 1500, .vnet_hdr = true};
    int pair[2], size = 1 << 20;
    int32_t index;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        abort();
    for (int i = 0; i < 2; i++)
        (void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    w->wire = pair[0];
    cfg.fd = pair[1];
    cfg.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    snprintf(cfg.name, sizeof(cfg.name), "eth0");
    memcpy(cfg.mac, our_mac, sizeof(our_mac));
    without_thread(net_ext(w->net));
    if (cfg.wake_fd < 0 || ext_add_link(w->net, &cfg, &index))
        abort();
    net_ext(w->net)->running = false;
    netns_config_lock(net_ns(w->net));
    if (netns_link_set_flags(net_ns(w->net), index, IFF_UP, IFF_UP))
        abort();
    add_address(net_ns(w->net), index, AF_INET, our4, peer4, 24);
    add_address(net_ns(w->net), index, AF_INET6, our6, peer6, 64);
    netns_config_unlock(net_ns(w->net));
}

static struct sock *make_socket(struct world *w, int type, uint16_t port)
{
    struct sock_addr a = {.len = sizeof(a.in)};
    struct sock *s;

    a.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    if (sock_create(w->net, AF_INET, type, 0, &w->c, &s))
        abort();
    if (port && s->ops->bind(s, &a, &w->c))
        abort();
    return s;
}

static void make_sockets(struct world *w)
{
    struct sock_addr to = {.len = sizeof(to.in)};

    w->server = make_socket(w, SOCK_STREAM, SERVER_PORT);
    w->dgram = make_socket(w, SOCK_DGRAM, SERVER_PORT);
    w->client = make_socket(w, SOCK_STREAM, 0);
    to.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(CLIENT_PORT)};
    memcpy(&to.in.sin_addr, peer4, 4);
    if (w->server->ops->listen(w->server, 4, &w->c) ||
        w->client->ops->connect(w->client, &to, true, &w->c) != -EINPROGRESS)
        abort();
}

/* Time passes till nothing waits for it: half-open connections give up, which lets their server go.
 */
static void run_timers(struct world *w)
{
    struct ext_stack *st = net_ext(w->net);

    for (int i = 0; i < TIMERS_MAX; i++) {
        struct ext_timer *t = rb_entry_safe(rb_first(&st->timers), struct ext_timer, node);
        if (!t)
            return;
        const uint64_t now = t->at;
        (void)ext_timer_set(st, t, UINT64_MAX);
        t->fn(t, now);
        (void)drain(w);
    }
    fprintf(stderr, "timers do not come to an end\n");
    abort();
}

static void end(struct world *w)
{
    struct sock *all[] = {w->server, w->client, w->dgram, w->accepted};

    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        if (!all[i])
            continue;
        all[i]->ops->close(all[i]);
        sock_put(all[i]);
    }
    run_timers(w);
    net_free(w->net);
    (void)close(w->wire);
    cred_put(w->c.cred);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w;

    memset(&w, 0, sizeof(w));
    if (net_new(NULL, &w.net) || cred_new_root(UINT64_MAX, &w.c.cred))
        abort();
    w.c.pid = w.c.tgid = 7;
    make_link(&w);
    make_sockets(&w);
    must_answer(&w);
    for (int i = 0; i < RECORDS_MAX && size > 2; i++) {
        size_t n = data[1] * (data[0] & 32 ? 8u : 1u);
        n = n < size - 2 ? n : size - 2;
        record(&w, data[0], data + 2, n);
        data += n + 2;
        size -= n + 2;
    }
    must_answer(&w);
    end(&w);
    return 0;
}
