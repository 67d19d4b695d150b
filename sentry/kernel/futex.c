/* Waiting on words of guest memory and waking (kernel/futex/). The word is looked at under the lock
 * of its bucket, and who changes it wakes afterwards, so no wake-up is lost. */
#include "sentry/kernel/futex.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>

#include "base/hash.h"
#include "sentry/kernel/futex_priv.h"
#include "sentry/kernel/inspect.h"

/* Turns of a compare-and-swap before the task looks whether it was interrupted. */
#define FUTEX_SPINS 4096

int futex_table_new(struct futex_table **out_ft)
{
    struct futex_table *ft = calloc(1, sizeof(*ft));

    if (!ft)
        return -ENOMEM;
    for (size_t i = 0; i < FUTEX_BUCKETS; i++) {
        mutex_init(&ft->buckets[i].mu, LOCK_RANK_FUTEX_BUCKET);
        list_init(&ft->buckets[i].waiters);
    }
    *out_ft = ft;
    return 0;
}

void futex_table_free(struct futex_table *ft)
{
    if (!ft)
        return;
    for (size_t i = 0; i < FUTEX_BUCKETS; i++) {
        BUG_ON(!list_empty(&ft->buckets[i].waiters));
        mutex_destroy(&ft->buckets[i].mu);
    }
    free(ft);
}

struct futex_bucket *futex_bucket_of(struct kernel *k, const struct mm_futex_key *key)
{
    const uint64_t h = hash_u64(key->object ^ hash_u64(key->off));

    return &k->futexes->buckets[h % FUTEX_BUCKETS];
}

static int futex_key(struct task *t, struct task_futex f, struct mm_futex_key *out)
{
    return mm_futex_key(&t->ua, f.addr, f.shared, out);
}

/* ---- queues ---- */

void futex_waiter_init(struct futex_waiter *w, struct task *t, const struct mm_futex_key *key,
                       uint32_t bitset)
{
    list_init(&w->node);
    w->key = *key;
    w->t = t;
    w->bitset = bitset;
    w->pi = false;
    w->requeue_pi = false;
    w->pi_owner = 0;
    atomic_init(&w->orphaned, false);
    atomic_init(&w->bucket, NULL);
    atomic_init(&w->woken, false);
}

void futex_enqueue_locked(struct futex_bucket *b, struct futex_waiter *w)
{
    list_add_tail(&w->node, &b->waiters);
    atomic_store_explicit(&w->bucket, b, memory_order_release);
}

void futex_grant_locked(struct futex_waiter *w, struct futex_wakes *wakes)
{
    BUG_ON(wakes->count == FUTEX_WAKES);
    wakes->t[wakes->count++] = task_get(w->t);
    list_del(&w->node);
    atomic_store_explicit(&w->woken, true, memory_order_release);
}

void futex_wakes_run(struct futex_wakes *wakes)
{
    for (size_t i = 0; i < wakes->count; i++) {
        blocker_wake(&wakes->t[i]->blocker);
        task_put(wakes->t[i]);
    }
    wakes->count = 0;
}

static bool futex_woken(const struct futex_waiter *w)
{
    return atomic_load_explicit(&w->woken, memory_order_acquire);
}

bool futex_dequeue(struct futex_waiter *w)
{
    for (;;) {
        struct futex_bucket *b = atomic_load_explicit(&w->bucket, memory_order_acquire);
        if (!b || futex_woken(w))
            return false;
        mutex_lock(&b->mu);
        /* It may have been moved to another word's bucket just now. */
        if (atomic_load_explicit(&w->bucket, memory_order_relaxed) != b) {
            mutex_unlock(&b->mu);
            continue;
        }
        const bool queued = !list_empty(&w->node);
        list_del(&w->node);
        mutex_unlock(&b->mu);
        return queued;
    }
}

/* ---- waiting ---- */

