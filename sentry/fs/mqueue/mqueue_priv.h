/* Inside the mqueue file system.
 * Depends on: mqueue.h.
 * Threading: a super's mu guards what its queues use together, a queue's mu (rank MQUEUE) the
 * queue. Ownership: a directory entry holds its inode. */
#ifndef RINGWALL_SENTRY_FS_MQUEUE_PRIV_H
#define RINGWALL_SENTRY_FS_MQUEUE_PRIV_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/objcount.h"
#include "base/rbtree.h"
#include "sentry/fs/mqueue/mqueue.h"

struct mqueue_super {
    struct super sb;
    struct ipc_ns *ns;    /* holds its memory */
    struct mount_ns *own; /* where mq_open looks; for comparison only */
    _Atomic uint64_t next_ino;
    struct mutex mu;    /* rank LEAF: guards the rest */
    struct list queues; /* mqueue.super_node */
    uint64_t queue_count;
};

struct mqueue_msg {
    struct rb_node node;
    struct ipc_ns *ns; /* charged; the queue holds it */
    uint64_t seq, size;
    unsigned prio;
    uint8_t text[];
};

/* A task that waits for room, or for a message; on its stack. */
struct mqueue_sleeper {
    struct list node; /* on no list: done */
    struct blocker *blocker;
    struct mqueue_msg *msg; /* to be sent, or received */
};

/* An inode: the root directory, or a queue. */
struct mqueue {
    struct inode inode;
    struct list entries; /* of the root: dir_mu */
    uint64_t next_pos;

    /* immutable, of a queue */
    uint64_t max_messages, message_size;
    uint64_t charged; /* against RLIMIT_MSGQUEUE of user */
    uint32_t user;
    struct list super_node; /* super's mu */

    struct mutex mu; /* rank MQUEUE: guards the rest */
    struct rb_root messages;
    uint64_t count, bytes, next_seq;
    struct list senders, receivers; /* mqueue_sleeper.node */
    struct mqueue_notify *notify;   /* owned */
    struct waitq wq;                /* poll */
};

/* mq_open's caller: the vfs hands it on to create. */
struct mqueue_caller {
    struct vfs_caller c;
    const struct mqueue_attr *attr;
    uint64_t rlimit;
};

struct mqueue_entry {
    struct list node;
    struct mqueue *q; /* owned */
    uint64_t pos;
    char name[];
};

static inline struct mqueue_super *mqueue_super_of(struct super *sb)
{
    return container_of(sb, struct mqueue_super, sb);
}

static inline struct mqueue *mqueue_of(struct inode *i)
{
    return container_of(i, struct mqueue, inode);
}

extern const struct inode_ops mqueue_inode_ops;
extern const struct file_ops mqueue_file_ops, mqueue_dir_ops;

/* ---- inode.c ---- */
MUST_CHECK int mqueue_inode_new(struct mqueue_super *s, uint32_t mode, struct mqueue **out);
/* Checks and charges a new queue's size; attr NULL: the defaults. */
MUST_CHECK int mqueue_size(struct mqueue_super *s, struct mqueue *q, const struct vfs_caller *c,
                           const struct mqueue_attr *attr, uint64_t rlimit);
/* ---- queue.c ---- */
void mqueue_drop_messages(struct mqueue *q);
/* The queue of a file, or NULL. */
struct mqueue *mqueue_of_file(struct file *f);

#endif
