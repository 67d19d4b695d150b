/* Tasks in control groups: birth, end, moves. */
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>

#include "base/sort.h"
#include "sentry/cred/user_ns.h"
#include "sentry/kernel/cgroup_priv.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ns.h"

/* ---- links; tree held ---- */

static void link_live(struct task *t, struct cgroup *cg)
{
    struct cgroup_link *l = task_link(t, cg->root->index);

    l->user_ns = task_utime_ns(t);
    l->sys_ns = task_stime_ns(t);
    l->live = true;
    list_add_tail(&l->node, &cg->tasks);
    for (struct cgroup *up = cg; up; up = up->parent)
        if (up->live++ == 0)
            cgroup_event(up);
}

static void unlink_live(struct task *t, unsigned root)
{
    struct cgroup_link *l = task_link(t, root);

    if (!l->live)
        return;
    l->live = false;
    list_del(&l->node);
    l->cg->gone_user_ns += task_utime_ns(t) - l->user_ns;
    l->cg->gone_sys_ns += task_stime_ns(t) - l->sys_ns;
    for (struct cgroup *up = l->cg; up; up = up->parent)
        if (--up->live == 0)
            cgroup_event(up);
}

static bool counts_pids(const struct cgroup *cg)
{
    return cg->root->v2 || (cg->root->ctls & CG_BIT(CG_PIDS));
}

static void pids_add(struct cgroup *cg)
{
    for (; cg; cg = cg->parent) {
        const uint64_t n = atomic_fetch_add(&cg->pids, 1) + 1;
        if (n > atomic_load(&cg->pids_peak))
            atomic_store(&cg->pids_peak, n);
    }
}

static void pids_sub(struct cgroup *cg)
{
    for (; cg; cg = cg->parent)
        atomic_fetch_sub(&cg->pids, 1);
}

static bool pids_full(struct cgroup *cg)
{
    for (struct cgroup *up = cg; up; up = up->parent) {
        if (atomic_load(&up->pids) < atomic_load(&up->pids_max))
            continue;
        atomic_fetch_add(&up->pids_refused, 1);
        return true;
    }
    return false;
}

static void join(struct task *t, struct cgroup *cg)
{
    task_link(t, cg->root->index)->cg = cgroup_get(cg);
    if (counts_pids(cg))
        pids_add(cg);
    if (!task_priv(t)->dead)
        link_live(t, cg);
}

static void leave(struct task *t, unsigned root)
{
    struct cgroup_link *l = task_link(t, root);
    struct cgroup *cg = l->cg;

    if (!cg)
        return;
    unlink_live(t, root);
    l->cg = NULL;
    if (counts_pids(cg))
        pids_sub(cg);
    cgroup_put(cg);
}

void cgroup_adopt_locked(struct task *t, struct cgroup_root *root)
{
    join(t, root->top);
}

void cgroup_disown_locked(struct task *t, struct cgroup_root *root)
{
    leave(t, root->index);
    cgroup_hold_task_locked(t);
}

/* ---- birth and end ---- */

int cgroup_fork_locked(struct task *t, const struct task *from, struct cgroup *into)
{
    struct cgroups *all = t->k->cgroups;
    struct cgroup *to[CGROUP_ROOTS] = {NULL};

    if (into && into->dead)
        return -ENODEV;
    for (unsigned i = 0; i < CGROUP_ROOTS; i++) {
        if (!all->roots[i])
            continue;
        to[i] = task_cgroup_locked(from, i);
        if (i == 0 && into)
            to[i] = into;
        if (counts_pids(to[i]) && pids_full(to[i])) {
            cgroup_event(to[i]);
            return -EAGAIN;
        }
    }
    for (unsigned i = 0; i < CGROUP_ROOTS; i++)
        if (to[i])
            join(t, to[i]);
    cgroup_hold_task_locked(t);
    return 0;
}

