/* Extended attributes (fs/xattr.c). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/limits.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_path.h"

static int xattr_path(struct task *t, uaddr_t path, bool follow, struct path_place *out)
{
    return path_place_at(t, AT_FDCWD, path, follow ? VFS_FOLLOW : 0, out);
}

static int xattr_file(struct task *t, int fd, struct path_place *out)
{
    return path_place_fd(t, fd, false, out);
}

static int xattr_name(struct task *t, uaddr_t name, char out[LIMIT_XATTR_NAME + 1])
{
    int64_t n = copyin_str(&t->ua, out, name, LIMIT_XATTR_NAME + 1, -ERANGE);

    return n < 0 ? (int)n : n == 0 ? -ERANGE : 0;
}

static int64_t xattr_get(struct task *t, struct path_place *x, uaddr_t name, uaddr_t value,
                         uint64_t size)
{
    char text[LIMIT_XATTR_NAME + 1];
    char *buf = NULL;
    int64_t r = xattr_name(t, name, text);

    size = MIN(size, (uint64_t)LIMIT_XATTR_SIZE);
    if (r == 0 && size > 0 && (buf = malloc(size)) == NULL)
        r = -ENOMEM;
    if (r == 0)
        r = vfs_getxattr(&x->c, &x->p, text, buf, size);
    if (r > 0 && size > 0 && copyout(&t->ua, value, buf, (size_t)r) != 0)
        r = -EFAULT;
    free(buf);
    path_place_end(x);
    return r;
}

static int64_t xattr_set(struct task *t, struct path_place *x, uaddr_t name, uaddr_t value,
                         uint64_t size, int flags)
{
    char text[LIMIT_XATTR_NAME + 1];
    char *buf = NULL;
    int64_t r = xattr_name(t, name, text);

    if (r == 0 && (flags & ~3) != 0)
        r = -EINVAL;
    if (r == 0 && size > LIMIT_XATTR_SIZE)
        r = -E2BIG;
    if (r == 0 && (buf = malloc(size + 1)) == NULL)
        r = -ENOMEM;
    if (r == 0)
        r = copyin(&t->ua, buf, value, size);
    if (r == 0)
        r = vfs_setxattr(&x->c, &x->p, text, buf, size, flags);
    free(buf);
    path_place_end(x);
    return r;
}

static int64_t xattr_list(struct task *t, struct path_place *x, uaddr_t list, uint64_t size)
{
    char *buf = NULL;
    int64_t r = 0;

    size = MIN(size, (uint64_t)LIMIT_XATTR_SIZE);
    if (size > 0 && (buf = malloc(size)) == NULL)
        r = -ENOMEM;
    if (r == 0)
        r = vfs_listxattr(&x->c, &x->p, buf, size);
    if (r > 0 && size > 0 && copyout(&t->ua, list, buf, (size_t)r) != 0)
        r = -EFAULT;
    free(buf);
    path_place_end(x);
    return r;
}

static int64_t xattr_remove(struct task *t, struct path_place *x, uaddr_t name)
{
    char text[LIMIT_XATTR_NAME + 1];
    int64_t r = xattr_name(t, name, text);

    if (r == 0)
        r = vfs_removexattr(&x->c, &x->p, text);
    path_place_end(x);
    return r;
}

int64_t sys_getxattr(struct task *t, uaddr_t path, uaddr_t name, uaddr_t value, uint64_t size)
{
    struct path_place x;
    int r = xattr_path(t, path, true, &x);

    return r != 0 ? r : xattr_get(t, &x, name, value, size);
}

int64_t sys_lgetxattr(struct task *t, uaddr_t path, uaddr_t name, uaddr_t value, uint64_t size)
{
    struct path_place x;
    int r = xattr_path(t, path, false, &x);

    return r != 0 ? r : xattr_get(t, &x, name, value, size);
}

int64_t sys_fgetxattr(struct task *t, int fd, uaddr_t name, uaddr_t value, uint64_t size)
{
    struct path_place x;
    int r = xattr_file(t, fd, &x);

    return r != 0 ? r : xattr_get(t, &x, name, value, size);
}

int64_t sys_setxattr(struct task *t, uaddr_t path, uaddr_t name, uaddr_t value, uint64_t size,
                     int flags)
{
    struct path_place x;
    int r = xattr_path(t, path, true, &x);

    return r != 0 ? r : xattr_set(t, &x, name, value, size, flags);
}

int64_t sys_lsetxattr(struct task *t, uaddr_t path, uaddr_t name, uaddr_t value, uint64_t size,
                      int flags)
{
    struct path_place x;
    int r = xattr_path(t, path, false, &x);

    return r != 0 ? r : xattr_set(t, &x, name, value, size, flags);
}

int64_t sys_fsetxattr(struct task *t, int fd, uaddr_t name, uaddr_t value, uint64_t size, int flags)
{
    struct path_place x;
    int r = xattr_file(t, fd, &x);

    return r != 0 ? r : xattr_set(t, &x, name, value, size, flags);
}

int64_t sys_listxattr(struct task *t, uaddr_t path, uaddr_t list, uint64_t size)
{
    struct path_place x;
    int r = xattr_path(t, path, true, &x);

    return r != 0 ? r : xattr_list(t, &x, list, size);
}

int64_t sys_llistxattr(struct task *t, uaddr_t path, uaddr_t list, uint64_t size)
{
    struct path_place x;
    int r = xattr_path(t, path, false, &x);

    return r != 0 ? r : xattr_list(t, &x, list, size);
}

int64_t sys_flistxattr(struct task *t, int fd, uaddr_t list, uint64_t size)
{
    struct path_place x;
    int r = xattr_file(t, fd, &x);

    return r != 0 ? r : xattr_list(t, &x, list, size);
}

int64_t sys_removexattr(struct task *t, uaddr_t path, uaddr_t name)
{
    struct path_place x;
    int r = xattr_path(t, path, true, &x);

    return r != 0 ? r : xattr_remove(t, &x, name);
}

int64_t sys_lremovexattr(struct task *t, uaddr_t path, uaddr_t name)
{
    struct path_place x;
    int r = xattr_path(t, path, false, &x);

    return r != 0 ? r : xattr_remove(t, &x, name);
}

int64_t sys_fremovexattr(struct task *t, int fd, uaddr_t name)
{
    struct path_place x;
    int r = xattr_file(t, fd, &x);

    return r != 0 ? r : xattr_remove(t, &x, name);
}

/* ---- *xattrat ---- */

