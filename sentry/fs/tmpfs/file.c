/* Regular files of tmpfs: read, write, size, holes, seals. */
#include <stdio.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#include "base/limits.h"
#include "sentry/fs/tmpfs/tmpfs_priv.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#define SEALS_CONTENT (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
#define SEALS_ALL (F_SEAL_SEAL | F_SEAL_EXEC | SEALS_CONTENT)
#define SEALS_WRITE (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)

static unsigned file_seals(struct tmpfs_inode *t)
{
    mutex_lock(&t->data_mu);
    unsigned seals = t->seals;
    mutex_unlock(&t->data_mu);
    return seals;
}

static uint64_t file_size(struct inode *i)
{
    mutex_lock(&i->mu);
    uint64_t size = i->size;
    mutex_unlock(&i->mu);
    return size;
}

/* ---- reading ---- */

static int64_t read_piece(struct tmpfs_inode *t, struct uio *u, uint64_t off, uint64_t size)
{
    uint64_t mem_off = 0, n = 0;
    bool hole;
    int r = tmpfs_data_get(t, off, size, NULL, &mem_off, &n, &hole);

    if (r != 0)
        return r;
    return hole ? uio_zero(u, n)
                : uio_copy_to(u, memfile_ptr(tmpfs_of(t->inode.sb)->mf, mem_off), n);
}

static int64_t tmpfs_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct tmpfs_inode *t = tmpfs_inode(f->inode);
    int64_t done = 0, n = 0;

    (void)c;
    rwlock_rdlock(&t->rw);
    uint64_t size = file_size(f->inode);
    while (u->left > 0 && (uint64_t)*pos < size) {
        n = read_piece(t, u, (uint64_t)*pos, MIN(u->left, size - (uint64_t)*pos));
        if (n <= 0)
            break;
        *pos += n;
        done += n;
    }
    rwlock_unlock(&t->rw);
    return done > 0 ? done : n;
}

/* ---- writing ---- */

static int64_t write_piece(struct tmpfs_inode *t, struct uio *u, uint64_t off)
{
    uint64_t mem_off = 0, n = 0;
    bool hole;
    const struct tmpfs_alloc alloc = {.ua = u->ua};
    int r = tmpfs_data_get(t, off, u->left, &alloc, &mem_off, &n, &hole);

    if (r != 0)
        return r;
    return uio_copy_from(u, memfile_ptr(tmpfs_of(t->inode.sb)->mf, mem_off), n);
}

static void write_grow(struct inode *i, uint64_t end)
{
    mutex_lock(&i->mu);
    i->size = MAX(i->size, end);
    i->mtime = i->ctime = vfs_now();
    mutex_unlock(&i->mu);
}

static int write_check(struct tmpfs_inode *t, uint64_t pos, struct uio *u)
{
    unsigned seals = file_seals(t);
    uint64_t size = file_size(&t->inode);

    if ((seals & SEALS_WRITE) != 0)
        return -EPERM;
    if (pos >= INT64_MAX - PAGE_SIZE)
        return -EFBIG;
    u->left = MIN(u->left, INT64_MAX - PAGE_SIZE - pos);
    if ((seals & F_SEAL_GROW) != 0 && pos + u->left > size) {
        if (pos >= size)
            return -EPERM;
        u->left = size - pos;
    }
    return 0;
}

static int64_t write_locked(struct tmpfs_inode *t, struct uio *u, int64_t *pos)
{
    int64_t done = 0, n = 0;
    int r = write_check(t, (uint64_t)*pos, u);

    if (r != 0)
        return r;
    while (u->left > 0) {
        n = write_piece(t, u, (uint64_t)*pos);
        if (n <= 0)
            break;
        *pos += n;
        done += n;
    }
    if (done > 0)
        write_grow(&t->inode, (uint64_t)*pos);
    return done > 0 ? done : n;
}

