/* Limits and usage: getrlimit, setrlimit, prlimit64, getrusage, times. */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_usage.h"

#define NS_PER_TICK 10000000u /* clock_t is 1/100 s */

int64_t sys_getrlimit(struct task *t, unsigned resource, uaddr_t out)
{
    uint64_t old[2];

    if (resource > INT32_MAX)
        return -EINVAL;
    int r = task_prlimit(t, t, (int)resource, NULL, old);
    if (r)
        return r;
    return copyout_obj(&t->ua, out, &old);
}

int64_t sys_setrlimit(struct task *t, unsigned resource, uaddr_t in)
{
    uint64_t want[2];
    int r = copyin_obj(&t->ua, &want, in);

    if (r)
        return r;
    if (resource > INT32_MAX)
        return -EINVAL;
    return task_prlimit(t, t, (int)resource, want, NULL);
}

int64_t sys_prlimit64(struct task *t, int pid, unsigned resource, uaddr_t in, uaddr_t out)
{
    uint64_t want[2], old[2];
    struct task *o;
    int r;

    if (resource > INT32_MAX)
        return -EINVAL;
    if (!uaddr_is_null(in)) {
        r = copyin_obj(&t->ua, &want, in);
        if (r)
            return r;
    }
    r = task_find(t, pid, &o);
    if (r)
        return r;
    r = task_prlimit(t, o, (int)resource, uaddr_is_null(in) ? NULL : want, old);
    task_put(o);
    if (!r && !uaddr_is_null(out))
        r = copyout_obj(&t->ua, out, &old);
    return r;
}

/* ---- usage ---- */

int usage_copyout(struct task *t, uaddr_t to, const struct task_usage_out *u)
{
    struct rusage ru;

    memset(&ru, 0, sizeof(ru));
    ru.ru_utime.tv_sec = (time_t)(u->utime_ns / 1000000000u);
    ru.ru_utime.tv_usec = (suseconds_t)(u->utime_ns / 1000u % 1000000u);
    ru.ru_stime.tv_sec = (time_t)(u->stime_ns / 1000000000u);
    ru.ru_stime.tv_usec = (suseconds_t)(u->stime_ns / 1000u % 1000000u);
    ru.ru_maxrss = (long)(u->max_rss / 1024u);
    ru.ru_minflt = (long)u->min_flt;
    ru.ru_majflt = (long)u->maj_flt;
    ru.ru_nvcsw = (long)u->vol_switches;
    ru.ru_nivcsw = (long)u->invol_switches;
    return copyout_obj(&t->ua, to, &ru);
}

int64_t sys_getrusage(struct task *t, int who, uaddr_t out)
{
    struct task_usage_out u;

    switch (who) {
    case RUSAGE_SELF:
        task_get_usage(t, TASK_USAGE_SELF, &u);
        break;
    case RUSAGE_CHILDREN:
        task_get_usage(t, TASK_USAGE_CHILDREN, &u);
        break;
    case RUSAGE_THREAD:
        task_get_usage(t, TASK_USAGE_THREAD, &u);
        break;
    default:
        return -EINVAL;
    }
    return usage_copyout(t, out, &u);
}

int64_t sys_times(struct task *t, uaddr_t out)
{
    struct task_usage_out self, children;

    if (!uaddr_is_null(out)) {
        task_get_usage(t, TASK_USAGE_SELF, &self);
        task_get_usage(t, TASK_USAGE_CHILDREN, &children);
        const int64_t tms[4] = {
            (int64_t)(self.utime_ns / NS_PER_TICK), (int64_t)(self.stime_ns / NS_PER_TICK),
            (int64_t)(children.utime_ns / NS_PER_TICK), (int64_t)(children.stime_ns / NS_PER_TICK)};
        int r = copyout_obj(&t->ua, out, &tms);
        if (r)
            return r;
    }
    return (int64_t)(mono_now() / NS_PER_TICK);
}
