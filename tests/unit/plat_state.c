/* Registers and extended state: kept over switches, copied to children, fresh after execve. */
#include <pthread.h>
#include <stdlib.h>

#include "tests/unit/plat_rig.h"

/* Leaves a pattern made of rdi in xmm0 and ymm1, then calls for ever and stores both on the way. */
GUEST(code_vectors, "    movq %rdi, %xmm0\n"
                    "    vmovq %rdi, %xmm1\n"
                    "    vinsertf128 $1, %xmm1, %ymm1, %ymm1\n"
                    "    xor %eax, %eax\n"
                    "    cpuid\n"
                    "    .globl code_vectors_loop\n"
                    "    .hidden code_vectors_loop\n"
                    "code_vectors_loop:\n"
                    "1:  mov $77, %eax\n"
                    "    syscall\n"
                    "    mov $0x500000, %edi\n"
                    "    movdqu %xmm0, (%rdi)\n"
                    "    vmovdqu %ymm1, 32(%rdi)\n"
                    "    jmp 1b\n");
extern const char code_vectors_loop[];

/* Counts every register up between calls; eax is the call's number. */
GUEST(code_count, "1:  inc %rbx\n    inc %rbp\n    inc %rdi\n    inc %rsi\n    inc %rdx\n"
                  "    inc %r8\n    inc %r9\n    inc %r10\n    inc %r12\n    inc %r13\n"
                  "    inc %r14\n    inc %r15\n    inc %rsp\n    mov $5, %eax\n    syscall\n"
                  "    jmp 1b\n");

static bool have_avx(void)
{
    return __builtin_cpu_supports("avx");
}

static void vectors_check(struct rig *r, uint64_t want)
{
    const uint64_t *d = rig_data(r);

    cr_assert_eq(d[0], want, "xmm0 %lx, wanted %lx", d[0], want);
    cr_assert(d[4] == want && d[6] == want, "ymm1 %lx %lx, wanted %lx", d[4], d[6], want);
}

Test(plat_state, vectors_survive_switches_and_batches)
{
    struct rig r;

    if (!have_avx())
        return;
    RIG_START(&r, code_vectors);
    plat_ctx_regs(r.ctx)->rdi = 0x1122334455667788;
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(rig_call(r.ctx), 77);
        if (i > 0)
            vectors_check(&r, 0x1122334455667788);
        if (i % 3 == 0) {
            cr_assert_eq(plat_as_unmap(r.as, (uaddr_t){0x900000}, PAGE_SIZE), 0);
            cr_assert_eq(plat_as_commit(r.as, r.ctx), 0);
        }
    }
    rig_end(&r);
}

Test(plat_state, every_register_counts)
{
    struct rig r;

    RIG_START(&r, code_count);
    struct plat_regs *regs = plat_ctx_regs(r.ctx);
    for (uint64_t i = 1; i <= 500; i++) {
        cr_assert_eq(rig_call(r.ctx), 5);
        cr_assert(regs->rbx == i && regs->rbp == i && regs->rdi == i && regs->rsi == i);
        cr_assert(regs->rdx == i && regs->r8 == i && regs->r9 == i && regs->r10 == i);
        cr_assert(regs->r12 == i && regs->r13 == i && regs->r14 == i && regs->r15 == i);
        cr_assert(regs->rsp == i && regs->rcx == regs->rip);
        /* Results that the host takes for its own, and any other. */
        regs->rax = (uint64_t) - (int64_t)(i + 400);
        if (i % 7 == 0)
            plat_ctx_interrupt(r.ctx);
        struct plat_fault f;
        if (i % 7 == 0)
            cr_assert_eq(plat_ctx_run(r.ctx, false, &f), PLAT_EVENT_INTERRUPT);
    }
    rig_end(&r);
}

struct child {
    struct rig *r;
    struct plat_ctx *ctx;
    uint64_t other;
};

static void *child_main(void *arg)
{
    struct child *c = arg;

    cr_assert_eq(rig_call(c->ctx), 77);
    vectors_check(c->r, c->other);
    plat_ctx_destroy(c->ctx);
    return NULL;
}

static void child_round(struct rig *r, bool own_memory, uint64_t want)
{
    struct plat_as *as = NULL;
    struct child c = {.r = r, .other = want};
    pthread_t t;

    cr_assert_eq(plat_ctx_fork(r->ctx, own_memory ? &as : NULL, &c.ctx), 0);
    cr_assert_eq(pthread_create(&t, NULL, child_main, &c), 0);
    pthread_join(t, NULL);
    if (as != NULL)
        plat_as_put(as);
}

