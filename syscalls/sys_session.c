/* Sessions and process groups. */
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"

int64_t sys_setsid(struct task *t)
{
    return task_setsid(t);
}

int64_t sys_setpgid(struct task *t, int pid, int pgid)
{
    return task_setpgid(t, pid, pgid);
}

int64_t sys_getpgid(struct task *t, int pid)
{
    return task_getpgid(t, pid);
}

int64_t sys_getpgrp(struct task *t)
{
    return task_getpgid(t, 0);
}

int64_t sys_getsid(struct task *t, int pid)
{
    return task_getsid(t, pid);
}
