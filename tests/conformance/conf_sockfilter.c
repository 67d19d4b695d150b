/* Socket filters: classic BPF programs over datagrams (SO_ATTACH_FILTER). */
#include "harness.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

CONF_FAMILY("sockfilter");

#define PROG(insns) ((struct sock_fprog){.len = ARRAY_SIZE(insns), .filter = (insns)})

static int attach(int fd, struct sock_fprog p)
{
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof(p));
}

static void pair(int type, int fd[2])
{
    OK(socketpair(AF_UNIX, type, 0, fd));
}

/* Two UDP sockets, the second connected to the first. */
static void udp_pair(int fd[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof(a);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd[0] = OK(socket(AF_INET, SOCK_DGRAM, 0));
    fd[1] = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(bind(fd[0], (struct sockaddr *)&a, len));
    OK(getsockname(fd[0], (struct sockaddr *)&a, &len));
    OK(connect(fd[1], (struct sockaddr *)&a, len));
}

/* What the next datagram begins with, or -1 with errno. */
static int next(int fd)
{
    unsigned char c;
    const ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT);

    return n == 1 ? c : -1;
}

/* Datagrams that begin with 'a' (after skip bytes of header) pass. */
#define FIRST_IS_A(skip)                                                                           \
    {                                                                                              \
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, skip), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'a', 0, 1),  \
            BPF_STMT(BPF_RET | BPF_K, 0xffffffff), BPF_STMT(BPF_RET | BPF_K, 0),                   \
    }

TEST(unix_datagrams)
{
    struct sock_filter f[] = FIRST_IS_A(0);
    int fd[2];

    pair(SOCK_DGRAM, fd);
    OK(attach(fd[1], PROG(f)));
    CHECK_EQ(send(fd[0], "bcd", 3, 0), 3);
    CHECK_EQ(send(fd[0], "abc", 3, 0), 3);
    CHECK_EQ(next(fd[1]), 'a');
    CHECK_ERRNO(next(fd[1]), EAGAIN);
}

TEST(udp_sees_its_header)
{
    struct sock_filter f[] = FIRST_IS_A(8);
    int fd[2];

    udp_pair(fd);
    OK(attach(fd[0], PROG(f)));
    CHECK_EQ(send(fd[1], "bcd", 3, 0), 3);
    CHECK_EQ(send(fd[1], "abc", 3, 0), 3);
    CHECK_EQ(next(fd[0]), 'a');
    CHECK_ERRNO(next(fd[0]), EAGAIN);
}

TEST(udp_port_in_header)
{
    int fd[2];
    struct sockaddr_in a;
    socklen_t len = sizeof(a);

    udp_pair(fd);
    OK(getsockname(fd[1], (struct sockaddr *)&a, &len));
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohs(a.sin_port), 1, 0),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 100),
    };
    OK(attach(fd[0], PROG(f)));
    CHECK_EQ(send(fd[1], "x", 1, 0), 1);
    CHECK_EQ(next(fd[0]), 'x');
}

TEST(cuts_what_it_takes)
{
    struct sock_filter f[] = {BPF_STMT(BPF_RET | BPF_K, 10)};
    char buf[16];
    int fd[2];

    udp_pair(fd);
    OK(attach(fd[0], PROG(f)));
    CHECK_EQ(send(fd[1], "0123456789", 10, 0), 10);
    CHECK_EQ(recv(fd[0], buf, sizeof(buf), 0), 2);
    pair(SOCK_SEQPACKET, fd);
    OK(attach(fd[0], PROG(f)));
    CHECK_EQ(send(fd[1], "0123456789abc", 13, 0), 13);
    CHECK_EQ(recv(fd[0], buf, sizeof(buf), 0), 10);
}

TEST(load_beyond_the_end_drops)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2),
        BPF_STMT(BPF_RET | BPF_K, 100),
    };
    int fd[2];

    pair(SOCK_DGRAM, fd);
    OK(attach(fd[1], PROG(f)));
    CHECK_EQ(send(fd[0], "abcde", 5, 0), 5);
    CHECK_EQ(send(fd[0], "bcdefg", 6, 0), 6);
    CHECK_EQ(next(fd[1]), 'b');
    CHECK_ERRNO(next(fd[1]), EAGAIN);
}

