/* The end of threads and processes: what is given up when, and who is told (kernel/exit.c). */
#include <errno.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "base/heap.h"
#include "base/log.h"
#include "sentry/ipc/ipc.h"
#include "sentry/kernel/account_priv.h"
#include "sentry/kernel/cgroup_priv.h"
#include "sentry/kernel/coredump.h"
#include "sentry/kernel/fsctx.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ns_priv.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/seccomp_priv.h"
#include "sentry/kernel/task_priv.h"

/* How long pid 1 waits for the others it has killed before the container counts as ended. */
#define ZAP_PATIENCE_NS 5000000000ull

#define LX_SA_NOCLDSTOP 1u
#define LX_SA_NOCLDWAIT 2u

/* ---- beginning ---- */

void task_exit(struct task *t, int status)
{
    task_priv(t)->exit_code = (status & 0xff) << 8;
    blocker_interrupt(&t->blocker, BLOCKER_KILLED | BLOCKER_INTERRUPT);
}

void task_exit_signal(struct task *t, int signo)
{
    task_priv(t)->exit_code = signo;
    blocker_interrupt(&t->blocker, BLOCKER_KILLED | BLOCKER_INTERRUPT);
}

void task_exit_group(struct task *t, int status)
{
    struct sighand *sh = tg_lock_sig(t->tg);

    tg_exit_locked(t->tg, (status & 0xff) << 8);
    sighand_unlock(sh);
}

void tg_exit_locked(struct thread_group *tg, int wait_status)
{
    struct task_priv *p;

    if (atomic_load_explicit(&tg->exiting, memory_order_relaxed))
        return;
    tg->group_status = wait_status;
    atomic_store_explicit(&tg->exiting, true, memory_order_release);
    atomic_store_explicit(&tg->stopping, false, memory_order_release);
    tg->stop_count = 0;
    list_for_each_entry (p, &tg->threads, thread_node) {
        p->stop_pending = false;
        task_interrupt_locked(p->t, BLOCKER_KILLED | BLOCKER_INTERRUPT);
        task_go_if_waiting(p->t);
    }
    waitq_wake(&tg->stop_wq, 0);
}

/* ---- letting go of the memory ---- */

void task_mm_release(struct task *t)
{
    own_end(t);
    rseq_end(t);
    if (t->robust_list)
        futex_exit_robust(t);
    t->robust_list = 0;
    if (t->clear_tid && !task_priv(t)->no_guest) {
        if (user_store32(&t->ua, uaddr(t->clear_tid), 0) == 0)
            futex_wake_word(t, uaddr(t->clear_tid), 1);
    }
    t->clear_tid = 0;
}

void task_vfork_done(struct task *t)
{
    struct task_priv *p = task_priv(t);

    if (!p->vfork_pending)
        return;
    p->vfork_pending = false;
    atomic_store_explicit(&p->vfork_done, true, memory_order_release);
    waitq_wake(&p->vfork_wq, 0);
}

/* Guest memory, files, paths: before anybody is told of the end, as Linux does, so that a parent
 * that waits finds memory and descriptors free. */
static void exit_release(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct vfs_caller c;

    task_vfs_caller(t, &c);
    plat_ctx_destroy(t->ctx);
    mutex_lock(&t->mu);
    struct mm *mm = t->ua.mm;
    struct fdtable *fdt = t->fdt;
    struct fs_ctx *fs = t->fs;
    struct mount_ns *ns = p->ns;
    struct uts_ns *uts = p->uts;
    struct ipc_ns *ipc = p->ipc;
    t->ctx = t->ua.ctx = NULL;
    t->ua.mm = NULL;
    t->fdt = NULL;
    t->fs = NULL;
    p->ns = NULL;
    p->uts = NULL;
    p->ipc = NULL;
    struct ns_tag *tags[NS_TAGS];
    for (int kind = 0; kind < NS_TAGS; kind++) {
        tags[kind] = p->tags[kind];
        p->tags[kind] = NULL;
    }
    mutex_unlock(&t->mu);
    mm_put(mm);
    task_vfork_done(t);
    task_sem_undo_exit(t);
    /* Who exits waits for nothing (SO_LINGER). */
    c.blocker = NULL;
    fdtable_put(fdt, &c);
    task_vfs_caller_end(&c);
    task_forget_fs(t);
    seccomp_task_exit(t);
    fs_ctx_put(fs);
    mount_ns_put(ns);
    uts_put(uts);
    ipc_ns_put(ipc);
    ns_tags_put(tags);
}

