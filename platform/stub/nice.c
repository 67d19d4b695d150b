#include "platform/stub/nice.h"

#include <sys/resource.h>

#include "base/compiler.h"

void stub_nice_init(struct stub_nice *n)
{
    struct rlimit l;

    n->base = getpriority(PRIO_PROCESS, 0);
    n->back = getrlimit(RLIMIT_NICE, &l) == 0 && l.rlim_cur >= (rlim_t)(20 - n->base);
}

bool stub_nice_set(const struct stub_nice *n, pid_t tid, int nice)
{
    const int value = MIN(n->base + nice, 19);

    (void)setpriority(PRIO_PROCESS, (id_t)tid, value);
    return value > n->base && !n->back;
}
