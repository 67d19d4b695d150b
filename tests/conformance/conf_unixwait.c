/* Waiting on AF_UNIX sockets: signals, time-outs, shutdown and close by others, many threads. */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

CONF_FAMILY("unixwait");

/* ---- helpers ---- */

static void noted(int sig)
{
    (void)sig;
}

/* A signal a little later, with or without SA_RESTART; again and again, since the first one may
 * come before the call that it is to interrupt. */
static void alarm_soon(int flags)
{
    conf_handler(SIGALRM, noted, flags);
    ualarm(30000, 30000);
}

static void alarm_over(void)
{
    ualarm(0, 0);
}

static void pair(int type, int sv[2])
{
    OK(socketpair(AF_UNIX, type, 0, sv));
}

static socklen_t addr_of(struct sockaddr_un *a, const char *path)
{
    memset(a, 0, sizeof(*a));
    a->sun_family = AF_UNIX;
    strncpy(a->sun_path, path, sizeof(a->sun_path) - 1);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
}

static int listener(const char *path, int backlog)
{
    struct sockaddr_un a;
    socklen_t len = addr_of(&a, path);
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));

    OK(bind(fd, (struct sockaddr *)&a, len));
    OK(listen(fd, backlog));
    return fd;
}

static int connect_to(int fd, const char *path)
{
    struct sockaddr_un a;
    socklen_t len = addr_of(&a, path);

    return connect(fd, (struct sockaddr *)&a, len);
}

static int client(const char *path)
{
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));

    OK(connect_to(fd, path));
    return fd;
}

