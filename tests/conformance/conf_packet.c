/* Packet sockets on the loopback link: names, what passes, rings, options (packet(7)). */
#include "harness.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

CONF_FAMILY("packet");

/* The loopback link is always the first. */
#define LO 1
/* What nobody else sends here: an experimental protocol (IEEE 802). */
#define TYPE 0x88b5

static struct sockaddr_ll on(int ifindex, uint16_t protocol)
{
    return (struct sockaddr_ll){
        .sll_family = AF_PACKET, .sll_ifindex = ifindex, .sll_protocol = htons(protocol)};
}

static int packet(int type, uint16_t protocol)
{
    struct sockaddr_ll a = on(LO, protocol);
    int fd = OK(socket(AF_PACKET, type, 0));

    OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
    return fd;
}

/* Sends a frame of the protocol with the text. */
static void send_text(uint16_t protocol, const char *text)
{
    struct sockaddr_ll a = on(LO, protocol);
    int fd = OK(socket(AF_PACKET, SOCK_DGRAM, 0));

    a.sll_halen = ETH_ALEN;
    CHECK_EQ(sendto(fd, text, strlen(text), 0, (struct sockaddr *)&a, sizeof(a)),
             (ssize_t)strlen(text));
    OK(close(fd));
}

static void drain(int fd)
{
    char buf[64];

    while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) >= 0)
        ;
}

TEST(needs_the_capability)
{
    NEED_ROOT();
    const pid_t pid = conf_fork();
    if (pid == 0) {
        OK(setresuid(1000, 1000, 1000));
        CHECK_ERRNO(socket(AF_PACKET, SOCK_RAW, 0), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(kinds)
{
    NEED_ROOT();
    CHECK_ERRNO(socket(AF_PACKET, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
    CHECK_ERRNO(socket(AF_PACKET, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
    int fd = OK(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL))), value = 0;
    socklen_t len = sizeof(value);
    OK(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &len));
    CHECK_EQ(value, AF_PACKET);
    OK(getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &value, &len));
    CHECK_EQ(value, 0);
}

TEST(names)
{
    struct sockaddr_ll a;
    socklen_t len = sizeof(a);

    NEED_ROOT();
    int fd = OK(socket(AF_PACKET, SOCK_RAW, 0));
    OK(getsockname(fd, (struct sockaddr *)&a, &len));
    CHECK_EQ(len, 12);
    CHECK_EQ(a.sll_ifindex, 0);
    a = on(LO, TYPE);
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, sizeof(a) - 1), EINVAL);
    a.sll_family = AF_INET;
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, sizeof(a)), EINVAL);
    a = on(4711, TYPE);
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, sizeof(a)), ENODEV);
    a = on(LO, TYPE);
    OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
    memset(&a, 0xff, sizeof(a));
    len = sizeof(a);
    OK(getsockname(fd, (struct sockaddr *)&a, &len));
    CHECK_EQ(len, 18);
    CHECK_EQ(a.sll_ifindex, LO);
    CHECK_EQ(a.sll_protocol, htons(TYPE));
    CHECK_EQ(a.sll_hatype, ARPHRD_LOOPBACK);
    CHECK_EQ(a.sll_halen, ETH_ALEN);
    CHECK_ERRNO(getpeername(fd, (struct sockaddr *)&a, &len), EOPNOTSUPP);
    CHECK_ERRNO(connect(fd, (struct sockaddr *)&a, sizeof(a)), EOPNOTSUPP);
    CHECK_ERRNO(listen(fd, 1), EOPNOTSUPP);
    CHECK_ERRNO(accept(fd, NULL, NULL), EOPNOTSUPP);
    CHECK_ERRNO(shutdown(fd, SHUT_RD), EOPNOTSUPP);
}

TEST(cooked_frames)
{
    struct sockaddr_ll from;
    socklen_t len = sizeof(from);
    char buf[64];

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    send_text(TYPE, "hello");
    CHECK_EQ(recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len), 5);
    CHECK_EQ(memcmp(buf, "hello", 5), 0);
    CHECK_EQ(len, sizeof(from));
    CHECK_EQ(from.sll_family, AF_PACKET);
    CHECK_EQ(from.sll_protocol, htons(TYPE));
    CHECK_EQ(from.sll_ifindex, LO);
    CHECK_EQ(from.sll_pkttype, PACKET_HOST);
    CHECK_EQ(from.sll_halen, ETH_ALEN);
    /* What leaves is seen by those who look at all protocols only. */
    CHECK_ERRNO(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), EAGAIN);
}

