#include "sentry/fs/anon/inotify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "base/limits.h"
#include "sentry/errno_internal.h"
#include "sentry/mm/usercopy.h"
#include "sentry/vfs/notify.h"

#define NAME_UNIT 16u /* what names are padded to: sizeof(struct inotify_event) */

struct event {
    struct list node;
    int wd;
    uint32_t mask, cookie;
    size_t name_len; /* 0: none */
    char name[];
};

struct inotify {
    struct notify_group group;
    /* Guard: the notify lock. */
    struct list events;
    unsigned count;
    uint64_t bytes;         /* of all events as read */
    struct event *overflow; /* not queued at the moment */
    struct waitq wq;
};

static _Atomic unsigned instances;

static struct inotify *inotify_of(const struct file *f)
{
    return f->priv;
}

static size_t name_space(const struct event *e)
{
    return e->name_len == 0 ? 0 : (e->name_len + NAME_UNIT) / NAME_UNIT * NAME_UNIT;
}

static size_t event_size(const struct event *e)
{
    return sizeof(struct inotify_event) + name_space(e);
}

/* ---- queueing; the notify lock is held ---- */

static bool event_same(const struct event *a, const struct event *b)
{
    return (a->mask & IN_IGNORED) == 0 && a->mask == b->mask && a->wd == b->wd &&
           a->cookie == b->cookie && a->name_len == b->name_len &&
           memcmp(a->name, b->name, a->name_len) == 0;
}

static void queue_add(struct inotify *in, struct event *e)
{
    list_add_tail(&e->node, &in->events);
    in->count++;
    in->bytes += event_size(e);
    (void)waitq_wake(&in->wq, EPOLLIN | EPOLLRDNORM);
}

static void queue_overflow(struct inotify *in)
{
    struct event *e = in->overflow;

    in->overflow = NULL;
    if (e != NULL)
        queue_add(in, e);
}

static void inotify_event(struct notify_group *g, const struct notify_mark *m, uint32_t mask,
                          uint32_t cookie, const char *name)
{
    struct inotify *in = container_of(g, struct inotify, group);
    size_t len = name != NULL ? strlen(name) : 0;
    const bool room = in->count < LIMIT_INOTIFY_QUEUE && (mask & NOTIFY_OVERFLOW) == 0;
    struct event *e = room ? calloc(1, sizeof(*e) + len + 1) : NULL;

    if (e == NULL) {
        queue_overflow(in);
        return;
    }
    e->wd = m->wd;
    e->mask = mask;
    e->cookie = cookie;
    e->name_len = len;
    memcpy(e->name, name != NULL ? name : "", len);
    if (!list_empty(&in->events) && event_same(list_last_entry(&in->events, struct event, node), e))
        free(e);
    else
        queue_add(in, e);
}

/* ---- reading ---- */

/* The first event if it fits, taken off the queue. NULL: none; *out_small: it does not fit. */
static struct event *queue_take(struct inotify *in, uint64_t room, bool *out_small)
{
    struct event *e = NULL;

    *out_small = false;
    notify_lock();
    if (!list_empty(&in->events)) {
        e = list_first_entry(&in->events, struct event, node);
        *out_small = event_size(e) > room;
        if (*out_small) {
            e = NULL;
        } else {
            list_del(&e->node);
            in->count--;
            in->bytes -= event_size(e);
        }
    }
    notify_unlock();
    return e;
}

static void event_done(struct inotify *in, struct event *e)
{
    if ((e->mask & IN_Q_OVERFLOW) == 0) {
        free(e);
        return;
    }
    notify_lock();
    in->overflow = e;
    notify_unlock();
}

static int64_t event_copy(struct uio *u, const struct event *e)
{
    static const char zeros[NAME_UNIT];
    const struct inotify_event head = {
        .wd = e->wd, .mask = e->mask, .cookie = e->cookie, .len = (uint32_t)name_space(e)};
    const size_t pad = name_space(e) - e->name_len;
    int64_t n = uio_copy_to(u, &head, sizeof(head));

    if (n == (int64_t)sizeof(head) && e->name_len > 0) {
        n = uio_copy_to(u, e->name, e->name_len);
        if (n == (int64_t)e->name_len)
            n = uio_copy_to(u, zeros, pad) == (int64_t)pad ? 0 : -EFAULT;
        else
            n = -EFAULT;
    } else if (n == (int64_t)sizeof(head)) {
        n = 0;
    } else {
        n = -EFAULT;
    }
    return n != 0 ? n : (int64_t)event_size(e);
}

static int64_t read_some(struct inotify *in, struct uio *u)
{
    int64_t done = 0, n = 0;
    struct event *e;
    bool small;

    while ((e = queue_take(in, u->left, &small)) != NULL) {
        n = event_copy(u, e);
        event_done(in, e);
        if (n < 0)
            break;
        done += n;
    }
    return done > 0 ? done : n < 0 ? n : small ? -EINVAL : 0;
}

