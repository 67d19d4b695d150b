/* seccomp(2). */
#include <errno.h>
#include <linux/seccomp.h>

#include "sentry/kernel/seccomp.h"
#include "syscalls/handlers.h"

static int64_t seccomp_avail(struct task *t, unsigned flags, uaddr_t args)
{
    uint32_t action;

    if (flags)
        return -EINVAL;
    int r = copyin_obj(&t->ua, &action, args);
    if (r)
        return r;
    return seccomp_action_known(action) ? 0 : -EOPNOTSUPP;
}

static int64_t seccomp_sizes(struct task *t, unsigned flags, uaddr_t args)
{
    const struct seccomp_notif_sizes sizes = {
        .seccomp_notif = sizeof(struct seccomp_notif),
        .seccomp_notif_resp = sizeof(struct seccomp_notif_resp),
        .seccomp_data = sizeof(struct seccomp_data),
    };

    return flags ? -EINVAL : copyout_obj(&t->ua, args, &sizes);
}

int64_t sys_seccomp(struct task *t, unsigned op, unsigned flags, uaddr_t args)
{
    switch (op) {
    case SECCOMP_SET_MODE_STRICT:
        return flags || !uaddr_is_null(args) ? -EINVAL : task_seccomp_strict(t);
    case SECCOMP_SET_MODE_FILTER:
        return task_seccomp_filter(t, flags, args);
    case SECCOMP_GET_ACTION_AVAIL:
        return seccomp_avail(t, flags, args);
    case SECCOMP_GET_NOTIF_SIZES:
        return seccomp_sizes(t, flags, args);
    default:
        return -EINVAL;
    }
}
