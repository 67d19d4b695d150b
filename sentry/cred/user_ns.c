/* User namespaces (kernel/user_namespace.c). */
#include "sentry/cred/user_ns.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

#include "base/objcount.h"

OBJCOUNT_DEFINE(user_ns);

/* ---- objects ---- */

int user_ns_new(const struct cred *c, uint64_t id, struct user_ns **out_ns)
{
    struct user_ns *parent = c->user_ns;

    if (parent && parent->level >= USER_NS_DEPTH)
        return -ENOSPC;
    if (user_ns_out(parent, USER_NS_UID, c->euid) == USER_NS_NONE ||
        user_ns_out(parent, USER_NS_GID, c->egid) == USER_NS_NONE)
        return -EPERM;
    struct user_ns *ns = calloc(1, sizeof(*ns));
    if (!ns)
        return -ENOMEM;
    ref_init(&ns->ref);
    mutex_init(&ns->mu, LOCK_RANK_NAMESPACE);
    ns->parent = user_ns_get(parent);
    ns->level = parent ? parent->level + 1 : 1;
    ns->owner = c->euid;
    ns->group = c->egid;
    ns->id = id;
    ns->parent_could_setfcap = c->cap_effective >> CAP_SETFCAP & 1;
    atomic_store(&ns->setgroups_denied, parent && atomic_load(&parent->setgroups_denied));
    OBJCOUNT_INC(user_ns);
    *out_ns = ns;
    return 0;
}

struct user_ns *user_ns_get(struct user_ns *ns)
{
    if (ns)
        ref_get(&ns->ref);
    return ns;
}

void user_ns_put(struct user_ns *ns)
{
    while (ns && ref_put(&ns->ref)) {
        struct user_ns *parent = ns->parent;
        for (size_t i = 0; i < USER_NS_MAPS; i++)
            free(atomic_load(&ns->maps[i]));
        mutex_destroy(&ns->mu);
        OBJCOUNT_DEC(user_ns);
        free(ns);
        ns = parent;
    }
}

bool user_ns_is_below(const struct user_ns *ns, const struct user_ns *top)
{
    for (; ns; ns = ns->parent)
        if (ns == top)
            return true;
    return !top;
}

/* ---- ids ---- */

static const struct user_ns_table *map_of(const struct user_ns *ns, enum user_ns_map map)
{
    return atomic_load_explicit(&ns->maps[map], memory_order_acquire);
}

uint32_t user_ns_in(const struct user_ns *ns, enum user_ns_map map, uint32_t id)
{
    if (!ns)
        return id;
    const struct user_ns_table *t = map_of(ns, map);
    for (uint32_t i = 0; t && i < t->count; i++) {
        const struct user_ns_extent *e = &t->extents[i];
        if (id >= e->inside && id - e->inside < e->count)
            return e->outside + (id - e->inside);
    }
    return USER_NS_NONE;
}

uint32_t user_ns_out(const struct user_ns *ns, enum user_ns_map map, uint32_t id)
{
    if (!ns)
        return id;
    const struct user_ns_table *t = map_of(ns, map);
    for (uint32_t i = 0; t && i < t->count; i++) {
        const struct user_ns_extent *e = &t->extents[i];
        if (id >= e->outside && id - e->outside < e->count)
            return e->inside + (id - e->outside);
    }
    return USER_NS_NONE;
}

uint32_t user_ns_show(const struct user_ns *ns, enum user_ns_map map, uint32_t id)
{
    const uint32_t out = user_ns_out(ns, map, id);

    return ns && out == USER_NS_NONE ? USER_NS_NOBODY : out;
}

/* ---- setting a map ---- */

static bool parse_number(const char **at, uint32_t *out)
{
    const char *p = *at;
    uint64_t v = 0;

    while (*p == ' ' || *p == '\t')
        p++;
    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        v = v * 10 + (uint64_t)(*p - '0');
        if (v > UINT32_MAX)
            return false;
    }
    *out = (uint32_t)v;
    *at = p;
    return true;
}

static bool ranges_meet(uint32_t a, uint32_t b, uint32_t a_count, uint32_t b_count)
{
    return a < b ? b - a < a_count : a - b < b_count;
}

static bool extent_fits(const struct user_ns_extent *all, uint32_t count,
                        const struct user_ns_extent *e)
{
    if (e->count == 0 || e->inside == USER_NS_NONE || e->outside == USER_NS_NONE ||
        e->inside + e->count < e->inside || e->outside + e->count < e->outside)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (ranges_meet(all[i].inside, e->inside, all[i].count, e->count) ||
            ranges_meet(all[i].outside, e->outside, all[i].count, e->count))
            return false;
    return true;
}

