/* AF_UNIX sockets: streams, packets, names, connections, descriptors and credentials in messages.
 */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

CONF_FAMILY("unix");

/* ---- helpers ---- */

static void pair(int type, int sv[2])
{
    OK(socketpair(AF_UNIX, type, 0, sv));
}

static socklen_t path_addr(struct sockaddr_un *a, const char *path)
{
    memset(a, 0, sizeof(*a));
    a->sun_family = AF_UNIX;
    strncpy(a->sun_path, path, sizeof(a->sun_path) - 1);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
}

static socklen_t abstract_addr(struct sockaddr_un *a, const char *name)
{
    memset(a, 0, sizeof(*a));
    a->sun_family = AF_UNIX;
    int n = snprintf(a->sun_path + 1, sizeof(a->sun_path) - 1, "%s-%d", name, getpid());
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int bound(int type, const char *path)
{
    struct sockaddr_un a;
    socklen_t len = path_addr(&a, path);
    int fd = OK(socket(AF_UNIX, type, 0));

    OK(bind(fd, (struct sockaddr *)&a, len));
    return fd;
}

static int listener(int type, const char *path, int backlog)
{
    int fd = bound(type, path);

    OK(listen(fd, backlog));
    return fd;
}

static int try_connect(int fd, const char *path)
{
    struct sockaddr_un a;
    socklen_t len = path_addr(&a, path);

    return connect(fd, (struct sockaddr *)&a, len);
}

static int connected(int type, const char *path)
{
    int fd = OK(socket(AF_UNIX, type, 0));

    OK(try_connect(fd, path));
    return fd;
}

static int events_of(int fd, int want)
{
    struct pollfd p = {.fd = fd, .events = (short)want};

    OK(poll(&p, 1, 0));
    return p.revents;
}

static void noted(int sig)
{
    (void)sig;
}

/* ---- streams ---- */

TEST(pair_carries_bytes_both_ways)
{
    int sv[2];
    char buf[16];

    pair(SOCK_STREAM, sv);
    CHECK_EQ(write(sv[0], "hello", 5), 5);
    CHECK_EQ(write(sv[1], "world!", 6), 6);
    CHECK_EQ(read(sv[1], buf, sizeof(buf)), 5);
    CHECK(memcmp(buf, "hello", 5) == 0);
    CHECK_EQ(read(sv[0], buf, sizeof(buf)), 6);
}

TEST(stream_has_no_boundaries)
{
    int sv[2];
    char buf[16];

    pair(SOCK_STREAM, sv);
    CHECK_EQ(write(sv[0], "abc", 3), 3);
    CHECK_EQ(write(sv[0], "def", 3), 3);
    CHECK_EQ(read(sv[1], buf, 4), 4);
    CHECK(memcmp(buf, "abcd", 4) == 0);
    CHECK_EQ(read(sv[1], buf, sizeof(buf)), 2);
    CHECK(memcmp(buf, "ef", 2) == 0);
}

TEST(close_gives_end_of_file)
{
    int sv[2];
    char c;

    pair(SOCK_STREAM, sv);
    CHECK_EQ(write(sv[0], "x", 1), 1);
    OK(close(sv[0]));
    CHECK_EQ(read(sv[1], &c, 1), 1);
    CHECK_EQ(read(sv[1], &c, 1), 0);
}

TEST(close_with_unread_data_resets)
{
    int sv[2];
    char c;

    pair(SOCK_STREAM, sv);
    CHECK_EQ(write(sv[0], "x", 1), 1);
    OK(close(sv[1]));
    CHECK_ERRNO(read(sv[0], &c, 1), ECONNRESET);
    CHECK_EQ(read(sv[0], &c, 1), 0);
}

TEST(write_after_close_raises_sigpipe)
{
    int sv[2];

    pair(SOCK_STREAM, sv);
    OK(close(sv[1]));
    pid_t pid = conf_fork();
    if (pid == 0) {
        (void)!write(sv[0], "x", 1);
        _exit(0);
    }
    CHECK_KILLED(pid, SIGPIPE);
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
}

TEST(shutdown_of_one_direction)
{
    int sv[2];
    char c;

    conf_handler(SIGPIPE, noted, 0);
    pair(SOCK_STREAM, sv);
    OK(shutdown(sv[0], SHUT_WR));
    CHECK_EQ(read(sv[1], &c, 1), 0);
    CHECK_ERRNO(write(sv[0], "x", 1), EPIPE);
    CHECK_EQ(write(sv[1], "y", 1), 1);
    CHECK_EQ(read(sv[0], &c, 1), 1);
    CHECK_EQ(events_of(sv[1], POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLRDHUP);
    CHECK_ERRNO(shutdown(sv[0], 3), EINVAL);
}

TEST(shutdown_of_both_hangs_up)
{
    int sv[2];

    pair(SOCK_STREAM, sv);
    OK(shutdown(sv[0], SHUT_RDWR));
    CHECK((events_of(sv[0], POLLIN) & (POLLIN | POLLHUP)) == (POLLIN | POLLHUP));
    CHECK((events_of(sv[1], POLLIN) & (POLLIN | POLLHUP)) == (POLLIN | POLLHUP));
}

TEST(full_stream_would_block)
{
    int sv[2];
    static char buf[65536];
    ssize_t total = 0, n;

    pair(SOCK_STREAM | SOCK_NONBLOCK, sv);
    while ((n = write(sv[0], buf, sizeof(buf))) > 0)
        total += n;
    CHECK_EQ(errno, EAGAIN);
    CHECK(total >= 65536);
    CHECK_EQ(events_of(sv[0], POLLOUT), 0);
    for (ssize_t got = 0; got < total;) {
        n = OK(read(sv[1], buf, sizeof(buf)));
        got += n;
    }
    CHECK_ERRNO(read(sv[1], buf, 1), EAGAIN);
    CHECK_EQ(events_of(sv[0], POLLOUT), POLLOUT);
}

static void *drain(void *arg)
{
    int fd = *(int *)arg;
    static char buf[4096];
    long total = 0;
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf))) > 0)
        total += n;
    return (void *)total;
}

