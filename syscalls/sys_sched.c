/* Scheduling as far as a guest can see it: priorities, policies and masks are kept and shown. The
 * host's scheduler is told of masks, and who is nicer than others; nobody is better than the rest.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>

#include "base/limits.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/rseq.h"
#include "syscalls/handlers.h"

#define LX_SCHED_OTHER 0
#define LX_SCHED_FIFO 1
#define LX_SCHED_RR 2
#define LX_SCHED_BATCH 3
#define LX_SCHED_IDLE 5
#define LX_SCHED_DEADLINE 6
#define LX_RESET_ON_FORK 0x40000000
#define IOPRIO_WHO_USER_LAST 3
#define SCHED_ATTR_SIZE_VER0 48u

/* struct sched_attr; its header clashes with libc's. */
struct lx_sched_attr {
    uint32_t size, sched_policy;
    uint64_t sched_flags;
    int32_t sched_nice;
    uint32_t sched_priority;
    uint64_t sched_runtime, sched_deadline, sched_period;
    uint32_t sched_util_min, sched_util_max;
};
_Static_assert(sizeof(struct lx_sched_attr) == 56, "struct sched_attr has 56 bytes");

int64_t sys_sched_yield(struct task *t)
{
    task_rseq_yield(t);
    (void)sched_yield();
    return 0;
}

/* check_same_owner. Also with the tree held: credentials are not put then, as what hangs off them
 * may have to wait. */
static bool same_owner(struct task *t, struct task *o)
{
    mutex_lock(&o->mu);
    const bool same = o->cred && (t->cred->euid == o->cred->uid || t->cred->euid == o->cred->euid);
    mutex_unlock(&o->mu);
    return same;
}

/* CAP_SYS_NICE where o's credentials belong to. As above. */
static bool nice_over(struct task *t, struct task *o)
{
    mutex_lock(&o->mu);
    const bool may = o->cred && cred_ns_capable(t->cred, o->cred->user_ns, CAP_SYS_NICE);
    mutex_unlock(&o->mu);
    return may;
}

/* ---- nice ---- */

struct nice_query {
    struct task *t;
    int best;  /* getpriority: 20 - nice */
    int value; /* setpriority */
    int err;   /* -ESRCH till one was met */
};

static void nice_get(void *arg, struct task *o)
{
    struct nice_query *q = arg;

    q->best = MAX(q->best, 20 - (int)task_attr_get(o, TASK_ATTR_NICE));
}

static bool nice_within_limit(struct task *o, int nice)
{
    return (uint64_t)(20 - nice) <= task_rlimit(o, RLIMIT_NICE);
}

static void nice_set(void *arg, struct task *o)
{
    struct nice_query *q = arg;
    const int64_t now = task_attr_get(o, TASK_ATTR_NICE);

    if (!same_owner(q->t, o) && !nice_over(q->t, o)) {
        q->err = -EPERM;
        return;
    }
    if (q->value < now && !nice_within_limit(o, q->value) && !task_capable(q->t, CAP_SYS_NICE)) {
        q->err = -EACCES;
        return;
    }
    if (q->err == -ESRCH)
        q->err = 0;
    task_attr_set(o, TASK_ATTR_NICE, q->value);
}

static int nice_each(struct task *t, int which, int who, task_each_fn fn, struct nice_query *q)
{
    struct task *o;
    size_t n = 1;

    switch (which) {
    case PRIO_PROCESS:
        if (task_find(t, who, &o))
            return -ESRCH;
        fn(q, o);
        task_put(o);
        break;
    case PRIO_PGRP:
        n = task_each_in_pgrp(t, who, fn, q);
        break;
    case PRIO_USER:
        n = task_each_of_user(t, who ? (uint32_t)who : t->cred->uid, fn, q);
        break;
    default:
        return -EINVAL;
    }
    return n ? 0 : -ESRCH;
}

int64_t sys_getpriority(struct task *t, int which, int who)
{
    struct nice_query q = {.t = t, .best = -1};
    int r = nice_each(t, which, who, nice_get, &q);

    return r ? r : q.best;
}

int64_t sys_setpriority(struct task *t, int which, int who, int value)
{
    struct nice_query q = {.t = t, .err = -ESRCH};

    q.value = value < -20 ? -20 : value > 19 ? 19 : value;
    int r = nice_each(t, which, who, nice_set, &q);
    return r ? r : q.err;
}

/* ---- policies ---- */

static bool policy_known(int policy)
{
    return (policy >= LX_SCHED_OTHER && policy <= LX_SCHED_BATCH) || policy == LX_SCHED_IDLE;
}

static bool policy_rt(int64_t policy)
{
    return policy == LX_SCHED_FIFO || policy == LX_SCHED_RR;
}

