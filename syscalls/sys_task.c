/* Tasks: numbers, clone and its kin, exit, thread pointers of the kernel's. */
#include <errno.h>
#include <limits.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>

#include "sentry/fs/cgroup/cgroupfs.h"
#include "sentry/kernel/cgroup.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"

#define CLONE3_SIZE_VER0 64u
#define SET_TID_MAX 32u /* MAX_PID_NS_LEVEL */

int64_t sys_getpid(struct task *t)
{
    return task_tgid(t);
}

int64_t sys_gettid(struct task *t)
{
    return t->vtid;
}

int64_t sys_getppid(struct task *t)
{
    return task_ppid(t);
}

int64_t sys_set_tid_address(struct task *t, uaddr_t addr)
{
    t->clear_tid = addr.v;
    return t->vtid;
}

int64_t sys_exit(struct task *t, int status)
{
    task_exit(t, status);
    return 0;
}

int64_t sys_exit_group(struct task *t, int status)
{
    task_exit_group(t, status);
    return 0;
}

/* ---- clone ---- */

int64_t sys_fork(struct task *t)
{
    const struct task_clone_args a = {.exit_signal = SIGCHLD};

    return task_clone(t, &a);
}

int64_t sys_vfork(struct task *t)
{
    const struct task_clone_args a = {.flags = CLONE_VFORK | CLONE_VM, .exit_signal = SIGCHLD};

    return task_clone(t, &a);
}

/* The old call gives a pidfd through parent_tid, and takes any number for a signal. */
int64_t sys_clone(struct task *t, uint64_t flags, uint64_t stack, uaddr_t parent_tid,
                  uaddr_t child_tid, uint64_t tls)
{
    const struct task_clone_args a = {
        .flags = (uint32_t)flags & ~(uint64_t)CSIGNAL,
        .exit_signal = (int)(flags & CSIGNAL),
        .pidfd = parent_tid,
        .parent_tid = parent_tid,
        .child_tid = child_tid,
        .stack = stack,
        .tls = tls,
    };

    if ((flags & (CLONE_PIDFD | CLONE_PARENT_SETTID)) == (CLONE_PIDFD | CLONE_PARENT_SETTID))
        return -EINVAL;
    return task_clone(t, &a);
}

/* Numbers from the innermost namespace outwards. */
static int clone3_set_tid(struct task *t, const struct clone_args *c, int32_t tids[SET_TID_MAX])
{
    if (!c->set_tid && !c->set_tid_size)
        return 0;
    if (!c->set_tid || !c->set_tid_size || c->set_tid_size > SET_TID_MAX)
        return -EINVAL;
    int r = copyin_array(&t->ua, tids, uaddr(c->set_tid), c->set_tid_size, sizeof(tids[0]));
    for (size_t i = 0; !r && i < c->set_tid_size; i++)
        if (tids[i] <= 0)
            r = -EINVAL;
    return r;
}

static int clone3_check(const struct task *t, const struct clone_args *c)
{
    if (c->flags & ~(0xffffffffull | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP))
        return -EINVAL;
    /* Among CSIGNAL's bits is CLONE_NEWTIME here. */
    if (c->flags & (CLONE_DETACHED | (CSIGNAL & ~(uint64_t)CLONE_NEWTIME)))
        return -EINVAL;
    if (c->exit_signal & ~(uint64_t)CSIGNAL || c->exit_signal > 64)
        return -EINVAL;
    if ((c->flags & (CLONE_THREAD | CLONE_PARENT)) && c->exit_signal)
        return -EINVAL;
    if ((c->flags & CLONE_PIDFD) && (c->flags & CLONE_PARENT_SETTID) && c->pidfd == c->parent_tid)
        return -EINVAL;
    if (!c->stack != !c->stack_size)
        return -EINVAL;
    if (c->stack + c->stack_size < c->stack || c->stack + c->stack_size > 1ull << 47)
        return -EINVAL;
    (void)t;
    return 0;
}

/* Owned. */
static int clone3_cgroup(struct task *t, const struct clone_args *c, struct cgroup **out)
{
    struct file *f;

    if (c->cgroup > INT_MAX)
        return -EINVAL;
    int r = task_file_any(t, (int)c->cgroup, &f);
    if (r)
        return r;
    struct cgroup *cg = cgroupfs_group(f);
    if (cg && !cg->dead)
        *out = cgroup_get(cg);
    file_put(f);
    return !cg ? -EBADF : *out ? 0 : -ENOENT;
}

int64_t sys_clone3(struct task *t, uaddr_t args, uint64_t size)
{
    struct clone_args c;
    int32_t want[SET_TID_MAX] = {0};
    struct cgroup *group = NULL;

    if (size > PAGE_SIZE)
        return -E2BIG;
    if (size < CLONE3_SIZE_VER0)
        return -EINVAL;
    memset(&c, 0, sizeof(c));
    int r = copyin_struct(&t->ua, &c, sizeof(c), args, size);
    if (!r)
        r = clone3_check(t, &c);
    if (!r)
        r = clone3_set_tid(t, &c, want);
    if (!r && (c.flags & CLONE_INTO_CGROUP))
        r = clone3_cgroup(t, &c, &group);
    if (r)
        return r;
    const struct task_clone_args a = {
        .flags = c.flags,
        .exit_signal = (int)c.exit_signal,
        .pidfd = uaddr(c.pidfd),
        .child_tid = uaddr(c.child_tid),
        .parent_tid = uaddr(c.parent_tid),
        .stack = c.stack ? c.stack + c.stack_size : 0,
        .tls = c.tls,
        .want = want,
        .want_count = c.set_tid_size,
        .cgroup = group,
    };
    const int64_t tid = task_clone(t, &a);
    cgroup_put(group);
    return tid;
}
