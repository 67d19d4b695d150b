/* Inside vfs: domains as chains of layers, and the rules in them.
 * Depends on: landlock.h.
 * Threading: rulesets by their lock; domains are immutable.
 * Ownership: as landlock.h. */
#ifndef RINGWALL_SENTRY_VFS_LANDLOCK_PRIV_H
#define RINGWALL_SENTRY_VFS_LANDLOCK_PRIV_H

#include "sentry/vfs/landlock.h"
#include "sentry/vfs/vfs_priv.h"

/* key: an inode's address or a port. */
struct landlock_rule {
    uintptr_t key;
    uint32_t access;
    struct dentry *place; /* owned; keeps the inode. NULL for a port */
};

/* Sorted by key. */
struct landlock_table {
    struct landlock_rule *rules; /* owned, as are their places */
    uint32_t count, size;
};

struct landlock_ruleset {
    struct mutex mu; /* rank LEAF: guards the tables */
    uint32_t fs, net, scoped;
    struct landlock_table paths, ports;
};

/* One layer; those before it are its parents. */
struct landlock_domain {
    struct cred_domain base;
    struct landlock_domain *parent; /* owned */
    uint32_t level;                 /* 0 for the first */
    uint32_t fs, net, scoped;       /* handled; fs with REFER, which always is */
    uint32_t own_fs;                /* as the ruleset had it */
    struct landlock_table paths, ports;
};

static inline const struct landlock_domain *landlock_domain(const struct cred_domain *d)
{
    /* base comes first. */
    return (const struct landlock_domain *)d;
}

_Static_assert(offsetof(struct landlock_domain, base) == 0, "a domain begins with its base");

/* Access that the rule for key gives, 0 when there is none. */
uint32_t landlock_table_find(const struct landlock_table *t, uintptr_t key);

/* Which layers (bits) still deny each right. */
struct landlock_mask {
    uint16_t denied[16];
};
/* Everything of access that the layers handle is denied. The handled part. */
uint32_t landlock_mask_init(struct landlock_mask *m, const struct landlock_domain *d,
                            uint32_t access);
/* Takes back what the rules for inode i give of access. True: nothing of it is denied any more. */
bool landlock_mask_allow(struct landlock_mask *m, const struct landlock_domain *d,
                         const struct inode *i, uint32_t access);

#endif
