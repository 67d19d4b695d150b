/* Tasks and thread groups as objects: making, finding, publishing, freeing. */
#include "sentry/kernel/task_priv.h"

#include <errno.h>
#include <linux/prctl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/heap.h"
#include "sentry/ipc/ipc.h"
#include "sentry/kernel/account_priv.h"
#include "sentry/kernel/cgroup_priv.h"
#include "sentry/kernel/fsctx.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ns_priv.h"
#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/seccomp_priv.h"

OBJCOUNT_DEFINE(task);
OBJCOUNT_DEFINE(thread_group);

/* A thread's stacks, its stub's, and what the host remembers of both: counted as heap. */
#define TASK_HOST_BYTES (32 << 10)

struct task_alloc {
    struct task t;
    struct task_priv p;
};

int task_new(struct kernel *k, struct task **out_task)
{
    if (atomic_fetch_add_explicit(&k->task_count, 1, memory_order_relaxed) >= LIMIT_TASKS) {
        atomic_fetch_sub_explicit(&k->task_count, 1, memory_order_relaxed);
        return -EAGAIN;
    }
    struct task_alloc *a = heap_admits(TASK_HOST_BYTES) ? calloc(1, sizeof(*a)) : NULL;
    if (!a) {
        atomic_fetch_sub_explicit(&k->task_count, 1, memory_order_relaxed);
        return -ENOMEM;
    }
    struct task *t = &a->t;
    struct task_priv *p = &a->p;

    t->impl = p;
    p->t = t;
    ref_init(&t->ref);
    t->k = k;
    mutex_init(&t->mu, LOCK_RANK_TASK);
    blocker_init(&t->blocker);
    list_init(&p->thread_node);
    sig_pending_init(&p->pending);
    waitq_init(&p->vfork_wq);
    mutex_init(&p->start_mu, LOCK_RANK_LEAF);
    cond_init(&p->start_cond);
    list_init(&p->trace.node);
    list_init(&p->trace.tracees);
    p->answers_due = true;
    p->start_ns = mono_now() - k->boot_mono_ns;
    p->timer_slack_ns = p->timer_slack_born = 50000;
    p->altstack_flags = 2; /* SS_DISABLE */
    p->mce_kill = PR_MCE_KILL_DEFAULT;
    heap_add(TASK_HOST_BYTES);
    OBJCOUNT_INC(task);
    *out_task = t;
    return 0;
}

struct task *task_get(struct task *t)
{
    ref_get(&t->ref);
    return t;
}

void task_put(struct task *t)
{
    if (!ref_put(&t->ref))
        return;
    struct task_priv *p = task_priv(t);

    /* What a task that ran has already given up in task_exit_final. */
    if (t->ctx)
        plat_ctx_destroy(t->ctx);
    if (t->ua.mm)
        mm_put(t->ua.mm);
    fdtable_put(t->fdt, NULL);
    task_forget_fs(t);
    fs_ctx_put(t->fs);
    if (t->cred)
        cred_put(t->cred);
    if (p->ns)
        mount_ns_put(p->ns);
    uts_put(p->uts);
    task_sem_undo_exit(t);
    ipc_ns_put(p->ipc);
    pid_ns_put(p->pid_ns_children);
    ns_tags_put(p->tags);
    io_ctx_put(p->io);
    seccomp_task_exit(t);
    if (t->tg)
        tg_put(t->tg);
    waitq_fini(&p->vfork_wq);
    cond_destroy(&p->start_cond);
    mutex_destroy(&p->start_mu);
    mutex_destroy(&t->mu);
    atomic_fetch_sub_explicit(&t->k->task_count, 1, memory_order_relaxed);
    heap_add(-TASK_HOST_BYTES);
    OBJCOUNT_DEC(task);
    free(container_of(t, struct task_alloc, t));
}

