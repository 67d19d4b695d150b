/* stat, chmod, chown, utimensat, truncate, statfs, extended attributes. */
#include <linux/capability.h>
#include <stdlib.h>

#include "sentry/vfs/acl.h"
#include "sentry/vfs/filecap.h"
#include "sentry/vfs/landlock.h"
#include "sentry/vfs/lease.h"
#include "sentry/vfs/notify.h"
#include "sentry/vfs/vfs_priv.h"

static void attr_of_inode(struct inode *i, struct vfs_attr *out)
{
    mutex_lock(&i->mu);
    *out = (struct vfs_attr){
        .ino = i->ino,
        .size = i->size,
        .blocks = i->blocks,
        .rdev = i->rdev,
        .mode = i->mode,
        .nlink = i->nlink,
        .uid = i->uid,
        .gid = i->gid,
        .blksize = PAGE_SIZE,
        .atime = i->atime,
        .mtime = i->mtime,
        .ctime = i->ctime,
        .btime = i->btime,
        .dev = i->sb->dev,
    };
    mutex_unlock(&i->mu);
}

int vfs_getattr(const struct vpath *p, struct vfs_attr *out)
{
    struct inode *i = p->dentry->inode;
    int r = 0;

    attr_of_inode(i, out);
    if (i->ops->getattr != NULL)
        r = i->ops->getattr(i, out);
    out->mount_id = p->mnt->id;
    out->mount_root = vfs_is_mount_root(p);
    return r;
}

int vfs_file_getattr(struct file *f, struct vfs_attr *out)
{
    return vfs_getattr(&f->path, out);
}

#define ATIME_STALE_SECONDS (24 * 60 * 60)

static bool time_after(const struct vfs_time *a, const struct vfs_time *b)
{
    return a->sec != b->sec ? a->sec > b->sec : a->nsec > b->nsec;
}

static struct inode *atime_inode(struct inode *i)
{
    if (i->sb->keeps_atime)
        return i;
    return i->sb->ops->atime_inode != NULL ? i->sb->ops->atime_inode(i) : NULL;
}

void vfs_accessed(const struct vpath *p)
{
    struct inode *i = p->dentry->inode, *kept = atime_inode(i);
    uint32_t flags;

    if (kept == NULL)
        return;
    flags = atomic_load(&p->mnt->flags) | atomic_load(&i->sb->flags);
    if ((flags & (MS_NOATIME | MS_RDONLY)) != 0 ||
        ((flags & MS_NODIRATIME) != 0 && S_ISDIR(i->mode)))
        return;
    const struct vfs_time now = vfs_now();
    mutex_lock(&kept->mu);
    if ((flags & MS_RELATIME) == 0 || !time_after(&kept->atime, &kept->mtime) ||
        !time_after(&kept->atime, &kept->ctime) || now.sec - kept->atime.sec >= ATIME_STALE_SECONDS)
        kept->atime = now;
    mutex_unlock(&kept->mu);
}

int inode_setattr(struct inode *i, const struct vfs_setattr *a)
{
    return i->ops->setattr != NULL ? i->ops->setattr(i, a) : -EPERM;
}