TEST(raw_frames)
{
    unsigned char frame[20] = {0}, buf[64];

    NEED_ROOT();
    int in = packet(SOCK_RAW, TYPE), out = packet(SOCK_RAW, 0);
    frame[12] = TYPE >> 8;
    frame[13] = TYPE & 0xff;
    memcpy(frame + 14, "frame!", 6);
    CHECK_EQ(send(out, frame, sizeof(frame), 0), (ssize_t)sizeof(frame));
    CHECK_EQ(recv(in, buf, sizeof(buf), 0), (ssize_t)sizeof(frame));
    CHECK_EQ(memcmp(buf, frame, sizeof(frame)), 0);
    CHECK_ERRNO(send(out, frame, 13, 0), EINVAL);
}

TEST(send_errors)
{
    struct sockaddr_ll a = on(0, TYPE);
    static char big[70000];

    NEED_ROOT();
    int fd = OK(socket(AF_PACKET, SOCK_DGRAM, 0));
    CHECK_ERRNO(send(fd, "x", 1, 0), ENXIO);
    CHECK_ERRNO(sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof(a)), ENXIO);
    CHECK_ERRNO(sendto(fd, "x", 1, 0, (struct sockaddr *)&a, 8), EINVAL);
    a = on(LO, TYPE);
    CHECK_ERRNO(sendto(fd, big, sizeof(big), 0, (struct sockaddr *)&a, sizeof(a)), EMSGSIZE);
}

TEST(both_ways)
{
    struct sockaddr_ll from;
    socklen_t len = sizeof(from);
    int kinds = 0;
    char buf[64];

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, ETH_P_ALL), one = 1;
    drain(fd);
    send_text(TYPE, "x");
    for (int i = 0; i < 2; i++) {
        do
            OK(recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len));
        while (from.sll_protocol != htons(TYPE));
        kinds |= 1 << from.sll_pkttype;
    }
    CHECK_EQ(kinds, 1 << PACKET_OUTGOING | 1 << PACKET_HOST);
    OK(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)));
    drain(fd);
    send_text(TYPE, "y");
    do
        OK(recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len));
    while (from.sll_protocol != htons(TYPE));
    CHECK_EQ(from.sll_pkttype, PACKET_HOST);
}

/* A datagram of UDP over the loopback link, headers and all. */
TEST(udp_passes)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    socklen_t len = sizeof(to);
    unsigned char buf[128];
    struct udphdr udp;
    struct iphdr ip;

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, ETH_P_IP);
    int in = OK(socket(AF_INET, SOCK_DGRAM, 0)), out = OK(socket(AF_INET, SOCK_DGRAM, 0));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    OK(bind(in, (struct sockaddr *)&to, len));
    OK(getsockname(in, (struct sockaddr *)&to, &len));
    drain(fd);
    CHECK_EQ(sendto(out, "payload", 7, 0, (struct sockaddr *)&to, len), 7);
    do {
        CHECK_EQ(recv(fd, buf, sizeof(buf), 0) >= 28, 1);
        memcpy(&ip, buf, sizeof(ip));
        memcpy(&udp, buf + 20, sizeof(udp));
    } while (ip.protocol != IPPROTO_UDP || udp.dest != to.sin_port);
    CHECK_EQ(ip.version, 4);
    CHECK_EQ(ip.ihl, 5);
    CHECK_EQ(ntohs(ip.tot_len), 35);
    CHECK_EQ(ip.daddr, to.sin_addr.s_addr);
    CHECK_EQ(ip.saddr, to.sin_addr.s_addr);
    CHECK_EQ(ntohs(udp.len), 15);
    CHECK_EQ(memcmp(buf + 28, "payload", 7), 0);
}

