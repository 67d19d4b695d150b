/* Messages of sockets: send, sendto, sendmsg, sendmmsg and their receiving kind. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "sentry/time/clock.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_socket.h"

#ifndef MSG_CMSG_COMPAT
#define MSG_CMSG_COMPAT 0x80000000u
#endif

_Static_assert(sizeof(struct lx_msghdr) == sizeof(struct msghdr), "struct msghdr");
_Static_assert(offsetof(struct lx_msghdr, flags) == offsetof(struct msghdr, msg_flags), "msghdr");

/* struct mmsghdr: a message and what came of it. */
#define MMSG_SIZE (sizeof(struct lx_msghdr) + 8)
#define MMSG_LEN_OFF sizeof(struct lx_msghdr)

static int64_t msg_sent(struct task *t, const struct sock_arg *a, int flags, int64_t n)
{
    if (n == -EPIPE && !(flags & MSG_NOSIGNAL) && sock_file_raises(a->file))
        task_raise(t, SIGPIPE);
    return n;
}

/* ---- one range ---- */

int64_t sys_sendto(struct task *t, int fd, uaddr_t buf, uint64_t size, int flags, uaddr_t addr,
                   int len)
{
    struct sock_addr to;
    struct sock_msg m = {.flags = flags};
    struct sock_arg a;
    struct uio u;
    int64_t n = uio_init_user(&u, &t->ua, buf, size);

    if (n)
        return n;
    n = sock_arg_get(t, fd, &a);
    if (n)
        return n;
    m.u = &u;
    if (!uaddr_is_null(addr)) {
        n = len < 0 ? -EINVAL : sock_addr_in(t, addr, (uint64_t)len, &to);
        m.to = &to;
    }
    if (n == 0)
        n = msg_sent(t, &a, flags,
                     a.sock->ops->send(a.sock, &m, sock_arg_nonblock(&a, flags), &a.c));
    sock_arg_put(&a);
    return n;
}

int64_t sys_recvfrom(struct task *t, int fd, uaddr_t buf, uint64_t size, int flags, uaddr_t addr,
                     uaddr_t len)
{
    struct sock_addr from = {.len = 0};
    struct sock_msg m = {.flags = flags};
    struct sock_arg a;
    struct uio u;
    int64_t n = uio_init_user(&u, &t->ua, buf, size);

    if (n)
        return n;
    n = sock_arg_get(t, fd, &a);
    if (n)
        return n;
    m.u = &u;
    if (!uaddr_is_null(addr))
        m.from = &from;
    n = a.sock->ops->recv(a.sock, &m, sock_arg_nonblock(&a, flags), &a.c);
    sock_arg_put(&a);
    if (n >= 0 && m.from) {
        int r = sock_addr_out(t, &from, addr, len);
        n = r ? r : n;
    }
    return n;
}

/* ---- struct msghdr ---- */

static int msghdr_in(struct task *t, uaddr_t addr, struct lx_msghdr *h)
{
    int r = copyin_obj(&t->ua, h, addr);

    if (r)
        return r;
    if (h->iovlen > LIMIT_IOV)
        return -EMSGSIZE;
    if ((int32_t)h->namelen < 0)
        return -EINVAL;
    if (h->name == 0)
        h->namelen = 0;
    return 0;
}

static int64_t msg_send(struct task *t, struct sock_arg *a, uaddr_t addr, int flags)
{
    struct uio_seg *segs = NULL;
    struct sock_control ctl;
    struct sock_addr to;
    struct lx_msghdr h;
    struct sock_msg m = {.flags = flags};
    struct uio u;
    int64_t n = msghdr_in(t, addr, &h);

    if (n)
        return n;
    if (h.namelen > 0) {
        n = sock_addr_in(t, uaddr(h.name), MIN(h.namelen, (uint32_t)sizeof(to.storage)), &to);
        if (n)
            return n;
        m.to = &to;
    }
    n = uio_init_iovec(&u, &t->ua, uaddr(h.iov), h.iovlen, &segs);
    if (n)
        return n;
    m.u = &u;
    n = sock_cmsg_in(t, &a->c, a->sock->family, uaddr(h.control), h.control ? h.controllen : 0,
                     &ctl);
    if (n == 0) {
        if (ctl.file_count > 0 || ctl.has_cred || ctl.items_size > 0)
            m.control = &ctl;
        n = msg_sent(t, a, flags,
                     a->sock->ops->send(a->sock, &m, sock_arg_nonblock(a, flags), &a->c));
        sock_control_fini(&ctl);
    }
    free(segs);
    return n;
}

/* What the guest learns beside the bytes: where from and ancillary data go where h says; h gets
 * their sizes and the flags. */
static int msg_recv_parts(struct task *t, struct lx_msghdr *h, struct sock_msg *m,
                          const struct sock_addr *from)
{
    int flags = m->out_flags;

    if (h->name) {
        const uint32_t n = MIN(h->namelen, (uint32_t)from->len);
        if (copyout(&t->ua, uaddr(h->name), &from->storage, n))
            return -EFAULT;
        h->namelen = from->len;
    }
    if (h->control == 0)
        h->controllen = 0;
    int r = sock_cmsg_out(t, m->control, m->flags & MSG_CMSG_CLOEXEC, h, &flags);
    h->flags = (uint32_t)(flags | (m->flags & MSG_CMSG_CLOEXEC));
    return r;
}

