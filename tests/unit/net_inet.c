/* AF_INET sockets without a guest: lifetimes, races, bounded memory, hostile ancillary data. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <net/if.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/limits.h"
#include "base/objcount.h"
#include "sentry/net/inet/inet.h"
#include "sentry/net/ns/netns.h"
#include "sentry/net/sock.h"

static struct net *net;
static struct vfs_caller caller;

static void setup(void)
{
    static struct blocker blocker;

    cr_assert_eq(net_new(NULL, &net), 0);
    netns_config_lock(net_ns(net));
    cr_assert_eq(netns_link_set_flags(net_ns(net), NETNS_LO_INDEX, IFF_UP, IFF_UP), 0);
    netns_config_unlock(net_ns(net));
    cr_assert_eq(cred_new_root(UINT64_MAX, &caller.cred), 0);
    blocker_init(&blocker);
    caller.blocker = &blocker;
    caller.fsize_limit = UINT64_MAX;
    caller.pid = caller.tgid = 7;
}

static void teardown(void)
{
    cr_assert_leq(objcount_live("tcp_sock"), 0);
    cr_assert_leq(objcount_live("dgram_sock"), 0);
    cred_put(caller.cred);
    net_free(net);
}

TestSuite(net_inet, .init = setup, .fini = teardown);

/* ---- helpers ---- */

static struct sock_addr addr4(uint16_t port)
{
    struct sock_addr a = {.len = sizeof(struct sockaddr_in)};

    a.in.sin_family = AF_INET;
    a.in.sin_port = htons(port);
    a.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static struct sock *make(int type)
{
    struct sock *s = NULL;

    cr_assert_eq(sock_create(net, AF_INET, type, 0, &caller, &s), 0);
    return s;
}

static void drop(struct sock *s)
{
    s->ops->close(s);
    sock_put(s);
}

static uint16_t port_of(struct sock *s)
{
    struct sock_addr a;

    cr_assert_eq(s->ops->getname(s, false, &a), 0);
    return ntohs(a.in.sin_port);
}

static struct sock *listening(int backlog)
{
    const struct sock_addr a = addr4(0);
    struct sock *l = make(SOCK_STREAM);

    cr_assert_eq(l->ops->bind(l, &a, &caller), 0);
    cr_assert_eq(l->ops->listen(l, backlog, &caller), 0);
    return l;
}

static int dial(struct sock *s, uint16_t port)
{
    const struct sock_addr a = addr4(port);

    return s->ops->connect(s, &a, true, &caller);
}

static int64_t put(struct sock *s, const void *data, size_t size)
{
    struct sock_msg m = {0};
    struct uio u;

    uio_init_kernel(&u, (void *)(uintptr_t)data, size);
    m.u = &u;
    return s->ops->send(s, &m, true, &caller);
}

static int64_t take(struct sock *s, void *data, size_t size)
{
    struct sock_msg m = {0};
    struct uio u;

    uio_init_kernel(&u, data, size);
    m.u = &u;
    return s->ops->recv(s, &m, true, &caller);
}

/* ---- bytes ---- */

struct flow {
    struct sock *s;
    size_t size;
};

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 2654435761u >> 11);
}

static void *flow_out(void *arg)
{
    const struct flow *f = arg;
    uint8_t b[40000];
    size_t done = 0;

    while (done < f->size) {
        const size_t n = 1 + done * 7919 % sizeof(b);
        const size_t part = n < f->size - done ? n : f->size - done;
        for (size_t i = 0; i < part; i++)
            b[i] = byte_at(done + i);
        size_t sent = 0;
        while (sent < part) {
            const int64_t r = put(f->s, b + sent, part - sent);
            if (r > 0)
                sent += (size_t)r;
            else if (r != -EAGAIN)
                return arg;
        }
        done += part;
    }
    return NULL;
}

Test(net_inet, bytes_arrive_in_order_between_threads)
{
    struct sock *l = listening(1), *c = make(SOCK_STREAM), *s = NULL;
    static uint8_t b[50000];
    pthread_t t;
    void *bad = NULL;

    cr_assert_eq(dial(c, port_of(l)), -EINPROGRESS);
    cr_assert_eq(l->ops->accept(l, true, &caller, &s), 0);
    struct flow f = {c, 24u << 20};
    cr_assert_eq(pthread_create(&t, NULL, flow_out, &f), 0);
    for (size_t got = 0; got < f.size;) {
        const int64_t n = take(s, b, 1 + got * 104729 % sizeof(b));
        if (n == -EAGAIN)
            continue;
        cr_assert_gt(n, 0);
        for (int64_t i = 0; i < n; i++)
            cr_assert_eq(b[i], byte_at(got + (size_t)i));
        got += (size_t)n;
    }
    pthread_join(t, &bad);
    cr_assert_null(bad);
    drop(c);
    drop(s);
    drop(l);
}

