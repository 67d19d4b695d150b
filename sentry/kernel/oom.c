/* The container is out of memory: the process that takes most of it ends, as mm/oom_kill.c has it.
 */
#include <errno.h>
#include <signal.h>

#include "base/heap.h"
#include "base/limits.h"
#include "base/log.h"
#include "sentry/kernel/cgroup_priv.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/account_priv.h"
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

/* Bytes that there are for those who compete: of the sandbox, or of cg. */
static uint64_t oom_total(struct kernel *k, const struct cgroup *cg)
{
    return cg ? MIN(memacct_limit(cg->acct), atomic_load(&k->memory)) : atomic_load(&k->memory);
}

/* Bytes that the sentry's heap has grown by in the calls of a group. */
static int64_t oom_heap(struct kernel *k, struct thread_group *tg)
{
    int64_t sum = atomic_load(&tg->heap_gone);
    struct task_priv *p;

    mutex_lock(&k->mu);
    list_for_each_entry (p, &tg->threads, thread_node)
        sum += atomic_load(&p->heap);
    mutex_unlock(&k->mu);
    return MAX(sum, 0);
}

/* oom_badness(): pages it has, what is remembered for it (Linux counts page tables only, but knows
 * who is charged for the rest), and oom_score_adj thousandths of all there are. */
static int64_t oom_points(uint64_t total, struct thread_group *tg, struct mm *mm)
{
    const int64_t adj = atomic_load(&tg->oom_score_adj);
    const int64_t pages = (int64_t)(total >> PAGE_SHIFT);
    struct mm_stats st;

    if (adj == OOM_ADJ_MIN)
        return INT64_MIN;
    mm_stats(mm, &st);
    return ((int64_t)st.rss + oom_heap(tg->k, tg)) / (int64_t)PAGE_SIZE + adj * (pages / 1000);
}

struct oom_choice {
    struct thread_group *tg; /* owned */
    int64_t points;
    bool dying; /* one that was chosen before has still to go */
};

static void oom_consider(uint64_t total, struct thread_group *tg, struct mm *mm,
                         struct oom_choice *c)
{
    if (atomic_load(&tg->exiting)) {
        c->dying = true;
        return;
    }
    const int64_t points = oom_points(total, tg, mm);
    if (points == INT64_MIN || (c->tg && points <= c->points))
        return;
    if (c->tg)
        tg_put(c->tg);
    c->tg = tg_get(tg);
    c->points = points;
}

/* tg is charged to cg or below it (NULL: everybody is meant). tree held. */
static bool oom_concerns_locked(const struct thread_group *tg, const struct cgroup *cg)
{
    if (!cg)
        return true;
    struct memacct *acct = tg->leader ? cgroup_account_locked(tg->leader) : NULL;
    const bool concerns = acct && memacct_is_below(acct, cg->acct);
    memacct_put(acct);
    return concerns;
}

/* Groups are looked at one by one, in the order of their ids: sizes are not cheap to ask for. */
static void oom_choose(struct kernel *k, const struct cgroup *cg, struct oom_choice *c)
{
    for (int32_t id = kernel_next_tgid(k, 1); id >= 0; id = kernel_next_tgid(k, id + 1)) {
        struct thread_group *tg;
        if (kernel_find_tg(k, id, &tg))
            continue;
        mutex_lock(&k->mu);
        struct mm *mm =
            tg->state == TG_LIVE && oom_concerns_locked(tg, cg) ? oom_mm_locked(tg) : NULL;
        mutex_unlock(&k->mu);
        if (mm) {
            oom_consider(oom_total(k, cg), tg, mm, c);
            mm_put(mm);
        }
        tg_put(tg);
    }
}

/* memory.events of where the victim is. tree held. */
static void oom_count_locked(struct thread_group *tg)
{
    struct task *t = tg->leader;

    for (unsigned i = 0; t && i < CGROUP_ROOTS; i++) {
        struct cgroup *cg = task_cgroup_locked(t, i);
        if (!cg || !cg->acct)
            continue;
        atomic_fetch_add(&cg->oom_kill_own, 1);
        cgroup_event(cg);
        for (; cg; cg = cg->parent) {
            atomic_fetch_add(&cg->oom_kill, 1);
            if (cg->oom_fn)
                cg->oom_fn(cg->oom_arg);
        }
    }
}

/* ---- what nobody uses ---- */

/* Everybody has memory that was handed out and not touched: it is taken back. */
static void oom_take_back_all(struct kernel *k, bool coarse)
{
    for (int32_t id = kernel_next_tgid(k, 1); id >= 0; id = kernel_next_tgid(k, id + 1)) {
        struct thread_group *tg;
        if (kernel_find_tg(k, id, &tg))
            continue;
        mutex_lock(&k->mu);
        struct mm *mm = tg->state == TG_LIVE ? oom_mm_locked(tg) : NULL;
        mutex_unlock(&k->mu);
        if (mm)
            (void)mm_take_back(mm, coarse);
        mm_put(mm);
        tg_put(tg);
    }
}

/* One at a time, who comes second finds what the first one left. */
static void oom_take_back(struct task *t, bool coarse)
{
    struct kernel *k = t->k;
    bool waited = false;

    while (atomic_exchange(&k->oom_taking, true)) {
        waited = true;
        if (blocker_wait_killable(&t->blocker, mono_now() + OOM_STEP_NS) == -EINTR)
            return;
    }
    if (!waited)
        oom_take_back_all(k, coarse);
    atomic_store(&k->oom_taking, false);
}

