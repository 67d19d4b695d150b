/* A turn: registers into the area, the turn to the stub, and what it says when it comes back. All
 * that is read there is read once and may be anything. */
#include <linux/audit.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/systrap/systrap_priv.h"

#define RUN_TRAP_FLAG UINT64_C(0x100)
#define RUN_COMPAT_CS 0x23
/* The first one is enough when nobody else wants the CPU. */
#define RUN_YIELDS 2u
/* Of a page fault's error code. */
enum { RUN_PF = 14, RUN_PF_WRITE = 2, RUN_PF_FETCH = 16 };

/* A signal frame, as far as it matters. */
struct run_frame {
    siginfo_t si;
    uint64_t gregs[23];
    uint64_t fpstate;
};

void st_ctx_interrupt(struct plat_ctx *base)
{
    struct st_ctx *c = st_ctx(base);

    /* Who set it before has done the rest, or the owner has yet to look. */
    if (atomic_exchange(&c->interrupt, true))
        return;
    atomic_store(&c->interrupt_ns, stub_now());
    atomic_store(&atomic_load(&c->area)->kick, 1);
    if (!atomic_load(&c->patch.in_guest))
        return;
    /* The owner may have moved on meanwhile: then somebody else's stub stops for nothing. */
    uint64_t target = atomic_load(&c->target);
    (void)syscall(SYS_tgkill, (pid_t)(target >> 32), (pid_t)(uint32_t)target, ST_SIGNAL);
}

void st_long_turn(struct stub_placer *p, struct stub_seat *s)
{
    struct st_ctx *c = container_of(s, struct st_ctx, seat);
    uint64_t since = atomic_load(&c->interrupt_ns);

    (void)p;
    if (since == 0 || stub_now() < since + st_plat(c->base.plat)->patience_ns ||
        atomic_load(&c->as->gone))
        return;
    log_warn("systrap: stub process %d does not answer and is ended", c->as->pid);
    (void)syscall(SYS_tgkill, c->as->pid, c->as->pid, SIGKILL);
}

/* Who has given the turn to somebody on the same CPU lets him have that: he is back before long,
 * and neither has to be woken. */
static uint32_t run_yields(const struct st_ctx *c)
{
    const bool together = c->seat.cpu >= 0 || st_plat(c->base.plat)->placer.cpu_count < 2;

    return c->spin == 0 && together && !c->pace.sleeps ? RUN_YIELDS : 0;
}

bool st_hand_over(struct st_ctx *c, bool *out_slept)
{
    struct st_shared *s = c->shared;

    const uint32_t yields = run_yields(c);

    s->kind = ST_KIND_NONE;
    s->spin = stub_pace_patience(&c->pace.split, c->spin);
    s->yields = yields;
    atomic_store(&s->waited, c->spin == 0 && yields == 0);
    atomic_store(&s->turn, ST_TURN_STUB);
    if (atomic_load(&s->sleeps) != 0)
        st_futex_wake(&s->turn);
    *out_slept = false;
    for (uint32_t i = c->spin; i > 0; i--) {
        if (atomic_load_explicit(&s->turn, memory_order_acquire) != ST_TURN_STUB)
            return !atomic_load(&c->as->gone);
        __builtin_ia32_pause();
    }
    for (uint32_t i = yields; i > 0; i--) {
        (void)sched_yield();
        if (atomic_load_explicit(&s->turn, memory_order_acquire) != ST_TURN_STUB)
            return !atomic_load(&c->as->gone);
    }
    atomic_store(&s->waited, 1);
    *out_slept = true;
    while (atomic_load(&s->turn) == ST_TURN_STUB) {
        if (atomic_load(&c->as->gone))
            return false;
        st_futex_wait(&s->turn, ST_TURN_STUB, UINT64_MAX);
    }
    /* Who ends a process gives back the turns afterwards. */
    return !atomic_load(&c->as->gone);
}

/* ---- in ---- */

