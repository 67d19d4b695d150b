/* Job control: a process stops as a whole and goes on as a whole (kernel/signal.c, do_signal_stop).
 */
#include <errno.h>
#include <signal.h>

#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/signal_priv.h"

/* ---- stopping ---- */

/* A terminal's stop signals do nothing to a group with no shell left that could continue it. */
static bool job_may_stop(struct task *t, int signo)
{
    if (signo == SIGSTOP)
        return true;
    mutex_lock(&t->k->mu);
    const bool orphaned = !t->tg->pgrp || pgrp_orphaned_locked(t->tg->pgrp, NULL);
    mutex_unlock(&t->k->mu);
    return !orphaned;
}

void job_stop(struct task *t, int signo)
{
    struct thread_group *tg = t->tg;
    struct task_priv *p;

    if (!job_may_stop(t, signo))
        return;
    struct sighand *sh = tg_lock_sig(tg);
    if (!tg->stop_dequeued || tg->exec_task ||
        atomic_load_explicit(&tg->exiting, memory_order_relaxed))
        goto out_unlock;
    if (atomic_load_explicit(&tg->stopping, memory_order_relaxed)) {
        /* A tracee that was let go on while its group is stopped, and is stopped again. */
        task_priv(t)->trace.trap_stop |= task_traced(t);
        goto out_unlock;
    }
    tg->stop_signo = signo;
    tg->stop_count = 0;
    tg->stop_reported = false;
    tg->cont_unreported = false;
    tg->cldcont_due = false;
    atomic_store_explicit(&tg->stopping, true, memory_order_release);
    list_for_each_entry (p, &tg->threads, thread_node) {
        if (p->dead)
            continue;
        p->stop_pending = true;
        tg->stop_count++;
        task_interrupt_locked(p->t, BLOCKER_INTERRUPT);
        trace_trap_notify_locked(p->t);
    }
out_unlock:
    sighand_unlock(sh);
}

bool job_arrive_locked(struct task *t)
{
    struct thread_group *tg = t->tg;
    struct task_priv *p = task_priv(t);

    if (!p->stop_pending)
        return false;
    p->stop_pending = false;
    BUG_ON(tg->stop_count == 0);
    if (--tg->stop_count > 0 || !atomic_load_explicit(&tg->stopping, memory_order_relaxed))
        return false;
    tg->cldstop_due = true;
    return true;
}

void job_thread_exit_locked(struct task *t)
{
    struct thread_group *tg = t->tg;
    struct task_priv *p;

    (void)job_arrive_locked(t);
    if (!tg->cldstop_due && !tg->cldcont_due)
        return;
    /* Somebody who stays must report: the others look when they are interrupted. */
    list_for_each_entry (p, &tg->threads, thread_node)
        if (!p->dead)
            task_interrupt_locked(p->t, BLOCKER_INTERRUPT);
    waitq_wake(&tg->stop_wq, 0);
}

void job_continue_locked(struct thread_group *tg)
{
    struct task_priv *p;

    tg->stop_dequeued = false;
    list_for_each_entry (p, &tg->threads, thread_node)
        if (!p->dead)
            trace_trap_notify_locked(p->t);
    if (!atomic_load_explicit(&tg->stopping, memory_order_relaxed))
        return;
    /* A stop that was not complete is reported as a stop, as Linux does. */
    if (tg->stop_count == 0) {
        tg->cldcont_due = true;
        tg->cont_unreported = true;
        tg->cldstop_due = false;
    } else {
        tg->cldstop_due = true;
    }
    tg->stop_count = 0;
    atomic_store_explicit(&tg->stopping, false, memory_order_release);
    list_for_each_entry (p, &tg->threads, thread_node)
        p->stop_pending = false;
    waitq_wake(&tg->stop_wq, 0);
}

/* ---- telling the parent ---- */

static void job_report(struct task *t)
{
    struct thread_group *tg = t->tg;

    mutex_lock(&t->k->mu);
    struct sighand *sh = tg_lock_sig(tg);
    const bool stopped = tg->cldstop_due, continued = tg->cldcont_due;
    const int signo = tg->stop_signo;
    tg->cldstop_due = false;
    tg->cldcont_due = false;
    sighand_unlock(sh);
    if (tg->state == TG_LIVE && stopped)
        (void)!tg_notify_parent_locked(tg, CLD_STOPPED, signo);
    if (tg->state == TG_LIVE && continued)
        (void)!tg_notify_parent_locked(tg, CLD_CONTINUED, SIGCONT);
    mutex_unlock(&t->k->mu);
}

/* ---- the thread's side ---- */

enum job_state { JOB_RUN, JOB_REPORT, JOB_TRAP, JOB_SLEEP };

bool job_due_locked(const struct task *t)
{
    const struct thread_group *tg = t->tg;

    if (tg->cldstop_due || tg->cldcont_due || trace_trap_due_locked(t))
        return true;
    return atomic_load_explicit(&tg->stopping, memory_order_relaxed) && !task_traced(t);
}

static enum job_state job_look(struct task *t)
{
    struct thread_group *tg = t->tg;
    enum job_state state = JOB_RUN;
    struct sighand *sh = tg_lock_sig(tg);
    /* A tracee stops for its tracer instead, and goes on when that says so. */
    const bool stopping =
        atomic_load_explicit(&tg->stopping, memory_order_relaxed) && !task_traced(t);

    if (stopping)
        (void)job_arrive_locked(t);
    task_priv(t)->stopped = stopping;
    if (tg->cldstop_due || tg->cldcont_due)
        state = JOB_REPORT;
    else if (trace_trap_due_locked(t))
        state = JOB_TRAP;
    else if (stopping)
        state = JOB_SLEEP;
    sighand_unlock(sh);
    return state;
}

void job_work(struct task *t)
{
    struct thread_group *tg = t->tg;
    enum job_state state = job_look(t);
    struct waiter w;

    if (LIKELY(state == JOB_RUN))
        return;
    waiter_init(&w, &t->blocker, 0);
    waitq_add(&tg->stop_wq, &w);
    while (state != JOB_RUN) {
        if (state == JOB_REPORT)
            job_report(t);
        else if (state == JOB_TRAP)
            trace_trap(t);
        if (task_dying(t))
            break;
        state = job_look(t);
        if (state == JOB_SLEEP && blocker_wait_killable(&t->blocker, DEADLINE_NEVER))
            break;
    }
    waitq_del(&w);
    if (task_dying(t)) {
        struct sighand *sh = tg_lock_sig(tg);
        task_priv(t)->stopped = false;
        sighand_unlock(sh);
    }
}
