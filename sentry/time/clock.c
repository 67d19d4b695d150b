#include "sentry/time/clock.h"

#include <errno.h>
#include <time.h>

bool clock_is_known(int clock)
{
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
    case CLOCK_REALTIME_ALARM:
    case CLOCK_BOOTTIME_ALARM:
    case CLOCK_TAI:
        return true;
    default:
        return false;
    }
}

/* The alarm clocks read as what they wake up from; the host may refuse them by name. */
static clockid_t clock_plain(int clock)
{
    switch (clock) {
    case CLOCK_REALTIME_ALARM:
        return CLOCK_REALTIME;
    case CLOCK_BOOTTIME_ALARM:
        return CLOCK_BOOTTIME;
    default:
        return clock;
    }
}

int clock_read(int clock, int64_t *out_ns)
{
    struct timespec ts;

    if (!clock_is_known(clock) || clock_gettime(clock_plain(clock), &ts) != 0)
        return -EINVAL;
    *out_ns = ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
    return 0;
}

int clock_resolution(int clock, int64_t *out_ns)
{
    struct timespec ts;

    if (!clock_is_known(clock) || clock_getres(clock_plain(clock), &ts) != 0)
        return -EINVAL;
    *out_ns = ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
    return 0;
}

bool clock_can_sleep(int clock)
{
    return clock_is_known(clock) && clock != CLOCK_MONOTONIC_RAW &&
           clock != CLOCK_REALTIME_COARSE && clock != CLOCK_MONOTONIC_COARSE;
}

deadline_t deadline_after(int64_t rel_ns)
{
    uint64_t now = mono_now();

    if (rel_ns <= 0)
        return now;
    if (rel_ns >= CLOCK_NS_MAX - (int64_t)now)
        return DEADLINE_NEVER;
    return now + (uint64_t)rel_ns;
}

deadline_t clock_deadline(int clock, int64_t abs_ns)
{
    int64_t now;

    if (abs_ns == CLOCK_NS_MAX)
        return DEADLINE_NEVER;
    if (clock == CLOCK_MONOTONIC)
        return abs_ns > 0 ? (deadline_t)abs_ns : 0;
    if (clock_read(clock, &now) != 0)
        return 0;
    /* Both are at least 0, so the difference fits. */
    return deadline_after(MAX(abs_ns, 0) - MAX(now, 0));
}

bool lx_timespec_valid(const struct lx_timespec *ts)
{
    return ts->sec >= 0 && ts->nsec >= 0 && ts->nsec < NSEC_PER_SEC;
}

bool lx_timeval_valid(const struct lx_timeval *tv)
{
    return tv->sec >= 0 && tv->usec >= 0 && tv->usec < NSEC_PER_SEC / NSEC_PER_USEC;
}

int64_t lx_timespec_ns(const struct lx_timespec *ts)
{
    if (ts->sec >= CLOCK_NS_MAX / NSEC_PER_SEC)
        return CLOCK_NS_MAX;
    return ts->sec * NSEC_PER_SEC + ts->nsec;
}

int64_t lx_timeval_ns(const struct lx_timeval *tv)
{
    const struct lx_timespec ts = {.sec = tv->sec, .nsec = tv->usec * NSEC_PER_USEC};

    return lx_timespec_ns(&ts);
}

struct lx_timespec lx_timespec_from(int64_t ns)
{
    return (struct lx_timespec){.sec = ns / NSEC_PER_SEC, .nsec = ns % NSEC_PER_SEC};
}

struct lx_timeval lx_timeval_from(int64_t ns)
{
    return (struct lx_timeval){.sec = ns / NSEC_PER_SEC, .usec = ns % NSEC_PER_SEC / NSEC_PER_USEC};
}