static void fill(int fd)
{
    static char buf[4096];

    while (send(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
        ;
    CHECK_EQ(errno, EAGAIN);
}

/* What a thread does when the main thread sleeps. */
struct later {
    pthread_t th;
    void (*fn)(int fd);
    int fd;
};

static void *later_run(void *arg)
{
    struct later *l = arg;

    conf_await_asleep(getpid());
    l->fn(l->fd);
    return NULL;
}

static void later(struct later *l, void (*fn)(int fd), int fd)
{
    l->fn = fn;
    l->fd = fd;
    CHECK_EQ(pthread_create(&l->th, NULL, later_run, l), 0);
}

static void later_done(struct later *l)
{
    CHECK_EQ(pthread_join(l->th, NULL), 0);
}

static void do_write(int fd)
{
    (void)!write(fd, "w", 1);
}

static void do_close(int fd)
{
    (void)!close(fd);
}

static void do_shut_rd(int fd)
{
    (void)!shutdown(fd, SHUT_RD);
}

static void do_shut_both(int fd)
{
    (void)!shutdown(fd, SHUT_RDWR);
}

static void do_accept(int fd)
{
    (void)!accept(fd, NULL, NULL);
}

/* ---- signals ---- */

TEST(accept_interrupted)
{
    int l = listener("l", 1);

    alarm_soon(0);
    CHECK_ERRNO(accept(l, NULL, NULL), EINTR);
    alarm_soon(SA_RESTART);
    pid_t pid = conf_fork();
    if (pid == 0) {
        /* Some signals come while the parent accepts. */
        conf_await_asleep(getppid());
        conf_sleep_ms(70);
        (void)client("l");
        _exit(0);
    }
    OK(accept(l, NULL, NULL));
    CHECK_EXIT(pid, 0);
}

TEST(connect_to_a_full_backlog_interrupted)
{
    int l = listener("l", 0), fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct later a;

    (void)client("l");
    alarm_soon(0);
    CHECK_ERRNO(connect_to(fd, "l"), EINTR);
    alarm_over();
    later(&a, do_accept, l);
    OK(connect_to(fd, "l"));
    later_done(&a);
}

TEST(write_to_a_full_stream_interrupted)
{
    static char big[1 << 20];
    int sv[2];

    pair(SOCK_STREAM, sv);
    alarm_soon(0);
    ssize_t n = write(sv[0], big, sizeof(big));
    CHECK(n > 0 && n < (ssize_t)sizeof(big));
    alarm_soon(0);
    CHECK_ERRNO(write(sv[0], big, 1), EINTR);
}

TEST(datagram_to_a_full_queue_interrupted)
{
    int sv[2];

    pair(SOCK_DGRAM, sv);
    fill(sv[0]);
    alarm_soon(0);
    CHECK_ERRNO(send(sv[0], "x", 1, 0), EINTR);
}

TEST(waits_with_a_timeout_are_not_restarted)
{
    struct timeval tv = {5, 0};
    int sv[2];
    char c;

    pair(SOCK_STREAM, sv);
    OK(setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
    alarm_soon(SA_RESTART);
    CHECK_ERRNO(recv(sv[0], &c, 1, 0), EINTR);
}

TEST(waitall_interrupted_gives_what_there_is)
{
    int sv[2];
    char buf[8];

    pair(SOCK_STREAM, sv);
    CHECK_EQ(write(sv[0], "abc", 3), 3);
    alarm_soon(0);
    CHECK_EQ(recv(sv[1], buf, 8, MSG_WAITALL), 3);
}

TEST(killed_while_waiting)
{
    int sv[2];
    char c;

    pair(SOCK_STREAM, sv);
    pid_t pid = conf_fork();
    if (pid == 0) {
        (void)!read(sv[0], &c, 1);
        _exit(0);
    }
    conf_await_asleep(pid);
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
}

/* ---- time-outs ---- */

TEST(send_timeout)
{
    struct timeval tv = {0, 30000};
    int64_t start;
    int sv[2];

    pair(SOCK_STREAM, sv);
    fill(sv[0]);
    OK(setsockopt(sv[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
    start = conf_now();
    CHECK_ERRNO(send(sv[0], "x", 1, 0), EAGAIN);
    CHECK(conf_now() - start >= 25000000);
}

TEST(accept_timeout)
{
    struct timeval tv = {0, 30000};
    int l = listener("l", 1);

    OK(setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
    CHECK_ERRNO(accept(l, NULL, NULL), EAGAIN);
}

TEST(connect_timeout)
{
    struct timeval tv = {0, 30000};
    int l = listener("l", 0), fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));

    (void)client("l");
    OK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
    CHECK_ERRNO(connect_to(fd, "l"), EAGAIN);
    OK(close(l));
}

/* ---- what others do meanwhile ---- */

TEST(shutdown_wakes_a_reader)
{
    struct later s;
    int sv[2];
    char c;

    pair(SOCK_STREAM, sv);
    later(&s, do_shut_rd, sv[0]);
    CHECK_EQ(read(sv[0], &c, 1), 0);
    later_done(&s);
    pair(SOCK_STREAM, sv);
    later(&s, do_shut_both, sv[1]);
    CHECK_EQ(read(sv[0], &c, 1), 0);
    later_done(&s);
}

TEST(shutdown_wakes_accept)
{
    int l = listener("l", 1);
    struct later s;

    later(&s, do_shut_both, l);
    CHECK_ERRNO(accept(l, NULL, NULL), EINVAL);
    later_done(&s);
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK_ERRNO(connect_to(fd, "l"), ECONNREFUSED);
}

TEST(peer_close_wakes_a_writer)
{
    struct later s;
    int sv[2];

    conf_handler(SIGPIPE, noted, 0);
    pair(SOCK_STREAM, sv);
    fill(sv[0]);
    later(&s, do_close, sv[1]);
    ssize_t n = write(sv[0], "x", 1);
    CHECK(n < 0 && (errno == EPIPE || errno == ECONNRESET));
    later_done(&s);
}

TEST(listener_close_wakes_a_connecter)
{
    int l = listener("l", 0), fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct later s;

    (void)client("l");
    later(&s, do_close, l);
    CHECK_ERRNO(connect_to(fd, "l"), ECONNREFUSED);
    later_done(&s);
}

static volatile int *closed;

static void do_close_and_tell(int fd)
{
    do_close(fd);
    *closed = 1;
}

TEST(descriptor_closed_while_reading)
{
    struct later s;
    int sv[2];
    char c = 0;

    /* The call keeps the socket: it ends when something comes. */
    closed = conf_shared(CONF_PAGE);
    pair(SOCK_STREAM, sv);
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_await(closed, 1);
        do_write(sv[1]);
        _exit(0);
    }
    later(&s, do_close_and_tell, sv[0]);
    CHECK_EQ(read(sv[0], &c, 1), 1);
    CHECK_EQ(c, 'w');
    later_done(&s);
    CHECK_ERRNO(read(sv[0], &c, 1), EBADF);
    CHECK_EXIT(pid, 0);
}

TEST(poll_sees_a_connection_and_its_end)
{
    int l = listener("l", 1);
    struct pollfd p = {.fd = l, .events = POLLIN};

    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_await_asleep(getppid());
        int c = client("l");
        conf_sleep_ms(30);
        conf_await_asleep(getppid());
        OK(close(c));
        _exit(0);
    }
    CHECK_EQ(poll(&p, 1, -1), 1);
    int c = OK(accept(l, NULL, NULL));
    p = (struct pollfd){.fd = c, .events = POLLRDHUP};
    CHECK_EQ(poll(&p, 1, -1), 1);
    CHECK(p.revents & POLLRDHUP);
    CHECK_EXIT(pid, 0);
}

TEST(connected_datagram_becomes_writable)
{
    struct epoll_event ev = {.events = EPOLLOUT};
    int ep = OK(epoll_create1(0)), sv[2];
    struct pollfd p;
    static char buf[4096];

    pair(SOCK_DGRAM, sv);
    fill(sv[0]);
    p = (struct pollfd){.fd = sv[0], .events = POLLOUT};
    CHECK_EQ(poll(&p, 1, 0), 0);
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, sv[0], &ev));
    CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_await_asleep(getppid());
        while (recv(sv[1], buf, sizeof(buf), MSG_DONTWAIT) > 0)
            ;
        _exit(0);
    }
    CHECK_EQ(epoll_wait(ep, &ev, 1, -1), 1);
    CHECK_EQ(poll(&p, 1, -1), 1);
    CHECK_EXIT(pid, 0);
}

