/* The path walk: path_resolution(7), openat2(2). */
#include <linux/capability.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "sentry/vfs/acl.h"
#include "sentry/vfs/vfs_priv.h"

/* Of threads that have walked, above WALK_BITS bits of their own count. */
#define WALK_BITS 40
static _Atomic uint64_t walk_threads;
static _Thread_local uint64_t walk_id;

uint64_t vfs_walk_id(void)
{
    return walk_id;
}

static void walk_next_id(void)
{
    if (UNLIKELY(walk_id == 0))
        walk_id = (atomic_fetch_add_explicit(&walk_threads, 1, memory_order_relaxed) + 1)
                  << WALK_BITS;
    walk_id++;
}

void vfs_walk_end(void)
{
    walk_next_id();
}

int walk_init(struct walk *w, const struct vfs_caller *c, const struct vpath *base,
              const char *path, unsigned flags)
{
    memset(w, 0, sizeof(*w));
    if (*path == '\0' && (flags & VFS_EMPTY_PATH) == 0)
        return -ENOENT;
    w->c = c;
    w->flags = flags;
    w->root = c->root;
    w->base = base != NULL ? *base : c->cwd;
    if ((flags & VFS_IN_ROOT) != 0)
        w->root = w->base;
    if (*path == '/' && (flags & VFS_BENEATH) != 0)
        return -EXDEV;
    w->cur = *path == '/' ? w->root : w->base;
    vpath_get(&w->cur);
    w->pos = path;
    walk_next_id();
    return 0;
}

void walk_fini(struct walk *w)
{
    vpath_put(&w->cur);
    free(w->buf);
    if ((w->flags & VFS_GETATTR) == 0)
        walk_next_id();
}

static void walk_set(struct walk *w, const struct vpath *p)
{
    vpath_put(&w->cur);
    w->cur = *p;
}

static bool same_place(const struct vpath *a, const struct vpath *b)
{
    return a->mnt == b->mnt && a->dentry == b->dentry;
}

/* Is p still below what must not be left? Whoever moves directories while they are walked through
 * could otherwise lead ".." around it. */
static bool walk_is_inside(const struct walk *w, const struct vpath *p)
{
    const struct mount *m = p->mnt;
    const struct dentry *d = p->dentry;
    bool inside, more = true;

    if ((w->flags & (VFS_BENEATH | VFS_IN_ROOT)) == 0)
        return true;
    rwlock_rdlock(&vfs_mount_lock);
    rwlock_rdlock(&vfs_tree_lock);
    while (!(inside = m == w->base.mnt && d == w->base.dentry) && more) {
        if (d != m->root && d->parent != d) {
            d = d->parent;
            continue;
        }
        more = m->ns != NULL && m->parent != NULL;
        if (more) {
            d = m->point;
            m = m->parent;
        }
    }
    rwlock_unlock(&vfs_tree_lock);
    rwlock_unlock(&vfs_mount_lock);
    return inside;
}

/* The directory above w->cur, which never leaves the root. */
static int walk_up(struct walk *w)
{
    struct vpath p = w->cur;

    if ((w->flags & VFS_BENEATH) != 0 && same_place(&p, &w->base))
        return -EXDEV;
    if (same_place(&p, &w->root))
        return 0;
    vpath_get(&p);
    while (p.dentry == p.mnt->root) {
        if (same_place(&p, &w->root) || !mount_cross_up(&p)) {
            walk_set(w, &p);
            return 0;
        }
        if ((w->flags & VFS_NO_XDEV) != 0) {
            vpath_put(&p);
            return -EXDEV;
        }
    }
    if (!same_place(&p, &w->root)) {
        struct dentry *child = p.dentry;
        p.dentry = dentry_parent(child);
        dentry_put(child);
    }
    int r = mount_cross_down(&p) && (w->flags & VFS_NO_XDEV) != 0 ? -EXDEV : 0;
    if (r == 0 && !walk_is_inside(w, &p))
        r = -EAGAIN;
    if (r != 0) {
        vpath_put(&p);
        return r;
    }
    walk_set(w, &p);
    return 0;
}

