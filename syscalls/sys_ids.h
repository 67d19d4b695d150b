/* User and group ids between a guest in a user namespace and the sandbox.
 * Depends on: sentry/cred/user_ns.h, task.h.
 * Threading: the task's own thread.
 * Ownership: values. */
#ifndef RINGWALL_SYSCALLS_SYS_IDS_H
#define RINGWALL_SYSCALLS_SYS_IDS_H

#include "sentry/cred/user_ns.h"
#include "sentry/kernel/task.h"

/* UINT32_MAX: there is none. */
static inline uint32_t uid_in(const struct task *t, uint32_t uid)
{
    return LIKELY(!t->cred->user_ns) ? uid : user_ns_in(t->cred->user_ns, USER_NS_UID, uid);
}

static inline uint32_t gid_in(const struct task *t, uint32_t gid)
{
    return LIKELY(!t->cred->user_ns) ? gid : user_ns_in(t->cred->user_ns, USER_NS_GID, gid);
}

/* As the guest sees them; strangers are nobody. */
static inline uint32_t uid_out(const struct task *t, uint32_t uid)
{
    return LIKELY(!t->cred->user_ns) ? uid : user_ns_show(t->cred->user_ns, USER_NS_UID, uid);
}

static inline uint32_t gid_out(const struct task *t, uint32_t gid)
{
    return LIKELY(!t->cred->user_ns) ? gid : user_ns_show(t->cred->user_ns, USER_NS_GID, gid);
}

#endif
