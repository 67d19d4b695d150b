/* Directories and files of groups as inodes. */
#include "sentry/fs/cgroup/cgroupfs_priv.h"

/* ---- which files there are ---- */

const struct cgfs_row *cgfs_rows(const struct cgroup *cg)
{
    return cg->root->v2 ? cgfs_rows_v2 : cgfs_rows_v1;
}

size_t cgfs_row_index(const struct cgroup *cg, const struct cgfs_row *row)
{
    return (size_t)(row - cgfs_rows(cg));
}

bool cgfs_row_visible(struct cgroup *cg, const struct cgfs_row *row)
{
    if (cg->dead || (!cg->parent && (row->flags & CGFS_NOT_TOP)) ||
        (cg->parent && (row->flags & CGFS_ONLY_TOP)))
        return false;
    return row->ctls == CGFS_ANY_CTL || (cgroup_enabled(cg) & row->ctls);
}

static const struct cgfs_row *row_find(struct cgroup *cg, const char *name)
{
    for (const struct cgfs_row *r = cgfs_rows(cg); r->name; r++)
        if (strcmp(r->name, name) == 0 && cgfs_row_visible(cg, r))
            return r;
    return NULL;
}

/* ---- owners and modes, which are the group's and outlive inodes ---- */

static struct cgroup_attr attr_locked(const struct cgfs_node *n)
{
    const struct cgroup *cg = n->cg;
    const struct cgroup_attr *a = n->row ? cg->file_attrs : &cg->dir_attr;

    if (a && n->row)
        a += cgfs_row_index(cg, n->row);
    if (a && a->set)
        return *a;
    return (struct cgroup_attr){
        .mode = n->row ? n->row->mode : 0755, .uid = cg->maker_uid, .gid = cg->maker_gid};
}

static void attr_refresh(struct cgfs_node *n)
{
    struct inode *i = &n->inode;

    cgroup_lock(n->cg->root->k);
    const struct cgroup_attr a = attr_locked(n);
    cgroup_unlock(n->cg->root->k);
    mutex_lock(&i->mu);
    i->mode = (i->mode & S_IFMT) | a.mode;
    i->uid = a.uid;
    i->gid = a.gid;
    mutex_unlock(&i->mu);
}

int cgfs_node_new(struct super *sb, struct cgroup *cg, const struct cgfs_row *row,
                  struct inode **out)
{
    struct cgfs_node *n = calloc(1, sizeof(*n));
    const uint64_t ino = cg->id * 2 * CGROUP_FILES + (row ? cgfs_row_index(cg, row) + 1 : 0);

    if (!n)
        return -ENOMEM;
    int r = inode_init(&n->inode, &cgfs_inode_ops, sb, ino, row ? S_IFREG : S_IFDIR);
    if (r) {
        free(n);
        return r;
    }
    n->cg = cgroup_get(cg);
    n->row = row;
    n->inode.nlink = row ? 1 : 2;
    n->inode.atime = n->inode.mtime = n->inode.ctime = vfs_now();
    attr_refresh(n);
    *out = &n->inode;
    return 0;
}

static void cgfs_release(struct inode *i)
{
    cgroup_put(cgfs_node(i)->cg);
    inode_fini(i);
    free(cgfs_node(i));
}

/* Names of a group never mean another one, but groups and files come and go. */
int cgfs_revalidate(struct dentry *d, struct inode *dir, const char *name)
{
    (void)dir, (void)name;
    if (!d->inode)
        return 0;
    struct cgfs_node *n = cgfs_node(d->inode);
    if (n->row ? !cgfs_row_visible(n->cg, n->row) : n->cg->dead)
        return 0;
    attr_refresh(n);
    return 1;
}

