/* Inodes of queues, and the one directory they are in. */
#include <linux/capability.h>
#include <stdio.h>

#include "base/ckd.h"
#include "sentry/fs/mqueue/mqueue_priv.h"

#define DIRENT_SIZE 20 /* what Linux counts per name */
#define FILE_SIZE 80   /* what a queue's file shows as its size */
/* HARD_MSGMAX and HARD_MSGSIZEMAX, for who has CAP_SYS_RESOURCE. */
#define HARD_MESSAGES 65536
#define HARD_MESSAGE_SIZE (16 * 1024 * 1024)
/* What Linux counts for a message's head and for a priority in use. */
#define HEAD_SIZE 48u
#define PRIO_SIZE 48u

OBJCOUNT_DEFINE(mqueue);

int mqueue_inode_new(struct mqueue_super *s, uint32_t mode, struct mqueue **out)
{
    struct mqueue *q = calloc(1, sizeof(*q));

    if (q == NULL)
        return -ENOMEM;
    int r =
        inode_init(&q->inode, &mqueue_inode_ops, &s->sb, atomic_fetch_add(&s->next_ino, 1), mode);
    if (r != 0) {
        free(q);
        return r;
    }
    list_init(&q->entries);
    q->next_pos = 2;
    list_init(&q->super_node);
    mutex_init(&q->mu, LOCK_RANK_MQUEUE);
    list_init(&q->senders);
    list_init(&q->receivers);
    waitq_init(&q->wq);
    OBJCOUNT_INC(mqueue);
    *out = q;
    return 0;
}

static void mqueue_release(struct inode *i)
{
    struct mqueue *q = mqueue_of(i);
    struct mqueue_super *s = mqueue_super_of(i->sb);

    while (!list_empty(&q->entries)) {
        struct mqueue_entry *e = list_first_entry(&q->entries, struct mqueue_entry, node);
        list_del(&e->node);
        inode_put(&e->q->inode);
        free(e);
    }
    mqueue_drop_messages(q);
    if (q->notify)
        q->notify->free(q->notify);
    mutex_lock(&s->mu);
    if (!list_empty(&q->super_node)) {
        list_del(&q->super_node);
        s->queue_count--;
    }
    mutex_unlock(&s->mu);
    waitq_fini(&q->wq);
    mutex_destroy(&q->mu);
    OBJCOUNT_DEC(mqueue);
    inode_fini(i);
    free(q);
}

/* ---- a queue's size ---- */

static int size_check(struct mqueue_super *s, const struct vfs_caller *c,
                      const struct mqueue_attr *attr, uint64_t *out_messages, uint64_t *out_size)
{
    const bool may = cred_capable(c->cred, CAP_SYS_RESOURCE);
    const uint64_t max = ipc_limit_get(s->ns, IPC_MQ_MSGMAX);
    const uint64_t max_size = ipc_limit_get(s->ns, IPC_MQ_SIZEMAX);

    if (attr == NULL) {
        *out_messages = MIN(max, ipc_limit_get(s->ns, IPC_MQ_MSGDEFAULT));
        *out_size = MIN(max_size, ipc_limit_get(s->ns, IPC_MQ_SIZEDEFAULT));
        return 0;
    }
    if (attr->max_messages <= 0 || attr->message_size <= 0 ||
        (uint64_t)attr->max_messages > (may ? HARD_MESSAGES : max) ||
        (uint64_t)attr->message_size > (may ? HARD_MESSAGE_SIZE : max_size))
        return -EINVAL;
    *out_messages = (uint64_t)attr->max_messages;
    *out_size = (uint64_t)attr->message_size;
    return 0;
}

static uint64_t user_bytes_locked(struct mqueue_super *s, uint32_t user)
{
    const struct mqueue *q;
    uint64_t n = 0;

    list_for_each_entry (q, &s->queues, super_node)
        if (q->user == user)
            n += q->charged;
    return n;
}

int mqueue_size(struct mqueue_super *s, struct mqueue *q, const struct vfs_caller *c,
                const struct mqueue_attr *attr, uint64_t rlimit)
{
    uint64_t messages, size;
    int r = size_check(s, c, attr, &messages, &size);

    if (r != 0)
        return r;
    q->max_messages = messages;
    q->message_size = size;
    q->user = c->cred->uid;
    q->charged = messages * (HEAD_SIZE + size) + MIN(messages, MQUEUE_PRIO_MAX) * PRIO_SIZE;
    mutex_lock(&s->mu);
    if (s->queue_count >= ipc_limit_get(s->ns, IPC_MQ_QUEUES) &&
        !cred_capable(c->cred, CAP_SYS_RESOURCE))
        r = -ENOSPC;
    else if (!range_ok(user_bytes_locked(s, q->user), q->charged, rlimit))
        r = -EMFILE;
    if (r == 0) {
        list_add_tail(&q->super_node, &s->queues);
        s->queue_count++;
    }
    mutex_unlock(&s->mu);
    return r;
}

/* ---- the directory; dir_mu held ---- */

static struct mqueue_entry *entry_find(struct mqueue *dir, const char *name)
{
    struct mqueue_entry *e;

    list_for_each_entry (e, &dir->entries, node)
        if (strcmp(e->name, name) == 0)
            return e;
    return NULL;
}

