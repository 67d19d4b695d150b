/* Times as arguments of calls: copied from the guest and checked.
 * Depends on: sentry/time, usercopy.
 * Threading: the task's own thread.
 * Ownership: values. */
#ifndef RINGWALL_SYSCALLS_SYS_TIME_H
#define RINGWALL_SYSCALLS_SYS_TIME_H

#include <errno.h>

#include "sentry/kernel/task.h"
#include "sentry/time/clock.h"

/* struct timespec at addr as ns. -EFAULT, -EINVAL. */
static inline MUST_CHECK int time_copyin_ns(struct task *t, uaddr_t addr, int64_t *out_ns)
{
    struct lx_timespec ts;
    int r = copyin_obj(&t->ua, &ts, addr);

    if (r != 0)
        return r;
    if (!lx_timespec_valid(&ts))
        return -EINVAL;
    *out_ns = lx_timespec_ns(&ts);
    return 0;
}

/* A relative timeout, null for none. */
static inline MUST_CHECK int time_copyin_timeout(struct task *t, uaddr_t addr,
                                                 deadline_t *out_deadline)
{
    int64_t ns = 0;

    *out_deadline = DEADLINE_NEVER;
    if (uaddr_is_null(addr))
        return 0;
    int r = time_copyin_ns(t, addr, &ns);
    if (r == 0)
        *out_deadline = deadline_after(ns);
    return r;
}

#endif
