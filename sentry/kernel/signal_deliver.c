/* Signals acted upon before a return to the guest (kernel/signal.c: get_signal;
 * arch/x86/kernel/signal.c: arch_do_signal_or_restart). */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>

#include "sentry/kernel/coredump.h"
#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/signal_priv.h"

/* Length of the syscall instruction: going back by it makes the call again. */
#define SYSCALL_SIZE 2
/* x86's page fault, and the bit of its error code that says write. */
#define TRAP_PAGE_FAULT 14u
#define PF_WRITE 2u
/* How often memory for a frame is missing before the stack is as good as none. */
#define FRAME_TRIES 8u

struct sig_delivery {
    struct lx_siginfo info;
    struct sig_action act;
    struct ptimer *timer; /* owned till ptimer_delivered */
    bool traced;          /* a tracer has seen it */
};

enum sig_step {
    SIG_STEP_DONE,  /* nothing is pending */
    SIG_STEP_NEXT,  /* taken, nothing to do */
    SIG_STEP_TRACE, /* taken, to be shown to the tracer */
    SIG_STEP_HANDLER,
    SIG_STEP_STOP, /* a stop signal's default action */
    SIG_STEP_JOB,  /* the group is stopped, or something is to be told to the parent */
    SIG_STEP_CORE, /* its default action writes a core file */
    SIG_STEP_DIE,
};

/* ---- restarts ---- */

static void restart_call(struct plat_regs *regs, uint64_t nr)
{
    regs->rax = nr;
    regs->rip -= SYSCALL_SIZE;
}

/* No handler runs: every interrupted call goes on, as if nothing had been. */
static void restart_plain(struct task *t)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);

    if ((int64_t)regs->orig_rax < 0)
        return;
    switch ((int64_t)regs->rax) {
    case -ERESTARTSYS:
    case -ERESTARTNOINTR:
    case -ERESTARTNOHAND:
        restart_call(regs, regs->orig_rax);
        break;
    case -ERESTART_RESTARTBLOCK:
        restart_call(regs, SYS_restart_syscall);
        break;
    default:
        break;
    }
}

static void restart_with_handler(struct task *t, const struct sig_action *act)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);

    if ((int64_t)regs->orig_rax < 0)
        return;
    switch ((int64_t)regs->rax) {
    case -ERESTART_RESTARTBLOCK:
    case -ERESTARTNOHAND:
        regs->rax = (uint64_t)-EINTR;
        break;
    case -ERESTARTSYS:
        if (act->flags & LX_SA_RESTART)
            restart_call(regs, regs->orig_rax);
        else
            regs->rax = (uint64_t)-EINTR;
        break;
    case -ERESTARTNOINTR:
        restart_call(regs, regs->orig_rax);
        break;
    default:
        break;
    }
}

/* ---- taking one ---- */

/* Faults of pid 1 itself end it, whatever the default is worth to others' signals. */
static bool sig_spares_init(const struct thread_group *tg, const struct lx_siginfo *info)
{
    const uint64_t bit = SIG_BIT(info->signo);

    if (!tg_is_init(tg) || (bit & SIG_SET_KERNEL_ONLY))
        return false;
    return !(info->code > 0 && (bit & SIG_SET_SYNC));
}

static enum sig_step sig_act_locked(struct task *t, struct sig_delivery *d)
{
    struct thread_group *tg = t->tg;
    const int signo = d->info.signo;
    const uint64_t bit = SIG_BIT(signo);
    struct sig_action *a = &tg->sighand->action[signo - 1];

    d->act = *a;
    if (a->handler == LX_SIG_IGN)
        return SIG_STEP_NEXT;
    if (a->handler != LX_SIG_DFL) {
        if (a->flags & LX_SA_RESETHAND)
            a->handler = LX_SIG_DFL;
        return SIG_STEP_HANDLER;
    }
    if ((bit & SIG_SET_IGNORE) || sig_spares_init(tg, &d->info))
        return SIG_STEP_NEXT;
    if (bit & SIG_SET_STOP) {
        /* A SIGCONT may have come while the tracer looked at it. */
        if (!d->traced)
            tg->stop_dequeued = true;
        return SIG_STEP_STOP;
    }
    if (bit & SIG_SET_CORE)
        return SIG_STEP_CORE;
    tg_exit_locked(tg, signo);
    return SIG_STEP_DIE;
}

static enum sig_step sig_step_locked(struct task *t, struct sig_delivery *d)
{
    d->timer = NULL;
    if (task_dying(t))
        return SIG_STEP_DIE;
    if (job_due_locked(t))
        return SIG_STEP_JOB;
    if (!sig_dequeue_locked(t, sig_blocked(t), &d->info, &d->timer)) {
        /* Who sends from now on sets it again. */
        blocker_clear_interrupt(&t->blocker);
        return SIG_STEP_DONE;
    }
    if (UNLIKELY(task_traced(t)) && d->info.signo != SIGKILL) {
        if (SIG_BIT(d->info.signo) & SIG_SET_STOP)
            t->tg->stop_dequeued = true;
        d->traced = true;
        return SIG_STEP_TRACE;
    }
    d->traced = false;
    return sig_act_locked(t, d);
}

