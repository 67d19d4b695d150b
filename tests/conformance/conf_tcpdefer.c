/* TCP_DEFER_ACCEPT: connections that are not accepted before something has come. */
#include "tcp_help.h"

#include <stdio.h>
#include <sys/epoll.h>

CONF_FAMILY("tcpdefer");

#define LONG_S 3600
#define CLIENTS 12

static int deferring(int backlog, int seconds)
{
    int l = tcp();

    OK(try_bind(l, 0));
    set_int(l, SOL_TCP, TCP_DEFER_ACCEPT, seconds);
    OK(listen(l, backlog));
    nonblock(l);
    return l;
}

static int dial(int l)
{
    int c = tcp();

    OK(try_connect(c, port_of(l)));
    return c;
}

static void reset_by(int c)
{
    const struct linger zero = {1, 0};

    OK(setsockopt(c, SOL_SOCKET, SO_LINGER, &zero, sizeof(zero)));
    OK(close(c));
}

/* Seconds become those that a number of SYNs takes. */
TEST(seconds)
{
    static const int asked[] = {0, 1, 2, 3, 4, 5, 7, 8, 30, 100, 200, 1000000000, -5};
    static const int told[] = {0, 1, 3, 3, 7, 7, 7, 15, 31, 127, 247, 29887, 0};
    int l = tcp();

    for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
        set_int(l, SOL_TCP, TCP_DEFER_ACCEPT, asked[i]);
        conf_diag("%d -> %d", asked[i], get_int(l, SOL_TCP, TCP_DEFER_ACCEPT));
        CHECK_EQ(get_int(l, SOL_TCP, TCP_DEFER_ACCEPT), told[i]);
    }
}

TEST(first_bytes)
{
    int l = deferring(4, LONG_S), c = dial(l);
    char b;

    CHECK_EQ(ready(l, POLLIN, 50), 0);
    CHECK_ERRNO(accept(l, NULL, NULL), EAGAIN);
    CHECK_EQ(state_of(c), TCP_ESTABLISHED);
    CHECK_EQ(OK(send(c, "x", 1, 0)), 1);
    CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
    int s = OK(accept(l, NULL, NULL));
    CHECK_EQ(OK(recv(s, &b, 1, 0)), 1);
    CHECK_EQ(b, 'x');
    CHECK_EQ(get_int(s, SOL_TCP, TCP_DEFER_ACCEPT), 0);
    CHECK_EQ(OK(send(s, "y", 1, 0)), 1);
    CHECK_EQ(OK(recv(c, &b, 1, 0)), 1);
}

static void late_byte(struct late *l)
{
    CHECK_EQ(OK(send(l->fd, "x", 1, 0)), 1);
}

/* Whoever sleeps in accept(2) is not woken by the connection, but by what comes over it. */
TEST(sleeping_accept)
{
    int l = deferring(4, LONG_S);
    char b;

    OK(fcntl(l, F_SETFL, O_RDWR));
    int c = dial(l);
    struct late late = {c, 0, late_byte};
    pthread_t t = soon(&late);
    int s = OK(accept(l, NULL, NULL));
    CHECK_EQ(OK(recv(s, &b, 1, MSG_DONTWAIT)), 1);
    OK(pthread_join(t, NULL));
}

TEST(edge_triggered)
{
    int l = deferring(4, LONG_S), ep = OK(epoll_create1(0));
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET};

    OK(epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev));
    int one = dial(l), two = dial(l);
    CHECK_EQ(OK(epoll_wait(ep, &ev, 1, 30)), 0);
    CHECK_EQ(OK(send(two, "2", 1, 0)), 1);
    CHECK_EQ(OK(epoll_wait(ep, &ev, 1, -1)), 1);
    CHECK_EQ(OK(send(one, "1", 1, 0)), 1);
    CHECK_EQ(OK(epoll_wait(ep, &ev, 1, -1)), 1);
    char b;
    int s = OK(accept(l, NULL, NULL));
    CHECK_EQ(OK(recv(s, &b, 1, 0)), 1);
    CHECK_EQ(b, '2');
}

/* An end of stream is something that comes. */
TEST(end_without_data)
{
    int l = deferring(4, LONG_S), c = dial(l);
    char b;

    OK(shutdown(c, SHUT_WR));
    CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
    int s = OK(accept(l, NULL, NULL));
    CHECK_EQ(OK(recv(s, &b, 1, 0)), 0);
    CHECK_EQ(state_of(s), TCP_CLOSE_WAIT);
    OK(close(dial(l)));
    CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
    s = OK(accept(l, NULL, NULL));
    CHECK_EQ(OK(recv(s, &b, 1, 0)), 0);
}

