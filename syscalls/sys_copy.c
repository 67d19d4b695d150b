/* From file to file: sendfile, copy_file_range (fs/read_write.c). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "sentry/fs/pipe/pipe.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_rw.h"

#define COPY_PIECE 65536

struct copy {
    struct file *in, *out;
    int64_t in_off, out_off; /* -1: the file's own position */
    uint64_t left;
    bool once; /* one read, however much it gives */
};

/* What could be read but not written is put back, where the source has a position. */
static int64_t copy_piece(struct copy *k, char *buf, const struct vfs_caller *c)
{
    struct uio u;
    int64_t n, done;

    uio_init_kernel(&u, buf, MIN(k->left, (uint64_t)COPY_PIECE));
    n = vfs_read(k->in, &u, k->in_off, 0, c);
    if (n <= 0)
        return n;
    uio_init_kernel(&u, buf, (size_t)n);
    done = vfs_write(k->out, &u, k->out_off, 0, c);
    int64_t kept = done > 0 ? done : 0;
    if (k->in_off >= 0)
        k->in_off += kept;
    else if (kept < n && file_has_position(k->in) && vfs_seek(k->in, kept - n, SEEK_CUR) < 0)
        return -EIO;
    if (k->out_off >= 0)
        k->out_off += kept;
    return done;
}

static int64_t copy_run(struct task *t, struct copy *k)
{
    char *buf = malloc(COPY_PIECE);
    struct vfs_caller c;
    int64_t total = 0, n = 0;

    if (buf == NULL)
        return -ENOMEM;
    task_vfs_caller(t, &c);
    while (k->left > 0) {
        n = copy_piece(k, buf, &c);
        if (n <= 0)
            break;
        total += n;
        k->left -= (uint64_t)n;
        if (k->once || task_signal_pending(t))
            break;
    }
    if (total == 0)
        total = rw_write_result(t, k->out, &c, n);
    task_vfs_caller_end(&c);
    free(buf);
    return total;
}

static int copy_offset_in(struct task *t, uaddr_t p, int64_t *out)
{
    *out = -1;
    if (p.v == 0)
        return 0;
    int r = copyin_obj(&t->ua, out, p);
    return r != 0 ? r : *out < 0 ? -EINVAL : 0;
}

static int64_t copy_offset_out(struct task *t, uaddr_t p, int64_t off, int64_t r)
{
    if (r < 0 || p.v == 0)
        return r;
    return copyout_obj(&t->ua, p, &off) != 0 ? -EFAULT : r;
}

static bool copy_may(const struct file *f, bool write)
{
    const uint32_t acc = atomic_load(&f->flags) & O_ACCMODE;

    return acc == O_RDWR || acc == (write ? O_WRONLY : O_RDONLY);
}

/* Both files of a copy, open for what it does with them; ended by copy_put. */
static int copy_get(struct task *t, int in_fd, int out_fd, struct copy *k)
{
    int r = task_file(t, in_fd, &k->in);

    if (r != 0)
        return r;
    r = task_file(t, out_fd, &k->out);
    if (r == 0 && (!copy_may(k->in, false) || !copy_may(k->out, true))) {
        file_put(k->out);
        r = -EBADF;
    }
    if (r != 0)
        file_put(k->in);
    return r;
}

static void copy_put(struct copy *k)
{
    file_put(k->out);
    file_put(k->in);
}

/* What has no position goes into a pipe only, by one read: its end might be lost otherwise
 * (fs/splice.c, splice_direct_to_actor). */
static int sendfile_check(struct copy *k)
{
    if ((atomic_load(&k->out->flags) & O_APPEND) != 0)
        return -EINVAL;
    if (file_has_position(k->in))
        return 0;
    if (k->in_off >= 0)
        return -ESPIPE;
    k->once = true;
    return pipe_is(k->out) && !pipe_is(k->in) ? 0 : -EINVAL;
}

int64_t sys_sendfile(struct task *t, int out_fd, int in_fd, uaddr_t offset, uint64_t count)
{
    struct copy k = {.out_off = -1, .left = MIN(count, LIMIT_RW_SIZE)};
    int64_t r = copy_offset_in(t, offset, &k.in_off);

    if (r == 0)
        r = copy_get(t, in_fd, out_fd, &k);
    if (r != 0)
        return r;
    r = sendfile_check(&k);
    if (r == 0)
        r = copy_run(t, &k);
    r = copy_offset_out(t, offset, k.in_off, r);
    copy_put(&k);
    return r;
}

static int copy_range_check(const struct copy *k)
{
    if (S_ISDIR(k->in->inode->mode) || S_ISDIR(k->out->inode->mode))
        return -EISDIR;
    if (!S_ISREG(k->in->inode->mode) || !S_ISREG(k->out->inode->mode))
        return -EINVAL;
    if ((atomic_load(&k->out->flags) & O_APPEND) != 0)
        return -EBADF;
    if (k->in->inode != k->out->inode)
        return 0;
    int64_t a = k->in_off >= 0 ? k->in_off : k->in->pos;
    int64_t b = k->out_off >= 0 ? k->out_off : k->out->pos;
    uint64_t apart = a > b ? (uint64_t)(a - b) : (uint64_t)(b - a);
    return apart < k->left ? -EINVAL : 0;
}

int64_t sys_copy_file_range(struct task *t, int fd_in, uaddr_t off_in, int fd_out, uaddr_t off_out,
                            uint64_t size, unsigned flags)
{
    struct copy k = {.left = MIN(size, LIMIT_RW_SIZE)};
    int64_t r = flags != 0 ? -EINVAL : copy_offset_in(t, off_in, &k.in_off);

    if (r == 0)
        r = copy_offset_in(t, off_out, &k.out_off);
    if (r == 0)
        r = copy_get(t, fd_in, fd_out, &k);
    if (r != 0)
        return r;
    r = copy_range_check(&k);
    if (r == 0)
        r = copy_run(t, &k);
    r = copy_offset_out(t, off_in, k.in_off, r);
    r = copy_offset_out(t, off_out, k.out_off, r);
    copy_put(&k);
    return r;
}
