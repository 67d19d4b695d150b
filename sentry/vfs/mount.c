/* Mounts: which super stands where. The objects, the tree they make, crossing them, writing. */
#include <stdlib.h>

#include "base/hash.h"
#include "base/objcount.h"
#include "sentry/vfs/vfs_priv.h"

OBJCOUNT_DEFINE(mount);

#define MOUNT_CHAINS 64u

struct rwlock vfs_mount_lock;
static _Atomic uint64_t next_mount_id = 20;
static _Atomic uint64_t next_ns_id = 1;

/* Linked mounts by where they stand, so that a walk needs no lock of the whole tree. */
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

int mount_new(struct super *sb, struct dentry *root, uint32_t flags, struct mount **out)
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
    struct list *const lists[] = {&m->node,  &m->chain,  &m->children, &m->child,
                                  &m->peers, &m->slaves, &m->slave,    &m->work};
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        list_init(lists[i]);
    OBJCOUNT_INC(mount);
    *out = m;
    return 0;
}

int mount_private(struct super *sb, struct mount **out)
{
    int r = mount_new(super_get(sb), sb->root, MS_RELATIME, out);

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
        notify_unmount(sb);
        dentry_shrink_super(sb);
        sb->root = NULL;
        dentry_put(root);
    }
    super_put(sb);
}

void super_hold(struct super *sb)
{
    atomic_fetch_add(&sb->active, 1);
}

void super_unhold(struct super *sb)
{
    mount_release_super(sb);
}

void super_end(struct super *sb)
{
    super_hold(sb);
    super_unhold(sb);
}

/* Any use but the one of the umount that marked it. */
static void mount_used(struct mount *m)
{
    uint32_t mark = atomic_load_explicit(&m->expiring, memory_order_relaxed);

    if (UNLIKELY(mark != 0))
        (void)atomic_compare_exchange_strong(&m->expiring, &mark, mark - 1);
}

