/* Supers: layers put together, statfs, the root's overlay. */
#include <stdio.h>
#include <sys/mount.h>

#include "sentry/fs/overlay/options.h"
#include "sentry/fs/overlay/overlay_priv.h"

#define OVERLAYFS_MAGIC 0x794c7630u
#define WORK_NAME "work"
/* The device that stands for a whiteout in the root's upper: one that no guest can make, as its
 * major has more bits than a guest's numbers. */
#define ROOT_WHITEOUT (UINT64_C(0xfffff) << 44 | 0x52u)
#define ROOT_PREFIX "trusted.ringwall-overlay."

static struct ovl_real ovl_top(const struct ovl_super *os)
{
    const struct ovl_layer *l = &os->layers[os->layers[OVL_UPPER].mnt != NULL ? OVL_UPPER : 1];

    return (struct ovl_real){l->mnt, l->root};
}

static int ovl_statfs(struct super *sb, struct vfs_statfs *out)
{
    const struct ovl_real top = ovl_top(ovl_super(sb));
    int r = top.d->sb->ops->statfs(top.d->sb, out);

    out->type = OVERLAYFS_MAGIC;
    return r;
}

static int ovl_sync(struct super *sb)
{
    const struct ovl_super *os = ovl_super(sb);

    if (os->work == NULL || os->work->sb->ops->sync == NULL)
        return 0;
    return os->work->sb->ops->sync(os->work->sb);
}

static void ovl_destroy(struct super *sb)
{
    struct ovl_super *os = ovl_super(sb);

    for (unsigned k = 0; k < os->layer_count; k++) {
        struct vpath p = {os->layers[k].mnt, os->layers[k].root};
        vpath_put(&p);
    }
    if (os->work != NULL)
        dentry_put(os->work);
    if (os->cred != NULL)
        cred_put(os->cred);
    mutex_destroy(&os->mu);
    free(os->layers);
    free(os->options);
    free(os);
}

static void ovl_show_options(struct super *sb, char *buf, size_t size)
{
    const char *text = ovl_super(sb)->options;

    (void)snprintf(buf, size, "%s", text != NULL ? text : "");
}

/* The links of what was copied up are known to nobody else: they go with the last mount. */
static void ovl_unpin(struct super *sb)
{
    struct ovl_super *os = ovl_super(sb);

    for (;;) {
        struct ovl_inode *oi = NULL;
        mutex_lock(&os->mu);
        if (!list_empty(&os->pinned)) {
            oi = list_first_entry(&os->pinned, struct ovl_inode, pin);
            list_del(&oi->pin);
        }
        mutex_unlock(&os->mu);
        if (oi == NULL)
            return;
        inode_put(&oi->inode);
    }
}

/* Of what the upper layer has; what is read of a lower one leaves no trace, as in Linux. */
static struct inode *ovl_atime_inode(struct inode *i)
{
    const struct dentry *up = ovl_upper(ovl_inode(i));

    return up != NULL && up->inode->sb->keeps_atime ? up->inode : NULL;
}

const struct super_ops ovl_super_ops = {
    .statfs = ovl_statfs,
    .sync = ovl_sync,
    .shutdown = ovl_unpin,
    .destroy = ovl_destroy,
    .show_options = ovl_show_options,
    .atime_inode = ovl_atime_inode,
};

/* A layer that others change is asked about what it had. */
static int ovl_revalidate(struct dentry *d, struct inode *dir, const char *name)
{
    struct ovl_inode *oi;

    (void)dir, (void)name;
    if (d->inode == NULL)
        return 0;
    oi = ovl_inode(d->inode);
    if (ovl_upper(oi) != NULL && !layer_valid(ovl_upper(oi)))
        return 0;
    for (unsigned k = 0; k < oi->lower_count; k++)
        if (!layer_valid(oi->lower[k].d))
            return 0;
    ovl_copy_attr(oi);
    return 1;
}

const struct super_ops ovl_shared_super_ops = {
    .statfs = ovl_statfs,
    .sync = ovl_sync,
    .shutdown = ovl_unpin,
    .destroy = ovl_destroy,
    .show_options = ovl_show_options,
    .revalidate = ovl_revalidate,
    .atime_inode = ovl_atime_inode,
};

/* ---- putting it together ---- */

