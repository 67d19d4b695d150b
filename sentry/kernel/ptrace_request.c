/* Requests on a tracee that is stopped: memory, signals, options, going on (kernel/ptrace.c). */
#include <errno.h>
#include <linux/audit.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <string.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/seccomp_priv.h"
#include "sentry/kernel/signal_priv.h"

#define OLD_SETOPTIONS 21
#define REQ_SET_DISPATCH 0x4210
#define REQ_GET_DISPATCH 0x4211
#define REQ_SYSEMU 31
#define REQ_SYSEMU_SINGLESTEP 32
#define REQ_SET_SYSCALL_INFO 0x4212

int64_t trace_remote(struct task *o, int64_t (*fn)(struct task *t, void *arg), void *arg)
{
    struct trace_work w = {.fn = fn, .arg = arg};
    struct task_priv *p = task_priv(o);
    struct sighand *sh = tg_lock_sig(o->tg);

    p->trace.work = &w;
    trace_kick(o);
    sighand_unlock(sh);
    mutex_lock(&p->start_mu);
    while (!w.done)
        (void)cond_wait(&p->start_cond, &p->start_mu, UINT64_MAX);
    mutex_unlock(&p->start_mu);
    return w.ret;
}

/* ---- memory ---- */

static int64_t request_peek(struct task *t, struct task *o, uint64_t addr, uint64_t data)
{
    struct mm *mm = task_get_mm(o);
    uint64_t word = 0;

    if (!mm)
        return -EIO;
    const size_t n = mm_peek(mm, uaddr(addr), &word, sizeof(word));
    mm_put(mm);
    return n == sizeof(word) ? copyout_obj(&t->ua, uaddr(data), &word) : -EIO;
}

static int64_t request_poke(struct task *o, uint64_t addr, uint64_t data)
{
    struct mm *mm = task_get_mm(o);

    if (!mm)
        return -EIO;
    const size_t n = mm_poke(mm, uaddr(addr), &data, sizeof(data));
    mm_put(mm);
    return n == sizeof(data) ? 0 : -EIO;
}

/* ---- signals ---- */

static int64_t request_getsiginfo(struct task *t, struct task *o, uint64_t data)
{
    const struct task_trace *tr = &task_priv(o)->trace;

    return tr->has_info ? copyout_obj(&t->ua, uaddr(data), &tr->info) : -EINVAL;
}

static int64_t request_setsiginfo(struct task *t, struct task *o, uint64_t data)
{
    struct task_trace *tr = &task_priv(o)->trace;
    struct lx_siginfo info;
    int r = copyin_obj(&t->ua, &info, uaddr(data));

    if (r)
        return r;
    if (!tr->has_info)
        return -EINVAL;
    tr->info = info;
    return 0;
}

static bool request_peek_entry(struct task *o, bool shared, uint64_t index, struct lx_siginfo *out)
{
    const struct sig_pending *p = shared ? &o->tg->pending : &task_priv(o)->pending;
    struct sighand *sh = tg_lock_sig(o->tg);
    struct sig_entry *e;
    bool found = false;

    list_for_each_entry (e, &p->queue, node) {
        if (index-- > 0)
            continue;
        *out = e->info;
        found = true;
        break;
    }
    sighand_unlock(sh);
    return found;
}

static int64_t request_peeksiginfo(struct task *t, struct task *o, uint64_t addr, uint64_t data)
{
    struct ptrace_peeksiginfo_args a;
    struct lx_siginfo info;
    int64_t i = 0;
    int r = copyin_obj(&t->ua, &a, uaddr(addr));

    if (r)
        return -EFAULT;
    if ((a.flags & ~(uint32_t)PTRACE_PEEKSIGINFO_SHARED) || a.nr < 0)
        return -EINVAL;
    for (; i < a.nr; i++) {
        if (a.off + (uint64_t)i < a.off ||
            !request_peek_entry(o, a.flags & PTRACE_PEEKSIGINFO_SHARED, a.off + (uint64_t)i, &info))
            break;
        r = copyout_obj(&t->ua, uaddr(data + (uint64_t)i * sizeof(info)), &info);
        if (r || task_signal_pending(t)) {
            i += !r;
            break;
        }
    }
    return i > 0 ? i : r;
}

static int64_t request_sigmask(struct task *t, struct task *o, int64_t request, uint64_t size,
                               uint64_t data)
{
    uint64_t mask;

    if (size != sizeof(mask))
        return -EINVAL;
    if (request == PTRACE_GETSIGMASK) {
        mask = o->has_saved_blocked ? o->saved_blocked : sig_blocked(o);
        return copyout_obj(&t->ua, uaddr(data), &mask);
    }
    int r = copyin_obj(&t->ua, &mask, uaddr(data));
    if (r)
        return r;
    struct sighand *sh = tg_lock_sig(o->tg);
    sig_set_blocked_locked(o, mask & ~SIG_SET_KERNEL_ONLY);
    sighand_unlock(sh);
    o->has_saved_blocked = false;
    return 0;
}