TEST(large_write_blocks_till_read)
{
    const size_t size = 4 << 20;
    char *big = OK(malloc(size));
    pthread_t th;
    void *total;
    int sv[2];

    memset(big, 'z', size);
    pair(SOCK_STREAM, sv);
    CHECK_EQ(pthread_create(&th, NULL, drain, &sv[1]), 0);
    CHECK_EQ(write(sv[0], big, size), (ssize_t)size);
    OK(close(sv[0]));
    CHECK_EQ(pthread_join(th, &total), 0);
    CHECK_EQ((long)total, (long)size);
    free(big);
}

TEST(peek_leaves_bytes)
{
    int sv[2];
    char buf[8] = "";

    pair(SOCK_STREAM, sv);
    CHECK_EQ(write(sv[0], "abc", 3), 3);
    CHECK_EQ(write(sv[0], "de", 2), 2);
    CHECK_EQ(recv(sv[1], buf, sizeof(buf), MSG_PEEK), 5);
    CHECK_EQ(recv(sv[1], buf, 2, MSG_PEEK), 2);
    CHECK_EQ(recv(sv[1], buf, sizeof(buf), 0), 5);
    CHECK(memcmp(buf, "abcde", 5) == 0);
}

static void *late_writer(void *arg)
{
    int fd = *(int *)arg;

    conf_await_asleep(getpid());
    (void)!write(fd, "def", 3);
    return NULL;
}

TEST(waitall_waits_for_all)
{
    pthread_t th;
    char buf[8];
    int sv[2];

    pair(SOCK_STREAM, sv);
    CHECK_EQ(write(sv[0], "abc", 3), 3);
    CHECK_EQ(pthread_create(&th, NULL, late_writer, &sv[0]), 0);
    CHECK_EQ(recv(sv[1], buf, 6, MSG_WAITALL), 6);
    CHECK(memcmp(buf, "abcdef", 6) == 0);
    CHECK_EQ(pthread_join(th, NULL), 0);
}

TEST(dontwait_on_an_empty_stream)
{
    int sv[2];
    char c;

    pair(SOCK_STREAM, sv);
    CHECK_ERRNO(recv(sv[0], &c, 1, MSG_DONTWAIT), EAGAIN);
}

