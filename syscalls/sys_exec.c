/* execve(2), execveat(2). */
#include <fcntl.h>

#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"

int64_t sys_execve(struct task *t, uaddr_t path, uaddr_t argv, uaddr_t envp)
{
    return task_execve(t, AT_FDCWD, path, argv, envp, 0);
}

int64_t sys_execveat(struct task *t, int dirfd, uaddr_t path, uaddr_t argv, uaddr_t envp, int flags)
{
    return task_execve(t, dirfd, path, argv, envp, flags);
}