static int walk_may_search(const struct walk *w)
{
    const struct dentry *d = w->cur.dentry;

    if (d->inode == NULL)
        return -ENOENT;
    if (!S_ISDIR(d->inode->mode))
        return -ENOTDIR;
    return vfs_permission(w->c, d->inode, 1);
}

/* w->name in w->cur. rest: the text from this name on. */
static int walk_look(struct walk *w, const char *rest, struct vpath *out)
{
    int r = walk_may_search(w);

    if (r != 0)
        return r;
    r = UNLIKELY((w->flags & VFS_CACHED) != 0)
            ? dentry_lookup_cached(w->cur.dentry, w->name, w->name_len, &out->dentry)
            : dentry_lookup(w->cur.dentry, w->name, w->name_len, rest, &out->dentry);
    if (r != 0)
        return r;
    out->mnt = w->cur.mnt;
    ref_get(&out->mnt->ref);
    if (out->dentry->inode != NULL && mount_cross_down(out) && (w->flags & VFS_NO_XDEV) != 0) {
        vpath_put(out);
        return -EXDEV;
    }
    return 0;
}

int walk_child(struct walk *w, struct vpath *out)
{
    return walk_look(w, NULL, out);
}

/* ---- symbolic links ---- */

static int walk_magic(struct walk *w, struct inode *link)
{
    struct vpath to;
    int r = link->ops->follow(link, w->c, &to);

    if (r != 0)
        return r;
    if ((w->flags & VFS_NO_MAGICLINKS) != 0)
        r = -ELOOP;
    else if ((w->flags & (VFS_BENEATH | VFS_IN_ROOT)) != 0 ||
             ((w->flags & VFS_NO_XDEV) != 0 && to.mnt != w->cur.mnt))
        r = -EXDEV;
    if (r != 0) {
        vpath_put(&to);
        return r;
    }
    walk_set(w, &to);
    return 0;
}

/* Text and what is left of the path become the path. */
static int walk_push(struct walk *w, struct inode *link)
{
    size_t left = strlen(w->pos);
    char *buf = malloc(VFS_PATH_MAX + left + 2);
    int64_t n = buf != NULL ? link->ops->readlink(link, w->c, buf, VFS_PATH_MAX) : -ENOMEM;

    if (n <= 0) {
        free(buf);
        return n < 0 ? (int)n : -ENOENT;
    }
    if (buf[0] == '/') {
        struct vpath root = w->root;
        if ((w->flags & VFS_BENEATH) != 0) {
            free(buf);
            return -EXDEV;
        }
        vpath_get(&root);
        walk_set(w, &root);
    }
    memcpy(buf + n, w->pos, left + 1);
    free(w->buf);
    w->buf = buf;
    w->pos = buf;
    return 0;
}

int walk_follow(struct walk *w, const struct vpath *link)
{
    struct inode *i = link->dentry->inode;

    if (++w->links > VFS_SYMLINK_MAX || (w->flags & VFS_NO_SYMLINKS) != 0)
        return -ELOOP;
    if (UNLIKELY((vfs_mount_flags(link->mnt) & VFS_MS_NOSYMFOLLOW) != 0))
        return -ELOOP;
    if (i->ops->follow != NULL) {
        int r = walk_magic(w, i);
        /* This one is text after all. */
        if (r != -EOPNOTSUPP)
            return r;
    }
    vfs_accessed(link);
    return walk_push(w, i);
}

/* ---- components ---- */