static bool has_events(struct inotify *in)
{
    notify_lock();
    bool some = !list_empty(&in->events);
    notify_unlock();
    return some;
}

static int64_t inotify_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct inotify *in = inotify_of(f);
    int64_t n;
    int err;

    (void)pos;
    while ((n = read_some(in, u)) == 0) {
        if ((atomic_load(&f->flags) & O_NONBLOCK) != 0 || c->blocker == NULL)
            return -EAGAIN;
        WAIT_EVENT(&in->wq, c->blocker, EPOLLIN, DEADLINE_NEVER, has_events(in), err);
        if (err != 0)
            return -ERESTARTSYS;
    }
    return n;
}

static uint32_t inotify_poll(struct file *f, struct waiter *w)
{
    struct inotify *in = inotify_of(f);

    if (w != NULL)
        waitq_add(&in->wq, w);
    return has_events(in) ? EPOLLIN | EPOLLRDNORM : 0;
}

static int64_t inotify_ioctl(struct file *f, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                             const struct vfs_caller *c)
{
    struct inotify *in = inotify_of(f);

    (void)c;
    if (cmd != FIONREAD)
        return -ENOTTY;
    notify_lock();
    const int bytes = (int)MIN(in->bytes, (uint64_t)INT32_MAX);
    notify_unlock();
    return copyout_obj(ua, uaddr(arg), &bytes);
}

static void inotify_release(struct file *f)
{
    struct inotify *in = inotify_of(f);

    notify_group_fini(&in->group);
    while (!list_empty(&in->events)) {
        struct event *e = list_first_entry(&in->events, struct event, node);
        list_del(&e->node);
        free(e);
    }
    free(in->overflow);
    waitq_fini(&in->wq);
    free(in);
    atomic_fetch_sub(&instances, 1);
}

static void inotify_show(struct file *f, char *buf, size_t size)
{
    struct inotify *in = inotify_of(f);
    const struct notify_mark *m;
    size_t n = 0;

    buf[0] = '\0';
    notify_lock();
    list_for_each_entry (m, &in->group.marks, node) {
        int w = snprintf(
            buf + n, size - n, "inotify wd:%x ino:%llx sdev:%x mask:%x ignored_mask:0\n",
            (unsigned)m->wd, (unsigned long long)m->inode->ino,
            major(m->inode->sb->dev) << 20 | minor(m->inode->sb->dev), m->mask & IN_ALL_EVENTS);
        if (w < 0 || (size_t)w >= size - n)
            break;
        n += (size_t)w;
    }
    notify_unlock();
}

static const struct file_ops inotify_ops = {
    .seek = vfs_seek_noop,
    .read = inotify_read,
    .poll = inotify_poll,
    .ioctl = inotify_ioctl,
    .release = inotify_release,
    .show_fdinfo = inotify_show,
};

bool inotify_is(const struct file *f)
{
    return f->ops == &inotify_ops;
}

/* ---- interface ---- */

static struct inotify *inotify_alloc(void)
{
    struct inotify *in = calloc(1, sizeof(*in));
    struct event *full = calloc(1, sizeof(*full));

    if (in == NULL || full == NULL) {
        free(in);
        free(full);
        return NULL;
    }
    notify_group_init(&in->group);
    in->group.event = inotify_event;
    list_init(&in->events);
    waitq_init(&in->wq);
    full->wd = -1;
    full->mask = IN_Q_OVERFLOW;
    in->overflow = full;
    return in;
}

int inotify_new(uint32_t flags, struct file **out_file)
{
    if (atomic_fetch_add(&instances, 1) >= LIMIT_INOTIFY_INSTANCES) {
        atomic_fetch_sub(&instances, 1);
        return -EMFILE;
    }
    struct inotify *in = inotify_alloc();
    int r = in != NULL ? vfs_anon_file("anon_inode:inotify", 0600, &inotify_ops, in,
                                       O_RDONLY | flags, out_file)
                       : -ENOMEM;
    if (r == 0)
        return 0;
    if (in != NULL) {
        free(in->overflow);
        waitq_fini(&in->wq);
    }
    free(in);
    atomic_fetch_sub(&instances, 1);
    return r;
}

int inotify_watch(struct file *f, struct inode *i, uint32_t mask)
{
    return notify_mark_set(&inotify_of(f)->group, i, NULL,
                           mask & (IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT),
                           (mask & IN_MASK_ADD) != 0, (mask & IN_MASK_CREATE) != 0);
}

int inotify_unwatch(struct file *f, int wd)
{
    return notify_mark_remove(&inotify_of(f)->group, wd);
}
