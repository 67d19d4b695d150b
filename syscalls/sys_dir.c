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

/* linux_dirent64 and linux_dirent up to the name. */
struct dent64 {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    uint8_t type;
    char name[];
} __attribute__((packed));

struct dent_old {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    char name[];
} __attribute__((packed));

static int dents_add(void *arg, const char *name, size_t len, uint64_t ino, unsigned dtype,
                     uint64_t next_off)
{
    struct dents *d = arg;
    size_t head = d->old ? offsetof(struct dent_old, name) : offsetof(struct dent64, name);
    size_t size = ALIGN_UP(head + len + 1 + (d->old ? 1 : 0), (size_t)8);

    if (d->used + size > d->size) {
        d->full = true;
        return 1;
    }
    char *at = d->buf + d->used;
    /* What stands behind the name is among the last of it; the rest is written. */
    memset(at + size - 16, 0, 16);
    struct dent64 *e = (struct dent64 *)at;
    e->ino = ino;
    e->off = (int64_t)next_off;
    e->reclen = (uint16_t)size;
    if (d->old)
        at[size - 1] = (char)dtype;
    else
        e->type = (uint8_t)dtype;
    memcpy(at + head, name, len);
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
    r = d.buf != NULL ? vfs_readdir(f, dents_add, &d) : -ENOMEM;
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
