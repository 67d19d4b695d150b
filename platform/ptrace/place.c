/* Which CPU a sentry thread and its stub take turns on. They share one, since waking another CPU
 * costs more than the whole switch; they move together when somebody of the sandbox waits for the
 * same CPU while another has nobody. New threads and stubs inherit their parent's place. */
#include <sched.h>

#include "platform/ptrace/ptrace_priv.h"

/* Times a context must have met company before it moves: a task that wakes another and then sleeps
 * must not chase it away. */
#define PLACE_PATIENCE 64

void pt_place_init(struct pt_plat *p)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        CPU_ZERO(&set);
    for (unsigned cpu = 0; cpu < PT_CPUS; cpu++) {
        p->cpu_usable[cpu] = CPU_ISSET(cpu, &set);
        p->cpu_count += p->cpu_usable[cpu];
    }
}

static void place_move(struct pt_ctx *c, int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    c->cpu = cpu;
    c->company = 0;
    /* A CPU that has been taken away leaves both where the host puts them. */
    if (sched_setaffinity(0, sizeof(set), &set) != 0 ||
        sched_setaffinity(c->tid, sizeof(set), &set) != 0)
        c->cpu = PT_CPU_ANY;
}

static int place_empty(const struct pt_plat *p)
{
    for (int cpu = 0; cpu < PT_CPUS; cpu++)
        if (p->cpu_usable[cpu] &&
            atomic_load_explicit(&p->cpu_guests[cpu], memory_order_relaxed) == 0)
            return cpu;
    return -1;
}

static void place_reconsider(struct pt_ctx *c, struct pt_plat *p)
{
    c->company = 0;
    int cpu = place_empty(p);
    if (cpu >= 0)
        place_move(c, cpu);
}

void pt_place_enter(struct pt_ctx *c)
{
    struct pt_plat *p = pt_plat(c->base.plat);

    if (p->cpu_count < 2 || c->cpu == PT_CPU_ANY)
        return;
    if (UNLIKELY(c->cpu < 0)) {
        int cpu = sched_getcpu();
        if (cpu < 0 || cpu >= PT_CPUS) {
            c->cpu = PT_CPU_ANY;
            return;
        }
        place_move(c, cpu);
    } else if (UNLIKELY(atomic_load_explicit(&p->cpu_guests[c->cpu], memory_order_relaxed) > 0) &&
               ++c->company >= PLACE_PATIENCE) {
        place_reconsider(c, p);
    }
    if (c->cpu >= 0)
        atomic_fetch_add_explicit(&p->cpu_guests[c->cpu], 1, memory_order_relaxed);
}

void pt_place_leave(struct pt_ctx *c)
{
    struct pt_plat *p = pt_plat(c->base.plat);

    if (p->cpu_count >= 2 && c->cpu >= 0)
        atomic_fetch_sub_explicit(&p->cpu_guests[c->cpu], 1, memory_order_relaxed);
}
