/* What the conformance programs of TCP share: short calls that must succeed.
 * Depends on: harness.h.
 * Threading: any.
 * Ownership: descriptors are the caller's. */
#ifndef CONFORMANCE_TCP_HELP_H
#define CONFORMANCE_TCP_HELP_H

#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#define PATIENCE_MS (CONF_PATIENCE_S * 1000)
#define TCP_HELP __attribute__((unused)) static

TCP_HELP struct sockaddr_in in4(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

TCP_HELP uint16_t port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);

    OK(getsockname(fd, (struct sockaddr *)&a, &len));
    return ntohs(((struct sockaddr_in *)&a)->sin_port);
}

TCP_HELP int tcp(void)
{
    return OK(socket(AF_INET, SOCK_STREAM, 0));
}

TCP_HELP int try_bind(int fd, uint16_t port)
{
    struct sockaddr_in a = in4(port);

    return bind(fd, (struct sockaddr *)&a, sizeof(a));
}

TCP_HELP int try_connect(int fd, uint16_t port)
{
    struct sockaddr_in a = in4(port);

    return connect(fd, (struct sockaddr *)&a, sizeof(a));
}

TCP_HELP int listener(int backlog)
{
    int fd = tcp();

    OK(try_bind(fd, 0));
    OK(listen(fd, backlog));
    return fd;
}

/* sv[0] connected, sv[1] accepted. */
TCP_HELP void pair(int sv[2])
{
    int l = listener(4);

    sv[0] = tcp();
    OK(try_connect(sv[0], port_of(l)));
    sv[1] = OK(accept(l, NULL, NULL));
    OK(close(l));
}

TCP_HELP int get_int(int fd, int level, int name)
{
    int v = -12345;
    socklen_t len = sizeof(v);

    OK(getsockopt(fd, level, name, &v, &len));
    CHECK_EQ(len, sizeof(v));
    return v;
}

TCP_HELP void set_int(int fd, int level, int name, int v)
{
    OK(setsockopt(fd, level, name, &v, sizeof(v)));
}

TCP_HELP short ready(int fd, short events, int ms)
{
    struct pollfd p = {.fd = fd, .events = events};

    OK(poll(&p, 1, ms));
    return p.revents;
}

TCP_HELP int state_of(int fd)
{
    struct tcp_info i;
    socklen_t len = sizeof(i);

    OK(getsockopt(fd, SOL_TCP, TCP_INFO, &i, &len));
    return i.tcpi_state;
}

/* Waits for a state that the other end's doing brings about. */
TCP_HELP void await_state(int fd, int state)
{
    EVENTUALLY(state_of(fd) == state);
}

TCP_HELP void nonblock(int fd)
{
    OK(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK));
}

/* A thread that does something to fd, or port, when the main thread sleeps. */
struct late {
    int fd;
    uint16_t port;
    void (*fn)(struct late *);
};

TCP_HELP void *later(void *arg)
{
    struct late *l = arg;

    conf_await_asleep(getpid());
    l->fn(l);
    return NULL;
}

TCP_HELP pthread_t soon(struct late *l)
{
    pthread_t t;

    CHECK_EQ(pthread_create(&t, NULL, later, l), 0);
    return t;
}

TCP_HELP void late_shutdown(struct late *l)
{
    OK(shutdown(l->fd, SHUT_RDWR));
}

TCP_HELP void late_connect(struct late *l)
{
    OK(try_connect(tcp(), l->port));
}

TCP_HELP void late_send(struct late *l)
{
    CHECK_EQ(OK(send(l->fd, "late", 4, 0)), 4);
}

#endif
