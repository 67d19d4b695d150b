/* Inodes: one per file of the host, however many names it has, so that its bytes, size and locks
 * are one thing to the guest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "base/objcount.h"
#include "sentry/fs/goferfs/goferfs_priv.h"

/* A deleted file below this size may take room on the host until the next request. */
#define LINGER_MAX (64u << 10)

OBJCOUNT_DEFINE(goferfs_inode);

static struct vfs_time time_of(const struct gof_time *t)
{
    return (struct vfs_time){.sec = t->sec, .nsec = t->nsec};
}

static void update_locked(struct inode *i, const struct gof_attr *a)
{
    /* The type is the inode's for life, whatever the gofer says now. */
    i->mode = (i->mode & S_IFMT) | (a->mode & 07777);
    i->uid = a->uid;
    i->gid = a->gid;
    i->nlink = a->nlink;
    i->size = a->size;
    i->blocks = a->blocks;
    i->atime = time_of(&a->atime);
    i->mtime = time_of(&a->mtime);
    i->ctime = time_of(&a->ctime);
    i->btime = time_of(&a->btime);
}

void goferfs_update(struct inode *i, const struct gof_attr *a)
{
    mutex_lock(&i->mu);
    bool changed = i->ctime.sec != a->ctime.sec || i->ctime.nsec != a->ctime.nsec;
    update_locked(i, a);
    mutex_unlock(&i->mu);
    if (changed && goferfs_super(i->sb)->shared)
        vfs_acl_forget(i);
}

void goferfs_update_walked(struct inode *i, const struct gof_attr *a)
{
    goferfs_update(i, a);
    atomic_store_explicit(&goferfs_inode(i)->walk, vfs_walk_id(), memory_order_relaxed);
}

static struct vfs_time time_of_host(const struct timespec *t)
{
    return (struct vfs_time){.sec = t->tv_sec, .nsec = (uint32_t)t->tv_nsec};
}

void goferfs_update_fd(struct inode *i, int fd)
{
    struct stat st;

    mutex_lock(&i->mu);
    /* Under the lock, so that a writer's newer size is not overwritten by an older one. */
    if (fstat(fd, &st) == 0 && st.st_size >= 0) {
        i->mode = (i->mode & S_IFMT) | (st.st_mode & 07777);
        /* Owners are not taken: this process' user namespace does not know the host's ids. */
        i->nlink = (uint32_t)st.st_nlink;
        i->size = (uint64_t)st.st_size;
        i->blocks = (uint64_t)st.st_blocks;
        i->atime = time_of_host(&st.st_atim);
        i->mtime = time_of_host(&st.st_mtim);
        i->ctime = time_of_host(&st.st_ctim);
    }
    mutex_unlock(&i->mu);
}

static struct hlist *bucket(struct goferfs_super *gs, uint64_t dev, uint64_t ino)
{
    return &gs->inodes[hash_seeded_u64(dev, ino) % GOFERFS_BUCKETS];
}

/* Owned, or NULL. A number the host has given to a file of another type means another file. */
static struct goferfs_inode *find_locked(struct goferfs_super *gs, const struct gof_attr *a)
{
    struct goferfs_inode *gi;

    hlist_for_each_entry(gi, bucket(gs, a->dev, a->ino), hash)
    {
        if (gi->inode.ino == a->ino && gi->host_dev == a->dev &&
            (gi->inode.mode & S_IFMT) == (a->mode & S_IFMT) && ref_tryget(&gi->inode.ref))
            return gi;
    }
    return NULL;
}

struct goferfs_inode *goferfs_inode_find(struct goferfs_super *gs, uint64_t dev, uint64_t ino)
{
    struct goferfs_inode *gi, *found = NULL;

    mutex_lock(&gs->mu);
    hlist_for_each_entry(gi, bucket(gs, dev, ino), hash) if (gi->inode.ino == ino &&
                                                             gi->host_dev == dev &&
                                                             ref_tryget(&gi->inode.ref))
    {
        found = gi;
        break;
    }
    mutex_unlock(&gs->mu);
    return found;
}

/* A number of the sandbox for each file system of the host, so that equal inode numbers stay apart.
 */
static uint64_t dev_of_locked(struct goferfs_super *gs, uint64_t host)
{
    if (host == gs->root_dev)
        return gs->sb.dev;
    for (size_t i = 0; i < gs->dev_count; i++)
        if (gs->devs[i].host == host)
            return gs->devs[i].dev;
    if (gs->dev_count == GOFERFS_DEVS)
        return gs->sb.dev;
    gs->devs[gs->dev_count].host = host;
    gs->devs[gs->dev_count].dev = vfs_new_dev();
    return gs->devs[gs->dev_count++].dev;
}

