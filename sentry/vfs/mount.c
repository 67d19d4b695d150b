/* Mounts: which super stands where, per namespace. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>

#include "base/objcount.h"
#include "sentry/vfs/vfs_priv.h"

OBJCOUNT_DEFINE(mount);

static _Atomic uint64_t next_mount_id = 20;

/* ---- life ---- */

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
    OBJCOUNT_INC(mount);
    *out = m;
    return 0;
}

/* The last mount of a super takes the cache's hold on its root away. */
static void mount_release_super(struct super *sb)
{
    if (atomic_fetch_sub(&sb->active, 1) == 1) {
        struct dentry *root = sb->root;
        dentry_shrink_super(sb);
        sb->root = NULL;
        dentry_put(root);
    }
    super_put(sb);
}

static void mount_put(struct mount *m)
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
    rwlock_init(&ns->lock, LOCK_RANK_MOUNT);
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

/* Takes m out of its namespace's tree; the tree's reference passes to the caller. lock held. */
static void mount_detach_locked(struct mount_ns *ns, struct mount *m)
{
    list_del(&m->node);
    ns->count--;
    m->ns = NULL;
    if (m->point != NULL)
        atomic_fetch_sub(&m->point->mounted, 1);
}

void mount_ns_put(struct mount_ns *ns)
{
    if (!ref_put(&ns->ref))
        return;
    while (!list_empty(&ns->mounts)) {
        struct mount *m = container_of(ns->mounts.prev, struct mount, node);
        rwlock_wrlock(&ns->lock);
        mount_detach_locked(ns, m);
        rwlock_unlock(&ns->lock);
        mount_put(m);
    }
    rwlock_destroy(&ns->lock);
    free(ns);
}

void mount_ns_root(struct mount_ns *ns, struct vpath *out)
{
    rwlock_rdlock(&ns->lock);
    *out = (struct vpath){ns->root, ns->root->root};
    vpath_get(out);
    rwlock_unlock(&ns->lock);
}

/* ---- crossing ---- */

static struct mount *mount_on_locked(struct mount_ns *ns, const struct vpath *p)
{
    struct mount *m;

    /* The last one mounted is on top. */
    for (struct list *l = ns->mounts.prev; l != &ns->mounts; l = l->prev) {
        m = container_of(l, struct mount, node);
        if (m->parent == p->mnt && m->point == p->dentry)
            return m;
    }
    return NULL;
}

bool mount_cross_down(struct mount_ns *ns, struct vpath *p)
{
    bool moved = false;

    while (UNLIKELY(atomic_load_explicit(&p->dentry->mounted, memory_order_acquire) != 0)) {
        struct vpath to = {0};
        rwlock_rdlock(&ns->lock);
        struct mount *m = mount_on_locked(ns, p);
        if (m != NULL) {
            to = (struct vpath){m, m->root};
            vpath_get(&to);
        }
        rwlock_unlock(&ns->lock);
        if (m == NULL)
            break;
        vpath_put(p);
        *p = to;
        moved = true;
    }
    return moved;
}

bool mount_cross_up(struct mount_ns *ns, struct vpath *p)
{
    struct vpath to = {0};

    rwlock_rdlock(&ns->lock);
    if (p->mnt->parent != NULL) {
        to = (struct vpath){p->mnt->parent, p->mnt->point};
        vpath_get(&to);
    }
    rwlock_unlock(&ns->lock);
    if (to.mnt == NULL)
        return false;
    vpath_put(p);
    *p = to;
    return true;
}

int mount_want_write(const struct mount *mnt)
{
    return (atomic_load_explicit(&mnt->flags, memory_order_relaxed) | mnt->sb->flags) & MS_RDONLY
               ? -EROFS
               : 0;
}

/* ---- mount(2) ---- */

/* Hangs m over p. Takes m's reference on success. */
static int mount_attach(struct mount_ns *ns, const struct vpath *p, struct mount *m)
{
    int r = 0;

    rwlock_wrlock(&ns->lock);
    if (p->mnt->ns != ns)
        r = -EINVAL;
    else if (ns->count >= LIMIT_MOUNTS)
        r = -ENOSPC;
    else if (p->dentry->unlinked)
        r = -ENOENT;
    if (r == 0) {
        m->ns = ns;
        m->parent = p->mnt;
        m->point = p->dentry;
        vpath_get(p);
        atomic_fetch_add(&p->dentry->mounted, 1);
        list_add_tail(&m->node, &ns->mounts);
        ns->count++;
    }
    rwlock_unlock(&ns->lock);
    return r;
}