int tg_new(struct kernel *k, struct thread_group **out_tg)
{
    struct thread_group *tg = calloc(1, sizeof(*tg));

    if (!tg)
        return -ENOMEM;
    const int r = procref_new(k, tg, &tg->self);
    if (r) {
        free(tg);
        return r;
    }
    ref_init(&tg->ref);
    tg->k = k;
    tg->start_ns = mono_now() - k->boot_mono_ns;
    mutex_init(&tg->mu, LOCK_RANK_TASK_GROUP);
    list_init(&tg->children);
    list_init(&tg->sibling);
    list_init(&tg->node);
    list_init(&tg->pgrp_node);
    list_init(&tg->threads);
    sig_pending_init(&tg->pending);
    waitq_init(&tg->child_wq);
    waitq_init(&tg->stop_wq);
    waitq_init(&tg->sig_wq);
    tg->dumpable = 1;
    OBJCOUNT_INC(thread_group);
    *out_tg = tg;
    return 0;
}

struct thread_group *tg_get(struct thread_group *tg)
{
    ref_get(&tg->ref);
    return tg;
}

void tg_put(struct thread_group *tg)
{
    if (!ref_put(&tg->ref))
        return;
    BUG_ON(tg->pgrp || !list_empty(&tg->threads));
    exe_put(&tg->exe);
    if (tg->sighand)
        sighand_put(tg->sighand);
    pid_ns_put(tg->pid_ns);
    account_put(tg->account);
    /* One that never ran was not reaped. Of others it is the process table's. */
    if (tg->self->group)
        tg->self->group = NULL;
    procref_put(tg->self);
    waitq_fini(&tg->child_wq);
    waitq_fini(&tg->stop_wq);
    waitq_fini(&tg->sig_wq);
    mutex_destroy(&tg->mu);
    OBJCOUNT_DEC(thread_group);
    free(tg);
}

struct sighand *tg_lock_sig(struct thread_group *tg)
{
    mutex_lock(&tg->mu);
    struct sighand *sh = tg->sighand;
    mutex_lock(&sh->mu);
    mutex_unlock(&tg->mu);
    return sh;
}

void task_publish_locked(struct task *t, struct pid *p)
{
    struct thread_group *tg = t->tg;
    struct kernel *k = t->k;

    mutex_assert_held(&k->mu);
    struct sighand *sh = tg_lock_sig(tg);
    t->tid = (int32_t)p->nr;
    t->vtid = pid_nr_in(p, tg->pid_ns);
    p->task = t;
    if (!tg->leader) {
        tg->tgid = t->tid;
        tg->vtgid = t->vtid;
        if (tg->pid_ns && t->vtid == 1)
            tg->pid_ns->init = tg;
        tg->leader = t;
        p->tg = tg_get(tg);
        list_add_tail(&tg->node, &k->groups);
    }
    list_add_tail(&task_priv(t)->thread_node, &tg->threads);
    tg->thread_count++;
    tg->thread_alive++;
    account_add_locked(tg->account, t);
    /* A group exit, an execve or a stop that began a moment ago counts for the newcomer too. */
    if (tg->exiting || tg->exec_task)
        blocker_interrupt(&t->blocker, BLOCKER_KILLED | BLOCKER_INTERRUPT);
    else if (tg->stopping) {
        tg->stop_count++;
        task_priv(t)->stop_pending = true;
        blocker_interrupt(&t->blocker, BLOCKER_INTERRUPT);
    }
    sighand_unlock(sh);
}

void task_unlink_locked(struct task *t)
{
    struct thread_group *tg = t->tg;
    struct kernel *k = t->k;

    mutex_assert_held(&k->mu);
    trace_unlink_locked(t);
    cgroup_release_locked(t);
    struct sighand *sh = tg_lock_sig(tg);
    list_del(&task_priv(t)->thread_node);
    tg->thread_count--;
    sighand_unlock(sh);
    account_remove_locked(tg->account);
    struct pid *p = k->pids[t->tid];
    p->task = NULL;
    pid_release_locked(k, p);
}

void task_interrupt_locked(struct task *t, uint32_t bits)
{
    struct task_priv *p = task_priv(t);

    blocker_interrupt(&t->blocker, bits);
    if (p->dead || !t->ctx)
        return;
    if (UNLIKELY(p->trace.stopped) && (bits & BLOCKER_KILLED))
        trace_kick(t);
    /* A read-modify-write, as the owner's step to odd is: of the two, the later one sees what went
     * before the other. Either the owner finds the bits, or we find it in the guest. */
    if (atomic_fetch_or_explicit(&p->guest_seq, 0, memory_order_acq_rel) & 1)
        plat_ctx_interrupt(t->ctx);
}

