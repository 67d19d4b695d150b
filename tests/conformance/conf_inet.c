/* AF_INET and AF_INET6 together: dual stack, options, ICMP echo and raw sockets. */
#include "harness.h"

#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <linux/icmp.h>
#include <linux/sockios.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

CONF_FAMILY("inet");

#ifndef TCP_CM_INQ
#define TCP_CM_INQ TCP_INQ
#endif

/* ---- helpers ---- */

static struct sockaddr_in in4(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static struct sockaddr_in6 in6(const char *text, uint16_t port)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

    CHECK_EQ(inet_pton(AF_INET6, text, &a.sin6_addr), 1);
    return a;
}

static int bind4(int fd, uint16_t port)
{
    struct sockaddr_in a = in4(port);

    return bind(fd, (struct sockaddr *)&a, sizeof(a));
}

static int bind6(int fd, const char *text, uint16_t port)
{
    struct sockaddr_in6 a = in6(text, port);

    return bind(fd, (struct sockaddr *)&a, sizeof(a));
}

static int connect6(int fd, const char *text, uint16_t port)
{
    struct sockaddr_in6 a = in6(text, port);

    return connect(fd, (struct sockaddr *)&a, sizeof(a));
}

static int connect4(int fd, uint16_t port)
{
    struct sockaddr_in a = in4(port);

    return connect(fd, (struct sockaddr *)&a, sizeof(a));
}

static int sock(int family, int type)
{
    return OK(socket(family, type, 0));
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);

    OK(getsockname(fd, (struct sockaddr *)&a, &len));
    return ntohs(((struct sockaddr_in *)&a)->sin_port);
}

static const char *name6(int fd, bool peer)
{
    static char text[64];
    struct sockaddr_in6 a;
    socklen_t len = sizeof(a);

    OK((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&a, &len));
    CHECK_EQ(len, sizeof(a));
    CHECK_EQ(a.sin6_family, AF_INET6);
    CHECK(inet_ntop(AF_INET6, &a.sin6_addr, text, sizeof(text)));
    return text;
}

static void set_int(int fd, int level, int name, int v)
{
    OK(setsockopt(fd, level, name, &v, sizeof(v)));
}

static int try_int(int fd, int level, int name, int v)
{
    return setsockopt(fd, level, name, &v, sizeof(v));
}

static int get_int(int fd, int level, int name)
{
    int v = -12345;
    socklen_t len = sizeof(v);

    OK(getsockopt(fd, level, name, &v, &len));
    return v;
}

static void need_v6(void)
{
    int fd = socket(AF_INET6, SOCK_STREAM, 0);

    if (fd < 0 || bind6(fd, "::1", 0) < 0)
        conf_skip("no IPv6 here");
    OK(close(fd));
}

/* ---- dual stack ---- */

TEST(v6_stream)
{
    need_v6();
    int l = sock(AF_INET6, SOCK_STREAM), c = sock(AF_INET6, SOCK_STREAM);
    char b[4];

    OK(bind6(l, "::1", 0));
    OK(listen(l, 1));
    OK(connect6(c, "::1", port_of(l)));
    int s = OK(accept(l, NULL, NULL));
    CHECK_STR(name6(s, true), "::1");
    CHECK_EQ(OK(send(c, "six", 3, 0)), 3);
    CHECK_EQ(OK(recv(s, b, 4, 0)), 3);
}

TEST(v4_client_of_v6_server)
{
    need_v6();
    int l = sock(AF_INET6, SOCK_STREAM), c = sock(AF_INET, SOCK_STREAM);

    OK(listen(l, 1));
    OK(connect4(c, port_of(l)));
    int s = OK(accept(l, NULL, NULL));
    CHECK_STR(name6(s, true), "::ffff:127.0.0.1");
    CHECK_STR(name6(s, false), "::ffff:127.0.0.1");
    CHECK_STR(name6(l, false), "::");
}

TEST(v6_client_of_v4_server)
{
    need_v6();
    int l = sock(AF_INET, SOCK_STREAM), c = sock(AF_INET6, SOCK_STREAM);

    OK(bind4(l, 0));
    OK(listen(l, 1));
    OK(connect6(c, "::ffff:127.0.0.1", port_of(l)));
    OK(accept(l, NULL, NULL));
    CHECK_STR(name6(c, true), "::ffff:127.0.0.1");
    CHECK_STR(name6(c, false), "::ffff:127.0.0.1");
}

