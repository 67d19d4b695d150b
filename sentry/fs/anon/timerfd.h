/* timerfd_create(2): timers that are read.
 * Depends on: vfs, time.
 * Threading: any thread.
 * Ownership: the file owns its timer; the service outlives it. */
#ifndef RINGWALL_SENTRY_FS_ANON_TIMERFD_H
#define RINGWALL_SENTRY_FS_ANON_TIMERFD_H

#include "base/compiler.h"
#include "sentry/vfs/vfs.h"

struct timer_service;

/* ns; value 0: not armed. */
struct timerfd_spec {
    int64_t value, interval;
};

/* clock: one that clock_can_sleep. flags: O_NONBLOCK. Owned result. */
MUST_CHECK int timerfd_new(struct timer_service *s, int clock, uint32_t flags,
                           struct file **out_file);
/* -EINVAL: f is none. */
MUST_CHECK int timerfd_clock(const struct file *f);
/* -EINVAL: f is none. value: by the clocks of the sandbox. old: as timerfd_get just before. */
MUST_CHECK int timerfd_set(struct file *f, bool absolute, const struct timerfd_spec *spec,
                           struct timerfd_spec *old);
MUST_CHECK int timerfd_get(struct file *f, struct timerfd_spec *out);

#endif
