/* epoll(7): sets of files whose readiness is watched together.
 * Depends on: vfs.
 * Threading: any thread; the set's lock (rank EPOLL) is held while members are polled, the ready
 * list (rank EPOLL_READY) is filled from wake-ups. Ownership: a set holds no reference on its
 * members; a member that is closed leaves by itself. */
#ifndef RINGWALL_SENTRY_VFS_EPOLL_H
#define RINGWALL_SENTRY_VFS_EPOLL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"
#include "sentry/wait/wait.h"

/* As struct epoll_event of the ABI, unpacked. */
struct epoll_ready {
    uint32_t events;
    uint64_t data;
};

/* epoll_create1(2) without the descriptor. Owned result. */
MUST_CHECK int epoll_new(struct file **out_file);
bool epoll_is(const struct file *f);
/* epoll_ctl(2): op EPOLL_CTL_*; fd is the number target was named by, part of the member's
 * identity. -EEXIST -ENOENT -EPERM -EINVAL -ELOOP -ENOSPC -ENOMEM. */
MUST_CHECK int epoll_control(struct file *ep, int op, int fd, struct file *target, uint32_t events,
                             uint64_t data);
/* kcmp(2): the nth member of ep that was named by fd, for comparison only. -ENOENT. */
MUST_CHECK int epoll_target(struct file *ep, uint32_t fd, uint32_t nth, uintptr_t *out_file);
/* epoll_wait(2): up to max events, 0 at the deadline, -EINTR. A deadline of 0 never sleeps. */
MUST_CHECK int epoll_collect(struct file *ep, struct epoll_ready *out, size_t max,
                             deadline_t deadline, struct blocker *b);

#endif
