/* POSIX message queues and the file system that shows them: mq_overview(7).
 * Depends on: vfs, ipc.
 * Threading: any thread.
 * Ownership: a namespace keeps its file system; a super keeps the namespace's memory. */
#ifndef RINGWALL_SENTRY_FS_MQUEUE_MQUEUE_H
#define RINGWALL_SENTRY_FS_MQUEUE_MQUEUE_H

#include "sentry/ipc/ipc.h"
#include "sentry/vfs/vfs.h"

/* boot_arg of its mount op is the struct ipc_ns whose queues are shown. No options. */
extern const struct fs_ops mqueue_fs_ops;

#define MQUEUE_PRIO_MAX 32768u

/* struct mq_attr. */
struct mqueue_attr {
    int64_t flags, max_messages, message_size, messages, reserved[4];
};

/* mq_open(2) without the descriptor. attr: for a new queue, NULL for the defaults. rlimit:
 * RLIMIT_MSGQUEUE. c's paths are not looked at. -EACCES, -EEXIST, -EINVAL, -EMFILE, -ENOENT,
 * -ENOSPC. Owned result. */
MUST_CHECK int mqueue_open(struct ipc_ns *ns, const struct vfs_caller *c, const char *name,
                           uint32_t flags, uint32_t mode, const struct mqueue_attr *attr,
                           uint64_t rlimit, struct file **out_file);
MUST_CHECK int mqueue_unlink(struct ipc_ns *ns, const struct vfs_caller *c, const char *name);

struct mqueue_msg;
/* A message of size bytes, to be filled in at *out_text, for f's queue. -EBADF: f is no queue open
 * for writing; -EMSGSIZE, -ENOMEM. Owned result. */
MUST_CHECK int mqueue_msg_new(struct file *f, uint64_t size, unsigned prio, void **out_text,
                              struct mqueue_msg **out);
void mqueue_msg_free(struct mqueue_msg *m);
/* Takes m on success. -EAGAIN, -ETIMEDOUT, -ERESTARTSYS. */
MUST_CHECK int mqueue_send(struct file *f, const struct vfs_caller *c, struct mqueue_msg *m,
                           deadline_t deadline);
/* The oldest of the highest priority: owned. -EBADF, -EMSGSIZE: size is less than the queue's;
 * others as mqueue_send. */
MUST_CHECK int mqueue_receive(struct file *f, const struct vfs_caller *c, uint64_t size,
                              deadline_t deadline, struct mqueue_msg **out);
const void *mqueue_msg_text(const struct mqueue_msg *m, uint64_t *out_size, unsigned *out_prio);

/* *old as it was; set: only O_NONBLOCK of its flags counts. Either NULL. -EBADF, -EINVAL. */
MUST_CHECK int mqueue_getset(struct file *f, const struct mqueue_attr *set,
                             struct mqueue_attr *old);

/* Who is told once of a message that comes to an empty queue for which nobody waits. */
struct mqueue_notify {
    int32_t owner; /* its process */
    int how;       /* SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD */
    int signo;
    /* From the sender: its process and uid. No lock of the queue is held, here and below. */
    void (*fire)(struct mqueue_notify *n, int32_t pid, uint32_t uid);
    /* The owner does not want it any more. */
    void (*end)(struct mqueue_notify *n);
    void (*free)(struct mqueue_notify *n);
};
/* Takes n; NULL: owner's registration ends. -EBUSY, -EBADF. */
MUST_CHECK int mqueue_notify(struct file *f, struct mqueue_notify *n, int32_t owner);

#endif