int kernel_find_tg(struct kernel *k, int32_t tgid, struct thread_group **out_tg)
{
    int r = -ESRCH;

    mutex_lock(&k->mu);
    const struct pid *p = pid_find_locked(k, tgid);
    if (p && p->tg) {
        *out_tg = tg_get(p->tg);
        r = 0;
    }
    mutex_unlock(&k->mu);
    return r;
}

int kernel_find_task(struct kernel *k, int32_t tid, bool any_thread, struct task **out_task)
{
    int r = -ESRCH;

    mutex_lock(&k->mu);
    const struct pid *p = pid_find_locked(k, tid);
    if (p && p->task && (any_thread || p->task->tg->leader == p->task)) {
        *out_task = task_get(p->task);
        r = 0;
    }
    mutex_unlock(&k->mu);
    return r;
}

uint64_t task_utime_ns(struct task *t)
{
    const struct task_priv *p = task_priv(t);

    if (p->dead || !t->ctx)
        return p->dead_utime_ns;
    return plat_ctx_cpu_time(t->ctx);
}

uint64_t task_stime_ns(struct task *t)
{
    const struct task_priv *p = task_priv(t);
    struct timespec ts;
    const clockid_t clock = atomic_load_explicit(&p->cpu_clock, memory_order_acquire);

    if (p->dead || !clock || clock_gettime(clock, &ts))
        return p->dead_stime_ns;
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec - p->cpu_clock_start_ns;
}

static void io_count(_Atomic uint64_t *v, uint64_t by)
{
    atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

void task_count_io(struct task *t, bool write, int64_t n)
{
    struct task_priv *p = task_priv(t);

    io_count(write ? &p->syscw : &p->syscr, 1);
    if (n > 0)
        io_count(write ? &p->wchar : &p->rchar, (uint64_t)n);
}

void task_io_add(struct task_io *to, const struct task_io *io)
{
    to->rchar += io->rchar;
    to->wchar += io->wchar;
    to->syscr += io->syscr;
    to->syscw += io->syscw;
}

void task_io_get(struct task *t, struct task_io *out)
{
    const struct task_priv *p = task_priv(t);

    *out = (struct task_io){
        .rchar = atomic_load_explicit(&p->rchar, memory_order_relaxed),
        .wchar = atomic_load_explicit(&p->wchar, memory_order_relaxed),
        .syscr = atomic_load_explicit(&p->syscr, memory_order_relaxed),
        .syscw = atomic_load_explicit(&p->syscw, memory_order_relaxed),
    };
}

static void usage_add_task(struct task_usage *u, struct task *t)
{
    const struct task_priv *p = task_priv(t);

    u->utime_ns += task_utime_ns(t);
    u->stime_ns += task_stime_ns(t);
    u->min_flt += atomic_load_explicit(&p->min_flt, memory_order_relaxed);
    u->maj_flt += atomic_load_explicit(&p->maj_flt, memory_order_relaxed);
    u->vol_switches += task_sleeps(p->t);
    u->invol_switches += atomic_load_explicit(&p->invol_switches, memory_order_relaxed);
    struct task_io io;
    task_io_get(t, &io);
    task_io_add(&u->io, &io);
}

void tg_usage_locked(struct thread_group *tg, struct task_usage *out)
{
    struct task_priv *p;

    mutex_assert_held(&tg->k->mu);
    *out = tg->dead_usage;
    list_for_each_entry (p, &tg->threads, thread_node)
        if (!p->dead)
            usage_add_task(out, p->t);
}

void tg_usage(struct thread_group *tg, struct task_usage *out)
{
    mutex_lock(&tg->k->mu);
    tg_usage_locked(tg, out);
    mutex_unlock(&tg->k->mu);
}

void task_set_cred(struct task *t, struct cred *c)
{
    mutex_lock(&t->mu);
    struct cred *old = t->cred;
    t->cred = c;
    mutex_unlock(&t->mu);
    cred_put(old);
    task_answers_changed(t);
}

void task_set_comm(struct task *t, const char *name)
{
    mutex_lock(&t->mu);
    memset(t->comm, 0, sizeof(t->comm));
    strncpy(t->comm, name, sizeof(t->comm) - 1);
    mutex_unlock(&t->mu);
}
