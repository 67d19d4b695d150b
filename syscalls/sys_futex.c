/* Futexes and robust lists. */
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <time.h>

#include "base/limits.h"
#include "sentry/kernel/futex.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/timer.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_time.h"

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif
#ifndef FUTEX_32
#define FUTEX_32 2
#endif

#define ROBUST_HEAD_SIZE 24u

static bool futex_cmd_may_use_realtime(int cmd)
{
    return cmd == FUTEX_WAIT_BITSET || cmd == FUTEX_WAIT_REQUEUE_PI || cmd == FUTEX_LOCK_PI2;
}

/* Only these take the fourth argument for a time. WAIT's is relative, LOCK_PI's is of the day. */
static int futex_deadline(struct task *t, int op, uaddr_t timeout, deadline_t *out)
{
    const int cmd = op & FUTEX_CMD_MASK;
    int64_t ns = 0;

    *out = DEADLINE_NEVER;
    if (uaddr_is_null(timeout) ||
        (cmd != FUTEX_WAIT && cmd != FUTEX_WAIT_BITSET && cmd != FUTEX_LOCK_PI &&
         cmd != FUTEX_LOCK_PI2 && cmd != FUTEX_WAIT_REQUEUE_PI))
        return 0;
    int r = time_copyin_ns(t, timeout, &ns);
    if (r != 0)
        return r;
    if (cmd == FUTEX_WAIT)
        *out = deadline_after(ns);
    else if (cmd == FUTEX_LOCK_PI || (op & FUTEX_CLOCK_REALTIME))
        *out = clock_deadline(CLOCK_REALTIME, ns);
    else
        *out = clock_deadline(CLOCK_MONOTONIC, task_clock_outside(t, CLOCK_MONOTONIC, ns));
    return 0;
}

int64_t sys_futex(struct task *t, uaddr_t addr, int op, uint32_t val, uint64_t timeout,
                  uaddr_t addr2, uint32_t val3)
{
    const int cmd = op & FUTEX_CMD_MASK;
    const bool shared = !(op & FUTEX_PRIVATE_FLAG);
    const struct task_futex f = {addr, shared}, f2 = {addr2, shared};
    const int val2 = (int)(uint32_t)timeout;
    deadline_t deadline;
    int r = futex_deadline(t, op, uaddr(timeout), &deadline);

    if (r != 0)
        return r;
    if ((op & FUTEX_CLOCK_REALTIME) && !futex_cmd_may_use_realtime(cmd))
        return -ENOSYS;
    switch (cmd) {
    case FUTEX_WAIT:
        return task_futex_wait(t, f, val, FUTEX_BITSET_MATCH_ANY, deadline);
    case FUTEX_WAIT_BITSET:
        return task_futex_wait(t, f, val, val3, deadline);
    case FUTEX_WAKE:
        return task_futex_wake(t, f, (int)val, FUTEX_BITSET_MATCH_ANY);
    case FUTEX_WAKE_BITSET:
        return task_futex_wake(t, f, (int)val, val3);
    case FUTEX_REQUEUE:
        return task_futex_requeue(t, f, f2, (int)val, val2, NULL);
    case FUTEX_CMP_REQUEUE:
        return task_futex_requeue(t, f, f2, (int)val, val2, &val3);
    case FUTEX_WAKE_OP:
        return task_futex_wake_op(t, f, f2, (int)val, val2, val3);
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
        return task_futex_lock_pi(t, f, false, deadline);
    case FUTEX_TRYLOCK_PI:
        return task_futex_lock_pi(t, f, true, DEADLINE_NEVER);
    case FUTEX_WAIT_REQUEUE_PI:
        return task_futex_wait_requeue_pi(t, f, val, f2, deadline);
    case FUTEX_CMP_REQUEUE_PI:
        return task_futex_requeue_pi(t, f, f2, (int)val, val2, val3);
    case FUTEX_UNLOCK_PI:
        return task_futex_unlock_pi(t, f);
    default:
        return -ENOSYS;
    }
}

/* ---- futex_waitv ---- */

struct lx_futex_waitv {
    uint64_t val, addr;
    uint32_t flags, reserved;
};

/* What futex2 takes of flags: the size of the word and whose it is. */
static bool futex2_flags_ok(uint32_t flags)
{
    return (flags & ~(uint32_t)FUTEX_PRIVATE_FLAG) == FUTEX_32;
}

