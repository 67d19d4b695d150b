/* splice(2), tee(2), vmsplice(2): bytes are copied, never pages shared. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

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

/* Moves up to size bytes out of buf; how many. */
typedef int64_t splice_out_fn(void *arg, char *buf, size_t size);

/* A pipe to anything that is none. The first read may wait, later ones take what is there. */
static int64_t splice_from_pipe(struct file *pipe, const struct vfs_caller *c, uint64_t left,
                                splice_out_fn *out, void *arg)
{
    char *buf = malloc(SPLICE_PIECE);
    struct vfs_caller in_c = *c;
    int64_t total = 0, n = buf ? 1 : -ENOMEM;

    while (n > 0 && left > 0) {
        struct uio u;
        uio_init_kernel(&u, buf, MIN(left, (uint64_t)SPLICE_PIECE));
        u.stays = true;
        const int64_t there = n = vfs_read(pipe, &u, -1, 0, &in_c);
        if (n <= 0)
            break;
        n = out(arg, buf, (size_t)n);
        const uint64_t moved = n > 0 ? (uint64_t)n : 0;
        pipe_took(pipe, moved);
        total += (int64_t)moved;
        left -= moved;
        if ((int64_t)moved < there)
            break;
        in_c.blocker = NULL;
    }
    free(buf);
    return total ? total : n;
}

static int64_t splice_out_file(void *arg, char *buf, size_t size)
{
    struct splice *s = arg;
    struct uio u;

    uio_init_kernel(&u, buf, size);
    const int64_t n = vfs_write(s->out, &u, s->out_off, 0, &s->c);
    if (n > 0 && s->out_off >= 0)
        s->out_off += n;
    return n;
}

/* Into the room that was reserved. */
static int64_t splice_fill(struct splice *s, char *buf, uint64_t room)
{
    struct uio u;

    uio_init_kernel(&u, buf, room);
    int64_t n = vfs_read(s->in, &u, s->in_off, 0, &s->c);
    if (n <= 0) {
        pipe_unreserve(s->out, room);
        return n;
    }
    uio_init_kernel(&u, buf, (size_t)n);
    u.reserved = room;
    const int64_t put = vfs_write(s->out, &u, -1, 0, &s->c);
    if (u.reserved > 0)
        pipe_unreserve(s->out, u.reserved);
    const int64_t moved = put > 0 ? put : 0;
    if (s->in_off >= 0)
        s->in_off += moved;
    else if (moved < n && file_has_position(s->in) && vfs_seek(s->in, moved - n, SEEK_CUR) < 0)
        return -EIO;
    return put;
}

/* Anything that is none to a pipe: one read of at most what the pipe has room for. */
static int64_t splice_to_pipe(struct splice *s, uint64_t left)
{
    struct vfs_caller c = s->pipe_c;

    if (atomic_load(&s->out->flags) & O_NONBLOCK)
        c.blocker = NULL;
    const int64_t room = pipe_reserve(s->out, MIN(left, (uint64_t)SPLICE_PIECE), &c);
    if (room < 0)
        return room;
    char *buf = malloc((size_t)room);
    if (!buf) {
        pipe_unreserve(s->out, (uint64_t)room);
        return -ENOMEM;
    }
    const int64_t n = splice_fill(s, buf, (uint64_t)room);
    free(buf);
    return n;
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
    const bool in = pipe_is(s->in), out = pipe_is(s->out);
    int64_t n;

    if (in && out)
        n = pipe_splice(s->in, s->out, size, false, &s->pipe_c);
    else if (in)
        n = splice_from_pipe(s->in, &s->pipe_c, size, splice_out_file, s);
    else
        n = splice_to_pipe(s, size);
    if (in && out && n > 0)
        vfs_moved(s->in, s->out);
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
        n = rw_write_result(t, s.out, &s.c, pipe_splice(s.in, s.out, size, true, &s.pipe_c));
    splice_end(&s);
    return n;
}

static int64_t splice_out_user(void *arg, char *buf, size_t size)
{
    return uio_copy_to(arg, buf, size);
}

static int64_t vmsplice_run(struct task *t, struct file *f, struct uio *u, unsigned flags)
{
    struct vfs_caller c;
    int64_t n;

    task_vfs_caller(t, &c);
    if (flags & SPLICE_F_NONBLOCK)
        c.blocker = NULL;
    if (splice_may(f, true)) {
        n = rw_write_result(t, f, &c, pipe_fill(f, u, &c));
        if (n > 0)
            vfs_moved(NULL, f);
    } else {
        n = splice_from_pipe(f, &c, u->left, splice_out_user, u);
    }
    task_vfs_caller_end(&c);
    return n;
}

int64_t sys_vmsplice(struct task *t, int fd, uaddr_t iov, uint64_t count, unsigned flags)
{
    struct uio_seg *segs = NULL;
    struct file *f;
    struct uio u;

    if (flags & ~(unsigned)SPLICE_FLAGS)
        return -EINVAL;
    int64_t n = task_file(t, fd, &f);
    if (n)
        return n;
    n = pipe_is(f) ? uio_init_iovec(&u, &t->ua, iov, count, &segs) : -EBADF;
    if (n == 0)
        n = vmsplice_run(t, f, &u, flags);
    free(segs);
    file_put(f);
    return n;
}