TEST(receive_timeout)
{
    struct timeval tv = {0, 30000};
    int sv[2];
    char c;

    pair(SOCK_STREAM, sv);
    OK(setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
    int64_t start = conf_now();
    CHECK_ERRNO(recv(sv[0], &c, 1, 0), EAGAIN);
    CHECK(conf_now() - start >= 25000000);
}

TEST(interrupted_receive_restarts_or_not)
{
    int sv[2];
    char c = 0;

    pair(SOCK_STREAM, sv);
    conf_handler(SIGALRM, noted, 0);
    ualarm(20000, 20000);
    CHECK_ERRNO(read(sv[0], &c, 1), EINTR);
    conf_handler(SIGALRM, noted, SA_RESTART);
    pid_t pid = conf_fork();
    if (pid == 0) {
        /* Some signals come while the parent reads. */
        conf_await_asleep(getppid());
        conf_sleep_ms(60);
        _exit(write(sv[1], "r", 1) != 1);
    }
    ualarm(20000, 20000);
    CHECK_EQ(read(sv[0], &c, 1), 1);
    CHECK_EQ(c, 'r');
    CHECK_EXIT(pid, 0);
}

TEST(readv_and_writev)
{
    char a[3], b[4];
    struct iovec out[2] = {{(void *)(uintptr_t) "abc", 3}, {(void *)(uintptr_t) "defg", 4}};
    struct iovec in[2] = {{a, sizeof(a)}, {b, sizeof(b)}};
    int sv[2];

    pair(SOCK_STREAM, sv);
    CHECK_EQ(writev(sv[0], out, 2), 7);
    CHECK_EQ(readv(sv[1], in, 2), 7);
    CHECK(memcmp(a, "abc", 3) == 0 && memcmp(b, "defg", 4) == 0);
}

TEST(seek_and_pread_are_refused)
{
    int sv[2];
    char c;

    pair(SOCK_STREAM, sv);
    CHECK_ERRNO(lseek(sv[0], 0, SEEK_SET), ESPIPE);
    CHECK_ERRNO(pread(sv[0], &c, 1, 0), ESPIPE);
    CHECK_ERRNO(ftruncate(sv[0], 0), EINVAL);
    CHECK_ERRNO(fsync(sv[0]), EINVAL);
}

TEST(fionread_counts)
{
    int sv[2], n = -1;
    char c;

    pair(SOCK_STREAM, sv);
    OK(ioctl(sv[1], FIONREAD, &n));
    CHECK_EQ(n, 0);
    CHECK_EQ(write(sv[0], "abc", 3), 3);
    CHECK_EQ(write(sv[0], "de", 2), 2);
    OK(ioctl(sv[1], FIONREAD, &n));
    CHECK_EQ(n, 5);
    CHECK_EQ(read(sv[1], &c, 1), 1);
    OK(ioctl(sv[1], FIONREAD, &n));
    CHECK_EQ(n, 4);
    OK(ioctl(sv[0], TIOCOUTQ, &n));
    CHECK(n > 0);
    int one = 1;
    OK(ioctl(sv[1], FIONBIO, &one));
    CHECK(fcntl(sv[1], F_GETFL) & O_NONBLOCK);
}

/* ---- packets ---- */

TEST(datagrams_keep_boundaries)
{
    int sv[2];
    char buf[8];

    pair(SOCK_DGRAM, sv);
    CHECK_EQ(send(sv[0], "abc", 3, 0), 3);
    CHECK_EQ(send(sv[0], "", 0, 0), 0);
    CHECK_EQ(send(sv[0], "defgh", 5, 0), 5);
    CHECK_EQ(recv(sv[1], buf, sizeof(buf), 0), 3);
    CHECK_EQ(recv(sv[1], buf, sizeof(buf), 0), 0);
    CHECK_EQ(recv(sv[1], buf, 2, 0), 2);
    CHECK_ERRNO(recv(sv[1], buf, 2, MSG_DONTWAIT), EAGAIN);
}

TEST(truncation_is_told)
{
    struct iovec iov;
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    char buf[4];
    int sv[2];

    pair(SOCK_DGRAM, sv);
    CHECK_EQ(send(sv[0], "abcdefgh", 8, 0), 8);
    CHECK_EQ(send(sv[0], "abcdefgh", 8, 0), 8);
    CHECK_EQ(recv(sv[1], buf, sizeof(buf), MSG_TRUNC), 8);
    iov = (struct iovec){buf, sizeof(buf)};
    CHECK_EQ(recvmsg(sv[1], &m, 0), 4);
    CHECK_EQ(m.msg_flags & MSG_TRUNC, MSG_TRUNC);
}

TEST(seqpacket_is_connected_and_bounded)
{
    int sv[2];
    char buf[8];

    pair(SOCK_SEQPACKET, sv);
    CHECK_EQ(send(sv[0], "abc", 3, 0), 3);
    CHECK_EQ(send(sv[0], "de", 2, 0), 2);
    CHECK_EQ(recv(sv[1], buf, sizeof(buf), 0), 3);
    OK(close(sv[0]));
    CHECK_EQ(recv(sv[1], buf, sizeof(buf), 0), 2);
    CHECK_EQ(recv(sv[1], buf, sizeof(buf), 0), 0);
    CHECK_ERRNO(send(sv[1], "x", 1, 0), EPIPE);
}

TEST(datagram_too_large)
{
    size_t size = 8 << 20;
    char *big = OK(malloc(size));
    int sv[2];

    memset(big, 1, size);
    pair(SOCK_DGRAM, sv);
    CHECK_ERRNO(send(sv[0], big, size, 0), EMSGSIZE);
    free(big);
}

TEST(sendto_a_path_and_reply)
{
    int server = bound(SOCK_DGRAM, "server"), client = bound(SOCK_DGRAM, "client");
    struct sockaddr_un a, from;
    socklen_t len = path_addr(&a, "server"), from_len = sizeof(from);
    char buf[8];

    CHECK_EQ(sendto(client, "hi", 2, 0, (struct sockaddr *)&a, len), 2);
    CHECK_EQ(recvfrom(server, buf, sizeof(buf), 0, (struct sockaddr *)&from, &from_len), 2);
    CHECK_STR(from.sun_path, "client");
    CHECK_EQ(from_len, offsetof(struct sockaddr_un, sun_path) + 7);
    CHECK_EQ(sendto(server, "yo!", 3, 0, (struct sockaddr *)&from, from_len), 3);
    CHECK_EQ(recv(client, buf, sizeof(buf), 0), 3);
}

TEST(unnamed_sender_has_no_address)
{
    int server = bound(SOCK_DGRAM, "server"), client = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    struct sockaddr_un a, from;
    socklen_t len = path_addr(&a, "server"), from_len = sizeof(from);
    char buf[8];

    CHECK_EQ(sendto(client, "hi", 2, 0, (struct sockaddr *)&a, len), 2);
    CHECK_EQ(recvfrom(server, buf, sizeof(buf), 0, (struct sockaddr *)&from, &from_len), 2);
    CHECK_EQ(from_len, 0);
}

TEST(datagram_errors)
{
    int fd = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), other, sv[2];
    struct sockaddr_un a;

    CHECK_ERRNO(send(fd, "x", 1, 0), ENOTCONN);
    CHECK_ERRNO(try_connect(fd, "nothing"), ENOENT);
    conf_put("file", "");
    CHECK_ERRNO(try_connect(fd, "file"), ECONNREFUSED);
    other = bound(SOCK_DGRAM, "other");
    OK(try_connect(fd, "other"));
    OK(close(other));
    CHECK_ERRNO(send(fd, "x", 1, 0), ECONNREFUSED);
    CHECK_ERRNO(send(fd, "x", 1, 0), ENOTCONN);
    CHECK_ERRNO(listen(fd, 1), EOPNOTSUPP);
    CHECK_ERRNO(accept(fd, NULL, NULL), EOPNOTSUPP);
    pair(SOCK_DGRAM, sv);
    OK(close(sv[1]));
    CHECK_ERRNO(send(sv[0], "x", 1, 0), ECONNREFUSED);
    memset(&a, 0, sizeof(a));
    OK(connect(fd, (struct sockaddr *)&a, sizeof(sa_family_t)));
}