static int msg_recv_out(struct task *t, uaddr_t addr, struct lx_msghdr *h, struct sock_msg *m,
                        const struct sock_addr *from)
{
    int r = msg_recv_parts(t, h, m, from);

    if (r == 0 && h->name)
        r = copyout_obj(&t->ua, uaddr_add(addr, offsetof(struct lx_msghdr, namelen)), &h->namelen);
    if (r == 0)
        r = copyout_obj(&t->ua, uaddr_add(addr, offsetof(struct lx_msghdr, flags)), &h->flags);
    if (r == 0)
        r = copyout_obj(&t->ua, uaddr_add(addr, offsetof(struct lx_msghdr, controllen)),
                        &h->controllen);
    return r;
}

/* How a message is received: into where, and what is told about it. */
typedef int (*msg_out_fn)(struct task *t, uaddr_t addr, struct lx_msghdr *h, struct sock_msg *m,
                          const struct sock_addr *from);

static int64_t msg_recv_uio(struct task *t, struct sock_arg *a, uaddr_t addr, struct lx_msghdr *h,
                            struct uio *u, int flags, msg_out_fn out)
{
    struct sock_control ctl = {0};
    struct sock_addr from = {.len = 0};
    struct sock_msg m = {.flags = flags, .from = &from, .control = &ctl, .u = u};
    int64_t n = a->sock->ops->recv(a->sock, &m, sock_arg_nonblock(a, flags), &a->c);

    if (n >= 0) {
        int r = out(t, addr, h, &m, &from);
        n = r ? r : n;
    }
    sock_control_fini(&ctl);
    return n;
}

static int64_t msg_recv(struct task *t, struct sock_arg *a, uaddr_t addr, int flags)
{
    struct uio_seg *segs = NULL;
    struct lx_msghdr h;
    struct uio u;
    int64_t n = msghdr_in(t, addr, &h);

    if (n == 0)
        n = uio_init_iovec(&u, &t->ua, uaddr(h.iov), h.iovlen, &segs);
    if (n)
        return n;
    n = msg_recv_uio(t, a, addr, &h, &u, flags, msg_recv_out);
    free(segs);
    return n;
}

/* ---- into a range that is not the message's own ---- */

/* struct io_uring_recvmsg_out. */
struct lx_recvmsg_out {
    uint32_t namelen, controllen, payloadlen, flags;
};

static int msg_parts_out(struct task *t, uaddr_t addr, struct lx_msghdr *h, struct sock_msg *m,
                         const struct sock_addr *from)
{
    int r = msg_recv_parts(t, h, m, from);

    (void)addr;
    h->namelen = (uint32_t)from->len;
    return r;
}

static int64_t recv_layout(struct task *t, struct sock_arg *a, struct lx_msghdr *h, int flags,
                           const struct sock_msg_buf *buf, bool *out_got)
{
    const uint64_t head = sizeof(struct lx_recvmsg_out);
    const uint64_t before = head + h->namelen + h->controllen;
    struct uio u;

    if (h->controllen > buf->len || buf->len < before)
        return -EFAULT;
    h->name = h->namelen ? buf->addr.v + head : 0;
    h->control = h->controllen ? buf->addr.v + head + h->namelen : 0;
    int64_t n = uio_init_user(&u, &t->ua, uaddr_add(buf->addr, before), buf->len - before);
    if (n == 0)
        n = msg_recv_uio(t, a, buf->addr, h, &u, flags, msg_parts_out);
    if (n < 0)
        return n;
    const struct lx_recvmsg_out out = {.namelen = h->namelen,
                                       .controllen = (uint32_t)h->controllen,
                                       .payloadlen = (uint32_t)n,
                                       .flags = h->flags};
    if (copyout_obj(&t->ua, buf->addr, &out))
        return -EFAULT;
    *out_got = n > 0;
    return n + (int64_t)before;
}

/* One range of the message's own says how many bytes there may be, 0: as many as there is room. */
static int64_t recv_plain(struct task *t, struct sock_arg *a, uaddr_t msg, struct lx_msghdr *h,
                          int flags, const struct sock_msg_buf *buf)
{
    uint64_t range[2] = {0, 0};
    struct uio u;

    if (h->iovlen == 1 && copyin_obj(&t->ua, &range, uaddr(h->iov)))
        return -EFAULT;
    const uint64_t len = range[1] ? MIN(range[1], (uint64_t)buf->len) : buf->len;
    int64_t n = uio_init_user(&u, &t->ua, buf->addr, len);
    return n ? n : msg_recv_uio(t, a, msg, h, &u, flags, msg_recv_out);
}

