/* mount(2), umount2(2), pivot_root(2). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "sentry/kernel/fsctx.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_mount.h"
#include "syscalls/sys_path.h"

#define MOUNT_MAGIC_MASK 0xffff0000u
#define MOUNT_MAGIC 0xc0ed0000u
#define MOUNT_TYPE_MAX 64u
#define MOUNT_ATIME ((uint32_t)(MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME))
#define MOUNT_SHARING ((uint32_t)(MS_PRIVATE | MS_SLAVE | MS_SHARED | MS_UNBINDABLE))

struct mount_call {
    struct vfs_caller c;
    struct vpath target; /* owned */
    uaddr_t source, type, data;
    uint32_t flags;
};

/* ---- a new file system ---- */

/* A page of options: what cannot be read counts as the end, as in Linux. Heap. */
static char *mount_options(struct task *t, uaddr_t data)
{
    char *page = malloc(PAGE_SIZE);

    if (!page)
        return NULL;
    size_t n = uaddr_is_null(data) ? 0 : copyin_partial(&t->ua, page, data, PAGE_SIZE - 1);
    page[n] = '\0';
    return page;
}

static int mount_super(struct task *t, const struct mount_call *m, const char *type,
                       struct super **out)
{
    char source[256] = "none";
    void *arg;
    const struct fs_ops *fs = mount_fs_type(t, type, &arg);

    if (!fs)
        return -ENODEV;
    if (!uaddr_is_null(m->source)) {
        int64_t n = copyin_str(&t->ua, source, m->source, sizeof(source), -ENAMETOOLONG);
        if (n < 0)
            return (int)n;
    }
    char *page = mount_options(t, m->data);
    if (!page)
        return -ENOMEM;
    int r = fs->mount(fs, arg, source, page, &m->c, out);
    free(page);
    if (r == 0)
        (*out)->flags |= m->flags & MOUNT_SUPER_FLAGS;
    return r;
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
    int r = mount_super(t, m, type, &sb);
    if (r)
        return r;
    r = vfs_mount(m->c.ns, &m->target, sb, m->flags);
    if (r)
        super_put(sb);
    return r;
}

/* ---- changes ---- */

/* MS_BIND, MS_MOVE: source is a place. */
static int mount_from(struct task *t, const struct mount_call *m)
{
    struct vpath from;

    char first = '\0';
    if (!uaddr_is_null(m->source) && copyin_obj(&t->ua, &first, m->source))
        return -EFAULT;
    if (first == '\0')
        return -EINVAL;
    int r = path_lookup(t, &m->c, AT_FDCWD, m->source, VFS_FOLLOW, &from);
    if (r)
        return r;
    r = m->flags & MS_BIND ? vfs_bind(m->c.ns, &from, &m->target, m->flags & MS_REC)
                           : vfs_move_mount(m->c.ns, &m->c.root, &from, &m->target, false);
    vpath_put(&from);
    return r;
}

/* How times are kept stays as it was unless something is said about it. */
static uint32_t mount_new_flags(const struct mount_call *m)
{
    uint32_t flags = vfs_mount_flags_of(m->flags);
    const uint32_t atime = MOUNT_ATIME & VFS_MOUNT_FLAGS;

    if (m->flags & MOUNT_ATIME)
        return flags;
    return (flags & ~atime) | (vfs_mount_flags(m->target.mnt) & atime);
}

static int mount_again(struct task *t, const struct mount_call *m)
{
    const uint32_t flags = mount_new_flags(m);

    if (m->flags & MS_BIND)
        return vfs_remount(m->c.ns, &m->target, flags);
    char *page = mount_options(t, m->data);
    if (!page)
        return -ENOMEM;
    int r = vfs_remount_super(m->c.ns, &m->target, m->flags & MOUNT_SUPER_FLAGS, page);
    free(page);
    return r ? r : vfs_remount(m->c.ns, &m->target, flags & ~(uint32_t)MS_RDONLY);
}

static int mount_sharing(const struct mount_call *m)
{
    const uint32_t type = m->flags & ~(uint32_t)(MS_REC | MS_SILENT);

    if (type & ~MOUNT_SHARING || (type & (type - 1)))
        return -EINVAL;
    return vfs_set_propagation(m->c.ns, &m->target, type, m->flags & MS_REC);
}

static int mount_do(struct task *t, const struct mount_call *m)
{
    if (m->flags & MS_REMOUNT)
        return mount_again(t, m);
    if (m->flags & MS_BIND)
        return mount_from(t, m);
    if (m->flags & MOUNT_SHARING)
        return mount_sharing(m);
    if (m->flags & MS_MOVE)
        return mount_from(t, m);
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
        r = !mount_change_allowed(t) ? -EPERM : m.flags >> 31 ? -EINVAL : mount_do(t, &m);
        vpath_put(&m.target);
    }
    task_vfs_caller_end(&m.c);
    return r;
}

int64_t sys_umount2(struct task *t, uaddr_t target, int flags)
{
    struct vfs_caller c;
    struct vpath p;

    if (flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW))
        return -EINVAL;
    task_vfs_caller(t, &c);
    int r = path_lookup(t, &c, AT_FDCWD, target, flags & UMOUNT_NOFOLLOW ? 0 : VFS_FOLLOW, &p);
    if (r == 0) {
        if (!mount_change_allowed(t))
            r = -EPERM;
        else if (flags & MNT_EXPIRE && flags & (MNT_FORCE | MNT_DETACH))
            r = -EINVAL;
        else
            r = vfs_umount(c.ns, &c.root, &p, flags);
        vpath_put(&p);
    }
    task_vfs_caller_end(&c);
    return r;
}

/* ---- pivot_root ---- */

static int pivot_to(struct task *t, const struct vfs_caller *c, const struct vpath *to,
                    uaddr_t put_old)
{
    struct vpath root = c->root, old;
    int r = path_lookup(t, c, AT_FDCWD, put_old, VFS_FOLLOW | VFS_DIRECTORY, &old);

    if (r)
        return r;
    vpath_get(&root);
    r = vfs_pivot_root(c->ns, &root, to, &old);
    if (r == 0)
        kernel_move_roots(t->k, &root, to);
    vpath_put(&root);
    vpath_put(&old);
    return r;
}

int64_t sys_pivot_root(struct task *t, uaddr_t new_root, uaddr_t put_old)
{
    struct vfs_caller c;
    struct vpath to;

    if (!mount_change_allowed(t))
        return -EPERM;
    task_vfs_caller(t, &c);
    int r = path_lookup(t, &c, AT_FDCWD, new_root, VFS_FOLLOW | VFS_DIRECTORY, &to);
    if (r == 0) {
        r = pivot_to(t, &c, &to, put_old);
        vpath_put(&to);
    }
    task_vfs_caller_end(&c);
    return r;
}
