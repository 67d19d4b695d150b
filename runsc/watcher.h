/*
 * What: the process that cleans up after an attached runsc that was killed.
 * Depends on: runsc/state.h.
 * Threading: one thread in each process.
 * Ownership: the descriptor returned is the caller's; closing it without watcher_dismiss is what
 * the watcher waits for.
 */
#ifndef RINGWALL_RUNSC_WATCHER_H
#define RINGWALL_RUNSC_WATCHER_H

#include "base/compiler.h"
#include "runsc/err.h"

/* Forks it. To be called before the sandbox is made, so that it holds nothing of it. */
MUST_CHECK int watcher_start(const char *root, const char *id, int *out_fd, struct err *e);
/* The caller has cleaned up itself: the watcher ends. Closes *fd. */
void watcher_dismiss(int *fd);

#endif
