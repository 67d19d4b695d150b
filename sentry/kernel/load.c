/* Load averages (kernel/sched/loadavg.c). Sampling begins when somebody first asks, so that a
 * sandbox in which nobody does has no timer for it; what was before is told from the time that the
 * processors were used. */
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/task_priv.h"
#include "sentry/kernel/timer_priv.h"

#define LOAD_PERIOD UINT64_C(5000000000)

/* e^(-5s/window) with KERNEL_LOAD_ONE as 1. */
static const struct {
    uint64_t keep, window_ns;
} loads[3] = {
    {1884, UINT64_C(60000000000)}, {2014, UINT64_C(300000000000)}, {2037, UINT64_C(900000000000)}};

static void load_tick(struct timer *tm)
{
    struct kernel *k = container_of(tm, struct kernel, load_timer);
    struct kernel_info i;

    kernel_info(k, &i);
    const uint64_t active = (uint64_t)(i.running + i.blocked) * KERNEL_LOAD_ONE;
    for (size_t n = 0; n < ARRAY_SIZE(loads); n++) {
        const uint64_t old = atomic_load_explicit(&k->load[n], memory_order_relaxed);
        uint64_t now = old * loads[n].keep + active * (KERNEL_LOAD_ONE - loads[n].keep);
        if (active >= old)
            now += KERNEL_LOAD_ONE - 1;
        atomic_store_explicit(&k->load[n], (uint32_t)(now / KERNEL_LOAD_ONE), memory_order_relaxed);
    }
    timer_arm(tm, mono_now() + LOAD_PERIOD);
}

static void load_begin(struct kernel *k)
{
    struct kernel_info i;

    kernel_info(k, &i);
    for (size_t n = 0; n < ARRAY_SIZE(loads); n++) {
        const uint64_t over = MAX(loads[n].window_ns, i.uptime_ns);
        const uint64_t busy = (i.user_ns + i.system_ns) / 1000 * KERNEL_LOAD_ONE;
        atomic_store_explicit(&k->load[n], (uint32_t)(busy / (over / 1000)), memory_order_relaxed);
    }
    if (timer_init(&k->load_timer, kernel_timer_service(k), load_tick) == 0)
        timer_arm(&k->load_timer, mono_now() + LOAD_PERIOD);
    else
        atomic_store(&k->load_begun, false);
}

void kernel_loads(struct kernel *k, uint32_t out[3])
{
    if (!atomic_exchange(&k->load_begun, true))
        load_begin(k);
    for (size_t n = 0; n < ARRAY_SIZE(loads); n++)
        out[n] = atomic_load_explicit(&k->load[n], memory_order_relaxed);
}

void kernel_loads_end(struct kernel *k)
{
    if (atomic_load(&k->load_begun))
        timer_cancel(&k->load_timer);
}
