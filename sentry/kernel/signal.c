/* Sending signals and taking them from the queues (kernel/signal.c: send_signal, complete_signal,
 * dequeue_signal). */
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/signal_priv.h"

/* ---- handlers ---- */

OBJCOUNT_DEFINE(sighand);

int sighand_new(struct sighand **out_sh)
{
    struct sighand *sh = calloc(1, sizeof(*sh));

    if (!sh)
        return -ENOMEM;
    ref_init(&sh->ref);
    mutex_init(&sh->mu, LOCK_RANK_SIGHAND);
    OBJCOUNT_INC(sighand);
    *out_sh = sh;
    return 0;
}

int sighand_dup(struct sighand *sh, struct sighand **out_sh)
{
    struct sighand *new_sh;
    int r = sighand_new(&new_sh);

    if (r)
        return r;
    mutex_lock(&sh->mu);
    memcpy(new_sh->action, sh->action, sizeof(new_sh->action));
    mutex_unlock(&sh->mu);
    *out_sh = new_sh;
    return 0;
}

struct sighand *sighand_get(struct sighand *sh)
{
    ref_get(&sh->ref);
    return sh;
}

void sighand_put(struct sighand *sh)
{
    if (!ref_put(&sh->ref))
        return;
    mutex_destroy(&sh->mu);
    OBJCOUNT_DEC(sighand);
    free(sh);
}

void sighand_exec_locked(struct sighand *sh)
{
    for (int i = 0; i < LX_NSIG; i++) {
        const bool ignored = sh->action[i].handler == LX_SIG_IGN;
        sh->action[i] = (struct sig_action){.handler = ignored ? LX_SIG_IGN : LX_SIG_DFL};
    }
}

/* ---- queues ---- */

void sig_pending_init(struct sig_pending *p)
{
    p->set = 0;
    p->count = 0;
    list_init(&p->queue);
}

static void sig_entry_drop(struct kernel *k, struct sig_pending *p, struct sig_entry *e)
{
    list_del(&e->node);
    p->count--;
    if (e->timer) {
        ptimer_put(e->timer);
        return;
    }
    atomic_fetch_sub_explicit(&k->sigqueue_count, 1, memory_order_relaxed);
    free(e);
}

void sig_flush_set_locked(struct kernel *k, struct sig_pending *p, uint64_t set)
{
    struct sig_entry *e, *next;

    if (!(p->set & set))
        return;
    p->set &= ~set;
    list_for_each_entry_safe (e, next, &p->queue, node)
        if (set & SIG_BIT(e->info.signo))
            sig_entry_drop(k, p, e);
}

void sig_pending_flush(struct kernel *k, struct sig_pending *p)
{
    sig_flush_set_locked(k, p, UINT64_MAX);
}

void sig_flush_timers_locked(struct kernel *k, struct sig_pending *p)
{
    struct sig_entry *e, *next;
    uint64_t gone = 0, kept = 0;

    list_for_each_entry_safe (e, next, &p->queue, node) {
        if (e->timer) {
            gone |= SIG_BIT(e->info.signo);
            sig_entry_drop(k, p, e);
        } else {
            kept |= SIG_BIT(e->info.signo);
        }
    }
    p->set &= ~(gone & ~kept);
}

/* Above the limit only signals that may not get lost are queued: those of the kernel itself, and
 * kill(2) of a standard signal, which loses no more than who sent it. */
static struct sig_entry *sig_entry_new(struct thread_group *tg, const struct lx_siginfo *info)
{
    struct kernel *k = tg->k;
    const uint64_t limit = MIN(tg_rlimit(tg, RLIMIT_SIGPENDING), (uint64_t)LIMIT_SIGQUEUE);
    const bool override = info->signo < SIG_RT_MIN && info->code >= 0;
    const uint32_t count = atomic_fetch_add_explicit(&k->sigqueue_count, 1, memory_order_relaxed);
    struct sig_entry *e = NULL;

    if (count < limit || (override && count < 2u * LIMIT_SIGQUEUE))
        e = malloc(sizeof(*e));
    if (!e) {
        atomic_fetch_sub_explicit(&k->sigqueue_count, 1, memory_order_relaxed);
        return NULL;
    }
    list_init(&e->node);
    e->info = *info;
    e->timer = NULL;
    return e;
}

/* ---- sending ---- */

static bool sig_is_ignored_locked(const struct thread_group *tg, const struct task *t, int signo,
                                  bool forced)
{
    const struct sig_action *a = &tg->sighand->action[signo - 1];
    const uint64_t bit = SIG_BIT(signo);

    /* Blocked signals are kept even if ignored now: the action may change. */
    if (sig_blocked(t) & bit)
        return false;
    /* A tracer sees what would be ignored, too. */
    if (task_traced(t) && signo != SIGKILL)
        return false;
    if (tg_is_init(tg) && a->handler == LX_SIG_DFL && !(forced && (bit & SIG_SET_KERNEL_ONLY)))
        return true;
    return a->handler == LX_SIG_IGN || (a->handler == LX_SIG_DFL && (bit & SIG_SET_IGNORE));
}

