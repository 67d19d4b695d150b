/* Making, removing and renaming names. */
#include <linux/capability.h>
#include <stdlib.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#define RENAME_EXCHANGE 2u
#define RENAME_WHITEOUT 4u
#endif

#include "sentry/vfs/special.h"
#include "sentry/vfs/vfs_priv.h"

/* A directory to change an entry of, locked, and the entry as it is. */
struct entry {
    struct walk w;
    struct dentry *d; /* owned; may be negative */
};

static int entry_walk(struct entry *e, const struct vfs_caller *c, const struct vpath *base,
                      const char *path)
{
    int r = walk_init(&e->w, c, base, path, 0);

    e->d = NULL;
    if (r != 0)
        return r;
    r = walk_parent(&e->w);
    if (r == 0 && !S_ISDIR(e->w.cur.dentry->inode->mode))
        r = -ENOTDIR;
    if (r != 0)
        walk_fini(&e->w);
    return r;
}

static struct inode *entry_dir(const struct entry *e)
{
    return e->w.cur.dentry->inode;
}

static void entry_end(struct entry *e)
{
    if (e->d != NULL)
        dentry_put(e->d);
    walk_fini(&e->w);
}

/* ---- creating ---- */

/* After this the directory is locked and e->d negative; entry_unlock undoes it. */
static int entry_begin_create(struct entry *e, bool directory)
{
    struct dentry *dir = e->w.cur.dentry;
    int r;

    if (e->w.last != WALK_NAME)
        return -EEXIST;
    mutex_lock(&dir->inode->dir_mu);
    r = vfs_permission(e->w.c, dir->inode, 1);
    if (r == 0)
        r = dentry_lookup_locked(dir, e->w.name, e->w.name_len, &e->d);
    if (r == 0 && e->d->inode != NULL)
        r = -EEXIST;
    if (r == 0 && e->w.slash && !directory)
        r = -ENOENT;
    if (r == 0)
        r = mount_want_write(e->w.cur.mnt);
    if (r == 0 && dir->unlinked)
        r = -ENOENT;
    if (r == 0)
        r = vfs_permission(e->w.c, dir->inode, 3);
    if (r != 0)
        mutex_unlock(&dir->inode->dir_mu);
    return r;
}

static void entry_unlock(const struct entry *e)
{
    mutex_unlock(&entry_dir(e)->dir_mu);
}

static int entry_created(const struct entry *e, struct inode *inode, struct vpath *out)
{
    struct dentry *d;
    int r = dentry_instantiate(e->w.cur.dentry, e->w.name, inode, &d);

    if (r != 0)
        return r;
    if (out == NULL) {
        dentry_put(d);
        return 0;
    }
    *out = (struct vpath){e->w.cur.mnt, d};
    ref_get(&out->mnt->ref);
    return 0;
}

static int name_mknod(const struct vfs_caller *c, const struct vpath *base, const char *path,
                      uint32_t mode, uint64_t rdev, struct vpath *out)
{
    struct entry e;
    struct inode *inode;
    int r = entry_walk(&e, c, base, path);

    if (r != 0)
        return r;
    r = entry_begin_create(&e, S_ISDIR(mode));
    if (r == 0) {
        const struct inode_ops *ops = entry_dir(&e)->ops;
        mode &= ~c->umask | S_IFMT;
        r = ops->create != NULL ? ops->create(entry_dir(&e), e.w.name, mode, rdev, c, &inode)
                                : -EPERM;
        if (r == 0)
            r = entry_created(&e, inode, out);
        entry_unlock(&e);
    }
    entry_end(&e);
    return r;
}

int vfs_mkdir(const struct vfs_caller *c, const struct vpath *base, const char *path, uint32_t mode)
{
    return name_mknod(c, base, path, (mode & 01777) | S_IFDIR, 0, NULL);
}

int vfs_mknod(const struct vfs_caller *c, const struct vpath *base, const char *path, uint32_t mode,
              uint64_t rdev)
{
    if ((mode & S_IFMT) == 0)
        mode |= S_IFREG;
    if (S_ISDIR(mode))
        return -EPERM;
    if (!S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode) && !S_ISCHR(mode) && !S_ISBLK(mode))
        return -EINVAL;
    if ((S_ISCHR(mode) || S_ISBLK(mode)) && !cred_capable(c->cred, CAP_MKNOD))
        return -EPERM;
    return name_mknod(c, base, path, mode & (S_IFMT | 07777), rdev, NULL);
}

int vfs_mksock(const struct vfs_caller *c, const char *path, uint32_t mode, struct vpath *out)
{
    int r = name_mknod(c, NULL, path, (mode & 07777) | S_IFSOCK, 0, out);

    return r == -EEXIST ? -EADDRINUSE : r;
}