static bool policy_fair(int policy)
{
    return policy == LX_SCHED_OTHER || policy == LX_SCHED_BATCH;
}

/* What a task is to become. */
struct sched_want {
    int policy; /* -1: what it has, with its reset */
    int prio, nice;
    bool reset;
    bool keep_nice, keep_params; /* what it has, too */
    bool deadline;               /* times that SCHED_DEADLINE could be given */
    bool clamps;                 /* bounds of the utilisation are asked for */
};

/* What stands for "as it is" is filled in. */
static void sched_complete(struct task *o, struct sched_want *w)
{
    const int policy = (int)task_attr_get(o, TASK_ATTR_SCHED_POLICY);

    if (w->policy < 0) {
        w->policy = policy;
        w->reset = task_attr_get(o, TASK_ATTR_SCHED_RESET) != 0;
    }
    if (w->keep_params && policy_rt(policy))
        w->prio = (int)task_attr_get(o, TASK_ATTR_SCHED_PRIORITY);
    else if (w->keep_params || w->keep_nice)
        w->nice = (int)task_attr_get(o, TASK_ATTR_NICE);
}

static bool sched_valid(const struct sched_want *w)
{
    if (w->policy == LX_SCHED_DEADLINE)
        return w->deadline && w->prio == 0;
    if (!policy_known(w->policy))
        return false;
    return policy_rt(w->policy) ? w->prio >= 1 && w->prio <= 99 : w->prio == 0;
}

/* user_check_sched_setscheduler(). */
static int sched_permit(struct task *t, struct task *o, const struct sched_want *w)
{
    const int policy = (int)task_attr_get(o, TASK_ATTR_SCHED_POLICY);
    const int nice = (int)task_attr_get(o, TASK_ATTR_NICE);

    /* There are no deadlines to be given, also to who might ask for them. */
    if (w->policy == LX_SCHED_DEADLINE)
        return -EPERM;
    if (task_capable(t, CAP_SYS_NICE))
        return 0;
    if (!same_owner(t, o))
        return -EPERM;
    if (policy_fair(w->policy) && w->nice < nice && !nice_within_limit(o, w->nice))
        return -EPERM;
    /* To be idle is to be nicer than nice. */
    if (policy == LX_SCHED_IDLE && w->policy != LX_SCHED_IDLE && !nice_within_limit(o, nice))
        return -EPERM;
    if (task_attr_get(o, TASK_ATTR_SCHED_RESET) && !w->reset)
        return -EPERM;
    const uint64_t limit = task_rlimit(o, RLIMIT_RTPRIO);
    if (policy_rt(w->policy)) {
        if (w->policy != policy && limit == 0)
            return -EPERM;
        if (w->prio > task_attr_get(o, TASK_ATTR_SCHED_PRIORITY) && (uint64_t)w->prio > limit)
            return -EPERM;
    }
    return 0;
}

static void sched_apply(struct task *o, const struct sched_want *w)
{
    task_attr_set(o, TASK_ATTR_SCHED_POLICY, w->policy);
    task_attr_set(o, TASK_ATTR_SCHED_PRIORITY, w->prio);
    if (policy_fair(w->policy) && !w->keep_nice)
        task_attr_set(o, TASK_ATTR_NICE, w->nice);
}

static int sched_change(struct task *t, int pid, struct sched_want w)
{
    struct task *o;

    if (pid < 0)
        return -EINVAL;
    int r = task_find(t, pid, &o);
    if (r)
        return r;
    sched_complete(o, &w);
    r = sched_valid(&w) ? sched_permit(t, o, &w) : -EINVAL;
    if (!r && w.clamps)
        r = -EOPNOTSUPP;
    if (!r) {
        task_attr_set(o, TASK_ATTR_SCHED_RESET, w.reset);
        /* The policy is one of the parameters that are kept. */
        if (!w.keep_params)
            sched_apply(o, &w);
    }
    task_put(o);
    return r;
}

int64_t sys_sched_setparam(struct task *t, int pid, uaddr_t param)
{
    struct sched_want w = {.policy = -1, .keep_nice = true};

    if (uaddr_is_null(param) || pid < 0)
        return -EINVAL;
    int r = copyin_obj(&t->ua, &w.prio, param);
    return r ? r : sched_change(t, pid, w);
}

int64_t sys_sched_setscheduler(struct task *t, int pid, int policy, uaddr_t param)
{
    struct sched_want w = {
        .policy = policy & ~LX_RESET_ON_FORK,
        .reset = policy & LX_RESET_ON_FORK,
        .keep_nice = true,
    };

    if (policy < 0 || uaddr_is_null(param) || pid < 0)
        return -EINVAL;
    int r = copyin_obj(&t->ua, &w.prio, param);
    return r ? r : sched_change(t, pid, w);
}

