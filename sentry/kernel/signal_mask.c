/* What a task says of its own signals: actions, masks, alternate stack, waiting. */
#include <errno.h>
#include <signal.h>

#include "sentry/kernel/signal.h"
#include "sentry/kernel/signal_priv.h"

#define LX_MINSIGSTKSZ 2048u
/* UAPI_SA_FLAGS with NOCLDSTOP, NOCLDWAIT and EXPOSE_TAGBITS: others read back as 0, so that
 * programs can probe. */
#define SA_KNOWN                                                                                   \
    (UINT64_C(0x803) | LX_SA_SIGINFO | LX_SA_ONSTACK | LX_SA_RESTART | LX_SA_NODEFER |             \
     LX_SA_RESETHAND | LX_SA_RESTORER)

/* ---- actions that guest code may change by itself ---- */

#define SIG_OFFER_FLAGS LX_SA_RESTORER

static bool sig_is_plain(const struct sig_action *a)
{
    return a->handler == LX_SIG_DFL && (a->flags & ~SIG_OFFER_FLAGS) == 0;
}

static void sig_absorb_locked(struct task *t, struct sighand *sh)
{
    struct plat_sigaction set[LX_NSIG];
    uint64_t done = plat_ctx_sigactions_taken(t->ctx, set);

    for (; done != 0; done &= done - 1) {
        const int i = __builtin_ctzll(done);
        if (sig_is_plain(&sh->action[i]))
            sh->action[i] = (struct sig_action){.flags = set[i].flags & SIG_OFFER_FLAGS,
                                                .restorer = set[i].restorer};
    }
}

/* Nobody else changes the actions or looks at the calls. */
static bool sig_may_offer(struct task *t, const struct sighand *sh)
{
    return plat_ctx_sigactions_can(t->ctx) && t->tg->thread_count == 1 && ref_read(&sh->ref) == 1 &&
           !atomic_load_explicit(&task_priv(t)->sys_work, memory_order_relaxed) &&
           !atomic_load_explicit(&t->k->strace, memory_order_relaxed);
}

static void sig_offer_locked(struct task *t, const struct sighand *sh)
{
    uint64_t zero = 0, plain = 0;

    for (int i = 0; i < LX_NSIG; i++) {
        const struct sig_action *a = &sh->action[i];
        if (!sig_is_plain(a))
            continue;
        plain |= UINT64_C(1) << i;
        if (a->flags == 0 && a->restorer == 0 && a->mask == 0)
            zero |= UINT64_C(1) << i;
    }
    /* To set these discards what is pending, or fails. */
    plain &= ~(SIG_SET_IGNORE | SIG_SET_KERNEL_ONLY);
    plat_ctx_sigactions_offer(t->ctx, zero, plain);
    task_priv(t)->sig_offered = true;
}

static void sig_withdraw(struct task *t)
{
    task_priv(t)->sig_offered = false;
    plat_ctx_sigactions_offer(t->ctx, 0, 0);
}

void sig_offer_end(struct task *t)
{
    if (!task_priv(t)->sig_offered)
        return;
    struct sighand *sh = tg_lock_sig(t->tg);
    sig_absorb_locked(t, sh);
    sighand_unlock(sh);
    sig_withdraw(t);
}

/* ---- actions ---- */

int task_sigaction(struct task *t, int signo, const struct task_sigaction *act,
                   struct task_sigaction *old)
{
    struct thread_group *tg = t->tg;

    if (signo < 1 || signo > LX_NSIG || (act && (SIG_BIT(signo) & SIG_SET_KERNEL_ONLY)))
        return -EINVAL;
    struct sighand *sh = tg_lock_sig(tg);
    struct sig_action *a = &sh->action[signo - 1];
    if (task_priv(t)->sig_offered)
        sig_absorb_locked(t, sh);
    if (old)
        *old = (struct task_sigaction){a->handler, a->flags, a->restorer, a->mask};
    if (act) {
        *a = (struct sig_action){.handler = act->handler,
                                 .flags = act->flags & SA_KNOWN,
                                 .restorer = act->restorer,
                                 .mask = act->mask & ~SIG_SET_KERNEL_ONLY};
        /* POSIX: what becomes ignored is no longer pending, blocked or not. */
        if (a->handler == LX_SIG_IGN ||
            (a->handler == LX_SIG_DFL && (SIG_BIT(signo) & SIG_SET_IGNORE))) {
            struct task_priv *p;
            sig_flush_set_locked(t->k, &tg->pending, SIG_BIT(signo));
            list_for_each_entry (p, &tg->threads, thread_node)
                sig_flush_set_locked(t->k, &p->pending, SIG_BIT(signo));
        }
    }
    if (sig_may_offer(t, sh))
        sig_offer_locked(t, sh);
    else if (task_priv(t)->sig_offered)
        sig_withdraw(t);
    sighand_unlock(sh);
    return 0;
}

