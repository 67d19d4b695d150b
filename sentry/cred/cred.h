/* Credentials: ids, groups, capabilities; immutable once published, as in Linux.
 * Depends on: base.
 * Threading: immutable after cred_new/cred_dup's caller publishes it; references from any thread.
 * Ownership: reference-counted. */
#ifndef RINGWALL_SENTRY_CRED_CRED_H
#define RINGWALL_SENTRY_CRED_CRED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/ref.h"

#define CRED_GROUPS_MAX 65536

struct user_ns;

/* What the holder restricted himself by (sentry/vfs/landlock.h); kept and passed on here. */
struct cred_domain {
    struct ref ref;
    void (*release)(struct cred_domain *d); /* the last reference is gone */
};

struct cred {
    struct ref ref;
    uint32_t uid, euid, suid, fsuid;
    uint32_t gid, egid, sgid, fsgid;
    uint64_t cap_effective, cap_permitted, cap_inheritable, cap_bounding, cap_ambient;
    struct user_ns *user_ns;    /* owned; NULL: the sandbox's own. Ids above are the sandbox's */
    struct cred_domain *domain; /* owned; NULL: none */
    uint32_t securebits;
    bool no_new_privs;
    uint32_t group_count;
    uint32_t *groups; /* sorted; owned */
};

/* uid 0 with the given capability sets, no groups. Owned result. */
MUST_CHECK int cred_new_root(uint64_t caps, struct cred **out_cred);
/* A private copy to change and then publish. Owned result. */
MUST_CHECK int cred_dup(const struct cred *c, struct cred **out_cred);
/* Replaces the supplementary groups (copied and sorted). Only on an unpublished cred. */
MUST_CHECK int cred_set_groups(struct cred *c, const uint32_t *groups, size_t count);
struct cred *cred_get(struct cred *c);
void cred_put(struct cred *c);
/* capable() of Linux: over the sandbox as a whole. cap is CAP_* from linux/capability.h. */
bool cred_capable(const struct cred *c, int cap);
/* ns_capable(): over what belongs to user namespace ns (NULL: the sandbox's own). */
bool cred_ns_capable(const struct cred *c, const struct user_ns *ns, int cap);
/* Over what belongs to c's own user namespace. */
bool cred_self_capable(const struct cred *c, int cap);
/* capable_wrt_inode_uidgid(): over a file whose owners are known in c's user namespace. */
bool cred_file_capable(const struct cred *c, uint32_t uid, uint32_t gid, int cap);
/* c, not published, becomes all-powerful in ns (taken), as by clone(CLONE_NEWUSER) or setns. */
void cred_enter_user_ns(struct cred *c, struct user_ns *ns);
/* gid is fsgid or a supplementary group. */
bool cred_in_group(const struct cred *c, uint32_t gid);
/* credentials(7): what set*id does to capabilities (cap_emulate_setxuid, fsuid rules). */
void cred_fix_caps_after_setuid(struct cred *c, const struct cred *old);
/* What a program's file gives (security.capability), as far as it counts for who runs it. */
struct cred_file_caps {
    uint64_t permitted, inheritable;
    bool effective;
};
/* capabilities(7), transformation at execve. c holds what set-id bits made of euid and egid. file
 * NULL: the file gives none. unsafe: somebody could steer the program (a tracer without rights, a
 * shared directory context). *out_secure: AT_SECURE. -EPERM: the file insists on what cannot be. */
MUST_CHECK int cred_caps_at_exec(struct cred *c, const struct cred *old,
                                 const struct cred_file_caps *file, bool unsafe, bool *out_secure);
/* Everything that n may is something that o may. Both of one user namespace. */
bool cred_caps_subset(const struct cred *n, const struct cred *o);

#endif