static int64_t sched_attr_of(struct task *t, int pid, enum task_attr a)
{
    struct task *o;

    if (pid < 0)
        return -EINVAL;
    int r = task_find(t, pid, &o);
    if (r)
        return r;
    const int64_t v = task_attr_get(o, a);
    task_put(o);
    return v;
}

int64_t sys_sched_getparam(struct task *t, int pid, uaddr_t param)
{
    if (uaddr_is_null(param))
        return -EINVAL;
    const int64_t v = sched_attr_of(t, pid, TASK_ATTR_SCHED_PRIORITY);
    if (v < 0)
        return v;
    const int32_t prio = (int32_t)v;
    return copyout_obj(&t->ua, param, &prio);
}

int64_t sys_sched_getscheduler(struct task *t, int pid)
{
    const int64_t policy = sched_attr_of(t, pid, TASK_ATTR_SCHED_POLICY);

    if (policy < 0)
        return policy;
    return policy | (sched_attr_of(t, pid, TASK_ATTR_SCHED_RESET) > 0 ? LX_RESET_ON_FORK : 0);
}

int64_t sys_sched_get_priority_max(struct task *t, int policy)
{
    (void)t;
    if (policy_rt(policy))
        return 99;
    return policy_known(policy) || policy == LX_SCHED_DEADLINE ? 0 : -EINVAL;
}

int64_t sys_sched_get_priority_min(struct task *t, int policy)
{
    (void)t;
    if (policy_rt(policy))
        return 1;
    return policy_known(policy) || policy == LX_SCHED_DEADLINE ? 0 : -EINVAL;
}

int64_t sys_sched_rr_get_interval(struct task *t, int pid, uaddr_t out)
{
    const int64_t policy = sched_attr_of(t, pid, TASK_ATTR_SCHED_POLICY);

    if (policy < 0)
        return policy;
    /* Linux's own defaults: 100 ms for round robin, none for FIFO, a fair slice else. */
    const int64_t ts[2] = {0, policy == LX_SCHED_RR     ? 100000000
                              : policy == LX_SCHED_FIFO ? 0
                                                        : 4000000};
    return copyout_obj(&t->ua, out, &ts);
}

/* ---- sched_setattr ---- */

/* __checkparam_dl() with the limits that Linux begins with: 100 us and four seconds of period. */
static bool deadline_valid(const struct lx_sched_attr *a)
{
    const uint64_t period = a->sched_period ? a->sched_period : a->sched_deadline;

    if (a->sched_deadline == 0 || a->sched_runtime < 1024)
        return false;
    if ((a->sched_deadline | a->sched_period) >> 63)
        return false;
    if (period < a->sched_deadline || a->sched_deadline < a->sched_runtime)
        return false;
    return period >= 100000 && period <= (UINT64_C(1) << 22) * 1000;
}

/* sched_copy_attr(): who gives a size that is none is told ours. */
static int setattr_copyin(struct task *t, struct lx_sched_attr *a, uaddr_t from)
{
    const uint32_t ours = sizeof(*a);
    uint32_t size;

    int r = copyin_obj(&t->ua, &size, from);
    if (r)
        return r;
    size = size ? size : SCHED_ATTR_SIZE_VER0;
    memset(a, 0, sizeof(*a));
    r = size < SCHED_ATTR_SIZE_VER0 || size > PAGE_SIZE
            ? -E2BIG
            : copyin_struct(&t->ua, a, sizeof(*a), from, size);
    if (r == -E2BIG && copyout_obj(&t->ua, from, &ours))
        return -EFAULT;
    if (!r && (a->sched_flags & SCHED_FLAG_UTIL_CLAMP) && size < sizeof(*a))
        return -EINVAL;
    return r;
}

int64_t sys_sched_setattr(struct task *t, int pid, uaddr_t attr, unsigned flags)
{
    struct lx_sched_attr a;

    if (uaddr_is_null(attr) || pid < 0 || flags)
        return -EINVAL;
    int r = setattr_copyin(t, &a, attr);
    if (r)
        return r;
    if (a.sched_policy > INT32_MAX || (a.sched_flags & ~(uint64_t)SCHED_FLAG_ALL) ||
        a.sched_priority > 99)
        return -EINVAL;
    return sched_change(
        t, pid,
        (struct sched_want){
            .policy = a.sched_flags & SCHED_FLAG_KEEP_POLICY ? -1 : (int)a.sched_policy,
            .prio = (int)a.sched_priority,
            .nice = a.sched_nice < -20 ? -20 : MIN(a.sched_nice, 19),
            .reset = a.sched_flags & SCHED_FLAG_RESET_ON_FORK,
            .keep_params = a.sched_flags & SCHED_FLAG_KEEP_PARAMS,
            .deadline = deadline_valid(&a),
            .clamps = a.sched_flags & SCHED_FLAG_UTIL_CLAMP,
        });
}

