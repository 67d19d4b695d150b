/* Open files: references, reading, writing, seeking, mapping. */
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/ckd.h"
#include "base/objcount.h"
#include "sentry/vfs/landlock.h"
#include "sentry/vfs/lease.h"
#include "sentry/vfs/notify.h"
#include "sentry/vfs/vfs_priv.h"

#ifndef RWF_HIPRI
#define RWF_HIPRI 1
#define RWF_DSYNC 2
#define RWF_SYNC 4
#endif
#ifndef RWF_APPEND
#define RWF_APPEND 0x10
#endif
#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

#define FALLOC_KNOWN                                                                               \
    (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE |                       \
     FALLOC_FL_ZERO_RANGE | FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE)

OBJCOUNT_DEFINE(file);

/* A file that only names a place (O_PATH) can do nothing. */
static const struct file_ops file_no_ops;

int file_alloc(const struct vpath *p, uint32_t flags, struct file **out)
{
    struct file *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return -ENOMEM;
    ref_init(&f->ref);
    f->ops = &file_no_ops;
    f->path = *p;
    vpath_get(&f->path);
    f->inode = inode_get(p->dentry->inode);
    atomic_store(&f->flags, flags);
    mutex_init(&f->pos_mu, LOCK_RANK_FILE_POS);
    list_init(&f->epolls);
    OBJCOUNT_INC(file);
    *out = f;
    return 0;
}

void file_discard(struct file *f)
{
    vpath_put(&f->path);
    inode_put(f->inode);
    mutex_destroy(&f->pos_mu);
    OBJCOUNT_DEC(file);
    free(f);
}

struct file *file_get(struct file *f)
{
    ref_get(&f->ref);
    return f;
}

void file_put(struct file *f)
{
    file_put_closed(f, NULL);
}

void file_put_closed(struct file *f, const struct vfs_caller *c)
{
    if (f == NULL || !ref_put(&f->ref))
        return;
    epoll_file_gone(f);
    if ((atomic_load(&f->flags) & O_PATH) == 0)
        notify_file(f, file_writable(f) ? NOTIFY_CLOSE_WRITE : NOTIFY_CLOSE_NOWRITE);
    struct fasync *async = atomic_load(&f->async);
    if (async != NULL)
        async->end(async);
    lease_file_gone(f);
    /* flock and open-file-description locks are the file's own. */
    vfs_lock_drop_owner(f, f);
    if (UNLIKELY(f->ops->linger != NULL) && c != NULL && c->blocker != NULL)
        f->ops->linger(f, c);
    if (f->ops->release != NULL)
        f->ops->release(f);
    if (f->counted_writer)
        file_put_write(&f->path);
    else if (f->counted_reader)
        atomic_fetch_sub(&f->inode->readers, 1);
    file_discard(f);
}

/* ---- reading and writing ---- */

/* Streams have no position, and a reader that waits must not keep writers out. */
bool file_has_position(const struct file *f)
{
    return f->ops->seek != NULL && f->ops->seek != vfs_seek_noop;
}

typedef int64_t (*file_rw_fn)(struct file *f, struct uio *u, int64_t *pos,
                              const struct vfs_caller *c);

/* No byte lies beyond INT64_MAX, but where positions are addresses, of which all may be used. */
static int file_check_range(const struct file *f, int64_t pos, uint64_t size)
{
    if (!f->ops->addresses)
        return pos < 0 || size > (uint64_t)(INT64_MAX - pos) ? -EINVAL : 0;
    return pos < 0 && size >= -(uint64_t)pos ? -EOVERFLOW : 0;
}

static int64_t file_rw_at(struct file *f, file_rw_fn fn, struct uio *u, int64_t *pos,
                          const struct vfs_caller *c)
{
    const int r = file_check_range(f, *pos, u->left);

    return r ? r : fn(f, u, pos, c);
}

static int64_t file_rw(struct file *f, file_rw_fn fn, struct uio *u, int64_t off,
                       const struct vfs_caller *c)
{
    int64_t pos = off, n;

    if (off >= 0)
        return file_has_position(f) ? file_rw_at(f, fn, u, &pos, c) : -ESPIPE;
    if (!file_has_position(f)) {
        pos = 0;
        return fn(f, u, &pos, c);
    }
    mutex_lock(&f->pos_mu);
    n = file_rw_at(f, fn, u, &f->pos, c);
    mutex_unlock(&f->pos_mu);
    return n;
}

static void file_accessed(const struct file *f)
{
    if ((atomic_load(&f->flags) & O_NOATIME) == 0)
        vfs_accessed(&f->path);
}