/* ---- options, events ---- */

static int64_t request_setoptions(struct task *t, struct task *o, uint64_t data)
{
    if (data & ~(uint64_t)PTRACE_O_MASK)
        return -EINVAL;
    if ((data & PTRACE_O_SUSPEND_SECCOMP) && !task_capable(t, 21 /* CAP_SYS_ADMIN */))
        return -EPERM;
    struct sighand *sh = tg_lock_sig(o->tg);
    task_priv(o)->trace.options = (uint32_t)data;
    sighand_unlock(sh);
    return 0;
}

/* PTRACE_SYSCALL_INFO_*: what kind of stop o is in. */
static uint8_t syscall_stop_kind(const struct task *o)
{
    const struct task_trace *tr = &task_priv(o)->trace;
    const int code = tr->has_info ? tr->info.code : 0;

    if (code == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8))
        return PTRACE_SYSCALL_INFO_SECCOMP;
    if (code != (SIGTRAP | 0x80))
        return PTRACE_SYSCALL_INFO_NONE;
    if (tr->message == PTRACE_EVENTMSG_SYSCALL_ENTRY)
        return PTRACE_SYSCALL_INFO_ENTRY;
    return tr->message == PTRACE_EVENTMSG_SYSCALL_EXIT ? PTRACE_SYSCALL_INFO_EXIT
                                                       : PTRACE_SYSCALL_INFO_NONE;
}

static int64_t request_syscall_info(struct task *t, struct task *o, uint64_t size, uint64_t data)
{
    const struct task_trace *tr = &task_priv(o)->trace;
    const struct plat_regs *regs = plat_ctx_regs(o->ctx);
    const uint64_t args[6] = {regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9};
    struct ptrace_syscall_info info;
    size_t actual = offsetof(struct ptrace_syscall_info, entry);

    memset(&info, 0, sizeof(info));
    info.arch = AUDIT_ARCH_X86_64;
    info.instruction_pointer = regs->rip;
    info.stack_pointer = regs->rsp;
    info.op = syscall_stop_kind(o);
    const bool entry = info.op == PTRACE_SYSCALL_INFO_ENTRY;
    if (entry || info.op == PTRACE_SYSCALL_INFO_SECCOMP) {
        info.seccomp.nr = regs->orig_rax;
        memcpy(info.seccomp.args, args, sizeof(args));
        actual = offsetof(struct ptrace_syscall_info, entry) + sizeof(info.entry);
        if (!entry) {
            info.seccomp.ret_data = (uint32_t)tr->message;
            actual = offsetof(struct ptrace_syscall_info, seccomp.ret_data) + sizeof(uint32_t);
        }
    } else if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
        info.exit.rval = (int64_t)regs->rax;
        info.exit.is_error = info.exit.rval < 0 && info.exit.rval >= -4095;
        actual = offsetof(struct ptrace_syscall_info, exit.is_error) + 1;
    }
    int r = copyout(&t->ua, uaddr(data), &info, MIN(size, (uint64_t)actual));
    return r ? r : (int64_t)actual;
}

/* The number and arguments of a call that is about to be made. */
static int set_syscall_entry(struct plat_regs *regs, const struct ptrace_syscall_info *info)
{
    const __u64 *a = info->entry.args;

    if ((int64_t)info->entry.nr != (int32_t)info->entry.nr)
        return -ERANGE;
    regs->orig_rax = info->entry.nr;
    /* No call at all: its arguments stay what they are. */
    if ((int64_t)info->entry.nr == -1)
        return 0;
    regs->rdi = a[0];
    regs->rsi = a[1];
    regs->rdx = a[2];
    regs->r10 = a[3];
    regs->r8 = a[4];
    regs->r9 = a[5];
    return 0;
}

static int set_syscall_exit(struct plat_regs *regs, const struct ptrace_syscall_info *info)
{
    const int64_t value = info->exit.rval;

    /* Errors are ints to Linux. */
    regs->rax = (uint64_t)(info->exit.is_error ? (int32_t)value : value);
    return 0;
}

/* ptrace_set_syscall_info(). */
static int64_t request_set_syscall_info(struct task *t, struct task *o, uint64_t size,
                                        uint64_t data)
{
    struct plat_regs *regs = plat_ctx_regs(o->ctx);
    struct ptrace_syscall_info info;

    if (size < sizeof(info))
        return -EINVAL;
    int r = copyin_obj(&t->ua, &info, uaddr(data));
    if (r)
        return r;
    if (info.pad[0] || info.pad[1] || info.pad[2] || info.op != syscall_stop_kind(o))
        return -EINVAL;
    switch (info.op) {
    case PTRACE_SYSCALL_INFO_ENTRY:
    case PTRACE_SYSCALL_INFO_SECCOMP:
        return set_syscall_entry(regs, &info);
    case PTRACE_SYSCALL_INFO_EXIT:
        return set_syscall_exit(regs, &info);
    default:
        return -EINVAL;
    }
}

