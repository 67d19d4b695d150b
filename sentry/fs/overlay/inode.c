/* Inodes: one per file of the overlay, which stays the same when it is copied up. Found by the real
 * inodes it stands for, so that hard links are one. */
#include "base/hash.h"
#include "base/objcount.h"
#include "sentry/fs/overlay/overlay_priv.h"

OBJCOUNT_DEFINE(ovl_inode);

#define INO_BITS 48

/* Number and file system in one word, as xino=on. Numbers that leave no room stay as they are. */
uint64_t ovl_ino(const struct ovl_super *os, unsigned layer, uint64_t ino)
{
    if (os->same_fs || ino >> INO_BITS != 0)
        return ino;
    return ino | (uint64_t)os->layers[layer].fs << INO_BITS;
}

static struct hlist *ovl_bucket(struct hlist *table, const struct inode *key)
{
    return &table[hash_u64((uint64_t)(uintptr_t)key) % OVL_BUCKETS];
}

/* ---- attributes ---- */

static int ovl_links(struct ovl_inode *oi)
{
    struct ovl_super *os = ovl_super_of(oi);

    if (!os->is_root)
        return 0;
    mutex_lock(&os->mu);
    int links = oi->links;
    mutex_unlock(&os->mu);
    return links;
}

void ovl_copy_attr(struct ovl_inode *oi)
{
    struct inode *i = &oi->inode, *real = ovl_real(oi).d->inode;

    mutex_lock(&real->mu);
    const struct vfs_attr copy = {
        .mode = real->mode,
        .uid = real->uid,
        .gid = real->gid,
        .size = real->size,
        .nlink = real->nlink,
    };
    mutex_unlock(&real->mu);
    int links = ovl_links(oi);
    mutex_lock(&i->mu);
    i->mode = (i->mode & S_IFMT) | (copy.mode & 07777);
    i->uid = copy.uid;
    i->gid = copy.gid;
    i->size = copy.size;
    i->nlink = (uint32_t)MAX((int)copy.nlink + links, 0);
    mutex_unlock(&i->mu);
}

static int ovl_getattr(struct inode *i, struct vfs_attr *out)
{
    struct ovl_inode *oi = ovl_inode(i);
    const struct ovl_real real = ovl_real(oi);
    const struct vpath p = {real.mnt, real.d};
    int r = vfs_getattr(&p, out);

    if (r != 0)
        return r;
    /* What is mounted inside a layer on the host keeps its own numbers. */
    if (out->dev == real.d->sb->dev) {
        out->dev = i->sb->dev;
        out->ino = i->ino;
    }
    if (S_ISDIR(i->mode))
        out->nlink = oi->lower_count > 0 && ovl_upper(oi) != NULL ? 1 : out->nlink;
    else
        out->nlink = (uint32_t)MAX((int)out->nlink + ovl_links(oi), 0);
    return 0;
}

static int ovl_setattr(struct inode *i, const struct vfs_setattr *a)
{
    struct ovl_inode *oi = ovl_inode(i);
    bool sized = (a->valid & VFS_SET_SIZE) != 0;
    int r = ovl_copy_up(oi, sized ? a->size : UINT64_MAX);

    if (r != 0)
        return r;
    struct inode *real = ovl_upper(oi)->inode;
    uint64_t before = real->size;
    r = real->ops->setattr != NULL ? real->ops->setattr(real, a) : -EPERM;
    ovl_copy_attr(oi);
    if (r == 0 && sized && a->size < before)
        mappable_truncate(&oi->map, a->size);
    return r;
}

static int64_t ovl_readlink(struct inode *i, const struct vfs_caller *c, char *buf, size_t size)
{
    struct inode *real = ovl_real(ovl_inode(i)).d->inode;

    return real->ops->readlink != NULL ? real->ops->readlink(real, c, buf, size) : -EINVAL;
}

/* ---- names ---- */

void ovl_set_name(struct ovl_inode *oi, struct ovl_inode *parent, char *name)
{
    struct ovl_super *os = ovl_super_of(oi);

    if (parent != NULL)
        (void)inode_get(&parent->inode);
    mutex_lock(&os->mu);
    struct ovl_inode *old_parent = oi->parent;
    char *old_name = oi->name;
    oi->parent = parent;
    oi->name = name;
    oi->gone = false;
    mutex_unlock(&os->mu);
    free(old_name);
    if (old_parent != NULL)
        inode_put(&old_parent->inode);
}

struct ovl_inode *ovl_parent(struct ovl_inode *oi)
{
    struct ovl_super *os = ovl_super_of(oi);

    mutex_lock(&os->mu);
    struct ovl_inode *p = oi->parent;
    if (p != NULL)
        (void)inode_get(&p->inode);
    mutex_unlock(&os->mu);
    return p;
}

