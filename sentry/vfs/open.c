/* open(2): finding or making the inode, checks, and the file around it. */
#include <linux/capability.h>
#include <stdio.h>

#include "sentry/vfs/acl.h"
#include "sentry/vfs/landlock.h"
#include "sentry/vfs/lease.h"
#include "sentry/vfs/notify.h"
#include "sentry/vfs/special.h"
#include "sentry/vfs/vfs_priv.h"

static unsigned open_access_mask(uint32_t flags)
{
    switch (flags & O_ACCMODE) {
    case O_RDONLY:
        return 4;
    case O_WRONLY:
        return 2;
    default:
        return 6;
    }
}

/* One more writer, unless somebody executes it. */
static int inode_get_write(struct inode *i)
{
    int32_t v = atomic_load(&i->writers);

    do {
        if (v < 0)
            return -ETXTBSY;
    } while (!atomic_compare_exchange_weak(&i->writers, &v, v + 1));
    return 0;
}

static int open_check_kind(const struct vpath *p, uint32_t flags)
{
    const struct inode *i = p->dentry->inode;
    bool write = (flags & O_ACCMODE) != O_RDONLY;

    if ((flags & O_DIRECTORY) != 0 && !S_ISDIR(i->mode))
        return -ENOTDIR;
    if ((flags & O_TRUNC) != 0 && S_ISREG(i->mode) && mount_want_write(p->mnt) != 0)
        return -EROFS;
    if (S_ISLNK(i->mode))
        return -ELOOP;
    if (S_ISDIR(i->mode) && (write || (flags & (O_CREAT | O_TRUNC)) != 0))
        return -EISDIR;
    if ((S_ISCHR(i->mode) || S_ISBLK(i->mode)) && (atomic_load(&p->mnt->flags) & MS_NODEV) != 0)
        return -EACCES;
    /* Devices and FIFOs are not part of what a read-only file system protects. */
    return write && S_ISREG(i->mode) && (i->sb->flags & MS_RDONLY) != 0 ? -EROFS : 0;
}

static int open_check_access(const struct vfs_caller *c, struct inode *i, uint32_t flags)
{
    unsigned mask = open_access_mask(flags);

    if ((flags & O_TRUNC) != 0)
        mask |= 2;
    int r = vfs_permission(c, i, mask);
    if (r == 0 && (flags & O_NOATIME) != 0 && c->cred->fsuid != i->uid &&
        !cred_file_capable(c->cred, i->uid, i->gid, CAP_FOWNER))
        r = -EPERM;
    return r;
}

static int open_ops(struct file *f, const struct vfs_caller *c)
{
    struct inode *i = f->inode;
    const struct vfs_special_ops *special = vfs_special();

    if (S_ISSOCK(i->mode) && i->ops->open == NULL)
        return -ENXIO;
    /* Opened again by way of /proc/PID/fd. */
    if (f->path.mnt == mount_anon() && i->ops->open != NULL)
        return i->ops->open(i, f, c);
    if (S_ISFIFO(i->mode) && i->ops->open_fifo != NULL)
        return i->ops->open_fifo(i, f, c);
    if (S_ISFIFO(i->mode) && special != NULL)
        return special->open_fifo(i, f, c);
    if ((S_ISCHR(i->mode) || S_ISBLK(i->mode)) && special != NULL)
        return special->open_device(i, f, c);
    return i->ops->open != NULL ? i->ops->open(i, f, c) : -ENXIO;
}

static int open_truncate(struct inode *i, const struct vfs_caller *c)
{
    const struct vfs_setattr a = {.valid = VFS_SET_SIZE};
    int r = vfs_kill_privs(c, i);

    return r != 0 ? r : inode_setattr(i, &a);
}

/* Leave to write: of the mount, and of the inode, which nobody may execute meanwhile. */
static int open_get_write(const struct vpath *p)
{
    int r = mount_get_writer(p->mnt);

    if (r != 0)
        return r;
    r = inode_get_write(p->dentry->inode);
    if (r != 0)
        mount_put_writer(p->mnt);
    return r;
}

void file_put_write(const struct vpath *p)
{
    atomic_fetch_sub(&p->dentry->inode->writers, 1);
    mount_put_writer(p->mnt);
}

static int open_made(const struct vfs_caller *c, const struct vpath *p, uint32_t flags,
                     struct file **out)
{
    struct file *f;
    int r = file_alloc(
        p, flags & ~(uint32_t)(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC | (O_TMPFILE & ~O_DIRECTORY)),
        &f);

    if (r != 0)
        return r;
    if ((flags & O_PATH) == 0)
        r = open_ops(f, c);
    if (r != 0) {
        file_discard(f);
        return r;
    }
    /* Only opening a terminal looks at it. */
    if (UNLIKELY((flags & O_NOCTTY) != 0))
        atomic_fetch_and(&f->flags, ~(uint32_t)O_NOCTTY);
    *out = f;
    return 0;
}

