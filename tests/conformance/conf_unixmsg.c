/* Descriptors, credentials and many messages at once over AF_UNIX sockets. */
#include "harness.h"

#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

CONF_FAMILY("unixmsg");

/* ---- helpers ---- */

static void pair(int type, int sv[2])
{
    OK(socketpair(AF_UNIX, type, 0, sv));
}

static ssize_t send_fds(int sock, const int *fds, size_t count, const char *text)
{
    char control[CMSG_SPACE(sizeof(int) * 256)] __attribute__((aligned(8))) = {0};
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (count > 0) {
        m.msg_control = control;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
    }
    return sendmsg(sock, &m, 0);
}

/* Number of descriptors that came, in fds; *n is what recvmsg gave. */
static size_t recv_fds(int sock, int *fds, size_t max, int flags, ssize_t *n, int *out_flags)
{
    char control[CMSG_SPACE(sizeof(int) * 256)] __attribute__((aligned(8)));
    char buf[256];
    struct iovec iov = {buf, sizeof(buf)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};

    m.msg_controllen = max > 0 ? CMSG_SPACE(sizeof(int) * max) : 0;
    if (max == 0)
        m.msg_control = NULL;
    *n = OK(recvmsg(sock, &m, flags));
    if (out_flags)
        *out_flags = m.msg_flags;
    struct cmsghdr *c = max > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (!c || c->cmsg_type != SCM_RIGHTS)
        return 0;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(c), count * sizeof(int));
    return count;
}

/* ---- descriptors and credentials in messages ---- */

TEST(descriptors_travel)
{
    int sv[2], p[2], got[4];
    char c = 0;
    ssize_t n;

    pair(SOCK_STREAM, sv);
    OK(pipe(p));
    CHECK_EQ(send_fds(sv[0], p, 2, "fds"), 3);
    CHECK_EQ(recv_fds(sv[1], got, 4, 0, &n, NULL), 2);
    CHECK_EQ(n, 3);
    CHECK(got[0] != p[0] && got[1] != p[1]);
    CHECK_EQ(write(got[1], "q", 1), 1);
    CHECK_EQ(read(p[0], &c, 1), 1);
    CHECK_EQ(c, 'q');
    CHECK_EQ(fcntl(got[0], F_GETFD), 0);
}

TEST(descriptors_with_cloexec)
{
    int sv[2], got[1];
    ssize_t n;

    pair(SOCK_DGRAM, sv);
    CHECK_EQ(send_fds(sv[0], &sv[0], 1, "x"), 1);
    CHECK_EQ(recv_fds(sv[1], got, 1, MSG_CMSG_CLOEXEC, &n, NULL), 1);
    CHECK_EQ(fcntl(got[0], F_GETFD), FD_CLOEXEC);
}

TEST(descriptors_outlive_their_sender)
{
    int sv[2], p[2], got[1];
    char c;
    ssize_t n;

    pair(SOCK_STREAM, sv);
    OK(pipe(p));
    CHECK_EQ(send_fds(sv[0], &p[1], 1, "w"), 1);
    OK(close(p[1]));
    OK(close(sv[0]));
    CHECK_EQ(recv_fds(sv[1], got, 1, 0, &n, NULL), 1);
    CHECK_EQ(write(got[0], "k", 1), 1);
    OK(close(got[0]));
    CHECK_EQ(read(p[0], &c, 1), 1);
    CHECK_EQ(read(p[0], &c, 1), 0);
}

TEST(unread_descriptors_are_closed)
{
    int sv[2], p[2];
    char c;

    pair(SOCK_STREAM, sv);
    OK(pipe(p));
    CHECK_EQ(send_fds(sv[0], &p[1], 1, "w"), 1);
    OK(close(p[1]));
    OK(close(sv[1]));
    CHECK_EQ(read(p[0], &c, 1), 0);
}

