/* struct rusage as the guest sees it, for wait4 and getrusage.
 * Depends on: sentry/kernel/process.h.
 * Threading: the calling task's thread.
 * Ownership: values. */
#ifndef RINGWALL_SYSCALLS_SYS_USAGE_H
#define RINGWALL_SYSCALLS_SYS_USAGE_H

#include "base/compiler.h"
#include "sentry/kernel/process.h"

MUST_CHECK int usage_copyout(struct task *t, uaddr_t to, const struct task_usage_out *u);

#endif