/* The file for a place that has been found and checked. */
static int open_file(const struct vfs_caller *c, const struct vpath *p, uint32_t flags,
                     bool created, struct file **out)
{
    struct inode *i = p->dentry->inode;
    bool regular = S_ISREG(i->mode) && (flags & O_PATH) == 0;
    bool writer = regular && (flags & O_ACCMODE) != O_RDONLY;
    bool reader = regular && !writer;
    bool truncate = regular && (flags & O_TRUNC) != 0 && !created;
    uint32_t denied = 0;
    int r = (flags & O_PATH) == 0 ? landlock_open(c, p, flags, false, &denied) : 0;

    if (r == 0 && truncate && (denied & LANDLOCK_TRUNCATE) != 0)
        r = -EACCES;
    if (r == 0 && (writer || truncate))
        r = open_get_write(p);
    if (r != 0)
        return r;
    if (reader)
        atomic_fetch_add(&i->readers, 1);
    if (regular)
        r = lease_break(i, flags, c);
    if (r == 0 && truncate)
        r = open_truncate(i, c);
    if (r == 0)
        r = open_made(c, p, flags, out);
    if (r == 0) {
        (*out)->counted_writer = writer;
        (*out)->counted_reader = reader;
        (*out)->denied = denied;
        if ((flags & O_PATH) == 0)
            notify_file(*out, NOTIFY_OPEN);
        if (truncate)
            notify_file(*out, NOTIFY_MODIFY);
    }
    if ((writer || truncate) && (r != 0 || !writer))
        file_put_write(p);
    if (reader && r != 0)
        atomic_fetch_sub(&i->readers, 1);
    return r;
}

int vfs_open_path(const struct vfs_caller *c, const struct vpath *p, uint32_t flags,
                  struct file **out_file)
{
    int r = 0;

    if ((flags & O_PATH) != 0) {
        flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
        if ((flags & O_DIRECTORY) != 0 && !S_ISDIR(p->dentry->inode->mode))
            return -ENOTDIR;
        return open_file(c, p, flags, false, out_file);
    }
    r = open_check_kind(p, flags);
    if (r == 0)
        r = open_check_access(c, p->dentry->inode, flags);
    return r != 0 ? r : open_file(c, p, flags, false, out_file);
}

/* ---- O_CREAT ---- */

/* w->name in w->cur exists no more than the lock is held: finds or makes it. */
static int create_locked(struct walk *w, const struct landlock_trail *trail, uint32_t mode,
                         struct vpath *out, bool *out_created)
{
    struct dentry *dir = w->cur.dentry, *d;
    struct inode *inode;
    int r = dentry_lookup_locked(dir, w->name, w->name_len, &d);

    *out_created = false;
    if (r != 0)
        return r;
    if (d->inode == NULL) {
        dentry_put(d);
        r = mount_want_write(w->cur.mnt);
        if (r == 0)
            r = landlock_names(trail, LANDLOCK_MAKE_REG);
        if (r == 0)
            r = vfs_permission(w->c, dir->inode, 3);
        if (r == 0 && atomic_load(&dir->unlinked))
            r = -ENOENT;
        if (r == 0)
            r = dir->inode->ops->create != NULL
                    ? acl_create(w->c, dir->inode, w->name, S_IFREG | (mode & 07777), 0, &inode)
                    : -EACCES;
        if (r == 0)
            atomic_store_explicit(&inode->no_filecaps, true, memory_order_relaxed);
        if (r == 0)
            r = dentry_instantiate(dir, w->name, inode, &d);
        *out_created = r == 0;
    }
    if (r != 0)
        return r;
    *out = (struct vpath){w->cur.mnt, d};
    ref_get(&out->mnt->ref);
    return 0;
}

/* Most files that are opened this way are there: then the directory need not be locked. */
static int create_find(struct walk *w, uint32_t mode, struct vpath *out, bool *out_created)
{
    struct dentry *dir = w->cur.dentry;
    struct landlock_trail *trail;
    int r;

    *out_created = false;
    r = walk_child(w, out);
    if (r != 0 || out->dentry->inode != NULL)
        return r;
    vpath_put(out);
    r = landlock_trail_new(w->c, &w->cur, &trail);
    if (r != 0)
        return r;
    mutex_lock(&dir->inode->dir_mu);
    r = create_locked(w, trail, mode, out, out_created);
    mutex_unlock(&dir->inode->dir_mu);
    landlock_trail_free(trail);
    if (r == 0 && *out_created)
        notify_name(dir->inode, NOTIFY_CREATE, out->dentry->inode, w->name, 0);
    if (r == 0 && !*out_created && mount_cross_down(out) && (w->flags & VFS_NO_XDEV)) {
        vpath_put(out);
        r = -EXDEV;
    }
    return r;
}

