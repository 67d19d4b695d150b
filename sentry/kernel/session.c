/* Sessions and process groups as calls see them (kernel/sys.c), orphaned groups. */
#include <errno.h>
#include <signal.h>

#include "sentry/kernel/process.h"
#include "sentry/kernel/task_priv.h"

/* ---- signals to whole groups ---- */

void pgrp_signal_locked(struct pgrp *pg, int signo)
{
    const struct lx_siginfo info = {.signo = signo, .code = SI_KERNEL};
    struct thread_group *tg;

    list_for_each_entry (tg, &pg->members, pgrp_node)
        if (tg->state == TG_LIVE)
            (void)tg_send_signal(tg, &info);
}

static bool pgrp_has_stopped_locked(struct pgrp *pg)
{
    struct thread_group *tg;
    bool found = false;

    list_for_each_entry (tg, &pg->members, pgrp_node) {
        if (tg->state != TG_LIVE)
            continue;
        struct sighand *sh = tg_lock_sig(tg);
        found = job_stopped_locked(tg);
        sighand_unlock(sh);
        if (found)
            break;
    }
    return found;
}

void pgrp_check_orphaned_locked(struct pgrp *pg, const struct thread_group *ignored)
{
    if (!pgrp_orphaned_locked(pg, ignored) || !pgrp_has_stopped_locked(pg))
        return;
    pgrp_signal_locked(pg, SIGHUP);
    pgrp_signal_locked(pg, SIGCONT);
}

void session_leader_exit_locked(struct thread_group *tg)
{
    struct session *s = tg->pgrp ? tg->pgrp->session : NULL;

    if (!s || s->leader != tg)
        return;
    s->leader = NULL;
    if (s->tty_leader_exit)
        s->tty_leader_exit(s);
}

/* ---- setsid, setpgid ---- */

int task_setsid(struct task *t)
{
    struct thread_group *tg = t->tg;
    struct kernel *k = t->k;
    int r = -EPERM;

    mutex_lock(&k->mu);
    const struct pid *p = pid_find_locked(k, tg->tgid);
    if (tg->pgrp && tg->pgrp->session->leader == tg)
        goto out_unlock;
    /* A group of that number would be left in the old session. */
    if (p->pgrp)
        goto out_unlock;
    r = session_new_locked(tg);
    if (!r)
        r = tg->vtgid;
out_unlock:
    mutex_unlock(&k->mu);
    return r;
}

static int setpgid_target_locked(struct task *t, int32_t pid, struct thread_group **out_tg)
{
    const struct pid *p = pid_find_locked(t->k, pid);
    struct thread_group *tg = p ? p->tg : NULL;

    if (!tg)
        return p && p->task && p->task->tg == t->tg ? -EINVAL : -ESRCH;
    if (tg->parent == t->tg) {
        if (tg->pgrp->session != t->tg->pgrp->session)
            return -EPERM;
        if (tg->did_exec)
            return -EACCES;
    } else if (tg != t->tg) {
        return -ESRCH;
    }
    if (tg->pgrp->session->leader == tg)
        return -EPERM;
    *out_tg = tg;
    return 0;
}

static int setpgid_join_locked(struct task *t, struct thread_group *tg, int32_t pgid)
{
    const struct pid *p = pid_find_locked(t->k, pgid);
    struct session *s = t->tg->pgrp->session;
    struct pgrp *pg;

    if (p && p->pgrp) {
        if (p->pgrp->session != s)
            return -EPERM;
        pgrp_join_locked(tg, p->pgrp);
        return 0;
    }
    if (pgid != tg->tgid)
        return -EPERM;
    int r = pgrp_new_locked(t->k, pgid, s, &pg);
    if (r)
        return r;
    pgrp_join_locked(tg, pg);
    pgrp_release_locked(t->k, pg);
    return 0;
}

int task_setpgid(struct task *t, int32_t pid, int32_t pgid)
{
    struct thread_group *tg;

    if (pgid < 0 || (pgid == 0 && pid < 0))
        return -EINVAL;
    pid = pid ? task_pid_in(t, pid) : t->tg->tgid;
    pgid = pgid ? task_pid_in(t, pgid) : pid;
    mutex_lock(&t->k->mu);
    int r = setpgid_target_locked(t, pid, &tg);
    if (!r)
        r = setpgid_join_locked(t, tg, pgid);
    mutex_unlock(&t->k->mu);
    return r;
}

/* ---- getpgid, getsid ---- */

static int session_ids(struct task *t, int32_t pid, bool sid)
{
    struct kernel *k = t->k;
    int r = -ESRCH;

    mutex_lock(&k->mu);
    const struct pid *p =
        pid ? pid_find_in_locked(k, t->tg->pid_ns, pid) : pid_find_locked(k, t->tid);
    const struct task *o = p ? p->task : NULL;
    if (o && o->tg->pgrp)
        r = pid_out_locked(k, t->tg->pid_ns, sid ? o->tg->pgrp->session->id : o->tg->pgrp->id);
    mutex_unlock(&k->mu);
    return r;
}

int task_getpgid(struct task *t, int32_t pid)
{
    return session_ids(t, pid, false);
}

int task_getsid(struct task *t, int32_t pid)
{
    return session_ids(t, pid, true);
}

/* ---- what getpid and getppid answer, with no lock ---- */

int32_t task_tgid(const struct task *t)
{
    return t->tg->vtgid;
}

int32_t task_ppid(struct task *t)
{
    return atomic_load_explicit(&t->tg->ppid, memory_order_relaxed);
}
