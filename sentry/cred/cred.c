/* Credentials and the capability rules of set*id and execve. */
#include "sentry/cred/cred.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdlib.h>
#include <string.h>

#include "base/objcount.h"
#include "base/sort.h"
#include "sentry/cred/user_ns.h"

OBJCOUNT_DEFINE(cred);

#define CAP_BIT(cap) (1ull << (cap))
/* What setfsuid(2) moves with fsuid (linux/capability.h, CAP_FS_SET). */
#define CAP_FS_BITS                                                                                \
    (CAP_BIT(CAP_CHOWN) | CAP_BIT(CAP_MKNOD) | CAP_BIT(CAP_DAC_OVERRIDE) |                         \
     CAP_BIT(CAP_DAC_READ_SEARCH) | CAP_BIT(CAP_FOWNER) | CAP_BIT(CAP_FSETID) |                    \
     CAP_BIT(CAP_LINUX_IMMUTABLE) | CAP_BIT(CAP_MAC_OVERRIDE))

int cred_new_root(uint64_t caps, struct cred **out_cred)
{
    struct cred *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    ref_init(&c->ref);
    c->cap_effective = c->cap_permitted = c->cap_bounding = caps;
    OBJCOUNT_INC(cred);
    *out_cred = c;
    return 0;
}

int cred_dup(const struct cred *c, struct cred **out_cred)
{
    struct cred *n = malloc(sizeof(*n));

    if (!n)
        return -ENOMEM;
    memcpy(n, c, sizeof(*n));
    ref_init(&n->ref);
    n->groups = NULL;
    if (c->group_count > 0) {
        n->groups = calloc(c->group_count, sizeof(*n->groups));
        if (!n->groups) {
            free(n);
            return -ENOMEM;
        }
        memcpy(n->groups, c->groups, c->group_count * sizeof(*n->groups));
    }
    (void)user_ns_get(n->user_ns);
    if (n->domain)
        ref_get(&n->domain->ref);
    OBJCOUNT_INC(cred);
    *out_cred = n;
    return 0;
}

static int group_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

int cred_set_groups(struct cred *c, const uint32_t *groups, size_t count)
{
    uint32_t *copy = NULL;

    if (count > CRED_GROUPS_MAX)
        return -EINVAL;
    if (count > 0) {
        copy = calloc(count, sizeof(*copy));
        if (!copy)
            return -ENOMEM;
        memcpy(copy, groups, count * sizeof(*copy));
        sort_items(copy, count, sizeof(*copy), group_compare);
    }
    free(c->groups);
    c->groups = copy;
    c->group_count = (uint32_t)count;
    return 0;
}

struct cred *cred_get(struct cred *c)
{
    ref_get(&c->ref);
    return c;
}

void cred_put(struct cred *c)
{
    if (!c || !ref_put(&c->ref))
        return;
    user_ns_put(c->user_ns);
    if (c->domain && ref_put(&c->domain->ref))
        c->domain->release(c->domain);
    free(c->groups);
    free(c);
    OBJCOUNT_DEC(cred);
}

bool cred_self_capable(const struct cred *c, int cap)
{
    return cap >= 0 && cap < 64 && (c->cap_effective & CAP_BIT(cap));
}

bool cred_capable(const struct cred *c, int cap)
{
    return !c->user_ns && cred_self_capable(c, cap);
}

/* security/commoncap.c: cap_capable. Who made a namespace and stands in its parent may do all. */
bool cred_ns_capable(const struct cred *c, const struct user_ns *ns, int cap)
{
    const uint32_t level = c->user_ns ? c->user_ns->level : 0;

    for (; ns != c->user_ns; ns = ns->parent) {
        if (!ns || ns->level <= level)
            return false;
        if (ns->parent == c->user_ns && ns->owner == c->euid)
            return true;
    }
    return cred_self_capable(c, cap);
}

bool cred_file_capable(const struct cred *c, uint32_t uid, uint32_t gid, int cap)
{
    if (!cred_self_capable(c, cap))
        return false;
    return !c->user_ns || (user_ns_out(c->user_ns, USER_NS_UID, uid) != USER_NS_NONE &&
                           user_ns_out(c->user_ns, USER_NS_GID, gid) != USER_NS_NONE);
}

void cred_enter_user_ns(struct cred *c, struct user_ns *ns)
{
    const uint64_t all = (CAP_BIT(CAP_LAST_CAP) << 1) - 1;

    user_ns_put(c->user_ns);
    c->user_ns = ns;
    c->securebits = 0;
    c->cap_inheritable = 0;
    c->cap_permitted = c->cap_effective = c->cap_bounding = all;
    c->cap_ambient = 0;
}