static int waitv_copyin(struct task *t, uaddr_t waiters, unsigned count, struct task_futex_waitv *v)
{
    struct lx_futex_waitv lx;

    for (unsigned i = 0; i < count; i++) {
        int r = copyin_obj(&t->ua, &lx, uaddr_add(waiters, i * sizeof(lx)));
        if (r != 0)
            return r;
        if (!futex2_flags_ok(lx.flags) || lx.reserved != 0 || lx.val > UINT32_MAX)
            return -EINVAL;
        v[i] = (struct task_futex_waitv){
            .f = {uaddr(lx.addr), !(lx.flags & FUTEX_PRIVATE_FLAG)},
            .val = (uint32_t)lx.val,
        };
    }
    return 0;
}

/* An absolute time, null for none. */
static int futex2_deadline(struct task *t, uaddr_t timeout, int clock, deadline_t *out)
{
    int64_t ns = 0;

    *out = DEADLINE_NEVER;
    if (uaddr_is_null(timeout))
        return 0;
    if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
        return -EINVAL;
    int r = time_copyin_ns(t, timeout, &ns);
    if (r == 0)
        *out = clock_deadline(clock, task_clock_outside(t, clock, ns));
    return r;
}

int64_t sys_futex_waitv(struct task *t, uaddr_t waiters, unsigned count, unsigned flags,
                        uaddr_t timeout, int clock)
{
    deadline_t deadline;
    int64_t r;

    if (flags != 0 || count == 0 || count > LIMIT_FUTEX_WAITV || uaddr_is_null(waiters))
        return -EINVAL;
    r = futex2_deadline(t, timeout, clock, &deadline);
    if (r != 0)
        return r;
    struct task_futex_waitv *v = calloc(count, sizeof(*v));
    if (!v)
        return -ENOMEM;
    r = waitv_copyin(t, waiters, count, v);
    if (r == 0)
        r = task_futex_waitv(t, v, count, deadline);
    free(v);
    return r;
}

/* ---- futex_wake, futex_wait, futex_requeue ---- */

int64_t sys_futex_wake(struct task *t, uaddr_t addr, uint64_t mask, int count, unsigned flags)
{
    const struct task_futex f = {addr, !(flags & FUTEX_PRIVATE_FLAG)};

    if (!futex2_flags_ok(flags) || mask > UINT32_MAX || mask == 0)
        return -EINVAL;
    /* Unlike FUTEX_WAKE, none means none. */
    return count == 0 ? 0 : task_futex_wake(t, f, count, (uint32_t)mask);
}

int64_t sys_futex_wait(struct task *t, uaddr_t addr, uint64_t val, uint64_t mask, unsigned flags,
                       uaddr_t timeout, int clock)
{
    const struct task_futex f = {addr, !(flags & FUTEX_PRIVATE_FLAG)};
    deadline_t deadline;

    if (!futex2_flags_ok(flags) || val > UINT32_MAX || mask > UINT32_MAX)
        return -EINVAL;
    int64_t r = futex2_deadline(t, timeout, clock, &deadline);
    if (r == 0)
        r = task_futex_wait(t, f, (uint32_t)val, (uint32_t)mask, deadline);
    return r == -ERESTART_RESTARTBLOCK ? -ERESTARTSYS : r;
}

int64_t sys_futex_requeue(struct task *t, uaddr_t waiters, unsigned flags, int wake, int move)
{
    struct task_futex_waitv v[2];

    if (flags != 0 || uaddr_is_null(waiters))
        return -EINVAL;
    int r = waitv_copyin(t, waiters, 2, v);
    return r ? r : task_futex_requeue(t, v[0].f, v[1].f, wake, move, &v[0].val);
}

/* ---- robust lists ---- */

int64_t sys_set_robust_list(struct task *t, uaddr_t head, uint64_t size)
{
    if (size != ROBUST_HEAD_SIZE)
        return -EINVAL;
    task_set_robust_list(t, head.v);
    return 0;
}

int64_t sys_get_robust_list(struct task *t, int pid, uaddr_t head, uaddr_t size)
{
    const uint64_t head_size = ROBUST_HEAD_SIZE;
    struct task *o;
    int r = task_find(t, pid, &o);

    if (r != 0)
        return r;
    if (!task_may_access(t, o, TASK_ACCESS_REAL))
        r = -EPERM;
    const uint64_t list = task_robust_list(o);
    task_put(o);
    if (r == 0)
        r = copyout_obj(&t->ua, size, &head_size);
    if (r == 0)
        r = copyout_obj(&t->ua, head, &list);
    return r;
}