static void sig_flush_group_locked(struct thread_group *tg, uint64_t set)
{
    struct task_priv *p;

    sig_flush_set_locked(tg->k, &tg->pending, set);
    list_for_each_entry (p, &tg->threads, thread_node)
        sig_flush_set_locked(tg->k, &p->pending, set);
}

/* prepare_signal: a stop takes a continue back and the other way round. True: send it. */
static bool sig_prepare_locked(struct thread_group *tg, const struct task *t, int signo,
                               bool forced)
{
    const uint64_t bit = SIG_BIT(signo);

    if (atomic_load_explicit(&tg->exiting, memory_order_relaxed))
        return false;
    if (bit & SIG_SET_STOP) {
        sig_flush_group_locked(tg, SIG_BIT(SIGCONT));
    } else if (signo == SIGCONT) {
        sig_flush_group_locked(tg, SIG_SET_STOP);
        job_continue_locked(tg);
    }
    return !sig_is_ignored_locked(tg, t, signo, forced);
}

static bool sig_wanted_by_locked(const struct task *t, int signo)
{
    const struct task_priv *p = task_priv(t);

    if (p->dead || ((sig_blocked(t) & ~p->wait_set) & SIG_BIT(signo)))
        return false;
    if (signo == SIGKILL)
        return true;
    return !p->stopped && !p->trace.stopped &&
           !(atomic_load_explicit(&t->blocker.word, memory_order_relaxed) &
             (BLOCKER_INTERRUPT | BLOCKER_KILLED));
}

/* The thread that is to take it: any that is free to, the wanted one before others. */
static struct task *sig_pick_locked(struct thread_group *tg, struct task *wanted, bool group,
                                    int signo)
{
    struct task_priv *p;

    if (sig_wanted_by_locked(wanted, signo))
        return wanted;
    if (!group)
        return NULL;
    list_for_each_entry (p, &tg->threads, thread_node)
        if (sig_wanted_by_locked(p->t, signo))
            return p->t;
    return NULL;
}

static bool sig_is_fatal_locked(const struct thread_group *tg, const struct task *t, int signo)
{
    const uint64_t bit = SIG_BIT(signo);

    if (sig_blocked(t) & bit || (task_traced(t) && signo != SIGKILL))
        return false;
    /* Who takes one that dumps core writes the file. */
    return !(bit & (SIG_SET_IGNORE | SIG_SET_STOP | SIG_SET_CORE)) &&
           tg->sighand->action[signo - 1].handler == LX_SIG_DFL;
}

/* complete_signal: a fatal one ends the group at once, others wake one thread. */
static void sig_complete_locked(struct thread_group *tg, struct task *wanted, bool group, int signo)
{
    struct task *t = sig_pick_locked(tg, wanted, group, signo);

    waitq_wake(&tg->sig_wq, 0);
    if (!t)
        return;
    if (sig_is_fatal_locked(tg, t, signo)) {
        tg_exit_locked(tg, signo);
        return;
    }
    task_interrupt_locked(t, BLOCKER_INTERRUPT);
}

/* The thread whose mask counts when a signal goes to the whole group. */
static struct task *sig_main_thread_locked(struct thread_group *tg)
{
    struct task_priv *p, *first = NULL;

    list_for_each_entry (p, &tg->threads, thread_node) {
        if (p->dead)
            continue;
        if (p->t == tg->leader)
            return p->t;
        if (!first)
            first = p;
    }
    return first ? first->t : NULL;
}

int sig_send_locked(struct thread_group *tg, struct task *t, const struct lx_siginfo *info,
                    bool forced)
{
    const int signo = info->signo;
    struct task *wanted = t ? t : sig_main_thread_locked(tg);
    struct sig_pending *p = t ? &task_priv(t)->pending : &tg->pending;

    own_close_locked(tg, t);
    if (!wanted || task_priv(wanted)->dead || !sig_prepare_locked(tg, wanted, signo, forced))
        return 0;
    if (signo < SIG_RT_MIN && (p->set & SIG_BIT(signo)))
        return 0;
    if (signo != SIGKILL) {
        struct sig_entry *e = sig_entry_new(tg, info);
        if (e) {
            list_add_tail(&e->node, &p->queue);
            p->count++;
        } else if (signo >= SIG_RT_MIN && info->code != SI_USER) {
            return -EAGAIN;
        }
    }
    p->set |= SIG_BIT(signo);
    sig_complete_locked(tg, wanted, !t, signo);
    return 0;
}

bool sig_send_entry_locked(struct thread_group *tg, struct task *t, struct sig_entry *e)
{
    const int signo = e->info.signo;
    struct task *wanted = t ? t : sig_main_thread_locked(tg);
    struct sig_pending *p = t ? &task_priv(t)->pending : &tg->pending;

    own_close_locked(tg, t);
    if (!wanted || task_priv(wanted)->dead || !sig_prepare_locked(tg, wanted, signo, false))
        return false;
    list_add_tail(&e->node, &p->queue);
    p->count++;
    p->set |= SIG_BIT(signo);
    sig_complete_locked(tg, wanted, !t, signo);
    return true;
}