static enum sig_step sig_step(struct task *t, struct sig_delivery *d)
{
    struct sighand *sh = tg_lock_sig(t->tg);
    enum sig_step step = sig_step_locked(t, d);

    sighand_unlock(sh);
    if (d->timer)
        ptimer_delivered(d->timer, &d->info);
    return step;
}

/* What the tracer makes of a signal. */
static enum sig_step sig_show(struct task *t, struct sig_delivery *d)
{
    if (!trace_signal(t, &d->info))
        return SIG_STEP_NEXT;
    struct sighand *sh = tg_lock_sig(t->tg);
    const enum sig_step step = task_dying(t) ? SIG_STEP_DIE : sig_act_locked(t, d);
    sighand_unlock(sh);
    return step;
}

/* ---- delivering ---- */

/* A stack that has no memory for the frame, as one that was shared with a child, gets it from whom
 * the killer picks. */
static bool sig_push(struct task *t, const struct sig_delivery *d)
{
    for (unsigned i = 0; i < FRAME_TRIES; i++) {
        if (sig_frame_push(t, &d->act, &d->info) == 0)
            return true;
        if (!task_oom(t) || task_dying(t))
            return false;
    }
    return false;
}

static void sig_handle(struct task *t, const struct sig_delivery *d)
{
    restart_with_handler(t, &d->act);
    if (!rseq_signal(t) || !sig_push(t, d)) {
        sig_force_segv(t, d->info.signo);
        return;
    }
    struct sighand *sh = tg_lock_sig(t->tg);
    uint64_t mask = sig_blocked(t) | d->act.mask;
    if (!(d->act.flags & LX_SA_NODEFER))
        mask |= SIG_BIT(d->info.signo);
    t->has_saved_blocked = false;
    sig_set_blocked_locked(t, mask & ~SIG_SET_KERNEL_ONLY);
    sighand_unlock(sh);
    if (UNLIKELY(atomic_load_explicit(&task_priv(t)->trace.step, memory_order_relaxed)))
        (void)trace_notify(t, SIGTRAP, 0);
}

void sig_deliver(struct task *t)
{
    struct sig_delivery d;

    /* Each turn takes a signal, stops, or ends; frames are bounded by the guest's stack. */
    for (;;) {
        enum sig_step step = sig_step(t, &d);
        if (UNLIKELY(step == SIG_STEP_TRACE))
            step = sig_show(t, &d);
        switch (step) {
        case SIG_STEP_CORE:
            task_coredump(t, &d.info);
            return;
        case SIG_STEP_DIE:
            return;
        case SIG_STEP_DONE:
            restart_plain(t);
            task_restore_sigmask(t);
            return;
        case SIG_STEP_NEXT:
            break;
        case SIG_STEP_HANDLER:
            sig_handle(t, &d);
            break;
        case SIG_STEP_STOP:
            job_stop(t, d.info.signo);
            break;
        case SIG_STEP_JOB:
            job_work(t);
            break;
        case SIG_STEP_TRACE:
        default:
            BUG_ON(true);
        }
    }
}

/* ---- signals of the task's own doing ---- */

void sig_force(struct task *t, const struct lx_siginfo *info)
{
    const uint64_t bit = SIG_BIT(info->signo);
    struct sighand *sh = tg_lock_sig(t->tg);
    struct sig_action *a = &sh->action[info->signo - 1];

    if ((sig_blocked(t) & bit) || a->handler == LX_SIG_IGN) {
        a->handler = LX_SIG_DFL;
        sig_store_blocked_locked(t, sig_blocked(t) & ~bit);
    }
    const bool dies = a->handler == LX_SIG_DFL && !task_traced(t);
    const bool core = dies && (bit & SIG_SET_CORE);
    if (!dies)
        (void)!sig_send_locked(t->tg, t, info, true);
    else if (!core)
        tg_exit_locked(t->tg, info->signo);
    sighand_unlock(sh);
    if (core)
        task_coredump(t, info);
}

void sig_force_segv(struct task *t, int signo)
{
    const struct lx_siginfo info = {.signo = SIGSEGV, .code = SI_KERNEL};

    if (signo == SIGSEGV) {
        struct sighand *sh = tg_lock_sig(t->tg);
        sh->action[SIGSEGV - 1].handler = LX_SIG_DFL;
        sighand_unlock(sh);
    }
    sig_force(t, &info);
}

void sig_force_fault(struct task *t, const struct plat_fault *f)
{
    struct task_priv *p = task_priv(t);
    struct lx_siginfo info = {.signo = f->signo, .code = f->code};

    if (f->signo < 1 || f->signo > LX_NSIG)
        info.signo = SIGSEGV;
    info.fault.addr = f->addr;
    p->fault_addr = f->addr;
    p->fault_trapno = f->trapno;
    p->fault_err = f->errcode;
    /* What mm has found out about a page fault that the platform could not tell. */
    if (f->trapno == TRAP_PAGE_FAULT && (f->access & PLAT_WRITE))
        p->fault_err |= PF_WRITE;
    sig_force(t, &info);
}
