/* Regular files: bytes go between guest memory and the host descriptor, with no request. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/ckd.h"
#include "sentry/fs/goferfs/goferfs_priv.h"
#include "sentry/vfs/special.h"

/* Of an open regular file: the descriptor in file.priv, as a number. */
static int file_fd(const struct file *f)
{
    return (int)(intptr_t)f->priv;
}

int goferfs_open(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    const struct vfs_special_ops *special = vfs_special();
    uint32_t flags = atomic_load_explicit(&f->flags, memory_order_relaxed);
    int fd, r;

    switch (i->mode & S_IFMT) {
    case S_IFREG:
        r = goferfs_fd_get(goferfs_inode(i), (flags & O_ACCMODE) != O_RDONLY, &fd);
        if (r)
            return r;
        f->priv = (void *)(intptr_t)fd;
        f->ops = &goferfs_reg_ops;
        return 0;
    case S_IFDIR:
        f->ops = &goferfs_dir_ops;
        return 0;
    case S_IFIFO:
        return goferfs_open_fifo(i, f, c);
    case S_IFCHR:
    case S_IFBLK:
        return special ? special->open_device(i, f, c) : -ENXIO;
    case S_IFSOCK:
        return -ENXIO;
    default:
        return -ELOOP;
    }
}

struct transfer {
    int fd;
    int64_t pos;
};

/* A list of one range, as most are, takes the host 60 ns more than the range itself. */
static int64_t host_read(void *arg, const struct iovec *iov, int count, uint64_t done)
{
    const struct transfer *t = arg;
    const int64_t pos = t->pos + (int64_t)done;
    ssize_t n;

    do
        n = count == 1 ? pread(t->fd, iov->iov_base, iov->iov_len, pos)
                       : preadv(t->fd, iov, count, pos);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static int64_t host_write(void *arg, const struct iovec *iov, int count, uint64_t done)
{
    const struct transfer *t = arg;
    const int64_t pos = t->pos + (int64_t)done;
    ssize_t n;

    do
        n = count == 1 ? pwrite(t->fd, iov->iov_base, iov->iov_len, pos)
                       : pwritev(t->fd, iov, count, pos);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static int64_t reg_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct transfer t = {.fd = file_fd(f), .pos = *pos};

    (void)c;
    int64_t n = uio_host_io(u, true, u->left, host_read, &t);
    if (n > 0)
        *pos += n;
    return n;
}

/* The host took set-id bits away, as it does for a writer without CAP_FSETID, which the sentry is.
 * vfs has taken away those that were to go. */
static void restore_mode(struct inode *i, uint32_t mode)
{
    const struct gof_setattr s = {.valid = GOF_SET_MODE, .mode = mode & 07777};
    struct gof_attr a;

    if (gof_set_attr(goferfs_client(i), goferfs_inode(i)->handle, &s, &a) == 0) {
        goferfs_update(i, &a);
        goferfs_own_change(i, &a);
    }
}

/* What a write that ended at end means to the attributes. */
static void written(struct inode *i, int64_t end)
{
    struct vfs_time now = vfs_now();

    mutex_lock(&i->mu);
    if ((uint64_t)end > i->size)
        i->size = (uint64_t)end;
    i->mtime = i->ctime = now;
    uint32_t mode = i->mode;
    mutex_unlock(&i->mu);
    if (UNLIKELY(mode & (S_ISUID | S_ISGID)))
        restore_mode(i, mode);
}

static int64_t end_of_file(struct inode *i, int fd)
{
    struct stat st;

    if (goferfs_super(i->sb)->shared)
        return fstat(fd, &st) ? -errno : (int64_t)st.st_size;
    mutex_lock(&i->mu);
    int64_t size = (int64_t)i->size;
    mutex_unlock(&i->mu);
    return size;
}

static int64_t reg_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct inode *i = f->inode;
    struct goferfs_inode *gi = goferfs_inode(i);
    struct transfer t = {.fd = file_fd(f), .pos = *pos};
    bool flushed = false;
    int64_t n;

    (void)c;
    mutex_lock(&gi->rw_mu);
    if (u->append) {
        t.pos = end_of_file(i, t.fd);
        if (t.pos < 0) {
            n = t.pos;
            goto out_unlock;
        }
    }
    uint64_t room = (uint64_t)(INT64_MAX - t.pos);
    do
        n = room ? uio_host_io(u, false, MIN(u->left, room), host_write, &t) : -EFBIG;
    while (goferfs_make_space(goferfs_super(i->sb), n, &flushed));
    if (n > 0) {
        *pos = t.pos + n;
        goferfs_own_change_fd(i, t.fd);
        written(i, *pos);
    }
out_unlock:
    mutex_unlock(&gi->rw_mu);
    return n;
}

static int64_t reg_seek(struct file *f, int64_t off, int whence)
{
    int fd = file_fd(f);

    switch (whence) {
    case SEEK_SET:
        break;
    case SEEK_CUR:
        if (ckd_add(&off, off, f->pos))
            return -EOVERFLOW;
        break;
    case SEEK_END: {
        int64_t end = end_of_file(f->inode, fd);
        if (end < 0)
            return end;
        if (ckd_add(&off, off, end))
            return -EOVERFLOW;
        break;
    }
    case SEEK_DATA:
    case SEEK_HOLE:
        /* The descriptor's own offset is nobody's; we always say where. */
        off = lseek(fd, off, whence);
        if (off < 0)
            return -errno;
        break;
    default:
        return -EINVAL;
    }
    if (off < 0)
        return -EINVAL;
    f->pos = off;
    return off;
}

