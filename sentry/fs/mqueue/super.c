/* The file system of a namespace's queues, its root directory, and opening by name. */
#include <stdio.h>

#include "sentry/fs/mqueue/mqueue_priv.h"

#define MQUEUE_MAGIC 0x19800202u

static int mqueue_statfs(struct super *sb, struct vfs_statfs *out)
{
    (void)sb;
    out->type = MQUEUE_MAGIC;
    out->bsize = PAGE_SIZE;
    out->namelen = VFS_NAME_MAX;
    return 0;
}

static void mqueue_destroy(struct super *sb)
{
    struct mqueue_super *s = mqueue_super_of(sb);

    BUG_ON(!list_empty(&s->queues));
    mutex_destroy(&s->mu);
    ipc_ns_drop_memory(s->ns);
    free(s);
}

static const struct super_ops mqueue_super_ops = {
    .statfs = mqueue_statfs,
    .destroy = mqueue_destroy,
};

static int mqueue_super_new(struct ipc_ns *ns, struct super **out)
{
    struct mqueue_super *s = calloc(1, sizeof(*s));
    struct mqueue *root;

    if (s == NULL)
        return -ENOMEM;
    super_init(&s->sb, &mqueue_super_ops, &mqueue_fs_ops);
    s->sb.dev = vfs_new_dev();
    (void)snprintf(s->sb.source, sizeof(s->sb.source), "mqueue");
    s->ns = ipc_ns_hold_memory(ns);
    s->next_ino = 2;
    mutex_init(&s->mu, LOCK_RANK_LEAF);
    list_init(&s->queues);
    int r = mqueue_inode_new(s, S_IFDIR | S_ISVTX | 0777, &root);
    if (r == 0) {
        root->inode.nlink = 2;
        r = super_set_root(&s->sb, &root->inode);
    }
    if (r != 0) {
        super_put(&s->sb);
        return r;
    }
    *out = &s->sb;
    return 0;
}

/* The place where mq_open looks names up: nobody else's. */
static int mqueue_make(struct ipc_ns *ns, struct mount_ns **out)
{
    struct super *sb;
    int r = mqueue_super_new(ns, &sb);

    if (r != 0)
        return r;
    r = mount_ns_new(sb, out);
    if (r != 0)
        super_put(sb);
    else
        mqueue_super_of(sb)->own = *out;
    return r;
}

static int mqueue_root(struct ipc_ns *ns, struct mount_ns **out_ns, struct vpath *out)
{
    int r = ipc_ns_mqueue(ns, mqueue_make, out_ns);

    if (r == 0)
        mount_ns_root(*out_ns, out);
    return r;
}

static int mqueue_mount(const struct fs_ops *fs, void *boot_arg, const char *source,
                        const char *options, const struct vfs_caller *c, struct super **out)
{
    struct mount_ns *own;
    struct vpath root;
    int r = mqueue_root(boot_arg, &own, &root);

    (void)fs, (void)source, (void)options, (void)c;
    if (r != 0)
        return r;
    *out = super_get(root.dentry->sb);
    vpath_put(&root);
    return 0;
}

const struct fs_ops mqueue_fs_ops = {.name = "mqueue", .mount = mqueue_mount};

/* ---- by name ---- */

static int name_check(const char *name)
{
    if (name[0] == '\0')
        return -ENOENT;
    if (strlen(name) > VFS_NAME_MAX)
        return -ENAMETOOLONG;
    return strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ? -EACCES : 0;
}

static int caller_in_root(struct ipc_ns *ns, const struct vfs_caller *c, struct mqueue_caller *mc)
{
    mc->c = *c;
    mc->c.seen_users = NULL;
    int r = mqueue_root(ns, &mc->c.ns, &mc->c.root);
    mc->c.cwd = mc->c.root;
    return r;
}

int mqueue_open(struct ipc_ns *ns, const struct vfs_caller *c, const char *name, uint32_t flags,
                uint32_t mode, const struct mqueue_attr *attr, uint64_t rlimit,
                struct file **out_file)
{
    const uint32_t kept = O_ACCMODE | O_CREAT | O_EXCL | O_NONBLOCK;
    struct mqueue_caller mc = {.attr = attr, .rlimit = rlimit};
    int r = name_check(name);

    if (r == 0)
        r = caller_in_root(ns, c, &mc);
    if (r != 0)
        return r;
    if ((flags & O_ACCMODE) == O_ACCMODE)
        flags &= ~(uint32_t)O_CREAT; /* an error, but for a queue that is there */
    r = vfs_open(&mc.c, NULL, name, flags & kept, mode, 0, out_file);
    if (r == 0 && (flags & O_ACCMODE) == O_ACCMODE) {
        file_put(*out_file);
        r = -EINVAL;
    }
    vpath_put(&mc.c.root);
    return r;
}

int mqueue_unlink(struct ipc_ns *ns, const struct vfs_caller *c, const char *name)
{
    struct mqueue_caller mc = {.attr = NULL};
    int r = name_check(name);

    if (r == 0)
        r = caller_in_root(ns, c, &mc);
    if (r != 0)
        return r;
    r = vfs_unlink(&mc.c, NULL, name);
    vpath_put(&mc.c.root);
    return r;
}
