/* User and group ids, supplementary groups, capability sets (kernel/sys.c, kernel/capability.c). */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_ids.h"

#define ID_KEEP UINT32_MAX

/* One transaction: a private copy, changed, then published unless r says no. */
static int64_t cred_end(struct task *t, struct cred *n, int r)
{
    if (r) {
        cred_put(n);
        return r;
    }
    task_cred_commit(t, n);
    return 0;
}

typedef uint32_t (*id_in_fn)(const struct task *t, uint32_t id);

/* Ids as the guest gave them become the sandbox's; -1 stays. third: NULL, there is none. */
static int ids_in(const struct task *t, id_in_fn in, uint32_t *first, uint32_t *second,
                  uint32_t *third)
{
    uint32_t *const ids[] = {first, second, third};

    for (size_t i = 0; i < 3; i++) {
        if (!ids[i] || *ids[i] == ID_KEEP)
            continue;
        *ids[i] = in(t, *ids[i]);
        if (*ids[i] == ID_KEEP)
            return -EINVAL;
    }
    return 0;
}

int64_t sys_getuid(struct task *t)
{
    return uid_out(t, t->cred->uid);
}

int64_t sys_geteuid(struct task *t)
{
    return uid_out(t, t->cred->euid);
}

int64_t sys_getgid(struct task *t)
{
    return gid_out(t, t->cred->gid);
}

int64_t sys_getegid(struct task *t)
{
    return gid_out(t, t->cred->egid);
}

static int64_t three_ids(struct task *t, uaddr_t r, uaddr_t e, uaddr_t s, const uint32_t ids[3])
{
    int err = copyout_obj(&t->ua, r, &ids[0]);

    if (!err)
        err = copyout_obj(&t->ua, e, &ids[1]);
    if (!err)
        err = copyout_obj(&t->ua, s, &ids[2]);
    return err;
}

int64_t sys_getresuid(struct task *t, uaddr_t ruid, uaddr_t euid, uaddr_t suid)
{
    const uint32_t ids[3] = {uid_out(t, t->cred->uid), uid_out(t, t->cred->euid),
                             uid_out(t, t->cred->suid)};

    return three_ids(t, ruid, euid, suid, ids);
}

int64_t sys_getresgid(struct task *t, uaddr_t rgid, uaddr_t egid, uaddr_t sgid)
{
    const uint32_t ids[3] = {gid_out(t, t->cred->gid), gid_out(t, t->cred->egid),
                             gid_out(t, t->cred->sgid)};

    return three_ids(t, rgid, egid, sgid, ids);
}

/* ---- user ids ---- */

int64_t sys_setuid(struct task *t, uint32_t uid)
{
    const struct cred *o = t->cred;
    struct cred *n;

    uid = uid_in(t, uid);
    if (uid == ID_KEEP)
        return -EINVAL;
    int r = cred_dup(o, &n);
    if (r)
        return r;
    if (cred_self_capable(o, CAP_SETUID))
        n->uid = n->suid = uid;
    else if (uid != o->uid && uid != o->suid)
        r = -EPERM;
    n->euid = n->fsuid = uid;
    cred_fix_caps_after_setuid(n, o);
    return cred_end(t, n, r);
}

int64_t sys_setreuid(struct task *t, uint32_t ruid, uint32_t euid)
{
    const struct cred *o = t->cred;
    const bool cap = cred_self_capable(o, CAP_SETUID);
    struct cred *n;
    int r = ids_in(t, uid_in, &ruid, &euid, NULL);

    if (r)
        return r;
    r = cred_dup(o, &n);

    if (r)
        return r;
    if (ruid != ID_KEEP) {
        n->uid = ruid;
        if (ruid != o->uid && ruid != o->euid && !cap)
            r = -EPERM;
    }
    if (euid != ID_KEEP) {
        n->euid = euid;
        if (euid != o->uid && euid != o->euid && euid != o->suid && !cap)
            r = -EPERM;
    }
    if (ruid != ID_KEEP || (euid != ID_KEEP && euid != o->uid))
        n->suid = n->euid;
    n->fsuid = n->euid;
    cred_fix_caps_after_setuid(n, o);
    return cred_end(t, n, r);
}

static bool is_one_of(uint32_t id, uint32_t a, uint32_t b, uint32_t c)
{
    return id == ID_KEEP || id == a || id == b || id == c;
}

int64_t sys_setresuid(struct task *t, uint32_t ruid, uint32_t euid, uint32_t suid)
{
    const struct cred *o = t->cred;
    struct cred *n;
    int r = ids_in(t, uid_in, &ruid, &euid, &suid);

    if (r)
        return r;
    if (!cred_self_capable(o, CAP_SETUID) &&
        (!is_one_of(ruid, o->uid, o->euid, o->suid) || !is_one_of(euid, o->uid, o->euid, o->suid) ||
         !is_one_of(suid, o->uid, o->euid, o->suid)))
        return -EPERM;
    r = cred_dup(o, &n);
    if (r)
        return r;
    if (ruid != ID_KEEP)
        n->uid = ruid;
    if (euid != ID_KEEP)
        n->euid = euid;
    if (suid != ID_KEEP)
        n->suid = suid;
    n->fsuid = n->euid;
    cred_fix_caps_after_setuid(n, o);
    return cred_end(t, n, 0);
}

