/* Directories of tmpfs: names in a tree by name, and in the order they came for readdir. */
#include "sentry/fs/tmpfs/tmpfs_priv.h"

#define RENAME_EXCHANGE_ 2u
#define RENAME_WHITEOUT_ 4u
#define DIRENT_SIZE 20 /* what Linux counts per name */

/* ---- the two trees ---- */

static int name_compare(const struct tmpfs_entry *e, const char *name, size_t len)
{
    int order = memcmp(e->name, name, MIN(e->len, len));

    return order != 0 ? order : (e->len > len) - (e->len < len);
}

static struct tmpfs_entry *entry_find(const struct tmpfs_inode *d, const char *name)
{
    size_t len = strlen(name);
    struct rb_node *n = d->names.node;

    while (n != NULL) {
        struct tmpfs_entry *e = container_of(n, struct tmpfs_entry, by_name);
        int order = name_compare(e, name, len);
        if (order == 0)
            return e;
        n = order > 0 ? n->left : n->right;
    }
    return NULL;
}

/* First entry with a cookie >= pos, or NULL. */
static struct tmpfs_entry *entry_from(const struct tmpfs_inode *d, uint64_t pos)
{
    struct rb_node *n = d->positions.node;
    struct tmpfs_entry *best = NULL;

    while (n != NULL) {
        struct tmpfs_entry *e = container_of(n, struct tmpfs_entry, by_pos);
        if (e->pos >= pos) {
            best = e;
            n = n->left;
        } else {
            n = n->right;
        }
    }
    return best;
}

static void entry_link(struct tmpfs_inode *d, struct tmpfs_entry *e)
{
    struct rb_node **link = &d->names.node, *up = NULL;

    while (*link != NULL) {
        up = *link;
        const struct tmpfs_entry *o = container_of(up, struct tmpfs_entry, by_name);
        link = name_compare(o, e->name, e->len) > 0 ? &up->left : &up->right;
    }
    rb_link_node(&e->by_name, up, link);
    rb_insert_color(&e->by_name, &d->names);
    e->pos = d->next_pos++;
    link = &d->positions.node;
    up = NULL;
    while (*link != NULL) {
        up = *link;
        link = &up->right; /* always the largest */
    }
    rb_link_node(&e->by_pos, up, link);
    rb_insert_color(&e->by_pos, &d->positions);
}

static void entry_unlink(struct tmpfs_inode *d, struct tmpfs_entry *e)
{
    rb_erase(&e->by_name, &d->names);
    rb_erase(&e->by_pos, &d->positions);
}

static struct tmpfs_entry *entry_new(const char *name)
{
    size_t len = strlen(name);
    struct tmpfs_entry *e = calloc(1, sizeof(*e) + len + 1);

    if (e != NULL) {
        e->len = len;
        memcpy(e->name, name, len + 1);
    }
    return e;
}

/* The directory has changed by delta names. */
static void dir_touch(struct tmpfs_inode *d, int delta, int links)
{
    struct inode *i = &d->inode;

    mutex_lock(&i->mu);
    i->size = (uint64_t)((int64_t)i->size + (int64_t)delta * DIRENT_SIZE);
    i->nlink = (uint32_t)((int)i->nlink + links);
    i->mtime = i->ctime = vfs_now();
    mutex_unlock(&i->mu);
}

static void inode_links(struct inode *i, int delta)
{
    mutex_lock(&i->mu);
    i->nlink = (uint32_t)((int)i->nlink + delta);
    i->ctime = vfs_now();
    mutex_unlock(&i->mu);
}

void tmpfs_dir_fini(struct tmpfs_inode *d)
{
    struct rb_node *n;

    while ((n = rb_first(&d->names)) != NULL) {
        struct tmpfs_entry *e = container_of(n, struct tmpfs_entry, by_name);
        entry_unlink(d, e);
        inode_put(&e->inode->inode);
        free(e);
    }
}

/* ---- operations ---- */

int tmpfs_lookup(struct inode *dir, const char *name, struct inode **out)
{
    const struct tmpfs_entry *e = entry_find(tmpfs_inode(dir), name);

    if (e == NULL)
        return -ENOENT;
    *out = inode_get(&e->inode->inode);
    return 0;
}

/* Puts t, whose reference the entry takes, under a new name. */
static void dir_add(struct tmpfs_inode *d, struct tmpfs_entry *e, struct tmpfs_inode *t)
{
    bool is_dir = S_ISDIR(t->inode.mode);

    e->inode = t;
    entry_link(d, e);
    if (is_dir)
        t->parent = d;
    dir_touch(d, 1, is_dir ? 1 : 0);
}

static int dir_make(struct inode *dir, const char *name, uint32_t mode, uint64_t rdev,
                    const struct vfs_caller *c, const char *target, struct inode **out)
{
    struct tmpfs_entry *e = entry_new(name);
    struct tmpfs_inode *t;
    uint32_t uid, gid;

    if (e == NULL)
        return -ENOMEM;
    vfs_init_owner(dir, c, &mode, &uid, &gid);
    int r = tmpfs_inode_new(tmpfs_of(dir->sb), mode, uid, gid, rdev, &t);
    if (r == 0 && target != NULL) {
        t->target = strdup(target);
        t->inode.size = strlen(target);
        if (t->target == NULL) {
            inode_put(&t->inode);
            r = -ENOMEM;
        }
    }
    if (r != 0) {
        free(e);
        return r;
    }
    if (S_ISDIR(mode))
        t->inode.nlink = 2;
    dir_add(tmpfs_inode(dir), e, t);
    *out = inode_get(&t->inode);
    return 0;
}

int tmpfs_create(struct inode *dir, const char *name, uint32_t mode, uint64_t rdev,
                 const struct vfs_caller *c, struct inode **out)
{
    return dir_make(dir, name, mode, rdev, c, NULL, out);
}

