/* Tasks: numbers, clone and its kin, exit, thread pointers of the kernel's. */
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"

#define CLONE3_SIZE_VER0 64u

int64_t sys_getpid(struct task *t)
{
    return task_tgid(t);
}

int64_t sys_gettid(struct task *t)
{
    return t->tid;
}

int64_t sys_getppid(struct task *t)
{
    return task_ppid(t);
}

int64_t sys_set_tid_address(struct task *t, uaddr_t addr)
{
    t->clear_tid = addr.v;
    return t->tid;
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

/* The old call gives a pidfd through parent_tid. */
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
    if (a.exit_signal > 64)
        return -EINVAL;
    return task_clone(t, &a);
}

static int clone3_set_tid(struct task *t, const struct clone_args *c, int32_t *out_tid)
{
    *out_tid = 0;
    if (!c->set_tid && !c->set_tid_size)
        return 0;
    /* There is one pid namespace. */
    if (!c->set_tid || c->set_tid_size != 1)
        return -EINVAL;
    int r = copyin_obj(&t->ua, out_tid, uaddr(c->set_tid));
    if (!r && *out_tid <= 0)
        r = -EINVAL;
    return r;
}

static int clone3_check(const struct task *t, const struct clone_args *c)
{
    if (c->flags & ~(0xffffffffull | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP))
        return -EINVAL;
    /* CSIGNAL's bits name CLONE_NEWTIME here, which clone refuses. */
    if (c->flags & (CLONE_DETACHED | (CSIGNAL & ~(uint64_t)CLONE_NEWTIME)))
        return -EINVAL;
    if (c->exit_signal & ~(uint64_t)CSIGNAL || c->exit_signal > 64)
        return -EINVAL;
    if ((c->flags & (CLONE_THREAD | CLONE_PARENT)) && c->exit_signal)
        return -EINVAL;
    if (!c->stack != !c->stack_size)
        return -EINVAL;
    if (c->stack + c->stack_size < c->stack || c->stack + c->stack_size > 1ull << 47)
        return -EINVAL;
    (void)t;
    return 0;
}

int64_t sys_clone3(struct task *t, uaddr_t args, uint64_t size)
{
    struct clone_args c;
    int32_t want;

    if (size > PAGE_SIZE)
        return -E2BIG;
    if (size < CLONE3_SIZE_VER0)
        return -EINVAL;
    memset(&c, 0, sizeof(c));
    int r = copyin_struct(&t->ua, &c, sizeof(c), args, size);
    if (!r)
        r = clone3_check(t, &c);
    if (!r)
        r = clone3_set_tid(t, &c, &want);
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
        .want_tid = want,
    };
    return task_clone(t, &a);
}
