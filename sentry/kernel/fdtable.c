/* Descriptor tables (close(2), dup(2), fcntl(2), close_range(2)). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/objcount.h"
#include "sentry/kernel/dnotify.h"
#include "sentry/kernel/task.h"

#define FDTABLE_MIN 32

OBJCOUNT_DEFINE(fdtable);

struct fd_slot {
    struct file *file; /* owned; NULL: free */
    bool cloexec;
};

struct fdtable {
    struct ref ref;
    struct mutex mu; /* rank FDTABLE: guards the rest */
    struct fd_slot *slots;
    size_t size;  /* slots allocated */
    size_t count; /* used */
    size_t first; /* no slot below is free */
};

int fdtable_new(struct fdtable **out_fdt)
{
    struct fdtable *fdt = calloc(1, sizeof(*fdt));

    if (!fdt)
        return -ENOMEM;
    fdt->slots = calloc(FDTABLE_MIN, sizeof(*fdt->slots));
    if (!fdt->slots) {
        free(fdt);
        return -ENOMEM;
    }
    fdt->size = FDTABLE_MIN;
    ref_init(&fdt->ref);
    mutex_init(&fdt->mu, LOCK_RANK_FDTABLE);
    OBJCOUNT_INC(fdtable);
    *out_fdt = fdt;
    return 0;
}