TEST(v6only)
{
    need_v6();
    int l = sock(AF_INET6, SOCK_STREAM), c = sock(AF_INET, SOCK_STREAM);
    int d = sock(AF_INET6, SOCK_STREAM), v4 = sock(AF_INET, SOCK_STREAM);

    CHECK_EQ(get_int(l, SOL_IPV6, IPV6_V6ONLY), 0);
    set_int(l, SOL_IPV6, IPV6_V6ONLY, 1);
    CHECK_ERRNO(bind6(l, "::ffff:127.0.0.1", 0), EINVAL);
    OK(bind6(l, "::", 0));
    CHECK_ERRNO(try_int(l, SOL_IPV6, IPV6_V6ONLY, 0), EINVAL);
    OK(listen(l, 1));
    CHECK_ERRNO(connect4(c, port_of(l)), ECONNREFUSED);
    OK(bind4(v4, port_of(l)));
    set_int(d, SOL_IPV6, IPV6_V6ONLY, 1);
    CHECK_ERRNO(connect6(d, "::ffff:127.0.0.1", port_of(l)), ENETUNREACH);
}

TEST(dual_bind_conflicts)
{
    need_v6();
    int a = sock(AF_INET6, SOCK_STREAM), b = sock(AF_INET, SOCK_STREAM);
    int c = sock(AF_INET6, SOCK_STREAM);

    OK(bind6(a, "::", 0));
    CHECK_ERRNO(bind4(b, port_of(a)), EADDRINUSE);
    CHECK_ERRNO(bind6(c, "::1", port_of(a)), EADDRINUSE);
    CHECK_ERRNO(bind6(c, "2001:db8::1", 0), EADDRNOTAVAIL);
    struct sockaddr_in x = in4(0);
    CHECK_ERRNO(bind(c, (struct sockaddr *)&x, sizeof(x)), EINVAL);
}

TEST(v6_datagram)
{
    need_v6();
    int a = sock(AF_INET6, SOCK_DGRAM), b = sock(AF_INET, SOCK_DGRAM);
    int c = sock(AF_INET6, SOCK_DGRAM);
    char buf[8];
    struct sockaddr_in6 from;
    socklen_t len = sizeof(from);

    OK(bind6(a, "::", 0));
    struct sockaddr_in to = in4(port_of(a));
    CHECK_EQ(OK(sendto(b, "four", 4, 0, (struct sockaddr *)&to, sizeof(to))), 4);
    CHECK_EQ(OK(recvfrom(a, buf, 8, 0, (struct sockaddr *)&from, &len)), 4);
    CHECK(IN6_IS_ADDR_V4MAPPED(&from.sin6_addr));
    CHECK_EQ(OK(sendto(a, "back", 4, 0, (struct sockaddr *)&from, len)), 4);
    CHECK_EQ(OK(recv(b, buf, 8, 0)), 4);
    struct sockaddr_in6 to6 = in6("::1", port_of(a));
    CHECK_EQ(OK(sendto(c, "six", 3, 0, (struct sockaddr *)&to6, sizeof(to6))), 3);
    CHECK_EQ(OK(recvfrom(a, buf, 8, 0, (struct sockaddr *)&from, &len)), 3);
    CHECK(IN6_IS_ADDR_LOOPBACK(&from.sin6_addr));
    static char big[66000];
    CHECK_ERRNO(sendto(c, big, 65528, 0, (struct sockaddr *)&to6, sizeof(to6)), EMSGSIZE);
    CHECK_ERRNO(sendto(c, "x", 1, 0, (struct sockaddr *)&to6, 20), EINVAL);
}

TEST(v6_pktinfo)
{
    need_v6();
    int a = sock(AF_INET6, SOCK_DGRAM), c = sock(AF_INET6, SOCK_DGRAM);
    char buf[8];
    struct iovec v = {buf, 8};
    union {
        char buf[256];
        struct cmsghdr align;
    } u;
    struct msghdr h = {
        .msg_iov = &v, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof(u)};
    int seen = 0;

    OK(bind6(a, "::1", 0));
    set_int(a, SOL_IPV6, IPV6_RECVPKTINFO, 1);
    set_int(a, SOL_IPV6, IPV6_RECVHOPLIMIT, 1);
    set_int(a, SOL_IPV6, IPV6_RECVTCLASS, 1);
    set_int(c, SOL_IPV6, IPV6_UNICAST_HOPS, 9);
    set_int(c, SOL_IPV6, IPV6_TCLASS, 0x20);
    OK(connect6(c, "::1", port_of(a)));
    OK(send(c, "x", 1, 0));
    OK(recvmsg(a, &h, 0));
    for (struct cmsghdr *m = CMSG_FIRSTHDR(&h); m; m = CMSG_NXTHDR(&h, m)) {
        CHECK_EQ(m->cmsg_level, SOL_IPV6);
        if (m->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo *pi = (void *)CMSG_DATA(m);
            CHECK(IN6_IS_ADDR_LOOPBACK(&pi->ipi6_addr));
            CHECK_EQ(pi->ipi6_ifindex, 1);
            seen |= 1;
        } else if (m->cmsg_type == IPV6_HOPLIMIT) {
            CHECK_EQ(*(int *)(void *)CMSG_DATA(m), 9);
            seen |= 2;
        } else if (m->cmsg_type == IPV6_TCLASS) {
            CHECK_EQ(*(int *)(void *)CMSG_DATA(m), 0x20);
            seen |= 4;
        }
    }
    CHECK_EQ(seen, 7);
}

