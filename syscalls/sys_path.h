/* Path arguments of calls: text copied in, the directory they start from.
 * Depends on: task.h, vfs.
 * Threading: the task's own thread.
 * Ownership: path_arg_get's results are given back with path_arg_put, in any order. */
#ifndef RINGWALL_SYSCALLS_SYS_PATH_H
#define RINGWALL_SYSCALLS_SYS_PATH_H

#include <stdbool.h>

#include "sentry/kernel/task.h"

/* O_LARGEFILE of the kernel; libc's is 0 on this machine. */
#define LX_O_LARGEFILE 0100000u

struct path_arg {
    char *text;    /* NUL-terminated, shorter than VFS_PATH_MAX */
    bool has_base; /* else the working directory, or an absolute path */
    struct vpath base;
    char *heap;      /* text when it is long */
    char small[256]; /* text when it is not */
};

/* Copies the text and finds dirfd, which is not looked at for an absolute path. "" is -ENOENT
 * unless empty_ok. -EFAULT, -ENAMETOOLONG, -EBADF. */
MUST_CHECK int path_arg_get(struct task *t, int dirfd, uaddr_t path, bool empty_ok,
                            struct path_arg *out);
void path_arg_put(struct path_arg *a);
static inline const struct vpath *path_arg_base(const struct path_arg *a)
{
    return a->has_base ? &a->base : NULL;
}

/* The place that (dirfd, path) names; flags: VFS_*. Owned *out. */
MUST_CHECK int path_lookup(struct task *t, const struct vfs_caller *c, int dirfd, uaddr_t path,
                           unsigned flags, struct vpath *out);

/* A place that a call works on, with the caller. */
struct path_place {
    struct vfs_caller c;
    struct vpath p; /* owned */
};
/* flags: VFS_*. With VFS_EMPTY_PATH the path may also be NULL. Ended with path_place_end. */
MUST_CHECK int path_place_at(struct task *t, int dirfd, uaddr_t path, unsigned flags,
                             struct path_place *out);
/* The place of a descriptor; any: those opened with O_PATH too. */
MUST_CHECK int path_place_fd(struct task *t, int fd, bool any, struct path_place *out);
void path_place_end(struct path_place *x);

/* AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH as look-up flags. */
unsigned path_at_flags(int flags);

#endif