/* Arithmetic, words of memory, indirect loads, the header length, jumps. */
TEST(machine)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0),  /* X = 4 * low half of byte 0 */
        BPF_STMT(BPF_LD | BPF_B | BPF_IND, 1),   /* byte 1 + X */
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 10), /* % 10 */
        BPF_STMT(BPF_ST, 3),                     /* M[3] */
        BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),   /* length */
        BPF_STMT(BPF_LDX | BPF_MEM, 3),          /* X = M[3] */
        BPF_STMT(BPF_ALU | BPF_SUB | BPF_X, 0),  /* length - X */
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    const unsigned char data[] = {0x51, 0, 0, 0, 0, 123, 0, 0};
    char buf[16];
    int fd[2];

    pair(SOCK_DGRAM, fd);
    OK(attach(fd[1], PROG(f)));
    CHECK_EQ(send(fd[0], data, sizeof(data), 0), 8);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), 0), 5);
}

TEST(ancillary_loads)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)(SKF_AD_OFF + SKF_AD_PROTOCOL)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 100),
    };
    struct sock_filter unknown[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)(SKF_AD_OFF + 200)),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    int fd[2];

    udp_pair(fd);
    OK(attach(fd[0], PROG(f)));
    CHECK_EQ(send(fd[1], "x", 1, 0), 1);
    CHECK_EQ(next(fd[0]), 'x');
    CHECK_ERRNO(attach(fd[0], PROG(unknown)), EINVAL);
}

TEST(replace_and_detach)
{
    struct sock_filter none[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, 100)};
    int fd[2], zero = 0;

    pair(SOCK_DGRAM, fd);
    CHECK_ERRNO(setsockopt(fd[1], SOL_SOCKET, SO_DETACH_FILTER, &zero, sizeof(zero)), ENOENT);
    OK(attach(fd[1], PROG(none)));
    CHECK_EQ(send(fd[0], "a", 1, 0), 1);
    OK(attach(fd[1], PROG(all)));
    CHECK_EQ(send(fd[0], "b", 1, 0), 1);
    CHECK_EQ(next(fd[1]), 'b');
    OK(attach(fd[1], PROG(none)));
    OK(setsockopt(fd[1], SOL_SOCKET, SO_DETACH_FILTER, &zero, sizeof(zero)));
    CHECK_EQ(send(fd[0], "c", 1, 0), 1);
    CHECK_EQ(next(fd[1]), 'c');
}

TEST(locked)
{
    struct sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, 100)};
    int fd[2], zero = 0, one = 1, got = 7;
    socklen_t len = sizeof(got);

    pair(SOCK_DGRAM, fd);
    OK(attach(fd[1], PROG(all)));
    OK(getsockopt(fd[1], SOL_SOCKET, SO_LOCK_FILTER, &got, &len));
    CHECK_EQ(got, 0);
    OK(setsockopt(fd[1], SOL_SOCKET, SO_LOCK_FILTER, &one, sizeof(one)));
    CHECK_ERRNO(attach(fd[1], PROG(all)), EPERM);
    CHECK_ERRNO(setsockopt(fd[1], SOL_SOCKET, SO_DETACH_FILTER, &zero, sizeof(zero)), EPERM);
    CHECK_ERRNO(setsockopt(fd[1], SOL_SOCKET, SO_LOCK_FILTER, &zero, sizeof(zero)), EPERM);
    OK(getsockopt(fd[1], SOL_SOCKET, SO_LOCK_FILTER, &got, &len));
    CHECK_EQ(got, 1);
}

TEST(shown)
{
    struct sock_filter f[] = FIRST_IS_A(0), got[8];
    socklen_t len = 0;
    int fd[2];

    pair(SOCK_DGRAM, fd);
    OK(getsockopt(fd[1], SOL_SOCKET, SO_GET_FILTER, got, &len));
    CHECK_EQ(len, 0);
    OK(attach(fd[1], PROG(f)));
    OK(getsockopt(fd[1], SOL_SOCKET, SO_GET_FILTER, got, &len));
    CHECK_EQ(len, 4);
    len = 3;
    CHECK_ERRNO(getsockopt(fd[1], SOL_SOCKET, SO_GET_FILTER, got, &len), EINVAL);
    len = 8;
    OK(getsockopt(fd[1], SOL_SOCKET, SO_GET_FILTER, got, &len));
    CHECK_EQ(len, 4);
    CHECK_EQ(memcmp(got, f, sizeof(f)), 0);
}