TEST(descriptors_without_room_are_closed)
{
    int sv[2], p[2], got[4], flags;
    char c;
    ssize_t n;

    pair(SOCK_STREAM, sv);
    OK(pipe(p));
    int fds[3] = {p[1], p[1], p[1]};
    CHECK_EQ(send_fds(sv[0], fds, 3, "w"), 1);
    OK(close(p[1]));
    size_t count = recv_fds(sv[1], got, 1, 0, &n, &flags);
    /* Room for one is rounded up to two by CMSG_SPACE. */
    CHECK_EQ(count, 2);
    CHECK(flags & MSG_CTRUNC);
    OK(close(got[0]));
    OK(close(got[1]));
    CHECK_EQ(read(p[0], &c, 1), 0);
    OK(pipe(p));
    CHECK_EQ(send_fds(sv[0], &p[1], 1, "w"), 1);
    OK(close(p[1]));
    CHECK_EQ(recv_fds(sv[1], got, 0, 0, &n, &flags), 0);
    CHECK(flags & MSG_CTRUNC);
    CHECK_EQ(read(p[0], &c, 1), 0);
}

TEST(read_drops_descriptors)
{
    int sv[2], p[2];
    char c;

    pair(SOCK_STREAM, sv);
    OK(pipe(p));
    CHECK_EQ(send_fds(sv[0], &p[1], 1, "w"), 1);
    OK(close(p[1]));
    CHECK_EQ(read(sv[1], &c, 1), 1);
    CHECK_EQ(read(p[0], &c, 1), 0);
}

TEST(descriptors_end_a_read)
{
    int sv[2], got[2];
    ssize_t n;

    pair(SOCK_STREAM, sv);
    CHECK_EQ(send_fds(sv[0], NULL, 0, "aa"), 2);
    CHECK_EQ(send_fds(sv[0], &sv[0], 1, "bb"), 2);
    CHECK_EQ(send_fds(sv[0], &sv[0], 1, "cc"), 2);
    CHECK_EQ(recv_fds(sv[1], got, 2, 0, &n, NULL), 1);
    CHECK_EQ(n, 4);
    CHECK_EQ(recv_fds(sv[1], got, 2, 0, &n, NULL), 1);
    CHECK_EQ(n, 2);
}

TEST(peek_duplicates_descriptors)
{
    int sv[2], got[1];
    ssize_t n;

    pair(SOCK_STREAM, sv);
    CHECK_EQ(send_fds(sv[0], &sv[0], 1, "x"), 1);
    CHECK_EQ(recv_fds(sv[1], got, 1, MSG_PEEK, &n, NULL), 1);
    OK(close(got[0]));
    CHECK_EQ(recv_fds(sv[1], got, 1, 0, &n, NULL), 1);
}

