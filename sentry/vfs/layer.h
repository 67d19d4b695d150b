/* What a file system that is stacked on others (overlay) needs of them: names looked up, made and
 * removed in a directory that it holds, without permission checks, such that the dentries of that
 * file system stay true. Depends on: vfs.
 * Threading: functions named _locked want layer_lock held on the directory; it stands below the
 * same locks of the file system on top (nested, top before bottom).
 * Ownership: borrows unless said. */
#ifndef RINGWALL_SENTRY_VFS_LAYER_H
#define RINGWALL_SENTRY_VFS_LAYER_H

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

/* A mount of sb in no namespace, so that its files can be opened. Owned; vpath_put gives it back.
 */
MUST_CHECK int layer_mount(struct super *sb, struct mount **out);

/* Directory d's entries stay as they are till layer_unlock. */
void layer_lock(struct dentry *d);
void layer_unlock(struct dentry *d);
/* Two of them, or one when they are the same, for a rename: the caller's own rename holds the lock
 * of renames when they differ, as vfs_rename takes it. */
void layer_lock_two(struct dentry *a, struct dentry *b);
void layer_unlock_two(struct dentry *a, struct dentry *b);

/* Child name of dir, which exists: -ENOENT otherwise (not remembered). keep: it goes into the
 * dentry cache, which it must when dir can be reached by others or is changed. Owned. */
MUST_CHECK int layer_lookup(struct dentry *dir, const char *name, bool keep, struct dentry **out);
MUST_CHECK int layer_lookup_locked(struct dentry *dir, const char *name, bool keep,
                                   struct dentry **out);
/* As inode_ops' prefetch, unless the first name is known. */
void layer_prefetch(struct dentry *dir, const char *path);
/* Whether a file system that others change still stands by d. */
MUST_CHECK bool layer_valid(struct dentry *d);
/* The name d has at this moment: length, or -ENAMETOOLONG. */
MUST_CHECK int layer_name(struct dentry *d, char *buf, size_t size);

/* a is d or above it in their file system. */
bool layer_is_ancestor(const struct dentry *a, const struct dentry *d);
/* Inode number of the directory above d; d's own for a root. */
uint64_t layer_parent_ino(struct dentry *d);

/* mknod, mkdir (mode says which; no umask) or, with target, symlink. fill, when given, completes
 * the inode before anybody can see it; when it fails the name is taken away again. Owned *out. */
typedef int (*layer_fill_fn)(struct inode *i, void *arg);
MUST_CHECK int layer_create_locked(struct dentry *dir, const char *name, uint32_t mode,
                                   uint64_t rdev, const char *target, const struct vfs_caller *c,
                                   layer_fill_fn fill, void *arg, struct dentry **out);
/* A file without a name, as O_TMPFILE; -EOPNOTSUPP where there are none. Owned *out. */
MUST_CHECK int layer_tmpfile(struct dentry *dir, uint32_t mode, const struct vfs_caller *c,
                             struct dentry **out);
/* Another name for target's inode. Owned *out. */
MUST_CHECK int layer_link_locked(struct dentry *dir, const char *name, struct inode *target,
                                 struct dentry **out);
/* Removes d, a child of dir: rmdir when it is a directory. */
MUST_CHECK int layer_remove_locked(struct dentry *dir, struct dentry *d);
/* Child from becomes name in to_dir, where target stands (NULL: nothing does). flags: RENAME_*. */
MUST_CHECK int layer_rename_locked(struct dentry *from_dir, struct dentry *from,
                                   struct dentry *to_dir, const char *name, struct dentry *target,
                                   unsigned flags);
/* Opens without asking for permission. flags: access mode and O_*, not O_CREAT. Owned. */
MUST_CHECK int layer_open(struct mount *mnt, struct dentry *d, uint32_t flags,
                          const struct vfs_caller *c, struct file **out);

#endif
