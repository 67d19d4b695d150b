/* Waiting on a word to be moved to a lock whose word names the owner: what condition variables with
 * a PI mutex are made of (kernel/futex/requeue.c). */
#include <errno.h>
#include <linux/futex.h>

#include "sentry/kernel/futex_priv.h"

/* ---- the waiter ---- */

/* Off the queues. died: the owner of the lock it was moved to, when that has ended. */
static int64_t requeue_pi_end(struct task *t, const struct futex_waiter *w, int r,
                              uaddr_t lock_addr, deadline_t deadline)
{
    if (!w->pi)
        return r == -EINTR ? -ERESTARTNOINTR : r;
    if (r == 0)
        r = futex_lock_pi_key(t, &w->lock, lock_addr, false, w->pi_owner, deadline);
    /* It is past being called again: the word has changed since. */
    return r == -EINTR ? -EAGAIN : r;
}

int64_t task_futex_wait_requeue_pi(struct task *t, struct task_futex f, uint32_t val,
                                   struct task_futex lock, deadline_t deadline)
{
    struct mm_futex_key key;
    struct futex_waiter w;

    if (f.addr.v == lock.addr.v)
        return -EINVAL;
    int r = mm_futex_key(&t->ua, f.addr, f.shared, &key);
    if (r)
        return r;
    futex_waiter_init(&w, t, &key, FUTEX_BITSET_MATCH_ANY);
    r = mm_futex_key(&t->ua, lock.addr, lock.shared, &w.lock);
    if (r == 0 && futex_key_equal(&key, &w.lock))
        r = -EINVAL;
    if (r)
        return r;
    w.requeue_pi = true;
    futex_pi_begin(t);
    r = futex_queue_if(t, &w, f.addr, val);
    const bool queued = r == 0;
    while (r == 0 && !atomic_load_explicit(&w.woken, memory_order_acquire) &&
           !atomic_load_explicit(&w.orphaned, memory_order_acquire))
        r = blocker_wait(&t->blocker, deadline);
    const bool left = queued && futex_dequeue(&w);
    futex_pi_end(t);
    if (!queued)
        return r;
    return left ? requeue_pi_end(t, &w, r, lock.addr, deadline) : 0;
}

/* ---- the mover ---- */

struct requeue_pi {
    struct mm_futex_key key, lock;
    struct futex_bucket *b, *b2;
    int32_t owner;
    int32_t gone; /* an owner that had ended before the buckets were locked, or 0 */
};

/* Only those that wait for just this. */
static bool requeue_pi_ok(const struct futex_waiter *w, const struct requeue_pi *p)
{
    return w->requeue_pi && !w->pi && futex_key_equal(&w->lock, &p->lock);
}

static struct futex_waiter *requeue_pi_first_locked(const struct requeue_pi *p)
{
    struct futex_waiter *w;

    list_for_each_entry (w, &p->b->waiters, node)
        if (futex_key_equal(&w->key, &p->key))
            return w;
    return NULL;
}

/* The lock goes to the first waiter when it is free. 1: it did. */
static int requeue_pi_top_locked(struct task *t, struct requeue_pi *p, struct futex_waiter *top,
                                 uaddr_t lock_addr, bool more, struct futex_wakes *wakes)
{
    struct futex_pi_try try = {.try = false};

    if (!requeue_pi_ok(top, p))
        return -EINVAL;
    const int32_t tid = top->t->vtid;
    int r = futex_pi_take_locked(&t->ua, tid, lock_addr,
                                 more || futex_pi_first_locked(p->b2, &p->lock) != NULL, &try);
    p->owner = r == 0 ? tid : try.owner;
    if (r == 0) {
        futex_grant_locked(top, wakes);
        return 1;
    }
    if (r != -EINPROGRESS)
        return r;
    return try.owner == p->gone ? -ESRCH : 0;
}

/* Tasks cannot be looked up while buckets are locked. */
static int requeue_pi_look(struct task *t, struct requeue_pi *p, uaddr_t lock_addr)
{
    uint32_t word;
    int r = user_load32(&t->ua, lock_addr, &word);
    const int32_t owner = r == 0 ? (int32_t)(word & FUTEX_TID_MASK) : 0;

    p->gone = owner != 0 && !futex_pi_owner_lives(t, owner) ? owner : 0;
    return r;
}

/* Moved first, looked at then: an owner that ends from now on finds them. */
static void requeue_pi_check(struct task *t, const struct requeue_pi *p)
{
    if (futex_pi_owner_lives(t, p->owner))
        return;
    mutex_lock(&p->b2->mu);
    futex_pi_orphan_locked(p->b2, p->owner);
    mutex_unlock(&p->b2->mu);
}

static int requeue_pi_rest_locked(struct requeue_pi *p, int count)
{
    struct futex_waiter *w, *next;
    int moved = 0;

    list_for_each_entry_safe (w, next, &p->b->waiters, node) {
        if (moved >= count)
            break;
        if (!futex_key_equal(&w->key, &p->key))
            continue;
        if (!requeue_pi_ok(w, p))
            return -EINVAL;
        w->pi = true;
        w->pi_owner = p->owner;
        w->key = p->lock;
        list_del(&w->node);
        futex_enqueue_locked(p->b2, w);
        moved++;
    }
    return moved;
}

static int requeue_pi_locked(struct task *t, struct requeue_pi *p, uaddr_t lock_addr, int move,
                             struct futex_wakes *wakes)
{
    struct futex_waiter *first = requeue_pi_first_locked(p);

    if (!first)
        return 0;
    const int top = requeue_pi_top_locked(t, p, first, lock_addr, move > 0, wakes);
    if (top < 0)
        return top;
    /* One for the wake-up that was asked for, whether it got the lock or waits for it. */
    const int rest = requeue_pi_rest_locked(p, move > INT32_MAX - 1 ? move : move + 1 - top);
    return rest < 0 ? rest : top + rest;
}

int64_t task_futex_requeue_pi(struct task *t, struct task_futex f, struct task_futex lock, int wake,
                              int move, uint32_t cmp)
{
    struct futex_wakes wakes = {.count = 0};
    struct requeue_pi p = {.owner = 0, .gone = 0};
    uint32_t seen;

    if (f.addr.v == lock.addr.v || wake != 1 || move < 0)
        return -EINVAL;
    int r = mm_futex_key(&t->ua, f.addr, f.shared, &p.key);
    if (r == 0)
        r = mm_futex_key(&t->ua, lock.addr, lock.shared, &p.lock);
    if (r == 0 && futex_key_equal(&p.key, &p.lock))
        r = -EINVAL;
    if (r == 0)
        r = requeue_pi_look(t, &p, lock.addr);
    if (r)
        return r;
    p.b = futex_bucket_of(t->k, &p.key);
    p.b2 = futex_bucket_of(t->k, &p.lock);
    mutex_lock_pair(&p.b->mu, &p.b2->mu);
    r = user_load32(&t->ua, f.addr, &seen);
    if (r == 0)
        r = seen == cmp ? requeue_pi_locked(t, &p, lock.addr, move, &wakes) : -EAGAIN;
    mutex_unlock_pair(&p.b->mu, &p.b2->mu);
    futex_wakes_run(&wakes);
    if (r > 0)
        requeue_pi_check(t, &p);
    return r;
}
