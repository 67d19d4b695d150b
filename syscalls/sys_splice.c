/* splice(2), tee(2), vmsplice(2): bytes are copied, never pages shared. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/limits.h"
#include "sentry/fs/pipe/pipe.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_rw.h"

#define SPLICE_FLAGS (SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT)
#define SPLICE_PIECE 65536u

struct splice {
    struct file *in, *out;    /* owned */
    int64_t in_off, out_off;  /* -1: the file's own position */
    struct vfs_caller c;      /* how files wait */
    struct vfs_caller pipe_c; /* how pipes do: SPLICE_F_NONBLOCK is about them */
};

static bool splice_may(const struct file *f, bool write)
{
    const uint32_t acc = atomic_load(&f->flags) & O_ACCMODE;

    return acc == O_RDWR || acc == (write ? O_WRONLY : O_RDONLY);
}

static int splice_begin(struct task *t, int fd_in, int fd_out, unsigned flags, struct splice *s)
{
    int r = task_file(t, fd_in, &s->in);

    if (r)
        return r;
    r = task_file(t, fd_out, &s->out);
    if (r == 0 && (!splice_may(s->in, false) || !splice_may(s->out, true))) {
        file_put(s->out);
        r = -EBADF;
    }
    if (r) {
        file_put(s->in);
        return r;
    }
    task_vfs_caller(t, &s->c);
    s->pipe_c = s->c;
    if (flags & SPLICE_F_NONBLOCK)
        s->pipe_c.blocker = NULL;
    return 0;
}

static void splice_end(struct splice *s)
{
    task_vfs_caller_end(&s->c);
    file_put(s->out);
    file_put(s->in);
}

/* ---- one step ---- */

/* Pipe to anything. The first read may wait, later ones take what is there. */
static int64_t splice_from_pipe(struct splice *s, char *buf, uint64_t left)
{
    struct vfs_caller in_c = s->pipe_c;
    const struct vfs_caller *out_c = pipe_is(s->out) ? &s->pipe_c : &s->c;
    int64_t total = 0;

    while (left > 0) {
        struct uio u;
        uio_init_kernel(&u, buf, MIN(left, (uint64_t)SPLICE_PIECE));
        int64_t n = vfs_read(s->in, &u, -1, 0, &in_c);
        if (n <= 0)
            return total ? total : n;
        uio_init_kernel(&u, buf, (size_t)n);
        int64_t put = vfs_write(s->out, &u, s->out_off, 0, out_c);
        const int64_t moved = put > 0 ? put : 0;
        if (moved < n)
            pipe_unread(s->in, buf + moved, (uint64_t)(n - moved));
        total += moved;
        left -= (uint64_t)moved;
        if (s->out_off >= 0)
            s->out_off += moved;
        if (moved < n)
            return total ? total : put;
        in_c.blocker = NULL;
    }
    return total;
}

/* Waits for room in the pipe s->out. */
static int splice_wait_room(struct splice *s)
{
    struct waiter w;
    uint32_t events;
    int r = 0;

    if (pipe_room(s->out) > 0)
        return 0;
    if (!s->pipe_c.blocker || atomic_load(&s->out->flags) & O_NONBLOCK)
        return -EAGAIN;
    waiter_init(&w, s->pipe_c.blocker, EPOLLOUT | EPOLLERR);
    events = vfs_poll(s->out, &w);
    while (r == 0 && !(events & (EPOLLOUT | EPOLLERR))) {
        r = blocker_wait(s->pipe_c.blocker, DEADLINE_NEVER);
        events = vfs_poll(s->out, NULL);
    }
    waitq_del(&w);
    return r ? -ERESTARTSYS : 0;
}

/* Anything to a pipe: one read of at most what the pipe has room for. */
static int64_t splice_to_pipe(struct splice *s, char *buf, uint64_t left)
{
    struct uio u;
    int64_t n = splice_wait_room(s);

    if (n)
        return n;
    if (vfs_poll(s->out, NULL) & EPOLLERR)
        return -EPIPE;
    left = MIN(left, MAX(pipe_room(s->out), (uint64_t)1));
    uio_init_kernel(&u, buf, MIN(left, (uint64_t)SPLICE_PIECE));
    n = vfs_read(s->in, &u, s->in_off, 0, &s->c);
    if (n <= 0)
        return n;
    uio_init_kernel(&u, buf, (size_t)n);
    int64_t put = vfs_write(s->out, &u, -1, 0, &s->c);
    const int64_t moved = put > 0 ? put : 0;
    if (s->in_off >= 0)
        s->in_off += moved;
    else if (moved < n && file_has_position(s->in) && vfs_seek(s->in, moved - n, SEEK_CUR) < 0)
        return -EIO;
    return put;
}

