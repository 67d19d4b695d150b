/* Directories of a file system below another one. */
#include "sentry/vfs/layer.h"

#include <stdio.h>
#include <stdlib.h>

#include "sentry/vfs/vfs_priv.h"

#define LAYER_RENAME_EXCHANGE 2u

int layer_mount(struct super *sb, struct mount **out)
{
    return mount_private(sb, out);
}

/* ---- locks ---- */

void layer_lock(struct dentry *d)
{
    mutex_lock_nested(&d->inode->dir_mu);
}

void layer_unlock(struct dentry *d)
{
    mutex_unlock(&d->inode->dir_mu);
}

/* In the order of vfs_rename. */
void layer_lock_two(struct dentry *a, struct dentry *b)
{
    bool b_first = (uintptr_t)b->inode < (uintptr_t)a->inode;

    if (a->inode == b->inode) {
        layer_lock(a);
        return;
    }
    if (dentry_is_ancestor(a, b))
        b_first = false;
    else if (dentry_is_ancestor(b, a))
        b_first = true;
    layer_lock(b_first ? b : a);
    layer_lock(b_first ? a : b);
}

void layer_unlock_two(struct dentry *a, struct dentry *b)
{
    layer_unlock(a);
    if (a->inode != b->inode)
        layer_unlock(b);
}

/* ---- looking ---- */

/* A cached name, negative ones included, that its file system stands by. Owned, or NULL. */
static struct dentry *layer_cached(struct dentry *dir, const char *name)
{
    struct dentry *d = dentry_cached(dir, name, strlen(name));

    if (d == NULL || dir->sb->ops->revalidate == NULL ||
        dir->sb->ops->revalidate(d, dir->inode, name))
        return d;
    dentry_drop(d);
    dentry_put(d);
    return NULL;
}

static int layer_found(struct dentry *d, struct dentry **out)
{
    if (d->inode == NULL) {
        dentry_put(d);
        return -ENOENT;
    }
    *out = d;
    return 0;
}

int layer_lookup_locked(struct dentry *dir, const char *name, bool keep, struct dentry **out)
{
    struct dentry *d = layer_cached(dir, name);
    struct inode *inode;
    int r;

    if (d != NULL)
        return layer_found(d, out);
    if (dir->inode->ops->lookup == NULL)
        return -ENOTDIR;
    r = dir->inode->ops->lookup(dir->inode, name, &inode);
    if (r != 0)
        return r;
    r = dentry_new(dir->sb, inode, dir, name, strlen(name), out);
    if (r != 0) {
        inode_put(inode);
        return r;
    }
    if (keep && !atomic_load(&dir->unlinked))
        dentry_hash(*out);
    return 0;
}

int layer_lookup(struct dentry *dir, const char *name, bool keep, struct dentry **out)
{
    struct dentry *d = layer_cached(dir, name);
    int r;

    if (d != NULL)
        return layer_found(d, out);
    layer_lock(dir);
    r = layer_lookup_locked(dir, name, keep, out);
    layer_unlock(dir);
    return r;
}

void layer_prefetch(struct dentry *dir, const char *path)
{
    struct dentry *d;

    if (dir->inode->ops->prefetch == NULL)
        return;
    d = dentry_cached(dir, path, strcspn(path, "/"));
    if (d == NULL)
        dir->inode->ops->prefetch(dir->inode, path);
    else
        dentry_put(d);
}

int layer_name(struct dentry *d, char *buf, size_t size)
{
    int n = -ENAMETOOLONG;

    rwlock_rdlock(&vfs_tree_lock);
    if (d->name_len < size) {
        memcpy(buf, d->name, d->name_len + 1);
        n = (int)d->name_len;
    }
    rwlock_unlock(&vfs_tree_lock);
    return n;
}

bool layer_valid(struct dentry *d)
{
    char name[VFS_NAME_MAX + 1];
    bool valid = true;

    if (d->sb->ops->revalidate == NULL || layer_name(d, name, sizeof(name)) < 0)
        return true;
    struct dentry *parent = dentry_parent(d);
    if (parent != d)
        valid = d->sb->ops->revalidate(d, parent->inode, name);
    dentry_put(parent);
    return valid;
}

bool layer_is_ancestor(const struct dentry *a, const struct dentry *d)
{
    rwlock_rdlock(&vfs_tree_lock);
    bool above = dentry_is_ancestor(a, d);
    rwlock_unlock(&vfs_tree_lock);
    return above;
}

uint64_t layer_parent_ino(struct dentry *d)
{
    struct dentry *parent = dentry_parent(d);
    uint64_t ino = parent->inode->ino;

    dentry_put(parent);
    return ino;
}

/* ---- changing ---- */

static int layer_make(struct dentry *dir, const char *name, uint32_t mode, uint64_t rdev,
                      const char *target, const struct vfs_caller *c, struct inode **out)
{
    const struct inode_ops *ops = dir->inode->ops;

    if (atomic_load(&dir->unlinked))
        return -ENOENT;
    if (target != NULL)
        return ops->symlink != NULL ? ops->symlink(dir->inode, name, target, c, out) : -EPERM;
    return ops->create != NULL ? ops->create(dir->inode, name, mode, rdev, c, out) : -EPERM;
}

/* Errors of the way back are those of the way there. */
void dir_unmake(struct inode *dir, const char *name, struct inode *i)
{
    const struct inode_ops *ops = dir->ops;
    int r = 0;

    if (!S_ISDIR(i->mode)) {
        r = ops->unlink != NULL ? ops->unlink(dir, name, i) : 0;
    } else if (ops->rmdir != NULL) {
        mutex_lock_nested(&i->dir_mu);
        r = ops->rmdir(dir, name, i);
        mutex_unlock(&i->dir_mu);
    }
    (void)r;
}

