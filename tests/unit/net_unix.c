/* AF_UNIX sockets without a guest: descriptors in flight, garbage, races. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/limits.h"
#include "base/objcount.h"
#include "sentry/net/sock.h"

static struct net *net;
static struct vfs_caller caller;

static void setup(void)
{
    static struct blocker blocker;

    cr_assert_eq(net_new(NULL, &net), 0);
    cr_assert_eq(cred_new_root(UINT64_MAX, &caller.cred), 0);
    blocker_init(&blocker);
    caller.blocker = &blocker;
    caller.fsize_limit = UINT64_MAX;
    caller.pid = caller.tgid = 7;
}

/* Debug builds count; release builds say -1 or 0. */
static void nothing_left(void)
{
    cr_assert_leq(objcount_live("unix_sock"), 0);
    cr_assert_leq(objcount_live("file"), 0);
}

static void teardown(void)
{
    nothing_left();
    cred_put(caller.cred);
    net_free(net);
}

TestSuite(net_unix, .init = setup, .fini = teardown);

/* ---- helpers ---- */

static void pair(int type, struct file *out[2])
{
    struct sock *s[2];

    cr_assert_eq(sock_create_pair(net, AF_UNIX, type, 0, &caller, s), 0);
    cr_assert_eq(sock_file(s[0], 0, &out[0]), 0);
    cr_assert_eq(sock_file(s[1], 0, &out[1]), 0);
}

static struct sock *sock_of(struct file *f)
{
    struct sock *s = NULL;

    cr_assert_eq(sock_from_file(f, &s), 0);
    return s;
}

static int64_t send_bytes(struct file *f, const char *text, size_t size, bool nonblock)
{
    struct uio u;
    struct sock_msg m = {.u = &u};
    char buf[256];

    memcpy(buf, text, size);
    uio_init_kernel(&u, buf, size);
    return sock_of(f)->ops->send(sock_of(f), &m, nonblock, &caller);
}

static int64_t send_file(struct file *f, struct file *what)
{
    struct sock_control ctl = {.file_count = 1};
    struct uio u;
    struct sock_msg m = {.u = &u, .control = &ctl};
    char byte = 'f';

    ctl.files = calloc(1, sizeof(struct file *));
    ctl.files[0] = file_get(what);
    uio_init_kernel(&u, &byte, 1);
    int64_t n = sock_of(f)->ops->send(sock_of(f), &m, true, &caller);
    sock_control_fini(&ctl);
    return n;
}

static int64_t recv_bytes(struct file *f, char *buf, size_t size, bool nonblock)
{
    struct uio u;
    struct sock_msg m = {.u = &u};

    uio_init_kernel(&u, buf, size);
    return sock_of(f)->ops->recv(sock_of(f), &m, nonblock, &caller);
}

/* Closing any socket looks for garbage. */
static void look_for_garbage(void)
{
    struct file *f[2];

    pair(SOCK_STREAM, f);
    file_put(f[0]);
    file_put(f[1]);
}

/* ---- data ---- */

Test(net_unix, bytes_and_end)
{
    struct file *f[2];
    char buf[8];

    pair(SOCK_STREAM, f);
    cr_assert_eq(send_bytes(f[0], "hello", 5, true), 5);
    cr_assert_eq(recv_bytes(f[1], buf, 3, true), 3);
    cr_assert_eq(memcmp(buf, "hel", 3), 0);
    cr_assert_eq(recv_bytes(f[1], buf, 8, true), 2);
    cr_assert_eq(recv_bytes(f[1], buf, 8, true), -EAGAIN);
    file_put(f[0]);
    cr_assert_eq(recv_bytes(f[1], buf, 8, true), 0);
    cr_assert_eq(send_bytes(f[1], "x", 1, true), -EPIPE);
    file_put(f[1]);
}

Test(net_unix, buffers_are_bounded)
{
    const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    const char text[200] = "";

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        struct file *f[2];
        size_t sent = 0;
        pair(types[i], f);
        while (send_bytes(f[0], text, sizeof(text), true) > 0)
            sent++;
        cr_assert_gt(sent, 100);
        cr_assert_leq(sent * sizeof(text), LIMIT_SOCKBUF_DEFAULT);
        cr_assert_eq(vfs_poll(f[0], NULL) & EPOLLOUT, 0);
        char buf[200];
        while (sent-- > 0)
            cr_assert_eq(recv_bytes(f[1], buf, sizeof(buf), true), 200);
        cr_assert_neq(vfs_poll(f[0], NULL) & EPOLLOUT, 0);
        file_put(f[0]);
        file_put(f[1]);
    }
}

