/* wait4(2), waitid(2): children that ended, stopped or went on (kernel/exit.c, do_wait). */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "sentry/cred/user_ns.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/task_priv.h"

#ifndef __WNOTHREAD
#define __WNOTHREAD 0x20000000
#define __WALL 0x40000000
#define __WCLONE 0x80000000
#endif

struct wait_query {
    struct task *t;
    enum task_wait_kind kind;
    int32_t id;
    unsigned options;
    struct task_wait_result *out;
    struct list dead; /* what was reaped, to be dropped after the tree lock */
    bool any;         /* a child the query is about exists */
};

static bool wait_matches(const struct wait_query *q, const struct thread_group *c)
{
    if ((q->options & (unsigned)__WNOTHREAD) && c->parent_tid != q->t->tid)
        return false;
    if (q->kind == TASK_WAIT_PID && c->tgid != q->id)
        return false;
    if (q->kind == TASK_WAIT_PGRP && (!c->pgrp || c->pgrp->id != q->id))
        return false;
    if (q->options & (unsigned)__WALL)
        return true;
    /* A "clone" child is one that signals its end with something else than SIGCHLD. */
    return (c->exit_signal != SIGCHLD) == ((q->options & (unsigned)__WCLONE) != 0);
}

static void wait_fill(const struct wait_query *q, struct task *o, int code, int status)
{
    struct task_wait_result *out = q->out;
    struct thread_group *c = o->tg;
    struct task_usage u;

    out->pid = pid_out_locked(o->tg->k, q->t->tg->pid_ns, o->tid);
    mutex_lock(&o->mu);
    out->uid = user_ns_show(q->t->cred->user_ns, USER_NS_UID, o->cred->uid);
    mutex_unlock(&o->mu);
    out->code = code;
    out->status = status;
    tg_usage_locked(c, &u);
    out->usage = (struct task_usage_out){
        .utime_ns = u.utime_ns + c->child_usage.utime_ns,
        .stime_ns = u.stime_ns + c->child_usage.stime_ns,
        .min_flt = u.min_flt + c->child_usage.min_flt,
        .maj_flt = u.maj_flt + c->child_usage.maj_flt,
        .vol_switches = u.vol_switches + c->child_usage.vol_switches,
        .invol_switches = u.invol_switches + c->child_usage.invol_switches,
        .max_rss = MAX(u.max_rss, c->child_usage.max_rss),
        .io = u.io,
    };
    task_io_add(&q->out->usage.io, &c->child_usage.io);
}

static void wait_account(struct thread_group *up, const struct task_usage_out *u)
{
    struct task_usage *c = &up->child_usage;

    c->utime_ns += u->utime_ns;
    c->stime_ns += u->stime_ns;
    c->min_flt += u->min_flt;
    c->maj_flt += u->maj_flt;
    c->vol_switches += u->vol_switches;
    c->invol_switches += u->invol_switches;
    task_io_add(&c->io, &u->io);
    c->max_rss = MAX(c->max_rss, u->max_rss);
}

static int wait_end_code(int status)
{
    return (status & 0x7f) == 0 ? CLD_EXITED : status & 0x80 ? CLD_DUMPED : CLD_KILLED;
}

static bool wait_zombie(struct wait_query *q, struct thread_group *c)
{
    if (c->state != TG_ZOMBIE || !(q->options & WEXITED))
        return false;
    wait_fill(q, c->leader, wait_end_code(c->exit_status), c->exit_status);
    if (!(q->options & WNOWAIT)) {
        wait_account(q->t->tg, &q->out->usage);
        tg_reap_locked(c, &q->dead);
    }
    return true;
}

static bool wait_job(struct wait_query *q, struct thread_group *c)
{
    if (c->state != TG_LIVE || !(q->options & (WSTOPPED | WCONTINUED)))
        return false;
    struct sighand *sh = tg_lock_sig(c);
    const bool keep = q->options & WNOWAIT;
    const int signo = c->stop_signo;
    bool stopped = (q->options & WSTOPPED) && job_stopped_locked(c) && !c->stop_reported;
    bool continued = !stopped && (q->options & WCONTINUED) && c->cont_unreported;
    if (stopped && !keep)
        c->stop_reported = true;
    if (continued && !keep)
        c->cont_unreported = false;
    sighand_unlock(sh);
    if (stopped)
        wait_fill(q, c->leader, CLD_STOPPED, signo << 8 | 0x7f);
    else if (continued)
        wait_fill(q, c->leader, CLD_CONTINUED, 0xffff);
    return stopped || continued;
}

static bool wait_continued(struct wait_query *q, struct thread_group *c)
{
    struct sighand *sh = tg_lock_sig(c);
    const bool continued = c->state == TG_LIVE && c->cont_unreported;

    if (continued && !(q->options & WNOWAIT))
        c->cont_unreported = false;
    sighand_unlock(sh);
    if (continued)
        wait_fill(q, c->leader, CLD_CONTINUED, 0xffff);
    return continued;
}

/* From a zombie nothing comes but its end: who does not want that waits for nobody. */
static bool wait_expects(const struct wait_query *q, bool zombie)
{
    return !zombie || (q->options & WEXITED);
}