TEST(connected_datagram_takes_from_its_peer_only)
{
    int server = bound(SOCK_DGRAM, "server"), client = bound(SOCK_DGRAM, "client");
    int stranger = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    struct sockaddr_un a;
    socklen_t len = path_addr(&a, "server");

    OK(try_connect(server, "client"));
    CHECK_ERRNO(sendto(stranger, "x", 1, 0, (struct sockaddr *)&a, len), EPERM);
    CHECK_ERRNO(try_connect(stranger, "server"), EPERM);
    CHECK_EQ(sendto(client, "x", 1, 0, (struct sockaddr *)&a, len), 1);
}

/* ---- names and connections ---- */

TEST(bind_makes_a_socket_file)
{
    struct sockaddr_un a;
    socklen_t len = sizeof(a);
    struct stat st;
    int fd = bound(SOCK_STREAM, "sock");

    OK(stat("sock", &st));
    CHECK(S_ISSOCK(st.st_mode));
    CHECK_EQ(st.st_mode & 0777, 0755);
    OK(getsockname(fd, (struct sockaddr *)&a, &len));
    CHECK_EQ(len, offsetof(struct sockaddr_un, sun_path) + 5);
    CHECK_STR(a.sun_path, "sock");
    CHECK_ERRNO(open("sock", O_RDWR), ENXIO);
}