static void exit_drop_exe(struct thread_group *tg)
{
    mutex_lock(&tg->mu);
    struct vpath exe = tg->exe;
    tg->exe = (struct vpath){NULL, NULL};
    mutex_unlock(&tg->mu);
    exe_put(&exe);
}

/* ru_maxrss of a process is that of its last address space, and counted once: it is not cheap. */
static void exit_account_rss(struct task *t)
{
    struct task_usage *u = &t->tg->dead_usage;
    struct mm_stats st;

    mm_stats(t->ua.mm, &st);
    mutex_lock(&t->k->mu);
    u->max_rss = MAX(u->max_rss, st.peak_rss);
    mutex_unlock(&t->k->mu);
}

/* From here on the task takes no signals and its times stand still. True: the group's last. */
static bool exit_mark_dead(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct thread_group *tg = t->tg;
    const uint64_t utime = task_utime_ns(t), stime = task_stime_ns(t);
    mutex_lock(&t->k->mu);
    cgroup_exit_locked(t);
    struct sighand *sh = tg_lock_sig(tg);
    p->dead_utime_ns = utime;
    p->dead_stime_ns = stime;
    p->dead = true;
    const bool last = --tg->thread_alive == 0;
    job_thread_exit_locked(t);
    sig_task_exit_locked(t);
    sighand_unlock(sh);
    struct task_usage *u = &tg->dead_usage;
    u->utime_ns += utime;
    u->stime_ns += stime;
    u->min_flt += atomic_load_explicit(&p->min_flt, memory_order_relaxed);
    u->maj_flt += atomic_load_explicit(&p->maj_flt, memory_order_relaxed);
    u->vol_switches += task_sleeps(p->t);
    u->invol_switches += atomic_load_explicit(&p->invol_switches, memory_order_relaxed);
    struct task_io io;
    task_io_get(t, &io);
    task_io_add(&u->io, &io);
    mutex_unlock(&t->k->mu);
    return last;
}

/* ---- telling the parent ---- */

/* As to knows tg. tree held. */
static void chld_info(struct thread_group *tg, const struct thread_group *to, int signo, int code,
                      int status, struct lx_siginfo *info)
{
    struct task_usage u;
    const uint64_t tick = 10000000; /* clock_t is 1/100 s */

    tg_usage_locked(tg, &u);
    *info = (struct lx_siginfo){.signo = signo, .code = code};
    info->chld.pid = pid_out_locked(tg->k, to->pid_ns, tg->tgid);
    if (tg->leader) {
        mutex_lock(&tg->leader->mu);
        info->chld.uid = tg->leader->cred->uid;
        mutex_unlock(&tg->leader->mu);
    }
    info->chld.status = status;
    info->chld.utime = (int64_t)(u.utime_ns / tick);
    info->chld.stime = (int64_t)(u.stime_ns / tick);
}

void tg_wake_parent_locked(struct thread_group *tg)
{
    if (tg->parent)
        waitq_wake(&tg->parent->child_wq, 0);
}

bool tg_notify_parent_locked(struct thread_group *tg, int code, int status)
{
    struct thread_group *up = tg->parent;
    const bool ended = code == CLD_EXITED || code == CLD_KILLED || code == CLD_DUMPED;
    int signo = ended ? tg->exit_signal : SIGCHLD;
    bool reap = false;

    if (!up || tg->k->dying || (tg->pid_ns && tg->pid_ns->dying && up->pid_ns == tg->pid_ns))
        return ended;
    if (signo == SIGCHLD) {
        struct sighand *sh = tg_lock_sig(up);
        const struct sig_action *a = &sh->action[SIGCHLD - 1];
        const bool ignored = a->handler == 1; /* SIG_IGN */
        reap = ended && (ignored || (a->flags & LX_SA_NOCLDWAIT));
        if (ignored || (!ended && (a->flags & LX_SA_NOCLDSTOP)))
            signo = 0;
        sighand_unlock(sh);
    }
    if (signo > 0 && signo <= LX_NSIG) {
        struct lx_siginfo info;
        chld_info(tg, up, signo, code, status, &info);
        (void)tg_send_signal(up, &info);
    }
    waitq_wake(&up->child_wq, 0);
    return reap;
}

