/* Parts of prctl(2).
 * Depends on: task.h.
 * Threading: t is the calling task, on its own thread.
 * Ownership: nothing is kept. */
#ifndef RINGWALL_SYSCALLS_SYS_PRCTL_H
#define RINGWALL_SYSCALLS_SYS_PRCTL_H

#include <stdint.h>

#include "base/compiler.h"
#include "sentry/kernel/image.h"
#include "sentry/kernel/task.h"

int64_t prctl_set_mm(struct task *t, uint64_t op, uint64_t addr, uint64_t a4, uint64_t a5);
int64_t prctl_set_mdwe(struct task *t, uint64_t bits);
int64_t prctl_get_mdwe(struct task *t);

#endif
