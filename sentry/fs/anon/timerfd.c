#include "sentry/fs/anon/timerfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/objcount.h"
#include "sentry/errno_internal.h"
#include "sentry/time/clock.h"
#include "sentry/time/timer.h"

/* An expired interval timer is not armed again before somebody looks: a guest with an interval of a
 * nanosecond costs nothing, and what was missed is counted then (fs/timerfd.c of the kernel). */
struct timerfd {
    struct mutex mu; /* rank TIMER */
    int clock;
    bool absolute;
    bool expired; /* fired and not armed again */
    deadline_t next;
    int64_t interval;
    uint64_t ticks;
    struct timer tm;
    struct waitq wq;
};

OBJCOUNT_DEFINE(timerfd);

static const struct file_ops timerfd_ops;

static struct timerfd *timerfd_of(const struct file *f)
{
    return f->priv;
}

static void timerfd_fire(struct timer *tm)
{
    struct timerfd *t = container_of(tm, struct timerfd, tm);

    mutex_lock(&t->mu);
    /* It may have been set anew while this was on its way. */
    bool due = !t->expired && t->next <= mono_now();
    if (due) {
        t->expired = true;
        t->ticks++;
    }
    mutex_unlock(&t->mu);
    if (due)
        (void)waitq_wake(&t->wq, EPOLLIN | EPOLLRDNORM);
}

/* Counts the periods that went by since the timer fired, and arms it for the next. Lock held. */
static void timerfd_catch_up(struct timerfd *t)
{
    if (!t->expired || t->interval == 0)
        return;
    uint64_t now = mono_now(), step = (uint64_t)t->interval;
    uint64_t missed = now > t->next ? (now - t->next) / step : 0;

    t->ticks += missed;
    if (__builtin_mul_overflow(missed + 1, step, &step) ||
        __builtin_add_overflow(t->next, step, &t->next))
        t->next = DEADLINE_NEVER;
    t->expired = false;
    timer_arm(&t->tm, t->next);
}

static void timerfd_get_locked(struct timerfd *t, struct timerfd_spec *out)
{
    uint64_t now;

    timerfd_catch_up(t);
    out->interval = t->interval;
    out->value = 0;
    if (t->expired || t->next == DEADLINE_NEVER)
        return;
    now = mono_now();
    /* Armed timers never show 0, which would mean that they are not. */
    uint64_t left = t->next > now ? t->next - now : 1;
    out->value = (int64_t)MIN(left, (uint64_t)CLOCK_NS_MAX);
}

int timerfd_get(struct file *f, struct timerfd_spec *out)
{
    if (f->ops != &timerfd_ops)
        return -EINVAL;
    struct timerfd *t = timerfd_of(f);
    mutex_lock(&t->mu);
    timerfd_get_locked(t, out);
    mutex_unlock(&t->mu);
    return 0;
}

int timerfd_clock(const struct file *f)
{
    return f->ops == &timerfd_ops ? timerfd_of(f)->clock : -EINVAL;
}

int timerfd_set(struct file *f, bool absolute, const struct timerfd_spec *spec,
                struct timerfd_spec *old)
{
    if (f->ops != &timerfd_ops)
        return -EINVAL;
    struct timerfd *t = timerfd_of(f);
    mutex_lock(&t->mu);
    timerfd_get_locked(t, old);
    (void)timer_disarm(&t->tm);
    t->expired = false;
    t->ticks = 0;
    t->interval = spec->interval;
    t->absolute = absolute;
    t->next = DEADLINE_NEVER;
    if (spec->value != 0) {
        t->next = absolute ? clock_deadline(t->clock, spec->value) : deadline_after(spec->value);
        timer_arm(&t->tm, t->next);
    }
    mutex_unlock(&t->mu);
    return 0;
}

/* ---- the file ---- */

static bool timerfd_take(struct timerfd *t, uint64_t *out)
{
    mutex_lock(&t->mu);
    bool any = t->ticks > 0;
    if (any) {
        timerfd_catch_up(t);
        *out = t->ticks;
        t->ticks = 0;
    }
    mutex_unlock(&t->mu);
    return any;
}

static int64_t timerfd_read(struct file *f, struct uio *u, int64_t *pos, const struct vfs_caller *c)
{
    struct timerfd *t = timerfd_of(f);
    uint64_t ticks;

    (void)pos;
    if (u->left < sizeof(ticks))
        return -EINVAL;
    if (!timerfd_take(t, &ticks)) {
        bool taken = false;
        int err;
        if (atomic_load(&f->flags) & O_NONBLOCK || !c->blocker)
            return -EAGAIN;
        WAIT_EVENT(&t->wq, c->blocker, EPOLLIN, DEADLINE_NEVER, taken = timerfd_take(t, &ticks),
                   err);
        if (!taken)
            return err ? -ERESTARTSYS : -EAGAIN;
    }
    return uio_copy_to(u, &ticks, sizeof(ticks)) == (int64_t)sizeof(ticks) ? (int64_t)sizeof(ticks)
                                                                           : -EFAULT;
}

static uint32_t timerfd_poll(struct file *f, struct waiter *w)
{
    struct timerfd *t = timerfd_of(f);

    if (w)
        waitq_add(&t->wq, w);
    mutex_lock(&t->mu);
    uint32_t events = t->ticks > 0 ? EPOLLIN | EPOLLRDNORM : 0;
    mutex_unlock(&t->mu);
    return events;
}

static void timerfd_free(struct timerfd *t)
{
    waitq_fini(&t->wq);
    mutex_destroy(&t->mu);
    OBJCOUNT_DEC(timerfd);
    free(t);
}

static void timerfd_release(struct file *f)
{
    struct timerfd *t = timerfd_of(f);

    timer_cancel(&t->tm);
    timerfd_free(t);
}

static void timerfd_show_fdinfo(struct file *f, char *buf, size_t size)
{
    struct timerfd *t = timerfd_of(f);
    struct timerfd_spec s;

    mutex_lock(&t->mu);
    timerfd_get_locked(t, &s);
    (void)snprintf(buf, size,
                   "clockid: %d\nticks: %lu\nsettime flags: 0%o\nit_value: (%ld, %ld)\n"
                   "it_interval: (%ld, %ld)\n",
                   t->clock, t->ticks, t->absolute, s.value / NSEC_PER_SEC, s.value % NSEC_PER_SEC,
                   s.interval / NSEC_PER_SEC, s.interval % NSEC_PER_SEC);
    mutex_unlock(&t->mu);
}

static const struct file_ops timerfd_ops = {
    .seek = vfs_seek_noop,
    .read = timerfd_read,
    .poll = timerfd_poll,
    .release = timerfd_release,
    .show_fdinfo = timerfd_show_fdinfo,
};

int timerfd_new(struct timer_service *s, int clock, uint32_t flags, struct file **out_file)
{
    struct timerfd *t = calloc(1, sizeof(*t));

    if (!t)
        return -ENOMEM;
    mutex_init(&t->mu, LOCK_RANK_TIMER);
    waitq_init(&t->wq);
    t->clock = clock;
    t->next = DEADLINE_NEVER;
    OBJCOUNT_INC(timerfd);
    int r = timer_init(&t->tm, s, timerfd_fire);
    if (r == 0)
        r = vfs_anon_file("anon_inode:[timerfd]", 0600, &timerfd_ops, t,
                          O_RDWR | (flags & O_NONBLOCK), out_file);
    if (r)
        timerfd_free(t);
    return r;
}
