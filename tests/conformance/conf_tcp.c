/* TCP over loopback: sockets, connections, bytes. */
#include "tcp_help.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

CONF_FAMILY("tcp");

/* ---- making sockets ---- */

TEST(create_arguments)
{
    CHECK_ERRNO(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_INET, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
    CHECK_ERRNO(socket(AF_INET, SOCK_STREAM, -1), EINVAL);
    CHECK_ERRNO(socket(AF_INET, SOCK_STREAM, 4000), EINVAL);
    CHECK_ERRNO(socket(AF_INET, 77, 0), EINVAL);
    int sv[2];
    CHECK_ERRNO(socketpair(AF_INET, SOCK_STREAM, 0, sv), EOPNOTSUPP);
    int fd = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
    CHECK_EQ(get_int(fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
    CHECK_EQ(get_int(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
    CHECK_EQ(get_int(fd, SOL_SOCKET, SO_DOMAIN), AF_INET);
    CHECK_EQ(OK(fcntl(fd, F_GETFL)) & O_NONBLOCK, O_NONBLOCK);
    CHECK_EQ(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
}

TEST(fresh_socket)
{
    int fd = tcp();
    char c;

    CHECK_EQ(ready(fd, POLLIN | POLLOUT, 0), POLLOUT | POLLHUP);
    CHECK_ERRNO(recv(fd, &c, 1, 0), ENOTCONN);
    CHECK_ERRNO(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_ERRNO(shutdown(fd, SHUT_RDWR), ENOTCONN);
    CHECK_ERRNO(accept(fd, NULL, NULL), EINVAL);
    struct sockaddr_in a;
    socklen_t len = sizeof(a);
    CHECK_ERRNO(getpeername(fd, (struct sockaddr *)&a, &len), ENOTCONN);
    len = sizeof(a);
    OK(getsockname(fd, (struct sockaddr *)&a, &len));
    CHECK_EQ(len, sizeof(a));
    CHECK_EQ(a.sin_port, 0);
    CHECK_EQ(a.sin_addr.s_addr, 0);
    CHECK_EQ(state_of(fd), TCP_CLOSE);
}

static volatile int pipes;
static void count_pipe(int sig)
{
    (void)sig;
    pipes++;
}

TEST(sigpipe)
{
    int sv[2];

    pair(sv);
    conf_handler(SIGPIPE, count_pipe, 0);
    OK(shutdown(sv[0], SHUT_WR));
    CHECK_ERRNO(write(sv[0], "x", 1), EPIPE);
    CHECK_EQ(pipes, 1);
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_EQ(pipes, 1);
}

/* ---- options ---- */

/* Whatever is available and allowed can be chosen, and those that are accepted inherit it. */
TEST(congestion_control)
{
    char names[256] = {0}, *save = NULL, got[16];
    FILE *f = fopen("/proc/sys/net/ipv4/tcp_allowed_congestion_control", "r");
    int count = 0;

    CHECK(f && fgets(names, sizeof(names), f));
    OK(fclose(f));
    for (char *n = strtok_r(names, " \n", &save); n; n = strtok_r(NULL, " \n", &save), count++) {
        int l = listener(1), c = tcp();
        socklen_t len = sizeof(got);
        OK(setsockopt(l, SOL_TCP, TCP_CONGESTION, n, (socklen_t)strlen(n)));
        OK(try_connect(c, port_of(l)));
        int s = OK(accept(l, NULL, NULL));
        OK(getsockopt(s, SOL_TCP, TCP_CONGESTION, got, &len));
        CHECK_STR(got, n);
    }
    CHECK(count >= 1);
    CHECK_ERRNO(setsockopt(tcp(), SOL_TCP, TCP_CONGESTION, "vegas", 5), ENOENT);
}

static void expect_silence(int c, int l, const struct sockaddr_in6 *to, socklen_t len)
{
    nonblock(c);
    CHECK_ERRNO(connect(c, (const struct sockaddr *)to, len), EINPROGRESS);
    CHECK_EQ(ready(c, POLLOUT, 50), 0);
    CHECK_EQ(state_of(c), TCP_SYN_SENT);
    CHECK_EQ(ready(l, POLLIN, 0), 0);
}

/* A peer that may be further away than is wanted gets no answer; nor is its own heard. */
static void least_ttl(int family, int level, int ttl, int least)
{
    struct sockaddr_in6 a = {.sin6_family = (sa_family_t)family};
    socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(a);
    int l = OK(socket(family, SOCK_STREAM, 0)), far = OK(socket(family, SOCK_STREAM, 0));
    int near = OK(socket(family, SOCK_STREAM, 0)), strict = OK(socket(family, SOCK_STREAM, 0));

    if (family == AF_INET6)
        a.sin6_addr = in6addr_loopback;
    else
        memcpy(&a, (const struct sockaddr_in[]){in4(0)}, sizeof(struct sockaddr_in));
    if (bind(l, (struct sockaddr *)&a, len) && family == AF_INET6)
        conf_skip("no IPv6 here");
    OK(listen(l, 4));
    OK(getsockname(l, (struct sockaddr *)&a, &len));
    set_int(l, level, least, 200);
    set_int(far, level, ttl, 199);
    expect_silence(far, l, &a, len);
    set_int(near, level, ttl, 200);
    OK(connect(near, (struct sockaddr *)&a, len));
    int s = OK(accept(l, NULL, NULL));
    CHECK_EQ(get_int(s, level, least), 200);
    set_int(strict, level, ttl, 255);
    set_int(strict, level, least, 255);
    expect_silence(strict, l, &a, len);
}

TEST(least_ttl4)
{
    least_ttl(AF_INET, SOL_IP, IP_TTL, IP_MINTTL);
}

TEST(least_ttl6)
{
    least_ttl(AF_INET6, SOL_IPV6, IPV6_UNICAST_HOPS, IPV6_MINHOPCOUNT);
}

/* ---- bind, listen ---- */

TEST(bind_arguments)
{
    int fd = tcp();
    struct sockaddr_in a = in4(0);

    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, 4), EINVAL);
    a.sin_family = AF_INET6;
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, sizeof(a)), EAFNOSUPPORT);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(0x08080808);
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, sizeof(a)), EADDRNOTAVAIL);
    a = in4(0);
    OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
    CHECK(port_of(fd) != 0);
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&a, sizeof(a)), EINVAL);
}