TEST(bind_errors)
{
    struct sockaddr_un a;
    socklen_t len = path_addr(&a, "taken");
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0)), other;

    conf_put("taken", "");
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, len), EADDRINUSE);
    len = path_addr(&a, "missing/x");
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, len), ENOENT);
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, sizeof(a) + 1), EINVAL);
    a.sun_family = AF_INET;
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, len), EINVAL);
    other = bound(SOCK_STREAM, "once");
    len = path_addr(&a, "twice");
    CHECK_ERRNO(bind(other, (struct sockaddr *)&a, len), EINVAL);
    CHECK(!conf_exists("twice"));
    CHECK_ERRNO(bind(0x7fff, (struct sockaddr *)&a, len), EBADF);
    CHECK_ERRNO(bind(OK(open("taken", O_RDONLY)), (struct sockaddr *)&a, len), ENOTSOCK);
}

TEST(connect_accept_and_talk)
{
    int l = listener(SOCK_STREAM, "l", 5), c = connected(SOCK_STREAM, "l");
    struct sockaddr_un a;
    socklen_t len = sizeof(a);
    char buf[4];

    int s = OK(accept(l, (struct sockaddr *)&a, &len));
    CHECK_EQ(len, sizeof(sa_family_t));
    CHECK_EQ(write(c, "ping", 4), 4);
    CHECK_EQ(read(s, buf, 4), 4);
    CHECK_EQ(write(s, "pong", 4), 4);
    CHECK_EQ(read(c, buf, 4), 4);
    len = sizeof(a);
    OK(getpeername(c, (struct sockaddr *)&a, &len));
    CHECK_STR(a.sun_path, "l");
    len = sizeof(a);
    OK(getsockname(s, (struct sockaddr *)&a, &len));
    CHECK_STR(a.sun_path, "l");
}

TEST(data_before_accept)
{
    int l = listener(SOCK_STREAM, "l", 5), c = connected(SOCK_STREAM, "l");
    char buf[8];

    CHECK_EQ(write(c, "early", 5), 5);
    OK(close(c));
    int s = OK(accept(l, NULL, NULL));
    CHECK_EQ(read(s, buf, sizeof(buf)), 5);
    CHECK_EQ(read(s, buf, sizeof(buf)), 0);
}

TEST(abstract_names)
{
    struct sockaddr_un a, b;
    socklen_t len = abstract_addr(&a, "conf"), got = sizeof(b);
    int l = OK(socket(AF_UNIX, SOCK_STREAM, 0)), c = OK(socket(AF_UNIX, SOCK_STREAM, 0));

    OK(bind(l, (struct sockaddr *)&a, len));
    CHECK_ERRNO(bind(c, (struct sockaddr *)&a, len), EADDRINUSE);
    CHECK_ERRNO(connect(c, (struct sockaddr *)&a, len), ECONNREFUSED);
    OK(listen(l, 1));
    OK(connect(c, (struct sockaddr *)&a, len));
    OK(getpeername(c, (struct sockaddr *)&b, &got));
    CHECK_EQ(got, len);
    CHECK(memcmp(&a, &b, len) == 0);
    OK(close(l));
    int d = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK_ERRNO(connect(d, (struct sockaddr *)&a, len), ECONNREFUSED);
    OK(bind(d, (struct sockaddr *)&a, len));
}

