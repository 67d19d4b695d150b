/* System calls that a program sends to its own handler. */
#include "sentry/kernel/dispatch.h"

#include <errno.h>
#include <linux/audit.h>
#include <signal.h>

#include "sentry/kernel/signal_priv.h"

#define SYS_USER_DISPATCH_CODE 2
#define SELECT_ALLOW 0u
#define SELECT_BLOCK 1u
#define TASK_SIZE_MAX UINT64_C(0x7ffffffff000)

static int check(const struct task_dispatch *d)
{
    const uint64_t end = d->offset + d->len;

    switch (d->mode) {
    case DISPATCH_OFF:
        return d->offset || d->len || d->selector ? -EINVAL : 0;
    case DISPATCH_EXCLUSIVE:
        if (d->offset && end <= d->offset)
            return -EINVAL;
        break;
    case DISPATCH_INCLUSIVE:
        if (d->len == 0 || end <= d->offset)
            return -EINVAL;
        break;
    default:
        return -EINVAL;
    }
    return d->selector >= TASK_SIZE_MAX ? -EFAULT : 0;
}

int task_set_dispatch(struct task *o, const struct task_dispatch *d)
{
    struct task_priv *p = task_priv(o);
    const int r = check(d);

    if (r)
        return r;
    struct sighand *sh = tg_lock_sig(o->tg);
    p->dispatch = *d;
    if (d->mode == DISPATCH_INCLUSIVE) {
        p->dispatch.mode = DISPATCH_EXCLUSIVE;
        p->dispatch.offset = d->offset + d->len;
        p->dispatch.len = -d->len;
    }
    if (d->mode == DISPATCH_OFF)
        atomic_fetch_and_explicit(&p->sys_work, ~SYS_WORK_DISPATCH, memory_order_relaxed);
    else
        atomic_fetch_or_explicit(&p->sys_work, SYS_WORK_DISPATCH, memory_order_relaxed);
    task_answers_changed(o);
    sighand_unlock(sh);
    return 0;
}

void task_get_dispatch(struct task *o, struct task_dispatch *out)
{
    *out = task_priv(o)->dispatch;
}

/* No handler keeps it from that. */
static void dispatch_kill(struct task *t, int signo)
{
    const struct lx_siginfo info = {.signo = signo, .code = SI_KERNEL};
    struct sighand *sh = tg_lock_sig(t->tg);

    sh->action[signo - 1].handler = LX_SIG_DFL;
    sighand_unlock(sh);
    sig_force(t, &info);
}

static void dispatch_signal(struct task *t)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);
    struct lx_siginfo info = {.signo = SIGSYS, .code = SYS_USER_DISPATCH_CODE};

    info.sys.call_addr = regs->rip;
    info.sys.syscall = (int32_t)regs->orig_rax;
    info.sys.arch = AUDIT_ARCH_X86_64;
    regs->rax = regs->orig_rax;
    sig_force(t, &info);
}

bool dispatch_enter(struct task *t)
{
    const struct task_dispatch *d = &task_priv(t)->dispatch;
    uint8_t selector = SELECT_BLOCK;

    if (!(atomic_load_explicit(&task_priv(t)->sys_work, memory_order_relaxed) &
          SYS_WORK_DISPATCH) ||
        plat_ctx_regs(t->ctx)->rip - d->offset < d->len)
        return true;
    if (d->selector && copyin_obj(&t->ua, &selector, uaddr(d->selector)))
        dispatch_kill(t, SIGSEGV);
    else if (selector == SELECT_ALLOW)
        return true;
    else if (selector != SELECT_BLOCK)
        dispatch_kill(t, SIGSYS);
    else
        dispatch_signal(t);
    return false;
}
