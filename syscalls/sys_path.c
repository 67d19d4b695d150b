/* Calls that make, remove and rename names, and those that open them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sentry/kernel/account.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_path.h"

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20
#endif

#define OPEN_FLAGS                                                                                 \
    ((uint32_t)(O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK |        \
                O_SYNC | O_ASYNC | O_DIRECT | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC |   \
                O_PATH | O_TMPFILE) |                                                              \
     LX_O_LARGEFILE)
#define OPEN_PATH_FLAGS ((uint32_t)(O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC))

/* ---- open ---- */

static int64_t open_at(struct task *t, int dirfd, uaddr_t path, uint32_t flags, uint32_t mode,
                       unsigned resolve)
{
    struct vfs_caller c;
    struct path_arg a;
    struct file *f;
    int r = path_arg_get(t, dirfd, path, false, &a);

    if (r)
        return r;
    /* Their root is the descriptor's directory, for absolute paths too. */
    if (a.text[0] == '/' && resolve & (VFS_IN_ROOT | VFS_BENEATH)) {
        r = task_at_base(t, dirfd, &a.has_base, &a.base);
        if (r) {
            path_arg_put(&a);
            return r;
        }
    }
    task_vfs_caller(t, &c);
    r = vfs_open(&c, path_arg_base(&a), a.text, flags, mode, resolve, &f);
    task_vfs_caller_end(&c);
    path_arg_put(&a);
    if (r)
        return r;
    r = task_fd_install(t, f, flags & O_CLOEXEC, 0);
    file_put(f);
    return r;
}

/* open(2) forgets what it does not know; openat2(2) refuses it. */
static int64_t open_plain(struct task *t, int dirfd, uaddr_t path, int flags, uint32_t mode)
{
    uint32_t fl = ((uint32_t)flags & OPEN_FLAGS) | LX_O_LARGEFILE;

    if (fl & O_PATH)
        fl &= OPEN_PATH_FLAGS;
    return open_at(t, dirfd, path, fl, mode & 07777, 0);
}

int64_t sys_open(struct task *t, uaddr_t path, int flags, uint32_t mode)
{
    return open_plain(t, AT_FDCWD, path, flags, mode);
}

int64_t sys_openat(struct task *t, int dirfd, uaddr_t path, int flags, uint32_t mode)
{
    return open_plain(t, dirfd, path, flags, mode);
}

