/* membarrier(2). */
#include <errno.h>
#include <linux/membarrier.h>

#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"

/* Newer than some headers. */
#define MEMBARRIER_CMD_GET_REGISTRATIONS (1 << 9)
#define MEMBARRIER_SUPPORTED                                                                       \
    (MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_GLOBAL_EXPEDITED |                                     \
     MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED |                 \
     MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE |      \
     MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE | MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ | \
     MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ | MEMBARRIER_CMD_GET_REGISTRATIONS)

static int64_t membarrier_register(struct task *t, int cmd)
{
    task_attr_set(t, TASK_ATTR_MEMBARRIER, task_attr_get(t, TASK_ATTR_MEMBARRIER) | cmd);
    return 0;
}

static int64_t membarrier_private(struct task *t, int registered_by, enum task_barrier kind,
                                  int cpu)
{
    if (!(task_attr_get(t, TASK_ATTR_MEMBARRIER) & registered_by))
        return -EPERM;
    return task_membarrier(t, kind, cpu);
}

/* Who has registered for more than a barrier counts as registered for one, though it is not. */
static int64_t membarrier_registrations(struct task *t)
{
    const int64_t had = task_attr_get(t, TASK_ATTR_MEMBARRIER);
    const int64_t more = MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE |
                         MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ;

    return had & more ? had | MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED : had;
}

int64_t sys_membarrier(struct task *t, int cmd, unsigned flags, int cpu)
{
    const bool one =
        cmd == MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ && flags == MEMBARRIER_CMD_FLAG_CPU;

    if (flags && !one)
        return -EINVAL;
    switch (cmd) {
    case MEMBARRIER_CMD_QUERY:
        return MEMBARRIER_SUPPORTED;
    case MEMBARRIER_CMD_GLOBAL:
    case MEMBARRIER_CMD_GLOBAL_EXPEDITED:
        return task_membarrier(t, TASK_BARRIER_ALL, -1);
    case MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED:
    case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED:
    case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE:
    case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ:
        return membarrier_register(t, cmd);
    case MEMBARRIER_CMD_GET_REGISTRATIONS:
        return membarrier_registrations(t);
    case MEMBARRIER_CMD_PRIVATE_EXPEDITED:
        return membarrier_private(t, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
                                  TASK_BARRIER_PROCESS, -1);
    case MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE:
        return membarrier_private(t, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
                                  TASK_BARRIER_PROCESS, -1);
    case MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ:
        return membarrier_private(t, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ,
                                  TASK_BARRIER_RSEQ, one ? cpu : -1);
    default:
        return -EINVAL;
    }
}
