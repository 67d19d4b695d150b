/* statmount(2), listmount(2) (fs/namespace.c of the kernel). */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "syscalls/handlers.h"
#include "syscalls/sys_mount.h"

/* Newer than the headers here. */
struct lx_mnt_id_req {
    uint32_t size, mnt_ns_fd;
    uint64_t mnt_id, param, mnt_ns_id;
};
#define MNT_ID_REQ_SIZE_VER0 24u

struct lx_statmount {
    uint32_t size, mnt_opts;
    uint64_t mask;
    uint32_t sb_dev_major, sb_dev_minor;
    uint64_t sb_magic;
    uint32_t sb_flags, fs_type;
    uint64_t mnt_id, mnt_parent_id;
    uint32_t mnt_id_old, mnt_parent_id_old;
    uint64_t mnt_attr, mnt_propagation, mnt_peer_group, mnt_master, propagate_from;
    uint32_t mnt_root, mnt_point;
    uint64_t mnt_ns_id;
    uint32_t fs_subtype, sb_source, opt_num, opt_array, opt_sec_num, opt_sec_array;
    uint64_t supported_mask;
    uint64_t spare[45];
};
_Static_assert(sizeof(struct lx_statmount) == 512, "struct statmount has 512 bytes");

#define STATMOUNT_SB_BASIC 0x001u
#define STATMOUNT_MNT_BASIC 0x002u
#define STATMOUNT_PROPAGATE_FROM 0x004u
#define STATMOUNT_MNT_ROOT 0x008u
#define STATMOUNT_MNT_POINT 0x010u
#define STATMOUNT_FS_TYPE 0x020u
#define STATMOUNT_MNT_NS_ID 0x040u
#define STATMOUNT_MNT_OPTS 0x080u
#define STATMOUNT_SB_SOURCE 0x200u
#define STATMOUNT_SUPPORTED_MASK 0x1000u
#define STATMOUNT_KNOWN                                                                            \
    (STATMOUNT_SB_BASIC | STATMOUNT_MNT_BASIC | STATMOUNT_PROPAGATE_FROM | STATMOUNT_MNT_ROOT |    \
     STATMOUNT_MNT_POINT | STATMOUNT_FS_TYPE | STATMOUNT_MNT_NS_ID | STATMOUNT_MNT_OPTS |          \
     STATMOUNT_SB_SOURCE | STATMOUNT_SUPPORTED_MASK)

#define LSMT_ROOT UINT64_MAX
#define LISTMOUNT_REVERSE 1u
#define LISTMOUNT_MAX 1000000u

static int req_copy(struct task *t, uaddr_t addr, struct lx_mnt_id_req *req)
{
    uint32_t size;

    if (copyin_obj(&t->ua, &size, addr))
        return -EFAULT;
    if (size > PAGE_SIZE)
        return -E2BIG;
    if (size < MNT_ID_REQ_SIZE_VER0)
        return -EINVAL;
    int r = copyin_struct(&t->ua, req, sizeof(*req), addr, size);
    if (r)
        return r;
    /* Mounts of other namespaces, by a descriptor or an id, are not told about. */
    if (req->mnt_ns_fd)
        return -EINVAL;
    return req->mnt_id > VFS_MOUNT_ID_UNIQUE ? 0 : -EINVAL;
}

/* ---- statmount ---- */

#define STAT_TEXT_MAX ((size_t)4 * VFS_PATH_MAX)

struct stat_call {
    struct vfs_caller c;
    struct vfs_mount_info i;
    struct lx_statmount sm;
    size_t used;
    char path[VFS_PATH_MAX];
    char text[STAT_TEXT_MAX]; /* follows sm */
};

static uint64_t stat_attr(uint32_t flags)
{
    return (flags & MS_RDONLY ? MOUNT_ATTR_RDONLY : 0) |
           (flags & MS_NOSUID ? MOUNT_ATTR_NOSUID : 0) | (flags & MS_NODEV ? MOUNT_ATTR_NODEV : 0) |
           (flags & MS_NOEXEC ? MOUNT_ATTR_NOEXEC : 0) |
           (flags & MS_NODIRATIME ? MOUNT_ATTR_NODIRATIME : 0) |
           (flags & VFS_MS_NOSYMFOLLOW ? MOUNT_ATTR_NOSYMFOLLOW : 0) |
           (flags & MS_NOATIME    ? MOUNT_ATTR_NOATIME
            : flags & MS_RELATIME ? MOUNT_ATTR_RELATIME
                                  : MOUNT_ATTR_STRICTATIME);
}

