/* Changes of a mount tree: mounting, binding, moving, flags, unmounting, pivot_root(2)
 * (fs/namespace.c of the kernel). */
#include <stdlib.h>

#include "sentry/vfs/vfs_priv.h"

static bool kinds_agree(const struct dentry *what, const struct dentry *where)
{
    return S_ISDIR(what->inode->mode) == S_ISDIR(where->inode->mode);
}

/* p is the root of a mount in ns. */
static bool is_mount_root(const struct mount_ns *ns, const struct vpath *p)
{
    return p->mnt->ns == ns && p->dentry == p->mnt->root;
}

/* What is mounted on p, and on that, since it was looked up. Borrowed from the tree. */
static struct vpath topmost(const struct vpath *p)
{
    struct mount *on = mount_at_locked(p->mnt, p->dentry);

    if (on == NULL)
        return *p;
    on = mount_topmost_locked(on);
    return (struct vpath){on, on->root};
}

uint32_t vfs_mount_flags_of(uint64_t ms)
{
    uint32_t flags = (uint32_t)ms & VFS_MOUNT_FLAGS;

    if ((ms & MS_STRICTATIME) != 0)
        return flags & ~(uint32_t)(MS_RELATIME | MS_NOATIME);
    return (flags & MS_NOATIME) != 0 ? flags & ~(uint32_t)MS_RELATIME : flags | MS_RELATIME;
}

/* ---- mounting ---- */

int vfs_mount(struct mount_ns *ns, const struct vpath *p, struct super *sb, uint32_t flags)
{
    struct vpath none;
    struct mount *m;
    int r = mount_new(sb, sb->root, vfs_mount_flags_of(flags), &m);

    if (r != 0)
        return r;
    rwlock_wrlock(&vfs_mount_lock);
    struct vpath at = topmost(p);
    if (!kinds_agree(sb->root, at.dentry))
        r = -ENOTDIR;
    else
        r = mount_attach_tree_locked(ns, &at, m, false, &none);
    rwlock_unlock(&vfs_mount_lock);
    if (r != 0) {
        /* The caller keeps the super. */
        (void)super_get(sb);
        mount_put(m);
    }
    return r;
}

static bool has_locked_children(const struct mount *m, const struct dentry *root)
{
    const struct mount *c;

    list_for_each_entry (c, &m->children, child)
        if (c->locked && mount_shows(root, c->point))
            return true;
    return false;
}

static int bind_copy(const struct mount_ns *ns, const struct vpath *from, bool recursive,
                     struct mount **out)
{
    if (from->mnt->unbindable || from->mnt->ns != ns)
        return -EINVAL;
    if (!recursive && has_locked_children(from->mnt, from->dentry))
        return -EINVAL;
    return recursive ? mount_copy_tree_locked(from->mnt, from->dentry, 0, out)
                     : mount_clone_locked(from->mnt, from->dentry, 0, out);
}

int vfs_bind(struct mount_ns *ns, const struct vpath *from, const struct vpath *to, bool recursive)
{
    struct vpath none;
    struct list gone;
    struct mount *top;

    list_init(&gone);
    rwlock_wrlock(&vfs_mount_lock);
    struct vpath at = topmost(to);
    int r = bind_copy(ns, from, recursive, &top);
    if (r == 0) {
        r = kinds_agree(from->dentry, at.dentry)
                ? mount_attach_tree_locked(ns, &at, top, false, &none)
                : -ENOTDIR;
        if (r != 0)
            mount_detach_tree_locked(top, &gone);
    }
    rwlock_unlock(&vfs_mount_lock);
    mounts_put(&gone);
    return r;
}

static bool tree_has_unbindable(struct mount *top)
{
    for (const struct mount *m = top; m != NULL; m = mount_next_locked(m, top))
        if (m->unbindable)
            return true;
    return false;
}

