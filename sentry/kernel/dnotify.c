/* Directory notification (fs/notify/dnotify of Linux), and who is told when a lease is broken. */
#include "sentry/kernel/dnotify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "sentry/kernel/fasync.h"
#include "sentry/vfs/lease.h"
#include "sentry/vfs/notify.h"

struct dnotify {
    struct notify_group group;
    struct file_signal signal;
    struct dnotify *next;      /* of the file; guard: dnotify_mu */
    const struct fdtable *fdt; /* weak: by which it was asked for */
};

_Atomic uint32_t file_notify_enabled = 1;

static struct mutex dnotify_mu = MUTEX_INITIALIZER(LOCK_RANK_FILE_LOCK);

/* The notify lock is held. */
static void dnotify_event(struct notify_group *g, const struct notify_mark *m, uint32_t mask,
                          uint32_t cookie, const char *name)
{
    (void)m, (void)cookie, (void)name;
    if (mask & (NOTIFY_ALL | NOTIFY_OVERFLOW))
        file_signal_raise(&container_of(g, struct dnotify, group)->signal);
}

static uint32_t dnotify_mask(uint32_t events)
{
    uint32_t mask = events & DN_MULTISHOT ? 0 : NOTIFY_ONESHOT;

    if (events & DN_ACCESS)
        mask |= NOTIFY_ACCESS;
    if (events & DN_MODIFY)
        mask |= NOTIFY_MODIFY;
    if (events & DN_CREATE)
        mask |= NOTIFY_CREATE | NOTIFY_MOVED_TO;
    if (events & DN_DELETE)
        mask |= NOTIFY_DELETE | NOTIFY_MOVED_FROM;
    if (events & DN_RENAME)
        mask |= NOTIFY_MOVED_FROM;
    if (events & DN_ATTRIB)
        mask |= NOTIFY_ATTRIB;
    return mask;
}

static void dnotify_free(struct dnotify *d)
{
    notify_group_fini(&d->group);
    file_signal_fini(&d->signal);
    free(d);
}

/* Takes out what was asked for by way of fdt (NULL: the first there is). */
static struct dnotify *dnotify_take(struct file *f, const struct fdtable *fdt)
{
    struct dnotify *d, *before = NULL;

    mutex_lock(&dnotify_mu);
    for (d = atomic_load(&f->dnotify); d && fdt && d->fdt != fdt; d = d->next)
        before = d;
    if (d && before)
        before->next = d->next;
    else if (d)
        atomic_store(&f->dnotify, d->next);
    mutex_unlock(&dnotify_mu);
    return d;
}

void file_notify_drop(struct file *f, const struct fdtable *fdt)
{
    struct dnotify *d = dnotify_take(f, fdt);

    if (d)
        dnotify_free(d);
}

static void dnotify_put(struct file *f, struct dnotify *d)
{
    mutex_lock(&dnotify_mu);
    d->next = atomic_load(&f->dnotify);
    atomic_store(&f->dnotify, d);
    mutex_unlock(&dnotify_mu);
}

static int dnotify_new(struct task *t, struct file *f, int fd, struct dnotify **out)
{
    struct dnotify *d = calloc(1, sizeof(*d));

    if (!d)
        return -ENOMEM;
    const int r = file_signal_init(&d->signal, t, f, fd);
    if (r) {
        free(d);
        return r;
    }
    notify_group_init(&d->group);
    d->group.event = dnotify_event;
    d->fdt = t->fdt;
    *out = d;
    return 0;
}

int file_notify(struct task *t, struct file *f, int fd, uint32_t events)
{
    struct dnotify *d;
    struct file *now;
    int r = 0;

    if (!atomic_load(&file_notify_enabled))
        return -EINVAL;
    if ((events & ~(uint32_t)DN_MULTISHOT) == 0) {
        file_notify_drop(f, t->fdt);
        return 0;
    }
    if (!S_ISDIR(f->inode->mode))
        return -ENOTDIR;
    d = dnotify_take(f, t->fdt);
    if (!d)
        r = dnotify_new(t, f, fd, &d);
    if (r)
        return r;
    /* What was asked for before stays; it is forgotten when it was to be told once, and was. */
    r = notify_mark_set(&d->group, f->inode, NULL, dnotify_mask(events), true, false);
    if (r < 0) {
        dnotify_free(d);
        return r;
    }
    file_owner_default(t, f);
    dnotify_put(f, d);
    /* Another thread closed fd meanwhile and found nothing to end. */
    bool open = fdtable_lookup(t->fdt, fd, &now) == 0;
    if (open) {
        open = now == f;
        file_put(now);
    }
    if (!open)
        file_notify_drop(f, t->fdt);
    return 0;
}

/* ---- leases ---- */

struct lease_signal {
    struct lease_holder holder;
    struct file_signal signal;
};

static void lease_signal_tell(struct lease_holder *h)
{
    file_signal_raise(&container_of(h, struct lease_signal, holder)->signal);
}

static void lease_signal_end(struct lease_holder *h)
{
    struct lease_signal *s = container_of(h, struct lease_signal, holder);

    file_signal_fini(&s->signal);
    free(s);
}

int file_set_lease(struct task *t, struct file *f, int fd, int type, const struct vfs_caller *c)
{
    struct lease_holder *none = NULL;

    if (type == F_UNLCK)
        return lease_set(f, type, &none, c);
    struct lease_signal *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->holder.tell = lease_signal_tell;
    s->holder.end = lease_signal_end;
    struct lease_holder *h = &s->holder;
    int r = file_signal_init(&s->signal, t, f, fd);
    if (r) {
        free(s);
        return r;
    }
    r = lease_set(f, type, &h, c);
    if (h)
        lease_signal_end(h);
    else
        file_owner_default(t, f);
    return r;
}
