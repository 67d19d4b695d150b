/* Connections from the host into the sandbox's network: of each, two threads carry bytes between a
 * socket of the host and a TCP socket of the guests' namespace, one for each direction. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "runsc/boot/boot_priv.h"
#include "sentry/net/sock.h"

#define FORWARDS_MAX 256
#define FORWARD_PIECE (32u * 1024)
/* For a listener whose queue is full. */
#define FORWARD_CONNECT_NS (30ull * 1000 * 1000 * 1000)

struct forward_way {
    struct boot_forward *f;
    struct vfs_caller c;
    struct blocker blk;
    pthread_t thread;
    char buf[FORWARD_PIECE];
};

struct boot_forward {
    struct list node; /* boot thread: boot.forwards */
    struct boot *boot;
    int fd;                     /* the host's side; owned */
    struct file *file;          /* the guests' side; owned */
    struct sock *sock;          /* of file */
    struct sock_addr to;        /* whom it connects to */
    bool connecting;            /* way in, till it has read it */
    struct forward_way in, out; /* to the guest, to the host */
    _Atomic uint32_t running;   /* ways; the boot thread takes it apart at 0 */
};

static int forward_connect(struct boot_forward *f, bool nonblock)
{
    return f->sock->ops->connect(f->sock, &f->to, nonblock, &f->in.c);
}

/* Either side failed: the other one hears of it, and both ways end. */
static void forward_break(struct boot_forward *f)
{
    if (f->sock->ops->shutdown(f->sock, SHUT_RDWR))
        log_debug("forward: the guest's side has ended");
    (void)shutdown(f->fd, SHUT_RDWR);
}

static bool forward_give_guest(struct forward_way *w, size_t size)
{
    struct uio u;

    uio_init_kernel(&u, w->buf, size);
    while (u.left > 0)
        if (vfs_write(w->f->file, &u, -1, 0, &w->c) < 0)
            return false;
    return true;
}

