/* The tracee's side of ptrace(2): stops, and what the tracer is told of them (kernel/signal.c
 * ptrace_stop, do_jobctl_trap; linux/ptrace.h ptrace_event; kernel/entry/common.c). */
#include <errno.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/signal_priv.h"

void trace_kick(struct task *t)
{
    struct task_priv *p = task_priv(t);

    mutex_lock(&p->start_mu);
    p->trace.kicks++;
    cond_broadcast(&p->start_cond);
    mutex_unlock(&p->start_mu);
}

void trace_trap_notify_locked(struct task *t)
{
    struct task_trace *tr = &task_priv(t)->trace;

    if (!tr->tracer || !tr->seized)
        return;
    tr->trap_notify = true;
    if (tr->stopped && tr->listening)
        trace_kick(t);
    task_interrupt_locked(t, BLOCKER_INTERRUPT);
}

/* ---- one stop ---- */

/* SIGCHLD for the tracer's process, and a look for its wait(2). tree held. */
static void trace_tell_locked(struct task *t, struct thread_group *up, int why, int code)
{
    struct lx_siginfo info = {.signo = SIGCHLD, .code = why};
    struct sighand *sh = tg_lock_sig(up);
    const struct sig_action *a = &sh->action[SIGCHLD - 1];
    const bool quiet = a->handler == LX_SIG_IGN || (a->flags & SA_NOCLDSTOP);

    sighand_unlock(sh);
    info.chld.pid = pid_out_locked(t->k, up->pid_ns, t->tid);
    info.chld.uid = t->cred->uid;
    info.chld.status = code & 0x7f;
    info.chld.utime = (int64_t)(task_utime_ns(t) / 10000000);
    info.chld.stime = (int64_t)(task_stime_ns(t) / 10000000);
    if (!quiet)
        (void)tg_send_signal(up, &info);
    waitq_wake(&up->child_wq, 0);
}

static bool trace_enter_locked(struct task *t, int code, uint64_t message,
                               const struct lx_siginfo *info, bool even_dying)
{
    struct task_priv *p = task_priv(t);
    struct task_trace *tr = &p->trace;

    if (!tr->tracer || t->k->dying || (t->tg->pid_ns && t->tg->pid_ns->dying) ||
        (task_dying(t) && !even_dying))
        return false;
    tr->stopped = true;
    tr->even_dying = even_dying;
    tr->resumed = false;
    tr->listening = false;
    tr->trap_stop = false;
    tr->code = code;
    tr->message = message;
    tr->has_info = info != NULL;
    if (info) {
        tr->info = *info;
        if (info->code >> 8 == PTRACE_EVENT_STOP)
            tr->trap_notify = false;
    }
    p->stopped = false;
    return true;
}

/* Everything that ends a stop. sig held. */
static bool trace_over_locked(const struct task *t)
{
    const struct task_trace *tr = &task_priv(t)->trace;

    if (tr->frozen || tr->work)
        return false;
    if (tr->resumed || !tr->tracer || (task_dying(t) && !tr->even_dying))
        return true;
    return tr->listening && (tr->trap_notify || tr->trap_stop);
}

static int trace_leave_locked(struct task *t)
{
    struct task_trace *tr = &task_priv(t)->trace;
    const int code = tr->code;

    tr->stopped = false;
    tr->listening = false;
    tr->has_info = false;
    tr->message = 0;
    tr->code = 0;
    /* What came meanwhile has interrupted nobody; and it was for nothing that has been taken back.
     */
    if (sig_pending_locked(t, sig_blocked(t)) || job_due_locked(t))
        blocker_interrupt(&t->blocker, BLOCKER_INTERRUPT);
    else
        blocker_clear_interrupt(&t->blocker);
    return code;
}

static void trace_do_work(struct task *t, struct trace_work *w)
{
    struct task_priv *p = task_priv(t);

    w->ret = w->fn(t, w->arg);
    struct sighand *sh = tg_lock_sig(t->tg);
    p->trace.work = NULL;
    sighand_unlock(sh);
    mutex_lock(&p->start_mu);
    w->done = true;
    cond_broadcast(&p->start_cond);
    mutex_unlock(&p->start_mu);
}