TEST(peek_and_truncate)
{
    char buf[64];

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    send_text(TYPE, "0123456789");
    CHECK_EQ(recv(fd, buf, 4, MSG_PEEK), 4);
    CHECK_EQ(recv(fd, buf, 4, MSG_PEEK | MSG_TRUNC), 10);
    CHECK_EQ(recv(fd, buf, 4, 0), 4);
    CHECK_ERRNO(recv(fd, buf, 4, MSG_DONTWAIT), EAGAIN);
    CHECK_ERRNO(recv(fd, buf, 4, MSG_DONTWAIT | MSG_OOB), EINVAL);
}

TEST(filtered)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'a', 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 2),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog p = {.len = ARRAY_SIZE(f), .filter = f};
    char buf[64];

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    OK(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof(p)));
    send_text(TYPE, "bcd");
    send_text(TYPE, "abc");
    CHECK_EQ(recv(fd, buf, sizeof(buf), 0), 2);
    CHECK_EQ(memcmp(buf, "ab", 2), 0);
    CHECK_ERRNO(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), EAGAIN);
}

TEST(auxiliary_data)
{
    char buf[64], control[128];
    struct iovec iov = {buf, 3};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};
    struct tpacket_auxdata aux;
    int one = 1;

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    OK(setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof(one)));
    send_text(TYPE, "abcdef");
    m.msg_controllen = sizeof(control);
    CHECK_EQ(recvmsg(fd, &m, 0), 3);
    CHECK_EQ(m.msg_flags & MSG_TRUNC, MSG_TRUNC);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    CHECK(c);
    CHECK_EQ(c->cmsg_level, SOL_PACKET);
    CHECK_EQ(c->cmsg_type, PACKET_AUXDATA);
    memcpy(&aux, CMSG_DATA(c), sizeof(aux));
    CHECK_EQ(aux.tp_status & TP_STATUS_USER, TP_STATUS_USER);
    CHECK_EQ(aux.tp_len, 6);
    CHECK_EQ(aux.tp_snaplen, 6);
}

TEST(statistics)
{
    struct tpacket_stats st;
    socklen_t len = sizeof(st);

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    for (int i = 0; i < 3; i++)
        send_text(TYPE, "x");
    OK(getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &st, &len));
    CHECK_EQ(st.tp_packets, 3);
    CHECK_EQ(st.tp_drops, 0);
    OK(getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &st, &len));
    CHECK_EQ(st.tp_packets, 0);
}

TEST(drops_when_full)
{
    struct tpacket_stats st;
    socklen_t len = sizeof(st);
    int small = 1;

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    OK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
    for (int i = 0; i < 50; i++)
        send_text(TYPE, "x");
    OK(getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &st, &len));
    CHECK_EQ(st.tp_packets, 50);
    CHECK(st.tp_drops > 0 && st.tp_drops < 50);
}

TEST(memberships)
{
    struct packet_mreq q = {.mr_ifindex = LO, .mr_type = PACKET_MR_PROMISC};

    NEED_ROOT();
    int fd = packet(SOCK_RAW, TYPE);
    OK(setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &q, sizeof(q)));
    OK(setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &q, sizeof(q)));
    OK(setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &q, sizeof(q)));
    OK(setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &q, sizeof(q)));
    OK(setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &q, sizeof(q)));
    OK(setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &q, sizeof(q)));
    q.mr_ifindex = 4711;
    CHECK_ERRNO(setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &q, sizeof(q)), ENODEV);
    CHECK_ERRNO(setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &q, 8), EINVAL);
}

TEST(head_lengths)
{
    int value = TPACKET_V1;
    socklen_t len = sizeof(value);

    NEED_ROOT();
    int fd = packet(SOCK_RAW, TYPE);
    OK(getsockopt(fd, SOL_PACKET, PACKET_HDRLEN, &value, &len));
    CHECK_EQ(value, (int)sizeof(struct tpacket_hdr));
    value = TPACKET_V2;
    OK(getsockopt(fd, SOL_PACKET, PACKET_HDRLEN, &value, &len));
    CHECK_EQ(value, (int)sizeof(struct tpacket2_hdr));
    value = 77;
    CHECK_ERRNO(getsockopt(fd, SOL_PACKET, PACKET_HDRLEN, &value, &len), EINVAL);
}

