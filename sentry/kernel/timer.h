/* Time as tasks see it: CPU clocks, sleeping, interval and POSIX timers.
 * Depends on: task.h, sentry/time.
 * Threading: t is the calling task, on its own thread with no lock held.
 * Ownership: values; the service is borrowed for the kernel's life. */
#ifndef RINGWALL_SENTRY_KERNEL_TIMER_H
#define RINGWALL_SENTRY_KERNEL_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/kernel/task.h"
#include "sentry/time/clock.h"

struct timer_service;

/* For timerfd and others that arm timers of their own (sentry/time/timer.h). Any thread. */
struct timer_service *kernel_timer_service(struct kernel *k);

/* clock_gettime(2), clock_getres(2) for every clock id, those of CPU time included. -EINVAL. */
MUST_CHECK int task_clock_read(struct task *t, int clock, int64_t *out_ns);
/* ns that t's time namespace adds to a clock. */
int64_t task_clock_ahead(struct task *t, int clock);
/* Of a time that a clock of t's shows: when it is by the clocks of the sandbox
 * (sentry/time/clock.h).
 */
int64_t task_clock_outside(struct task *t, int clock, int64_t abs_ns);
MUST_CHECK int task_clock_res(struct task *t, int clock, int64_t *out_ns);
/* clock_nanosleep(2). ns: how long, or till when if absolute. rem: where what is left goes when a
 * relative sleep is interrupted, or null. -EINVAL, -EOPNOTSUPP, -ERESTART*. */
MUST_CHECK int64_t task_nanosleep(struct task *t, int clock, bool absolute, int64_t ns,
                                  uaddr_t rem);

/* setitimer(2): which is ITIMER_*, checked here (-EINVAL). ns; value 0 disarms. */
struct task_itimer {
    int64_t value, interval;
};
MUST_CHECK int task_getitimer(struct task *t, int which, struct task_itimer *out);
MUST_CHECK int task_setitimer(struct task *t, int which, const struct task_itimer *new_it,
                              struct task_itimer *old);

/* timer_create(2). */
struct task_sigevent {
    uint64_t value;
    int32_t signo, notify, tid; /* SIGEV_* */
};
/* ev NULL: SIGALRM with the timer's id. -EINVAL, -EOPNOTSUPP, -EPERM, -EAGAIN, -ENOMEM. */
MUST_CHECK int task_timer_create(struct task *t, int clock, const struct task_sigevent *ev,
                                 int32_t *out_id);
/* -EINVAL for an id that is not there. */
MUST_CHECK int task_timer_settime(struct task *t, int32_t id, bool absolute,
                                  const struct task_itimer *new_it, struct task_itimer *old);
MUST_CHECK int task_timer_gettime(struct task *t, int32_t id, struct task_itimer *out);
MUST_CHECK int task_timer_overrun(struct task *t, int32_t id);
MUST_CHECK int task_timer_delete(struct task *t, int32_t id);

#endif
