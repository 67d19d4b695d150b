/* Making, removing and renaming names. */
#include <linux/capability.h>
#include <stdlib.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#define RENAME_EXCHANGE 2u
#define RENAME_WHITEOUT 4u
#endif

#include "sentry/vfs/acl.h"
#include "sentry/vfs/landlock.h"
#include "sentry/vfs/notify.h"
#include "sentry/vfs/special.h"
#include "sentry/vfs/vfs_priv.h"

/* A directory to change an entry of, locked, and the entry as it is. */
struct entry {
    struct walk w;
    struct dentry *d;             /* owned; may be negative */
    struct landlock_trail *trail; /* owned; NULL: names are restricted by modes alone */
};

static int entry_walk(struct entry *e, const struct vfs_caller *c, const struct vpath *base,
                      const char *path)
{
    int r = walk_init(&e->w, c, base, path, 0);

    e->d = NULL;
    e->trail = NULL;
    if (r != 0)
        return r;
    r = walk_parent(&e->w);
    if (r == 0 && !S_ISDIR(e->w.cur.dentry->inode->mode))
        r = -ENOTDIR;
    if (r == 0)
        r = landlock_trail_new(c, &e->w.cur, &e->trail);
    if (r != 0)
        walk_fini(&e->w);
    return r;
}

static struct inode *entry_dir(const struct entry *e)
{
    return e->w.cur.dentry->inode;
}

/* dir_mu held. */
static int entry_lookup(struct entry *e)
{
    int r = vfs_permission(e->w.c, entry_dir(e), 1);

    return r != 0 ? r : dentry_lookup_locked(e->w.cur.dentry, e->w.name, e->w.name_len, &e->d);
}

static void entry_end(struct entry *e)
{
    if (e->d != NULL)
        dentry_put(e->d);
    landlock_trail_free(e->trail);
    walk_fini(&e->w);
}

/* ---- creating ---- */

/* After this the directory is locked and e->d negative; entry_unlock undoes it. right: of
 * landlock.h. */
