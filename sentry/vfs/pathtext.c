/* From a place back to its text: getcwd(2), /proc/<pid>/fd, maps, mounts. */
#include "sentry/vfs/vfs_priv.h"

/* Built from the end of a buffer towards its start. */
struct backwards {
    char *buf;
    size_t at; /* first byte in use */
    int err;   /* once something did not fit */
};

static void prepend(struct backwards *b, const char *text, size_t len)
{
    if (len > b->at)
        b->err = -ENAMETOOLONG;
    if (b->err != 0)
        return;
    b->at -= len;
    memcpy(b->buf + b->at, text, len);
}

static void prepend_name(struct backwards *b, const struct dentry *d)
{
    prepend(b, d->name, d->name_len);
    prepend(b, "/", 1);
}

/* Moves the text to the start of the buffer; its length. */
static int64_t backwards_end(struct backwards *b, size_t size)
{
    if (b->err != 0)
        return b->err;
    memmove(b->buf, b->buf + b->at, size - b->at);
    return (int64_t)(size - b->at);
}

/* Components up to root (true) or to the top of all mounts. Nothing is referenced on the way: every
 * dentry and mount is held by what is below it, and both trees are locked. */
static bool prepend_path_locked(struct backwards *b, const struct vpath *root,
                                const struct vpath *from)
{
    const struct mount *m = from->mnt;
    const struct dentry *d = from->dentry;

    while (b->err == 0) {
        if (m == root->mnt && d == root->dentry)
            return true;
        if (d == m->root || d->parent == d) {
            if (m->ns == NULL || m->parent == NULL)
                return false;
            d = m->point;
            m = m->parent;
            continue;
        }
        prepend_name(b, d);
        d = d->parent;
    }
    return false;
}

static int64_t anon_text(const struct vpath *p, char *buf, size_t size)
{
    size_t n = p->dentry->name_len + 1;

    if (n > size)
        return -ENAMETOOLONG;
    memcpy(buf, p->dentry->name, n);
    return (int64_t)n;
}

int64_t vfs_path_text(const struct vpath *root, const struct vpath *p, char *buf, size_t size)
{
    static const char deleted[] = " (deleted)";
    struct backwards b = {buf, size, 0};

    if (p->mnt == mount_anon())
        return anon_text(p, buf, size);
    prepend(&b, "", 1);
    if (atomic_load(&p->dentry->unlinked))
        prepend(&b, deleted, sizeof(deleted) - 1);
    size_t end = b.at;
    rwlock_rdlock(&vfs_mount_lock);
    rwlock_rdlock(&vfs_tree_lock);
    bool reached = prepend_path_locked(&b, root, p);
    rwlock_unlock(&vfs_tree_lock);
    rwlock_unlock(&vfs_mount_lock);
    if (b.at == end)
        prepend(&b, "/", 1);
    if (!reached)
        prepend(&b, "(unreachable)", 13);
    return backwards_end(&b, size);
}

int64_t dentry_text(const struct dentry *d, char *buf, size_t size)
{
    struct backwards b = {buf, size, 0};

    prepend(&b, "", 1);
    rwlock_rdlock(&vfs_tree_lock);
    if (d->parent == d)
        prepend(&b, "/", 1);
    for (; d->parent != d && b.err == 0; d = d->parent)
        prepend_name(&b, d);
    rwlock_unlock(&vfs_tree_lock);
    return backwards_end(&b, size);
}