/* do_notify_parent for a tracer: it always wants the zombie. */
static void exit_notify_tracer_locked(struct task *t, int status)
{
    struct thread_group *tg = t->tg, *up = task_priv(t)->trace.tracer->tg;
    const bool whole = t == tg->leader && tg->parent == up;
    const int signo = whole ? tg->exit_signal : SIGCHLD;
    struct lx_siginfo info;

    chld_info(tg, up, signo,
              (status & 0x7f) == 0 ? CLD_EXITED
              : status & 0x80      ? CLD_DUMPED
                                   : CLD_KILLED,
              (status & 0x7f) == 0 ? (status >> 8) & 0xff : status & 0x7f, &info);
    info.chld.pid = pid_out_locked(t->k, up->pid_ns, t->tid);
    if (signo > 0 && signo <= LX_NSIG)
        (void)tg_send_signal(up, &info);
    waitq_wake(&up->child_wq, 0);
}

bool exit_notify_end_locked(struct thread_group *tg)
{
    const int st = tg->exit_status;

    if (tg->leader && task_traced(tg->leader)) {
        exit_notify_tracer_locked(tg->leader, st);
        return false;
    }
    if ((st & 0x7f) == 0)
        return tg_notify_parent_locked(tg, CLD_EXITED, (st >> 8) & 0xff);
    return tg_notify_parent_locked(tg, st & 0x80 ? CLD_DUMPED : CLD_KILLED, st & 0x7f);
}

/* ---- reaping ---- */

void tg_reap_locked(struct thread_group *tg, struct list *dead)
{
    struct task *leader = tg->leader;
    struct kernel *k = tg->k;
    struct pid *p = k->pids[tg->tgid];

    BUG_ON(tg->state != TG_ZOMBIE || !leader);
    account_reap_locked(tg->account, tg);
    tg->state = TG_DEAD;
    tg->self->group = NULL;
    waitq_wake(&tg->self->wq, EPOLLHUP);
    tg->leader = NULL;
    tg->parent = NULL;
    list_del(&tg->sibling);
    list_del(&tg->node);
    if (k->init == tg)
        k->init = NULL;
    if (tg->pid_ns && tg->pid_ns->init == tg)
        tg->pid_ns->init = NULL;
    pgrp_leave_locked(tg);
    p->tg = NULL;
    task_unlink_locked(leader);
    list_add_tail(&task_priv(leader)->thread_node, dead);
}

void tg_reaped(struct kernel *k, struct list *dead)
{
    if (list_empty(dead))
        return;
    while (!list_empty(dead)) {
        struct task_priv *p = list_first_entry(dead, struct task_priv, thread_node);
        struct thread_group *tg = p->t->tg;
        const bool whole = p->t->tid == tg->tgid;
        list_del(&p->thread_node);
        task_put(p->t);
        if (whole)
            tg_put(tg);
    }
    waitq_wake(&k->exit_wq, 0);
}

/* ---- orphans ---- */

/* find_new_reaper: the nearest ancestor that asked for them, else pid 1. The chain is as long as
 * the tree is deep, so LIMIT_TASKS bounds it. */
static struct thread_group *exit_find_reaper_locked(struct thread_group *tg)
{
    struct thread_group *init = tg->pid_ns ? tg->pid_ns->init : tg->k->init;

    if (init == tg)
        init = tg->k->init;
    for (struct thread_group *up = tg->parent; up && up != init && up->pid_ns == tg->pid_ns;
         up = up->parent)
        if (up->is_subreaper && up->state == TG_LIVE && up->thread_alive > 0)
            return up;
    return init != tg && init && init->state == TG_LIVE ? init : NULL;
}

static void exit_adopt_locked(struct thread_group *child, struct thread_group *up,
                              struct list *dead)
{
    child->parent = up;
    child->parent_tid = up ? up->tgid : 0;
    atomic_store_explicit(&child->ppid, up ? pid_out_locked(up->k, child->pid_ns, up->tgid) : 0,
                          memory_order_relaxed);
    struct task_priv *p;
    list_for_each_entry (p, &child->threads, thread_node)
        task_answers_changed(p->t);
    list_del(&child->sibling);
    if (up)
        list_add_tail(&child->sibling, &up->children);
    child->exit_signal = SIGCHLD;
    if (child->state == TG_ZOMBIE && exit_notify_end_locked(child))
        tg_reap_locked(child, dead);
}

