#include "sentry/fs/dev/dev.h"

#include <errno.h>
#include <linux/random.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "sentry/errno_internal.h"
#include "sentry/fs/devpts/devpts.h"

/* Bytes between two looks at whether the caller is to end; what getrandom(2) never cuts short. */
#define DEV_STEP (64u * 1024)
#define DEV_RANDOM_STEP 256u

/* A long transfer ends early for a signal, as in Linux. */
static bool dev_stop(const struct vfs_caller *c)
{
    return c->blocker != NULL && blocker_interrupted(c->blocker);
}

static int64_t dev_swallow(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    int64_t n = (int64_t)u->left;

    (void)f;
    (void)pos;
    (void)c;
    uio_advance(u, u->left);
    return n;
}

static int64_t dev_seek_start(struct file *f, int64_t off, int whence)
{
    (void)off;
    (void)whence;
    f->pos = 0;
    return 0;
}

/* ---- null ---- */

static int64_t null_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    (void)f;
    (void)u;
    (void)pos;
    (void)c;
    return 0;
}

static const struct file_ops null_ops = {
    .read = null_read,
    .write = dev_swallow,
    .seek = dev_seek_start,
};

/* ---- zero, full ---- */

static int64_t zero_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    int64_t done = 0;

    (void)f;
    (void)pos;
    while (u->left > 0) {
        uint64_t want = MIN(u->left, (uint64_t)DEV_STEP);
        int64_t n = uio_zero(u, want);
        if (n <= 0)
            return done > 0 ? done : n;
        done += n;
        if ((uint64_t)n < want || (u->left > 0 && dev_stop(c)))
            break;
    }
    return done;
}

/* A mapping of zero is one of nothing, private or shared: mem(4). */
static int zero_mmap(struct file *f, int prot, int flags, struct mappable **out)
{
    (void)f;
    (void)prot;
    (void)flags;
    *out = NULL;
    return 0;
}

static int64_t full_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    (void)f;
    (void)u;
    (void)pos;
    (void)c;
    return -ENOSPC;
}

static const struct file_ops zero_ops = {
    .read = zero_read,
    .write = dev_swallow,
    .seek = dev_seek_start,
    .mmap = zero_mmap,
};

static const struct file_ops full_ops = {
    .read = zero_read,
    .write = full_write,
    .seek = dev_seek_start,
};

/* ---- random, urandom ---- */

static int64_t random_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    uint8_t buf[DEV_RANDOM_STEP];
    int64_t done = 0;

    (void)f;
    (void)pos;
    while (u->left > 0) {
        size_t want = (size_t)MIN(u->left, (uint64_t)sizeof(buf));
        ssize_t got = getrandom(buf, want, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return done > 0 ? done : -EIO;
        int64_t n = uio_copy_to(u, buf, (size_t)got);
        if (n <= 0)
            return done > 0 ? done : n;
        done += n;
        if (n < got || ((uint64_t)done % PAGE_SIZE == 0 && dev_stop(c)))
            break;
    }
    return done;
}

/* The bytes are looked at and add nothing: the host's pool is not the guest's to stir. */
static int64_t random_write(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    uint8_t buf[DEV_RANDOM_STEP];
    int64_t done = 0;

    (void)f;
    (void)pos;
    while (u->left > 0) {
        size_t want = (size_t)MIN(u->left, (uint64_t)sizeof(buf));
        int64_t n = uio_copy_from(u, buf, want);
        if (n <= 0)
            return done > 0 ? done : n;
        done += n;
        if ((size_t)n < want || ((uint64_t)done % PAGE_SIZE == 0 && dev_stop(c)))
            break;
    }
    return done;
}

static int64_t random_seek(struct file *f, int64_t off, int whence)
{
    (void)off;
    (void)whence;
    return f->pos;
}

static int64_t random_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                            const struct vfs_caller *c)
{
    const int bits = 256;

    (void)f;
    (void)c;
    switch (cmd) {
    case RNDGETENTCNT:
        return copyout_obj(ua, (uaddr_t){arg}, &bits);
    case RNDADDTOENTCNT:
    case RNDADDENTROPY:
    case RNDZAPENTCNT:
    case RNDCLEARPOOL:
    case RNDRESEEDCRNG:
        return -EPERM;
    default:
        return -EINVAL;
    }
}

/* A seeded generator has bytes to give and needs none. */
static uint32_t random_poll(struct file *f, struct waiter *w)
{
    (void)f;
    (void)w;
    return EPOLLIN | EPOLLRDNORM;
}

static const struct file_ops random_ops = {
    .read = random_read,
    .write = random_write,
    .seek = random_seek,
    .ioctl = random_ioctl,
    .poll = random_poll,
};

/* Never waited for, so there is nothing to poll. */
static const struct file_ops urandom_ops = {
    .read = random_read,
    .write = random_write,
    .seek = random_seek,
    .ioctl = random_ioctl,
};

/* ---- which is which: Documentation/admin-guide/devices.txt ---- */

int dev_open(struct inode *i, struct file *f, const struct vfs_caller *c)
{
    unsigned number = major(i->rdev);

    if (!S_ISCHR(i->mode))
        return -ENXIO;
    if (number == 5 || (number >= 136 && number <= 143))
        return devpts_open(i, f, c);
    if (number != 1)
        return -ENXIO;
    switch (minor(i->rdev)) {
    case 3:
        f->ops = &null_ops;
        return 0;
    case 5:
        f->ops = &zero_ops;
        return 0;
    case 7:
        f->ops = &full_ops;
        return 0;
    case 8:
        f->ops = &random_ops;
        return 0;
    case 9:
        f->ops = &urandom_ops;
        return 0;
    default:
        return -ENXIO;
    }
}
