/* Descriptors: close, dup, the descriptor flags and what of fcntl(2) is not locks. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>

#include "sentry/fs/pipe/pipe.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/kernel/dnotify.h"
#include "sentry/kernel/fasync.h"
#include "sentry/kernel/process.h"
#include "sentry/vfs/lease.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_lock.h"

#define SETFL_MASK ((uint32_t)(O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME))

int64_t sys_close(struct task *t, int fd)
{
    struct vfs_caller c;

    task_vfs_caller(t, &c);
    int r = fdtable_close(t->fdt, fd, &c);
    task_vfs_caller_end(&c);
    /* The descriptor is gone; a second close could hit somebody else's. */
    if (r == -ERESTARTSYS || r == -ERESTARTNOINTR || r == -ERESTARTNOHAND)
        r = -EINTR;
    return r;
}

int64_t sys_close_range(struct task *t, unsigned first, unsigned last, unsigned flags)
{
    struct vfs_caller c;

    if (flags & ~(unsigned)(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) || first > last)
        return -EINVAL;
    if (flags & CLOSE_RANGE_UNSHARE) {
        int r = task_unshare(t, CLONE_FILES);
        if (r)
            return r;
    }
    task_vfs_caller(t, &c);
    fdtable_close_range(t->fdt, first, last, flags & CLOSE_RANGE_CLOEXEC, &c);
    task_vfs_caller_end(&c);
    return 0;
}

/* ---- dup ---- */

static int64_t dup_from(struct task *t, int fd, int min, bool cloexec)
{
    struct file *f;
    int r = task_file_any(t, fd, &f);

    if (r)
        return r;
    r = task_fd_install(t, f, cloexec, min);
    file_put(f);
    return r;
}

static int64_t dup_onto(struct task *t, int fd, int to, bool cloexec)
{
    struct vfs_caller c;
    struct file *f;

    if (to < 0 || (uint64_t)to >= task_rlimit(t, RLIMIT_NOFILE))
        return -EBADF;
    int r = task_file_any(t, fd, &f);
    if (r)
        return r;
    task_vfs_caller(t, &c);
    r = fdtable_install_at(t->fdt, f, cloexec, to, task_rlimit(t, RLIMIT_NOFILE), &c);
    task_vfs_caller_end(&c);
    file_put(f);
    return r;
}

int64_t sys_dup(struct task *t, int fd)
{
    return dup_from(t, fd, 0, false);
}

int64_t sys_dup2(struct task *t, int fd, int to)
{
    struct file *f;

    if (fd != to)
        return dup_onto(t, fd, to, false);
    int r = task_file_any(t, fd, &f);
    if (r)
        return r;
    file_put(f);
    return fd;
}

int64_t sys_dup3(struct task *t, int fd, int to, int flags)
{
    if (flags & ~O_CLOEXEC || fd == to)
        return -EINVAL;
    return dup_onto(t, fd, to, flags & O_CLOEXEC);
}

/* ---- fcntl ---- */

static int fcntl_setfl(struct task *t, struct file *f, int fd, uint32_t arg,
                       const struct vfs_caller *c)
{
    uint32_t old = atomic_load(&f->flags);

    if (arg & ~old & (uint32_t)O_NOATIME && c->cred->fsuid != f->inode->uid &&
        !cred_file_capable(c->cred, f->inode->uid, f->inode->gid, CAP_FOWNER))
        return -EPERM;
    if ((arg ^ old) & (uint32_t)O_ASYNC && file_can_async(f)) {
        int r = file_set_async(t, f, fd, arg & (uint32_t)O_ASYNC);
        if (r)
            return r;
    }
    while (!atomic_compare_exchange_weak(&f->flags, &old, (old & ~SETFL_MASK) | (arg & SETFL_MASK)))
        ;
    return 0;
}

/* A positive owner is a process or, with F_SETOWN_EX, a thread; both are kept as one number. */
static int fcntl_setown(struct task *t, struct file *f, int64_t arg)
{
    int who = (int)arg;

    if (who == INT_MIN)
        return -EINVAL;
    return file_set_owner(t, f, who);
}

