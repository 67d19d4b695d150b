/* Mounts: which super stands where, per namespace. */
#include <stdlib.h>

#include "base/hash.h"
#include "base/objcount.h"
#include "sentry/vfs/vfs_priv.h"

OBJCOUNT_DEFINE(mount);

#define MOUNT_CHAINS 64u

struct rwlock vfs_mount_lock;
static _Atomic uint64_t next_mount_id = 20;

/* Attached mounts by where they stand, so that a walk needs no lock of the whole tree. */
static struct mount_chain {
    struct mutex mu; /* rank LEAF */
    struct list mounts;
} mount_chains[MOUNT_CHAINS];

__attribute__((constructor)) static void mount_init(void)
{
    rwlock_init(&vfs_mount_lock, LOCK_RANK_MOUNT);
    for (unsigned i = 0; i < MOUNT_CHAINS; i++) {
        mutex_init(&mount_chains[i].mu, LOCK_RANK_LEAF);
        list_init(&mount_chains[i].mounts);
    }
}

static struct mount_chain *mount_chain(const struct mount *parent, const struct dentry *point)
{
    uint64_t h = hash_u64((uint64_t)(uintptr_t)parent ^ hash_u64((uint64_t)(uintptr_t)point));

    return &mount_chains[h % MOUNT_CHAINS];
}

/* ---- life ---- */

/* Takes sb's reference on success. */
static int mount_new(struct super *sb, struct dentry *root, uint32_t flags, struct mount **out)
{
    struct mount *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return -ENOMEM;
    ref_init(&m->ref);
    m->id = atomic_fetch_add(&next_mount_id, 1);
    m->sb = sb;
    atomic_fetch_add(&sb->active, 1);
    m->root = dentry_get(root);
    atomic_store(&m->flags, flags);
    list_init(&m->node);
    list_init(&m->chain);
    OBJCOUNT_INC(mount);
    *out = m;
    return 0;
}

int mount_private(struct super *sb, struct mount **out)
{
    int r = mount_new(super_get(sb), sb->root, 0, out);

    if (r != 0)
        super_put(sb);
    return r;
}

/* The last mount of a super takes the cache's hold on its root away. */
static void mount_release_super(struct super *sb)
{
    if (atomic_fetch_sub(&sb->active, 1) == 1) {
        struct dentry *root = sb->root;
        if (sb->ops->shutdown != NULL)
            sb->ops->shutdown(sb);
        dentry_shrink_super(sb);
        sb->root = NULL;
        dentry_put(root);
    }
    super_put(sb);
}

void mount_put(struct mount *m)
{
    while (m != NULL && ref_put(&m->ref)) {
        struct mount *parent = m->parent;
        if (m->point != NULL)
            dentry_put(m->point);
        dentry_put(m->root);
        mount_release_super(m->sb);
        OBJCOUNT_DEC(mount);
        free(m);
        m = parent;
    }
}

void vpath_put(struct vpath *p)
{
    if (p->dentry != NULL)
        dentry_put(p->dentry);
    if (p->mnt != NULL)
        mount_put(p->mnt);
    p->dentry = NULL;
    p->mnt = NULL;
}

/* ---- the tree; vfs_mount_lock is held for writing ---- */

/* Hangs m over p, whose references it takes a copy of. The tree takes m's. */
static void attach_locked(struct mount_ns *ns, const struct vpath *p, struct mount *m)
{
    struct mount_chain *chain = mount_chain(p->mnt, p->dentry);

    vpath_get(p);
    m->ns = ns;
    m->parent = p->mnt;
    m->point = p->dentry;
    list_add_tail(&m->node, &ns->mounts);
    ns->count++;
    mutex_lock(&chain->mu);
    list_add(&m->chain, &chain->mounts);
    mutex_unlock(&chain->mu);
    atomic_fetch_add(&p->dentry->mounted, 1);
}

/* Takes m out; the tree's reference passes to the caller. m still holds where it stood, but is no
 * longer reached from there nor leads there. */
static void detach_locked(struct mount *m)
{
    list_del(&m->node);
    m->ns->count--;
    m->ns = NULL;
    if (m->point == NULL)
        return;
    struct mount_chain *chain = mount_chain(m->parent, m->point);
    mutex_lock(&chain->mu);
    list_del(&m->chain);
    mutex_unlock(&chain->mu);
    atomic_fetch_sub(&m->point->mounted, 1);
}

/* Takes m and what is mounted below it out: one reference each, in *out. */
static void detach_tree_locked(struct mount_ns *ns, struct mount *m, struct list *out)
{
    struct mount *c, *next;

    detach_locked(m);
    list_add_tail(&m->node, out);
    /* Breadth first: children of what is already in out. */
    for (struct list *l = out->next; l != out; l = l->next) {
        const struct mount *up = container_of(l, struct mount, node);
        list_for_each_entry_safe (c, next, &ns->mounts, node) {
            if (c->parent != up)
                continue;
            detach_locked(c);
            list_add_tail(&c->node, out);
        }
    }
}