static bool mount_kinds_agree(const struct dentry *what, const struct dentry *where)
{
    return S_ISDIR(what->inode->mode) == S_ISDIR(where->inode->mode);
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
    r = mount_attach(ns, p, m);
    if (r != 0) {
        /* The caller keeps the super. */
        (void)super_get(sb);
        mount_put(m);
    }
    return r;
}

static int bind_one(struct mount_ns *ns, const struct vpath *from, const struct vpath *to,
                    uint32_t flags, struct mount **out)
{
    struct mount *m;
    int r;

    if (!mount_kinds_agree(from->dentry, to->dentry))
        return -ENOTDIR;
    r = mount_new(super_get(from->mnt->sb), from->dentry,
                  flags | (atomic_load(&from->mnt->flags) & MS_RDONLY), &m);
    if (r != 0) {
        super_put(from->mnt->sb);
        return r;
    }
    r = mount_attach(ns, to, m);
    if (r != 0)
        mount_put(m);
    else
        *out = m;
    return r;
}

/* Copies of the mounts below from, hung into the copy in the order they were made. */
static int bind_below(struct mount_ns *ns, const struct vpath *from, struct mount *copy)
{
    struct mount *list[64], *copies[64];
    size_t n = 0;
    int r = 0;
    struct mount *m;

    rwlock_rdlock(&vfs_rename_lock);
    rwlock_rdlock(&ns->lock);
    list_for_each_entry (m, &ns->mounts, node) {
        if (m->parent == from->mnt && m != copy && n < ARRAY_SIZE(list) &&
            dentry_is_ancestor(from->dentry, m->point)) {
            ref_get(&m->ref);
            list[n++] = m;
        }
    }
    rwlock_unlock(&ns->lock);
    rwlock_unlock(&vfs_rename_lock);
    for (size_t i = 0; i < n; i++) {
        const struct vpath source = {list[i], list[i]->root}, target = {copy, list[i]->point};
        if (r == 0)
            r = bind_one(ns, &source, &target, atomic_load(&list[i]->flags), &copies[i]);
        mount_put(list[i]);
    }
    return r;
}

int vfs_bind(struct mount_ns *ns, const struct vpath *from, const struct vpath *to, bool recursive,
             uint32_t flags)
{
    struct mount *m;
    int r = bind_one(ns, from, to, flags, &m);

    if (r == 0 && recursive)
        r = bind_below(ns, from, m);
    return r;
}

uint32_t vfs_mount_flags(const struct mount *m)
{
    return atomic_load(&m->flags);
}

