/* Inside io_uring's object.
 * Depends on: uring.h.
 * Threading: rank PIPE guards a ring; callbacks of wait queues and timers only set marks.
 * Ownership: as uring.h. */
#ifndef RINGWALL_SENTRY_FS_ANON_URING_PRIV_H
#define RINGWALL_SENTRY_FS_ANON_URING_PRIV_H

#include <fcntl.h>

#include "base/ref.h"
#include "sentry/fs/anon/eventfd.h"
#include "sentry/fs/anon/uring.h"
#include "sentry/mm/mappable.h"

#define URING_SQ_MAX 32768u
#define URING_CQ_MAX (2 * URING_SQ_MAX)

/* What the guest sees at the start of the rings; each side's words on lines of their own. */
struct uring_words {
    uint32_t sq_head, pad0[15];
    uint32_t sq_tail, pad1[15];
    uint32_t cq_head, pad2[15];
    uint32_t cq_tail, pad3[15];
    uint32_t sq_mask, cq_mask, sq_entries, cq_entries;
    uint32_t sq_dropped, sq_flags, cq_flags, cq_overflow, pad4[8];
};

/* A finished request that the completion ring had no room for. */
struct uring_late {
    struct list node;
    struct io_uring_cqe cqe;
};

struct uring {
    /* immutable */
    struct mappable m;
    struct ref ref; /* the file's, and one per mapping */
    struct memfile *mf;
    struct timer_service *timers;
    uint32_t flags, sq_entries, cq_entries, array_at;
    uint64_t rings_off, rings_size, sqes_off, sqes_size; /* in the memory file */
    struct uring_words *words;                           /* shared with the guest, as all four */
    struct io_uring_cqe *cqes;
    uint32_t *array;
    const struct io_uring_sqe *sqes;
    struct waitq wq;
    _Atomic bool disabled;
    _Atomic uint32_t happened; /* marks set and not yet looked at */
    struct mutex mu;           /* rank PIPE: guards the rest */
    uint32_t sq_head, cq_tail, dropped, lost, posted;
    struct list overflow;
    uint32_t overflow_count;
    struct list pending;
    uint32_t pending_count;
    struct list held; /* chains that have not begun, in order */
    uint32_t held_count;
    struct uring_slot *slots; /* owned, NULL: none registered */
    uint32_t slot_count;
    uint32_t alloc_start, alloc_end, alloc_next; /* of slots that the ring chooses */
    struct iovec *buffers;                       /* owned */
    uint32_t buffer_count;
    struct list groups; /* of buffers to choose from, uring_buf.c */
    uint32_t group_count;
    struct file *eventfd; /* owned */
    struct timer tell;    /* signals it when a request could be finished, from its first time on */
    bool tells;           /* tell was made; changed once */
    _Atomic bool telling; /* there is an eventfd, and tell is to be armed */
};

/* The file goes: everything that waits, and what is registered. */
void uring_end_all(struct uring *r);
void uring_drop_groups(struct uring *r);
/* No eventfd, and no timer that would signal it. */
void uring_tell_end(struct uring *r);

#endif
