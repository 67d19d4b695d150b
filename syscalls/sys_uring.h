/* Carrying out io_uring's requests.
 * Depends on: task.h, sentry/fs/anon/uring.h.
 * Threading: the task's own thread.
 * Ownership: borrows everything. */
#ifndef RINGWALL_SYSCALLS_SYS_URING_H
#define RINGWALL_SYSCALLS_SYS_URING_H

#include "sentry/fs/anon/uring.h"
#include "sentry/kernel/task.h"

/* Is there such a request? */
bool uring_op_known(unsigned opcode);
/* Must its sqe.fd be open? May it be a registered one? */
bool uring_op_has_file(unsigned opcode);
bool uring_op_takes_registered(unsigned opcode);
/* May it choose its buffer (IOSQE_BUFFER_SELECT)? */
bool uring_op_chooses(unsigned opcode);
/* What it waits for when it would block, EPOLL*; 0: it does not. */
uint32_t uring_op_events(const struct io_uring_sqe *s);
/* Does it without sleeping: the result, or -EAGAIN when it would have to. */
int64_t uring_op_run(struct task *t, struct uring *r, const struct io_uring_sqe *s, struct file *f);

#endif
