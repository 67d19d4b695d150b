/* FIFOs: of the sandbox, or, with --host-fifo=open, those of the host. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "sentry/errno_internal.h"
#include "sentry/fs/goferfs/goferfs_priv.h"
#include "sentry/vfs/special.h"
#include "sentry/wait/wait.h"

/* How long till who waits for a reader looks again: the host does not tell. */
#define READER_LOOK_NS UINT64_C(10000000)

/* The end that f asks for, for which a blocking caller waits. */
static int open_end(struct inode *i, uint32_t flags, const struct vfs_caller *c, int *out_fd)
{
    const int access = (int)(flags & O_ACCMODE);

    for (;;) {
        int r = gof_open_fifo(goferfs_client(i), goferfs_inode(i)->handle, access, out_fd);
        if (r != -ENXIO || access != O_WRONLY || flags & O_NONBLOCK || !c->blocker)
            return r;
        if (blocker_wait(c->blocker, mono_now() + READER_LOOK_NS) == -EINTR)
            return -ERESTARTSYS;
    }
}

int goferfs_open_fifo(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    const struct vfs_special_ops *special = vfs_special();
    int fd, r = -EOPNOTSUPP;

    if (!special)
        return -ENXIO;
    if (!atomic_load(&goferfs_super(i->sb)->own_fifos))
        r = open_end(i, atomic_load(&f->flags), c, &fd);
    /* The host's are not for us, and that stays so. */
    if (r == -EOPNOTSUPP) {
        atomic_store(&goferfs_super(i->sb)->own_fifos, true);
        return special->open_fifo(i, f, c);
    }
    if (r)
        return r;
    r = special->open_host_fifo(fd, f, c);
    if (r)
        close(fd);
    return r;
}
