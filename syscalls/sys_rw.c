/* read(2), write(2) and their vectored and positioned kinds, lseek(2). */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "sentry/net/sock.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_rw.h"

int64_t rw_write_result(struct task *t, struct file *f, const struct vfs_caller *c, int64_t n)
{
    if (n == -EPIPE && (!f || sock_file_raises(f)))
        task_raise(t, SIGPIPE);
    else if (n == -EFBIG && c->fsize_limit != UINT64_MAX)
        task_raise(t, SIGXFSZ);
    return n;
}

/* Where a transfer goes: one range or a vector of them. */
static int64_t rw_uio(struct task *t, struct file *f, bool write, struct uio *u, int64_t off,
                      int flags)
{
    struct vfs_caller c;
    int64_t n;

    task_vfs_caller(t, &c);
    if (flags & RWF_NOWAIT) {
        c.blocker = NULL;
        flags &= ~RWF_NOWAIT;
    }
    if (write)
        n = rw_write_result(t, f, &c, vfs_write(f, u, off, flags, &c));
    else
        n = vfs_read(f, u, off, flags, &c);
    task_vfs_caller_end(&c);
    if (n != -EBADF)
        task_count_io(t, write, n);
    return n;
}

static int64_t rw_one(struct task *t, int fd, bool write, uaddr_t buf, uint64_t count, int64_t off)
{
    struct file *f;
    struct uio u;
    int64_t n = task_file(t, fd, &f);

    if (n)
        return n;
    n = uio_init_user(&u, &t->ua, buf, count);
    if (n == 0)
        n = rw_uio(t, f, write, &u, off, 0);
    file_put(f);
    return n;
}

static int64_t rw_vector(struct task *t, int fd, bool write, uaddr_t iov, uint64_t count,
                         int64_t off, int flags)
{
    struct uio_seg *segs = NULL;
    struct file *f;
    struct uio u;
    int64_t n = task_file(t, fd, &f);

    if (n)
        return n;
    n = uio_init_iovec(&u, &t->ua, iov, count, &segs);
    if (n == 0) {
        n = rw_uio(t, f, write, &u, off, flags);
        free(segs);
    }
    file_put(f);
    return n;
}

int64_t sys_read(struct task *t, int fd, uaddr_t buf, uint64_t count)
{
    return rw_one(t, fd, false, buf, count, -1);
}

int64_t sys_write(struct task *t, int fd, uaddr_t buf, uint64_t count)
{
    return rw_one(t, fd, true, buf, count, -1);
}

int64_t sys_pread64(struct task *t, int fd, uaddr_t buf, uint64_t count, int64_t off)
{
    return off < 0 ? -EINVAL : rw_one(t, fd, false, buf, count, off);
}

int64_t sys_pwrite64(struct task *t, int fd, uaddr_t buf, uint64_t count, int64_t off)
{
    return off < 0 ? -EINVAL : rw_one(t, fd, true, buf, count, off);
}

int64_t sys_readv(struct task *t, int fd, uaddr_t iov, uint64_t count)
{
    return rw_vector(t, fd, false, iov, count, -1, 0);
}

int64_t sys_writev(struct task *t, int fd, uaddr_t iov, uint64_t count)
{
    return rw_vector(t, fd, true, iov, count, -1, 0);
}

/* The second half of the offset holds nothing on a 64-bit machine. */
int64_t sys_preadv(struct task *t, int fd, uaddr_t iov, uint64_t count, int64_t off, uint64_t high)
{
    (void)high;
    return off < 0 ? -EINVAL : rw_vector(t, fd, false, iov, count, off, 0);
}

int64_t sys_pwritev(struct task *t, int fd, uaddr_t iov, uint64_t count, int64_t off, uint64_t high)
{
    (void)high;
    return off < 0 ? -EINVAL : rw_vector(t, fd, true, iov, count, off, 0);
}

int64_t sys_preadv2(struct task *t, int fd, uaddr_t iov, uint64_t count, int64_t off, uint64_t high,
                    int flags)
{
    (void)high;
    return off < -1 ? -EINVAL : rw_vector(t, fd, false, iov, count, off, flags);
}

int64_t sys_pwritev2(struct task *t, int fd, uaddr_t iov, uint64_t count, int64_t off,
                     uint64_t high, int flags)
{
    (void)high;
    return off < -1 ? -EINVAL : rw_vector(t, fd, true, iov, count, off, flags);
}

int64_t sys_lseek(struct task *t, int fd, int64_t off, unsigned whence)
{
    struct file *f;
    int64_t n = task_file(t, fd, &f);

    if (n)
        return n;
    n = whence > SEEK_HOLE ? -EINVAL : vfs_seek(f, off, (int)whence);
    file_put(f);
    return n;
}
