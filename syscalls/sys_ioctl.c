/* ioctl(2): what is common to all files (fs/ioctl.c); the rest is the file's own. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "sentry/kernel/fasync.h"
#include "syscalls/handlers.h"

static int64_t ioctl_flag(struct task *t, struct file *f, uint32_t flag, uaddr_t arg)
{
    int on;
    int r = copyin_obj(&t->ua, &on, arg);

    if (r != 0)
        return r;
    if (on != 0)
        atomic_fetch_or(&f->flags, flag);
    else
        atomic_fetch_and(&f->flags, ~flag);
    return 0;
}

static int64_t ioctl_left(struct task *t, struct file *f, uaddr_t arg)
{
    struct vfs_attr a;
    int r = vfs_file_getattr(f, &a);

    if (r != 0)
        return r;
    const int n = (int)((int64_t)a.size - f->pos);
    return copyout_obj(&t->ua, arg, &n);
}

static int64_t ioctl_file(struct task *t, struct file *f, unsigned cmd, uint64_t arg)
{
    struct vfs_caller c;
    int64_t r;

    if (cmd == FIONREAD && S_ISREG(f->inode->mode))
        return ioctl_left(t, f, (uaddr_t){arg});
    task_vfs_caller(t, &c);
    r = vfs_ioctl(f, cmd, arg, &t->ua, &c);
    task_vfs_caller_end(&c);
    return r;
}

static int64_t ioctl_async(struct task *t, struct file *f, int fd, uaddr_t arg)
{
    int32_t on;
    int r = copyin_obj(&t->ua, &on, arg);

    if (r)
        return r;
    return file_can_async(f) ? file_set_async(t, f, fd, on != 0) : -ENOTTY;
}

/* Of sockets: the same as F_SETOWN and F_GETOWN. */
static int64_t ioctl_owner(struct task *t, struct file *f, unsigned cmd, uaddr_t arg)
{
    int32_t who;

    if (!S_ISSOCK(f->inode->mode))
        return ioctl_file(t, f, cmd, arg.v);
    if (cmd == FIOGETOWN || cmd == SIOCGPGRP) {
        who = f->owner;
        return copyout_obj(&t->ua, arg, &who);
    }
    int r = copyin_obj(&t->ua, &who, arg);
    if (r)
        return r;
    return who == INT32_MIN ? -EINVAL : file_set_owner(t, f, who);
}

int64_t sys_ioctl(struct task *t, int fd, unsigned cmd, uint64_t arg)
{
    struct file *f;
    int64_t r = task_file(t, fd, &f);

    if (r != 0)
        return r;
    if (cmd == FIOCLEX)
        r = fdtable_set_cloexec(t->fdt, fd, true);
    else if (cmd == FIONCLEX)
        r = fdtable_set_cloexec(t->fdt, fd, false);
    else if (cmd == FIOASYNC)
        r = ioctl_async(t, f, fd, uaddr(arg));
    else if (cmd == FIOSETOWN || cmd == SIOCSPGRP || cmd == FIOGETOWN || cmd == SIOCGPGRP)
        r = ioctl_owner(t, f, cmd, uaddr(arg));
    else if (cmd == FIONBIO)
        r = ioctl_flag(t, f, O_NONBLOCK, (uaddr_t){arg});
    else
        r = ioctl_file(t, f, cmd, arg);
    file_put(f);
    return r;
}
