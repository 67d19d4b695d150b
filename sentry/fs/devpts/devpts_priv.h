/* Inside devpts: instances, pairs, their files.
 * Depends on: devpts.h, ldisc.h, kernel/tty.h.
 * Threading: pty.mu (rank TTY) guards a pair, core.mu (rank LEAF) who is in an instance.
 * Ownership: see the fields. */
#ifndef RINGWALL_SENTRY_FS_DEVPTS_PRIV_H
#define RINGWALL_SENTRY_FS_DEVPTS_PRIV_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "base/idalloc.h"
#include "sentry/errno_internal.h"
#include "sentry/fs/devpts/devpts.h"
#include "sentry/fs/devpts/ldisc.h"
#include "sentry/kernel/tty.h"

/* Bytes that go through the stack at once. */
#define PTY_PIECE 1024u

struct pts_options {
    uint32_t mode, ptmx_mode, uid, gid, max;
    bool has_uid, has_gid;
};

/* An instance as its pairs know it: outlives its super while a session still has one of them. */
struct pts_core {
    struct ref ref;
    struct kernel *k;
    struct pts_options opts; /* immutable */
    struct mutex mu;         /* rank LEAF: guards what follows */
    struct idalloc ids;
    struct list ptys; /* pty.node, those whose master is open */
};

struct pts_fs {
    struct super sb;
    struct pts_core *core; /* owned */
};

struct pts_inode {
    struct inode inode;
    struct inode *ptmx;          /* root: owned */
    bool is_slave;               /* immutable */
    _Atomic(struct pty *) slave; /* weak; changes under core.mu: NULL once the master is closed */
};

struct pty {
    struct tty tty;        /* its count is the pair's */
    struct pts_core *core; /* owned */
    uint32_t index;        /* immutable; another pair's once both sides are closed */
    struct list node;      /* core.mu */
    struct inode *inode;   /* core.mu: of the slave; owned; NULL once the master is closed */

    struct waitq slave_wq, master_wq;
    struct mutex mu; /* rank TTY: guards what follows */
    struct ldisc ld;
    struct winsize ws;
    uint32_t slaves; /* open files of the slave */
    bool master_open;
    uint32_t hangups;    /* files of before the last one are dead */
    bool slave_opened;   /* at some time */
    bool locked;         /* TIOCSPTLCK: the slave cannot be opened */
    bool exclusive;      /* TIOCEXCL */
    bool master_stopped; /* TCOOFF on the master */
};

/* An open slave. */
struct pts_file {
    struct pty *pty; /* owned */
    uint32_t hangups;
};

static inline struct pts_fs *pts_fs_of(struct super *sb)
{
    return container_of(sb, struct pts_fs, sb);
}

static inline struct pts_inode *pts_inode_of(struct inode *i)
{
    return container_of(i, struct pts_inode, inode);
}

static inline struct pty *pty_of_tty(struct tty *tty)
{
    return container_of(tty, struct pty, tty);
}

/* ---- super.c ---- */
void pts_core_put(struct pts_core *core);
/* The slave's inode for a fresh pair. Owned. */
MUST_CHECK int pts_inode_new(struct super *sb, struct pty *p, const struct vfs_caller *c,
                             struct inode **out);

/* ---- pty.c ---- */
/* Unlocks p, sends the signals that came up and wakes who waits. */
void pty_unlock(struct pty *p);
void pty_put(struct pty *p);
/* Everything that is open on the slave is dead from here on. */
void pty_hangup(struct pty *p);
MUST_CHECK int pty_open_master(struct super *sb, struct file *f, const struct vfs_caller *c);
MUST_CHECK int pty_open_slave(struct pty *p, struct file *f, const struct vfs_caller *c);
void ptm_release(struct file *f);
void pts_release(struct file *f);
bool pty_is_master(const struct file *f);
/* The pair behind a file of either side. */
struct pty *pty_of_file(const struct file *f);
/* An open slave whose line was hung up; p->mu held. */
bool pty_file_hung(const struct file *f, const struct pty *p);
bool pty_may_wait(const struct file *f, const struct vfs_caller *c);

/* ---- master.c, slave.c ---- */
extern const struct file_ops ptm_ops, pts_ops;

/* ---- ioctl.c ---- */
MUST_CHECK int64_t pty_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                             const struct vfs_caller *c);
void pty_set_size(struct pty *p, const struct winsize *ws);

#endif
