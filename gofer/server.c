/* The frame around requests, and the threads that serve channels. */
#include "gofer/server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/settle.h"
#include "gofer/proto/area.h"
#include "gofer/proto/msg.h"
#include "gofer/server_priv.h"

static const req_fn functions[GOF_OP_END] = {
    [GOF_ATTACH] = srv_attach,       [GOF_WALK] = srv_walk,
    [GOF_OPEN] = srv_open,           [GOF_CREATE] = srv_create,
    [GOF_TMPFILE] = srv_tmpfile,     [GOF_SYMLINK] = srv_symlink,
    [GOF_LINK] = srv_link,           [GOF_UNLINK] = srv_unlink,
    [GOF_RENAME] = srv_rename,       [GOF_READLINK] = srv_readlink,
    [GOF_GETDENTS] = srv_getdents,   [GOF_STAT] = srv_stat,
    [GOF_SETATTR] = srv_setattr,     [GOF_STATFS] = srv_statfs,
    [GOF_GETXATTR] = srv_getxattr,   [GOF_SETXATTR] = srv_setxattr,
    [GOF_LISTXATTR] = srv_listxattr, [GOF_REMOVEXATTR] = srv_removexattr,
    [GOF_FSYNC] = srv_fsync,         [GOF_SYNCFS] = srv_syncfs,
    [GOF_CLOSE] = srv_close,         [GOF_WATCH] = srv_watch,
    [GOF_EVENTS] = srv_events,       [GOF_CONNECT] = srv_connect,
    [GOF_OPEN_FIFO] = srv_open_fifo, [GOF_LOOK] = srv_look,
};

int gof_server_new(const struct gof_server_args *a, struct gof_server **out_server)
{
    if (a->export_count > GOF_EXPORT_MAX)
        return -EINVAL;
    struct gof_server *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    int r = watch_init(&s->watches, a->handle_max / 4, a->fd_path);
    if (r) {
        free(s);
        return r;
    }
    handle_table_init(&s->handles, a->handle_max, &s->watches);
    memcpy(s->exports, a->exports, a->export_count * sizeof(*a->exports));
    s->export_count = a->export_count;
    s->proc_fd = a->proc_fd;
    s->one_id = a->one_id;
    s->host_uds = a->host_uds;
    s->host_fifo = a->host_fifo;
    *out_server = s;
    return 0;
}

void gof_server_free(struct gof_server *s)
{
    for (size_t i = 0; i < s->export_count; i++)
        close(s->exports[i].fd);
    handle_table_fini(&s->handles);
    watch_fini(&s->watches);
    free(s);
}

size_t gof_server_handles(struct gof_server *s)
{
    mutex_lock(&s->handles.mu);
    size_t n = s->handles.used;
    mutex_unlock(&s->handles.mu);
    return n;
}

int gof_conn_init(struct gof_conn *c, struct gof_server *s)
{
    c->s = s;
    c->cpu = c->wanted_cpu = GOF_CPU_NONE;
    c->sock = -1;
    c->in = malloc(GOF_MESSAGE_MAX);
    c->out = malloc(GOF_MESSAGE_MAX);
    c->scratch = malloc(GOF_MESSAGE_MAX);
    if (c->in && c->out && c->scratch)
        return 0;
    gof_conn_fini(c);
    return -ENOMEM;
}

void gof_conn_fini(struct gof_conn *c)
{
    free(c->in);
    free(c->out);
    free(c->scratch);
    c->in = c->out = c->scratch = NULL;
}

static int close_handles(struct req *q, size_t count)
{
    if (count > GOF_CLOSE_MAX)
        return -EPROTO;
    for (size_t i = 0; i < count; i++) {
        uint64_t id = rbuf_u64(&q->r);
        if (!rbuf_ok(&q->r) || handle_close(&q->s->handles, id))
            return -EPROTO;
    }
    return 0;
}

