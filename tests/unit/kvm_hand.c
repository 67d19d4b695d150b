/* Calls that are handed over to a spinning thread: the same as all others, whatever the guest does
 * with what they are handed over in. */
#include <pthread.h>
#include <stdlib.h>

#define RIG_KVM
#include "tests/unit/plat_rig.h"

/* Everything but rcx, r11 and rax is what it was after a call. */
GUEST(code_call, "1:  mov $5, %eax\n    syscall\n    jmp 1b\n");
GUEST(code_bases, "1:  rdfsbase %rdi\n    rdgsbase %rsi\n    mov $5, %eax\n    syscall\n"
                  "    add $8, %r8\n    wrfsbase %r8\n    jmp 1b\n");
GUEST(code_flags, "1:  mov $5, %eax\n    syscall\n    pushfq\n    pop %rdi\n    jmp 1b\n");
GUEST(code_jump, "    jmp *%rax\n");
/* Calls, as the page has it, and does not: state to edi, rcx times. */
GUEST(code_forge, "1:  mov %edi, (%rsi)\n    mov %rcx, 0xa8(%rsi)\n    dec %rcx\n    jnz 1b\n"
                  "    mov $7, %eax\n    syscall\n");
GUEST(code_scribble, "    mov %rsi, %rbx\n1:  rdtsc\n    mov %eax, %ecx\n    and $0xf8, %ecx\n"
                     "    mov %rax, (%rbx,%rcx)\n    mov $9, %eax\n    syscall\n    jmp 1b\n");
GUEST(code_spin, "1:  jmp 1b\n");
/* Calls, and counts on. */
GUEST(code_beside, "    mov $42, %eax\n    mov %rax, 0xa8(%rsi)\n    movl $1, (%rsi)\n"
                   "1:  incq (%rdi)\n    jmp 1b\n");

#define EXCHANGE (KVM_HAND_VA + PAGE_SIZE)

/* As with a free CPU: it is tried, and there is always time to wait. */
static void hand_on(struct rig *r, uint32_t spin)
{
    struct kvm_plat *p = kvm_plat(r->plat);

    p->runner_max = 1;
    p->spin = spin;
}

#define FOR_EVER 2000000000u

static enum plat_event hand_run(struct rig *r, struct plat_fault *f)
{
    stub_pace_split(&kvm_ctx(r->ctx)->pace);
    return plat_ctx_run(r->ctx, false, f);
}

static void hand_call(struct rig *r)
{
    struct plat_fault f;
    enum plat_event e = hand_run(r, &f);

    cr_assert_eq(e, PLAT_EVENT_SYSCALL, "event %d, signal %d at %lx", (int)e, f.signo,
                 (unsigned long)plat_ctx_regs(r->ctx)->rip);
}

static bool hand_taken(struct rig *r)
{
    return atomic_load(&kvm_ctx(r->ctx)->hand) == KVM_HAND_TAKEN;
}

/* Interrupts r's context for ever. */
static void *kick_main(void *arg)
{
    struct rig *r = arg;

    for (;;) {
        plat_ctx_interrupt(r->ctx);
        usleep(60);
        pthread_testcancel();
    }
    return NULL;
}

/* Nothing to hand over where SYSCALL comes to ring 0. */
#define NEED_HAND(r)                                                                               \
    do {                                                                                           \
        if (!kvm_plat((r)->plat)->ring3_syscall) {                                                 \
            rig_end(r);                                                                            \
            return;                                                                                \
        }                                                                                          \
    } while (0)

