/* Blockers on a futex word, and wait queues. */
#include "sentry/wait/wait.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_SEC 1000000000u

uint64_t mono_now(void)
{
    struct timespec ts;

    BUG_ON(clock_gettime(CLOCK_MONOTONIC, &ts) != 0);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* ---- blocker ---- */

/* WAIT_BITSET takes an absolute time of CLOCK_MONOTONIC, unlike WAIT. */
static int futex_wait(struct blocker *b, uint32_t seen, deadline_t deadline)
{
    struct timespec ts, *tsp = NULL;

    if (deadline != DEADLINE_NEVER) {
        ts.tv_sec = (time_t)(deadline / NS_PER_SEC);
        ts.tv_nsec = (long)(deadline % NS_PER_SEC);
        tsp = &ts;
    }
    if (syscall(SYS_futex, &b->word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, seen, tsp, NULL,
                FUTEX_BITSET_MATCH_ANY) == 0)
        return 0;
    return -errno;
}

static void futex_wake(struct blocker *b)
{
    /* EFAULT cannot happen while the blocker lives; there is nothing else to report. */
    (void)syscall(SYS_futex, &b->word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

void blocker_init(struct blocker *b)
{
    atomic_init(&b->word, 0);
    atomic_init(&b->sleeps, 0);
    atomic_init(&b->slept_ns, 0);
    atomic_init(&b->waker, 0);
    atomic_init(&b->waker_cpu, -1);
    b->on_sleep = NULL;
}

static _Thread_local struct {
    uint32_t id;
    uint64_t since_ns;
    struct blocker_round round;
} waker;

void blocker_waker_id(uint32_t id)
{
    waker.id = id;
}

struct blocker_round blocker_round(uint64_t now)
{
    const struct blocker_round r = waker.round;

    waker.round = (struct blocker_round){0};
    waker.since_ns = now;
    return r;
}

static void note_wake(struct blocker *b)
{
    const uint64_t slept = atomic_load_explicit(&b->slept_ns, memory_order_relaxed);

    atomic_store_explicit(&b->waker_cpu, sched_getcpu(), memory_order_relaxed);
    atomic_store_explicit(&b->waker, waker.id, memory_order_relaxed);
    if (waker.round.wakes++ == 0 && slept > waker.since_ns)
        waker.round.overlap_ns = slept - waker.since_ns;
}

static int sleep_until(struct blocker *b, deadline_t deadline, uint32_t stop_bits)
{
    lock_assert_none_held();
    for (;;) {
        uint32_t w = atomic_load_explicit(&b->word, memory_order_acquire);

        if (w & BLOCKER_WOKEN) {
            atomic_fetch_and_explicit(&b->word, ~(BLOCKER_WOKEN | BLOCKER_SLEEPING),
                                      memory_order_acq_rel);
            return 0;
        }
        if (w & stop_bits) {
            atomic_fetch_and_explicit(&b->word, ~BLOCKER_SLEEPING, memory_order_relaxed);
            return -EINTR;
        }
        if (!(w & BLOCKER_SLEEPING)) {
            if (!atomic_compare_exchange_strong(&b->word, &w, w | BLOCKER_SLEEPING))
                continue;
            if (b->on_sleep) {
                b->on_sleep(b);
                continue;
            }
        }
        const uint32_t sleeps = atomic_load_explicit(&b->sleeps, memory_order_relaxed);
        atomic_store_explicit(&b->sleeps, sleeps + 1, memory_order_relaxed);
        atomic_store_explicit(&b->slept_ns, mono_now(), memory_order_relaxed);
        atomic_store_explicit(&b->waker, 0, memory_order_relaxed);
        if (futex_wait(b, w | BLOCKER_SLEEPING, deadline) != -ETIMEDOUT)
            continue;
        w = atomic_fetch_and_explicit(&b->word, ~(BLOCKER_WOKEN | BLOCKER_SLEEPING),
                                      memory_order_acq_rel);
        return w & BLOCKER_WOKEN ? 0 : -ETIMEDOUT;
    }
}

int blocker_wait(struct blocker *b, deadline_t deadline)
{
    return sleep_until(b, deadline, BLOCKER_INTERRUPT | BLOCKER_KILLED);
}

int blocker_wait_killable(struct blocker *b, deadline_t deadline)
{
    return sleep_until(b, deadline, BLOCKER_KILLED);
}

static void blocker_set(struct blocker *b, uint32_t bits)
{
    uint32_t old = atomic_load_explicit(&b->word, memory_order_relaxed);

    /* Before: once the bits are set, the owner may be gone, and b with it. */
    if ((old & BLOCKER_SLEEPING) && (old & bits) != bits)
        note_wake(b);
    old = atomic_fetch_or_explicit(&b->word, bits, memory_order_acq_rel);
    if ((old & BLOCKER_SLEEPING) && (old & bits) != bits)
        futex_wake(b);
}

void blocker_wake(struct blocker *b)
{
    blocker_set(b, BLOCKER_WOKEN);
}

void blocker_interrupt(struct blocker *b, uint32_t bits)
{
    blocker_set(b, bits);
}

void blocker_clear_interrupt(struct blocker *b)
{
    atomic_fetch_and_explicit(&b->word, ~BLOCKER_INTERRUPT, memory_order_acq_rel);
}

void blocker_mark(struct blocker *b, uint32_t bits)
{
    atomic_fetch_or_explicit(&b->word, bits, memory_order_acq_rel);
}

bool blocker_clear(struct blocker *b, uint32_t bit)
{
    return (atomic_fetch_and_explicit(&b->word, ~bit, memory_order_acq_rel) & bit) != 0;
}

/* ---- wait queues ---- */

void waitq_init(struct waitq *q)
{
    mutex_init(&q->mu, LOCK_RANK_WAITQ);
    list_init(&q->waiters);
    atomic_init(&q->count, 0);
}

void waitq_fini(struct waitq *q)
{
    BUG_ON(atomic_load_explicit(&q->count, memory_order_acquire) != 0);
    mutex_destroy(&q->mu);
}

static void waiter_fill(struct waiter *w, waiter_fn fn, struct blocker *b, uint32_t mask)
{
    list_init(&w->node);
    w->q = NULL;
    w->fn = fn;
    w->b = b;
    w->mask = mask;
    w->exclusive = false;
}

void waiter_init(struct waiter *w, struct blocker *b, uint32_t mask)
{
    waiter_fill(w, NULL, b, mask);
}

void waiter_init_fn(struct waiter *w, waiter_fn fn, uint32_t mask)
{
    waiter_fill(w, fn, NULL, mask);
}

/* count goes up before the caller looks at its condition, and the waker changes the condition
 * before it reads count; both are read-modify-writes of one word, so one of them sees the other. */
void waitq_add(struct waitq *q, struct waiter *w)
{
    BUG_ON(w->q != NULL);
    mutex_lock(&q->mu);
    w->q = q;
    list_add_tail(&w->node, &q->waiters);
    atomic_fetch_add_explicit(&q->count, 1, memory_order_acq_rel);
    mutex_unlock(&q->mu);
}

void waitq_del(struct waiter *w)
{
    struct waitq *q = w->q;

    if (!q)
        return;
    mutex_lock(&q->mu);
    list_del(&w->node);
    w->q = NULL;
    atomic_fetch_sub_explicit(&q->count, 1, memory_order_acq_rel);
    mutex_unlock(&q->mu);
}

static bool waiter_matches(const struct waiter *w, uint32_t events)
{
    return w->mask == 0 || events == 0 || (w->mask & events);
}

static void waiter_fire(struct waiter *w, uint32_t events)
{
    if (w->fn)
        w->fn(w, events);
    else
        blocker_wake(w->b);
}

/* An exclusive waiter that was woken goes to the back, so that the next event wakes another even
 * before this one ran. The list is walked once: what moves to the back is not met again. */
static int wake_locked(struct waitq *q, uint32_t events, bool only_one)
{
    struct waiter *w, *next, *moved = NULL;
    int woken = 0;

    list_for_each_entry_safe (w, next, &q->waiters, node) {
        if (!waiter_matches(w, events) || (w->exclusive && moved))
            continue;
        waiter_fire(w, events);
        woken++;
        if (only_one || w->exclusive)
            moved = w;
        if (only_one)
            break;
    }
    if (moved)
        list_move_tail(&moved->node, &q->waiters);
    return woken;
}

static bool waitq_is_empty(struct waitq *q)
{
    return atomic_fetch_add_explicit(&q->count, 0, memory_order_acq_rel) == 0;
}

int waitq_wake(struct waitq *q, uint32_t events)
{
    if (waitq_is_empty(q))
        return 0;
    mutex_lock(&q->mu);
    int woken = wake_locked(q, events, false);
    mutex_unlock(&q->mu);
    return woken;
}

int waitq_wake_one(struct waitq *q, uint32_t events)
{
    if (waitq_is_empty(q))
        return 0;
    mutex_lock(&q->mu);
    int woken = wake_locked(q, events, true);
    mutex_unlock(&q->mu);
    return woken;
}

int waitq_wake_nested(struct waitq *q, uint32_t events)
{
    if (waitq_is_empty(q))
        return 0;
    mutex_lock_nested(&q->mu);
    int woken = wake_locked(q, events, false);
    mutex_unlock(&q->mu);
    return woken;
}