TEST(bad_ancillary_data)
{
    struct {
        struct cmsghdr h;
        int fd[2];
    } c = {.h = {.cmsg_len = CMSG_LEN(sizeof(int)),
                 .cmsg_level = SOL_SOCKET,
                 .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {(void *)(uintptr_t) "x", 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c};
    int sv[2];

    pair(SOCK_STREAM, sv);
    m.msg_controllen = sizeof(c);
    c.fd[0] = 12345;
    CHECK_ERRNO(sendmsg(sv[0], &m, 0), EBADF);
    c.fd[0] = sv[0];
    c.h.cmsg_len = 8;
    CHECK_ERRNO(sendmsg(sv[0], &m, 0), EINVAL);
    c.h.cmsg_len = 4096;
    CHECK_ERRNO(sendmsg(sv[0], &m, 0), EINVAL);
    c.h.cmsg_len = CMSG_LEN(sizeof(int));
    c.h.cmsg_type = 77;
    CHECK_ERRNO(sendmsg(sv[0], &m, 0), EINVAL);
    m.msg_control = (void *)8;
    CHECK_ERRNO(sendmsg(sv[0], &m, 0), EFAULT);
    m.msg_iovlen = 2000;
    CHECK_ERRNO(sendmsg(sv[0], &m, 0), EMSGSIZE);
    char b;
    CHECK_ERRNO(recv(sv[1], &b, 1, MSG_DONTWAIT), EAGAIN);
}

TEST(too_many_descriptors)
{
    int sv[2], fds[254], got[254];
    ssize_t n;

    pair(SOCK_STREAM, sv);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        fds[i] = sv[0];
    CHECK_ERRNO(send_fds(sv[0], fds, 254, "x"), EINVAL);
    CHECK_EQ(send_fds(sv[0], fds, 253, "x"), 1);
    CHECK_EQ(recv_fds(sv[1], got, 253, 0, &n, NULL), 253);
}

static void recv_cred(int fd, struct ucred *out)
{
    char control[CMSG_SPACE(sizeof(*out))] __attribute__((aligned(8))), b;
    struct iovec iov = {&b, 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};

    m.msg_controllen = sizeof(control);
    CHECK_EQ(recvmsg(fd, &m, 0), 1);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    CHECK(c && c->cmsg_type == SCM_CREDENTIALS && c->cmsg_len == CMSG_LEN(sizeof(*out)));
    memcpy(out, CMSG_DATA(c), sizeof(*out));
}

TEST(credentials_are_passed)
{
    struct ucred cr;
    int sv[2], on = 1;

    pair(SOCK_DGRAM, sv);
    OK(setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
    CHECK_EQ(send(sv[0], "x", 1, 0), 1);
    recv_cred(sv[1], &cr);
    CHECK_EQ(cr.pid, getpid());
    CHECK_EQ(cr.uid, getuid());
    CHECK_EQ(cr.gid, getgid());
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(send(sv[0], "y", 1, 0) != 1);
    recv_cred(sv[1], &cr);
    CHECK_EQ(cr.pid, pid);
    CHECK_EXIT(pid, 0);
}

static ssize_t send_cred(int fd, const struct ucred *cr)
{
    char control[CMSG_SPACE(sizeof(*cr))] __attribute__((aligned(8))) = {0};
    struct iovec iov = {(void *)(uintptr_t) "x", 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};

    m.msg_controllen = sizeof(control);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_CREDENTIALS;
    c->cmsg_len = CMSG_LEN(sizeof(*cr));
    memcpy(CMSG_DATA(c), cr, sizeof(*cr));
    return sendmsg(fd, &m, 0);
}

TEST(credentials_cannot_be_forged)
{
    NEED_ROOT();
    int sv[2], on = 1;

    OK(chmod(".", 0755));
    pair(SOCK_DGRAM, sv);
    OK(setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(1234);
        struct ucred cr = {getpid(), 1234, 1234};
        CHECK_EQ(send_cred(sv[0], &cr), 1);
        cr.uid = 0;
        CHECK_ERRNO(send_cred(sv[0], &cr), EPERM);
        cr = (struct ucred){1, 1234, 1234};
        CHECK_ERRNO(send_cred(sv[0], &cr), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(sockets_in_their_own_queues)
{
    /* Rings that nobody can reach any more; they must go when another socket is closed. */
    int p[2];
    char c;

    OK(pipe(p));
    for (int i = 0; i < 20; i++) {
        int a[2], b[2];
        pair(SOCK_STREAM, a);
        pair(SOCK_STREAM, b);
        int fds[2] = {b[1], p[1]};
        CHECK_EQ(send_fds(a[0], fds, 2, "x"), 1);
        CHECK_EQ(send_fds(b[0], &a[1], 1, "y"), 1);
        OK(close(a[0]));
        OK(close(a[1]));
        OK(close(b[0]));
        OK(close(b[1]));
    }
    OK(close(p[1]));
    OK(close(OK(socket(AF_UNIX, SOCK_STREAM, 0))));
    CHECK_EQ(read(p[0], &c, 1), 0);
}

TEST(long_chain_of_queues)
{
    /* Each socket waits in the queue of the next; closing the last one takes all of it apart. */
    int p[2], hold[2];
    char c;

    OK(pipe(p));
    pair(SOCK_STREAM, hold);
    CHECK_EQ(send_fds(hold[0], &p[1], 1, "x"), 1);
    OK(close(p[1]));
    OK(close(hold[0]));
    for (int i = 0; i < 3; i++) {
        int next[2];
        pair(SOCK_STREAM, next);
        CHECK_EQ(send_fds(next[0], &hold[1], 1, "x"), 1);
        OK(close(hold[1]));
        OK(close(next[0]));
        hold[1] = next[1];
    }
    OK(close(hold[1]));
    CHECK_EQ(read(p[0], &c, 1), 0);
}

/* ---- many messages ---- */

TEST(sendmmsg_and_recvmmsg)
{
    struct iovec out[3] = {{(void *)(uintptr_t) "a", 1},
                           {(void *)(uintptr_t) "bb", 2},
                           {(void *)(uintptr_t) "ccc", 3}};
    char buf[4][8];
    struct iovec in[4];
    struct mmsghdr s[3], r[4];
    int sv[2];

    memset(s, 0, sizeof(s));
    memset(r, 0, sizeof(r));
    for (int i = 0; i < 3; i++)
        s[i].msg_hdr = (struct msghdr){.msg_iov = &out[i], .msg_iovlen = 1};
    for (int i = 0; i < 4; i++) {
        in[i] = (struct iovec){buf[i], sizeof(buf[i])};
        r[i].msg_hdr = (struct msghdr){.msg_iov = &in[i], .msg_iovlen = 1};
    }
    pair(SOCK_DGRAM, sv);
    CHECK_EQ(sendmmsg(sv[0], s, 3, 0), 3);
    CHECK_EQ(s[2].msg_len, 3);
    CHECK_EQ(recvmmsg(sv[1], r, 4, MSG_DONTWAIT, NULL), 3);
    CHECK_EQ(r[1].msg_len, 2);
    CHECK_EQ(send(sv[0], "z", 1, 0), 1);
    CHECK_EQ(recvmmsg(sv[1], r, 4, MSG_WAITFORONE, NULL), 1);
    struct timespec bad = {-1, 0};
    CHECK_ERRNO(recvmmsg(sv[1], r, 4, 0, &bad), EINVAL);
}

/* ---- SO_PEEK_OFF ---- */

static int peek_off(int fd)
{
    int off = -7;
    socklen_t len = sizeof(off);

    OK(getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, &len));
    return off;
}

static void peek_from(int fd, int off)
{
    OK(setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off)));
}

/* The control message of that type at SOL_SOCKET that comes with the next one, or NULL. */
static void *recv_control(int fd, int type, int flags)
{
    static _Alignas(struct cmsghdr) char control[256];
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof(control)};

    CHECK_EQ(OK(recvmsg(fd, &m, flags)), 1);
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == type)
            return CMSG_DATA(h);
    return NULL;
}

TEST(time_stamps)
{
    static const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
    const int one = 1, zero = 0;
    struct timespec now;
    int fd[2];

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        const bool stamped = types[i] != SOCK_STREAM;
        OK(socketpair(AF_UNIX, types[i], 0, fd));
        for (int k = 0; k < 6; k++)
            CHECK_EQ(OK(send(fd[0], "x", 1, 0)), 1);
        CHECK(!recv_control(fd[1], SCM_TIMESTAMP, 0));
        OK(setsockopt(fd[1], SOL_SOCKET, SO_TIMESTAMP, &one, sizeof(one)));
        OK(clock_gettime(CLOCK_REALTIME, &now));
        CHECK_EQ(recv_control(fd[1], SCM_TIMESTAMP, MSG_PEEK) != NULL, stamped);
        struct timeval *tv = recv_control(fd[1], SCM_TIMESTAMP, 0);
        CHECK_EQ(tv != NULL, stamped);
        CHECK(!tv || (tv->tv_sec >= now.tv_sec && tv->tv_sec - now.tv_sec < 60));
        OK(setsockopt(fd[1], SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof(one)));
        CHECK(!recv_control(fd[1], SCM_TIMESTAMP, 0));
        struct timespec *ts = recv_control(fd[1], SCM_TIMESTAMPNS, 0);
        CHECK_EQ(ts != NULL, stamped);
        CHECK(!ts || (ts->tv_sec >= now.tv_sec && ts->tv_nsec < 1000000000));
        OK(setsockopt(fd[1], SOL_SOCKET, SO_TIMESTAMPNS, &zero, sizeof(zero)));
        CHECK(!recv_control(fd[1], SCM_TIMESTAMPNS, 0));
        OK(close(fd[0]));
        OK(close(fd[1]));
    }
}

