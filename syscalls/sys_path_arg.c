/* Path arguments: most are short, so they are kept on the stack. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "syscalls/sys_path.h"

static int path_copy(struct task *t, uaddr_t path, struct path_arg *a)
{
    a->heap = NULL;
    a->text = a->small;
    int64_t n = copyin_str(&t->ua, a->small, path, sizeof(a->small), -ENAMETOOLONG);
    if (n != -ENAMETOOLONG)
        return n < 0 ? (int)n : 0;
    a->heap = malloc(VFS_PATH_MAX);
    if (!a->heap)
        return -ENOMEM;
    a->text = a->heap;
    n = copyin_str(&t->ua, a->heap, path, VFS_PATH_MAX, -ENAMETOOLONG);
    if (n >= 0)
        return 0;
    free(a->heap);
    return (int)n;
}

int path_arg_get(struct task *t, int dirfd, uaddr_t path, bool empty_ok, struct path_arg *out)
{
    int r = path_copy(t, path, out);

    if (r)
        return r;
    out->has_base = false;
    if (out->text[0] == '\0' && !empty_ok)
        r = -ENOENT;
    else if (out->text[0] != '/')
        r = task_at_base(t, dirfd, &out->has_base, &out->base);
    if (r)
        free(out->heap);
    return r;
}

void path_arg_put(struct path_arg *a)
{
    if (a->has_base)
        vpath_put(&a->base);
    free(a->heap);
}

int path_lookup(struct task *t, const struct vfs_caller *c, int dirfd, uaddr_t path, unsigned flags,
                struct vpath *out)
{
    struct path_arg a;
    int r = path_arg_get(t, dirfd, path, flags & VFS_EMPTY_PATH, &a);

    if (r)
        return r;
    r = vfs_lookup(c, path_arg_base(&a), a.text, flags, out);
    path_arg_put(&a);
    return r;
}

int path_place_at(struct task *t, int dirfd, uaddr_t path, unsigned flags, struct path_place *out)
{
    if (uaddr_is_null(path) && flags & VFS_EMPTY_PATH && dirfd != AT_FDCWD)
        return path_place_fd(t, dirfd, true, out);
    task_vfs_caller(t, &out->c);
    int r = path_lookup(t, &out->c, dirfd, path, flags, &out->p);
    if (r)
        task_vfs_caller_end(&out->c);
    return r;
}

int path_place_fd(struct task *t, int fd, bool any, struct path_place *out)
{
    struct file *f;
    int r = any ? task_file_any(t, fd, &f) : task_file(t, fd, &f);

    if (r)
        return r;
    out->p = f->path;
    vpath_get(&out->p);
    file_put(f);
    task_vfs_caller(t, &out->c);
    return 0;
}

void path_place_end(struct path_place *x)
{
    vpath_put(&x->p);
    task_vfs_caller_end(&x->c);
}

unsigned path_at_flags(int flags)
{
    return (flags & AT_SYMLINK_NOFOLLOW ? 0 : VFS_FOLLOW) |
           (flags & AT_EMPTY_PATH ? VFS_EMPTY_PATH : 0);
}