int vfs_symlink(const struct vfs_caller *c, const char *target, const struct vpath *base,
                const char *path)
{
    struct entry e;
    struct inode *inode;
    int r;

    if (*target == '\0')
        return -ENOENT;
    r = entry_walk(&e, c, base, path);
    if (r != 0)
        return r;
    r = entry_begin_create(&e, false);
    if (r == 0) {
        const struct inode_ops *ops = entry_dir(&e)->ops;
        r = ops->symlink != NULL ? ops->symlink(entry_dir(&e), e.w.name, target, c, &inode)
                                 : -EPERM;
        if (r == 0)
            r = entry_created(&e, inode, NULL);
        entry_unlock(&e);
    }
    entry_end(&e);
    return r;
}

static int link_create(struct entry *e, const struct vpath *old)
{
    struct inode *target = old->dentry->inode;
    const struct inode_ops *ops = entry_dir(e)->ops;
    int r;

    if (old->mnt != e->w.cur.mnt)
        return -EXDEV;
    if (S_ISDIR(target->mode))
        return -EPERM;
    r = ops->link != NULL ? ops->link(entry_dir(e), e->w.name, target) : -EPERM;
    return r != 0 ? r : entry_created(e, inode_get(target), NULL);
}

int vfs_link(const struct vfs_caller *c, const struct vpath *old_base, const char *old,
             const struct vpath *new_base, const char *path, unsigned lookup_flags)
{
    struct vpath target;
    struct entry e;
    int r = vfs_lookup(c, old_base, old, lookup_flags, &target);

    if (r != 0)
        return r;
    r = entry_walk(&e, c, new_base, path);
    if (r == 0) {
        r = entry_begin_create(&e, false);
        if (r == 0) {
            r = link_create(&e, &target);
            entry_unlock(&e);
        }
        entry_end(&e);
    }
    vpath_put(&target);
    return r;
}

/* ---- removing ---- */

/* Write and search permission on the directory, and the sticky bit's owner rule. */
static int may_delete(const struct vfs_caller *c, const struct inode *dir,
                      const struct inode *victim)
{
    int r = vfs_permission(c, (struct inode *)(uintptr_t)dir, 3);

    if (r != 0 || (dir->mode & S_ISVTX) == 0)
        return r;
    if (c->cred->fsuid == victim->uid || c->cred->fsuid == dir->uid ||
        cred_capable(c->cred, CAP_FOWNER))
        return 0;
    return -EPERM;
}

static int remove_check(const struct entry *e, bool directory)
{
    const struct inode *victim = e->d->inode;
    int r;

    if (victim == NULL)
        return -ENOENT;
    r = mount_want_write(e->w.cur.mnt);
    if (r == 0)
        r = may_delete(e->w.c, entry_dir(e), victim);
    if (r != 0)
        return r;
    if (directory && !S_ISDIR(victim->mode))
        return -ENOTDIR;
    if (!directory && S_ISDIR(victim->mode))
        return -EISDIR;
    if (!directory && e->w.slash)
        return -ENOTDIR;
    return atomic_load(&e->d->mounted) != 0 ? -EBUSY : 0;
}

static int remove_do(const struct entry *e, bool directory)
{
    struct inode *dir = entry_dir(e), *victim = e->d->inode;
    int r;

    if (directory) {
        /* Nothing may be made in it between the look and the end. */
        mutex_lock_nested(&victim->dir_mu);
        r = dir->ops->rmdir != NULL ? dir->ops->rmdir(dir, e->w.name, victim) : -EPERM;
        if (r == 0)
            dentry_unlinked(e->d);
        mutex_unlock(&victim->dir_mu);
        return r;
    }
    r = dir->ops->unlink != NULL ? dir->ops->unlink(dir, e->w.name, victim) : -EPERM;
    if (r == 0)
        dentry_unlinked(e->d);
    return r;
}

static int name_remove(const struct vfs_caller *c, const struct vpath *base, const char *path,
                       bool directory)
{
    struct entry e;
    int r = entry_walk(&e, c, base, path);

    if (r != 0)
        return r;
    if (e.w.last == WALK_NAME) {
        mutex_lock(&entry_dir(&e)->dir_mu);
        r = vfs_permission(c, entry_dir(&e), 1);
        if (r == 0)
            r = dentry_lookup_locked(e.w.cur.dentry, e.w.name, e.w.name_len, &e.d);
        if (r == 0)
            r = remove_check(&e, directory);
        if (r == 0)
            r = remove_do(&e, directory);
        entry_unlock(&e);
    } else if (!directory) {
        r = -EISDIR;
    } else {
        r = e.w.last == WALK_DOT ? -EINVAL : e.w.last == WALK_DOTDOT ? -ENOTEMPTY : -EBUSY;
    }
    entry_end(&e);
    return r;
}

int vfs_unlink(const struct vfs_caller *c, const struct vpath *base, const char *path)
{
    return name_remove(c, base, path, false);
}

int vfs_rmdir(const struct vfs_caller *c, const struct vpath *base, const char *path)
{
    return name_remove(c, base, path, true);
}

/* ---- renaming ---- */

