/* Messages of host sockets. Streams go straight between the host and guest memory; what has
 * boundaries goes over a buffer, whole. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "sentry/net/host/host_priv.h"

#define SEND_FLAGS (MSG_OOB | MSG_DONTROUTE | MSG_MORE | MSG_EOR | MSG_CONFIRM | MSG_FASTOPEN)
#define RECV_FLAGS (MSG_OOB | MSG_PEEK | MSG_TRUNC | MSG_ERRQUEUE)
/* The largest datagram, and what one recv(2) of a peek or a dump takes at most. */
#define PACKET_MAX 65536u
#define CONTROL_MAX 1024u

/* One message on its way through the host. */
struct host_io {
    struct host_sock *s;
    struct msghdr h;
    int flags;
    size_t control_space;
};

/* ---- ancillary data ---- */

static bool cmsg_allowed(int level, int type)
{
    static const struct {
        int level, type;
    } allowed[] = {
        {IPPROTO_IP, IP_PKTINFO},      {IPPROTO_IP, IP_TTL},        {IPPROTO_IP, IP_TOS},
        {IPPROTO_IPV6, IPV6_PKTINFO},  {IPPROTO_IPV6, IPV6_TCLASS}, {IPPROTO_IPV6, IPV6_HOPLIMIT},
        {IPPROTO_IPV6, IPV6_DONTFRAG}, {IPPROTO_UDP, UDP_SEGMENT},
    };

    for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
        if (allowed[i].level == level && allowed[i].type == type)
            return true;
    return false;
}

static int control_to_host(const struct sock_control *ctl, uint8_t *buf, size_t *size)
{
    const uint8_t *data;
    struct sock_item it;
    size_t pos = 0, used = 0;

    while (ctl && sock_control_next(ctl, &pos, &it, &data)) {
        struct cmsghdr c = {
            .cmsg_len = CMSG_LEN(it.size), .cmsg_level = it.level, .cmsg_type = it.type};
        if (!cmsg_allowed(it.level, it.type))
            return -EINVAL;
        if (CMSG_SPACE(it.size) > CONTROL_MAX - used)
            return -ENOBUFS;
        memset(buf + used, 0, CMSG_SPACE(it.size));
        memcpy(buf + used, &c, sizeof(c));
        memcpy(buf + used + CMSG_LEN(0), data, it.size);
        used += CMSG_SPACE(it.size);
    }
    *size = used;
    return 0;
}

static void control_from_host(struct msghdr *h, struct sock_control *ctl)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c && ctl; c = CMSG_NXTHDR(h, c))
        if (c->cmsg_len >= CMSG_LEN(0) && sock_control_put(ctl, c->cmsg_level, c->cmsg_type,
                                                           CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0)))
            return;
}

/* ---- one call of the host ---- */

