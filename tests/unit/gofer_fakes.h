/* What goferfs needs of vfs and mm, as little as does for its tests: they call its ops themselves.
 * Depends on: sentry/vfs.
 * Threading: the test's.
 * Ownership: as the real functions say. */
#ifndef RINGWALL_TESTS_UNIT_GOFER_FAKES_H
#define RINGWALL_TESTS_UNIT_GOFER_FAKES_H

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "sentry/vfs/special.h"
#include "sentry/vfs/notify.h"
#include "sentry/vfs/vfs.h"

const struct vfs_special_ops *vfs_special(void)
{
    return NULL;
}

struct vfs_time vfs_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return (struct vfs_time){t.tv_sec, (uint32_t)t.tv_nsec};
}

/* There is no cache. */
void vfs_shrink_cache(unsigned count)
{
    (void)count;
}

int64_t vfs_seek_endless(struct file *f, int64_t off, int whence)
{
    (void)f, (void)off, (void)whence;
    return -EINVAL;
}

uint64_t vfs_new_dev(void)
{
    static _Atomic uint64_t next = 100;

    return atomic_fetch_add(&next, 1);
}

void super_init(struct super *sb, const struct super_ops *ops, const struct fs_ops *fs)
{
    sb->ops = ops;
    sb->fs = fs;
    sb->dev = vfs_new_dev();
    ref_init(&sb->ref);
}

struct super *super_get(struct super *sb)
{
    ref_get(&sb->ref);
    return sb;
}

/* The root inode holds its super: the tests take it away by hand (fake_unmount). */
void super_put(struct super *sb)
{
    if (ref_put(&sb->ref))
        sb->ops->destroy(sb);
}

int super_set_root(struct super *sb, struct inode *root)
{
    struct dentry *d = calloc(1, sizeof(*d));

    if (!d)
        return -ENOMEM;
    *d = (struct dentry){.sb = sb, .inode = root, .parent = d};
    ref_init(&d->ref);
    sb->root = d;
    return 0;
}

static inline void fake_unmount(struct super *sb)
{
    struct dentry *d = sb->root;

    inode_put(d->inode);
    free(d);
    super_put(sb);
}

int inode_init(struct inode *i, const struct inode_ops *ops, struct super *sb, uint64_t ino,
               uint32_t mode)
{
    i->ops = ops;
    i->sb = super_get(sb);
    i->ino = ino;
    i->mode = mode;
    i->nlink = 1;
    ref_init(&i->ref);
    mutex_init(&i->dir_mu, LOCK_RANK_INODE_DIR);
    mutex_init(&i->mu, LOCK_RANK_INODE);
    list_init(&i->locks);
    return 0;
}

void inode_fini(struct inode *i)
{
    mutex_destroy(&i->mu);
    mutex_destroy(&i->dir_mu);
    super_put(i->sb);
}

struct inode *inode_get(struct inode *i)
{
    ref_get(&i->ref);
    return i;
}

void inode_put(struct inode *i)
{
    if (ref_put(&i->ref))
        i->ops->release(i);
}

void vfs_init_owner(const struct inode *dir, const struct vfs_caller *c, uint32_t *mode,
                    uint32_t *out_uid, uint32_t *out_gid)
{
    bool inherit = dir->mode & S_ISGID;

    *out_uid = c->cred->fsuid;
    *out_gid = inherit ? dir->gid : c->cred->fsgid;
    if (inherit && S_ISDIR(*mode))
        *mode |= S_ISGID;
}

int64_t vfs_path_text(const struct vpath *root, const struct vpath *p, char *buf, size_t size)
{
    (void)root, (void)p;
    return snprintf(buf, size, "/mapped") + 1;
}

uint64_t vfs_walk_id(void)
{
    return 0;
}

void vfs_acl_forget(struct inode *i)
{
    (void)i;
}

/* Nobody watches. */
bool notify_watched(const struct inode *i)
{
    (void)i;
    return false;
}

void notify_foreign(struct inode *i, uint32_t mask, uint32_t cookie, const char *name)
{
    (void)i, (void)mask, (void)cookie, (void)name;
}

void notify_lost(void)
{
}

void notify_gone(struct inode *i)
{
    (void)i;
}

void mappable_init(struct mappable *m, const struct mappable_ops *ops)
{
    m->ops = ops;
    list_init(&m->mappings);
}

void mappable_fini(struct mappable *m)
{
    cr_assert(list_empty(&m->mappings));
}

/* What was last taken out of address spaces, or UINT64_MAX. */
static uint64_t fake_invalidated = UINT64_MAX;

void mappable_truncate(struct mappable *m, uint64_t size)
{
    (void)m;
    fake_invalidated = ALIGN_UP(size, PAGE_SIZE);
}

void mappable_invalidate(struct mappable *m, uint64_t off, uint64_t size)
{
    (void)m, (void)size;
    fake_invalidated = off;
}

void uio_init_kernel(struct uio *u, void *buf, size_t size)
{
    memset(u, 0, sizeof(*u));
    u->inline_seg = (struct uio_seg){(uint64_t)(uintptr_t)buf, size};
    u->segs = &u->inline_seg;
    u->seg_count = 1;
    u->left = size;
}

int64_t uio_host_io(struct uio *u, bool write, uint64_t max, uio_host_fn fn, void *arg)
{
    struct iovec v = {(void *)(uintptr_t)(u->segs[0].base + u->seg_off), MIN(max, u->left)};

    (void)write;
    int64_t n = fn(arg, &v, 1, 0);
    if (n > 0) {
        u->seg_off += (uint64_t)n;
        u->left -= (uint64_t)n;
    }
    return n;
}

#endif