void ovl_count_links(struct ovl_inode *oi, int delta)
{
    struct ovl_super *os = ovl_super_of(oi);
    struct inode *real = ovl_real(oi).d->inode;
    bool put = false;

    if (!os->is_root || S_ISDIR(oi->inode.mode) || oi->lower_count == 0)
        return;
    mutex_lock(&real->mu);
    int nlink = (int)real->nlink;
    mutex_unlock(&real->mu);
    mutex_lock(&os->mu);
    oi->links += delta;
    bool pin = oi->links != 0 && nlink + oi->links > 0;
    if (pin && list_empty(&oi->pin)) {
        list_add(&oi->pin, &os->pinned);
        (void)inode_get(&oi->inode);
    } else if (!pin && !list_empty(&oi->pin)) {
        list_del(&oi->pin);
        put = true;
    }
    mutex_unlock(&os->mu);
    /* Not the last one: the caller has one too. */
    if (put)
        inode_put(&oi->inode);
}

/* ---- life ---- */

void ovl_found_fini(struct ovl_found *f)
{
    if (f->upper != NULL)
        dentry_put(f->upper);
    for (unsigned i = 0; i < f->count; i++)
        dentry_put(f->lower[i].d);
    if (f->lower != f->inline_lower)
        free(f->lower);
    free(f->redirect);
    f->upper = NULL;
    f->redirect = NULL;
    f->lower = f->inline_lower;
    f->count = 0;
}

void ovl_hash_upper(struct ovl_inode *oi, const struct inode *upper)
{
    struct ovl_super *os = ovl_super_of(oi);

    mutex_lock(&os->mu);
    oi->upper_key = upper;
    hlist_add(&oi->upper_link, ovl_bucket(os->by_upper, upper));
    mutex_unlock(&os->mu);
}

void ovl_unhash_upper(struct ovl_inode *oi)
{
    struct ovl_super *os = ovl_super_of(oi);

    mutex_lock(&os->mu);
    hlist_del(&oi->upper_link);
    oi->upper_key = NULL;
    mutex_unlock(&os->mu);
}

/* Does the lower file have one inode, whatever names it is found by? Copying up breaks hard links,
 * so those are not, unless the links are kept together. */
static bool ovl_lower_is_one(const struct ovl_super *os, struct inode *lower)
{
    if (os->is_root || S_ISDIR(lower->mode))
        return true;
    mutex_lock(&lower->mu);
    bool one = lower->nlink <= 1;
    mutex_unlock(&lower->mu);
    return one;
}

uint64_t ovl_found_ino(const struct ovl_super *os, const struct ovl_found *f)
{
    if (f->has_origin)
        return f->origin;
    if (f->count > 0)
        return ovl_ino(os, f->lower[0].layer, f->lower[0].d->inode->ino);
    return ovl_ino(os, OVL_UPPER, f->upper->inode->ino);
}

/* Owned, or NULL. */
static struct ovl_inode *ovl_hashed_locked(struct ovl_super *os, const struct ovl_found *f, bool by)
{
    struct ovl_inode *oi;

    if (f->upper != NULL) {
        const struct inode *key = f->upper->inode;
        hlist_for_each_entry(oi, ovl_bucket(os->by_upper, key),
                             upper_link) if (oi->upper_key == key &&
                                             ref_tryget(&oi->inode.ref)) return oi;
    }
    if (by) {
        const struct inode *key = f->lower[0].d->inode;
        hlist_for_each_entry(oi, ovl_bucket(os->by_lower, key),
                             lower_link) if (oi->lower[0].d->inode == key &&
                                             ref_tryget(&oi->inode.ref)) return oi;
    }
    return NULL;
}

/* Takes over what f holds. */
static int ovl_inode_new(struct ovl_super *os, struct ovl_found *f, struct ovl_inode **out)
{
    struct ovl_inode *oi = calloc(1, sizeof(*oi) + f->count * sizeof(oi->lower[0]));
    const struct inode *real = (f->upper != NULL ? f->upper : f->lower[0].d)->inode;

    if (oi == NULL)
        return -ENOMEM;
    int r = inode_init(&oi->inode, &ovl_inode_ops, &os->sb, ovl_found_ino(os, f), real->mode);
    if (r != 0) {
        free(oi);
        return r;
    }
    OBJCOUNT_INC(ovl_inode);
    oi->inode.rdev = real->rdev;
    atomic_store(&oi->upper, f->upper);
    oi->lower_count = f->count;
    if (f->count > 0)
        memcpy(oi->lower, f->lower, f->count * sizeof(oi->lower[0]));
    oi->redirect = f->redirect;
    f->upper = NULL;
    f->redirect = NULL;
    f->count = 0;
    mutex_init(&oi->up_mu, LOCK_RANK_INODE_DIR);
    mutex_init(&oi->map_mu, LOCK_RANK_LEAF);
    mappable_init(&oi->map, &ovl_mappable_ops);
    list_init(&oi->pin);
    ovl_copy_attr(oi);
    *out = oi;
    return 0;
}

