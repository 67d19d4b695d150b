/* Mounting an export, and what belongs to the mount as a whole. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "sentry/fs/goferfs/goferfs_priv.h"

#define ROOM_TRIES 3
#define ROOM_NAMES 1024u

bool goferfs_make_room(struct goferfs_super *gs, int r, int *tries)
{
    if (LIKELY(r != -ENFILE) || (*tries)++ == ROOM_TRIES)
        return false;
    vfs_shrink_cache(ROOM_NAMES);
    gof_flush(gs->client);
    return true;
}

bool goferfs_make_space(struct goferfs_super *gs, int64_t r, bool *tried)
{
    if (LIKELY(r != -ENOSPC && r != -EDQUOT) || *tried)
        return false;
    *tried = true;
    gof_flush(gs->client);
    return true;
}

static int statfs_op(struct super *sb, struct vfs_statfs *out)
{
    struct goferfs_super *gs = goferfs_super(sb);
    struct gof_statfs s;
    int r = gof_statfs(gs->client, gs->root_handle, &s);

    if (r)
        return r;
    *out = (struct vfs_statfs){
        .type = s.type,
        .bsize = s.bsize,
        .blocks = s.blocks,
        .bfree = s.bfree,
        .bavail = s.bavail,
        .files = s.files,
        .ffree = s.ffree,
        .fsid = s.fsid,
        .namelen = MIN(s.namelen, (uint64_t)VFS_NAME_MAX),
        .frsize = s.frsize,
    };
    return 0;
}

static void destroy(struct super *sb)
{
    struct goferfs_super *gs = goferfs_super(sb);

    goferfs_ahead_drop(gs);
    gof_flush(gs->client);
    gof_client_put(gs->client);
    mutex_destroy(&gs->mu);
    free(gs->departed);
    free(gs);
}

static void show_options(struct super *sb, char *buf, size_t size)
{
    snprintf(buf, size, "%s", goferfs_super(sb)->shared ? "shared" : "exclusive");
}

/* Nothing was written to what is read-only. */
static int sync_op(struct super *sb)
{
    struct goferfs_super *gs = goferfs_super(sb);

    return sb->flags & MS_RDONLY ? 0 : gof_syncfs(gs->client, gs->root_handle);
}

/* A shared name is what it was when it still leads to the same file. */
static int revalidate(struct dentry *d, struct inode *dir, const char *name)
{
    struct goferfs_super *gs = goferfs_super(d->sb);
    struct gof_node n;
    size_t done;
    int why;

    if (!d->inode)
        return 0;
    if (goferfs_ahead_take(dir, name, &n)) {
        if (n.handle == 0)
            return 0;
    } else if (gof_walk(gs->client, goferfs_inode(dir)->handle, &name, 1, &n, &done, &why) ||
               done == 0) {
        return 0;
    }
    struct goferfs_inode *gi = goferfs_inode(d->inode);
    bool same = n.attr.ino == d->inode->ino && n.attr.dev == gi->host_dev &&
                (n.attr.mode & S_IFMT) == (d->inode->mode & S_IFMT);
    if (same)
        goferfs_update_walked(d->inode, &n.attr);
    gof_close(gs->client, n.handle);
    return same;
}

static const struct super_ops exclusive_ops = {
    .statfs = statfs_op,
    .sync = sync_op,
    .destroy = destroy,
    .show_options = show_options,
};

static const struct super_ops shared_ops = {
    .statfs = statfs_op,
    .sync = sync_op,
    .destroy = destroy,
    .show_options = show_options,
    .revalidate = revalidate,
};

static void super_setup(struct goferfs_super *gs, struct gof_client *client, bool exclusive,
                        const char *source)
{
    gs->client = gof_client_get(client);
    gs->shared = !exclusive;
    super_init(&gs->sb, exclusive ? &exclusive_ops : &shared_ops, &goferfs_fs_ops);
    snprintf(gs->sb.source, sizeof(gs->sb.source), "%s", source);
    mutex_init(&gs->mu, LOCK_RANK_LEAF);
    list_init(&gs->idle);
}

int goferfs_mount(struct gof_client *client, uint32_t export_id, bool exclusive, const char *source,
                  struct super **out_super)
{
    struct goferfs_super *gs = calloc(1, sizeof(*gs));
    struct gof_node n;
    struct inode *root;
    bool readonly;

    if (!gs)
        return -ENOMEM;
    super_setup(gs, client, exclusive, source ? source : "none");
    int r = gof_attach(gs->client, export_id, &readonly, &n);
    if (r)
        goto out_super;
    if (readonly)
        gs->sb.flags |= MS_RDONLY;
    gs->root_dev = n.attr.dev;
    gs->root_handle = n.handle;
    r = goferfs_inode_of(gs, &n, &root);
    if (r)
        goto out_super;
    r = super_set_root(&gs->sb, root);
    if (r)
        goto out_super;
    *out_super = &gs->sb;
    return 0;

out_super:
    super_put(&gs->sb);
    return r;
}

static int mount_op(const struct fs_ops *fs, void *boot_arg, const char *source,
                    const char *options, const struct vfs_caller *c, struct super **out_super)
{
    (void)fs, (void)boot_arg, (void)source, (void)options, (void)c, (void)out_super;
    return -EPERM;
}

const struct fs_ops goferfs_fs_ops = {.name = "goferfs", .mount = mount_op};
