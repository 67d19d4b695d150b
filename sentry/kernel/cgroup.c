/* Hierarchies, groups and namespaces of groups (kernel/cgroup/cgroup.c). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/kernel/cgroup_priv.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/ns.h"
#include "sentry/kernel/timer.h"

OBJCOUNT_DEFINE(cgroup);
OBJCOUNT_DEFINE(cgroup_ns);

void cgroup_lock(struct kernel *k)
{
    mutex_lock(&k->mu);
}

void cgroup_unlock(struct kernel *k)
{
    mutex_unlock(&k->mu);
}

static struct cgroups *cgroups_of(const struct cgroup *cg)
{
    return cg->root->k->cgroups;
}

/* ---- groups as objects ---- */

static void cgroup_defaults(struct cgroup *cg)
{
    cg->max_descendants = cg->max_depth = CGROUP_NO_LIMIT;
    cg->quota_us = cg->memory_max = CGROUP_NO_LIMIT;
    cg->period_us = CGROUP_PERIOD_DEFAULT;
    cg->weight = cg->root->v2 ? CGROUP_WEIGHT_DEFAULT : CGROUP_SHARES_DEFAULT;
    cg->pids_max = CGROUP_NO_LIMIT;
}

int cgroup_new(struct cgroup_root *root, struct cgroup *parent, const char *name,
               struct memacct *acct_parent, bool has_acct, struct cgroup **out_cg)
{
    struct cgroup *cg = calloc(1, sizeof(*cg));

    if (!cg)
        return -ENOMEM;
    cg->name = strdup(name);
    int r = cg->name ? 0 : -ENOMEM;
    if (!r && has_acct)
        r = memacct_new(acct_parent, &cg->acct);
    if (r) {
        free(cg->name);
        free(cg);
        return r;
    }
    ref_init(&cg->ref);
    cg->root = root;
    cg->parent = parent ? cgroup_get(parent) : NULL;
    cg->depth = parent ? parent->depth + 1 : 0;
    list_init(&cg->children);
    list_init(&cg->sibling);
    list_init(&cg->tasks);
    waitq_init(&cg->events_wq);
    cgroup_defaults(cg);
    OBJCOUNT_INC(cgroup);
    *out_cg = cg;
    return 0;
}

struct cgroup *cgroup_get(struct cgroup *cg)
{
    ref_get(&cg->ref);
    return cg;
}

void cgroup_put(struct cgroup *cg)
{
    while (cg && ref_put(&cg->ref)) {
        struct cgroup *parent = cg->parent;
        BUG_ON(!list_empty(&cg->tasks) || !list_empty(&cg->children));
        memacct_put(cg->acct);
        waitq_fini(&cg->events_wq);
        free(cg->file_attrs);
        free(cg->name);
        if (!parent)
            free(cg->root);
        OBJCOUNT_DEC(cgroup);
        free(cg);
        cg = parent;
    }
}

void cgroup_publish_locked(struct cgroup *cg)
{
    struct cgroups *all = cgroups_of(cg);

    cg->id = all->next_id++;
    all->count++;
    if (!cg->parent)
        return;
    list_add_tail(&cg->sibling, &cg->parent->children);
    for (struct cgroup *up = cg->parent; up; up = up->parent)
        up->descendants++;
    cg->frozen_above = cg->parent->frozen_above;
}

static void cgroup_unpublish_locked(struct cgroup *cg)
{
    cg->dead = true;
    cgroups_of(cg)->count--;
    list_del(&cg->sibling);
    list_init(&cg->sibling);
    for (struct cgroup *up = cg->parent; up; up = up->parent)
        up->descendants--;
    cg->parent->gone_user_ns += cg->gone_user_ns;
    cg->parent->gone_sys_ns += cg->gone_sys_ns;
}

void cgroup_event(struct cgroup *cg)
{
    for (; cg; cg = cg->parent) {
        atomic_fetch_add_explicit(&cg->events, 1, memory_order_relaxed);
        waitq_wake(&cg->events_wq, 0);
    }
}

struct cgroup *cgroup_walk_locked(struct cgroup *cg, struct cgroup *prev)
{
    if (!prev)
        return cg;
    if (!list_empty(&prev->children))
        return list_first_entry(&prev->children, struct cgroup, sibling);
    while (prev != cg) {
        struct list *next = prev->sibling.next;
        if (next != &prev->parent->children)
            return container_of(next, struct cgroup, sibling);
        prev = prev->parent;
    }
    return NULL;
}

/* ---- making and removing ---- */

static struct cgroup *child_locked(struct cgroup *parent, const char *name)
{
    struct cgroup *cg;

