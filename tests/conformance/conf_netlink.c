/* AF_NETLINK and the ioctls about links: what every program that asks for addresses relies on. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "harness.h"

CONF_FAMILY("netlink");

struct request {
    struct nlmsghdr h;
    union {
        struct ifinfomsg link;
        struct ifaddrmsg addr;
        struct rtmsg route;
    };
    char attrs[128];
};

static int open_route(void)
{
    return OK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
}

static void add_attr(struct request *r, unsigned short type, const void *data, size_t size)
{
    struct nlattr *a = (void *)((char *)r + NLMSG_ALIGN(r->h.nlmsg_len));

    a->nla_type = type;
    a->nla_len = (unsigned short)(sizeof(*a) + size);
    memcpy(a + 1, data, size);
    r->h.nlmsg_len = NLMSG_ALIGN(r->h.nlmsg_len) + (unsigned)NLA_ALIGN(a->nla_len);
}

static void begin(struct request *r, unsigned short type, unsigned short flags, size_t body)
{
    memset(r, 0, sizeof(*r));
    r->h.nlmsg_len = (unsigned)NLMSG_LENGTH(body);
    r->h.nlmsg_type = type;
    r->h.nlmsg_flags = (unsigned short)(NLM_F_REQUEST | flags);
    r->h.nlmsg_seq = 77;
}

/* The error of the acknowledgement. */
static int ask(int fd, const struct request *r)
{
    char buf[4096] __attribute__((aligned(8)));
    const struct nlmsghdr *h = (void *)buf;
    const struct nlmsgerr *e = NLMSG_DATA(h);

    CHECK_EQ(send(fd, r, r->h.nlmsg_len, 0), r->h.nlmsg_len);
    CHECK(recv(fd, buf, sizeof(buf), 0) >= (ssize_t)NLMSG_LENGTH(sizeof(int)));
    CHECK_EQ(h->nlmsg_type, NLMSG_ERROR);
    CHECK_EQ(h->nlmsg_seq, 77);
    CHECK_EQ(e->msg.nlmsg_type, r->h.nlmsg_type);
    return -e->error;
}

TEST(kinds)
{
    CHECK_ERRNO(socket(AF_NETLINK, SOCK_STREAM, NETLINK_ROUTE), ESOCKTNOSUPPORT);
    CHECK_ERRNO(socket(AF_NETLINK, SOCK_RAW, 31), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_NETLINK, SOCK_RAW, -1), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_NETLINK, SOCK_RAW, 4711), EPROTONOSUPPORT);
    int fd = OK(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT));
    CHECK_ERRNO(listen(fd, 1), EOPNOTSUPP);
    CHECK_ERRNO(accept(fd, NULL, NULL), EOPNOTSUPP);
    CHECK_ERRNO(shutdown(fd, SHUT_RD), EOPNOTSUPP);
    int pair[2];
    CHECK_ERRNO(socketpair(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, pair), EOPNOTSUPP);
}

TEST(numbers)
{
    struct sockaddr_nl a = {.nl_family = AF_NETLINK}, got;
    socklen_t len = sizeof(got);
    int one = open_route(), two = open_route(), three = open_route();

    OK(getsockname(one, (void *)&got, &len));
    CHECK_EQ(got.nl_pid, 0);
    OK(bind(one, (void *)&a, sizeof(a)));
    OK(getsockname(one, (void *)&got, &len));
    CHECK_EQ(len, sizeof(got));
    CHECK_EQ(got.nl_pid, getpid());
    OK(bind(two, (void *)&a, sizeof(a)));
    OK(getsockname(two, (void *)&got, &len));
    CHECK(got.nl_pid != 0 && got.nl_pid != (unsigned)getpid());
    a.nl_pid = (unsigned)getpid();
    CHECK_ERRNO(bind(three, (void *)&a, sizeof(a)), EADDRINUSE);
    CHECK_ERRNO(bind(two, (void *)&a, sizeof(a)), EINVAL);
    CHECK_ERRNO(bind(three, (void *)&a, sizeof(a) - 1), EINVAL);
    a.nl_family = AF_INET;
    CHECK_ERRNO(bind(three, (void *)&a, sizeof(a)), EINVAL);
}