void mount_put(struct mount *m)
{
    if (m != NULL)
        mount_used(m);
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

void vpath_idle(const struct vpath *p, bool on)
{
    if (p->mnt == NULL)
        return;
    if (on)
        atomic_fetch_add_explicit(&p->mnt->idle, 1, memory_order_relaxed);
    else
        atomic_fetch_sub_explicit(&p->mnt->idle, 1, memory_order_relaxed);
}

int mount_ns_alloc(bool anon, struct mount_ns **out)
{
    struct mount_ns *ns = calloc(1, sizeof(*ns));

    if (ns == NULL)
        return -ENOMEM;
    ref_init(&ns->ref);
    ns->id = atomic_fetch_add(&next_ns_id, 1);
    ns->anon = anon;
    list_init(&ns->mounts);
    waitq_init(&ns->changed);
    *out = ns;
    return 0;
}

void mount_ns_free(struct mount_ns *ns)
{
    waitq_fini(&ns->changed);
    free(ns);
}

void mount_ns_touch_locked(struct mount_ns *ns)
{
    atomic_fetch_add(&ns->changes, 1);
    (void)waitq_wake(&ns->changed, 0);
}

/* ---- the tree; vfs_mount_lock is held for writing ---- */

void mount_link_locked(struct mount *m, struct mount *parent, struct dentry *point)
{
    struct mount_chain *chain = mount_chain(parent, point);
    const struct vpath at = {parent, point};

    BUG_ON(m->parent != NULL);
    vpath_get(&at);
    mutex_lock(&chain->mu);
    m->parent = parent;
    m->point = point;
    list_add(&m->chain, &chain->mounts);
    mutex_unlock(&chain->mu);
    list_add_tail(&m->child, &parent->children);
    atomic_fetch_add(&point->mounted, 1);
}

void mount_unlink_locked(struct mount *m, struct vpath *out)
{
    struct mount_chain *chain = mount_chain(m->parent, m->point);

    *out = (struct vpath){m->parent, m->point};
    mutex_lock(&chain->mu);
    list_del(&m->chain);
    m->parent = NULL;
    m->point = NULL;
    mutex_unlock(&chain->mu);
    list_del(&m->child);
    atomic_fetch_sub(&out->dentry->mounted, 1);
}

void mount_join_locked(struct mount_ns *ns, struct mount *m)
{
    m->ns = ns;
    list_add_tail(&m->node, &ns->mounts);
    ns->count++;
}

void mount_leave_ns_locked(struct mount *m)
{
    if (m->ns == NULL)
        return;
    list_del(&m->node);
    m->ns->count--;
    m->ns = NULL;
}

void mount_detach_locked(struct mount *m, struct list *gone)
{
    mount_set_type_locked(m, MS_PRIVATE);
    mount_leave_ns_locked(m);
    list_del(&m->child);
    if (m->point != NULL && !list_empty(&m->chain)) {
        struct mount_chain *chain = mount_chain(m->parent, m->point);
        mutex_lock(&chain->mu);
        list_del(&m->chain);
        mutex_unlock(&chain->mu);
        atomic_fetch_sub(&m->point->mounted, 1);
    }
    list_add_tail(&m->node, gone);
}

void mount_detach_tree_locked(struct mount *m, struct list *gone)
{
    struct list all;
    struct mount *x;

    list_init(&all);
    for (x = m; x != NULL; x = mount_next_locked(x, m))
        list_add(&x->work, &all);
    while (!list_empty(&all)) {
        x = list_first_entry(&all, struct mount, work);
        list_del(&x->work);
        mount_detach_locked(x, gone);
    }
}

void mounts_put(struct list *gone)
{
    while (!list_empty(gone)) {
        struct mount *m = list_first_entry(gone, struct mount, node);
        list_del(&m->node);
        mount_put(m);
    }
}

bool mount_point_in(const struct mount_ns *ns, const struct dentry *d)
{
    bool found = false;

    if (LIKELY(atomic_load(&d->mounted) == 0))
        return false;
    /* Called with a directory locked, where the trees cannot be. */
    for (unsigned i = 0; i < MOUNT_CHAINS && !found; i++) {
        const struct mount *m;
        mutex_lock(&mount_chains[i].mu);
        list_for_each_entry (m, &mount_chains[i].mounts, chain)
            found |= m->point == d && m->ns == ns;
        mutex_unlock(&mount_chains[i].mu);
    }
    return found;
}

void mount_detach_point_locked(struct dentry *d, struct list *gone)
{
    struct mount *m;

    for (unsigned i = 0; i < MOUNT_CHAINS && atomic_load(&d->mounted) != 0; i++) {
        bool again = true;
        while (again) {
            again = false;
            list_for_each_entry (m, &mount_chains[i].mounts, chain) {
                if (m->point != d)
                    continue;
                mount_umount_tree_locked(m, gone);
                again = true;
                break;
            }
        }
    }
}

struct mount *mount_at_locked(const struct mount *parent, const struct dentry *point)
{
    struct mount *m;

    if (atomic_load(&point->mounted) == 0)
        return NULL;
    list_for_each_entry (m, &parent->children, child)
        if (m->point == point)
            return m;
    return NULL;
}

struct mount *mount_topmost_locked(struct mount *m)
{
    struct mount *on;

    while ((on = mount_at_locked(m, m->root)) != NULL)
        m = on;
    return m;
}

struct mount *mount_next_locked(const struct mount *m, const struct mount *top)
{
    if (!list_empty(&m->children))
        return list_first_entry(&m->children, struct mount, child);
    for (; m != top; m = m->parent)
        if (m->child.next != &m->parent->children)
            return list_entry(m->child.next, struct mount, child);
    return NULL;
}

bool mount_is_below_locked(const struct vpath *p, const struct vpath *at)
{
    const struct mount *m = p->mnt;
    const struct dentry *d = p->dentry;

    for (; m != at->mnt && m->parent != NULL; m = m->parent)
        d = m->point;
    return m == at->mnt && mount_shows(at->dentry, d);
}

bool mount_shows(const struct dentry *root, const struct dentry *d)
{
    rwlock_rdlock(&vfs_tree_lock);
    bool shows = dentry_is_ancestor(root, d);
    rwlock_unlock(&vfs_tree_lock);
    return shows;
}

int mount_may_attach_locked(const struct mount_ns *ns, const struct vpath *p)
{
    if (p->mnt->ns != ns)
        return -EINVAL;
    return atomic_load(&p->dentry->unlinked) ? -ENOENT : 0;
}

/* ---- crossing ---- */

/* What stands on p. Owned, or NULL. */
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

static uint32_t mount_all_flags(const struct mount *mnt)
{
    return atomic_load(&mnt->flags) | atomic_load(&mnt->sb->flags);
}

int mount_want_write(const struct mount *mnt)
{
    return (mount_all_flags(mnt) & MS_RDONLY) != 0 ? -EROFS : 0;
}

/* The counts go up before the flags are looked at, and remounting sets a flag before it looks at
 * its count: one of them sees the other. */
int mount_get_writer(struct mount *mnt)
{
    atomic_fetch_add(&mnt->writers, 1);
    atomic_fetch_add(&mnt->sb->writers, 1);
    if ((mount_all_flags(mnt) & MS_RDONLY) == 0)
        return 0;
    mount_put_writer(mnt);
    return -EROFS;
}

void mount_put_writer(struct mount *mnt)
{
    atomic_fetch_sub(&mnt->sb->writers, 1);
    atomic_fetch_sub(&mnt->writers, 1);
}
