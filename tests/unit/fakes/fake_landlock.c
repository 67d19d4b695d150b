/* Nobody is restricted by Landlock here. */
#include <errno.h>

#include "sentry/vfs/landlock.h"

int landlock_path(const struct vfs_caller *c, const struct vpath *p, uint32_t access)
{
    (void)c, (void)p, (void)access;
    return 0;
}

bool landlock_fixes_mounts(const struct cred *c)
{
    (void)c;
    return false;
}

int landlock_port(const struct cred *c, int family, const void *addr, size_t len, uint32_t access)
{
    (void)c, (void)family, (void)addr, (void)len, (void)access;
    return 0;
}

bool landlock_out_of_scope(const struct cred *c, const struct cred_domain *other, uint32_t scope)
{
    (void)c, (void)other, (void)scope;
    return false;
}

bool landlock_may_trace(const struct cred_domain *tracer, const struct cred_domain *tracee)
{
    (void)tracer, (void)tracee;
    return true;
}

int landlock_ruleset_file(uint32_t fs, uint32_t net, uint32_t scoped, struct file **out_file)
{
    (void)fs, (void)net, (void)scoped, (void)out_file;
    return -ENOMEM;
}

int landlock_ruleset_of(struct file *f, struct landlock_ruleset **out)
{
    (void)f, (void)out;
    return -EBADFD;
}

uint32_t landlock_ruleset_fs(const struct landlock_ruleset *rs)
{
    (void)rs;
    return 0;
}

int landlock_add_path(struct landlock_ruleset *rs, const struct vpath *p, uint32_t access)
{
    (void)rs, (void)p, (void)access;
    return -EINVAL;
}

int landlock_add_port(struct landlock_ruleset *rs, uint64_t port, uint64_t access)
{
    (void)rs, (void)port, (void)access;
    return -EINVAL;
}

int landlock_restrict(struct cred *c, struct landlock_ruleset *rs)
{
    (void)c, (void)rs;
    return -ENOMEM;
}
