#include "sentry/net/host/host.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/objcount.h"
#include "sentry/net/host/host_priv.h"

#define HOST_NS_PER_SEC UINT64_C(1000000000)

OBJCOUNT_DEFINE(host_sock);

#define WATCHED (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET)

static const struct sock_ops host_ops;

/* ---- the broker ---- */

int host_net_new(int fd, struct host_net **out)
{
    struct host_net *h = calloc(1, sizeof(*h));

    if (!h)
        return -ENOMEM;
    mutex_init(&h->mu, LOCK_RANK_HOST_BROKER);
    h->broker = fd;
    h->query = -1;
    *out = h;
    return 0;
}

void host_net_free(struct host_net *h)
{
    if (!h)
        return;
    if (h->query >= 0)
        (void)close(h->query);
    (void)close(h->broker);
    mutex_destroy(&h->mu);
    free(h);
}

static int host_ask_locked(struct host_net *h, const struct broker_request *q, int fd, int *out_fd)
{
    struct broker_reply a = {.error = 0};
    int got = -1;
    int r = broker_send(h->broker, q, sizeof(*q), fd);

    if (r == 0 && broker_receive(h->broker, &a, sizeof(a), &got) != 0)
        r = -EIO;
    if (r == 0 && (a.error > 0 || a.error < -4095))
        r = -EIO;
    if (r == 0)
        r = a.error;
    if (r == 0 && (got >= 0) != (out_fd != NULL))
        r = -EIO;
    if (r == 0 && out_fd)
        *out_fd = got;
    else if (got >= 0)
        (void)close(got);
    return r;
}

int host_ask(struct host_net *h, const struct broker_request *q, int fd, int *out_fd)
{
    mutex_lock(&h->mu);
    int r = host_ask_locked(h, q, fd, out_fd);
    mutex_unlock(&h->mu);
    if (r == -EIO)
        log_warn("host network: the broker does not answer");
    return r;
}

int host_query_fd(struct host_net *h)
{
    const struct broker_request q = {
        .op = BROKER_SOCKET, .family = AF_INET, .type = SOCK_DGRAM, .protocol = 0};
    int r = 0;

    mutex_lock(&h->mu);
    if (h->query < 0)
        r = host_ask_locked(h, &q, -1, &h->query);
    if (r == 0)
        r = h->query;
    mutex_unlock(&h->mu);
    return r;
}

/* ---- making them ---- */

bool host_net_serves(int family, int protocol)
{
    return family == AF_INET || family == AF_INET6 || family == AF_PACKET ||
           (family == AF_NETLINK && protocol == NETLINK_ROUTE);
}

/* Takes fd, on failure too. */
static int host_sock_new(struct net *n, int family, int type, int protocol, int fd,
                         struct sock **out)
{
    struct host_sock *s = calloc(1, sizeof(*s));
    int r = s ? hostwatch_new(fd, WATCHED, &s->watch) : -ENOMEM;

    if (r) {
        (void)close(fd);
        free(s);
        return r;
    }
    s->fd = fd;
    sock_init(&s->base, &host_ops, n, family, type, protocol);
    OBJCOUNT_INC(host_sock);
    *out = &s->base;
    return 0;
}

int host_adopt(struct net *n, int family, int type, int fd, struct sock **out_sock)
{
    return host_sock_new(n, family, type, 0, fd, out_sock);
}

static int host_protocol(int type, int protocol)
{
    if (protocol != 0)
        return protocol;
    return type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
}

int host_create(struct net *n, int family, int type, int protocol, const struct vfs_caller *c,
                struct sock **out_sock)
{
    const struct broker_request q = {
        .op = BROKER_SOCKET, .family = family, .type = type, .protocol = protocol};
    int fd;

    (void)c;
    /* Frames and headers of the host's links are nobody's here. */
    if (family == AF_PACKET || ((type == SOCK_RAW || type == SOCK_PACKET) && family != AF_NETLINK))
        return -EPERM;
    int r = host_ask(net_host(n), &q, -1, &fd);
    if (r)
        return r;
    return host_sock_new(n, family, type,
                         family == AF_NETLINK ? protocol : host_protocol(type, protocol), fd,
                         out_sock);
}

/* ---- waiting ---- */

int host_wait(struct host_waiting *hw, struct host_sock *s, uint32_t events, bool nonblock,
              deadline_t until, uint64_t timeo_ns, const struct vfs_caller *c)
{
    if (nonblock || !c->blocker)
        return -EAGAIN;
    if (!hw->listens) {
        waiter_init(&hw->w, c->blocker, events | EPOLLHUP | EPOLLERR);
        waitq_add(hostwatch_queue(s->watch), &hw->w);
        hw->listens = true;
        return 0;
    }
    return sock_wait_error(blocker_wait(c->blocker, until), timeo_ns);
}

void host_wait_end(struct host_waiting *hw)
{
    if (hw->listens)
        waitq_del(&hw->w);
}

/* ---- calls ---- */

static int host_bind(struct sock *s, const struct sock_addr *a, const struct vfs_caller *c)
{
    struct broker_request q = {
        .op = BROKER_BIND,
        .family = s->family,
        .privileged = net_capable(s->net, c->cred, CAP_NET_BIND_SERVICE),
        .number = (uint32_t)c->tgid,
        .addr_len = a->len,
    };

    memcpy(&q.addr, &a->storage, sizeof(q.addr));
    return host_ask(net_host(s->net), &q, host_sock(s)->fd, NULL);
}

