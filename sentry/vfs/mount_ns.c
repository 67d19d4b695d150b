/* Mount namespaces: made, copied, gone; and trees of mounts that stand nowhere. */
#include <stdlib.h>

#include "base/sort.h"
#include "sentry/vfs/vfs_priv.h"

int mount_ns_new(struct super *root_sb, struct mount_ns **out_ns)
{
    struct mount_ns *ns;
    struct mount *m;
    int r = mount_ns_alloc(false, &ns);

    if (r != 0)
        return r;
    r = mount_new(root_sb, root_sb->root, MS_RELATIME | (root_sb->flags & MS_RDONLY), &m);
    if (r != 0) {
        mount_ns_free(ns);
        return r;
    }
    mount_join_locked(ns, m); /* nobody else knows either yet */
    ns->root = m;
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
    if (ns->root != NULL)
        mount_umount_tree_locked(ns->root, &gone);
    rwlock_unlock(&vfs_mount_lock);
    mounts_put(&gone);
    mount_ns_free(ns);
}

uint64_t mount_ns_id(const struct mount_ns *ns)
{
    return ns->id;
}

void mount_ns_root(struct mount_ns *ns, struct vpath *out)
{
    rwlock_rdlock(&vfs_mount_lock);
    *out = (struct vpath){ns->root, ns->root->root};
    vpath_get(out);
    rwlock_unlock(&vfs_mount_lock);
}

uint32_t mount_ns_changes(struct mount_ns *ns, struct waiter *w)
{
    if (w != NULL)
        waitq_add(&ns->changed, w);
    return atomic_load(&ns->changes);
}

/* ---- copies ---- */

/* What another user namespace may not undo. */
static void lock_tree(struct mount *top)
{
    for (struct mount *m = top; m != NULL; m = mount_next_locked(m, top)) {
        uint32_t flags = atomic_load(&m->flags);
        m->locked_flags |= flags & (MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC);
        m->locked_flags |= MS_NOATIME | MS_NODIRATIME | MS_RELATIME;
        m->locked = m != top;
    }
}

/* p is on old: moves it to the copy. The old reference goes to *was. */
static void move_place(struct vpath *p, struct mount *old, struct mount *copy, struct mount **was)
{
    if (p->mnt != old || *was != NULL)
        return;
    ref_get(&copy->ref);
    *was = old;
    p->mnt = copy;
}

/* Both trees have the same shape. */
static void copy_join(struct mount_ns *ns, struct mount *top, struct mount *copy,
                      struct vpath *places[2], struct mount *was[2])
{
    struct mount *m = top, *c = copy;

    for (; m != NULL; m = mount_next_locked(m, top), c = mount_next_locked(c, copy)) {
        mount_join_locked(ns, c);
        move_place(places[0], m, c, &was[0]);
        move_place(places[1], m, c, &was[1]);
    }
    ns->root = copy;
}

int mount_ns_copy(struct mount_ns *old, bool lesser, struct vpath *root, struct vpath *cwd,
                  struct mount_ns **out_ns)
{
    struct vpath *places[2] = {root, cwd};
    struct mount *was[2] = {NULL, NULL}, *copy;
    struct mount_ns *ns;
    int r = mount_ns_alloc(false, &ns);

    if (r != 0)
        return r;
    rwlock_wrlock(&vfs_mount_lock);
    r = mount_copy_tree_locked(old->root, old->root->root,
                               MOUNT_COPY_UNBINDABLE | (lesser ? MOUNT_COPY_SHARED_SLAVE : 0),
                               &copy);
    if (r == 0) {
        copy_join(ns, old->root, copy, places, was);
        if (lesser)
            lock_tree(copy);
    }
    rwlock_unlock(&vfs_mount_lock);
    if (r != 0) {
        mount_ns_free(ns);
        return r;
    }
    mount_put(was[0]);
    mount_put(was[1]);
    *out_ns = ns;
    return 0;
}

/* ---- trees that stand nowhere ---- */

static struct mount_ns *tree_of(struct file *f)
{
    return f->priv;
}

static void tree_release(struct file *f)
{
    mount_ns_put(tree_of(f));
}

/* The file can do nothing but end. */
static const struct file_ops tree_file_ops = {.release = tree_release};

/* Takes the mounts of ns over on success. */
static int tree_file(struct mount_ns *ns, struct file **out)
{
    const struct vpath at = {ns->root, ns->root->root};
    int r = file_alloc(&at, O_PATH, out);

    if (r != 0)
        return r;
    (*out)->ops = &tree_file_ops;
    (*out)->priv = ns;
    return 0;
}

static int tree_copy(struct mount_ns *from_ns, const struct vpath *from, bool recursive,
                     struct mount **out)
{
    if (from->mnt->unbindable)
        return -EINVAL;
    if (from->mnt->ns == NULL || (from->mnt->ns != from_ns && !from->mnt->ns->anon))
        return -EINVAL;
    return recursive ? mount_copy_tree_locked(from->mnt, from->dentry, 0, out)
                     : mount_clone_locked(from->mnt, from->dentry, 0, out);
}

