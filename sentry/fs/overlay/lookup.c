/* What a name is, over all layers: path_resolution of one component in Linux's ovl_lookup. */
#include "sentry/fs/overlay/overlay_priv.h"

#define REDIRECT_MAX 256u

bool ovl_is_opaque(const struct ovl_super *os, struct inode *dir)
{
    char v = '\0';

    return ovl_mark_get(os, dir, "opaque", &v, 1) == 1 && v == 'y';
}

/* Where whiteouts may be files with an attribute, the directory says so. */
static bool ovl_is_xattr_whiteout(const struct ovl_super *os, struct dentry *dir, struct dentry *d)
{
    char v = '\0';

    if (os->is_root || !S_ISREG(d->inode->mode) || d->inode->size != 0)
        return false;
    return ovl_mark_get(os, dir->inode, "opaque", &v, 1) == 1 && v == 'x' &&
           ovl_mark_get(os, d->inode, "whiteout", NULL, 0) >= 0;
}

bool ovl_is_whiteout(const struct ovl_super *os, struct dentry *dir, struct dentry *d)
{
    if (S_ISCHR(d->inode->mode))
        return d->inode->rdev == os->whiteout;
    return ovl_is_xattr_whiteout(os, dir, d);
}

/* Layers that nobody but the overlay changes are not kept in the cache: it would hold all twice. */
static bool ovl_keeps(const struct ovl_super *os, unsigned layer)
{
    return !os->is_root || layer == OVL_UPPER;
}

static int ovl_found_add(struct ovl_found *f, const struct ovl_super *os, unsigned layer,
                         struct dentry *d)
{
    if (f->count == OVL_LAYERS_INLINE && f->lower == f->inline_lower) {
        f->lower = calloc(os->layer_count, sizeof(*f->lower));
        if (f->lower == NULL) {
            f->lower = f->inline_lower;
            return -ENOMEM;
        }
        memcpy(f->lower, f->inline_lower, sizeof(f->inline_lower));
    }
    f->lower[f->count++] = (struct ovl_lower){d, layer};
    return 0;
}

/* ---- redirects ---- */

/* Another name for the layers below, when directory dir of one layer says so: the text replaces
 * *name. A path starts with a slash and goes from the layers' roots. */
static int ovl_follow_redirect(const struct ovl_super *os, struct inode *dir, char *name,
                               bool *out_path, struct ovl_found *f)
{
    char text[REDIRECT_MAX + 1];
    int64_t n = os->follow ? ovl_mark_get(os, dir, "redirect", text, REDIRECT_MAX) : -ENODATA;

    if (n == -ENODATA || n == -EOPNOTSUPP)
        return 0;
    if (n <= 0 || (size_t)n > REDIRECT_MAX)
        return n < 0 && n != -ERANGE ? (int)n : -EIO;
    text[n] = '\0';
    /* One name, or a path: nothing else was written by an overlay. */
    if (text[0] != '/' && (strchr(text, '/') != NULL || n > VFS_NAME_MAX))
        return -EIO;
    memcpy(name, text, (size_t)n + 1);
    *out_path = text[0] == '/';
    if (f->redirect == NULL)
        f->redirect = strdup(text);
    return f->redirect != NULL ? 0 : -ENOMEM;
}

/* Follows path from directory d of one layer, component by component; links are not followed and
 * whiteouts end it. Owned. */
static int ovl_walk(const struct ovl_super *os, unsigned layer, struct dentry *d, const char *path,
                    struct dentry **out)
{
    char name[VFS_NAME_MAX + 1];

    d = dentry_get(d);
    for (;;) {
        struct dentry *next;
        path += strspn(path, "/");
        size_t len = strcspn(path, "/");
        if (len == 0) {
            *out = d;
            return 0;
        }
        int r = len <= VFS_NAME_MAX && S_ISDIR(d->inode->mode) ? 0 : -ENOENT;
        if (r == 0) {
            memcpy(name, path, len);
            name[len] = '\0';
            bool dots = strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
            r = dots ? -ENOENT : layer_lookup(d, name, ovl_keeps(os, layer), &next);
        }
        if (r == 0 && ovl_is_whiteout(os, d, next)) {
            dentry_put(next);
            r = path[len] == '\0' ? -ENODATA : -ENOENT;
        }
        dentry_put(d);
        if (r != 0)
            return r;
        d = next;
        path += len;
    }
}

/* ---- one layer after the other ---- */

