/* inotify_init1(2), inotify_add_watch(2), inotify_rm_watch(2). */
#include <errno.h>
#include <fcntl.h>
#include <sys/inotify.h>

#include "sentry/fs/anon/inotify.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_path.h"

#define WATCH_BITS                                                                                 \
    ((uint32_t)(IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED | IN_ONLYDIR |             \
                IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_MASK_ADD | IN_MASK_CREATE | IN_ISDIR |        \
                IN_ONESHOT))

int64_t sys_inotify_init1(struct task *t, int flags)
{
    struct file *f;

    if (flags & ~(IN_CLOEXEC | IN_NONBLOCK))
        return -EINVAL;
    int r = inotify_new((uint32_t)flags & O_NONBLOCK, &f);
    if (r)
        return r;
    r = task_fd_install(t, f, flags & IN_CLOEXEC, 0);
    file_put(f);
    return r;
}

int64_t sys_inotify_init(struct task *t)
{
    return sys_inotify_init1(t, 0);
}

static int watch_add(struct task *t, struct file *f, uaddr_t path, uint32_t mask)
{
    struct path_place x;
    int r = path_place_at(
        t, AT_FDCWD, path,
        (mask & IN_DONT_FOLLOW ? 0 : VFS_FOLLOW) | (mask & IN_ONLYDIR ? VFS_DIRECTORY : 0), &x);

    if (r)
        return r;
    r = vfs_permission(&x.c, x.p.dentry->inode, 4);
    if (r == 0)
        r = inotify_watch(f, x.p.dentry->inode, mask);
    path_place_end(&x);
    return r;
}

int64_t sys_inotify_add_watch(struct task *t, int fd, uaddr_t path, unsigned mask)
{
    struct file *f;

    if (mask & ~WATCH_BITS || !mask)
        return -EINVAL;
    int r = task_file(t, fd, &f);
    if (r)
        return r;
    if ((mask & IN_MASK_ADD && mask & IN_MASK_CREATE) || !inotify_is(f))
        r = -EINVAL;
    else
        r = watch_add(t, f, path, mask);
    file_put(f);
    return r;
}

int64_t sys_inotify_rm_watch(struct task *t, int fd, int wd)
{
    struct file *f;
    int r = task_file(t, fd, &f);

    if (r)
        return r;
    r = inotify_is(f) ? inotify_unwatch(f, wd) : -EINVAL;
    file_put(f);
    return r;
}