TEST(acknowledgement)
{
    int fd = open_route(), on = 1;
    struct request r;

    begin(&r, RTM_GETLINK, NLM_F_ACK, sizeof(r.link));
    r.link.ifi_index = 4711;
    CHECK_EQ(ask(fd, &r), ENODEV);
    r.link.ifi_index = 0;
    CHECK_EQ(ask(fd, &r), EINVAL);
    begin(&r, RTM_GETLINK, NLM_F_ACK, sizeof(r.link));
    add_attr(&r, IFLA_IFNAME, "nosuchlink", 11);
    CHECK_EQ(ask(fd, &r), ENODEV);
    OK(setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on)));
    OK(setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on)));
    CHECK_EQ(ask(fd, &r), ENODEV);
    begin(&r, 4096, NLM_F_ACK, sizeof(r.link));
    CHECK_EQ(ask(fd, &r), EOPNOTSUPP);
}

TEST(one_link)
{
    static char buf[8192] __attribute__((aligned(8)));
    const struct nlmsghdr *h = (void *)buf;
    const struct ifinfomsg *info = NLMSG_DATA(h);
    struct sockaddr_nl from;
    socklen_t len = sizeof(from);
    int fd = open_route();
    struct request r;

    begin(&r, RTM_GETLINK, 0, sizeof(r.link));
    add_attr(&r, IFLA_IFNAME, "lo", 3);
    OK(send(fd, &r, r.h.nlmsg_len, 0));
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    CHECK_EQ(poll(&p, 1, 5000), 1);
    CHECK_EQ(p.revents, POLLIN | POLLOUT);
    ssize_t whole = OK(recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC));
    CHECK(whole > (ssize_t)NLMSG_LENGTH(sizeof(*info)));
    CHECK_EQ(recvfrom(fd, buf, sizeof(buf), 0, (void *)&from, &len), whole);
    CHECK_EQ(from.nl_pid, 0);
    CHECK_EQ(h->nlmsg_type, RTM_NEWLINK);
    CHECK_EQ(h->nlmsg_len, whole);
    CHECK_EQ(info->ifi_index, 1);
    CHECK(info->ifi_flags & IFF_LOOPBACK);
    CHECK_ERRNO(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), EAGAIN);
}

TEST(dump)
{
    static char buf[8192] __attribute__((aligned(8)));
    int fd = open_route(), links = 0;
    struct request r;
    bool done = false;

    begin(&r, RTM_GETLINK, NLM_F_DUMP, sizeof(r.link));
    OK(send(fd, &r, r.h.nlmsg_len, 0));
    while (!done) {
        unsigned n = (unsigned)OK(recv(fd, buf, sizeof(buf), 0));
        for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            CHECK(h->nlmsg_flags & NLM_F_MULTI);
            CHECK_EQ(h->nlmsg_seq, 77);
            if (h->nlmsg_type == NLMSG_DONE)
                done = true;
            else
                links++;
        }
    }
    CHECK(links >= 1);
    /* A part that does not fit is lost, and said to be. */
    OK(send(fd, &r, r.h.nlmsg_len, 0));
    struct iovec iov = {buf, 20};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    CHECK_EQ(recvmsg(fd, &m, 0), 20);
    CHECK(m.msg_flags & MSG_TRUNC);
}

TEST(hostile_lengths)
{
    int fd = open_route();
    struct request r;

    begin(&r, RTM_GETLINK, NLM_F_ACK, sizeof(r.link));
    add_attr(&r, IFLA_IFNAME, "lo", 3);
    ((struct nlattr *)(void *)r.attrs)->nla_len = 2;
    OK(send(fd, &r, r.h.nlmsg_len, 0));
    /* Longer than what came, and shorter than a header: not looked at, not answered. */
    begin(&r, RTM_GETLINK, NLM_F_ACK, sizeof(r.link));
    r.h.nlmsg_len = 4000;
    OK(send(fd, &r, sizeof(r), 0));
    r.h.nlmsg_len = 15;
    OK(send(fd, &r, sizeof(r), 0));
    OK(send(fd, &r, 7, 0));
    char buf[512];
    while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) >= 0)
        ;
    CHECK_EQ(errno, EAGAIN);
    CHECK_ERRNO(send(fd, &r, 64 << 20, 0), EMSGSIZE);
}

