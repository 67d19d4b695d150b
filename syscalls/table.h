/* The system call table that boot hands to the kernel.
 * Depends on: sentry/kernel/task.h.
 * Threading: constant.
 * Ownership: static. */
#ifndef RINGWALL_SYSCALLS_TABLE_H
#define RINGWALL_SYSCALLS_TABLE_H

#include <stdint.h>

#include "sentry/kernel/task.h"

extern const struct sys_table ringwall_syscalls;

/* strace: one line before, "name(args)", and one after, "name = ret", to the log at level info.
 * after is false on entry. */
void sys_trace(struct task *t, uint64_t nr, const uint64_t *a, bool after, int64_t ret);

#endif
