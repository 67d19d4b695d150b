/* Hierarchies of control groups and which controller belongs to which (kernel/cgroup/cgroup.c,
 * cgroup-v1.c). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/kernel/cgroup_priv.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/timer.h"

const char *cgroup_ctl_name(enum cgroup_ctl ctl)
{
    static const char *const names[CG_CTLS] = {
        [CG_CPU] = "cpu",   [CG_CPUACCT] = "cpuacct", [CG_MEMORY] = "memory",
        [CG_PIDS] = "pids", [CG_FREEZER] = "freezer",
    };

    return names[ctl];
}

struct cgroup_root *cgroup_root_v2(struct kernel *k)
{
    return k->cgroups->roots[0];
}

/* ---- making and freeing ---- */

static int root_new(struct kernel *k, unsigned index, uint32_t ctls, const char *name,
                    struct cgroup_root **out_root)
{
    struct cgroup_root *root = calloc(1, sizeof(*root));

    if (!root)
        return -ENOMEM;
    root->k = k;
    root->index = index;
    root->id = (int)index;
    root->v2 = index == 0;
    root->ctls = ctls;
    strncpy(root->name, name, sizeof(root->name) - 1);
    /* Version 2's account stands above all; tasks of a version 1 top are charged by version 2. */
    int r = cgroup_new(root, NULL, "", NULL, root->v2, &root->top);
    if (r) {
        free(root);
        return r;
    }
    *out_root = root;
    return 0;
}

int cgroups_new(struct kernel *k, struct cgroups **out_all)
{
    struct cgroups *all = calloc(1, sizeof(*all));

    if (!all)
        return -ENOMEM;
    int r = root_new(k, 0, CG_ALL_V2, "", &all->roots[0]);
    if (!r)
        r = cgroup_ns_alloc(k, &all->ns);
    if (r) {
        if (all->roots[0])
            cgroup_put(all->roots[0]->top);
        free(all);
        return r;
    }
    all->k = k;
    all->next_id = 1;
    mutex_init(&all->mu, LOCK_RANK_CGROUP);
    waitq_init(&all->hold_wq);
    k->cgroups = all;
    cgroup_lock(k);
    all->roots[0]->top->subtree_control = CG_ALL_V2;
    cgroup_publish_locked(all->roots[0]->top);
    cgroup_unlock(k);
    *out_all = all;
    return 0;
}

void cgroups_free(struct cgroups *all)
{
    if (!all)
        return;
    if (all->tick_ready)
        timer_cancel(&all->tick);
    cgroup_ns_put(all->ns);
    for (unsigned i = 0; i < CGROUP_ROOTS; i++) {
        if (!all->roots[i])
            continue;
        /* Hierarchies of version 1 outlive their mounts while there are groups in them. */
        cgroup_remove_tree(all->roots[i]->top);
        cgroup_put(all->roots[i]->top);
    }
    waitq_fini(&all->hold_wq);
    mutex_destroy(&all->mu);
    free(all);
}

/* ---- who has which controller ---- */

uint32_t cgroup_enabled(struct cgroup *cg)
{
    const struct cgroup_root *root = cg->root;

    if (!root->v2)
        return root->ctls;
    /* A container's own figures stay, whatever hierarchies it mounts besides. */
    return cg->parent ? cg->parent->subtree_control & (cg->container ? CG_ALL_V2 : root->ctls) : 0;
}

uint32_t cgroup_available(struct cgroup *cg)
{
    return (cg->parent ? cg->parent->subtree_control : CG_ALL_V2) & cg->root->ctls;
}

/* Containers' groups are not the guest's doing. */
static bool v2_in_use_locked(struct cgroup_root *root, uint32_t ctls)
{
    struct cgroup *cg = NULL;

    while ((cg = cgroup_walk_locked(root->top, cg)) != NULL)
        if (cg->parent && (cg->subtree_control & ctls))
            return true;
    return false;
}

static void reset_below_locked(struct cgroup *cg, uint32_t ctls)
{
    struct cgroup *child;

    list_for_each_entry (child, &cg->children, sibling) {
        if (ctls & CG_BIT(CG_PIDS))
            atomic_store(&child->pids_max, CGROUP_NO_LIMIT);
        if (ctls & CG_BIT(CG_MEMORY)) {
            child->memory_max = CGROUP_NO_LIMIT;
            memacct_set_limit(child->acct, MEMACCT_NO_LIMIT);
        }
        if (!(ctls & CG_BIT(CG_CPU)))
            continue;
        child->quota_us = CGROUP_NO_LIMIT;
        child->weight = CGROUP_WEIGHT_DEFAULT;
        cg->weighs = false;
        if (child->throttled || child->outweighed) {
            child->throttled = child->outweighed = false;
            cgroup_hold_below_locked(child);
        }
    }
}

static int set_subtree_locked(struct cgroup *cg, uint32_t add, uint32_t remove)
{
    struct cgroup *child;

    if (cg->dead)
        return -ENODEV;
    if (add & ~cgroup_available(cg))
        return -ENOENT;
    add &= ~cg->subtree_control;
    remove &= cg->subtree_control;
    list_for_each_entry (child, &cg->children, sibling)
        if (child->subtree_control & remove)
            return -EBUSY;
    /* Processes and controllers for children exclude each other. */
    if (add && cg->parent && !list_empty(&cg->tasks))
        return -EBUSY;
    cg->subtree_control = (cg->subtree_control | add) & ~remove;
    if (remove)
        reset_below_locked(cg, remove);
    return 0;
}