TEST(peek_off_of_streams)
{
    char buf[16];
    int fd[2];

    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
    CHECK_EQ(peek_off(fd[1]), -1);
    peek_from(fd[1], 2);
    CHECK_EQ(send(fd[0], "abcd", 4, 0), 4);
    CHECK_EQ(send(fd[0], "efgh", 4, 0), 4);
    CHECK_EQ(recv(fd[1], buf, 1, MSG_PEEK), 1);
    CHECK_EQ(buf[0], 'c');
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), MSG_PEEK), 5);
    CHECK_EQ(memcmp(buf, "defgh", 5), 0);
    CHECK_EQ(peek_off(fd[1]), 8);
    CHECK_ERRNO(recv(fd[1], buf, sizeof(buf), MSG_PEEK | MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(recv(fd[1], buf, 3, 0), 3);
    CHECK_EQ(memcmp(buf, "abc", 3), 0);
    CHECK_EQ(peek_off(fd[1]), 5);
    CHECK_EQ(send(fd[0], "ij", 2, 0), 2);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), MSG_PEEK), 2);
    CHECK_EQ(memcmp(buf, "ij", 2), 0);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), 0), 7);
    CHECK_EQ(peek_off(fd[1]), 0);
}

TEST(peek_off_of_packets)
{
    static const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET};
    char buf[16];
    int fd[2];

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        OK(socketpair(AF_UNIX, types[i], 0, fd));
        peek_from(fd[1], 1);
        CHECK_EQ(send(fd[0], "abc", 3, 0), 3);
        CHECK_EQ(send(fd[0], "defg", 4, 0), 4);
        CHECK_EQ(recv(fd[1], buf, 1, MSG_PEEK), 1);
        CHECK_EQ(buf[0], 'b');
        CHECK_EQ(recv(fd[1], buf, sizeof(buf), MSG_PEEK | MSG_TRUNC), 1);
        CHECK_EQ(buf[0], 'c');
        CHECK_EQ(recv(fd[1], buf, 2, MSG_PEEK | MSG_TRUNC), 4);
        CHECK_EQ(peek_off(fd[1]), 5);
        CHECK_EQ(recv(fd[1], buf, sizeof(buf), 0), 3);
        CHECK_EQ(peek_off(fd[1]), 2);
        CHECK_EQ(recv(fd[1], buf, sizeof(buf), MSG_PEEK), 2);
        CHECK_EQ(memcmp(buf, "fg", 2), 0);
        CHECK_EQ(recv(fd[1], buf, sizeof(buf), 0), 4);
        CHECK_EQ(peek_off(fd[1]), 0);
    }
}

