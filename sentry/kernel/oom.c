/* The container is out of memory: the process that takes most of it ends, as mm/oom_kill.c has it.
 */
#include <errno.h>
#include <signal.h>

#include "base/log.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/task_priv.h"
#include "sentry/mem/memfile.h"

#define OOM_ADJ_MIN (-1000)
/* A victim that does not end meanwhile is not waited for. */
#define OOM_PATIENCE_NS 10000000000ull
#define OOM_STEP_NS 1000000ull

/* The memory of a group, whichever of its threads still has it. Owned, or NULL. tree held. */
static struct mm *oom_mm_locked(struct thread_group *tg)
{
    struct task_priv *p;

    list_for_each_entry (p, &tg->threads, thread_node) {
        mutex_lock(&p->t->mu);
        struct mm *mm = p->t->ua.mm ? mm_get(p->t->ua.mm) : NULL;
        mutex_unlock(&p->t->mu);
        if (mm)
            return mm;
    }
    return NULL;
}

/* oom_badness(): pages it has, and oom_score_adj thousandths of all there are. */
static int64_t oom_points(struct kernel *k, struct thread_group *tg, struct mm *mm)
{
    const int64_t adj = atomic_load(&tg->oom_score_adj);
    const int64_t pages = (int64_t)(atomic_load(&k->memory) >> PAGE_SHIFT);
    struct mm_stats st;

    if (adj == OOM_ADJ_MIN)
        return INT64_MIN;
    mm_stats(mm, &st);
    return (int64_t)(st.rss >> PAGE_SHIFT) + adj * (pages / 1000);
}

struct oom_choice {
    struct thread_group *tg; /* owned */
    int64_t points;
    bool dying; /* one that was chosen before has still to go */
};

static void oom_consider(struct kernel *k, struct thread_group *tg, struct mm *mm,
                         struct oom_choice *c)
{
    if (atomic_load(&tg->exiting)) {
        c->dying = true;
        return;
    }
    const int64_t points = oom_points(k, tg, mm);
    if (points == INT64_MIN || (c->tg && points <= c->points))
        return;
    if (c->tg)
        tg_put(c->tg);
    c->tg = tg_get(tg);
    c->points = points;
}

/* Groups are looked at one by one, in the order of their ids: sizes are not cheap to ask for. */
static void oom_choose(struct kernel *k, struct oom_choice *c)
{
    for (int32_t id = kernel_next_tgid(k, 1); id >= 0; id = kernel_next_tgid(k, id + 1)) {
        struct thread_group *tg;
        if (kernel_find_tg(k, id, &tg))
            continue;
        mutex_lock(&k->mu);
        struct mm *mm = tg->state == TG_LIVE ? oom_mm_locked(tg) : NULL;
        mutex_unlock(&k->mu);
        if (mm) {
            oom_consider(k, tg, mm, c);
            mm_put(mm);
        }
        tg_put(tg);
    }
}

static void oom_kill(struct kernel *k, struct thread_group *tg)
{
    atomic_fetch_add(&k->oom_kills, 1);
    log_info("out of memory: process %d ends", tg->tgid);
    if (k->cfg.oom)
        k->cfg.oom(k->cfg.oom_arg);
    struct sighand *sh = tg_lock_sig(tg);
    tg_exit_locked(tg, SIGKILL);
    sighand_unlock(sh);
    /* Its threads may take their time to end, or wait for what others hold: oom_reap_task(). */
    mutex_lock(&k->mu);
    struct mm *mm = oom_mm_locked(tg);
    mutex_unlock(&k->mu);
    if (mm && mm_reap(mm) != 0)
        log_debug("out of memory: not all of %d's memory could be taken at once", tg->tgid);
    mm_put(mm);
}

/* Till there is memory again, or t itself is to end. */
static bool oom_wait(struct task *t)
{
    const uint64_t end = mono_now() + OOM_PATIENCE_NS;

    while (!task_dying(t) && mono_now() < end) {
        if (!memfile_full(t->k->cfg.mf))
            return true;
        if (blocker_wait_killable(&t->blocker, mono_now() + OOM_STEP_NS) == -EINTR)
            break;
    }
    return task_dying(t);
}

bool task_oom(struct task *t)
{
    struct kernel *k = t->k;
    struct oom_choice c = {.tg = NULL};

    if (!memfile_full(k->cfg.mf))
        return false;
    /* One choice at a time: who comes second finds the first one's victim. */
    bool chooser = !atomic_exchange(&k->oom_choosing, true);
    if (chooser) {
        oom_choose(k, &c);
        if (!c.dying && c.tg)
            oom_kill(k, c.tg);
        if (c.tg)
            tg_put(c.tg);
        atomic_store(&k->oom_choosing, false);
    }
    return oom_wait(t);
}

/* Does a process that lives have mm as well? */
static bool oom_mm_shared(struct kernel *k, const struct mm *mm)
{
    bool shared = false;

    for (int32_t id = kernel_next_tgid(k, 1); id >= 0 && !shared;
         id = kernel_next_tgid(k, id + 1)) {
        struct thread_group *tg;
        if (kernel_find_tg(k, id, &tg))
            continue;
        mutex_lock(&k->mu);
        struct mm *own = tg->state == TG_LIVE ? oom_mm_locked(tg) : NULL;
        mutex_unlock(&k->mu);
        shared = own == mm && !atomic_load(&tg->exiting);
        mm_put(own);
        tg_put(tg);
    }
    return shared;
}

int task_reap_memory(struct task *o)
{
    struct kernel *k = o->k;

    mutex_lock(&k->mu);
    struct mm *mm = oom_mm_locked(o->tg);
    mutex_unlock(&k->mu);
    if (!mm)
        return -ESRCH;
    const int r = !atomic_load(&o->tg->exiting) || oom_mm_shared(k, mm) ? -EINVAL : mm_reap(mm);
    mm_put(mm);
    return r;
}

int64_t task_oom_score(struct task *t)
{
    struct kernel *k = t->k;
    const int64_t pages = (int64_t)(atomic_load(&k->memory) >> PAGE_SHIFT);
    struct mm *mm = task_get_mm(t);

    if (!mm)
        return 0;
    const int64_t points = oom_points(k, t->tg, mm);
    mm_put(mm);
    if (points == INT64_MIN || pages == 0)
        return 0;
    /* proc_oom_score() */
    const int64_t score = (1000 + points * 1000 / pages) * 2 / 3;
    return MIN(MAX(score, 0), 2000);
}

uint64_t kernel_oom_kills(struct kernel *k)
{
    return atomic_load(&k->oom_kills);
}
