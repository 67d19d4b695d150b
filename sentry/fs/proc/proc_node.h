/* Inside proc: one inode, which table row it shows and of which task.
 * Depends on: proc_priv.h.
 * Threading: immutable after creation.
 * Ownership: freed with its inode. */
#ifndef RINGWALL_SENTRY_FS_PROC_PROC_NODE_H
#define RINGWALL_SENTRY_FS_PROC_PROC_NODE_H

#include "sentry/fs/proc/proc_priv.h"

struct proc_node {
    struct inode inode;
    const struct proc_entry *entry;
    int32_t tid;       /* 0: not of a task */
    bool thread;       /* tid names any thread, not only a leader */
    int fd;            /* -1: not of a descriptor */
    uint64_t start_ns; /* of that task: tells it from a later one with the same number */
};

static inline struct proc_node *proc_node(struct inode *i)
{
    return container_of(i, struct proc_node, inode);
}

extern const struct inode_ops proc_inode_ops;
extern const struct file_ops proc_file_ops, proc_dir_ops;

/* Finds the node's task again (-ESRCH when it is gone). End with proc_ctx_end. */
MUST_CHECK int proc_ctx_begin(struct inode *i, const struct vfs_caller *c, struct proc_ctx *out);
void proc_ctx_end(struct proc_ctx *pc);
MUST_CHECK int proc_open(struct inode *i, struct file *f, const struct vfs_caller *c);
/* Stable numbers: a file is the same inode each time it is looked up. */
uint64_t proc_node_ino(const struct proc_entry *e, int32_t tid, bool thread, int fd);
/* Whether the descriptor is open in t. */
bool fdtable_alive(struct task *t, int fd);

#endif
