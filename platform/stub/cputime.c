/* Time spent in guest code. The host counts it for a whole process: exact as long as the stub has
 * one thread. From the second one on, the time between entry and stop is taken for it. */
#include <time.h>

#include "platform/stub/seat.h"

/* CPU clock of a process, as clock_getcpuclockid(3) makes it. */
#define CPU_CLOCK_PROCESS(pid) ((clockid_t)(~(uint32_t)(pid) << 3 | 2))

static uint64_t cpu_timespec_ns(const struct timespec *ts)
{
    return (uint64_t)ts->tv_sec * UINT64_C(1000000000) + (uint64_t)ts->tv_nsec;
}

uint64_t stub_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return cpu_timespec_ns(&ts);
}

/* What has been used so far, by the clock of the process. It never falls behind what was told. */
static void cpu_update_locked(struct stub_seat *s)
{
    struct timespec ts;

    if (s->clock_pid == 0 || clock_gettime(CPU_CLOCK_PROCESS(s->clock_pid), &ts) != 0)
        return;
    uint64_t now = cpu_timespec_ns(&ts) + s->clock_before;
    if (now > atomic_load(&s->cpu_ns))
        atomic_store(&s->cpu_ns, now);
}

void stub_clock_start(struct stub_seat *s, pid_t pid)
{
    mutex_lock(&s->clock_mu);
    s->clock_pid = pid;
    s->clock_before = atomic_load(&s->cpu_ns);
    mutex_unlock(&s->clock_mu);
    s->clock_shared = false;
}

void stub_clock_share(struct stub_seat *s)
{
    if (s->clock_shared)
        return;
    mutex_lock(&s->clock_mu);
    cpu_update_locked(s);
    s->clock_pid = 0;
    mutex_unlock(&s->clock_mu);
    s->clock_shared = true;
}

uint64_t stub_clock_read(struct stub_seat *s)
{
    uint64_t entered, ns;

    mutex_lock(&s->clock_mu);
    cpu_update_locked(s);
    bool exact = s->clock_pid != 0;
    mutex_unlock(&s->clock_mu);
    if (exact)
        return atomic_load(&s->cpu_ns);
    /* A turn that ends meanwhile is added before it is taken off: look again. */
    for (int i = 0; i < 3; i++) {
        entered = atomic_load(&s->entered_ns);
        ns = atomic_load(&s->cpu_ns);
        if (entered == atomic_load(&s->entered_ns))
            break;
    }
    uint64_t now = stub_now();
    return entered != 0 && now > entered ? ns + (now - entered) : ns;
}