static bool wait_one(struct wait_query *q, struct thread_group *c)
{
    if (!wait_matches(q, c))
        return false;
    if (UNLIKELY(c->leader && task_traced(c->leader)) &&
        task_priv(c->leader)->trace.tracer->tg != q->t->tg) {
        /* A zombie is its tracer's, who lets go of it some time. */
        q->any = true;
        return wait_job(q, c);
    }
    q->any |= wait_expects(q, c->state == TG_ZOMBIE);
    /* What we trace ourselves shows its stops as a tracee. */
    if (UNLIKELY(c->leader && task_traced(c->leader)))
        return false;
    return wait_zombie(q, c) || wait_job(q, c);
}

/* ---- tracees ---- */

static bool wait_traced_matches(const struct wait_query *q, const struct task *o)
{
    if (q->kind == TASK_WAIT_PID)
        return o->tid == q->id;
    return q->kind != TASK_WAIT_PGRP || (o->tg->pgrp && o->tg->pgrp->id == q->id);
}

/* A leader that was somebody else's child is waited for a second time, by its parent. */
static void wait_traced_leader_reap(struct wait_query *q, struct task *o)
{
    struct thread_group *tg = o->tg;
    const bool natural = tg->parent == q->t->tg;

    trace_unlink_locked(o);
    if (natural)
        wait_account(q->t->tg, &q->out->usage);
    if (natural || exit_notify_end_locked(tg))
        tg_reap_locked(tg, &q->dead);
}

/* A leader that ended before its threads is not there to be waited for yet. */
static bool wait_traced_ended(const struct task *o)
{
    return task_priv(o)->zombie && (o->tg->leader != o || o->tg->state == TG_ZOMBIE);
}

static bool wait_traced_zombie(struct wait_query *q, struct task *o)
{
    const bool leader = o->tg->leader == o;
    int status;

    if (!wait_traced_ended(o) || !(q->options & WEXITED))
        return false;
    status = leader ? o->tg->exit_status : exit_thread_status_locked(o);
    wait_fill(q, o, wait_end_code(status), status);
    if (q->options & WNOWAIT)
        return true;
    if (leader)
        wait_traced_leader_reap(q, o);
    else
        exit_thread_reap_locked(o, &q->dead);
    return true;
}

/* Stops of tracees are seen whatever the options say. */
static bool wait_traced_stop(struct wait_query *q, struct task *o)
{
    struct task_trace *tr = &task_priv(o)->trace;
    struct sighand *sh = tg_lock_sig(o->tg);
    const bool stopped = tr->stopped && !tr->resumed && !tr->listening && tr->code;
    const int code = tr->code;

    if (stopped && !(q->options & WNOWAIT))
        tr->code = 0;
    sighand_unlock(sh);
    if (stopped)
        wait_fill(q, o, CLD_TRAPPED, code << 8 | 0x7f);
    return stopped;
}

static bool wait_traced_of(struct wait_query *q, struct task *tracer)
{
    struct task_trace *tr, *next;

    list_for_each_entry_safe (tr, next, &task_priv(tracer)->trace.tracees, node) {
        struct task *o = container_of(tr, struct task_priv, trace)->t;
        if (!wait_traced_matches(q, o))
            continue;
        q->any |= wait_expects(q, wait_traced_ended(o));
        if (wait_traced_zombie(q, o) || wait_traced_stop(q, o))
            return true;
        if (o->tg->leader == o && (q->options & WCONTINUED) && wait_continued(q, o->tg))
            return true;
    }
    return false;
}

static bool wait_traced(struct wait_query *q)
{
    struct task_priv *p;

    if (q->options & (unsigned)__WNOTHREAD)
        return wait_traced_of(q, q->t);
    list_for_each_entry (p, &q->t->tg->threads, thread_node)
        if (wait_traced_of(q, p->t))
            return true;
    return false;
}

/* 1: *out is filled; 0: nothing yet; -ECHILD. */
static int wait_scan(struct wait_query *q)
{
    struct kernel *k = q->t->k;
    struct thread_group *c, *next;
    bool found = false;

    q->any = false;
    mutex_lock(&k->mu);
    if (q->kind == TASK_WAIT_PID) {
        /* No walk past all the other children. */
        const struct pid *p = pid_find_locked(k, q->id);
        c = p ? p->tg : NULL;
        if (c && c->parent == q->t->tg)
            found = wait_one(q, c);
    } else {
        list_for_each_entry_safe (c, next, &q->t->tg->children, sibling) {
            found = wait_one(q, c);
            if (found)
                break;
        }
    }
    if (!found)
        found = wait_traced(q);
    mutex_unlock(&k->mu);
    tg_reaped(k, &q->dead);
    if (found)
        return 1;
    return q->any ? 0 : -ECHILD;
}

int task_wait(struct task *t, enum task_wait_kind kind, int32_t id, int options,
              struct task_wait_result *out)
{
    struct wait_query q = {
        .t = t, .kind = kind, .id = id, .options = (unsigned)options, .out = out};
    int r, err;

    list_init(&q.dead);
    *out = (struct task_wait_result){0};
    if (kind == TASK_WAIT_PGRP && id == 0)
        q.id = task_getpgid(t, 0);
    if (kind != TASK_WAIT_ANY)
        q.id = task_pid_in(t, q.id);
    r = wait_scan(&q);
    if (r || (options & WNOHANG))
        return r < 0 ? r : 0;
    WAIT_EVENT(&t->tg->child_wq, &t->blocker, 0, DEADLINE_NEVER, (r = wait_scan(&q)) != 0, err);
    /* The signal may be that of what is waited for. */
    if (err && !r)
        r = wait_scan(&q);
    if (err && !r)
        return -ERESTARTSYS;
    return r < 0 ? r : 0;
}