static int64_t tmpfs_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct tmpfs_inode *t = tmpfs_inode(f->inode);
    int64_t n;

    (void)c;
    if (u->left == 0)
        return 0;
    rwlock_wrlock(&t->rw);
    if (u->append)
        *pos = (int64_t)file_size(f->inode);
    n = write_locked(t, u, pos);
    rwlock_unlock(&t->rw);
    return n;
}

/* ---- size ---- */

int tmpfs_set_size(struct tmpfs_inode *t, uint64_t size)
{
    unsigned seals;
    uint64_t old;
    int r = 0;

    rwlock_wrlock(&t->rw);
    seals = file_seals(t);
    old = file_size(&t->inode);
    if ((size < old && (seals & F_SEAL_SHRINK) != 0) ||
        (size > old && (seals & F_SEAL_GROW) != 0)) {
        r = -EPERM;
    } else {
        mutex_lock(&t->inode.mu);
        t->inode.size = size;
        mutex_unlock(&t->inode.mu);
        if (size < old) {
            /* After this nobody can bring pages beyond the end back. */
            mappable_truncate(&t->mappable, size);
            tmpfs_data_punch(t, size, UINT64_MAX);
        }
    }
    rwlock_unlock(&t->rw);
    return r;
}

static int allocate_range(struct tmpfs_inode *t, uint64_t off, uint64_t end)
{
    const struct tmpfs_alloc alloc = {.ua = NULL};

    while (off < end) {
        uint64_t mem_off, n;
        bool hole;
        int r = tmpfs_data_get(t, off, end - off, &alloc, &mem_off, &n, &hole);
        if (r != 0)
            return r;
        off += n;
    }
    return 0;
}

static int tmpfs_fallocate(struct file *f, int mode, int64_t off, int64_t size)
{
    struct tmpfs_inode *t = tmpfs_inode(f->inode);
    uint64_t start = (uint64_t)off, end = start + (uint64_t)size;
    unsigned seals = file_seals(t);
    int r = 0;

    if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) != 0 || mode == FALLOC_FL_PUNCH_HOLE)
        return -EOPNOTSUPP;
    if (mode & FALLOC_FL_PUNCH_HOLE)
        return (seals & SEALS_WRITE) != 0
                   ? -EPERM
                   : t->mappable.ops->punch(&t->mappable, start, end - start);
    rwlock_wrlock(&t->rw);
    if ((seals & F_SEAL_GROW) != 0 && end > file_size(f->inode))
        r = -EPERM;
    if (r == 0)
        r = allocate_range(t, start, end);
    if (r == 0 && (mode & FALLOC_FL_KEEP_SIZE) == 0)
        write_grow(f->inode, end);
    rwlock_unlock(&t->rw);
    return r;
}

static int64_t tmpfs_seek(struct file *f, int64_t off, int whence)
{
    struct tmpfs_inode *t = tmpfs_inode(f->inode);
    uint64_t size = file_size(f->inode);

    switch (whence) {
    case SEEK_SET:
        break;
    case SEEK_CUR:
        if (__builtin_add_overflow(off, f->pos, &off))
            return -EOVERFLOW;
        break;
    case SEEK_END:
        if (__builtin_add_overflow(off, (int64_t)size, &off))
            return -EOVERFLOW;
        break;
    case SEEK_DATA:
    case SEEK_HOLE:
        if (off < 0 || (uint64_t)off >= size)
            return -ENXIO;
        off = (int64_t)MIN(tmpfs_data_seek(t, (uint64_t)off, whence == SEEK_DATA), size);
        if (whence == SEEK_DATA && (uint64_t)off == size)
            return -ENXIO;
        break;
    default:
        return -EINVAL;
    }
    if (off < 0)
        return -EINVAL;
    f->pos = off;
    return off;
}

static int tmpfs_mmap(struct file *f, int prot, int flags, struct mappable **out)
{
    (void)prot; /* mm looks at seals */
    (void)flags;
    (void)inode_get(f->inode);
    *out = &tmpfs_inode(f->inode)->mappable;
    return 0;
}