static int move_check(const struct mount_ns *ns, const struct vpath *from, const struct vpath *to)
{
    struct mount *m = from->mnt;

    if (m->ns == NULL || (m->ns != ns && !m->ns->anon) || from->dentry != m->root)
        return -EINVAL;
    if (m->ns == ns ? m->parent == NULL || m->locked || m->parent->group != 0 : m != m->ns->root)
        return -EINVAL;
    if (to->mnt->ns != ns)
        return -EINVAL;
    if (!kinds_agree(from->dentry, to->dentry))
        return S_ISDIR(from->dentry->inode->mode) ? -ENOTDIR : -EINVAL;
    if (to->mnt->group != 0 && tree_has_unbindable(m))
        return -EINVAL;
    for (const struct mount *up = to->mnt; up != NULL; up = up->parent)
        if (up == m)
            return -ELOOP;
    return 0;
}

/* MOVE_MOUNT_BENEATH: *at, the root of a mount, becomes the place where that stands. */
static int beneath_place(const struct vpath *from, const struct vpath *root, struct vpath *at)
{
    const struct mount *over = at->mnt;

    if (at->dentry != over->root || over->parent == NULL || over->locked || over == root->mnt ||
        mount_at_locked(from->mnt, from->mnt->root) != NULL)
        return -EINVAL;
    for (const struct mount *up = from->mnt; up != NULL; up = up->parent)
        if (up == over)
            return -EINVAL;
    *at = (struct vpath){over->parent, over->point};
    /* A copy of what goes beneath would come to stand on top. */
    return mount_would_cover_locked(at, over) || mount_would_cover_locked(at, from->mnt) ? -EINVAL
                                                                                         : 0;
}

int vfs_move_mount(struct mount_ns *ns, const struct vpath *root, const struct vpath *from,
                   const struct vpath *to, bool beneath)
{
    struct vpath old = {0};
    int r = 0;

    rwlock_wrlock(&vfs_mount_lock);
    struct vpath at = topmost(to);
    struct mount_ns *was = from->mnt->ns;
    if (beneath)
        r = beneath_place(from, root, &at);
    if (r == 0)
        r = move_check(ns, from, &at);
    if (r == 0)
        r = mount_attach_tree_locked(ns, &at, from->mnt, true, &old);
    if (r == 0 && was != ns)
        was->root = NULL;
    rwlock_unlock(&vfs_mount_lock);
    vpath_put(&old);
    return r;
}

/* ---- flags and types ---- */

int vfs_set_propagation(struct mount_ns *ns, const struct vpath *p, uint32_t type, bool recursive)
{
    int r = 0;

    rwlock_wrlock(&vfs_mount_lock);
    if (!is_mount_root(ns, p))
        r = -EINVAL;
    for (struct mount *m = p->mnt; r == 0 && m != NULL;
         m = recursive ? mount_next_locked(m, p->mnt) : NULL)
        mount_set_type_locked(m, type);
    if (r == 0)
        mount_ns_touch_locked(ns);
    rwlock_unlock(&vfs_mount_lock);
    return r;
}

uint32_t vfs_mount_flags(const struct mount *m)
{
    return atomic_load(&m->flags);
}

#define ATIME_FLAGS ((uint32_t)(MS_NOATIME | MS_NODIRATIME | MS_RELATIME))

/* Locked flags may be set, not cleared; how times are kept may not change at all. */
static bool may_change(const struct mount *m, uint32_t flags)
{
    uint32_t old = atomic_load(&m->flags), locked = m->locked_flags;

    if ((locked & old & ~flags & ~ATIME_FLAGS) != 0)
        return false;
    return (locked & ATIME_FLAGS) == 0 || ((old ^ flags) & ATIME_FLAGS) == 0;
}

/* The flag first: mount_get_writer does it the other way round. */
static int change_flags(struct mount *m, uint32_t flags)
{
    uint32_t old = atomic_exchange(&m->flags, flags);

    if ((flags & MS_RDONLY) == 0 || (old & MS_RDONLY) != 0 || atomic_load(&m->writers) == 0)
        return 0;
    atomic_store(&m->flags, old);
    return -EBUSY;
}

int vfs_remount(struct mount_ns *ns, const struct vpath *p, uint32_t flags)
{
    int r;

    rwlock_wrlock(&vfs_mount_lock);
    if (!is_mount_root(ns, p))
        r = -EINVAL;
    else
        r = may_change(p->mnt, flags) ? change_flags(p->mnt, flags) : -EPERM;
    if (r == 0)
        mount_ns_touch_locked(ns);
    rwlock_unlock(&vfs_mount_lock);
    return r;
}