/* Room for slot fd. mu held. */
static int fdtable_grow_locked(struct fdtable *fdt, size_t fd)
{
    size_t size = fdt->size;

    if (fd < size)
        return 0;
    while (size <= fd)
        size *= 2;
    struct fd_slot *slots = realloc(fdt->slots, size * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    memset(slots + fdt->size, 0, (size - fdt->size) * sizeof(*slots));
    fdt->slots = slots;
    fdt->size = size;
    return 0;
}

int fdtable_dup(struct fdtable *fdt, struct fdtable **out_fdt)
{
    struct fdtable *copy;
    size_t used = 0;
    int r = fdtable_new(&copy);

    if (r)
        return r;
    mutex_lock(&fdt->mu);
    for (size_t i = 0; i < fdt->size; i++)
        if (fdt->slots[i].file)
            used = i + 1;
    /* Nobody else knows the copy, so its lock (same rank, any address) is not needed. */
    if (used)
        r = fdtable_grow_locked(copy, used - 1);
    for (size_t i = 0; !r && i < used; i++) {
        copy->slots[i] = fdt->slots[i];
        if (copy->slots[i].file)
            file_get(copy->slots[i].file);
    }
    if (!r) {
        copy->count = fdt->count;
        copy->first = MIN(fdt->first, copy->size);
    }
    mutex_unlock(&fdt->mu);
    if (r) {
        fdtable_put(copy, NULL);
        return r;
    }
    *out_fdt = copy;
    return 0;
}

struct fdtable *fdtable_get(struct fdtable *fdt)
{
    ref_get(&fdt->ref);
    return fdt;
}

bool fdtable_shared(const struct fdtable *fdt)
{
    return ref_read(&fdt->ref) > 1;
}

/* What close(2) does to a file taken out of a table. No lock held. */
static int fdtable_drop_file(struct fdtable *fdt, struct file *f, const struct vfs_caller *c)
{
    int r = 0;

    if (f->ops->flush && c)
        r = f->ops->flush(f, c);
    vfs_lock_drop_owner(f, fdt);
    if (UNLIKELY(atomic_load(&f->dnotify) != NULL))
        file_notify_drop(f, fdt);
    file_put_closed(f, c);
    return r;
}

void fdtable_put(struct fdtable *fdt, const struct vfs_caller *c)
{
    if (!fdt || !ref_put(&fdt->ref))
        return;
    for (size_t i = 0; i < fdt->size; i++)
        if (fdt->slots[i].file)
            (void)fdtable_drop_file(fdt, fdt->slots[i].file, c);
    mutex_destroy(&fdt->mu);
    free(fdt->slots);
    OBJCOUNT_DEC(fdtable);
    free(fdt);
}

static struct fd_slot *fdtable_slot_locked(struct fdtable *fdt, int fd)
{
    if (fd < 0 || (size_t)fd >= fdt->size || !fdt->slots[fd].file)
        return NULL;
    return &fdt->slots[fd];
}

int fdtable_lookup(struct fdtable *fdt, int fd, struct file **out_file)
{
    mutex_lock(&fdt->mu);
    const struct fd_slot *s = fdtable_slot_locked(fdt, fd);
    if (s)
        *out_file = file_get(s->file);
    mutex_unlock(&fdt->mu);
    return s ? 0 : -EBADF;
}

static void fdtable_set_locked(struct fdtable *fdt, size_t fd, struct file *f, bool cloexec)
{
    fdt->slots[fd].file = file_get(f);
    fdt->slots[fd].cloexec = cloexec;
    fdt->count++;
}

/* Takes the file out of a used slot; the caller drops it after unlocking. */
static struct file *fdtable_clear_locked(struct fdtable *fdt, size_t fd)
{
    struct file *f = fdt->slots[fd].file;

    fdt->slots[fd] = (struct fd_slot){NULL, false};
    fdt->count--;
    fdt->first = MIN(fdt->first, fd);
    return f;
}

int fdtable_install(struct fdtable *fdt, struct file *f, bool cloexec, int min, uint64_t max)
{
    const size_t end = (size_t)MIN(max, (uint64_t)LIMIT_NR_OPEN);
    int r;

    if (min < 0 || (size_t)min >= end)
        return min < 0 ? -EINVAL : -EMFILE;
    mutex_lock(&fdt->mu);
    size_t fd = MAX((size_t)min, fdt->first);
    while (fd < fdt->size && fdt->slots[fd].file)
        fd++;
    if (fd >= end) {
        r = -EMFILE;
        goto out_unlock;
    }
    r = fdtable_grow_locked(fdt, fd);
    if (r)
        goto out_unlock;
    fdtable_set_locked(fdt, fd, f, cloexec);
    if ((size_t)min <= fdt->first)
        fdt->first = fd + 1;
    r = (int)fd;
out_unlock:
    mutex_unlock(&fdt->mu);
    return r;
}

int fdtable_install_at(struct fdtable *fdt, struct file *f, bool cloexec, int fd, uint64_t max,
                       const struct vfs_caller *c)
{
    struct file *old = NULL;

    if (fd < 0 || (uint64_t)fd >= MIN(max, (uint64_t)LIMIT_NR_OPEN))
        return -EBADF;
    mutex_lock(&fdt->mu);
    int r = fdtable_grow_locked(fdt, (size_t)fd);
    if (!r) {
        if (fdt->slots[fd].file)
            old = fdtable_clear_locked(fdt, (size_t)fd);
        fdtable_set_locked(fdt, (size_t)fd, f, cloexec);
    }
    mutex_unlock(&fdt->mu);
    if (old)
        (void)fdtable_drop_file(fdt, old, c);
    return r ? r : fd;
}

int fdtable_close(struct fdtable *fdt, int fd, const struct vfs_caller *c)
{
    struct file *f = NULL;

    mutex_lock(&fdt->mu);
    if (fdtable_slot_locked(fdt, fd))
        f = fdtable_clear_locked(fdt, (size_t)fd);
    mutex_unlock(&fdt->mu);
    return f ? fdtable_drop_file(fdt, f, c) : -EBADF;
}

/* Closes one descriptor in [*from, last] for which want says yes; false at the end. */
static bool fdtable_close_next(struct fdtable *fdt, size_t *from, size_t last, bool cloexec_only,
                               const struct vfs_caller *c)
{
    struct file *f = NULL;

    mutex_lock(&fdt->mu);
    for (; *from < fdt->size && *from <= last && !f; (*from)++) {
        const struct fd_slot *s = &fdt->slots[*from];
        if (s->file && (s->cloexec || !cloexec_only))
            f = fdtable_clear_locked(fdt, *from);
    }
    mutex_unlock(&fdt->mu);
    if (f)
        (void)fdtable_drop_file(fdt, f, c);
    return f != NULL;
}

void fdtable_close_range(struct fdtable *fdt, unsigned first, unsigned last, bool cloexec_only,
                         const struct vfs_caller *c)
{
    size_t from = first;

    if (!cloexec_only) {
        while (fdtable_close_next(fdt, &from, last, false, c))
            ;
        return;
    }
    mutex_lock(&fdt->mu);
    for (; from < fdt->size && from <= last; from++)
        if (fdt->slots[from].file)
            fdt->slots[from].cloexec = true;
    mutex_unlock(&fdt->mu);
}

void fdtable_exec(struct fdtable *fdt, const struct vfs_caller *c)
{
    size_t from = 0;

    while (fdtable_close_next(fdt, &from, SIZE_MAX, true, c))
        ;
}

int fdtable_get_cloexec(struct fdtable *fdt, int fd, bool *out)
{
    mutex_lock(&fdt->mu);
    const struct fd_slot *s = fdtable_slot_locked(fdt, fd);
    if (s)
        *out = s->cloexec;
    mutex_unlock(&fdt->mu);
    return s ? 0 : -EBADF;
}

int fdtable_set_cloexec(struct fdtable *fdt, int fd, bool on)
{
    mutex_lock(&fdt->mu);
    struct fd_slot *s = fdtable_slot_locked(fdt, fd);
    if (s)
        s->cloexec = on;
    mutex_unlock(&fdt->mu);
    return s ? 0 : -EBADF;
}

int fdtable_next(struct fdtable *fdt, int from)
{
    int r = -ENOENT;

    mutex_lock(&fdt->mu);
    for (size_t i = from < 0 ? 0 : (size_t)from; i < fdt->size && r < 0; i++)
        if (fdt->slots[i].file)
            r = (int)i;
    mutex_unlock(&fdt->mu);
    return r;
}

size_t fdtable_count(struct fdtable *fdt)
{
    mutex_lock(&fdt->mu);
    const size_t n = fdt->count;
    mutex_unlock(&fdt->mu);
    return n;
}

size_t fdtable_size(struct fdtable *fdt)
{
    mutex_lock(&fdt->mu);
    const size_t n = fdt->size;
    mutex_unlock(&fdt->mu);
    return n;
}