/* Enters made unless somebody was faster: the one that is in the tables. Owned. */
static struct ovl_inode *ovl_enter(struct ovl_super *os, struct ovl_inode *made, bool by)
{
    struct ovl_found key = {.upper = ovl_upper(made), .lower = made->lower};
    struct ovl_inode *oi;

    mutex_lock(&os->mu);
    oi = ovl_hashed_locked(os, &key, by);
    if (oi == NULL) {
        oi = made;
        if (key.upper != NULL) {
            oi->upper_key = key.upper->inode;
            hlist_add(&oi->upper_link, ovl_bucket(os->by_upper, oi->upper_key));
        }
        if (by)
            hlist_add(&oi->lower_link, ovl_bucket(os->by_lower, made->lower[0].d->inode));
    }
    mutex_unlock(&os->mu);
    return oi;
}

/* A directory that stands in two places comes from layers that overlap: a circle would follow. */
static int ovl_check_place(struct ovl_super *os, struct ovl_inode *oi, struct ovl_inode *parent)
{
    mutex_lock(&os->mu);
    bool same = !S_ISDIR(oi->inode.mode) || oi->parent == parent;
    mutex_unlock(&os->mu);
    if (same)
        return 0;
    inode_put(&oi->inode);
    return -ELOOP;
}

int ovl_inode_get(struct ovl_super *os, struct ovl_inode *parent, const char *name,
                  struct ovl_found *f, struct inode **out)
{
    bool by = f->count > 0 && ovl_lower_is_one(os, f->lower[0].d->inode);
    struct ovl_inode *oi, *made;
    char *copy;

    mutex_lock(&os->mu);
    oi = ovl_hashed_locked(os, f, by);
    mutex_unlock(&os->mu);
    if (oi != NULL) {
        ovl_found_fini(f);
        *out = &oi->inode;
        return ovl_check_place(os, oi, parent);
    }
    copy = strdup(name);
    int r = copy != NULL ? ovl_inode_new(os, f, &made) : -ENOMEM;
    ovl_found_fini(f);
    if (r != 0) {
        free(copy);
        return r;
    }
    /* What is in upper alone is never copied up, and only directories are asked for their way. */
    if (made->lower_count == 0 && !S_ISDIR(made->inode.mode)) {
        free(copy);
    } else {
        made->parent = parent;
        made->name = copy;
        if (parent != NULL)
            (void)inode_get(&parent->inode);
    }
    oi = ovl_enter(os, made, by);
    if (oi != made)
        inode_put(&made->inode);
    *out = &oi->inode;
    return ovl_check_place(os, oi, parent);
}

int ovl_inode_made(struct ovl_inode *dir, const char *name, struct dentry *upper,
                   struct inode **out)
{
    struct ovl_found f = {.upper = upper, .lower = f.inline_lower};

    return ovl_inode_get(ovl_super_of(dir), dir, name, &f, out);
}

static void ovl_free_one(struct ovl_inode *oi)
{
    struct ovl_super *os = ovl_super_of(oi);
    struct dentry *up = ovl_upper(oi);

    mutex_lock(&os->mu);
    hlist_del(&oi->lower_link);
    hlist_del(&oi->upper_link);
    mutex_unlock(&os->mu);
    mappable_fini(&oi->map);
    mutex_destroy(&oi->up_mu);
    mutex_destroy(&oi->map_mu);
    ovl_list_drop(oi);
    if (up != NULL)
        dentry_put(up);
    for (unsigned k = 0; k < oi->lower_count; k++)
        dentry_put(oi->lower[k].d);
    free(oi->name);
    free(oi->redirect);
    free(oi->map_path);
    OBJCOUNT_DEC(ovl_inode);
    /* It may drop the last reference to the super. */
    inode_fini(&oi->inode);
    free(oi);
}

/* A chain of parents may go with its last child: no recursion. */
static void ovl_release(struct inode *i)
{
    struct ovl_inode *oi = ovl_inode(i);

    while (oi != NULL) {
        struct ovl_inode *parent = oi->parent;
        ovl_free_one(oi);
        oi = parent != NULL && ref_put(&parent->inode.ref) ? parent : NULL;
    }
}

const struct inode_ops ovl_inode_ops = {
    .lookup = ovl_lookup,
    .prefetch = ovl_prefetch,
    .create = ovl_create,
    .tmpfile = ovl_tmpfile,
    .symlink = ovl_symlink,
    .link = ovl_link,
    .unlink = ovl_unlink,
    .rmdir = ovl_rmdir,
    .rename = ovl_rename,
    .readlink = ovl_readlink,
    .getattr = ovl_getattr,
    .setattr = ovl_setattr,
    .open = ovl_open,
    .getxattr = ovl_getxattr,
    .setxattr = ovl_setxattr,
    .listxattr = ovl_listxattr,
    .removexattr = ovl_removexattr,
    .release = ovl_release,
};