static int super_read_only(struct super *sb, uint32_t flags)
{
    uint32_t old = atomic_exchange(&sb->flags, flags);

    if ((flags & ~old & MS_RDONLY) == 0 || atomic_load(&sb->writers) == 0)
        return 0;
    atomic_store(&sb->flags, old);
    return -EBUSY;
}

int vfs_remount_super(struct mount_ns *ns, const struct vpath *p, uint32_t flags,
                      const char *options)
{
    struct super *sb = p->dentry->sb;
    int r;

    rwlock_rdlock(&vfs_mount_lock);
    r = is_mount_root(ns, p) ? 0 : -EINVAL;
    rwlock_unlock(&vfs_mount_lock);
    if (r == 0 && *options != '\0')
        r = sb->ops->reconfigure != NULL ? sb->ops->reconfigure(sb, options) : -EINVAL;
    return r != 0 ? r : super_read_only(sb, flags);
}

static struct mount *setattr_next(struct mount *m, const struct mount *top, bool recursive)
{
    return recursive ? mount_next_locked(m, top) : NULL;
}

/* Flags of all, or of none. */
static int setattr_flags(struct mount *top, uint32_t clear, uint32_t set, bool recursive)
{
    struct mount *m;
    int r = 0;

    for (m = top; m != NULL && r == 0; m = setattr_next(m, top, recursive))
        r = may_change(m, (atomic_load(&m->flags) & ~clear) | set) ? 0 : -EPERM;
    if (r != 0)
        return r;
    for (m = top; m != NULL; m = setattr_next(m, top, recursive)) {
        m->old_flags = atomic_load(&m->flags);
        r = change_flags(m, (m->old_flags & ~clear) | set);
        if (r != 0)
            break;
    }
    for (struct mount *u = r != 0 ? top : NULL; u != m && u != NULL;
         u = setattr_next(u, top, recursive))
        atomic_store(&u->flags, u->old_flags);
    return r;
}

int vfs_mount_setattr(struct mount_ns *ns, const struct vpath *p, uint32_t clear, uint32_t set,
                      uint32_t type, bool recursive)
{
    struct mount *top = p->mnt, *m;

    rwlock_wrlock(&vfs_mount_lock);
    bool mine = top->ns != NULL && (top->ns == ns || top->ns->anon);
    int r = mine && p->dentry == top->root ? 0 : -EINVAL;
    if (r == 0)
        r = setattr_flags(top, clear, set, recursive);
    for (m = r == 0 && type != 0 ? top : NULL; m != NULL; m = setattr_next(m, top, recursive))
        mount_set_type_locked(m, type);
    if (r == 0)
        mount_ns_touch_locked(top->ns);
    rwlock_unlock(&vfs_mount_lock);
    return r;
}

static int set_group_check(const struct mount_ns *ns, const struct vpath *from,
                           const struct vpath *to)
{
    const struct mount *f = from->mnt, *t = to->mnt;

    if (f->ns == NULL || t->ns == NULL || (f->ns != ns && !f->ns->anon) ||
        (t->ns != ns && !t->ns->anon))
        return -EINVAL;
    if (from->dentry != f->root || to->dentry != t->root || f->sb != t->sb ||
        !mount_shows(f->root, t->root) || has_locked_children(f, t->root))
        return -EINVAL;
    if (t->group != 0 || t->master != NULL || (f->group == 0 && f->master == NULL))
        return -EINVAL;
    return 0;
}

int vfs_set_group(struct mount_ns *ns, const struct vpath *from, const struct vpath *to)
{
    rwlock_wrlock(&vfs_mount_lock);
    int r = set_group_check(ns, from, to);
    if (r == 0)
        mount_set_group_locked(from->mnt, to->mnt);
    rwlock_unlock(&vfs_mount_lock);
    return r;
}

/* ---- unmounting ---- */

/* MNT_EXPIRE: the first call marks, the second takes away what was not used since. Our own
 * reference counts as one use, hence 2. */
static int umount_expire(struct mount *m)
{
    if (ref_read(&m->ref) > 2)
        return -EBUSY;
    if (atomic_load(&m->expiring) == 0) {
        atomic_store(&m->expiring, 2);
        return -EAGAIN;
    }
    return 0;
}