    list_for_each_entry (cg, &parent->children, sibling)
        if (strcmp(cg->name, name) == 0)
            return cg;
    return NULL;
}

static int mkdir_check_locked(struct cgroup *parent, const char *name)
{
    if (parent->dead)
        return -ENODEV;
    if (child_locked(parent, name))
        return -EEXIST;
    if (cgroups_of(parent)->count >= LIMIT_CGROUPS)
        return -ENOSPC;
    if (parent->depth + 1 > LIMIT_CGROUP_DEPTH)
        return -EAGAIN;
    unsigned below = 1;
    for (struct cgroup *up = parent; up; up = up->parent, below++)
        if (up->descendants >= up->max_descendants || below > up->max_depth)
            return -EAGAIN;
    return 0;
}

/* In version 1, groups at the first level are charged below what their maker is charged to: a
 * container's limit holds whatever hierarchies it mounts. Owned, may be NULL. */
static struct memacct *mkdir_account(struct cgroup *parent, const struct vfs_caller *c)
{
    if (parent->acct)
        return memacct_get(parent->acct);
    struct task *t = c && c->blocker ? container_of(c->blocker, struct task, blocker) : NULL;
    return t ? cgroup_account(t) : NULL;
}

int cgroup_mkdir(struct cgroup *parent, const char *name, const struct vfs_caller *c,
                 struct cgroup **out_cg)
{
    struct cgroup_root *root = parent->root;
    const bool has_acct = root->v2 || (root->ctls & CG_BIT(CG_MEMORY));
    struct memacct *above = has_acct ? mkdir_account(parent, c) : NULL;
    struct cgroup *cg;
    int r = cgroup_new(root, parent, name, above, has_acct, &cg);

    memacct_put(above);
    if (r)
        return r;
    cgroup_lock(root->k);
    r = mkdir_check_locked(parent, name);
    if (!r)
        cgroup_publish_locked(cg);
    cgroup_unlock(root->k);
    if (r) {
        cgroup_put(cg);
        return r;
    }
    *out_cg = cgroup_get(cg);
    return 0;
}

int cgroup_rmdir(struct cgroup *cg)
{
    struct kernel *k = cg->root->k;

    cgroup_lock(k);
    int r = cg->dead ? -ENODEV : 0;
    if (!r && (!list_empty(&cg->tasks) || !list_empty(&cg->children) || !cg->parent))
        r = -EBUSY;
    if (!r)
        cgroup_unpublish_locked(cg);
    cgroup_unlock(k);
    if (r)
        return r;
    cgroup_event(cg);
    cgroup_put(cg);
    return 0;
}

int cgroup_child(struct cgroup *parent, const char *name, struct cgroup **out_cg)
{
    cgroup_lock(parent->root->k);
    struct cgroup *cg = child_locked(parent, name);
    if (cg)
        *out_cg = cgroup_get(cg);
    cgroup_unlock(parent->root->k);
    return cg ? 0 : -ENOENT;
}

struct cgroup *cgroup_next_child(struct cgroup *parent, uint64_t after)
{
    struct cgroup *cg, *found = NULL;

    cgroup_lock(parent->root->k);
    list_for_each_entry (cg, &parent->children, sibling)
        if (cg->id > after && (!found || cg->id < found->id))
            found = cg;
    if (found)
        (void)cgroup_get(found);
    cgroup_unlock(parent->root->k);
    return found;
}

/* ---- paths ---- */

static void path_put(char *buf, size_t size, const char *text)
{
    const size_t len = strlen(buf), n = strlen(text);

    if (len + n + 1 <= size)
        memcpy(buf + len, text, n + 1);
}

static const struct cgroup *common_above(const struct cgroup *a, const struct cgroup *b)
{
    while (a->depth > b->depth)
        a = a->parent;
    while (b->depth > a->depth)
        b = b->parent;
    while (a != b) {
        a = a->parent;
        b = b->parent;
    }
    return a;
}

void cgroup_path_locked(const struct cgroup *cg, const struct cgroup *top, char *buf, size_t size)
{
    const struct cgroup *names[LIMIT_CGROUP_DEPTH + 1];
    const struct cgroup *from = top ? common_above(cg, top) : cg->root->top;
    size_t n = 0;

    buf[0] = '\0';
    for (const struct cgroup *up = top; up && up != from; up = up->parent)
        path_put(buf, size, "/..");
    for (const struct cgroup *up = cg; up != from; up = up->parent)
        names[n++] = up;
    while (n > 0) {
        path_put(buf, size, "/");
        path_put(buf, size, names[--n]->name);
    }
    if (buf[0] == '\0')
        path_put(buf, size, "/");
}