static void exit_reparent_locked(struct thread_group *tg, struct list *dead)
{
    struct thread_group *child, *next;

    if (list_empty(&tg->children))
        return;
    struct thread_group *up = exit_find_reaper_locked(tg);
    list_for_each_entry_safe (child, next, &tg->children, sibling) {
        struct pgrp *pg = child->pgrp;
        exit_adopt_locked(child, up, dead);
        if (child->state == TG_LIVE && pg && tg->pgrp && pg != tg->pgrp &&
            pg->session == tg->pgrp->session)
            pgrp_check_orphaned_locked(pg, NULL);
    }
}

/* prctl(2) PR_SET_PDEATHSIG goes by the thread that made the child. */
static void exit_pdeath_locked(struct task *t)
{
    struct thread_group *child;

    list_for_each_entry (child, &t->tg->children, sibling) {
        struct task_priv *p;
        if (child->parent_tid != t->tid)
            continue;
        if (t->tg->leader)
            child->parent_tid = t->tg->tgid;
        if (child->state != TG_LIVE)
            continue;
        list_for_each_entry (p, &child->threads, thread_node) {
            const int signo = atomic_load_explicit(&p->pdeathsig, memory_order_relaxed);
            const struct lx_siginfo info = {.signo = signo, .code = SI_USER};
            if (signo && !p->dead)
                (void)tg_send_signal(child, &info);
        }
    }
}

/* ---- the end of a group ---- */

static void exit_group_end_locked(struct thread_group *tg, struct list *dead)
{
    struct pgrp *pg = tg->pgrp;
    struct thread_group *up = tg->parent;

    tg->exit_status = atomic_load_explicit(&tg->exiting, memory_order_relaxed)
                          ? tg->group_status
                          : task_priv(tg->leader)->exit_code;
    session_leader_exit_locked(tg);
    exit_reparent_locked(tg, dead);
    /* The parent was what kept its group from being orphaned. */
    if (pg && up && up->pgrp && up->pgrp != pg && up->pgrp->session == pg->session)
        pgrp_check_orphaned_locked(pg, tg);
    tg->state = TG_ZOMBIE;
    waitq_wake(&tg->self->wq, 0);
    if (exit_notify_end_locked(tg))
        tg_reap_locked(tg, dead);
}

static void exit_wake_exec(struct thread_group *tg)
{
    struct sighand *sh = tg_lock_sig(tg);

    if (tg->exec_task)
        blocker_wake(&tg->exec_task->blocker);
    sighand_unlock(sh);
}

/* The group has ended with the thread that went last. True: just now. */
static bool exit_try_group_end_locked(struct thread_group *tg, struct list *dead)
{
    if (tg->state != TG_LIVE || tg->thread_count != 1 || !task_priv(tg->leader)->zombie)
        return false;
    exit_group_end_locked(tg, dead);
    return true;
}

void exit_thread_reap_locked(struct task *t, struct list *dead)
{
    struct thread_group *tg = t->tg;

    task_unlink_locked(t);
    list_add_tail(&task_priv(t)->thread_node, dead);
    exit_wake_exec(tg);
    (void)exit_try_group_end_locked(tg, dead);
}

int exit_thread_status_locked(const struct task *t)
{
    const struct thread_group *tg = t->tg;

    return atomic_load_explicit(&tg->exiting, memory_order_relaxed) ? tg->group_status
                                                                    : task_priv(t)->exit_code;
}

/* Who started the process from outside is to be told. A tracer may keep zombies of its threads. */
static bool exit_over_locked(const struct thread_group *tg)
{
    const struct task_priv *p;

    if (!tg->exit_fn || tg->thread_alive > 0)
        return false;
    list_for_each_entry (p, &tg->threads, thread_node)
        if (!p->zombie)
            return false;
    return true;
}