/* The last component is no name: "/", "..", or what a magic link led to. */
static int create_nothing(struct walk *w, uint32_t flags, struct file **out)
{
    int r = w->last == WALK_NOTHING ? 0 : walk_last_dots(w);

    if (r == 0 && (flags & O_EXCL) != 0)
        r = -EEXIST;
    return r != 0 ? r : vfs_open_path(w->c, &w->cur, flags, out);
}

static int create_open(struct walk *w, uint32_t flags, uint32_t mode, struct file **out)
{
    bool created = false;
    struct vpath p;

    for (;;) {
        int r = walk_parent(w);
        if (r != 0)
            return r;
        if (w->last != WALK_NAME)
            return create_nothing(w, flags, out);
        if (w->slash)
            return -EISDIR;
        r = create_find(w, mode, &p, &created);
        if (r != 0)
            return r;
        if (!created && (flags & O_EXCL) != 0)
            r = -EEXIST;
        if (r != 0 || !S_ISLNK(p.dentry->inode->mode) || (flags & O_NOFOLLOW) != 0) {
            if (r == 0)
                r = created ? open_file(w->c, &p, flags, true, out)
                            : vfs_open_path(w->c, &p, flags, out);
            vpath_put(&p);
            return r;
        }
        r = walk_follow(w, &p);
        vpath_put(&p);
        if (r != 0)
            return r;
    }
}

static int open_create(const struct vfs_caller *c, const struct vpath *base, const char *path,
                       uint32_t flags, uint32_t mode, unsigned resolve, struct file **out)
{
    struct walk w;
    int r;

    if ((flags & O_DIRECTORY) != 0)
        return -EINVAL;
    r = walk_init(&w, c, base, path, resolve);
    if (r != 0)
        return r;
    r = create_open(&w, flags, mode, out);
    walk_fini(&w);
    return r;
}

/* ---- O_TMPFILE ---- */

/* A file in dir that has no name; its dentry is one that was unlinked from the start. */
static int tmpfile_make(const struct vfs_caller *c, const struct vpath *dir, uint32_t mode,
                        struct vpath *out)
{
    struct inode *d = dir->dentry->inode, *inode;
    char name[24];
    int r = mount_want_write(dir->mnt);

    if (r == 0)
        r = vfs_permission(c, d, 3);
    if (r == 0)
        r = d->ops->tmpfile != NULL ? acl_create(c, d, NULL, S_IFREG | (mode & 07777), 0, &inode)
                                    : -EOPNOTSUPP;
    if (r != 0)
        return r;
    int len = snprintf(name, sizeof(name), "#%llu", (unsigned long long)inode->ino);
    r = dentry_new(dir->dentry->sb, inode, dir->dentry, name, (size_t)len, &out->dentry);
    if (r != 0) {
        inode_put(inode);
        return r;
    }
    atomic_store(&out->dentry->unlinked, true);
    out->mnt = dir->mnt;
    ref_get(&out->mnt->ref);
    return 0;
}

static int open_tmpfile(const struct vfs_caller *c, const struct vpath *base, const char *path,
                        uint32_t flags, uint32_t mode, unsigned resolve, struct file **out)
{
    struct vpath dir, p;
    int r;

    if ((flags & O_TMPFILE) != O_TMPFILE || (flags & O_CREAT) != 0 ||
        (flags & O_ACCMODE) == O_RDONLY)
        return -EINVAL;
    if ((flags & O_NOFOLLOW) == 0)
        resolve |= VFS_FOLLOW;
    r = vfs_lookup(c, base, path, resolve | VFS_DIRECTORY, &dir);
    if (r != 0)
        return r;
    r = tmpfile_make(c, &dir, mode, &p);
    vpath_put(&dir);
    if (r != 0)
        return r;
    atomic_store(&p.dentry->inode->linkable, (flags & O_EXCL) == 0);
    r = open_file(c, &p, flags & ~(uint32_t)O_DIRECTORY, true, out);
    vpath_put(&p);
    return r;
}

int vfs_open(const struct vfs_caller *c, const struct vpath *base, const char *path, uint32_t flags,
             uint32_t mode, unsigned resolve, struct file **out_file)
{
    struct vpath p;
    int r;

    if ((flags & O_PATH) != 0)
        flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    if ((flags & (O_TMPFILE & ~O_DIRECTORY)) != 0)
        return open_tmpfile(c, base, path, flags, mode, resolve, out_file);
    if ((flags & O_CREAT) != 0)
        return open_create(c, base, path, flags, mode, resolve, out_file);
    r = vfs_lookup(c, base, path, resolve | ((flags & O_NOFOLLOW) != 0 ? 0 : VFS_FOLLOW), &p);
    if (r != 0)
        return r;
    r = vfs_open_path(c, &p, flags, out_file);
    vpath_put(&p);
    return r;
}