/* ---- namespaces ---- */

int cgroup_ns_alloc(struct kernel *k, struct cgroup_ns **out_ns)
{
    struct cgroup_ns *ns = calloc(1, sizeof(*ns));

    if (!ns)
        return -ENOMEM;
    ref_init(&ns->ref);
    ns->k = k;
    OBJCOUNT_INC(cgroup_ns);
    *out_ns = ns;
    return 0;
}

int cgroup_ns_new(struct task *t, struct cgroup_ns **out_ns)
{
    int r = cgroup_ns_alloc(t->k, out_ns);

    if (r)
        return r;
    cgroup_lock(t->k);
    for (unsigned i = 0; i < CGROUP_ROOTS; i++)
        if (task_cgroup_locked(t, i))
            (*out_ns)->tops[i] = cgroup_get(task_cgroup_locked(t, i));
    cgroup_unlock(t->k);
    return 0;
}

struct cgroup_ns *cgroup_ns_get(struct cgroup_ns *ns)
{
    if (ns)
        ref_get(&ns->ref);
    return ns;
}

void cgroup_ns_put(struct cgroup_ns *ns)
{
    if (!ns || !ref_put(&ns->ref))
        return;
    for (unsigned i = 0; i < CGROUP_ROOTS; i++)
        cgroup_put(ns->tops[i]);
    OBJCOUNT_DEC(cgroup_ns);
    free(ns);
}

struct cgroup_ns *task_cgroup_ns(struct task *t)
{
    struct cgroup_ns *ns = task_priv(t)->tags[NS_CGROUP]->obj;

    return ns ? ns : t->k->cgroups->ns;
}

struct cgroup_ns *task_get_cgroup_ns(struct task *t)
{
    struct task_priv *p = task_priv(t);

    mutex_lock(&t->mu);
    struct ns_tag *tag = p->tags[NS_CGROUP];
    struct cgroup_ns *ns = cgroup_ns_get(tag ? tag->obj : NULL);
    mutex_unlock(&t->mu);
    return ns;
}

/* ---- containers ---- */

struct cgroup *cgroup_container(const struct cgroup_ns *ns)
{
    return ns->tops[0];
}

void cgroup_container_limits(struct cgroup_ns *ns, const struct cgroup_limits *lim)
{
    struct cgroup *cg = cgroup_container(ns);
    struct kernel *k = ns->k;

    atomic_store(&cg->pids_max, lim->pids);
    cgroup_lock(k);
    cg->memory_outside = lim->memory_outside;
    cg->quota_outside = lim->quota_outside;
    cgroup_unlock(k);
    cgroup_set_weight(cg, lim->weight ? lim->weight : CGROUP_WEIGHT_DEFAULT);
    cgroup_set_cpu(cg, lim->quota_us, lim->period_us ? lim->period_us : CGROUP_PERIOD_DEFAULT);
    cgroup_set_memory(cg, lim->memory);
}

int cgroup_new_container(struct kernel *k, const char *name, const struct cgroup_limits *lim,
                         struct cgroup_ns **out_ns)
{
    struct cgroup *cg;
    int r = cgroup_ns_alloc(k, out_ns);

    if (r)
        return r;
    r = cgroup_mkdir(cgroup_root_v2(k)->top, name, NULL, &cg);
    if (r) {
        cgroup_ns_put(*out_ns);
        return r;
    }
    cg->container = true;
    (*out_ns)->tops[0] = cg;
    cgroup_container_limits(*out_ns, lim);
    return 0;
}

void cgroup_container_oom(struct cgroup_ns *ns, void (*fn)(void *arg), void *arg)
{
    struct cgroup *cg = cgroup_container(ns);

    cgroup_lock(ns->k);
    cg->oom_fn = fn;
    cg->oom_arg = arg;
    cgroup_unlock(ns->k);
}

void cgroup_remove_tree(struct cgroup *top)
{
    struct kernel *k = top->root->k;
    struct cgroup *cg;

    for (;;) {
        cgroup_lock(k);
        struct cgroup *last = NULL;
        for (cg = NULL; (cg = cgroup_walk_locked(top, cg)) != NULL;)
            if (list_empty(&cg->children))
                last = cg;
        if (last)
            (void)cgroup_get(last);
        cgroup_unlock(k);
        if (!last)
            return;
        const bool over = last == top, busy = cgroup_rmdir(last) != 0;
        cgroup_put(last);
        if (over || busy)
            return;
    }
}

void cgroup_container_gone(struct cgroup_ns *ns)
{
    /* Somebody of another container may have entered it. */
    cgroup_remove_tree(cgroup_container(ns));
}
