/* Marks on inodes and the events that reach them (fs/notify of the kernel). */
#include "sentry/vfs/notify.h"

#include <stdlib.h>

#include "sentry/vfs/vfs_priv.h"

static struct mutex notify_mu = MUTEX_INITIALIZER(LOCK_RANK_NOTIFY);
static struct list all_marks = LIST_INIT(all_marks);
static _Atomic unsigned mark_count; /* lets everybody else pass by */
static _Atomic uint32_t next_cookie = 1;

void notify_lock(void)
{
    mutex_lock(&notify_mu);
}

void notify_unlock(void)
{
    mutex_unlock(&notify_mu);
}

/* ---- marks ---- */

static struct notify_mark *marks_of(const struct inode *i)
{
    return atomic_load_explicit(&i->watches, memory_order_acquire);
}

static struct notify_mark *mark_find(const struct notify_group *g, const struct inode *i,
                                     const void *key)
{
    struct notify_mark *m = marks_of(i);

    while (m != NULL && (m->group != g || m->key != key))
        m = m->next;
    return m;
}

static void mark_unlink_locked(struct notify_mark *m)
{
    struct notify_mark *x = marks_of(m->inode);

    if (x == m) {
        atomic_store_explicit(&m->inode->watches, m->next, memory_order_release);
    } else {
        while (x->next != m)
            x = x->next;
        x->next = m->next;
    }
    list_del(&m->node);
    list_del(&m->all);
    atomic_fetch_sub(&mark_count, 1);
}

static void mark_free(struct notify_mark *m)
{
    inode_put(m->inode);
    free(m);
}

void notify_group_init(struct notify_group *g)
{
    list_init(&g->marks);
    g->last_wd = 0;
}

void notify_group_fini(struct notify_group *g)
{
    for (;;) {
        struct notify_mark *m = NULL;
        mutex_lock(&notify_mu);
        if (!list_empty(&g->marks)) {
            m = list_first_entry(&g->marks, struct notify_mark, node);
            mark_unlink_locked(m);
        }
        mutex_unlock(&notify_mu);
        if (m == NULL)
            return;
        mark_free(m);
    }
}

static bool wd_in_use(const struct notify_group *g, int wd)
{
    const struct notify_mark *m;

    list_for_each_entry (m, &g->marks, node)
        if (m->wd == wd)
            return true;
    return false;
}

/* Numbers rise, and are not used again before all others were. */
static int wd_next(struct notify_group *g)
{
    bool again = g->last_wd == INT_MAX;

    do
        g->last_wd = g->last_wd == INT_MAX ? 1 : g->last_wd + 1;
    while (again && wd_in_use(g, g->last_wd));
    return g->last_wd;
}

static int mark_change(struct notify_mark *m, uint32_t mask, bool add, bool create)
{
    if (create)
        return -EEXIST;
    m->mask = add ? m->mask | mask : mask;
    return m->wd;
}

static int mark_set(struct notify_group *g, struct inode *i, const void *key, uint32_t mask,
                    bool add, bool create, bool *out_fresh)
{
    struct notify_mark *fresh = calloc(1, sizeof(*fresh)), *m;
    int r;

    if (fresh == NULL)
        return -ENOMEM;
    mutex_lock(&notify_mu);
    m = mark_find(g, i, key);
    if (m != NULL) {
        r = mark_change(m, mask, add, create);
    } else if (atomic_load(&mark_count) >= LIMIT_NOTIFY_MARKS) {
        r = -ENOSPC;
    } else {
        *fresh = (struct notify_mark){
            .inode = inode_get(i), .group = g, .next = marks_of(i), .mask = mask, .key = key};
        r = fresh->wd = wd_next(g);
        list_add_tail(&fresh->node, &g->marks);
        list_add_tail(&fresh->all, &all_marks);
        atomic_fetch_add(&mark_count, 1);
        atomic_store_explicit(&i->watches, fresh, memory_order_release);
        fresh = NULL;
        *out_fresh = true;
    }
    mutex_unlock(&notify_mu);
    free(fresh);
    return r;
}

int notify_mark_set(struct notify_group *g, struct inode *i, const void *key, uint32_t mask,
                    bool add, bool create)
{
    bool fresh = false;
    int wd = mark_set(g, i, key, mask, add, create, &fresh);
    int r = wd >= 0 && i->ops->watch != NULL ? i->ops->watch(i) : 0;

    if (r == 0)
        return wd;
    if (fresh)
        notify_mark_drop(g, i, key);
    return r;
}

int notify_mark_remove(struct notify_group *g, int wd)
{
    struct notify_mark *m, *found = NULL;

    mutex_lock(&notify_mu);
    list_for_each_entry (m, &g->marks, node)
        if (m->wd == wd)
            found = m;
    if (found != NULL) {
        mark_unlink_locked(found);
        g->event(g, found, NOTIFY_IGNORED, 0, NULL);
    }
    mutex_unlock(&notify_mu);
    if (found == NULL)
        return -EINVAL;
    mark_free(found);
    return 0;
}

void notify_mark_drop(struct notify_group *g, const struct inode *i, const void *key)
{
    mutex_lock(&notify_mu);
    struct notify_mark *m = mark_find(g, i, key);
    if (m != NULL)
        mark_unlink_locked(m);
    mutex_unlock(&notify_mu);
    if (m != NULL)
        mark_free(m);
}

/* ---- events ---- */

uint32_t notify_cookie(void)
{
    return atomic_fetch_add(&next_cookie, 1);
}

static bool nobody_cares(void)
{
    return LIKELY(atomic_load_explicit(&mark_count, memory_order_relaxed) == 0);
}

/* One that had its one event goes. Its reference on the inode is not the last: the caller has one.
 */