Test(kvm_hand, registers_come_and_go)
{
    struct rig r;

    RIG_START(&r, code_call);
    NEED_HAND(&r);
    hand_on(&r, FOR_EVER);
    struct plat_regs *regs = plat_ctx_regs(r.ctx);
    uint64_t *word = (uint64_t *)regs;
    int taken = 0;
    for (uint64_t round = 0; round < 3000; round++) {
        /* r15 to r8 and rdx to rdi, but r11, rcx and rax. */
        for (size_t i = 0; i < 15; i++)
            if (i != 6 && i != 10 && i != 11)
                word[i] = round * 1000 + i;
        regs->rsp = UINT64_MAX - round;
        regs->rip = CODE;
        hand_call(&r);
        taken += hand_taken(&r);
        for (size_t i = 0; i < 15; i++)
            if (i != 6 && i != 10 && i != 11)
                cr_assert_eq(word[i], round * 1000 + i, "word %zu", i);
        cr_assert(regs->orig_rax == 5 && regs->rax == (uint64_t)-ENOSYS);
        cr_assert(regs->rip == CODE + 7 && regs->rcx == CODE + 7 && regs->r11 == regs->eflags);
        cr_assert_eq(regs->rsp, UINT64_MAX - round);
    }
    cr_assert_gt(taken, 0);
    rig_end(&r);
}

Test(kvm_hand, segment_bases)
{
    struct rig r;

    RIG_START(&r, code_bases);
    NEED_HAND(&r);
    hand_on(&r, FOR_EVER);
    struct plat_regs *regs = plat_ctx_regs(r.ctx);
    uint64_t fs = 0x1000, gs = 0x2000;
    regs->fs_base = fs;
    regs->gs_base = gs;
    for (uint64_t round = 0; round < 1000; round++) {
        hand_call(&r);
        cr_assert(regs->rdi == fs && regs->rsi == gs, "round %lu", (unsigned long)round);
        cr_assert(regs->fs_base == fs && regs->gs_base == gs);
        /* The guest sets one, and we the other now and then. */
        fs = round * 8 + 0x10000;
        regs->r8 = fs - 8;
        if (round % 3 == 0)
            regs->gs_base = gs = 0x7000000 + round;
    }
    rig_end(&r);
}

Test(kvm_hand, flags)
{
    struct rig r;

    RIG_START(&r, code_flags);
    NEED_HAND(&r);
    hand_on(&r, FOR_EVER);
    struct plat_regs *regs = plat_ctx_regs(r.ctx);
    regs->rsp = DATA + 2048;
    hand_call(&r);
    for (uint64_t flags = 0; flags < 0x1000; flags += 3) {
        regs->rip = CODE + 7;
        regs->eflags = flags & 0xcd5;
        hand_call(&r);
        cr_assert_eq(regs->rdi & 0xcd5, flags & 0xcd5, "flags %lx", (unsigned long)flags);
    }
    /* One step, and a program's own trap flag. */
    struct plat_fault f;
    stub_pace_split(&kvm_ctx(r.ctx)->pace);
    regs->eflags = KVM_EFLAGS;
    regs->rip = CODE;
    cr_assert_eq(plat_ctx_run(r.ctx, true, &f), PLAT_EVENT_FAULT);
    cr_assert(f.signo == SIGTRAP && regs->rip == CODE + 5);
    rig_end(&r);
}

/* Every byte of it, with and without a call under way. It may count to four thousand millions
 * there. */
Test(kvm_hand, jumps_into_the_code, .timeout = 600)
{
    struct plat_fault f;
    struct rig r;
    pthread_t t;

    RIG_START(&r, code_jump);
    NEED_HAND(&r);
    hand_on(&r, 100);
    cr_assert_eq(pthread_create(&t, NULL, kick_main, &r), 0);
    for (uint64_t off = 0; off < (uint64_t)(kvm_hand_end - kvm_hand) + 64; off++)
        for (uint64_t way = 0; way < 3; way++) {
            struct plat_regs *regs = plat_ctx_regs(r.ctx);
            *regs = (struct plat_regs){.rip = CODE,
                                       .rax = KVM_HAND_VA + off,
                                       .rcx = way == 0   ? EXCHANGE
                                              : way == 1 ? CODE
                                                         : UINT64_MAX,
                                       .rsp = DATA + 2048,
                                       .eflags = KVM_EFLAGS};
            enum plat_event e = way == 1 ? plat_ctx_run(r.ctx, false, &f) : hand_run(&r, &f);
            cr_assert(e != PLAT_EVENT_DEAD, "offset %#lx: event %d", (unsigned long)off, (int)e);
        }
    pthread_cancel(t);
    pthread_join(t, NULL);
    rig_end(&r);
}