TEST(autobind_chooses_a_name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(a);
    int fd = OK(socket(AF_UNIX, SOCK_DGRAM, 0));

    OK(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)));
    OK(getsockname(fd, (struct sockaddr *)&a, &len));
    CHECK_EQ(len, sizeof(sa_family_t) + 6);
    CHECK_EQ(a.sun_path[0], 0);
}

TEST(connect_errors)
{
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    int l = listener(SOCK_STREAM, "l", 1);

    CHECK_ERRNO(try_connect(fd, "none"), ENOENT);
    (void)bound(SOCK_STREAM, "deaf");
    CHECK_ERRNO(try_connect(fd, "deaf"), ECONNREFUSED);
    (void)bound(SOCK_DGRAM, "dgram");
    CHECK_ERRNO(try_connect(fd, "dgram"), EPROTOTYPE);
    OK(try_connect(fd, "l"));
    CHECK_ERRNO(try_connect(fd, "l"), EISCONN);
    CHECK_ERRNO(try_connect(l, "l"), EINVAL);
    CHECK_ERRNO(listen(fd, 1), EINVAL);
    CHECK_ERRNO(listen(OK(socket(AF_UNIX, SOCK_STREAM, 0)), 1), EINVAL);
    CHECK_ERRNO(accept(fd, NULL, NULL), EINVAL);
    OK(close(l));
    fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK_ERRNO(try_connect(fd, "l"), ECONNREFUSED);
}

TEST(connect_needs_write_permission)
{
    NEED_ROOT();
    (void)listener(SOCK_STREAM, "l", 1);
    OK(chmod("l", 0444));
    OK(chmod(".", 0755));
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(1234);
        int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
        CHECK_ERRNO(try_connect(fd, "l"), EACCES);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(backlog_bounds_connections)
{
    int l = listener(SOCK_STREAM, "l", 1), count = 0;

    for (int i = 0; i < 10; i++) {
        int fd = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
        if (try_connect(fd, "l") != 0) {
            CHECK_EQ(errno, EAGAIN);
            break;
        }
        count++;
    }
    CHECK_EQ(count, 2);
    OK(close(OK(accept(l, NULL, NULL))));
    (void)connected(SOCK_STREAM, "l");
}

TEST(accept_flags_and_nonblock)
{
    int l = listener(SOCK_STREAM, "l", 5);

    OK(fcntl(l, F_SETFL, O_NONBLOCK));
    CHECK_ERRNO(accept(l, NULL, NULL), EAGAIN);
    CHECK_EQ(events_of(l, POLLIN | POLLOUT), 0);
    (void)connected(SOCK_STREAM, "l");
    (void)connected(SOCK_STREAM, "l");
    CHECK_EQ(events_of(l, POLLIN | POLLOUT), POLLIN);
    int s = OK(accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
    CHECK(fcntl(s, F_GETFL) & O_NONBLOCK);
    CHECK_EQ(fcntl(s, F_GETFD), FD_CLOEXEC);
    s = OK(accept(l, NULL, NULL));
    CHECK(!(fcntl(s, F_GETFL) & O_NONBLOCK));
    CHECK_ERRNO(accept4(l, NULL, NULL, 1), EINVAL);
}

TEST(listener_closed_resets_waiting_connections)
{
    int l = listener(SOCK_STREAM, "l", 5), c = connected(SOCK_STREAM, "l");
    char buf[1];

    OK(close(l));
    CHECK_ERRNO(read(c, buf, 1), ECONNRESET);
}

static void *accepts(void *arg)
{
    return (void *)(intptr_t)accept(*(int *)arg, NULL, NULL);
}

TEST(accept_blocks_till_connected)
{
    int l = listener(SOCK_STREAM, "l", 5);
    pthread_t th;
    void *fd;

    CHECK_EQ(pthread_create(&th, NULL, accepts, &l), 0);
    conf_await_others_asleep();
    (void)connected(SOCK_STREAM, "l");
    CHECK_EQ(pthread_join(th, &fd), 0);
    CHECK((intptr_t)fd >= 0);
}

TEST(unconnected_stream)
{
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    char c;

    conf_handler(SIGPIPE, noted, 0);
    CHECK_ERRNO(read(fd, &c, 1), EINVAL);
    CHECK_ERRNO(write(fd, "x", 1), ENOTCONN);
    CHECK_ERRNO(getpeername(fd, NULL, NULL), ENOTCONN);
    CHECK_EQ(events_of(fd, POLLIN | POLLOUT), POLLOUT | POLLHUP);
}

TEST(socket_arguments)
{
    int sv[2];

    CHECK_ERRNO(socket(AF_UNIX, 99, 0), EINVAL);
    CHECK_ERRNO(socket(AF_UNIX, SOCK_STREAM, 5), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_UNIX, SOCK_RDM, 0), ESOCKTNOSUPPORT);
    CHECK_ERRNO(socket(-1, SOCK_STREAM, 0), EAFNOSUPPORT);
    CHECK_ERRNO(socket(200, SOCK_STREAM, 0), EAFNOSUPPORT);
    CHECK_ERRNO(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, 8L), EFAULT);
    OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv));
    CHECK_EQ(fcntl(sv[0], F_GETFD), FD_CLOEXEC);
    CHECK_EQ(fcntl(sv[1], F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_NONBLOCK | O_RDWR);
}

