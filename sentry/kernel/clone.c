/* clone(2), fork(2), vfork(2): a task made from another (kernel/fork.c). */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <linux/ptrace.h>
#include <sys/resource.h>

#include "sentry/ipc/ipc.h"
#include "sentry/kernel/account_priv.h"
#include "sentry/kernel/cgroup_priv.h"
#include "sentry/kernel/fsctx.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ns_priv.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/seccomp_priv.h"
#include "sentry/kernel/task_priv.h"

struct clone_pidfd {
    struct file *file; /* owned */
    int fd;            /* -1: none */
};

static int clone_check_ns(struct task *t, uint64_t flags)
{
    /* Threads are where their process is. */
    if ((flags & CLONE_THREAD) && task_priv(t)->pid_ns_children != t->tg->pid_ns)
        return -EINVAL;
    if (!(flags & NS_CLONE_ALL))
        return 0;
    if ((flags & CLONE_FS) && (flags & (CLONE_NEWNS | CLONE_NEWUSER)))
        return -EINVAL;
    if ((flags & CLONE_THREAD) && (flags & (CLONE_NEWPID | CLONE_NEWUSER)))
        return -EINVAL;
    /* With a user namespace of its own the child has all rights in it. */
    if ((flags & NS_CLONE_ALL & ~(uint64_t)CLONE_NEWUSER) && !(flags & CLONE_NEWUSER) &&
        !cred_self_capable(t->cred, CAP_SYS_ADMIN))
        return -EPERM;
    return (flags & CLONE_NEWIPC) && (flags & CLONE_SYSVSEM) ? -EINVAL : 0;
}

static int clone_check(struct task *t, const struct task_clone_args *a)
{
    const uint64_t f = a->flags;

    if ((f & CLONE_THREAD) && !(f & CLONE_SIGHAND))
        return -EINVAL;
    if ((f & CLONE_SIGHAND) && (!(f & CLONE_VM) || (f & CLONE_CLEAR_SIGHAND)))
        return -EINVAL;
    if ((f & CLONE_PIDFD) && (f & (CLONE_THREAD | CLONE_DETACHED)))
        return -EINVAL;
    if ((f & CLONE_PARENT) && tg_is_init(t->tg))
        return -EINVAL;
    if (a->want_count) {
        const uint32_t level =
            task_priv(t)->pid_ns_children ? task_priv(t)->pid_ns_children->level : 0;
        if (a->want_count > level + 1 + ((f & CLONE_NEWPID) != 0))
            return -EINVAL;
        if (!cred_self_capable(t->cred, CAP_SYS_ADMIN) &&
            !cred_self_capable(t->cred, CAP_CHECKPOINT_RESTORE))
            return -EPERM;
    }
    if ((f & CLONE_SETTLS) && a->tls >= t->k->cfg.plat->max_addr)
        return -EPERM;
    return clone_check_ns(t, f);
}

/* ---- RLIMIT_NPROC ---- */

/* Tasks of a user. tree held. */
static uint64_t user_tasks_locked(struct kernel *k, uint32_t uid)
{
    struct thread_group *tg;
    struct task_priv *p;
    uint64_t n = 0;

    list_for_each_entry (tg, &k->groups, node) {
        list_for_each_entry (p, &tg->threads, thread_node) {
            mutex_lock(&p->t->mu);
            n += p->t->cred->uid == uid;
            mutex_unlock(&p->t->mu);
        }
    }
    return n;
}

static int check_nproc_locked(struct task *t)
{
    const uint64_t limit = task_rlimit(t, RLIMIT_NPROC);

    if (t->cred->uid == 0 || atomic_load(&t->k->task_count) <= limit)
        return 0;
    if (task_capable(t, CAP_SYS_RESOURCE) || task_capable(t, CAP_SYS_ADMIN))
        return 0;
    return user_tasks_locked(t->k, t->cred->uid) >= limit ? -EAGAIN : 0;
}

/* ---- making the child ---- */

static int clone_sighand(struct task *t, uint64_t flags, struct sighand **out_sh)
{
    if (flags & CLONE_SIGHAND) {
        *out_sh = sighand_get(t->tg->sighand);
        return 0;
    }
    if (flags & CLONE_CLEAR_SIGHAND) {
        int r = sighand_dup(t->tg->sighand, out_sh);
        if (r)
            return r;
        /* Ignored signals stay ignored, as at execve. Nobody else knows the copy yet. */
        mutex_lock(&(*out_sh)->mu);
        sighand_exec_locked(*out_sh);
        mutex_unlock(&(*out_sh)->mu);
        return 0;
    }
    return sighand_dup(t->tg->sighand, out_sh);
}

