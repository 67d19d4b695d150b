#include "syscalls/fileargs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int copyin_path(struct task *t, uaddr_t path, char **out)
{
    char *buf = malloc(VFS_PATH_MAX);
    int64_t n = buf != NULL ? copyin_str(&t->ua, buf, path, VFS_PATH_MAX, -ENAMETOOLONG) : -ENOMEM;

    if (n < 0) {
        free(buf);
        return (int)n;
    }
    *out = buf;
    return 0;
}

int at_begin(struct task *t, int dirfd, uaddr_t path, struct at_path *out)
{
    int r = copyin_path(t, path, &out->path);

    if (r != 0)
        return r;
    out->use_at = false;
    if (out->path[0] != '/')
        r = task_at_base(t, dirfd, &out->use_at, &out->at);
    if (r != 0) {
        free(out->path);
        return r;
    }
    task_vfs_caller(t, &out->c);
    return 0;
}

void at_end(struct at_path *a)
{
    task_vfs_caller_end(&a->c);
    if (a->use_at)
        vpath_put(&a->at);
    free(a->path);
}

int at_lookup(const struct at_path *a, unsigned flags, struct vpath *out)
{
    return vfs_lookup(&a->c, at_base(a), a->path, flags, out);
}

/* The descriptor itself, or the current directory. */
static int resolve_empty(struct task *t, int dirfd, struct vpath *out)
{
    bool use_base;
    int r = task_at_base(t, dirfd, &use_base, out);

    if (r == 0 && !use_base) {
        struct vfs_caller c;
        task_vfs_caller(t, &c);
        *out = c.cwd;
        vpath_get(out);
        task_vfs_caller_end(&c);
    }
    return r;
}

int at_resolve(struct task *t, int dirfd, uaddr_t path, int flags, bool follow,
               struct vfs_caller *out_c, struct vpath *out)
{
    struct at_path a;
    char first = 1;
    int r;

    if ((flags & AT_SYMLINK_NOFOLLOW) != 0)
        follow = false;
    if ((flags & AT_SYMLINK_FOLLOW) != 0)
        follow = true;
    if ((flags & AT_EMPTY_PATH) != 0 && path.v != 0)
        r = copyin(&t->ua, &first, path, 1);
    else
        r = 0;
    if (r != 0)
        return r;
    if ((flags & AT_EMPTY_PATH) != 0 && (path.v == 0 || first == '\0')) {
        r = resolve_empty(t, dirfd, out);
        if (r == 0)
            task_vfs_caller(t, out_c);
        return r;
    }
    r = at_begin(t, dirfd, path, &a);
    if (r != 0)
        return r;
    r = at_lookup(&a, follow ? VFS_FOLLOW : 0, out);
    at_end(&a);
    if (r == 0)
        task_vfs_caller(t, out_c);
    return r;
}

void at_resolved_end(struct vfs_caller *c, struct vpath *p)
{
    task_vfs_caller_end(c);
    vpath_put(p);
}

int64_t rw_result(struct task *t, int64_t r)
{
    if (UNLIKELY(r == -EPIPE))
        task_raise(t, SIGPIPE);
    else if (UNLIKELY(r == -EFBIG))
        task_raise(t, SIGXFSZ);
    return r;
}