static bool run_is_canonical(uint64_t addr)
{
    return (uint64_t)((int64_t)(addr << 16) >> 16) == addr;
}

/* Registers that user code can have. */
static bool run_is_sane(const struct plat_regs *r)
{
    return run_is_canonical(r->rip) && (r->cs == STUB_USER_CS || r->cs == RUN_COMPAT_CS) &&
           r->ss == STUB_USER_SS && r->fs_base < STUB_TASK_END && r->gs_base < STUB_TASK_END;
}

static void run_load(struct st_ctx *c, bool single_step)
{
    struct st_shared *s = c->shared;
    struct plat_regs *to = (void *)((char *)s + ST_REGS);

    memcpy(to, &c->regs, offsetof(struct plat_regs, fs_base));
    to->rip = patch_entry(&c->patch, c->regs.rip);
    to->eflags =
        (c->regs.eflags & ST_USER_EFLAGS) | STUB_EFLAGS | (single_step ? RUN_TRAP_FLAG : 0);
    s->fs = c->regs.fs_base;
    s->gs = c->regs.gs_base;
    s->xstate = c->xstate != 0 ? st_area_addr(st_plat(c->base.plat), c->thread) + c->xstate : 0;
    s->command = ST_COMMAND_RUN;
    patch_enter(&c->patch, st_area_addr(st_plat(c->base.plat), c->thread), &s->negfs);
}

/* ---- out ---- */

/* Copies size bytes that the stub says are at addr of its area. */
static bool run_fetch(const struct st_ctx *c, uint64_t addr, void *to, size_t size)
{
    const uint64_t off = addr - st_area_addr(st_plat(c->base.plat), c->thread);

    if (off > ST_AREA_SIZE - size)
        return false;
    memcpy(to, (char *)c->shared + off, size);
    return true;
}

static bool run_fetch_frame(struct st_ctx *c, struct run_frame *f)
{
    const struct st_shared *s = c->shared;
    const uint64_t uc = s->uc;

    if (!run_fetch(c, s->info, &f->si, sizeof(f->si)) ||
        !run_fetch(c, uc + ST_UC_GREGS, f->gregs, sizeof(f->gregs)) ||
        !run_fetch(c, uc + ST_UC_FPSTATE, &f->fpstate, sizeof(f->fpstate)))
        return false;
    const uint64_t off = f->fpstate - st_area_addr(st_plat(c->base.plat), c->thread);
    if (off % 64 != 0 || off < ST_XSAVE || off > ST_AREA_SIZE - c->base.plat->xstate_size)
        return false;
    c->xstate = (uint32_t)off;
    return true;
}

static void run_take_regs(struct st_ctx *c, const uint64_t g[23])
{
    const uint64_t cs = g[REG_CSGSFS] & 0xffff;

    c->regs = (struct plat_regs){
        .r15 = g[REG_R15],
        .r14 = g[REG_R14],
        .r13 = g[REG_R13],
        .r12 = g[REG_R12],
        .rbp = g[REG_RBP],
        .rbx = g[REG_RBX],
        .r11 = g[REG_R11],
        .r10 = g[REG_R10],
        .r9 = g[REG_R9],
        .r8 = g[REG_R8],
        .rax = g[REG_RAX],
        .rcx = g[REG_RCX],
        .rdx = g[REG_RDX],
        .rsi = g[REG_RSI],
        .rdi = g[REG_RDI],
        .orig_rax = UINT64_MAX,
        .rip = g[REG_RIP],
        .cs = cs == RUN_COMPAT_CS ? RUN_COMPAT_CS : STUB_USER_CS,
        .eflags = (g[REG_EFL] & (ST_USER_EFLAGS | RUN_TRAP_FLAG)) | STUB_EFLAGS,
        .rsp = g[REG_RSP],
        .ss = STUB_USER_SS,
        .fs_base = c->shared->fs,
        .gs_base = c->shared->gs,
    };
}