/* ---- options ---- */

static int option(int fd, int name)
{
    int v = -1;
    socklen_t len = sizeof(v);

    OK(getsockopt(fd, SOL_SOCKET, name, &v, &len));
    CHECK_EQ(len, sizeof(v));
    return v;
}

TEST(options_that_describe)
{
    int l = listener(SOCK_SEQPACKET, "l", 1), fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));

    CHECK_EQ(option(fd, SO_TYPE), SOCK_STREAM);
    CHECK_EQ(option(l, SO_TYPE), SOCK_SEQPACKET);
    CHECK_EQ(option(fd, SO_DOMAIN), AF_UNIX);
    CHECK_EQ(option(fd, SO_PROTOCOL), 0);
    CHECK_EQ(option(fd, SO_ACCEPTCONN), 0);
    CHECK_EQ(option(l, SO_ACCEPTCONN), 1);
    CHECK_EQ(option(fd, SO_ERROR), 0);
    CHECK_EQ(option(fd, SO_RCVLOWAT), 1);
    CHECK_EQ(option(fd, SO_PASSCRED), 0);
}

TEST(options_that_are_set)
{
    struct linger lg = {1, 7};
    struct timeval tv = {1, 500000}, got;
    socklen_t len = sizeof(got);
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0)), v = 10000;

    OK(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &v, sizeof(v)));
    CHECK_EQ(option(fd, SO_SNDBUF), 20000);
    v = 1;
    OK(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &v, sizeof(v)));
    CHECK(option(fd, SO_SNDBUF) >= 2048);
    OK(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &v, sizeof(v)));
    CHECK_EQ(option(fd, SO_PASSCRED), 1);
    OK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
    OK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
    OK(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &got, &len));
    CHECK_EQ(got.tv_sec, 1);
    CHECK_EQ(got.tv_usec / 10000, 50);
    tv.tv_usec = 1000000;
    CHECK_ERRNO(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), EDOM);
    CHECK_ERRNO(setsockopt(fd, SOL_SOCKET, SO_TYPE, &v, sizeof(v)), ENOPROTOOPT);
    CHECK_ERRNO(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &v, 1), EINVAL);
    CHECK_ERRNO(setsockopt(fd, SOL_SOCKET, 9999, &v, sizeof(v)), ENOPROTOOPT);
    CHECK_ERRNO(getsockopt(fd, 6, 1, &v, &(socklen_t){4}), EOPNOTSUPP);
}

TEST(pending_error_is_told_once)
{
    int sv[2];

    pair(SOCK_STREAM, sv);
    CHECK_EQ(write(sv[0], "x", 1), 1);
    OK(close(sv[1]));
    CHECK(events_of(sv[0], 0) & POLLERR);
    CHECK_EQ(option(sv[0], SO_ERROR), ECONNRESET);
    CHECK_EQ(option(sv[0], SO_ERROR), 0);
}

