#include "sentry/net/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "base/limits.h"
#include "sentry/errno_internal.h"
#include "sentry/net/net_priv.h"

#define NS_PER_SEC 1000000000ull
#define SOCKBUF_MIN 4608u

void sock_init(struct sock *s, const struct sock_ops *ops, struct net *n, int family, int type,
               int protocol)
{
    s->ops = ops;
    s->net = n;
    s->family = family;
    s->type = type;
    s->protocol = protocol;
    ref_init(&s->ref);
    atomic_init(&s->sndbuf, LIMIT_SOCKBUF_DEFAULT);
    atomic_init(&s->rcvbuf, LIMIT_SOCKBUF_DEFAULT);
}

void sock_get(struct sock *s)
{
    ref_get(&s->ref);
}

void sock_put(struct sock *s)
{
    if (ref_put(&s->ref))
        s->ops->release(s);
}

deadline_t sock_deadline(uint64_t timeo_ns)
{
    return timeo_ns ? mono_now() + timeo_ns : DEADLINE_NEVER;
}

int sock_wait_error(int err, uint64_t timeo_ns)
{
    if (err == -ETIMEDOUT)
        return -EAGAIN;
    if (err == -EINTR)
        return timeo_ns ? -EINTR : -ERESTARTSYS;
    return err;
}

void sock_control_fini(struct sock_control *c)
{
    for (size_t i = 0; i < c->file_count; i++)
        file_put(c->files[i]);
    free(c->files);
    memset(c, 0, sizeof(*c));
}

int sock_create(struct net *n, int family, int type, int protocol, const struct vfs_caller *c,
                struct sock **out_sock)
{
    if (family < 0 || family >= AF_MAX)
        return -EAFNOSUPPORT;
    if (type < 1 || type > SOCK_PACKET)
        return -EINVAL;
    if (family == AF_UNIX)
        return unix_create(n, type, protocol, c, out_sock);
    return -EAFNOSUPPORT;
}

int sock_create_pair(struct net *n, int family, int type, int protocol, const struct vfs_caller *c,
                     struct sock *out_pair[2])
{
    if (family < 0 || family >= AF_MAX)
        return -EAFNOSUPPORT;
    if (family == AF_UNIX)
        return unix_create_pair(n, type, protocol, c, out_pair);
    return -EAFNOSUPPORT;
}

/* ---- the file ---- */

static struct sock *file_sock(struct file *f)
{
    return f->priv;
}

static bool file_nonblock(struct file *f)
{
    return atomic_load_explicit(&f->flags, memory_order_relaxed) & O_NONBLOCK;
}

static int64_t sock_file_read(struct file *f, struct uio *u, int64_t *pos,
                              const struct vfs_caller *c)
{
    struct sock *s = file_sock(f);
    struct sock_msg m = {.u = u};

    (void)pos;
    return s->ops->recv(s, &m, file_nonblock(f), c);
}

static int64_t sock_file_write(struct file *f, struct uio *u, int64_t *pos,
                               const struct vfs_caller *c)
{
    struct sock *s = file_sock(f);
    struct sock_msg m = {.u = u};

    (void)pos;
    return s->ops->send(s, &m, file_nonblock(f), c);
}

static uint32_t sock_file_poll(struct file *f, struct waiter *w)
{
    struct sock *s = file_sock(f);

    return s->ops->poll(s, w);
}

static int64_t sock_file_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                               const struct vfs_caller *c)
{
    struct sock *s = file_sock(f);

    (void)c;
    if (cmd != FIONREAD)
        return -ENOTTY;
    int64_t n = s->ops->readable(s);
    if (n < 0)
        return n;
    int32_t value = n > INT32_MAX ? INT32_MAX : (int32_t)n;
    return copyout_obj(ua, uaddr(arg), &value);
}

static void sock_file_release(struct file *f)
{
    struct sock *s = file_sock(f);

    s->ops->close(s);
    sock_put(s);
}

static const struct file_ops sock_file_ops = {
    .read = sock_file_read,
    .write = sock_file_write,
    .poll = sock_file_poll,
    .ioctl = sock_file_ioctl,
    .release = sock_file_release,
};

int sock_file(struct sock *s, uint32_t flags, struct file **out_file)
{
    return vfs_anon_file("socket:", S_IFSOCK | 0777, &sock_file_ops, s,
                         O_RDWR | (flags & O_NONBLOCK), out_file);
}

int sock_from_file(struct file *f, struct sock **out_sock)
{
    if (f->ops != &sock_file_ops)
        return -ENOTSOCK;
    *out_sock = file_sock(f);
    return 0;
}