bool cred_in_group(const struct cred *c, uint32_t gid)
{
    uint32_t lo = 0, hi = c->group_count;

    if (c->fsgid == gid)
        return true;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (c->groups[mid] == gid)
            return true;
        if (c->groups[mid] < gid)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}

/* Id 0 inside; one that nobody has when there is none. */
static uint32_t cred_root_id(const struct cred *c)
{
    return user_ns_in(c->user_ns, USER_NS_UID, 0);
}

static void fix_caps_after_setfsuid(struct cred *c, const struct cred *old)
{
    const uint32_t root = cred_root_id(c);

    if (old->fsuid == root && c->fsuid != root)
        c->cap_effective &= ~CAP_FS_BITS;
    if (old->fsuid != root && c->fsuid == root)
        c->cap_effective |= c->cap_permitted & CAP_FS_BITS;
}

/* security/commoncap.c: cap_task_fix_setuid. setfsuid is told by fsuid being all that changed. */
void cred_fix_caps_after_setuid(struct cred *c, const struct cred *old)
{
    if (c->securebits & SECBIT_NO_SETUID_FIXUP)
        return;
    if (c->uid == old->uid && c->euid == old->euid && c->suid == old->suid) {
        fix_caps_after_setfsuid(c, old);
        return;
    }
    const uint32_t root = cred_root_id(c);
    bool had_root = old->uid == root || old->euid == root || old->suid == root;
    bool has_root = c->uid == root || c->euid == root || c->suid == root;
    if (had_root && !has_root) {
        if (!(c->securebits & SECBIT_KEEP_CAPS)) {
            c->cap_permitted = 0;
            c->cap_effective = 0;
        }
        /* Even with keep-caps: programs that drop root do not know about ambient ones. */
        c->cap_ambient = 0;
    }
    if (old->euid == root && c->euid != root)
        c->cap_effective = 0;
    if (old->euid != root && c->euid == root)
        c->cap_effective = c->cap_permitted;
}

bool cred_caps_subset(const struct cred *n, const struct cred *o)
{
    return !(n->cap_permitted & ~o->cap_permitted);
}

/* handle_privileged_root */
static void exec_root_caps(struct cred *c, const struct cred *old, bool has_file, bool *effective)
{
    const uint32_t root = cred_root_id(c);

    if (c->securebits & SECBIT_NOROOT)
        return;
    /* The file says what it needs: then its set-user-ID bit gives no more than the id. */
    if (has_file && c->uid != root && c->euid == root)
        return;
    if (c->euid == root || c->uid == root)
        c->cap_permitted = old->cap_bounding | old->cap_inheritable;
    if (c->euid == root)
        *effective = true;
}

static int exec_file_caps(struct cred *c, const struct cred_file_caps *file, bool *effective)
{
    c->cap_permitted = 0;
    if (!file)
        return 0;
    *effective = file->effective;
    c->cap_permitted =
        (c->cap_bounding & file->permitted) | (c->cap_inheritable & file->inheritable);
    return *effective && (file->permitted & ~c->cap_permitted) ? -EPERM : 0;
}

/* security/commoncap.c: cap_bprm_creds_from_file. */
int cred_caps_at_exec(struct cred *c, const struct cred *old, const struct cred_file_caps *file,
                      bool unsafe, bool *out_secure)
{
    const uint32_t root = cred_root_id(c);
    bool effective = false;
    int r = exec_file_caps(c, file, &effective);

    if (r)
        return r;
    exec_root_caps(c, old, file != NULL, &effective);
    bool id_changed = c->euid != old->euid || c->egid != old->egid;
    if ((id_changed || !cred_caps_subset(c, old)) && (unsafe || c->no_new_privs)) {
        if (!cred_self_capable(c, CAP_SETUID) || c->no_new_privs) {
            c->euid = c->uid;
            c->egid = c->gid;
        }
        c->cap_permitted &= old->cap_permitted;
    }
    if (file || id_changed)
        c->cap_ambient = 0;
    c->suid = c->fsuid = c->euid;
    c->sgid = c->fsgid = c->egid;
    c->cap_permitted |= c->cap_ambient;
    c->cap_effective = effective ? c->cap_permitted : c->cap_ambient;
    c->securebits &= ~(uint32_t)SECBIT_KEEP_CAPS;
    *out_secure = id_changed || c->euid != old->uid || c->egid != old->gid ||
                  (c->uid != root && (effective || (c->cap_permitted & ~c->cap_ambient)));
    return 0;
}
