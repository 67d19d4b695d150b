/* Signals about readiness: O_ASYNC, F_SETOWN, F_SETSIG of fcntl(2), and SIGURG of sockets.
 * Depends on: task.h.
 * Threading: any thread, no lock held. Wake-ups of a file's wait queue only note what came; a timer
 * sends the signal.
 * Ownership: a watch belongs to its file and ends with it. */
#ifndef RINGWALL_SENTRY_KERNEL_FASYNC_H
#define RINGWALL_SENTRY_KERNEL_FASYNC_H

#include "base/compiler.h"
#include "sentry/kernel/task.h"
#include "sentry/time/timer.h"

/* What tells f's owner that there is something (POLL_MSG), with the signal that F_SETSIG chose. */
struct file_signal {
    struct kernel *k;  /* borrowed */
    struct file *f;    /* weak: is there when something is raised, not when it is told */
    struct cred *cred; /* owned: of who asked */
    struct timer tm;
    int fd;
    _Atomic uint32_t due;         /* how often it is still to be told */
    _Atomic int32_t owner, signo; /* whom and how, as of the last time it was raised */
};
/* fd is what the signal's siginfo names. */
MUST_CHECK int file_signal_init(struct file_signal *s, struct task *t, struct file *f, int fd);
/* Any lock below LEAF may be held. */
void file_signal_raise(struct file_signal *s);
void file_signal_fini(struct file_signal *s);
/* f's owner is t's process, unless it has one. */
void file_owner_default(struct task *t, struct file *f);

/* Whether signals can tell of f: sockets, pipes, terminals. */
bool file_can_async(const struct file *f);
/* O_ASYNC on or off; fd is what the signal's siginfo names. */
MUST_CHECK int file_set_async(struct task *t, struct file *f, int fd, bool on);
/* F_SETOWN: a positive process or thread, a negative group, 0 nobody. -ESRCH. */
MUST_CHECK int file_set_owner(struct task *t, struct file *f, int32_t owner);

#endif