int64_t sock_recvmsg_into(struct task *t, int fd, uaddr_t msg, int flags,
                          const struct sock_msg_buf *buf, bool *out_got)
{
    struct lx_msghdr h, raw;
    struct sock_arg a;
    int64_t n = sock_arg_get(t, fd, &a);

    if (n)
        return n;
    n = copyin_obj(&t->ua, &raw, msg) ? -EFAULT : msghdr_in(t, msg, &h);
    if (n == 0 && (h.iovlen > 1 || (unsigned)flags & MSG_CMSG_COMPAT))
        n = -EINVAL;
    if (n == 0 && buf->layout) {
        /* Only the size of the name counts there. */
        h.namelen = raw.namelen;
        n = (int32_t)h.namelen < 0 ? -EINVAL : recv_layout(t, &a, &h, flags, buf, out_got);
    } else if (n == 0) {
        n = recv_plain(t, &a, msg, &h, flags, buf);
        *out_got = n > 0;
    }
    sock_arg_put(&a);
    return n;
}

static int64_t one_message(struct task *t, int fd, uaddr_t msg, int flags,
                           int64_t (*fn)(struct task *t, struct sock_arg *a, uaddr_t msg,
                                         int flags))
{
    struct sock_arg a;
    int64_t n = sock_arg_get(t, fd, &a);

    if (n)
        return n;
    n = (unsigned)flags & MSG_CMSG_COMPAT ? -EINVAL : fn(t, &a, msg, flags);
    sock_arg_put(&a);
    return n;
}

int64_t sys_sendmsg(struct task *t, int fd, uaddr_t msg, int flags)
{
    return one_message(t, fd, msg, flags, msg_send);
}

int64_t sys_recvmsg(struct task *t, int fd, uaddr_t msg, int flags)
{
    return one_message(t, fd, msg, flags, msg_recv);
}

/* ---- many at once ---- */

static int mmsg_result(struct task *t, uaddr_t at, int64_t n)
{
    const uint32_t len = (uint32_t)n;

    return copyout_obj(&t->ua, uaddr_add(at, MMSG_LEN_OFF), &len);
}

int64_t sys_sendmmsg(struct task *t, int fd, uaddr_t msgs, unsigned count, int flags)
{
    struct sock_arg a;
    unsigned done = 0;
    int64_t n = sock_arg_get(t, fd, &a);

    if (n)
        return n;
    if ((unsigned)flags & MSG_CMSG_COMPAT)
        n = -EINVAL;
    count = MIN(count, (unsigned)LIMIT_IOV);
    while (n >= 0 && done < count) {
        const uaddr_t at = uaddr_add(msgs, done * MMSG_SIZE);
        n = msg_send(t, &a, at, flags);
        if (n >= 0)
            n = mmsg_result(t, at, n);
        if (n >= 0)
            done++;
        if (task_signal_pending(t))
            break;
    }
    sock_arg_put(&a);
    return done > 0 ? done : n;
}

static int mmsg_deadline(struct task *t, uaddr_t timeout, deadline_t *out)
{
    struct lx_timespec ts;

    *out = DEADLINE_NEVER;
    if (uaddr_is_null(timeout))
        return 0;
    int r = copyin_obj(&t->ua, &ts, timeout);
    if (r)
        return r;
    if (!lx_timespec_valid(&ts))
        return -EINVAL;
    *out = deadline_after(lx_timespec_ns(&ts));
    return 0;
}

static int mmsg_time_left(struct task *t, uaddr_t timeout, deadline_t deadline)
{
    const uint64_t now = mono_now();
    const uint64_t left = deadline > now ? deadline - now : 0;
    const struct lx_timespec ts = lx_timespec_from((int64_t)MIN(left, (uint64_t)CLOCK_NS_MAX));

    return uaddr_is_null(timeout) ? 0 : copyout_obj(&t->ua, timeout, &ts);
}

/* The timeout is looked at after each message only, which recvmmsg(2) lists under BUGS. */
int64_t sys_recvmmsg(struct task *t, int fd, uaddr_t msgs, unsigned count, int flags,
                     uaddr_t timeout)
{
    struct sock_arg a;
    deadline_t deadline;
    unsigned done = 0;
    int64_t n = mmsg_deadline(t, timeout, &deadline);

    if (n == 0)
        n = sock_arg_get(t, fd, &a);
    if (n)
        return n;
    if ((unsigned)flags & MSG_CMSG_COMPAT)
        n = -EINVAL;
    count = MIN(count, (unsigned)LIMIT_IOV);
    while (n >= 0 && done < count) {
        const uaddr_t at = uaddr_add(msgs, done * MMSG_SIZE);
        n = msg_recv(t, &a, at, flags & ~MSG_WAITFORONE);
        if (n >= 0)
            n = mmsg_result(t, at, n);
        if (n >= 0)
            done++;
        if (flags & MSG_WAITFORONE)
            flags |= MSG_DONTWAIT;
        if (deadline <= mono_now() || task_signal_pending(t))
            break;
    }
    /* An error after the first message is told by the next call (net/socket.c). */
    if (done > 0 && n < 0 && n != -EAGAIN && n != -ERESTARTSYS && n != -EINTR)
        atomic_store(&a.sock->error, (int)n);
    sock_arg_put(&a);
    if (done > 0 && mmsg_time_left(t, timeout, deadline))
        return -EFAULT;
    return done > 0 ? done : n;
}
