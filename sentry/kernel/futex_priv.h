/* Inside the futexes: buckets, waiters, wake-ups made after the bucket's lock is released.
 * Depends on: futex.h, task_priv.h.
 * Threading: a waiter's fields are guarded by the lock of the bucket it is on.
 * Ownership: a waiter is on the sleeper's stack or in its array; a bucket borrows it. */
#ifndef RINGWALL_SENTRY_KERNEL_FUTEX_PRIV_H
#define RINGWALL_SENTRY_KERNEL_FUTEX_PRIV_H

#include "sentry/kernel/futex.h"
#include "sentry/kernel/task_priv.h"

#define FUTEX_BUCKETS 256u

struct futex_bucket {
    struct mutex mu; /* rank FUTEX_BUCKET */
    struct list waiters;
};

struct futex_table {
    struct futex_bucket buckets[FUTEX_BUCKETS];
    _Atomic uint32_t pi_waiters;
};

struct futex_waiter {
    struct list node; /* on no list: woken, or never queued */
    struct mm_futex_key key;
    struct task *t;
    uint32_t bitset;
    bool pi;
    bool requeue_pi;          /* waits to be moved to a lock, by CMP_REQUEUE_PI only */
    struct mm_futex_key lock; /* that lock */
    int32_t pi_owner;         /* whom the word names */
    _Atomic bool orphaned;    /* pi_owner has ended */
    /* Changed under the locks of both buckets; read without to find the lock. */
    struct futex_bucket *_Atomic bucket;
    _Atomic bool woken;
};

/* Tasks to wake when no lock is held. Holds references. */
#define FUTEX_WAKES 32
struct futex_wakes {
    struct task *t[FUTEX_WAKES];
    size_t count;
};

/* ---- futex.c ---- */
static inline bool futex_key_equal(const struct mm_futex_key *a, const struct mm_futex_key *b)
{
    return a->object == b->object && a->off == b->off;
}
struct futex_bucket *futex_bucket_of(struct kernel *k, const struct mm_futex_key *key);
void futex_waiter_init(struct futex_waiter *w, struct task *t, const struct mm_futex_key *key,
                       uint32_t bitset);
/* Bucket locked. */
void futex_enqueue_locked(struct futex_bucket *b, struct futex_waiter *w);
/* Queues w if the word is val; -EAGAIN, -EFAULT. No lock held. */
MUST_CHECK int futex_queue_if(struct task *t, struct futex_waiter *w, uaddr_t addr, uint32_t val);
/* Bucket locked, room in wakes: the waiter is off the queue, its owner may be gone any moment. */
void futex_grant_locked(struct futex_waiter *w, struct futex_wakes *wakes);
/* No lock held. */
void futex_wakes_run(struct futex_wakes *wakes);
/* True when w was still queued and now is not; false: it was woken. No lock held. */
MUST_CHECK bool futex_dequeue(struct futex_waiter *w);
/* One turn of a value change: 0, -EFAULT, or -EAGAIN when the word keeps changing. */
MUST_CHECK int futex_cmpxchg(const struct uaccess *ua, uaddr_t addr, uint32_t expect,
                             uint32_t desired);

/* ---- futex_pi.c ---- */
struct futex_pi_try {
    bool try;
    int32_t died;  /* an owner that has ended meanwhile, or 0 */
    int32_t owner; /* out: whom to wait for */
};
/* Bucket locked. 0: the lock is tid's. -EINPROGRESS: the word says that somebody waits. -EDEADLK,
 * -EAGAIN, -EFAULT, -ERESTARTNOINTR. */
MUST_CHECK int futex_pi_take_locked(const struct uaccess *ua, int32_t tid, uaddr_t addr,
                                    bool others_wait, struct futex_pi_try *p);
struct futex_waiter *futex_pi_first_locked(struct futex_bucket *b, const struct mm_futex_key *key);
/* Can the owner still be waited for? */
bool futex_pi_owner_lives(struct task *t, int32_t tid);
/* Bucket locked: tid has ended, and who waits for it has to look again. */
void futex_pi_orphan_locked(struct futex_bucket *b, int32_t tid);
/* The rest of what lock_pi does, once the key is known. died: an owner of the word that has ended
 * meanwhile, or 0. */
MUST_CHECK int futex_lock_pi_key(struct task *t, const struct mm_futex_key *key, uaddr_t addr,
                                 bool try, int32_t died, deadline_t deadline);
/* Counts t among those whom an owner's end concerns. */
void futex_pi_begin(struct task *t);
void futex_pi_end(struct task *t);
/* A thread goes: locks that it holds pass on to who waits for them. Owner, no lock held. */
void futex_pi_exit(struct task *t);

#endif