static enum plat_event run_bad_regs(const struct st_ctx *c, struct plat_fault *out)
{
    (void)c;
    *out = (struct plat_fault){.signo = SIGSEGV, .code = SI_KERNEL, .access = PLAT_ACCESS_UNKNOWN};
    stub_fault_trap(out);
    return PLAT_EVENT_FAULT;
}

static enum plat_event run_fault(const struct run_frame *f, struct plat_fault *out)
{
    *out = (struct plat_fault){
        .signo = f->si.si_signo,
        .code = f->si.si_code,
        .addr = (uint64_t)(uintptr_t)f->si.si_addr,
        .access = PLAT_ACCESS_UNKNOWN,
        .trapno = f->gregs[REG_TRAPNO],
        .errcode = f->gregs[REG_ERR],
    };
    if (out->trapno == RUN_PF)
        out->access = out->errcode & RUN_PF_FETCH   ? PLAT_EXEC
                      : out->errcode & RUN_PF_WRITE ? PLAT_WRITE
                                                    : PLAT_READ;
    return PLAT_EVENT_FAULT;
}

static enum plat_event run_call(struct st_ctx *c, const struct run_frame *f, struct plat_fault *out)
{
    if (f->si.si_arch != AUDIT_ARCH_X86_64) {
        /* int 0x80, the 32-bit gate, is not offered: as on a host without it. */
        c->regs.rip -= 2;
        return run_bad_regs(c, out);
    }
    c->regs.orig_rax = c->regs.rax;
    (void)patch_called(&c->patch);
    st_sigactions_look(c);
    c->regs.rax = (uint64_t)-ENOSYS;
    return PLAT_EVENT_SYSCALL;
}

/* Without a signal: extended state is where it was, and so are the registers. */
static enum plat_event run_direct_call(struct st_ctx *c)
{
    const struct plat_regs *from = (const void *)((const char *)c->shared + ST_REGS);
    const uint64_t cs = c->regs.cs;

    memcpy(&c->regs, from, offsetof(struct plat_regs, cs));
    c->regs.cs = cs;
    c->regs.eflags = (from->eflags & ST_USER_EFLAGS) | STUB_EFLAGS;
    c->regs.rsp = from->rsp;
    c->regs.r11 = c->regs.eflags;
    c->regs.fs_base = c->shared->fs;
    c->regs.gs_base = c->shared->gs;
    if (!patch_answered(&c->patch, c->shared->after))
        return PLAT_EVENT_DEAD;
    c->xstate = 0;
    c->regs.orig_rax = c->regs.rax;
    c->regs.rax = (uint64_t)-ENOSYS;
    return PLAT_EVENT_SYSCALL;
}

static bool run_is_exception(int sig)
{
    return sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || sig == SIGTRAP;
}

static enum plat_event run_signal(struct st_ctx *c, struct plat_fault *out)
{
    const struct st_plat *p = st_plat(c->base.plat);
    const struct plat_regs before = c->regs;
    struct run_frame f;

    if (!run_fetch_frame(c, &f))
        return PLAT_EVENT_DEAD;
    run_take_regs(c, f.gregs);
    /* Sent from outside, or by us. */
    if (f.si.si_code <= 0)
        return PLAT_EVENT_INTERRUPT;
    if (f.si.si_signo == SIGSYS)
        return run_call(c, &f, out);
    if (!run_is_exception(f.si.si_signo))
        return PLAT_EVENT_INTERRUPT;
    if (c->regs.rip == st_text_addr(p, systrap_iret)) {
        /* What it should have returned to cannot be. */
        c->regs = before;
        return run_bad_regs(c, out);
    }
    return run_fault(&f, out);
}

static enum plat_event run_event(struct st_ctx *c, struct plat_fault *out)
{
    switch (c->shared->kind) {
    case ST_KIND_SIGNAL:
        return run_signal(c, out);
    case ST_KIND_CALL:
        return run_direct_call(c);
    case ST_KIND_EARLY:
        return PLAT_EVENT_INTERRUPT;
    default:
        return PLAT_EVENT_DEAD;
    }
}

