/* Job control: a process stops as a whole and goes on as a whole (kernel/signal.c, do_signal_stop).
 */
#include <errno.h>
#include <signal.h>

#include "sentry/kernel/task_priv.h"

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
    if (atomic_load_explicit(&tg->stopping, memory_order_relaxed))
        goto out_unlock;
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
    }
out_unlock:
    sighand_unlock(sh);
}

/* One thread fewer to wait for; the last one has the parent to tell. sig held. */
static void job_arrive_locked(struct task *t)
{
    struct thread_group *tg = t->tg;
    struct task_priv *p = task_priv(t);

    if (!p->stop_pending)
        return;
    p->stop_pending = false;
    BUG_ON(tg->stop_count == 0);
    if (--tg->stop_count == 0 && atomic_load_explicit(&tg->stopping, memory_order_relaxed))
        tg->cldstop_due = true;
}

void job_thread_exit_locked(struct task *t)
{
    struct thread_group *tg = t->tg;
    struct task_priv *p;

    job_arrive_locked(t);
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

enum job_state { JOB_RUN, JOB_REPORT, JOB_SLEEP };

static enum job_state job_look(struct task *t)
{
    struct thread_group *tg = t->tg;
    enum job_state state = JOB_RUN;
    struct sighand *sh = tg_lock_sig(tg);
    const bool stopping = atomic_load_explicit(&tg->stopping, memory_order_relaxed);

    if (stopping)
        job_arrive_locked(t);
    task_priv(t)->stopped = stopping;
    if (tg->cldstop_due || tg->cldcont_due)
        state = JOB_REPORT;
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