static void dir_touch(struct inode *dir, int delta)
{
    mutex_lock(&dir->mu);
    dir->size = (uint64_t)((int64_t)dir->size + delta * DIRENT_SIZE);
    dir->mtime = dir->ctime = vfs_now();
    mutex_unlock(&dir->mu);
}

static int mqueue_lookup(struct inode *dir, const char *name, struct inode **out)
{
    const struct mqueue_entry *e = entry_find(mqueue_of(dir), name);

    if (e == NULL)
        return -ENOENT;
    *out = inode_get(&e->q->inode);
    return 0;
}

/* The attributes that mq_open gave; open(2) of the file gives none. */
static const struct mqueue_caller *own_caller(struct mqueue_super *s, const struct vfs_caller *c)
{
    if (c->ns != s->own)
        return NULL;
    /* mqueue_open made it. */
    return (const struct mqueue_caller *)(const void *)c;
}

static int queue_make(struct inode *dir, const struct vfs_caller *c, uint32_t mode,
                      struct mqueue **out)
{
    struct mqueue_super *s = mqueue_super_of(dir->sb);
    const struct mqueue_caller *mc = own_caller(s, c);
    uint32_t uid, gid;

    vfs_init_owner(dir, c, &mode, &uid, &gid);
    int r = mqueue_inode_new(s, mode, out);
    if (r != 0)
        return r;
    (*out)->inode.uid = uid;
    (*out)->inode.gid = gid;
    (*out)->inode.size = FILE_SIZE;
    r = mqueue_size(s, *out, c, mc ? mc->attr : NULL, mc ? mc->rlimit : UINT64_MAX);
    if (r != 0)
        inode_put(&(*out)->inode);
    return r;
}

static int mqueue_create(struct inode *dir, const char *name, uint32_t mode, uint64_t rdev,
                         const struct vfs_caller *c, struct inode **out)
{
    struct mqueue *d = mqueue_of(dir);
    const size_t len = strlen(name) + 1;

    (void)rdev;
    if (!S_ISREG(mode))
        return -EPERM;
    struct mqueue_entry *e = calloc(1, sizeof(*e) + len);
    if (e == NULL)
        return -ENOMEM;
    int r = queue_make(dir, c, mode, &e->q);
    if (r != 0) {
        free(e);
        return r;
    }
    memcpy(e->name, name, len);
    e->pos = d->next_pos++;
    list_add_tail(&e->node, &d->entries);
    dir_touch(dir, 1);
    *out = inode_get(&e->q->inode);
    return 0;
}

static int mqueue_unlink_entry(struct inode *dir, const char *name, struct inode *victim)
{
    struct mqueue_entry *e = entry_find(mqueue_of(dir), name);

    if (e == NULL)
        return -ENOENT;
    list_del(&e->node);
    mutex_lock(&victim->mu);
    victim->nlink--;
    victim->ctime = vfs_now();
    mutex_unlock(&victim->mu);
    dir_touch(dir, -1);
    inode_put(&e->q->inode);
    free(e);
    return 0;
}

static int mqueue_setattr(struct inode *i, const struct vfs_setattr *a)
{
    struct vfs_time now = vfs_now();

    mutex_lock(&i->mu);
    if (a->valid & VFS_SET_MODE)
        i->mode = (i->mode & S_IFMT) | (a->mode & 07777);
    if (a->valid & VFS_SET_UID)
        i->uid = a->uid;
    if (a->valid & VFS_SET_GID)
        i->gid = a->gid;
    if (a->valid & (VFS_SET_ATIME | VFS_SET_ATIME_NOW))
        i->atime = a->valid & VFS_SET_ATIME ? a->atime : now;
    if (a->valid & (VFS_SET_MTIME | VFS_SET_MTIME_NOW))
        i->mtime = a->valid & VFS_SET_MTIME ? a->mtime : now;
    i->ctime = now;
    mutex_unlock(&i->mu);
    return 0;
}

static int mqueue_open_inode(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    (void)c;
    f->ops = S_ISDIR(i->mode) ? &mqueue_dir_ops : &mqueue_file_ops;
    return 0;
}

const struct inode_ops mqueue_inode_ops = {
    .lookup = mqueue_lookup,
    .create = mqueue_create,
    .unlink = mqueue_unlink_entry,
    .setattr = mqueue_setattr,
    .open = mqueue_open_inode,
    .release = mqueue_release,
};

static int dir_read_locked(struct mqueue *d, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    static const char *const dots[] = {".", ".."};
    const struct mqueue_entry *e;

    for (; *pos < 2; (*pos)++)
        if (fn(arg, dots[*pos], (size_t)*pos + 1, d->inode.ino, 4, (uint64_t)*pos + 1))
            return 0;
    list_for_each_entry (e, &d->entries, node) {
        if (e->pos < (uint64_t)*pos)
            continue;
        if (fn(arg, e->name, strlen(e->name), e->q->inode.ino, 8, e->pos + 1))
            return 0;
        *pos = (int64_t)e->pos + 1;
    }
    return 0;
}

static int mqueue_readdir(struct file *f, int64_t *pos, vfs_dirent_fn fn, void *arg)
{
    mutex_lock(&f->inode->dir_mu);
    int r = dir_read_locked(mqueue_of(f->inode), pos, fn, arg);
    mutex_unlock(&f->inode->dir_mu);
    return r;
}

const struct file_ops mqueue_dir_ops = {.readdir = mqueue_readdir, .seek = vfs_seek_endless};
