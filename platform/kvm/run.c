/* The switch: into guest code, and why it came back. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/kvm/kvm_priv.h"

#define NS_PER_S UINT64_C(1000000000)
/* Exceptions that push an error code: Intel SDM vol. 3, table 6-1. */
#define VECTORS_WITH_ERROR 0x60227d00u

uint64_t kvm_clock(clockid_t clock)
{
    struct timespec ts;

    (void)clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t kvm_now(void)
{
    return kvm_clock(CLOCK_MONOTONIC);
}

void kvm_ctx_interrupt(struct plat_ctx *base)
{
    struct kvm_ctx *c = kvm_ctx(base);

    atomic_store(&c->interrupt, true);
    /* Processors are never freed while contexts live; one that runs another by now only looks
     * up and goes on. */
    struct kvm_vcpu *v = atomic_load(&c->vcpu);
    if (v != NULL)
        kvm_pool_kick(v);
}

/* ---- into the guest ---- */

uint64_t kvm_run_flags(const struct kvm_ctx *c, bool single_step)
{
    return (c->regs.eflags & KVM_USER_FLAGS) | 2 | KVM_FLAG_IF | (single_step ? KVM_FLAG_TF : 0);
}

/* The host has an exception for the guest that it has not come to deliver: it would, at the next
 * entry, wherever that is. It does not tell of those of instructions that ask for one, but of their
 * number, which stays till it is set. */
static bool run_exception_waits(const struct kvm_vcpu *v)
{
    const struct kvm_vcpu_events *e = &v->run->s.regs.events;

    return e->exception.injected || e->exception.pending || e->exception.nr == KVM_VECTOR_BP ||
           e->exception.nr == KVM_VECTOR_OF;
}

/* The processor is in ring 0, at the end of an exception: it returns by a frame of our making. */
static void run_load_frame(struct kvm_vcpu *v, struct kvm_regs *r)
{
    const uint64_t frame[5] = {r->rip, KVM_USER_CS, r->rflags, r->rsp, KVM_USER_SS};
    const uint64_t at = KVM_STACK_TOP - sizeof(frame) - 8;

    memcpy(v->stack + at, frame, sizeof(frame));
    r->rip = KVM_STUB_VA + (uint64_t)(kvm_stub_return - kvm_stub_vectors);
    r->rsp = v->stack_va + at;
    r->rflags = 2;
}

void kvm_run_load(struct kvm_ctx *c, struct kvm_vcpu *v, bool single_step)
{
    const struct plat_regs *g = &c->regs;
    struct kvm_regs *r = &v->run->s.regs.regs;
    struct kvm_sregs *s = &v->run->s.regs.sregs;

    *r = (struct kvm_regs){
        .rax = g->rax,
        .rbx = g->rbx,
        .rcx = g->rcx,
        .rdx = g->rdx,
        .rsi = g->rsi,
        .rdi = g->rdi,
        .rsp = g->rsp,
        .rbp = g->rbp,
        .r8 = g->r8,
        .r9 = g->r9,
        .r10 = g->r10,
        .r11 = g->r11,
        .r12 = g->r12,
        .r13 = g->r13,
        .r14 = g->r14,
        .r15 = g->r15,
        .rip = patch_entry(&c->patch, g->rip),
        .rflags = kvm_run_flags(c, single_step),
    };
    if ((s->cs.selector & 3) == 0)
        run_load_frame(v, r);
    if (UNLIKELY(run_exception_waits(v))) {
        /* Of who was here before, or told already. */
        v->run->s.regs.events = (struct kvm_vcpu_events){.flags = 0};
        v->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
    }
    /* What was to be loaded last time and was not, since there was no need to run, is still to be:
     * the host takes the bits away. */
    v->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
    if (s->cr3 == c->as->root.gpa && s->fs.base == g->fs_base && s->gs.base == g->gs_base)
        return;
    s->cr3 = c->as->root.gpa;
    s->fs.base = g->fs_base;
    s->gs.base = g->gs_base;
    v->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
}

/* ---- out of it ---- */

void kvm_run_save(struct kvm_ctx *c, const struct kvm_vcpu *v)
{
    const struct kvm_regs *r = &v->run->s.regs.regs;
    const struct kvm_sregs *s = &v->run->s.regs.sregs;

    c->regs = (struct plat_regs){
        .rax = r->rax,
        .rbx = r->rbx,
        .rcx = r->rcx,
        .rdx = r->rdx,
        .rsi = r->rsi,
        .rdi = r->rdi,
        .rsp = r->rsp,
        .rbp = r->rbp,
        .r8 = r->r8,
        .r9 = r->r9,
        .r10 = r->r10,
        .r11 = r->r11,
        .r12 = r->r12,
        .r13 = r->r13,
        .r14 = r->r14,
        .r15 = r->r15,
        .rip = r->rip,
        .eflags = r->rflags & (KVM_USER_FLAGS | 2 | KVM_FLAG_IF),
        .cs = KVM_USER_CS,
        .ss = KVM_USER_SS,
        .fs_base = s->fs.base,
        .gs_base = s->gs.base,
        .orig_rax = UINT64_MAX,
    };
}

/* The return address is in rcx and the flags in r11. */
static enum plat_event run_syscall(struct kvm_ctx *c)
{
    c->regs.orig_rax = c->regs.rax;
    c->regs.rax = (uint64_t)-ENOSYS;
    c->regs.rip = c->regs.rcx;
    c->regs.eflags = (c->regs.r11 & KVM_USER_FLAGS) | 2 | KVM_FLAG_IF;
    /* Each call had to leave the machine so far. */
    if (patch_called(&c->patch))
        stub_pace_again(&c->pace);
    return PLAT_EVENT_SYSCALL;
}

/* The frame of an exception is on the processor's stack, which the guest cannot reach. */
static enum plat_event run_exception(struct kvm_ctx *c, struct kvm_vcpu *v, unsigned vector,
                                     struct plat_fault *out)
{
    const size_t words = (VECTORS_WITH_ERROR >> vector & 1) ? 6 : 5;
    uint64_t frame[6], at = c->regs.rsp - v->stack_va, error = 0;

    BUG_ON(at > PAGE_SIZE - words * 8);
    memcpy(frame, v->stack + at, words * 8);
    const uint64_t *f = frame;
    if (words == 6)
        error = *f++;
    /* The machine's own code does not fault; where it seems to, nothing can be told any more. */
    if ((f[1] & 3) != 3) {
        log_error("kvm: exception %u at %#llx in ring 0", vector, (unsigned long long)f[0]);
        return PLAT_EVENT_DEAD;
    }
    c->regs.rip = f[0];
    c->regs.eflags = f[2] & (KVM_USER_FLAGS | 2 | KVM_FLAG_IF);
    c->regs.rsp = f[3];
    return kvm_trap(c, v, vector, error, out);
}

enum run_result { RUN_AGAIN, RUN_DONE, RUN_YIELD };

static bool run_in_ring3(const struct kvm_vcpu *v)
{
    return (v->run->s.regs.sregs.cs.selector & 3) == 3;
}

static bool run_reads_port(const struct kvm_vcpu *v)
{
    return v->run->exit_reason == KVM_EXIT_IO && v->run->io.direction == KVM_EXIT_IO_IN;
}

/* It was written to by the code that system calls come to. */
static bool run_writes_call(const struct kvm_vcpu *v)
{
    const uint64_t rip = v->run->s.regs.regs.rip;
    const unsigned port = v->run->io.port;

    return (port == KVM_PORT_SYSCALL || port == KVM_PORT_LEFT) && !run_reads_port(v) &&
           (!run_in_ring3(v) || rip - KVM_SYSCALL3_VA < PAGE_SIZE || kvm_hand_inside(rip));
}

/* A guest wrote to one of these ports itself: the processor would not have let it, and would not
 * have gone on. With a prefix for repetition it has not. */
static void run_undo_write(struct kvm_ctx *c, const struct kvm_vcpu *v)
{
    const uint64_t rip = c->regs.rip;
    uint8_t last, before;

    if (!kvm_as_read(c->as, rip - 1, &last, 1))
        return;
    if ((last & 0xfe) == 0xee || (last & 0xfe) == 0x6e)
        c->regs.rip = rip - (v->run->io.size == 2 ? 2 : 1);
    else if (last == v->run->io.port && kvm_as_read(c->as, rip - 2, &before, 1) &&
             (before & 0xfe) == 0xe6)
        c->regs.rip = rip - (v->run->io.size == 2 ? 3 : 2);
}

/* SYSCALL left the return address in rcx and the flags in r11, or all registers are in the exchange
 * page. A guest in ring 3 that jumps there makes a call like any other, with registers of its
 * choice. */
static enum plat_event run_exit_call(struct kvm_ctx *c, struct kvm_vcpu *v, unsigned port)
{
    const bool handing = run_in_ring3(v) && kvm_hand_inside(v->run->s.regs.regs.rip);

    if (port == KVM_PORT_SYSCALL || !handing || !kvm_hand_regs(c, v))
        kvm_run_save(c, v);
    return run_syscall(c);
}

static enum run_result run_exit_io(struct kvm_ctx *c, struct kvm_vcpu *v, struct plat_fault *out,
                                   enum plat_event *event)
{
    const unsigned port = v->run->io.port;

    if (LIKELY(run_writes_call(v))) {
        *event = run_exit_call(c, v, port);
        return RUN_DONE;
    }
    kvm_run_save(c, v);
    if (port < KVM_VECTORS && !run_in_ring3(v)) {
        *event = run_exception(c, v, port, out);
        return RUN_DONE;
    }
    if (!run_reads_port(v))
        run_undo_write(c, v);
    *event = kvm_trap(c, v, KVM_VECTOR_GP, 0, out);
    return RUN_DONE;
}

/* c->regs are those of the guest. They may be loaded on another processor next, with another
 * exchange page: in the code of a site it begins anew. */
static enum run_result run_interrupted(struct kvm_ctx *c, enum plat_event *event)
{
    (void)patch_put_right(&c->patch);
    if (!atomic_exchange(&c->interrupt, false))
        return RUN_YIELD;
    *event = PLAT_EVENT_INTERRUPT;
    return RUN_DONE;
}

/* A signal. In the middle of the way out there is nothing to save: it must be gone to its end,
 * which begins where the host has an exception to deliver. On the way in nothing has happened yet,
 * and c->regs are what they were. */
static enum run_result run_exit_signal(struct kvm_ctx *c, struct kvm_vcpu *v,
                                       enum plat_event *event)
{
    const uint64_t rip = v->run->s.regs.regs.rip;

    if (run_exception_waits(v))
        return RUN_AGAIN;
    if (!run_in_ring3(v)) {
        if (rip == KVM_STUB_VA + (uint64_t)(kvm_stub_return - kvm_stub_vectors))
            return run_interrupted(c, event);
        return RUN_AGAIN;
    }
    if (kvm_hand_inside(rip)) {
        if (!kvm_hand_regs(c, v))
            return run_interrupted(c, event);
        *event = run_syscall(c);
        return RUN_DONE;
    }
    kvm_run_save(c, v);
    if (rip == KVM_SYSCALL3_VA) {
        *event = run_syscall(c);
        return RUN_DONE;
    }
    return run_interrupted(c, event);
}

/* Memory that was there is not: a host file became shorter. The guest then faults by itself. */
static enum run_result run_exit_memory(struct kvm_ctx *c, struct kvm_vcpu *v,
                                       struct plat_fault *out, enum plat_event *event)
{
    if (kvm_as_truncated(c->as))
        return RUN_AGAIN;
    kvm_run_save(c, v);
    *out = (struct plat_fault){.signo = SIGBUS,
                               .code = BUS_ADRERR,
                               .addr = c->regs.rip,
                               .access = PLAT_READ,
                               .trapno = KVM_VECTOR_PF};
    *event = (v->run->s.regs.sregs.cs.selector & 3) == 3 ? PLAT_EVENT_FAULT : PLAT_EVENT_DEAD;
    return RUN_DONE;
}

static enum run_result run_exit(struct kvm_ctx *c, struct kvm_vcpu *v, int error,
                                struct plat_fault *out, enum plat_event *event)
{
    if (LIKELY(error == 0 && v->run->exit_reason == KVM_EXIT_IO))
        return run_exit_io(c, v, out, event);
    if (error == EINTR || error == EAGAIN)
        return run_exit_signal(c, v, event);
    if (error == EFAULT)
        return run_exit_memory(c, v, out, event);
    kvm_run_save(c, v);
    if (error == 0 && v->run->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
        (v->run->s.regs.sregs.cs.selector & 3) == 3) {
        /* An instruction that the host would have to do for the guest, and cannot. */
        *event = kvm_trap(c, v, KVM_VECTOR_UD, 0, out);
        return RUN_DONE;
    }
    log_error("kvm: exit %u, errno %d, at %#llx", v->run->exit_reason, error,
              (unsigned long long)v->run->s.regs.regs.rip);
    *event = PLAT_EVENT_DEAD;
    return RUN_DONE;
}

/* ---- a turn ---- */

/* The host would end the instruction at the next entry, with its own instruction pointer and into
 * memory of whoever runs then. It ends here, and the guest's registers are as before. */
static void run_end_read(struct kvm_vcpu *v)
{
    struct kvm_run *run = v->run;
    const struct kvm_regs regs = run->s.regs.regs;
    int r;

    do {
        memset((uint8_t *)run + run->io.data_offset, 0xff, (size_t)run->io.size * run->io.count);
        __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        r = ioctl(v->fd, KVM_RUN, 0);
    } while (r == 0 && run_reads_port(v));
    run->s.regs.regs = regs;
    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = KVM_EXIT_IO_IN;
}

int kvm_run_once(struct kvm_vcpu *v)
{
    if (ioctl(v->fd, KVM_RUN, 0) != 0)
        return errno;
    if (UNLIKELY(run_reads_port(v)))
        run_end_read(v);
    return 0;
}

/* On v until something is to be told, or somebody else wants v. fresh: from c->regs; else v goes on
 * from where it is. */
static enum run_result run_on(struct kvm_ctx *c, struct kvm_vcpu *v, bool fresh, bool single_step,
                              struct plat_fault *out, enum plat_event *event)
{
    enum run_result result;

    if (kvm_vcpu_set_entry(v, kvm_vcpu_plain_entry(v->p)) != 0) {
        *event = PLAT_EVENT_DEAD;
        return RUN_DONE;
    }
    for (;;) {
        if (fresh)
            kvm_run_load(c, v, single_step);
        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        if (fresh && atomic_load(&c->interrupt) && atomic_exchange(&c->interrupt, false)) {
            *event = PLAT_EVENT_INTERRUPT;
            return RUN_DONE;
        }
        result = run_exit(c, v, kvm_run_once(v), out, event);
        if (result == RUN_DONE || (result == RUN_YIELD && atomic_load(&v->yield)))
            return result;
        fresh = result == RUN_YIELD;
    }
}

/* run_on with everything around it. */
static enum run_result run_lent(struct kvm_ctx *c, struct kvm_vcpu *v, bool fresh, bool single_step,
                                struct plat_fault *out, enum plat_event *event)
{
    const uint64_t cpu_start = kvm_clock(CLOCK_THREAD_CPUTIME_ID), start = kvm_now();

    atomic_store(&c->run_start, start);
    atomic_store(&v->runner, gettid());
    atomic_store(&v->since_ns, start);
    enum run_result result = run_on(c, v, fresh, single_step, out, event);
    c->turn_end = kvm_now();
    c->turn_ns = c->turn_end - start;
    atomic_store(&v->since_ns, 0);
    atomic_store(&v->last_ns, c->turn_end);
    atomic_fetch_add(&c->cpu_ns, kvm_clock(CLOCK_THREAD_CPUTIME_ID) - cpu_start);
    atomic_store(&c->run_start, 0);
    return result;
}

/* Whether the next turns are handed over. */
static void run_pace(struct kvm_ctx *c)
{
    if (kvm_plat(c->base.plat)->runner_max == 0)
        return;
    switch (stub_pace_turn(&c->pace, c->turn_ns, c->pace.split && c->hand_slept, c->turn_end)) {
    case STUB_PACE_SPLIT:
        stub_pace_split(&c->pace);
        break;
    case STUB_PACE_JOIN:
        stub_pace_join(&c->pace);
        break;
    case STUB_PACE_STAY:
        break;
    }
}

/* A runner came out with v, which is c's again. */
static enum run_result run_back(struct kvm_ctx *c, struct kvm_vcpu *v, bool single_step,
                                struct plat_fault *out, enum plat_event *event)
{
    enum run_result result = run_exit(c, v, v->error, out, event);

    /* It may be in the middle of handing over: the page stays its own till it is not. */
    if (result == RUN_AGAIN)
        result = run_lent(c, v, false, single_step, out, event);
    kvm_hand_release(c);
    return result;
}

static enum run_result run_turn(struct kvm_ctx *c, bool single_step, struct plat_fault *out,
                                enum plat_event *event)
{
    enum run_result result = RUN_YIELD;
    enum kvm_hand_end end = KVM_HAND_END_NEVER;
    struct kvm_vcpu *v;

    if (c->pace.split || kvm_hand_holds(c))
        end = kvm_hand_turn(c, single_step, &v);
    if (end == KVM_HAND_END_CALL) {
        *event = run_syscall(c);
        return RUN_DONE;
    }
    if (end == KVM_HAND_END_NEVER && kvm_pool_enter(c, &v) != 0) {
        *event = PLAT_EVENT_DEAD;
        return RUN_DONE;
    }
    if (end == KVM_HAND_END_NEVER) {
        patch_enter(&c->patch, 0, NULL);
        result = run_lent(c, v, true, single_step, out, event);
    } else if (end == KVM_HAND_END_EXIT)
        result = run_back(c, v, single_step, out, event);
    kvm_pool_leave(v);
    return result;
}

/* An address that no return instruction takes: the fault is the guest's. */
static bool run_canonical(uint64_t addr)
{
    return addr >> 47 == 0 || addr >> 47 == 0x1ffff;
}

/* Till something is to be told, of patches too. */
static enum plat_event run_turns(struct kvm_ctx *c, bool single_step, struct plat_fault *out)
{
    enum plat_event event = PLAT_EVENT_INTERRUPT;
    enum run_result result;

    if (atomic_exchange(&c->interrupt, false))
        return PLAT_EVENT_INTERRUPT;
    kvm_as_commit(c->as);
    if (!run_canonical(c->regs.rip) || !run_canonical(c->regs.fs_base) ||
        !run_canonical(c->regs.gs_base))
        return kvm_trap(c, NULL, KVM_VECTOR_GP, 0, out);
    atomic_store(&c->patch.in_guest, true);
    do {
        result = run_turn(c, single_step, out, &event);
        run_pace(c);
    } while (result == RUN_YIELD);
    atomic_store(&c->patch.in_guest, false);
    return event;
}

/* What patches bring about is not told. False: guest code is to be entered again. */
static bool run_told(struct kvm_ctx *c, enum plat_event *event, const struct plat_fault *f)
{
    bool call;

    if (LIKELY(*event != PLAT_EVENT_FAULT))
        return true;
    const bool told = patch_fault(&c->patch, f, &call);
    if (call)
        *event = PLAT_EVENT_SYSCALL;
    return told;
}

enum plat_event kvm_ctx_run(struct plat_ctx *base, bool single_step, struct plat_fault *out)
{
    struct kvm_ctx *c = kvm_ctx(base);
    enum plat_event event;
    const bool own_trap = c->regs.eflags & KVM_FLAG_TF;

    if (UNLIKELY(single_step || own_trap))
        patch_step(&c->patch);
    do
        event = run_turns(c, single_step, out);
    while (!run_told(c, &event, out));
    if (single_step && !own_trap)
        c->regs.eflags &= ~(uint64_t)KVM_FLAG_TF;
    return event;
}

uint64_t kvm_cpu_time(struct plat_ctx *base)
{
    struct kvm_ctx *c = kvm_ctx(base);
    uint64_t ns = atomic_load(&c->cpu_ns), start = atomic_load(&c->run_start);
    uint64_t now = start != 0 ? kvm_now() : 0;
    uint64_t told = atomic_load(&c->cpu_told);

    ns += now > start ? now - start : kvm_hand_beside(c);
    while (ns > told && !atomic_compare_exchange_weak(&c->cpu_told, &told, ns))
        ;
    return MAX(ns, told);
}