static int64_t io_send(void *arg, const struct iovec *iov, int count, uint64_t done)
{
    struct host_io *io = arg;

    (void)done;
    io->h.msg_iov = (struct iovec *)(uintptr_t)iov;
    io->h.msg_iovlen = (size_t)count;
    const ssize_t n = sendmsg(io->s->fd, &io->h, io->flags | MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? -errno : n;
}

static int64_t io_recv(void *arg, const struct iovec *iov, int count, uint64_t done)
{
    struct host_io *io = arg;

    (void)done;
    io->h.msg_iov = (struct iovec *)(uintptr_t)iov;
    io->h.msg_iovlen = (size_t)count;
    io->h.msg_namelen = io->h.msg_name ? sizeof(struct sockaddr_storage) : 0;
    io->h.msg_controllen = io->control_space;
    const ssize_t n = recvmsg(io->s->fd, &io->h, io->flags | MSG_DONTWAIT);
    return n < 0 ? -errno : n;
}

/* ---- sending ---- */

/* Bytes of a stream, the first of them with what else the message has. */
static int64_t send_stream(struct host_io *io, struct uio *u, bool nonblock,
                           const struct vfs_caller *c)
{
    const uint64_t timeo = io->s->base.sndtimeo_ns;
    const deadline_t until = sock_deadline(timeo);
    struct host_waiting hw = {.listens = false};
    int64_t done = 0, r = 0;

    while (r == 0) {
        const int64_t n =
            u->left ? uio_host_io(u, false, UINT64_MAX, io_send, io) : io_send(io, NULL, 0, 0);
        if (n >= 0) {
            done += n;
            if (u->left == 0)
                break;
            continue;
        }
        const bool opening = n == -EINPROGRESS && io->flags & MSG_FASTOPEN && !nonblock;
        if (n != -EAGAIN && !opening) {
            r = n;
            break;
        }
        if (opening) {
            io->flags &= ~MSG_FASTOPEN;
            io->h.msg_name = NULL;
            io->h.msg_namelen = 0;
        }
        r = host_wait(&hw, io->s, EPOLLOUT, nonblock, until, timeo, c);
    }
    host_wait_end(&hw);
    return done > 0 ? done : r;
}

static int64_t send_packet(struct host_io *io, struct uio *u, bool nonblock,
                           const struct vfs_caller *c)
{
    const uint64_t timeo = io->s->base.sndtimeo_ns;
    const deadline_t until = sock_deadline(timeo);
    const size_t size = (size_t)u->left;
    struct host_waiting hw = {.listens = false};

    if (size > PACKET_MAX)
        return -EMSGSIZE;
    struct iovec iov = {.iov_base = malloc(size ? size : 1), .iov_len = size};
    if (!iov.iov_base)
        return -ENOBUFS;
    int64_t n = size && uio_copy_from(u, iov.iov_base, size) != (int64_t)size ? -EFAULT : 0;
    while (n == 0) {
        n = io_send(io, &iov, 1, 0);
        if (n != -EAGAIN)
            break;
        n = host_wait(&hw, io->s, EPOLLOUT, nonblock, until, timeo, c);
    }
    host_wait_end(&hw);
    free(iov.iov_base);
    return n;
}

int64_t host_send(struct sock *s, struct sock_msg *m, bool nonblock, const struct vfs_caller *c)
{
    _Alignas(struct cmsghdr) uint8_t control[CONTROL_MAX];
    struct host_io io = {.s = host_sock(s), .flags = m->flags & SEND_FLAGS};
    struct sock_addr to;
    size_t size = 0;
    int r = control_to_host(m->control, control, &size);

    if (r)
        return r;
    if (m->to && m->to->len) {
        to = *m->to;
        io.h.msg_name = &to.storage;
        io.h.msg_namelen = to.len;
    }
    io.h.msg_control = size ? control : NULL;
    io.h.msg_controllen = size;
    return s->type == SOCK_STREAM ? send_stream(&io, m->u, nonblock, c)
                                  : send_packet(&io, m->u, nonblock, c);
}

/* ---- receiving ---- */

static int64_t recv_packet(struct host_io *io, struct uio *u)
{
    const size_t size = (size_t)MIN(u->left, (uint64_t)PACKET_MAX);
    struct iovec iov = {.iov_base = malloc(size ? size : 1), .iov_len = size};

    if (!iov.iov_base)
        return -ENOBUFS;
    const int64_t n = io_recv(io, &iov, 1, 0);
    /* Bytes of a stream that are thrown away go nowhere. */
    const bool thrown = io->s->base.type == SOCK_STREAM && io->flags & MSG_TRUNC;
    const size_t got = n > 0 && !thrown ? MIN((size_t)n, size) : 0;
    if (n > 0 && thrown)
        uio_advance(u, MIN((uint64_t)n, u->left));
    const int64_t put = got ? uio_copy_to(u, iov.iov_base, got) : 0;
    free(iov.iov_base);
    return put < 0 || (size_t)put < got ? -EFAULT : n;
}

static int64_t recv_once(struct host_io *io, struct uio *u)
{
    const bool whole = io->s->base.type != SOCK_STREAM || u->left == 0 ||
                       io->flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB | MSG_TRUNC);

    return whole ? recv_packet(io, u) : uio_host_io(u, true, UINT64_MAX, io_recv, io);
}

static void recv_told(struct host_io *io, struct sock_msg *m)
{
    if (m->from)
        m->from->len = io->h.msg_namelen;
    control_from_host(&io->h, m->control);
    m->out_flags |= io->h.msg_flags & ~MSG_CMSG_CLOEXEC;
}

int64_t host_recv(struct sock *s, struct sock_msg *m, bool nonblock, const struct vfs_caller *c)
{
    _Alignas(struct cmsghdr) uint8_t control[CONTROL_MAX];
    struct host_io io = {.s = host_sock(s), .flags = m->flags & RECV_FLAGS};
    const bool all = m->flags & MSG_WAITALL && s->type == SOCK_STREAM && !(m->flags & MSG_PEEK);
    const uint64_t timeo = s->rcvtimeo_ns;
    const deadline_t until = sock_deadline(timeo);
    struct host_waiting hw = {.listens = false};
    int64_t done = 0, r = 0;

    if (m->from)
        io.h.msg_name = &m->from->storage;
    /* Where descriptors could come along there is no room for them: the host drops them. */
    if (m->control && s->family != AF_UNIX) {
        io.h.msg_control = control;
        io.control_space = sizeof(control);
    }
    while (r == 0) {
        const int64_t n = recv_once(&io, m->u);
        if (n >= 0) {
            if (done == 0)
                recv_told(&io, m);
            done += n;
            if (n == 0 || !all || m->u->left == 0)
                break;
        } else if (n != -EAGAIN || io.flags & (MSG_ERRQUEUE | MSG_OOB)) {
            r = n;
            break;
        }
        r = host_wait(&hw, io.s, EPOLLIN | EPOLLRDHUP, nonblock, until, timeo, c);
        /* Datagrams: one that waits learns of shutdown(2), one that asks does not. */
        if (r == 0 && n == -EAGAIN && s->type != SOCK_STREAM && s->type != SOCK_SEQPACKET &&
            (hostwatch_ready(io.s->fd) & EPOLLRDHUP) != 0)
            break;
    }
    host_wait_end(&hw);
    return done > 0 ? done : r;
}
