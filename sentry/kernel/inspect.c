/* Tasks as /proc and ps see them (sentry/kernel/inspect.h). */
#include "sentry/kernel/inspect.h"

#include <errno.h>
#include <string.h>

#include "sentry/kernel/fsctx.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/seccomp.h"
#include "sentry/kernel/signal_priv.h"
#include "sentry/kernel/task_priv.h"
#include "sentry/mem/memfile.h"

/* ---- walking ---- */

int32_t kernel_next_tgid(struct kernel *k, int32_t from)
{
    int32_t r = -ENOENT;

    mutex_lock(&k->mu);
    for (int32_t nr = MAX(from, 1); nr <= LIMIT_TASKS && r < 0; nr++)
        if (k->pids[nr] && k->pids[nr]->tg)
            r = nr;
    mutex_unlock(&k->mu);
    return r;
}

int32_t task_next_tid(struct task *t, int32_t from)
{
    return task_next_tid_in(t, NULL, from);
}

int32_t task_next_tid_in(struct task *t, const struct pid_ns *ns, int32_t from)
{
    const struct task_priv *p;
    int32_t best = INT32_MAX;

    mutex_lock(&t->k->mu);
    list_for_each_entry (p, &t->tg->threads, thread_node) {
        const int32_t nr = pid_out_locked(t->k, ns, p->t->tid);
        if (nr && nr >= from && nr < best)
            best = nr;
    }
    mutex_unlock(&t->k->mu);
    return best == INT32_MAX ? -ENOENT : best;
}

/* ---- what a task holds; a leader that ended is answered for by a thread that lives ---- */

static struct task *inspect_holder(struct task *t)
{
    struct task *holder = t;
    struct task_priv *p;

    mutex_lock(&t->k->mu);
    if (task_priv(t)->dead && t->tg->leader == t)
        list_for_each_entry (p, &t->tg->threads, thread_node)
            if (!p->dead)
                holder = p->t;
    (void)task_get(holder);
    mutex_unlock(&t->k->mu);
    return holder;
}

struct mm *task_get_mm(struct task *t)
{
    struct task *h = inspect_holder(t);

    mutex_lock(&h->mu);
    struct mm *mm = h->ua.mm ? mm_get(h->ua.mm) : NULL;
    mutex_unlock(&h->mu);
    task_put(h);
    return mm;
}

struct cred *task_get_cred(struct task *t)
{
    mutex_lock(&t->mu);
    struct cred *c = t->cred ? cred_get(t->cred) : NULL;
    mutex_unlock(&t->mu);
    return c;
}

struct fdtable *task_get_fdtable(struct task *t)
{
    mutex_lock(&t->mu);
    struct fdtable *fdt = t->fdt ? fdtable_get(t->fdt) : NULL;
    mutex_unlock(&t->mu);
    return fdt;
}

struct mount_ns *task_get_mount_ns(struct task *t)
{
    mutex_lock(&t->mu);
    struct mount_ns *ns = task_priv(t)->ns ? mount_ns_get(task_priv(t)->ns) : NULL;
    mutex_unlock(&t->mu);
    return ns;
}

int task_get_exe(struct task *t, struct vpath *out)
{
    int r = -ENOENT;

    mutex_lock(&t->tg->mu);
    if (t->tg->exe.dentry) {
        *out = t->tg->exe;
        vpath_get(out);
        r = 0;
    }
    mutex_unlock(&t->tg->mu);
    return r;
}

static struct fs_ctx *inspect_fs(struct task *t)
{
    mutex_lock(&t->mu);
    struct fs_ctx *fs = t->fs ? fs_ctx_get(t->fs) : NULL;
    mutex_unlock(&t->mu);
    return fs;
}