/* The stop itself: till the tracer says go on, is gone, or the task is killed. */
static int trace_wait(struct task *t)
{
    struct task_priv *p = task_priv(t);

    for (;;) {
        mutex_lock(&p->start_mu);
        const uint32_t seen = p->trace.kicks;
        mutex_unlock(&p->start_mu);
        struct sighand *sh = tg_lock_sig(t->tg);
        struct trace_work *w = p->trace.work;
        if (trace_over_locked(t)) {
            const int code = trace_leave_locked(t);
            sighand_unlock(sh);
            return code;
        }
        sighand_unlock(sh);
        if (w) {
            trace_do_work(t, w);
            continue;
        }
        mutex_lock(&p->start_mu);
        while (p->trace.kicks == seen)
            (void)cond_wait(&p->start_cond, &p->start_mu, UINT64_MAX);
        mutex_unlock(&p->start_mu);
    }
}

int trace_stop(struct task *t, int code, int why, uint64_t message, const struct lx_siginfo *info,
               bool even_dying)
{
    struct thread_group *tg = t->tg;
    struct kernel *k = t->k;

    mutex_lock(&k->mu);
    struct sighand *sh = tg_lock_sig(tg);
    if (!trace_enter_locked(t, code, message, info, even_dying)) {
        sighand_unlock(sh);
        mutex_unlock(&k->mu);
        return code;
    }
    const bool group_done = why == CLD_STOPPED && job_arrive_locked(t);
    const int signo = tg->stop_signo;
    struct thread_group *up = task_priv(t)->trace.tracer->tg;
    /* The tracer learns of it as a stop of this thread. */
    if (group_done)
        tg->cldstop_due = false;
    sighand_unlock(sh);
    trace_tell_locked(t, up, why, why == CLD_STOPPED ? signo : code);
    if (group_done && tg->parent != up && tg->state == TG_LIVE)
        (void)!tg_notify_parent_locked(tg, CLD_STOPPED, signo);
    mutex_unlock(&k->mu);
    rseq_stopped(t);
    return trace_wait(t);
}

/* ---- stops of their own kind ---- */

static int trace_notify_as(struct task *t, int signo, int code, int why, uint64_t message,
                           bool even_dying)
{
    struct lx_siginfo info = {.signo = signo, .code = code};

    info.kill.pid = t->vtid;
    info.kill.uid = t->cred->uid;
    return trace_stop(t, code, why, message, &info, even_dying);
}

int trace_notify(struct task *t, int code, uint64_t message)
{
    return trace_notify_as(t, SIGTRAP, code, CLD_TRAPPED, message, false);
}

bool trace_event_wanted(const struct task *t, int event)
{
    const struct task_trace *tr = &task_priv(t)->trace;
    struct sighand *sh = tg_lock_sig(t->tg);
    const bool wanted = tr->tracer && (tr->options & TRACE_OPT(event));

    sighand_unlock(sh);
    return wanted;
}

/* A number of the sandbox's as the tracer knows it. */
static uint32_t trace_nr_for_tracer(struct task *t, int32_t nr)
{
    mutex_lock(&t->k->mu);
    const struct task *tracer = task_priv(t)->trace.tracer;
    const int32_t out = tracer ? pid_out_locked(t->k, tracer->tg->pid_ns, nr) : nr;
    mutex_unlock(&t->k->mu);
    return (uint32_t)out;
}

void trace_event(struct task *t, int event, uint64_t message)
{
    if (!task_traced(t) || !trace_event_wanted(t, event))
        return;
    if (event != PTRACE_EVENT_EXIT && event != PTRACE_EVENT_SECCOMP)
        message = trace_nr_for_tracer(t, (int32_t)message);
    (void)trace_notify_as(t, SIGTRAP, event << 8 | SIGTRAP, CLD_TRAPPED, message,
                          event == PTRACE_EVENT_EXIT);
}

void trace_exec(struct task *t, int32_t old_tid)
{
    if (!task_traced(t))
        return;
    struct sighand *sh = tg_lock_sig(t->tg);
    const bool plain = task_traced(t) && !task_priv(t)->trace.seized &&
                       !(task_priv(t)->trace.options & TRACE_OPT(PTRACE_EVENT_EXEC));
    sighand_unlock(sh);
    /* The oldest way to learn of it. */
    if (plain)
        task_raise(t, SIGTRAP);
    else
        trace_event(t, PTRACE_EVENT_EXEC, (uint32_t)old_tid);
}

