/* Sockets that are connected to one of the host, which a mount shows (runsc --host-uds). The gofer
 * connects; from then on the messages are those of the host's socket. No descriptor travels either
 * way: what is sent with one is refused, and of what is received they are dropped. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sentry/net/host/host.h"
#include "sentry/net/unix_priv.h"

/* How long till somebody who waits for room among a listener's connections looks again: the host
 * does not tell. */
#define RETRY_NS UINT64_C(10000000)

struct unix_host {
    struct sock *sock; /* owned; of the host */
    struct unix_sock *of;
    struct waiter woken; /* in sock's queue: wakes those who wait at of */
    struct sock_addr addr;
};

static void host_woken(struct waiter *w, uint32_t events)
{
    (void)waitq_wake_nested(&container_of(w, struct unix_host, woken)->of->wq, events);
}

void unix_host_free(struct unix_host *h)
{
    if (!h)
        return;
    waitq_del(&h->woken);
    sock_put(h->sock);
    free(h);
}

/* Takes fd, on failure too. */
static int host_new(struct unix_sock *s, int fd, const struct sock_addr *a, struct unix_host **out)
{
    struct unix_host *h = calloc(1, sizeof(*h));

    if (!h) {
        (void)close(fd);
        return -ENOMEM;
    }
    int r = host_adopt(s->base.net, AF_UNIX, s->base.type, fd, &h->sock);
    if (r) {
        free(h);
        return r;
    }
    h->of = s;
    h->addr = *a;
    waiter_init_fn(&h->woken, host_woken, 0);
    (void)h->sock->ops->poll(h->sock, &h->woken);
    *out = h;
    return 0;
}

/* The socket of the host that a names. Owned. */
static int host_find(const struct sock_addr *a, const struct vfs_caller *c, struct vpath *out)
{
    char path[sizeof(a->un.sun_path) + 1];

    memcpy(path, a->un.sun_path, sizeof(a->un.sun_path));
    path[sizeof(path) - 1] = '\0';
    int r = vfs_lookup(c, NULL, path, VFS_FOLLOW, out);
    if (r)
        return r;
    const struct inode *i = out->dentry->inode;
    r = vfs_permission(c, out->dentry->inode, 2);
    if (r == 0 && (!S_ISSOCK(i->mode) || !i->ops->connect))
        r = -ECONNREFUSED;
    if (r)
        vpath_put(out);
    return r;
}

/* A connection, for which a blocking caller waits. */
static int host_dial(struct unix_sock *s, struct inode *i, bool nonblock,
                     const struct vfs_caller *c, int *out_fd)
{
    const deadline_t deadline = sock_deadline(s->base.sndtimeo_ns);

    for (;;) {
        int err, r = i->ops->connect(i, s->base.type, out_fd);
        if (r != -EAGAIN || nonblock || !c->blocker)
            return r;
        const deadline_t look = mono_now() + RETRY_NS;
        WAIT_EVENT(&s->wq, c->blocker, EPOLLERR, MIN(look, deadline), false, err);
        if (err != -ETIMEDOUT || look >= deadline)
            return sock_wait_error(err, s->base.sndtimeo_ns);
    }
}

static int host_join(struct unix_sock *s, struct unix_host *h)
{
    int r = 0;

    mutex_lock(&s->mu);
    if (s->state == UNIX_CONNECTED)
        r = -EISCONN;
    else if (s->state != UNIX_IDLE)
        r = -EINVAL;
    if (r == 0) {
        s->state = UNIX_CONNECTED;
        atomic_store_explicit(&s->host, h, memory_order_release);
    }
    mutex_unlock(&s->mu);
    return r;
}

int unix_host_connect(struct unix_sock *s, const struct sock_addr *a, bool nonblock,
                      const struct vfs_caller *c)
{
    struct unix_host *h;
    struct vpath p;
    int fd, r;

    if (a->len <= offsetof(struct sockaddr_un, sun_path) || a->un.sun_path[0] == '\0')
        return -ECONNREFUSED;
    r = host_find(a, c, &p);
    if (r)
        return r;
    r = host_dial(s, p.dentry->inode, nonblock, c, &fd);
    vpath_put(&p);
    if (r == 0)
        r = host_new(s, fd, a, &h);
    if (r)
        return r;
    r = host_join(s, h);
    if (r)
        unix_host_free(h);
    else
        (void)waitq_wake(&s->wq, 0);
    return r;
}

/* ---- calls ---- */

/* What may be changed at the guest's socket, and counts at the host's. */
static struct sock *host_of(struct unix_sock *s, struct unix_host *h)
{
    atomic_store(&h->sock->sndtimeo_ns, atomic_load(&s->base.sndtimeo_ns));
    atomic_store(&h->sock->rcvtimeo_ns, atomic_load(&s->base.rcvtimeo_ns));
    return h->sock;
}

int64_t unix_host_send(struct unix_sock *s, struct unix_host *h, struct sock_msg *m, bool nonblock,
                       const struct vfs_caller *c)
{
    if (m->to)
        return -EISCONN;
    if (m->control && m->control->file_count)
        return -EINVAL;
    struct sock *host = host_of(s, h);
    return host->ops->send(host, m, nonblock, c);
}

int64_t unix_host_recv(struct unix_sock *s, struct unix_host *h, struct sock_msg *m, bool nonblock,
                       const struct vfs_caller *c)
{
    struct sock *host = host_of(s, h);

    return host->ops->recv(host, m, nonblock, c);
}

int unix_host_shutdown(struct unix_sock *s, struct unix_host *h, int how)
{
    int r = h->sock->ops->shutdown(h->sock, how);

    (void)waitq_wake(&s->wq, 0);
    return r;
}

void unix_host_peer(const struct unix_host *h, struct sock_addr *out)
{
    *out = h->addr;
}

uint32_t unix_host_poll(struct unix_host *h)
{
    return h->sock->ops->poll(h->sock, NULL);
}

int64_t unix_host_readable(struct unix_host *h)
{
    return h->sock->ops->readable(h->sock);
}