int task_get_path(struct task *t, int which, struct vpath *out)
{
    struct fs_ctx *fs = inspect_fs(t);
    struct vpath root, cwd;
    uint32_t mask;

    if (!fs)
        return -ENOENT;
    fs_ctx_snapshot(fs, &root, &cwd, &mask);
    fs_ctx_put(fs);
    vpath_put(which == 0 ? &cwd : &root);
    *out = which == 0 ? root : cwd;
    return 0;
}

/* ---- numbers ---- */

static char inspect_state(const struct task *t)
{
    const struct task_priv *p = task_priv(t);

    if (t->tg->state == TG_DEAD)
        return 'X';
    if (p->dead)
        return p->zombie || t->tg->state == TG_ZOMBIE ? 'Z' : 'X';
    if (p->trace.stopped)
        return 't';
    if (p->stopped)
        return 'T';
    if (task_is_asleep(t) && !p->rseq_user.waits)
        return 'S';
    return 'R';
}

static void info_signals(struct task *t, struct task_info *out)
{
    struct thread_group *tg = t->tg;
    struct sighand *sh = tg_lock_sig(tg);

    out->sig_pending = task_priv(t)->pending.set;
    out->sig_shared_pending = tg->pending.set;
    out->sig_queued = task_priv(t)->pending.count + tg->pending.count;
    out->sig_blocked = sig_blocked(t);
    for (int i = 0; i < LX_NSIG; i++) {
        if (sh->action[i].handler == 1)
            out->sig_ignored |= 1ull << i;
        else if (sh->action[i].handler)
            out->sig_caught |= 1ull << i;
    }
    sighand_unlock(sh);
}

static void info_tree(struct task *t, struct task_info *out)
{
    struct thread_group *tg = t->tg;
    const struct task_priv *p = task_priv(t);
    struct task_usage u;

    mutex_lock(&t->k->mu);
    out->pid = t->tid;
    out->tgid = tg->tgid;
    out->ppid = tg->parent ? tg->parent->tgid : 0;
    out->pgrp = tg->pgrp ? tg->pgrp->id : 0;
    out->session = tg->pgrp ? tg->pgrp->session->id : 0;
    if (tg->pgrp && tg->pgrp->session->tty && tg->pgrp->session->tty_show)
        tg->pgrp->session->tty_show(tg->pgrp->session, &out->tty, &out->tty_pgrp);
    out->state = inspect_state(t);
    out->threads = (int32_t)tg->thread_count;
    out->tracer = p->trace.tracer ? p->trace.tracer->tg->tgid : 0;
    out->exit_signal = tg->exit_signal;
    out->exit_code = tg->state == TG_LIVE ? 0 : tg->exit_status;
    if (tg->leader == t || tg->state != TG_LIVE) {
        tg_usage_locked(tg, &u);
        task_io_add(&u.io, &tg->child_usage.io);
    } else {
        u = (struct task_usage){.utime_ns = task_utime_ns(t),
                                .stime_ns = task_stime_ns(t),
                                .min_flt = atomic_load(&p->min_flt),
                                .maj_flt = atomic_load(&p->maj_flt)};
        task_io_get(t, &u.io);
    }
    out->utime_ns = u.utime_ns;
    out->stime_ns = u.stime_ns;
    out->min_flt = u.min_flt;
    out->maj_flt = u.maj_flt;
    out->io = u.io;
    out->cutime_ns = tg->child_usage.utime_ns;
    out->cstime_ns = tg->child_usage.stime_ns;
    out->start_ns = tg->leader == t ? tg->start_ns : p->start_ns;
    info_signals(t, out);
    mutex_unlock(&t->k->mu);
}

/* A CPU clock of a thread is named after it (clock_getcpuclockid, CPUCLOCK_PID of the kernel). */
static int32_t inspect_host_tid(struct task *t)
{
    const clockid_t clock = atomic_load_explicit(&task_priv(t)->cpu_clock, memory_order_acquire);

    return clock ? ~(clock >> 3) : 0;
}