int futex_queue_if(struct task *t, struct futex_waiter *w, uaddr_t addr, uint32_t val)
{
    struct futex_bucket *b = futex_bucket_of(t->k, &w->key);
    uint32_t seen;

    mutex_lock(&b->mu);
    int r = user_load32(&t->ua, addr, &seen);
    if (r == 0 && seen != val)
        r = -EAGAIN;
    if (r == 0)
        futex_enqueue_locked(b, w);
    mutex_unlock(&b->mu);
    return r;
}

/* restart_arg: 0 address, 1 shared, 2 value, 3 bitset, 4 deadline. */
static int64_t futex_wait_restart(struct task *t)
{
    const struct task_futex f = {uaddr(t->restart_arg[0]), t->restart_arg[1] != 0};

    return task_futex_wait(t, f, (uint32_t)t->restart_arg[2], (uint32_t)t->restart_arg[3],
                           t->restart_arg[4]);
}

int64_t task_futex_wait(struct task *t, struct task_futex f, uint32_t val, uint32_t bitset,
                        deadline_t deadline)
{
    struct mm_futex_key key;
    struct futex_waiter w;

    if (bitset == 0)
        return -EINVAL;
    int r = futex_key(t, f, &key);
    if (r)
        return r;
    futex_waiter_init(&w, t, &key, bitset);
    r = futex_queue_if(t, &w, f.addr, val);
    if (r)
        return r;
    while (r == 0 && !futex_woken(&w))
        r = blocker_wait(&t->blocker, deadline);
    if (!futex_dequeue(&w))
        return 0;
    if (r == -ETIMEDOUT)
        return r;
    if (deadline == DEADLINE_NEVER)
        return -ERESTARTSYS;
    t->restart_arg[0] = f.addr.v;
    t->restart_arg[1] = f.shared;
    t->restart_arg[2] = val;
    t->restart_arg[3] = bitset;
    t->restart_arg[4] = deadline;
    t->restart_fn = futex_wait_restart;
    return -ERESTART_RESTARTBLOCK;
}

static int64_t futex_waitv_woken(struct futex_waiter *w, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (futex_woken(&w[i]))
            return (int64_t)i;
    return -EAGAIN;
}

static int futex_waitv_queue(struct task *t, const struct task_futex_waitv *v, size_t count,
                             struct futex_waiter *w)
{
    struct mm_futex_key key;
    int r = 0;

    for (size_t i = 0; i < count && r == 0; i++) {
        r = futex_key(t, v[i].f, &key);
        if (r == 0)
            futex_waiter_init(&w[i], t, &key, FUTEX_BITSET_MATCH_ANY);
    }
    for (size_t i = 0; i < count && r == 0; i++)
        r = futex_queue_if(t, &w[i], v[i].f.addr, v[i].val);
    return r;
}

int64_t task_futex_waitv(struct task *t, const struct task_futex_waitv *v, size_t count,
                         deadline_t deadline)
{
    struct futex_waiter *w = calloc(count, sizeof(*w));

    if (!w)
        return -ENOMEM;
    int r = futex_waitv_queue(t, v, count, w);
    while (r == 0 && futex_waitv_woken(w, count) < 0)
        r = blocker_wait(&t->blocker, deadline);
    for (size_t i = 0; i < count; i++)
        (void)!futex_dequeue(&w[i]);
    const int64_t woken = futex_waitv_woken(w, count);
    free(w);
    if (woken >= 0)
        return woken;
    return r == -EINTR ? -ERESTARTSYS : r;
}

/* ---- waking ---- */

/* As many of count as fit in wakes; the number woken. -EINVAL: somebody waits for a lock there. */
static int futex_wake_some_locked(struct futex_bucket *b, const struct mm_futex_key *key, int count,
                                  uint32_t bitset, struct futex_wakes *wakes)
{
    struct futex_waiter *w, *next;
    int woken = 0;

    list_for_each_entry_safe (w, next, &b->waiters, node) {
        if (woken >= count || wakes->count == FUTEX_WAKES)
            break;
        if (!futex_key_equal(&w->key, key))
            continue;
        if (w->pi || w->requeue_pi)
            return -EINVAL;
        if (!(w->bitset & bitset))
            continue;
        futex_grant_locked(w, wakes);
        woken++;
    }
    return woken;
}