/* linux/xattr.h of newer kernels. */
struct lx_xattr_args {
    uint64_t value;
    uint32_t size, flags;
};

static int xattr_place(struct task *t, int dirfd, uaddr_t path, unsigned flags,
                       struct path_place *out)
{
    if (flags & ~(unsigned)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    return path_place_at(t, dirfd, path, path_at_flags((int)flags), out);
}

static int xattr_args(struct task *t, uaddr_t addr, uint64_t size, struct lx_xattr_args *out)
{
    if (size < sizeof(*out))
        return -EINVAL;
    return size > PAGE_SIZE ? -E2BIG : copyin_struct(&t->ua, out, sizeof(*out), addr, (size_t)size);
}

int64_t sys_setxattrat(struct task *t, int dirfd, uaddr_t path, unsigned flags, uaddr_t name,
                       uaddr_t args, uint64_t size)
{
    struct lx_xattr_args a;
    struct path_place x;
    int r = xattr_args(t, args, size, &a);

    if (r == 0)
        r = xattr_place(t, dirfd, path, flags, &x);
    return r != 0 ? r : xattr_set(t, &x, name, uaddr(a.value), a.size, (int)a.flags);
}

int64_t sys_getxattrat(struct task *t, int dirfd, uaddr_t path, unsigned flags, uaddr_t name,
                       uaddr_t args, uint64_t size)
{
    struct lx_xattr_args a;
    struct path_place x;
    int r = xattr_args(t, args, size, &a);

    if (r == 0 && a.flags != 0)
        r = -EINVAL;
    if (r == 0)
        r = xattr_place(t, dirfd, path, flags, &x);
    return r != 0 ? r : xattr_get(t, &x, name, uaddr(a.value), a.size);
}

int64_t sys_listxattrat(struct task *t, int dirfd, uaddr_t path, unsigned flags, uaddr_t list,
                        uint64_t size)
{
    struct path_place x;
    int r = xattr_place(t, dirfd, path, flags, &x);

    return r != 0 ? r : xattr_list(t, &x, list, size);
}

int64_t sys_removexattrat(struct task *t, int dirfd, uaddr_t path, unsigned flags, uaddr_t name)
{
    struct path_place x;
    int r = xattr_place(t, dirfd, path, flags, &x);

    return r != 0 ? r : xattr_remove(t, &x, name);
}