static void mounts_put(struct list *gone)
{
    while (!list_empty(gone)) {
        struct mount *m = list_first_entry(gone, struct mount, node);
        list_del(&m->node);
        mount_put(m);
    }
}

/* ---- namespaces ---- */

int mount_ns_new(struct super *root_sb, struct mount_ns **out_ns)
{
    struct mount_ns *ns = calloc(1, sizeof(*ns));
    struct mount *m;
    int r =
        ns != NULL ? mount_new(root_sb, root_sb->root, root_sb->flags & MS_RDONLY, &m) : -ENOMEM;

    if (r != 0) {
        free(ns);
        return r;
    }
    ref_init(&ns->ref);
    list_init(&ns->mounts);
    m->ns = ns;
    list_add_tail(&m->node, &ns->mounts);
    ns->root = m;
    ns->count = 1;
    *out_ns = ns;
    return 0;
}

struct mount_ns *mount_ns_get(struct mount_ns *ns)
{
    ref_get(&ns->ref);
    return ns;
}

void mount_ns_put(struct mount_ns *ns)
{
    struct list gone;

    if (!ref_put(&ns->ref))
        return;
    list_init(&gone);
    rwlock_wrlock(&vfs_mount_lock);
    detach_tree_locked(ns, ns->root, &gone);
    rwlock_unlock(&vfs_mount_lock);
    mounts_put(&gone);
    free(ns);
}

void mount_ns_root(struct mount_ns *ns, struct vpath *out)
{
    rwlock_rdlock(&vfs_mount_lock);
    *out = (struct vpath){ns->root, ns->root->root};
    vpath_get(out);
    rwlock_unlock(&vfs_mount_lock);
}

/* ---- crossing ---- */

/* What stands on p, the newest first. Owned, or NULL. */
static struct mount *mount_on(const struct vpath *p)
{
    struct mount_chain *chain = mount_chain(p->mnt, p->dentry);
    struct mount *m, *found = NULL;

    mutex_lock(&chain->mu);
    list_for_each_entry (m, &chain->mounts, chain) {
        if (m->parent == p->mnt && m->point == p->dentry) {
            ref_get(&m->ref);
            found = m;
            break;
        }
    }
    mutex_unlock(&chain->mu);
    return found;
}

bool mount_cross_down(struct vpath *p)
{
    bool moved = false;

    while (UNLIKELY(atomic_load_explicit(&p->dentry->mounted, memory_order_acquire) != 0)) {
        struct mount *m = mount_on(p);
        if (m == NULL)
            break;
        vpath_put(p);
        *p = (struct vpath){m, dentry_get(m->root)};
        moved = true;
    }
    return moved;
}

bool mount_cross_up(struct vpath *p)
{
    struct vpath to = {0};

    rwlock_rdlock(&vfs_mount_lock);
    if (p->mnt->ns != NULL && p->mnt->parent != NULL) {
        to = (struct vpath){p->mnt->parent, p->mnt->point};
        vpath_get(&to);
    }
    rwlock_unlock(&vfs_mount_lock);
    if (to.mnt == NULL)
        return false;
    vpath_put(p);
    *p = to;
    return true;
}

/* ---- writing ---- */

int mount_want_write(const struct mount *mnt)
{
    return (atomic_load_explicit(&mnt->flags, memory_order_relaxed) | mnt->sb->flags) & MS_RDONLY
               ? -EROFS
               : 0;
}

/* The count goes up before the flag is looked at, and vfs_remount sets the flag before it looks at
 * the count: one of them sees the other. */
int mount_get_writer(struct mount *mnt)
{
    atomic_fetch_add(&mnt->writers, 1);
    if (((atomic_load(&mnt->flags) | mnt->sb->flags) & MS_RDONLY) == 0)
        return 0;
    mount_put_writer(mnt);
    return -EROFS;
}

void mount_put_writer(struct mount *mnt)
{
    atomic_fetch_sub(&mnt->writers, 1);
}

/* ---- mount(2) ---- */

static bool mount_kinds_agree(const struct dentry *what, const struct dentry *where)
{
    return S_ISDIR(what->inode->mode) == S_ISDIR(where->inode->mode);
}

static int mount_may_attach(const struct mount_ns *ns, const struct vpath *p)
{
    if (p->mnt->ns != ns)
        return -EINVAL;
    if (ns->count >= LIMIT_MOUNTS)
        return -ENOSPC;
    return atomic_load(&p->dentry->unlinked) ? -ENOENT : 0;
}

int vfs_mount(struct mount_ns *ns, const struct vpath *p, struct super *sb, uint32_t flags)
{
    struct mount *m;
    int r;

    if (!mount_kinds_agree(sb->root, p->dentry))
        return -ENOTDIR;
    r = mount_new(sb, sb->root, flags, &m);
    if (r != 0)
        return r;
    rwlock_wrlock(&vfs_mount_lock);
    r = mount_may_attach(ns, p);
    if (r == 0)
        attach_locked(ns, p, m);
    rwlock_unlock(&vfs_mount_lock);
    if (r != 0) {
        /* The caller keeps the super. */
        (void)super_get(sb);
        mount_put(m);
    }
    return r;
}

