/* Syscall user dispatch: a program's own handler answers the calls that code outside a range of its
 * memory makes (Documentation/admin-guide/syscall-user-dispatch.rst, prctl(2)).
 * Depends on: task.h.
 * Threading: owner, or a tracer while the task is stopped.
 * Ownership: values only. */
#ifndef RINGWALL_SENTRY_KERNEL_DISPATCH_H
#define RINGWALL_SENTRY_KERNEL_DISPATCH_H

#include "sentry/kernel/task.h"

/* As the guest gives it, and as PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG shows it. */
struct task_dispatch {
    uint64_t mode;     /* DISPATCH_* */
    uint64_t selector; /* address of a byte that says whether to dispatch, or 0: always */
    uint64_t offset, len;
};
#define DISPATCH_OFF 0u
#define DISPATCH_EXCLUSIVE 1u /* all code but [offset, offset + len) */
#define DISPATCH_INCLUSIVE 2u /* the code in it */

/* PR_SET_SYSCALL_USER_DISPATCH for o: -EINVAL, -EFAULT. */
MUST_CHECK int task_set_dispatch(struct task *o, const struct task_dispatch *d);
/* What is in force: mode on or off; an inclusive range is shown as the rest of memory. */
void task_get_dispatch(struct task *o, struct task_dispatch *out);

#endif
