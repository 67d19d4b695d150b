/* Carrying out io_uring's requests.
 * Depends on: task.h, sentry/fs/anon/uring.h.
 * Threading: the task's own thread.
 * Ownership: borrows everything. */
#ifndef RINGWALL_SYSCALLS_SYS_URING_H
#define RINGWALL_SYSCALLS_SYS_URING_H

#include "sentry/fs/anon/uring.h"
#include "sentry/kernel/task.h"

/* Requests of newer headers than the oldest that this is built with. */
#define URING_OP_READ_MULTISHOT 49
#define URING_OP_FIXED_FD_INSTALL 54
#define URING_OP_FTRUNCATE 55
#define URING_OP_BIND 56
#define URING_OP_LISTEN 57
#define URING_OP_END 58

/* Is there such a request? */
bool uring_op_known(unsigned opcode);
/* Is it open what sqe.fd names, a descriptor or a registered file? */
bool uring_op_has_file(unsigned opcode);
/* What is wrong with it before anything is looked up: 0 or -EINVAL, -EBADF. */
MUST_CHECK int uring_op_check(const struct io_uring_sqe *s);
/* Goes on after it brought something (IORING_ACCEPT_MULTISHOT and others)? */
bool uring_op_repeats(const struct io_uring_sqe *s);
/* May it choose its buffer (IOSQE_BUFFER_SELECT)? */
bool uring_op_chooses(unsigned opcode);
/* What it waits for when it would block, EPOLL*; 0: it does not. */
uint32_t uring_op_events(const struct io_uring_sqe *s);
/* Does it without sleeping: the result, or -EAGAIN when it would have to. */
int64_t uring_op_run(struct task *t, struct uring *r, const struct io_uring_sqe *s, struct file *f);
/* IORING_OP_RECVMSG into a buffer of the ring's choice. *out_more: it may go on. */
int64_t uring_op_recvmsg(struct task *t, const struct io_uring_sqe *s, struct file *f,
                         const struct uring_buf *b, bool *out_more);
/* IORING_OP_FILES_UPDATE. */
int64_t uring_files_update(struct task *t, struct uring *r, const struct io_uring_sqe *s);

#endif
