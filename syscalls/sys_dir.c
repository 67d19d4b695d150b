/* getdents (fs/readdir.c). */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "syscalls/handlers.h"

/* One call fills at most this much; the caller comes again. */
#define DENTS_MAX 65536

struct dents {
    char *buf;
    size_t size, used;
    bool full; /* an entry did not fit */
    bool old;  /* struct linux_dirent: the type stands behind the name */
};

/* linux_dirent up to the name. */
struct dent_old {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    char name[];
} __attribute__((packed));

static void dent_fill_old(struct dent_old *e, size_t size, const char *name, size_t len,
                          uint64_t ino, unsigned dtype, uint64_t next_off)
{
    memset(e, 0, size);
    e->ino = ino;
    e->off = (int64_t)next_off;
    e->reclen = (uint16_t)size;
    memcpy(e->name, name, len);
    ((char *)e)[size - 1] = (char)dtype;
}

static int dents_add(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype,
                     uint64_t next_off)
{
    struct dents *d = arg;
    const size_t size = d->old ? ALIGN_UP(offsetof(struct dent_old, name) + len + 2, (size_t)8)
                               : vfs_dirent64_size(len);
    void *at = d->buf + d->used;

    if (d->used + size > d->size) {
        d->full = true;
        return 1;
    }
    if (d->old)
        dent_fill_old(at, size, name, len, ino, dtype, next_off);
    else
        (void)vfs_dirent64_fill(at, name, len, ino, dtype, next_off);
    d->used += size;
    return 0;
}

static int64_t dents_read(struct task *t, int fd, uaddr_t buf, unsigned count, bool old)
{
    struct dents d = {.size = MIN(count, (unsigned)DENTS_MAX), .old = old};
    struct file *f;
    int64_t r = task_file(t, fd, &f);

    if (r != 0)
        return r;
    d.buf = malloc(d.size > 0 ? d.size : 1);
    int64_t before = f->pos;
    if (d.buf == NULL)
        r = -ENOMEM;
    else if (!old)
        d.used = vfs_dirents(f, d.buf, d.size);
    if (r == 0 && d.used == 0)
        r = vfs_readdir(f, dents_add, &d);
    if (r == 0 && d.used == 0 && d.full)
        r = -EINVAL;
    if (r == 0 && copyout(&t->ua, buf, d.buf, d.used) != 0) {
        r = -EFAULT;
        (void)!vfs_seek(f, before, SEEK_SET);
    }
    if (r == 0)
        r = (int64_t)d.used;
    free(d.buf);
    file_put(f);
    return r;
}

int64_t sys_getdents64(struct task *t, int fd, uaddr_t buf, unsigned count)
{
    return dents_read(t, fd, buf, count, false);
}

int64_t sys_getdents(struct task *t, int fd, uaddr_t buf, unsigned count)
{
    return dents_read(t, fd, buf, count, true);
}
