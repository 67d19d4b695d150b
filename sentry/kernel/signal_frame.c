/* Signal frames of x86-64 in guest memory: arch/x86/kernel/signal.c, uapi asm/sigcontext.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/heap.h"
#include "sentry/kernel/signal.h"
#include "sentry/kernel/signal_priv.h"

#define LX_UC_FP_XSTATE 1u
#define LX_UC_SIGCONTEXT_SS 2u
#define LX_UC_STRICT_RESTORE_SS 4u

#define LX_FP_XSTATE_MAGIC1 0x46505853u
#define LX_FP_XSTATE_MAGIC2 0x46505845u
#define FX_SIZE 512u   /* legacy area */
#define FX_SW_OFF 464u /* struct fpx_sw in it */
#define FX_MXCSR_OFF 24u
#define XSAVE_MIN (FX_SIZE + 64u)
#define MXCSR_DEFAULT 0x1f80u

#define EFLAGS_AC 0x40000u
#define EFLAGS_RF 0x10000u
#define EFLAGS_DF 0x400u
#define EFLAGS_TF 0x100u
/* What a frame may set: AC OF DF TF SF ZF AF PF CF RF. */
#define EFLAGS_FIX 0x50dd5u

#define USER_CS 0x33u
#define USER_SS 0x2bu
#define REDZONE 128u

struct lx_stack {
    uint64_t sp;
    uint32_t flags, pad;
    uint64_t size;
};

struct lx_sigcontext {
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t di, si, bp, bx, dx, ax, cx, sp, ip, flags;
    uint16_t cs, gs, fs, ss;
    uint64_t err, trapno, oldmask, cr2, fpstate;
    uint64_t reserved[8];
};

struct lx_ucontext {
    uint64_t flags, link;
    struct lx_stack stack;
    struct lx_sigcontext mc;
    uint64_t sigmask;
};

struct lx_rt_sigframe {
    uint64_t pretcode;
    struct lx_ucontext uc;
    struct lx_siginfo info;
};

_Static_assert(sizeof(struct lx_sigcontext) == 256, "sigcontext_64");
_Static_assert(sizeof(struct lx_ucontext) == 304, "struct ucontext");
_Static_assert(sizeof(struct lx_rt_sigframe) == 440, "struct rt_sigframe");

struct fpx_sw {
    uint32_t magic1, extended_size;
    uint64_t xfeatures;
    uint32_t xstate_size, pad[7];
};
_Static_assert(sizeof(struct fpx_sw) == FX_SIZE - FX_SW_OFF, "software part of fxsave");

/* Addresses with the upper half's sign, or in the hole, are none of a program's. */
static bool is_user_ip(uint64_t ip)
{
    return ip < UINT64_C(1) << 47;
}