/* ---- the turn ---- */

static bool run_flush(struct st_ctx *c)
{
    struct st_as *as = c->as;
    bool stale = false;

    if (LIKELY(!atomic_load(&as->has_changes)))
        return true;
    mutex_lock(&as->mu);
    /* A mapping that failed shows as a fault of the guest, which mm then looks at. */
    int r = st_flush_locked(as, &stale);
    mutex_unlock(&as->mu);
    return r != -ESRCH && !stale;
}

static enum plat_event run_dead(struct st_ctx *c)
{
    st_ctx_die(c);
    return PLAT_EVENT_DEAD;
}

/* True: there is no need to enter guest code. */
static bool run_enter(struct st_ctx *c)
{
    atomic_store(&c->patch.in_guest, true);
    atomic_store(&c->shared->kick, 0);
    atomic_store(&c->interrupt_ns, 0);
    return atomic_exchange(&c->interrupt, false);
}

/* One turn of guest code. */
static enum plat_event run_turn(struct st_ctx *c, bool trap_flag, struct plat_fault *out)
{
    bool slept;

    run_load(c, trap_flag);
    const uint64_t start = stub_now();
    stub_seat_enter(&c->seat, start);
    const bool alive = st_hand_over(c, &slept);
    const uint64_t now = stub_now();
    patch_leave(&c->shared->negfs);
    stub_seat_leave(&c->seat, start, now);
    st_pace_turn(c, now - start, slept, now);
    return alive ? run_event(c, out) : PLAT_EVENT_DEAD;
}

/* What patches bring about is not told. False: guest code is to be entered again. */
static bool run_told(struct st_ctx *c, enum plat_event *event, const struct plat_fault *f)
{
    bool call;

    if (LIKELY(*event == PLAT_EVENT_SYSCALL))
        return true;
    if (*event != PLAT_EVENT_FAULT) {
        (void)patch_put_right(&c->patch);
        return true;
    }
    const bool told = patch_fault(&c->patch, f, &call);
    if (call)
        *event = PLAT_EVENT_SYSCALL;
    return told;
}

/* By the stub thread itself. False: it has ended. */
static bool run_set_tsc(struct st_ctx *c)
{
    bool slept;

    c->shared->tsc = c->tsc_due;
    c->shared->command = ST_COMMAND_TSC;
    c->tsc_due = 0;
    return st_hand_over(c, &slept) && c->shared->kind == ST_KIND_SAVED;
}

enum plat_event st_ctx_run(struct plat_ctx *base, bool single_step, struct plat_fault *out)
{
    struct st_ctx *c = st_ctx(base);
    enum plat_event event;
    const bool trapping = c->regs.eflags & RUN_TRAP_FLAG;

    if (UNLIKELY(single_step || trapping))
        patch_step(&c->patch);
    do {
        event = PLAT_EVENT_INTERRUPT;
        if (c->dead || !run_flush(c) || (UNLIKELY(c->tsc_due) && !run_set_tsc(c)))
            return run_dead(c);
        if (!run_is_sane(&c->regs)) {
            atomic_store(&c->patch.in_guest, false);
            return run_bad_regs(c, out);
        }
        if (!run_enter(c))
            event = run_turn(c, single_step || trapping, out);
    } while (!run_told(c, &event, out));
    atomic_store(&c->patch.in_guest, false);
    if (event == PLAT_EVENT_INTERRUPT) {
        atomic_store(&c->interrupt, false);
        atomic_store(&c->interrupt_ns, 0);
    }
    if (single_step && !trapping) {
        c->regs.eflags &= ~RUN_TRAP_FLAG;
        if (event == PLAT_EVENT_SYSCALL)
            c->regs.r11 &= ~RUN_TRAP_FLAG;
    }
    return event == PLAT_EVENT_DEAD ? run_dead(c) : event;
}