static int map_parse(const char *text, struct user_ns_table *t)
{
    while (*text) {
        struct user_ns_extent e;
        if (t->count == USER_NS_EXTENTS || !parse_number(&text, &e.inside) ||
            !parse_number(&text, &e.outside) || !parse_number(&text, &e.count))
            return -EINVAL;
        while (*text == ' ' || *text == '\t')
            text++;
        if (*text && *text != '\n')
            return -EINVAL;
        if (*text)
            text++;
        if (!extent_fits(t->extents, t->count, &e))
            return -EINVAL;
        t->extents[t->count++] = e;
    }
    return t->count ? 0 : -EINVAL;
}

static int map_cap(enum user_ns_map map)
{
    return map == USER_NS_UID ? CAP_SETUID : CAP_SETGID;
}

/* Root outside, with file capabilities to give away, is worth more than a user id. */
static bool map_root_permitted(const struct user_ns *ns, const struct cred *c,
                               const struct user_ns_table *t)
{
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->extents[i].outside != 0)
            continue;
        return c->user_ns == ns ? ns->parent_could_setfcap
                                : cred_ns_capable(c, ns->parent, CAP_SETFCAP);
    }
    return true;
}

/* new_idmap_permitted */
static bool map_permitted(const struct user_ns *ns, enum user_ns_map map, const struct cred *c,
                          const struct user_ns_table *t)
{
    const struct user_ns_extent *e = &t->extents[0];

    if (map == USER_NS_UID && !map_root_permitted(ns, c, t))
        return false;
    if (t->count == 1 && e->count == 1 && ns->owner == c->euid) {
        const uint32_t id = user_ns_in(ns->parent, map, e->outside);
        if (map == USER_NS_UID && id == c->euid)
            return true;
        if (map == USER_NS_GID && atomic_load(&ns->setgroups_denied) && id == c->egid)
            return true;
    }
    return map == USER_NS_PROJID || cred_ns_capable(c, ns->parent, map_cap(map));
}

/* A range of the parent's ids lies whole in one of its own extents. */
static int map_translate(const struct user_ns *parent, enum user_ns_map map,
                         struct user_ns_table *t)
{
    for (uint32_t i = 0; i < t->count; i++) {
        struct user_ns_extent *e = &t->extents[i];
        const uint32_t first = user_ns_in(parent, map, e->outside);
        const uint32_t last = user_ns_in(parent, map, e->outside + e->count - 1);
        if (first == USER_NS_NONE || last == USER_NS_NONE || last - first != e->count - 1)
            return -EPERM;
        e->outside = first;
    }
    return 0;
}

int user_ns_write_map(struct user_ns *ns, enum user_ns_map map, const struct cred *c,
                      const char *text)
{
    if (!ns || (c->user_ns != ns && c->user_ns != ns->parent))
        return -EPERM;
    struct user_ns_table *t = calloc(1, sizeof(*t) + USER_NS_EXTENTS * sizeof(t->extents[0]));
    if (!t)
        return -ENOMEM;
    mutex_lock(&ns->mu);
    int r = map_of(ns, map) ? -EPERM : 0;
    if (!r && map != USER_NS_PROJID && !cred_ns_capable(c, ns, CAP_SYS_ADMIN))
        r = -EPERM;
    if (!r)
        r = map_parse(text, t);
    if (!r && !map_permitted(ns, map, c, t))
        r = -EPERM;
    if (!r)
        r = map_translate(ns->parent, map, t);
    if (!r)
        atomic_store_explicit(&ns->maps[map], t, memory_order_release);
    mutex_unlock(&ns->mu);
    if (r)
        free(t);
    return r;
}

int user_ns_set_map(struct user_ns *ns, enum user_ns_map map, const struct user_ns_extent *extents,
                    size_t count)
{
    if (count == 0 || count > USER_NS_EXTENTS)
        return -EINVAL;
    struct user_ns_table *t = calloc(1, sizeof(*t) + count * sizeof(t->extents[0]));
    int r = t ? 0 : -ENOMEM;
    for (size_t i = 0; !r && i < count; i++) {
        r = extent_fits(t->extents, t->count, &extents[i]) ? 0 : -EINVAL;
        if (!r)
            t->extents[t->count++] = extents[i];
    }
    if (r) {
        free(t);
        return r;
    }
    mutex_lock(&ns->mu);
    free(atomic_exchange(&ns->maps[map], t));
    mutex_unlock(&ns->mu);
    return 0;
}

int user_ns_write_setgroups(struct user_ns *ns, const struct cred *c, bool allow)
{
    int r = 0;

    if (!ns)
        return allow ? 0 : -EPERM;
    if (!cred_ns_capable(c, ns, CAP_SYS_ADMIN))
        return -EACCES;
    mutex_lock(&ns->mu);
    const bool denied = atomic_load(&ns->setgroups_denied);
    if (allow)
        r = denied ? -EPERM : 0;
    else if (map_of(ns, USER_NS_GID) && !denied)
        r = -EPERM;
    else
        atomic_store(&ns->setgroups_denied, true);
    mutex_unlock(&ns->mu);
    return r;
}

bool user_ns_may_setgroups(const struct user_ns *ns)
{
    return !ns || (map_of(ns, USER_NS_GID) && !atomic_load(&ns->setgroups_denied));
}