/* The last step: t is nobody's any more when it returns. */
static void exit_notify(struct task *t)
{
    struct thread_group *tg = tg_get(t->tg);
    struct kernel *k = t->k;
    struct list dead = LIST_INIT(dead);
    kernel_exit_fn fn = NULL;
    int status = 0;

    mutex_lock(&k->mu);
    trace_exit_tracer_locked(t, &dead);
    exit_pdeath_locked(t);
    if (tg->leader == t || task_traced(t)) {
        /* Whether its tracer wants to wait for it, or its process is not at its end yet. */
        task_priv(t)->zombie = true;
        if (tg->leader != t)
            exit_notify_tracer_locked(t, exit_thread_status_locked(t));
        exit_wake_exec(tg);
    } else {
        exit_thread_reap_locked(t, &dead);
    }
    (void)exit_try_group_end_locked(tg, &dead);
    if (exit_over_locked(tg)) {
        fn = tg->exit_fn;
        tg->exit_fn = NULL;
        status = tg->state == TG_LIVE ? exit_thread_status_locked(tg->leader) : tg->exit_status;
    }
    mutex_unlock(&k->mu);
    void *arg = tg->exit_arg;
    tg_reaped(k, &dead);
    tg_put(tg);
    if (fn)
        fn(arg, status);
}

/* ---- pid 1 ---- */

static bool zap_is_member(struct kernel *k, const struct thread_group *tg,
                          const struct thread_group *init)
{
    return tg != init && pid_out_locked(k, init->pid_ns, tg->tgid) != 0;
}

static void zap_locked(struct kernel *k, struct thread_group *init, struct list *dead)
{
    struct thread_group *tg, *next;

    if (init->pid_ns)
        init->pid_ns->dying = true;
    else
        k->dying = true;
    trace_zap_locked(k, init->pid_ns);
    list_for_each_entry_safe (tg, next, &k->groups, node) {
        if (!zap_is_member(k, tg, init))
            continue;
        if (tg->state == TG_ZOMBIE) {
            tg_reap_locked(tg, dead);
            continue;
        }
        struct sighand *sh = tg_lock_sig(tg);
        tg_exit_locked(tg, SIGKILL);
        sighand_unlock(sh);
    }
}

static bool zap_done(struct kernel *k, const struct thread_group *init)
{
    const struct thread_group *tg;
    bool done = true;

    mutex_lock(&k->mu);
    list_for_each_entry (tg, &k->groups, node)
        done = done && !zap_is_member(k, tg, init);
    mutex_unlock(&k->mu);
    return done;
}

/* pid_namespaces(7): with pid 1 everybody ends, and pid 1 ends last. */
static void kernel_zap(struct kernel *k, struct thread_group *init)
{
    struct list dead = LIST_INIT(dead);
    struct blocker b; /* the task's own one is past waiting: it was killed */
    int r;

    mutex_lock(&k->mu);
    zap_locked(k, init, &dead);
    mutex_unlock(&k->mu);
    tg_reaped(k, &dead);
    blocker_init(&b);
    WAIT_EVENT(&k->exit_wq, &b, 0, mono_now() + ZAP_PATIENCE_NS, zap_done(k, init), r);
    if (r)
        log_warn("pid 1 has ended, but not every other task: %d", r);
}

static int exit_status(struct task *t)
{
    struct sighand *sh = tg_lock_sig(t->tg);
    const int status = exit_thread_status_locked(t);

    sighand_unlock(sh);
    return status;
}

/* Before pid 1 waits for the others to go: they may wait for it, their tracer. */
static void exit_tracer(struct task *t)
{
    struct list dead = LIST_INIT(dead);

    if (list_empty(&task_priv(t)->trace.tracees))
        return;
    mutex_lock(&t->k->mu);
    trace_exit_tracer_locked(t, &dead);
    mutex_unlock(&t->k->mu);
    tg_reaped(t->k, &dead);
}

void task_exit_final(struct task *t)
{
    struct thread_group *tg = t->tg;

    /* What ends gives memory back, which may need a little first. */
    heap_exempt(true);
    atomic_fetch_add(&tg->heap_gone, atomic_load(&task_priv(t)->heap));
    atomic_store(&task_priv(t)->heap, 0);
    task_coredump_join(t);
    if (UNLIKELY(task_traced(t)))
        trace_event(t, PTRACE_EVENT_EXIT, (uint32_t)exit_status(t));
    task_mm_release(t);
    const bool last = exit_mark_dead(t);
    if (last) {
        exit_account_rss(t);
        tg_timers_exit(tg);
        exit_drop_exe(tg);
    }
    exit_release(t);
    exit_tracer(t);
    if (last && tg_is_init(tg))
        kernel_zap(t->k, tg);
    exit_notify(t);
}
