/* wait4(2), waitid(2), pidfds. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_usage.h"

#define WAIT_COMMON                                                                                \
    ((unsigned)(WNOHANG | WCONTINUED) | (unsigned)__WNOTHREAD | (unsigned)__WALL |                 \
     (unsigned)__WCLONE)

int64_t sys_wait4(struct task *t, int pid, uaddr_t status, int options, uaddr_t usage)
{
    struct task_wait_result res;
    enum task_wait_kind kind = TASK_WAIT_PGRP;
    int32_t id = 0;

    if ((unsigned)options & ~(WAIT_COMMON | WUNTRACED))
        return -EINVAL;
    if (pid == INT_MIN)
        return -ESRCH;
    if (pid == -1) {
        kind = TASK_WAIT_ANY;
    } else if (pid < 0) {
        id = -pid;
    } else if (pid > 0) {
        kind = TASK_WAIT_PID;
        id = pid;
    }
    int r = task_wait(t, kind, id, options | WEXITED, &res);
    if (r)
        return r;
    if (!uaddr_is_null(status) && res.pid > 0)
        r = copyout_obj(&t->ua, status, &res.status);
    if (!r && !uaddr_is_null(usage) && res.pid > 0)
        r = usage_copyout(t, usage, &res.usage);
    return r ? r : res.pid;
}

/* ---- waitid ---- */

struct waitid_query {
    enum task_wait_kind kind;
    int32_t id;
    bool nonblock; /* of a pidfd */
};

static int waitid_pidfd(struct task *t, int fd, struct waitid_query *q)
{
    struct file *f;

    if (fd < 0)
        return -EINVAL;
    int r = task_file(t, fd, &f);
    if (r)
        return r;
    r = pidfd_pid(f);
    q->nonblock = atomic_load(&f->flags) & O_NONBLOCK;
    file_put(f);
    if (r == -ESRCH)
        return -ECHILD;
    if (r < 0)
        return r;
    q->kind = TASK_WAIT_PID;
    q->id = task_pid_out(t, r);
    return 0;
}

static int waitid_query(struct task *t, int which, int id, struct waitid_query *q)
{
    *q = (struct waitid_query){.kind = TASK_WAIT_ANY};
    switch (which) {
    case P_ALL:
        return 0;
    case P_PID:
        q->kind = TASK_WAIT_PID;
        q->id = id;
        return id <= 0 ? -EINVAL : 0;
    case P_PGID:
        q->kind = TASK_WAIT_PGRP;
        q->id = id;
        return id < 0 ? -EINVAL : 0;
    case P_PIDFD:
        return waitid_pidfd(t, id, q);
    default:
        return -EINVAL;
    }
}

static int waitid_status(const struct task_wait_result *res)
{
    switch (res->code) {
    case CLD_EXITED:
        return WEXITSTATUS(res->status);
    case CLD_KILLED:
    case CLD_DUMPED:
        return WTERMSIG(res->status);
    case CLD_STOPPED:
        return WSTOPSIG(res->status);
    case CLD_TRAPPED:
        /* With a tracer's event. */
        return res->status >> 8;
    default:
        return SIGCONT;
    }
}

/* Only the fields that Linux writes. */
static int waitid_info(struct task *t, uaddr_t to, const struct task_wait_result *res)
{
    struct lx_siginfo info;

    memset(&info, 0, sizeof(info));
    if (res->pid > 0) {
        info.signo = SIGCHLD;
        info.code = res->code;
        info.chld.pid = res->pid;
        info.chld.uid = res->uid;
        info.chld.status = waitid_status(res);
    }
    return copyout(&t->ua, to, &info, offsetof(struct lx_siginfo, chld.status) + sizeof(int32_t));
}

int64_t sys_waitid(struct task *t, int which, int id, uaddr_t info, int options, uaddr_t usage)
{
    struct task_wait_result res;
    struct waitid_query q;

    if ((unsigned)options & ~(WAIT_COMMON | (unsigned)(WNOWAIT | WEXITED | WSTOPPED)))
        return -EINVAL;
    if (!(options & (WEXITED | WSTOPPED | WCONTINUED)))
        return -EINVAL;
    int r = waitid_query(t, which, id, &q);
    if (r)
        return r;
    r = task_wait(t, q.kind, q.id, q.nonblock ? options | WNOHANG : options, &res);
    if (r)
        return r;
    if (res.pid == 0 && q.nonblock && !(options & WNOHANG))
        return -EAGAIN;
    if (res.pid > 0 && !uaddr_is_null(usage))
        r = usage_copyout(t, usage, &res.usage);
    if (!r && !uaddr_is_null(info))
        r = waitid_info(t, info, &res);
    return r;
}

/* ---- pidfds ---- */

int64_t sys_pidfd_open(struct task *t, int pid, unsigned flags)
{
    struct file *f;

    if (flags & ~(unsigned)O_NONBLOCK || pid <= 0)
        return -EINVAL;
    int r = pidfd_open_pid(t, pid, flags, &f);
    if (r)
        return r;
    r = task_fd_install(t, f, true, 0);
    file_put(f);
    return r;
}

static int pidfd_target_file(struct task *t, int pidfd, int fd, struct file **out_file)
{
    struct task *o;
    struct file *f;
    int r = task_file(t, pidfd, &f);

    if (r)
        return r;
    const int32_t pid = pidfd_pid(f);
    file_put(f);
    if (pid < 0)
        return pid;
    r = kernel_find_task(t->k, pid, false, &o);
    if (r)
        return r;
    struct fdtable *fdt = task_get_fdtable(o);
    if (!task_may_access(t, o, TASK_ACCESS_REAL))
        r = -EPERM;
    else
        r = fdt ? fdtable_lookup(fdt, fd, out_file) : -ESRCH;
    fdtable_put(fdt, NULL);
    task_put(o);
    return r;
}

int64_t sys_pidfd_getfd(struct task *t, int pidfd, int fd, unsigned flags)
{
    struct file *f;

    if (flags)
        return -EINVAL;
    int r = pidfd_target_file(t, pidfd, fd, &f);
    if (r)
        return r;
    r = task_fd_install(t, f, true, 0);
    file_put(f);
    return r;
}
