/* Namespaces: unshare, setns, the names of uts. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/sched.h>

#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"

#define UNSHARE_ADMIN                                                                              \
    (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP |   \
     CLONE_NEWTIME)
#define UNSHARE_PLAIN                                                                              \
    (CLONE_THREAD | CLONE_FS | CLONE_SIGHAND | CLONE_VM | CLONE_FILES | CLONE_SYSVSEM)

/* Kinds that are not there answer as a kernel built without them: EINVAL. */
int64_t sys_unshare(struct task *t, uint64_t flags)
{
    if (flags & ~(uint64_t)(UNSHARE_ADMIN | UNSHARE_PLAIN))
        return -EINVAL;
    if ((flags & UNSHARE_ADMIN) && !task_capable(t, CAP_SYS_ADMIN))
        return -EPERM;
    if (flags & UNSHARE_ADMIN & ~(uint64_t)CLONE_NEWUTS)
        return -EINVAL;
    return task_unshare(t, flags);
}

static int64_t uts_change(struct task *t, uaddr_t name, int len, bool domain)
{
    char buf[64];

    if (!task_capable(t, CAP_SYS_ADMIN))
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
