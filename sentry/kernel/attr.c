/* Small state of tasks and groups that calls set and show: priorities, affinity, names. */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "sentry/kernel/fsctx.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/task_priv.h"

int64_t task_attr_get(struct task *o, enum task_attr a)
{
    struct task_priv *p = task_priv(o);

    switch (a) {
    case TASK_ATTR_NICE:
        return atomic_load(&p->nice);
    case TASK_ATTR_SCHED_POLICY:
        return atomic_load(&p->sched_policy);
    case TASK_ATTR_SCHED_PRIORITY:
        return atomic_load(&p->sched_priority);
    case TASK_ATTR_SCHED_RESET:
        return atomic_load(&p->sched_reset_on_fork);
    case TASK_ATTR_PDEATHSIG:
        return atomic_load(&p->pdeathsig);
    case TASK_ATTR_DUMPABLE:
        return atomic_load(&o->tg->dumpable);
    case TASK_ATTR_SUBREAPER:
        return atomic_load(&o->tg->is_subreaper);
    case TASK_ATTR_OOM_SCORE_ADJ:
        return atomic_load(&o->tg->oom_score_adj);
    case TASK_ATTR_OOM_SCORE_ADJ_MIN:
        return atomic_load(&o->tg->oom_score_adj_min);
    case TASK_ATTR_THP_DISABLE:
        return atomic_load(&o->tg->thp_disable);
    case TASK_ATTR_PERSONALITY:
        return atomic_load(&p->personality);
    case TASK_ATTR_MCE_KILL:
        return atomic_load(&p->mce_kill);
    case TASK_ATTR_IO_FLUSHER:
        return atomic_load(&p->io_flusher);
    case TASK_ATTR_NO_TSC:
        return atomic_load(&p->no_tsc);
    case TASK_ATTR_MEMBARRIER:
        return atomic_load(&o->tg->membarrier);
    default:
        BUG_ON(true);
    }
    return 0;
}

/* What the host's scheduler is told. What would be better than the rest of the host has no right to
 * be so. */
static int host_nice(const struct task_priv *p)
{
    switch (atomic_load(&p->sched_policy)) {
    case SCHED_FIFO:
    case SCHED_RR:
        return 0;
    case SCHED_IDLE:
        return 19;
    default:
        return MAX(atomic_load(&p->nice), 0);
    }
}

/* Its own thread does it, before it runs guest code again: soon. */
static void sched_changed(struct task *o)
{
    struct task_priv *p = task_priv(o);

    atomic_store(&o->k->sched_used, true);
    struct sighand *sh = tg_lock_sig(o->tg);
    atomic_store(&p->sched_due, true);
    atomic_store(&p->answers_due, true);
    if (!p->dead && o->ctx && (atomic_load(&p->guest_seq) & 1))
        plat_ctx_interrupt(o->ctx);
    sighand_unlock(sh);
}

static void attr_set_sched(struct task *o, _Atomic int *to, int v)
{
    const int before = host_nice(task_priv(o));

    atomic_store(to, v);
    if (host_nice(task_priv(o)) != before)
        sched_changed(o);
}

void task_attr_set(struct task *o, enum task_attr a, int64_t v)
{
    struct task_priv *p = task_priv(o);

    switch (a) {
    case TASK_ATTR_NICE:
        attr_set_sched(o, &p->nice, (int)v);
        break;
    case TASK_ATTR_SCHED_POLICY:
        attr_set_sched(o, &p->sched_policy, (int)v);
        break;
    case TASK_ATTR_SCHED_PRIORITY:
        atomic_store(&p->sched_priority, (int)v);
        break;
    case TASK_ATTR_SCHED_RESET:
        atomic_store(&p->sched_reset_on_fork, v != 0);
        break;
    case TASK_ATTR_PDEATHSIG:
        atomic_store(&p->pdeathsig, (int)v);
        break;
    case TASK_ATTR_DUMPABLE:
        atomic_store(&o->tg->dumpable, (int)v);
        break;
    case TASK_ATTR_SUBREAPER:
        atomic_store(&o->tg->is_subreaper, v != 0);
        break;
    case TASK_ATTR_OOM_SCORE_ADJ:
        atomic_store(&o->tg->oom_score_adj, (int32_t)v);
        break;
    case TASK_ATTR_OOM_SCORE_ADJ_MIN:
        atomic_store(&o->tg->oom_score_adj_min, (int32_t)v);
        break;
    case TASK_ATTR_THP_DISABLE:
        atomic_store(&o->tg->thp_disable, v != 0);
        break;
    case TASK_ATTR_PERSONALITY:
        atomic_store(&p->personality, (uint32_t)v);
        break;
    case TASK_ATTR_MCE_KILL:
        atomic_store(&p->mce_kill, (int)v);
        break;
    case TASK_ATTR_IO_FLUSHER:
        atomic_store(&p->io_flusher, v != 0);
        break;
    case TASK_ATTR_NO_TSC:
        atomic_store(&p->no_tsc, v != 0);
        atomic_store(&o->k->tsc_used, true);
        sched_changed(o);
        break;
    case TASK_ATTR_MEMBARRIER:
        atomic_store(&o->tg->membarrier, (int)v);
        break;
    default:
        BUG_ON(true);
    }
}

uint64_t task_timer_slack(struct task *t)
{
    return atomic_load(&task_priv(t)->timer_slack_ns);
}

void task_set_timer_slack(struct task *t, uint64_t ns)
{
    struct task_priv *p = task_priv(t);

    atomic_store(&p->timer_slack_ns, ns ? ns : p->timer_slack_born);
}

/* ---- CPUs ---- */

int task_cpu_count(struct task *t)
{
    return t->k->cfg.cpus;
}