/* ---- descriptors in flight ---- */

Test(net_unix, files_arrive_once)
{
    struct sock_control ctl = {0};
    struct file *f[2], *g[2];
    struct uio u;
    struct sock_msg m = {.u = &u, .control = &ctl};
    char byte;

    pair(SOCK_STREAM, f);
    pair(SOCK_STREAM, g);
    cr_assert_eq(send_file(f[0], g[0]), 1);
    uio_init_kernel(&u, &byte, 1);
    cr_assert_eq(sock_of(f[1])->ops->recv(sock_of(f[1]), &m, true, &caller), 1);
    cr_assert_eq(ctl.file_count, 1);
    cr_assert_eq(ctl.files[0], g[0]);
    sock_control_fini(&ctl);
    for (int i = 0; i < 2; i++) {
        file_put(f[i]);
        file_put(g[i]);
    }
}

Test(net_unix, a_socket_in_its_own_queue)
{
    struct file *f[2];

    pair(SOCK_STREAM, f);
    cr_assert_eq(send_file(f[0], f[1]), 1);
    cr_assert_eq(send_file(f[1], f[0]), 1);
    file_put(f[0]);
    file_put(f[1]);
    look_for_garbage();
}

Test(net_unix, rings_of_sockets)
{
    enum { RING = 50 };
    struct file *f[RING][2];

    for (int i = 0; i < RING; i++)
        pair(SOCK_STREAM, f[i]);
    /* Each reads from the next one's queue, the last from the first's. */
    for (int i = 0; i < RING; i++)
        cr_assert_eq(send_file(f[i][0], f[(i + 1) % RING][1]), 1);
    for (int i = 0; i < RING; i++) {
        if (i > 0)
            file_put(f[i][1]);
        file_put(f[i][0]);
    }
    /* The first one can still be reached: everything stays. */
    look_for_garbage();
    struct sock_control ctl = {0};
    struct uio u;
    struct sock_msg m = {.u = &u, .control = &ctl};
    char byte;
    uio_init_kernel(&u, &byte, 1);
    cr_assert_eq(sock_of(f[0][1])->ops->recv(sock_of(f[0][1]), &m, true, &caller), 1);
    cr_assert_eq(ctl.file_count, 1);
    cr_assert_eq(ctl.files[0], f[1][1]);
    /* Back into a queue, and the ring is garbage once more when the last hand lets go. */
    sock_control_fini(&ctl);
    file_put(f[0][1]);
    look_for_garbage();
}

Test(net_unix, a_deep_chain_does_not_recurse)
{
    struct file *last[2];

    pair(SOCK_STREAM, last);
    file_put(last[0]);
    for (int i = 0; i < 10000; i++) {
        struct file *next[2];
        pair(SOCK_STREAM, next);
        cr_assert_eq(send_file(next[0], last[1]), 1);
        file_put(last[1]);
        file_put(next[0]);
        last[1] = next[1];
    }
    file_put(last[1]);
}

Test(net_unix, files_in_flight_are_bounded)
{
    struct file *f[2];
    size_t sent = 0;
    int64_t n = 0;

    /* Pairs whose queues hold each other's ends, so that no sender's buffer is the limit. */
    struct file *target[2];
    pair(SOCK_STREAM, target);
    while (sent < LIMIT_SCM_INFLIGHT + 10) {
        pair(SOCK_STREAM, f);
        for (int i = 0; i < 100 && n >= 0; i++) {
            n = send_file(f[0], target[0]);
            sent += n > 0;
        }
        cr_assert_eq(send_file(f[1], f[0]) + send_file(f[0], f[1]) == 2 || n < 0, true);
        file_put(f[0]);
        file_put(f[1]);
        if (n < 0)
            break;
    }
    /* Those rings are garbage, which is taken away whenever a socket is closed. */
    cr_assert_eq(n, 1);
    file_put(target[0]);
    file_put(target[1]);
    look_for_garbage();
}

Test(net_unix, too_many_references)
{
    enum { PAIRS = 60 };
    struct file *f[PAIRS][2], *what[2];
    size_t sent = 0;
    int64_t n = 1;

    pair(SOCK_STREAM, what);
    for (int i = 0; i < PAIRS; i++) {
        pair(SOCK_STREAM, f[i]);
        while ((n = send_file(f[i][0], what[0])) == 1)
            sent++;
        if (n == -ETOOMANYREFS) {
            cr_assert_eq(sent, LIMIT_SCM_INFLIGHT);
            for (int j = 0; j <= i; j++) {
                file_put(f[j][0]);
                file_put(f[j][1]);
            }
            break;
        }
        cr_assert_eq(n, -EAGAIN);
    }
    cr_assert_eq(n, -ETOOMANYREFS);
    cr_assert_eq(ref_read(&what[0]->ref), 1);
    file_put(what[0]);
    file_put(what[1]);
}

