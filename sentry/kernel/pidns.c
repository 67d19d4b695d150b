/* Pid namespaces: numbers of their own for what is in them (pid_namespaces(7)). */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>

#include "sentry/cred/user_ns.h"
#include "sentry/kernel/ns.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/task_priv.h"

#define PID_NS_DEPTH 32

OBJCOUNT_DEFINE(pid_ns);

int pid_ns_new(struct kernel *k, struct pid_ns *parent, struct user_ns *owner,
               struct pid_ns **out_ns)
{
    if (parent && parent->level >= PID_NS_DEPTH)
        return -ENOSPC;
    struct pid_ns *ns = calloc(1, sizeof(*ns));
    if (!ns)
        return -ENOMEM;
    /* Untouched pages of it cost nothing. */
    ns->table = calloc(LIMIT_TASKS + 1, sizeof(struct pid *));
    if (!ns->table) {
        free(ns);
        return -ENOMEM;
    }
    ref_init(&ns->ref);
    ns->k = k;
    ns->parent = pid_ns_get(parent);
    ns->owner = user_ns_get(owner);
    ns->level = parent ? parent->level + 1 : 1;
    ns->id = kernel_new_ns_id(k);
    idalloc_init(&ns->ids, 1, LIMIT_TASKS);
    OBJCOUNT_INC(pid_ns);
    *out_ns = ns;
    return 0;
}

struct pid_ns *pid_ns_get(struct pid_ns *ns)
{
    if (ns)
        ref_get(&ns->ref);
    return ns;
}

void pid_ns_put(struct pid_ns *ns)
{
    while (ns && ref_put(&ns->ref)) {
        struct pid_ns *parent = ns->parent;
        idalloc_fini(&ns->ids);
        user_ns_put(ns->owner);
        free(ns->table);
        OBJCOUNT_DEC(pid_ns);
        free(ns);
        ns = parent;
    }
}

int32_t task_pid_in(struct task *t, int32_t nr)
{
    struct kernel *k = t->k;

    if (LIKELY(!t->tg->pid_ns))
        return nr;
    mutex_lock(&k->mu);
    const struct pid *p = pid_find_in_locked(k, t->tg->pid_ns, nr);
    const int32_t out = p ? (int32_t)p->nr : 0;
    mutex_unlock(&k->mu);
    return out;
}

int32_t task_pid_out(struct task *t, int32_t nr)
{
    struct kernel *k = t->k;

    if (LIKELY(!t->tg->pid_ns))
        return nr;
    mutex_lock(&k->mu);
    const int32_t out = pid_out_locked(k, t->tg->pid_ns, nr);
    mutex_unlock(&k->mu);
    return out;
}

bool task_pid_capable(struct task *t)
{
    const struct pid_ns *ns = t->tg->pid_ns;

    return cred_ns_capable(t->cred, ns ? ns->owner : NULL, CAP_SYS_ADMIN);
}

int kernel_pid_ns_new(struct kernel *k, struct user_ns *owner, struct pid_ns **out_ns)
{
    return pid_ns_new(k, NULL, owner, out_ns);
}

/* ---- for /proc ---- */

struct pid_ns *kernel_pid_ns_of(struct kernel *k, int32_t nr)
{
    mutex_lock(&k->mu);
    const struct pid *p = pid_find_locked(k, nr);
    struct pid_ns *ns = p && p->task ? pid_ns_get(p->task->tg->pid_ns) : NULL;
    mutex_unlock(&k->mu);
    return ns;
}

int32_t kernel_pid_in(struct kernel *k, const struct pid_ns *ns, int32_t nr)
{
    mutex_lock(&k->mu);
    const struct pid *p = pid_find_in_locked(k, ns, nr);
    const int32_t out = p ? (int32_t)p->nr : 0;
    mutex_unlock(&k->mu);
    return out;
}

int32_t kernel_pid_out(struct kernel *k, const struct pid_ns *ns, int32_t nr)
{
    mutex_lock(&k->mu);
    const int32_t out = pid_out_locked(k, ns, nr);
    mutex_unlock(&k->mu);
    return out;
}

int32_t kernel_next_tgid_in(struct kernel *k, const struct pid_ns *ns, int32_t from)
{
    int32_t r = -ENOENT;

    if (!ns)
        return kernel_next_tgid(k, from);
    mutex_lock(&k->mu);
    for (int32_t nr = MAX(from, 1); nr <= LIMIT_TASKS && r < 0; nr++)
        if (ns->table[nr] && ns->table[nr]->tg)
            r = nr;
    mutex_unlock(&k->mu);
    return r;
}

size_t kernel_pid_chain(struct kernel *k, const struct pid_ns *ns, int32_t nr, int32_t *out,
                        size_t max)
{
    const uint32_t from = ns ? ns->level : 0;
    size_t n = 0;

    mutex_lock(&k->mu);
    const struct pid *p = pid_find_locked(k, nr);
    for (uint32_t level = from; p && level <= p->level && n < max; level++)
        out[n++] = level == 0 ? (int32_t)p->nr : (int32_t)p->slots[level - 1].nr;
    mutex_unlock(&k->mu);
    return n;
}