static int entry_begin_create(struct entry *e, bool directory, uint32_t right)
{
    struct dentry *dir = e->w.cur.dentry;
    int r;

    if (e->w.last != WALK_NAME)
        return -EEXIST;
    mutex_lock(&dir->inode->dir_mu);
    r = entry_lookup(e);
    if (r == 0 && e->d->inode != NULL)
        r = -EEXIST;
    if (r == 0 && e->w.slash && !directory)
        r = -ENOENT;
    if (r == 0)
        r = mount_want_write(e->w.cur.mnt);
    if (r == 0 && atomic_load(&dir->unlinked))
        r = -ENOENT;
    if (r == 0)
        r = landlock_names(e->trail, right);
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
    notify_name(entry_dir(e), NOTIFY_CREATE, inode, e->w.name, 0);
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
    r = entry_begin_create(&e, S_ISDIR(mode), landlock_make_right(mode));
    if (r == 0) {
        const struct inode_ops *ops = entry_dir(&e)->ops;
        r = ops->create != NULL ? acl_create(c, entry_dir(&e), e.w.name, mode, rdev, &inode)
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
    bool whiteout = S_ISCHR(mode) && rdev == 0;
    if ((S_ISCHR(mode) || S_ISBLK(mode)) && !whiteout && !cred_capable(c->cred, CAP_MKNOD))
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
    r = entry_begin_create(&e, false, LANDLOCK_MAKE_SYM);
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

static uint32_t inode_nlink(struct inode *i)
{
    mutex_lock(&i->mu);
    uint32_t n = i->nlink;
    mutex_unlock(&i->mu);
    return n;
}

/* A file to be given another name, and where it has one. */
struct linking {
    struct vpath old;             /* owned */
    struct vpath dir;             /* owned; empty when nobody asks */
    struct landlock_trail *trail; /* owned */
};

static int link_start(struct linking *l, const struct vfs_caller *c, const struct vpath *base,
                      const char *path, unsigned flags)
{
    *l = (struct linking){0};
    int r = vfs_lookup(c, base, path, flags, &l->old);
    if (r != 0 || LIKELY(c->cred->domain == NULL))
        return r;
    struct dentry *d = l->old.dentry;
    l->dir = (struct vpath){l->old.mnt, d == l->old.mnt->root ? dentry_get(d) : dentry_parent(d)};
    ref_get(&l->dir.mnt->ref);
    r = landlock_trail_new(c, &l->dir, &l->trail);
    if (r != 0) {
        vpath_put(&l->dir);
        vpath_put(&l->old);
    }
    return r;
}

static void link_end(struct linking *l)
{
    landlock_trail_free(l->trail);
    if (l->dir.dentry != NULL)
        vpath_put(&l->dir);
    vpath_put(&l->old);
}

static int link_create(struct entry *e, const struct linking *l)
{
    struct inode *target = l->old.dentry->inode;
    const struct inode_ops *ops = entry_dir(e)->ops;
    const struct landlock_refer refer = {.from = l->trail,
                                         .to = e->trail,
                                         .same_dir = l->dir.dentry == e->w.cur.dentry,
                                         .i = target};
    int r;

    if (l->old.mnt != e->w.cur.mnt)
        return -EXDEV;
    r = landlock_refer(e->w.c->cred, &refer);
    if (r != 0)
        return r;
    if (S_ISDIR(target->mode))
        return -EPERM;
    if (inode_nlink(target) == 0 && !atomic_load(&target->linkable))
        return -ENOENT;
    r = ops->link != NULL ? ops->link(entry_dir(e), e->w.name, target) : -EPERM;
    if (r != 0)
        return r;
    atomic_store(&target->linkable, false);
    notify_self(target, NOTIFY_ATTRIB);
    return entry_created(e, inode_get(target), NULL);
}

int vfs_link(const struct vfs_caller *c, const struct vpath *old_base, const char *old,
             const struct vpath *new_base, const char *path, unsigned lookup_flags)
{
    struct linking l;
    struct entry e;
    int r = link_start(&l, c, old_base, old, lookup_flags);

    if (r != 0)
        return r;
    r = entry_walk(&e, c, new_base, path);
    if (r == 0) {
        r = entry_begin_create(&e, false, 0);
        if (r == 0) {
            r = link_create(&e, &l);
            entry_unlock(&e);
        }
        entry_end(&e);
    }
    link_end(&l);
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
        cred_file_capable(c->cred, victim->uid, victim->gid, CAP_FOWNER))
        return 0;
    return -EPERM;
}

static int remove_check(const struct entry *e, bool directory)
{
    const struct inode *victim = e->d->inode;
    int r;

    if (victim == NULL)
        return -ENOENT;
    if (!directory && e->w.slash)
        return S_ISDIR(victim->mode) ? -EISDIR : -ENOTDIR;
    r = landlock_names(e->trail, directory ? LANDLOCK_REMOVE_DIR : LANDLOCK_REMOVE_FILE);
    if (r != 0)
        return r;
    r = may_delete(e->w.c, entry_dir(e), victim);
    if (r != 0)
        return r;
    if (directory && !S_ISDIR(victim->mode))
        return -ENOTDIR;
    if (!directory && S_ISDIR(victim->mode))
        return -EISDIR;
    return mount_point_in(e->w.c->ns, e->d) ? -EBUSY : 0;
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

/* The inode may go before those who watch the directory hear of it, as in Linux. */
static void removed(struct entry *e, bool directory)
{
    struct inode *i = inode_get(e->d->inode);

    mount_point_gone(e->d);
    if (!directory)
        notify_self(i, NOTIFY_ATTRIB);
    dentry_put(e->d);
    e->d = NULL;
    notify_name(entry_dir(e), NOTIFY_DELETE, i, e->w.name, 0);
    inode_put(i);
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
        r = mount_want_write(e.w.cur.mnt);
        if (r == 0)
            r = entry_lookup(&e);
        if (r == 0)
            r = remove_check(&e, directory);
        if (r == 0)
            r = remove_do(&e, directory);
        entry_unlock(&e);
        if (r == 0)
            removed(&e, directory);
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

/* One rename: what stands where, and which inodes are locked. */
struct renaming {
    struct entry from, to;
    unsigned flags;
    bool across;                  /* from one directory to another */
    struct inode *first, *second; /* directories locked */
};

/* Order: from above to below, else by address. Only one at a time locks two that are not one above
 * the other, so no circle comes of it. */
static void rename_lock_pair(struct renaming *rn)
{
    struct dentry *a = rn->from.w.cur.dentry, *b = rn->to.w.cur.dentry;
    bool b_first = (uintptr_t)b->inode < (uintptr_t)a->inode;

    if (dentry_is_ancestor(a, b))
        b_first = false;
    else if (dentry_is_ancestor(b, a))
        b_first = true;
    rn->first = b_first ? b->inode : a->inode;
    rn->second = b_first ? a->inode : b->inode;
    mutex_lock(&rn->first->dir_mu);
    mutex_lock_nested(&rn->second->dir_mu);
}

static void rename_lock(struct renaming *rn)
{
    rn->across = entry_dir(&rn->from) != entry_dir(&rn->to);
    if (rn->across) {
        mutex_lock(&vfs_rename_mu);
        rename_lock_pair(rn);
        return;
    }
    rn->first = entry_dir(&rn->from);
    rn->second = NULL;
    mutex_lock(&rn->first->dir_mu);
}

static void rename_unlock(struct renaming *rn)
{
    if (rn->second != NULL)
        mutex_unlock(&rn->second->dir_mu);
    mutex_unlock(&rn->first->dir_mu);
    if (rn->across)
        mutex_unlock(&vfs_rename_mu);
}

/* Of the names alone. */
static int rename_check_names(const struct renaming *rn)
{
    const struct inode *moved = rn->from.d->inode, *target = rn->to.d->inode;
    bool exchange = (rn->flags & RENAME_EXCHANGE) != 0;

    if (moved == NULL)
        return -ENOENT;
    if ((rn->flags & RENAME_NOREPLACE) != 0 && target != NULL)
        return -EEXIST;
    if (exchange) {
        if (target == NULL)
            return -ENOENT;
        if (!S_ISDIR(target->mode) && rn->to.w.slash)
            return -ENOTDIR;
    }
    if (!S_ISDIR(moved->mode) && (rn->from.w.slash || (!exchange && rn->to.w.slash)))
        return -ENOTDIR;
    /* Without vfs_rename_mu both are in one directory and neither is above it. */
    if (!rn->across)
        return 0;
    if (dentry_is_ancestor(rn->from.d, rn->to.w.cur.dentry))
        return -EINVAL;
    if (target != NULL && dentry_is_ancestor(rn->to.d, rn->from.w.cur.dentry))
        return exchange ? -EINVAL : -ENOTEMPTY;
    return 0;
}

/* A directory that gets another parent has its ".." changed, which is writing to it. */
static int rename_check_parents(const struct renaming *rn)
{
    const struct vfs_caller *c = rn->from.w.c;
    struct inode *moved = rn->from.d->inode, *target = rn->to.d->inode;
    int r = 0;

    if (!rn->across)
        return 0;
    if (S_ISDIR(moved->mode))
        r = vfs_permission(c, moved, 2);
    if (r == 0 && (rn->flags & RENAME_EXCHANGE) != 0 && S_ISDIR(target->mode))
        r = vfs_permission(c, target, 2);
    return r;
}

/* What vfs_rename of Linux checks, in its order. */
static int rename_check(const struct renaming *rn)
{
    const struct vfs_caller *c = rn->from.w.c;
    const struct inode *moved = rn->from.d->inode, *target = rn->to.d->inode;
    int r = may_delete(c, entry_dir(&rn->from), moved);

    if (r == 0 && target == NULL && atomic_load(&rn->to.w.cur.dentry->unlinked))
        r = -ENOENT;
    if (r == 0)
        r = target != NULL ? may_delete(c, entry_dir(&rn->to), target)
                           : vfs_permission(c, entry_dir(&rn->to), 3);
    if (r == 0 && target != NULL && (rn->flags & RENAME_EXCHANGE) == 0 &&
        S_ISDIR(moved->mode) != S_ISDIR(target->mode))
        r = S_ISDIR(moved->mode) ? -ENOTDIR : -EISDIR;
    if (r == 0)
        r = rename_check_parents(rn);
    if (r == 0 && (mount_point_in(c->ns, rn->from.d) || mount_point_in(c->ns, rn->to.d)))
        r = -EBUSY;
    return r;
}

/* Names and parents change together for those who read the tree. */
static void rename_dentries(struct renaming *rn, char **new_name, char **old_name)
{
    bool exchange = (rn->flags & RENAME_EXCHANGE) != 0;
    struct dentry *moved = rn->from.d, *target = rn->to.d;

    dentry_drop(moved);
    dentry_drop(target);
    rwlock_wrlock(&vfs_tree_lock);
    dentry_move_locked(moved, rn->to.w.cur.dentry, new_name);
    if (exchange)
        dentry_move_locked(target, rn->from.w.cur.dentry, old_name);
    rwlock_unlock(&vfs_tree_lock);
    if (!exchange && target->inode != NULL)
        dentry_unlinked(target);
    dentry_hash(moved);
    if (exchange)
        dentry_hash(target);
}

static int rename_do(struct renaming *rn)
{
    struct inode *dir = entry_dir(&rn->from);
    char *new_name = strdup(rn->to.w.name), *old_name = strdup(rn->from.w.name);
    int r = -ENOMEM;

    if (new_name != NULL && old_name != NULL)
        r = dir->ops->rename != NULL
                ? dir->ops->rename(dir, rn->from.w.name, entry_dir(&rn->to), rn->to.w.name,
                                   rn->from.d->inode, rn->to.d->inode, rn->flags)
                : -EPERM;
    if (r == 0)
        rename_dentries(rn, &new_name, &old_name);
    free(new_name);
    free(old_name);
    return r;
}

/* A directory whose parent changes, and one that goes, are locked too: nothing may be made in the
 * one that goes, and nobody may read the other's "..". Neither is above the other, and none of the
 * directories is below either. */
static int rename_children(struct renaming *rn)
{
    struct inode *moved = rn->from.d->inode, *target = rn->to.d->inode;
    struct inode *a = rn->across && S_ISDIR(moved->mode) ? moved : NULL;
    struct inode *b = target != NULL && S_ISDIR(target->mode) ? target : NULL;

    if (a != NULL && b != NULL && (uintptr_t)b < (uintptr_t)a) {
        struct inode *swap = a;
        a = b;
        b = swap;
    }
    if (a != NULL)
        mutex_lock_nested(&a->dir_mu);
    if (b != NULL)
        mutex_lock_nested(&b->dir_mu);
    int r = rename_do(rn);
    if (b != NULL)
        mutex_unlock(&b->dir_mu);
    if (a != NULL)
        mutex_unlock(&a->dir_mu);
    return r;
}

static int rename_restricted(const struct renaming *rn)
{
    const struct landlock_refer refer = {.from = rn->from.trail,
                                         .to = rn->to.trail,
                                         .same_dir = !rn->across,
                                         .remove = true,
                                         .exchange = (rn->flags & RENAME_EXCHANGE) != 0,
                                         .i = rn->from.d->inode,
                                         .target = rn->to.d->inode};

    return landlock_refer(rn->from.w.c->cred, &refer);
}

static int rename_locked(struct renaming *rn)
{
    int r = mount_want_write(rn->from.w.cur.mnt);

    if (r == 0)
        r = entry_lookup(&rn->from);
    if (r == 0)
        r = entry_lookup(&rn->to);
    if (r == 0)
        r = rename_check_names(rn);
    if (r == 0)
        r = rename_restricted(rn);
    /* Two names of one file: nothing happens, both stay. */
    if (r != 0 || rn->from.d->inode == rn->to.d->inode)
        return r;
    r = rename_check(rn);
    return r != 0 ? r : rename_children(rn);
}

static void told_move(const struct entry *from, const struct entry *to, struct inode *moved)
{
    uint32_t cookie = notify_cookie();

    notify_name(entry_dir(from), NOTIFY_MOVED_FROM, moved, from->w.name, cookie);
    notify_name(entry_dir(to), NOTIFY_MOVED_TO, moved, to->w.name, cookie);
}

static void renamed(struct renaming *rn)
{
    struct inode *moved = rn->from.d->inode, *target = rn->to.d->inode;
    bool exchange = (rn->flags & RENAME_EXCHANGE) != 0;

    told_move(&rn->from, &rn->to, moved);
    if (target != NULL && !exchange)
        notify_self(target, NOTIFY_ATTRIB);
    notify_self(moved, NOTIFY_MOVE_SELF);
    if (!exchange)
        return;
    told_move(&rn->to, &rn->from, target);
    notify_self(target, NOTIFY_MOVE_SELF);
}

static int rename_walked(struct renaming *rn)
{
    int r;

    if (rn->from.w.cur.mnt != rn->to.w.cur.mnt)
        return -EXDEV;
    if (rn->from.w.last != WALK_NAME)
        return -EBUSY;
    if (rn->to.w.last != WALK_NAME)
        return (rn->flags & RENAME_NOREPLACE) != 0 ? -EEXIST : -EBUSY;
    rename_lock(rn);
    r = rename_locked(rn);
    rename_unlock(rn);
    if (r == 0 && rn->to.d->inode != NULL && atomic_load(&rn->to.d->unlinked))
        mount_point_gone(rn->to.d);
    if (r == 0 && rn->from.d->inode != rn->to.d->inode)
        renamed(rn);
    return r;
}

int vfs_rename(const struct vfs_caller *c, const struct vpath *old_base, const char *old,
               const struct vpath *new_base, const char *path, unsigned flags)
{
    struct renaming rn = {.flags = flags};
    int r;

    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) != 0 ||
        ((flags & RENAME_EXCHANGE) != 0 && flags != RENAME_EXCHANGE))
        return -EINVAL;
    r = entry_walk(&rn.from, c, old_base, old);
    if (r != 0)
        return r;
    r = entry_walk(&rn.to, c, new_base, path);
    if (r == 0) {
        r = rename_walked(&rn);
        entry_end(&rn.to);
    }
    entry_end(&rn.from);
    return r;
}
