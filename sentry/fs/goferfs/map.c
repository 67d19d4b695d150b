/* Mapping regular files: the host file itself is mapped, so that its pages are shared with every
 * other process of the host that has them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/platform.h"
#include "sentry/fs/goferfs/goferfs_priv.h"

static struct goferfs_inode *inode_of(struct mappable *m)
{
    return container_of(m, struct goferfs_inode, map);
}

static int64_t map_size(struct goferfs_inode *gi, int fd)
{
    struct stat st;

    if (goferfs_super(gi->inode.sb)->shared)
        return fstat(fd, &st) ? -errno : (int64_t)st.st_size;
    mutex_lock(&gi->inode.mu);
    int64_t size = (int64_t)gi->inode.size;
    mutex_unlock(&gi->inode.mu);
    return size;
}

static int translate(struct mappable *m, uint64_t off, uint64_t size, unsigned access,
                     struct mappable_range *out)
{
    struct goferfs_inode *gi = inode_of(m);

    mutex_lock(&gi->data_mu);
    int fd = access & PLAT_WRITE || gi->rd_fd < 0 ? gi->rw_fd : gi->rd_fd;
    mutex_unlock(&gi->data_mu);
    if (fd < 0)
        return -EACCES;
    int64_t end = map_size(gi, fd);
    if (end < 0)
        return (int)end;
    uint64_t whole = ALIGN_UP((uint64_t)end, PAGE_SIZE);
    if (off >= whole)
        return -ERANGE;
    *out = (struct mappable_range){.fd = fd, .off = off, .size = MIN(size, whole - off)};
    return 0;
}

static int msync_op(struct mappable *m, uint64_t off, uint64_t size)
{
    struct goferfs_inode *gi = inode_of(m);

    (void)off, (void)size;
    mutex_lock(&gi->data_mu);
    int fd = gi->rw_fd;
    if (fd >= 0)
        gi->users++;
    mutex_unlock(&gi->data_mu);
    /* Nobody could write to it: nothing to write back. */
    if (fd < 0)
        return 0;
    int r = fdatasync(fd) ? -errno : 0;
    goferfs_fd_put(gi);
    return r;
}

static int punch(struct mappable *m, uint64_t off, uint64_t size)
{
    struct goferfs_inode *gi = inode_of(m);
    int r;

    mutex_lock(&gi->data_mu);
    int fd = gi->rw_fd;
    if (fd >= 0)
        gi->users++;
    mutex_unlock(&gi->data_mu);
    if (fd < 0)
        return -EACCES;
    do
        r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)size)
                ? -errno
                : 0;
    while (r == -EINTR);
    /* Without rw_mu, which ranks before what our caller holds: at worst it is told twice. */
    if (r == 0)
        goferfs_own_change_fd(&gi->inode, fd);
    goferfs_fd_put(gi);
    return r;
}

/* Every reference keeps the descriptors open: translate gives them out. */
static void get(struct mappable *m)
{
    struct goferfs_inode *gi = inode_of(m);

    inode_get(&gi->inode);
    goferfs_fd_hold(gi);
}

static void put(struct mappable *m)
{
    struct goferfs_inode *gi = inode_of(m);

    goferfs_fd_put(gi);
    inode_put(&gi->inode);
}

static void describe(struct mappable *m, uint64_t *out_dev, uint64_t *out_ino, char *path,
                     size_t size)
{
    struct goferfs_inode *gi = inode_of(m);

    *out_dev = gi->dev;
    *out_ino = gi->inode.ino;
    mutex_lock(&gi->data_mu);
    snprintf(path, size, "%s", gi->map_path ? gi->map_path : "");
    mutex_unlock(&gi->data_mu);
}

void goferfs_map_name(struct goferfs_inode *gi, struct file *f)
{
    mutex_lock(&gi->data_mu);
    bool known = gi->map_path;
    mutex_unlock(&gi->data_mu);
    if (known)
        return;
    const struct vpath root = {.mnt = f->path.mnt, .dentry = gi->inode.sb->root};
    char *text = malloc(VFS_PATH_MAX);
    if (!text || vfs_path_text(&root, &f->path, text, VFS_PATH_MAX) < 0) {
        free(text);
        return;
    }
    char *exact = strdup(text);
    free(text);
    mutex_lock(&gi->data_mu);
    if (!gi->map_path) {
        gi->map_path = exact;
        exact = NULL;
    }
    mutex_unlock(&gi->data_mu);
    free(exact);
}

const struct mappable_ops goferfs_mappable_ops = {
    .translate = translate,
    .msync = msync_op,
    .get = get,
    .put = put,
    .punch = punch,
    .describe = describe,
};