/* ---- names ---- */

static struct file *named(int type, const char *name)
{
    struct sock_addr a = {0};
    struct sock *s;
    struct file *f;

    a.family = AF_UNIX;
    memcpy(a.un.sun_path + 1, name, strlen(name));
    a.len = (socklen_t)(sizeof(sa_family_t) + 1 + strlen(name));
    cr_assert_eq(sock_create(net, AF_UNIX, type, 0, &caller, &s), 0);
    cr_assert_eq(s->ops->bind(s, &a, &caller), 0);
    cr_assert_eq(sock_file(s, 0, &f), 0);
    return f;
}

static int connect_to(struct file *f, const char *name)
{
    struct sock_addr a = {0};

    a.family = AF_UNIX;
    memcpy(a.un.sun_path + 1, name, strlen(name));
    a.len = (socklen_t)(sizeof(sa_family_t) + 1 + strlen(name));
    return sock_of(f)->ops->connect(sock_of(f), &a, true, &caller);
}

Test(net_unix, descriptors_to_one_not_yet_accepted)
{
    struct file *l = named(SOCK_STREAM, "l"), *c;
    struct sock *s;

    cr_assert_eq(sock_of(l)->ops->listen(sock_of(l), 5, &caller), 0);
    cr_assert_eq(sock_create(net, AF_UNIX, SOCK_STREAM, 0, &caller, &s), 0);
    cr_assert_eq(sock_file(s, 0, &c), 0);
    cr_assert_eq(connect_to(c, "l"), 0);
    /* The listener waits in the queue of a connection that only it could accept. */
    cr_assert_eq(send_file(c, l), 1);
    cr_assert_eq(send_file(c, c), 1);
    file_put(l);
    file_put(c);
    look_for_garbage();
}

Test(net_unix, datagram_flood_of_many_senders)
{
    struct file *to = named(SOCK_DGRAM, "flood");
    size_t total = 0;

    for (int i = 0; i < 50; i++) {
        struct sock *s;
        struct file *f;
        cr_assert_eq(sock_create(net, AF_UNIX, SOCK_DGRAM, 0, &caller, &s), 0);
        cr_assert_eq(sock_file(s, 0, &f), 0);
        cr_assert_eq(connect_to(f, "flood"), 0);
        while (send_bytes(f, "x", 1, true) == 1)
            total++;
        (void)vfs_poll(f, NULL);
        file_put(f);
    }
    /* A queue is full with one more than its limit, as on Linux. */
    cr_assert_eq(total, LIMIT_UNIX_PACKETS + 1);
    file_put(to);
}

/* ---- races ---- */

#define STORM_THREADS 4
#define STORM_STEPS 3000

struct storm {
    struct file *ends[8];
    unsigned seed;
};

static void *storm(void *arg)
{
    struct storm *st = arg;
    char buf[128];

    for (int i = 0; i < STORM_STEPS; i++) {
        const unsigned r = (unsigned)rand_r(&st->seed);
        struct file *f = st->ends[r % 8], *g = st->ends[r / 8 % 8];
        switch (r / 64 % 6) {
        case 0:
            (void)!send_file(f, g);
            break;
        case 1:
            (void)!send_bytes(f, "abc", 3, true);
            break;
        case 2:
        case 3:
            (void)!recv_bytes(f, buf, sizeof(buf), true);
            break;
        case 4:
            look_for_garbage();
            break;
        default:
            (void)vfs_poll(f, NULL);
        }
    }
    return NULL;
}

Test(net_unix, storm_of_threads)
{
    struct storm st[STORM_THREADS];
    pthread_t th[STORM_THREADS];
    struct file *ends[8];

    for (int i = 0; i < 8; i += 2)
        pair(i % 4 ? SOCK_DGRAM : SOCK_STREAM, &ends[i]);
    for (unsigned i = 0; i < STORM_THREADS; i++) {
        memcpy(st[i].ends, ends, sizeof(ends));
        st[i].seed = i + 1;
        cr_assert_eq(pthread_create(&th[i], NULL, storm, &st[i]), 0);
    }
    for (int i = 0; i < STORM_THREADS; i++)
        pthread_join(th[i], NULL);
    for (int i = 0; i < 8; i++)
        file_put(ends[i]);
    look_for_garbage();
}
