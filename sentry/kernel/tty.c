/* Controlling terminals and job control (kernel drivers/tty/tty_jobctrl.c, tty_io.c). */
#include "sentry/kernel/tty.h"

#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/sysmacros.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/signal_priv.h"
#include "sentry/kernel/task_priv.h"

void tty_init(struct tty *tty, uint64_t rdev, void (*release)(struct tty *tty))
{
    ref_init(&tty->ref);
    tty->release = release;
    tty->rdev = rdev;
    tty->session = NULL;
    tty->pgrp = NULL;
}

struct tty *tty_get(struct tty *tty)
{
    ref_get(&tty->ref);
    return tty;
}

void tty_put(struct tty *tty)
{
    if (ref_put(&tty->ref))
        tty->release(tty);
}

/* ---- who asks ---- */

/* The caller's process in the tables, or NULL when none made the call. tree held. */
static struct thread_group *tty_caller_locked(struct kernel *k, const struct vfs_caller *c)
{
    const struct pid *p = pid_find_locked(k, c->tgid);
    struct thread_group *tg = p ? p->tg : NULL;

    return tg && tg->pgrp ? tg : NULL;
}

static struct tty *tty_current_locked(const struct thread_group *tg)
{
    return tg && !tg->left_tty ? tg->pgrp->session->tty : NULL;
}

static bool tty_is_leader_locked(const struct thread_group *tg)
{
    return tg && tg->pgrp->session->leader == tg;
}

/* ---- sessions ---- */

static void tty_set_group_locked(struct kernel *k, struct tty *tty, struct pgrp *pg)
{
    struct pgrp *old = tty->pgrp;

    if (pg)
        ref_get(&pg->ref);
    tty->pgrp = pg;
    if (old)
        pgrp_release_locked(k, old);
}

static void tty_forget_old_group_locked(struct session *s)
{
    struct pgrp *old = s->tty_old_pgrp;

    s->tty_old_pgrp = NULL;
    if (old)
        pgrp_release_locked(s->k, old);
}

/* Session and terminal let go of each other. Some group of s other than those released here keeps
 * it alive: the caller is in it. */
static void tty_part_locked(struct session *s)
{
    struct tty *tty = s->tty;

    s->tty = NULL;
    tty->session = NULL;
    tty_set_group_locked(s->k, tty, NULL);
    tty_put(tty);
}

static void tty_leader_exit_locked(struct session *s)
{
    if (s->tty) {
        if (s->tty->pgrp)
            pgrp_signal_locked(s->tty->pgrp, SIGHUP);
        tty_part_locked(s);
    } else if (s->tty_old_pgrp) {
        pgrp_signal_locked(s->tty_old_pgrp, SIGHUP);
        pgrp_signal_locked(s->tty_old_pgrp, SIGCONT);
    }
    tty_forget_old_group_locked(s);
}

static void tty_show_locked(struct session *s, uint32_t *out_dev, int32_t *out_pgrp)
{
    unsigned ma = major(s->tty->rdev), mi = minor(s->tty->rdev);

    *out_dev = (mi & 0xff) | (ma << 8) | ((mi & ~0xffu) << 12);
    *out_pgrp = s->tty->pgrp ? s->tty->pgrp->id : -1;
}

static void tty_join_locked(struct kernel *k, struct thread_group *tg, struct tty *tty)
{
    struct session *s = tg->pgrp->session;

    s->tty = tty_get(tty);
    s->tty_leader_exit = tty_leader_exit_locked;
    s->tty_show = tty_show_locked;
    tty->session = s;
    tg->left_tty = false;
    tty_set_group_locked(k, tty, tg->pgrp);
    tty_forget_old_group_locked(s);
}

struct tty *tty_current(struct kernel *k, const struct vfs_caller *c)
{
    mutex_lock(&k->mu);
    struct tty *tty = tty_current_locked(tty_caller_locked(k, c));
    if (tty)
        (void)tty_get(tty);
    mutex_unlock(&k->mu);
    return tty;
}

static int tty_take_locked(struct kernel *k, const struct vfs_caller *c, struct tty *tty,
                           bool steal, bool readable)
{
    struct thread_group *tg = tty_caller_locked(k, c);
    bool admin = cred_capable(c->cred, CAP_SYS_ADMIN);

    if (tty_is_leader_locked(tg) && tg->pgrp->session == tty->session)
        return 0;
    if (!tty_is_leader_locked(tg) || tty_current_locked(tg))
        return -EPERM;
    if (tty->session && !(steal && admin))
        return -EPERM;
    if (!readable && !admin)
        return -EPERM;
    if (tty->session)
        tty_part_locked(tty->session);
    if (tg->pgrp->session->tty)
        tty_part_locked(tg->pgrp->session);
    tty_join_locked(k, tg, tty);
    return 0;
}

int tty_take(struct kernel *k, const struct vfs_caller *c, struct tty *tty, bool steal,
             bool readable)
{
    mutex_lock(&k->mu);
    int r = tty_take_locked(k, c, tty, steal, readable);
    mutex_unlock(&k->mu);
    return r;
}

void tty_opened(struct kernel *k, const struct vfs_caller *c, struct tty *tty)
{
    mutex_lock(&k->mu);
    struct thread_group *tg = tty_caller_locked(k, c);
    if (tty_is_leader_locked(tg) && !tg->pgrp->session->tty && !tty->session)
        tty_join_locked(k, tg, tty);
    mutex_unlock(&k->mu);
}

