/* ptrace(2) for the system call layer.
 * Depends on: task.h.
 * Threading: t is the calling task, on its own thread with no lock held.
 * Ownership: values. */
#ifndef RINGWALL_SENTRY_KERNEL_PTRACE_H
#define RINGWALL_SENTRY_KERNEL_PTRACE_H

#include "base/compiler.h"
#include "sentry/kernel/task.h"

/* Requests, errors and results of ptrace(2) as the kernel has them: what PTRACE_PEEK* finds goes to
 * the caller's memory at data. */
MUST_CHECK int64_t task_ptrace(struct task *t, int64_t request, int32_t pid, uint64_t addr,
                               uint64_t data);

#endif