static int cgfs_getattr(struct inode *i, struct vfs_attr *out)
{
    struct cgfs_node *n = cgfs_node(i);

    attr_refresh(n);
    *out = (struct vfs_attr){.ino = i->ino,
                             .dev = i->sb->dev,
                             .mode = i->mode,
                             .uid = i->uid,
                             .gid = i->gid,
                             .nlink = i->nlink,
                             .blksize = PAGE_SIZE,
                             .atime = i->atime,
                             .mtime = i->mtime,
                             .ctime = i->ctime};
    if (n->row)
        return 0;
    struct cgroup *child;
    cgroup_lock(n->cg->root->k);
    list_for_each_entry (child, &n->cg->children, sibling)
        out->nlink++;
    cgroup_unlock(n->cg->root->k);
    return 0;
}

static int cgfs_setattr(struct inode *i, const struct vfs_setattr *s)
{
    struct cgfs_node *n = cgfs_node(i);
    struct cgroup *cg = n->cg;
    struct cgroup_attr *fresh = NULL;

    if (!(s->valid & (VFS_SET_MODE | VFS_SET_UID | VFS_SET_GID)))
        return 0;
    if (n->row) {
        fresh = calloc(CGROUP_FILES, sizeof(*fresh));
        if (!fresh)
            return -ENOMEM;
    }
    cgroup_lock(cg->root->k);
    struct cgroup_attr a = attr_locked(n);
    a.set = true;
    if (s->valid & VFS_SET_MODE)
        a.mode = s->mode & 07777;
    if (s->valid & VFS_SET_UID)
        a.uid = s->uid;
    if (s->valid & VFS_SET_GID)
        a.gid = s->gid;
    if (n->row && !cg->file_attrs) {
        cg->file_attrs = fresh;
        fresh = NULL;
    }
    *(n->row ? &cg->file_attrs[cgfs_row_index(cg, n->row)] : &cg->dir_attr) = a;
    cgroup_unlock(cg->root->k);
    free(fresh);
    attr_refresh(n);
    return 0;
}

/* ---- directories ---- */

static int cgfs_lookup(struct inode *dir, const char *name, struct inode **out)
{
    struct cgroup *cg = cgfs_node(dir)->cg, *child;
    const struct cgfs_row *row = row_find(cg, name);

    if (row)
        return cgfs_node_new(dir->sb, cg, row, out);
    int r = cgroup_child(cg, name, &child);
    if (r)
        return r;
    r = cgfs_node_new(dir->sb, child, NULL, out);
    cgroup_put(child);
    return r;
}

static int cgfs_create(struct inode *dir, const char *name, uint32_t mode, uint64_t rdev,
                       const struct vfs_caller *c, struct inode **out)
{
    struct cgroup *cg = cgfs_node(dir)->cg, *child;

    (void)rdev;
    if (!S_ISDIR(mode))
        return S_ISREG(mode) ? -EACCES : -EPERM;
    if (strchr(name, '\n'))
        return -EINVAL;
    if (row_find(cg, name))
        return -EEXIST;
    int r = cgroup_mkdir(cg, name, c, &child);
    if (r)
        return r;
    cgroup_lock(cg->root->k);
    child->maker_uid = c->cred->fsuid;
    child->maker_gid = c->cred->fsgid;
    child->dir_attr = (struct cgroup_attr){true, mode & 07777, child->maker_uid, child->maker_gid};
    cgroup_unlock(cg->root->k);
    r = cgfs_node_new(dir->sb, child, NULL, out);
    if (r)
        (void)!cgroup_rmdir(child);
    cgroup_put(child);
    return r;
}

static int cgfs_rmdir(struct inode *dir, const char *name, struct inode *victim)
{
    (void)dir, (void)name;
    return cgfs_node(victim)->row ? -ENOTDIR : cgroup_rmdir(cgfs_node(victim)->cg);
}

struct cgroup *cgroupfs_group(const struct file *f)
{
    if (f->inode->ops != &cgfs_inode_ops || cgfs_node(f->inode)->row)
        return NULL;
    struct cgroup *cg = cgfs_node(f->inode)->cg;
    return cg->root->v2 ? cg : NULL;
}

const struct inode_ops cgfs_inode_ops = {
    .lookup = cgfs_lookup,
    .create = cgfs_create,
    .rmdir = cgfs_rmdir,
    .getattr = cgfs_getattr,
    .setattr = cgfs_setattr,
    .open = cgfs_open,
    .release = cgfs_release,
};
