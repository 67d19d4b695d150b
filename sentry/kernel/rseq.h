/* rseq(2), restartable sequences: kernel/rseq.c and uapi/linux/rseq.h.
 * Depends on: task.h.
 * Threading: owner, unless said.
 * Ownership: nothing; a registration is part of its task. */
#ifndef RINGWALL_SENTRY_KERNEL_RSEQ_H
#define RINGWALL_SENTRY_KERNEL_RSEQ_H

#include "sentry/kernel/task.h"

/* What programs are told to register: bytes that are used, and their alignment. */
#define RSEQ_FEATURE_SIZE 28u
#define RSEQ_ALIGN 32u

/* rseq(2). 0, or -EINVAL, -EPERM, -EBUSY, -EFAULT. */
MUST_CHECK int64_t task_rseq(struct task *t, uaddr_t area, uint32_t size, int flags, uint32_t sig);
/* The CPU that t runs on, as far as it can tell: rseq(2) shows the same. */
uint32_t task_rseq_cpu(struct task *t);
/* f has critical sections, as far as is known by its section table. Any thread. */
bool rseq_in_file(struct file *f);
/* t is about to map code of f. -ENOMEM. */
MUST_CHECK int task_rseq_map(struct task *t, struct file *f);
/* sched_yield(2): another that waits has t's turn. */
void task_rseq_yield(struct task *t);

#endif
