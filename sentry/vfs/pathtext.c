/* From a place back to its text: getcwd(2), /proc/<pid>/fd, maps. */
#include "sentry/vfs/vfs_priv.h"

/* Built from the end of a buffer towards its start. */
struct backwards {
    char *buf;
    size_t at; /* first byte in use */
};

static int prepend(struct backwards *b, const char *text, size_t len)
{
    if (len > b->at)
        return -ENAMETOOLONG;
    b->at -= len;
    memcpy(b->buf + b->at, text, len);
    return 0;
}

/* Components up to root or the top of all mounts; *out_reached says which. */
static int prepend_path(struct backwards *b, const struct vpath *root, struct vpath *p,
                        struct mount_ns *ns, bool *out_reached)
{
    int r = 0;

    *out_reached = false;
    while (r == 0) {
        if (p->mnt == root->mnt && p->dentry == root->dentry) {
            *out_reached = true;
            return 0;
        }
        if (p->dentry == p->mnt->root) {
            if (ns == NULL || !mount_cross_up(ns, p))
                return 0;
            continue;
        }
        struct dentry *d = p->dentry;
        if (d->parent == d)
            return 0;
        r = prepend(b, d->name, d->name_len);
        if (r == 0)
            r = prepend(b, "/", 1);
        p->dentry = dentry_get(d->parent);
        dentry_put(d);
    }
    return r;
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
    struct backwards b = {buf, size};
    struct vpath at = *p;
    bool reached;
    int r;

    if (p->mnt == mount_anon())
        return anon_text(p, buf, size);
    r = prepend(&b, "", 1);
    vpath_get(&at);
    rwlock_rdlock(&vfs_rename_lock);
    if (r == 0 && p->dentry->unlinked)
        r = prepend(&b, deleted, sizeof(deleted) - 1);
    size_t end = b.at;
    if (r == 0)
        r = prepend_path(&b, root, &at, p->mnt->ns, &reached);
    rwlock_unlock(&vfs_rename_lock);
    if (r == 0 && b.at == end)
        r = prepend(&b, "/", 1);
    if (r == 0 && !reached)
        r = prepend(&b, "(unreachable)", 13);
    vpath_put(&at);
    if (r != 0)
        return r;
    memmove(buf, buf + b.at, size - b.at);
    return (int64_t)(size - b.at);
}
