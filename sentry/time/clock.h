/* Clocks that guests read, and times as the kernel ABI has them; clock_gettime(2).
 * Depends on: base, wait.
 * Threading: any thread, no state.
 * Ownership: values only. */
#ifndef RINGWALL_SENTRY_TIME_CLOCK_H
#define RINGWALL_SENTRY_TIME_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/wait/wait.h"

#define NSEC_PER_SEC INT64_C(1000000000)
#define NSEC_PER_USEC INT64_C(1000)
/* Largest time that is told apart from "never": that of a signed 64-bit count of nanoseconds. */
#define CLOCK_NS_MAX INT64_MAX

/* struct timespec, timeval and itimerspec of the 64-bit ABI. */
struct lx_timespec {
    int64_t sec, nsec;
};
struct lx_timeval {
    int64_t sec, usec;
};
struct lx_itimerspec {
    struct lx_timespec interval, value;
};
struct lx_itimerval {
    struct lx_timeval interval, value;
};

/* Clocks of the machine: CLOCK_REALTIME to CLOCK_TAI. Those of processes are the kernel's. */
bool clock_is_known(int clock);
/* ns since the clock's epoch; -EINVAL for one that is not known. */
MUST_CHECK int clock_read(int clock, int64_t *out_ns);
/* ns: 1 for all but the coarse ones. -EINVAL. */
MUST_CHECK int clock_resolution(int clock, int64_t *out_ns);
/* A known clock that timers and sleeps may use: not the coarse and raw ones. */
bool clock_can_sleep(int clock);
/* The moment at which a known clock shows abs_ns, as far as it can be told now; a past one is now
 * or earlier. CLOCK_NS_MAX gives DEADLINE_NEVER. */
deadline_t clock_deadline(int clock, int64_t abs_ns);
/* mono_now() + rel_ns without overflow. */
deadline_t deadline_after(int64_t rel_ns);

/* Times from the guest: false when nsec is out of range or sec is negative. */
bool lx_timespec_valid(const struct lx_timespec *ts);
bool lx_timeval_valid(const struct lx_timeval *tv);
/* Of a valid time, saturated at CLOCK_NS_MAX. */
int64_t lx_timespec_ns(const struct lx_timespec *ts);
int64_t lx_timeval_ns(const struct lx_timeval *tv);
struct lx_timespec lx_timespec_from(int64_t ns);
struct lx_timeval lx_timeval_from(int64_t ns);

#endif