int gof_server_answer(struct gof_conn *c, size_t size, size_t *out_size, int *out_fd)
{
    struct req q = {.s = c->s, .conn = c, .fd = -1};

    rbuf_init(&q.r, c->in, size);
    wbuf_init(&q.w, c->out, GOF_MESSAGE_MAX);
    unsigned op = rbuf_u16(&q.r);
    size_t closes = rbuf_u16(&q.r);
    uint32_t seq = rbuf_u32(&q.r);
    uint32_t cpu = rbuf_u16(&q.r);
    if (!rbuf_ok(&q.r) || op >= GOF_OP_END || !functions[op] || close_handles(&q, closes))
        return -EPROTO;
    c->wanted_cpu = cpu;
    wbuf_u32(&q.w, 0);
    wbuf_u32(&q.w, seq);
    int r = functions[op](&q);
    if (r == SRV_MALFORMED)
        return -EPROTO;
    if (r == 0 && wbuf_status(&q.w))
        r = -EOVERFLOW;
    if (r) {
        q.w.len = 8;
        q.w.failed = false;
        wbuf_patch_u32(&q.w, 0, (uint32_t)r);
        if (q.fd >= 0)
            close(q.fd);
        q.fd = -1;
    }
    *out_size = q.w.len;
    *out_fd = q.fd;
    return 0;
}

/* As gof_server_answer, after a message of n bytes; a negative n is an errno. */
static int answer(struct gof_conn *c, int64_t n, size_t *out_size, int *out_fd)
{
    int r = n < 0 ? (int)n : gof_server_answer(c, (size_t)n, out_size, out_fd);

    if (r == -EPROTO)
        log_error("gofer: a malformed request (%s)", n < 0 ? "?" : gof_op_name(c->in[0]));
    return r;
}

/* In the memory of a channel: a descriptor goes ahead, through its socket. */
static int serve_area(struct gof_conn *c, struct gof_area *area, int64_t n)
{
    size_t size = 0;
    int fd = -1;
    int r = answer(c, n, &size, &fd);

    if (r == 0 && fd >= 0) {
        r = gof_msg_send(c->sock, "", 1, fd);
        close(fd);
    }
    if (r == 0)
        gof_area_put(area, c->out, size, GOF_TURN_SENTRY);
    return r;
}

/* Through the socket, where descriptors go in neither direction. */
static int serve_socket(struct gof_conn *c, int64_t n, int fd)
{
    size_t size = 0;

    if (fd >= 0) {
        close(fd);
        n = -EPROTO;
    }
    int r = answer(c, n, &size, &fd);
    if (r == 0 && fd >= 0) {
        close(fd);
        r = -EPROTO;
    }
    return r ? r : gof_msg_send(c->sock, c->out, size, -1);
}

/* The thread that serves a channel goes where it is wanted, and nowhere if it may not. */
static void follow(struct gof_conn *c)
{
    cpu_set_t set;

    if (c->wanted_cpu == c->cpu)
        return;
    c->cpu = c->wanted_cpu;
    if (c->cpu >= CPU_SETSIZE)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)c->cpu, &set);
    (void)sched_setaffinity(0, sizeof(set), &set);
}

/* Till something is there to receive. */
static void await_message(int sock, struct settling *settling)
{
    struct pollfd p = {.fd = sock, .events = POLLIN};
    int n;

    do
        n = poll(&p, 1, settling_wait_ms(settling));
    while (n == 0 || (n < 0 && errno == EINTR));
    if (settling->settled)
        *settling = (struct settling){0};
}

/* The channel for events, until it ends. */
static int serve_events(struct gof_server *s, int sock)
{
    struct settling settling = {0};
    struct gof_conn c;
    int r = gof_conn_init(&c, s);

    c.sock = sock;
    while (r == 0) {
        int fd = -1;
        await_message(sock, &settling);
        int64_t n = gof_msg_recv(sock, c.in, GOF_MESSAGE_MAX, 0, &fd);
        if (n == 0 || (n < 0 && n != -EPROTO))
            break;
        r = serve_socket(&c, n, fd);
    }
    gof_conn_fini(&c);
    return r;
}

/* What the threads of a server share. */
struct run {
    struct gof_server *s;
    struct gof_area *areas;
    const int *socks;
    size_t count; /* of sockets: one more than there are areas */
    _Atomic bool broken, ended;
    struct mutex mu; /* rank LEAF: guards live */
    struct cond left;
    size_t live; /* threads of areas */
};