int tmpfs_symlink(struct inode *dir, const char *name, const char *target,
                  const struct vfs_caller *c, struct inode **out)
{
    return dir_make(dir, name, S_IFLNK | 0777, 0, c, target, out);
}

int tmpfs_link(struct inode *dir, const char *name, struct inode *target)
{
    struct tmpfs_entry *e = entry_new(name);

    if (e == NULL)
        return -ENOMEM;
    dir_add(tmpfs_inode(dir), e, tmpfs_inode(inode_get(target)));
    inode_links(target, 1);
    return 0;
}

/* Takes the name away; the entry's reference on the inode goes with it. */
static void dir_remove(struct tmpfs_inode *d, struct tmpfs_entry *e)
{
    struct inode *i = &e->inode->inode;
    bool is_dir = S_ISDIR(i->mode);

    entry_unlink(d, e);
    inode_links(i, is_dir ? -2 : -1);
    dir_touch(d, -1, is_dir ? -1 : 0);
    inode_put(i);
    free(e);
}

int tmpfs_unlink(struct inode *dir, const char *name, struct inode *victim)
{
    struct tmpfs_inode *d = tmpfs_inode(dir);
    struct tmpfs_entry *e = entry_find(d, name);

    (void)victim;
    if (e == NULL)
        return -ENOENT;
    dir_remove(d, e);
    return 0;
}

int tmpfs_rmdir(struct inode *dir, const char *name, struct inode *victim)
{
    if (rb_first(&tmpfs_inode(victim)->names) != NULL)
        return -ENOTEMPTY;
    return tmpfs_unlink(dir, name, victim);
}

static void rename_exchange(struct tmpfs_inode *od, struct tmpfs_entry *from,
                            struct tmpfs_inode *nd, struct tmpfs_entry *to)
{
    struct tmpfs_inode *a = from->inode, *b = to->inode;
    int dirs = (S_ISDIR(a->inode.mode) ? 1 : 0) - (S_ISDIR(b->inode.mode) ? 1 : 0);

    from->inode = b;
    to->inode = a;
    if (S_ISDIR(a->inode.mode))
        a->parent = nd;
    if (S_ISDIR(b->inode.mode))
        b->parent = od;
    dir_touch(od, 0, -dirs);
    dir_touch(nd, 0, dirs);
    inode_links(&a->inode, 0);
    inode_links(&b->inode, 0);
}

int tmpfs_rename(struct inode *old_dir, const char *old_name, struct inode *new_dir,
                 const char *new_name, struct inode *victim, struct inode *target, unsigned flags)
{
    struct tmpfs_inode *od = tmpfs_inode(old_dir), *nd = tmpfs_inode(new_dir);
    struct tmpfs_entry *from = entry_find(od, old_name), *to = entry_find(nd, new_name), *fresh;
    struct tmpfs_inode *white = NULL;
    bool is_dir = S_ISDIR(victim->mode);

    if (from == NULL)
        return -ENOENT;
    if ((flags & RENAME_EXCHANGE_) != 0) {
        if (to == NULL)
            return -ENOENT;
        rename_exchange(od, from, nd, to);
        return 0;
    }
    if (target != NULL && S_ISDIR(target->mode) && rb_first(&tmpfs_inode(target)->names) != NULL)
        return -ENOTEMPTY;
    fresh = entry_new(new_name);
    if (fresh == NULL)
        return -ENOMEM;
    if ((flags & RENAME_WHITEOUT_) != 0) {
        int r = tmpfs_inode_new(tmpfs_of(old_dir->sb), S_IFCHR, 0, 0, 0, &white);
        if (r != 0) {
            free(fresh);
            return r;
        }
    }
    if (to != NULL)
        dir_remove(nd, to);
    entry_unlink(od, from);
    dir_touch(od, -1, is_dir ? -1 : 0);
    dir_add(nd, fresh, from->inode);
    inode_links(victim, 0);
    if (white != NULL)
        dir_add(od, from, white);
    else
        free(from);
    return 0;
}

/* ---- reading ---- */

static unsigned dirent_type(const struct inode *i)
{
    return (i->mode & S_IFMT) >> 12;
}

static int dir_read_locked(struct tmpfs_inode *d, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    int r = 0;

    if (*pos == 0) {
        r = fn(arg, ".", 1, d->inode.ino, 4, 1);
        if (r == 0)
            *pos = 1;
    }
    if (r == 0 && *pos == 1) {
        r = fn(arg, "..", 2, d->parent->inode.ino, 4, 2);
        if (r == 0)
            *pos = 2;
    }
    while (r == 0) {
        const struct tmpfs_entry *e = entry_from(d, (uint64_t)*pos);
        if (e == NULL)
            break;
        r = fn(arg, e->name, e->len, e->inode->inode.ino, dirent_type(&e->inode->inode),
               e->pos + 1);
        if (r == 0)
            *pos = (int64_t)e->pos + 1;
    }
    return r < 0 ? r : 0;
}

static int tmpfs_readdir(struct file *f, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    int r;

    /* An overlay may hold its own directory's. */
    mutex_lock_nested(&f->inode->dir_mu);
    r = dir_read_locked(tmpfs_inode(f->inode), pos, fn, arg);
    mutex_unlock(&f->inode->dir_mu);
    return r;
}

static int tmpfs_dir_fsync(struct file *f, bool data_only)
{
    (void)f;
    (void)data_only;
    return 0; /* memory is as safe as it gets */
}

const struct file_ops tmpfs_dir_ops = {
    .seek = vfs_seek_endless,
    .readdir = tmpfs_readdir,
    .fsync = tmpfs_dir_fsync,
};
