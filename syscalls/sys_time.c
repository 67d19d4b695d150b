/* Clocks, sleeping, interval timers, POSIX timers. The clocks are the host's: they cannot be set.
 */
#include <errno.h>
#include <linux/capability.h>
#include <sys/timex.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "sentry/kernel/timer.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_time.h"

#define CLOCKFD 3

/* ---- reading ---- */

int64_t sys_clock_gettime(struct task *t, int clock, uaddr_t out)
{
    int64_t ns = 0;
    int r = task_clock_read(t, clock, &ns);

    if (r != 0)
        return r;
    const struct lx_timespec ts = lx_timespec_from(ns);
    return copyout_obj(&t->ua, out, &ts);
}

int64_t sys_clock_getres(struct task *t, int clock, uaddr_t out)
{
    int64_t ns = 0;
    int r = task_clock_res(t, clock, &ns);

    if (r != 0 || uaddr_is_null(out))
        return r;
    const struct lx_timespec ts = lx_timespec_from(ns);
    return copyout_obj(&t->ua, out, &ts);
}

int64_t sys_gettimeofday(struct task *t, uaddr_t tv, uaddr_t tz)
{
    /* struct timezone; the kernel's own is always zero here. */
    const int32_t zone[2] = {0, 0};
    int64_t ns = 0;
    int r = 0;

    if (!uaddr_is_null(tv)) {
        r = task_clock_read(t, CLOCK_REALTIME, &ns);
        const struct lx_timeval now = lx_timeval_from(ns);
        if (r == 0)
            r = copyout_obj(&t->ua, tv, &now);
    }
    if (r == 0 && !uaddr_is_null(tz))
        r = copyout(&t->ua, tz, zone, sizeof(zone));
    return r;
}

int64_t sys_time(struct task *t, uaddr_t out)
{
    int64_t ns = 0;
    int r = task_clock_read(t, CLOCK_REALTIME_COARSE, &ns);

    if (r != 0)
        return r;
    const int64_t now = ns / NSEC_PER_SEC;
    if (!uaddr_is_null(out) && copyout_obj(&t->ua, out, &now))
        return -EFAULT;
    return now;
}

/* ---- setting: refused as to somebody without the right, after the arguments were looked at ----
 */

int64_t sys_clock_settime(struct task *t, int clock, uaddr_t ts)
{
    int64_t ns = 0;

    /* Negative ids: CPU time of a task, which has a way to set it that always refuses. */
    if (clock != CLOCK_REALTIME && clock >= 0)
        return -EINVAL;
    int r = time_copyin_ns(t, ts, &ns);
    if (r == 0 && clock < 0)
        r = task_clock_read(t, clock, &ns);
    return r != 0 ? r : -EPERM;
}

int64_t sys_settimeofday(struct task *t, uaddr_t tv, uaddr_t tz)
{
    struct lx_timeval now;
    int32_t zone[2];
    int r = 0;

    if (!uaddr_is_null(tv)) {
        r = copyin_obj(&t->ua, &now, tv);
        if (r == 0 && !lx_timeval_valid(&now))
            r = -EINVAL;
    }
    if (r == 0 && !uaddr_is_null(tz))
        r = copyin(&t->ua, zone, tz, sizeof(zone));
    return r != 0 ? r : -EPERM;
}

static int64_t timex_read(struct task *t, uaddr_t addr)
{
    struct timex tx;
    int64_t ns = 0;
    int r = copyin_obj(&t->ua, &tx, addr);

    if (r != 0)
        return r;
    if (tx.modes != 0)
        return -EPERM;
    r = task_clock_read(t, CLOCK_REALTIME, &ns);
    if (r != 0)
        return r;
    /* Nothing is known of how the host disciplines its clock: not synchronised, no offset. */
    memset(&tx, 0, sizeof(tx));
    tx.status = STA_UNSYNC;
    tx.maxerror = 16000000;
    tx.esterror = 16000000;
    tx.constant = 2;
    tx.precision = 1;
    tx.tolerance = 32768000;
    tx.tick = 10000;
    tx.time.tv_sec = ns / NSEC_PER_SEC;
    tx.time.tv_usec = ns % NSEC_PER_SEC / NSEC_PER_USEC;
    r = copyout_obj(&t->ua, addr, &tx);
    return r != 0 ? r : TIME_ERROR;
}

int64_t sys_adjtimex(struct task *t, uaddr_t tx)
{
    return timex_read(t, tx);
}

/* Of the numbers below zero CLOCKFD stands for a device's clock, and there are none. */
static bool clock_counts_cpu(int clock)
{
    if (clock < 0)
        return (clock & 7) != CLOCKFD;
    return clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID;
}

int64_t sys_clock_adjtime(struct task *t, int clock, uaddr_t tx)
{
    if (clock != CLOCK_REALTIME)
        return clock_is_known(clock) || clock_counts_cpu(clock) ? -EOPNOTSUPP : -EINVAL;
    return timex_read(t, tx);
}

/* ---- sleeping ---- */

