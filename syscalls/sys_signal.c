/* Signals: actions, masks, waiting, sending, alternate stacks, signalfd. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/signal.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_time.h"

/* sigset_t of the kernel. */
#define SIGSET_SIZE 8u

static int sigset_copyin(struct task *t, uaddr_t set, uint64_t size, uint64_t *out)
{
    return size != SIGSET_SIZE ? -EINVAL : copyin_obj(&t->ua, out, set);
}

/* ---- actions and masks ---- */

int64_t sys_rt_sigaction(struct task *t, int signo, uaddr_t act, uaddr_t old, uint64_t size)
{
    /* struct kernel_sigaction has the same four words. */
    struct task_sigaction new_sa, old_sa;
    int r = size != SIGSET_SIZE ? -EINVAL : 0;

    if (r == 0 && !uaddr_is_null(act))
        r = copyin_obj(&t->ua, &new_sa, act);
    if (r == 0)
        r = task_sigaction(t, signo, uaddr_is_null(act) ? NULL : &new_sa, &old_sa);
    if (r == 0 && !uaddr_is_null(old))
        r = copyout_obj(&t->ua, old, &old_sa);
    return r;
}

int64_t sys_rt_sigprocmask(struct task *t, int how, uaddr_t set, uaddr_t old, uint64_t size)
{
    const uint64_t before = task_sigmask(t);
    uint64_t mask;

    if (size != SIGSET_SIZE)
        return -EINVAL;
    if (!uaddr_is_null(set)) {
        int r = copyin_obj(&t->ua, &mask, set);
        if (r != 0)
            return r;
        if (how == SIG_BLOCK)
            mask |= before;
        else if (how == SIG_UNBLOCK)
            mask = before & ~mask;
        else if (how != SIG_SETMASK)
            return -EINVAL;
        task_set_sigmask(t, mask);
    }
    return uaddr_is_null(old) ? 0 : copyout_obj(&t->ua, old, &before);
}

int64_t sys_rt_sigpending(struct task *t, uaddr_t set, uint64_t size)
{
    const uint64_t pending = task_sigpending(t);

    if (size > SIGSET_SIZE)
        return -EINVAL;
    return copyout(&t->ua, set, &pending, size);
}

int64_t sys_sigaltstack(struct task *t, uaddr_t ss, uaddr_t old)
{
    struct {
        uint64_t sp;
        uint32_t flags, pad;
        uint64_t size;
    } lx = {0};
    struct task_altstack new_ss = {0}, old_ss;
    int r = 0;

    if (!uaddr_is_null(ss)) {
        r = copyin_obj(&t->ua, &lx, ss);
        new_ss = (struct task_altstack){.sp = lx.sp, .flags = lx.flags, .size = lx.size};
    }
    if (r == 0)
        r = task_sigaltstack(t, uaddr_is_null(ss) ? NULL : &new_ss, &old_ss);
    if (r == 0 && !uaddr_is_null(old)) {
        lx.sp = old_ss.sp;
        lx.flags = old_ss.flags;
        lx.pad = 0;
        lx.size = old_ss.size;
        r = copyout_obj(&t->ua, old, &lx);
    }
    return r;
}

int64_t sys_rt_sigreturn(struct task *t)
{
    return task_sigreturn(t);
}

int64_t sys_restart_syscall(struct task *t)
{
    int64_t (*fn)(struct task *) = t->restart_fn;

    t->restart_fn = NULL;
    return fn ? fn(t) : -EINTR;
}

/* ---- waiting ---- */

int64_t sys_pause(struct task *t)
{
    while (blocker_wait(&t->blocker, DEADLINE_NEVER) == 0)
        ;
    return -ERESTARTNOHAND;
}

int64_t sys_rt_sigsuspend(struct task *t, uaddr_t set, uint64_t size)
{
    uint64_t mask;
    int r = sigset_copyin(t, set, size, &mask);

    return r != 0 ? r : task_sigsuspend(t, mask);
}

int64_t sys_rt_sigtimedwait(struct task *t, uaddr_t set, uaddr_t info, uaddr_t timeout,
                            uint64_t size)
{
    struct lx_siginfo si;
    deadline_t deadline;
    uint64_t mask;
    int r = sigset_copyin(t, set, size, &mask);

    if (r == 0)
        r = time_copyin_timeout(t, timeout, &deadline);
    if (r == 0)
        r = task_sigwait(t, mask, deadline, &si);
    if (r > 0 && !uaddr_is_null(info) && copyout_obj(&t->ua, info, &si))
        return -EFAULT;
    return r;
}

