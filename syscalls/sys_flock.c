/* Advisory locks: flock(2), and the records of fcntl(2). */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_lock.h"

struct lx_flock {
    int16_t type, whence;
    int32_t pad;
    int64_t start, len;
    int32_t pid, pad2;
};

int64_t sys_flock(struct task *t, int fd, int op)
{
    struct vfs_caller c;
    struct file *f;
    int r = task_file(t, fd, &f);

    if (r)
        return r;
    task_vfs_caller(t, &c);
    r = vfs_flock(f, op, &c);
    task_vfs_caller_end(&c);
    file_put(f);
    return r;
}

bool fcntl_is_lock(int cmd)
{
    return cmd == F_GETLK || cmd == F_SETLK || cmd == F_SETLKW || cmd == F_OFD_GETLK ||
           cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW;
}

/* Makes l->start count from the beginning of the file. */
static int lock_start(struct file *f, const struct lx_flock *lx, struct vfs_flock *l)
{
    struct vfs_attr attr;
    int64_t base = 0;
    int r;

    switch (lx->whence) {
    case SEEK_SET:
        break;
    case SEEK_CUR:
        mutex_lock(&f->pos_mu);
        base = f->pos;
        mutex_unlock(&f->pos_mu);
        break;
    case SEEK_END:
        r = vfs_file_getattr(f, &attr);
        if (r)
            return r;
        base = (int64_t)attr.size;
        break;
    default:
        return -EINVAL;
    }
    if (__builtin_add_overflow(base, lx->start, &l->start))
        return -EOVERFLOW;
    l->len = lx->len;
    return l->start < 0 ? -EINVAL : 0;
}

static int lock_get(struct task *t, struct file *f, const void *owner, struct lx_flock *lx,
                    uaddr_t arg)
{
    struct vfs_flock l = {.type = lx->type, .pid = lx->pid};

    if (lx->type != F_RDLCK && lx->type != F_WRLCK)
        return -EINVAL;
    int r = lock_start(f, lx, &l);
    if (r == 0)
        r = vfs_lock_get(f, owner, &l);
    if (r)
        return r;
    lx->type = (int16_t)l.type;
    if (l.type != F_UNLCK) {
        lx->whence = SEEK_SET;
        lx->start = l.start;
        lx->len = l.len;
        lx->pid = l.pid > 0 ? task_pid_out(t, l.pid) : l.pid;
    }
    return copyout_obj(&t->ua, arg, lx);
}

int fcntl_lock(struct task *t, struct file *f, int fd, int cmd, uaddr_t arg,
               const struct vfs_caller *c)
{
    const bool ofd = cmd == F_OFD_GETLK || cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW;
    const void *owner = ofd ? (const void *)f : (const void *)t->fdt;
    struct lx_flock lx;
    struct vfs_flock l;
    struct file *now;
    int r = copyin_obj(&t->ua, &lx, arg);

    if (r)
        return r;
    if (ofd && lx.pid != 0)
        return -EINVAL;
    if (cmd == F_GETLK || cmd == F_OFD_GETLK)
        return lock_get(t, f, owner, &lx, arg);
    r = lock_start(f, &lx, &l);
    if (r)
        return r;
    if (lx.type != F_RDLCK && lx.type != F_WRLCK && lx.type != F_UNLCK)
        return -EINVAL;
    l.type = lx.type;
    r = vfs_lock_set(f, owner, &l, cmd == F_SETLKW || cmd == F_OFD_SETLKW, c);
    if (r || ofd || l.type == F_UNLCK)
        return r;
    /* Another thread closed fd meanwhile and found no lock to drop: fcntl_setlk of the kernel. */
    bool closed = fdtable_lookup(t->fdt, fd, &now) != 0;
    if (!closed) {
        closed = now != f;
        file_put(now);
    }
    if (!closed)
        return 0;
    vfs_lock_drop_owner(f, owner);
    return -EBADF;
}