/* ---- MSG_OOB ---- */

static int at_mark(int fd)
{
    int yes = -1;

    OK(ioctl(fd, SIOCATMARK, &yes));
    return yes;
}

static void oob_pair(int fd[2])
{
    OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd));
}

static int revents(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLPRI};

    OK(poll(&p, 1, 0));
    return p.revents;
}

TEST(oob_received_apart)
{
    char buf[16];
    int fd[2];

    oob_pair(fd);
    CHECK_ERRNO(recv(fd[1], buf, 1, MSG_OOB), EINVAL);
    CHECK_ERRNO(send(fd[0], "", 0, MSG_OOB), EOPNOTSUPP);
    CHECK_EQ(send(fd[0], "abc", 3, MSG_OOB), 3);
    CHECK_EQ(revents(fd[1]), POLLIN | POLLPRI);
    CHECK_EQ(at_mark(fd[1]), 0);
    CHECK_EQ(recv(fd[1], buf, 1, MSG_OOB | MSG_PEEK), 1);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), MSG_OOB), 1);
    CHECK_EQ(buf[0], 'c');
    CHECK_ERRNO(recv(fd[1], buf, 1, MSG_OOB), EINVAL);
    CHECK_EQ(revents(fd[1]), POLLIN);
    CHECK_EQ(send(fd[0], "de", 2, 0), 2);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), 0), 2);
    CHECK_EQ(memcmp(buf, "ab", 2), 0);
    CHECK_EQ(at_mark(fd[1]), 1);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), 0), 2);
    CHECK_EQ(memcmp(buf, "de", 2), 0);
    CHECK_EQ(at_mark(fd[1]), 0);
}