static int tmpfs_fsync(struct file *f, bool data_only)
{
    (void)f;
    (void)data_only;
    return 0; /* memory is as safe as it gets */
}

static uint64_t tmpfs_cached(struct file *f, uint64_t first, uint64_t last)
{
    return tmpfs_data_pages(tmpfs_inode(f->inode), first, last);
}

const struct file_ops tmpfs_file_ops = {
    .read = tmpfs_read,
    .write = tmpfs_write,
    .seek = tmpfs_seek,
    .mmap = tmpfs_mmap,
    .fsync = tmpfs_fsync,
    .fallocate = tmpfs_fallocate,
    .cached = tmpfs_cached,
};

/* ---- memfd_create(2) ---- */

static struct super *memfd_super;
static struct mutex memfd_mu = MUTEX_INITIALIZER(LOCK_RANK_LEAF);

/* One super without limits or names carries all of them. */
static int memfd_fs(struct memfile *mf, struct super **out)
{
    static struct cred nobody;
    const struct vfs_caller c = {.cred = &nobody};
    int r = 0;

    mutex_lock(&memfd_mu);
    if (memfd_super == NULL)
        r = tmpfs_fs_ops.mount(&tmpfs_fs_ops, mf, "memfd", "", &c, &memfd_super);
    *out = memfd_super;
    mutex_unlock(&memfd_mu);
    return r;
}

void tmpfs_memfd_end(void)
{
    mutex_lock(&memfd_mu);
    struct super *sb = memfd_super;
    memfd_super = NULL;
    mutex_unlock(&memfd_mu);
    if (sb != NULL)
        super_end(sb);
}

int tmpfs_memfd(struct memfile *mf, const char *name, unsigned seals, bool exec,
                struct file **out_file)
{
    struct tmpfs_inode *t;
    struct super *sb;
    char text[300];
    int r = memfd_fs(mf, &sb);

    if (r == 0)
        r = tmpfs_inode_new(tmpfs_of(sb), S_IFREG | (exec ? 0777 : 0666), 0, 0, 0, &t);
    if (r != 0)
        return r;
    t->inode.nlink = 0;
    t->sealable = true;
    t->seals = seals;
    (void)snprintf(text, sizeof(text), "/memfd:%.250s (deleted)", name);
    r = vfs_anon_inode_file(text, &t->inode, &tmpfs_file_ops, O_RDWR, out_file);
    inode_put(&t->inode);
    return r;
}

int tmpfs_get_seals(struct file *f)
{
    if (f->ops != &tmpfs_file_ops || !tmpfs_inode(f->inode)->sealable)
        return -EINVAL;
    return (int)file_seals(tmpfs_inode(f->inode));
}

int tmpfs_add_seals(struct file *f, unsigned seals)
{
    struct tmpfs_inode *t;
    unsigned all = seals;
    int r = 0;

    if (f->ops != &tmpfs_file_ops || !tmpfs_inode(f->inode)->sealable)
        return -EINVAL;
    if ((seals & ~(unsigned)SEALS_ALL) != 0)
        return -EINVAL;
    if ((atomic_load(&f->flags) & O_ACCMODE) == O_RDONLY)
        return -EPERM;
    t = tmpfs_inode(f->inode);
    rwlock_wrlock(&t->rw);
    const unsigned has = file_seals(t);
    if ((has & F_SEAL_SEAL) != 0)
        r = -EPERM;
    /* What stays executable stays as it is. */
    else if ((seals & F_SEAL_EXEC) != 0 && (atomic_load(&t->inode.mode) & 0111) != 0)
        all |= SEALS_CONTENT;
    /* A shared mapping could still write: who seals must unmap it first. */
    if (r == 0 && (all & ~has & SEALS_WRITE) != 0)
        r = mappable_seal(&t->mappable, (seals & ~has & F_SEAL_WRITE) == 0);
    if (r == 0) {
        mutex_lock(&t->data_mu);
        t->seals |= all;
        mutex_unlock(&t->data_mu);
    }
    rwlock_unlock(&t->rw);
    return r;
}