void task_memory_look(struct task *t)
{
    struct memfile *mf = t->k->cfg.mf;

    if (memfile_slack(mf))
        oom_take_back(t, true);
    if (memfile_heap_full(mf) && !task_oom(t))
        log_debug("task %d: no memory, and nobody to end", t->tid);
}

/* ---- who ends ---- */

static void oom_count(struct kernel *k, struct thread_group *tg)
{
    atomic_fetch_add(&k->oom_kills, 1);
    account_oomed(tg->account);
    cgroup_lock(k);
    oom_count_locked(tg);
    cgroup_unlock(k);
}

static uint64_t oom_host_kills(const struct kernel *k)
{
    return k->cfg.host_oom_kills ? k->cfg.host_oom_kills(k->cfg.host_oom_arg) : 0;
}

void oom_host_begin(struct kernel *k)
{
    atomic_store(&k->host_oom_seen, oom_host_kills(k));
}

/* One kill of the host's for each process that ends: it counts before it kills. */
void oom_host_look(struct thread_group *tg)
{
    struct kernel *k = tg->k;
    const uint64_t kills = oom_host_kills(k);
    uint64_t seen = atomic_load(&k->host_oom_seen);

    do {
        if (seen >= kills)
            return;
    } while (!atomic_compare_exchange_weak(&k->host_oom_seen, &seen, seen + 1));
    log_warn("process %d was ended by the host, which had no memory", tg->tgid);
    oom_count(k, tg);
}

static void oom_kill(struct kernel *k, struct thread_group *tg)
{
    log_info("out of memory: process %d ends", tg->tgid);
    oom_count(k, tg);
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

/* Out of memory: the sandbox, or *out_cg (owned), a group that t is charged to. */
static bool oom_full(struct task *t, struct cgroup **out_cg)
{
    struct memfile *mf = t->k->cfg.mf;
    struct memacct *acct = mm_account(t->ua.mm);
    struct memacct *over = memacct_over(mf, acct);

    *out_cg = over ? cgroup_of_account(t->k, over) : NULL;
    memacct_put(acct);
    return *out_cg || memfile_full(mf);
}

static bool oom_still_full(struct task *t)
{
    struct cgroup *cg;
    const bool full = oom_full(t, &cg);

    cgroup_put(cg);
    return full;
}

/* Till there is memory again, or t itself is to end. */
static bool oom_wait(struct task *t)
{
    const uint64_t end = mono_now() + OOM_PATIENCE_NS;

    while (!task_dying(t) && mono_now() < end) {
        if (!oom_still_full(t)) {
            if (heap_pressed())
                heap_trim();
            return true;
        }
        if (blocker_wait_killable(&t->blocker, mono_now() + OOM_STEP_NS) == -EINTR)
            break;
    }
    return task_dying(t);
}

/* memory.events of the group whose limit it is. */
static void oom_count_event(struct cgroup *cg)
{
    atomic_fetch_add(&cg->oom_own, 1);
    cgroup_event(cg);
    for (; cg; cg = cg->parent)
        atomic_fetch_add(&cg->oom, 1);
}

/* memory.oom.group: all of it ends together. */
static void oom_kill_group(struct cgroup *cg)
{
    atomic_fetch_add(&cg->oom_group_kill, 1);
    cgroup_kill(cg);
}

/* One choice at a time: who comes second finds the first one's victim. */
static bool oom_act(struct kernel *k, struct cgroup *cg)
{
    struct oom_choice c = {.tg = NULL};

    if (atomic_exchange(&k->oom_choosing, true))
        return true;
    oom_choose(k, cg, &c);
    if (!c.dying && cg)
        oom_count_event(cg);
    if (!c.dying && c.tg) {
        oom_kill(k, c.tg);
        if (cg && atomic_load(&cg->oom_group))
            oom_kill_group(cg);
    }
    const bool any = c.dying || c.tg;
    if (c.tg)
        tg_put(c.tg);
    atomic_store(&k->oom_choosing, false);
    return any;
}

bool cgroup_oom(struct kernel *k, struct cgroup *cg)
{
    return oom_act(k, cg);
}

struct cgroup *cgroup_of_account(struct kernel *k, const struct memacct *acct)
{
    struct cgroup *cg, *found = NULL;

    cgroup_lock(k);
    for (unsigned i = 0; i < CGROUP_ROOTS && !found; i++) {
        if (!k->cgroups->roots[i])
            continue;
        for (cg = NULL; !found && (cg = cgroup_walk_locked(k->cgroups->roots[i]->top, cg));)
            if (cg->acct == acct)
                found = cgroup_get(cg);
    }
    cgroup_unlock(k);
    return found;
}

/* What nobody uses, and what is remembered about files and can be asked for again, goes before
 * anybody ends. As much as there may be and no more, since others go on filling it. True: there is
 * memory again. */
static bool oom_give_back(struct task *t)
{
    oom_take_back(t, false);
    if (!oom_still_full(t))
        return true;
    heap_exempt(true);
    vfs_shrink_cache(LIMIT_DENTRY_CACHE);
    heap_trim();
    heap_exempt(false);
    return !oom_still_full(t);
}

bool task_oom(struct task *t)
{
    struct cgroup *cg;

    if (!oom_full(t, &cg))
        return false;
    /* A group inside is not charged for it. */
    if (!cg && !task_dying(t) && oom_give_back(t))
        return true;
    (void)oom_act(t->k, cg);
    cgroup_put(cg);
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
    const int64_t points = oom_points(atomic_load(&k->memory), t->tg, mm);
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