TEST(reset_without_data)
{
    int l = deferring(4, LONG_S);
    char b;

    for (int i = 0; i < 3; i++)
        reset_by(dial(l));
    int c = dial(l);
    CHECK_EQ(OK(send(c, "x", 1, 0)), 1);
    CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
    int s = OK(accept(l, NULL, NULL));
    CHECK_EQ(OK(recv(s, &b, 1, 0)), 1);
    CHECK_ERRNO(accept(l, NULL, NULL), EAGAIN);
}

/* When the time is over it comes without data. */
TEST(time_is_over)
{
    int l = deferring(4, 1), c = dial(l);
    char b;

    CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
    int s = OK(accept(l, NULL, NULL));
    CHECK_ERRNO(recv(s, &b, 1, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(OK(send(c, "x", 1, 0)), 1);
    CHECK_EQ(OK(recv(s, &b, 1, 0)), 1);
}

/* A listener that wants no more of it gets those that wait, in time. */
TEST(not_any_more)
{
    int l = deferring(4, 1), c = dial(l);

    set_int(l, SOL_TCP, TCP_DEFER_ACCEPT, 0);
    CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
    (void)OK(accept(l, NULL, NULL));
    int d = dial(l);
    CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
    (void)c;
    (void)d;
}

static void expect_reset(int c)
{
    char b;

    CHECK_ERRNO(recv(c, &b, 1, 0), ECONNRESET);
}

/* Nobody is there any more: who sends learns it. */
TEST(listener_closed)
{
    int l = deferring(4, LONG_S), c = dial(l), d = dial(l), e = dial(l);
    const uint16_t port = port_of(l);

    CHECK_EQ(OK(send(e, "x", 1, 0)), 1);
    CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
    OK(close(l));
    expect_reset(e);
    CHECK_EQ(ready(c, POLLIN, 20), 0);
    CHECK_EQ(state_of(c), TCP_ESTABLISHED);
    l = tcp();
    set_int(l, SOL_SOCKET, SO_REUSEADDR, 1);
    OK(try_bind(l, port));
    CHECK_EQ(OK(send(c, "x", 1, 0)), 1);
    expect_reset(c);
    OK(shutdown(d, SHUT_WR));
    CHECK_EQ(ready(d, POLLIN, -1) & (POLLERR | POLLHUP), POLLERR | POLLHUP);
}

/* In /proc/net/tcp: the state of the end at port. */
static int shown_state(uint16_t port, uint16_t peer)
{
    FILE *f = fopen("/proc/net/tcp", "r");
    char line[512];
    unsigned from, to, state, found = 0;

    CHECK(f != NULL);
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, " %*u: %*x:%x %*x:%x %x", &from, &to, &state) == 3 && from == port &&
            to == peer)
            found = state;
    OK(fclose(f));
    return (int)found;
}

TEST(shown_as_half_open)
{
    int l = deferring(4, LONG_S), c = dial(l);

    CHECK_EQ(shown_state(port_of(l), port_of(c)), TCP_SYN_RECV);
    CHECK_EQ(shown_state(port_of(c), port_of(l)), TCP_ESTABLISHED);
    CHECK_EQ(OK(send(c, "x", 1, 0)), 1);
    CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
    CHECK_EQ(shown_state(port_of(l), port_of(c)), TCP_ESTABLISHED);
}

static void accept_some(int l, int n)
{
    for (int i = 0; i < n; i++) {
        CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
        (void)OK(accept(l, NULL, NULL));
    }
    CHECK_ERRNO(accept(l, NULL, NULL), EAGAIN);
}

/* Of those that wait there are no more than the queue may have, and one; then as many come in as
 * the queue takes, without data; then no more. */
TEST(bounded)
{
    int l = deferring(3, LONG_S), c[CLIENTS];

    for (int i = 0; i < CLIENTS; i++) {
        c[i] = tcp();
        nonblock(c[i]);
        CHECK_ERRNO(try_connect(c[i], port_of(l)), EINPROGRESS);
        if (i < 8)
            CHECK_EQ(ready(c[i], POLLOUT, -1), POLLOUT);
        else
            CHECK_EQ(ready(c[i], POLLOUT, 0), 0);
        if (i < 4)
            CHECK_EQ(ready(l, POLLIN, 0), 0);
    }
    for (int i = 8; i < CLIENTS; i++)
        OK(close(c[i]));
    accept_some(l, 4);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(OK(send(c[i], "x", 1, 0)), 1);
    accept_some(l, 4);
}

/* The queue is full when their bytes come: they wait for room, and nothing is lost. */
TEST_TIMEOUT(room_comes_later, 60)
{
    int l = deferring(1, LONG_S), c[4];
    char b, seen = 0;

    for (int i = 0; i < 4; i++)
        c[i] = dial(l);
    CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(OK(send(c[i], (const char[]){(char)(1 << i)}, 1, 0)), 1);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(ready(l, POLLIN, -1), POLLIN);
        int s = OK(accept(l, NULL, NULL));
        CHECK_EQ(OK(recv(s, &b, 1, 0)), 1);
        seen |= b;
    }
    CHECK_EQ(seen, 15);
}