static int walk_take_name(struct walk *w)
{
    size_t len = strcspn(w->pos, "/");

    if (len > VFS_NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(w->name, w->pos, len);
    w->name[len] = '\0';
    w->name_len = len;
    w->pos += len;
    w->slash = *w->pos == '/';
    if (len == 1 && w->name[0] == '.')
        w->last = WALK_DOT;
    else if (len == 2 && w->name[0] == '.' && w->name[1] == '.')
        w->last = WALK_DOTDOT;
    else
        w->last = WALK_NAME;
    return 0;
}

/* One component that is not the last. */
static int walk_step(struct walk *w, const char *text)
{
    struct vpath p;
    int r;

    if (w->last == WALK_DOT)
        return walk_may_search(w);
    if (w->last == WALK_DOTDOT) {
        r = walk_may_search(w);
        return r != 0 ? r : walk_up(w);
    }
    r = walk_look(w, text, &p);
    if (r != 0)
        return r;
    if (p.dentry->inode == NULL) {
        vpath_put(&p);
        return -ENOENT;
    }
    if (S_ISLNK(p.dentry->inode->mode)) {
        r = walk_follow(w, &p);
        vpath_put(&p);
        return r;
    }
    walk_set(w, &p);
    return 0;
}

int walk_last_dots(struct walk *w)
{
    return walk_step(w, NULL);
}

int walk_parent(struct walk *w)
{
    for (;;) {
        w->pos += strspn(w->pos, "/");
        if (*w->pos == '\0') {
            w->last = WALK_NOTHING;
            return 0;
        }
        const char *text = w->pos;
        int r = walk_take_name(w);
        if (r != 0)
            return r;
        if (w->pos[strspn(w->pos, "/")] == '\0')
            return 0;
        r = walk_step(w, text);
        if (r != 0)
            return r;
    }
}

/* ---- look-up ---- */

/* The last component, its links followed when asked for; w->cur becomes the result. */
static int walk_finish(struct walk *w)
{
    bool must_dir = false;

    for (;;) {
        struct vpath p;
        int r = walk_parent(w);
        if (r != 0)
            return r;
        if (w->last == WALK_NOTHING)
            break;
        must_dir |= w->slash;
        if (w->last != WALK_NAME)
            return walk_step(w, NULL);
        r = walk_child(w, &p);
        if (r != 0)
            return r;
        if (p.dentry->inode == NULL) {
            vpath_put(&p);
            return -ENOENT;
        }
        if (!S_ISLNK(p.dentry->inode->mode) || (!must_dir && (w->flags & VFS_FOLLOW) == 0)) {
            walk_set(w, &p);
            break;
        }
        r = walk_follow(w, &p);
        vpath_put(&p);
        if (r != 0)
            return r;
    }
    return must_dir && !S_ISDIR(w->cur.dentry->inode->mode) ? -ENOTDIR : 0;
}

int vfs_lookup(const struct vfs_caller *c, const struct vpath *base, const char *path,
               unsigned flags, struct vpath *out)
{
    struct walk w;
    int r = walk_init(&w, c, base, path, flags);

    if (r != 0)
        return r;
    r = walk_finish(&w);
    if (r == 0 && (flags & VFS_DIRECTORY) != 0 && !S_ISDIR(w.cur.dentry->inode->mode))
        r = -ENOTDIR;
    if (r == 0) {
        *out = w.cur;
        w.cur = (struct vpath){0};
    }
    walk_fini(&w);
    return r;
}

/* ---- permission ---- */

static bool permission_capable(const struct vfs_caller *c, const struct inode *i, unsigned mask)
{
    const uint32_t mode = i->mode;

    if ((S_ISDIR(mode) || (mask & 1) == 0 || (mode & 0111) != 0) &&
        cred_file_capable(c->cred, i->uid, i->gid, CAP_DAC_OVERRIDE))
        return true;
    return (mask == 4 || (S_ISDIR(mode) && (mask & 2) == 0)) &&
           cred_file_capable(c->cred, i->uid, i->gid, CAP_DAC_READ_SEARCH);
}

/* There may be a list: nobody is asked for it on behalf of those who may anyway. */
static int permission_listed(const struct vfs_caller *c, struct inode *i, unsigned mask)
{
    return permission_capable(c, i, mask) ? 0 : acl_check(c, i, mask);
}

int vfs_permission(const struct vfs_caller *c, struct inode *i, unsigned mask)
{
    uint32_t mode = i->mode, bits;

    if (c->cred->fsuid == i->uid) {
        bits = mode >> 6;
    } else {
        if (UNLIKELY(acl_may_have(i)) && (mode & 0070) != 0) {
            int r = permission_listed(c, i, mask);
            if (r != -EAGAIN)
                return r;
        }
        bits = cred_in_group(c->cred, i->gid) ? mode >> 3 : mode;
    }
    return (mask & ~bits & 7) == 0 || permission_capable(c, i, mask) ? 0 : -EACCES;
}