static int64_t request_rseq(struct task *t, struct task *o, uint64_t size, uint64_t data)
{
    const struct ptrace_rseq_configuration conf = {
        .rseq_abi_pointer = o->rseq,
        .rseq_abi_size = (uint32_t)o->rseq_size,
        .signature = o->rseq_sig,
    };

    /* Cut, but the whole size is told. */
    const int r = copyout(&t->ua, uaddr(data), &conf, MIN(size, (uint64_t)sizeof(conf)));
    return r ? r : (int64_t)sizeof(conf);
}

static int64_t request_dispatch(struct task *t, struct task *o, int64_t request, uint64_t size,
                                uint64_t data)
{
    struct task_dispatch d;

    if (size != sizeof(d))
        return -EINVAL;
    if (request == REQ_GET_DISPATCH) {
        task_get_dispatch(o, &d);
        return copyout_obj(&t->ua, uaddr(data), &d);
    }
    const int r = copyin_obj(&t->ua, &d, uaddr(data));
    return r ? r : task_set_dispatch(o, &d);
}

/* ---- going on ---- */

static int64_t request_resume(struct task *o, int64_t request, uint64_t signo)
{
    struct task_priv *p = task_priv(o);
    uint32_t work = 0;

    if (signo > LX_NSIG)
        return -EIO;
    if (request == PTRACE_SYSCALL)
        work = SYS_WORK_TRACE;
    if (request == REQ_SYSEMU || request == REQ_SYSEMU_SINGLESTEP)
        work = SYS_WORK_EMU;
    struct sighand *sh = tg_lock_sig(o->tg);
    atomic_fetch_and_explicit(&p->sys_work, ~(SYS_WORK_TRACE | SYS_WORK_EMU), memory_order_relaxed);
    atomic_fetch_or_explicit(&p->sys_work, work, memory_order_relaxed);
    task_answers_changed(o);
    atomic_store_explicit(&p->trace.step,
                          request == PTRACE_SINGLESTEP || request == REQ_SYSEMU_SINGLESTEP,
                          memory_order_relaxed);
    p->trace.code = (int)signo;
    p->trace.resumed = true;
    sighand_unlock(sh);
    return 0;
}

static int64_t request_listen(struct task *o)
{
    struct task_trace *tr = &task_priv(o)->trace;
    struct sighand *sh = tg_lock_sig(o->tg);
    int64_t r = -EIO;

    if (tr->seized && tr->has_info && tr->info.code >> 8 == PTRACE_EVENT_STOP) {
        tr->listening = true;
        r = 0;
    }
    sighand_unlock(sh);
    return r;
}

int64_t trace_request(struct task *t, struct task *o, int64_t request, uint64_t addr, uint64_t data)
{
    switch (request) {
    case PTRACE_PEEKTEXT:
    case PTRACE_PEEKDATA:
        return request_peek(t, o, addr, data);
    case PTRACE_POKETEXT:
    case PTRACE_POKEDATA:
        return request_poke(o, addr, data);
    case OLD_SETOPTIONS:
    case PTRACE_SETOPTIONS:
        return request_setoptions(t, o, data);
    case PTRACE_GETEVENTMSG:
        return copyout_obj(&t->ua, uaddr(data), &task_priv(o)->trace.message);
    case PTRACE_PEEKSIGINFO:
        return request_peeksiginfo(t, o, addr, data);
    case PTRACE_GETSIGINFO:
        return request_getsiginfo(t, o, data);
    case PTRACE_SETSIGINFO:
        return request_setsiginfo(t, o, data);
    case PTRACE_GETSIGMASK:
    case PTRACE_SETSIGMASK:
        return request_sigmask(t, o, request, addr, data);
    case PTRACE_LISTEN:
        return request_listen(o);
    case PTRACE_GET_SYSCALL_INFO:
        return request_syscall_info(t, o, addr, data);
    case REQ_SET_SYSCALL_INFO:
        return request_set_syscall_info(t, o, addr, data);
    case PTRACE_GET_RSEQ_CONFIGURATION:
        return request_rseq(t, o, addr, data);
    case REQ_SET_DISPATCH:
    case REQ_GET_DISPATCH:
        return request_dispatch(t, o, request, addr, data);
    case PTRACE_SECCOMP_GET_FILTER:
        return seccomp_show(t, o, addr, uaddr(data));
    case PTRACE_SECCOMP_GET_METADATA:
        return seccomp_show_flags(t, o, addr, uaddr(data));
    case PTRACE_CONT:
    case PTRACE_SYSCALL:
    case PTRACE_SINGLESTEP:
    case REQ_SYSEMU:
    case REQ_SYSEMU_SINGLESTEP:
        return request_resume(o, request, data);
    default:
        return trace_regs_request(t, o, request, addr, data);
    }
}