static int clone_group(struct task *t, struct task *c, const struct task_clone_args *a)
{
    struct thread_group *from = t->tg, *tg;

    if (a->flags & CLONE_THREAD) {
        c->tg = tg_get(from);
        return 0;
    }
    int r = tg_new(t->k, &tg);
    if (r)
        return r;
    tg->pid_ns = pid_ns_get(task_priv(c)->pid_ns_children);
    tg->account = account_get(from->account);
    r = clone_sighand(t, a->flags, &tg->sighand);
    if (r) {
        tg_put(tg);
        return r;
    }
    mutex_lock(&from->mu);
    for (int i = 0; i < LX_RLIM_COUNT; i++)
        for (int j = 0; j < 2; j++)
            atomic_store_explicit(&tg->rlimits[i][j], atomic_load(&from->rlimits[i][j]),
                                  memory_order_relaxed);
    exe_dup(&from->exe, &tg->exe);
    mutex_unlock(&from->mu);
    tg->exit_signal = a->exit_signal;
    atomic_store(&tg->oom_score_adj, atomic_load(&from->oom_score_adj));
    atomic_store(&tg->oom_score_adj_min, atomic_load(&from->oom_score_adj_min));
    atomic_store(&tg->dumpable, atomic_load(&from->dumpable));
    atomic_store(&tg->membarrier, atomic_load(&from->membarrier));
    atomic_store(&tg->thp_disable, atomic_load(&from->thp_disable));
    c->tg = tg;
    return 0;
}

static int clone_files(struct task *t, struct task *c, uint64_t flags)
{
    int r = 0;

    if (flags & CLONE_FILES)
        c->fdt = fdtable_get(t->fdt);
    else
        r = fdtable_dup(t->fdt, &c->fdt);
    if (r)
        return r;
    if (flags & CLONE_FS)
        c->fs = fs_ctx_get(t->fs);
    else
        r = fs_ctx_dup(t->fs, &c->fs);
    if (r)
        return r;
    struct ns_tag *tags[NS_TAGS];
    r = ns_tags_make(t, flags, c->cred, c->fs, tags);
    if (r)
        return r;
    ns_tags_install(c, tags);
    ns_tags_put(tags);
    return 0;
}

/* Who the child is, and where its children's numbers come from. */
static int clone_identity(struct task *t, struct task *c, uint64_t flags)
{
    struct task_priv *from = task_priv(t), *to = task_priv(c);
    int r = 0;

    if (flags & CLONE_NEWUSER)
        r = ns_user_make(t, &c->cred);
    else
        c->cred = cred_get(t->cred);
    if (r)
        return r;
    if (flags & CLONE_NEWPID)
        return pid_ns_new(t->k, from->pid_ns_children, c->cred->user_ns, &to->pid_ns_children);
    to->pid_ns_children = pid_ns_get(from->pid_ns_children);
    return 0;
}

/* sched_fork(): SCHED_RESET_ON_FORK takes what is better than ordinary, and no more. */
static void clone_scheduling(struct task_priv *from, struct task_priv *to)
{
    const bool reset = atomic_load(&from->sched_reset_on_fork);
    const int priority = atomic_load(&from->sched_priority), nice = atomic_load(&from->nice);
    const bool ordinary = reset && priority != 0;

    atomic_store(&to->sched_policy, ordinary ? 0 : atomic_load(&from->sched_policy));
    atomic_store(&to->sched_priority, ordinary ? 0 : priority);
    atomic_store(&to->nice, ordinary ? 0 : reset ? MAX(nice, 0) : nice);
}

static void clone_attrs(struct task *t, struct task *c, const struct task_clone_args *a)
{
    struct task_priv *from = task_priv(t), *to = task_priv(c);

    task_get_comm(t, c->comm);
    clone_scheduling(from, to);
    to->timer_slack_born = atomic_load(&from->timer_slack_ns);
    atomic_store(&to->timer_slack_ns, to->timer_slack_born);
    atomic_store(&to->personality, atomic_load(&from->personality));
    atomic_store(&to->mce_kill, atomic_load(&from->mce_kill));
    atomic_store(&to->io_flusher, atomic_load(&from->io_flusher));
    atomic_store(&to->no_tsc, atomic_load(&from->no_tsc));
    mutex_lock(&t->mu);
    for (size_t i = 0; i < LIMIT_CPU_WORDS; i++)
        to->affinity[i] = from->affinity[i];
    to->policy = from->policy;
    mutex_unlock(&t->mu);
    if (a->flags & CLONE_CHILD_CLEARTID)
        c->clear_tid = a->child_tid.v;
    if (a->flags & CLONE_CHILD_SETTID)
        to->set_child_tid = a->child_tid.v;
    /* rseq(2): a new address space keeps the registration, a new thread makes its own. */
    if (!(a->flags & CLONE_VM))
        rseq_fork(t, c);
    to->vfork_pending = (a->flags & CLONE_VFORK) != 0;
}