/* ---- options ---- */

TEST(socket_options)
{
    int t = sock(AF_INET, SOCK_STREAM), u = sock(AF_INET, SOCK_DGRAM);
    static const int flags[] = {SO_REUSEADDR, SO_KEEPALIVE, SO_BROADCAST,
                                SO_OOBINLINE, SO_DONTROUTE, SO_REUSEPORT,
                                SO_TIMESTAMP, SO_RXQ_OVFL,  SO_SELECT_ERR_QUEUE};

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        CHECK_EQ(get_int(u, SOL_SOCKET, flags[i]), 0);
        set_int(u, SOL_SOCKET, flags[i], 1);
        CHECK_EQ(get_int(u, SOL_SOCKET, flags[i]), 1);
        set_int(u, SOL_SOCKET, flags[i], 0);
        CHECK_EQ(get_int(u, SOL_SOCKET, flags[i]), 0);
    }
    set_int(t, SOL_SOCKET, SO_SNDBUF, 20000);
    CHECK_EQ(get_int(t, SOL_SOCKET, SO_SNDBUF), 40000);
    set_int(t, SOL_SOCKET, SO_RCVBUF, 1);
    CHECK_EQ(get_int(t, SOL_SOCKET, SO_RCVBUF), 2304);
    set_int(t, SOL_SOCKET, SO_RCVLOWAT, 7);
    CHECK_EQ(get_int(t, SOL_SOCKET, SO_RCVLOWAT), 7);
    set_int(t, SOL_SOCKET, SO_PRIORITY, 5);
    CHECK_EQ(get_int(t, SOL_SOCKET, SO_PRIORITY), 5);
    set_int(t, SOL_SOCKET, SO_ZEROCOPY, 1);
    CHECK_EQ(get_int(t, SOL_SOCKET, SO_ZEROCOPY), 1);
    CHECK_ERRNO(try_int(t, SOL_SOCKET, SO_ZEROCOPY, 2), EINVAL);
    CHECK_EQ(get_int(t, SOL_SOCKET, SO_INCOMING_CPU) >= -1, 1);
    CHECK_EQ(get_int(t, SOL_SOCKET, SO_BUSY_POLL), 0);
    uint64_t cookie = 0, other = 0;
    socklen_t len = sizeof(cookie);
    OK(getsockopt(t, SOL_SOCKET, SO_COOKIE, &cookie, &len));
    OK(getsockopt(u, SOL_SOCKET, SO_COOKIE, &other, &len));
    CHECK(cookie != other && cookie && other);
    CHECK_ERRNO(try_int(t, SOL_SOCKET, SO_TYPE, 1), ENOPROTOOPT);
    CHECK_ERRNO(try_int(t, SOL_SOCKET, 9999, 1), ENOPROTOOPT);
    CHECK_ERRNO(setsockopt(t, SOL_SOCKET, SO_REUSEADDR, &len, 2), EINVAL);
    CHECK_ERRNO(setsockopt(t, SOL_SOCKET, SO_REUSEADDR, (void *)8, 4), EFAULT);
    char name[16] = "nonesuch";
    CHECK_ERRNO(setsockopt(t, SOL_SOCKET, SO_BINDTODEVICE, name, 16), ENODEV);
    OK(setsockopt(t, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2));
    len = sizeof(name);
    OK(getsockopt(t, SOL_SOCKET, SO_BINDTODEVICE, name, &len));
    CHECK_STR(name, "lo");
    CHECK_EQ(len, 3);
}

struct number {
    int level, name, first, good, bad, err;
};

static void check_numbers(int fd, const struct number *n, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        conf_diag("level %d name %d", n[i].level, n[i].name);
        CHECK_EQ(get_int(fd, n[i].level, n[i].name), n[i].first);
        set_int(fd, n[i].level, n[i].name, n[i].good);
        CHECK_EQ(get_int(fd, n[i].level, n[i].name), n[i].good);
        if (n[i].err)
            CHECK_ERRNO(try_int(fd, n[i].level, n[i].name, n[i].bad), n[i].err);
    }
}

