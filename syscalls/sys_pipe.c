/* pipe, eventfd, memfd_create. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "sentry/fs/anon/eventfd.h"
#include "sentry/fs/pipe/pipe.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/kernel/image.h"
#include "syscalls/handlers.h"

#define MEMFD_NAME_MAX 249

static int64_t install_one(struct task *t, struct file *f, bool cloexec)
{
    int64_t r = task_fd_install(t, f, cloexec, 0);

    file_put(f);
    return r;
}

static void uninstall(struct task *t, int fd)
{
    struct vfs_caller c;

    task_vfs_caller(t, &c);
    (void)!fdtable_close(t->fdt, fd, &c);
    task_vfs_caller_end(&c);
}

int64_t sys_pipe2(struct task *t, uaddr_t fds, int flags)
{
    bool cloexec = (flags & O_CLOEXEC) != 0;
    struct file *r, *w;
    int out[2];
    int e;

    if ((flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT)) != 0)
        return -EINVAL;
    e = pipe_new((uint32_t)flags & (O_NONBLOCK | O_DIRECT), &r, &w);
    if (e != 0)
        return e;
    out[0] = (int)install_one(t, r, cloexec);
    if (out[0] < 0) {
        file_put(w);
        return out[0];
    }
    out[1] = (int)install_one(t, w, cloexec);
    if (out[1] < 0) {
        uninstall(t, out[0]);
        return out[1];
    }
    e = copyout(&t->ua, fds, out, sizeof(out));
    if (e != 0) {
        uninstall(t, out[0]);
        uninstall(t, out[1]);
    }
    return e;
}

int64_t sys_pipe(struct task *t, uaddr_t fds)
{
    return sys_pipe2(t, fds, 0);
}

int64_t sys_eventfd2(struct task *t, unsigned count, int flags)
{
    struct file *f;
    int64_t r;

    if ((flags & ~(EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK)) != 0)
        return -EINVAL;
    r = eventfd_new(count, (flags & EFD_SEMAPHORE) != 0, (uint32_t)flags & O_NONBLOCK, &f);
    return r != 0 ? r : install_one(t, f, (flags & EFD_CLOEXEC) != 0);
}

int64_t sys_eventfd(struct task *t, unsigned count)
{
    return sys_eventfd2(t, count, 0);
}

/* As newer headers have it. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x8u
#define MFD_EXEC 0x10u
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif

int64_t sys_memfd_create(struct task *t, uaddr_t name, unsigned flags)
{
    char text[MEMFD_NAME_MAX + 1];
    struct file *f;
    int64_t r;

    if ((flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC | MFD_NOEXEC_SEAL)) != 0 ||
        (flags & (MFD_EXEC | MFD_NOEXEC_SEAL)) == (MFD_EXEC | MFD_NOEXEC_SEAL))
        return -EINVAL;
    r = copyin_str(&t->ua, text, name, sizeof(text), -EINVAL);
    if (r < 0)
        return r;
    const bool exec = (flags & MFD_NOEXEC_SEAL) == 0;
    const unsigned seals = !exec ? F_SEAL_EXEC : flags & MFD_ALLOW_SEALING ? 0 : F_SEAL_SEAL;
    r = tmpfs_memfd(kernel_memfile(t->k), text, seals, exec, &f);
    return r != 0 ? r : install_one(t, f, (flags & MFD_CLOEXEC) != 0);
}
