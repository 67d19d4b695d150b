/* Settings of a network namespace by /proc/sys/net, each with what it changes. Every case is in a
 * namespace of its own. */
#include "harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

CONF_FAMILY("netsys");

static void own_namespace(void)
{
    struct ifreq r = {.ifr_name = "lo"};

    NEED_ROOT();
    OK(unshare(CLONE_NEWNET));
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(ioctl(fd, SIOCGIFFLAGS, &r));
    r.ifr_flags |= IFF_UP;
    OK(ioctl(fd, SIOCSIFFLAGS, &r));
    OK(close(fd));
}

static int set(const char *name, const char *text)
{
    char path[128];

    snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
    int fd = OK(open(path, O_WRONLY));
    const ssize_t n = write(fd, text, strlen(text));
    const int err = errno;
    OK(close(fd));
    errno = err;
    return n == (ssize_t)strlen(text) ? 0 : -1;
}

static const char *get(const char *name)
{
    static char buf[128];
    char path[128];

    snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
    int fd = OK(open(path, O_RDONLY));
    const ssize_t n = OK(read(fd, buf, sizeof(buf) - 1));
    buf[n] = '\0';
    OK(close(fd));
    return buf;
}

static int bind_port(int fd, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return bind(fd, (struct sockaddr *)&a, sizeof(a));
}

static int option(int fd, int level, int name)
{
    int v = -1;
    socklen_t len = sizeof(v);

    OK(getsockopt(fd, level, name, &v, &len));
    return v;
}

TEST(somaxconn)
{
    own_namespace();
    CHECK_STR(get("core/somaxconn"), "4096\n");
    OK(set("core/somaxconn", "2"));
    CHECK_STR(get("core/somaxconn"), "2\n");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)));
    socklen_t len = sizeof(a);
    OK(getsockname(fd, (struct sockaddr *)&a, &len));
    OK(listen(fd, 100));
    for (int i = 0; i < 3; i++)
        OK(connect(OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)), (struct sockaddr *)&a,
                   len));
    CHECK_ERRNO(
        connect(OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)), (struct sockaddr *)&a, len),
        EAGAIN);
    CHECK_ERRNO(set("core/somaxconn", "-1"), EINVAL);
    CHECK_ERRNO(set("core/somaxconn", "x"), EINVAL);
}

TEST(local_port_range)
{
    own_namespace();
    CHECK_STR(get("ipv4/ip_local_port_range"), "32768\t60999\n");
    OK(set("ipv4/ip_local_port_range", "40001 40002"));
    CHECK_STR(get("ipv4/ip_local_port_range"), "40001\t40002\n");
    for (int i = 0; i < 3; i++) {
        int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
        if (i < 2)
            OK(bind_port(fd, 0));
        else
            CHECK_ERRNO(bind_port(fd, 0), EADDRINUSE);
    }
    CHECK_ERRNO(set("ipv4/ip_local_port_range", "50000 40000"), EINVAL);
}

TEST(unprivileged_ports)
{
    own_namespace();
    CHECK_STR(get("ipv4/ip_unprivileged_port_start"), "1024\n");
    for (int i = 0; i < 2; i++) {
        const pid_t pid = conf_fork();
        if (pid == 0) {
            OK(setresuid(1000, 1000, 1000));
            int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
            if (i)
                OK(bind_port(fd, 80));
            else
                CHECK_ERRNO(bind_port(fd, 80), EACCES);
            _exit(0);
        }
        CHECK_EXIT(pid, 0);
        OK(set("ipv4/ip_unprivileged_port_start", "80"));
    }
}

TEST(default_ttl)
{
    own_namespace();
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    CHECK_EQ(option(fd, IPPROTO_IP, IP_TTL), 64);
    OK(set("ipv4/ip_default_ttl", "77"));
    CHECK_EQ(option(fd, IPPROTO_IP, IP_TTL), 77);
    CHECK_ERRNO(set("ipv4/ip_default_ttl", "0"), EINVAL);
}

TEST(nonlocal_bind)
{
    struct sockaddr_in a = {.sin_family = AF_INET};

    own_namespace();
    a.sin_addr.s_addr = htonl(0xc0000207);
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, sizeof(a)), EADDRNOTAVAIL);
    OK(set("ipv4/ip_nonlocal_bind", "1"));
    OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
}

TEST(tcp_times)
{
    own_namespace();
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    CHECK_EQ(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 7200);
    OK(set("ipv4/tcp_keepalive_time", "100"));
    OK(set("ipv4/tcp_keepalive_intvl", "10"));
    OK(set("ipv4/tcp_keepalive_probes", "3"));
    OK(set("ipv4/tcp_syn_retries", "2"));
    CHECK_EQ(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 100);
    CHECK_EQ(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 10);
    CHECK_EQ(option(fd, IPPROTO_TCP, TCP_KEEPCNT), 3);
    CHECK_EQ(option(fd, IPPROTO_TCP, TCP_SYNCNT), 2);
    CHECK_ERRNO(set("ipv4/tcp_syn_retries", "0"), EINVAL);
}