TEST(oob_passed_over)
{
    char buf[16];
    int fd[2];

    oob_pair(fd);
    CHECK_EQ(send(fd[0], "abc", 3, MSG_OOB), 3);
    CHECK_EQ(send(fd[0], "de", 2, 0), 2);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), 0), 2);
    CHECK_EQ(at_mark(fd[1]), 1);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), MSG_PEEK), 2);
    CHECK_EQ(memcmp(buf, "de", 2), 0);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), 0), 2);
    CHECK_EQ(memcmp(buf, "de", 2), 0);
    CHECK_ERRNO(recv(fd[1], buf, 1, MSG_OOB), EINVAL);
}

TEST(oob_in_line)
{
    char buf[16];
    int fd[2], one = 1;

    oob_pair(fd);
    OK(setsockopt(fd[1], SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one)));
    CHECK_EQ(send(fd[0], "abc", 3, MSG_OOB), 3);
    CHECK_ERRNO(recv(fd[1], buf, 1, MSG_OOB), EINVAL);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), 0), 2);
    CHECK_EQ(at_mark(fd[1]), 1);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), 0), 1);
    CHECK_EQ(buf[0], 'c');
}

TEST(oob_again)
{
    char buf[16];
    int fd[2];

    oob_pair(fd);
    CHECK_EQ(send(fd[0], "a", 1, MSG_OOB), 1);
    CHECK_EQ(send(fd[0], "b", 1, MSG_OOB), 1);
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), MSG_OOB), 1);
    CHECK_EQ(buf[0], 'b');
    CHECK_EQ(recv(fd[1], buf, sizeof(buf), 0), 1);
    CHECK_EQ(buf[0], 'a');
    CHECK_ERRNO(recv(fd[1], buf, sizeof(buf), 0), EAGAIN);
}

TEST(oob_alone_is_no_data)
{
    char buf[16];
    int fd[2];

    oob_pair(fd);
    CHECK_EQ(send(fd[0], "a", 1, MSG_OOB), 1);
    CHECK_ERRNO(recv(fd[1], buf, sizeof(buf), MSG_PEEK), EAGAIN);
    CHECK_ERRNO(recv(fd[1], buf, sizeof(buf), 0), EAGAIN);
    CHECK_ERRNO(recv(fd[1], buf, sizeof(buf), MSG_OOB), EINVAL);
    OK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd));
    CHECK_ERRNO(send(fd[0], "a", 1, MSG_OOB), EOPNOTSUPP);
}

/* ---- who is at the other end, by descriptor ---- */

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#define SO_PEERPIDFD 77
#endif
#define SCM_PIDFD_TYPE 4

static bool names_process(int fd, pid_t pid)
{
    char path[64], line[256];
    int found = 0;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    FILE *f = fopen(path, "re");
    CHECK(f);
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "Pid: %d", &found) == 1)
            break;
    CHECK_EQ(fclose(f), 0);
    return found == pid;
}