TEST(tcp_options)
{
    static const struct number n[] = {
        {SOL_TCP, TCP_NODELAY, 0, 1, 0, 0},
        {SOL_TCP, TCP_CORK, 0, 1, 0, 0},
        {SOL_TCP, TCP_KEEPIDLE, 7200, 60, 0, EINVAL},
        {SOL_TCP, TCP_KEEPINTVL, 75, 5, 32768, EINVAL},
        {SOL_TCP, TCP_KEEPCNT, 9, 3, 128, EINVAL},
        {SOL_TCP, TCP_SYNCNT, 6, 2, 0, EINVAL},
        {SOL_TCP, TCP_LINGER2, 60, 20, 0, 0},
        {SOL_TCP, TCP_USER_TIMEOUT, 0, 5000, -1, EINVAL},
        {SOL_TCP, TCP_QUICKACK, 1, 1, 0, 0},
        {SOL_TCP, TCP_MAXSEG, 536, 1000, 40000, EINVAL},
        {SOL_TCP, TCP_DEFER_ACCEPT, 0, 7, 0, 0},
        {SOL_TCP, TCP_FASTOPEN, 0, 5, -1, EINVAL},
        {SOL_TCP, 25 /* TCP_NOTSENT_LOWAT */, 0, 16384, 0, 0},
        {SOL_IP, IP_TOS, 0, 0x10, 0, 0},
        {SOL_IP, IP_TTL, 64, 9, 256, EINVAL},
        {SOL_IP, IP_MTU_DISCOVER, IP_PMTUDISC_WANT, IP_PMTUDISC_DO, 9, EINVAL},
        {SOL_IP, IP_FREEBIND, 0, 1, 0, 0},
        {SOL_IP, IP_BIND_ADDRESS_NO_PORT, 0, 1, 0, 0},
    };
    int fd = sock(AF_INET, SOCK_STREAM);
    char name[16] = {0};
    socklen_t len = sizeof(name);

    check_numbers(fd, n, ARRAY_SIZE(n));
    set_int(fd, SOL_TCP, TCP_DEFER_ACCEPT, 5);
    CHECK_EQ(get_int(fd, SOL_TCP, TCP_DEFER_ACCEPT), 7);
    OK(getsockopt(fd, SOL_TCP, TCP_CONGESTION, name, &len));
    CHECK_EQ(len, 16);
    CHECK_ERRNO(setsockopt(fd, SOL_TCP, TCP_CONGESTION, "nonesuch", 8), ENOENT);
    OK(setsockopt(fd, SOL_TCP, TCP_CONGESTION, "reno", 4));
    len = sizeof(name);
    OK(getsockopt(fd, SOL_TCP, TCP_CONGESTION, name, &len));
    CHECK_STR(name, "reno");
    CHECK_ERRNO(try_int(fd, SOL_TCP, 999, 1), ENOPROTOOPT);
    CHECK_ERRNO(try_int(fd, 77, 1, 1), ENOPROTOOPT);
    CHECK_ERRNO(try_int(fd, SOL_IPV6, IPV6_V6ONLY, 1), ENOPROTOOPT);
}

TEST(udp_options)
{
    static const struct number n[] = {
        {SOL_IP, IP_TOS, 0, 0x13, 0, 0},
        {SOL_IP, IP_PKTINFO, 0, 1, 0, 0},
        {SOL_IP, IP_RECVTTL, 0, 1, 0, 0},
        {SOL_IP, IP_RECVERR, 0, 1, 0, 0},
        {SOL_IP, IP_MULTICAST_TTL, 1, 7, 256, EINVAL},
        {SOL_IP, IP_MULTICAST_LOOP, 1, 0, 0, 0},
        {SOL_IP, IP_MULTICAST_ALL, 1, 0, 2, EINVAL},
        {SOL_IP, IP_MINTTL, 0, 5, 256, EINVAL},
    };
    int fd = sock(AF_INET, SOCK_DGRAM);
    unsigned char one = 9;
    socklen_t len = 1;

    check_numbers(fd, n, ARRAY_SIZE(n));
    /* One byte is enough at SOL_IP. */
    OK(setsockopt(fd, SOL_IP, IP_TTL, &one, 1));
    one = 0;
    OK(getsockopt(fd, SOL_IP, IP_TTL, &one, &len));
    CHECK_EQ(one, 9);
    CHECK_EQ(len, 1);
    CHECK_ERRNO(try_int(fd, SOL_IP, IP_HDRINCL, 1), ENOPROTOOPT);
    int v;
    len = sizeof(v);
    CHECK_ERRNO(getsockopt(fd, SOL_IP, 999, &v, &len), ENOPROTOOPT);
}

TEST(v6_options)
{
    static const struct number n[] = {
        {SOL_IPV6, IPV6_UNICAST_HOPS, 64, 5, 256, EINVAL},
        {SOL_IPV6, IPV6_MULTICAST_HOPS, 1, 5, 256, EINVAL},
        {SOL_IPV6, IPV6_MULTICAST_LOOP, 1, 0, 2, EINVAL},
        {SOL_IPV6, IPV6_RECVPKTINFO, 0, 1, 0, 0},
        {SOL_IPV6, IPV6_RECVHOPLIMIT, 0, 1, 0, 0},
        {SOL_IPV6, IPV6_RECVTCLASS, 0, 1, 0, 0},
        {SOL_IPV6, IPV6_TCLASS, 0, 0x10, 256, EINVAL},
        {SOL_IPV6, IPV6_RECVERR, 0, 1, 0, 0},
        {SOL_IPV6, IPV6_DONTFRAG, 0, 1, 0, 0},
        {SOL_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_WANT, IPV6_PMTUDISC_DO, 9, EINVAL},
    };
    need_v6();
    int fd = sock(AF_INET6, SOCK_DGRAM);

    check_numbers(fd, n, ARRAY_SIZE(n));
    CHECK_ERRNO(try_int(fd, SOL_IPV6, IPV6_MULTICAST_IF, 7777), ENODEV);
    CHECK_ERRNO(try_int(fd, SOL_IPV6, 999, 1), ENOPROTOOPT);
}

