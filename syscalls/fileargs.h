/* What file system calls share: callers with a path, a second base, an open file.
 * Depends on: sentry/kernel/task.h.
 * Threading: the task's own thread.
 * Ownership: a begun object is ended by its _end, which takes NULL members. */
#ifndef RINGWALL_SYSCALLS_FILEARGS_H
#define RINGWALL_SYSCALLS_FILEARGS_H

#include "sentry/kernel/task.h"

struct at_path {
    struct vfs_caller c;
    struct vpath at; /* owned when use_at */
    bool use_at;
    char *path; /* owned */
};

/* dirfd and path of an *at call. -EFAULT, -ENAMETOOLONG, -EBADF. A path that starts at the root
 * does not look at dirfd. */
MUST_CHECK int at_begin(struct task *t, int dirfd, uaddr_t path, struct at_path *out);
void at_end(struct at_path *a);
static inline const struct vpath *at_base(const struct at_path *a)
{
    return a->use_at ? &a->at : NULL;
}
/* vfs_lookup of a begun path; -ENOTDIR when a descriptor that is no directory is walked from. */
MUST_CHECK int at_lookup(const struct at_path *a, unsigned flags, struct vpath *out);
/* The place dirfd and path name; with AT_EMPTY_PATH "" (or NULL) means dirfd itself. flags:
 * AT_SYMLINK_NOFOLLOW AT_SYMLINK_FOLLOW AT_EMPTY_PATH AT_NO_AUTOMOUNT, checked by the caller.
 * follow: what happens to a link at the end when no flag says. */
MUST_CHECK int at_resolve(struct task *t, int dirfd, uaddr_t path, int flags, bool follow,
                          struct vfs_caller *out_c, struct vpath *out);
/* Ends what at_resolve gave. */
void at_resolved_end(struct vfs_caller *c, struct vpath *p);

/* NUL-terminated copy of a path. Owned. */
MUST_CHECK int copyin_path(struct task *t, uaddr_t path, char **out);
/* A result of vfs_read or vfs_write as the guest sees it: SIGPIPE and SIGXFSZ are raised. */
int64_t rw_result(struct task *t, int64_t r);

#endif