int64_t sys_sched_getattr(struct task *t, int pid, uaddr_t attr, unsigned size, unsigned flags)
{
    struct lx_sched_attr a;
    struct task *o;

    if (uaddr_is_null(attr) || pid < 0 || flags || size < SCHED_ATTR_SIZE_VER0 || size > PAGE_SIZE)
        return -EINVAL;
    int r = task_find(t, pid, &o);
    if (r)
        return r;
    memset(&a, 0, sizeof(a));
    a.size = MIN(size, (unsigned)sizeof(a));
    a.sched_policy = (uint32_t)task_attr_get(o, TASK_ATTR_SCHED_POLICY);
    a.sched_priority = (uint32_t)task_attr_get(o, TASK_ATTR_SCHED_PRIORITY);
    a.sched_nice = (int32_t)task_attr_get(o, TASK_ATTR_NICE);
    if (task_attr_get(o, TASK_ATTR_SCHED_RESET))
        a.sched_flags |= SCHED_FLAG_RESET_ON_FORK;
    task_put(o);
    return copyout(&t->ua, attr, &a, a.size);
}

/* ---- affinity ---- */

int64_t sys_sched_setaffinity(struct task *t, int pid, uint64_t size, uaddr_t mask)
{
    uint64_t words[LIMIT_CPU_WORDS] = {0};
    struct task *o;

    size = (uint32_t)size;
    int r = copyin(&t->ua, words, mask, (size_t)MIN(size, sizeof(words)));
    if (r)
        return r;
    r = task_find(t, pid, &o);
    if (r)
        return r;
    if (!same_owner(t, o) && !nice_over(t, o))
        r = -EPERM;
    else
        r = task_affinity_set(o, words);
    task_put(o);
    return r;
}

int64_t sys_sched_getaffinity(struct task *t, int pid, uint64_t size, uaddr_t mask)
{
    const uint64_t cpus = (uint64_t)task_cpu_count(t), bytes = ALIGN_UP(cpus, 64) / 8;
    uint64_t words[LIMIT_CPU_WORDS];
    struct task *o;

    size = (uint32_t)size;
    if (size * 8 < cpus || size % sizeof(uint64_t))
        return -EINVAL;
    int r = task_find(t, pid, &o);
    if (r)
        return r;
    task_affinity_get(o, words);
    task_put(o);
    const uint64_t n = MIN(size, bytes);
    r = copyout(&t->ua, mask, words, (size_t)n);
    return r ? r : (int64_t)n;
}

/* ---- ioprio ---- */

static int ioprio_check(struct task *t, int prio)
{
    const int class = prio >> 13, data = prio & 0x1fff;

    switch (class) {
    case 0: /* none */
        return data ? -EINVAL : 0;
    case 1: /* real time */
        if (!task_capable(t, CAP_SYS_ADMIN) && !task_capable(t, CAP_SYS_NICE))
            return -EPERM;
        return data >= 8 ? -EINVAL : 0;
    case 2: /* best effort */
        return data >= 8 ? -EINVAL : 0;
    case 3: /* idle */
        return 0;
    default:
        return -EINVAL;
    }
}

static void ioprio_store(void *arg, struct task *o)
{
    struct nice_query *q = arg;

    if (!same_owner(q->t, o) && !task_capable(q->t, CAP_SYS_NICE)) {
        q->err = -EPERM;
        return;
    }
    const int r = task_set_ioprio(o, q->value);
    if (r)
        q->err = r;
}

static void ioprio_load(void *arg, struct task *o)
{
    struct nice_query *q = arg;
    const int v = task_ioprio(o);

    /* The best of several, where 0 is what best effort 4 stands for. */
    q->best = q->best < 0 ? v : MIN(q->best, v);
}

int64_t sys_ioprio_set(struct task *t, int which, int who, int prio)
{
    struct nice_query q = {.t = t, .value = prio};
    int r = ioprio_check(t, prio);

    if (r)
        return r;
    /* IOPRIO_WHO_* count from 1 where PRIO_* count from 0. */
    if (which < 1 || which > IOPRIO_WHO_USER_LAST)
        return -EINVAL;
    r = nice_each(t, which - 1, who, ioprio_store, &q);
    return r ? r : q.err;
}

int64_t sys_ioprio_get(struct task *t, int which, int who)
{
    struct nice_query q = {.t = t, .best = -1};

    if (which < 1 || which > IOPRIO_WHO_USER_LAST)
        return -EINVAL;
    int r = nice_each(t, which - 1, who, ioprio_load, &q);
    return r ? r : q.best;
}