TEST(peer_credentials)
{
    struct ucred cr;
    socklen_t len = sizeof(cr);
    int l = listener(SOCK_STREAM, "l", 1), sv[2];
    pid_t pid = conf_fork();

    if (pid == 0) {
        int c = connected(SOCK_STREAM, "l");
        OK(getsockopt(c, SOL_SOCKET, SO_PEERCRED, &cr, &len));
        CHECK_EQ(cr.pid, getppid());
        char b;
        CHECK_EQ(read(c, &b, 1), 0);
        _exit(0);
    }
    int s = OK(accept(l, NULL, NULL));
    OK(getsockopt(s, SOL_SOCKET, SO_PEERCRED, &cr, &len));
    CHECK_EQ(cr.pid, pid);
    CHECK_EQ(cr.uid, geteuid());
    CHECK_EQ(cr.gid, getegid());
    OK(close(s));
    CHECK_EXIT(pid, 0);
    pair(SOCK_STREAM, sv);
    OK(getsockopt(sv[0], SOL_SOCKET, SO_PEERCRED, &cr, &len));
    CHECK_EQ(cr.pid, getpid());
    int none = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(getsockopt(none, SOL_SOCKET, SO_PEERCRED, &cr, &len));
    CHECK_EQ(cr.pid, 0);
    CHECK_EQ(cr.uid, (uid_t)-1);
}

/* ---- the rest ---- */

TEST(bad_pointers)
{
    int sv[2], l = listener(SOCK_STREAM, "l", 1);
    char c;

    pair(SOCK_STREAM, sv);
    CHECK_ERRNO(send(sv[0], (void *)8, 1, 0), EFAULT);
    CHECK_EQ(write(sv[0], "x", 1), 1);
    CHECK_ERRNO(recv(sv[1], (void *)8, 1, 0), EFAULT);
    CHECK_EQ(recv(sv[1], &c, 1, 0), 1);
    CHECK_ERRNO(getsockname(sv[0], (struct sockaddr *)8, &(socklen_t){16}), EFAULT);
    CHECK_ERRNO(getsockname(sv[0], (struct sockaddr *)&c, (socklen_t *)8), EFAULT);
    CHECK_ERRNO(getsockname(sv[0], (struct sockaddr *)&c, &(socklen_t){(socklen_t)-1}), EINVAL);
    CHECK_ERRNO(bind(sv[0], (struct sockaddr *)8, 16), EFAULT);
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, (void *)8, 4), EFAULT);
    CHECK_ERRNO(sendmsg(sv[0], (struct msghdr *)8, 0), EFAULT);
    CHECK_ERRNO(recvmsg(sv[0], (struct msghdr *)8, 0), EFAULT);
    (void)l;
}

TEST(names_in_proc)
{
    char link[64], want[64];
    struct stat st;
    int sv[2];

    pair(SOCK_STREAM, sv);
    OK(fstat(sv[0], &st));
    CHECK(S_ISSOCK(st.st_mode));
    snprintf(want, sizeof(want), "/proc/self/fd/%d", sv[0]);
    ssize_t n = OK(readlink(want, link, sizeof(link) - 1));
    link[n] = 0;
    snprintf(want, sizeof(want), "socket:[%lu]", (unsigned long)st.st_ino);
    CHECK_STR(link, want);
}

TEST(poll_sees_data_and_room)
{
    struct pollfd p;
    pthread_t th;
    int sv[2];

    pair(SOCK_STREAM, sv);
    CHECK_EQ(events_of(sv[1], POLLIN | POLLOUT), POLLOUT);
    p = (struct pollfd){.fd = sv[1], .events = POLLIN};
    CHECK_EQ(pthread_create(&th, NULL, late_writer, &sv[0]), 0);
    CHECK_EQ(poll(&p, 1, 10000), 1);
    CHECK_EQ(p.revents, POLLIN);
    CHECK_EQ(pthread_join(th, NULL), 0);
    OK(close(sv[0]));
    CHECK_EQ(events_of(sv[1], POLLIN | POLLRDHUP | POLLHUP), POLLIN | POLLRDHUP | POLLHUP);
}
