/* Who may look into whom, or stop it (kernel/ptrace.c: __ptrace_may_access). */
#include <errno.h>
#include <linux/capability.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/task_priv.h"
#include "sentry/vfs/landlock.h"

static bool access_same_ids(uint32_t uid, uint32_t gid, const struct cred *o)
{
    return uid == o->euid && uid == o->suid && uid == o->uid && gid == o->egid && gid == o->sgid &&
           gid == o->gid;
}

static bool access_permitted(const struct cred *c, const struct cred *oc, int dumpable,
                             enum task_access mode)
{
    const bool real = mode == TASK_ACCESS_REAL;
    const bool cap = cred_ns_capable(c, oc->user_ns, CAP_SYS_PTRACE);
    const uint32_t uid = real ? c->uid : c->fsuid, gid = real ? c->gid : c->fsgid;

    if (cap)
        return true;
    if (!access_same_ids(uid, gid, oc) || dumpable != 1)
        return false;
    /* cap_ptrace_access_check */
    return c->user_ns == oc->user_ns &&
           !(oc->cap_permitted & ~(real ? c->cap_permitted : c->cap_effective));
}

bool task_may_access(struct task *t, struct task *o, enum task_access mode)
{
    if (t->tg == o->tg)
        return true;
    struct cred *oc = task_get_cred(o);
    if (!oc)
        return false;
    const int dumpable = atomic_load_explicit(&o->tg->dumpable, memory_order_relaxed);
    const bool ok = access_permitted(t->cred, oc, dumpable, mode) &&
                    landlock_may_trace(t->cred->domain, oc->domain);
    cred_put(oc);
    return ok;
}

bool task_may_set_limits(struct task *t, struct task *o)
{
    if (t == o)
        return true;
    struct cred *oc = task_get_cred(o);
    if (!oc)
        return false;
    const bool ok = access_same_ids(t->cred->uid, t->cred->gid, oc) ||
                    cred_ns_capable(t->cred, oc->user_ns, CAP_SYS_RESOURCE);
    cred_put(oc);
    return ok;
}