int vfs_kill_privs(const struct vfs_caller *c, struct inode *i)
{
    uint32_t kill = i->mode & S_ISUID;
    struct vfs_setattr a = {.valid = VFS_SET_MODE};

    if (UNLIKELY(!atomic_load_explicit(&i->no_filecaps, memory_order_relaxed))) {
        const int r = filecap_kill(i);
        if (r != 0)
            return r;
    }
    if ((i->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
        kill |= S_ISGID;
    if (LIKELY(kill == 0) || !S_ISREG(i->mode) ||
        cred_file_capable(c->cred, i->uid, i->gid, CAP_FSETID))
        return 0;
    a.mode = i->mode & 07777 & ~kill;
    return inode_setattr(i, &a);
}

static bool attr_is_owner(const struct vfs_caller *c, const struct inode *i)
{
    return c->cred->fsuid == i->uid || cred_file_capable(c->cred, i->uid, i->gid, CAP_FOWNER);
}

int vfs_cached(struct file *f, uint64_t first, uint64_t last, const struct vfs_caller *c,
               uint64_t *out_pages)
{
    if (!file_writable(f) && !attr_is_owner(c, f->inode) && vfs_permission(c, f->inode, 2) != 0)
        return -EPERM;
    *out_pages = f->ops->cached != NULL && first <= last ? f->ops->cached(f, first, last) : 0;
    return 0;
}

static int attr_may_chown(const struct vfs_caller *c, const struct inode *i,
                          const struct vfs_setattr *a)
{
    if (cred_file_capable(c->cred, i->uid, i->gid, CAP_CHOWN))
        return 0;
    if ((a->valid & VFS_SET_UID) != 0 && (c->cred->fsuid != i->uid || a->uid != i->uid))
        return -EPERM;
    if ((a->valid & VFS_SET_GID) != 0 &&
        (c->cred->fsuid != i->uid || (a->gid != i->gid && !cred_in_group(c->cred, a->gid))))
        return -EPERM;
    return 0;
}

static int attr_may_set_times(const struct vfs_caller *c, struct inode *i, uint32_t valid)
{
    if ((valid & (VFS_SET_ATIME | VFS_SET_MTIME)) != 0)
        return attr_is_owner(c, i) ? 0 : -EPERM;
    if ((valid & (VFS_SET_ATIME_NOW | VFS_SET_MTIME_NOW)) == 0 || attr_is_owner(c, i))
        return 0;
    /* "Now" for both is all that writers may set. */
    if ((valid & VFS_SET_ATIME_NOW) == 0 || (valid & VFS_SET_MTIME_NOW) == 0)
        return -EPERM;
    return vfs_permission(c, i, 2);
}

/* chown takes set-id bits away; chmod by a stranger to the group cannot set its bit. */
static void attr_adjust_mode(const struct vfs_caller *c, const struct inode *i,
                             struct vfs_setattr *a)
{
    uint32_t gid = (a->valid & VFS_SET_GID) != 0 ? a->gid : i->gid;

    if ((a->valid & VFS_SET_MODE) != 0) {
        a->mode &= 07777;
        if (!cred_in_group(c->cred, gid) && !cred_file_capable(c->cred, i->uid, i->gid, CAP_FSETID))
            a->mode &= ~(uint32_t)S_ISGID;
    } else if ((a->valid & (VFS_SET_UID | VFS_SET_GID)) != 0 && !S_ISDIR(i->mode) &&
               (i->mode & (S_ISUID | S_ISGID)) != 0) {
        a->valid |= VFS_SET_MODE;
        a->mode = i->mode & 07777 & ~(uint32_t)S_ISUID;
        if ((i->mode & S_IXGRP) != 0)
            a->mode &= ~(uint32_t)S_ISGID;
    }
}

static int attr_check_size(const struct vfs_caller *c, struct inode *i, uint64_t size)
{
    if (S_ISDIR(i->mode))
        return -EISDIR;
    if (!S_ISREG(i->mode))
        return -EINVAL;
    if (size > INT64_MAX)
        return -EINVAL;
    return size > i->size && size > c->fsize_limit ? -EFBIG : 0;
}

static int attr_truncate_path(const struct vfs_caller *c, const struct vpath *p)
{
    struct inode *i = p->dentry->inode;
    int r = vfs_permission(c, i, 2);

    if (r == 0)
        r = landlock_path(c, p, LANDLOCK_TRUNCATE);
    if (r == 0 && atomic_load(&i->writers) < 0)
        r = -ETXTBSY;
    if (r == 0)
        r = lease_break(i, O_WRONLY, c);
    return r == 0 ? vfs_kill_privs(c, i) : r;
}

int vfs_setattr(const struct vfs_caller *c, const struct vpath *p, const struct vfs_setattr *a)
{
    struct inode *i = p->dentry->inode;
    struct vfs_setattr s = *a;
    int r = (s.valid & VFS_SET_SIZE) != 0 ? attr_check_size(c, i, s.size) : 0;

    if (r == 0)
        r = mount_want_write(p->mnt);
    if (r == 0 && (s.valid & VFS_SET_MODE) != 0 && !attr_is_owner(c, i))
        r = -EPERM;
    if (r == 0 && (s.valid & VFS_SET_MODE) != 0 && S_ISLNK(i->mode))
        r = -EOPNOTSUPP;
    if (r == 0)
        r = attr_may_chown(c, i, &s);
    if (r == 0)
        r = attr_may_set_times(c, i, s.valid);
    if (r == 0 && (s.valid & VFS_SET_SIZE) != 0)
        r = attr_truncate_path(c, p);
    if (r == 0 && (s.valid & (VFS_SET_UID | VFS_SET_GID)) != 0)
        r = filecap_kill(i);
    if (r != 0)
        return r;
    attr_adjust_mode(c, i, &s);
    r = inode_setattr(i, &s);
    if (r == 0 && (s.valid & VFS_SET_MODE) != 0)
        r = acl_chmod(i);
    if (r == 0)
        notify_setattr(p->dentry, a->valid);
    return r;
}

int vfs_ftruncate(struct file *f, int64_t size, const struct vfs_caller *c)
{
    const struct vfs_setattr a = {.valid = VFS_SET_SIZE, .size = (uint64_t)size};
    int r;

    if (size < 0)
        return -EINVAL;
    if (!S_ISREG(f->inode->mode) || !file_writable(f))
        return -EINVAL;
    r = attr_check_size(c, f->inode, a.size);
    if (r == 0)
        r = mount_want_write(f->path.mnt);
    if (r == 0 && (f->denied & LANDLOCK_TRUNCATE) != 0)
        r = -EACCES;
    if (r == 0)
        r = vfs_kill_privs(c, f->inode);
    if (r == 0)
        r = inode_setattr(f->inode, &a);
    if (r == 0)
        notify_file(f, NOTIFY_MODIFY);
    return r;
}

int vfs_statfs(const struct vpath *p, struct vfs_statfs *out)
{
    struct super *sb = p->dentry->sb;
    uint32_t flags = atomic_load(&p->mnt->flags) | (sb->flags & MS_RDONLY);
    int r;

    memset(out, 0, sizeof(*out));
    r = sb->ops->statfs(sb, out);
    if (out->frsize == 0)
        out->frsize = out->bsize;
    /* ST_VALID and the ST_* bits, which have the numbers of their MS_* ones. */
    out->flags = 0x20u | (flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME));
    return r;
}

/* ---- extended attributes ---- */

static int xattr_permission(const struct vfs_caller *c, struct inode *i, const char *name,
                            bool write)
{
    if (strncmp(name, "trusted.", 8) == 0)
        return cred_capable(c->cred, CAP_SYS_ADMIN) ? 0 : write ? -EPERM : -ENODATA;
    if (strcmp(name, FILECAP_NAME) == 0)
        return write && !cred_file_capable(c->cred, i->uid, i->gid, CAP_SETFCAP) ? -EPERM : 0;
    if (strncmp(name, "security.", 9) == 0)
        return write && !cred_capable(c->cred, CAP_SYS_ADMIN) ? -EPERM : 0;
    if (strncmp(name, "user.", 5) != 0)
        return -EOPNOTSUPP;
    if (!S_ISREG(i->mode) && !S_ISDIR(i->mode))
        return write ? -EPERM : -ENODATA;
    if (S_ISDIR(i->mode) && (i->mode & S_ISVTX) != 0 && write && !attr_is_owner(c, i))
        return -EPERM;
    return vfs_permission(c, i, write ? 2 : 4);
}

static int64_t xattr_get_filecap(const struct vfs_caller *c, struct inode *i, void *buf,
                                 size_t size)
{
    uint8_t stored[FILECAP_SIZE_MAX], shown[FILECAP_SIZE_MAX];
    int64_t n = i->ops->getxattr(i, FILECAP_NAME, stored, sizeof(stored));

    if (n >= 0)
        n = filecap_show(c->cred, stored, (size_t)n, shown);
    if (n <= 0 || size == 0)
        return n == -ERANGE ? -EINVAL : n;
    if ((uint64_t)n > size)
        return -ERANGE;
    memcpy(buf, shown, (size_t)n);
    return n;
}

static int xattr_set_filecap(const struct vfs_caller *c, struct inode *i, const void *buf,
                             size_t size, int flags)
{
    uint8_t stored[FILECAP_SIZE_MAX];
    const int64_t n = filecap_store(c->cred, buf, size, stored);

    if (n < 0)
        return (int)n;
    const int r = i->ops->setxattr(i, FILECAP_NAME, stored, (size_t)n, flags);
    atomic_store_explicit(&i->no_filecaps, false, memory_order_relaxed);
    return r;
}

int64_t vfs_getxattr(const struct vfs_caller *c, const struct vpath *p, const char *name, void *buf,
                     size_t size)
{
    struct inode *i = p->dentry->inode;

    if (acl_is_name(name))
        return acl_get(c, i, name, buf, size);
    int r = xattr_permission(c, i, name, false);
    if (r != 0)
        return r;
    if (i->ops->getxattr == NULL)
        return -EOPNOTSUPP;
    return strcmp(name, FILECAP_NAME) == 0 ? xattr_get_filecap(c, i, buf, size)
                                           : i->ops->getxattr(i, name, buf, size);
}

int vfs_setxattr(const struct vfs_caller *c, const struct vpath *p, const char *name,
                 const void *buf, size_t size, int flags)
{
    struct inode *i = p->dentry->inode;
    int r = mount_want_write(p->mnt);

    if (r == 0 && !acl_is_name(name))
        r = xattr_permission(c, i, name, true);
    if (r != 0)
        return r;
    if (i->ops->setxattr == NULL)
        return -EOPNOTSUPP;
    if (acl_is_name(name))
        r = acl_set(c, i, name, buf, size);
    else
        r = strcmp(name, FILECAP_NAME) == 0 ? xattr_set_filecap(c, i, buf, size, flags)
                                            : i->ops->setxattr(i, name, buf, size, flags);
    if (r == 0)
        notify_dentry(p->dentry, NOTIFY_ATTRIB);
    return r;
}

/* Without those that only an administrator may see. */
static int64_t xattr_list_visible(struct inode *i, char *buf, size_t size)
{
    char *all = malloc(LIMIT_XATTR_SIZE);
    int64_t n = all != NULL ? i->ops->listxattr(i, all, LIMIT_XATTR_SIZE) : -ENOMEM;
    size_t used = 0;

    for (int64_t at = 0; at < n;) {
        size_t len = strnlen(all + at, (size_t)(n - at)) + 1;
        bool hidden = strncmp(all + at, "trusted.", 8) == 0;
        if (!hidden && size > 0 && len <= size - MIN(used, size))
            memcpy(buf + used, all + at, len);
        used += hidden ? 0 : len;
        at += (int64_t)len;
    }
    free(all);
    return n < 0 ? n : size > 0 && used > size ? -ERANGE : (int64_t)used;
}

int64_t vfs_listxattr(const struct vfs_caller *c, const struct vpath *p, char *buf, size_t size)
{
    struct inode *i = p->dentry->inode;

    if (i->ops->listxattr == NULL)
        return 0;
    if (cred_capable(c->cred, CAP_SYS_ADMIN))
        return i->ops->listxattr(i, buf, size);
    return xattr_list_visible(i, buf, size);
}

int vfs_removexattr(const struct vfs_caller *c, const struct vpath *p, const char *name)
{
    struct inode *i = p->dentry->inode;
    int r = mount_want_write(p->mnt);

    if (r == 0 && !acl_is_name(name))
        r = xattr_permission(c, i, name, true);
    if (r != 0)
        return r;
    if (acl_is_name(name))
        r = acl_set(c, i, name, NULL, 0);
    else
        r = i->ops->removexattr != NULL ? i->ops->removexattr(i, name) : -EOPNOTSUPP;
    if (r == 0)
        notify_dentry(p->dentry, NOTIFY_ATTRIB);
    return r;
}

int64_t vfs_readlink(const struct vfs_caller *c, const struct vpath *p, char *buf, size_t size)
{
    struct inode *i = p->dentry->inode;

    if (!S_ISLNK(i->mode) || i->ops->readlink == NULL)
        return -EINVAL;
    vfs_accessed(p);
    return i->ops->readlink(i, c, buf, size);
}