int trace_clone_event(struct task *t, uint64_t flags, int exit_signal)
{
    int event = PTRACE_EVENT_FORK;

    if (!task_traced(t) || (flags & CLONE_UNTRACED))
        return 0;
    if (flags & CLONE_VFORK)
        event = PTRACE_EVENT_VFORK;
    else if ((flags & CLONE_THREAD) || exit_signal != SIGCHLD)
        event = PTRACE_EVENT_CLONE;
    return trace_event_wanted(t, event) ? event : 0;
}

void trace_trap(struct task *t)
{
    struct thread_group *tg = t->tg;
    struct sighand *sh = tg_lock_sig(tg);
    const bool stopping = atomic_load_explicit(&tg->stopping, memory_order_relaxed);
    const bool seized = task_priv(t)->trace.seized;
    const int signo = stopping && tg->stop_signo ? tg->stop_signo : SIGSTOP;

    sighand_unlock(sh);
    if (!seized)
        (void)trace_stop(t, signo, CLD_STOPPED, 0, NULL, false);
    else if (stopping)
        (void)trace_notify_as(t, signo, signo | PTRACE_EVENT_STOP << 8, CLD_STOPPED, 0, false);
    else
        (void)trace_notify_as(t, SIGTRAP, SIGTRAP | PTRACE_EVENT_STOP << 8, CLD_STOPPED, 0, false);
}

bool trace_signal(struct task *t, struct lx_siginfo *info)
{
    bool take = true;

    task_priv(t)->trace.info = *info;
    const int signo = trace_stop(t, info->signo, CLD_TRAPPED, 0, info, false);
    if (signo < 1 || signo > LX_NSIG)
        return false;
    struct sighand *sh = tg_lock_sig(t->tg);
    /* PTRACE_SETSIGINFO may have changed it; another signal than that is the tracer's own. */
    *info = task_priv(t)->trace.info;
    if (signo != info->signo) {
        const struct task *tracer = task_priv(t)->trace.tracer;
        *info = (struct lx_siginfo){.signo = signo, .code = SI_USER};
        if (tracer) {
            info->kill.pid = tracer->tg->pid_ns == t->tg->pid_ns ? tracer->tg->vtgid : 0;
            info->kill.uid = tracer->cred->uid;
        }
    }
    if (sig_blocked(t) & SIG_BIT(signo)) {
        (void)!sig_send_locked(t->tg, t, info, false);
        take = false;
    }
    sighand_unlock(sh);
    return take;
}

/* ---- around system calls ---- */

static void trace_syscall_stop(struct task *t, uint64_t message)
{
    const bool good = task_priv(t)->trace.options & PTRACE_O_TRACESYSGOOD;
    const int signo = trace_notify(t, SIGTRAP | (good ? 0x80 : 0), message);

    /* Not quite as if it had come by itself, but what there is. */
    if (signo > 0 && signo <= LX_NSIG && !task_dying(t))
        task_raise(t, signo);
}

bool trace_syscall_enter(struct task *t)
{
    struct task_priv *p = task_priv(t);
    const uint32_t work = atomic_load_explicit(&p->sys_work, memory_order_relaxed);

    if (!(work & (SYS_WORK_TRACE | SYS_WORK_EMU)))
        return true;
    trace_syscall_stop(t, PTRACE_EVENTMSG_SYSCALL_ENTRY);
    return !(work & SYS_WORK_EMU) && !task_dying(t);
}

void trace_syscall_exit(struct task *t)
{
    struct task_priv *p = task_priv(t);
    const uint32_t work = atomic_load_explicit(&p->sys_work, memory_order_relaxed);

    if (task_dying(t))
        return;
    if (atomic_load_explicit(&p->trace.step, memory_order_relaxed) && !(work & SYS_WORK_EMU)) {
        struct lx_siginfo info = {.signo = SIGTRAP, .code = TRAP_BRKPT};
        info.fault.addr = plat_ctx_regs(t->ctx)->rip;
        sig_force(t, &info);
    } else if (work & SYS_WORK_TRACE) {
        trace_syscall_stop(t, PTRACE_EVENTMSG_SYSCALL_EXIT);
    }
}