void task_info(struct task *t, struct task_info *out)
{
    const struct task_priv *p = task_priv(t);

    memset(out, 0, sizeof(*out));
    out->tty_pgrp = -1;
    info_tree(t, out);
    task_get_comm(t, out->comm);
    out->nice = atomic_load(&p->nice);
    out->host_tid = inspect_host_tid(t);
    out->vol_switches = task_sleeps(t);
    out->invol_switches = atomic_load(&p->invol_switches);
    for (int i = 0; i < LX_RLIM_COUNT; i++)
        for (int j = 0; j < 2; j++)
            out->rlimits[i][j] = atomic_load(&t->tg->rlimits[i][j]);
    out->seccomp_mode = (uint32_t)task_seccomp_mode(t);
    out->seccomp_filters = task_seccomp_count(t);
    struct cred *c = task_get_cred(t);
    if (c) {
        out->no_new_privs = c->no_new_privs;
        cred_put(c);
    }
    struct fs_ctx *fs = inspect_fs(t);
    if (fs) {
        mutex_lock(&fs->mu);
        out->umask = fs->umask;
        mutex_unlock(&fs->mu);
        fs_ctx_put(fs);
    }
    struct fdtable *fdt = task_get_fdtable(t);
    if (fdt) {
        out->fd_size = fdtable_size(fdt);
        fdtable_put(fdt, NULL);
    }
}

void task_info_in(struct task *t, const struct pid_ns *ns, struct task_info *out)
{
    int32_t *const numbers[] = {&out->pid,     &out->tgid,   &out->ppid,    &out->pgrp,
                                &out->session, &out->tracer, &out->tty_pgrp};

    task_info(t, out);
    if (!ns)
        return;
    mutex_lock(&t->k->mu);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        if (*numbers[i] > 0)
            *numbers[i] = pid_out_locked(t->k, ns, *numbers[i]);
    mutex_unlock(&t->k->mu);
}

/* ---- the whole sandbox ---- */

static void info_count_locked(struct kernel *k, struct kernel_info *out)
{
    struct thread_group *tg;
    struct task_priv *p;

    list_for_each_entry (tg, &k->groups, node) {
        struct task_usage u;
        tg_usage_locked(tg, &u);
        out->user_ns += u.utime_ns;
        out->system_ns += u.stime_ns;
        list_for_each_entry (p, &tg->threads, thread_node) {
            out->tasks++;
            if (!p->dead && inspect_state(p->t) == 'R')
                out->running++;
        }
    }
}

void kernel_info(struct kernel *k, struct kernel_info *out)
{
    memset(out, 0, sizeof(*out));
    out->boot_realtime_ns = k->boot_realtime_ns;
    out->uptime_ns = mono_now() - k->boot_mono_ns;
    out->cpus = k->cfg.cpus;
    out->pid_max = LIMIT_TASKS;
    out->forks = atomic_load(&k->forks);
    mutex_lock(&k->mu);
    out->last_pid = k->last_pid;
    info_count_locked(k, out);
    mutex_unlock(&k->mu);
    out->mem_total = atomic_load(&k->memory);
    if (k->cfg.mf) {
        const struct mem_commit *c = memfile_commit(k->cfg.mf);
        out->mem_anon = MIN(memfile_resident(k->cfg.mf), out->mem_total);
        out->commit_limit = mem_commit_limit(c, out->mem_total);
        out->committed = atomic_load_explicit(&c->charged, memory_order_relaxed);
    }
    out->mem_free = out->mem_total - out->mem_anon;
    const uint64_t all = out->uptime_ns * (uint64_t)out->cpus, busy = out->user_ns + out->system_ns;
    out->idle_ns = all > busy ? all - busy : 0;
}

struct mem_commit *kernel_commit(struct kernel *k)
{
    return k->cfg.mf ? memfile_commit(k->cfg.mf) : NULL;
}

void kernel_set_memory(struct kernel *k, uint64_t bytes)
{
    atomic_store(&k->memory, bytes);
}