TEST(pidfd_of_the_peer)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "pidfd.sock"};
    int l = OK(socket(AF_UNIX, SOCK_STREAM, 0)), fd = -1, sv[2];
    socklen_t len = sizeof(fd);

    CHECK_ERRNO(getsockopt(l, SOL_SOCKET, SO_PEERPIDFD, &fd, &len), ENODATA);
    OK(bind(l, (struct sockaddr *)&a, sizeof(a)));
    OK(listen(l, 1));
    pid_t pid = OK(fork());
    if (pid == 0) {
        int c = socket(AF_UNIX, SOCK_STREAM, 0);
        char b;
        if (connect(c, (struct sockaddr *)&a, sizeof(a)) != 0)
            _exit(1);
        _exit(read(c, &b, 1) == 0 ? 7 : 2);
    }
    int s = OK(accept(l, NULL, NULL));
    len = sizeof(fd);
    OK(getsockopt(s, SOL_SOCKET, SO_PEERPIDFD, &fd, &len));
    CHECK_EQ(len, sizeof(fd));
    CHECK(names_process(fd, pid));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 0), 0);
    OK(close(s));
    CHECK_EQ(OK(poll(&p, 1, -1)), 1);
    siginfo_t si;
    OK(waitid((idtype_t)P_PIDFD, (id_t)fd, &si, WEXITED));
    CHECK_EQ(si.si_status, 7);
    pair(SOCK_DGRAM, sv);
    len = sizeof(fd);
    OK(getsockopt(sv[0], SOL_SOCKET, SO_PEERPIDFD, &fd, &len));
    CHECK(names_process(fd, getpid()));
    int t = OK(socket(AF_INET, SOCK_STREAM, 0));
    len = sizeof(fd);
    CHECK_ERRNO(getsockopt(t, SOL_SOCKET, SO_PEERPIDFD, &fd, &len), ENODATA);
}

/* The descriptor that came, or -1; *flags as recvmsg(2) gives them. */
static int recv_pidfd(int sock, size_t space, int *flags)
{
    char control[256] __attribute__((aligned(8))), b;
    struct iovec iov = {&b, 1};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = space};
    int fd = -1;

    OK(recvmsg(sock, &m, 0));
    *flags = m.msg_flags;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_PIDFD_TYPE &&
            c->cmsg_len == CMSG_LEN(sizeof(int)))
            memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    return fd;
}

TEST(pidfd_with_messages)
{
    int sv[2], on = 1, flags;
    socklen_t len = sizeof(on);

    pair(SOCK_STREAM, sv);
    OK(getsockopt(sv[1], SOL_SOCKET, SO_PASSPIDFD, &on, &len));
    CHECK_EQ(on, 0);
    on = 3;
    OK(setsockopt(sv[1], SOL_SOCKET, SO_PASSPIDFD, &on, sizeof(on)));
    OK(getsockopt(sv[1], SOL_SOCKET, SO_PASSPIDFD, &on, &len));
    CHECK_EQ(on, 1);
    pid_t pid = OK(fork());
    if (pid == 0)
        _exit(write(sv[0], "abc", 3) == 3 && read(sv[0], &on, 1) == 1 ? 0 : 1);
    int fd = recv_pidfd(sv[1], 256, &flags);
    CHECK(names_process(fd, pid));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(flags & MSG_CTRUNC, 0);
    CHECK_EQ(recv_pidfd(sv[1], 8, &flags), -1);
    CHECK_EQ(flags & MSG_CTRUNC, MSG_CTRUNC);
    OK(setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
    CHECK(names_process(recv_pidfd(sv[1], 256, &flags), pid));
    CHECK_EQ(write(sv[1], "x", 1), 1);
    OK(waitpid(pid, NULL, 0));
    on = 0;
    OK(setsockopt(sv[1], SOL_SOCKET, SO_PASSPIDFD, &on, sizeof(on)));
    CHECK_EQ(write(sv[0], "d", 1), 1);
    CHECK_EQ(recv_pidfd(sv[1], 256, &flags), -1);
}

/* What sends a byte along a new connection, and is reaped then; its number. *s: the other end. */
static pid_t gone_peer(int l, const struct sockaddr_un *a, int *s)
{
    const pid_t pid = OK(fork());

    if (pid == 0) {
        int c = socket(AF_UNIX, SOCK_STREAM, 0), on = 1;
        _exit(connect(c, (const struct sockaddr *)a, sizeof(*a)) == 0 &&
                      setsockopt(c, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0 &&
                      write(c, "x", 1) == 1
                  ? 0
                  : 1);
    }
    CHECK_EXIT(pid, 0);
    *s = OK(accept(l, NULL, NULL));
    return pid;
}

/* A child that has the number nr. */
static pid_t child_with_number(pid_t nr)
{
    struct clone_args a = {
        .exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&nr, .set_tid_size = 1};
    const long pid = OK(syscall(SYS_clone3, &a, sizeof(a)));

    if (pid == 0) {
        pause();
        _exit(0);
    }
    return (pid_t)pid;
}

static void check_gone(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    siginfo_t si;

    CHECK(fd >= 0);
    CHECK(names_process(fd, -1));
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLIN | POLLHUP);
    CHECK_ERRNO(waitid((idtype_t)P_PIDFD, (id_t)fd, &si, WEXITED), ECHILD);
    CHECK_ERRNO(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0), ESRCH);
}

