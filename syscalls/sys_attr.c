/* What can be changed of a file from outside: mode, owner, times, size; and access(2). */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sentry/time/clock.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_ids.h"
#include "syscalls/sys_path.h"
#include "syscalls/sys_rw.h"

/* ---- access ---- */

/* access(2) asks for the real ids, with the capabilities those would give. */
static int access_cred(struct task *t, struct cred **out)
{
    struct cred *cr;
    int r = cred_dup(t->cred, &cr);

    if (r)
        return r;
    cr->fsuid = cr->uid;
    cr->fsgid = cr->gid;
    if (cr->uid != 0)
        cr->cap_effective = 0;
    else
        cr->cap_effective = cr->cap_permitted;
    *out = cr;
    return 0;
}

/* Most tasks ask as who they are. */
static bool access_cred_same(const struct cred *c)
{
    return c->uid == c->fsuid && c->gid == c->fsgid &&
           c->cap_effective == (c->uid == 0 ? c->cap_permitted : 0);
}

static int64_t access_at(struct task *t, int dirfd, uaddr_t path, int mode, int flags)
{
    struct cred *cr = NULL;
    struct vfs_caller c;
    struct vpath p;
    int r = 0;

    if (mode & ~7 || flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    task_vfs_caller(t, &c);
    if (!(flags & AT_EACCESS) && !access_cred_same(t->cred)) {
        r = access_cred(t, &cr);
        if (r)
            goto out_caller;
        c.cred = cr;
    }
    r = path_lookup(t, &c, dirfd, path, path_at_flags(flags), &p);
    if (r)
        goto out_cred;
    struct inode *i = p.dentry->inode;
    const uint32_t mflags = vfs_mount_flags(p.mnt);
    if (mode & X_OK && S_ISREG(i->mode) && mflags & MS_NOEXEC)
        r = -EACCES;
    if (r == 0 && mode)
        r = vfs_permission(&c, i, (unsigned)mode);
    if (r == 0 && mode & W_OK && (mflags | i->sb->flags) & MS_RDONLY &&
        (S_ISREG(i->mode) || S_ISDIR(i->mode) || S_ISLNK(i->mode)))
        r = -EROFS;
    vpath_put(&p);
out_cred:
    if (cr)
        cred_put(cr);
out_caller:
    task_vfs_caller_end(&c);
    return r;
}

int64_t sys_access(struct task *t, uaddr_t path, int mode)
{
    return access_at(t, AT_FDCWD, path, mode, 0);
}

int64_t sys_faccessat(struct task *t, int dirfd, uaddr_t path, int mode)
{
    return access_at(t, dirfd, path, mode, 0);
}

int64_t sys_faccessat2(struct task *t, int dirfd, uaddr_t path, int mode, int flags)
{
    return access_at(t, dirfd, path, mode, flags);
}

/* ---- setattr by path and by descriptor ---- */

static int64_t attr_set_at(struct task *t, int dirfd, uaddr_t path, unsigned lookup,
                           const struct vfs_setattr *a)
{
    struct vfs_caller c;
    struct vpath p;

    task_vfs_caller(t, &c);
    int r = path_lookup(t, &c, dirfd, path, lookup, &p);
    if (r == 0) {
        r = (int)rw_write_result(t, NULL, &c, vfs_setattr(&c, &p, a));
        vpath_put(&p);
    }
    task_vfs_caller_end(&c);
    return r;
}

static int64_t attr_set_fd(struct task *t, int fd, const struct vfs_setattr *a)
{
    struct vfs_caller c;
    struct file *f;
    int r = task_file(t, fd, &f);

    if (r)
        return r;
    task_vfs_caller(t, &c);
    r = vfs_setattr(&c, &f->path, a);
    task_vfs_caller_end(&c);
    file_put(f);
    return r;
}

static struct vfs_setattr attr_mode(uint32_t mode)
{
    return (struct vfs_setattr){.valid = VFS_SET_MODE, .mode = mode & 07777};
}

int64_t sys_chmod(struct task *t, uaddr_t path, uint32_t mode)
{
    const struct vfs_setattr a = attr_mode(mode);

    return attr_set_at(t, AT_FDCWD, path, VFS_FOLLOW, &a);
}

int64_t sys_fchmodat(struct task *t, int dirfd, uaddr_t path, uint32_t mode)
{
    const struct vfs_setattr a = attr_mode(mode);

    return attr_set_at(t, dirfd, path, VFS_FOLLOW, &a);
}

int64_t sys_fchmodat2(struct task *t, int dirfd, uaddr_t path, uint32_t mode, int flags)
{
    const struct vfs_setattr a = attr_mode(mode);

    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    return attr_set_at(t, dirfd, path, path_at_flags(flags), &a);
}

int64_t sys_fchmod(struct task *t, int fd, uint32_t mode)
{
    const struct vfs_setattr a = attr_mode(mode);

    return attr_set_fd(t, fd, &a);
}

/* -1 leaves an id as it is; one that is nobody here becomes -1 and is refused. */
static struct vfs_setattr attr_owner(const struct task *t, uint32_t uid, uint32_t gid)
{
    struct vfs_setattr a = {.uid = uid_in(t, uid), .gid = gid_in(t, gid)};

    if (uid != UINT32_MAX)
        a.valid |= VFS_SET_UID;
    if (gid != UINT32_MAX)
        a.valid |= VFS_SET_GID;
    return a;
}

static bool attr_owner_known(const struct vfs_setattr *a)
{
    return !((a->valid & VFS_SET_UID) && a->uid == UINT32_MAX) &&
           !((a->valid & VFS_SET_GID) && a->gid == UINT32_MAX);
}

int64_t sys_chown(struct task *t, uaddr_t path, uint32_t uid, uint32_t gid)
{
    const struct vfs_setattr a = attr_owner(t, uid, gid);

    return attr_owner_known(&a) ? attr_set_at(t, AT_FDCWD, path, VFS_FOLLOW, &a) : -EINVAL;
}

int64_t sys_lchown(struct task *t, uaddr_t path, uint32_t uid, uint32_t gid)
{
    const struct vfs_setattr a = attr_owner(t, uid, gid);

    return attr_owner_known(&a) ? attr_set_at(t, AT_FDCWD, path, 0, &a) : -EINVAL;
}

int64_t sys_fchown(struct task *t, int fd, uint32_t uid, uint32_t gid)
{
    const struct vfs_setattr a = attr_owner(t, uid, gid);

    return attr_owner_known(&a) ? attr_set_fd(t, fd, &a) : -EINVAL;
}

int64_t sys_fchownat(struct task *t, int dirfd, uaddr_t path, uint32_t uid, uint32_t gid, int flags)
{
    const struct vfs_setattr a = attr_owner(t, uid, gid);

    if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) || !attr_owner_known(&a))
        return -EINVAL;
    return attr_set_at(t, dirfd, path, path_at_flags(flags), &a);
}

