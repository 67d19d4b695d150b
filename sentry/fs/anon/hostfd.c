#include "sentry/fs/anon/hostfd.h"

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sentry/errno_internal.h"
#include "sentry/mm/usercopy.h"
#include "sentry/wait/hostwatch.h"

/* A pipe that polls writable takes this much without blocking. */
#define HOSTFD_PIECE 4096
/* How long till who waits for a FIFO's first writer looks again: the host does not tell. */
#define WRITER_LOOK_NS UINT64_C(10000000)

struct hostfd {
    int fd;
    int access;              /* O_ACCMODE of the descriptor */
    struct hostwatch *watch; /* owned; NULL: a regular file, always ready */
    _Atomic int pushed;      /* FIFOs: a byte that was read too early, or -1 */
};

/* All open files of the inode use the one descriptor: a host that lets nobody open anything again
 * cannot give them one each. */
struct hostfd_inode {
    struct inode inode;
    struct hostfd h;
};

static struct hostfd *hostfd_of(const struct file *f)
{
    return f->priv;
}

/* ---- readiness ---- */

/* One wake-up for the next change. */
static void hostfd_arm(struct hostfd *h, uint32_t mask)
{
    if (h->watch != NULL)
        hostwatch_arm(h->watch, mask != 0 ? mask & (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP)
                                          : EPOLLIN | EPOLLOUT);
}

static bool hostfd_ready(struct hostfd *h, uint32_t mask)
{
    hostfd_arm(h, mask);
    return (hostwatch_ready(h->fd) & (mask | EPOLLHUP | EPOLLERR)) != 0;
}

static int hostfd_wait(struct file *f, uint32_t mask, const struct vfs_caller *c)
{
    struct hostfd *h = hostfd_of(f);
    int err;

    if ((hostwatch_ready(h->fd) & (mask | EPOLLHUP | EPOLLERR)) != 0 || h->watch == NULL)
        return 0;
    if ((atomic_load(&f->flags) & O_NONBLOCK) != 0 || c->blocker == NULL)
        return -EAGAIN;
    WAIT_EVENT(hostwatch_queue(h->watch), c->blocker, 0, DEADLINE_NEVER, hostfd_ready(h, mask),
               err);
    return err != 0 ? -ERESTARTSYS : 0;
}

static uint32_t hostfd_poll(struct file *f, struct waiter *w)
{
    struct hostfd *h = hostfd_of(f);

    if (h->watch == NULL)
        return EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM;
    if (w != NULL) {
        waitq_add(hostwatch_queue(h->watch), w);
        hostfd_arm(h, w->mask);
    }
    uint32_t now = hostwatch_ready(h->fd);
    /* A look at what is not ready may be followed by a sleep on an older watch. */
    if (w == NULL)
        hostfd_arm(h, 0);
    return now | ((now & EPOLLIN) ? EPOLLRDNORM : 0) | ((now & EPOLLOUT) ? EPOLLWRNORM : 0);
}

/* ---- bytes ---- */

static int64_t host_result(ssize_t n)
{
    return n < 0 ? -(int64_t)errno : (int64_t)n;
}

static int64_t hostfd_do_read(void *arg, const struct iovec *iov, int count, uint64_t done)
{
    const struct hostfd *h = arg;

    (void)done;
    return host_result(readv(h->fd, iov, count));
}

static int64_t hostfd_do_write(void *arg, const struct iovec *iov, int count, uint64_t done)
{
    const struct hostfd *h = arg;

    (void)done;
    return host_result(writev(h->fd, iov, count));
}

static int64_t hostfd_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct hostfd *h = hostfd_of(f);
    int64_t n;

    (void)pos;
    if (u->left == 0)
        return 0;
    do {
        int r = hostfd_wait(f, EPOLLIN | EPOLLRDHUP, c);
        if (r != 0)
            return r;
        n = uio_host_io(u, true, UINT64_MAX, hostfd_do_read, h);
    } while (n == -EAGAIN || n == -EINTR);
    return n;
}

static int64_t hostfd_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct hostfd *h = hostfd_of(f);
    int64_t done = 0;

    (void)pos;
    while (u->left > 0) {
        int r = hostfd_wait(f, EPOLLOUT, c);
        if (r != 0)
            return done > 0 ? done : r;
        int64_t n =
            uio_host_io(u, false, h->watch != NULL ? HOSTFD_PIECE : UINT64_MAX, hostfd_do_write, h);
        if (n == -EAGAIN || n == -EINTR)
            continue;
        if (n <= 0)
            return done > 0 ? done : n;
        done += n;
    }
    return done;
}

/* ---- terminals of the host ---- */

static int64_t ioctl_get(const struct hostfd *h, unsigned cmd, void *buf, size_t size, uint64_t arg,
                         const struct uaccess *ua)
{
    if (ioctl(h->fd, (unsigned long)cmd, buf) != 0)
        return -errno;
    return copyout(ua, (uaddr_t){arg}, buf, size);
}