int task_sigaltstack(struct task *t, const struct task_altstack *ss, struct task_altstack *old)
{
    struct task_priv *p = task_priv(t);
    const uint64_t sp = plat_ctx_regs(t->ctx)->rsp;
    const bool on = sig_on_altstack(p, sp);

    if (old) {
        const uint32_t state = p->altstack_size == 0 ? LX_SS_DISABLE : on ? LX_SS_ONSTACK : 0;
        *old = (struct task_altstack){.sp = p->altstack_sp,
                                      .flags = state | (p->altstack_flags & LX_SS_AUTODISARM),
                                      .size = p->altstack_size};
    }
    if (!ss)
        return 0;
    const uint32_t mode = ss->flags & ~LX_SS_AUTODISARM;
    if (on)
        return -EPERM;
    if (mode != LX_SS_DISABLE && mode != LX_SS_ONSTACK && mode != 0)
        return -EINVAL;
    if (mode != LX_SS_DISABLE && ss->size < LX_MINSIGSTKSZ)
        return -ENOMEM;
    p->altstack_sp = mode == LX_SS_DISABLE ? 0 : ss->sp;
    p->altstack_size = mode == LX_SS_DISABLE ? 0 : ss->size;
    p->altstack_flags = ss->flags;
    return 0;
}

/* ---- masks ---- */

void sig_set_blocked(struct task *t, uint64_t mask)
{
    mask &= ~SIG_SET_KERNEL_ONLY;
    /* Only the owner changes it. */
    if (sig_blocked(t) == mask)
        return;
    struct sighand *sh = tg_lock_sig(t->tg);
    sig_set_blocked_locked(t, mask);
    sighand_unlock(sh);
}

uint64_t task_sigmask(const struct task *t)
{
    return sig_blocked(t);
}

void task_set_sigmask(struct task *t, uint64_t mask)
{
    struct sighand *sh = tg_lock_sig(t->tg);

    sig_set_blocked_locked(t, mask & ~SIG_SET_KERNEL_ONLY);
    own_open_locked(t);
    sighand_unlock(sh);
}

uint64_t task_sigpending(struct task *t)
{
    struct sighand *sh = tg_lock_sig(t->tg);
    const uint64_t set = sig_pending_locked(t, 0) & sig_blocked(t);

    sighand_unlock(sh);
    return set;
}

static void sig_set_temp(struct task *t, uint64_t mask)
{
    t->saved_blocked = sig_blocked(t);
    t->has_saved_blocked = true;
    sig_set_blocked(t, mask);
}

int task_set_temp_sigmask(struct task *t, uaddr_t set, uint64_t size)
{
    uint64_t mask;

    if (uaddr_is_null(set))
        return 0;
    if (size != sizeof(mask))
        return -EINVAL;
    int r = copyin_obj(&t->ua, &mask, set);
    if (r != 0)
        return r;
    sig_set_temp(t, mask);
    return 0;
}

void task_restore_sigmask(struct task *t)
{
    if (!t->has_saved_blocked)
        return;
    t->has_saved_blocked = false;
    sig_set_blocked(t, t->saved_blocked);
}

bool task_signal_pending(struct task *t)
{
    return blocker_interrupted(&t->blocker);
}

bool task_kill_pending(struct task *t)
{
    return task_dying(t);
}

/* ---- waiting ---- */

int task_sigsuspend(struct task *t, uint64_t mask)
{
    sig_set_temp(t, mask);
    /* A stray wake-up is no signal. */
    while (blocker_wait(&t->blocker, DEADLINE_NEVER) == 0)
        ;
    return -ERESTARTNOHAND;
}

bool task_sigtake(struct task *t, uint64_t set, struct lx_siginfo *out)
{
    struct ptimer *timer = NULL;
    struct sighand *sh = tg_lock_sig(t->tg);
    const bool taken = sig_dequeue_locked(t, ~set | SIG_SET_KERNEL_ONLY, out, &timer);

    sighand_unlock(sh);
    if (timer)
        ptimer_delivered(timer, out);
    return taken;
}

static void sig_set_wait(struct task *t, uint64_t set)
{
    struct sighand *sh = tg_lock_sig(t->tg);

    task_priv(t)->wait_set = set;
    sighand_unlock(sh);
}

int task_sigwait(struct task *t, uint64_t set, deadline_t deadline, struct lx_siginfo *out)
{
    int r = 0;

    if (task_sigtake(t, set, out))
        return out->signo;
    sig_set_wait(t, set);
    /* What came before the set was known has interrupted nobody. */
    bool taken = task_sigtake(t, set, out);
    while (!taken && r == 0) {
        r = blocker_wait(&t->blocker, deadline);
        taken = task_sigtake(t, set, out);
    }
    sig_set_wait(t, 0);
    if (taken)
        return out->signo;
    return r == -ETIMEDOUT ? -EAGAIN : -EINTR;
}
