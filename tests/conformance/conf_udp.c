/* UDP over loopback: datagrams, names, errors, groups, ancillary data. */
#include "harness.h"

#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>

CONF_FAMILY("udp");

#define GROUP 0xef010203u
/* The loopback link is always the first. */
#define LO 1

/* ---- helpers ---- */

static struct sockaddr_in in4(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static int udp(void)
{
    return OK(socket(AF_INET, SOCK_DGRAM, 0));
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);

    OK(getsockname(fd, (struct sockaddr *)&a, &len));
    return ntohs(((struct sockaddr_in *)&a)->sin_port);
}

static int bound(void)
{
    int fd = udp();
    struct sockaddr_in a = in4(0);

    OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
    return fd;
}

static ssize_t send_to(int fd, uint16_t port, const char *text)
{
    struct sockaddr_in a = in4(port);

    return sendto(fd, text, strlen(text), 0, (struct sockaddr *)&a, sizeof(a));
}

static int try_connect(int fd, uint16_t port)
{
    struct sockaddr_in a = in4(port);

    return connect(fd, (struct sockaddr *)&a, sizeof(a));
}

static void set_int(int fd, int level, int name, int v)
{
    OK(setsockopt(fd, level, name, &v, sizeof(v)));
}

static int get_int(int fd, int level, int name)
{
    int v = -1;
    socklen_t len = sizeof(v);

    OK(getsockopt(fd, level, name, &v, &len));
    return v;
}

static short ready(int fd, short events, int ms)
{
    struct pollfd p = {.fd = fd, .events = events};

    OK(poll(&p, 1, ms));
    return p.revents;
}

/* A port nobody has. */
static uint16_t free_port(void)
{
    int fd = bound();
    uint16_t port = port_of(fd);

    OK(close(fd));
    return port;
}

struct got {
    char text[64];
    struct sockaddr_storage from;
    union {
        char buf[512];
        struct cmsghdr align;
    } control;
    struct msghdr h;
};

static ssize_t receive(int fd, struct got *g, int flags)
{
    static struct iovec v;

    memset(g, 0, sizeof(*g));
    v = (struct iovec){g->text, sizeof(g->text) - 1};
    g->h = (struct msghdr){.msg_name = &g->from,
                           .msg_namelen = sizeof(g->from),
                           .msg_iov = &v,
                           .msg_iovlen = 1,
                           .msg_control = g->control.buf,
                           .msg_controllen = sizeof(g->control.buf)};
    return recvmsg(fd, &g->h, flags);
}

/* The data of a message of ancillary data, which must be there. */
static void *lookup(struct got *g, int level, int type)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&g->h); c; c = CMSG_NXTHDR(&g->h, c))
        if (c->cmsg_level == level && c->cmsg_type == type)
            return CMSG_DATA(c);
    return NULL;
}

static void *find(struct got *g, int level, int type)
{
    void *data = lookup(g, level, type);

    if (!data)
        conf_fail(__FILE__, __LINE__, "no ancillary data %d %d", level, type);
    return data;
}

/* ---- datagrams ---- */

TEST(send_and_receive)
{
    int a = bound(), b = udp();
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    char buf[16] = {0};

    CHECK_EQ(OK(send_to(b, port_of(a), "hello")), 5);
    CHECK_EQ(OK(recvfrom(a, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len)), 5);
    CHECK_STR(buf, "hello");
    CHECK_EQ(len, sizeof(from));
    CHECK_EQ(ntohs(from.sin_port), port_of(b));
    CHECK_EQ(ntohl(from.sin_addr.s_addr), INADDR_LOOPBACK);
    CHECK_EQ(OK(send_to(b, port_of(a), "")), 0);
    CHECK_EQ(OK(recv(a, buf, sizeof(buf), 0)), 0);
    CHECK_ERRNO(recv(a, buf, sizeof(buf), MSG_DONTWAIT), EAGAIN);
}