static uint64_t stat_propagation(const struct vfs_mount_info *i)
{
    const uint64_t p = (i->group ? MS_SHARED : 0) | (i->master ? MS_SLAVE : 0) |
                       (i->unbindable ? MS_UNBINDABLE : 0);

    return p ? p : (uint64_t)MS_PRIVATE;
}

static int stat_text(struct stat_call *s, const char *text, uint32_t *out)
{
    const size_t n = strlen(text) + 1;

    if (n > STAT_TEXT_MAX - s->used)
        return -EAGAIN;
    memcpy(s->text + s->used, text, n);
    *out = (uint32_t)s->used;
    s->used += n;
    return 0;
}

static int stat_sb(struct stat_call *s, uint64_t mask)
{
    struct lx_statmount *sm = &s->sm;
    struct super *sb = s->i.sb;
    struct vfs_statfs fs = {0};

    if (!(mask & STATMOUNT_SB_BASIC))
        return 0;
    int r = sb->ops->statfs(sb, &fs);
    sm->sb_dev_major = major(sb->dev);
    sm->sb_dev_minor = minor(sb->dev);
    sm->sb_magic = fs.type;
    sm->sb_flags = sb->flags & MOUNT_SUPER_FLAGS;
    sm->mask |= STATMOUNT_SB_BASIC;
    return r;
}

static void stat_mount(struct stat_call *s, uint64_t mask)
{
    struct lx_statmount *sm = &s->sm;
    const struct vfs_mount_info *i = &s->i;

    if (mask & STATMOUNT_MNT_BASIC) {
        sm->mnt_id = VFS_MOUNT_ID_UNIQUE + i->id;
        sm->mnt_parent_id = VFS_MOUNT_ID_UNIQUE + i->parent_id;
        sm->mnt_id_old = (uint32_t)i->id;
        sm->mnt_parent_id_old = (uint32_t)i->parent_id;
        sm->mnt_attr = stat_attr(i->flags);
        sm->mnt_propagation = stat_propagation(i);
        sm->mnt_peer_group = i->group;
        sm->mnt_master = i->master;
        sm->mask |= STATMOUNT_MNT_BASIC;
    }
    if (mask & STATMOUNT_PROPAGATE_FROM) {
        sm->propagate_from = i->master ? i->from : 0;
        sm->mask |= STATMOUNT_PROPAGATE_FROM;
    }
    if (mask & STATMOUNT_MNT_NS_ID) {
        sm->mnt_ns_id = i->ns_id;
        sm->mask |= STATMOUNT_MNT_NS_ID;
    }
    if (mask & STATMOUNT_SUPPORTED_MASK) {
        sm->supported_mask = STATMOUNT_KNOWN;
        sm->mask |= STATMOUNT_SUPPORTED_MASK;
    }
}

static int stat_paths(struct stat_call *s, uint64_t mask)
{
    int64_t n = 0;

    if (mask & STATMOUNT_MNT_ROOT) {
        n = vfs_mount_root_text(&s->i, s->path, sizeof(s->path));
        if (n >= 0)
            n = stat_text(s, s->path, &s->sm.mnt_root);
        s->sm.mask |= STATMOUNT_MNT_ROOT;
    }
    if (n >= 0 && mask & STATMOUNT_MNT_POINT) {
        n = vfs_path_text(&s->c.root, &s->i.at, s->path, sizeof(s->path));
        if (n >= 0)
            n = stat_text(s, s->path, &s->sm.mnt_point);
        s->sm.mask |= STATMOUNT_MNT_POINT;
    }
    return n < 0 ? (int)n : 0;
}

static int stat_names(struct stat_call *s, uint64_t mask)
{
    struct super *sb = s->i.sb;
    int r = 0;

    if (mask & STATMOUNT_FS_TYPE) {
        r = stat_text(s, sb->fs->name, &s->sm.fs_type);
        s->sm.mask |= STATMOUNT_FS_TYPE;
    }
    s->path[0] = '\0';
    if (r == 0 && mask & STATMOUNT_MNT_OPTS && sb->ops->show_options)
        sb->ops->show_options(sb, s->path, sizeof(s->path));
    if (r == 0 && s->path[0]) {
        r = stat_text(s, s->path, &s->sm.mnt_opts);
        s->sm.mask |= STATMOUNT_MNT_OPTS;
    }
    if (r == 0 && mask & STATMOUNT_SB_SOURCE && sb->source[0]) {
        r = stat_text(s, sb->source, &s->sm.sb_source);
        s->sm.mask |= STATMOUNT_SB_SOURCE;
    }
    return r;
}

