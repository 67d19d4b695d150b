/* mount(2), umount2(2): file systems of the sandbox, binds and flags. Everything is private: there
 * is no other mount namespace that changes could spread to. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "sentry/fs/devpts/devpts.h"
#include "sentry/fs/mqueue/mqueue.h"
#include "sentry/fs/overlay/overlay.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/fs/proc/sysfs.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/kernel/image.h"
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_path.h"

#define MOUNT_MAGIC_MASK 0xffff0000u
#define MOUNT_MAGIC 0xc0ed0000u
#define MOUNT_TYPE_MAX 64u
/* What a mount keeps, and what changes nothing here: times are kept as relatime does. */
#define MOUNT_KEPT ((uint32_t)(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME))
#define MOUNT_PLAIN                                                                                \
    ((uint32_t)(MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME | MS_LAZYTIME | MS_SILENT |           \
                MS_SYNCHRONOUS | MS_DIRSYNC))
#define MOUNT_KIND                                                                                 \
    ((uint32_t)(MS_REMOUNT | MS_BIND | MS_REC | MS_PRIVATE | MS_SLAVE | MS_SHARED |                \
                MS_UNBINDABLE | MS_MOVE))

struct mount_call {
    struct vfs_caller c;
    struct vpath target; /* owned */
    uaddr_t source, type, data;
    uint32_t flags;
};

/* ---- a new file system ---- */

static const struct fs_ops *mount_fs(struct task *t, const char *type, void **out_arg)
{
    *out_arg = t->k;
    if (strcmp(type, "proc") == 0)
        return &proc_fs_ops;
    if (strcmp(type, "sysfs") == 0)
        return &sysfs_fs_ops;
    if (strcmp(type, "devpts") == 0)
        return &devpts_fs_ops;
    *out_arg = task_ipc_ns(t);
    if (strcmp(type, "mqueue") == 0)
        return &mqueue_fs_ops;
    if (strcmp(type, "overlay") == 0)
        return &overlay_fs_ops;
    *out_arg = kernel_memfile(t->k);
    return strcmp(type, "tmpfs") == 0 ? &tmpfs_fs_ops : NULL;
}

/* A page of options: what cannot be read counts as the end, as in Linux. */
static void mount_options(struct task *t, uaddr_t data, char *buf, size_t size)
{
    size_t n = uaddr_is_null(data) ? 0 : copyin_partial(&t->ua, buf, data, size - 1);

    buf[n] = '\0';
}

static int mount_super(struct task *t, const struct mount_call *m, const char *type, char *page,
                       struct super **out)
{
    char source[256] = "none";
    void *arg;
    const struct fs_ops *fs = mount_fs(t, type, &arg);

    if (!fs)
        return -ENODEV;
    if (!uaddr_is_null(m->source)) {
        int64_t n = copyin_str(&t->ua, source, m->source, sizeof(source), -ENAMETOOLONG);
        if (n < 0)
            return (int)n;
    }
    mount_options(t, m->data, page, PAGE_SIZE);
    return fs->mount(fs, arg, source, page, &m->c, out);
}

static int mount_new_fs(struct task *t, const struct mount_call *m)
{
    char type[MOUNT_TYPE_MAX];
    struct super *sb;

    if (uaddr_is_null(m->type))
        return -EINVAL;
    int64_t n = copyin_str(&t->ua, type, m->type, sizeof(type), -ENODEV);
    if (n < 0)
        return (int)n;
    char *page = malloc(PAGE_SIZE);
    if (!page)
        return -ENOMEM;
    int r = mount_super(t, m, type, page, &sb);
    free(page);
    if (r)
        return r;
    r = vfs_mount(m->c.ns, &m->target, sb, m->flags & MOUNT_KEPT);
    if (r)
        super_put(sb);
    return r;
}

/* ---- changes ---- */

static int mount_bind(struct task *t, const struct mount_call *m)
{
    struct vpath from;

    if (uaddr_is_null(m->source))
        return -EINVAL;
    int r = path_lookup(t, &m->c, AT_FDCWD, m->source, VFS_FOLLOW, &from);
    if (r)
        return r;
    r = vfs_bind(m->c.ns, &from, &m->target, m->flags & MS_REC,
                 vfs_mount_flags(from.mnt) & MOUNT_KEPT);
    vpath_put(&from);
    return r;
}

/* Options of a file system are as it was mounted: only flags can be given anew. */
static int mount_again(struct task *t, const struct mount_call *m)
{
    char first = '\0';

    if (!(m->flags & MS_BIND) && !uaddr_is_null(m->data))
        (void)copyin_partial(&t->ua, &first, m->data, 1);
    if (first != '\0')
        return -EINVAL;
    return vfs_remount(m->c.ns, &m->target, m->flags & MOUNT_KEPT);
}

static int mount_do(struct task *t, const struct mount_call *m)
{
    const uint32_t kind = m->flags & (MOUNT_KIND & ~(uint32_t)MS_REC);

    if (m->flags & ~(MOUNT_KEPT | MOUNT_PLAIN | MOUNT_KIND))
        return -EINVAL;
    if (kind & MS_REMOUNT)
        return mount_again(t, m);
    if (kind & MS_BIND)
        return mount_bind(t, m);
    if (kind & (MS_SHARED | MS_UNBINDABLE | MS_MOVE))
        return -EINVAL;
    /* They are, always. */
    if (kind & (MS_PRIVATE | MS_SLAVE))
        return 0;
    return mount_new_fs(t, m);
}

int64_t sys_mount(struct task *t, uaddr_t source, uaddr_t target, uaddr_t type, uint64_t flags,
                  uaddr_t data)
{
    struct mount_call m = {.source = source, .type = type, .data = data, .flags = (uint32_t)flags};

    if ((m.flags & MOUNT_MAGIC_MASK) == MOUNT_MAGIC)
        m.flags &= ~MOUNT_MAGIC_MASK;
    task_vfs_caller(t, &m.c);
    int r = path_lookup(t, &m.c, AT_FDCWD, target, VFS_FOLLOW, &m.target);
    if (r == 0) {
        r = task_capable(t, CAP_SYS_ADMIN) ? mount_do(t, &m) : -EPERM;
        vpath_put(&m.target);
    }
    task_vfs_caller_end(&m.c);
    return r;
}

int64_t sys_umount2(struct task *t, uaddr_t target, int flags)
{
    struct vfs_caller c;
    struct vpath p;

    if (flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW) ||
        (flags & MNT_EXPIRE && flags & (MNT_FORCE | MNT_DETACH)))
        return -EINVAL;
    task_vfs_caller(t, &c);
    int r = path_lookup(t, &c, AT_FDCWD, target, flags & UMOUNT_NOFOLLOW ? 0 : VFS_FOLLOW, &p);
    if (r == 0) {
        /* Nothing is ever marked as expired: the first call of two is all there can be. */
        r = !task_capable(t, CAP_SYS_ADMIN) ? -EPERM
            : flags & MNT_EXPIRE            ? -EAGAIN
                                            : vfs_umount(c.ns, &p, flags);
        vpath_put(&p);
    }
    task_vfs_caller_end(&c);
    return r;
}
