/* Host descriptors of regular files: opened when first needed, shared by all who have the file
 * open, and kept a while after that, since what was opened once is opened again. */
#include <unistd.h>

#include "sentry/fs/goferfs/goferfs_priv.h"
#include "sentry/vfs/notify.h"

static void idle_del(struct goferfs_super *gs, struct goferfs_inode *gi)
{
    mutex_lock(&gs->mu);
    if (!list_empty(&gi->idle)) {
        list_del(&gi->idle);
        gs->idle_count--;
    }
    mutex_unlock(&gs->mu);
}

/* The longest idle inode, when there are too many. Owned result, or NULL. */
static struct goferfs_inode *idle_add(struct goferfs_super *gs, struct goferfs_inode *gi)
{
    struct goferfs_inode *old = NULL;

    mutex_lock(&gs->mu);
    if (list_empty(&gi->idle)) {
        list_add_tail(&gi->idle, &gs->idle);
        gs->idle_count++;
    }
    if (gs->idle_count > GOFERFS_IDLE_MAX) {
        old = list_first_entry(&gs->idle, struct goferfs_inode, idle);
        list_del(&old->idle);
        gs->idle_count--;
        /* On its way out: it closes its descriptors itself. */
        if (!ref_tryget(&old->inode.ref))
            old = NULL;
    }
    mutex_unlock(&gs->mu);
    return old;
}

static void close_fds_locked(struct goferfs_inode *gi)
{
    mutex_assert_held(&gi->data_mu);
    if (gi->rd_fd >= 0)
        close(gi->rd_fd);
    if (gi->rw_fd >= 0) {
        goferfs_own_close_locked(gi);
        close(gi->rw_fd);
    }
    gi->rd_fd = -1;
    gi->rw_fd = -1;
}

static void evict(struct goferfs_inode *gi)
{
    mutex_lock(&gi->data_mu);
    int fd = gi->rw_fd;
    gi->users++;
    mutex_unlock(&gi->data_mu);
    /* The host's times are truer than ours. */
    if (fd >= 0)
        goferfs_update_fd(&gi->inode, fd);
    mutex_lock(&gi->data_mu);
    if (--gi->users == 0)
        close_fds_locked(gi);
    mutex_unlock(&gi->data_mu);
    inode_put(&gi->inode);
}

void goferfs_fds_retire(struct goferfs_super *gs)
{
    struct goferfs_inode *gi;

    do {
        gi = NULL;
        mutex_lock(&gs->mu);
        while (!gi && !list_empty(&gs->idle)) {
            gi = list_first_entry(&gs->idle, struct goferfs_inode, idle);
            list_del(&gi->idle);
            gs->idle_count--;
            /* On its way out: it closes its descriptors itself. */
            if (!ref_tryget(&gi->inode.ref))
                gi = NULL;
        }
        mutex_unlock(&gs->mu);
        if (gi)
            evict(gi);
    } while (gi);
}

int goferfs_fd_get(struct goferfs_inode *gi, bool write, int *out_fd)
{
    struct goferfs_super *gs = goferfs_super(gi->inode.sb);
    int r = 0;

    mutex_lock(&gi->data_mu);
    int *slot = write ? &gi->rw_fd : &gi->rd_fd;
    /* What is open for both serves readers too. */
    if (!write && *slot < 0 && gi->rw_fd >= 0)
        slot = &gi->rw_fd;
    if (*slot < 0)
        r = gof_open(gs->client, gi->handle, write, slot);
    if (r == 0) {
        *out_fd = *slot;
        if (gi->users++ == 0)
            idle_del(gs, gi);
    }
    mutex_unlock(&gi->data_mu);
    return r;
}

void goferfs_fd_hold(struct goferfs_inode *gi)
{
    mutex_lock(&gi->data_mu);
    gi->users++;
    mutex_unlock(&gi->data_mu);
}

void goferfs_fd_put(struct goferfs_inode *gi)
{
    struct goferfs_inode *old = NULL;
    bool gone = false;

    mutex_lock(&gi->data_mu);
    BUG_ON(gi->users == 0);
    if (--gi->users == 0) {
        gone = gi->nameless;
        if (goferfs_closes_early(gi))
            close_fds_locked(gi);
        else
            old = idle_add(goferfs_super(gi->inode.sb), gi);
    }
    mutex_unlock(&gi->data_mu);
    if (old)
        evict(old);
    if (UNLIKELY(gone))
        notify_gone(&gi->inode);
}

void goferfs_fd_adopt(struct goferfs_inode *gi, int fd)
{
    struct goferfs_inode *old = NULL;

    mutex_lock(&gi->data_mu);
    if (gi->rw_fd < 0) {
        gi->rw_fd = fd;
        fd = -1;
        if (gi->users == 0)
            old = idle_add(goferfs_super(gi->inode.sb), gi);
    }
    mutex_unlock(&gi->data_mu);
    if (fd >= 0)
        close(fd);
    if (old)
        evict(old);
}

void goferfs_fd_release(struct goferfs_inode *gi)
{
    idle_del(goferfs_super(gi->inode.sb), gi);
    mutex_lock(&gi->data_mu);
    close_fds_locked(gi);
    mutex_unlock(&gi->data_mu);
}