/* A guest that says it calls, and goes on: each is a call to us, and its own last one comes. */
Test(kvm_hand, forged_states)
{
    struct rig r;
    struct plat_fault f;

    RIG_START(&r, code_forge);
    NEED_HAND(&r);
    hand_on(&r, 1000);
    for (uint32_t state = 0; state < 6; state++)
        for (int round = 0; round < 30; round++) {
            struct plat_regs *regs = plat_ctx_regs(r.ctx);
            enum plat_event e = PLAT_EVENT_INTERRUPT;
            kvm_hand_stop(kvm_ctx(r.ctx));
            *regs = (struct plat_regs){.rip = CODE,
                                       .rdi = state,
                                       .rsi = EXCHANGE,
                                       .rcx = 20000,
                                       .rsp = DATA + 2048,
                                       .eflags = KVM_EFLAGS};
            for (int n = 0; n < 1000 && regs->orig_rax != 7; n++) {
                e = hand_run(&r, &f);
                if (e != PLAT_EVENT_SYSCALL)
                    break;
            }
            cr_assert(e == PLAT_EVENT_SYSCALL || e == PLAT_EVENT_FAULT, "event %d", (int)e);
        }
    /* It is still good for a guest that behaves. */
    kvm_hand_stop(kvm_ctx(r.ctx));
    *plat_ctx_regs(r.ctx) =
        (struct plat_regs){.rip = CODE, .rsi = DATA, .rcx = 1, .eflags = KVM_EFLAGS};
    hand_call(&r);
    cr_assert_eq(plat_ctx_regs(r.ctx)->orig_rax, 7);
    rig_end(&r);
}

/* It may have told itself to wait for minutes. */
Test(kvm_hand, scribbling, .timeout = 600)
{
    struct rig r;
    struct plat_fault f;
    pthread_t t;

    RIG_START(&r, code_scribble);
    NEED_HAND(&r);
    hand_on(&r, 500);
    cr_assert_eq(pthread_create(&t, NULL, kick_main, &r), 0);
    for (int i = 0; i < 3000; i++) {
        struct plat_regs *regs = plat_ctx_regs(r.ctx);
        enum plat_event e = hand_run(&r, &f);
        cr_assert_neq(e, PLAT_EVENT_DEAD);
        /* It has hurt itself, or lost its way: again from the start. */
        if (e != PLAT_EVENT_SYSCALL || regs->rip - CODE > PAGE_SIZE)
            *regs = (struct plat_regs){
                .rip = CODE, .rsi = EXCHANGE, .rsp = DATA + 2048, .eflags = KVM_EFLAGS};
        regs->rbx = EXCHANGE;
    }
    pthread_cancel(t);
    pthread_join(t, NULL);
    rig_end(&r);
}

/* One address space never sees the page of another, parent and child neither. */
Test(kvm_hand, pages_are_not_shared)
{
    struct rig r;
    struct plat_fault f;
    struct plat_as *as;
    struct plat_ctx *child;

    RIG_START(&r, code_forge);
    NEED_HAND(&r);
    hand_on(&r, 1000);
    *plat_ctx_regs(r.ctx) =
        (struct plat_regs){.rip = CODE, .rsi = DATA, .rcx = 1, .eflags = KVM_EFLAGS};
    hand_call(&r);
    cr_assert_neq(kvm_as(r.as)->exchange[0].hva, NULL);
    cr_assert_eq(plat_ctx_fork(r.ctx, &as, &child), 0);
    cr_assert_eq(kvm_as(as)->exchange[0].hva, NULL);
    *plat_ctx_regs(child) =
        (struct plat_regs){.rip = CODE, .rsi = EXCHANGE, .rcx = 1, .eflags = KVM_EFLAGS};
    cr_assert_eq(plat_ctx_run(child, false, &f), PLAT_EVENT_FAULT);
    cr_assert(f.signo == SIGSEGV && f.addr == EXCHANGE);
    plat_ctx_destroy(child);
    plat_as_put(as);
    rig_end(&r);
}