static int ovl_super_new(unsigned layers, struct ovl_super **out)
{
    struct ovl_super *os = calloc(1, sizeof(*os));

    if (os == NULL)
        return -ENOMEM;
    super_init(&os->sb, &ovl_super_ops, &overlay_fs_ops);
    mutex_init(&os->mu, LOCK_RANK_LEAF);
    list_init(&os->pinned);
    os->layers = calloc(layers, sizeof(*os->layers));
    os->layer_count = os->layers != NULL ? layers : 0;
    int r = os->layers != NULL ? cred_new_root(~UINT64_C(0), &os->cred) : -ENOMEM;
    if (r != 0) {
        super_put(&os->sb);
        return r;
    }
    *out = os;
    return 0;
}

static int ovl_add_layer(struct ovl_super *os, unsigned k, struct dentry *d)
{
    struct ovl_layer *l = &os->layers[k];
    int r = layer_mount(d->sb, &l->mnt);

    if (r == 0)
        l->root = dentry_get(d);
    return r;
}

static unsigned ovl_depth(struct super *sb)
{
    return sb->fs == &overlay_fs_ops ? ovl_super(sb)->depth : 0;
}

/* Lowers get the small numbers of file systems, since theirs stay as they are. */
static int ovl_survey(struct ovl_super *os)
{
    unsigned count = 0;

    for (unsigned n = 1; n <= os->layer_count; n++) {
        struct ovl_layer *l = &os->layers[n % os->layer_count];
        if (l->root == NULL)
            continue;
        struct super *sb = l->root->sb;
        os->depth = MAX(os->depth, ovl_depth(sb) + 1);
        if (sb->ops->revalidate != NULL)
            os->sb.ops = &ovl_shared_super_ops;
        l->fs = count;
        for (unsigned k = 1; k < n; k++)
            if (os->layers[k].root->sb == sb)
                l->fs = os->layers[k].fs;
        count += l->fs == count;
    }
    os->same_fs = count == 1;
    return os->depth > OVL_DEPTH_MAX ? -EINVAL : 0;
}

static int ovl_set_root(struct ovl_super *os)
{
    struct ovl_found f = {.lower = f.inline_lower};
    struct inode *root;
    int r = 0;

    if (os->layers[OVL_UPPER].root != NULL)
        f.upper = dentry_get(os->layers[OVL_UPPER].root);
    if (os->layer_count - 1 > OVL_LAYERS_INLINE) {
        f.lower = calloc(os->layer_count, sizeof(*f.lower));
        if (f.lower == NULL) {
            f.lower = f.inline_lower;
            r = -ENOMEM;
        }
    }
    for (unsigned k = 1; r == 0 && k < os->layer_count; k++)
        f.lower[f.count++] = (struct ovl_lower){dentry_get(os->layers[k].root), k};
    if (r != 0) {
        ovl_found_fini(&f);
        return r;
    }
    r = ovl_inode_get(os, NULL, "", &f, &root);
    return r != 0 ? r : super_set_root(&os->sb, root);
}

static void ovl_set_prefix(struct ovl_super *os, const char *prefix)
{
    os->prefix_len = strlen(prefix);
    memcpy(os->prefix, prefix, os->prefix_len + 1);
}

/* ---- the root ---- */

static int ovl_root_fill(struct ovl_super *os, struct super *lower, struct super *upper)
{
    struct vfs_attr a;
    int r = ovl_add_layer(os, OVL_UPPER, upper->root);

    if (r == 0)
        r = ovl_add_layer(os, 1, lower->root);
    if (r != 0)
        return r;
    os->work = dentry_get(upper->root);
    const struct vpath p = {os->layers[1].mnt, lower->root};
    r = vfs_getattr(&p, &a);
    const struct vfs_setattr s = {
        .valid = VFS_SET_UID | VFS_SET_GID | VFS_SET_MODE | VFS_SET_ATIME | VFS_SET_MTIME,
        .uid = a.uid,
        .gid = a.gid,
        .mode = a.mode & 07777,
        .atime = a.atime,
        .mtime = a.mtime,
    };
    if (r == 0)
        r = upper->root->inode->ops->setattr(upper->root->inode, &s);
    if (r == 0)
        r = ovl_survey(os);
    return r == 0 ? ovl_set_root(os) : r;
}