static int fcntl_owner_ex(struct task *t, struct file *f, int cmd, uaddr_t arg)
{
    struct f_owner_ex ex = {.type = F_OWNER_PID};

    if (cmd == F_SETOWN_EX) {
        int r = copyin_obj(&t->ua, &ex, arg);
        if (r)
            return r;
        if (ex.type != F_OWNER_TID && ex.type != F_OWNER_PID && ex.type != F_OWNER_PGRP)
            return -EINVAL;
        if (ex.pid < 0)
            return -EINVAL;
        return file_set_owner(t, f, ex.type == F_OWNER_PGRP ? -ex.pid : ex.pid);
    }
    ex.type = f->owner < 0 ? F_OWNER_PGRP : F_OWNER_PID;
    ex.pid = f->owner < 0 ? -f->owner : f->owner;
    return copyout_obj(&t->ua, arg, &ex);
}

/* How long what is written is expected to stay: told to nobody, as the host decides. */
static int fcntl_hint(struct task *t, struct file *f, int cmd, uaddr_t arg,
                      const struct vfs_caller *c)
{
    struct inode *i = f->inode;
    uint64_t hint = atomic_load(&i->write_hint);

    if (cmd == F_GET_RW_HINT)
        return copyout_obj(&t->ua, arg, &hint);
    if (c->cred->fsuid != i->uid && !cred_file_capable(c->cred, i->uid, i->gid, CAP_FOWNER))
        return -EPERM;
    int r = copyin_obj(&t->ua, &hint, arg);
    if (r)
        return r;
    if (hint > RWH_WRITE_LIFE_EXTREME)
        return -EINVAL;
    atomic_store(&i->write_hint, (uint8_t)hint);
    return 0;
}

static int64_t fcntl_file(struct task *t, struct file *f, int fd, int cmd, uint64_t arg,
                          const struct vfs_caller *c)
{
    switch (cmd) {
    case F_SETFL:
        return fcntl_setfl(t, f, fd, (uint32_t)arg, c);
    case F_GETOWN:
        return f->owner;
    case F_SETOWN:
        return fcntl_setown(t, f, (int64_t)arg);
    case F_GETOWN_EX:
    case F_SETOWN_EX:
        return fcntl_owner_ex(t, f, cmd, uaddr(arg));
    case F_GETSIG:
        return f->owner_sig;
    case F_SETSIG:
        if (arg > 64)
            return -EINVAL;
        f->owner_sig = (int)arg;
        return 0;
    case F_GETPIPE_SZ:
        return pipe_get_size(f);
    case F_SETPIPE_SZ:
        return pipe_set_size(f, (uint32_t)arg, task_capable(t, CAP_SYS_RESOURCE));
    case F_GET_SEALS:
        return tmpfs_get_seals(f);
    case F_ADD_SEALS:
        return arg > UINT32_MAX ? -EINVAL : tmpfs_add_seals(f, (unsigned)arg);
    case F_SETLEASE:
        return file_set_lease(t, f, fd, (int)arg, c);
    case F_GETLEASE:
        return lease_get(f);
    case F_NOTIFY:
        return file_notify(t, f, fd, (uint32_t)arg);
    case F_GET_RW_HINT:
    case F_SET_RW_HINT:
        return fcntl_hint(t, f, cmd, uaddr(arg), c);
    default:
        return -EINVAL;
    }
}

static int64_t fcntl_any(struct task *t, struct file *f, int fd, int cmd, uint64_t arg,
                         const struct vfs_caller *c)
{
    bool on;
    int r;

    switch (cmd) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        if (arg > INT_MAX || arg >= task_rlimit(t, RLIMIT_NOFILE))
            return -EINVAL;
        return task_fd_install(t, f, cmd == F_DUPFD_CLOEXEC, (int)arg);
    case F_GETFD:
        r = fdtable_get_cloexec(t->fdt, fd, &on);
        return r ? r : on ? FD_CLOEXEC : 0;
    case F_SETFD:
        return fdtable_set_cloexec(t->fdt, fd, arg & FD_CLOEXEC);
    case F_GETFL:
        return atomic_load(&f->flags);
    default:
        break;
    }
    if (atomic_load(&f->flags) & O_PATH)
        return -EBADF;
    if (fcntl_is_lock(cmd))
        return fcntl_lock(t, f, fd, cmd, uaddr(arg), c);
    return fcntl_file(t, f, fd, cmd, arg, c);
}

int64_t sys_fcntl(struct task *t, int fd, int cmd, uint64_t arg)
{
    struct vfs_caller c;
    struct file *f;
    int r = task_file_any(t, fd, &f);

    if (r)
        return r;
    task_vfs_caller(t, &c);
    int64_t n = fcntl_any(t, f, fd, cmd, arg, &c);
    task_vfs_caller_end(&c);
    file_put(f);
    return n;
}