static int clone_memory(struct task *t, struct task *c, const struct task_clone_args *a)
{
    struct mm_limits lim;
    struct plat_ctx *ctx;
    int r;

    if (a->flags & CLONE_VM) {
        r = plat_ctx_fork(t->ctx, NULL, &ctx);
        if (r)
            return r;
        c->ua.mm = mm_get(t->ua.mm);
    } else {
        task_mm_limits(t, &lim);
        r = mm_fork(t->ua.mm, t->ctx, &lim, &c->ua.mm, &ctx);
        if (r)
            return r;
    }
    c->ctx = c->ua.ctx = ctx;
    /* Who shares memory has to share its clocks, till it executes a program. */
    if (!(a->flags & CLONE_VM) && task_enter_child_time(c)) {
        r = time_ns_show(t->k, task_child_time_ns(c), c->ua.mm, false);
        if (r)
            return r;
    }
    struct plat_regs *regs = plat_ctx_regs(ctx);
    regs->rax = 0;
    if (a->stack)
        regs->rsp = a->stack;
    if (a->flags & CLONE_SETTLS)
        regs->fs_base = a->tls;
    return 0;
}

static int clone_build(struct task *t, struct task *c, const struct task_clone_args *a)
{
    int r = clone_identity(t, c, a->flags);

    if (!r)
        r = clone_group(t, c, a);
    if (r)
        return r;
    clone_attrs(t, c, a);
    r = clone_files(t, c, a->flags);
    if (r)
        return r;
    if (a->flags & CLONE_SYSVSEM) {
        r = task_sem_undo_share(t, c);
        if (r)
            return r;
    }
    r = task_io_clone(t, c, (a->flags & CLONE_IO) != 0);
    if (r)
        return r;
    sig_fork(t, c, a->flags);
    return clone_memory(t, c, a);
}

/* ---- making it known ---- */

static void clone_link_group_locked(struct task *t, struct thread_group *tg, uint64_t flags)
{
    struct thread_group *up = flags & CLONE_PARENT ? t->tg->parent : t->tg;

    tg->parent = up;
    tg->parent_tid = flags & CLONE_PARENT ? t->tg->parent_tid : t->tid;
    atomic_store_explicit(&tg->ppid, up ? pid_out_locked(t->k, tg->pid_ns, up->tgid) : 0,
                          memory_order_relaxed);
    if (flags & CLONE_PARENT)
        tg->exit_signal = t->tg->exit_signal;
    if (up)
        list_add_tail(&tg->sibling, &up->children);
    pgrp_join_locked(tg, t->tg->pgrp);
    tg->left_tty = t->tg->left_tty;
}

/* The last moment at which clone can fail for the caller's state. Signals that came meanwhile are
 * taken first: one sent to the whole process group must not miss the child. */
static int clone_publish(struct task *t, struct task *c, const struct task_clone_args *a, int event,
                         int32_t *out_tid)
{
    struct kernel *k = t->k;
    struct pid *p;
    int r;

    mutex_lock(&k->mu);
    r = k->dying || (!(a->flags & CLONE_THREAD) && t->tg->state != TG_LIVE) ? -ENOMEM : 0;
    if (!r && blocker_interrupted(&t->blocker))
        r = -ERESTARTNOINTR;
    if (!r)
        r = check_nproc_locked(t);
    if (!r && account_admit_locked(c->tg->account)) {
        cgroup_refused_locked(t);
        r = -EAGAIN;
    }
    if (!r)
        r = cgroup_fork_locked(c, t, a->cgroup);
    if (!r) {
        r = pid_new_locked(k, c->tg->pid_ns, a->want, a->want_count, &p);
        if (r)
            cgroup_release_locked(c);
    }
    if (!r) {
        seccomp_fork(t, c);
        task_publish_locked(c, p);
        if (!(a->flags & CLONE_THREAD))
            clone_link_group_locked(t, c->tg, a->flags);
        trace_fork_locked(t, c, event, a->flags & CLONE_PTRACE);
        *out_tid = pid_nr_in(p, t->tg->pid_ns);
        atomic_fetch_add_explicit(&k->forks, 1, memory_order_relaxed);
    }
    mutex_unlock(&k->mu);
    return r;
}

