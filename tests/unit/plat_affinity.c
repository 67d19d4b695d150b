/* Guests that are told which CPUs they may have. */
#include <sched.h>
#include <stdlib.h>

#include "tests/unit/plat_rig.h"

/* Tells the CPU, as the host has told the processor, with each call. */
GUEST(code_where, "1: rdtscp; mov %ecx, %ebx; mov $110, %eax; syscall; jmp 1b");

static cpu_set_t all;

static int nth_cpu(int n)
{
    int cpu = 0;

    while (!CPU_ISSET((size_t)cpu, &all) || n-- > 0)
        cpu++;
    return cpu;
}

/* One turn in each of which nobody is anywhere else. */
static void check_turns(struct plat_ctx *ctx, int cpu)
{
    struct plat_fault f;
    cpu_set_t own;

    for (int i = 0; i < 50; i++) {
        cr_assert(plat_ctx_run(ctx, false, &f) == PLAT_EVENT_SYSCALL);
        cr_assert_eq(sched_getaffinity(0, sizeof(own), &own), 0);
        cr_assert_eq(CPU_COUNT(&own), 1);
        cr_assert(CPU_ISSET((size_t)cpu, &own));
#ifdef RIG_STUBS
        /* In a machine the processor tells what the machine has it tell. */
        cr_assert_eq(plat_ctx_regs(ctx)->rbx & 0xfff, (uint64_t)cpu);
#endif
        if (i % 10 == 9)
            usleep(5000);
    }
}

Test(plat_affinity, one_cpu_after_another)
{
    struct rig r;
    struct plat_ctx *child;
    struct plat_as *as;

    cr_assert_eq(sched_getaffinity(0, sizeof(all), &all), 0);
    const int count = CPU_COUNT(&all) < 4 ? CPU_COUNT(&all) : 4;
    RIG_START(&r, code_where);
    for (int i = 0; i < 4 * count; i++) {
        const uint64_t mask = UINT64_C(1) << (i % count);
        plat_ctx_affinity(r.ctx, &mask, 1);
        check_turns(r.ctx, nth_cpu(i % count));
    }
    /* what it makes stays there */
    const uint64_t last = UINT64_C(1) << (count - 1);
    plat_ctx_affinity(r.ctx, &last, 1);
    check_turns(r.ctx, nth_cpu(count - 1));
    cr_assert_eq(plat_ctx_fork(r.ctx, &as, &child), 0);
    check_turns(child, nth_cpu(count - 1));
    plat_ctx_destroy(child);
    plat_as_put(as);
    cr_assert_eq(plat_ctx_fork(r.ctx, NULL, &child), 0);
    check_turns(child, nth_cpu(count - 1));
    plat_ctx_destroy(child);
    rig_end(&r);
}

/* Bits beyond the CPUs there are say nothing; all of them are none less. */
Test(plat_affinity, all_again)
{
    const uint64_t one = 1, none[2] = {0, 1}, every = UINT64_MAX;
    struct plat_fault f;
    struct rig r;
    cpu_set_t own;

    cr_assert_eq(sched_getaffinity(0, sizeof(all), &all), 0);
    RIG_START(&r, code_where);
    plat_ctx_affinity(r.ctx, &one, 1);
    check_turns(r.ctx, nth_cpu(0));
    plat_ctx_affinity(r.ctx, &every, 1);
    cr_assert_eq(sched_getaffinity(0, sizeof(own), &own), 0);
    cr_assert(CPU_EQUAL(&own, &all));
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
    plat_ctx_affinity(r.ctx, &one, 1);
    plat_ctx_affinity(r.ctx, none, 1);
    cr_assert_eq(sched_getaffinity(0, sizeof(own), &own), 0);
    cr_assert(CPU_EQUAL(&own, &all));
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
    rig_end(&r);
}

#ifdef RIG_STUBS
/* A bond may have ended before the turn that is looked at, so it is looked at again. */
static void check_follows(struct plat_ctx *ctx, int cpu)
{
    struct plat_fault f;
    cpu_set_t own;

    do {
        cr_assert(plat_ctx_follow(ctx, cpu));
        cr_assert(plat_ctx_run(ctx, false, &f) == PLAT_EVENT_SYSCALL);
        cr_assert_eq(sched_getaffinity(0, sizeof(own), &own), 0);
    } while (CPU_COUNT(&own) != 1 || !CPU_ISSET((size_t)cpu, &own) ||
             (plat_ctx_regs(ctx)->rbx & 0xfff) != (uint64_t)cpu);
}

Test(plat_affinity, where_somebody_else_is, .timeout = 300)
{
    const uint64_t one = 1, every = UINT64_MAX;
    struct plat_fault f;
    struct rig r;

    cr_assert_eq(sched_getaffinity(0, sizeof(all), &all), 0);
    const int count = CPU_COUNT(&all) < 4 ? CPU_COUNT(&all) : 4;
    RIG_START(&r, code_where);
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
    for (int i = 0; count > 1 && i < 8 * count; i++)
        check_follows(r.ctx, nth_cpu(i % count));
    cr_assert(count == 1 || plat_ctx_follow(r.ctx, -1));
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
    /* Not where its guest may not be. */
    plat_ctx_affinity(r.ctx, &one, 1);
    cr_assert_not(count > 1 && plat_ctx_follow(r.ctx, nth_cpu(1)));
    check_turns(r.ctx, nth_cpu(0));
    plat_ctx_affinity(r.ctx, &every, 1);
    rig_end(&r);
}
#endif