/* What upper says of origin: the number that was shown before the file was copied up. */
static void ovl_find_origin(const struct ovl_super *os, struct ovl_found *f)
{
    unsigned char v[12];
    uint64_t ino;

    if (S_ISDIR(f->upper->inode->mode) ||
        ovl_mark_get(os, f->upper->inode, "origin", v, sizeof(v)) != sizeof(v) ||
        memcmp(v, "RWo1", 4) != 0)
        return;
    memcpy(&ino, v + 4, sizeof(ino));
    f->origin = ino;
    f->has_origin = true;
}

static int ovl_find_upper(struct ovl_inode *dir, char *name, bool *out_path, struct ovl_found *f)
{
    const struct ovl_super *os = ovl_super_of(dir);
    struct dentry *up = ovl_upper(dir), *d;

    if (up == NULL)
        return 0;
    int r = layer_lookup(up, name, true, &d);
    if (r != 0)
        return r == -ENOENT || r == -ENAMETOOLONG ? 0 : r;
    if (ovl_is_whiteout(os, up, d)) {
        f->stop = true;
        dentry_put(d);
        return 0;
    }
    f->upper = d;
    ovl_find_origin(os, f);
    f->stop = !S_ISDIR(d->inode->mode) || (dir->lower_count == 0 && !os->follow) ||
              ovl_is_opaque(os, d->inode);
    return f->stop ? 0 : ovl_follow_redirect(os, d->inode, name, out_path, f);
}

/* name in directory at of its layer. */
static int ovl_find_lower(const struct ovl_super *os, const struct ovl_lower *at, char *name,
                          bool *path, struct ovl_found *f)
{
    bool last = at->layer == os->layer_count - 1, have = f->upper != NULL || f->count > 0;
    struct dentry *d;
    int r = ovl_walk(os, at->layer, at->d, name, &d);

    if (r == -ENODATA)
        f->stop = true;
    if (r != 0)
        return r == -ENOENT || r == -ENODATA || r == -ENOTDIR || r == -ENAMETOOLONG ? 0 : r;
    if (!S_ISDIR(d->inode->mode)) {
        /* A directory above hides it. */
        f->stop = true;
        if (!have)
            return ovl_found_add(f, os, at->layer, d);
        dentry_put(d);
        return 0;
    }
    r = ovl_found_add(f, os, at->layer, d);
    if (r != 0) {
        dentry_put(d);
        return r;
    }
    if (last)
        return 0;
    f->stop = ovl_is_opaque(os, d->inode);
    return f->stop ? 0 : ovl_follow_redirect(os, d->inode, name, path, f);
}

static int ovl_find_lowers(struct ovl_inode *dir, char *name, bool path, struct ovl_found *f)
{
    const struct ovl_super *os = ovl_super_of(dir);
    int r = 0;

    for (unsigned k = 0; !path && k < dir->lower_count && !f->stop && r == 0; k++)
        r = ovl_find_lower(os, &dir->lower[k], name, &path, f);
    /* A path counts in every layer below the one that said it. */
    unsigned from = f->count > 0 ? f->lower[f->count - 1].layer + 1 : 1;
    for (unsigned k = from; path && k < os->layer_count && !f->stop && r == 0; k++) {
        const struct ovl_lower root = {os->layers[k].root, k};
        r = ovl_find_lower(os, &root, name, &path, f);
    }
    return r;
}

int ovl_find(struct ovl_inode *dir, const char *name, struct ovl_found *f)
{
    char text[REDIRECT_MAX + 1];
    size_t len = strlen(name);
    bool path = false;
    int r;

    memset(f, 0, sizeof(*f));
    f->lower = f->inline_lower;
    if (len > VFS_NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(text, name, len + 1);
    r = ovl_find_upper(dir, text, &path, f);
    if (r == 0 && !f->stop)
        r = ovl_find_lowers(dir, text, path, f);
    if (r == 0 && f->upper == NULL && f->count == 0)
        r = -ENOENT;
    if (r != 0)
        ovl_found_fini(f);
    return r;
}

int ovl_lookup(struct inode *dir, const char *name, struct inode **out)
{
    struct ovl_inode *od = ovl_inode(dir);
    struct ovl_found f;
    int r = ovl_find(od, name, &f);

    return r != 0 ? r : ovl_inode_get(ovl_super_of(od), od, name, &f, out);
}

int ovl_lower_positive(struct ovl_inode *dir, const char *name, bool *out)
{
    struct ovl_found f = {.lower = f.inline_lower};
    char text[REDIRECT_MAX + 1];

    memcpy(text, name, strlen(name) + 1);
    int r = ovl_find_lowers(dir, text, false, &f);
    *out = f.count > 0;
    ovl_found_fini(&f);
    return r;
}

void ovl_prefetch(struct inode *dir, const char *path)
{
    struct ovl_inode *od = ovl_inode(dir);

    if (od->lower_count > 0)
        layer_prefetch(od->lower[0].d, path);
}