/* ---- options ---- */

static int get_int(void *buf, socklen_t *len, int value)
{
    socklen_t n = *len < sizeof(value) ? *len : (socklen_t)sizeof(value);

    memcpy(buf, &value, n);
    *len = n;
    return 0;
}

static int get_timeval(void *buf, socklen_t *len, uint64_t ns)
{
    struct timeval tv = {.tv_sec = (time_t)(ns / NS_PER_SEC),
                         .tv_usec = (suseconds_t)(ns % NS_PER_SEC / 1000)};

    if (*len < sizeof(tv))
        return -EINVAL;
    memcpy(buf, &tv, sizeof(tv));
    *len = sizeof(tv);
    return 0;
}

int sock_getsockopt(struct sock *s, int level, int name, void *buf, socklen_t *len)
{
    if (level != SOL_SOCKET)
        return s->ops->getsockopt(s, level, name, buf, len);
    switch (name) {
    case SO_TYPE:
        return get_int(buf, len, s->type);
    case SO_DOMAIN:
        return get_int(buf, len, s->family);
    case SO_PROTOCOL:
        return get_int(buf, len, s->protocol);
    case SO_ERROR:
        return get_int(buf, len, -atomic_exchange(&s->error, 0));
    case SO_SNDBUF:
        return get_int(buf, len, (int)s->sndbuf);
    case SO_RCVBUF:
        return get_int(buf, len, (int)s->rcvbuf);
    case SO_PASSCRED:
        return get_int(buf, len, s->passcred);
    case SO_REUSEADDR:
        return get_int(buf, len, s->reuseaddr);
    case SO_KEEPALIVE:
        return get_int(buf, len, s->keepalive);
    case SO_BROADCAST:
        return get_int(buf, len, s->broadcast);
    case SO_SNDTIMEO:
        return get_timeval(buf, len, s->sndtimeo_ns);
    case SO_RCVTIMEO:
        return get_timeval(buf, len, s->rcvtimeo_ns);
    default:
        return s->ops->getsockopt(s, level, name, buf, len);
    }
}

static int set_timeval(_Atomic uint64_t *ns, const void *buf, socklen_t len)
{
    struct timeval tv;

    if (len < sizeof(tv))
        return -EINVAL;
    memcpy(&tv, buf, sizeof(tv));
    if (tv.tv_usec < 0 || tv.tv_usec >= 1000000)
        return -EDOM;
    if (tv.tv_sec < 0)
        tv.tv_sec = tv.tv_usec = 0;
    if ((uint64_t)tv.tv_sec > UINT64_MAX / NS_PER_SEC / 4)
        atomic_store(ns, 0);
    else
        atomic_store(ns, (uint64_t)tv.tv_sec * NS_PER_SEC + (uint64_t)tv.tv_usec * 1000);
    return 0;
}

/* Linux doubles what is asked, for its bookkeeping, and programs read that back (socket(7)). */
static uint32_t sockbuf_size(int value)
{
    uint32_t asked = value < 0 ? 0 : (uint32_t)value;

    asked = asked > LIMIT_SOCKBUF_DEFAULT ? LIMIT_SOCKBUF_DEFAULT : asked;
    return asked * 2 < SOCKBUF_MIN ? SOCKBUF_MIN : asked * 2;
}

int sock_setsockopt(struct sock *s, int level, int name, const void *buf, socklen_t len)
{
    int value;

    if (level != SOL_SOCKET)
        return -ENOPROTOOPT;
    if (name == SO_SNDTIMEO)
        return set_timeval(&s->sndtimeo_ns, buf, len);
    if (name == SO_RCVTIMEO)
        return set_timeval(&s->rcvtimeo_ns, buf, len);
    if (len < sizeof(value))
        return -EINVAL;
    memcpy(&value, buf, sizeof(value));
    switch (name) {
    case SO_SNDBUF:
        atomic_store(&s->sndbuf, sockbuf_size(value));
        return 0;
    case SO_RCVBUF:
        atomic_store(&s->rcvbuf, sockbuf_size(value));
        return 0;
    case SO_PASSCRED:
        atomic_store(&s->passcred, value != 0);
        return 0;
    case SO_REUSEADDR:
        atomic_store(&s->reuseaddr, value != 0);
        return 0;
    case SO_KEEPALIVE:
        atomic_store(&s->keepalive, value != 0);
        return 0;
    case SO_BROADCAST:
        atomic_store(&s->broadcast, value != 0);
        return 0;
    default:
        return -ENOPROTOOPT;
    }
}
