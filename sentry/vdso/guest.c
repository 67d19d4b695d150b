/* Guest code: the functions of our vDSO. It runs in hostile address spaces with the guest's rights
 * and has no secrets; the table in front of the image says where the host's functions are. */
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "sentry/vdso/table.h"

#define NSEC_PER_SEC 1000000000

extern const struct vdso_table vdso_table __attribute__((visibility("hidden")));

static long vdso_call2(long nr, long a, long b)
{
    long r;

    __asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b) : "rcx", "r11", "memory");
    return r;
}

int __vdso_clock_gettime(clockid_t clock, struct timespec *ts);
int __vdso_gettimeofday(struct timeval *tv, struct timezone *tz);
int __vdso_clock_getres(clockid_t clock, struct timespec *ts);
time_t __vdso_time(time_t *t);
long __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused);

/* time_namespaces(7): the clocks that count from boot. */
static void vdso_shift(clockid_t clock, struct timespec *ts)
{
    const struct vdso_offset *off;

    if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_MONOTONIC_COARSE)
        off = &vdso_table.mono;
    else if (clock == CLOCK_BOOTTIME)
        off = &vdso_table.boot;
    else
        return;
    ts->tv_sec += off->sec;
    ts->tv_nsec += off->nsec;
    if (ts->tv_nsec >= NSEC_PER_SEC) {
        ts->tv_nsec -= NSEC_PER_SEC;
        ts->tv_sec++;
    }
}

int __vdso_clock_gettime(clockid_t clock, struct timespec *ts)
{
    int (*fn)(clockid_t, struct timespec *) =
        (int (*)(clockid_t, struct timespec *))vdso_table.clock_gettime;

    /* CPU-time clocks are the sentry's own, and so are those that wake a machine up: the host may
     * answer them by a system call of its own, which knows no offset. */
    if (fn == 0 || clock < 0 || clock == CLOCK_BOOTTIME_ALARM)
        return (int)vdso_call2(SYS_clock_gettime, clock, (long)ts);
    const int r = fn(clock, ts);
    if (r == 0)
        vdso_shift(clock, ts);
    return r;
}

int __vdso_gettimeofday(struct timeval *tv, struct timezone *tz)
{
    int (*fn)(struct timeval *, struct timezone *) =
        (int (*)(struct timeval *, struct timezone *))vdso_table.gettimeofday;

    if (fn != 0)
        return fn(tv, tz);
    return (int)vdso_call2(SYS_gettimeofday, (long)tv, (long)tz);
}

int __vdso_clock_getres(clockid_t clock, struct timespec *ts)
{
    int (*fn)(clockid_t, struct timespec *) =
        (int (*)(clockid_t, struct timespec *))vdso_table.clock_getres;

    if (fn != 0 && clock >= 0)
        return fn(clock, ts);
    return (int)vdso_call2(SYS_clock_getres, clock, (long)ts);
}

time_t __vdso_time(time_t *t)
{
    time_t (*fn)(time_t *) = (time_t(*)(time_t *))vdso_table.time;

    if (fn != 0)
        return fn(t);
    return vdso_call2(SYS_time, (long)t, 0);
}

long __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused)
{
    (void)unused;
    return vdso_call2(SYS_getcpu, (long)cpu, (long)node);
}

int clock_gettime(clockid_t clock, struct timespec *ts)
    __attribute__((weak, alias("__vdso_clock_gettime")));
int clock_getres(clockid_t clock, struct timespec *ts)
    __attribute__((weak, alias("__vdso_clock_getres")));
time_t time(time_t *t) __attribute__((weak, alias("__vdso_time")));
long getcpu(unsigned *cpu, unsigned *node, void *unused)
    __attribute__((weak, alias("__vdso_getcpu")));