static int host_listen(struct sock *s, int backlog, const struct vfs_caller *c)
{
    (void)c;
    return listen(host_sock(s)->fd, backlog) == 0 ? 0 : -errno;
}

/* Asked again, the host tells what became of it (connect(2), EINPROGRESS). */
static int host_connect(struct sock *s, const struct sock_addr *a, bool nonblock,
                        const struct vfs_caller *c)
{
    struct host_sock *h = host_sock(s);
    const uint64_t timeo = s->sndtimeo_ns;
    const deadline_t until = sock_deadline(timeo);
    struct host_waiting hw = {.listens = false};
    int r, error;

    do {
        r = connect(h->fd, (const struct sockaddr *)&a->storage, a->len) == 0 ? 0 : -errno;
        error = r;
        if (!nonblock && (error == -EINPROGRESS || error == -EALREADY))
            r = host_wait(&hw, h, EPOLLOUT, false, until, timeo, c);
        else
            error = 0;
    } while (r == 0 && error);
    host_wait_end(&hw);
    return error && r == -EAGAIN ? -EINPROGRESS : r;
}

static int host_accept(struct sock *s, bool nonblock, const struct vfs_caller *c,
                       struct sock **out_sock)
{
    struct host_sock *h = host_sock(s);
    const uint64_t timeo = s->rcvtimeo_ns;
    const deadline_t until = sock_deadline(timeo);
    struct host_waiting hw = {.listens = false};
    int fd, r;

    do {
        fd = accept4(h->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        r = fd < 0 ? -errno : 0;
        if (r == -EAGAIN)
            r = host_wait(&hw, h, EPOLLIN, nonblock, until, timeo, c);
    } while (fd < 0 && r == 0);
    host_wait_end(&hw);
    return r ? r : host_sock_new(s->net, s->family, s->type, s->protocol, fd, out_sock);
}

static int host_shutdown(struct sock *s, int how)
{
    return shutdown(host_sock(s)->fd, how) == 0 ? 0 : -errno;
}

static int host_getname(struct sock *s, bool peer, struct sock_addr *out)
{
    struct sockaddr *sa = (struct sockaddr *)&out->storage;

    memset(out, 0, sizeof(*out));
    out->len = sizeof(out->storage);
    const int r = peer ? getpeername(host_sock(s)->fd, sa, &out->len)
                       : getsockname(host_sock(s)->fd, sa, &out->len);
    return r == 0 ? 0 : -errno;
}

static uint32_t host_poll(struct sock *s, struct waiter *w)
{
    struct host_sock *h = host_sock(s);

    if (w)
        waitq_add(hostwatch_queue(h->watch), w);
    const uint32_t now = hostwatch_ready(h->fd);
    return now | (now & EPOLLIN ? EPOLLRDNORM : 0u) | (now & EPOLLOUT ? EPOLLWRNORM : 0u);
}

static int64_t host_count(struct sock *s, unsigned long cmd)
{
    int n = 0;

    return ioctl(host_sock(s)->fd, cmd, &n) == 0 ? n : -errno;
}

static int64_t host_readable(struct sock *s)
{
    return host_count(s, FIONREAD);
}

static int64_t host_unsent(struct sock *s)
{
    return host_count(s, TIOCOUTQ);
}

static unsigned host_tcp_state(const struct host_sock *h)
{
    struct tcp_info i;
    socklen_t len = sizeof(i);

    return getsockopt(h->fd, IPPROTO_TCP, TCP_INFO, &i, &len) == 0 ? i.tcpi_state : TCP_CLOSE;
}

static bool host_is_closing(const struct host_sock *h)
{
    const unsigned state = host_tcp_state(h);

    return state == TCP_FIN_WAIT1 || state == TCP_CLOSING || state == TCP_LAST_ACK;
}

/* Till the other end has all, our end of stream too, or the time is over. Bytes that nobody read
 * reset the connection in close(2). */
static void host_linger(struct sock *s, const struct vfs_caller *c)
{
    struct host_sock *h = host_sock(s);
    const uint64_t seconds = (uint32_t)atomic_load(&s->linger);
    int err;

    const unsigned state = s->type == SOCK_STREAM ? host_tcp_state(h) : TCP_CLOSE;
    if (state == TCP_LISTEN || state == TCP_CLOSE || state == TCP_SYN_SENT || host_readable(s) > 0)
        return;
    (void)!host_shutdown(s, SHUT_RDWR);
    WAIT_EVENT(hostwatch_queue(h->watch), c->blocker, 0, mono_now() + seconds * HOST_NS_PER_SEC,
               !host_is_closing(h), err);
    /* A signal ends the wait too; close has no error to tell. */
    (void)err;
}

static void host_close(struct sock *s)
{
    (void)s;
}

static void host_release(struct sock *s)
{
    struct host_sock *h = host_sock(s);

    hostwatch_free(h->watch);
    (void)close(h->fd);
    free(h);
    OBJCOUNT_DEC(host_sock);
}

static const struct sock_ops host_ops = {
    .bind = host_bind,
    .listen = host_listen,
    .connect = host_connect,
    .accept = host_accept,
    .send = host_send,
    .recv = host_recv,
    .shutdown = host_shutdown,
    .getname = host_getname,
    .getsockopt = host_getsockopt,
    .setsockopt = host_setsockopt,
    .own_options = true,
    .ioctl = host_ioctl,
    .poll = host_poll,
    .readable = host_readable,
    .unsent = host_unsent,
    .linger = host_linger,
    .close = host_close,
    .release = host_release,
};
