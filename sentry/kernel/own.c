/* What guest code changes of its own task without a system call: the blocked signals and the robust
 * list, in memory that it shares with the platform (plat_own). While a task has such memory, that
 * is where they are; the fields of struct task are what they were. */
#include "sentry/kernel/signal_priv.h"

uint64_t sig_blocked(const struct task *t)
{
    const struct plat_own *own = task_priv(t)->own;

    return own ? atomic_load(&own->sigmask) & ~SIG_SET_KERNEL_ONLY : t->blocked;
}

void sig_store_blocked_locked(struct task *t, uint64_t mask)
{
    struct plat_own *own = task_priv(t)->own;

    t->blocked = mask;
    if (own)
        atomic_store(&own->sigmask, mask);
}

void own_open_locked(struct task *t)
{
    struct plat_own *own = task_priv(t)->own;

    if (!own || sig_pending_locked(t, 0))
        return;
    t->tg->open_masks += !task_priv(t)->own_open;
    task_priv(t)->own_open = true;
    atomic_store(&own->sigmask_open, 1);
}

static void own_close_task(struct task_priv *p)
{
    if (!p->own_open)
        return;
    p->own_open = false;
    p->t->tg->open_masks--;
    atomic_store(&p->own->sigmask_open, 0);
}

/* Guest code changes its mask first and looks whether it is open then; who sends closes it first
 * and looks at the mask then. Whichever way they meet, either the sender sees the new mask, or the
 * task makes a system call of it, on whose way back signals are looked for. */
void own_close_locked(struct thread_group *tg, struct task *t)
{
    struct task_priv *p;

    if (t) {
        own_close_task(task_priv(t));
        return;
    }
    if (tg->open_masks > 0)
        list_for_each_entry (p, &tg->threads, thread_node)
            own_close_task(p);
}

void own_begin(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct plat_own *own = plat_ctx_own(t->ctx);

    if (!own)
        return;
    struct sighand *sh = tg_lock_sig(t->tg);
    if (!p->own) {
        atomic_store(&own->sigmask, t->blocked);
        p->own = own;
    }
    own_open_locked(t);
    sighand_unlock(sh);
}

void own_end(struct task *t)
{
    struct task_priv *p = task_priv(t);

    if (!p->own)
        return;
    struct sighand *sh = tg_lock_sig(t->tg);
    own_close_task(p);
    t->blocked = sig_blocked(t);
    t->robust_list = task_robust_list_locked(t);
    p->own = NULL;
    sighand_unlock(sh);
}

/* ---- robust lists ---- */

uint64_t task_robust_list_locked(const struct task *t)
{
    const struct plat_own *own = task_priv(t)->own;

    return own && atomic_load(&own->robust_set) ? atomic_load(&own->robust_list) : t->robust_list;
}

uint64_t task_robust_list(struct task *t)
{
    struct sighand *sh = tg_lock_sig(t->tg);
    const uint64_t list = task_robust_list_locked(t);

    sighand_unlock(sh);
    return list;
}

void task_set_robust_list(struct task *t, uint64_t list)
{
    struct sighand *sh = tg_lock_sig(t->tg);
    struct plat_own *own = task_priv(t)->own;

    t->robust_list = list;
    if (own)
        atomic_store(&own->robust_set, 0);
    sighand_unlock(sh);
}