void cgroup_refused_locked(struct task *t)
{
    struct cgroup *cg = task_cgroup_locked(t, 0);

    while (cg && !cg->container)
        cg = cg->parent;
    if (!cg)
        return;
    atomic_fetch_add(&cg->pids_refused, 1);
    cgroup_event(cg);
}

int cgroup_enter_locked(struct task *t, const struct cgroup_ns *ns)
{
    struct cgroups *all = t->k->cgroups;

    for (unsigned i = 0; i < CGROUP_ROOTS; i++) {
        if (!all->roots[i])
            continue;
        struct cgroup *cg = ns && ns->tops[i] ? ns->tops[i] : all->roots[i]->top;
        if (cg->dead)
            return -ENODEV;
        join(t, cg);
    }
    cgroup_hold_task_locked(t);
    return 0;
}

void cgroup_exit_locked(struct task *t)
{
    for (unsigned i = 0; i < CGROUP_ROOTS; i++)
        if (task_cgroup_locked(t, i))
            unlink_live(t, i);
}

void cgroup_release_locked(struct task *t)
{
    for (unsigned i = 0; i < CGROUP_ROOTS; i++)
        leave(t, i);
}

/* ---- whose memory ---- */

struct memacct *cgroup_account_locked(const struct task *t)
{
    for (unsigned i = CGROUP_ROOTS; i-- > 0;)
        for (struct cgroup *cg = task_cgroup_locked(t, i); cg; cg = cg->parent)
            if (cg->acct)
                return memacct_get(cg->acct);
    return NULL;
}

struct memacct *cgroup_account(struct task *t)
{
    cgroup_lock(t->k);
    struct memacct *acct = cgroup_account_locked(t);
    cgroup_unlock(t->k);
    return acct;
}

/* ---- moving ---- */

/* Who may: the owner of the common ancestor's cgroup.procs (version 2), or of the process. */
static int may_move_locked(struct task *self, struct cgroup *cg, struct task *t)
{
    const struct cgroup *from = task_cgroup_locked(t, cg->root->index), *up = from;

    if (self->cred->euid == 0)
        return 0;
    if (!cg->root->v2) {
        mutex_lock(&t->mu);
        const bool own = t->cred->uid == self->cred->euid || t->cred->suid == self->cred->euid;
        mutex_unlock(&t->mu);
        return own ? 0 : -EACCES;
    }
    while (up && !cgroup_is_below(cg, up))
        up = up->parent;
    const struct cgroup_attr *a = up && up->file_attrs ? &up->file_attrs[CGROUP_FILE_PROCS] : NULL;
    return a && a->set && a->uid == self->cred->euid ? 0 : -EACCES;
}

static int move_check_locked(struct task *self, struct cgroup *cg, struct task *t)
{
    struct cgroup_ns *ns = task_priv(self)->tags[NS_CGROUP]->obj;
    const struct cgroup *top = ns ? ns->tops[cg->root->index] : NULL;

    if (cg->dead)
        return -ENODEV;
    if (!task_cgroup_locked(t, cg->root->index) || task_priv(t)->dead)
        return -ESRCH;
    /* Neither into nor out of what the namespace shows. */
    if (top && (!cgroup_is_below(cg, top) ||
                !cgroup_is_below(task_cgroup_locked(t, cg->root->index), top)))
        return -ENOENT;
    if (cg->root->v2 && cg->parent && cg->subtree_control)
        return -EBUSY;
    return may_move_locked(self, cg, t);
}

static void move_locked(struct task *t, struct cgroup *cg)
{
    if (task_cgroup_locked(t, cg->root->index) == cg)
        return;
    leave(t, cg->root->index);
    join(t, cg);
    cgroup_hold_task_locked(t);
}

static void move_group_locked(struct thread_group *tg, struct cgroup *cg)
{
    struct task_priv *p;

    list_for_each_entry (p, &tg->threads, thread_node)
        if (task_cgroup_locked(p->t, cg->root->index))
            move_locked(p->t, cg);
}