TEST(bind_in_use)
{
    int a = listener(1), b = tcp();
    uint16_t port = port_of(a);

    CHECK_ERRNO(try_bind(b, port), EADDRINUSE);
    set_int(b, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK_ERRNO(try_bind(b, port), EADDRINUSE);
    OK(close(a));
    OK(try_bind(b, port));
}

TEST(bind_reuseaddr_two)
{
    int a = tcp(), b = tcp();

    set_int(a, SOL_SOCKET, SO_REUSEADDR, 1);
    set_int(b, SOL_SOCKET, SO_REUSEADDR, 1);
    OK(try_bind(a, 0));
    OK(try_bind(b, port_of(a)));
    OK(listen(a, 1));
    CHECK_ERRNO(listen(b, 1), EADDRINUSE);
}

TEST(bind_privileged)
{
    NEED_ROOT();
    pid_t p = conf_fork();
    if (p == 0) {
        conf_become(1000);
        FILE *f = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "r");
        int start = 1024;
        if (f && fscanf(f, "%d", &start) != 1)
            start = 1024;
        if (start > 1000)
            CHECK_ERRNO(try_bind(tcp(), 999), EACCES);
        _exit(0);
    }
    CHECK_EXIT(p, 0);
}

TEST(listen_without_bind)
{
    int l = tcp(), c = tcp();

    OK(listen(l, 1));
    CHECK(port_of(l) != 0);
    OK(try_connect(c, port_of(l)));
    CHECK_EQ(get_int(l, SOL_SOCKET, SO_ACCEPTCONN), 1);
    CHECK_EQ(get_int(c, SOL_SOCKET, SO_ACCEPTCONN), 0);
}

TEST(listen_states)
{
    int sv[2], l = listener(1);
    char c;

    pair(sv);
    CHECK_ERRNO(listen(sv[0], 1), EINVAL);
    CHECK_ERRNO(recv(l, &c, 1, 0), ENOTCONN);
    CHECK_ERRNO(send(l, &c, 1, MSG_NOSIGNAL), EPIPE);
    CHECK_ERRNO(try_connect(l, 1), EISCONN);
    int n;
    CHECK_ERRNO(ioctl(l, FIONREAD, &n), EINVAL);
    OK(listen(l, 5));
}