int overlay_root(struct super *lower, struct super *upper, struct super **out)
{
    struct ovl_super *os;
    int r = ovl_super_new(2, &os);

    if (r != 0)
        return r;
    os->is_root = os->redirect = os->follow = true;
    os->whiteout = ROOT_WHITEOUT;
    ovl_set_prefix(os, ROOT_PREFIX);
    (void)snprintf(os->sb.source, sizeof(os->sb.source), "%s", "overlay");
    r = ovl_root_fill(os, lower, upper);
    if (r != 0) {
        super_put(&os->sb);
        return r;
    }
    super_put(lower);
    super_put(upper);
    *out = &os->sb;
    return 0;
}

/* ---- mount(2) ---- */

/* workdir/work is made anew: what a crash left in it is nobody's. */
static int ovl_make_work(struct ovl_super *os, struct dentry *workdir)
{
    const struct vfs_caller c = ovl_caller(os);
    struct dentry *d;
    int r;

    layer_lock(workdir);
    r = layer_lookup_locked(workdir, WORK_NAME, true, &d);
    if (r == -ENOENT)
        r = layer_create_locked(workdir, WORK_NAME, S_IFDIR, 0, NULL, &c, NULL, NULL, &d);
    layer_unlock(workdir);
    if (r == 0 && !S_ISDIR(d->inode->mode)) {
        dentry_put(d);
        r = -EINVAL;
    }
    if (r == 0)
        os->work = d;
    return r;
}

static int ovl_mount_upper(struct ovl_super *os, const struct ovl_options *o)
{
    const struct vpath *up = &o->upper, *work = &o->work;

    if (!o->has_upper)
        return 0;
    /* One mount, and neither inside the other. */
    if (up->mnt != work->mnt || layer_is_ancestor(up->dentry, work->dentry) ||
        layer_is_ancestor(work->dentry, up->dentry))
        return -EINVAL;
    if ((vfs_mount_flags(up->mnt) | up->dentry->sb->flags) & MS_RDONLY)
        return -EINVAL;
    /* A guest's overlay keeps whiteouts and marks for itself. */
    if (ovl_depth(up->dentry->sb) > 0 && !ovl_super(up->dentry->sb)->is_root)
        return -EINVAL;
    int r = ovl_add_layer(os, OVL_UPPER, up->dentry);
    return r != 0 ? r : ovl_make_work(os, work->dentry);
}

/* Layers that lie in each other would show a directory inside itself. */
static int ovl_check_overlap(const struct ovl_super *os)
{
    for (unsigned i = 0; i < os->layer_count; i++) {
        for (unsigned k = 1; k < os->layer_count; k++) {
            struct dentry *a = os->layers[i].root, *b = os->layers[k].root;
            if (i != k && a != NULL && a->sb == b->sb && (a != b || i == OVL_UPPER) &&
                layer_is_ancestor(a, b))
                return -ELOOP;
            if (i == OVL_UPPER && a != NULL && a->sb == b->sb && layer_is_ancestor(b, a))
                return -ELOOP;
        }
    }
    return 0;
}

static int ovl_mount_fill(struct ovl_super *os, struct ovl_options *o)
{
    int r = ovl_mount_upper(os, o);

    for (unsigned k = 0; r == 0 && k < o->lower_count; k++)
        r = ovl_add_layer(os, k + 1, o->lower[k].dentry);
    if (r == 0)
        r = ovl_check_overlap(os);
    if (r == 0)
        r = ovl_survey(os);
    if (r != 0)
        return r;
    if (!o->has_upper)
        os->sb.flags |= MS_RDONLY;
    os->redirect = o->redirect && o->has_upper;
    os->follow = o->follow || o->redirect;
    ovl_set_prefix(os, o->user_marks ? "user.overlay." : "trusted.overlay.");
    os->options = o->text;
    o->text = NULL;
    return ovl_set_root(os);
}

static int ovl_mount(const struct fs_ops *fs, void *boot_arg, const char *source,
                     const char *options, const struct vfs_caller *c, struct super **out_super)
{
    struct ovl_options o;
    struct ovl_super *os;
    int r = ovl_options_parse(&o, options, c);

    (void)fs, (void)boot_arg;
    if (r != 0)
        return r;
    r = ovl_super_new(o.lower_count + 1, &os);
    if (r == 0) {
        (void)snprintf(os->sb.source, sizeof(os->sb.source), "%s",
                       source != NULL ? source : "overlay");
        r = ovl_mount_fill(os, &o);
        if (r == 0)
            *out_super = &os->sb;
        else
            super_put(&os->sb);
    }
    ovl_options_fini(&o);
    return r;
}

const struct fs_ops overlay_fs_ops = {.name = "overlay", .mount = ovl_mount};