static bool forward_give_host(const struct forward_way *w, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(w->f->fd, w->buf + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static void forward_done(struct boot_forward *f)
{
    struct boot *b = f->boot;

    /* f is the boot thread's with the last of the two. */
    if (atomic_fetch_sub(&f->running, 1) == 1 && write(b->wake[1], "", 1) < 0)
        log_debug("boot: wake pipe is full");
}

static void *forward_in(void *arg)
{
    struct forward_way *w = arg;
    struct boot_forward *f = w->f;
    bool fine = !f->connecting || forward_connect(f, false) == 0;

    while (fine) {
        ssize_t n = read(f->fd, w->buf, sizeof(w->buf));
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            break;
        fine = n > 0 && forward_give_guest(w, (size_t)n);
    }
    if (!fine || f->sock->ops->shutdown(f->sock, SHUT_WR))
        forward_break(f);
    forward_done(f);
    return NULL;
}

static void *forward_out(void *arg)
{
    struct forward_way *w = arg;
    struct boot_forward *f = w->f;
    bool fine = true;

    while (fine) {
        struct uio u;
        uio_init_kernel(&u, w->buf, sizeof(w->buf));
        int64_t n = vfs_read(f->file, &u, -1, 0, &w->c);
        if (n == 0)
            break;
        fine = n > 0 && forward_give_host(w, (size_t)n);
    }
    if (!fine || shutdown(f->fd, SHUT_WR) != 0)
        forward_break(f);
    forward_done(f);
    return NULL;
}

/* ---- making one ---- */

int boot_caller(struct boot *b, struct vfs_caller *c, struct blocker *blk)
{
    int r = cred_new_root(~0ull, &c->cred);

    if (r)
        return r;
    c->ns = b->root.ns;
    c->fsize_limit = UINT64_MAX;
    mount_ns_root(c->ns, &c->root);
    mount_ns_root(c->ns, &c->cwd);
    blocker_init(blk);
    c->blocker = blk;
    return 0;
}

void boot_caller_end(struct vfs_caller *c)
{
    if (c->cred == NULL)
        return;
    vpath_put(&c->cwd);
    vpath_put(&c->root);
    cred_put(c->cred);
}

/* What the two ways hold is held once, by in. */
static int forward_callers(struct boot_forward *f)
{
    int r = boot_caller(f->boot, &f->in.c, &f->in.blk);

    f->out.c = f->in.c;
    blocker_init(&f->out.blk);
    f->out.c.blocker = &f->out.blk;
    return r;
}

/* Bytes must flow at their own speed: the ways block in the host where shutdown(2) reaches them. */
static int forward_check_fd(int fd)
{
    struct stat st;
    const int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fstat(fd, &st) != 0)
        return -errno;
    if (!S_ISSOCK(st.st_mode))
        return -ENOTSOCK;
    return fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0 ? -errno : 0;
}

static int forward_open(struct boot_forward *f, int family, uint16_t port)
{
    struct sock *s;
    int r = sock_create(f->boot->net, family, SOCK_STREAM, 0, &f->in.c, &s);

    if (r)
        return r;
    r = sock_file(s, 0, &f->file);
    if (r) {
        sock_put(s);
        return r;
    }
    f->sock = s;
    atomic_store(&s->sndtimeo_ns, FORWARD_CONNECT_NS);
    f->to = (struct sock_addr){.len = family == AF_INET ? sizeof(f->to.in) : sizeof(f->to.in6)};
    if (family == AF_INET)
        f->to.in = (struct sockaddr_in){.sin_family = AF_INET,
                                        .sin_port = htons(port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    else
        f->to.in6 = (struct sockaddr_in6){
            .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    /* On loopback the second asking knows already. */
    r = forward_connect(f, true);
    if (r == -EINPROGRESS)
        r = forward_connect(f, true);
    f->connecting = r == -EALREADY;
    if (r == 0 || f->connecting)
        return 0;
    file_put(f->file);
    f->file = NULL;
    return r;
}

static void forward_free(struct boot_forward *f)
{
    file_put(f->file);
    boot_caller_end(&f->in.c);
    (void)close(f->fd);
    free(f);
}

static int forward_way_start(struct boot_forward *f, struct forward_way *w, void *(*run)(void *))
{
    w->f = f;
    atomic_fetch_add(&f->running, 1);
    const int r = -pthread_create(&w->thread, NULL, run, w);
    if (r)
        atomic_fetch_sub(&f->running, 1);
    return r;
}

static int forward_start(struct boot_forward *f)
{
    sigset_t all, old;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = forward_way_start(f, &f->in, forward_in);
    if (r == 0) {
        r = forward_way_start(f, &f->out, forward_out);
        if (r) {
            forward_break(f);
            (void)pthread_join(f->in.thread, NULL);
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

static size_t forward_count(const struct boot *b)
{
    const struct boot_forward *f;
    size_t n = 0;

    list_for_each_entry (f, &b->forwards, node)
        n++;
    return n;
}

static int forward_new(struct boot *b, int fd, uint16_t port)
{
    struct boot_forward *f = calloc(1, sizeof(*f));
    int r;

    if (!f) {
        (void)close(fd);
        return -ENOMEM;
    }
    f->boot = b;
    f->fd = fd;
    r = forward_check_fd(fd);
    if (!r)
        r = forward_callers(f);
    if (!r) {
        r = forward_open(f, AF_INET, port);
        /* Somebody may listen on IPv6 only. */
        if (r == -ECONNREFUSED && forward_open(f, AF_INET6, port) == 0)
            r = 0;
    }
    if (!r)
        r = forward_start(f);
    if (r) {
        forward_free(f);
        return r;
    }
    list_add_tail(&f->node, &b->forwards);
    return 0;
}

int boot_forward(struct boot *b, const struct json_t *req, const int *fds, size_t count)
{
    const json_int_t port = json_integer_value(json_object_get(req, "port"));
    int r = -EINVAL;

    if (count == 1 && port > 0 && port <= UINT16_MAX && b->root.started)
        r = forward_count(b) < FORWARDS_MAX ? 0 : -EAGAIN;
    if (r == 0)
        return forward_new(b, fds[0], (uint16_t)port);
    for (size_t i = 0; i < count; i++)
        (void)close(fds[i]);
    return r;
}

/* ---- from the loopback of the host's side of the network namespace ---- */

int boot_loopback(struct boot *b, const int *fds, size_t count)
{
    if (count != 2 || b->root.started || b->loopback_fd >= 0) {
        for (size_t i = 0; i < count; i++)
            (void)close(fds[i]);
        return -EINVAL;
    }
    b->loopback_fd = fds[0];
    b->loopback_link = fds[1];
    return 0;
}

void boot_loopback_accept(struct boot *b)
{
    struct sockaddr_storage sa = {0};
    socklen_t len = sizeof(sa);
    int fd = accept4(b->loopback_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    int r = getsockname(fd, (struct sockaddr *)&sa, &len) == 0 ? 0 : -errno;
    /* The port that it was sent to is the guest's; the address begins at another place only. */
    const uint16_t port = ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
                                                         : ((struct sockaddr_in *)&sa)->sin_port);
    if (r == 0 && (!b->root.started || forward_count(b) >= FORWARDS_MAX))
        r = -EAGAIN;
    if (r)
        (void)close(fd);
    else
        r = forward_new(b, fd, port);
    if (r)
        log_debug("forward: port %u: error %d", (unsigned)port, -r);
}

static void forward_finish(struct boot_forward *f)
{
    (void)pthread_join(f->in.thread, NULL);
    (void)pthread_join(f->out.thread, NULL);
    list_del(&f->node);
    forward_free(f);
}

void boot_sweep_forwards(struct boot *b)
{
    struct boot_forward *f, *next;

    list_for_each_entry_safe (f, next, &b->forwards, node)
        if (atomic_load(&f->running) == 0)
            forward_finish(f);
}

void boot_end_forwards(struct boot *b)
{
    struct boot_forward *f, *next;

    list_for_each_entry_safe (f, next, &b->forwards, node) {
        forward_break(f);
        blocker_interrupt(&f->in.blk, BLOCKER_KILLED);
        blocker_interrupt(&f->out.blk, BLOCKER_KILLED);
        forward_finish(f);
    }
}