TEST(ping_groups)
{
    own_namespace();
    OK(set("ipv4/ping_group_range", "1 0"));
    CHECK_STR(get("ipv4/ping_group_range"), "1\t0\n");
    const pid_t pid = conf_fork();
    if (pid == 0) {
        OK(setresgid(1000, 1000, 1000));
        OK(setresuid(1000, 1000, 1000));
        CHECK_ERRNO(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), EACCES);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(set("ipv4/ping_group_range", "0 2147483647"));
    OK(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
}

/* It counts for sockets made afterwards, and not between two that are connected to each other. */
TEST(dgram_queue)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(a);
    int fd[2], n = 0;

    own_namespace();
    OK(set("unix/max_dgram_qlen", "3"));
    int to = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    OK(bind(to, (struct sockaddr *)&a, sizeof(sa_family_t)));
    OK(getsockname(to, (struct sockaddr *)&a, &len));
    int from = OK(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    OK(connect(from, (struct sockaddr *)&a, len));
    while (send(from, "x", 1, 0) == 1)
        n++;
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(n, 4);
    OK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fd));
    for (n = 0; n < 20; n++)
        CHECK_EQ(send(fd[0], "x", 1, 0), 1);
}

/* A new namespace begins with its own; /proc/net is that of who reads. */
TEST(of_the_namespace)
{
    char line[256];
    int rows = 0;

    own_namespace();
    OK(set("core/somaxconn", "7"));
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(bind_port(fd, 4711));
    OK(listen(fd, 1));
    const pid_t pid = conf_fork();
    if (pid == 0) {
        own_namespace();
        CHECK_STR(get("core/somaxconn"), "4096\n");
        FILE *f = fopen("/proc/net/tcp", "r");
        CHECK(f);
        while (fgets(line, sizeof(line), f))
            rows++;
        _exit(rows);
    }
    CHECK_EXIT(pid, 1);
    CHECK_STR(get("core/somaxconn"), "7\n");
}

/* SOCK_DESTROY: what ss -K asks. */
TEST(destroyed_connection)
{
    struct {
        struct nlmsghdr h;
        struct inet_diag_req_v2 r;
    } q = {.h = {.nlmsg_len = sizeof(q), .nlmsg_type = SOCK_DESTROY},
           .r = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP}};
    struct sockaddr_in a = {.sin_family = AF_INET}, own;
    char buf[512] __attribute__((aligned(8)));
    socklen_t len = sizeof(a);

    own_namespace();
    int l = OK(socket(AF_INET, SOCK_STREAM, 0)), c = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(bind_port(l, 4000));
    OK(listen(l, 1));
    OK(getsockname(l, (struct sockaddr *)&a, &len));
    OK(connect(c, (struct sockaddr *)&a, len));
    int s = OK(accept(l, NULL, NULL));
    OK(getsockname(c, (struct sockaddr *)&own, &len));
    q.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    q.r.idiag_states = UINT32_MAX;
    q.r.id.idiag_sport = own.sin_port;
    q.r.id.idiag_dport = a.sin_port;
    q.r.id.idiag_src[0] = q.r.id.idiag_dst[0] = htonl(INADDR_LOOPBACK);
    q.r.id.idiag_cookie[0] = q.r.id.idiag_cookie[1] = UINT32_MAX;
    int fd = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG));
    CHECK_EQ(send(fd, &q, sizeof(q), 0), (ssize_t)sizeof(q));
    OK(recv(fd, buf, sizeof(buf), 0));
    CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)buf))->error, 0);
    CHECK_ERRNO(recv(c, buf, 1, 0), ECONNABORTED);
    CHECK_ERRNO(recv(s, buf, 1, 0), ECONNRESET);
}

/* ---- the loopback link's counters ---- */

struct counters {
    unsigned long long rx_bytes, rx_packets, tx_bytes, tx_packets;
};

static struct counters lo_counters(void)
{
    struct counters c = {0};
    char line[256];
    FILE *f = fopen("/proc/net/dev", "r");

    CHECK(f != NULL);
    while (fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, " lo: %llu %llu %*u %*u %*u %*u %*u %*u %llu %llu", &c.rx_bytes,
                   &c.rx_packets, &c.tx_bytes, &c.tx_packets) == 4)
            break;
    fclose(f);
    CHECK_EQ(c.rx_bytes, c.tx_bytes);
    CHECK_EQ(c.rx_packets, c.tx_packets);
    return c;
}

TEST(lo_counts_datagrams)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    char buf[100] = {0};

    own_namespace();
    const struct counters before = lo_counters();
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
    OK(getsockname(fd, (struct sockaddr *)&a, &len));
    for (int i = 0; i < 3; i++)
        CHECK_EQ(sendto(fd, buf, sizeof(buf), 0, (struct sockaddr *)&a, sizeof(a)), 100);
    const struct counters after = lo_counters();
    CHECK_EQ(after.tx_packets - before.tx_packets, 3);
    CHECK_EQ(after.tx_bytes - before.tx_bytes, 3 * (100 + 8 + 20));
    OK(close(fd));
}

TEST(lo_counts_connections)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t len = sizeof(a);
    static char buf[20000];

    own_namespace();
    const struct counters before = lo_counters();
    int l = OK(socket(AF_INET6, SOCK_STREAM, 0));
    OK(bind(l, (struct sockaddr *)&a, sizeof(a)));
    OK(listen(l, 1));
    OK(getsockname(l, (struct sockaddr *)&a, &len));
    int c = OK(socket(AF_INET6, SOCK_STREAM, 0));
    OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
    const struct counters open = lo_counters();
    CHECK(open.tx_packets - before.tx_packets >= 3);
    CHECK_EQ(write(c, buf, sizeof(buf)), (ssize_t)sizeof(buf));
    const struct counters sent = lo_counters();
    CHECK(sent.tx_packets > open.tx_packets);
    CHECK(sent.tx_bytes - open.tx_bytes >= sizeof(buf) + 60);
    OK(close(c));
    OK(close(l));
}