int64_t vfs_read(struct file *f, struct uio *u, int64_t off, int flags, const struct vfs_caller *c)
{
    if (!file_readable(f))
        return -EBADF;
    if (off < -1)
        return -EINVAL;
    if ((flags & ~RWF_HIPRI) != 0)
        return -EOPNOTSUPP;
    if (S_ISDIR(f->inode->mode))
        return -EISDIR;
    if (off >= 0 && f->ops->seek == vfs_seek_noop)
        return -ESPIPE;
    if (f->ops->read == NULL)
        return -EINVAL;
    int64_t n = file_rw(f, f->ops->read, u, off, c);
    if (n > 0) {
        file_accessed(f);
        notify_file(f, NOTIFY_ACCESS);
    }
    return n;
}

/* RLIMIT_FSIZE: writes end at the limit; the caller raises SIGXFSZ for -EFBIG. */
static int64_t file_write_limited(struct file *f, struct uio *u, int64_t *pos,
                                  const struct vfs_caller *c)
{
    if (S_ISREG(f->inode->mode) && UNLIKELY(c->fsize_limit != UINT64_MAX)) {
        uint64_t at = u->append ? f->inode->size : (uint64_t)*pos;
        if (u->left > 0 && at >= c->fsize_limit)
            return -EFBIG;
        u->left = MIN(u->left, c->fsize_limit - at);
    }
    return f->ops->write(f, u, pos, c);
}

int64_t vfs_write(struct file *f, struct uio *u, int64_t off, int flags, const struct vfs_caller *c)
{
    int64_t n;
    int r;

    if (!file_writable(f))
        return -EBADF;
    if (off < -1)
        return -EINVAL;
    if ((flags & ~(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_APPEND | RWF_NOAPPEND)) != 0)
        return -EOPNOTSUPP;
    if ((flags & (RWF_APPEND | RWF_NOAPPEND)) == (RWF_APPEND | RWF_NOAPPEND))
        return -EINVAL;
    if (f->ops->write == NULL)
        return -EINVAL;
    u->append = (flags & RWF_APPEND) != 0 ||
                ((atomic_load(&f->flags) & O_APPEND) != 0 && (flags & RWF_NOAPPEND) == 0);
    r = vfs_kill_privs(c, f->inode);
    if (r != 0)
        return r;
    n = file_rw(f, file_write_limited, u, off, c);
    if (n > 0)
        notify_file(f, NOTIFY_MODIFY);
    if (n > 0 &&
        ((flags & (RWF_DSYNC | RWF_SYNC)) != 0 || (atomic_load(&f->flags) & O_DSYNC) != 0)) {
        r = vfs_fsync(f, (flags & RWF_SYNC) == 0);
        if (r != 0 && r != -EINVAL)
            return r;
    }
    return n;
}

void vfs_moved(const struct file *in, const struct file *out)
{
    if (in != NULL) {
        file_accessed(in);
        notify_file(in, NOTIFY_ACCESS);
    }
    if (out != NULL)
        notify_file(out, NOTIFY_MODIFY);
}