static uint64_t xfeatures_enabled(void)
{
    uint32_t lo, hi;

    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* ---- building ---- */

struct frame_build {
    struct lx_rt_sigframe f;
    uint64_t sp, fp; /* where the frame and the floating point state go */
    uint8_t *xstate; /* owned; with room for the closing magic */
    size_t xstate_size;
};

/* For a moment, and not refused: to a guest that has no memory left the answer would be SIGSEGV. */
static void *frame_alloc(size_t size)
{
    heap_exempt(true);
    void *p = calloc(1, size);
    heap_exempt(false);
    return p;
}

static int frame_save_xstate(struct task *t, struct frame_build *b)
{
    const size_t room = t->ctx->plat->xstate_size;
    const uint32_t magic2 = LX_FP_XSTATE_MAGIC2;
    struct fpx_sw sw = {0};

    if (room < FX_SIZE)
        return 0;
    b->xstate = frame_alloc(room + sizeof(magic2));
    if (!b->xstate)
        return -ENOMEM;
    int64_t n = plat_ctx_xstate_get(t->ctx, b->xstate, room);
    if (n < (int64_t)FX_SIZE)
        return n < 0 ? (int)n : -EFAULT;
    b->xstate_size = (size_t)n;
    memset(b->xstate + FX_SW_OFF, 0, sizeof(sw));
    if (b->xstate_size < XSAVE_MIN)
        return 0;
    sw.magic1 = LX_FP_XSTATE_MAGIC1;
    sw.xfeatures = xfeatures_enabled();
    sw.xstate_size = (uint32_t)n;
    sw.extended_size = sw.xstate_size + (uint32_t)sizeof(magic2);
    memcpy(b->xstate + FX_SW_OFF, &sw, sizeof(sw));
    memcpy(b->xstate + b->xstate_size, &magic2, sizeof(magic2));
    b->xstate_size += sizeof(magic2);
    b->f.uc.flags |= LX_UC_FP_XSTATE;
    return 0;
}

/* get_sigframe: below the red zone, or at the top of the alternate stack. */
static int frame_place(struct task *t, const struct sig_action *act, struct frame_build *b)
{
    const struct task_priv *p = task_priv(t);
    const uint64_t rsp = plat_ctx_regs(t->ctx)->rsp;
    const bool nested = sig_on_altstack(p, rsp);
    bool entering = false;
    uint64_t sp = rsp - REDZONE;

    if ((act->flags & LX_SA_ONSTACK) && p->altstack_size != 0 && !sig_on_altstack(p, sp)) {
        sp = p->altstack_sp + p->altstack_size;
        entering = true;
    }
    if (b->xstate_size > 0) {
        sp = ALIGN_DOWN(sp - b->xstate_size, 64u);
        b->fp = sp;
    }
    /* As after a call: the return address is 8 below a multiple of 16. */
    sp = ALIGN_DOWN(sp - sizeof(b->f), 16u) - 8;
    b->sp = sp;
    /* An alternate stack that is too small must not spill into what lies below it. */
    if ((nested || entering) && !(sp > p->altstack_sp && sp - p->altstack_sp <= p->altstack_size))
        return -EFAULT;
    return 0;
}

static void frame_fill_context(const struct plat_regs *r, struct lx_sigcontext *mc)
{
    *mc = (struct lx_sigcontext){
        .r8 = r->r8,
        .r9 = r->r9,
        .r10 = r->r10,
        .r11 = r->r11,
        .r12 = r->r12,
        .r13 = r->r13,
        .r14 = r->r14,
        .r15 = r->r15,
        .di = r->rdi,
        .si = r->rsi,
        .bp = r->rbp,
        .bx = r->rbx,
        .dx = r->rdx,
        .ax = r->rax,
        .cx = r->rcx,
        .sp = r->rsp,
        .ip = r->rip,
        .flags = r->eflags,
        .cs = USER_CS,
        .ss = USER_SS,
    };
}

static void frame_fill(struct task *t, const struct sig_action *act, const struct lx_siginfo *info,
                       struct frame_build *b)
{
    struct task_priv *p = task_priv(t);
    struct lx_ucontext *uc = &b->f.uc;

    b->f.pretcode = act->restorer;
    b->f.info = *info;
    uc->flags |= LX_UC_SIGCONTEXT_SS | LX_UC_STRICT_RESTORE_SS;
    uc->stack = (struct lx_stack){
        .sp = p->altstack_sp, .flags = p->altstack_flags, .size = p->altstack_size};
    uc->sigmask = t->has_saved_blocked ? t->saved_blocked : sig_blocked(t);
    frame_fill_context(plat_ctx_regs(t->ctx), &uc->mc);
    uc->mc.fpstate = b->fp;
    uc->mc.oldmask = uc->sigmask;
    uc->mc.cr2 = p->fault_addr;
    uc->mc.trapno = p->fault_trapno;
    uc->mc.err = p->fault_err;
}

static int frame_write(struct task *t, const struct frame_build *b)
{
    int r = 0;

    if (b->xstate_size > 0)
        r = copyout(&t->ua, uaddr(b->fp), b->xstate, b->xstate_size);
    if (r == 0)
        r = copyout_obj(&t->ua, uaddr(b->sp), &b->f);
    return r;
}

static void frame_enter(struct task *t, const struct sig_action *act, int signo,
                        const struct frame_build *b)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);
    struct task_priv *p = task_priv(t);

    regs->rdi = (uint64_t)signo;
    regs->rsi = b->sp + offsetof(struct lx_rt_sigframe, info);
    regs->rdx = b->sp + offsetof(struct lx_rt_sigframe, uc);
    regs->rax = 0;
    regs->rip = act->handler;
    regs->rsp = b->sp;
    regs->cs = USER_CS;
    regs->ss = USER_SS;
    regs->eflags &= ~(uint64_t)(EFLAGS_DF | EFLAGS_RF | EFLAGS_TF);
    regs->orig_rax = UINT64_MAX;
    if (p->altstack_flags & LX_SS_AUTODISARM) {
        p->altstack_sp = 0;
        p->altstack_size = 0;
        p->altstack_flags = LX_SS_DISABLE;
    }
}

int sig_frame_push(struct task *t, const struct sig_action *act, const struct lx_siginfo *info)
{
    struct frame_build b = {0};

    /* The 64-bit ABI has no trampoline of its own. */
    if (!(act->flags & LX_SA_RESTORER) || !is_user_ip(act->handler))
        return -EFAULT;
    int r = frame_save_xstate(t, &b);
    if (r == 0)
        r = frame_place(t, act, &b);
    if (r == 0) {
        frame_fill(t, act, info, &b);
        r = frame_write(t, &b);
    }
    if (r == 0)
        frame_enter(t, act, info->signo, &b);
    free(b.xstate);
    return r;
}