/* ---- sending ---- */

int64_t sys_kill(struct task *t, int pid, int signo)
{
    return task_kill(t, pid, signo);
}

int64_t sys_tkill(struct task *t, int tid, int signo)
{
    return tid <= 0 ? -EINVAL : task_kill_thread(t, 0, tid, signo, NULL);
}

int64_t sys_tgkill(struct task *t, int tgid, int tid, int signo)
{
    return tid <= 0 || tgid <= 0 ? -EINVAL : task_kill_thread(t, tgid, tid, signo, NULL);
}

/* What looks like the kernel's or kill's own may be sent to oneself only. */
static bool siginfo_is_forged(const struct lx_siginfo *info)
{
    return info->code >= 0 || info->code == SI_TKILL;
}

int64_t sys_rt_sigqueueinfo(struct task *t, int pid, int signo, uaddr_t info)
{
    struct lx_siginfo si;
    int r = copyin_obj(&t->ua, &si, info);

    if (r != 0)
        return r;
    if (siginfo_is_forged(&si) && pid != task_tgid(t))
        return -EPERM;
    return task_kill_process(t, pid, signo, &si);
}

int64_t sys_rt_tgsigqueueinfo(struct task *t, int tgid, int tid, int signo, uaddr_t info)
{
    struct lx_siginfo si;
    int r = copyin_obj(&t->ua, &si, info);

    if (r != 0)
        return r;
    if (tid <= 0 || tgid <= 0)
        return -EINVAL;
    if (siginfo_is_forged(&si) && tid != t->vtid)
        return -EPERM;
    return task_kill_thread(t, tgid, tid, signo, &si);
}

/* The directory /proc/<pid> serves as a pidfd too. Nothing is renamed in proc. */
static int proc_dir_target(const struct file *f)
{
    const struct super *sb = f->inode->sb;
    const struct dentry *d = f->path.dentry;
    int pid = 0;

    if (!sb || !sb->fs || strcmp(sb->fs->name, "proc") != 0 || d == sb->root ||
        d->parent != sb->root || !S_ISDIR(f->inode->mode))
        return -EBADF;
    for (const char *c = d->name; *c != '\0'; c++) {
        if (*c < '0' || *c > '9' || pid > LIMIT_TASKS)
            return -EBADF;
        pid = pid * 10 + (*c - '0');
    }
    return pid;
}

static int pidfd_target(struct task *t, int fd)
{
    struct file *f;
    int r = task_file(t, fd, &f);

    if (r != 0)
        return r;
    r = pidfd_pid(f);
    if (r > 0) {
        r = task_pid_out(t, r);
        r = r ? r : -EINVAL;
    } else if (r == -EBADF) {
        r = proc_dir_target(f);
    }
    file_put(f);
    return r;
}

int64_t sys_pidfd_send_signal(struct task *t, int fd, int signo, uaddr_t info, unsigned flags)
{
    struct lx_siginfo si;

    if (flags != 0)
        return -EINVAL;
    const int pid = pidfd_target(t, fd);
    if (pid < 0)
        return pid;
    if (uaddr_is_null(info))
        return task_kill_process(t, pid, signo, NULL);
    int r = copyin_obj(&t->ua, &si, info);
    if (r != 0)
        return r;
    if (si.signo != signo)
        return -EINVAL;
    if (siginfo_is_forged(&si) && pid != task_tgid(t))
        return -EPERM;
    return task_kill_process(t, pid, signo, &si);
}

/* ---- signalfd ---- */

int64_t sys_signalfd4(struct task *t, int fd, uaddr_t set, uint64_t size, int flags)
{
    struct file *f;
    uint64_t mask;

    if (flags & ~(SFD_CLOEXEC | SFD_NONBLOCK))
        return -EINVAL;
    int r = sigset_copyin(t, set, size, &mask);
    if (r != 0)
        return r;
    if (fd != -1) {
        r = task_file(t, fd, &f);
        if (r != 0)
            return r;
        r = signalfd_set_mask(f, mask);
        file_put(f);
        return r != 0 ? r : fd;
    }
    r = signalfd_new(t, mask, (uint32_t)(flags & SFD_NONBLOCK), &f);
    if (r != 0)
        return r;
    r = task_fd_install(t, f, flags & SFD_CLOEXEC, 0);
    file_put(f);
    return r;
}

int64_t sys_signalfd(struct task *t, int fd, uaddr_t set, uint64_t size)
{
    return sys_signalfd4(t, fd, set, size, 0);
}
