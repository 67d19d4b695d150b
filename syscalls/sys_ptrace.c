/* ptrace(2). */
#include "sentry/kernel/ptrace.h"

#include "syscalls/handlers.h"

int64_t sys_ptrace(struct task *t, int64_t request, int pid, uint64_t addr, uint64_t data)
{
    return task_ptrace(t, request, pid, addr, data);
}