TEST(boundaries_and_truncation)
{
    int a = bound(), b = udp(), n = -1;
    char buf[16] = {0};
    struct got g;

    OK(send_to(b, port_of(a), "first"));
    OK(send_to(b, port_of(a), "second"));
    ready(a, POLLIN, CONF_PATIENCE_S * 1000);
    OK(ioctl(a, FIONREAD, &n));
    CHECK_EQ(n, 5);
    CHECK_EQ(OK(recv(a, buf, 3, MSG_PEEK)), 3);
    CHECK_EQ(OK(recv(a, buf, 3, MSG_PEEK | MSG_TRUNC)), 5);
    CHECK_EQ(OK(recv(a, buf, 3, 0)), 3);
    CHECK_EQ(OK(receive(a, &g, MSG_TRUNC)), 6);
    CHECK_EQ(g.h.msg_flags, 0);
    OK(send_to(b, port_of(a), "0123456789"));
    struct iovec v = {buf, 4};
    struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1};
    CHECK_EQ(OK(recvmsg(a, &h, 0)), 4);
    CHECK_EQ(h.msg_flags, MSG_TRUNC);
}

TEST(sizes)
{
    int a = bound(), b = udp();
    static char big[66000];

    OK(try_connect(b, port_of(a)));
    CHECK_EQ(OK(send(b, big, 65507, 0)), 65507);
    CHECK_EQ(OK(recv(a, big, sizeof(big), 0)), 65507);
    CHECK_ERRNO(send(b, big, 65508, 0), EMSGSIZE);
    CHECK_ERRNO(send(b, big, 66000, 0), EMSGSIZE);
    CHECK_ERRNO(send(b, "x", 1, MSG_OOB), EOPNOTSUPP);
}

TEST(queue_drops)
{
    int a = bound(), b = udp();
    char buf[1000] = {0};
    int n = 0;

    OK(try_connect(b, port_of(a)));
    for (int i = 0; i < 2000; i++)
        CHECK_EQ(OK(send(b, buf, sizeof(buf), 0)), sizeof(buf));
    while (recv(a, buf, sizeof(buf), MSG_DONTWAIT) > 0)
        n++;
    CHECK(n > 20 && n < 1000);
}

TEST(destination)
{
    int a = udp();
    struct sockaddr_in to = in4(0);

    CHECK_ERRNO(send(a, "x", 1, 0), EDESTADDRREQ);
    CHECK_ERRNO(sendto(a, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)), EINVAL);
    CHECK_ERRNO(sendto(a, "x", 1, 0, (struct sockaddr *)&to, 4), EINVAL);
    to.sin_family = AF_INET6;
    CHECK_ERRNO(sendto(a, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)), EAFNOSUPPORT);
    CHECK_ERRNO(listen(a, 1), EOPNOTSUPP);
    CHECK_ERRNO(accept(a, NULL, NULL), EOPNOTSUPP);
}

/* ---- connect ---- */

TEST(connected)
{
    int a = bound(), b = bound(), c = bound();
    struct sockaddr_in peer;
    socklen_t len = sizeof(peer);
    char buf[8];

    CHECK_ERRNO(getpeername(a, (struct sockaddr *)&peer, &len), ENOTCONN);
    OK(try_connect(a, port_of(b)));
    OK(getpeername(a, (struct sockaddr *)&peer, &len));
    CHECK_EQ(ntohs(peer.sin_port), port_of(b));
    /* Only the peer is heard. */
    OK(send_to(c, port_of(a), "no"));
    CHECK_EQ(OK(send_to(b, port_of(a), "yes")), 3);
    CHECK_EQ(OK(recv(a, buf, 8, 0)), 3);
    CHECK_ERRNO(recv(a, buf, 8, MSG_DONTWAIT), EAGAIN);
    /* Elsewhere can be sent all the same. */
    CHECK_EQ(OK(send_to(a, port_of(c), "c")), 1);
    CHECK_EQ(OK(recv(c, buf, 8, 0)), 1);
    OK(try_connect(a, port_of(c)));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    OK(connect(a, &none, sizeof(none)));
    CHECK_ERRNO(getpeername(a, (struct sockaddr *)&peer, &len), ENOTCONN);
    CHECK_ERRNO(send(a, "x", 1, 0), EDESTADDRREQ);
}

