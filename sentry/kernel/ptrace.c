/* Who traces whom: attaching, letting go, what is inherited and what ends (kernel/ptrace.c). */
#include "sentry/kernel/ptrace.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/ptrace.h>
#include <signal.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/ptrace_priv.h"
#include "sentry/vfs/landlock.h"
#include "sentry/kernel/signal_priv.h"

/* ---- the relation ---- */

/* tree and sig held. */
static void trace_link_locked(struct task *tracer, struct task *o, bool seized, uint32_t options)
{
    struct task_trace *tr = &task_priv(o)->trace;

    tr->tracer = tracer;
    tr->seized = seized;
    tr->options = options;
    list_add_tail(&tr->node, &task_priv(tracer)->trace.tracees);
}

void trace_unlink_locked(struct task *o)
{
    struct task_priv *p = task_priv(o);
    struct task_trace *tr = &p->trace;

    if (!tr->tracer)
        return;
    struct sighand *sh = tg_lock_sig(o->tg);
    list_del(&tr->node);
    tr->tracer = NULL;
    tr->seized = false;
    tr->options = 0;
    tr->trap_stop = false;
    tr->trap_notify = false;
    atomic_store_explicit(&tr->step, false, memory_order_relaxed);
    atomic_fetch_and_explicit(&p->sys_work, ~(SYS_WORK_TRACE | SYS_WORK_EMU), memory_order_relaxed);
    task_answers_changed(o);
    /* In the middle of a group stop it stops with the others now. */
    if (!p->dead)
        task_interrupt_locked(o, BLOCKER_INTERRUPT);
    if (tr->stopped)
        trace_kick(o);
    sighand_unlock(sh);
}

void trace_fork_locked(struct task *t, struct task *c, int event, bool clone_ptrace)
{
    struct task_trace *from = &task_priv(t)->trace, *to = &task_priv(c)->trace;

    if (!from->tracer || (!event && !clone_ptrace))
        return;
    struct sighand *sh = tg_lock_sig(c->tg);
    trace_link_locked(from->tracer, c, from->seized, from->options);
    if (to->seized)
        to->trap_stop = true;
    else
        task_priv(c)->pending.set |= SIG_BIT(SIGSTOP);
    blocker_interrupt(&c->blocker, BLOCKER_INTERRUPT);
    sighand_unlock(sh);
}

/* A zombie that its tracer has kept: nobody else may have noticed its end. tree held. */
static void trace_let_zombie_go_locked(struct task *o, struct list *dead)
{
    struct thread_group *tg = o->tg;

    if (tg->leader != o)
        exit_thread_reap_locked(o, dead);
    else if (tg->state == TG_ZOMBIE && exit_notify_end_locked(tg))
        tg_reap_locked(tg, dead);
}

void trace_exit_tracer_locked(struct task *t, struct list *dead)
{
    struct list *tracees = &task_priv(t)->trace.tracees;

    while (!list_empty(tracees)) {
        struct task_trace *tr = list_first_entry(tracees, struct task_trace, node);
        struct task_priv *p = container_of(tr, struct task_priv, trace);
        const bool kill = tr->options & PTRACE_O_EXITKILL;
        trace_unlink_locked(p->t);
        if (p->zombie) {
            trace_let_zombie_go_locked(p->t, dead);
        } else if (kill && !p->dead) {
            const struct lx_siginfo info = {.signo = SIGKILL, .code = SI_KERNEL};
            (void)task_send_signal(p->t, &info);
        }
    }
}

void trace_zap_locked(struct kernel *k, const struct pid_ns *ns)
{
    struct thread_group *tg;
    struct task_priv *p;

    list_for_each_entry (tg, &k->groups, node) {
        struct sighand *sh = tg_lock_sig(tg);
        list_for_each_entry (p, &tg->threads, thread_node) {
            if (!p->trace.stopped || !pid_out_locked(k, ns, tg->tgid))
                continue;
            p->trace.resumed = true;
            trace_kick(p->t);
        }
        sighand_unlock(sh);
    }
}

/* ---- PTRACE_TRACEME ---- */

/* The thread that made the caller's process, or its leader when that has gone. tree held. */
static struct task *trace_parent_locked(struct task *t)
{
    struct thread_group *up = t->tg->parent;

    if (!up)
        return NULL;
    const struct pid *p = pid_find_locked(t->k, t->tg->parent_tid);
    return p && p->task && p->task->tg == up ? p->task : up->leader;
}

bool trace_capable_locked(struct task *t, const struct user_ns *ns)
{
    struct task *tracer = task_priv(t)->trace.tracer;

    if (!tracer)
        return true;
    mutex_lock(&tracer->mu);
    const bool able = cred_ns_capable(tracer->cred, ns, CAP_SYS_PTRACE);
    mutex_unlock(&tracer->mu);
    return able;
}

static int trace_me_locked(struct task *t)
{
    struct task *up = trace_parent_locked(t);

    if (task_traced(t) || !up)
        return -EPERM;
    mutex_lock(&up->mu);
    const struct cred *c = up->cred;
    /* cap_ptrace_traceme: the parent may not gain by it. */
    const bool may = c &&
                     (!(t->cred->cap_permitted & ~c->cap_permitted) ||
                      cred_ns_capable(c, t->cred->user_ns, CAP_SYS_PTRACE)) &&
                     landlock_may_trace(c->domain, t->cred->domain);
    mutex_unlock(&up->mu);
    if (!may)
        return -EPERM;
    if (task_priv(up)->dead)
        return 0;
    struct sighand *sh = tg_lock_sig(t->tg);
    trace_link_locked(up, t, false, 0);
    sighand_unlock(sh);
    return 0;
}