TEST(no_capability)
{
    int fd = open_route();
    struct request r;
    unsigned char ip[4] = {10, 77, 0, 1};

    if (geteuid() == 0)
        conf_become(12345);
    begin(&r, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE, sizeof(r.addr));
    r.addr.ifa_family = AF_INET;
    r.addr.ifa_prefixlen = 24;
    r.addr.ifa_index = 1;
    add_attr(&r, IFA_LOCAL, ip, 4);
    CHECK_EQ(ask(fd, &r), EPERM);
    begin(&r, RTM_SETLINK, NLM_F_ACK, sizeof(r.link));
    r.link.ifi_index = 1;
    CHECK_EQ(ask(fd, &r), EPERM);
    struct ifreq q = {.ifr_name = "lo", .ifr_mtu = 1500};
    int in = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK_ERRNO(ioctl(in, SIOCSIFMTU, &q), EPERM);
}

TEST(groups)
{
    int fd = open_route(), group = RTNLGRP_LINK, bad = 0;
    unsigned int got[4] = {0};
    socklen_t len = sizeof(got);
    struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR};

    OK(bind(fd, (void *)&a, sizeof(a)));
    OK(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)));
    CHECK_ERRNO(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &bad, sizeof(bad)), EINVAL);
    OK(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, got, &len));
    CHECK_EQ(got[0], RTMGRP_IPV4_IFADDR | RTMGRP_LINK);
    OK(setsockopt(fd, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &group, sizeof(group)));
    len = sizeof(a);
    OK(getsockname(fd, (void *)&a, &len));
    CHECK_EQ(a.nl_groups, RTMGRP_IPV4_IFADDR);
    CHECK_ERRNO(setsockopt(fd, SOL_NETLINK, 999, &group, sizeof(group)), ENOPROTOOPT);
}

/* ---- ioctls ---- */

TEST(ioctl_get)
{
    int fd = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    struct ifreq r = {.ifr_name = "lo"};

    OK(ioctl(fd, SIOCGIFINDEX, &r));
    CHECK_EQ(r.ifr_ifindex, 1);
    memset(&r, 0, sizeof(r));
    r.ifr_ifindex = 1;
    OK(ioctl(fd, SIOCGIFNAME, &r));
    CHECK_STR(r.ifr_name, "lo");
    OK(ioctl(fd, SIOCGIFFLAGS, &r));
    CHECK(r.ifr_flags & IFF_LOOPBACK);
    OK(ioctl(fd, SIOCGIFMTU, &r));
    CHECK(r.ifr_mtu > 0);
    OK(ioctl(fd, SIOCGIFHWADDR, &r));
    CHECK_EQ(r.ifr_hwaddr.sa_family, 772); /* ARPHRD_LOOPBACK */
    strcpy(r.ifr_name, "nosuch");
    CHECK_ERRNO(ioctl(fd, SIOCGIFFLAGS, &r), ENODEV);
    r.ifr_ifindex = 4711;
    CHECK_ERRNO(ioctl(fd, SIOCGIFNAME, &r), ENODEV);
    CHECK_ERRNO(ioctl(fd, SIOCGIFNAME, (void *)1), EFAULT);
}

/* ---- what libc makes of it ---- */

TEST(names_and_numbers)
{
    char name[IF_NAMESIZE];

    CHECK_EQ(if_nametoindex("lo"), 1);
    CHECK_STR(if_indextoname(1, name), "lo");
    CHECK_EQ(if_nametoindex("nosuch"), 0);
}

TEST(interface_addresses)
{
    struct ifaddrs *all, *a;
    int lo = 0;

    OK(getifaddrs(&all));
    for (a = all; a; a = a->ifa_next)
        lo += strcmp(a->ifa_name, "lo") == 0;
    CHECK(lo >= 1);
    freeifaddrs(all);
}

/* ---- sock_diag ---- */

static int diag_ask(int fd, const void *req, size_t size)
{
    static char buf[8192] __attribute__((aligned(8)));
    const struct nlmsghdr *h = (void *)buf;

    CHECK_EQ(send(fd, req, size, 0), (ssize_t)size);
    CHECK(recv(fd, buf, sizeof(buf), 0) >= (ssize_t)sizeof(*h));
    if (h->nlmsg_type == NLMSG_ERROR)
        return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
    return h->nlmsg_type;
}