Test(plat_state, children_start_with_their_parents_vectors)
{
    struct rig r;

    if (!have_avx())
        return;
    RIG_START(&r, code_vectors);
    for (uint64_t i = 1; i <= 20; i++) {
        /* Again from the start with another value: threads that were parked hold an old one. */
        plat_ctx_regs(r.ctx)->rip = CODE;
        plat_ctx_regs(r.ctx)->rdi = i * 0x0101010101010101;
        cr_assert_eq(rig_call(r.ctx), 77);
        child_round(&r, i % 2 == 0, i * 0x0101010101010101);
    }
    rig_end(&r);
}

Test(plat_state, exec_starts_afresh)
{
    struct rig r;
    struct plat_as *as;

    if (!have_avx())
        return;
    RIG_START(&r, code_vectors);
    plat_ctx_regs(r.ctx)->rdi = UINT64_MAX;
    cr_assert_eq(rig_call(r.ctx), 77);
    cr_assert_eq(rig_call(r.ctx), 77);
    vectors_check(&r, UINT64_MAX);
    cr_assert_eq(plat_as_create(r.plat, &as), 0);
    cr_assert_eq(plat_ctx_rebind(r.ctx, as), 0);
    plat_as_put(r.as);
    r.as = as;
    rig_map_code(&r, as);
    struct plat_regs *regs = plat_ctx_regs(r.ctx);
    cr_assert(regs->rdi == 0 && regs->fs_base == 0 && regs->eflags == 0x202);
    regs->rip = CODE + (uint64_t)(code_vectors_loop - code_vectors);
    cr_assert_eq(rig_call(r.ctx), 77);
    cr_assert_eq(rig_call(r.ctx), 77);
    vectors_check(&r, 0);
    rig_end(&r);
}

Test(plat_state, extended_state_goes_out_and_in)
{
    struct rig r;
    char *a, *b;

    RIG_START(&r, code_vectors);
    size_t size = r.plat->xstate_size;
    a = malloc(size);
    b = malloc(size);
    plat_ctx_regs(r.ctx)->rdi = 42;
    if (have_avx())
        cr_assert_eq(rig_call(r.ctx), 77);
    int64_t n = plat_ctx_xstate_get(r.ctx, a, size);
    cr_assert(n >= 576 && (size_t)n <= size, "%ld bytes of %zu", (long)n, size);
    cr_assert_eq(plat_ctx_xstate_get(r.ctx, b, 100), -ENOSPC);
    a[160] = 99; /* xmm0 */
    cr_assert_eq(plat_ctx_xstate_set(r.ctx, a, (size_t)n), 0);
    cr_assert_eq(plat_ctx_xstate_get(r.ctx, b, size), n);
    cr_assert_eq(b[160], 99);
    /* A frame without the extended part. */
    a[160] = 98;
    cr_assert_eq(plat_ctx_xstate_set(r.ctx, a, 512), 0);
    cr_assert_eq(plat_ctx_xstate_get(r.ctx, b, size), n);
    cr_assert_eq(b[160], 98);
    /* Hostile ones: unknown features, compaction, reserved bytes, sizes. */
    memset(b, 0xff, size);
    cr_assert_eq(plat_ctx_xstate_set(r.ctx, b, size), -EINVAL);
    memcpy(b, a, size);
    memset(b + 512, 0xff, 8);
    cr_assert_eq(plat_ctx_xstate_set(r.ctx, b, size), -EINVAL);
    memcpy(b, a, size);
    memset(b + 520, 0xff, 8);
    cr_assert_eq(plat_ctx_xstate_set(r.ctx, b, size), -EINVAL);
    cr_assert_eq(plat_ctx_xstate_set(r.ctx, a, 0), -EINVAL);
    cr_assert_eq(plat_ctx_xstate_set(r.ctx, a, size + 1), -EINVAL);
    free(a);
    free(b);
    rig_end(&r);
}

#ifdef RIG_STUBS
GUEST(code_tsc, "1: rdtsc; mov $9, %eax; syscall; jmp 1b");

Test(plat_state, time_stamp_counter)
{
    struct plat_fault f;
    struct rig r;

    RIG_START(&r, code_tsc);
    cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
    for (int i = 0; i < 3; i++) {
        plat_ctx_tsc(r.ctx, false);
        cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_FAULT);
        cr_assert(f.signo == SIGSEGV && f.code == SI_KERNEL);
        plat_ctx_tsc(r.ctx, true);
        cr_assert(plat_ctx_run(r.ctx, false, &f) == PLAT_EVENT_SYSCALL);
        cr_assert_eq(plat_ctx_regs(r.ctx)->orig_rax, 9);
    }
    rig_end(&r);
}
#endif