TEST(tcp_info)
{
    int l = sock(AF_INET, SOCK_STREAM), c = sock(AF_INET, SOCK_STREAM);
    struct tcp_info i;
    socklen_t len = sizeof(i);

    OK(listen(l, 7));
    OK(getsockopt(l, SOL_TCP, TCP_INFO, &i, &len));
    CHECK_EQ(i.tcpi_state, TCP_LISTEN);
    CHECK_EQ(i.tcpi_sacked, 7);
    OK(connect4(c, port_of(l)));
    OK(getsockopt(c, SOL_TCP, TCP_INFO, &i, &len));
    CHECK_EQ(i.tcpi_state, TCP_ESTABLISHED);
    CHECK(i.tcpi_rto > 0 && i.tcpi_snd_mss > 500 && i.tcpi_pmtu >= 1500);
    len = 4;
    OK(getsockopt(c, SOL_TCP, TCP_INFO, &i, &len));
    CHECK_EQ(len, 4);
}

/* Beyond what <netinet/tcp.h> has: offsets of struct tcp_info. */
enum {
    INFO_RTO = 8,
    INFO_SND_MSS = 16,
    INFO_LAST_DATA_SENT = 44,
    INFO_LAST_DATA_RECV = 52,
    INFO_RTT = 68,
    INFO_BYTES_ACKED = 120,
    INFO_BYTES_RECEIVED = 128,
    INFO_SEGS_OUT = 136,
    INFO_SEGS_IN = 140,
    INFO_NOTSENT_BYTES = 144,
    INFO_MIN_RTT = 148,
    INFO_DATA_SEGS_IN = 152,
    INFO_DATA_SEGS_OUT = 156,
    INFO_BYTES_SENT = 200,
    INFO_SIZE = 232,
};

static uint32_t info_of(int fd, size_t at)
{
    uint8_t b[INFO_SIZE];
    socklen_t len = sizeof(b);
    uint32_t v;

    OK(getsockopt(fd, SOL_TCP, TCP_INFO, b, &len));
    CHECK_EQ(len, INFO_SIZE);
    memcpy(&v, b + at, 4);
    return v;
}

static void tcp_pair(int sv[2])
{
    int l = sock(AF_INET, SOCK_STREAM);

    set_int(l, SOL_SOCKET, SO_RCVBUF, 8192);
    OK(bind4(l, 0));
    OK(listen(l, 1));
    sv[0] = sock(AF_INET, SOCK_STREAM);
    OK(connect4(sv[0], port_of(l)));
    sv[1] = OK(accept(l, NULL, NULL));
    OK(close(l));
}

/* Nothing is known before there is a connection; then it is measured: by the handshake, and by
 * bytes that go over. */
TEST(tcp_info_round_trip)
{
    char b[2048] = {0};
    int sv[2], idle = sock(AF_INET, SOCK_STREAM);

    CHECK_EQ(info_of(idle, INFO_RTT), 0);
    CHECK_EQ(info_of(idle, INFO_MIN_RTT), UINT32_MAX);
    tcp_pair(sv);
    for (int i = 0; i < 50; i++) {
        const uint32_t rtt = info_of(sv[0], INFO_RTT), min = info_of(sv[0], INFO_MIN_RTT);
        CHECK(rtt >= 1 && rtt < 60000000);
        CHECK(min >= 1 && min <= 60000000);
        CHECK_EQ(write(sv[0], b, sizeof(b)), sizeof(b));
        CHECK_EQ(recv(sv[1], b, sizeof(b), MSG_WAITALL), sizeof(b));
        CHECK(info_of(sv[0], INFO_MIN_RTT) <= min);
        CHECK(info_of(sv[1], INFO_RTT) < 60000000);
    }
    OK(close(sv[1]));
    CHECK(info_of(sv[0], INFO_RTT) >= 1);
}

static int poll_out(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    CHECK(poll(&p, 1, 0) >= 0);
    return p.revents;
}