Test(net_inet, what_nobody_reads_is_bounded)
{
    enum { CONNECTIONS = 600 };
    static struct sock *c[CONNECTIONS], *s[CONNECTIONS];
    static uint8_t big[1 << 20];
    struct sock *l = listening(LIMIT_SOMAXCONN);
    int64_t total = 0;

    for (int i = 0; i < CONNECTIONS; i++) {
        c[i] = make(SOCK_STREAM);
        cr_assert_eq(dial(c[i], port_of(l)), -EINPROGRESS);
        cr_assert_eq(l->ops->accept(l, true, &caller, &s[i]), 0);
        for (int64_t n; (n = put(c[i], big, sizeof(big))) > 0;)
            total += n;
    }
    cr_assert_leq(total, LIMIT_INET_MEM + LIMIT_INET_MEM_PRESSURE);
    for (int i = 0; i < CONNECTIONS; i++) {
        drop(c[i]);
        drop(s[i]);
    }
    drop(l);
}

/* ---- races ---- */

static _Atomic bool stop;

static void *dialer(void *arg)
{
    const uint16_t port = *(uint16_t *)arg;
    char b[64];

    while (!stop) {
        struct sock *c = make(SOCK_STREAM);
        const int r = dial(c, port);
        cr_assert(r == -EINPROGRESS || r == -EADDRNOTAVAIL);
        (void)!put(c, "hello", 5);
        (void)!take(c, b, sizeof(b));
        if (port_of(c) & 1)
            (void)!c->ops->shutdown(c, SHUT_RDWR);
        drop(c);
    }
    return NULL;
}

static void *acceptor(void *arg)
{
    struct sock *l = arg, *s;
    char b[64];

    while (!stop) {
        if (l->ops->accept(l, true, &caller, &s))
            continue;
        (void)!take(s, b, sizeof(b));
        (void)!put(s, "world", 5);
        drop(s);
    }
    return NULL;
}

static int count_info(void *arg, const struct inet_info *i, struct sock *s)
{
    (void)i;
    (void)s;
    ++*(unsigned *)arg;
    return 0;
}

Test(net_inet, connect_accept_close_race)
{
    struct sock *l = listening(2);
    uint16_t port = port_of(l);
    pthread_t t[5];

    stop = false;
    for (int i = 0; i < 5; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, i < 3 ? dialer : acceptor,
                                    i < 3 ? (void *)&port : (void *)l),
                     0);
    for (int i = 0; i < 200; i++) {
        unsigned n = 0;
        cr_assert_eq(inet_for_each(net, 0, IPPROTO_TCP, count_info, &n), 0);
        cr_assert_geq(n, 1);
    }
    stop = true;
    for (int i = 0; i < 5; i++)
        pthread_join(t[i], NULL);
    drop(l);
}

static void *closer(void *arg)
{
    drop(arg);
    return NULL;
}

Test(net_inet, both_ends_close_at_once)
{
    struct sock *l = listening(1);

    for (int i = 0; i < 300; i++) {
        struct sock *c = make(SOCK_STREAM), *s = NULL;
        pthread_t t;
        const int r = dial(c, port_of(l));
        if (r == -EADDRNOTAVAIL) {
            drop(c);
            continue;
        }
        cr_assert_eq(l->ops->accept(l, true, &caller, &s), 0);
        if (i & 1)
            (void)!put(c, "unread", 6);
        cr_assert_eq(pthread_create(&t, NULL, closer, c), 0);
        drop(s);
        pthread_join(t, NULL);
    }
    drop(l);
}

Test(net_inet, listener_closes_under_dialers)
{
    for (int i = 0; i < 30; i++) {
        struct sock *l = listening(1);
        uint16_t port = port_of(l);
        pthread_t t[2];
        stop = false;
        for (int k = 0; k < 2; k++)
            cr_assert_eq(pthread_create(&t[k], NULL, dialer, &port), 0);
        for (volatile int k = 0; k < 20000; k++)
            ;
        drop(l);
        stop = true;
        for (int k = 0; k < 2; k++)
            pthread_join(t[k], NULL);
    }
}

/* ---- ancillary data of any shape ---- */

Test(net_inet, control_items_of_any_shape)
{
    struct sock *a = make(SOCK_DGRAM), *b = make(SOCK_DGRAM);
    const struct sock_addr any = addr4(0);
    unsigned seed = 1;

    cr_assert_eq(a->ops->bind(a, &any, &caller), 0);
    const struct sock_addr to = addr4(port_of(a));
    for (int i = 0; i < 20000; i++) {
        struct sock_control ctl = {0};
        struct sock_msg m = {.to = &to, .control = &ctl};
        uint8_t junk[64];
        struct uio u;
        for (size_t k = 0; k < sizeof(junk); k++)
            junk[k] = (uint8_t)rand_r(&seed);
        const int level = (const int[]){SOL_IP, SOL_IPV6, IPPROTO_UDP, 77}[rand_r(&seed) % 4];
        cr_assert_eq(sock_control_put(&ctl, level, rand_r(&seed) % 110, junk,
                                      (size_t)rand_r(&seed) % sizeof(junk)),
                     0);
        uio_init_kernel(&u, junk, 1 + (size_t)rand_r(&seed) % 60);
        m.u = &u;
        (void)!b->ops->send(b, &m, true, &caller);
        (void)!take(a, junk, sizeof(junk));
        sock_control_fini(&ctl);
    }
    drop(a);
    drop(b);
}