/* Goes on with what did not fit into one turn: count is what is still wanted. */
static int futex_wake_key(struct kernel *k, const struct mm_futex_key *key, int count,
                          uint32_t bitset)
{
    struct futex_bucket *b = futex_bucket_of(k, key);
    struct futex_wakes wakes = {.count = 0};
    int woken = 0, r;
    bool full;

    do {
        mutex_lock(&b->mu);
        r = futex_wake_some_locked(b, key, count - woken, bitset, &wakes);
        mutex_unlock(&b->mu);
        full = wakes.count == FUTEX_WAKES;
        futex_wakes_run(&wakes);
        woken += r;
    } while (r > 0 && full && woken < count);
    return r < 0 ? r : woken;
}

int64_t task_futex_wake(struct task *t, struct task_futex f, int count, uint32_t bitset)
{
    struct mm_futex_key key;

    if (bitset == 0)
        return -EINVAL;
    int r = futex_key(t, f, &key);
    if (r)
        return r;
    return futex_wake_key(t->k, &key, MAX(count, 1), bitset);
}

void futex_wake_word(struct task *t, uaddr_t addr, int count)
{
    const struct task_futex f = {addr, true};

    (void)!task_futex_wake(t, f, count, FUTEX_BITSET_MATCH_ANY);
}

/* ---- two words ---- */

struct futex_pair {
    struct mm_futex_key key, key2;
    struct futex_bucket *b, *b2;
};

static int futex_pair_get(struct task *t, struct task_futex f, struct task_futex f2,
                          struct futex_pair *p)
{
    int r = futex_key(t, f, &p->key);

    if (r == 0)
        r = futex_key(t, f2, &p->key2);
    if (r)
        return r;
    p->b = futex_bucket_of(t->k, &p->key);
    p->b2 = futex_bucket_of(t->k, &p->key2);
    return 0;
}

static void futex_move_locked(const struct futex_pair *p, struct futex_waiter *w)
{
    w->key = p->key2;
    list_del(&w->node);
    futex_enqueue_locked(p->b2, w);
}

/* One pass; *wake and *move are what is left to do. -EINVAL: somebody waits for a lock there. */
static int futex_requeue_locked(const struct futex_pair *p, int *wake, int *move,
                                struct futex_wakes *wakes)
{
    struct futex_waiter *w, *next;
    int done = 0;

    list_for_each_entry_safe (w, next, &p->b->waiters, node) {
        if ((*wake == 0 && *move == 0) || wakes->count == FUTEX_WAKES)
            break;
        if (!futex_key_equal(&w->key, &p->key))
            continue;
        if (w->pi || w->requeue_pi)
            return -EINVAL;
        if (*wake > 0) {
            futex_grant_locked(w, wakes);
            (*wake)--;
        } else {
            futex_move_locked(p, w);
            (*move)--;
        }
        done++;
    }
    return done;
}

int64_t task_futex_requeue(struct task *t, struct task_futex f, struct task_futex to, int wake,
                           int move, const uint32_t *cmp)
{
    struct futex_wakes wakes = {.count = 0};
    struct futex_pair p;
    int64_t done = 0;
    uint32_t seen;
    bool full;

    if (wake < 0 || move < 0)
        return -EINVAL;
    int r = futex_pair_get(t, f, to, &p);
    if (r)
        return r;
    /* Onto itself nothing moves, but it counts. */
    do {
        mutex_lock_pair(&p.b->mu, &p.b2->mu);
        if (cmp && done == 0) {
            r = user_load32(&t->ua, f.addr, &seen);
            if (r == 0 && seen != *cmp)
                r = -EAGAIN;
        }
        const int some = r ? r : futex_requeue_locked(&p, &wake, &move, &wakes);
        r = MIN(some, 0);
        done += MAX(some, 0);
        mutex_unlock_pair(&p.b->mu, &p.b2->mu);
        full = wakes.count == FUTEX_WAKES;
        futex_wakes_run(&wakes);
    } while (r == 0 && full && (wake > 0 || move > 0));
    return r ? r : done;
}