static int64_t ioctl_set(const struct hostfd *h, unsigned cmd, void *buf, size_t size, uint64_t arg,
                         const struct uaccess *ua)
{
    int r = copyin(ua, buf, (uaddr_t){arg}, size);

    if (r != 0)
        return r;
    return ioctl(h->fd, (unsigned long)cmd, buf) == 0 ? 0 : -errno;
}

static int64_t hostfd_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                            const struct vfs_caller *c)
{
    const struct hostfd *h = hostfd_of(f);
    struct termios t;
    struct winsize ws;
    int n;

    (void)c;
    switch (cmd) {
    case TCGETS:
        return ioctl_get(h, cmd, &t, sizeof(t), arg, ua);
    case TCSETS:
    case TCSETSW:
    case TCSETSF:
        return ioctl_set(h, cmd, &t, sizeof(t), arg, ua);
    case TIOCGWINSZ:
        return ioctl_get(h, cmd, &ws, sizeof(ws), arg, ua);
    case TIOCSWINSZ:
        return ioctl_set(h, cmd, &ws, sizeof(ws), arg, ua);
    case FIONREAD:
        return ioctl_get(h, cmd, &n, sizeof(n), arg, ua);
    default:
        return -ENOTTY;
    }
}

/* ---- regular files ---- */

static int64_t hostfd_seek(struct file *f, int64_t off, int whence)
{
    off_t n = lseek(hostfd_of(f)->fd, off, whence);

    return n < 0 ? -errno : n;
}

static int hostfd_fsync(struct file *f, bool data_only)
{
    int fd = hostfd_of(f)->fd;

    return (data_only ? fdatasync(fd) : fsync(fd)) == 0 ? 0 : -errno;
}

static const struct file_ops hostfd_stream_ops = {
    .read = hostfd_read,
    .write = hostfd_write,
    .ioctl = hostfd_ioctl,
    .poll = hostfd_poll,
};

static const struct file_ops hostfd_file_ops = {
    .read = hostfd_read,
    .write = hostfd_write,
    .seek = hostfd_seek,
    .fsync = hostfd_fsync,
};

/* ---- the inode ---- */

static void hostfd_inode_release(struct inode *i)
{
    struct hostfd_inode *n = container_of(i, struct hostfd_inode, inode);

    hostwatch_free(n->h.watch);
    if (n->h.fd >= 0)
        (void)close(n->h.fd);
    inode_fini(i);
    free(n);
}

static const struct file_ops *hostfd_ops(const struct inode *i)
{
    return S_ISREG(i->mode) ? &hostfd_file_ops : &hostfd_stream_ops;
}

/* /dev/stdout and the like: what the descriptor allows. */
static int hostfd_reopen(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    const struct hostfd *h = &container_of(i, struct hostfd_inode, inode)->h;
    const int want = (int)atomic_load(&f->flags) & O_ACCMODE;

    (void)c;
    if (h->access != O_RDWR && want != h->access)
        return -EACCES;
    f->ops = hostfd_ops(i);
    f->priv = &container_of(i, struct hostfd_inode, inode)->h;
    return 0;
}

static int hostfd_setattr(struct inode *i, const struct vfs_setattr *a)
{
    struct vfs_setattr rest = *a;

    if ((a->valid & VFS_SET_SIZE) != 0 && S_ISREG(i->mode)) {
        if (ftruncate(container_of(i, struct hostfd_inode, inode)->h.fd, (off_t)a->size) != 0)
            return -errno;
        rest.valid &= ~(uint32_t)VFS_SET_SIZE;
    }
    return vfs_anon_setattr(i, &rest);
}

/* The host's file grows by itself. */
static int hostfd_getattr(struct inode *i, struct vfs_attr *out)
{
    struct stat st;

    if (!S_ISREG(i->mode))
        return 0;
    if (fstat(container_of(i, struct hostfd_inode, inode)->h.fd, &st) != 0)
        return -errno;
    out->size = (uint64_t)st.st_size;
    out->blocks = (uint64_t)st.st_blocks;
    return 0;
}

static const struct inode_ops hostfd_inode_ops = {.getattr = hostfd_getattr,
                                                  .open = hostfd_reopen,
                                                  .setattr = hostfd_setattr,
                                                  .release = hostfd_inode_release};

/* Takes nothing on failure. */
static int hostfd_inode_new(int fd, int access, uint32_t mode, struct hostfd_inode **out)
{
    struct hostfd_inode *n = calloc(1, sizeof(*n));

    if (n == NULL)
        return -ENOMEM;
    n->h.fd = fd;
    n->h.access = access;
    n->h.pushed = -1;
    int r = hostwatch_new(fd, 0, &n->h.watch);
    if (r == -EPERM)
        r = 0;
    if (r == 0)
        r = vfs_anon_inode_init(&n->inode, &hostfd_inode_ops, mode);
    if (r != 0) {
        hostwatch_free(n->h.watch);
        free(n);
        return r;
    }
    *out = n;
    return 0;
}

