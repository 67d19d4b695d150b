/* Changes of a directory's entries. dir_mu is held (both, for rename). The host is changed first;
 * then what we know of the inodes concerned. */
#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sentry/fs/goferfs/goferfs_priv.h"

/* times and link count of a directory whose entries changed. nlink: subdirectories gained. */
static void dir_touch(struct inode *dir, int nlink)
{
    goferfs_dir_changed(dir);
    mutex_lock(&dir->mu);
    dir->mtime = dir->ctime = vfs_now();
    dir->nlink += (uint32_t)nlink;
    mutex_unlock(&dir->mu);
}

static void victim_unlinked(struct inode *i)
{
    mutex_lock(&i->mu);
    if (S_ISDIR(i->mode))
        i->nlink = 0;
    else if (i->nlink)
        i->nlink--;
    i->ctime = vfs_now();
    mutex_unlock(&i->mu);
}

int goferfs_create(struct inode *dir, const char *name, uint32_t mode, uint64_t rdev,
                   const struct vfs_caller *c, struct inode **out)
{
    struct goferfs_super *gs = goferfs_super(dir->sb);
    struct gof_node n;
    struct inode *made;
    uint32_t uid, gid;
    int fd = -1, tries = 0, r;

    vfs_init_owner(dir, c, &mode, &uid, &gid);
    do
        r = gof_create(gs->client, goferfs_inode(dir)->handle, name, mode, rdev, uid, gid, &n, &fd);
    while (goferfs_make_room(gs, r, &tries));
    if (r)
        return r;
    dir_touch(dir, S_ISDIR(mode) ? 1 : 0);
    r = goferfs_inode_of(gs, &n, &made);
    if (r) {
        if (fd >= 0)
            close(fd);
        return r;
    }
    /* Who creates a file opens it next: no second request for that. */
    if (fd >= 0)
        goferfs_fd_adopt(goferfs_inode(made), fd);
    *out = made;
    return 0;
}

int goferfs_tmpfile(struct inode *dir, uint32_t mode, const struct vfs_caller *c,
                    struct inode **out)
{
    struct goferfs_super *gs = goferfs_super(dir->sb);
    struct gof_node n;
    struct inode *made;
    uint32_t uid, gid;
    int fd, tries = 0, r;

    vfs_init_owner(dir, c, &mode, &uid, &gid);
    do
        r = gof_tmpfile(gs->client, goferfs_inode(dir)->handle, mode, uid, gid, &n, &fd);
    while (goferfs_make_room(gs, r, &tries));
    if (r)
        return r;
    r = goferfs_inode_of(gs, &n, &made);
    if (r) {
        close(fd);
        return r;
    }
    goferfs_fd_adopt(goferfs_inode(made), fd);
    *out = made;
    return 0;
}

int goferfs_symlink(struct inode *dir, const char *name, const char *target,
                    const struct vfs_caller *c, struct inode **out)
{
    struct goferfs_super *gs = goferfs_super(dir->sb);
    uint32_t mode = S_IFLNK | 0777, uid, gid;
    struct gof_node n;

    vfs_init_owner(dir, c, &mode, &uid, &gid);
    int r = gof_symlink(gs->client, goferfs_inode(dir)->handle, name, target, uid, gid, &n);
    if (r)
        return r;
    dir_touch(dir, 0);
    return goferfs_inode_of(gs, &n, out);
}

int goferfs_link(struct inode *dir, const char *name, struct inode *target)
{
    struct gof_attr a;

    if (target->sb != dir->sb)
        return -EXDEV;
    int r = gof_link(goferfs_client(dir), goferfs_inode(dir)->handle, name,
                     goferfs_inode(target)->handle, &a);

    if (r)
        return r;
    dir_touch(dir, 0);
    mutex_lock(&target->mu);
    target->nlink = a.nlink;
    target->ctime = (struct vfs_time){a.ctime.sec, a.ctime.nsec};
    mutex_unlock(&target->mu);
    return 0;
}

int goferfs_unlink(struct inode *dir, const char *name, struct inode *victim)
{
    int r = gof_unlink(goferfs_client(dir), goferfs_inode(dir)->handle, name, false);

    if (r)
        return r;
    dir_touch(dir, 0);
    victim_unlinked(victim);
    return 0;
}

int goferfs_rmdir(struct inode *dir, const char *name, struct inode *victim)
{
    int r = gof_unlink(goferfs_client(dir), goferfs_inode(dir)->handle, name, true);

    if (r)
        return r;
    dir_touch(dir, -1);
    victim_unlinked(victim);
    return 0;
}

int goferfs_rename(struct inode *old_dir, const char *old_name, struct inode *new_dir,
                   const char *new_name, struct inode *victim, struct inode *target, unsigned flags)
{
    if (old_dir->sb != new_dir->sb)
        return -EXDEV;
    int r = gof_rename(goferfs_client(old_dir), goferfs_inode(old_dir)->handle, old_name,
                       goferfs_inode(new_dir)->handle, new_name, flags);

    if (r)
        return r;
    bool exchange = flags & RENAME_EXCHANGE;
    int moved = S_ISDIR(victim->mode) ? 1 : 0;
    int replaced = target && S_ISDIR(target->mode) ? 1 : 0;
    /* An exchange moves the target the other way; otherwise it is gone. */
    dir_touch(old_dir, (exchange ? replaced : 0) - moved);
    dir_touch(new_dir, moved - replaced);
    mutex_lock(&victim->mu);
    victim->ctime = vfs_now();
    mutex_unlock(&victim->mu);
    if (target && !exchange)
        victim_unlinked(target);
    return 0;
}