int futex_cmpxchg(const struct uaccess *ua, uaddr_t addr, uint32_t expect, uint32_t desired)
{
    uint32_t seen;
    int r = user_cmpxchg32(ua, addr, expect, desired, &seen);

    if (r)
        return r;
    return seen == expect ? 0 : -EAGAIN;
}

/* ---- FUTEX_WAKE_OP ---- */

static int32_t sign_extend12(uint32_t v)
{
    return (int32_t)((v & 0xfff) ^ 0x800) - 0x800;
}

static int futex_op_apply(uint32_t op, uint32_t old, uint32_t *out)
{
    uint32_t arg = (uint32_t)sign_extend12(op >> 12);

    if (op & (uint32_t)FUTEX_OP_OPARG_SHIFT << 28)
        arg = 1u << (arg & 31);
    switch (op >> 28 & 7) {
    case FUTEX_OP_SET:
        *out = arg;
        return 0;
    case FUTEX_OP_ADD:
        *out = old + arg;
        return 0;
    case FUTEX_OP_OR:
        *out = old | arg;
        return 0;
    case FUTEX_OP_ANDN:
        *out = old & ~arg;
        return 0;
    case FUTEX_OP_XOR:
        *out = old ^ arg;
        return 0;
    default:
        return -ENOSYS;
    }
}

static int futex_op_compare(uint32_t op, uint32_t old_value)
{
    const int32_t old = (int32_t)old_value, arg = sign_extend12(op);

    switch (op >> 24 & 15) {
    case FUTEX_OP_CMP_EQ:
        return old == arg;
    case FUTEX_OP_CMP_NE:
        return old != arg;
    case FUTEX_OP_CMP_LT:
        return old < arg;
    case FUTEX_OP_CMP_GE:
        return old >= arg;
    case FUTEX_OP_CMP_LE:
        return old <= arg;
    case FUTEX_OP_CMP_GT:
        return old > arg;
    default:
        return -ENOSYS;
    }
}

/* Changes the second word; 1 or 0 as the old value compares. */
static int futex_op_run(struct task *t, uaddr_t addr, uint32_t op)
{
    uint32_t old, want;

    for (int i = 0; i < FUTEX_SPINS; i++) {
        int r = user_load32(&t->ua, addr, &old);
        if (r == 0)
            r = futex_op_apply(op, old, &want);
        if (r == 0)
            r = futex_cmpxchg(&t->ua, addr, old, want);
        if (r == 0)
            return futex_op_compare(op, old);
        if (r != -EAGAIN)
            return r;
    }
    return -EAGAIN;
}

int64_t task_futex_wake_op(struct task *t, struct task_futex f, struct task_futex f2, int wake,
                           int wake2, uint32_t op)
{
    struct futex_wakes wakes = {.count = 0};
    struct futex_pair p;
    int woken = 0, r = futex_pair_get(t, f, f2, &p);

    if (r)
        return r;
    mutex_lock_pair(&p.b->mu, &p.b2->mu);
    r = futex_op_run(t, f2.addr, op);
    if (r >= 0)
        woken = futex_wake_some_locked(p.b, &p.key, MAX(wake, 1), UINT32_MAX, &wakes);
    mutex_unlock_pair(&p.b->mu, &p.b2->mu);
    futex_wakes_run(&wakes);
    if (r < 0)
        return r == -EAGAIN ? -ERESTARTNOINTR : r;
    int more = woken == FUTEX_WAKES && woken < wake
                   ? futex_wake_key(t->k, &p.key, wake - woken, UINT32_MAX)
                   : MIN(woken, 0);
    if (more >= 0 && r > 0) {
        const int second = futex_wake_key(t->k, &p.key2, MAX(wake2, 1), UINT32_MAX);
        more = second < 0 ? second : more + second;
    }
    return more < 0 ? more : woken + more;
}