int64_t sys_nanosleep(struct task *t, uaddr_t req, uaddr_t rem)
{
    int64_t ns = 0;
    int r = time_copyin_ns(t, req, &ns);

    return r != 0 ? r : task_nanosleep(t, CLOCK_MONOTONIC, false, ns, rem);
}

int64_t sys_clock_nanosleep(struct task *t, int clock, int flags, uaddr_t req, uaddr_t rem)
{
    const bool absolute = flags & TIMER_ABSTIME;
    int64_t ns = 0;
    int r = time_copyin_ns(t, req, &ns);

    return r != 0 ? r : task_nanosleep(t, clock, absolute, ns, rem);
}

/* ---- interval timers ---- */

static int itimer_copyout(struct task *t, uaddr_t addr, const struct task_itimer *it)
{
    const struct lx_itimerval lx = {.interval = lx_timeval_from(it->interval),
                                    .value = lx_timeval_from(it->value)};

    return copyout_obj(&t->ua, addr, &lx);
}

int64_t sys_getitimer(struct task *t, int which, uaddr_t out)
{
    struct task_itimer it;
    int r = task_getitimer(t, which, &it);

    return r != 0 ? r : itimer_copyout(t, out, &it);
}

int64_t sys_setitimer(struct task *t, int which, uaddr_t value, uaddr_t old)
{
    struct task_itimer it = {0}, before;
    struct lx_itimerval lx;

    if (!uaddr_is_null(value)) {
        int r = copyin_obj(&t->ua, &lx, value);
        if (r != 0)
            return r;
        if (!lx_timeval_valid(&lx.value) || !lx_timeval_valid(&lx.interval))
            return -EINVAL;
        it.value = lx_timeval_ns(&lx.value);
        it.interval = lx_timeval_ns(&lx.interval);
    }
    int r = task_setitimer(t, which, &it, &before);
    if (r == 0 && !uaddr_is_null(old))
        r = itimer_copyout(t, old, &before);
    return r;
}

int64_t sys_alarm(struct task *t, unsigned seconds)
{
    const struct task_itimer it = {.value = (int64_t)seconds * NSEC_PER_SEC};
    struct task_itimer old;
    int r = task_setitimer(t, 0, &it, &old);

    if (r != 0)
        return r;
    /* Rounded, but an armed one never shows as 0. */
    int64_t left = old.value / NSEC_PER_SEC;
    const int64_t rest = old.value % NSEC_PER_SEC;
    if ((left == 0 && rest > 0) || rest >= NSEC_PER_SEC / 2)
        left++;
    return left;
}

/* ---- POSIX timers ---- */

int64_t sys_timer_create(struct task *t, int clock, uaddr_t event, uaddr_t out_id)
{
    struct {
        uint64_t value;
        int32_t signo, notify, tid, pad[11];
    } lx;
    _Static_assert(sizeof(lx) == 64, "struct sigevent");
    struct task_sigevent ev;
    int32_t id;
    int r = 0;

    if (!uaddr_is_null(event)) {
        r = copyin_obj(&t->ua, &lx, event);
        if (r != 0)
            return r;
        ev = (struct task_sigevent){
            .value = lx.value, .signo = lx.signo, .notify = lx.notify, .tid = lx.tid};
    }
    r = task_timer_create(t, clock, uaddr_is_null(event) ? NULL : &ev, &id);
    if (r != 0)
        return r;
    r = copyout_obj(&t->ua, out_id, &id);
    if (r != 0)
        (void)!task_timer_delete(t, id);
    return r;
}

static int timer_copyout(struct task *t, uaddr_t addr, const struct task_itimer *it)
{
    const struct lx_itimerspec lx = {.interval = lx_timespec_from(it->interval),
                                     .value = lx_timespec_from(it->value)};

    return copyout_obj(&t->ua, addr, &lx);
}

int64_t sys_timer_settime(struct task *t, int id, int flags, uaddr_t value, uaddr_t old)
{
    struct lx_itimerspec lx;
    struct task_itimer it, before;

    if (uaddr_is_null(value))
        return -EINVAL;
    int r = copyin_obj(&t->ua, &lx, value);
    if (r != 0)
        return r;
    if (!lx_timespec_valid(&lx.value) || !lx_timespec_valid(&lx.interval))
        return -EINVAL;
    it.value = lx_timespec_ns(&lx.value);
    it.interval = lx_timespec_ns(&lx.interval);
    r = task_timer_settime(t, id, flags & TIMER_ABSTIME, &it, &before);
    if (r == 0 && !uaddr_is_null(old))
        r = timer_copyout(t, old, &before);
    return r;
}

int64_t sys_timer_gettime(struct task *t, int id, uaddr_t out)
{
    struct task_itimer it;
    int r = task_timer_gettime(t, id, &it);

    return r != 0 ? r : timer_copyout(t, out, &it);
}

int64_t sys_timer_getoverrun(struct task *t, int id)
{
    return task_timer_overrun(t, id);
}

int64_t sys_timer_delete(struct task *t, int id)
{
    return task_timer_delete(t, id);
}
