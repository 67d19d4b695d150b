/* eventfd(2).
 * Depends on: vfs.
 * Threading: any thread.
 * Ownership: the file owns its counter. */
#ifndef RINGWALL_SENTRY_FS_ANON_EVENTFD_H
#define RINGWALL_SENTRY_FS_ANON_EVENTFD_H

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

/* flags: O_NONBLOCK; the descriptor is the caller's business. Owned result. */
MUST_CHECK int eventfd_new(uint64_t count, bool semaphore, uint32_t flags, struct file **out_file);

bool eventfd_is(const struct file *f);
/* Adds 1, unless that is too much. f is an eventfd. */
void eventfd_signal(struct file *f);

#endif
