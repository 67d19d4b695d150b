/* inotify(7): a file from which events of watched inodes are read.
 * Depends on: vfs.
 * Threading: any thread.
 * Ownership: the file owns its watches and queued events. */
#ifndef RINGWALL_SENTRY_FS_ANON_INOTIFY_H
#define RINGWALL_SENTRY_FS_ANON_INOTIFY_H

#include "sentry/vfs/vfs.h"

/* flags: O_NONBLOCK. -EMFILE at the limit of instances. Owned result. */
MUST_CHECK int inotify_new(uint32_t flags, struct file **out_file);
/* The watch descriptor. mask: IN_* as inotify_add_watch(2) takes it. -EINVAL for another file. */
MUST_CHECK int inotify_watch(struct file *f, struct inode *i, uint32_t mask);
MUST_CHECK int inotify_unwatch(struct file *f, int wd);
bool inotify_is(const struct file *f);

#endif