/* ---- rings ---- */

#define BLOCK 4096u
#define FRAME 512u
#define BLOCKS 2u
#define FRAMES (BLOCK / FRAME * BLOCKS)

static char *ring(int fd, int version)
{
    struct tpacket_req q = {.tp_block_size = BLOCK,
                            .tp_block_nr = BLOCKS,
                            .tp_frame_size = FRAME,
                            .tp_frame_nr = FRAMES};

    OK(setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)));
    OK(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, sizeof(q)));
    char *p = mmap(NULL, (size_t)BLOCK * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

TEST(ring_v2)
{
    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    char *p = ring(fd, TPACKET_V2);
    struct pollfd pfd = {.fd = fd, .events = POLLIN};

    CHECK_EQ(poll(&pfd, 1, 0), 0);
    for (unsigned i = 0; i < FRAMES + 3; i++) {
        volatile struct tpacket2_hdr *h = (void *)(p + i % FRAMES * FRAME);
        struct sockaddr_ll from;
        send_text(TYPE, i & 1 ? "odd" : "even");
        CHECK_EQ(poll(&pfd, 1, CONF_PATIENCE_S * 1000), 1);
        CHECK_EQ(h->tp_status & TP_STATUS_USER, TP_STATUS_USER);
        CHECK_EQ(h->tp_len, i & 1 ? 3u : 4u);
        CHECK_EQ(h->tp_snaplen, h->tp_len);
        CHECK_EQ(h->tp_mac, h->tp_net);
        CHECK_EQ(h->tp_mac, 80);
        CHECK_EQ(memcmp(p + i % FRAMES * FRAME + h->tp_mac, i & 1 ? "odd" : "even", 3), 0);
        memcpy(&from, p + i % FRAMES * FRAME + sizeof(*h), sizeof(from));
        CHECK_EQ(from.sll_protocol, htons(TYPE));
        h->tp_status = TP_STATUS_KERNEL;
    }
}

TEST(ring_v1_raw)
{
    NEED_ROOT();
    int fd = packet(SOCK_RAW, TYPE);
    char *p = ring(fd, TPACKET_V1);
    volatile struct tpacket_hdr *h = (void *)p;

    send_text(TYPE, "hello");
    CHECK_EQ(h->tp_status & TP_STATUS_USER, TP_STATUS_USER);
    CHECK_EQ(h->tp_len, 19);
    CHECK_EQ(h->tp_net - h->tp_mac, 14);
    CHECK_EQ(memcmp(p + h->tp_net, "hello", 5), 0);
    CHECK_EQ(p[h->tp_mac + 12], (char)(TYPE >> 8));
}

TEST(ring_full)
{
    struct tpacket_stats st;
    socklen_t len = sizeof(st);

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    char *p = ring(fd, TPACKET_V2);
    for (unsigned i = 0; i < FRAMES + 5; i++)
        send_text(TYPE, "x");
    OK(getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &st, &len));
    CHECK_EQ(st.tp_packets, FRAMES + 5);
    CHECK_EQ(st.tp_drops, 5);
    /* A word from the guest about a frame is all that is believed. */
    memset(p, 0xff, (size_t)BLOCK * BLOCKS);
    send_text(TYPE, "y");
    memset(p, 0, (size_t)BLOCK * BLOCKS);
    send_text(TYPE, "z");
    CHECK_EQ(((volatile struct tpacket2_hdr *)(void *)p)->tp_len, 1);
}

TEST(ring_cuts_long_frames)
{
    static char text[1000];

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    char *p = ring(fd, TPACKET_V2);
    volatile struct tpacket2_hdr *h = (void *)p;
    memset(text, 'a', sizeof(text) - 1);
    send_text(TYPE, text);
    CHECK_EQ(h->tp_len, 999);
    CHECK_EQ(h->tp_snaplen, FRAME - h->tp_mac);
}