static int stat_fill(struct stat_call *s, uint64_t mask)
{
    int r = stat_sb(s, mask);

    stat_mount(s, mask);
    if (r == 0)
        r = stat_paths(s, mask);
    return r ? r : stat_names(s, mask);
}

/* The fixed part is cut where the buffer ends; texts must fit. */
static int stat_out(struct task *t, struct stat_call *s, uaddr_t buf, uint64_t size)
{
    const size_t fixed = sizeof(s->sm);

    if (s->used && (size < fixed || size - fixed < s->used))
        return -EOVERFLOW;
    s->sm.size = (uint32_t)(s->used ? fixed + s->used : MIN(size, fixed));
    if (s->used && copyout(&t->ua, uaddr_add(buf, fixed), s->text, s->used))
        return -EFAULT;
    return copyout(&t->ua, buf, &s->sm, (size_t)MIN(size, fixed));
}

int64_t sys_statmount(struct task *t, uaddr_t req_addr, uaddr_t buf, uint64_t size, unsigned flags)
{
    struct lx_mnt_id_req req;

    if (flags)
        return -EINVAL;
    int r = req_copy(t, req_addr, &req);
    if (r)
        return r;
    struct stat_call *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    task_vfs_caller(t, &s->c);
    r = req.mnt_ns_id && req.mnt_ns_id != mount_ns_id(s->c.ns)
            ? -ENOENT
            : vfs_mount_info(s->c.ns, req.mnt_id - VFS_MOUNT_ID_UNIQUE, &s->i);
    if (r == 0) {
        r = stat_fill(s, req.param);
        vfs_mount_info_end(&s->i);
    }
    task_vfs_caller_end(&s->c);
    if (r == 0)
        r = stat_out(t, s, buf, size);
    free(s);
    return r;
}

/* ---- listmount ---- */

static int64_t list_out(struct task *t, const uint64_t *ids, int64_t n, uint64_t after,
                        uint64_t max, bool reverse, uaddr_t out)
{
    int64_t done = 0;

    for (int64_t k = 0; k < n && (uint64_t)done < max; k++) {
        const uint64_t id = VFS_MOUNT_ID_UNIQUE + ids[reverse ? n - 1 - k : k];
        if (after && (reverse ? id >= after : id <= after))
            continue;
        if (copyout_obj(&t->ua, uaddr_add(out, (uint64_t)done * sizeof(id)), &id))
            return -EFAULT;
        done++;
    }
    return done;
}

static int64_t list_ids(struct vfs_caller *c, uint64_t id, uint64_t **out)
{
    struct vfs_mount_info i;

    if (id == LSMT_ROOT)
        return vfs_list_mounts(c->ns, &c->root, 0, out);
    int64_t r = vfs_mount_info(c->ns, id - VFS_MOUNT_ID_UNIQUE, &i);
    if (r)
        return r;
    r = vfs_list_mounts(c->ns, &i.at, i.id, out);
    vfs_mount_info_end(&i);
    return r;
}

int64_t sys_listmount(struct task *t, uaddr_t req_addr, uaddr_t ids_addr, uint64_t count,
                      unsigned flags)
{
    struct lx_mnt_id_req req;
    struct vfs_caller c;
    uint64_t *ids = NULL;

    if (flags & ~LISTMOUNT_REVERSE)
        return -EINVAL;
    if (count > LISTMOUNT_MAX)
        return -EOVERFLOW;
    int64_t r = req_copy(t, req_addr, &req);
    if (r)
        return r;
    if (req.param && req.param <= VFS_MOUNT_ID_UNIQUE)
        return -EINVAL;
    task_vfs_caller(t, &c);
    r = req.mnt_ns_id && req.mnt_ns_id != mount_ns_id(c.ns) ? -ENOENT
                                                            : list_ids(&c, req.mnt_id, &ids);
    task_vfs_caller_end(&c);
    if (r >= 0)
        r = list_out(t, ids, r, req.param, count, flags & LISTMOUNT_REVERSE, ids_addr);
    free(ids);
    return r;
}