void task_affinity_get(struct task *o, uint64_t *mask)
{
    mutex_lock(&o->mu);
    memcpy(mask, task_priv(o)->affinity, sizeof(task_priv(o)->affinity));
    mutex_unlock(&o->mu);
}

int task_affinity_set(struct task *o, const uint64_t *mask)
{
    uint64_t cut[LIMIT_CPU_WORDS] = {0}, any = 0;

    for (int i = 0; i < o->k->cfg.cpus; i++)
        cut[i / 64] |= mask[i / 64] & (1ull << (i % 64));
    for (size_t i = 0; i < LIMIT_CPU_WORDS; i++)
        any |= cut[i];
    if (!any)
        return -EINVAL;
    mutex_lock(&o->mu);
    memcpy(task_priv(o)->affinity, cut, sizeof(cut));
    rseq_cpu_affinity_locked(o);
    mutex_unlock(&o->mu);
    sched_changed(o);
    return 0;
}

void task_sched_apply(struct task *t)
{
    uint64_t mask[LIMIT_CPU_WORDS];

    if (!atomic_exchange(&task_priv(t)->sched_due, false))
        return;
    task_affinity_get(t, mask);
    plat_ctx_affinity(t->ctx, mask, LIMIT_CPU_WORDS);
    plat_ctx_nice(t->ctx, host_nice(task_priv(t)));
    if (atomic_load(&t->k->tsc_used))
        plat_ctx_tsc(t->ctx, !atomic_load(&task_priv(t)->no_tsc));
}

/* ---- names and credentials ---- */

void task_get_comm(struct task *t, char out[16])
{
    mutex_lock(&t->mu);
    memcpy(out, t->comm, sizeof(t->comm));
    mutex_unlock(&t->mu);
}

void task_change_comm(struct task *t, const char *name)
{
    task_set_comm(t, name);
}

void task_cred_commit(struct task *t, struct cred *c)
{
    const struct cred *old = t->cred;

    /* commit_creds: a process that changed who it is cannot be dumped or traced by its peers. */
    if (c->euid != old->euid || c->egid != old->egid || c->fsuid != old->fsuid ||
        c->fsgid != old->fsgid || (c->cap_permitted & ~old->cap_permitted)) {
        atomic_store(&t->tg->dumpable, 0);
        atomic_store(&task_priv(t)->pdeathsig, 0);
    }
    task_set_cred(t, c);
}

/* ---- many tasks ---- */

size_t task_each_in_pgrp(struct task *t, int32_t pgid, task_each_fn fn, void *arg)
{
    struct thread_group *tg;
    size_t n = 0;

    mutex_lock(&t->k->mu);
    const struct pid *p = pgid ? pid_find_in_locked(t->k, t->tg->pid_ns, pgid) : NULL;
    struct pgrp *pg = pgid ? (p ? p->pgrp : NULL) : t->tg->pgrp;
    if (pg) {
        list_for_each_entry (tg, &pg->members, pgrp_node) {
            if (tg->state != TG_LIVE)
                continue;
            fn(arg, tg->leader);
            n++;
        }
    }
    mutex_unlock(&t->k->mu);
    return n;
}

size_t task_each_of_user(struct task *t, uint32_t uid, task_each_fn fn, void *arg)
{
    struct thread_group *tg;
    size_t n = 0;

    mutex_lock(&t->k->mu);
    list_for_each_entry (tg, &t->k->groups, node) {
        if (tg->state != TG_LIVE)
            continue;
        /* Others' namespaces are out of reach, whoever its processes belong to. */
        if (pid_out_locked(t->k, t->tg->pid_ns, tg->tgid) == 0)
            continue;
        mutex_lock(&tg->leader->mu);
        const bool match = tg->leader->cred->uid == uid;
        mutex_unlock(&tg->leader->mu);
        if (!match)
            continue;
        fn(arg, tg->leader);
        n++;
    }
    mutex_unlock(&t->k->mu);
    return n;
}

/* ---- unshare(2) ---- */

static int unshare_fs(struct task *t)
{
    struct fs_ctx *fs;

    if (ref_read(&t->fs->ref) == 1)
        return 0;
    int r = fs_ctx_dup(t->fs, &fs);
    if (r)
        return r;
    mutex_lock(&t->mu);
    struct fs_ctx *old = t->fs;
    t->fs = fs;
    mutex_unlock(&t->mu);
    task_forget_fs(t);
    fs_ctx_put(old);
    return 0;
}

static int unshare_files(struct task *t)
{
    struct fdtable *fdt;
    struct vfs_caller c;

    if (!fdtable_shared(t->fdt))
        return 0;
    int r = fdtable_dup(t->fdt, &fdt);
    if (r)
        return r;
    mutex_lock(&t->mu);
    struct fdtable *old = t->fdt;
    t->fdt = fdt;
    mutex_unlock(&t->mu);
    task_vfs_caller(t, &c);
    fdtable_put(old, &c);
    task_vfs_caller_end(&c);
    return 0;
}

static bool unshare_single(struct task *t)
{
    mutex_lock(&t->k->mu);
    const bool single = t->tg->thread_count == 1;
    mutex_unlock(&t->k->mu);
    return single;
}

int task_unshare(struct task *t, uint64_t flags)
{
    const uint64_t alone = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM;
    int r = 0;

    /* ksys_unshare: these only say "must not be shared". */
    if ((flags & alone) && !unshare_single(t))
        return -EINVAL;
    if (flags & CLONE_FS)
        r = unshare_fs(t);
    if (!r && (flags & CLONE_FILES))
        r = unshare_files(t);
    if (!r && (flags & CLONE_SYSVSEM))
        task_sem_undo_exit(t);
    return r ? r : task_unshare_ns(t, flags);
}