/* ---- size ---- */

int64_t sys_truncate(struct task *t, uaddr_t path, int64_t size)
{
    const struct vfs_setattr a = {.valid = VFS_SET_SIZE, .size = (uint64_t)size};

    return size < 0 ? -EINVAL : attr_set_at(t, AT_FDCWD, path, VFS_FOLLOW, &a);
}

int64_t sys_ftruncate(struct task *t, int fd, int64_t size)
{
    struct vfs_caller c;
    struct file *f;

    if (size < 0)
        return -EINVAL;
    int r = task_file(t, fd, &f);
    if (r)
        return r;
    task_vfs_caller(t, &c);
    r = (int)rw_write_result(t, f, &c, vfs_ftruncate(f, size, &c));
    task_vfs_caller_end(&c);
    file_put(f);
    return r;
}

int64_t sys_fallocate(struct task *t, int fd, int mode, int64_t off, int64_t size)
{
    struct vfs_caller c;
    struct file *f;
    int r = task_file(t, fd, &f);

    if (r)
        return r;
    task_vfs_caller(t, &c);
    r = (int)rw_write_result(t, f, &c, vfs_fallocate(f, mode, off, size, &c));
    task_vfs_caller_end(&c);
    file_put(f);
    return r;
}

/* ---- times ---- */