/* What may wait to be sent can be bounded apart from the buffer. */
TEST(notsent_lowat)
{
    static char b[65536];
    int sv[2], unsent;

    tcp_pair(sv);
    set_int(sv[0], SOL_SOCKET, SO_SNDBUF, 200000);
    set_int(sv[0], SOL_TCP, TCP_NOTSENT_LOWAT, 4096);
    while (send(sv[0], b, sizeof(b), MSG_DONTWAIT) > 0)
        continue;
    CHECK_EQ(errno, EAGAIN);
    OK(ioctl(sv[0], SIOCOUTQNSD, &unsent));
    CHECK(unsent >= 4096 && unsent < 200000);
    CHECK_EQ(poll_out(sv[0]), 0);
    struct epoll_event ev = {.events = EPOLLOUT | EPOLLET};
    const int ep = OK(epoll_create1(0));
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, sv[0], &ev));
    CHECK_EQ(OK(epoll_wait(ep, &ev, 1, 0)), 0);
    set_int(sv[0], SOL_TCP, TCP_NOTSENT_LOWAT, 0);
    CHECK_EQ(poll_out(sv[0]), POLLOUT);
    CHECK_EQ(OK(epoll_wait(ep, &ev, 1, -1)), 1);
    set_int(sv[0], SOL_TCP, TCP_NOTSENT_LOWAT, 4096);
    while (poll_out(sv[0]) != POLLOUT)
        CHECK(read(sv[1], b, sizeof(b)) > 0);
}

/* How much is left goes with each message; the end of stream counts. */
TEST(tcp_inq)
{
    char control[64] __attribute__((aligned(8))), b[64];
    struct iovec iov = {b, 3};
    int sv[2], v;

    tcp_pair(sv);
    set_int(sv[1], SOL_TCP, TCP_INQ, 1);
    CHECK_EQ(write(sv[0], "abcdefgh", 8), 8);
    OK(shutdown(sv[0], SHUT_WR));
    const struct pollfd p = {.fd = sv[1], .events = POLLRDHUP};
    CHECK_EQ(poll(&(struct pollfd){p.fd, p.events, 0}, 1, -1), 1);
    static const int left[] = {6, 3, 1, 1};
    for (size_t i = 0; i < ARRAY_SIZE(left); i++) {
        struct msghdr m = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = control,
                           .msg_controllen = sizeof(control)};
        CHECK(recvmsg(sv[1], &m, 0) >= 0);
        const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        CHECK(c && c->cmsg_level == SOL_TCP && c->cmsg_type == TCP_CM_INQ);
        memcpy(&v, CMSG_DATA(c), sizeof(v));
        CHECK_EQ(v, left[i]);
    }
}

/* The first and the last of the sends that fd is told are over, which errno must go with. */
static void zerocopy_over(int fd, int level, int type, uint32_t *first, uint32_t *last)
{
    char control[256] __attribute__((aligned(8))), b[16];
    struct iovec iov = {b, sizeof(b)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof(control)};
    struct pollfd p = {.fd = fd, .events = 0};
    struct sock_extended_err e;

    CHECK_EQ(poll(&p, 1, -1), 1);
    CHECK_EQ(p.revents, POLLERR);
    CHECK_EQ(recvmsg(fd, &m, MSG_ERRQUEUE), 0);
    CHECK(m.msg_flags & MSG_ERRQUEUE);
    const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    CHECK(c && c->cmsg_level == level && c->cmsg_type == type);
    memcpy(&e, CMSG_DATA(c), sizeof(e));
    CHECK_EQ(e.ee_errno, 0);
    CHECK_EQ(e.ee_origin, SO_EE_ORIGIN_ZEROCOPY);
    CHECK_EQ(e.ee_code, SO_EE_CODE_ZEROCOPY_COPIED);
    *first = e.ee_info;
    *last = e.ee_data;
}

static void zerocopy_send(int from, int to, int level, int type)
{
    uint32_t first, last;
    char b[16];

    CHECK_EQ(send(from, "abcd", 4, MSG_ZEROCOPY), 4);
    CHECK_EQ(recv(to, b, sizeof(b), 0), 4);
    CHECK_ERRNO(recv(from, b, sizeof(b), MSG_ERRQUEUE | MSG_DONTWAIT), EAGAIN);
    set_int(from, SOL_SOCKET, SO_ZEROCOPY, 1);
    CHECK_EQ(send(from, "abcd", 4, 0), 4);
    CHECK_EQ(recv(to, b, sizeof(b), 0), 4);
    CHECK_EQ(send(from, "abcd", 4, MSG_ZEROCOPY), 4);
    CHECK_EQ(recv(to, b, sizeof(b), 0), 4);
    zerocopy_over(from, level, type, &first, &last);
    CHECK(first == 0 && last == 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(send(from, "abcd", 4, MSG_ZEROCOPY), 4);
        CHECK_EQ(recv(to, b, sizeof(b), 0), 4);
    }
    for (uint32_t next = 1; next <= 3; next = last + 1) {
        zerocopy_over(from, level, type, &first, &last);
        CHECK(first == next && last >= first && last <= 3);
    }
    CHECK_ERRNO(recv(from, b, sizeof(b), MSG_ERRQUEUE | MSG_DONTWAIT), EAGAIN);
}