static int umount_check(const struct mount_ns *ns, const struct vpath *root, const struct vpath *p,
                        int flags)
{
    struct mount *m = p->mnt;

    if (!is_mount_root(ns, p) || m->locked)
        return -EINVAL;
    if ((flags & MNT_EXPIRE) != 0) {
        int r = m == root->mnt ? -EINVAL : umount_expire(m);
        if (r != 0)
            return r;
    }
    /* A namespace always has a root. */
    if (m == ns->root)
        return (flags & MNT_DETACH) != 0 ? -EINVAL : -EBUSY;
    /* The tree's reference and the caller's are expected. */
    return (flags & MNT_DETACH) == 0 && mount_is_busy_locked(m, 2) ? -EBUSY : 0;
}

int vfs_umount(struct mount_ns *ns, const struct vpath *root, const struct vpath *p, int flags)
{
    struct list gone;

    list_init(&gone);
    rwlock_wrlock(&vfs_mount_lock);
    int r = umount_check(ns, root, p, flags);
    if (r == 0) {
        mount_ns_touch_locked(ns);
        mount_umount_tree_locked(p->mnt, &gone);
    }
    rwlock_unlock(&vfs_mount_lock);
    mounts_put(&gone);
    return r;
}

/* ---- pivot_root(2) ---- */

static int pivot_check(const struct mount_ns *ns, const struct vpath *root,
                       const struct vpath *new_root, const struct vpath *put_old)
{
    const struct mount *n = new_root->mnt, *r = root->mnt, *o = put_old->mnt;

    if (o->group != 0 || (n->parent != NULL && n->parent->group != 0) ||
        (r->parent != NULL && r->parent->group != 0))
        return -EINVAL;
    if (r->ns != ns || n->ns != ns || n->locked)
        return -EINVAL;
    if (atomic_load(&new_root->dentry->unlinked))
        return -ENOENT;
    if (n == r || o == r)
        return -EBUSY;
    if (root->dentry != r->root || new_root->dentry != n->root || n->parent == NULL)
        return -EINVAL;
    if (!mount_is_below_locked(put_old, new_root) || !mount_is_below_locked(new_root, root))
        return -EINVAL;
    return 0;
}

int vfs_pivot_root(struct mount_ns *ns, const struct vpath *root, const struct vpath *new_root,
                   const struct vpath *put_old)
{
    struct vpath old_new = {0}, old_root = {0};

    rwlock_wrlock(&vfs_mount_lock);
    struct vpath at = topmost(put_old);
    int r = pivot_check(ns, root, new_root, &at);
    if (r == 0) {
        struct mount *n = new_root->mnt, *o = root->mnt;
        mount_unlink_locked(n, &old_new);
        if (o->parent != NULL)
            mount_unlink_locked(o, &old_root);
        n->locked = o->locked;
        o->locked = false;
        mount_link_locked(o, at.mnt, at.dentry);
        if (old_root.mnt != NULL)
            mount_link_locked(n, old_root.mnt, old_root.dentry);
        else
            ns->root = n;
        mount_ns_touch_locked(ns);
    }
    rwlock_unlock(&vfs_mount_lock);
    vpath_put(&old_new);
    vpath_put(&old_root);
    return r;
}

/* ---- sync(2) ---- */

/* The first super from the at-th mount on that has something to write back. Owned, or NULL. */
static struct super *sync_next(struct mount_ns *ns, unsigned *at)
{
    struct super *sb = NULL;
    struct mount *m;
    unsigned i = 0;

    rwlock_rdlock(&vfs_mount_lock);
    list_for_each_entry (m, &ns->mounts, node) {
        if (i++ < *at || m->sb->ops->sync == NULL)
            continue;
        sb = super_get(m->sb);
        break;
    }
    *at = i;
    rwlock_unlock(&vfs_mount_lock);
    return sb;
}

void mount_ns_sync(struct mount_ns *ns)
{
    struct super *sb;
    unsigned at = 0;

    while ((sb = sync_next(ns, &at)) != NULL) {
        (void)sb->ops->sync(sb);
        super_put(sb);
    }
}
