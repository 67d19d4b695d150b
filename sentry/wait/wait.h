/* Waiting and waking: wait queues, and the one object a task sleeps on.
 * Depends on: base.
 * Threading: waitq and blocker_wake from any thread; a blocker is slept on by its owner only.
 * Ownership: a waiter is on the sleeper's stack or embedded in an object; it is borrowed by the
 * queue between waitq_add and waitq_del. */
#ifndef RINGWALL_SENTRY_WAIT_WAIT_H
#define RINGWALL_SENTRY_WAIT_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/list.h"
#include "base/lock.h"

/* Absolute CLOCK_MONOTONIC deadline of the host, ns; DEADLINE_NEVER for none. */
typedef uint64_t deadline_t;
#define DEADLINE_NEVER UINT64_MAX

/* CLOCK_MONOTONIC of the host, ns. */
uint64_t mono_now(void);

/* What one task sleeps on. INTERRUPT stays set until the owner clears it, so an interruption
 * before the sleep is not lost. */
struct blocker {
    _Atomic uint32_t word;     /* BLOCKER_* bits; the futex */
    _Atomic uint32_t sleeps;   /* how often the owner has slept; changed by the owner */
    _Atomic uint64_t slept_ns; /* since when it has, mono_now */
    /* Who ended the last sleep, if it was a thread with an id, and on which CPU. */
    _Atomic uint32_t waker;
    _Atomic int waker_cpu;
    /* Called when the owner is about to sleep, with no lock held; owner. NULL: nothing. */
    void (*on_sleep)(struct blocker *b);
};
#define BLOCKER_WOKEN 1u
#define BLOCKER_INTERRUPT 2u
#define BLOCKER_KILLED 4u
/* The owner is not to run guest code: seen there, not by waits. */
#define BLOCKER_HOLD 16u
/* The owner is to look at its rseq(2) before it runs guest code: as HOLD. */
#define BLOCKER_RSEQ 32u
#define BLOCKER_SLEEPING 8u /* the owner is about to sleep: a waker must make the host call */

void blocker_init(struct blocker *b);
/* The id by which those whom the calling thread wakes know it; 0, as at first: none. */
void blocker_waker_id(uint32_t id);
/* What the calling thread has done since it was last asked. */
struct blocker_round {
    uint32_t wakes;      /* sleepers woken */
    uint64_t overlap_ns; /* how long the first of them had still been awake in that time */
};
struct blocker_round blocker_round(uint64_t now);
/* Sleeps until woken (0), interrupted (-EINTR) or past the deadline (-ETIMEDOUT). Consumes WOKEN
 * only. No lock may be held. */
MUST_CHECK int blocker_wait(struct blocker *b, deadline_t deadline);
/* As blocker_wait, but only KILLED interrupts it (TASK_KILLABLE). */
MUST_CHECK int blocker_wait_killable(struct blocker *b, deadline_t deadline);
/* Any thread; async-signal-safe. */
void blocker_wake(struct blocker *b);
void blocker_interrupt(struct blocker *b, uint32_t bits);
/* Owner: forget INTERRUPT (KILLED stays). */
void blocker_clear_interrupt(struct blocker *b);
/* As blocker_interrupt, but a sleeper sleeps on: it sees the bits later. */
void blocker_mark(struct blocker *b, uint32_t bits);
/* Owner: forget a bit that is seen before guest code runs; whether it was set. */
bool blocker_clear(struct blocker *b, uint32_t bit);
static inline bool blocker_interrupted(struct blocker *b)
{
    return atomic_load_explicit(&b->word, memory_order_acquire) &
           (BLOCKER_INTERRUPT | BLOCKER_KILLED);
}
/* There is something to do before guest code runs. */
static inline bool blocker_due(struct blocker *b)
{
    return atomic_load_explicit(&b->word, memory_order_acquire) &
           (BLOCKER_INTERRUPT | BLOCKER_KILLED | BLOCKER_HOLD | BLOCKER_RSEQ);
}

struct waiter;
/* Called with the queue's lock held: must not block or take locks of lower rank than WAITQ. */
typedef void (*waiter_fn)(struct waiter *w, uint32_t events);

struct waitq {
    struct mutex mu;        /* rank WAITQ */
    struct list waiters;    /* guarded by mu */
    _Atomic uint32_t count; /* waiters; lets a wake-up of an empty queue skip the lock */
};

struct waiter {
    struct list node; /* guarded by q->mu */
    struct waitq *q;
    waiter_fn fn;      /* NULL: wake b */
    struct blocker *b; /* borrowed */
    uint32_t mask;     /* EPOLL* bits of interest; 0: everything */
    bool exclusive;    /* waitq_wake stops after one exclusive waiter that matched */
};

void waitq_init(struct waitq *q);
/* No waiter may be left. */
void waitq_fini(struct waitq *q);
void waiter_init(struct waiter *w, struct blocker *b, uint32_t mask);
void waiter_init_fn(struct waiter *w, waiter_fn fn, uint32_t mask);
void waitq_add(struct waitq *q, struct waiter *w);
/* Idempotent; afterwards no callback runs any more. */
void waitq_del(struct waiter *w);
/* Wakes every waiter whose mask meets events (0: all). Returns how many. Cheap when empty. */
int waitq_wake(struct waitq *q, uint32_t events);
/* At most one waiter; the next call starts with another. */
int waitq_wake_one(struct waitq *q, uint32_t events);
/* waitq_wake from inside a waiter's callback: q is another queue, and queues form no cycle. */
int waitq_wake_nested(struct waitq *q, uint32_t events);

/* Sleeps until cond is true, re-checked after each wake-up. Sets err to 0, -EINTR or -ETIMEDOUT.
 * cond is evaluated with no lock held, so it must take what it needs. */
#define WAIT_EVENT(q, b, mask_, deadline, cond, err)                                               \
    do {                                                                                           \
        struct waiter wait_event_w_;                                                               \
        waiter_init(&wait_event_w_, (b), (mask_));                                                 \
        waitq_add((q), &wait_event_w_);                                                            \
        (err) = 0;                                                                                 \
        while (!(cond)) {                                                                          \
            (err) = blocker_wait((b), (deadline));                                                 \
            if ((err) != 0)                                                                        \
                break;                                                                             \
        }                                                                                          \
        waitq_del(&wait_event_w_);                                                                 \
    } while (0)

#endif