int cgroup_set_subtree(struct cgroup *cg, uint32_t add, uint32_t remove)
{
    struct kernel *k = cg->root->k;

    mutex_lock(&k->cgroups->mu);
    cgroup_lock(k);
    int r = set_subtree_locked(cg, add, remove);
    cgroup_unlock(k);
    mutex_unlock(&k->cgroups->mu);
    return r;
}

/* ---- mounting ---- */

/* An own one for ctls and name, -EBUSY when they are taken, 0 without *out when it is to be made.
 */
static int root_find_locked(struct cgroups *all, uint32_t ctls, const char *name,
                            struct cgroup_root **out, unsigned *out_free)
{
    *out = NULL;
    *out_free = 0;
    for (unsigned i = CGROUP_ROOTS - 1; i > 0; i--) {
        struct cgroup_root *r = all->roots[i];
        if (!r) {
            *out_free = i;
            continue;
        }
        if (r->ctls == ctls && strcmp(r->name, name) == 0) {
            *out = r;
            return 0;
        }
        if ((r->ctls & ctls) || (name[0] && strcmp(r->name, name) == 0))
            return -EBUSY;
    }
    if (v2_in_use_locked(all->roots[0], ctls))
        return -EBUSY;
    return *out_free ? 0 : -ENOSPC;
}

static void root_install_locked(struct cgroups *all, struct cgroup_root *root)
{
    struct thread_group *tg;
    struct task_priv *p;

    all->roots[root->index] = root;
    all->roots[0]->ctls &= ~root->ctls;
    cgroup_publish_locked(root->top);
    list_for_each_entry (tg, &all->k->groups, node)
        list_for_each_entry (p, &tg->threads, thread_node)
            cgroup_adopt_locked(p->t, root);
}

int cgroup_root_mount(struct kernel *k, uint32_t ctls, const char *name,
                      struct cgroup_root **out_root)
{
    struct cgroups *all = k->cgroups;
    struct cgroup_root *root, *fresh = NULL;
    unsigned index;

    mutex_lock(&all->mu);
    cgroup_lock(k);
    int r = root_find_locked(all, ctls, name, &root, &index);
    cgroup_unlock(k);
    if (!r && !root)
        r = root_new(k, index, ctls, name, &fresh);
    if (!r) {
        cgroup_lock(k);
        if (fresh)
            root_install_locked(all, fresh);
        *out_root = fresh ? fresh : root;
        (*out_root)->supers++;
        cgroup_unlock(k);
    }
    mutex_unlock(&all->mu);
    return r;
}

/* A version 1 hierarchy without groups goes with its last mount, and its controllers go back. */
void cgroup_root_unmount(struct cgroup_root *root)
{
    struct cgroups *all = root->k->cgroups;
    struct thread_group *tg;
    struct task_priv *p;

    mutex_lock(&all->mu);
    cgroup_lock(root->k);
    const bool gone = --root->supers == 0 && !root->v2 && list_empty(&root->top->children);
    if (gone) {
        list_for_each_entry (tg, &root->k->groups, node)
            list_for_each_entry (p, &tg->threads, thread_node)
                cgroup_disown_locked(p->t, root);
        all->roots[root->index] = NULL;
        all->roots[0]->ctls |= root->ctls & CG_ALL_V2;
        all->count--;
    }
    cgroup_unlock(root->k);
    mutex_unlock(&all->mu);
    if (gone)
        cgroup_put(root->top);
}

/* ---- for /proc ---- */

static void show_ctls(const struct cgroup_root *root, FILE *out)
{
    const char *sep = "";

    for (enum cgroup_ctl c = 0; c < CG_CTLS; c++) {
        if (root->v2 || !(root->ctls & CG_BIT(c)))
            continue;
        (void)fprintf(out, "%s%s", sep, cgroup_ctl_name(c));
        sep = ",";
    }
    if (root->name[0])
        (void)fprintf(out, "%sname=%s", sep, root->name);
}

int cgroup_show_task(struct task *t, struct cgroup_ns *reader, FILE *out)
{
    struct cgroups *all = t->k->cgroups;
    char *path = malloc(VFS_PATH_MAX);

    if (!path)
        return -ENOMEM;
    cgroup_lock(t->k);
    for (unsigned i = CGROUP_ROOTS; i-- > 0;) {
        const struct cgroup_root *root = all->roots[i];
        const struct cgroup *cg = root ? task_cgroup_locked(t, i) : NULL;
        if (!cg)
            continue;
        cgroup_path_locked(cg, reader ? reader->tops[i] : NULL, path, VFS_PATH_MAX);
        (void)fprintf(out, "%d:", root->id);
        show_ctls(root, out);
        (void)fprintf(out, ":%s%s\n", path, cg->dead ? " (deleted)" : "");
    }
    cgroup_unlock(t->k);
    free(path);
    return 0;
}

int cgroup_show_controllers(struct kernel *k, FILE *out)
{
    struct cgroups *all = k->cgroups;

    (void)fputs("#subsys_name\thierarchy\tnum_cgroups\tenabled\n", out);
    cgroup_lock(k);
    for (enum cgroup_ctl c = 0; c < CG_CTLS; c++) {
        const struct cgroup_root *root = all->roots[0];
        for (unsigned i = 1; i < CGROUP_ROOTS; i++)
            if (all->roots[i] && (all->roots[i]->ctls & CG_BIT(c)))
                root = all->roots[i];
        (void)fprintf(out, "%s\t%d\t%llu\t1\n", cgroup_ctl_name(c), root->id,
                      (unsigned long long)root->top->descendants + 1);
    }
    cgroup_unlock(k);
    return 0;
}
