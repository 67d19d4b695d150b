/* Core files of guest programs: core(5).
 * Depends on: task.h.
 * Threading: said per function.
 * Ownership: values. */
#ifndef RINGWALL_SENTRY_KERNEL_COREDUMP_H
#define RINGWALL_SENTRY_KERNEL_COREDUMP_H

#include "sentry/kernel/task.h"

#define CORE_PATTERN_MAX 128

struct coredump;

/* The task's group ends by the signal in info, whose default is to dump core; called by the task
 * that took it, before its group's end has begun, no lock held. Ends the group; writes the file
 * when RLIMIT_CORE, PR_SET_DUMPABLE and the pattern allow it. */
void task_coredump(struct task *t, const struct lx_siginfo *info);
/* A thread of an ending group, before it gives its memory up: shows its registers to who dumps, and
 * waits till that is done. Owner, no lock held. */
void task_coredump_join(struct task *t);

/* kernel.core_pattern and core_uses_pid. text has CORE_PATTERN_MAX bytes. */
void kernel_core_pattern(struct kernel *k, char *text);
/* -EINVAL: too long. A pattern that begins with '|' is kept, but dumps nothing: no program of the
 * host's runs for a guest. */
MUST_CHECK int kernel_set_core_pattern(struct kernel *k, const char *text, size_t len);
bool kernel_core_uses_pid(struct kernel *k);
void kernel_set_core_uses_pid(struct kernel *k, bool on);

#endif
