/* fsync, sync, hints (fs/sync.c, mm/fadvise.c). */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "syscalls/handlers.h"

static int64_t sync_file(struct task *t, int fd, bool data_only)
{
    struct file *f;
    int64_t r = task_file(t, fd, &f);

    if (r != 0)
        return r;
    r = vfs_fsync(f, data_only);
    file_put(f);
    return r;
}

int64_t sys_fsync(struct task *t, int fd)
{
    return sync_file(t, fd, false);
}

int64_t sys_fdatasync(struct task *t, int fd)
{
    return sync_file(t, fd, true);
}

int64_t sys_sync(struct task *t)
{
    struct vfs_caller c;

    task_vfs_caller(t, &c);
    mount_ns_sync(c.ns);
    task_vfs_caller_end(&c);
    return 0;
}

int64_t sys_syncfs(struct task *t, int fd)
{
    struct file *f;
    int64_t r = task_file_any(t, fd, &f);

    if (r != 0)
        return r;
    struct super *sb = f->inode->sb;
    r = sb->ops->sync != NULL ? sb->ops->sync(sb) : 0;
    file_put(f);
    return r;
}

/* Every byte of the range; a host file knows no smaller unit. */
int64_t sys_sync_file_range(struct task *t, int fd, int64_t offset, int64_t nbytes, unsigned flags)
{
    if (offset < 0 || nbytes < 0 || (flags & ~7u) != 0)
        return -EINVAL;
    return sync_file(t, fd, true);
}

static int64_t check_hint(struct task *t, int fd, bool need_regular)
{
    struct file *f;
    int64_t r = task_file(t, fd, &f);

    if (r != 0)
        return r;
    if (S_ISFIFO(f->inode->mode))
        r = need_regular ? -EINVAL : -ESPIPE;
    else if (need_regular && !S_ISREG(f->inode->mode))
        r = -EINVAL;
    file_put(f);
    return r;
}

/* Advice about the host's page cache, which is the host's to keep: checked, and so followed. */
int64_t sys_fadvise64(struct task *t, int fd, int64_t offset, int64_t len, int advice)
{
    (void)offset;
    if (len < 0 || advice < POSIX_FADV_NORMAL || advice > POSIX_FADV_NOREUSE)
        return -EINVAL;
    return check_hint(t, fd, false);
}

int64_t sys_readahead(struct task *t, int fd, int64_t offset, uint64_t count)
{
    (void)offset;
    (void)count;
    return check_hint(t, fd, true);
}

struct lx_cachestat_range {
    uint64_t off, len;
};

struct lx_cachestat {
    uint64_t cache, dirty, writeback, evicted, recently_evicted;
};

/* Nothing in memory has a disk behind it that this kernel would write to. */
int64_t sys_cachestat(struct task *t, int fd, uaddr_t range, uaddr_t cstat, unsigned flags)
{
    struct lx_cachestat_range in;
    struct lx_cachestat out = {0};
    struct vfs_caller c;
    struct file *f;
    int64_t r = task_file(t, fd, &f);

    if (r != 0)
        return r;
    if (copyin_obj(&t->ua, &in, range)) {
        file_put(f);
        return -EFAULT;
    }
    const uint64_t last = in.len != 0 ? (in.off + in.len - 1) >> PAGE_SHIFT : UINT64_MAX;
    task_vfs_caller(t, &c);
    r = vfs_cached(f, in.off >> PAGE_SHIFT, last, &c, &out.cache);
    task_vfs_caller_end(&c);
    file_put(f);
    if (r == 0 && flags != 0)
        r = -EINVAL;
    return r == 0 && copyout_obj(&t->ua, cstat, &out) ? -EFAULT : r;
}