int layer_create_locked(struct dentry *dir, const char *name, uint32_t mode, uint64_t rdev,
                        const char *target, const struct vfs_caller *c, layer_fill_fn fill,
                        void *arg, struct dentry **out)
{
    struct inode *inode;
    int r = layer_make(dir, name, mode, rdev, target, c, &inode);

    if (r != 0)
        return r;
    r = fill != NULL ? fill(inode, arg) : 0;
    if (r != 0) {
        dir_unmake(dir->inode, name, inode);
        inode_put(inode);
        return r;
    }
    return dentry_instantiate(dir, name, inode, out);
}

int layer_tmpfile(struct dentry *dir, uint32_t mode, const struct vfs_caller *c,
                  struct dentry **out)
{
    const struct inode_ops *ops = dir->inode->ops;
    struct inode *inode;
    char name[24];
    int r = ops->tmpfile != NULL ? ops->tmpfile(dir->inode, mode, c, &inode) : -EOPNOTSUPP;

    if (r != 0)
        return r;
    int len = snprintf(name, sizeof(name), "#%llu", (unsigned long long)inode->ino);
    r = dentry_new(dir->sb, inode, dir, name, (size_t)len, out);
    if (r != 0) {
        inode_put(inode);
        return r;
    }
    atomic_store(&(*out)->unlinked, true);
    return 0;
}

int layer_link_locked(struct dentry *dir, const char *name, struct inode *target,
                      struct dentry **out)
{
    const struct inode_ops *ops = dir->inode->ops;
    int r;

    if (atomic_load(&dir->unlinked))
        return -ENOENT;
    r = ops->link != NULL ? ops->link(dir->inode, name, target) : -EPERM;
    return r != 0 ? r : dentry_instantiate(dir, name, inode_get(target), out);
}

int layer_remove_locked(struct dentry *dir, struct dentry *d)
{
    const struct inode_ops *ops = dir->inode->ops;
    char name[VFS_NAME_MAX + 1];
    int r;

    if (atomic_load(&d->mounted) != 0)
        return -EBUSY;
    r = layer_name(d, name, sizeof(name));
    if (r < 0)
        return r;
    if (S_ISDIR(d->inode->mode)) {
        mutex_lock_nested(&d->inode->dir_mu);
        r = ops->rmdir != NULL ? ops->rmdir(dir->inode, name, d->inode) : -EPERM;
        if (r == 0)
            dentry_unlinked(d);
        mutex_unlock(&d->inode->dir_mu);
        return r;
    }
    r = ops->unlink != NULL ? ops->unlink(dir->inode, name, d->inode) : -EPERM;
    if (r == 0)
        dentry_unlinked(d);
    return r;
}

/* Names and parents as they are after the rename; a stale negative dentry of the new name goes. */
static void layer_move(struct dentry *from_dir, struct dentry *from, struct dentry *to_dir,
                       char **new_name, struct dentry *target, char **old_name, bool exchange)
{
    struct dentry *stale = dentry_cached(to_dir, *new_name, strlen(*new_name));

    if (stale != NULL) {
        dentry_drop(stale);
        dentry_put(stale);
    }
    dentry_drop(from);
    rwlock_wrlock(&vfs_tree_lock);
    dentry_move_locked(from, to_dir, new_name);
    if (exchange)
        dentry_move_locked(target, from_dir, old_name);
    rwlock_unlock(&vfs_tree_lock);
    if (target != NULL && !exchange)
        dentry_unlinked(target);
    dentry_hash(from);
    if (exchange)
        dentry_hash(target);
}

int layer_rename_locked(struct dentry *from_dir, struct dentry *from, struct dentry *to_dir,
                        const char *name, struct dentry *target, unsigned flags)
{
    const struct inode_ops *ops = from_dir->inode->ops;
    struct inode *gone = target != NULL && S_ISDIR(target->inode->mode) ? target->inode : NULL;
    char buf[VFS_NAME_MAX + 1];
    int r = layer_name(from, buf, sizeof(buf));

    if (r < 0)
        return r;
    if (atomic_load(&from->mounted) != 0 || (target != NULL && atomic_load(&target->mounted) != 0))
        return -EBUSY;
    if (atomic_load(&to_dir->unlinked))
        return -ENOENT;
    char *old_name = strdup(buf), *new_name = strdup(name);
    r = old_name != NULL && new_name != NULL ? 0 : -ENOMEM;
    if (gone != NULL)
        mutex_lock_nested(&gone->dir_mu);
    if (r == 0)
        r = ops->rename != NULL
                ? ops->rename(from_dir->inode, buf, to_dir->inode, name, from->inode,
                              target != NULL ? target->inode : NULL, flags)
                : -EPERM;
    if (r == 0)
        layer_move(from_dir, from, to_dir, &new_name, target, &old_name,
                   (flags & LAYER_RENAME_EXCHANGE) != 0);
    if (gone != NULL)
        mutex_unlock(&gone->dir_mu);
    free(old_name);
    free(new_name);
    return r;
}

int layer_open(struct mount *mnt, struct dentry *d, uint32_t flags, const struct vfs_caller *c,
               struct file **out)
{
    const struct vpath p = {mnt, d};
    struct inode *i = d->inode;
    struct file *f;
    int r = file_alloc(&p, flags, &f);

    if (r != 0)
        return r;
    r = i->ops->open != NULL ? i->ops->open(i, f, c) : -ENXIO;
    if (r != 0) {
        file_discard(f);
        return r;
    }
    *out = f;
    return 0;
}
