/* io_uring(7): the rings, finished requests, and those that wait for a file or a time. What
 * requests do is the system call layer's.
 * Depends on: vfs, mm, mem, time.
 * Threading: any thread. The rings are shared with the guest: each word is read once, and what is
 * written there is never believed.
 * Ownership: the file owns the ring; mappings hold its memory. Requests that wait belong to it. */
#ifndef RINGWALL_SENTRY_FS_ANON_URING_H
#define RINGWALL_SENTRY_FS_ANON_URING_H

#include <linux/io_uring.h>

#include "sentry/time/timer.h"
#include "sentry/vfs/vfs.h"

struct memfile;
struct mm;
struct uring;

/* Flags of io_uring_setup that are known. */
#define URING_SETUP_NO_SQARRAY (1u << 16)
#define URING_SETUP_KNOWN                                                                          \
    (IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED |                          \
     IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |             \
     IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | URING_SETUP_NO_SQARRAY)

/* One request. Its fields are its user's, but for those said to be the ring's. */
struct uring_req {
    struct list node;  /* the ring's */
    struct list chain; /* those linked behind it, in the first one's list; else a node of that */
    struct io_uring_sqe sqe;
    struct file *file;   /* owned, or NULL */
    const struct mm *mm; /* who may carry it out; not a reference */
    struct waiter w;     /* the ring's */
    struct timer tm;     /* the ring's */
    struct uring *ring;  /* the ring's */
    uint32_t events;     /* EPOLL* it waits for */
    uint32_t cqe_flags;  /* IORING_CQE_F_* of its end */
    uint32_t after;      /* IORING_OP_TIMEOUT: completions to wait for, 0: none */
    bool timed, polled, linked_timeout, drain;
    bool more;            /* what its last try brought can be followed by more */
    _Atomic bool ready;   /* something happened */
    _Atomic bool expired; /* its time has come */
    bool cancelled;
};

/* Owned result; p is filled in with sizes, offsets and features. -EINVAL, -ENOMEM. */
MUST_CHECK int uring_new(struct memfile *mf, struct timer_service *ts, uint32_t entries,
                         struct io_uring_params *p, struct file **out_file);
/* NULL: another kind of file. */
struct uring *uring_of(const struct file *f);
uint32_t uring_flags(const struct uring *r);
bool uring_disabled(struct uring *r);
void uring_enable(struct uring *r);

/* The next entry the guest has put into the submission ring. False: there is none, or its place in
 * the array names none, which is counted as dropped. */
bool uring_next(struct uring *r, struct io_uring_sqe *out);
/* How many more there are. */
uint32_t uring_waiting(struct uring *r);
/* The completion ring has room for another one. */
bool uring_has_room(struct uring *r);
/* A finished request. */
void uring_post(struct uring *r, uint64_t user_data, int32_t res, uint32_t flags);
/* Moves what did not fit into the completion ring, as far as there is room. False: some is left. */
bool uring_flush(struct uring *r);
uint32_t uring_finished(struct uring *r);

/* Lets q (heap, taken) wait: for q->events of its file (polled), and until at (timed). */
MUST_CHECK int uring_wait(struct uring *r, struct uring_req *q, deadline_t at);
/* One to which something happened; NULL: none. Owned. Its waiter stays armed until uring_stop. */
struct uring_req *uring_ready(struct uring *r);
/* Gives one back that still has to wait; soon: it is looked at again without anything happening. */
void uring_again(struct uring *r, struct uring_req *q, bool soon);
/* No callback runs any more. */
void uring_stop(struct uring_req *q);
void uring_free(struct uring_req *q);
/* Takes a waiting one out that fn accepts; NULL: none. Owned and stopped. */
struct uring_req *uring_find(struct uring *r, bool (*fn)(const struct uring_req *q, void *arg),
                             void *arg);
/* Sleeps till min are finished or something happened to a waiting one. -EINTR, -ETIMEDOUT. */
MUST_CHECK int uring_sleep(struct uring *r, uint32_t min, struct blocker *b, deadline_t deadline);
uint32_t uring_posted(struct uring *r);
/* q (with its chain) is put behind what is held, if something is; or, when it is to come after all
 * before it (IOSQE_IO_DRAIN), behind what waits. Not held: it may begin. -EAGAIN: too many. */
MUST_CHECK int uring_hold(struct uring *r, struct uring_req *q, bool drain, bool *out_held);
/* The first of those held, when it may begin; NULL. Owned. */
struct uring_req *uring_unhold(struct uring *r);

/* Registered: files by index (owned reference on success), buffers, the eventfd. */
struct uring_slot {
    struct file *file; /* owned, or NULL */
    uint64_t tag;      /* what a completion says when the file goes; 0: nothing */
};
MUST_CHECK int uring_get_file(struct uring *r, uint32_t index, struct file **out);
/* Takes the array and what is in it; count 0 unregisters. -EBUSY, -ENXIO as io_uring_register. */
MUST_CHECK int uring_set_files(struct uring *r, struct uring_slot *slots, uint32_t count);
uint32_t uring_file_slots(struct uring *r);
/* Frees an array that was not taken. */
void uring_slots_free(struct uring_slot *slots, uint32_t count);
/* Puts f (NULL: nothing; taken) in a slot. -ENXIO without slots, -EINVAL. */
MUST_CHECK int uring_set_file(struct uring *r, uint32_t index, struct file *f, uint64_t tag);
/* Empties one: -EBADF, it is empty. */
MUST_CHECK int uring_clear_file(struct uring *r, uint32_t index);
/* Puts f (taken) in an empty slot: which. -ENXIO, -ENFILE. */
MUST_CHECK int uring_alloc_file(struct uring *r, struct file *f);
/* From which slots those are chosen. -EOVERFLOW, -EINVAL. */
MUST_CHECK int uring_alloc_range(struct uring *r, uint32_t start, uint32_t count);
MUST_CHECK int uring_set_buffers(struct uring *r, struct iovec *bufs, uint32_t count);
/* [addr, addr+size) lies in registered buffer index. -EFAULT. */
MUST_CHECK int uring_check_buffer(struct uring *r, uint32_t index, uint64_t addr, uint64_t size);
/* A buffer that requests may choose: guest memory, and what names it. */
struct uring_buf {
    uint64_t addr;
    uint32_t len;
    uint32_t id, group; /* below 65536 */
};
/* IORING_OP_PROVIDE_BUFFERS: count of them, one behind the other. IORING_OP_REMOVE_BUFFERS: how
 * many were removed, -ENOENT. */
MUST_CHECK int uring_provide(struct uring *r, const struct uring_buf *first, uint32_t count);
MUST_CHECK int uring_unprovide(struct uring *r, uint32_t group, uint32_t count);
/* IORING_REGISTER_PBUF_RING and its end. */
MUST_CHECK int uring_buf_ring(struct uring *r, uint32_t group, uint64_t addr, uint32_t entries);
MUST_CHECK int uring_buf_ring_end(struct uring *r, uint32_t group);
/* Takes the next of a group: -ENOBUFS, -EFAULT. Back, when it was not needed. */
MUST_CHECK int uring_buf_pick(struct uring *r, const struct uaccess *ua, uint32_t group,
                              struct uring_buf *out);
void uring_buf_back(struct uring *r, const struct uring_buf *b);
MUST_CHECK int uring_set_eventfd(struct uring *r, struct file *f);

#endif