TEST(reuseport_balances)
{
    int l[3];
    uint16_t port = 0;
    int got[3] = {0};

    for (int i = 0; i < 3; i++) {
        l[i] = tcp();
        set_int(l[i], SOL_SOCKET, SO_REUSEPORT, 1);
        OK(try_bind(l[i], port));
        port = port_of(l[i]);
        OK(listen(l[i], 128));
        nonblock(l[i]);
    }
    for (int i = 0; i < 120; i++)
        OK(try_connect(tcp(), port));
    for (int i = 0; i < 3; i++)
        for (int fd; (fd = accept(l[i], NULL, NULL)) >= 0; close(fd))
            got[i]++;
    CHECK_EQ(got[0] + got[1] + got[2], 120);
    CHECK(got[0] > 10 && got[1] > 10 && got[2] > 10);
}

/* ---- connect ---- */

TEST(connect_refused)
{
    int l = listener(1), c = tcp();
    uint16_t port = port_of(l);

    OK(close(l));
    CHECK_ERRNO(try_connect(c, port), ECONNREFUSED);
    /* The socket can be used again. */
    l = tcp();
    OK(try_bind(l, port));
    OK(listen(l, 1));
    OK(try_connect(c, port));
    CHECK_ERRNO(try_connect(c, port), EISCONN);
}

TEST(connect_nonblock)
{
    int l = listener(1), c = tcp();

    nonblock(c);
    CHECK_ERRNO(try_connect(c, port_of(l)), EINPROGRESS);
    CHECK_EQ(ready(c, POLLOUT, PATIENCE_MS), POLLOUT);
    CHECK_EQ(get_int(c, SOL_SOCKET, SO_ERROR), 0);
    OK(try_connect(c, port_of(l)));
    CHECK_ERRNO(try_connect(c, port_of(l)), EISCONN);
}

