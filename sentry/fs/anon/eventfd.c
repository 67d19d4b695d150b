#include "sentry/fs/anon/eventfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "sentry/errno_internal.h"

#define EVENTFD_MAX (UINT64_MAX - 1)

struct eventfd {
    struct mutex mu; /* rank PIPE */
    uint64_t count;
    bool semaphore;
    struct waitq wq;
};

static struct eventfd *eventfd_of(const struct file *f)
{
    return f->priv;
}

static bool eventfd_can_read(struct eventfd *e)
{
    mutex_lock(&e->mu);
    bool yes = e->count > 0;
    mutex_unlock(&e->mu);
    return yes;
}

static bool eventfd_can_write(struct eventfd *e, uint64_t v)
{
    mutex_lock(&e->mu);
    bool yes = EVENTFD_MAX - e->count >= v;
    mutex_unlock(&e->mu);
    return yes;
}

static bool eventfd_take(struct eventfd *e, uint64_t *out)
{
    mutex_lock(&e->mu);
    bool got = e->count > 0;
    *out = e->semaphore ? 1 : e->count;
    if (got)
        e->count -= *out;
    mutex_unlock(&e->mu);
    return got;
}

static bool eventfd_give(struct eventfd *e, uint64_t v)
{
    mutex_lock(&e->mu);
    bool fits = EVENTFD_MAX - e->count >= v;
    if (fits)
        e->count += v;
    mutex_unlock(&e->mu);
    return fits;
}

static bool eventfd_may_wait(const struct file *f, const struct vfs_caller *c)
{
    return (atomic_load(&f->flags) & O_NONBLOCK) == 0 && c->blocker != NULL;
}

static int64_t eventfd_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct eventfd *e = eventfd_of(f);
    uint64_t v;
    int err;

    (void)pos;
    if (u->left < sizeof(v))
        return -EINVAL;
    while (!eventfd_take(e, &v)) {
        if (!eventfd_may_wait(f, c))
            return -EAGAIN;
        WAIT_EVENT(&e->wq, c->blocker, EPOLLIN, DEADLINE_NEVER, eventfd_can_read(e), err);
        if (err != 0)
            return -ERESTARTSYS;
    }
    (void)waitq_wake(&e->wq, EPOLLOUT | EPOLLWRNORM);
    return uio_copy_to(u, &v, sizeof(v));
}

static int64_t eventfd_write(struct file *f, struct uio *u, int64_t *pos,
                             const struct vfs_caller *c)
{
    struct eventfd *e = eventfd_of(f);
    uint64_t v;
    int err;

    (void)pos;
    if (u->left < sizeof(v))
        return -EINVAL;
    int64_t n = uio_copy_from(u, &v, sizeof(v));
    if (n != (int64_t)sizeof(v))
        return n < 0 ? n : -EFAULT;
    if (v == UINT64_MAX)
        return -EINVAL;
    while (!eventfd_give(e, v)) {
        if (!eventfd_may_wait(f, c))
            return -EAGAIN;
        WAIT_EVENT(&e->wq, c->blocker, EPOLLOUT, DEADLINE_NEVER, eventfd_can_write(e, v), err);
        if (err != 0)
            return -ERESTARTSYS;
    }
    if (v > 0)
        (void)waitq_wake(&e->wq, EPOLLIN | EPOLLRDNORM);
    return n;
}

static uint32_t eventfd_poll(struct file *f, struct waiter *w)
{
    struct eventfd *e = eventfd_of(f);
    uint32_t events = 0;

    if (w != NULL)
        waitq_add(&e->wq, w);
    mutex_lock(&e->mu);
    if (e->count > 0)
        events |= EPOLLIN | EPOLLRDNORM;
    if (e->count < EVENTFD_MAX)
        events |= EPOLLOUT | EPOLLWRNORM;
    mutex_unlock(&e->mu);
    return events;
}

static void eventfd_release(struct file *f)
{
    struct eventfd *e = eventfd_of(f);

    waitq_fini(&e->wq);
    mutex_destroy(&e->mu);
    free(e);
}

static void eventfd_show(struct file *f, char *buf, size_t size)
{
    struct eventfd *e = eventfd_of(f);

    mutex_lock(&e->mu);
    (void)snprintf(buf, size, "eventfd-count: %16llx\n", (unsigned long long)e->count);
    mutex_unlock(&e->mu);
}

static const struct file_ops eventfd_ops = {
    .seek = vfs_seek_noop,
    .read = eventfd_read,
    .write = eventfd_write,
    .poll = eventfd_poll,
    .release = eventfd_release,
    .show_fdinfo = eventfd_show,
};

bool eventfd_is(const struct file *f)
{
    return f->ops == &eventfd_ops;
}

void eventfd_signal(struct file *f)
{
    struct eventfd *e = eventfd_of(f);

    if (eventfd_give(e, 1))
        (void)waitq_wake(&e->wq, EPOLLIN | EPOLLRDNORM);
}

int eventfd_new(uint64_t count, bool semaphore, uint32_t flags, struct file **out_file)
{
    struct eventfd *e = calloc(1, sizeof(*e));

    if (e == NULL)
        return -ENOMEM;
    mutex_init(&e->mu, LOCK_RANK_PIPE);
    waitq_init(&e->wq);
    e->count = count;
    e->semaphore = semaphore;
    int r = vfs_anon_file("anon_inode:[eventfd]", 0600, &eventfd_ops, e, O_RDWR | flags, out_file);
    if (r != 0)
        free(e);
    return r;
}
