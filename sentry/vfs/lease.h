/* Leases of fcntl(2): who opens or cuts a file that somebody has a lease on waits till that is
 * given up, or its time is over. Depends on: vfs.h. Threading: any thread; one lock, rank
 * FILE_LOCK, taken only where leases are. Ownership: a lease belongs to its open file and goes with
 * it. */
#ifndef RINGWALL_SENTRY_VFS_LEASE_H
#define RINGWALL_SENTRY_VFS_LEASE_H

#include "sentry/vfs/vfs.h"

/* How a lease's holder is reached; embedded by who sends signals. */
struct lease_holder {
    void (*tell)(struct lease_holder *h); /* somebody wants in; the lock is held: notes it only */
    void (*end)(struct lease_holder *h);  /* the lease is gone; no lock held */
};

/* F_SETLEASE: F_RDLCK, F_WRLCK, F_UNLCK. *h is taken, and set to NULL, for a lease that f had not.
 * -EACCES, -EINVAL, -EAGAIN, -ENOMEM. */
MUST_CHECK int lease_set(struct file *f, int type, struct lease_holder **h,
                         const struct vfs_caller *c);
/* F_GETLEASE: what it is, or is to become. */
int lease_get(const struct file *f);
/* f goes. */
void lease_file_gone(const struct file *f);

/* i is about to be used as flags (access mode, O_NONBLOCK) say, and counted as open that way. Waits
 * for those whose leases say no: -EWOULDBLOCK with O_NONBLOCK, -ERESTARTSYS. */
MUST_CHECK int lease_break_slow(struct inode *i, uint32_t flags, const struct vfs_caller *c);
static inline int lease_break(struct inode *i, uint32_t flags, const struct vfs_caller *c)
{
    return LIKELY(atomic_load(&i->leases) == NULL) ? 0 : lease_break_slow(i, flags, c);
}

/* /proc/sys/fs: seconds that a holder has (0: for ever), and whether there are leases. */
extern _Atomic uint32_t lease_break_time;
extern _Atomic bool lease_enabled;

/* Calls fn for each lease, the lock held. */
typedef void (*lease_fn)(void *arg, const struct inode *i, int type, bool breaking, int32_t pid);
void lease_each(lease_fn fn, void *arg);

#endif