static void mark_event_locked(struct notify_mark *m, uint32_t mask, uint32_t cookie,
                              const char *name)
{
    m->group->event(m->group, m, mask, cookie, name);
    if ((m->mask & NOTIFY_ONESHOT) == 0)
        return;
    mark_unlink_locked(m);
    m->group->event(m->group, m, NOTIFY_IGNORED, 0, NULL);
    mark_free(m);
}

static void inode_event(struct inode *i, uint32_t mask, uint32_t cookie, const char *name,
                        bool unlinked)
{
    struct notify_mark *m, *next;

    if (marks_of(i) == NULL)
        return;
    mutex_lock(&notify_mu);
    for (m = marks_of(i); m != NULL; m = next) {
        next = m->next;
        if ((m->mask & mask & NOTIFY_ALL) != 0 &&
            !(unlinked && (m->mask & NOTIFY_EXCL_UNLINK) != 0))
            mark_event_locked(m, mask, cookie, name);
    }
    mutex_unlock(&notify_mu);
}

bool notify_watched(const struct inode *i)
{
    return marks_of(i) != NULL;
}

void notify_foreign(struct inode *i, uint32_t mask, uint32_t cookie, const char *name)
{
    inode_event(i, mask, cookie, name, false);
}

void notify_lost(void)
{
    struct notify_mark *m;

    mutex_lock(&notify_mu);
    list_for_each_entry (m, &all_marks, all)
        if (m->inode->ops->watch != NULL)
            m->group->event(m->group, m, NOTIFY_OVERFLOW, 0, NULL);
    mutex_unlock(&notify_mu);
}

static uint32_t mask_of(const struct inode *i, uint32_t mask)
{
    return S_ISDIR(i->mode) ? mask | NOTIFY_ISDIR : mask;
}

void notify_self(struct inode *i, uint32_t mask)
{
    if (nobody_cares())
        return;
    /* These say of themselves what they are about. */
    if ((mask & (NOTIFY_DELETE_SELF | NOTIFY_MOVE_SELF)) == 0)
        mask = mask_of(i, mask);
    inode_event(i, mask, 0, NULL, false);
}

void notify_name(struct inode *dir, uint32_t mask, const struct inode *child, const char *name,
                 uint32_t cookie)
{
    if (!nobody_cares())
        inode_event(dir, child != NULL ? mask_of(child, mask) : mask, cookie, name, false);
}

static void parent_event(struct dentry *d, uint32_t mask)
{
    struct dentry *parent = dentry_parent(d);
    char name[VFS_NAME_MAX + 1];

    if (parent != d && marks_of(parent->inode) != NULL) {
        rwlock_rdlock(&vfs_tree_lock);
        size_t n = MIN(d->name_len, (uint32_t)VFS_NAME_MAX);
        memcpy(name, d->name, n);
        name[n] = '\0';
        rwlock_unlock(&vfs_tree_lock);
        inode_event(parent->inode, mask, 0, name, atomic_load(&d->unlinked));
    }
    dentry_put(parent);
}

void notify_dentry(struct dentry *d, uint32_t mask)
{
    if (nobody_cares() || d->inode == NULL)
        return;
    mask = mask_of(d->inode, mask);
    parent_event(d, mask);
    inode_event(d->inode, mask, 0, NULL, false);
}

void notify_file(const struct file *f, uint32_t mask)
{
    if (!nobody_cares() && f->path.mnt != mount_anon())
        notify_dentry(f->path.dentry, mask);
}

void notify_setattr(struct dentry *d, uint32_t valid)
{
    const uint32_t atime = VFS_SET_ATIME | VFS_SET_ATIME_NOW;
    const uint32_t mtime = VFS_SET_MTIME | VFS_SET_MTIME_NOW;
    uint32_t mask = 0;

    if (nobody_cares())
        return;
    if ((valid & (VFS_SET_UID | VFS_SET_GID | VFS_SET_MODE)) != 0)
        mask |= NOTIFY_ATTRIB;
    if ((valid & VFS_SET_SIZE) != 0)
        mask |= NOTIFY_MODIFY;
    if ((valid & atime) != 0 && (valid & mtime) != 0)
        mask |= NOTIFY_ATTRIB;
    else if ((valid & atime) != 0)
        mask |= NOTIFY_ACCESS;
    else if ((valid & mtime) != 0)
        mask |= NOTIFY_MODIFY;
    if (mask != 0)
        notify_dentry(d, mask);
}

/* The caller holds a reference on i. */
void notify_gone(struct inode *i)
{
    struct notify_mark *m;

    if (marks_of(i) == NULL)
        return;
    mutex_lock(&notify_mu);
    while ((m = marks_of(i)) != NULL) {
        if ((m->mask & NOTIFY_DELETE_SELF) != 0)
            m->group->event(m->group, m, NOTIFY_DELETE_SELF, 0, NULL);
        mark_unlink_locked(m);
        m->group->event(m->group, m, NOTIFY_IGNORED, 0, NULL);
        mark_free(m);
    }
    mutex_unlock(&notify_mu);
}

void notify_unmount(struct super *sb)
{
    struct notify_mark *m, *found;

    if (nobody_cares())
        return;
    do {
        found = NULL;
        mutex_lock(&notify_mu);
        list_for_each_entry (m, &all_marks, all)
            if (m->inode->sb == sb)
                found = m;
        if (found != NULL) {
            found->group->event(found->group, found, NOTIFY_UNMOUNT, 0, NULL);
            mark_unlink_locked(found);
            found->group->event(found->group, found, NOTIFY_IGNORED, 0, NULL);
        }
        mutex_unlock(&notify_mu);
        if (found != NULL)
            mark_free(found);
    } while (found != NULL);
}