static int reg_fsync(struct file *f, bool data_only)
{
    int fd = file_fd(f);

    return (data_only ? fdatasync(fd) : fsync(fd)) ? -errno : 0;
}

static int reg_fallocate(struct file *f, int mode, int64_t off, int64_t size)
{
    struct inode *i = f->inode;
    struct goferfs_inode *gi = goferfs_inode(i);
    bool flushed = false;
    int fd = file_fd(f), r;

    mutex_lock(&gi->rw_mu);
    do
        r = fallocate(fd, mode, off, size) ? -errno : 0;
    while (r == -EINTR || goferfs_make_space(goferfs_super(i->sb), r, &flushed));
    if (r == 0) {
        goferfs_update_fd(i, fd);
        goferfs_own_change_fd(i, fd);
    }
    mutex_unlock(&gi->rw_mu);
    return r;
}

static void reg_release(struct file *f)
{
    goferfs_fd_put(goferfs_inode(f->inode));
}

static int reg_mmap(struct file *f, int prot, int flags, struct mappable **out)
{
    struct goferfs_inode *gi = goferfs_inode(f->inode);

    (void)prot, (void)flags;
    goferfs_map_name(gi, f);
    gi->map.ops->get(&gi->map);
    *out = &gi->map;
    return 0;
}

/* What the host really has in memory tells of others who use the file. */
static uint64_t reg_cached(struct file *f, uint64_t first, uint64_t last)
{
    struct stat st;

    if (fstat(file_fd(f), &st) != 0)
        return 0;
    const uint64_t pages = ((uint64_t)st.st_size + PAGE_SIZE - 1) >> PAGE_SHIFT;
    return first < pages ? MIN(last, pages - 1) - first + 1 : 0;
}

const struct file_ops goferfs_reg_ops = {
    .read = reg_read,
    .write = reg_write,
    .seek = reg_seek,
    .mmap = reg_mmap,
    .fsync = reg_fsync,
    .fallocate = reg_fallocate,
    .cached = reg_cached,
    .release = reg_release,
};

/* ---- attributes ---- */

static struct gof_time gof_time_of(const struct vfs_time *t)
{
    return (struct gof_time){.sec = t->sec, .nsec = t->nsec};
}

_Static_assert(VFS_SET_MODE == GOF_SET_MODE && VFS_SET_UID == GOF_SET_UID &&
                   VFS_SET_GID == GOF_SET_GID && VFS_SET_SIZE == GOF_SET_SIZE &&
                   VFS_SET_ATIME == GOF_SET_ATIME && VFS_SET_MTIME == GOF_SET_MTIME &&
                   VFS_SET_ATIME_NOW == GOF_SET_ATIME_NOW && VFS_SET_MTIME_NOW == GOF_SET_MTIME_NOW,
               "one set of bits");

/* The size through a descriptor that is open anyway. */
static int truncate_fd(struct inode *i, uint64_t size, bool *out_done)
{
    struct goferfs_inode *gi = goferfs_inode(i);
    int r = 0;

    /* The gofer, unlike us, keeps set-id bits. */
    if (i->mode & (S_ISUID | S_ISGID))
        return 0;
    mutex_lock(&gi->data_mu);
    int fd = gi->rw_fd;
    if (fd >= 0)
        gi->users++;
    mutex_unlock(&gi->data_mu);
    if (fd < 0)
        return 0;
    do
        r = ftruncate(fd, (off_t)size) ? -errno : 0;
    while (r == -EINTR);
    if (r == 0) {
        goferfs_update_fd(i, fd);
        goferfs_own_change_fd(i, fd);
        *out_done = true;
    }
    goferfs_fd_put(gi);
    return r;
}

static int setattr_locked(struct inode *i, struct gof_setattr *s)
{
    struct gof_attr a;
    bool done = false;
    int r = 0;

    if (s->valid & GOF_SET_SIZE) {
        r = truncate_fd(i, s->size, &done);
        if (r)
            return r;
        if (done)
            s->valid &= ~GOF_SET_SIZE;
    }
    if (s->valid == 0)
        return 0;
    r = gof_set_attr(goferfs_client(i), goferfs_inode(i)->handle, s, &a);
    if (r == 0) {
        goferfs_update(i, &a);
        goferfs_own_change(i, &a);
    }
    if (r == 0 && s->valid & GOF_SET_SIZE) {
        mutex_lock(&goferfs_inode(i)->data_mu);
        goferfs_own_close_locked(goferfs_inode(i));
        mutex_unlock(&goferfs_inode(i)->data_mu);
    }
    return r;
}

int goferfs_setattr(struct inode *i, const struct vfs_setattr *a)
{
    struct goferfs_inode *gi = goferfs_inode(i);
    struct gof_setattr s = {
        .valid = a->valid,
        .mode = a->mode & 07777,
        .uid = a->uid,
        .gid = a->gid,
        .size = a->size,
        .atime = gof_time_of(&a->atime),
        .mtime = gof_time_of(&a->mtime),
    };
    uint64_t before = UINT64_MAX;

    if (a->valid & VFS_SET_SIZE && a->size > INT64_MAX)
        return -EINVAL;
    mutex_lock(&gi->rw_mu);
    mutex_lock(&i->mu);
    before = i->size;
    mutex_unlock(&i->mu);
    int r = setattr_locked(i, &s);
    mutex_unlock(&gi->rw_mu);
    if (r == 0 && (a->valid & VFS_SET_SIZE) && a->size < before)
        mappable_truncate(&gi->map, a->size);
    return r;
}