TEST(connect_gives_names)
{
    int a = udp(), b = bound();
    struct sockaddr_in me;
    socklen_t len = sizeof(me);

    OK(try_connect(a, port_of(b)));
    OK(getsockname(a, (struct sockaddr *)&me, &len));
    CHECK_EQ(ntohl(me.sin_addr.s_addr), INADDR_LOOPBACK);
    CHECK(me.sin_port != 0);
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    OK(connect(a, &none, sizeof(none)));
    OK(getsockname(a, (struct sockaddr *)&me, &len));
    CHECK_EQ(me.sin_addr.s_addr, 0);
    CHECK_EQ(me.sin_port, 0);
}

TEST(refused)
{
    int a = udp();
    char b;

    OK(try_connect(a, free_port()));
    CHECK_EQ(OK(send(a, "x", 1, 0)), 1);
    CHECK_EQ(ready(a, POLLIN | POLLERR, CONF_PATIENCE_S * 1000) & POLLERR, POLLERR);
    CHECK_ERRNO(recv(a, &b, 1, MSG_DONTWAIT), ECONNREFUSED);
    CHECK_ERRNO(recv(a, &b, 1, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(OK(send(a, "x", 1, 0)), 1);
    EVENTUALLY(ready(a, 0, 0) & POLLERR);
    CHECK_ERRNO(send(a, "x", 1, 0), ECONNREFUSED);
    CHECK_EQ(OK(send(a, "x", 1, 0)), 1);
    EVENTUALLY(ready(a, 0, 0) & POLLERR);
    CHECK_EQ(get_int(a, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
    /* Who is not connected hears nothing. */
    int c = udp();
    OK(send_to(c, free_port(), "x"));
    conf_sleep_ms(10);
    CHECK_EQ(get_int(c, SOL_SOCKET, SO_ERROR), 0);
}

TEST(error_queue)
{
    int a = udp();
    struct got g;
    uint16_t port = free_port();

    set_int(a, SOL_IP, IP_RECVERR, 1);
    CHECK_EQ(get_int(a, SOL_IP, IP_RECVERR), 1);
    CHECK_ERRNO(receive(a, &g, MSG_ERRQUEUE), EAGAIN);
    OK(send_to(a, port, "lost"));
    CHECK_EQ(ready(a, POLLIN, CONF_PATIENCE_S * 1000), POLLERR);
    CHECK_EQ(OK(receive(a, &g, MSG_ERRQUEUE)), 4);
    CHECK_STR(g.text, "lost");
    CHECK_EQ(g.h.msg_flags, MSG_ERRQUEUE);
    CHECK_EQ(ntohs(((struct sockaddr_in *)&g.from)->sin_port), port);
    struct sock_extended_err *e = find(&g, SOL_IP, IP_RECVERR);
    CHECK_EQ(e->ee_errno, ECONNREFUSED);
    CHECK_EQ(e->ee_origin, SO_EE_ORIGIN_ICMP);
    CHECK_EQ(e->ee_type, 3);
    CHECK_EQ(e->ee_code, 3);
    CHECK_EQ(((struct sockaddr_in *)SO_EE_OFFENDER(e))->sin_family, AF_INET);
    CHECK_EQ(ntohl(((struct sockaddr_in *)SO_EE_OFFENDER(e))->sin_addr.s_addr), INADDR_LOOPBACK);
    CHECK_ERRNO(receive(a, &g, MSG_ERRQUEUE), EAGAIN);
}

/* It is ready all the time, but not to be read from. */
TEST(queued_error_is_no_datagram)
{
    const struct timeval soon = {.tv_usec = 20000};
    int a = udp();
    char b;

    set_int(a, SOL_IP, IP_RECVERR, 1);
    OK(try_connect(a, free_port()));
    CHECK_EQ(OK(send(a, "x", 1, 0)), 1);
    EVENTUALLY(ready(a, 0, 0) & POLLERR);
    CHECK_ERRNO(recv(a, &b, 1, MSG_DONTWAIT), ECONNREFUSED);
    CHECK_ERRNO(recv(a, &b, 1, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(ready(a, 0, 0), POLLERR);
    OK(setsockopt(a, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon)));
    CHECK_ERRNO(recv(a, &b, 1, 0), EAGAIN);
    CHECK_EQ(ready(a, 0, 0), POLLERR);
}

TEST(shutdown_)
{
    int a = bound();
    char b;

    CHECK_ERRNO(shutdown(a, SHUT_RD), ENOTCONN);
    CHECK_EQ(OK(recv(a, &b, 1, 0)), 0);
    int c = bound();
    OK(try_connect(c, port_of(a)));
    OK(shutdown(c, SHUT_WR));
    CHECK_ERRNO(send(c, "x", 1, MSG_NOSIGNAL), EPIPE);
}

/* ---- ports ---- */

TEST(bind_conflicts)
{
    int a = bound(), b = udp(), c = udp();
    struct sockaddr_in x = in4(port_of(a));

    CHECK_ERRNO(bind(b, (struct sockaddr *)&x, sizeof(x)), EADDRINUSE);
    x.sin_addr.s_addr = 0;
    CHECK_ERRNO(bind(b, (struct sockaddr *)&x, sizeof(x)), EADDRINUSE);
    x.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    OK(bind(c, (struct sockaddr *)&x, sizeof(x)));
    CHECK_ERRNO(bind(c, (struct sockaddr *)&x, sizeof(x)), EINVAL);
}

TEST(reuse)
{
    int a = udp(), b = udp(), c = udp();
    char buf[8];
    struct sockaddr_in x = in4(0);

    set_int(a, SOL_SOCKET, SO_REUSEADDR, 1);
    set_int(b, SOL_SOCKET, SO_REUSEADDR, 1);
    OK(bind(a, (struct sockaddr *)&x, sizeof(x)));
    x.sin_port = htons(port_of(a));
    OK(bind(b, (struct sockaddr *)&x, sizeof(x)));
    /* The last one gets it. */
    OK(send_to(c, port_of(a), "x"));
    CHECK_EQ(OK(recv(b, buf, 8, 0)), 1);
    CHECK_ERRNO(recv(a, buf, 8, MSG_DONTWAIT), EAGAIN);
}

TEST(reuseport_balances)
{
    int fd[3];
    struct sockaddr_in x = in4(0);
    int n[3] = {0};
    char buf[8];

    for (int i = 0; i < 3; i++) {
        fd[i] = udp();
        set_int(fd[i], SOL_SOCKET, SO_REUSEPORT, 1);
        OK(bind(fd[i], (struct sockaddr *)&x, sizeof(x)));
        x.sin_port = htons(port_of(fd[i]));
    }
    for (int i = 0; i < 120; i++) {
        int c = udp();
        OK(send_to(c, port_of(fd[0]), "x"));
        OK(close(c));
    }
    for (int i = 0; i < 3; i++)
        while (recv(fd[i], buf, 8, MSG_DONTWAIT) > 0)
            n[i]++;
    CHECK_EQ(n[0] + n[1] + n[2], 120);
    CHECK(n[0] > 10 && n[1] > 10 && n[2] > 10);
}

TEST(specific_address_wins)
{
    int any = udp(), one = udp(), c = udp();
    struct sockaddr_in x = in4(0);
    char buf[8];

    set_int(any, SOL_SOCKET, SO_REUSEADDR, 1);
    set_int(one, SOL_SOCKET, SO_REUSEADDR, 1);
    OK(bind(one, (struct sockaddr *)&x, sizeof(x)));
    x.sin_port = htons(port_of(one));
    x.sin_addr.s_addr = 0;
    OK(bind(any, (struct sockaddr *)&x, sizeof(x)));
    OK(send_to(c, port_of(one), "x"));
    CHECK_EQ(OK(recv(one, buf, 8, 0)), 1);
    x.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 5);
    CHECK_EQ(OK(sendto(c, "y", 1, 0, (struct sockaddr *)&x, sizeof(x))), 1);
    CHECK_EQ(OK(recv(any, buf, 8, 0)), 1);
}

/* ---- ancillary data ---- */

TEST(pktinfo_ttl_tos)
{
    int a = udp(), b = udp();
    struct sockaddr_in x = {.sin_family = AF_INET};
    struct got g;

    OK(bind(a, (struct sockaddr *)&x, sizeof(x)));
    set_int(a, SOL_IP, IP_PKTINFO, 1);
    set_int(a, SOL_IP, IP_RECVTTL, 1);
    set_int(a, SOL_IP, IP_RECVTOS, 1);
    set_int(b, SOL_IP, IP_TTL, 33);
    set_int(b, SOL_IP, IP_TOS, 0x10);
    OK(send_to(b, port_of(a), "x"));
    CHECK_EQ(OK(receive(a, &g, 0)), 1);
    struct in_pktinfo *pi = find(&g, SOL_IP, IP_PKTINFO);
    CHECK_EQ(pi->ipi_ifindex, LO);
    CHECK_EQ(ntohl(pi->ipi_addr.s_addr), INADDR_LOOPBACK);
    CHECK_EQ(ntohl(pi->ipi_spec_dst.s_addr), INADDR_LOOPBACK);
    CHECK_EQ(*(int *)find(&g, SOL_IP, IP_TTL), 33);
    CHECK_EQ(*(uint8_t *)find(&g, SOL_IP, IP_TOS), 0x10);
}

static ssize_t send_control(int fd, uint16_t port, int level, int type, const void *data,
                            size_t size)
{
    struct sockaddr_in to = in4(port);
    struct iovec v = {(char[]){"x"}, 1};
    union {
        char buf[CMSG_SPACE(64)];
        struct cmsghdr align;
    } u = {{0}};
    struct msghdr h = {.msg_name = &to,
                       .msg_namelen = sizeof(to),
                       .msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = u.buf,
                       .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);

    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(c), data, size);
    return sendmsg(fd, &h, 0);
}

TEST(send_ancillary)
{
    int a = bound(), b = udp(), v;
    struct got g;

    set_int(a, SOL_IP, IP_RECVTTL, 1);
    set_int(a, SOL_IP, IP_RECVTOS, 1);
    v = 17;
    OK(send_control(b, port_of(a), SOL_IP, IP_TTL, &v, sizeof(v)));
    CHECK_EQ(OK(receive(a, &g, 0)), 1);
    CHECK_EQ(*(int *)find(&g, SOL_IP, IP_TTL), 17);
    v = 8;
    OK(send_control(b, port_of(a), SOL_IP, IP_TOS, &v, sizeof(v)));
    CHECK_EQ(OK(receive(a, &g, 0)), 1);
    CHECK_EQ(*(uint8_t *)find(&g, SOL_IP, IP_TOS), 8);
    v = 256;
    CHECK_ERRNO(send_control(b, port_of(a), SOL_IP, IP_TTL, &v, sizeof(v)), EINVAL);
    CHECK_ERRNO(send_control(b, port_of(a), SOL_IP, IP_TTL, &v, 2), EINVAL);
    CHECK_ERRNO(send_control(b, port_of(a), SOL_IP, 99, &v, sizeof(v)), EINVAL);
    struct in_pktinfo pi = {.ipi_spec_dst.s_addr = htonl(INADDR_LOOPBACK + 8)};
    OK(send_control(b, port_of(a), SOL_IP, IP_PKTINFO, &pi, sizeof(pi)));
    CHECK_EQ(OK(receive(a, &g, 0)), 1);
    CHECK_EQ(ntohl(((struct sockaddr_in *)&g.from)->sin_addr.s_addr), INADDR_LOOPBACK + 8);
}

TEST(timestamps)
{
    int a = bound(), b = udp();
    struct timespec now, *ts;
    struct got g;

    set_int(a, SOL_SOCKET, SO_TIMESTAMPNS, 1);
    OK(send_to(b, port_of(a), "x"));
    CHECK_EQ(OK(receive(a, &g, 0)), 1);
    OK(clock_gettime(CLOCK_REALTIME, &now));
    ts = find(&g, SOL_SOCKET, SO_TIMESTAMPNS);
    CHECK(now.tv_sec - ts->tv_sec < 5 && now.tv_sec >= ts->tv_sec);
    set_int(a, SOL_SOCKET, SO_TIMESTAMP, 1);
    CHECK_EQ(get_int(a, SOL_SOCKET, SO_TIMESTAMPNS), 0);
    OK(send_to(b, port_of(a), "x"));
    CHECK_EQ(OK(receive(a, &g, 0)), 1);
    struct timeval *tv = find(&g, SOL_SOCKET, SO_TIMESTAMP);
    CHECK(now.tv_sec - tv->tv_sec < 5);
}

TEST(dropped_are_counted)
{
    int a = bound(), b = udp(), taken = 0;
    char big[1000] = {0};
    struct got g;

    set_int(a, SOL_SOCKET, SO_RCVBUF, 1);
    set_int(a, SOL_SOCKET, SO_RXQ_OVFL, 1);
    for (int i = 0; i < 20; i++) {
        const struct sockaddr_in to = in4(port_of(a));
        OK(sendto(b, big, sizeof(big), 0, (const struct sockaddr *)&to, sizeof(to)));
    }
    while (receive(a, &g, MSG_DONTWAIT) >= 0) {
        CHECK(!lookup(&g, SOL_SOCKET, SO_RXQ_OVFL));
        taken++;
    }
    CHECK(taken > 0 && taken < 20);
    OK(send_to(b, port_of(a), "x"));
    OK(receive(a, &g, 0));
    CHECK_EQ(*(uint32_t *)find(&g, SOL_SOCKET, SO_RXQ_OVFL), 20 - taken);
    set_int(a, SOL_SOCKET, SO_RXQ_OVFL, 0);
    OK(send_to(b, port_of(a), "x"));
    OK(receive(a, &g, 0));
    CHECK(!lookup(&g, SOL_SOCKET, SO_RXQ_OVFL));
}

TEST(control_truncated)
{
    int a = bound(), b = udp();
    char buf[8], control[CMSG_SPACE(4)];
    struct iovec v = {buf, 8};
    struct msghdr h = {
        .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};

    set_int(a, SOL_IP, IP_PKTINFO, 1);
    OK(send_to(b, port_of(a), "x"));
    CHECK_EQ(OK(recvmsg(a, &h, 0)), 1);
    CHECK_EQ(h.msg_flags, MSG_CTRUNC);
}

/* ---- many at once ---- */

TEST(mmsg)
{
    int a = bound(), b = udp();
    char out[4] = "abcd", in[4] = {0};
    struct iovec ov[4], iv[4];
    struct mmsghdr o[4] = {0}, i[4] = {0};

    OK(try_connect(b, port_of(a)));
    for (int k = 0; k < 4; k++) {
        ov[k] = (struct iovec){&out[k], 1};
        iv[k] = (struct iovec){&in[k], 1};
        o[k].msg_hdr = (struct msghdr){.msg_iov = &ov[k], .msg_iovlen = 1};
        i[k].msg_hdr = (struct msghdr){.msg_iov = &iv[k], .msg_iovlen = 1};
    }
    CHECK_EQ(OK(sendmmsg(b, o, 3, 0)), 3);
    CHECK_EQ(o[2].msg_len, 1);
    CHECK_EQ(OK(recvmmsg(a, i, 4, MSG_WAITFORONE, NULL)), 3);
    CHECK(memcmp(in, "abc", 3) == 0);
}

TEST(more_and_cork)
{
    int a = bound(), b = udp();
    char buf[16] = {0};

    OK(try_connect(b, port_of(a)));
    CHECK_EQ(OK(send(b, "ab", 2, MSG_MORE)), 2);
    CHECK_ERRNO(recv(a, buf, 16, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(OK(send(b, "cd", 2, 0)), 2);
    CHECK_EQ(OK(recv(a, buf, 16, 0)), 4);
    CHECK_STR(buf, "abcd");
    set_int(b, SOL_UDP, UDP_CORK, 1);
    CHECK_EQ(OK(send(b, "12", 2, 0)), 2);
    CHECK_EQ(OK(send(b, "34", 2, 0)), 2);
    CHECK_ERRNO(recv(a, buf, 16, MSG_DONTWAIT), EAGAIN);
    set_int(b, SOL_UDP, UDP_CORK, 0);
    CHECK_EQ(OK(recv(a, buf, 16, 0)), 4);
    CHECK_STR(buf, "1234");
}

TEST(segments)
{
    int a = bound(), b = udp();
    char buf[16] = {0};

    OK(try_connect(b, port_of(a)));
    set_int(b, SOL_UDP, UDP_SEGMENT, 3);
    CHECK_EQ(OK(send(b, "abcdefgh", 8, 0)), 8);
    CHECK_EQ(OK(recv(a, buf, 16, 0)), 3);
    CHECK_EQ(OK(recv(a, buf, 16, 0)), 3);
    CHECK_EQ(OK(recv(a, buf, 16, 0)), 2);
}

TEST(peek_off)
{
    int a = bound(), b = udp();
    char buf[16] = {0};

    CHECK_EQ(get_int(a, SOL_SOCKET, SO_PEEK_OFF), -1);
    set_int(a, SOL_SOCKET, SO_PEEK_OFF, 0);
    OK(send_to(b, port_of(a), "abcdef"));
    ready(a, POLLIN, CONF_PATIENCE_S * 1000);
    CHECK_EQ(OK(recv(a, buf, 2, MSG_PEEK)), 2);
    CHECK(memcmp(buf, "ab", 2) == 0);
    CHECK_EQ(OK(recv(a, buf, 2, MSG_PEEK)), 2);
    CHECK(memcmp(buf, "cd", 2) == 0);
    CHECK_EQ(OK(recv(a, buf, 16, 0)), 6);
}

/* ---- groups ---- */

TEST(multicast)
{
    int a = udp(), b = udp(), c = udp();
    struct sockaddr_in x = {.sin_family = AF_INET};
    struct ip_mreqn m = {.imr_multiaddr.s_addr = htonl(GROUP)};
    char buf[8];

    m.imr_ifindex = LO;
    set_int(a, SOL_SOCKET, SO_REUSEADDR, 1);
    set_int(c, SOL_SOCKET, SO_REUSEADDR, 1);
    OK(bind(a, (struct sockaddr *)&x, sizeof(x)));
    x.sin_port = htons(port_of(a));
    OK(bind(c, (struct sockaddr *)&x, sizeof(x)));
    OK(setsockopt(a, SOL_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)));
    CHECK_ERRNO(setsockopt(a, SOL_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)), EADDRINUSE);
    OK(setsockopt(c, SOL_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)));
    OK(setsockopt(b, SOL_IP, IP_MULTICAST_IF, &m, sizeof(m)));
    x.sin_addr.s_addr = htonl(GROUP);
    CHECK_EQ(OK(sendto(b, "hi", 2, 0, (struct sockaddr *)&x, sizeof(x))), 2);
    CHECK_EQ(ready(a, POLLIN, CONF_PATIENCE_S * 1000), POLLIN);
    CHECK_EQ(OK(recv(a, buf, 8, 0)), 2);
    CHECK_EQ(ready(c, POLLIN, CONF_PATIENCE_S * 1000), POLLIN);
    CHECK_EQ(OK(recv(c, buf, 8, 0)), 2);
    /* What goes out by the loopback link comes back whatever this says. */
    set_int(b, SOL_IP, IP_MULTICAST_LOOP, 0);
    OK(sendto(b, "hi", 2, 0, (struct sockaddr *)&x, sizeof(x)));
    CHECK_EQ(ready(a, POLLIN, CONF_PATIENCE_S * 1000), POLLIN);
    CHECK_EQ(OK(recv(a, buf, 8, 0)), 2);
    CHECK_EQ(OK(recv(c, buf, 8, 0)), 2);
    OK(setsockopt(a, SOL_IP, IP_DROP_MEMBERSHIP, &m, sizeof(m)));
    CHECK_ERRNO(setsockopt(a, SOL_IP, IP_DROP_MEMBERSHIP, &m, sizeof(m)), EADDRNOTAVAIL);
    set_int(a, SOL_IP, IP_MULTICAST_ALL, 0);
    OK(sendto(b, "hi", 2, 0, (struct sockaddr *)&x, sizeof(x)));
    CHECK_EQ(ready(c, POLLIN, CONF_PATIENCE_S * 1000), POLLIN);
    CHECK_EQ(ready(a, POLLIN, 20), 0);
    m.imr_multiaddr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_ERRNO(setsockopt(a, SOL_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)), EINVAL);
    m.imr_multiaddr.s_addr = htonl(GROUP);
    m.imr_ifindex = 7777;
    CHECK_ERRNO(setsockopt(a, SOL_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)), ENODEV);
}

