/* stat, statx, statfs (fs/stat.c, fs/statfs.c). */
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include "syscalls/handlers.h"
#include "syscalls/sys_ids.h"
#include "syscalls/sys_path.h"

/* Newer than the headers here. */
#define STATX_MNT_ID_UNIQUE_ 0x4000u
#define STATX_KNOWN (STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID)

static struct timespec stat_time(struct vfs_time v)
{
    return (struct timespec){v.sec, v.nsec};
}

static int stat_out(struct task *t, const struct vfs_attr *a, uaddr_t buf)
{
    struct stat st;

    memset(&st, 0, sizeof(st));
    st.st_dev = a->dev;
    st.st_ino = a->ino;
    st.st_nlink = a->nlink;
    st.st_mode = a->mode;
    st.st_uid = uid_out(t, a->uid);
    st.st_gid = gid_out(t, a->gid);
    st.st_rdev = a->rdev;
    st.st_size = (off_t)a->size;
    st.st_blksize = a->blksize;
    st.st_blocks = (blkcnt_t)a->blocks;
    st.st_atim = stat_time(a->atime);
    st.st_mtim = stat_time(a->mtime);
    st.st_ctim = stat_time(a->ctime);
    return copyout_obj(&t->ua, buf, &st);
}

static int stat_place(struct task *t, int dirfd, uaddr_t path, int flags, struct vfs_attr *out)
{
    struct path_place x;
    int r = path_place_at(t, dirfd, path, path_at_flags(flags) | VFS_GETATTR, &x);

    if (r == 0) {
        r = vfs_getattr(&x.p, out);
        path_place_end(&x);
    }
    vfs_walk_end();
    return r;
}

int64_t sys_newfstatat(struct task *t, int dirfd, uaddr_t path, uaddr_t buf, int flags)
{
    struct vfs_attr a;
    int r;

    if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH)) != 0)
        return -EINVAL;
    r = stat_place(t, dirfd, path, flags, &a);
    return r != 0 ? r : stat_out(t, &a, buf);
}

int64_t sys_stat(struct task *t, uaddr_t path, uaddr_t buf)
{
    return sys_newfstatat(t, AT_FDCWD, path, buf, 0);
}

int64_t sys_lstat(struct task *t, uaddr_t path, uaddr_t buf)
{
    return sys_newfstatat(t, AT_FDCWD, path, buf, AT_SYMLINK_NOFOLLOW);
}

int64_t sys_fstat(struct task *t, int fd, uaddr_t buf)
{
    struct vfs_attr a;
    struct file *f;
    int r = task_file_any(t, fd, &f);

    if (r != 0)
        return r;
    r = vfs_file_getattr(f, &a);
    file_put(f);
    return r != 0 ? r : stat_out(t, &a, buf);
}

static struct statx_timestamp statx_time(struct vfs_time v)
{
    return (struct statx_timestamp){.tv_sec = v.sec, .tv_nsec = v.nsec};
}

static void statx_fill(const struct task *t, const struct vfs_attr *a, unsigned mask,
                       struct statx *x)
{
    memset(x, 0, sizeof(*x));
    x->stx_mask = STATX_KNOWN;
    x->stx_blksize = a->blksize;
    x->stx_nlink = a->nlink;
    x->stx_uid = uid_out(t, a->uid);
    x->stx_gid = gid_out(t, a->gid);
    x->stx_mode = (uint16_t)a->mode;
    x->stx_ino = a->ino;
    x->stx_size = a->size;
    x->stx_blocks = a->blocks;
    x->stx_atime = statx_time(a->atime);
    x->stx_btime = statx_time(a->btime);
    x->stx_ctime = statx_time(a->ctime);
    x->stx_mtime = statx_time(a->mtime);
    x->stx_rdev_major = major(a->rdev);
    x->stx_rdev_minor = minor(a->rdev);
    x->stx_dev_major = major(a->dev);
    x->stx_dev_minor = minor(a->dev);
    x->stx_mnt_id = a->mount_id;
    if (mask & STATX_MNT_ID_UNIQUE_) {
        x->stx_mnt_id += VFS_MOUNT_ID_UNIQUE;
        x->stx_mask ^= STATX_MNT_ID | STATX_MNT_ID_UNIQUE_;
    }
    x->stx_attributes_mask = STATX_ATTR_MOUNT_ROOT;
    if (a->mount_root)
        x->stx_attributes = STATX_ATTR_MOUNT_ROOT;
    if (a->btime.sec == 0)
        x->stx_mask &= ~STATX_BTIME;
}