int vfs_open_tree(struct mount_ns *ns, const struct vpath *from, bool recursive, struct file **out)
{
    struct mount_ns *tree;
    struct mount *top;
    int r = mount_ns_alloc(true, &tree);

    if (r != 0)
        return r;
    rwlock_wrlock(&vfs_mount_lock);
    r = tree_copy(ns, from, recursive, &top);
    for (struct mount *m = r == 0 ? top : NULL; m != NULL; m = mount_next_locked(m, top))
        mount_join_locked(tree, m);
    if (r == 0)
        tree->root = top;
    rwlock_unlock(&vfs_mount_lock);
    if (r == 0)
        r = tree_file(tree, out);
    if (r != 0)
        mount_ns_put(tree);
    return r;
}

int vfs_detached_mount(struct super *sb, uint32_t flags, struct file **out)
{
    struct mount_ns *tree;
    int r = mount_ns_alloc(true, &tree);

    if (r != 0)
        return r;
    r = mount_new(sb, sb->root, flags & VFS_MOUNT_FLAGS, &tree->root);
    if (r != 0) {
        mount_ns_free(tree);
        return r;
    }
    mount_join_locked(tree, tree->root);
    r = tree_file(tree, out);
    if (r != 0) {
        (void)super_get(sb); /* the caller keeps it */
        mount_ns_put(tree);
    }
    return r;
}

/* ---- names that something stands on ---- */

void mount_point_gone(struct dentry *d)
{
    struct list gone;

    if (LIKELY(atomic_load(&d->mounted) == 0))
        return;
    list_init(&gone);
    rwlock_wrlock(&vfs_mount_lock);
    mount_detach_point_locked(d, &gone);
    rwlock_unlock(&vfs_mount_lock);
    mounts_put(&gone);
}

/* ---- telling about mounts ---- */

uint64_t vfs_mount_id(const struct mount *m)
{
    return m->id;
}

bool vfs_is_mount_root(const struct vpath *p)
{
    return p->dentry == p->mnt->root;
}

int64_t vfs_mount_root_text(const struct vfs_mount_info *i, char *buf, size_t size)
{
    return dentry_text(i->at.dentry, buf, size);
}

static struct mount *mount_by_id(const struct mount_ns *ns, uint64_t id)
{
    struct mount *m;

    list_for_each_entry (m, &ns->mounts, node)
        if (m->id == id)
            return m;
    return NULL;
}

static void info_fill(const struct mount_ns *ns, struct mount *m, struct vfs_mount_info *out)
{
    *out = (struct vfs_mount_info){
        .id = m->id,
        .parent_id = m->parent != NULL ? m->parent->id : m->id,
        .ns_id = ns->id,
        .flags = atomic_load(&m->flags),
        .group = m->group,
        .master = m->master != NULL ? m->master->group : 0,
        .from = mount_dominating_locked(m, ns),
        .unbindable = m->unbindable,
        .sb = super_get(m->sb),
        .at = {m, m->root},
        .point = {m->parent, m->point},
    };
    vpath_get(&out->at);
    if (m->parent != NULL)
        vpath_get(&out->point);
}

int vfs_mount_info(struct mount_ns *ns, uint64_t id, struct vfs_mount_info *out)
{
    int r = -ENOENT;

    rwlock_rdlock(&vfs_mount_lock);
    struct mount *m = mount_by_id(ns, id);
    if (m != NULL) {
        info_fill(ns, m, out);
        r = 0;
    }
    rwlock_unlock(&vfs_mount_lock);
    return r;
}

size_t mount_ns_infos(struct mount_ns *ns, struct vfs_mount_info **out)
{
    struct mount *m;
    size_t n = 0;

    rwlock_rdlock(&vfs_mount_lock);
    *out = calloc(ns->count + 1, sizeof(**out));
    if (*out != NULL)
        list_for_each_entry (m, &ns->mounts, node)
            info_fill(ns, m, &(*out)[n++]);
    rwlock_unlock(&vfs_mount_lock);
    return n;
}

void vfs_mount_info_end(struct vfs_mount_info *i)
{
    vpath_put(&i->point);
    vpath_put(&i->at);
    super_put(i->sb);
}

static int ids_compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

int64_t vfs_list_mounts(struct mount_ns *ns, const struct vpath *top, uint64_t skip, uint64_t **out)
{
    const struct mount *m;
    size_t n = 0;

    rwlock_rdlock(&vfs_mount_lock);
    uint64_t *ids = calloc(ns->count + 1, sizeof(*ids));
    if (ids != NULL)
        list_for_each_entry (m, &ns->mounts, node) {
            const struct vpath at = {(struct mount *)(uintptr_t)m, m->root};
            if (m->id != skip && mount_is_below_locked(&at, top))
                ids[n++] = m->id;
        }
    rwlock_unlock(&vfs_mount_lock);
    if (ids == NULL)
        return -ENOMEM;
    sort_items(ids, n, sizeof(*ids), ids_compare);
    *out = ids;
    return (int64_t)n;
}