TEST(ring_requests)
{
    struct tpacket_req good = {.tp_block_size = BLOCK,
                               .tp_block_nr = BLOCKS,
                               .tp_frame_size = FRAME,
                               .tp_frame_nr = FRAMES},
                       q = good, none = {.tp_block_nr = 0};
    int version = TPACKET_V2;

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    CHECK_EQ(mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, fd, 0), MAP_FAILED);
    q.tp_block_size = 100;
    CHECK_ERRNO(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, sizeof(q)), EINVAL);
    q = good;
    q.tp_frame_size = 24;
    CHECK_ERRNO(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, sizeof(q)), EINVAL);
    q.tp_frame_size = FRAME + 1;
    CHECK_ERRNO(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, sizeof(q)), EINVAL);
    q = good;
    q.tp_frame_nr++;
    CHECK_ERRNO(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, sizeof(q)), EINVAL);
    CHECK_ERRNO(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, 4), EINVAL);
    q = none;
    q.tp_frame_nr = 1;
    CHECK_ERRNO(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, sizeof(q)), EINVAL);
    char *p = ring(fd, TPACKET_V2);
    CHECK_ERRNO(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &good, sizeof(good)), EBUSY);
    CHECK_ERRNO(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &none, sizeof(none)), EBUSY);
    CHECK_ERRNO(setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)), EBUSY);
    OK(munmap(p, (size_t)BLOCK * BLOCKS));
    OK(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &none, sizeof(none)));
    OK(setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)));
}

/* The ring lives as long as it is mapped. */
TEST(ring_outlives_its_socket)
{
    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    char *p = ring(fd, TPACKET_V2);

    send_text(TYPE, "hello");
    OK(close(fd));
    volatile struct tpacket2_hdr *h = (void *)p;
    CHECK_EQ(h->tp_len, 5);
    CHECK_EQ(memcmp(p + h->tp_mac, "hello", 5), 0);
}

TEST(listed)
{
    char line[256];
    int found = 0;

    NEED_ROOT();
    int fd = packet(SOCK_DGRAM, TYPE);
    FILE *f = fopen("/proc/net/packet", "r");
    CHECK(f);
    while (fgets(line, sizeof(line), f))
        found += strstr(line, " 88b5 ") != NULL;
    CHECK_EQ(found, 1);
    OK(fclose(f));
    OK(close(fd));
}

/* ---- connections over loopback ---- */

struct seen {
    uint16_t port;
    bool syn, syn_ack, data, fin, rst;
    uint32_t first, data_at;
};

/* Looks at frames till done says so. */
static void look_at_segments(int fd, struct seen *s, bool (*done)(const struct seen *))
{
    uint8_t f[2048];

    while (!done(s)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 10000) <= 0)
            return;
        const ssize_t n = recv(fd, f, sizeof(f), 0);
        struct iphdr ip;
        struct tcphdr t;
        if (n < (ssize_t)(14 + sizeof(ip) + sizeof(t)))
            continue;
        memcpy(&ip, f + 14, sizeof(ip));
        if (ip.version != 4 || ip.protocol != IPPROTO_TCP)
            continue;
        const size_t at = 14 + ip.ihl * 4u;
        memcpy(&t, f + at, sizeof(t));
        const size_t end = 14u + ntohs(ip.tot_len), text = at + t.th_off * 4u;
        const bool to = ntohs(t.th_dport) == s->port;
        if (!to && ntohs(t.th_sport) != s->port)
            continue;
        if (to && t.th_flags == TH_SYN) {
            s->syn = true;
            s->first = ntohl(t.th_seq);
        }
        s->syn_ack |= !to && t.th_flags == (TH_SYN | TH_ACK) && ntohl(t.th_ack) == s->first + 1;
        s->rst |= !to && t.th_flags & TH_RST;
        if (to && end - text == 5 && memcmp(f + text, "hello", 5) == 0) {
            s->data = true;
            s->data_at = ntohl(t.th_seq);
        }
        s->fin |= to && t.th_flags & TH_FIN && ntohl(t.th_seq) == s->first + 6;
    }
}

static bool saw_all(const struct seen *s)
{
    return s->syn && s->syn_ack && s->data && s->fin;
}

static bool saw_refusal(const struct seen *s)
{
    return s->syn && s->rst;
}

