/* landlock_create_ruleset(2), landlock_add_rule(2), landlock_restrict_self(2). */
#include <errno.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <string.h>

#include "sentry/kernel/process.h"
#include "sentry/vfs/landlock.h"
#include "syscalls/handlers.h"

/* linux/landlock.h of later versions. */
struct lx_landlock_ruleset_attr {
    uint64_t handled_access_fs, handled_access_net, scoped;
};
struct lx_landlock_net_port_attr {
    uint64_t allowed_access, port;
};
#define LX_LANDLOCK_CREATE_RULESET_VERSION 1u
#define LX_LANDLOCK_CREATE_RULESET_ERRATA 2u
#define LX_LANDLOCK_RULE_NET_PORT 2
#define LX_LANDLOCK_LOG_FLAGS 7u
#define LX_LANDLOCK_LOG_SUBDOMAINS_OFF 4u

static int64_t ruleset_about(unsigned flags, uaddr_t attr, uint64_t size)
{
    if (!uaddr_is_null(attr) || size != 0)
        return -EINVAL;
    switch (flags) {
    case LX_LANDLOCK_CREATE_RULESET_VERSION:
        return LANDLOCK_ABI;
    case LX_LANDLOCK_CREATE_RULESET_ERRATA:
        return LANDLOCK_FIXED;
    default:
        return -EINVAL;
    }
}

static int ruleset_attr(struct task *t, uaddr_t addr, uint64_t size,
                        struct lx_landlock_ruleset_attr *out)
{
    memset(out, 0, sizeof(*out));
    if (uaddr_is_null(addr))
        return -EFAULT;
    if (size < sizeof(out->handled_access_fs))
        return -EINVAL;
    if (size > PAGE_SIZE)
        return -E2BIG;
    int r = copyin_struct(&t->ua, out, sizeof(*out), addr, (size_t)size);
    if (r)
        return r;
    if ((out->handled_access_fs & ~(uint64_t)LANDLOCK_FS_ALL) ||
        (out->handled_access_net & ~(uint64_t)LANDLOCK_NET_ALL) ||
        (out->scoped & ~(uint64_t)LANDLOCK_SCOPE_ALL))
        return -EINVAL;
    return out->handled_access_fs || out->handled_access_net || out->scoped ? 0 : -ENOMSG;
}

int64_t sys_landlock_create_ruleset(struct task *t, uaddr_t addr, uint64_t size, unsigned flags)
{
    struct lx_landlock_ruleset_attr a;
    struct file *f;

    if (flags)
        return ruleset_about(flags, addr, size);
    int r = ruleset_attr(t, addr, size, &a);
    if (r)
        return r;
    r = landlock_ruleset_file((uint32_t)a.handled_access_fs, (uint32_t)a.handled_access_net,
                              (uint32_t)a.scoped, &f);
    if (r)
        return r;
    r = task_fd_install(t, f, true, 0);
    file_put(f);
    return r;
}

/* Owned *out_file, which keeps *out. */
static int ruleset_get(struct task *t, int fd, struct file **out_file,
                       struct landlock_ruleset **out)
{
    struct file *f;
    int r = task_file(t, fd, &f);

    if (r)
        return r;
    r = landlock_ruleset_of(f, out);
    if (r)
        file_put(f);
    else
        *out_file = f;
    return r;
}

static int add_path(struct task *t, struct landlock_ruleset *rs, uaddr_t addr)
{
    struct landlock_path_beneath_attr a;
    struct file *place;
    int r = copyin_obj(&t->ua, &a, addr);

    if (r)
        return r;
    if (!a.allowed_access)
        return -ENOMSG;
    if (a.allowed_access & ~(uint64_t)landlock_ruleset_fs(rs))
        return -EINVAL;
    r = task_file_any(t, a.parent_fd, &place);
    if (r)
        return r;
    r = landlock_add_path(rs, &place->path, (uint32_t)a.allowed_access);
    file_put(place);
    return r;
}

static int add_port(struct task *t, struct landlock_ruleset *rs, uaddr_t addr)
{
    struct lx_landlock_net_port_attr a;
    int r = copyin_obj(&t->ua, &a, addr);

    if (r)
        return r;
    return a.allowed_access ? landlock_add_port(rs, a.port, a.allowed_access) : -ENOMSG;
}

int64_t sys_landlock_add_rule(struct task *t, int fd, int type, uaddr_t addr, unsigned flags)
{
    struct landlock_ruleset *rs;
    struct file *f;

    if (flags)
        return -EINVAL;
    int r = ruleset_get(t, fd, &f, &rs);
    if (r)
        return r;
    switch (type) {
    case LANDLOCK_RULE_PATH_BENEATH:
        r = add_path(t, rs, addr);
        break;
    case LX_LANDLOCK_RULE_NET_PORT:
        r = add_port(t, rs, addr);
        break;
    default:
        r = -EINVAL;
    }
    file_put(f);
    return r;
}

int64_t sys_landlock_restrict_self(struct task *t, int fd, unsigned flags)
{
    struct landlock_ruleset *rs;
    struct file *f;
    struct cred *n;

    if (!t->cred->no_new_privs && !cred_self_capable(t->cred, CAP_SYS_ADMIN))
        return -EPERM;
    if (flags & ~LX_LANDLOCK_LOG_FLAGS)
        return -EINVAL;
    /* What is denied is not written to any log, so there is nothing to be turned off. */
    if (fd == -1 && flags == LX_LANDLOCK_LOG_SUBDOMAINS_OFF)
        return 0;
    int r = ruleset_get(t, fd, &f, &rs);
    if (r)
        return r;
    r = cred_dup(t->cred, &n);
    if (!r) {
        r = landlock_restrict(n, rs);
        if (r)
            cred_put(n);
        else
            task_cred_commit(t, n);
    }
    file_put(f);
    return r;
}