/* ---- splice ---- */

static int splice_offset_in(struct task *t, uaddr_t p, int64_t *out)
{
    *out = -1;
    if (uaddr_is_null(p))
        return 0;
    int r = copyin_obj(&t->ua, out, p);
    return r ? r : *out < 0 ? -EINVAL : 0;
}

static int splice_check(const struct splice *s, uaddr_t off_in, uaddr_t off_out)
{
    const bool in = pipe_is(s->in), out = pipe_is(s->out);

    if (!in && !out)
        return -EINVAL;
    if ((in && !uaddr_is_null(off_in)) || (out && !uaddr_is_null(off_out)))
        return -ESPIPE;
    if (in && out && s->in->inode == s->out->inode)
        return -EINVAL;
    if ((!uaddr_is_null(off_in) && !file_has_position(s->in)) ||
        (!uaddr_is_null(off_out) && !file_has_position(s->out)))
        return -EINVAL;
    return !out && atomic_load(&s->out->flags) & O_APPEND ? -EINVAL : 0;
}

static int64_t splice_run(struct task *t, struct splice *s, uint64_t size)
{
    char *buf = malloc(SPLICE_PIECE);

    if (!buf)
        return -ENOMEM;
    int64_t n = pipe_is(s->in) ? splice_from_pipe(s, buf, size) : splice_to_pipe(s, buf, size);
    free(buf);
    return rw_write_result(t, s->out, &s->c, n);
}

int64_t sys_splice(struct task *t, int fd_in, uaddr_t off_in, int fd_out, uaddr_t off_out,
                   uint64_t size, unsigned flags)
{
    struct splice s;

    if (size == 0)
        return 0;
    if (flags & ~(unsigned)SPLICE_FLAGS)
        return -EINVAL;
    int64_t n = splice_begin(t, fd_in, fd_out, flags, &s);
    if (n)
        return n;
    n = splice_check(&s, off_in, off_out);
    if (n == 0)
        n = splice_offset_in(t, off_in, &s.in_off);
    if (n == 0)
        n = splice_offset_in(t, off_out, &s.out_off);
    if (n == 0)
        n = splice_run(t, &s, MIN(size, LIMIT_RW_SIZE));
    if (n >= 0 && !uaddr_is_null(off_in) && copyout_obj(&t->ua, off_in, &s.in_off))
        n = -EFAULT;
    if (n >= 0 && !uaddr_is_null(off_out) && copyout_obj(&t->ua, off_out, &s.out_off))
        n = -EFAULT;
    splice_end(&s);
    return n;
}

int64_t sys_tee(struct task *t, int fd_in, int fd_out, uint64_t size, unsigned flags)
{
    struct splice s;

    if (flags & ~(unsigned)SPLICE_FLAGS)
        return -EINVAL;
    if (size == 0)
        return 0;
    int64_t n = splice_begin(t, fd_in, fd_out, flags, &s);
    if (n)
        return n;
    if (!pipe_is(s.in) || !pipe_is(s.out))
        n = -EINVAL;
    else
        n = rw_write_result(t, s.out, &s.c, pipe_tee(s.in, s.out, size, &s.pipe_c));
    splice_end(&s);
    return n;
}

int64_t sys_vmsplice(struct task *t, int fd, uaddr_t iov, uint64_t count, unsigned flags)
{
    struct uio_seg *segs = NULL;
    struct vfs_caller c;
    struct file *f;
    struct uio u;

    if (flags & ~(unsigned)SPLICE_FLAGS)
        return -EINVAL;
    int64_t n = task_file(t, fd, &f);
    if (n)
        return n;
    n = pipe_is(f) ? uio_init_iovec(&u, &t->ua, iov, count, &segs) : -EBADF;
    if (n == 0) {
        task_vfs_caller(t, &c);
        if (flags & SPLICE_F_NONBLOCK)
            c.blocker = NULL;
        n = splice_may(f, true) ? rw_write_result(t, f, &c, vfs_write(f, &u, -1, 0, &c))
                                : vfs_read(f, &u, -1, 0, &c);
        task_vfs_caller_end(&c);
        free(segs);
    }
    file_put(f);
    return n;
}
