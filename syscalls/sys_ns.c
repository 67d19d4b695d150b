/* Namespaces: unshare, setns, the names of uts. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/sched.h>

#include "sentry/kernel/ns.h"
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"

#define UNSHARE_NEW                                                                                \
    (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP |   \
     CLONE_NEWUSER | CLONE_NEWTIME)
#define UNSHARE_PLAIN                                                                              \
    (CLONE_THREAD | CLONE_FS | CLONE_SIGHAND | CLONE_VM | CLONE_FILES | CLONE_SYSVSEM)

int64_t sys_unshare(struct task *t, uint64_t flags)
{
    if (flags & ~(uint64_t)(UNSHARE_NEW | UNSHARE_PLAIN))
        return -EINVAL;
    if (flags & CLONE_NEWUSER)
        flags |= CLONE_THREAD | CLONE_FS;
    if (flags & CLONE_NEWNS)
        flags |= CLONE_FS;
    if (flags & CLONE_NEWIPC)
        flags |= CLONE_SYSVSEM;
    return task_unshare(t, flags);
}

int64_t sys_setns(struct task *t, int fd, int type)
{
    struct file *f;
    int r = task_file(t, fd, &f);

    if (r)
        return r;
    r = task_setns(t, f, (uint32_t)type);
    file_put(f);
    return r;
}

static int64_t uts_change(struct task *t, uaddr_t name, int len, bool domain)
{
    char buf[64];

    if (!task_may_rename_host(t))
        return -EPERM;
    if (len < 0 || (size_t)len > sizeof(buf))
        return -EINVAL;
    int r = copyin(&t->ua, buf, name, (size_t)len);
    return r ? r : task_uts_set(t, domain, buf, (size_t)len);
}

int64_t sys_sethostname(struct task *t, uaddr_t name, int len)
{
    return uts_change(t, name, len, false);
}

int64_t sys_setdomainname(struct task *t, uaddr_t name, int len)
{
    return uts_change(t, name, len, true);
}
