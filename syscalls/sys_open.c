/* open, openat, openat2, creat (fs/open.c). */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>

#include "syscalls/fileargs.h"
#include "syscalls/handlers.h"

#define OPEN_FLAGS                                                                                 \
    ((uint32_t)(O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK |        \
                O_DSYNC | O_SYNC | O_ASYNC | O_DIRECT | O_DIRECTORY | O_NOFOLLOW | O_NOATIME |     \
                O_CLOEXEC | O_PATH | O_TMPFILE) |                                                  \
     0100000u /* O_LARGEFILE */)

static int64_t open_at(struct task *t, int dirfd, uaddr_t path, uint32_t flags, uint32_t mode,
                       unsigned resolve)
{
    struct at_path a;
    struct file *f;
    int64_t r = at_begin(t, dirfd, path, &a);

    if (r != 0)
        return r;
    r = vfs_open(&a.c, at_base(&a), a.path, flags & ~0100000u, mode, resolve, &f);
    if (r == 0) {
        r = task_fd_install(t, f, (flags & O_CLOEXEC) != 0, 0);
        file_put(f);
    }
    at_end(&a);
    return r;
}

int64_t sys_open(struct task *t, uaddr_t path, int flags, uint32_t mode)
{
    return open_at(t, AT_FDCWD, path, (uint32_t)flags & OPEN_FLAGS, mode, 0);
}

int64_t sys_openat(struct task *t, int dirfd, uaddr_t path, int flags, uint32_t mode)
{
    return open_at(t, dirfd, path, (uint32_t)flags & OPEN_FLAGS, mode, 0);
}

int64_t sys_creat(struct task *t, uaddr_t path, uint32_t mode)
{
    return open_at(t, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode, 0);
}

static int resolve_flags(uint64_t resolve, unsigned *out)
{
    static const struct {
        uint64_t from;
        unsigned to;
    } map[] = {{RESOLVE_NO_XDEV, VFS_NO_XDEV},
               {RESOLVE_NO_MAGICLINKS, VFS_NO_MAGICLINKS},
               {RESOLVE_NO_SYMLINKS, VFS_NO_SYMLINKS},
               {RESOLVE_BENEATH, VFS_BENEATH},
               {RESOLVE_IN_ROOT, VFS_IN_ROOT}};

    *out = 0;
    for (size_t i = 0; i < ARRAY_SIZE(map); i++) {
        if ((resolve & map[i].from) != 0)
            *out |= map[i].to;
        resolve &= ~map[i].from;
    }
    if ((*out & VFS_BENEATH) != 0 && (*out & VFS_IN_ROOT) != 0)
        return -EINVAL;
    /* Answering from the cache alone is not offered. */
    if (resolve == RESOLVE_CACHED)
        return -EAGAIN;
    return resolve != 0 ? -EINVAL : 0;
}

int64_t sys_openat2(struct task *t, int dirfd, uaddr_t path, uaddr_t how, uint64_t size)
{
    struct open_how h;
    unsigned resolve;
    int r;

    if (size < sizeof(h))
        return -EINVAL;
    r = copyin_struct(&t->ua, &h, sizeof(h), how, size);
    if (r == 0)
        r = resolve_flags(h.resolve, &resolve);
    if (r != 0)
        return r;
    if ((h.flags & ~(uint64_t)OPEN_FLAGS) != 0 || (h.mode & ~UINT64_C(07777)) != 0)
        return -EINVAL;
    if (h.mode != 0 && (h.flags & O_CREAT) == 0 && (h.flags & O_TMPFILE) != O_TMPFILE)
        return -EINVAL;
    if ((h.flags & O_PATH) != 0 &&
        (h.flags & ~(uint64_t)(O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) != 0)
        return -EINVAL;
    return open_at(t, dirfd, path, (uint32_t)h.flags, (uint32_t)h.mode, resolve);
}