/* ---- returning ---- */

/* Bytes of state that the frame holds: the whole when both magics agree, else the legacy part. */
static size_t frame_xstate_size(struct task *t, uint64_t fp, const uint8_t *legacy)
{
    struct fpx_sw sw;
    uint32_t magic2;

    memcpy(&sw, legacy + FX_SW_OFF, sizeof(sw));
    if (sw.magic1 != LX_FP_XSTATE_MAGIC1 || sw.xstate_size < XSAVE_MIN ||
        sw.xstate_size > t->ctx->plat->xstate_size || sw.extended_size < sw.xstate_size)
        return FX_SIZE;
    if (copyin_obj(&t->ua, &magic2, uaddr(fp + sw.xstate_size)) || magic2 != LX_FP_XSTATE_MAGIC2)
        return FX_SIZE;
    return sw.xstate_size;
}

static int frame_restore_xstate(struct task *t, uint64_t fp)
{
    uint8_t legacy[XSAVE_MIN] = {0};
    const uint32_t mxcsr = MXCSR_DEFAULT;

    if (t->ctx->plat->xstate_size < FX_SIZE)
        return 0;
    if (fp == 0) {
        /* No component in the header: everything becomes initial. */
        const size_t size = t->ctx->plat->xstate_size < XSAVE_MIN ? FX_SIZE : XSAVE_MIN;
        memcpy(legacy + FX_MXCSR_OFF, &mxcsr, sizeof(mxcsr));
        return plat_ctx_xstate_set(t->ctx, legacy, size);
    }
    int r = copyin(&t->ua, legacy, uaddr(fp), FX_SIZE);
    if (r != 0)
        return r;
    const size_t size = frame_xstate_size(t, fp, legacy);
    if (size == FX_SIZE)
        return plat_ctx_xstate_set(t->ctx, legacy, FX_SIZE);
    uint8_t *all = frame_alloc(size);
    if (!all)
        return -ENOMEM;
    r = copyin(&t->ua, all, uaddr(fp), size);
    if (r == 0)
        r = plat_ctx_xstate_set(t->ctx, all, size);
    free(all);
    return r;
}

static void frame_restore_regs(struct plat_regs *r, const struct lx_sigcontext *mc)
{
    r->r8 = mc->r8;
    r->r9 = mc->r9;
    r->r10 = mc->r10;
    r->r11 = mc->r11;
    r->r12 = mc->r12;
    r->r13 = mc->r13;
    r->r14 = mc->r14;
    r->r15 = mc->r15;
    r->rdi = mc->di;
    r->rsi = mc->si;
    r->rbp = mc->bp;
    r->rbx = mc->bx;
    r->rdx = mc->dx;
    r->rax = mc->ax;
    r->rcx = mc->cx;
    r->rsp = mc->sp;
    r->rip = mc->ip;
    r->eflags = (r->eflags & ~(uint64_t)EFLAGS_FIX) | (mc->flags & EFLAGS_FIX);
    r->cs = USER_CS;
    r->ss = USER_SS;
    r->orig_rax = UINT64_MAX;
}

/* Code segments other than the 64-bit one are not offered, nor addresses no code can be at: the
 * return faults, as it would in the processor. */
static bool frame_returns_to_user(const struct lx_sigcontext *mc)
{
    return (mc->cs | 3u) == USER_CS && is_user_ip(mc->ip);
}

int64_t task_sigreturn(struct task *t)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);
    struct lx_ucontext uc;

    t->restart_fn = NULL;
    /* The handler's return has popped pretcode. */
    int r = copyin_obj(&t->ua, &uc, uaddr(regs->rsp));
    if (r != 0)
        goto out_bad;
    sig_set_blocked(t, uc.sigmask);
    const struct plat_regs before = *regs;
    frame_restore_regs(regs, &uc.mc);
    if (!frame_returns_to_user(&uc.mc)) {
        regs->rip = before.rip;
        goto out_bad;
    }
    r = frame_restore_xstate(t, uc.mc.fpstate);
    if (r != 0)
        goto out_bad;
    const struct task_altstack ss = {
        .sp = uc.stack.sp, .flags = uc.stack.flags, .size = uc.stack.size};
    (void)!task_sigaltstack(t, &ss, NULL);
    return (int64_t)regs->rax;
out_bad:
    sig_force_segv(t, 0);
    return (int64_t)regs->rax;
}