struct diag_request {
    struct nlmsghdr h;
    struct inet_diag_req_v2 r;
};

static struct diag_request diag_one(uint16_t type, int conn)
{
    struct diag_request q = {.h = {.nlmsg_len = sizeof(q), .nlmsg_type = type},
                             .r = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP}};
    struct sockaddr_in local, remote;
    socklen_t len = sizeof(local);

    q.h.nlmsg_flags = NLM_F_REQUEST | (type == SOCK_DESTROY ? NLM_F_ACK : 0);
    OK(getsockname(conn, (struct sockaddr *)&local, &len));
    OK(getpeername(conn, (struct sockaddr *)&remote, &len));
    q.r.id.idiag_sport = local.sin_port;
    q.r.id.idiag_dport = remote.sin_port;
    q.r.id.idiag_src[0] = local.sin_addr.s_addr;
    q.r.id.idiag_dst[0] = remote.sin_addr.s_addr;
    q.r.id.idiag_cookie[0] = q.r.id.idiag_cookie[1] = UINT32_MAX;
    q.r.idiag_states = UINT32_MAX;
    return q;
}

static void tcp_ends(int fd[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof(a);
    int l = OK(socket(AF_INET, SOCK_STREAM, 0));

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    OK(bind(l, (struct sockaddr *)&a, len));
    OK(listen(l, 1));
    OK(getsockname(l, (struct sockaddr *)&a, &len));
    fd[0] = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(fd[0], (struct sockaddr *)&a, len));
    fd[1] = OK(accept(l, NULL, NULL));
    OK(close(l));
}

TEST(diag_of_one)
{
    int fd = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG)), ends[2];

    tcp_ends(ends);
    struct diag_request q = diag_one(SOCK_DIAG_BY_FAMILY, ends[0]);
    CHECK_EQ(diag_ask(fd, &q, sizeof(q)), SOCK_DIAG_BY_FAMILY);
    q.r.id.idiag_cookie[0] = 1;
    q.r.id.idiag_cookie[1] = 0x7fffffff;
    CHECK_EQ(diag_ask(fd, &q, sizeof(q)), -ENOENT);
    q.r.id.idiag_dport = htons(1);
    CHECK_EQ(diag_ask(fd, &q, sizeof(q)), -ENOENT);
}

TEST(diag_of_unix)
{
    struct {
        struct nlmsghdr h;
        struct unix_diag_req r;
    } q = {.h = {.nlmsg_len = sizeof(q), .nlmsg_type = SOCK_DIAG_BY_FAMILY},
           .r = {.sdiag_family = AF_UNIX, .udiag_states = UINT32_MAX}};
    static char buf[16384] __attribute__((aligned(8)));
    struct stat st, peer;
    int fd = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG)), sv[2], found = 0;
    bool done = false;

    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    OK(fstat(sv[0], &st));
    OK(fstat(sv[1], &peer));
    q.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    q.r.udiag_show = UDIAG_SHOW_PEER;
    CHECK_EQ(send(fd, &q, sizeof(q), 0), (ssize_t)sizeof(q));
    while (!done) {
        ssize_t left = OK(recv(fd, buf, sizeof(buf), 0));
        for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, (size_t)left); h = NLMSG_NEXT(h, left)) {
            const struct unix_diag_msg *m = NLMSG_DATA(h);
            done |= h->nlmsg_type == NLMSG_DONE;
            if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY || m->udiag_ino != st.st_ino)
                continue;
            found++;
            CHECK_EQ(m->udiag_family, AF_UNIX);
            CHECK_EQ(m->udiag_type, SOCK_STREAM);
            CHECK_EQ(m->udiag_state, 1);
            const struct nlattr *a = (const void *)(m + 1);
            CHECK_EQ(a->nla_type, UNIX_DIAG_PEER);
            CHECK_EQ(*(const uint32_t *)(const void *)(a + 1), (uint32_t)peer.st_ino);
        }
    }
    CHECK_EQ(found, 1);
}
