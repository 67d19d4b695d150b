/* seccomp(2): filters that guest programs lay over their own system calls.
 * Depends on: task.h.
 * Threading: t is the calling task, on its own thread with no lock held.
 * Ownership: values; filters belong to the tasks that they are laid on, and to their listeners. */
#ifndef RINGWALL_SENTRY_KERNEL_SECCOMP_H
#define RINGWALL_SENTRY_KERNEL_SECCOMP_H

#include <linux/filter.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/kernel/task.h"

/* A filter for a program that is started from outside (kernel_exec.seccomp), as struct sock_fprog
 * has it. Checked as the guest's own would be, but for the right to lay it. */
struct kernel_seccomp {
    const struct sock_filter *insns; /* borrowed */
    size_t count;
    unsigned flags; /* SECCOMP_FILTER_FLAG_LOG and _SPEC_ALLOW */
};

/* SECCOMP_SET_MODE_STRICT. -EINVAL when a filter is there. */
MUST_CHECK int task_seccomp_strict(struct task *t);
/* SECCOMP_SET_MODE_FILTER: fprog is the address of a struct sock_fprog. 0, the listener's
 * descriptor, or with TSYNC the number of a thread that has other filters. */
MUST_CHECK int64_t task_seccomp_filter(struct task *t, unsigned flags, uaddr_t fprog);
/* SECCOMP_GET_ACTION_AVAIL. */
bool seccomp_action_known(uint32_t action);
/* SECCOMP_MODE_* */
int task_seccomp_mode(struct task *t);
/* Filters laid on t. */
unsigned task_seccomp_count(struct task *t);

#endif
