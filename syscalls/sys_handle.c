/* Refused as Linux refuses them for file systems that have neither: file handles
 * (fs/fhandle.c), quotas (fs/quota/quota.c). */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/quota.h>
#include <sys/stat.h>

#include "syscalls/handlers.h"
#include "syscalls/sys_path.h"

#define HANDLE_SIZE_MAX 128u
#define AT_HANDLE_KNOWN 0x203 /* FID, MNT_ID_UNIQUE, CONNECTABLE; newer than the headers here */
#define QUOTA_TYPES 3u

struct lx_handle_head {
    uint32_t bytes;
    int32_t type;
};

static int handle_head(struct task *t, uaddr_t addr, struct lx_handle_head *out)
{
    if (copyin_obj(&t->ua, out, addr))
        return -EFAULT;
    return out->bytes > HANDLE_SIZE_MAX ? -EINVAL : 0;
}

int64_t sys_name_to_handle_at(struct task *t, int dirfd, uaddr_t path, uaddr_t handle,
                              uaddr_t mount_id, int flags)
{
    struct path_place x;

    (void)handle;
    (void)mount_id;
    if (flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH | AT_HANDLE_KNOWN))
        return -EINVAL;
    int r = path_place_at(t, dirfd, path,
                          (flags & AT_SYMLINK_FOLLOW ? VFS_FOLLOW : 0) |
                              (flags & AT_EMPTY_PATH ? VFS_EMPTY_PATH : 0),
                          &x);
    if (r)
        return r;
    path_place_end(&x);
    return -EOPNOTSUPP;
}

int64_t sys_open_by_handle_at(struct task *t, int mountdirfd, uaddr_t handle, int flags)
{
    struct lx_handle_head head;
    struct file *f;

    (void)flags;
    if (!task_capable(t, CAP_DAC_READ_SEARCH))
        return -EPERM;
    int r = handle_head(t, handle, &head);
    if (r == 0 && head.bytes == 0)
        r = -EINVAL;
    if (r || mountdirfd == AT_FDCWD)
        return r ? r : -ESTALE;
    r = task_file_any(t, mountdirfd, &f);
    if (r)
        return r;
    file_put(f);
    return -ESTALE;
}

int64_t sys_quotactl(struct task *t, unsigned cmd, uaddr_t special, uint32_t id, uaddr_t addr)
{
    struct path_place x;

    (void)id;
    (void)addr;
    if ((cmd & 0xff) >= QUOTA_TYPES)
        return -EINVAL;
    if (uaddr_is_null(special))
        return cmd >> 8 == Q_SYNC >> 8 || cmd >> 8 == (unsigned)Q_SYNC ? 0 : -ENODEV;
    int r = path_place_at(t, AT_FDCWD, special, VFS_FOLLOW, &x);
    if (r)
        return r;
    r = S_ISBLK(x.p.dentry->inode->mode) ? -ENODEV : -ENOTBLK;
    path_place_end(&x);
    return r;
}

int64_t sys_quotactl_fd(struct task *t, int fd, unsigned cmd, uint32_t id, uaddr_t addr)
{
    struct file *f;
    int r = task_file_any(t, fd, &f);

    (void)id;
    (void)addr;
    if (r)
        return r;
    file_put(f);
    return (cmd & 0xff) >= QUOTA_TYPES ? -EINVAL : -ENOSYS;
}