int64_t sys_statx(struct task *t, int dirfd, uaddr_t path, int flags, unsigned mask, uaddr_t buf)
{
    const int sync = AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC;
    struct vfs_attr a;
    struct statx x;
    int r;

    if ((mask & STATX__RESERVED) != 0 || (flags & sync) == sync ||
        (flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | sync)) != 0)
        return -EINVAL;
    r = stat_place(t, dirfd, path, flags & ~sync, &a);
    if (r != 0)
        return r;
    statx_fill(t, &a, mask, &x);
    return copyout_obj(&t->ua, buf, &x);
}

/* ---- statfs ---- */

static int statfs_out(struct task *t, const struct vpath *p, uaddr_t buf)
{
    struct vfs_statfs s;
    struct statfs out;
    int r = vfs_statfs(p, &s);

    if (r != 0)
        return r;
    memset(&out, 0, sizeof(out));
    out.f_type = (__fsword_t)s.type;
    out.f_bsize = (__fsword_t)s.bsize;
    out.f_blocks = s.blocks;
    out.f_bfree = s.bfree;
    out.f_bavail = s.bavail;
    out.f_files = s.files;
    out.f_ffree = s.ffree;
    memcpy(&out.f_fsid, &s.fsid, sizeof(out.f_fsid));
    out.f_namelen = (__fsword_t)s.namelen;
    out.f_frsize = (__fsword_t)s.frsize;
    out.f_flags = (__fsword_t)s.flags;
    return copyout_obj(&t->ua, buf, &out);
}

int64_t sys_statfs(struct task *t, uaddr_t path, uaddr_t buf)
{
    struct path_place x;
    int r = path_place_at(t, AT_FDCWD, path, VFS_FOLLOW, &x);

    if (r != 0)
        return r;
    r = statfs_out(t, &x.p, buf);
    path_place_end(&x);
    return r;
}

int64_t sys_fstatfs(struct task *t, int fd, uaddr_t buf)
{
    struct file *f;
    int r = task_file_any(t, fd, &f);

    if (r != 0)
        return r;
    r = statfs_out(t, &f->path, buf);
    file_put(f);
    return r;
}

/* ---- what a link says ---- */

static bool readlink_was_empty(struct task *t, uaddr_t path)
{
    char first;

    return copyin(&t->ua, &first, path, 1) == 0 && first == '\0';
}

int64_t sys_readlinkat(struct task *t, int dirfd, uaddr_t path, uaddr_t buf, int size)
{
    struct path_place x;
    char *text;

    if (size <= 0)
        return -EINVAL;
    int64_t n = path_place_at(t, dirfd, path, VFS_EMPTY_PATH, &x);
    if (n != 0)
        return n;
    text = malloc(VFS_PATH_MAX);
    n = text != NULL ? vfs_readlink(&x.c, &x.p, text, VFS_PATH_MAX) : -ENOMEM;
    /* "" is for links opened with O_PATH; anything else it names does not exist. */
    if (n == -EINVAL && readlink_was_empty(t, path))
        n = -ENOENT;
    path_place_end(&x);
    n = MIN(n, (int64_t)size);
    if (n > 0 && copyout(&t->ua, buf, text, (size_t)n) != 0)
        n = -EFAULT;
    free(text);
    return n;
}

int64_t sys_readlink(struct task *t, uaddr_t path, uaddr_t buf, int size)
{
    return sys_readlinkat(t, AT_FDCWD, path, buf, size);
}