int tty_leave(struct kernel *k, const struct vfs_caller *c, struct tty *tty)
{
    int r = -ENOTTY;

    mutex_lock(&k->mu);
    struct thread_group *tg = tty_caller_locked(k, c);
    if (tg && tty_current_locked(tg) == tty) {
        r = 0;
        if (tty_is_leader_locked(tg)) {
            if (tty->pgrp) {
                pgrp_signal_locked(tty->pgrp, SIGHUP);
                pgrp_signal_locked(tty->pgrp, SIGCONT);
            }
            tty_part_locked(tg->pgrp->session);
        } else {
            tg->left_tty = true;
        }
    }
    mutex_unlock(&k->mu);
    return r;
}

/* ---- job control ---- */

static bool tty_signal_ignored_locked(struct kernel *k, const struct vfs_caller *c, int signo)
{
    const struct pid *p = pid_find_locked(k, c->pid);

    if (!p || !p->task)
        return true;
    struct sighand *sh = tg_lock_sig(p->task->tg);
    bool ignored = (sig_blocked(p->task) >> (signo - 1) & 1) != 0 ||
                   sh->action[signo - 1].handler == (uint64_t)(uintptr_t)SIG_IGN;
    sighand_unlock(sh);
    return ignored;
}

static int tty_check_locked(struct kernel *k, const struct vfs_caller *c, struct tty *tty,
                            int signo)
{
    struct thread_group *tg = tty_caller_locked(k, c);

    if (!tg || tty_current_locked(tg) != tty || !tty->pgrp || tty->pgrp == tg->pgrp)
        return 0;
    if (tty_signal_ignored_locked(k, c, signo))
        return signo == SIGTTIN ? -EIO : 0;
    if (pgrp_orphaned_locked(tg->pgrp, NULL))
        return -EIO;
    pgrp_signal_locked(tg->pgrp, signo);
    return -ERESTARTSYS;
}

int tty_check(struct kernel *k, const struct vfs_caller *c, struct tty *tty, int signo)
{
    mutex_lock(&k->mu);
    int r = tty_check_locked(k, c, tty, signo);
    mutex_unlock(&k->mu);
    return r;
}

/* As the caller knows it. */
static int32_t tty_nr_locked(struct kernel *k, const struct vfs_caller *c, int32_t nr)
{
    const struct thread_group *tg = tty_caller_locked(k, c);

    return tg ? pid_out_locked(k, tg->pid_ns, nr) : nr;
}

int tty_get_pgrp(struct kernel *k, const struct vfs_caller *c, struct tty *tty, bool any,
                 int32_t *out_pgrp)
{
    int r = 0;

    mutex_lock(&k->mu);
    if (!any && tty_current_locked(tty_caller_locked(k, c)) != tty)
        r = -ENOTTY;
    else
        *out_pgrp = tty->pgrp ? tty_nr_locked(k, c, tty->pgrp->id) : 0;
    mutex_unlock(&k->mu);
    return r;
}

int tty_get_sid(struct kernel *k, const struct vfs_caller *c, struct tty *tty, bool any,
                int32_t *out_sid)
{
    int r = 0;

    mutex_lock(&k->mu);
    if ((!any && tty_current_locked(tty_caller_locked(k, c)) != tty) || !tty->session)
        r = -ENOTTY;
    else
        *out_sid = tty_nr_locked(k, c, tty->session->id);
    mutex_unlock(&k->mu);
    return r;
}

static int tty_set_pgrp_locked(struct kernel *k, const struct vfs_caller *c, struct tty *tty,
                               int32_t pgid)
{
    const struct thread_group *tg = tty_caller_locked(k, c);

    if (pgid < 0)
        return -EINVAL;
    if (!tg || tty_current_locked(tg) != tty || tty->session != tg->pgrp->session)
        return -ENOTTY;
    const struct pid *p = pid_find_in_locked(k, tg->pid_ns, pgid);
    if (!p)
        return -ESRCH;
    if (!p->pgrp || p->pgrp->session != tg->pgrp->session)
        return -EPERM;
    tty_set_group_locked(k, tty, p->pgrp);
    return 0;
}

int tty_set_pgrp(struct kernel *k, const struct vfs_caller *c, struct tty *tty, int32_t pgid)
{
    mutex_lock(&k->mu);
    int r = tty_set_pgrp_locked(k, c, tty, pgid);
    mutex_unlock(&k->mu);
    return r;
}

/* ---- signals ---- */

void tty_signal(struct kernel *k, struct tty *tty, int signo)
{
    mutex_lock(&k->mu);
    if (tty->pgrp)
        pgrp_signal_locked(tty->pgrp, signo);
    mutex_unlock(&k->mu);
}

void tty_hangup(struct kernel *k, struct tty *tty)
{
    static const struct lx_siginfo hup = {.signo = SIGHUP, .code = SI_KERNEL};
    static const struct lx_siginfo cont = {.signo = SIGCONT, .code = SI_KERNEL};

    mutex_lock(&k->mu);
    struct session *s = tty->session;
    if (s) {
        /* The foreground group hears of it once the leader ends. */
        tty_forget_old_group_locked(s);
        s->tty_old_pgrp = tty->pgrp;
        tty->pgrp = NULL;
        if (s->leader) {
            (void)tg_send_signal(s->leader, &hup);
            (void)tg_send_signal(s->leader, &cont);
        }
        tty_part_locked(s);
    }
    mutex_unlock(&k->mu);
}

int tty_install_fd(struct kernel *k, const struct vfs_caller *c, struct file *f, bool cloexec)
{
    struct task *t = NULL;

    mutex_lock(&k->mu);
    const struct pid *p = pid_find_locked(k, c->pid);
    if (p && p->task)
        t = task_get(p->task);
    mutex_unlock(&k->mu);
    if (!t)
        return -EIO;
    int fd = task_fd_install(t, f, cloexec, 0);
    task_put(t);
    return fd;
}