static int rename_lookup(struct entry *e)
{
    int r = vfs_permission(e->w.c, entry_dir(e), 1);

    return r != 0 ? r : dentry_lookup_locked(e->w.cur.dentry, e->w.name, e->w.name_len, &e->d);
}

/* What Linux's lock_rename and may_delete/may_create check, in its order. */
static int rename_check(const struct entry *from, const struct entry *to, unsigned flags)
{
    const struct vfs_caller *c = from->w.c;
    const struct inode *moved = from->d->inode, *target = to->d->inode;
    int r;

    if (moved == NULL)
        return -ENOENT;
    if ((flags & RENAME_NOREPLACE) != 0 && target != NULL)
        return -EEXIST;
    if ((flags & RENAME_EXCHANGE) != 0 && target == NULL)
        return -ENOENT;
    if (!S_ISDIR(moved->mode) &&
        (from->w.slash || (to->w.slash && !((flags & RENAME_EXCHANGE) && S_ISDIR(target->mode)))))
        return -ENOTDIR;
    if (dentry_is_ancestor(from->d, to->w.cur.dentry))
        return -EINVAL;
    if (target != NULL && dentry_is_ancestor(to->d, from->w.cur.dentry))
        return (flags & RENAME_EXCHANGE) != 0 ? -EINVAL : -ENOTEMPTY;
    r = mount_want_write(from->w.cur.mnt);
    if (r == 0)
        r = may_delete(c, entry_dir(from), moved);
    if (r == 0)
        r = target != NULL ? may_delete(c, entry_dir(to), target)
                           : vfs_permission(c, entry_dir(to), 3);
    if (r == 0 && to->w.cur.dentry->unlinked)
        r = -ENOENT;
    if (r != 0 || target == NULL || moved == target)
        return r;
    if ((flags & RENAME_EXCHANGE) == 0 && S_ISDIR(moved->mode) != S_ISDIR(target->mode))
        return S_ISDIR(moved->mode) ? -ENOTDIR : -EISDIR;
    if (atomic_load(&from->d->mounted) != 0 || atomic_load(&to->d->mounted) != 0)
        return -EBUSY;
    return 0;
}

static void rename_dentries(struct entry *from, struct entry *to, unsigned flags, char **new_name,
                            char **old_name)
{
    if ((flags & RENAME_EXCHANGE) != 0)
        dentry_drop(to->d);
    else if (to->d->inode != NULL)
        dentry_unlinked(to->d);
    else
        dentry_drop(to->d);
    struct dentry *old_parent = from->w.cur.dentry;
    dentry_move(from->d, to->w.cur.dentry, new_name);
    if ((flags & RENAME_EXCHANGE) != 0)
        dentry_move(to->d, old_parent, old_name);
}

static int rename_locked(struct entry *from, struct entry *to, unsigned flags)
{
    struct inode *dir = entry_dir(from);
    char *new_name, *old_name;
    int r = rename_lookup(from);

    if (r == 0)
        r = rename_lookup(to);
    if (r == 0)
        r = rename_check(from, to, flags);
    if (r != 0)
        return r;
    /* Two names of one file: nothing happens, both stay. */
    if (from->d->inode == to->d->inode)
        return 0;
    if (dir->ops->rename == NULL)
        return -EPERM;
    new_name = strdup(to->w.name);
    old_name = strdup(from->w.name);
    r = new_name != NULL && old_name != NULL
            ? dir->ops->rename(dir, from->w.name, entry_dir(to), to->w.name, from->d->inode,
                               to->d->inode, flags)
            : -ENOMEM;
    if (r == 0)
        rename_dentries(from, to, flags, &new_name, &old_name);
    free(new_name);
    free(old_name);
    return r;
}

int vfs_rename(const struct vfs_caller *c, const struct vpath *old_base, const char *old,
               const struct vpath *new_base, const char *path, unsigned flags)
{
    struct entry from, to;
    int r;

    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0 ||
        flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    r = entry_walk(&from, c, old_base, old);
    if (r != 0)
        return r;
    r = entry_walk(&to, c, new_base, path);
    if (r != 0)
        goto out_from;
    if (from.w.cur.mnt != to.w.cur.mnt) {
        r = -EXDEV;
    } else if (from.w.last != WALK_NAME) {
        r = -EBUSY;
    } else if (to.w.last != WALK_NAME) {
        r = (flags & RENAME_NOREPLACE) != 0 ? -EEXIST : -EBUSY;
    } else {
        rwlock_wrlock(&vfs_rename_lock);
        mutex_lock_pair(&entry_dir(&from)->dir_mu, &entry_dir(&to)->dir_mu);
        r = rename_locked(&from, &to, flags);
        mutex_unlock_pair(&entry_dir(&from)->dir_mu, &entry_dir(&to)->dir_mu);
        rwlock_unlock(&vfs_rename_lock);
    }
    entry_end(&to);
out_from:
    entry_end(&from);
    return r;
}
