/* timerfd_create(2), timerfd_settime(2), timerfd_gettime(2). */
#include <errno.h>
#include <linux/capability.h>
#include <sys/timerfd.h>
#include <time.h>

#include "sentry/fs/anon/timerfd.h"
#include "sentry/kernel/timer.h"
#include "syscalls/handlers.h"

/* Waking a suspended machine is not the sandbox's business; the clock is the same. */
static int timerfd_clock_asked(struct task *t, int clock)
{
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_MONOTONIC:
    case CLOCK_BOOTTIME:
        return clock;
    case CLOCK_REALTIME_ALARM:
    case CLOCK_BOOTTIME_ALARM:
        if (!task_capable(t, CAP_WAKE_ALARM))
            return -EPERM;
        return clock == CLOCK_REALTIME_ALARM ? CLOCK_REALTIME : CLOCK_BOOTTIME;
    default:
        return -EINVAL;
    }
}

int64_t sys_timerfd_create(struct task *t, int clock, int flags)
{
    struct file *f;

    if (flags & ~(TFD_CLOEXEC | TFD_NONBLOCK))
        return -EINVAL;
    clock = timerfd_clock_asked(t, clock);
    if (clock < 0)
        return clock;
    int r = timerfd_new(kernel_timer_service(t->k), clock, (uint32_t)flags, &f);
    if (r)
        return r;
    r = task_fd_install(t, f, flags & TFD_CLOEXEC, 0);
    file_put(f);
    return r;
}

static int timerfd_copyout(struct task *t, uaddr_t addr, const struct timerfd_spec *s)
{
    const struct lx_itimerspec lx = {.interval = lx_timespec_from(s->interval),
                                     .value = lx_timespec_from(s->value)};

    return copyout_obj(&t->ua, addr, &lx);
}

int64_t sys_timerfd_settime(struct task *t, int fd, int flags, uaddr_t value, uaddr_t old)
{
    struct timerfd_spec spec, before;
    struct lx_itimerspec lx;
    struct file *f;
    int r = copyin_obj(&t->ua, &lx, value);

    if (r)
        return r;
    if (flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) || !lx_timespec_valid(&lx.value) ||
        !lx_timespec_valid(&lx.interval))
        return -EINVAL;
    spec.value = lx_timespec_ns(&lx.value);
    spec.interval = lx_timespec_ns(&lx.interval);
    r = task_file(t, fd, &f);
    if (r)
        return r;
    r = timerfd_clock(f);
    /* 0 would disarm it. */
    if (r >= 0 && (flags & TFD_TIMER_ABSTIME) && spec.value != 0)
        spec.value = MAX(task_clock_outside(t, r, spec.value), 1);
    if (r >= 0)
        r = timerfd_set(f, flags & TFD_TIMER_ABSTIME, &spec, &before);
    file_put(f);
    if (r == 0 && !uaddr_is_null(old))
        r = timerfd_copyout(t, old, &before);
    return r;
}

int64_t sys_timerfd_gettime(struct task *t, int fd, uaddr_t out)
{
    struct timerfd_spec s;
    struct file *f;
    int r = task_file(t, fd, &f);

    if (r)
        return r;
    r = timerfd_get(f, &s);
    file_put(f);
    return r ? r : timerfd_copyout(t, out, &s);
}