int vfs_remount(struct mount_ns *ns, const struct vpath *p, uint32_t flags)
{
    int r = 0;

    rwlock_wrlock(&ns->lock);
    if (p->mnt->ns != ns || p->dentry != p->mnt->root)
        r = -EINVAL;
    else
        atomic_store(&p->mnt->flags, flags);
    rwlock_unlock(&ns->lock);
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

/* Takes m and what is mounted below it out of the tree: one reference each, in *out. */
static void umount_tree_locked(struct mount_ns *ns, struct mount *m, struct list *out)
{
    struct mount *c, *next;

    mount_detach_locked(ns, m);
    list_add_tail(&m->node, out);
    /* Breadth first: children of what is already in out. */
    for (struct list *l = out->next; l != out; l = l->next) {
        const struct mount *up = container_of(l, struct mount, node);
        list_for_each_entry_safe (c, next, &ns->mounts, node) {
            if (c->parent != up)
                continue;
            mount_detach_locked(ns, c);
            list_add_tail(&c->node, out);
        }
    }
}

int vfs_umount(struct mount_ns *ns, const struct vpath *p, int flags)
{
    struct mount *m = p->mnt;
    struct list gone;
    int r = 0;

    list_init(&gone);
    rwlock_wrlock(&ns->lock);
    if (m->ns != ns || p->dentry != m->root)
        r = -EINVAL;
    else if (m == ns->root)
        r = -EBUSY;
    else if ((flags & MNT_DETACH) == 0 &&
             (mount_has_children_locked(ns, m) || ref_read(&m->ref) > 2))
        r = -EBUSY; /* the tree's reference and the caller's are expected */
    else
        umount_tree_locked(ns, m, &gone);
    rwlock_unlock(&ns->lock);
    while (!list_empty(&gone)) {
        struct mount *g = list_first_entry(&gone, struct mount, node);
        list_del(&g->node);
        mount_put(g);
    }
    return r;
}

/* The first super from the at-th mount on that has something to write back. Owned, or NULL. */
static struct super *sync_next(struct mount_ns *ns, unsigned *at)
{
    struct super *sb = NULL;
    struct mount *m;
    unsigned i = 0;

    rwlock_rdlock(&ns->lock);
    list_for_each_entry (m, &ns->mounts, node) {
        if (i++ < *at || m->sb->ops->sync == NULL)
            continue;
        sb = super_get(m->sb);
        break;
    }
    *at = i;
    rwlock_unlock(&ns->lock);
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

/* ---- /proc/<pid>/mounts, mountinfo, mountstats ---- */

/* Text in which space, tab, newline and backslash are octal, as in fstab(5). */
static void show_escape(const char *text, char *out, size_t size)
{
    size_t n = 0;

    for (; *text != '\0' && n + 5 < size; text++) {
        if (strchr(" \t\n\\", *text) != NULL)
            n += (size_t)snprintf(out + n, size - n, "\\%03o", (unsigned)(unsigned char)*text);
        else
            out[n++] = *text;
    }
    out[n] = '\0';
}

static void show_flags(uint32_t flags, char *out, size_t size)
{
    (void)snprintf(out, size, "%s%s%s%s%s", (flags & MS_RDONLY) ? "ro" : "rw",
                   (flags & MS_NOSUID) ? ",nosuid" : "", (flags & MS_NODEV) ? ",nodev" : "",
                   (flags & MS_NOEXEC) ? ",noexec" : "", (flags & MS_NOATIME) ? ",noatime" : "");
}

/* One mount as a line. Heap buffers: paths are long and frames small. */
struct show_text {
    char where[VFS_PATH_MAX], escaped[2 * VFS_PATH_MAX], root[VFS_PATH_MAX];
    char source[512], flags[64], options[256], line[4 * VFS_PATH_MAX];
};

static void show_line(const struct mount *m, const struct show_text *t, int style, char *line,
                      size_t size)
{
    const struct super *sb = m->sb;
    const char *sep = t->options[0] != '\0' ? "," : "";

    if (style == 0)
        (void)snprintf(line, size, "%s %s %s %s%s%s 0 0\n", t->source, t->escaped, sb->fs->name,
                       t->flags, sep, t->options);
    else if (style == 1)
        (void)snprintf(line, size, "%lu %lu %u:%u %s %s %s - %s %s %s%s%s\n", (unsigned long)m->id,
                       (unsigned long)(m->parent != NULL ? m->parent->id : 1), major(sb->dev),
                       minor(sb->dev), t->root, t->escaped, t->flags, sb->fs->name, t->source,
                       (sb->flags & MS_RDONLY) ? "ro" : "rw", sep, t->options);
    else
        (void)snprintf(line, size, "device %s mounted on %s with fstype %s\n", t->source,
                       t->escaped, sb->fs->name);
}

static int show_one(struct mount *m, const struct vpath *root, int style, struct show_text *t,
                    mount_show_fn fn, void *arg)
{
    const struct vpath at = {m, m->root}, top = {m, m->sb->root};

    if (vfs_path_text(root, &at, t->where, sizeof(t->where)) < 0 ||
        strncmp(t->where, "(unreachable)", 13) == 0)
        return 0;
    if (vfs_path_text(&top, &at, t->root, sizeof(t->root)) < 0)
        (void)snprintf(t->root, sizeof(t->root), "/");
    show_escape(t->where, t->escaped, sizeof(t->escaped));
    show_escape(m->sb->source[0] != '\0' ? m->sb->source : "none", t->source, sizeof(t->source));
    show_flags(atomic_load(&m->flags) | (m->sb->flags & MS_RDONLY), t->flags, sizeof(t->flags));
    t->options[0] = '\0';
    if (m->sb->ops->show_options != NULL)
        m->sb->ops->show_options(m->sb, t->options, sizeof(t->options));
    show_line(m, t, style, t->line, sizeof(t->line));
    return fn(arg, t->line);
}

/* References to every mount, taken under the lock: texts are made without it. */
static size_t show_collect(struct mount_ns *ns, struct mount ***out)
{
    struct mount *m;
    size_t n = 0;

    rwlock_rdlock(&ns->lock);
    *out = calloc(ns->count + 1, sizeof(**out));
    if (*out != NULL) {
        list_for_each_entry (m, &ns->mounts, node) {
            ref_get(&m->ref);
            (*out)[n++] = m;
        }
    }
    rwlock_unlock(&ns->lock);
    return n;
}

int mount_ns_show(struct mount_ns *ns, const struct vpath *root, int style, mount_show_fn fn,
                  void *arg)
{
    struct show_text *t = calloc(1, sizeof(*t));
    struct mount **all;
    size_t n = show_collect(ns, &all);
    int r = t != NULL && all != NULL ? 0 : -ENOMEM;

    for (size_t i = 0; i < n; i++) {
        if (r == 0)
            r = show_one(all[i], root, style, t, fn, arg);
        mount_put(all[i]);
    }
    free(all);
    free(t);
    return r;
}
