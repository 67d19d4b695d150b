/* Regular files: every call goes to the real file, which is upper's from the copy-up on, whoever
 * opened it before. */
#include <unistd.h>

#include "base/ckd.h"
#include "sentry/fs/overlay/overlay_priv.h"

/* What fcntl(2) may change later. */
#define FILE_FLAGS ((uint32_t)(O_APPEND | O_NONBLOCK | O_NOATIME | O_DIRECT | O_SYNC))

/* Of an open file: lower's and upper's; each is owned and stays till the end once it is there. */
struct ovl_file {
    _Atomic(struct file *) real[2];
};

static struct ovl_file *file_of(const struct file *f)
{
    return f->priv;
}

static int file_open_upper(struct file *f, struct ovl_file *of, struct dentry *up,
                           struct file **out)
{
    const struct ovl_super *os = ovl_super(f->inode->sb);
    const struct vfs_caller c = ovl_caller(os);
    struct file *fresh, *none = NULL;
    int r = layer_open(os->layers[OVL_UPPER].mnt, up, atomic_load(&f->flags), &c, &fresh);

    if (r != 0)
        return r;
    if (!atomic_compare_exchange_strong(&of->real[1], &none, fresh)) {
        file_put(fresh);
        fresh = none;
    }
    *out = fresh;
    return 0;
}

/* Borrowed. */
static int file_real(struct file *f, struct file **out)
{
    struct ovl_file *of = file_of(f);
    struct file *real = atomic_load_explicit(&of->real[1], memory_order_acquire);
    struct dentry *up;

    if (real == NULL) {
        up = ovl_upper(ovl_inode(f->inode));
        if (UNLIKELY(up != NULL))
            return file_open_upper(f, of, up, out);
        real = atomic_load_explicit(&of->real[0], memory_order_acquire);
    }
    *out = real;
    return 0;
}

/* The same, for what the flags of the open file matter to. */
static int file_real_flags(struct file *f, struct file **out)
{
    uint32_t want = atomic_load_explicit(&f->flags, memory_order_relaxed);
    int r = file_real(f, out);

    if (r != 0)
        return r;
    uint32_t have = atomic_load_explicit(&(*out)->flags, memory_order_relaxed);
    if (UNLIKELY(((want ^ have) & FILE_FLAGS) != 0))
        atomic_store(&(*out)->flags, (have & ~FILE_FLAGS) | (want & FILE_FLAGS));
    return 0;
}

static int64_t file_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct file *real;
    int r = file_real_flags(f, &real);

    if (r != 0)
        return r;
    return real->ops->read != NULL ? real->ops->read(real, u, pos, c) : -EINVAL;
}

static int64_t file_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct file *real;
    int64_t n = file_real_flags(f, &real);

    if (n != 0)
        return n;
    n = real->ops->write != NULL ? real->ops->write(real, u, pos, c) : -EINVAL;
    ovl_copy_attr(ovl_inode(f->inode));
    return n;
}

static int64_t file_seek_real(struct file *f, int64_t off, int whence)
{
    struct file *real;
    int r = file_real(f, &real);

    if (r != 0)
        return r;
    return real->ops->seek != NULL ? real->ops->seek(real, off, whence) : -ESPIPE;
}

static int64_t file_seek(struct file *f, int64_t off, int whence)
{
    if (whence == SEEK_CUR && ckd_add(&off, off, f->pos))
        return -EOVERFLOW;
    if (whence != SEEK_CUR && whence != SEEK_SET)
        off = file_seek_real(f, off, whence);
    else if (off < 0)
        return -EINVAL;
    if (off >= 0)
        f->pos = off;
    return off;
}

static int64_t file_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                          const struct vfs_caller *c)
{
    struct file *real;
    int r = file_real_flags(f, &real);

    if (r != 0)
        return r;
    return real->ops->ioctl != NULL ? real->ops->ioctl(real, cmd, arg, ua, c) : -ENOTTY;
}

static int file_mmap(struct file *f, int prot, int flags, struct mappable **out)
{
    struct file *real, *now;
    int r = file_real(f, &real);

    if (r == 0)
        r = ovl_mmap(f, real, prot, flags, out);
    if (r != 0 || *out == NULL)
        return r;
    /* Copied up meanwhile: the one who did it may not have seen the mapping. */
    if (file_real(f, &now) == 0 && now != real)
        ovl_map_moved(ovl_inode(f->inode), now);
    return 0;
}

static int file_fsync(struct file *f, bool data_only)
{
    struct file *real;
    int r = file_real(f, &real);

    if (r != 0)
        return r;
    return real->ops->fsync != NULL ? real->ops->fsync(real, data_only) : -EINVAL;
}

static int file_fallocate(struct file *f, int mode, int64_t off, int64_t size)
{
    struct ovl_inode *oi = ovl_inode(f->inode);
    struct file *real;
    int r = file_real(f, &real);

    if (r != 0)
        return r;
    r = real->ops->fallocate != NULL ? real->ops->fallocate(real, mode, off, size) : -EOPNOTSUPP;
    ovl_copy_attr(oi);
    /* Anything but making room may have replaced pages. */
    if (r == 0 && (mode & ~1) != 0)
        ovl_map_cut(oi, (uint64_t)off, UINT64_MAX);
    return r;
}

static uint64_t file_cached(struct file *f, uint64_t first, uint64_t last)
{
    struct file *real;

    return file_real(f, &real) == 0 && real->ops->cached != NULL
               ? real->ops->cached(real, first, last)
               : 0;
}

static int file_flush(struct file *f, const struct vfs_caller *c)
{
    struct file *real = atomic_load(&file_of(f)->real[1]);

    return real != NULL && real->ops->flush != NULL ? real->ops->flush(real, c) : 0;
}

static void file_release(struct file *f)
{
    struct ovl_file *of = file_of(f);

    for (int k = 0; k < 2; k++) {
        struct file *real = atomic_load(&of->real[k]);
        if (real != NULL)
            file_put(real);
    }
    free(of);
}

static const struct file_ops ovl_file_ops = {
    .read = file_read,
    .write = file_write,
    .seek = file_seek,
    .ioctl = file_ioctl,
    .mmap = file_mmap,
    .fsync = file_fsync,
    .fallocate = file_fallocate,
    .cached = file_cached,
    .flush = file_flush,
    .release = file_release,
};

static int file_open(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    struct ovl_inode *oi = ovl_inode(i);
    uint32_t flags = atomic_load(&f->flags);
    int r = (flags & O_ACCMODE) != O_RDONLY ? ovl_copy_up(oi, UINT64_MAX) : 0;
    struct ovl_file *of = r == 0 ? calloc(1, sizeof(*of)) : NULL;
    struct file *real;

    if (of == NULL)
        return r != 0 ? r : -ENOMEM;
    const struct ovl_real at = ovl_real(oi);
    r = layer_open(at.mnt, at.d, flags, c, &real);
    if (r != 0) {
        free(of);
        return r;
    }
    atomic_store(&of->real[ovl_upper(oi) != NULL && at.d == ovl_upper(oi)], real);
    f->priv = of;
    f->ops = &ovl_file_ops;
    return 0;
}

int ovl_open(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    if (S_ISDIR(i->mode))
        return ovl_dir_open(i, f);
    return S_ISREG(i->mode) ? file_open(i, f, c) : -ENXIO;
}