int hostfd_new(int fd, struct file **out_file)
{
    struct hostfd_inode *n = NULL;
    struct stat st;
    char text[48];
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fstat(fd, &st) != 0)
        return -errno;
    int r = hostfd_inode_new(fd, flags & O_ACCMODE, st.st_mode, &n);
    if (r != 0)
        return r;
    (void)snprintf(text, sizeof(text), "%s:[%lu]", S_ISFIFO(st.st_mode) ? "pipe" : "host",
                   (unsigned long)n->inode.ino);
    r = vfs_anon_inode_file(text, &n->inode, hostfd_ops(&n->inode),
                            (uint32_t)flags & (O_ACCMODE | O_APPEND), out_file);
    /* The descriptor stays the caller's. */
    if (r != 0) {
        hostwatch_free(n->h.watch);
        n->h.watch = NULL;
        n->h.fd = -1;
    } else {
        (*out_file)->priv = &n->h;
    }
    inode_put(&n->inode);
    return r;
}

/* ---- FIFOs: each open file has an end of its own ---- */

static int64_t fifo_take_pushed(struct hostfd *h, struct uio *u)
{
    int c = atomic_exchange(&h->pushed, -1);
    const uint8_t byte = (uint8_t)c;

    if (c < 0)
        return 0;
    const int64_t n = uio_copy_to(u, &byte, 1);
    if (n != 1)
        atomic_store(&h->pushed, c);
    return n != 1 ? -EFAULT : 1;
}

/* The host is asked first: without a writer there is nothing to wait for. */
static int64_t fifo_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct hostfd *h = hostfd_of(f);
    int64_t n;

    (void)pos;
    if (u->left == 0)
        return 0;
    n = fifo_take_pushed(h, u);
    while (n == 0) {
        n = uio_host_io(u, true, UINT64_MAX, hostfd_do_read, h);
        if (n != -EAGAIN && n != -EINTR)
            break;
        n = hostfd_wait(f, EPOLLIN, c);
    }
    return n;
}

static uint32_t fifo_poll(struct file *f, struct waiter *w)
{
    return hostfd_poll(f, w) |
           (atomic_load(&hostfd_of(f)->pushed) >= 0 ? EPOLLIN | EPOLLRDNORM : 0u);
}

static int64_t fifo_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                          const struct vfs_caller *c)
{
    const struct hostfd *h = hostfd_of(f);
    int n;

    (void)c;
    if (cmd != FIONREAD)
        return -ENOTTY;
    if (ioctl(h->fd, FIONREAD, &n) != 0)
        return -errno;
    n += atomic_load(&h->pushed) >= 0;
    return copyout_obj(ua, uaddr(arg), &n);
}

static void fifo_free(struct hostfd *h)
{
    hostwatch_free(h->watch);
    free(h);
}

static void fifo_release(struct file *f)
{
    struct hostfd *h = hostfd_of(f);
    const int fd = h->fd;

    fifo_free(h);
    (void)close(fd);
}

static const struct file_ops hostfd_fifo_ops = {
    .read = fifo_read,
    .write = hostfd_write,
    .ioctl = fifo_ioctl,
    .poll = fifo_poll,
    .release = fifo_release,
};

/* Whether somebody writes, or has. A read says so, of what is empty, without taking anything; a
 * byte that came meanwhile is kept. */
static int fifo_has_writer(struct hostfd *h)
{
    uint8_t byte;

    if ((hostwatch_ready(h->fd) & (EPOLLIN | EPOLLHUP)) != 0)
        return 1;
    const ssize_t n = read(h->fd, &byte, 1);
    if (n == 1)
        atomic_store(&h->pushed, byte);
    if (n >= 0)
        return n == 1;
    return errno == EAGAIN || errno == EINTR ? errno == EAGAIN : -errno;
}

static int fifo_await_writer(struct hostfd *h, const struct vfs_caller *c)
{
    int r;

    while ((r = fifo_has_writer(h)) == 0) {
        if (c->blocker == NULL)
            return -EAGAIN;
        if (blocker_wait(c->blocker, mono_now() + WRITER_LOOK_NS) == -EINTR)
            return -ERESTARTSYS;
    }
    return r < 0 ? r : 0;
}

int hostfd_open_fifo(int fd, struct file *f, const struct vfs_caller *c)
{
    const uint32_t flags = atomic_load(&f->flags);
    struct hostfd *h = calloc(1, sizeof(*h));
    int r = h != NULL ? hostwatch_new(fd, 0, &h->watch) : -ENOMEM;

    if (r != 0) {
        free(h);
        return r;
    }
    h->fd = fd;
    h->access = (int)(flags & O_ACCMODE);
    h->pushed = -1;
    if (h->access == O_RDONLY && (flags & O_NONBLOCK) == 0)
        r = fifo_await_writer(h, c);
    if (r != 0) {
        fifo_free(h);
        return r;
    }
    f->ops = &hostfd_fifo_ops;
    f->priv = h;
    return 0;
}
