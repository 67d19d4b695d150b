/* rseq(2). */
#include "sentry/kernel/rseq.h"

#include "syscalls/handlers.h"

int64_t sys_rseq(struct task *t, uaddr_t area, unsigned size, int flags, unsigned sig)
{
    return task_rseq(t, area, size, flags, sig);
}
