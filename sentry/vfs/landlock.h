/* Landlock: rules by which a process restricts itself and its descendants (landlock(7)).
 * Depends on: vfs.h, cred.h.
 * Threading: a ruleset has a lock (rank LEAF); a domain is immutable once it is in a cred.
 * Ownership: a domain is reference-counted through cred.domain and holds its parent, and the places
 * its rules name. */
#ifndef RINGWALL_SENTRY_VFS_LANDLOCK_H
#define RINGWALL_SENTRY_VFS_LANDLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/cred/cred.h"
#include "sentry/vfs/vfs.h"

/* What the version of this interface means: linux/landlock.h as of Linux 6.15. */
#define LANDLOCK_ABI 7
#define LANDLOCK_FIXED 7u /* errata */

#define LANDLOCK_EXECUTE 0x1u
#define LANDLOCK_WRITE_FILE 0x2u
#define LANDLOCK_READ_FILE 0x4u
#define LANDLOCK_READ_DIR 0x8u
#define LANDLOCK_REMOVE_DIR 0x10u
#define LANDLOCK_REMOVE_FILE 0x20u
#define LANDLOCK_MAKE_CHAR 0x40u
#define LANDLOCK_MAKE_DIR 0x80u
#define LANDLOCK_MAKE_REG 0x100u
#define LANDLOCK_MAKE_SOCK 0x200u
#define LANDLOCK_MAKE_FIFO 0x400u
#define LANDLOCK_MAKE_BLOCK 0x800u
#define LANDLOCK_MAKE_SYM 0x1000u
#define LANDLOCK_REFER 0x2000u
#define LANDLOCK_TRUNCATE 0x4000u
#define LANDLOCK_IOCTL_DEV 0x8000u
#define LANDLOCK_FS_ALL 0xffffu
/* What a file that is no directory can be given. */
#define LANDLOCK_FS_FILE                                                                           \
    (LANDLOCK_EXECUTE | LANDLOCK_WRITE_FILE | LANDLOCK_READ_FILE | LANDLOCK_TRUNCATE |             \
     LANDLOCK_IOCTL_DEV)
#define LANDLOCK_BIND_TCP 0x1u
#define LANDLOCK_CONNECT_TCP 0x2u
#define LANDLOCK_NET_ALL 0x3u
#define LANDLOCK_SCOPE_ABSTRACT 0x1u
#define LANDLOCK_SCOPE_SIGNAL 0x2u
#define LANDLOCK_SCOPE_ALL 0x3u

#define LANDLOCK_LAYERS 16
#define LANDLOCK_RULES 65536 /* in one ruleset */

struct landlock_ruleset;
struct landlock_trail;

/* ---- rulesets: the descriptor of landlock_create_ruleset(2) ---- */
/* Masks are checked by the caller. Owned result. */
MUST_CHECK int landlock_ruleset_file(uint32_t fs, uint32_t net, uint32_t scoped,
                                     struct file **out_file);
/* Borrowed from f: -EBADFD when it is no ruleset. */
MUST_CHECK int landlock_ruleset_of(struct file *f, struct landlock_ruleset **out);
/* What it handles of file systems. */
uint32_t landlock_ruleset_fs(const struct landlock_ruleset *rs);
/* access: of what is handled. -EINVAL: what a file cannot have. -EBADFD: not a place of a file
 * system. -E2BIG, -ENOMEM. */
MUST_CHECK int landlock_add_path(struct landlock_ruleset *rs, const struct vpath *p,
                                 uint32_t access);
/* -EINVAL: no port, or what is not handled. */
MUST_CHECK int landlock_add_port(struct landlock_ruleset *rs, uint64_t port, uint64_t access);
/* c, not yet published, obeys rs from now on. -E2BIG: too many layers. */
MUST_CHECK int landlock_restrict(struct cred *c, struct landlock_ruleset *rs);

/* ---- checks; each costs one load for who has no domain ---- */
/* -EACCES unless all of access is allowed at p. No lock held. */
MUST_CHECK int landlock_path(const struct vfs_caller *c, const struct vpath *p, uint32_t access);
/* Opening p with these flags of open(2), exec: to be run. *out_denied: what cannot be done with the
 * file later, of TRUNCATE and IOCTL_DEV. No lock held. */
MUST_CHECK int landlock_open(const struct vfs_caller *c, const struct vpath *p, uint32_t flags,
                             bool exec, uint32_t *out_denied);
/* What counts for the names in directory dir, gathered before it is locked; *out NULL: nothing
 * does. Owned, freed with landlock_trail_free. No lock held. */
MUST_CHECK int landlock_trail_new(const struct vfs_caller *c, const struct vpath *dir,
                                  struct landlock_trail **out);
void landlock_trail_free(struct landlock_trail *t);
/* t NULL: allowed. -EACCES. */
MUST_CHECK int landlock_names(const struct landlock_trail *t, uint32_t access);
/* What making, or having, an inode of this mode is called. */
uint32_t landlock_make_right(uint32_t mode);
/* rename(2), link(2): i goes from a directory to another (which may be the same), over or in
 * exchange for target (NULL: nothing is there). remove: the old name goes. -EACCES, -EXDEV. */
struct landlock_refer {
    const struct landlock_trail *from, *to;
    bool same_dir, remove, exchange;
    struct inode *i, *target;
};
MUST_CHECK int landlock_refer(const struct cred *c, const struct landlock_refer *r);
/* An ioctl(2) that every opened file knows. */
bool landlock_harmless_ioctl(unsigned cmd);
/* Mounts may not be changed. */
bool landlock_fixes_mounts(const struct cred *c);
/* bind(2) or connect(2) of TCP to an address of len bytes; family: the socket's. */
MUST_CHECK int landlock_port(const struct cred *c, int family, const void *addr, size_t len,
                             uint32_t access);
/* What c may not reach because it belongs to a domain outside of its scope. */
bool landlock_out_of_scope(const struct cred *c, const struct cred_domain *other, uint32_t scope);
/* A domain may look into itself and those below. */
bool landlock_may_trace(const struct cred_domain *tracer, const struct cred_domain *tracee);

#endif