/* ---- many threads ---- */

static void *read_numbers(void *arg)
{
    long sum = 0;
    int n;

    while (recv(*(int *)arg, &n, sizeof(n), 0) == (ssize_t)sizeof(n) && n != 0)
        sum += n;
    return (void *)sum;
}

TEST(each_packet_has_one_reader)
{
    enum { THREADS = 4, COUNT = 2000 };
    pthread_t th[THREADS];
    long sum = 0;
    int sv[2];

    pair(SOCK_SEQPACKET, sv);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&th[i], NULL, read_numbers, &sv[1]), 0);
    for (int i = 1; i <= COUNT; i++)
        CHECK_EQ(send(sv[0], &i, sizeof(i), 0), (ssize_t)sizeof(i));
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(send(sv[0], &(int){0}, sizeof(int), 0), (ssize_t)sizeof(int));
    for (int i = 0; i < THREADS; i++) {
        void *part;
        CHECK_EQ(pthread_join(th[i], &part), 0);
        sum += (long)part;
    }
    CHECK_EQ(sum, (long)COUNT * (COUNT + 1) / 2);
}

static void *write_blocks(void *arg)
{
    char block[64];

    for (int i = 0; i < 500; i++) {
        memset(block, 'a' + i % 26, sizeof(block));
        if (write(*(int *)arg, block, sizeof(block)) != (ssize_t)sizeof(block))
            return (void *)1;
    }
    return NULL;
}

TEST(small_writes_are_not_mixed)
{
    enum { THREADS = 4 };
    pthread_t th[THREADS];
    char block[64];
    int sv[2];

    pair(SOCK_STREAM, sv);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&th[i], NULL, write_blocks, &sv[0]), 0);
    for (int i = 0; i < THREADS * 500; i++) {
        CHECK_EQ(recv(sv[1], block, sizeof(block), MSG_WAITALL), (ssize_t)sizeof(block));
        for (size_t k = 1; k < sizeof(block); k++)
            CHECK_EQ(block[k], block[0]);
    }
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(th[i], NULL), 0);
}

TEST_TIMEOUT(many_clients, 30)
{
    enum { CLIENTS = 50, ROUNDS = 20 };
    int l = listener("l", 16);
    pid_t pids[CLIENTS];

    for (int i = 0; i < CLIENTS; i++) {
        pids[i] = conf_fork();
        if (pids[i] != 0)
            continue;
        for (int k = 0; k < ROUNDS; k++) {
            int fd = client("l"), x = i * 1000 + k, y = 0;
            CHECK_EQ(write(fd, &x, sizeof(x)), (ssize_t)sizeof(x));
            CHECK_EQ(read(fd, &y, sizeof(y)), (ssize_t)sizeof(y));
            CHECK_EQ(y, x + 1);
            OK(close(fd));
        }
        _exit(0);
    }
    for (int i = 0; i < CLIENTS * ROUNDS; i++) {
        int fd = OK(accept(l, NULL, NULL)), x = 0;
        CHECK_EQ(read(fd, &x, sizeof(x)), (ssize_t)sizeof(x));
        x++;
        CHECK_EQ(write(fd, &x, sizeof(x)), (ssize_t)sizeof(x));
        OK(close(fd));
    }
    for (int i = 0; i < CLIENTS; i++)
        CHECK_EXIT(pids[i], 0);
}