static int inode_new(struct goferfs_super *gs, const struct gof_node *n, struct goferfs_inode **out)
{
    struct goferfs_inode *gi = calloc(1, sizeof(*gi));

    if (!gi)
        return -ENOMEM;
    int r = inode_init(&gi->inode, &goferfs_inode_ops, &gs->sb, n->attr.ino, n->attr.mode);
    if (r) {
        free(gi);
        return r;
    }
    OBJCOUNT_INC(goferfs_inode);
    gi->inode.rdev = n->attr.rdev;
    update_locked(&gi->inode, &n->attr);
    mappable_init(&gi->map, &goferfs_mappable_ops);
    mutex_init(&gi->rw_mu, LOCK_RANK_INODE_RW);
    mutex_init(&gi->data_mu, LOCK_RANK_INODE_DATA);
    list_init(&gi->idle);
    gi->handle = n->handle;
    gi->host_dev = n->attr.dev;
    gi->rd_fd = -1;
    gi->rw_fd = -1;
    *out = gi;
    return 0;
}

int goferfs_inode_of(struct goferfs_super *gs, const struct gof_node *n, struct inode **out)
{
    struct goferfs_inode *gi, *made = NULL;

    mutex_lock(&gs->mu);
    gi = find_locked(gs, &n->attr);
    mutex_unlock(&gs->mu);
    if (!gi) {
        int r = inode_new(gs, n, &made);
        if (r) {
            gof_close(gs->client, n->handle);
            return r;
        }
        mutex_lock(&gs->mu);
        gi = find_locked(gs, &n->attr);
        if (!gi) {
            gi = made;
            gi->dev = dev_of_locked(gs, n->attr.dev);
            hlist_add(&gi->hash, bucket(gs, n->attr.dev, n->attr.ino));
        }
        mutex_unlock(&gs->mu);
        if (gi != made)
            inode_put(&made->inode);
    } else {
        gof_close(gs->client, n->handle);
    }
    /* What an exclusive inode knows is newer than an answer that was on its way. */
    if (gs->shared)
        goferfs_update_walked(&gi->inode, &n->attr);
    *out = &gi->inode;
    return 0;
}

static int lookup(struct inode *dir, const char *name, struct inode **out)
{
    struct goferfs_super *gs = goferfs_super(dir->sb);
    struct gof_node n;
    size_t done;
    int why, tries = 0;

    if (!goferfs_ahead_take(dir, name, &n) && !goferfs_look_along(dir, name, &n)) {
        int r;
        do
            r = gof_walk(gs->client, goferfs_inode(dir)->handle, &name, 1, &n, &done, &why);
        while (goferfs_make_room(gs, r == 0 && done == 0 ? why : r, &tries));
        if (r)
            return r;
        if (done == 0)
            return why;
    } else if (n.handle == 0) {
        return -ENOENT;
    }
    return goferfs_inode_of(gs, &n, out);
}

/* The text of a symlink never changes: it is asked for once. */
static int64_t readlink_op(struct inode *i, const struct vfs_caller *c, char *buf, size_t size)
{
    struct goferfs_inode *gi = goferfs_inode(i);
    int64_t len = -1;

    (void)c;
    mutex_lock(&gi->data_mu);
    if (gi->link && strlen(gi->link) < size) {
        len = (int64_t)strlen(gi->link);
        memcpy(buf, gi->link, (size_t)len + 1);
    }
    mutex_unlock(&gi->data_mu);
    if (len >= 0)
        return len;
    len = gof_readlink(goferfs_client(i), gi->handle, buf, size);
    char *copy = len > 0 ? strdup(buf) : NULL;
    mutex_lock(&gi->data_mu);
    if (!gi->link) {
        gi->link = copy;
        copy = NULL;
    }
    mutex_unlock(&gi->data_mu);
    free(copy);
    return len;
}

/* The walk that the thread is in came by the attributes. */
static bool walked(const struct goferfs_inode *gi)
{
    uint64_t walk = vfs_walk_id();

    return walk && atomic_load_explicit(&gi->walk, memory_order_relaxed) == walk;
}

/* Makes the inode's attributes current. Exclusive: they are, but for what writes through host
 * descriptors and mappings change. */
