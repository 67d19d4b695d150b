/* POSIX access control lists (acl(5)): what they allow, what chmod and creating make of them. They
 * are stored by the file systems as the extended attributes they are to the guest, with the
 * sandbox's ids.
 * Depends on: vfs.h.
 * Threading: any thread. Lists are changed with the inode's dir_mu held, which is taken here.
 * inode.acl_state remembers which lists are not there.
 * Ownership: nothing is kept. */
#ifndef RINGWALL_SENTRY_VFS_ACL_H
#define RINGWALL_SENTRY_VFS_ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

/* name is one of the two. */
bool acl_is_name(const char *name);
/* inode.acl_state: bits that say that there is no such list; above them a count of changes. */
#define ACL_NO_ACCESS 1u
#define ACL_NO_DEFAULT 2u
#define ACL_CHANGE 4u
/* i may have a list of access. */
static inline bool acl_may_have(const struct inode *i)
{
    return (atomic_load_explicit(&i->acl_state, memory_order_relaxed) & ACL_NO_ACCESS) == 0;
}
/* What the list says to c, who is not i's owner: 0 or -EACCES; -EAGAIN: there is none, the mode
 * counts. mask as vfs_permission's. May ask the file system. */
MUST_CHECK int acl_check(const struct vfs_caller *c, struct inode *i, unsigned mask);

/* As getxattr(2) and the like; value NULL: removed. Who may was not checked for acl_set, but that
 * the mount may be written. */
MUST_CHECK int64_t acl_get(const struct vfs_caller *c, struct inode *i, const char *name, void *buf,
                           size_t size);
MUST_CHECK int acl_set(const struct vfs_caller *c, struct inode *i, const char *name,
                       const void *value, size_t size);
/* After a chmod: the list follows the mode. */
MUST_CHECK int acl_chmod(struct inode *i);

/* inode_ops' create or, without a name, tmpfile, which dir has, for somebody with c's umask: that
 * counts unless dir has a default list, which the new inode inherits. mode carries the type. Owned
 * *out. dir_mu held for create. */
MUST_CHECK int acl_create(const struct vfs_caller *c, struct inode *dir, const char *name,
                          uint32_t mode, uint64_t rdev, struct inode **out);

#endif
