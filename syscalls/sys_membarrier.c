/* membarrier(2). */
#include <errno.h>
#include <linux/membarrier.h>

#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"

#define MEMBARRIER_SUPPORTED                                                                       \
    (MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_GLOBAL_EXPEDITED |                                     \
     MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED |                 \
     MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE |      \
     MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE)

static int64_t membarrier_register(struct task *t, int cmd)
{
    task_attr_set(t, TASK_ATTR_MEMBARRIER, task_attr_get(t, TASK_ATTR_MEMBARRIER) | cmd);
    return 0;
}

static int64_t membarrier_private(struct task *t, int registered_by)
{
    if (!(task_attr_get(t, TASK_ATTR_MEMBARRIER) & registered_by))
        return -EPERM;
    return task_membarrier(t, false);
}

int64_t sys_membarrier(struct task *t, int cmd, unsigned flags, int cpu)
{
    (void)cpu; /* looked at with MEMBARRIER_CMD_FLAG_CPU only, which rseq needs */
    if (flags)
        return -EINVAL;
    switch (cmd) {
    case MEMBARRIER_CMD_QUERY:
        return MEMBARRIER_SUPPORTED;
    case MEMBARRIER_CMD_GLOBAL:
    case MEMBARRIER_CMD_GLOBAL_EXPEDITED:
        return task_membarrier(t, true);
    case MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED:
    case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED:
    case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE:
        return membarrier_register(t, cmd);
    case MEMBARRIER_CMD_PRIVATE_EXPEDITED:
        return membarrier_private(t, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
    case MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE:
        return membarrier_private(t, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE);
    default:
        return -EINVAL;
    }
}