static int refresh(struct inode *i)
{
    struct goferfs_super *gs = goferfs_super(i->sb);
    struct goferfs_inode *gi = goferfs_inode(i);
    struct gof_attr a;

    mutex_lock(&gi->data_mu);
    int fd = gi->rw_fd >= 0 ? gi->rw_fd : gs->shared ? gi->rd_fd : -1;
    if (fd >= 0)
        gi->users++;
    mutex_unlock(&gi->data_mu);
    if (fd >= 0) {
        goferfs_update_fd(i, fd);
        goferfs_fd_put(gi);
        return 0;
    }
    if (!gs->shared || walked(gi))
        return 0;
    int r = gof_stat(gs->client, gi->handle, &a);
    if (r == 0)
        goferfs_update(i, &a);
    return r;
}

static int getattr(struct inode *i, struct vfs_attr *out)
{
    int r = refresh(i);

    if (r)
        return r;
    mutex_lock(&i->mu);
    *out = (struct vfs_attr){
        .ino = i->ino,
        .size = i->size,
        .blocks = i->blocks,
        .dev = goferfs_inode(i)->dev,
        .rdev = i->rdev,
        .mode = i->mode,
        .nlink = i->nlink,
        .uid = i->uid,
        .gid = i->gid,
        .blksize = PAGE_SIZE,
        .atime = i->atime,
        .mtime = i->mtime,
        .ctime = i->ctime,
        .btime = i->btime,
    };
    mutex_unlock(&i->mu);
    return 0;
}

static int64_t getxattr_op(struct inode *i, const char *name, void *buf, size_t size)
{
    return gof_getxattr(goferfs_client(i), goferfs_inode(i)->handle, name, buf, size);
}

static int setxattr_op(struct inode *i, const char *name, const void *buf, size_t size, int flags)
{
    struct goferfs_inode *gi = goferfs_inode(i);

    mutex_lock(&gi->rw_mu);
    int r = gof_setxattr(goferfs_client(i), gi->handle, name, buf, size, flags);
    goferfs_own_change_ask(i);
    mutex_unlock(&gi->rw_mu);
    return r;
}

static int64_t listxattr_op(struct inode *i, char *buf, size_t size)
{
    return gof_listxattr(goferfs_client(i), goferfs_inode(i)->handle, buf, size);
}

static int removexattr_op(struct inode *i, const char *name)
{
    struct goferfs_inode *gi = goferfs_inode(i);

    mutex_lock(&gi->rw_mu);
    int r = gof_removexattr(goferfs_client(i), gi->handle, name);
    goferfs_own_change_ask(i);
    mutex_unlock(&gi->rw_mu);
    return r;
}

static int connect_op(struct inode *i, int type, int *out_fd)
{
    return gof_connect(goferfs_client(i), goferfs_inode(i)->handle, type, out_fd);
}

static void release(struct inode *i)
{
    struct goferfs_super *gs = goferfs_super(i->sb);
    struct goferfs_inode *gi = goferfs_inode(i);
    const bool large = S_ISREG(i->mode) && i->nlink == 0 && i->size >= LINGER_MAX;

    mutex_lock(&gs->mu);
    hlist_del(&gi->hash);
    goferfs_watch_departs_locked(gs, gi);
    mutex_unlock(&gs->mu);
    goferfs_watch_release(gi);
    goferfs_fd_release(gi);
    if (gi->list)
        goferfs_list_put(gi->list);
    gof_close(gs->client, gi->handle);
    if (large)
        gof_flush(gs->client);
    mappable_fini(&gi->map);
    mutex_destroy(&gi->rw_mu);
    mutex_destroy(&gi->data_mu);
    free(gi->map_path);
    free(gi->link);
    OBJCOUNT_DEC(goferfs_inode);
    /* Last: it may drop the last reference to the super. */
    inode_fini(i);
    free(gi);
}

const struct inode_ops goferfs_inode_ops = {
    .lookup = lookup,
    .prefetch = goferfs_prefetch,
    .create = goferfs_create,
    .tmpfile = goferfs_tmpfile,
    .symlink = goferfs_symlink,
    .link = goferfs_link,
    .unlink = goferfs_unlink,
    .rmdir = goferfs_rmdir,
    .rename = goferfs_rename,
    .readlink = readlink_op,
    .getattr = getattr,
    .setattr = goferfs_setattr,
    .open = goferfs_open,
    .getxattr = getxattr_op,
    .setxattr = setxattr_op,
    .listxattr = listxattr_op,
    .removexattr = removexattr_op,
    .watch = goferfs_watch,
    .connect = connect_op,
    .open_fifo = goferfs_open_fifo,
    .release = release,
};
