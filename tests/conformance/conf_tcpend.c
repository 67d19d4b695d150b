/* TCP over loopback: the end of connections, urgent data, readiness, many at once. */
#include "tcp_help.h"

#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <time.h>

CONF_FAMILY("tcpend");

#ifndef SIOCATMARK
#define SIOCATMARK 0x8905
#endif

/* ---- the end ---- */

TEST(half_close)
{
    int sv[2];
    char b[8];

    pair(sv);
    OK(shutdown(sv[0], SHUT_WR));
    CHECK_EQ(OK(recv(sv[1], b, 8, 0)), 0);
    await_state(sv[0], TCP_FIN_WAIT2);
    CHECK_EQ(state_of(sv[1]), TCP_CLOSE_WAIT);
    CHECK_EQ(ready(sv[1], POLLIN | POLLOUT | POLLRDHUP, 0), POLLIN | POLLOUT | POLLRDHUP);
    CHECK_EQ(OK(send(sv[1], "abc", 3, 0)), 3);
    CHECK_EQ(OK(recv(sv[0], b, 8, 0)), 3);
    OK(close(sv[1]));
    CHECK_EQ(OK(recv(sv[0], b, 8, 0)), 0);
    await_state(sv[0], TCP_CLOSE);
    CHECK_EQ(ready(sv[0], POLLIN | POLLOUT | POLLRDHUP, 0), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    struct sockaddr_in a;
    socklen_t len = sizeof(a);
    CHECK_ERRNO(getpeername(sv[0], (struct sockaddr *)&a, &len), ENOTCONN);
}

TEST(send_to_closed)
{
    int sv[2];
    char b;

    pair(sv);
    OK(close(sv[1]));
    await_state(sv[0], TCP_CLOSE_WAIT);
    CHECK_EQ(OK(send(sv[0], "x", 1, MSG_NOSIGNAL)), 1);
    await_state(sv[0], TCP_CLOSE);
    CHECK_EQ(ready(sv[0], POLLIN | POLLOUT, 0), POLLIN | POLLOUT | POLLERR | POLLHUP);
    CHECK_EQ(OK(recv(sv[0], &b, 1, 0)), 0);
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
}

TEST(close_with_unread_resets)
{
    int sv[2];
    char b[8];

    pair(sv);
    CHECK_EQ(OK(send(sv[0], "abc", 3, 0)), 3);
    CHECK_EQ(OK(send(sv[1], "xyz", 3, 0)), 3);
    ready(sv[1], POLLIN, PATIENCE_MS);
    OK(close(sv[1]));
    await_state(sv[0], TCP_CLOSE);
    CHECK_EQ(ready(sv[0], POLLIN | POLLOUT, 0), POLLIN | POLLOUT | POLLERR | POLLHUP);
    CHECK_EQ(OK(recv(sv[0], b, 8, 0)), 3);
    CHECK_ERRNO(recv(sv[0], b, 8, 0), ECONNRESET);
    CHECK_EQ(OK(recv(sv[0], b, 8, 0)), 0);
}

TEST(linger_zero_resets)
{
    int sv[2];
    char b;
    struct linger l = {1, 0};

    pair(sv);
    OK(setsockopt(sv[0], SOL_SOCKET, SO_LINGER, &l, sizeof(l)));
    OK(close(sv[0]));
    CHECK_ERRNO(recv(sv[1], &b, 1, 0), ECONNRESET);
    CHECK_EQ(state_of(sv[1]), TCP_CLOSE);
}

TEST(shutdown_read)
{
    int sv[2];
    char b[8];

    pair(sv);
    OK(shutdown(sv[0], SHUT_RD));
    CHECK_EQ(OK(recv(sv[0], b, 8, 0)), 0);
    CHECK_EQ(OK(send(sv[1], "abc", 3, 0)), 3);
    EVENTUALLY(conf_unread(sv[0]) == 3);
    CHECK_EQ(state_of(sv[0]), TCP_ESTABLISHED);
    CHECK_EQ(OK(recv(sv[0], b, 8, 0)), 3);
    CHECK_EQ(OK(recv(sv[0], b, 8, 0)), 0);
}

TEST(shutdown_both_then_data)
{
    int sv[2];

    pair(sv);
    OK(shutdown(sv[0], SHUT_RDWR));
    await_state(sv[1], TCP_CLOSE_WAIT);
    CHECK_EQ(OK(send(sv[1], "abc", 3, 0)), 3);
    await_state(sv[1], TCP_CLOSE);
    CHECK_EQ(get_int(sv[1], SOL_SOCKET, SO_ERROR), EPIPE);
    await_state(sv[0], TCP_CLOSE);
}

TEST(shutdown_wakes_reader)
{
    int sv[2];
    char b;
    struct late l = {.fn = late_shutdown};

    pair(sv);
    l.fd = sv[0];
    pthread_t t = soon(&l);
    CHECK_EQ(OK(recv(sv[0], &b, 1, 0)), 0);
    OK(pthread_join(t, NULL));
    CHECK_ERRNO(shutdown(sv[0], 7), EINVAL);
}

TEST(time_wait_and_bind)
{
    int l = listener(1), c = tcp();
    uint16_t port = port_of(l);

    OK(try_connect(c, port));
    int s = OK(accept(l, NULL, NULL));
    OK(close(l));
    OK(close(s)); /* the server closes first and is left in TIME_WAIT */
    await_state(c, TCP_CLOSE_WAIT);
    OK(close(c));
    int a = tcp(), b = tcp();
    CHECK_ERRNO(try_bind(a, port), EADDRINUSE);
    set_int(b, SOL_SOCKET, SO_REUSEADDR, 1);
    /* The one in TIME_WAIT had no SO_REUSEADDR. */
    CHECK_ERRNO(try_bind(b, port), EADDRINUSE);
}

TEST(time_wait_with_reuseaddr)
{
    int l = tcp(), c = tcp();

    set_int(l, SOL_SOCKET, SO_REUSEADDR, 1);
    OK(try_bind(l, 0));
    OK(listen(l, 1));
    uint16_t port = port_of(l);
    OK(try_connect(c, port));
    int s = OK(accept(l, NULL, NULL));
    OK(close(l));
    OK(close(s));
    await_state(c, TCP_CLOSE_WAIT);
    OK(close(c));
    int b = tcp();
    set_int(b, SOL_SOCKET, SO_REUSEADDR, 1);
    OK(try_bind(b, port));
    OK(listen(b, 1));
}

/* ---- a close that lingers ---- */

/* sv[0], with SO_LINGER of so many seconds, has sent more than sv[1] has room for. */
static size_t stuffed(int sv[2], int seconds)
{
    static char b[65536];
    struct linger l = {1, seconds};
    int ls = tcp();
    size_t sent = 0;
    ssize_t n;

    set_int(ls, SOL_SOCKET, SO_RCVBUF, 8192);
    OK(try_bind(ls, 0));
    OK(listen(ls, 1));
    sv[0] = tcp();
    OK(try_connect(sv[0], port_of(ls)));
    sv[1] = OK(accept(ls, NULL, NULL));
    OK(close(ls));
    OK(setsockopt(sv[0], SOL_SOCKET, SO_LINGER, &l, sizeof(l)));
    for (int idle = 0; idle < 5; idle++, conf_sleep_ms(10)) {
        while ((n = send(sv[0], b, sizeof(b), MSG_DONTWAIT)) > 0) {
            sent += (size_t)n;
            idle = 0;
        }
    }
    return sent;
}

static size_t drain(int fd)
{
    static char b[65536];
    size_t got = 0;
    ssize_t n;

    while ((n = OK(recv(fd, b, sizeof(b), 0))) > 0)
        got += (size_t)n;
    return got;
}

static _Atomic size_t drained;

static void late_drain(struct late *l)
{
    drained = 1;
    drained = drain(l->fd);
}

static void linger_till_read(int sv[2], size_t sent, int fd)
{
    struct late l = {.fd = sv[1], .fn = late_drain};
    pthread_t t = soon(&l);

    if (fd < 0)
        OK(close(sv[0]));
    else
        OK(dup2(fd, sv[0]));
    CHECK(drained > 0);
    OK(pthread_join(t, NULL));
    CHECK_EQ(drained, sent);
}

TEST(linger_waits_till_read)
{
    int sv[2];
    size_t sent = stuffed(sv, 1000);

    linger_till_read(sv, sent, -1);
}

TEST(linger_nonblocking_waits_too)
{
    int sv[2];
    size_t sent = stuffed(sv, 1000);

    nonblock(sv[0]);
    linger_till_read(sv, sent, -1);
}

TEST(linger_by_dup2)
{
    int sv[2];
    size_t sent = stuffed(sv, 1000);

    linger_till_read(sv, sent, sv[1]);
}

TEST(linger_after_shutdown)
{
    int sv[2];
    size_t sent = stuffed(sv, 1000);

    OK(shutdown(sv[0], SHUT_WR));
    linger_till_read(sv, sent, -1);
}

TEST(linger_ends_with_its_time)
{
    int sv[2];
    size_t sent = stuffed(sv, 1);
    struct timespec from, to;

    OK(clock_gettime(CLOCK_MONOTONIC, &from));
    OK(close(sv[0]));
    OK(clock_gettime(CLOCK_MONOTONIC, &to));
    CHECK((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 >= 950);
    /* The rest comes all the same. */
    CHECK_EQ(drain(sv[1]), sent);
}

static void on_alarm(int sig)
{
    (void)sig;
    drained++;
}

TEST(linger_is_interrupted)
{
    int sv[2];
    size_t sent = stuffed(sv, 1000);
    struct sigaction sa = {.sa_handler = on_alarm};
    struct itimerval often = {{0, 50000}, {0, 50000}}, never = {{0, 0}, {0, 0}};

    OK(sigaction(SIGALRM, &sa, NULL));
    OK(setitimer(ITIMER_REAL, &often, NULL));
    OK(close(sv[0]));
    OK(setitimer(ITIMER_REAL, &never, NULL));
    CHECK(drained > 0);
    CHECK_ERRNO(fcntl(sv[0], F_GETFD), EBADF);
    CHECK_EQ(drain(sv[1]), sent);
}

static void late_close(struct late *l)
{
    OK(close(l->fd));
}

TEST(linger_ends_with_a_reset)
{
    int sv[2];

    stuffed(sv, 1000);
    struct late l = {.fd = sv[1], .fn = late_close};
    pthread_t t = soon(&l);
    OK(close(sv[0]));
    OK(pthread_join(t, NULL));
}

TEST(linger_not_by_one_of_two)
{
    int sv[2];
    size_t sent = stuffed(sv, 1000);
    int twin = OK(dup(sv[0]));

    OK(close(sv[0]));
    CHECK_EQ(state_of(twin), TCP_ESTABLISHED);
    linger_till_read((int[]){twin, sv[1]}, sent, -1);
}

TEST(linger_not_by_exit)
{
    pid_t pid = OK(fork());

    if (pid == 0) {
        int sv[2];
        stuffed(sv, 1000);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(linger_shutdown_does_not_wait)
{
    int sv[2];
    size_t sent = stuffed(sv, 1000);

    OK(shutdown(sv[0], SHUT_RDWR));
    CHECK_EQ(state_of(sv[0]), TCP_FIN_WAIT1);
    CHECK_EQ(drain(sv[1]), sent);
}

/* ---- urgent data ---- */

TEST(urgent)
{
    int sv[2], at = -1;
    char b[16];

    pair(sv);
    CHECK_ERRNO(recv(sv[1], b, 1, MSG_OOB), EINVAL);
    CHECK_EQ(OK(send(sv[0], "ab", 2, 0)), 2);
    CHECK_EQ(OK(send(sv[0], "cU", 2, MSG_OOB)), 2);
    CHECK_EQ(OK(send(sv[0], "de", 2, 0)), 2);
    CHECK_EQ(ready(sv[1], POLLPRI, PATIENCE_MS), POLLPRI);
    EVENTUALLY(conf_unread(sv[1]) >= 3);
    OK(ioctl(sv[1], SIOCATMARK, &at));
    CHECK_EQ(at, 0);
    CHECK_EQ(OK(recv(sv[1], b, 16, 0)), 3);
    CHECK(memcmp(b, "abc", 3) == 0);
    OK(ioctl(sv[1], SIOCATMARK, &at));
    CHECK_EQ(at, 1);
    CHECK_EQ(OK(recv(sv[1], b, 16, MSG_OOB)), 1);
    CHECK_EQ(b[0], 'U');
    CHECK_ERRNO(recv(sv[1], b, 16, MSG_OOB), EINVAL);
    CHECK_EQ(OK(recv(sv[1], b, 16, 0)), 2);
    CHECK(memcmp(b, "de", 2) == 0);
}

TEST(urgent_inline)
{
    int sv[2];
    char b[16];

    pair(sv);
    set_int(sv[1], SOL_SOCKET, SO_OOBINLINE, 1);
    CHECK_EQ(OK(send(sv[0], "abU", 3, MSG_OOB)), 3);
    CHECK_EQ(OK(send(sv[0], "c", 1, 0)), 1);
    EVENTUALLY(recv(sv[1], b, 4, MSG_PEEK) >= 2);
    CHECK_EQ(OK(recv(sv[1], b, 16, 0)), 2);
    CHECK_ERRNO(recv(sv[1], b, 16, MSG_OOB), EINVAL);
    CHECK_EQ(OK(recv(sv[1], b, 1, 0)), 1);
    CHECK_EQ(b[0], 'U');
    CHECK_EQ(OK(recv(sv[1], b, 16, 0)), 1);
    CHECK_EQ(b[0], 'c');
}

/* ---- epoll ---- */

static int watch(int ep, int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.fd = fd};

    return OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}

static uint32_t wait_one(int ep, int ms)
{
    struct epoll_event e = {.events = 0};

    return OK(epoll_wait(ep, &e, 1, ms)) == 1 ? e.events : 0;
}

TEST(edge_triggered)
{
    int sv[2], ep = OK(epoll_create1(0));
    char b[8];

    pair(sv);
    watch(ep, sv[1], EPOLLIN | EPOLLET);
    CHECK_EQ(wait_one(ep, 0), 0);
    CHECK_EQ(OK(send(sv[0], "ab", 2, 0)), 2);
    CHECK_EQ(wait_one(ep, PATIENCE_MS), EPOLLIN);
    CHECK_EQ(wait_one(ep, 0), 0);
    CHECK_EQ(OK(recv(sv[1], b, 1, 0)), 1);
    CHECK_EQ(wait_one(ep, 0), 0);
    CHECK_EQ(OK(send(sv[0], "c", 1, 0)), 1);
    CHECK_EQ(wait_one(ep, PATIENCE_MS), EPOLLIN);
}

/* After all that fd has was read, ep tells of output. */
static bool output_after_reading(int ep, int fd)
{
    static char b[1 << 20];

    while (recv(fd, b, sizeof(b), 0) > 0)
        ;
    return wait_one(ep, 20) == EPOLLOUT;
}

TEST(edge_triggered_output)
{
    int sv[2], ep = OK(epoll_create1(0));
    static char b[1 << 20];

    pair(sv);
    nonblock(sv[0]);
    watch(ep, sv[0], EPOLLOUT | EPOLLET);
    CHECK_EQ(wait_one(ep, 0), EPOLLOUT);
    CHECK_EQ(wait_one(ep, 0), 0);
    while (send(sv[0], b, sizeof(b), 0) > 0)
        ;
    CHECK_EQ(wait_one(ep, 0), 0);
    nonblock(sv[1]);
    EVENTUALLY(output_after_reading(ep, sv[1]));
}

TEST(epoll_listener_oneshot)
{
    int l = listener(4), ep = OK(epoll_create1(0));

    watch(ep, l, EPOLLIN | EPOLLONESHOT);
    OK(try_connect(tcp(), port_of(l)));
    CHECK_EQ(wait_one(ep, PATIENCE_MS), EPOLLIN);
    OK(try_connect(tcp(), port_of(l)));
    CHECK_EQ(wait_one(ep, 20), 0);
}

/* v[1]: whose event came. */
static void *wait_thread(void *arg)
{
    struct epoll_event e;
    int *v = arg;

    CHECK_EQ(OK(epoll_wait(v[0], &e, 1, -1)), 1);
    __atomic_store_n(&v[1], e.data.fd, __ATOMIC_SEQ_CST);
    return NULL;
}

static int count_woken(int v[4][2], int fd)
{
    int woken = 0;

    for (int i = 0; i < 4; i++)
        woken += __atomic_load_n(&v[i][1], __ATOMIC_SEQ_CST) == fd;
    return woken;
}

TEST(epoll_exclusive_wakes_one)
{
    int l = listener(4), over = OK(eventfd(0, 0));
    int v[4][2];
    pthread_t t[4];

    for (int i = 0; i < 4; i++) {
        v[i][0] = OK(epoll_create1(0));
        v[i][1] = 0;
        watch(v[i][0], l, EPOLLIN | EPOLLEXCLUSIVE | EPOLLET);
        watch(v[i][0], over, EPOLLIN);
        CHECK_EQ(pthread_create(&t[i], NULL, wait_thread, v[i]), 0);
    }
    conf_await_others_asleep();
    OK(try_connect(tcp(), port_of(l)));
    EVENTUALLY(count_woken(v, l) > 0);
    conf_sleep_ms(20);
    OK(eventfd_write(over, 1));
    for (int i = 0; i < 4; i++)
        OK(pthread_join(t[i], NULL));
    CHECK_EQ(count_woken(v, l), 1);
    CHECK_EQ(count_woken(v, over), 3);
}

/* ---- many ---- */

TEST_TIMEOUT(many_connections, 60)
{
    int l = listener(1024);
    uint16_t port = port_of(l);

    for (int round = 0; round < 5; round++) {
        int c[100], s[100];
        for (int i = 0; i < 100; i++) {
            c[i] = tcp();
            OK(try_connect(c[i], port));
            CHECK_EQ(OK(send(c[i], &i, sizeof(i), 0)), sizeof(i));
        }
        for (int i = 0; i < 100; i++) {
            int v = -1;
            s[i] = OK(accept(l, NULL, NULL));
            CHECK_EQ(OK(recv(s[i], &v, sizeof(v), 0)), sizeof(v));
            CHECK_EQ(v, i);
        }
        for (int i = 0; i < 100; i++) {
            OK(close(round & 1 ? c[i] : s[i]));
            OK(close(round & 1 ? s[i] : c[i]));
        }
    }
}

struct storm {
    uint16_t port;
    int rounds;
};

static void *storm_client(void *arg)
{
    struct storm *s = arg;

    for (int i = 0; i < s->rounds; i++) {
        int c = tcp();
        char b;
        OK(try_connect(c, s->port));
        CHECK_EQ(OK(send(c, "x", 1, MSG_NOSIGNAL)), 1);
        CHECK_EQ(OK(recv(c, &b, 1, 0)), 1);
        OK(close(c));
    }
    return NULL;
}

TEST_TIMEOUT(connect_storm, 60)
{
    int l = listener(4);
    struct storm s = {port_of(l), 50};
    pthread_t t[4];

    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, storm_client, &s), 0);
    for (int i = 0; i < 200; i++) {
        int c = OK(accept(l, NULL, NULL));
        char b;
        CHECK_EQ(OK(recv(c, &b, 1, 0)), 1);
        CHECK_EQ(OK(send(c, &b, 1, MSG_NOSIGNAL)), 1);
        OK(close(c));
    }
    for (int i = 0; i < 4; i++)
        OK(pthread_join(t[i], NULL));
}
