/* Files in the sandbox's own memory: tmpfs(5), memfd_create(2).
 * Depends on: vfs, mem.
 * Threading: any thread.
 * Ownership: a super borrows the memory file, which outlives it. */
#ifndef RINGWALL_SENTRY_FS_TMPFS_TMPFS_H
#define RINGWALL_SENTRY_FS_TMPFS_TMPFS_H

#include "sentry/vfs/vfs.h"

struct memfile;

/* boot_arg of its mount op is the struct memfile. Options: size= nr_inodes= mode= uid= gid=. */
extern const struct fs_ops tmpfs_fs_ops;

/* Gives up the file system that memfds are in; the next one makes it anew. */
void tmpfs_memfd_end(void);
/* memfd_create(2) without the descriptor: name without its "memfd:" prefix; the seals it begins
 * with; whether it may be executed. Owned result. */
MUST_CHECK int tmpfs_memfd(struct memfile *mf, const char *name, unsigned seals, bool exec,
                           struct file **out_file);
/* F_GET_SEALS and F_ADD_SEALS of fcntl(2): -EINVAL for files that cannot be sealed, -EPERM, -EBUSY.
 */
MUST_CHECK int tmpfs_get_seals(struct file *f);
MUST_CHECK int tmpfs_add_seals(struct file *f, unsigned seals);

#endif
