/* Making and removing names. vfs holds dir_mu of the directories concerned; those of upper are
 * locked here, below it. */
#include "sentry/fs/overlay/overlay_priv.h"

/* ---- whiteouts ---- */

int ovl_whiteout_locked(struct ovl_super *os, struct dentry *up, const char *name)
{
    const struct vfs_caller c = ovl_caller(os);
    struct dentry *d;
    int r = layer_create_locked(up, name, S_IFCHR, os->whiteout, NULL, &c, NULL, NULL, &d);

    if (r == 0)
        dentry_put(d);
    return r;
}

int ovl_clear_whiteout_locked(struct ovl_super *os, struct dentry *up, const char *name,
                              bool *out_was)
{
    struct dentry *d;
    int r = layer_lookup_locked(up, name, true, &d);

    *out_was = false;
    if (r != 0)
        return r == -ENOENT ? 0 : r;
    r = -ESTALE;
    if (ovl_is_whiteout(os, up, d)) {
        r = layer_remove_locked(up, d);
        *out_was = r == 0;
    }
    dentry_put(d);
    return r;
}

struct ovl_names {
    char *buf; /* NUL-terminated names, one after the other */
    size_t used, room;
};

static int names_add(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype,
                     uint64_t next_off)
{
    struct ovl_names *n = arg;

    (void)ino, (void)dtype, (void)next_off;
    if (len + 1 > n->room - n->used) {
        size_t room = MAX(n->room * 2, (size_t)4096);
        char *p = room <= 64u << 20 ? realloc(n->buf, room) : NULL;
        if (p == NULL)
            return -ENOMEM;
        n->buf = p;
        n->room = room;
    }
    memcpy(n->buf + n->used, name, len);
    n->buf[n->used + len] = '\0';
    n->used += len + 1;
    return 0;
}

int ovl_clear_dir(struct ovl_super *os, struct dentry *d)
{
    const struct ovl_real real = {os->layers[OVL_UPPER].mnt, d};
    const struct vfs_caller c = ovl_caller(os);
    struct ovl_names n = {0};
    int r = ovl_read_real(real, &c, names_add, &n);

    layer_lock(d);
    for (size_t at = 0; r == 0 && at < n.used; at += strlen(n.buf + at) + 1) {
        bool was;
        r = ovl_clear_whiteout_locked(os, d, n.buf + at, &was);
        if (r == -ESTALE)
            r = -ENOTEMPTY;
    }
    layer_unlock(d);
    free(n.buf);
    return r;
}

/* ---- making ---- */

struct ovl_make {
    uint32_t mode;
    uint64_t rdev;
    const char *target;
    const struct vfs_caller *c;
    struct ovl_super *os;
    bool opaque;
};

static int make_fill(struct inode *i, void *arg)
{
    const struct ovl_make *m = arg;

    return m->opaque ? ovl_mark_set(m->os, i, "opaque", "y", 1) : 0;
}

static int make_locked(struct ovl_inode *od, const char *name, struct ovl_make *m,
                       struct dentry **out)
{
    struct dentry *up = ovl_upper(od);
    bool was;
    int r = ovl_clear_whiteout_locked(m->os, up, name, &was);

    if (r != 0)
        return r == -ESTALE ? -EEXIST : r;
    /* What lower may have of that name is not to shine through. */
    m->opaque = S_ISDIR(m->mode) && od->lower_count > 0;
    r = layer_create_locked(up, name, m->mode, m->rdev, m->target, m->c, make_fill, m, out);
    if (r != 0 && was && ovl_whiteout_locked(m->os, up, name) != 0)
        r = -EIO;
    return r;
}

static int make(struct inode *dir, const char *name, struct ovl_make *m, struct inode **out)
{
    struct ovl_inode *od = ovl_inode(dir);
    struct dentry *d;
    int r = ovl_copy_up(od, UINT64_MAX);

    if (r != 0)
        return r;
    m->os = ovl_super_of(od);
    layer_lock(ovl_upper(od));
    r = make_locked(od, name, m, &d);
    layer_unlock(ovl_upper(od));
    if (r != 0)
        return r;
    ovl_list_drop(od);
    ovl_copy_attr(od);
    return ovl_inode_made(od, name, d, out);
}

int ovl_create(struct inode *dir, const char *name, uint32_t mode, uint64_t rdev,
               const struct vfs_caller *c, struct inode **out)
{
    struct ovl_make m = {.mode = mode, .rdev = rdev, .c = c};

    /* It would be a whiteout. */
    if (S_ISCHR(mode) && rdev == ovl_super(dir->sb)->whiteout)
        return -EPERM;
    return make(dir, name, &m, out);
}