static int64_t times_set(struct task *t, int dirfd, uaddr_t path, int flags,
                         const struct vfs_setattr *a)
{
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    if (!uaddr_is_null(path))
        return attr_set_at(t, dirfd, path, path_at_flags(flags), a);
    /* Without a path the descriptor itself is meant. */
    if (dirfd == AT_FDCWD)
        return -EFAULT;
    return flags ? -EINVAL : attr_set_fd(t, dirfd, a);
}

static int times_one(const struct lx_timespec *ts, bool access, struct vfs_setattr *a)
{
    struct vfs_time *slot = access ? &a->atime : &a->mtime;

    if (ts->nsec == UTIME_OMIT)
        return 0;
    if (ts->nsec == UTIME_NOW) {
        a->valid |= access ? VFS_SET_ATIME_NOW : VFS_SET_MTIME_NOW;
        return 0;
    }
    if (ts->nsec < 0 || ts->nsec >= NSEC_PER_SEC)
        return -EINVAL;
    *slot = (struct vfs_time){.sec = ts->sec, .nsec = (uint32_t)ts->nsec};
    a->valid |= access ? VFS_SET_ATIME : VFS_SET_MTIME;
    return 0;
}

int64_t sys_utimensat(struct task *t, int dirfd, uaddr_t path, uaddr_t times, int flags)
{
    struct vfs_setattr a = {.valid = VFS_SET_ATIME_NOW | VFS_SET_MTIME_NOW};
    struct lx_timespec ts[2];

    if (!uaddr_is_null(times)) {
        int r = copyin(&t->ua, ts, times, sizeof(ts));
        a.valid = 0;
        if (r == 0)
            r = times_one(&ts[0], true, &a);
        if (r == 0)
            r = times_one(&ts[1], false, &a);
        /* Nothing to do is done without looking at the path (do_utimes of the kernel). */
        if (r || a.valid == 0)
            return r;
    }
    return times_set(t, dirfd, path, flags, &a);
}

static int64_t times_in_usec(struct task *t, int dirfd, uaddr_t path, uaddr_t times)
{
    struct vfs_setattr a = {.valid = VFS_SET_ATIME_NOW | VFS_SET_MTIME_NOW};
    struct lx_timeval tv[2];

    if (!uaddr_is_null(times)) {
        int r = copyin(&t->ua, tv, times, sizeof(tv));
        if (r)
            return r;
        for (int i = 0; i < 2; i++)
            if (tv[i].usec < 0 || tv[i].usec >= 1000000)
                return -EINVAL;
        a.valid = VFS_SET_ATIME | VFS_SET_MTIME;
        a.atime = (struct vfs_time){tv[0].sec, (uint32_t)tv[0].usec * 1000};
        a.mtime = (struct vfs_time){tv[1].sec, (uint32_t)tv[1].usec * 1000};
    }
    return times_set(t, dirfd, path, 0, &a);
}

int64_t sys_futimesat(struct task *t, int dirfd, uaddr_t path, uaddr_t times)
{
    return times_in_usec(t, dirfd, path, times);
}

int64_t sys_utimes(struct task *t, uaddr_t path, uaddr_t times)
{
    return times_in_usec(t, AT_FDCWD, path, times);
}

int64_t sys_utime(struct task *t, uaddr_t path, uaddr_t times)
{
    struct vfs_setattr a = {.valid = VFS_SET_ATIME_NOW | VFS_SET_MTIME_NOW};
    int64_t sec[2];

    if (!uaddr_is_null(times)) {
        int r = copyin(&t->ua, sec, times, sizeof(sec));
        if (r)
            return r;
        a.valid = VFS_SET_ATIME | VFS_SET_MTIME;
        a.atime = (struct vfs_time){sec[0], 0};
        a.mtime = (struct vfs_time){sec[1], 0};
    }
    return times_set(t, AT_FDCWD, path, 0, &a);
}