/* Its memory is charged to the new group from now on; what there is stays where it was charged. */
static void move_account(struct task *t)
{
    struct mm *mm = task_get_mm(t);

    if (!mm)
        return;
    struct memacct *acct = cgroup_account(t);
    mm_set_account(mm, acct);
    memacct_put(acct);
    mm_put(mm);
}

static int find_locked(struct task *self, int32_t nr, struct task **out)
{
    if (nr == 0) {
        *out = self;
        return 0;
    }
    const struct pid *p = pid_find_in_locked(self->k, self->tg->pid_ns, nr);
    *out = p ? p->task : NULL;
    return *out ? 0 : -ESRCH;
}

int cgroup_attach(struct cgroup *cg, const struct vfs_caller *c, int32_t tid, bool thread)
{
    struct kernel *k = cg->root->k;
    struct task *t;

    if (!c->blocker)
        return -EINVAL;
    struct task *self = container_of(c->blocker, struct task, blocker);
    mutex_lock(&k->cgroups->mu);
    cgroup_lock(k);
    int r = find_locked(self, tid, &t);
    if (!r && !thread && !t->tg->leader)
        r = -ESRCH;
    if (!r)
        r = move_check_locked(self, cg, thread ? t : t->tg->leader);
    if (!r && thread && cg->root->v2 && task_cgroup_locked(t, 0) != cg)
        r = -EOPNOTSUPP; /* only threaded groups take single threads */
    if (!r) {
        (void)task_get(t);
        if (thread)
            move_locked(t, cg);
        else
            move_group_locked(t->tg, cg);
    }
    cgroup_unlock(k);
    if (!r) {
        move_account(t);
        task_put(t);
    }
    mutex_unlock(&k->cgroups->mu);
    return r;
}

/* ---- who is there ---- */

static int by_number(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

    return x < y ? -1 : x > y;
}

static size_t pids_fill_locked(struct cgroup *cg, const struct pid_ns *ns, bool threads,
                               int32_t *pids, size_t max)
{
    const unsigned root = cg->root->index;
    struct cgroup_link *l;
    size_t n = 0;

    list_for_each_entry (l, &cg->tasks, node) {
        /* The link is one of an array in its task. */
        const struct task_priv *p = container_of(l - root, struct task_priv, cg[0]);
        const int32_t of = threads ? p->t->tid : p->t->tg->tgid;
        if (n == max)
            break;
        const int32_t nr = pid_out_locked(p->t->k, ns, of);
        if (nr)
            pids[n++] = nr;
    }
    return n;
}

int cgroup_pids(struct cgroup *cg, const struct vfs_caller *c, bool threads, int32_t **out_pids,
                size_t *out_count)
{
    struct kernel *k = cg->root->k;
    struct task *self = c->blocker ? container_of(c->blocker, struct task, blocker) : NULL;
    const struct pid_ns *ns = self ? self->tg->pid_ns : NULL;

    cgroup_lock(k);
    const size_t max = cg->live + 1;
    cgroup_unlock(k);
    int32_t *pids = calloc(max, sizeof(*pids));
    if (!pids)
        return -ENOMEM;
    cgroup_lock(k);
    size_t n = pids_fill_locked(cg, ns, threads, pids, max);
    cgroup_unlock(k);
    sort_items(pids, n, sizeof(*pids), by_number);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || pids[kept - 1] != pids[i])
            pids[kept++] = pids[i];
    *out_pids = pids;
    *out_count = kept;
    return 0;
}

void cgroup_kill(struct cgroup *cg)
{
    struct kernel *k = cg->root->k;
    struct cgroup *at = NULL;
    const unsigned root = cg->root->index;
    struct cgroup_link *l;

    cgroup_lock(k);
    while ((at = cgroup_walk_locked(cg, at)) != NULL) {
        list_for_each_entry (l, &at->tasks, node) {
            struct thread_group *tg = container_of(l - root, struct task_priv, cg[0])->t->tg;
            struct sighand *sh = tg_lock_sig(tg);
            tg_exit_locked(tg, SIGKILL);
            sighand_unlock(sh);
        }
    }
    cgroup_unlock(k);
}
