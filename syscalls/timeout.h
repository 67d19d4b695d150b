/* Relative timeouts of the poll family, as deadlines of sentry/wait.
 * Depends on: sentry/kernel/task.h.
 * Threading: the task's own thread.
 * Ownership: none. */
#ifndef RINGWALL_SYSCALLS_TIMEOUT_H
#define RINGWALL_SYSCALLS_TIMEOUT_H

#include "sentry/kernel/task.h"

/* 0 s and 0 ns: 0, which means do not sleep. Overflows become DEADLINE_NEVER. */
static inline deadline_t timeout_deadline(int64_t sec, int64_t nsec)
{
    uint64_t now = mono_now(), ns;

    if (sec == 0 && nsec == 0)
        return 0;
    if (__builtin_mul_overflow((uint64_t)sec, UINT64_C(1000000000), &ns) ||
        __builtin_add_overflow(ns, (uint64_t)nsec, &ns) || __builtin_add_overflow(ns, now, &ns))
        return DEADLINE_NEVER;
    return ns;
}

/* ns till the deadline, 0 when it has passed or was 0. */
static inline uint64_t timeout_left(deadline_t deadline)
{
    uint64_t now = mono_now();

    return deadline > now ? deadline - now : 0;
}

/* A struct timespec of the guest; NULL: for ever. -EFAULT, -EINVAL. */
static inline MUST_CHECK int timeout_read(struct task *t, uaddr_t p, deadline_t *out)
{
    struct {
        int64_t sec, nsec;
    } ts;

    *out = DEADLINE_NEVER;
    if (p.v == 0)
        return 0;
    int r = copyin_obj(&t->ua, &ts, p);
    if (r != 0)
        return r;
    if (ts.sec < 0 || ts.nsec < 0 || ts.nsec >= 1000000000)
        return -22; /* EINVAL */
    *out = timeout_deadline(ts.sec, ts.nsec);
    return 0;
}

/* Writes what is left; a guest that made it read-only does not hear of it, as in Linux. */
static inline void timeout_write(struct task *t, uaddr_t p, deadline_t deadline)
{
    uint64_t left = timeout_left(deadline);
    const struct {
        int64_t sec, nsec;
    } ts = {(int64_t)(left / 1000000000u), (int64_t)(left % 1000000000u)};

    if (p.v != 0)
        (void)!copyout_obj(&t->ua, p, &ts);
}

#endif
