/* User namespaces: who is who inside, and who may do what to what (user_namespaces(7)).
 * Depends on: base, cred.h.
 * Threading: maps are written once and read without a lock; the rest is immutable or atomic.
 * Ownership: reference-counted; a namespace holds its parent. NULL is the sandbox's own. */
#ifndef RINGWALL_SENTRY_CRED_USER_NS_H
#define RINGWALL_SENTRY_CRED_USER_NS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/lock.h"
#include "base/ref.h"
#include "sentry/cred/cred.h"

#define USER_NS_EXTENTS 340
#define USER_NS_DEPTH 32
/* What an id that nobody has inside looks like. */
#define USER_NS_NOBODY 65534u
#define USER_NS_NONE UINT32_MAX

enum user_ns_map { USER_NS_UID, USER_NS_GID, USER_NS_PROJID, USER_NS_MAPS };

struct user_ns_extent {
    uint32_t inside, outside, count; /* outside: an id of the sandbox, once it is in a map */
};

struct user_ns_table {
    uint32_t count;
    struct user_ns_extent extents[];
};

struct user_ns {
    struct ref ref;
    struct user_ns *parent; /* owned */
    uint32_t level;         /* the sandbox's own is 0 */
    uint32_t owner, group;  /* effective ids of who made it */
    uint64_t id;
    bool parent_could_setfcap;
    struct mutex mu; /* rank NAMESPACE: writers of what follows */
    struct user_ns_table *_Atomic maps[USER_NS_MAPS];
    _Atomic bool setgroups_denied;
};

/* A child of c's namespace, for c's ids: -ENOSPC too deep, -EPERM when the ids are nobody's there.
 * id: what tells it from others. Owned result. */
MUST_CHECK int user_ns_new(const struct cred *c, uint64_t id, struct user_ns **out_ns);
struct user_ns *user_ns_get(struct user_ns *ns); /* NULL allowed, as below */
void user_ns_put(struct user_ns *ns);
/* Ids inside as the sandbox's, and the other way round; USER_NS_NONE when there is none. */
uint32_t user_ns_in(const struct user_ns *ns, enum user_ns_map map, uint32_t id);
uint32_t user_ns_out(const struct user_ns *ns, enum user_ns_map map, uint32_t id);
/* As user_ns_out, but USER_NS_NOBODY: for what has to show something. */
uint32_t user_ns_show(const struct user_ns *ns, enum user_ns_map map, uint32_t id);
/* Sets a map from the text of a write by somebody with cred c, who is in ns or in its parent.
 * -EPERM, -EINVAL, -ENOMEM. */
MUST_CHECK int user_ns_write_map(struct user_ns *ns, enum user_ns_map map, const struct cred *c,
                                 const char *text);
/* The same by whoever starts the container: outside are ids of the sandbox. */
MUST_CHECK int user_ns_set_map(struct user_ns *ns, enum user_ns_map map,
                               const struct user_ns_extent *extents, size_t count);
/* "deny" or "allow" of /proc/<pid>/setgroups. */
MUST_CHECK int user_ns_write_setgroups(struct user_ns *ns, const struct cred *c, bool allow);
bool user_ns_may_setgroups(const struct user_ns *ns);
/* ns is c's own namespace or below it. */
bool user_ns_is_below(const struct user_ns *ns, const struct user_ns *top);

#endif