static int trace_me(struct task *t)
{
    mutex_lock(&t->k->mu);
    const int r = trace_me_locked(t);
    mutex_unlock(&t->k->mu);
    return r;
}

/* ---- PTRACE_ATTACH, PTRACE_SEIZE ---- */

static int trace_attach_locked(struct task *t, struct task *o, bool seize, uint32_t options,
                               bool *out_was_stopped)
{
    struct thread_group *tg = o->tg;
    struct task_trace *tr = &task_priv(o)->trace;
    const struct lx_siginfo stop = {.signo = SIGSTOP, .code = SI_KERNEL};

    if (task_priv(o)->dead || tr->tracer)
        return -EPERM;
    struct sighand *sh = tg_lock_sig(tg);
    trace_link_locked(t, o, seize, options);
    if (!seize)
        (void)!sig_send_locked(tg, o, &stop, true);
    *out_was_stopped = task_priv(o)->stopped;
    if (*out_was_stopped) {
        /* From the group's stop to ours, with nobody seeing it run in between. */
        tr->trap_stop = true;
        waitq_wake(&tg->stop_wq, 0);
    }
    sighand_unlock(sh);
    return 0;
}

static bool trace_settled(struct task *o)
{
    const struct task_priv *p = task_priv(o);
    struct sighand *sh = tg_lock_sig(o->tg);
    const bool settled = p->dead || !p->trace.tracer || p->trace.stopped || !p->trace.trap_stop;

    sighand_unlock(sh);
    return settled;
}

static int64_t trace_attach(struct task *t, struct task *o, bool seize, uint64_t addr,
                            uint64_t options)
{
    bool was_stopped = false;
    int err;

    if (seize && (addr || (options & ~(uint64_t)PTRACE_O_MASK)))
        return -EIO;
    if (seize && (options & PTRACE_O_SUSPEND_SECCOMP) && !task_capable(t, CAP_SYS_ADMIN))
        return -EPERM;
    if (t->tg == o->tg || !task_may_access(t, o, TASK_ACCESS_REAL))
        return -EPERM;
    mutex_lock(&t->k->mu);
    int r = trace_attach_locked(t, o, seize, seize ? (uint32_t)options : 0, &was_stopped);
    mutex_unlock(&t->k->mu);
    if (r || !was_stopped)
        return r;
    WAIT_EVENT(&t->tg->child_wq, &t->blocker, 0, DEADLINE_NEVER, trace_settled(o), err);
    (void)err; /* it is attached all the same */
    return 0;
}

/* ---- requests ---- */

static bool trace_freeze(struct task *t, struct task *o)
{
    struct task_trace *tr = &task_priv(o)->trace;
    struct sighand *sh = tg_lock_sig(o->tg);
    const bool ok = tr->tracer == t && tr->stopped && !tr->resumed && !tr->listening &&
                    !(task_dying(o) && !tr->even_dying);

    if (ok)
        tr->frozen = true;
    sighand_unlock(sh);
    return ok;
}

static void trace_unfreeze(struct task *o)
{
    struct sighand *sh = tg_lock_sig(o->tg);

    task_priv(o)->trace.frozen = false;
    trace_kick(o);
    sighand_unlock(sh);
}

static bool trace_is_mine(struct task *t, struct task *o)
{
    struct sighand *sh = tg_lock_sig(o->tg);
    const bool mine = task_priv(o)->trace.tracer == t && !task_priv(o)->dead;

    sighand_unlock(sh);
    return mine;
}

static int64_t trace_interrupt(struct task *o)
{
    struct task_trace *tr = &task_priv(o)->trace;
    struct sighand *sh = tg_lock_sig(o->tg);
    int64_t r = -EIO;

    if (tr->seized) {
        tr->trap_stop = true;
        if (tr->stopped && tr->listening)
            trace_kick(o);
        task_interrupt_locked(o, BLOCKER_INTERRUPT);
        r = 0;
    }
    sighand_unlock(sh);
    return r;
}

static int64_t trace_kill(struct task *o)
{
    const struct lx_siginfo info = {.signo = SIGKILL, .code = SI_USER};

    (void)task_send_signal(o, &info);
    return 0;
}

static int64_t trace_detach(struct task *o, uint64_t signo)
{
    if (signo > LX_NSIG)
        return -EIO;
    mutex_lock(&o->k->mu);
    struct sighand *sh = tg_lock_sig(o->tg);
    task_priv(o)->trace.code = (int)signo;
    sighand_unlock(sh);
    trace_unlink_locked(o);
    mutex_unlock(&o->k->mu);
    return 0;
}

static int64_t trace_of(struct task *t, struct task *o, int64_t request, uint64_t addr,
                        uint64_t data)
{
    if (request == PTRACE_ATTACH || request == PTRACE_SEIZE)
        return trace_attach(t, o, request == PTRACE_SEIZE, addr, data);
    if (request == PTRACE_KILL || request == PTRACE_INTERRUPT) {
        if (!trace_is_mine(t, o))
            return -ESRCH;
        return request == PTRACE_KILL ? trace_kill(o) : trace_interrupt(o);
    }
    if (!trace_freeze(t, o))
        return -ESRCH;
    const int64_t r =
        request == PTRACE_DETACH ? trace_detach(o, data) : trace_request(t, o, request, addr, data);
    trace_unfreeze(o);
    return r;
}

int64_t task_ptrace(struct task *t, int64_t request, int32_t pid, uint64_t addr, uint64_t data)
{
    struct task *o;

    if (request == PTRACE_TRACEME)
        return trace_me(t);
    if (pid <= 0)
        return -ESRCH;
    int64_t r = task_find(t, pid, &o);
    if (r)
        return r;
    r = trace_of(t, o, request, addr, data);
    task_put(o);
    return r;
}