TEST(tcp_over_loopback)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);

    NEED_ROOT();
    int fd = packet(SOCK_RAW, ETH_P_ALL), l = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(bind(l, (struct sockaddr *)&a, sizeof(a)));
    OK(getsockname(l, (struct sockaddr *)&a, &len));
    OK(listen(l, 1));
    int c = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
    int s = OK(accept(l, NULL, NULL));
    CHECK_EQ(send(c, "hello", 5, 0), 5);
    OK(close(c));
    struct seen seen = {.port = ntohs(a.sin_port)};
    look_at_segments(fd, &seen, saw_all);
    CHECK(saw_all(&seen));
    CHECK_EQ(seen.data_at, seen.first + 1);
    OK(close(s));
    OK(close(l));
    c = OK(socket(AF_INET, SOCK_STREAM, 0));
    CHECK_ERRNO(connect(c, (struct sockaddr *)&a, sizeof(a)), ECONNREFUSED);
    seen = (struct seen){.port = ntohs(a.sin_port)};
    look_at_segments(fd, &seen, saw_refusal);
    CHECK(saw_refusal(&seen));
}

/* ---- frames that are shared out ---- */

static int fanout(int fd, unsigned id, unsigned type)
{
    const int value = (int)(id | type << 16);

    return setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &value, sizeof(value));
}

static int count_frames(int fd)
{
    char buf[64];
    int n = 0;

    while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) >= 0)
        n++;
    return n;
}

TEST(fanout)
{
    NEED_ROOT();
    const unsigned id = (unsigned)getpid() & 0xffff;
    int a = packet(SOCK_DGRAM, TYPE), b = packet(SOCK_DGRAM, TYPE), value = -1;
    int other = packet(SOCK_DGRAM, TYPE + 1), all = packet(SOCK_DGRAM, TYPE);
    socklen_t len = sizeof(value);

    OK(getsockopt(a, SOL_PACKET, PACKET_FANOUT, &value, &len));
    CHECK_EQ(value, 0);
    CHECK_ERRNO(fanout(a, id, 99), EINVAL);
    OK(fanout(a, id, PACKET_FANOUT_LB));
    OK(getsockopt(a, SOL_PACKET, PACKET_FANOUT, &value, &len));
    CHECK_EQ(value, id | PACKET_FANOUT_LB << 16);
    CHECK_ERRNO(fanout(a, id, PACKET_FANOUT_LB), EALREADY);
    CHECK_ERRNO(fanout(b, id, PACKET_FANOUT_HASH), EINVAL);
    CHECK_ERRNO(fanout(other, id, PACKET_FANOUT_LB), EINVAL);
    OK(fanout(b, id, PACKET_FANOUT_LB));
    struct sockaddr_ll to = on(LO, TYPE + 1);
    CHECK_ERRNO(bind(a, (struct sockaddr *)&to, sizeof(to)), EINVAL);
    drain(a);
    drain(b);
    drain(all);
    for (int i = 0; i < 10; i++)
        send_text(TYPE, "frame");
    CHECK_EQ(count_frames(a), 5);
    CHECK_EQ(count_frames(b), 5);
    CHECK_EQ(count_frames(all), 10);
    /* The others take over. */
    OK(close(a));
    for (int i = 0; i < 10; i++)
        send_text(TYPE, "frame");
    CHECK_EQ(count_frames(b), 10);
}

TEST(fanout_by_flow_and_cpu)
{
    NEED_ROOT();
    static const unsigned types[] = {PACKET_FANOUT_HASH, PACKET_FANOUT_CPU, PACKET_FANOUT_RND};

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        const unsigned id = ((unsigned)getpid() + (unsigned)i) & 0xffff;
        int a = packet(SOCK_DGRAM, TYPE), b = packet(SOCK_DGRAM, TYPE);
        OK(fanout(a, id, types[i]));
        OK(fanout(b, id, types[i]));
        drain(a);
        drain(b);
        for (int n = 0; n < 20; n++)
            send_text(TYPE, "frame");
        const int in_a = count_frames(a), in_b = count_frames(b);
        CHECK_EQ(in_a + in_b, 20);
        if (types[i] == PACKET_FANOUT_HASH)
            CHECK(in_a == 0 || in_b == 0);
        OK(close(a));
        OK(close(b));
    }
}