TEST(zerocopy_of_streams)
{
    int sv[2];

    tcp_pair(sv);
    zerocopy_send(sv[0], sv[1], SOL_IP, IP_RECVERR);
}

TEST(zerocopy_of_datagrams)
{
    int a = sock(AF_INET, SOCK_DGRAM), b = sock(AF_INET, SOCK_DGRAM);

    OK(bind4(b, 0));
    OK(connect4(a, port_of(b)));
    zerocopy_send(a, b, SOL_IP, IP_RECVERR);
}

static void await_info(int fd, size_t at, uint32_t value)
{
    EVENTUALLY(info_of(fd, at) == value);
}

TEST(tcp_info_counts)
{
    char b[1000] = {0};
    int sv[2];

    tcp_pair(sv);
    CHECK(info_of(sv[0], INFO_RTO) >= 200000);
    CHECK_EQ(OK(send(sv[0], b, 1000, 0)), 1000);
    CHECK_EQ(OK(recv(sv[1], b, 1000, MSG_WAITALL)), 1000);
    CHECK_EQ(OK(send(sv[1], b, 300, 0)), 300);
    CHECK_EQ(OK(recv(sv[0], b, 300, MSG_WAITALL)), 300);
    await_info(sv[0], INFO_BYTES_ACKED, 1001); /* its SYN is a byte too */
    await_info(sv[1], INFO_BYTES_ACKED, 300);
    CHECK_EQ(info_of(sv[0], INFO_BYTES_RECEIVED), 300);
    CHECK_EQ(info_of(sv[1], INFO_BYTES_RECEIVED), 1000);
    CHECK_EQ(info_of(sv[0], INFO_BYTES_SENT), 1000);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(info_of(sv[i], INFO_DATA_SEGS_OUT), 1);
        CHECK_EQ(info_of(sv[i], INFO_DATA_SEGS_IN), 1);
        CHECK(info_of(sv[i], INFO_SEGS_OUT) >= 2 && info_of(sv[i], INFO_SEGS_IN) >= 2);
        CHECK_EQ(info_of(sv[i], INFO_NOTSENT_BYTES), 0);
        CHECK(info_of(sv[i], INFO_RTT) > 0 && info_of(sv[i], INFO_MIN_RTT) > 0);
    }
    conf_sleep_ms(120);
    CHECK(info_of(sv[0], INFO_LAST_DATA_SENT) >= 100);
    CHECK(info_of(sv[0], INFO_LAST_DATA_RECV) >= 100);
    OK(shutdown(sv[0], SHUT_WR));
    await_info(sv[0], INFO_BYTES_ACKED, 1002);
    OK(shutdown(sv[1], SHUT_WR));
    await_info(sv[1], INFO_BYTES_ACKED, 301);
    CHECK_EQ(info_of(sv[1], INFO_BYTES_RECEIVED), 1001); /* and so is an end */
}

/* Whether something waits, after all was sent that is taken. */
static bool sends_too_much(int fd)
{
    static char b[65536];

    while (send(fd, b, sizeof(b), MSG_DONTWAIT) > 0)
        ;
    return info_of(fd, INFO_NOTSENT_BYTES) > 0;
}

TEST(tcp_info_of_what_waits)
{
    int sv[2];

    tcp_pair(sv);
    EVENTUALLY(sends_too_much(sv[0]));
    EVENTUALLY(info_of(sv[1], INFO_BYTES_RECEIVED) > 0);
    /* Some may still be on its way: the smaller of two is asked for first. */
    const uint32_t acked = info_of(sv[0], INFO_BYTES_ACKED);
    const uint32_t got = info_of(sv[1], INFO_BYTES_RECEIVED);
    CHECK(acked <= got + 1);
    CHECK(got <= info_of(sv[0], INFO_BYTES_SENT));
}

TEST(tcp_info_of_a_listener)
{
    int l = sock(AF_INET, SOCK_STREAM);

    OK(listen(l, 3));
    CHECK_EQ(info_of(l, INFO_RTO), 0);
    CHECK_EQ(info_of(l, INFO_SND_MSS), 0);
    CHECK_EQ(info_of(l, INFO_BYTES_ACKED), 0);
}

TEST(mtu_and_unconnected)
{
    int u = sock(AF_INET, SOCK_DGRAM), v = sock(AF_INET, SOCK_DGRAM), n;
    socklen_t len = sizeof(n);

    CHECK_ERRNO(getsockopt(u, SOL_IP, IP_MTU, &n, &len), ENOTCONN);
    OK(bind4(v, 0));
    OK(connect4(u, port_of(v)));
    CHECK(get_int(u, SOL_IP, IP_MTU) >= 1500);
}

/* ---- raw and ping ---- */

