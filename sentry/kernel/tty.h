/* Controlling terminals: which session a terminal serves, its foreground group, job control.
 * Depends on: task.h.
 * Threading: any thread; takes the tree lock (rank KERNEL) itself, so a lock of rank TTY may be
 * held. c names the calling process by its tgid; one without a process controls nothing.
 * Ownership: struct tty is embedded in a terminal and counted; a session holds a reference on its
 * controlling terminal, a terminal one on its foreground group. */
#ifndef RINGWALL_SENTRY_KERNEL_TTY_H
#define RINGWALL_SENTRY_KERNEL_TTY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/ref.h"
#include "sentry/kernel/task.h"

struct pgrp;
struct session;

struct tty {
    /* immutable */
    struct ref ref;
    void (*release)(struct tty *tty); /* last reference gone; the tree lock may be held */
    uint64_t rdev;
    /* guard: tree */
    struct session *session; /* weak: it takes itself out when its leader ends */
    struct pgrp *pgrp;       /* in the foreground; owned */
};

void tty_init(struct tty *tty, uint64_t rdev, void (*release)(struct tty *tty));
struct tty *tty_get(struct tty *tty);
void tty_put(struct tty *tty);

/* The caller's controlling terminal: owned, or NULL. */
struct tty *tty_current(struct kernel *k, const struct vfs_caller *c);
/* TIOCSCTTY: steal is its argument 1; readable: the file is open for reading. -EPERM. */
MUST_CHECK int tty_take(struct kernel *k, const struct vfs_caller *c, struct tty *tty, bool steal,
                        bool readable);
/* What open(2) without O_NOCTTY does: a session leader without a terminal gets a free one. */
void tty_opened(struct kernel *k, const struct vfs_caller *c, struct tty *tty);
/* TIOCNOTTY; -ENOTTY when it is not the caller's. */
MUST_CHECK int tty_leave(struct kernel *k, const struct vfs_caller *c, struct tty *tty);
/* May the caller do what sends signo (SIGTTIN, SIGTTOU) to background groups? -ERESTARTSYS when it
 * was sent, -EIO when it could not be. kernel: tty_check_change. */
MUST_CHECK int tty_check(struct kernel *k, const struct vfs_caller *c, struct tty *tty, int signo);
/* TIOCGPGRP and TIOCGSID. any: asked through the master side, where it need not be the caller's.
 * -ENOTTY. */
MUST_CHECK int tty_get_pgrp(struct kernel *k, const struct vfs_caller *c, struct tty *tty, bool any,
                            int32_t *out_pgrp);
MUST_CHECK int tty_get_sid(struct kernel *k, const struct vfs_caller *c, struct tty *tty, bool any,
                           int32_t *out_sid);
/* TIOCSPGRP after tty_check. -ENOTTY -EINVAL -ESRCH -EPERM. */
MUST_CHECK int tty_set_pgrp(struct kernel *k, const struct vfs_caller *c, struct tty *tty,
                            int32_t pgid);
/* To the foreground group, if there is one. */
void tty_signal(struct kernel *k, struct tty *tty, int signo);
/* The line went away: SIGHUP and SIGCONT to the session's leader, which has no terminal then. */
void tty_hangup(struct kernel *k, struct tty *tty);
/* TIOCGPTPEER: a descriptor for f in the calling task's table. Takes a reference of its own. */
MUST_CHECK int tty_install_fd(struct kernel *k, const struct vfs_caller *c, struct file *f,
                              bool cloexec);

#endif