int64_t vfs_pread_kernel(struct file *f, void *buf, size_t size, int64_t off)
{
    const struct vfs_caller none = {.fsize_limit = UINT64_MAX};
    size_t done = 0;

    if (f->ops->read == NULL)
        return -EINVAL;
    while (done < size) {
        struct uio u;
        int64_t pos = off + (int64_t)done;
        uio_init_kernel(&u, (char *)buf + done, size - done);
        int64_t n = f->ops->read(f, &u, &pos, &none);
        if (n < 0)
            return done > 0 ? (int64_t)done : n;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

int64_t vfs_seek_endless(struct file *f, int64_t off, int whence)
{
    if ((whence != SEEK_SET && whence != SEEK_CUR) ||
        ckd_add(&off, off, whence == SEEK_CUR ? f->pos : 0) || off < 0)
        return -EINVAL;
    f->pos = off;
    return off;
}

int64_t vfs_seek_noop(struct file *f, int64_t off, int whence)
{
    (void)off, (void)whence;
    return f->pos;
}

int64_t vfs_seek(struct file *f, int64_t off, int whence)
{
    int64_t n;

    if ((atomic_load(&f->flags) & O_PATH) != 0)
        return -EBADF;
    if (f->ops->seek == NULL)
        return -ESPIPE;
    mutex_lock(&f->pos_mu);
    n = f->ops->seek(f, off, whence);
    mutex_unlock(&f->pos_mu);
    return n;
}

int vfs_readdir(struct file *f, vfs_dirent_fn fn, void *arg)
{
    int r;

    if (!S_ISDIR(f->inode->mode) || f->ops->readdir == NULL)
        return -ENOTDIR;
    mutex_lock(&f->pos_mu);
    r = atomic_load(&f->path.dentry->unlinked) ? -ENOENT : f->ops->readdir(f, &f->pos, fn, arg);
    mutex_unlock(&f->pos_mu);
    if (r >= 0) {
        file_accessed(f);
        notify_file(f, NOTIFY_ACCESS);
    }
    return r;
}

size_t vfs_dirents(struct file *f, void *buf, size_t size)
{
    size_t n = 0;

    if (f->ops->dirents == NULL)
        return 0;
    mutex_lock(&f->pos_mu);
    if (!atomic_load(&f->path.dentry->unlinked))
        n = f->ops->dirents(f, &f->pos, buf, size);
    mutex_unlock(&f->pos_mu);
    if (n > 0) {
        file_accessed(f);
        notify_file(f, NOTIFY_ACCESS);
    }
    return n;
}

/* Names are short: a call of memcpy takes as long as all the rest of an entry. */
static void dirent_name(char *to, const char *from, size_t len)
{
    const size_t word = sizeof(uint64_t);

    if (len < word) {
        for (size_t i = 0; i < len; i++)
            to[i] = from[i];
        return;
    }
    for (size_t i = 0; i < len - word; i += word)
        memcpy(to + i, from + i, word);
    memcpy(to + len - word, from + len - word, word);
}

size_t vfs_dirent64_fill(struct vfs_dirent64 *to, const char *name, size_t len, uint64_t ino,
                         unsigned dtype, uint64_t next_off)
{
    const size_t size = vfs_dirent64_size(len);

    /* The NUL and what fills up are among the last eight bytes. */
    memset((char *)to + size - 8, 0, 8);
    to->ino = ino;
    to->off = (int64_t)next_off;
    to->reclen = (uint16_t)size;
    to->type = (uint8_t)dtype;
    dirent_name(to->name, name, len);
    return size;
}

int64_t vfs_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                  const struct vfs_caller *c)
{
    if (UNLIKELY((f->denied & LANDLOCK_IOCTL_DEV) != 0) && !landlock_harmless_ioctl(cmd))
        return -EACCES;
    return f->ops->ioctl != NULL ? f->ops->ioctl(f, cmd, arg, ua, c) : -ENOTTY;
}

uint32_t vfs_poll(struct file *f, struct waiter *w)
{
    /* EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM: what is never waited for. */
    return f->ops->poll != NULL ? f->ops->poll(f, w) : 0x145u;
}

int vfs_mmap(struct file *f, int prot, int flags, int *out_max_prot, struct mappable **out)
{
    bool shared = (flags & MAP_TYPE) != MAP_PRIVATE;
    bool noexec = (atomic_load(&f->path.mnt->flags) & MS_NOEXEC) != 0;

    if (!file_readable(f))
        return (atomic_load(&f->flags) & O_PATH) != 0 ? -EBADF : -EACCES;
    if (shared && (prot & PROT_WRITE) != 0 && !file_writable(f))
        return -EACCES;
    if (noexec && (prot & PROT_EXEC) != 0)
        return -EPERM;
    if (f->ops->mmap == NULL)
        return -ENODEV;
    *out_max_prot =
        PROT_READ | (noexec ? 0 : PROT_EXEC) | (!shared || file_writable(f) ? PROT_WRITE : 0);
    file_accessed(f);
    return f->ops->mmap(f, prot, flags, out);
}

int vfs_fsync(struct file *f, bool data_only)
{
    if ((atomic_load(&f->flags) & O_PATH) != 0)
        return -EBADF;
    return f->ops->fsync != NULL ? f->ops->fsync(f, data_only) : -EINVAL;
}

/* Which flags go together, as vfs_fallocate of Linux has it; which there are is the file's to say.
 */
static int fallocate_check_mode(int mode)
{
    const int kind = mode & ~FALLOC_FL_KEEP_SIZE;

    if ((mode & ~FALLOC_KNOWN) != 0 || (kind & (kind - 1)) != 0)
        return -EOPNOTSUPP;
    if (kind == FALLOC_FL_PUNCH_HOLE && mode == kind)
        return -EOPNOTSUPP;
    if ((kind == FALLOC_FL_COLLAPSE_RANGE || kind == FALLOC_FL_INSERT_RANGE) && mode != kind)
        return -EOPNOTSUPP;
    return 0;
}

int vfs_fallocate(struct file *f, int mode, int64_t off, int64_t size, const struct vfs_caller *c)
{
    int64_t end;

    if (off < 0 || size <= 0)
        return -EINVAL;
    int r = fallocate_check_mode(mode);
    if (r != 0)
        return r;
    if (!file_writable(f))
        return -EBADF;
    if (S_ISFIFO(f->inode->mode))
        return -ESPIPE;
    if (S_ISDIR(f->inode->mode))
        return -EISDIR;
    if (!S_ISREG(f->inode->mode))
        return -ENODEV;
    if (__builtin_add_overflow(off, size, &end))
        return -EFBIG;
    if ((mode & FALLOC_FL_KEEP_SIZE) == 0 && (uint64_t)end > c->fsize_limit)
        return -EFBIG;
    r = mount_want_write(f->path.mnt);
    if (r == 0)
        r = vfs_kill_privs(c, f->inode);
    if (r != 0)
        return r;
    r = f->ops->fallocate != NULL ? f->ops->fallocate(f, mode, off, size) : -EOPNOTSUPP;
    if (r == 0)
        notify_file(f, NOTIFY_MODIFY);
    return r;
}