int ovl_symlink(struct inode *dir, const char *name, const char *target, const struct vfs_caller *c,
                struct inode **out)
{
    struct ovl_make m = {.mode = S_IFLNK | 0777, .target = target, .c = c};

    return make(dir, name, &m, out);
}

int ovl_tmpfile(struct inode *dir, uint32_t mode, const struct vfs_caller *c, struct inode **out)
{
    struct ovl_inode *od = ovl_inode(dir);
    struct dentry *d;
    int r = ovl_copy_up(od, UINT64_MAX);

    if (r == 0)
        r = layer_tmpfile(ovl_upper(od), mode, c, &d);
    return r != 0 ? r : ovl_inode_made(od, "", d, out);
}

int ovl_link(struct inode *dir, const char *name, struct inode *target)
{
    struct ovl_inode *od = ovl_inode(dir), *ot = ovl_inode(target);
    struct ovl_super *os = ovl_super_of(od);
    struct dentry *d;
    bool was = false;
    int r = ovl_copy_up(od, UINT64_MAX);

    if (r == 0)
        r = ovl_copy_up(ot, UINT64_MAX);
    if (r != 0)
        return r;
    struct dentry *up = ovl_upper(od);
    layer_lock(up);
    r = ovl_clear_whiteout_locked(os, up, name, &was);
    if (r == 0) {
        r = layer_link_locked(up, name, ovl_upper(ot)->inode, &d);
        if (r == 0)
            dentry_put(d);
        else if (was && ovl_whiteout_locked(os, up, name) != 0)
            r = -EIO;
    }
    layer_unlock(up);
    ovl_list_drop(od);
    ovl_copy_attr(od);
    ovl_copy_attr(ot);
    return r == -ESTALE ? -EEXIST : r;
}

/* ---- removing ---- */

/* The name has gone from where the inode was found. */
static void remove_forget_name(struct ovl_inode *od, const char *name, struct ovl_inode *oi)
{
    struct ovl_super *os = ovl_super_of(oi);

    mutex_lock(&os->mu);
    if (oi->parent == od && oi->name != NULL && strcmp(oi->name, name) == 0)
        oi->gone = true;
    mutex_unlock(&os->mu);
}

/* up is locked. *out_had: upper had the name. */
static int remove_locked(struct ovl_super *os, struct dentry *up, const char *name,
                         struct ovl_inode *oi, bool whiteout, bool *out_had)
{
    struct dentry *d;
    int r = layer_lookup_locked(up, name, true, &d);

    *out_had = r == 0;
    if (r == 0) {
        struct dentry *expected = ovl_upper(oi);
        r = expected != NULL && expected->inode == d->inode ? layer_remove_locked(up, d) : -ESTALE;
        dentry_put(d);
    } else if (r == -ENOENT) {
        r = 0;
    }
    return r == 0 && whiteout ? ovl_whiteout_locked(os, up, name) : r;
}

static int remove_name(struct inode *dir, const char *name, struct inode *victim)
{
    struct ovl_inode *od = ovl_inode(dir), *oi = ovl_inode(victim);
    struct ovl_super *os = ovl_super_of(od);
    bool whiteout, had;
    int r = ovl_copy_up(od, UINT64_MAX);

    if (r == 0)
        r = ovl_lower_positive(od, name, &whiteout);
    if (r != 0)
        return r;
    /* Nobody copies it up meanwhile, to where it is no more. */
    mutex_lock_nested(&oi->up_mu);
    layer_lock(ovl_upper(od));
    r = remove_locked(os, ovl_upper(od), name, oi, whiteout, &had);
    layer_unlock(ovl_upper(od));
    if (r == 0)
        remove_forget_name(od, name, oi);
    mutex_unlock(&oi->up_mu);
    if (r == 0)
        ovl_count_links(oi, had ? 0 : -1);
    ovl_list_drop(od);
    ovl_copy_attr(od);
    ovl_copy_attr(oi);
    return r;
}

int ovl_unlink(struct inode *dir, const char *name, struct inode *victim)
{
    return remove_name(dir, name, victim);
}

int ovl_rmdir(struct inode *dir, const char *name, struct inode *victim)
{
    struct ovl_inode *oi = ovl_inode(victim);
    int r = ovl_check_empty(oi);

    if (r == 0 && ovl_upper(oi) != NULL)
        r = ovl_clear_dir(ovl_super_of(oi), ovl_upper(oi));
    return r != 0 ? r : remove_name(dir, name, victim);
}
