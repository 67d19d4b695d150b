/* Inodes and supers as objects. */
#include <sys/sysmacros.h>
#include <time.h>

#include "base/objcount.h"
#include "sentry/vfs/special.h"
#include "sentry/vfs/vfs_priv.h"

OBJCOUNT_DEFINE(inode);

static const struct vfs_special_ops *special_ops;

void vfs_set_special(const struct vfs_special_ops *ops)
{
    special_ops = ops;
}

const struct vfs_special_ops *vfs_special(void)
{
    return special_ops;
}

struct vfs_time vfs_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    return (struct vfs_time){ts.tv_sec, (uint32_t)ts.tv_nsec};
}

uint64_t vfs_new_dev(void)
{
    static _Atomic unsigned next = 1;

    return makedev(0, atomic_fetch_add(&next, 1));
}

/* ---- inodes ---- */

int inode_init(struct inode *i, const struct inode_ops *ops, struct super *sb, uint64_t ino,
               uint32_t mode)
{
    i->ops = ops;
    i->sb = super_get(sb);
    i->ino = ino;
    ref_init(&i->ref);
    mutex_init(&i->dir_mu, LOCK_RANK_INODE_DIR);
    mutex_init(&i->mu, LOCK_RANK_INODE);
    i->mode = mode;
    i->nlink = 1;
    i->atime = i->mtime = i->ctime = i->btime = vfs_now();
    list_init(&i->locks);
    OBJCOUNT_INC(inode);
    return 0;
}

void inode_fini(struct inode *i)
{
    if (i->fifo != NULL && special_ops != NULL)
        special_ops->release_fifo(i);
    mutex_destroy(&i->dir_mu);
    mutex_destroy(&i->mu);
    super_put(i->sb);
    OBJCOUNT_DEC(inode);
}

struct inode *inode_get(struct inode *i)
{
    ref_get(&i->ref);
    return i;
}

void inode_put(struct inode *i)
{
    if (i != NULL && ref_put(&i->ref))
        i->ops->release(i);
}

void vfs_init_owner(const struct inode *dir, const struct vfs_caller *c, uint32_t *mode,
                    uint32_t *out_uid, uint32_t *out_gid)
{
    *out_uid = c->cred->fsuid;
    *out_gid = c->cred->fsgid;
    if ((dir->mode & S_ISGID) == 0)
        return;
    *out_gid = dir->gid;
    if (S_ISDIR(*mode))
        *mode |= S_ISGID;
    else if ((*mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
             !cred_in_group(c->cred, dir->gid) &&
             !cred_file_capable(c->cred, dir->uid, dir->gid, 4 /* CAP_FSETID */))
        *mode &= ~(uint32_t)S_ISGID;
}

/* ---- supers ---- */

void super_init(struct super *sb, const struct super_ops *ops, const struct fs_ops *fs)
{
    sb->ops = ops;
    sb->fs = fs;
    sb->dev = vfs_new_dev();
    ref_init(&sb->ref);
}

int super_set_root(struct super *sb, struct inode *root)
{
    return dentry_new(sb, root, NULL, "/", 1, &sb->root);
}

struct super *super_get(struct super *sb)
{
    ref_get(&sb->ref);
    return sb;
}

void super_put(struct super *sb)
{
    if (ref_put(&sb->ref))
        sb->ops->destroy(sb);
}

/* ---- places ---- */

void vpath_get(const struct vpath *p)
{
    ref_get(&p->mnt->ref);
    (void)dentry_get(p->dentry);
}