TEST(bad_programs)
{
    struct sock_filter no_end[] = {BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0)};
    struct sock_filter far[] = {BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), BPF_STMT(BPF_RET | BPF_K, 1)};
    struct sock_filter word[] = {BPF_STMT(BPF_LD | BPF_MEM, 2), BPF_STMT(BPF_RET | BPF_A, 0)};
    struct sock_filter zero[] = {BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 0),
                                 BPF_STMT(BPF_RET | BPF_A, 0)};
    struct sock_filter code[] = {BPF_STMT(0xffff, 0), BPF_STMT(BPF_RET | BPF_K, 1)};
    struct sock_fprog p = PROG(no_end);
    int fd[2];

    pair(SOCK_DGRAM, fd);
    CHECK_ERRNO(attach(fd[0], PROG(no_end)), EINVAL);
    CHECK_ERRNO(attach(fd[0], PROG(far)), EINVAL);
    CHECK_ERRNO(attach(fd[0], PROG(word)), EINVAL);
    CHECK_ERRNO(attach(fd[0], PROG(zero)), EINVAL);
    CHECK_ERRNO(attach(fd[0], PROG(code)), EINVAL);
    p.len = 0;
    CHECK_ERRNO(attach(fd[0], p), EINVAL);
    p.len = 4097;
    CHECK_ERRNO(attach(fd[0], p), EINVAL);
    p.len = 1;
    p.filter = (struct sock_filter *)8;
    CHECK_ERRNO(attach(fd[0], p), EFAULT);
    CHECK_ERRNO(setsockopt(fd[0], SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof(p) - 1), EINVAL);
}

/* As udev does: notices of the kernel that nobody wants do not wake. */
TEST(netlink_answers)
{
    struct {
        struct nlmsghdr h;
        struct rtgenmsg g;
    } ask = {.h = {.nlmsg_len = sizeof(ask), .nlmsg_type = RTM_GETLINK},
             .g = {.rtgen_family = AF_UNSPEC}};
    struct sock_filter none[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    char buf[1024];
    int fd = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));

    OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
    ask.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    ask.h.nlmsg_type = RTM_NEWLINK + 200; /* unknown: an error comes back */
    OK(attach(fd, PROG(none)));
    CHECK_EQ(send(fd, &ask, sizeof(ask), 0), (ssize_t)sizeof(ask));
    CHECK_ERRNO(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), EAGAIN);
}

/* The result of a program is how much of the datagram is kept. */
static ssize_t kept(struct sock_fprog p, const void *data, size_t size)
{
    char buf[256];
    int fd[2];

    pair(SOCK_DGRAM, fd);
    OK(attach(fd[1], p));
    CHECK_EQ(send(fd[0], data, size, 0), (ssize_t)size);
    const ssize_t n = recv(fd[1], buf, sizeof(buf), MSG_DONTWAIT);
    const int error = errno;
    OK(close(fd[0]));
    OK(close(fd[1]));
    errno = error;
    return n;
}

TEST(attributes)
{
    static const struct {
        uint8_t head[4];
        struct nlattr one;
        uint8_t in_one[4];
        struct nlattr two, inner;
        uint8_t in_inner[4];
        struct nlattr bad;
    } d = {.one = {8, 1}, .two = {12, 2}, .inner = {8, 7}, .bad = {200, 3}};
    const uint32_t find = (uint32_t)SKF_AD_OFF + SKF_AD_NLATTR,
                   nested = (uint32_t)SKF_AD_OFF + SKF_AD_NLATTR_NEST;
    struct sock_filter f[] = {BPF_STMT(BPF_LD | BPF_IMM, 4), BPF_STMT(BPF_LDX | BPF_IMM, 2),
                              BPF_STMT(BPF_LD | BPF_W | BPF_ABS, find),
                              BPF_STMT(BPF_RET | BPF_A, 0)};

    CHECK_EQ(kept(PROG(f), &d, sizeof(d)), 12);
    f[1].k = 1;
    CHECK_EQ(kept(PROG(f), &d, sizeof(d)), 4);
    f[1].k = 3;
    CHECK_ERRNO(kept(PROG(f), &d, sizeof(d)), EAGAIN);
    f[0].k = 1000;
    CHECK_ERRNO(kept(PROG(f), &d, sizeof(d)), EAGAIN);
    f[0].k = 12;
    f[1].k = 7;
    f[2].k = nested;
    CHECK_EQ(kept(PROG(f), &d, sizeof(d)), 16);
    f[1].k = 8;
    CHECK_ERRNO(kept(PROG(f), &d, sizeof(d)), EAGAIN);
}

TEST(random_numbers)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_AD_OFF + SKF_AD_RANDOM),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 1), BPF_STMT(BPF_RET | BPF_A, 0)};
    int passed = 0;

    /* All of one kind: once in 2^63. */
    for (int i = 0; i < 64; i++)
        passed += kept(PROG(f), "x", 1) == 1;
    CHECK(passed > 0 && passed < 64);
}