/* Returns the old id whatever happens. */
int64_t sys_setfsuid(struct task *t, uint32_t uid)
{
    const struct cred *o = t->cred;
    const uint32_t old = uid_out(t, o->fsuid);
    struct cred *n;

    uid = uid_in(t, uid);
    if (uid == ID_KEEP || uid == o->fsuid)
        return old;
    if (!is_one_of(uid, o->uid, o->euid, o->suid) && !cred_self_capable(o, CAP_SETUID))
        return old;
    if (cred_dup(o, &n))
        return old;
    n->fsuid = uid;
    cred_fix_caps_after_setuid(n, o);
    task_cred_commit(t, n);
    return old;
}

/* ---- group ids ---- */

int64_t sys_setgid(struct task *t, uint32_t gid)
{
    const struct cred *o = t->cred;
    struct cred *n;

    gid = gid_in(t, gid);
    if (gid == ID_KEEP)
        return -EINVAL;
    int r = cred_dup(o, &n);
    if (r)
        return r;
    if (cred_self_capable(o, CAP_SETGID))
        n->gid = n->sgid = gid;
    else if (gid != o->gid && gid != o->sgid)
        r = -EPERM;
    n->egid = n->fsgid = gid;
    return cred_end(t, n, r);
}

int64_t sys_setregid(struct task *t, uint32_t rgid, uint32_t egid)
{
    const struct cred *o = t->cred;
    const bool cap = cred_self_capable(o, CAP_SETGID);
    struct cred *n;
    int r = ids_in(t, gid_in, &rgid, &egid, NULL);

    if (r)
        return r;
    r = cred_dup(o, &n);

    if (r)
        return r;
    if (rgid != ID_KEEP) {
        n->gid = rgid;
        if (rgid != o->gid && rgid != o->egid && !cap)
            r = -EPERM;
    }
    if (egid != ID_KEEP) {
        n->egid = egid;
        if (egid != o->gid && egid != o->egid && egid != o->sgid && !cap)
            r = -EPERM;
    }
    if (rgid != ID_KEEP || (egid != ID_KEEP && egid != o->gid))
        n->sgid = n->egid;
    n->fsgid = n->egid;
    return cred_end(t, n, r);
}

int64_t sys_setresgid(struct task *t, uint32_t rgid, uint32_t egid, uint32_t sgid)
{
    const struct cred *o = t->cred;
    struct cred *n;
    int r = ids_in(t, gid_in, &rgid, &egid, &sgid);

    if (r)
        return r;
    if (!cred_self_capable(o, CAP_SETGID) &&
        (!is_one_of(rgid, o->gid, o->egid, o->sgid) || !is_one_of(egid, o->gid, o->egid, o->sgid) ||
         !is_one_of(sgid, o->gid, o->egid, o->sgid)))
        return -EPERM;
    r = cred_dup(o, &n);
    if (r)
        return r;
    if (rgid != ID_KEEP)
        n->gid = rgid;
    if (egid != ID_KEEP)
        n->egid = egid;
    if (sgid != ID_KEEP)
        n->sgid = sgid;
    n->fsgid = n->egid;
    return cred_end(t, n, 0);
}

int64_t sys_setfsgid(struct task *t, uint32_t gid)
{
    const struct cred *o = t->cred;
    const uint32_t old = gid_out(t, o->fsgid);
    struct cred *n;

    gid = gid_in(t, gid);
    if (gid == ID_KEEP || gid == o->fsgid)
        return old;
    if (!is_one_of(gid, o->gid, o->egid, o->sgid) && !cred_self_capable(o, CAP_SETGID))
        return old;
    if (cred_dup(o, &n))
        return old;
    n->fsgid = gid;
    task_cred_commit(t, n);
    return old;
}

/* ---- supplementary groups ---- */

static int groups_copyout(struct task *t, uaddr_t list, const struct cred *c)
{
    if (LIKELY(!c->user_ns))
        return copyout_array(&t->ua, list, c->groups, c->group_count, sizeof(*c->groups));
    int r = 0;
    for (uint32_t i = 0; !r && i < c->group_count; i++) {
        const uint32_t gid = gid_out(t, c->groups[i]);
        r = copyout_obj(&t->ua, uaddr_add(list, i * sizeof(gid)), &gid);
    }
    return r;
}