TEST(connect_nonblock_refused)
{
    int l = listener(1), c = tcp();
    uint16_t port = port_of(l);

    OK(close(l));
    nonblock(c);
    CHECK_ERRNO(try_connect(c, port), EINPROGRESS);
    CHECK_EQ(ready(c, POLLIN | POLLOUT, PATIENCE_MS), POLLIN | POLLOUT | POLLERR | POLLHUP);
    CHECK_EQ(get_int(c, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
    CHECK_EQ(get_int(c, SOL_SOCKET, SO_ERROR), 0);
    CHECK_ERRNO(try_connect(c, port), ECONNABORTED);
    CHECK_ERRNO(try_connect(c, port), EINPROGRESS);
    ready(c, POLLOUT, PATIENCE_MS);
    CHECK_ERRNO(try_connect(c, port), ECONNREFUSED);
}

TEST(connect_arguments)
{
    int c = tcp();
    struct sockaddr_in a = in4(1);

    CHECK_ERRNO(connect(c, (struct sockaddr *)&a, 1), EINVAL);
    CHECK_ERRNO(connect(c, (struct sockaddr *)&a, 8), EINVAL);
    a.sin_family = AF_UNIX;
    CHECK_ERRNO(connect(c, (struct sockaddr *)&a, sizeof(a)), EAFNOSUPPORT);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(0xe0000001);
    CHECK_ERRNO(connect(c, (struct sockaddr *)&a, sizeof(a)), ENETUNREACH);
}

TEST(connect_any_means_loopback)
{
    int l = listener(1), c = tcp();
    struct sockaddr_in a = in4(port_of(l)), peer;
    socklen_t len = sizeof(peer);

    a.sin_addr.s_addr = 0;
    OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
    OK(getpeername(c, (struct sockaddr *)&peer, &len));
    CHECK_EQ(ntohl(peer.sin_addr.s_addr), INADDR_LOOPBACK);
    OK(getsockname(c, (struct sockaddr *)&peer, &len));
    CHECK_EQ(ntohl(peer.sin_addr.s_addr), INADDR_LOOPBACK);
}

TEST(connect_same_names_twice)
{
    int l = listener(4), a = tcp(), b = tcp();

    set_int(a, SOL_SOCKET, SO_REUSEADDR, 1);
    set_int(b, SOL_SOCKET, SO_REUSEADDR, 1);
    OK(try_bind(a, 0));
    OK(try_bind(b, port_of(a)));
    OK(try_connect(a, port_of(l)));
    CHECK_ERRNO(try_connect(b, port_of(l)), EADDRNOTAVAIL);
}

TEST(connect_self)
{
    int a = tcp();
    char c = 0;

    OK(try_bind(a, 0));
    OK(try_connect(a, port_of(a)));
    CHECK_EQ(OK(send(a, "x", 1, 0)), 1);
    CHECK_EQ(OK(recv(a, &c, 1, 0)), 1);
    CHECK_EQ(c, 'x');
    OK(shutdown(a, SHUT_WR));
    CHECK_EQ(OK(recv(a, &c, 1, 0)), 0);
}

TEST(connect_unspec_disconnects)
{
    int sv[2], l = listener(1);
    struct sockaddr a = {.sa_family = AF_UNSPEC};
    char c;

    pair(sv);
    OK(connect(sv[0], &a, sizeof(a)));
    CHECK_ERRNO(recv(sv[1], &c, 1, 0), ECONNRESET);
    CHECK_EQ(state_of(sv[0]), TCP_CLOSE);
    OK(try_connect(sv[0], port_of(l)));
}

TEST_TIMEOUT(backlog_full_waits, 20)
{
    int l = listener(0), c[3];

    c[0] = tcp();
    OK(try_connect(c[0], port_of(l)));
    c[1] = tcp();
    nonblock(c[1]);
    CHECK_ERRNO(try_connect(c[1], port_of(l)), EINPROGRESS);
    CHECK_EQ(ready(c[1], POLLOUT, 50), 0);
    CHECK_EQ(state_of(c[1]), TCP_SYN_SENT);
    CHECK_ERRNO(try_connect(c[1], port_of(l)), EALREADY);
    char x;
    CHECK_ERRNO(recv(c[1], &x, 1, 0), EAGAIN);
    CHECK_ERRNO(send(c[1], &x, 1, 0), EAGAIN);
    OK(accept(l, NULL, NULL));
    /* The SYN is sent again after a second at the latest. */
    CHECK_EQ(ready(c[1], POLLOUT, PATIENCE_MS), POLLOUT);
    CHECK_EQ(state_of(c[1]), TCP_ESTABLISHED);
}

/* ---- accept ---- */

TEST(accept_names)
{
    int l = listener(1), c = tcp();
    struct sockaddr_in a, b;
    socklen_t len = sizeof(a);

    OK(try_connect(c, port_of(l)));
    int s = OK(accept4(l, (struct sockaddr *)&a, &len, SOCK_NONBLOCK | SOCK_CLOEXEC));
    CHECK_EQ(len, sizeof(a));
    CHECK_EQ(ntohs(a.sin_port), port_of(c));
    CHECK_EQ(port_of(s), port_of(l));
    len = sizeof(b);
    OK(getpeername(s, (struct sockaddr *)&b, &len));
    CHECK(memcmp(&a, &b, sizeof(a)) == 0);
    CHECK_EQ(OK(fcntl(s, F_GETFL)) & O_NONBLOCK, O_NONBLOCK);
    nonblock(l);
    CHECK_ERRNO(accept(l, NULL, NULL), EAGAIN);
    CHECK_EQ(ready(l, POLLIN, 0), 0);
}

TEST(accept_inherits)
{
    int l = tcp(), c = tcp();

    set_int(l, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(l, SOL_TCP, TCP_NODELAY, 1);
    set_int(l, SOL_TCP, TCP_KEEPIDLE, 77);
    set_int(l, SOL_SOCKET, SO_RCVBUF, 30000);
    OK(listen(l, 1));
    OK(try_connect(c, port_of(l)));
    int s = OK(accept(l, NULL, NULL));
    CHECK_EQ(get_int(s, SOL_SOCKET, SO_KEEPALIVE), 1);
    CHECK_EQ(get_int(s, SOL_TCP, TCP_NODELAY), 1);
    CHECK_EQ(get_int(s, SOL_TCP, TCP_KEEPIDLE), 77);
    CHECK_EQ(get_int(s, SOL_SOCKET, SO_RCVBUF), 60000);
}

TEST(accept_after_client_gone)
{
    int l = listener(4), c = tcp();
    char b[4];

    OK(try_connect(c, port_of(l)));
    CHECK_EQ(OK(send(c, "bye", 3, 0)), 3);
    OK(close(c));
    int s = OK(accept(l, NULL, NULL));
    CHECK_EQ(OK(recv(s, b, 4, 0)), 3);
    CHECK_EQ(OK(recv(s, b, 4, 0)), 0);
    CHECK_EQ(state_of(s), TCP_CLOSE_WAIT);
}

TEST(listener_close_resets_queue)
{
    int l = listener(4), c = tcp();
    char b;

    OK(try_connect(c, port_of(l)));
    OK(close(l));
    CHECK_ERRNO(recv(c, &b, 1, 0), ECONNRESET);
    CHECK_EQ(OK(recv(c, &b, 1, 0)), 0);
    CHECK_ERRNO(send(c, &b, 1, MSG_NOSIGNAL), EPIPE);
}

TEST(listener_shutdown)
{
    int l = listener(1);

    OK(shutdown(l, SHUT_RD));
    CHECK_ERRNO(accept(l, NULL, NULL), EINVAL);
    OK(listen(l, 1));
    OK(try_connect(tcp(), port_of(l)));
    OK(accept(l, NULL, NULL));
}

TEST(accept_wakes)
{
    int l = listener(1);
    struct late a = {.port = port_of(l), .fn = late_connect};
    pthread_t t = soon(&a);

    OK(accept(l, NULL, NULL));
    OK(pthread_join(t, NULL));
    struct late b = {.fd = l, .fn = late_shutdown};
    t = soon(&b);
    CHECK_ERRNO(accept(l, NULL, NULL), EINVAL);
    OK(pthread_join(t, NULL));
}

/* ---- bytes ---- */

TEST(stream_order)
{
    enum { SIZE = 3 << 20 };
    uint8_t *out = malloc(SIZE), *in = malloc(SIZE);
    int sv[2];

    pair(sv);
    for (int i = 0; i < SIZE; i++)
        out[i] = (uint8_t)((unsigned)i * 2654435761u >> 13);
    pid_t p = conf_fork();
    if (p == 0) {
        for (size_t done = 0, n = 1; done < SIZE; n = n * 3 % 70001 + 1) {
            size_t part = n < SIZE - done ? n : SIZE - done;
            done += (size_t)OK(send(sv[0], out + done, part, 0));
        }
        _exit(0);
    }
    OK(close(sv[0]));
    size_t got = 0;
    for (ssize_t n; (n = OK(recv(sv[1], in + got, 50000, 0))) > 0;)
        got += (size_t)n;
    CHECK_EQ(got, SIZE);
    CHECK(memcmp(in, out, SIZE) == 0);
    CHECK_EXIT(p, 0);
}

TEST(peek_waitall_trunc)
{
    int sv[2];
    char b[32] = {0};

    pair(sv);
    CHECK_EQ(OK(send(sv[0], "abc", 3, 0)), 3);
    CHECK_EQ(OK(send(sv[0], "def", 3, 0)), 3);
    CHECK_EQ(OK(recv(sv[1], b, 2, 0)), 2);
    CHECK(memcmp(b, "ab", 2) == 0);
    EVENTUALLY(conf_unread(sv[1]) == 4);
    CHECK_EQ(OK(recv(sv[1], b, 10, MSG_PEEK)), 4);
    CHECK(memcmp(b, "cdef", 4) == 0);
    int n = 0;
    OK(ioctl(sv[1], FIONREAD, &n));
    CHECK_EQ(n, 4);
    CHECK_EQ(OK(recv(sv[1], NULL, 3, MSG_TRUNC)), 3);
    CHECK_EQ(OK(recv(sv[1], b, 10, 0)), 1);
    CHECK_EQ(b[0], 'f');
    CHECK_ERRNO(recv(sv[1], b, 10, MSG_DONTWAIT), EAGAIN);
    struct late l = {.fd = sv[0], .fn = late_send};
    pthread_t t = soon(&l);
    CHECK_EQ(OK(send(sv[0], "ab", 2, 0)), 2);
    CHECK_EQ(OK(recv(sv[1], b, 6, MSG_WAITALL)), 6);
    OK(pthread_join(t, NULL));
    CHECK(memcmp(b, "ablate", 6) == 0);
    CHECK_ERRNO(recv(sv[1], b, 0, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(OK(send(sv[0], "x", 1, 0)), 1);
    ready(sv[1], POLLIN, PATIENCE_MS);
    CHECK_EQ(OK(recv(sv[1], b, 0, 0)), 0);
}

TEST(message_name_is_nothing)
{
    int sv[2];
    char b[8];
    struct sockaddr_in a = {.sin_port = 77};
    socklen_t len = sizeof(a);

    pair(sv);
    struct sockaddr_in to = in4(1);
    CHECK_EQ(OK(sendto(sv[0], "x", 1, 0, (struct sockaddr *)&to, sizeof(to))), 1);
    CHECK_EQ(OK(recvfrom(sv[1], b, 8, 0, (struct sockaddr *)&a, &len)), 1);
    CHECK_EQ(len, 0);
    CHECK_EQ(a.sin_port, 77);
}

TEST(buffers_are_bounded)
{
    int sv[2];
    static char b[65536];
    size_t total = 0, got = 0;
    ssize_t n;

    pair(sv);
    nonblock(sv[0]);
    while ((n = send(sv[0], b, sizeof(b), 0)) > 0)
        total += (size_t)n;
    CHECK_EQ(errno, EAGAIN);
    CHECK(total >= 65536 && total < 64u << 20);
    CHECK_EQ(ready(sv[0], POLLOUT, 0), 0);
    while (got < total)
        got += (size_t)OK(recv(sv[1], b, sizeof(b), 0));
    CHECK_EQ(ready(sv[0], POLLOUT, PATIENCE_MS), POLLOUT);
    CHECK_ERRNO(recv(sv[1], b, 1, MSG_DONTWAIT), EAGAIN);
}

TEST(send_blocks_until_read)
{
    int sv[2];
    enum { SIZE = 16 << 20 };

    pair(sv);
    pid_t p = conf_fork();
    if (p == 0) {
        char *b = calloc(1, SIZE);
        CHECK_EQ(OK(send(sv[0], b, SIZE, 0)), SIZE);
        _exit(0);
    }
    static char b[100000];
    OK(close(sv[0]));
    size_t got = 0;
    conf_await_asleep(p);
    for (ssize_t n; (n = OK(recv(sv[1], b, sizeof(b), 0))) > 0;)
        got += (size_t)n;
    CHECK_EQ(got, SIZE);
    CHECK_EXIT(p, 0);
}

TEST(timeouts)
{
    int sv[2];
    char b;
    struct timeval tv = {.tv_usec = 30000};

    pair(sv);
    OK(setsockopt(sv[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
    int64_t t = conf_now();
    CHECK_ERRNO(recv(sv[1], &b, 1, 0), EAGAIN);
    CHECK(conf_now() - t >= 29000000);
    static char big[1 << 20];
    OK(setsockopt(sv[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
    ssize_t n;
    while ((n = send(sv[0], big, sizeof(big), 0)) > 0)
        ;
    CHECK_EQ(n, -1);
    CHECK_EQ(errno, EAGAIN);
}

TEST(faults)
{
    int sv[2];

    pair(sv);
    CHECK_ERRNO(send(sv[0], (void *)8, 10, 0), EFAULT);
    CHECK_EQ(OK(send(sv[0], "abc", 3, 0)), 3);
    CHECK_ERRNO(recv(sv[1], (void *)8, 10, 0), EFAULT);
    char b[4];
    CHECK_EQ(OK(recv(sv[1], b, 4, 0)), 3);
}

TEST(sendfile_into_socket)
{
    int sv[2];
    char b[16] = {0};

    pair(sv);
    conf_put("f", "0123456789");
    int f = OK(open("f", O_RDONLY));
    off_t off = 2;
    CHECK_EQ(OK(sendfile(sv[0], f, &off, 5)), 5);
    CHECK_EQ(off, 7);
    CHECK_EQ(OK(recv(sv[1], b, 16, 0)), 5);
    CHECK_STR(b, "23456");
    int p[2];
    OK(pipe(p));
    CHECK_EQ(OK(write(p[1], "piped", 5)), 5);
    CHECK_EQ(OK(splice(p[0], NULL, sv[0], NULL, 5, 0)), 5);
    CHECK_EQ(OK(splice(sv[1], NULL, p[1], NULL, 16, 0)), 5);
    CHECK_EQ(OK(read(p[0], b, 16)), 5);
    CHECK(memcmp(b, "piped", 5) == 0);
}