/* From outside the sandbox, or from the kernel: no sender that the guest could name. */
static bool sig_is_forced(const struct lx_siginfo *info)
{
    return info->code == SI_KERNEL || (info->code == SI_USER && info->kill.pid == 0);
}

int task_send_signal(struct task *t, const struct lx_siginfo *info)
{
    struct sighand *sh = tg_lock_sig(t->tg);
    int r = sig_send_locked(t->tg, t, info, sig_is_forced(info));

    sighand_unlock(sh);
    return r;
}

int tg_send_signal(struct thread_group *tg, const struct lx_siginfo *info)
{
    struct sighand *sh = tg_lock_sig(tg);
    int r = sig_send_locked(tg, NULL, info, sig_is_forced(info));

    sighand_unlock(sh);
    return r;
}

void task_raise(struct task *t, int signo)
{
    /* As send_sig(sig, current, 0): it counts as the task's own. */
    struct lx_siginfo info = {.signo = signo, .code = SI_USER};

    info.kill.pid = t->tg->vtgid;
    info.kill.uid = t->cred->uid;
    (void)task_send_signal(t, &info);
}

/* ---- taking ---- */

uint64_t sig_pending_locked(const struct task *t, uint64_t blocked)
{
    return (task_priv(t)->pending.set | t->tg->pending.set) & ~blocked;
}

static int sig_next(uint64_t set)
{
    if (set & SIG_SET_SYNC)
        set &= SIG_SET_SYNC;
    return __builtin_ctzll(set) + 1;
}

/* The oldest entry of signo, if it has one; the bit goes with the last. */
static void sig_collect_locked(struct kernel *k, struct sig_pending *p, int signo,
                               struct lx_siginfo *out, struct ptimer **out_timer)
{
    struct sig_entry *e, *found = NULL;
    bool more = false;

    list_for_each_entry (e, &p->queue, node) {
        if (e->info.signo != signo)
            continue;
        if (found) {
            more = true;
            break;
        }
        found = e;
    }
    if (!more)
        p->set &= ~SIG_BIT(signo);
    *out_timer = NULL;
    if (!found) {
        *out = (struct lx_siginfo){.signo = signo, .code = SI_USER};
        return;
    }
    *out = found->info;
    if (found->timer) {
        *out_timer = found->timer;
        list_del(&found->node);
        p->count--;
    } else {
        sig_entry_drop(k, p, found);
    }
}

bool sig_dequeue_locked(struct task *t, uint64_t blocked, struct lx_siginfo *out_info,
                        struct ptimer **out_timer)
{
    struct sig_pending *own = &task_priv(t)->pending, *shared = &t->tg->pending;

    if (own->set & ~blocked)
        sig_collect_locked(t->k, own, sig_next(own->set & ~blocked), out_info, out_timer);
    else if (shared->set & ~blocked)
        sig_collect_locked(t->k, shared, sig_next(shared->set & ~blocked), out_info, out_timer);
    else
        return false;
    return true;
}

/* ---- a task's beginning and end ---- */

void sig_fork(struct task *parent, struct task *child, uint64_t clone_flags)
{
    const struct task_priv *from = task_priv(parent);
    struct task_priv *to = task_priv(child);

    child->blocked = sig_blocked(parent);
    if ((clone_flags & (CLONE_VM | CLONE_VFORK)) == CLONE_VM) {
        to->altstack_flags = LX_SS_DISABLE;
        return;
    }
    to->altstack_sp = from->altstack_sp;
    to->altstack_size = from->altstack_size;
    to->altstack_flags = from->altstack_flags;
}

void sig_exec(struct task *t)
{
    struct task_priv *p = task_priv(t);

    p->altstack_sp = 0;
    p->altstack_size = 0;
    p->altstack_flags = LX_SS_DISABLE;
    t->restart_fn = NULL;
    atomic_store(&p->futex_gone, false);
}

/* Others look for what they may take instead of t. */
static void sig_retarget_locked(struct task *t, uint64_t set)
{
    struct task_priv *p;

    set &= t->tg->pending.set;
    if (!set)
        return;
    list_for_each_entry (p, &t->tg->threads, thread_node) {
        const uint64_t blocked = sig_blocked(p->t);
        if (p->t == t || p->dead || !(set & ~blocked))
            continue;
        set &= blocked;
        task_interrupt_locked(p->t, BLOCKER_INTERRUPT);
        if (!set)
            return;
    }
}

void sig_task_exit_locked(struct task *t)
{
    sig_pending_flush(t->k, &task_priv(t)->pending);
    if (t->tg->thread_alive == 0)
        sig_pending_flush(t->k, &t->tg->pending);
    else
        sig_retarget_locked(t, ~sig_blocked(t));
}

void sig_set_blocked_locked(struct task *t, uint64_t mask)
{
    const uint64_t newly = mask & ~sig_blocked(t);

    sig_store_blocked_locked(t, mask);
    if (newly)
        sig_retarget_locked(t, newly);
    if (sig_pending_locked(t, mask))
        task_interrupt_locked(t, BLOCKER_INTERRUPT);
}
