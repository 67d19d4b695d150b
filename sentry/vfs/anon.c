/* Files without a place in the tree: an inode each, on one internal super. */
#include <stdio.h>
#include <stdlib.h>

#include "sentry/vfs/vfs_priv.h"

#define ANON_FS_MAGIC 0x09041934u

static struct super anon_super;
static struct mount anon_mount;
static _Atomic uint64_t next_ino = 1;

static int anon_statfs(struct super *sb, struct vfs_statfs *out)
{
    (void)sb;
    out->type = ANON_FS_MAGIC;
    out->bsize = PAGE_SIZE;
    out->namelen = VFS_NAME_MAX;
    return 0;
}

static void anon_destroy(struct super *sb)
{
    (void)sb;
}

static const struct super_ops anon_super_ops = {.statfs = anon_statfs, .destroy = anon_destroy};
static const struct fs_ops anon_fs = {.name = "anon_inodefs"};

static void anon_release(struct inode *i)
{
    inode_fini(i);
    free(i);
}

int vfs_anon_setattr(struct inode *i, const struct vfs_setattr *a)
{
    if ((a->valid & VFS_SET_SIZE) != 0)
        return -EINVAL;
    mutex_lock(&i->mu);
    if ((a->valid & VFS_SET_MODE) != 0)
        i->mode = (i->mode & S_IFMT) | (a->mode & 07777);
    if ((a->valid & VFS_SET_UID) != 0)
        i->uid = a->uid;
    if ((a->valid & VFS_SET_GID) != 0)
        i->gid = a->gid;
    i->ctime = vfs_now();
    mutex_unlock(&i->mu);
    return 0;
}

static const struct inode_ops anon_inode_ops = {.setattr = vfs_anon_setattr,
                                                .release = anon_release};

__attribute__((constructor)) static void anon_init(void)
{
    super_init(&anon_super, &anon_super_ops, &anon_fs);
    ref_init(&anon_mount.ref);
    anon_mount.id = 1;
    anon_mount.sb = &anon_super;
    struct list *const lists[] = {&anon_mount.node,  &anon_mount.chain, &anon_mount.children,
                                  &anon_mount.child, &anon_mount.peers, &anon_mount.slaves,
                                  &anon_mount.slave, &anon_mount.work};
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        list_init(lists[i]);
}

struct mount *mount_anon(void)
{
    return &anon_mount;
}

int vfs_anon_inode_file(const char *text, struct inode *i, const struct file_ops *ops,
                        uint32_t flags, struct file **out_file)
{
    struct vpath p = {.mnt = &anon_mount};
    int r = dentry_new(&anon_super, inode_get(i), NULL, text, strlen(text), &p.dentry);

    if (r != 0) {
        inode_put(i);
        return r;
    }
    r = file_alloc(&p, flags, out_file);
    dentry_put(p.dentry);
    if (r == 0)
        (*out_file)->ops = ops;
    return r;
}

int vfs_anon_inode_init(struct inode *i, const struct inode_ops *ops, uint32_t mode)
{
    return inode_init(i, ops, &anon_super, atomic_fetch_add(&next_ino, 1), mode);
}

int vfs_anon_file(const char *name, uint32_t mode, const struct file_ops *ops, void *priv,
                  uint32_t flags, struct file **out_file)
{
    struct inode *i = calloc(1, sizeof(*i));
    char text[64];
    size_t len = strlen(name);
    int r;

    if (i == NULL)
        return -ENOMEM;
    r = vfs_anon_inode_init(i, &anon_inode_ops, mode);
    if (r != 0) {
        free(i);
        return r;
    }
    if (len > 0 && name[len - 1] == ':')
        (void)snprintf(text, sizeof(text), "%.40s[%lu]", name, (unsigned long)i->ino);
    else
        (void)snprintf(text, sizeof(text), "%.60s", name);
    r = vfs_anon_inode_file(text, i, ops, flags, out_file);
    inode_put(i);
    if (r == 0)
        (*out_file)->priv = priv;
    return r;
}