static void peer_that_is_gone(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "gone.sock"};
    int l = OK(socket(AF_UNIX, SOCK_STREAM, 0)), fd = -1, on = 1, flags, s;
    socklen_t len = sizeof(fd);

    OK(bind(l, (struct sockaddr *)&a, sizeof(a)));
    OK(listen(l, 1));
    const pid_t pid = gone_peer(l, &a, &s), next = child_with_number(pid);
    CHECK_EQ(next, pid);
    OK(getsockopt(s, SOL_SOCKET, SO_PEERPIDFD, &fd, &len));
    check_gone(fd);
    OK(setsockopt(s, SOL_SOCKET, SO_PASSPIDFD, &on, sizeof(on)));
    check_gone(recv_pidfd(s, 256, &flags));
    OK(kill(next, SIGKILL));
    CHECK_KILLED(next, SIGKILL);
}

/* Not whoever has got the number meanwhile. In a pid namespace, where numbers can be chosen. */
TEST(pidfd_of_a_peer_that_is_gone)
{
    const pid_t pid =
        (pid_t)OK(syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0));

    if (pid == 0) {
        peer_that_is_gone();
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

/* Who asks for a message's sender only when it has been sent learns of none. */
TEST(pidfd_asked_for_too_late)
{
    int sv[2], on = 1, flags;

    pair(SOCK_STREAM, sv);
    CHECK_EQ(write(sv[0], "x", 1), 1);
    OK(setsockopt(sv[1], SOL_SOCKET, SO_PASSPIDFD, &on, sizeof(on)));
    CHECK_EQ(recv_pidfd(sv[1], 256, &flags), -1);
    CHECK_EQ(write(sv[0], "y", 1), 1);
    CHECK(names_process(recv_pidfd(sv[1], 256, &flags), getpid()));
}

TEST(groups_of_the_peer)
{
    gid_t mine[3] = {11, 5, 900}, got[8] = {0};
    int sv[2], u = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    socklen_t len = sizeof(got);

    CHECK_ERRNO(getsockopt(u, SOL_SOCKET, SO_PEERGROUPS, got, &len), ENODATA);
    if (setgroups(3, mine) != 0)
        conf_skip("may not set groups");
    pair(SOCK_STREAM, sv);
    OK(setgroups(0, NULL));
    len = 8;
    CHECK_ERRNO(getsockopt(sv[0], SOL_SOCKET, SO_PEERGROUPS, got, &len), ERANGE);
    CHECK_EQ(len, 12);
    len = sizeof(got);
    OK(getsockopt(sv[0], SOL_SOCKET, SO_PEERGROUPS, got, &len));
    CHECK_EQ(len, 12);
    CHECK(got[0] == 5 && got[1] == 11 && got[2] == 900);
    pair(SOCK_STREAM, sv);
    len = sizeof(got);
    OK(getsockopt(sv[0], SOL_SOCKET, SO_PEERGROUPS, got, &len));
    CHECK_EQ(len, 0);
}