int64_t sys_creat(struct task *t, uaddr_t path, uint32_t mode)
{
    return open_plain(t, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

/* RESOLVE_* as look-up flags; -EINVAL for what is not known. */
static int open_resolve(uint64_t resolve, unsigned *out)
{
    static const struct {
        uint64_t resolve;
        unsigned flag;
    } map[] = {
        {RESOLVE_NO_XDEV, VFS_NO_XDEV},         {RESOLVE_NO_MAGICLINKS, VFS_NO_MAGICLINKS},
        {RESOLVE_NO_SYMLINKS, VFS_NO_SYMLINKS}, {RESOLVE_BENEATH, VFS_BENEATH},
        {RESOLVE_IN_ROOT, VFS_IN_ROOT},         {RESOLVE_CACHED, VFS_CACHED},
    };
    uint64_t left = resolve;

    *out = 0;
    for (size_t i = 0; i < ARRAY_SIZE(map); i++) {
        if (resolve & map[i].resolve)
            *out |= map[i].flag;
        left &= ~map[i].resolve;
    }
    if ((*out & VFS_BENEATH) && (*out & VFS_IN_ROOT))
        return -EINVAL;
    return left ? -EINVAL : 0;
}

int64_t sys_openat2(struct task *t, int dirfd, uaddr_t path, uaddr_t how_addr, uint64_t size)
{
    struct open_how how;
    unsigned resolve;

    if (size < sizeof(how))
        return -EINVAL;
    if (size > PAGE_SIZE)
        return -E2BIG;
    int r = copyin_struct(&t->ua, &how, sizeof(how), how_addr, (size_t)size);
    if (r)
        return r;
    if (how.flags & ~(uint64_t)OPEN_FLAGS || how.mode & ~(uint64_t)07777)
        return -EINVAL;
    r = open_resolve(how.resolve, &resolve);
    if (r)
        return r;
    uint32_t fl = (uint32_t)how.flags;
    bool makes = fl & O_CREAT || (fl & O_TMPFILE) == O_TMPFILE;
    if (resolve & VFS_CACHED && (makes || fl & O_TRUNC))
        return -EAGAIN;
    if ((!makes && how.mode) || (fl & O_PATH && fl & ~OPEN_PATH_FLAGS))
        return -EINVAL;
    if (!(fl & O_PATH))
        fl |= LX_O_LARGEFILE;
    return open_at(t, dirfd, path, fl, (uint32_t)how.mode, resolve);
}

/* ---- one name ---- */

typedef int (*path_fn)(const struct vfs_caller *c, const struct vpath *base, const char *path,
                       uint32_t mode, uint64_t dev);

static int64_t path_call(struct task *t, int dirfd, uaddr_t path, path_fn fn, uint32_t mode,
                         uint64_t dev)
{
    struct vfs_caller c;
    struct path_arg a;
    int r = path_arg_get(t, dirfd, path, false, &a);

    if (r)
        return r;
    task_vfs_caller(t, &c);
    r = fn(&c, path_arg_base(&a), a.text, mode, dev);
    task_vfs_caller_end(&c);
    path_arg_put(&a);
    return r;
}

static int path_mkdir(const struct vfs_caller *c, const struct vpath *base, const char *path,
                      uint32_t mode, uint64_t dev)
{
    (void)dev;
    return vfs_mkdir(c, base, path, mode);
}

static int path_unlink(const struct vfs_caller *c, const struct vpath *base, const char *path,
                       uint32_t mode, uint64_t dev)
{
    (void)mode;
    (void)dev;
    return vfs_unlink(c, base, path);
}

static int path_rmdir(const struct vfs_caller *c, const struct vpath *base, const char *path,
                      uint32_t mode, uint64_t dev)
{
    (void)mode;
    (void)dev;
    return vfs_rmdir(c, base, path);
}

int64_t sys_mkdir(struct task *t, uaddr_t path, uint32_t mode)
{
    return sys_mkdirat(t, AT_FDCWD, path, mode);
}

int64_t sys_mkdirat(struct task *t, int dirfd, uaddr_t path, uint32_t mode)
{
    return path_call(t, dirfd, path, path_mkdir, mode & 01777, 0);
}

int64_t sys_unlink(struct task *t, uaddr_t path)
{
    return path_call(t, AT_FDCWD, path, path_unlink, 0, 0);
}

int64_t sys_rmdir(struct task *t, uaddr_t path)
{
    return path_call(t, AT_FDCWD, path, path_rmdir, 0, 0);
}

int64_t sys_unlinkat(struct task *t, int dirfd, uaddr_t path, int flags)
{
    if (flags & ~AT_REMOVEDIR)
        return -EINVAL;
    return path_call(t, dirfd, path, flags & AT_REMOVEDIR ? path_rmdir : path_unlink, 0, 0);
}

/* The device number of the call, in the form that stat shows: both halves fit 32 bits. */
static int64_t mknod_at(struct task *t, int dirfd, uaddr_t path, uint32_t mode, unsigned dev)
{
    if ((mode & S_IFMT) == 0)
        mode |= S_IFREG;
    if (!S_ISREG(mode) && !S_ISCHR(mode) && !S_ISBLK(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode))
        return S_ISDIR(mode) ? -EPERM : -EINVAL;
    if (!S_ISCHR(mode) && !S_ISBLK(mode))
        dev = 0;
    int r = account_may_mknod(t, mode, dev);
    return r != 0 ? r : path_call(t, dirfd, path, vfs_mknod, mode & (S_IFMT | 07777), dev);
}

int64_t sys_mknod(struct task *t, uaddr_t path, uint32_t mode, unsigned dev)
{
    return mknod_at(t, AT_FDCWD, path, mode, dev);
}

int64_t sys_mknodat(struct task *t, int dirfd, uaddr_t path, uint32_t mode, unsigned dev)
{
    return mknod_at(t, dirfd, path, mode, dev);
}

/* ---- two names ---- */

int64_t sys_rename(struct task *t, uaddr_t old, uaddr_t path)
{
    return sys_renameat2(t, AT_FDCWD, old, AT_FDCWD, path, 0);
}

int64_t sys_renameat(struct task *t, int old_dirfd, uaddr_t old, int dirfd, uaddr_t path)
{
    return sys_renameat2(t, old_dirfd, old, dirfd, path, 0);
}

int64_t sys_renameat2(struct task *t, int old_dirfd, uaddr_t old, int dirfd, uaddr_t path,
                      unsigned flags)
{
    struct path_arg from, to;
    struct vfs_caller c;

    if (flags & ~7u || ((flags & 2) && (flags & 5)))
        return -EINVAL;
    int r = path_arg_get(t, old_dirfd, old, false, &from);
    if (r)
        return r;
    r = path_arg_get(t, dirfd, path, false, &to);
    if (r == 0) {
        task_vfs_caller(t, &c);
        r = vfs_rename(&c, path_arg_base(&from), from.text, path_arg_base(&to), to.text, flags);
        task_vfs_caller_end(&c);
        path_arg_put(&to);
    }
    path_arg_put(&from);
    return r;
}

int64_t sys_link(struct task *t, uaddr_t old, uaddr_t path)
{
    return sys_linkat(t, AT_FDCWD, old, AT_FDCWD, path, 0);
}

int64_t sys_linkat(struct task *t, int old_dirfd, uaddr_t old, int dirfd, uaddr_t path, int flags)
{
    const unsigned lookup =
        (flags & AT_SYMLINK_FOLLOW ? VFS_FOLLOW : 0) | (flags & AT_EMPTY_PATH ? VFS_EMPTY_PATH : 0);
    struct path_arg from, to;
    struct vfs_caller c;

    if (flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    int r = path_arg_get(t, old_dirfd, old, flags & AT_EMPTY_PATH, &from);
    if (r)
        return r;
    r = path_arg_get(t, dirfd, path, false, &to);
    if (r == 0) {
        task_vfs_caller(t, &c);
        r = vfs_link(&c, path_arg_base(&from), from.text, path_arg_base(&to), to.text, lookup);
        task_vfs_caller_end(&c);
        path_arg_put(&to);
    }
    path_arg_put(&from);
    return r;
}

int64_t sys_symlink(struct task *t, uaddr_t target, uaddr_t path)
{
    return sys_symlinkat(t, target, AT_FDCWD, path);
}

int64_t sys_symlinkat(struct task *t, uaddr_t target, int dirfd, uaddr_t path)
{
    struct path_arg text, to;
    struct vfs_caller c;
    int r = path_arg_get(t, AT_FDCWD, target, false, &text);

    if (r)
        return r;
    r = path_arg_get(t, dirfd, path, false, &to);
    if (r == 0) {
        task_vfs_caller(t, &c);
        r = vfs_symlink(&c, text.text, path_arg_base(&to), to.text);
        task_vfs_caller_end(&c);
        path_arg_put(&to);
    }
    path_arg_put(&text);
    return r;
}