/* The host has no thread for it: as if it had never been. */
static void clone_unpublish(struct task *c, bool thread)
{
    struct kernel *k = c->k;
    struct thread_group *tg = c->tg;
    struct list dead = LIST_INIT(dead);

    mutex_lock(&k->mu);
    cgroup_exit_locked(c);
    struct sighand *sh = tg_lock_sig(tg);
    task_priv(c)->dead = true;
    tg->thread_alive--;
    job_thread_exit_locked(c);
    sig_task_exit_locked(c);
    sighand_unlock(sh);
    if (thread) {
        task_unlink_locked(c);
    } else {
        tg->state = TG_ZOMBIE;
        tg_reap_locked(tg, &dead);
    }
    mutex_unlock(&k->mu);
    /* The task's own reference stays the caller's. */
    if (!thread) {
        (void)task_get(c);
        tg_reaped(k, &dead);
    }
}

static int clone_pidfd_prepare(struct task *t, struct task *c, const struct task_clone_args *a,
                               struct clone_pidfd *pf)
{
    pf->fd = -1;
    pf->file = NULL;
    if (!(a->flags & CLONE_PIDFD))
        return 0;
    int r = pidfd_new(c->tg->self, 0, &pf->file);
    if (r)
        return r;
    r = task_fd_install(t, pf->file, true, 0);
    if (r < 0)
        return r;
    pf->fd = r;
    return copyout_obj(&t->ua, a->pidfd, &pf->fd);
}

static void clone_pidfd_end(struct task *t, struct clone_pidfd *pf, bool failed)
{
    if (failed && pf->fd >= 0)
        (void)!fdtable_close(t->fdt, pf->fd, NULL);
    if (pf->file)
        file_put(pf->file);
}

/* vfork(2): till the child has called execve or ended; only a fatal signal ends it earlier, and
 * gives false. */
static bool clone_vfork_wait(struct task *t, struct task *c)
{
    struct task_priv *p = task_priv(c);
    struct waiter w;
    bool done;

    waiter_init(&w, &t->blocker, 0);
    waitq_add(&p->vfork_wq, &w);
    while (!(done = atomic_load_explicit(&p->vfork_done, memory_order_acquire)))
        if (blocker_wait_killable(&t->blocker, DEADLINE_NEVER))
            break;
    waitq_del(&w);
    return done;
}

/* The parent was moved to another group meanwhile, or the child begins in one. */
static void clone_account(struct task *c)
{
    struct memacct *acct = cgroup_account(c), *old = mm_account(c->ua.mm);

    if (acct != old)
        mm_set_account(c->ua.mm, acct);
    memacct_put(acct);
    memacct_put(old);
}

int64_t task_clone(struct task *t, const struct task_clone_args *a)
{
    const int event = trace_clone_event(t, a->flags, a->exit_signal);
    struct clone_pidfd pf;
    struct task *c;
    int32_t tid = 0;
    int r = clone_check(t, a);

    if (r)
        return r;
    if (blocker_interrupted(&t->blocker))
        return -ERESTARTNOINTR;
    sig_offer_end(t);
    r = task_new(t->k, &c);
    if (r)
        return r;
    r = clone_build(t, c, a);
    if (r)
        goto out_task;
    r = clone_pidfd_prepare(t, c, a, &pf);
    if (!r)
        r = clone_publish(t, c, a, event, &tid);
    if (r)
        goto out_pidfd;
    if (!(a->flags & CLONE_VM))
        clone_account(c);
    const int32_t root_tid = c->tid;
    if (a->flags & CLONE_PARENT_SETTID)
        (void)!copyout_obj(&t->ua, a->parent_tid, &tid);
    if (a->flags & CLONE_VFORK)
        (void)task_get(c);
    r = task_start_thread(c);
    if (r) {
        clone_unpublish(c, a->flags & CLONE_THREAD);
        if (a->flags & CLONE_VFORK)
            task_put(c);
        goto out_pidfd;
    }
    clone_pidfd_end(t, &pf, false);
    if (event)
        trace_event(t, event, (uint32_t)root_tid);
    if (a->flags & CLONE_VFORK) {
        if (clone_vfork_wait(t, c))
            trace_event(t, PTRACE_EVENT_VFORK_DONE, (uint32_t)root_tid);
        task_put(c);
    }
    return tid;
out_pidfd:
    clone_pidfd_end(t, &pf, true);
out_task:
    task_put(c);
    return r;
}
