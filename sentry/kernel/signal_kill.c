/* Sending with permission: kill(2), tgkill(2), sigqueue(3). */
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>

#include "sentry/cred/user_ns.h"
#include "sentry/kernel/signal.h"
#include "sentry/kernel/signal_priv.h"
#include "sentry/vfs/landlock.h"

/* By user ids, or in the sender's session for SIGCONT. tree held. */
static bool kill_permitted_locked(struct task *t, struct task *o, int signo)
{
    const struct cred *c = t->cred;
    const struct pgrp *from = t->tg->pgrp, *to = o->tg->pgrp;

    if (t->tg == o->tg)
        return true;
    mutex_lock(&o->mu);
    const uint32_t uid = o->cred->uid, suid = o->cred->suid;
    const bool cap = cred_ns_capable(c, o->cred->user_ns, CAP_KILL);
    const bool apart = landlock_out_of_scope(c, o->cred->domain, LANDLOCK_SCOPE_SIGNAL);
    mutex_unlock(&o->mu);
    if (UNLIKELY(apart))
        return false;
    if (c->euid == suid || c->euid == uid || c->uid == suid || c->uid == uid)
        return true;
    if (cap)
        return true;
    return signo == SIGCONT && from && to && from->session == to->session;
}

/* The sender as the receiver knows it: one from outside its namespaces is nobody, and cannot be
 * resisted. tree held. */
static struct lx_siginfo kill_info_for_locked(struct task *t, struct task *o,
                                              const struct lx_siginfo *info)
{
    struct lx_siginfo seen = *info;

    if (info->code > 0)
        return seen;
    if (UNLIKELY(o->tg->pid_ns != t->tg->pid_ns))
        seen.kill.pid = pid_out_locked(t->k, o->tg->pid_ns, t->tg->tgid);
    mutex_lock(&o->mu);
    if (UNLIKELY(o->cred->user_ns != NULL))
        seen.kill.uid = user_ns_show(o->cred->user_ns, USER_NS_UID, seen.kill.uid);
    mutex_unlock(&o->mu);
    return seen;
}

/* tree held. group: to all of o's process. */
static int kill_send_locked(struct task *t, struct task *o, bool group, int signo,
                            const struct lx_siginfo *info)
{
    if (signo < 0 || signo > LX_NSIG)
        return -EINVAL;
    /* What only the kernel can have made goes to the caller itself alone: checked before. */
    if (info->code <= 0 && !kill_permitted_locked(t, o, signo))
        return -EPERM;
    if (signo == 0)
        return 0;
    const struct lx_siginfo seen = kill_info_for_locked(t, o, info);
    return group ? tg_send_signal(o->tg, &seen) : task_send_signal(o, &seen);
}

static struct lx_siginfo kill_info(const struct task *t, int signo, int code)
{
    struct lx_siginfo info = {.signo = signo, .code = code};

    info.kill.pid = t->tg->vtgid;
    info.kill.uid = t->cred->uid;
    return info;
}

static struct lx_siginfo kill_info_given(int signo, const struct lx_siginfo *given)
{
    struct lx_siginfo info = *given;

    info.signo = signo;
    return info;
}

int task_kill_process(struct task *t, int32_t pid, int signo, const struct lx_siginfo *given)
{
    const struct lx_siginfo info =
        given ? kill_info_given(signo, given) : kill_info(t, signo, SI_USER);
    struct kernel *k = t->k;

    mutex_lock(&k->mu);
    const struct pid *p = pid_find_in_locked(k, t->tg->pid_ns, pid);
    int r = p && p->task ? kill_send_locked(t, p->task, true, signo, &info) : -ESRCH;
    mutex_unlock(&k->mu);
    return r;
}

int task_kill_thread(struct task *t, int32_t tgid, int32_t tid, int signo,
                     const struct lx_siginfo *given)
{
    const struct lx_siginfo info =
        given ? kill_info_given(signo, given) : kill_info(t, signo, SI_TKILL);
    struct kernel *k = t->k;
    int r = -ESRCH;

    mutex_lock(&k->mu);
    const struct pid *p = pid_find_in_locked(k, t->tg->pid_ns, tid);
    if (p && p->task && (tgid == 0 || pid_out_locked(k, t->tg->pid_ns, p->task->tg->tgid) == tgid))
        r = kill_send_locked(t, p->task, false, signo, &info);
    mutex_unlock(&k->mu);
    return r;
}

/* Everybody but pid 1 and the caller; success when it worked for one, or nobody objected. */
static int kill_all_locked(struct task *t, int signo, const struct lx_siginfo *info)
{
    struct thread_group *tg;
    int r = -ESRCH;
    bool first = true;

    list_for_each_entry (tg, &t->k->groups, node) {
        if (tg == t->tg || !tg->leader || pid_out_locked(t->k, t->tg->pid_ns, tg->tgid) <= 1)
            continue;
        int err = kill_send_locked(t, tg->leader, true, signo, info);
        if (first)
            r = 0;
        first = false;
        if (err != -EPERM)
            r = err;
    }
    return r;
}

static int kill_pgrp_locked(struct task *t, const struct pgrp *pg, int signo,
                            const struct lx_siginfo *info)
{
    struct thread_group *tg;
    int r = -ESRCH;
    bool done = false;

    list_for_each_entry (tg, &pg->members, pgrp_node) {
        if (!tg->leader)
            continue;
        int err = kill_send_locked(t, tg->leader, true, signo, info);
        done = done || err == 0;
        r = err;
    }
    return done ? 0 : r;
}

int task_kill(struct task *t, int32_t pid, int signo)
{
    const struct lx_siginfo info = kill_info(t, signo, SI_USER);
    struct kernel *k = t->k;
    const struct pid *p;
    int r;

    if (pid > 0)
        return task_kill_process(t, pid, signo, NULL);
    if (pid == INT_MIN)
        return -ESRCH;
    mutex_lock(&k->mu);
    if (pid == -1) {
        r = kill_all_locked(t, signo, &info);
    } else if (pid == 0) {
        r = t->tg->pgrp ? kill_pgrp_locked(t, t->tg->pgrp, signo, &info) : -ESRCH;
    } else {
        p = pid_find_in_locked(k, t->tg->pid_ns, -pid);
        r = p && p->pgrp ? kill_pgrp_locked(t, p->pgrp, signo, &info) : -ESRCH;
    }
    mutex_unlock(&k->mu);
    return r;
}