/* What needs the guest to be out gets it out: a fork, extended state, the end. */
Test(kvm_hand, others_need_it_out)
{
    struct rig r;
    uint8_t *state;
    int taken = 0;

    RIG_START(&r, code_call);
    NEED_HAND(&r);
    hand_on(&r, FOR_EVER);
    state = malloc(r.plat->xstate_size);
    for (int i = 0; i < 200; i++) {
        struct plat_ctx *child;
        struct plat_as *as;
        hand_call(&r);
        /* The runner may not be quite free yet after the last time. */
        taken += hand_taken(&r);
        switch (i % 4) {
        case 0:
            cr_assert_eq(plat_ctx_fork(r.ctx, NULL, &child), 0);
            plat_ctx_destroy(child);
            break;
        case 1:
            cr_assert_eq(plat_ctx_fork(r.ctx, &as, &child), 0);
            cr_assert_eq(rig_call(child), 5);
            plat_ctx_destroy(child);
            plat_as_put(as);
            break;
        case 2:
            cr_assert_eq(plat_ctx_xstate_get(r.ctx, state, r.plat->xstate_size),
                         (int64_t)r.plat->xstate_size);
            break;
        default:
            continue;
        }
        cr_assert(!kvm_hand_holds(kvm_ctx(r.ctx)));
    }
    free(state);
    cr_assert_gt(taken, 0);
    rig_end(&r);
}

/* A guest that is not answered leaves, and its processor is anybody's. */
Test(kvm_hand, nobody_waits_for_long)
{
    struct rig r;

    RIG_START(&r, code_call);
    NEED_HAND(&r);
    hand_on(&r, 1000);
    for (int i = 0; i < 20; i++) {
        hand_call(&r);
        struct kvm_ctx *c = kvm_ctx(r.ctx);
        while (kvm_hand_holds(c))
            usleep(100);
        while (atomic_load(&kvm_plat(r.plat)->cpus[0]->busy))
            usleep(100);
        cr_assert_eq(plat_ctx_regs(r.ctx)->orig_rax, 5);
    }
    rig_end(&r);
}

/* ---- threads ---- */

struct caller {
    struct plat_ctx *ctx;
    uint64_t number;
    bool kicked;
    _Atomic bool done;
};

/* Each has its own registers, and gets what it was answered; wherever a kick finds it. */
static void *caller_main(void *arg)
{
    struct caller *c = arg;
    struct plat_regs *regs = plat_ctx_regs(c->ctx);
    struct plat_fault f;

    regs->rip = CODE;
    for (uint64_t i = 0; i < 3000; i++) {
        const uint64_t mine = c->number * 100000 + i;
        enum plat_event e = PLAT_EVENT_INTERRUPT;
        regs->rdi = c->number;
        regs->rbx = mine;
        regs->fs_base = mine * 16;
        while (e == PLAT_EVENT_INTERRUPT) {
            stub_pace_split(&kvm_ctx(c->ctx)->pace);
            e = plat_ctx_run(c->ctx, false, &f);
            cr_assert(e == PLAT_EVENT_SYSCALL || (c->kicked && e == PLAT_EVENT_INTERRUPT));
        }
        cr_assert(regs->rdi == c->number && regs->rbx == mine, "thread %lu call %lu: %lu %lu",
                  c->number, i, regs->rdi, regs->rbx);
        cr_assert_eq(regs->fs_base, mine * 16, "thread %lu call %lu: %lx", c->number, i,
                     (unsigned long)regs->fs_base);
        /* About as long as the guest waits. */
        for (uint64_t n = (i * 37) % 400; n > 0; n--)
            __builtin_ia32_pause();
    }
    atomic_store(&c->done, true);
    return NULL;
}

static void share_a_runner(bool kicked)
{
    enum { CALLERS = 4 };
    struct caller c[CALLERS];
    pthread_t t[CALLERS];
    struct rig r;

    RIG_START(&r, code_call);
    NEED_HAND(&r);
    hand_on(&r, 200);
    for (uint64_t i = 0; i < CALLERS; i++) {
        c[i] = (struct caller){.number = i + 1, .kicked = kicked};
        cr_assert_eq(plat_ctx_fork(r.ctx, NULL, &c[i].ctx), 0);
        cr_assert_eq(pthread_create(&t[i], NULL, caller_main, &c[i]), 0);
    }
    for (size_t i = 0; i < CALLERS;) {
        if (atomic_load(&c[i].done)) {
            pthread_join(t[i], NULL);
            plat_ctx_destroy(c[i++].ctx);
            continue;
        }
        if (kicked)
            for (size_t n = i; n < CALLERS; n++)
                plat_ctx_interrupt(c[n].ctx);
        usleep(60);
    }
    rig_end(&r);
}

