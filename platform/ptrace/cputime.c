/* Time spent in guest code. The host counts it for a whole process: exact as long as the stub has
 * one thread. From the second one on, the time between entry and stop is taken for it. */
#include <time.h>

#include "platform/ptrace/ptrace_priv.h"

/* CPU clock of a process, as clock_getcpuclockid(3) makes it. */
#define CPU_CLOCK_PROCESS(pid) ((clockid_t)(~(uint32_t)(pid) << 3 | 2))

static uint64_t cpu_timespec_ns(const struct timespec *ts)
{
    return (uint64_t)ts->tv_sec * UINT64_C(1000000000) + (uint64_t)ts->tv_nsec;
}

uint64_t pt_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return cpu_timespec_ns(&ts);
}

/* What has been used so far, by the clock of the process. It never falls behind what was told. */
static void cpu_update_locked(struct pt_ctx *c)
{
    struct timespec ts;

    if (c->cpu_pid == 0 || clock_gettime(CPU_CLOCK_PROCESS(c->cpu_pid), &ts) != 0)
        return;
    uint64_t now = cpu_timespec_ns(&ts) + c->cpu_before;
    if (now > atomic_load(&c->cpu_ns))
        atomic_store(&c->cpu_ns, now);
}

void pt_cpu_start(struct pt_ctx *c)
{
    mutex_lock(&c->cpu_mu);
    c->cpu_pid = c->as->pid;
    c->cpu_before = atomic_load(&c->cpu_ns);
    mutex_unlock(&c->cpu_mu);
    c->cpu_shared = false;
}

void pt_cpu_share(struct pt_ctx *c)
{
    if (c->cpu_shared)
        return;
    mutex_lock(&c->cpu_mu);
    cpu_update_locked(c);
    c->cpu_pid = 0;
    mutex_unlock(&c->cpu_mu);
    c->cpu_shared = true;
}

uint64_t pt_cpu_time(struct plat_ctx *base)
{
    struct pt_ctx *c = pt_ctx(base);
    uint64_t entered, ns;

    mutex_lock(&c->cpu_mu);
    cpu_update_locked(c);
    bool exact = c->cpu_pid != 0;
    mutex_unlock(&c->cpu_mu);
    if (exact)
        return atomic_load(&c->cpu_ns);
    /* A turn that ends meanwhile is added before it is taken off: look again. */
    for (int i = 0; i < 3; i++) {
        entered = atomic_load(&c->entered_ns);
        ns = atomic_load(&c->cpu_ns);
        if (entered == atomic_load(&c->entered_ns))
            break;
    }
    uint64_t now = pt_now();
    return entered != 0 && now > entered ? ns + (now - entered) : ns;
}