int64_t sys_getgroups(struct task *t, int size, uaddr_t list)
{
    const struct cred *c = t->cred;

    if (size < 0)
        return -EINVAL;
    if (size > 0) {
        if ((uint32_t)size < c->group_count)
            return -EINVAL;
        int r = groups_copyout(t, list, c);
        if (r)
            return r;
    }
    return c->group_count;
}

int64_t sys_setgroups(struct task *t, int size, uaddr_t list)
{
    uint32_t *groups = NULL;
    struct cred *n;

    if (!cred_self_capable(t->cred, CAP_SETGID) || !user_ns_may_setgroups(t->cred->user_ns))
        return -EPERM;
    if ((unsigned)size > CRED_GROUPS_MAX)
        return -EINVAL;
    int r = cred_dup(t->cred, &n);
    if (r)
        return r;
    if (size > 0) {
        groups = calloc((size_t)size, sizeof(*groups));
        r = groups ? copyin_array(&t->ua, groups, list, (size_t)size, sizeof(*groups)) : -ENOMEM;
    }
    for (int i = 0; !r && i < size; i++) {
        groups[i] = gid_in(t, groups[i]);
        if (groups[i] == ID_KEEP)
            r = -EINVAL;
    }
    if (!r)
        r = cred_set_groups(n, groups, (size_t)size);
    free(groups);
    return cred_end(t, n, r);
}

/* ---- capabilities ---- */

/* Words of 32 bits per set by the header's version; an unknown one is answered with ours. */
static int cap_header(struct task *t, uaddr_t header, struct __user_cap_header_struct *h,
                      size_t *out_words)
{
    const uint32_t ours = _LINUX_CAPABILITY_VERSION_3;
    int r = copyin_obj(&t->ua, h, header);

    if (r)
        return r;
    switch (h->version) {
    case _LINUX_CAPABILITY_VERSION_1:
        *out_words = 1;
        return 0;
    case _LINUX_CAPABILITY_VERSION_2:
    case _LINUX_CAPABILITY_VERSION_3:
        *out_words = 2;
        return 0;
    default:
        r = copyout_obj(&t->ua, header, &ours);
        return r ? r : -EINVAL;
    }
}

int64_t sys_capget(struct task *t, uaddr_t header, uaddr_t data)
{
    struct __user_cap_header_struct h;
    struct __user_cap_data_struct d[2];
    struct task *o;
    size_t words;
    int r = cap_header(t, header, &h, &words);

    if (r)
        return r == -EINVAL && uaddr_is_null(data) ? 0 : r;
    if (h.pid < 0)
        return -EINVAL;
    r = task_find(t, h.pid, &o);
    if (r)
        return r;
    struct cred *c = task_get_cred(o);
    task_put(o);
    if (!c)
        return -ESRCH;
    for (size_t i = 0; i < 2; i++) {
        d[i].effective = (uint32_t)(c->cap_effective >> (32 * i));
        d[i].permitted = (uint32_t)(c->cap_permitted >> (32 * i));
        d[i].inheritable = (uint32_t)(c->cap_inheritable >> (32 * i));
    }
    cred_put(c);
    return copyout_array(&t->ua, data, d, words, sizeof(d[0]));
}

/* security/commoncap.c: cap_capset. */
static int capset_check(const struct cred *o, const struct cred *n)
{
    const uint64_t inheritable = n->cap_inheritable;

    if (!cred_self_capable(o, CAP_SETPCAP) &&
        (inheritable & ~(o->cap_inheritable | o->cap_permitted)))
        return -EPERM;
    if (inheritable & ~(o->cap_inheritable | o->cap_bounding))
        return -EPERM;
    if (n->cap_permitted & ~o->cap_permitted)
        return -EPERM;
    return n->cap_effective & ~n->cap_permitted ? -EPERM : 0;
}

int64_t sys_capset(struct task *t, uaddr_t header, uaddr_t data)
{
    const uint64_t valid = (2ull << CAP_LAST_CAP) - 1;
    struct __user_cap_header_struct h;
    struct __user_cap_data_struct d[2];
    struct cred *n;
    size_t words;
    int r = cap_header(t, header, &h, &words);

    if (r)
        return r;
    if (h.pid != 0 && h.pid != t->vtid)
        return -EPERM;
    memset(d, 0, sizeof(d));
    r = copyin_array(&t->ua, d, data, words, sizeof(d[0]));
    if (r)
        return r;
    r = cred_dup(t->cred, &n);
    if (r)
        return r;
    n->cap_effective = (d[0].effective | (uint64_t)d[1].effective << 32) & valid;
    n->cap_permitted = (d[0].permitted | (uint64_t)d[1].permitted << 32) & valid;
    n->cap_inheritable = (d[0].inheritable | (uint64_t)d[1].inheritable << 32) & valid;
    n->cap_ambient &= n->cap_permitted & n->cap_inheritable;
    return cred_end(t, n, capset_check(t->cred, n));
}