Test(kvm_hand, threads_share_a_runner, .timeout = 600)
{
    share_a_runner(false);
}

Test(kvm_hand, threads_share_a_runner_and_are_kicked, .timeout = 600)
{
    share_a_runner(true);
}

/* The machine ends when the runner has just come out, and has not told everybody yet. */
Test(kvm_hand, the_end_comes_at_once, .timeout = 600)
{
    for (int i = 0; i < 60; i++) {
        struct rig r;
        RIG_START(&r, code_call);
        NEED_HAND(&r);
        hand_on(&r, FOR_EVER);
        hand_call(&r);
        rig_end(&r);
    }
}

/* A guest that works beside its call does so at its own cost, and not for long. */
Test(kvm_hand, works_beside_its_call, .timeout = 600)
{
    struct rig r;

    RIG_START(&r, code_beside);
    NEED_HAND(&r);
    hand_on(&r, FOR_EVER);
    const _Atomic uint64_t *count = rig_data(&r);
    for (int i = 0; i < 5; i++) {
        const uint64_t before = atomic_load(count), cpu = plat_ctx_cpu_time(r.ctx);
        *plat_ctx_regs(r.ctx) =
            (struct plat_regs){.rip = CODE, .rdi = DATA, .rsi = EXCHANGE, .eflags = KVM_EFLAGS};
        hand_call(&r);
        cr_assert_eq(plat_ctx_regs(r.ctx)->orig_rax, 42);
        while (kvm_hand_holds(kvm_ctx(r.ctx)))
            usleep(1000);
        while (atomic_load(&kvm_plat(r.plat)->cpus[0]->busy))
            usleep(1000);
        const uint64_t then = atomic_load(count), spent = plat_ctx_cpu_time(r.ctx);
        cr_assert(then > before && spent > cpu);
        usleep(20000);
        cr_assert_eq(atomic_load(count), then);
        cr_assert_eq(plat_ctx_cpu_time(r.ctx), spent);
    }
    rig_end(&r);
}

/* ---- kicks ---- */

/* A guest that only computes comes out each time; one that calls loses neither calls nor kicks. */
static void kick_storm(const char *code, size_t size, uint32_t spin, enum plat_event other)
{
    struct rig r;
    struct plat_fault f;
    pthread_t t;
    int interrupts = 0;

    rig_start(&r, code, size);
    NEED_HAND(&r);
    hand_on(&r, spin);
    cr_assert_eq(pthread_create(&t, NULL, kick_main, &r), 0);
    for (int i = 0; interrupts < 500; i++) {
        enum plat_event e = hand_run(&r, &f);
        cr_assert(e == PLAT_EVENT_INTERRUPT || e == other, "event %d", (int)e);
        const uint64_t rip = plat_ctx_regs(r.ctx)->rip;
        cr_assert(rip >= CODE && rip < CODE + size, "at %lx", (unsigned long)rip);
        interrupts += e == PLAT_EVENT_INTERRUPT;
    }
    pthread_cancel(t);
    pthread_join(t, NULL);
    rig_end(&r);
}

Test(kvm_hand, kicks_while_it_computes, .timeout = 600)
{
    kick_storm(code_spin, (size_t)(code_spin_end - code_spin), 200, PLAT_EVENT_INTERRUPT);
}

Test(kvm_hand, kicks_while_it_calls, .timeout = 600)
{
    kick_storm(code_call, (size_t)(code_call_end - code_call), 200, PLAT_EVENT_SYSCALL);
    kick_storm(code_call, (size_t)(code_call_end - code_call), 20000, PLAT_EVENT_SYSCALL);
}
