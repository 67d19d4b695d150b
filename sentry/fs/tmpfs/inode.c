/* Inodes of tmpfs: life, attributes, extended attributes. */
#include "base/limits.h"
#include "sentry/fs/tmpfs/tmpfs_priv.h"

int tmpfs_inode_new(struct tmpfs *fs, uint32_t mode, uint32_t uid, uint32_t gid, uint64_t rdev,
                    struct tmpfs_inode **out)
{
    struct tmpfs_inode *t;

    if (atomic_fetch_add(&fs->inodes, 1) >= fs->max_inodes && fs->max_inodes != 0) {
        atomic_fetch_sub(&fs->inodes, 1);
        return -ENOSPC;
    }
    t = calloc(1, sizeof(*t));
    if (t == NULL || inode_init(&t->inode, &tmpfs_inode_ops, &fs->sb,
                                atomic_fetch_add(&fs->next_ino, 1), mode)) {
        free(t);
        atomic_fetch_sub(&fs->inodes, 1);
        return -ENOMEM;
    }
    t->inode.uid = uid;
    t->inode.gid = gid;
    t->inode.rdev = rdev;
    t->parent = t;
    t->next_pos = 2;
    list_init(&t->xattrs);
    mappable_init(&t->mappable, &tmpfs_mappable_ops);
    rwlock_init(&t->rw, LOCK_RANK_INODE_RW);
    mutex_init(&t->data_mu, LOCK_RANK_INODE_DATA);
    *out = t;
    return 0;
}

static void xattr_free(struct tmpfs *fs, struct tmpfs_xattr *x);

static void tmpfs_release(struct inode *i)
{
    struct tmpfs_inode *t = tmpfs_inode(i);
    struct tmpfs *fs = tmpfs_of(i->sb);

    tmpfs_dir_fini(t);
    tmpfs_data_punch(t, 0, UINT64_MAX);
    while (!list_empty(&t->xattrs)) {
        struct tmpfs_xattr *x = list_first_entry(&t->xattrs, struct tmpfs_xattr, node);
        list_del(&x->node);
        xattr_free(fs, x);
    }
    mappable_fini(&t->mappable);
    rwlock_destroy(&t->rw);
    mutex_destroy(&t->data_mu);
    free(t->target);
    atomic_fetch_sub(&fs->inodes, 1);
    inode_fini(i);
    free(t);
}

static int64_t tmpfs_readlink(struct inode *i, const struct vfs_caller *c, char *buf, size_t size)
{
    const char *target = tmpfs_inode(i)->target;
    size_t len = strlen(target);

    (void)c;
    if (len >= size)
        return -ENAMETOOLONG;
    memcpy(buf, target, len + 1);
    return (int64_t)len;
}

static int tmpfs_getattr(struct inode *i, struct vfs_attr *out)
{
    out->blocks = atomic_load(&tmpfs_inode(i)->pages) * (PAGE_SIZE / 512);
    return 0;
}

/* F_SEAL_EXEC: neither made executable nor the opposite. */
static bool tmpfs_may_chmod(struct tmpfs_inode *t, uint32_t mode)
{
    mutex_lock(&t->data_mu);
    const bool sealed = (t->seals & F_SEAL_EXEC) != 0;
    mutex_unlock(&t->data_mu);
    return !sealed || ((atomic_load(&t->inode.mode) ^ mode) & 0111) == 0;
}

static int tmpfs_setattr(struct inode *i, const struct vfs_setattr *a)
{
    struct vfs_time now = vfs_now();

    if ((a->valid & VFS_SET_MODE) != 0 && !tmpfs_may_chmod(tmpfs_inode(i), a->mode))
        return -EPERM;
    if ((a->valid & VFS_SET_SIZE) != 0) {
        int r = tmpfs_set_size(tmpfs_inode(i), a->size);
        if (r != 0)
            return r;
    }
    mutex_lock(&i->mu);
    if ((a->valid & VFS_SET_MODE) != 0)
        i->mode = (i->mode & S_IFMT) | (a->mode & 07777);
    if ((a->valid & VFS_SET_UID) != 0)
        i->uid = a->uid;
    if ((a->valid & VFS_SET_GID) != 0)
        i->gid = a->gid;
    if ((a->valid & (VFS_SET_ATIME | VFS_SET_ATIME_NOW)) != 0)
        i->atime = (a->valid & VFS_SET_ATIME) != 0 ? a->atime : now;
    if ((a->valid & (VFS_SET_MTIME | VFS_SET_MTIME_NOW | VFS_SET_SIZE)) != 0)
        i->mtime = (a->valid & VFS_SET_MTIME) != 0 ? a->mtime : now;
    i->ctime = now;
    mutex_unlock(&i->mu);
    return 0;
}

static int tmpfs_open(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    (void)c;
    if (S_ISDIR(i->mode))
        f->ops = &tmpfs_dir_ops;
    else if (S_ISREG(i->mode))
        f->ops = &tmpfs_file_ops;
    else
        return -ENXIO;
    return 0;
}

/* ---- extended attributes ---- */

static struct tmpfs_xattr *xattr_find(struct tmpfs_inode *t, const char *name)
{
    struct tmpfs_xattr *x;

    list_for_each_entry (x, &t->xattrs, node)
        if (strcmp(x->name, name) == 0)
            return x;
    return NULL;
}