TEST(multicast_source)
{
    int a = udp(), b = bound();
    struct sockaddr_in x = {.sin_family = AF_INET};
    struct ip_mreq_source s = {.imr_multiaddr.s_addr = htonl(GROUP)};
    struct in_addr lo = {htonl(INADDR_LOOPBACK)};
    char buf[8];

    OK(bind(a, (struct sockaddr *)&x, sizeof(x)));
    s.imr_interface = lo;
    s.imr_sourceaddr.s_addr = htonl(INADDR_LOOPBACK + 7);
    OK(setsockopt(a, SOL_IP, IP_ADD_SOURCE_MEMBERSHIP, &s, sizeof(s)));
    OK(setsockopt(b, SOL_IP, IP_MULTICAST_IF, &lo, sizeof(lo)));
    x.sin_port = htons(port_of(a));
    x.sin_addr.s_addr = htonl(GROUP);
    OK(sendto(b, "no", 2, 0, (struct sockaddr *)&x, sizeof(x)));
    CHECK_EQ(ready(a, POLLIN, 20), 0);
    s.imr_sourceaddr = lo;
    OK(setsockopt(a, SOL_IP, IP_ADD_SOURCE_MEMBERSHIP, &s, sizeof(s)));
    OK(sendto(b, "yes", 3, 0, (struct sockaddr *)&x, sizeof(x)));
    CHECK_EQ(ready(a, POLLIN, CONF_PATIENCE_S * 1000), POLLIN);
    CHECK_EQ(OK(recv(a, buf, 8, 0)), 3);
}

/* ---- waiting ---- */

TEST(receive_timeout)
{
    int a = bound();
    char b;
    struct timeval tv = {.tv_usec = 30000};

    OK(setsockopt(a, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
    int64_t t = conf_now();
    CHECK_ERRNO(recv(a, &b, 1, 0), EAGAIN);
    CHECK(conf_now() - t > 29000000);
    CHECK_EQ(ready(a, POLLIN | POLLOUT, 0), POLLOUT);
}

TEST(faults)
{
    int a = bound(), b = udp();
    char buf[8];
    struct sockaddr_in to = in4(port_of(a));

    CHECK_ERRNO(sendto(b, (void *)8, 5, 0, (struct sockaddr *)&to, sizeof(to)), EFAULT);
    CHECK_ERRNO(sendto(b, "x", 1, 0, (struct sockaddr *)8, sizeof(to)), EFAULT);
    OK(send_to(b, port_of(a), "abc"));
    CHECK_ERRNO(recv(a, (void *)8, 5, 0), EFAULT);
    /* The datagram is gone with it. */
    CHECK_ERRNO(recv(a, buf, 8, MSG_DONTWAIT), EAGAIN);
}