static uint16_t checksum(const void *data, size_t size)
{
    const uint16_t *p = data;
    uint32_t sum = 0;

    for (size_t i = 0; i < size / 2; i++)
        sum += p[i];
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t) ~(sum + (sum >> 16));
}

TEST(raw_icmp_echo)
{
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    struct {
        struct icmphdr h;
        char data[8];
    } m = {.h = {.type = ICMP_ECHO, .un.echo.id = 0x1234, .un.echo.sequence = 7},
           .data = "payload"};
    struct sockaddr_in to = in4(0);
    uint8_t b[128];

    if (fd < 0)
        conf_skip("needs CAP_NET_RAW");
    struct icmp_filter {
        uint32_t data;
    } f = {~(1u << ICMP_ECHOREPLY)};
    OK(setsockopt(fd, SOL_RAW, 1, &f, sizeof(f)));
    m.h.checksum = checksum(&m, sizeof(m));
    CHECK_EQ(OK(sendto(fd, &m, sizeof(m), 0, (struct sockaddr *)&to, sizeof(to))), sizeof(m));
    ssize_t n = OK(recv(fd, b, sizeof(b), 0));
    CHECK_EQ(n, 20 + sizeof(m));
    struct iphdr *ip = (void *)b;
    CHECK_EQ(ip->version, 4);
    CHECK_EQ(ip->protocol, IPPROTO_ICMP);
    CHECK_EQ(ntohs(ip->tot_len), n);
    CHECK_EQ(checksum(ip, 20), 0);
    struct icmphdr *r = (void *)(b + 20);
    CHECK_EQ(r->type, ICMP_ECHOREPLY);
    CHECK_EQ(r->un.echo.id, 0x1234);
    CHECK_EQ(checksum(r, sizeof(m)), 0);
    CHECK_ERRNO(socket(AF_INET, SOCK_RAW, 0), EPROTONOSUPPORT);
    CHECK_ERRNO(listen(fd, 1), EOPNOTSUPP);
}

TEST(raw_own_protocol)
{
    int a = socket(AF_INET, SOCK_RAW, 253), b = socket(AF_INET, SOCK_RAW, 253);
    struct sockaddr_in to = in4(0);
    char buf[64];

    if (a < 0)
        conf_skip("needs CAP_NET_RAW");
    OK(bind(b, (struct sockaddr *)&to, sizeof(to)));
    OK(connect(a, (struct sockaddr *)&to, sizeof(to)));
    CHECK_EQ(OK(send(a, "raw", 3, 0)), 3);
    CHECK_EQ(OK(recv(b, buf, sizeof(buf), 0)), 23);
    CHECK(memcmp(buf + 20, "raw", 3) == 0);
}

TEST(raw_needs_capability)
{
    NEED_ROOT();
    pid_t p = conf_fork();
    if (p == 0) {
        conf_become(1000);
        CHECK_ERRNO(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM);
        _exit(0);
    }
    CHECK_EXIT(p, 0);
}

TEST(ping_socket)
{
    int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    struct icmphdr m = {.type = ICMP_ECHO, .un.echo.sequence = 9}, r;
    struct sockaddr_in to = in4(0), from;
    socklen_t len = sizeof(from);

    if (fd < 0)
        conf_skip("ping sockets are not for this group");
    CHECK_EQ(OK(sendto(fd, &m, sizeof(m), 0, (struct sockaddr *)&to, sizeof(to))), sizeof(m));
    CHECK_EQ(OK(recvfrom(fd, &r, sizeof(r), 0, (struct sockaddr *)&from, &len)), sizeof(r));
    CHECK_EQ(r.type, ICMP_ECHOREPLY);
    CHECK_EQ(r.un.echo.sequence, 9);
    CHECK_EQ(ntohs(r.un.echo.id), port_of(fd));
    CHECK_EQ(from.sin_port, 0);
    m.type = ICMP_ECHOREPLY;
    CHECK_ERRNO(sendto(fd, &m, sizeof(m), 0, (struct sockaddr *)&to, sizeof(to)), EINVAL);
    CHECK_ERRNO(sendto(fd, &m, 4, 0, (struct sockaddr *)&to, sizeof(to)), EINVAL);
}

TEST(ping6)
{
    need_v6();
    int fd = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    struct icmp6_hdr m = {.icmp6_type = ICMP6_ECHO_REQUEST}, r;
    struct sockaddr_in6 to = in6("::1", 0);

    if (fd < 0)
        conf_skip("needs CAP_NET_RAW");
    struct icmp6_filter f;
    ICMP6_FILTER_SETBLOCKALL(&f);
    ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &f);
    OK(setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &f, sizeof(f)));
    CHECK_EQ(OK(sendto(fd, &m, sizeof(m), 0, (struct sockaddr *)&to, sizeof(to))), sizeof(m));
    CHECK_EQ(OK(recv(fd, &r, sizeof(r), 0)), sizeof(r));
    CHECK_EQ(r.icmp6_type, ICMP6_ECHO_REPLY);
}