struct run_thread {
    struct run *run;
    size_t channel;
    pthread_t thread;
};

static int64_t await_request(struct run *run, struct gof_area *area, struct settling *settling,
                             void *buf)
{
    int64_t n;

    do
        n = gof_area_get(area, GOF_TURN_GOFER, &run->ended, settling_wait_ms(settling), buf);
    while (n == -ETIMEDOUT);
    if (settling->settled)
        *settling = (struct settling){0};
    return n;
}

/* A channel, until it ends. */
static int serve_channel(struct run *run, size_t channel)
{
    struct gof_area *area = &run->areas[channel];
    struct settling settling = {0};
    struct gof_conn c;
    int r = gof_conn_init(&c, run->s);

    c.sock = run->socks[channel];
    while (r == 0) {
        r = serve_area(&c, area, await_request(run, area, &settling, c.in));
        follow(&c);
    }
    gof_conn_fini(&c);
    /* Whoever waits for an answer waits no longer. */
    gof_area_end(area);
    return r;
}

static void run_done(struct run *run, int r)
{
    if (r != -EPROTO)
        return;
    atomic_store(&run->broken, true);
    for (size_t i = 0; i < run->count; i++)
        shutdown(run->socks[i], SHUT_RDWR);
}

static void *run_channel(void *arg)
{
    struct run_thread *t = arg;
    struct run *run = t->run;

    run_done(run, serve_channel(run, t->channel));
    mutex_lock(&run->mu);
    run->live--;
    cond_signal(&run->left);
    mutex_unlock(&run->mu);
    return NULL;
}

#define SERVER_STACK_SIZE (128u * 1024)

/* One for each area: *out_made of them, and a negative errno when that is not all. */
static int run_threads(struct run *run, struct run_thread *threads, size_t *out_made)
{
    pthread_attr_t attr;
    size_t made = 0;
    int r = 0;

    pthread_attr_init(&attr);
#ifndef RINGWALL_SANITIZE
    pthread_attr_setstacksize(&attr, SERVER_STACK_SIZE);
#endif
    run->live = run->count - 1;
    while (r == 0 && made < run->count - 1) {
        threads[made] = (struct run_thread){.run = run, .channel = made};
        r = -pthread_create(&threads[made].thread, &attr, run_channel, &threads[made]);
        made += r == 0;
    }
    pthread_attr_destroy(&attr);
    *out_made = made;
    return r;
}

/* How long a hostile sentry that still lives can keep a thread from seeing that all has ended. */
#define RUN_END_NS UINT64_C(10000000)

static uint64_t run_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The others wait for a turn, which is not told the end of a socket. */
static void run_end(struct run *run, size_t missing)
{
    atomic_store(&run->ended, true);
    mutex_lock(&run->mu);
    run->live -= missing;
    while (run->live > 0) {
        mutex_unlock(&run->mu);
        for (size_t i = 0; i < run->count - 1; i++)
            gof_area_end(&run->areas[i]);
        mutex_lock(&run->mu);
        const uint64_t deadline = run_now() + RUN_END_NS;
        while (run->live > 0 && cond_wait(&run->left, &run->mu, deadline))
            ;
    }
    mutex_unlock(&run->mu);
}

int gof_server_run(struct gof_server *s, struct gof_area *areas, const int *socks, size_t count)
{
    struct run run = {.s = s, .areas = areas, .socks = socks, .count = count};
    struct run_thread threads[GOF_CHANNEL_MAX];
    size_t made;

    if (count < 2 || count > GOF_CHANNEL_MAX)
        return -EINVAL;
    mutex_init(&run.mu, LOCK_RANK_LEAF);
    cond_init(&run.left);
    int r = run_threads(&run, threads, &made);
    if (r == 0)
        run_done(&run, serve_events(s, socks[count - 1]));
    run_end(&run, count - 1 - made);
    for (size_t i = 0; i < made; i++)
        pthread_join(threads[i].thread, NULL);
    cond_destroy(&run.left);
    mutex_destroy(&run.mu);
    return r ? r : atomic_load(&run.broken) ? -EPROTO : 0;
}