/* ---- binds ---- */

static int bind_clone(const struct mount *of, struct dentry *root, uint32_t flags,
                      struct mount **out)
{
    int r = mount_new(super_get(of->sb), root, flags, out);

    if (r != 0)
        super_put(of->sb);
    return r;
}

/* Is m mounted right below the part of from's mount that is copied? */
static bool bind_is_below_locked(const struct vpath *from, const struct mount *m)
{
    rwlock_rdlock(&vfs_tree_lock);
    bool below = m->parent == from->mnt && dentry_is_ancestor(from->dentry, m->point);
    rwlock_unlock(&vfs_tree_lock);
    return below;
}

/* Copies what is mounted below from under top, a copy of from's mount that nobody reaches yet.
 * Parents stand before children in the list, so each one's copy is there when it is needed; copy is
 * set during this one bind only. */
static int bind_below_locked(struct mount_ns *ns, const struct vpath *from, struct mount *top)
{
    struct mount *m, *copy, *last = container_of(ns->mounts.prev, struct mount, node);
    int r = 0;

    list_for_each_entry (m, &ns->mounts, node) {
        struct mount *under = m->parent != NULL ? m->parent->copy : NULL;
        if (bind_is_below_locked(from, m))
            under = top;
        if (under != NULL) {
            r = ns->count < LIMIT_MOUNTS ? bind_clone(m, m->root, atomic_load(&m->flags), &copy)
                                         : -ENOSPC;
            if (r != 0)
                break;
            const struct vpath at = {under, m->point};
            attach_locked(ns, &at, copy);
            m->copy = copy;
        }
        if (m == last)
            break;
    }
    list_for_each_entry (m, &ns->mounts, node)
        m->copy = NULL;
    return r;
}

int vfs_bind(struct mount_ns *ns, const struct vpath *from, const struct vpath *to, bool recursive,
             uint32_t flags)
{
    struct list gone;
    struct mount *top;
    int r;

    if (!mount_kinds_agree(from->dentry, to->dentry))
        return -ENOTDIR;
    r = bind_clone(from->mnt, from->dentry, flags | (atomic_load(&from->mnt->flags) & MS_RDONLY),
                   &top);
    if (r != 0)
        return r;
    list_init(&gone);
    rwlock_wrlock(&vfs_mount_lock);
    r = mount_may_attach(ns, to);
    if (r == 0 && recursive && from->mnt->ns == ns)
        r = bind_below_locked(ns, from, top);
    if (r == 0) {
        attach_locked(ns, to, top);
    } else {
        top->ns = ns;
        ns->count++;
        list_add_tail(&top->node, &ns->mounts);
        detach_tree_locked(ns, top, &gone);
    }
    rwlock_unlock(&vfs_mount_lock);
    mounts_put(&gone);
    return r;
}

/* ---- changes ---- */

uint32_t vfs_mount_flags(const struct mount *m)
{
    return atomic_load(&m->flags);
}

int vfs_remount(struct mount_ns *ns, const struct vpath *p, uint32_t flags)
{
    struct mount *m = p->mnt;
    int r = 0;

    rwlock_wrlock(&vfs_mount_lock);
    if (m->ns != ns || p->dentry != m->root) {
        r = -EINVAL;
    } else {
        uint32_t old = atomic_exchange(&m->flags, flags);
        if ((flags & MS_RDONLY) != 0 && (old & MS_RDONLY) == 0 && atomic_load(&m->writers) != 0) {
            atomic_store(&m->flags, old);
            r = -EBUSY;
        }
    }
    rwlock_unlock(&vfs_mount_lock);
    return r;
}

static bool mount_has_children_locked(struct mount_ns *ns, const struct mount *m)
{
    struct mount *c;

    list_for_each_entry (c, &ns->mounts, node)
        if (c->parent == m)
            return true;
    return false;
}

int vfs_umount(struct mount_ns *ns, const struct vpath *p, int flags)
{
    struct mount *m = p->mnt;
    struct list gone;
    int r = 0;

    list_init(&gone);
    rwlock_wrlock(&vfs_mount_lock);
    if (m->ns != ns || p->dentry != m->root)
        r = -EINVAL;
    else if (m == ns->root)
        r = -EBUSY;
    else if ((flags & MNT_DETACH) == 0 &&
             (mount_has_children_locked(ns, m) || ref_read(&m->ref) > 2))
        r = -EBUSY; /* the tree's reference and the caller's are expected */
    else
        detach_tree_locked(ns, m, &gone);
    rwlock_unlock(&vfs_mount_lock);
    mounts_put(&gone);
    return r;
}

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