static int64_t tmpfs_getxattr(struct inode *i, const char *name, void *buf, size_t size)
{
    int64_t n = -ENODATA;

    mutex_lock(&i->mu);
    const struct tmpfs_xattr *x = xattr_find(tmpfs_inode(i), name);
    if (x != NULL) {
        n = (int64_t)x->size;
        if (size > 0 && size < x->size)
            n = -ERANGE;
        else if (size > 0)
            memcpy(buf, x->value, x->size);
    }
    mutex_unlock(&i->mu);
    return n;
}

static int xattr_put_locked(struct tmpfs_inode *t, struct tmpfs_xattr *fresh, int flags,
                            struct tmpfs_xattr **out_old)
{
    *out_old = xattr_find(t, fresh->name);
    if (*out_old != NULL && (flags & 1 /* XATTR_CREATE */) != 0)
        return -EEXIST;
    if (*out_old == NULL && (flags & 2 /* XATTR_REPLACE */) != 0)
        return -ENODATA;
    if (*out_old != NULL)
        list_del(&(*out_old)->node);
    list_add_tail(&fresh->node, &t->xattrs);
    t->inode.ctime = vfs_now();
    return 0;
}

static uint64_t xattr_cost(const struct tmpfs_xattr *x)
{
    return sizeof(*x) + strlen(x->name) + 1 + x->size;
}

/* They lie in no page of the file system's: a bound of their own keeps them from growing. */
static int xattr_charge(struct tmpfs *fs, const struct tmpfs_xattr *x)
{
    uint64_t cost = xattr_cost(x);

    if (atomic_fetch_add(&fs->xattr_bytes, cost) + cost <= fs->max_inodes * TMPFS_XATTR_SHARE ||
        fs->max_inodes == 0)
        return 0;
    atomic_fetch_sub(&fs->xattr_bytes, cost);
    return -ENOSPC;
}

/* One that was charged. */
static void xattr_free(struct tmpfs *fs, struct tmpfs_xattr *x)
{
    if (x == NULL)
        return;
    atomic_fetch_sub(&fs->xattr_bytes, xattr_cost(x));
    free(x->name);
    free(x);
}

static int tmpfs_setxattr(struct inode *i, const char *name, const void *buf, size_t size,
                          int flags)
{
    struct tmpfs_xattr *x = calloc(1, sizeof(*x) + size), *old = NULL;
    int r;

    if (x == NULL)
        return -ENOMEM;
    x->name = strdup(name);
    x->size = size;
    memcpy(x->value, buf, size);
    r = x->name != NULL ? xattr_charge(tmpfs_of(i->sb), x) : -ENOMEM;
    if (r != 0) {
        free(x->name);
        free(x);
        return r;
    }
    mutex_lock(&i->mu);
    r = xattr_put_locked(tmpfs_inode(i), x, flags, &old);
    mutex_unlock(&i->mu);
    xattr_free(tmpfs_of(i->sb), r == 0 ? old : x);
    return r;
}

static int64_t tmpfs_listxattr(struct inode *i, char *buf, size_t size)
{
    const struct tmpfs_xattr *x;
    size_t used = 0;
    int64_t r;

    mutex_lock(&i->mu);
    list_for_each_entry (x, &tmpfs_inode(i)->xattrs, node) {
        size_t n = strlen(x->name) + 1;
        if (size > 0 && used + n <= size)
            memcpy(buf + used, x->name, n);
        used += n;
    }
    r = size > 0 && used > size ? -ERANGE : (int64_t)used;
    mutex_unlock(&i->mu);
    return r;
}

static int tmpfs_removexattr(struct inode *i, const char *name)
{
    mutex_lock(&i->mu);
    struct tmpfs_xattr *x = xattr_find(tmpfs_inode(i), name);
    if (x != NULL) {
        list_del(&x->node);
        i->ctime = vfs_now();
    }
    mutex_unlock(&i->mu);
    if (x == NULL)
        return -ENODATA;
    xattr_free(tmpfs_of(i->sb), x);
    return 0;
}

static int tmpfs_tmpfile(struct inode *dir, uint32_t mode, const struct vfs_caller *c,
                         struct inode **out)
{
    struct tmpfs_inode *t;
    uint32_t uid, gid;

    vfs_init_owner(dir, c, &mode, &uid, &gid);
    int r = tmpfs_inode_new(tmpfs_of(dir->sb), mode, uid, gid, 0, &t);
    if (r != 0)
        return r;
    t->inode.nlink = 0;
    *out = &t->inode;
    return 0;
}

const struct inode_ops tmpfs_inode_ops = {
    .lookup = tmpfs_lookup,
    .create = tmpfs_create,
    .tmpfile = tmpfs_tmpfile,
    .symlink = tmpfs_symlink,
    .link = tmpfs_link,
    .unlink = tmpfs_unlink,
    .rmdir = tmpfs_rmdir,
    .rename = tmpfs_rename,
    .readlink = tmpfs_readlink,
    .getattr = tmpfs_getattr,
    .setattr = tmpfs_setattr,
    .open = tmpfs_open,
    .getxattr = tmpfs_getxattr,
    .setxattr = tmpfs_setxattr,
    .listxattr = tmpfs_listxattr,
    .removexattr = tmpfs_removexattr,
    .release = tmpfs_release,
};
