/* Futexes whose word names the owner: FUTEX_LOCK_PI and its kin. All tasks have one priority here,
 * so nothing is inherited; the lock is handed on in the order of waiting. */
#include <errno.h>
#include <linux/futex.h>

#include "sentry/kernel/process.h"
#include "sentry/kernel/futex_priv.h"
#include "sentry/kernel/inspect.h"

#define PI_SPINS 4096

struct futex_waiter *futex_pi_first_locked(struct futex_bucket *b, const struct mm_futex_key *key)
{
    struct futex_waiter *w;

    list_for_each_entry (w, &b->waiters, node)
        if (w->pi && futex_key_equal(&w->key, key))
            return w;
    return NULL;
}

bool futex_pi_owner_lives(struct task *t, int32_t tid)
{
    struct task *o;

    if (task_find(t, tid, &o))
        return false;
    const bool lives = !atomic_load(&task_priv(o)->futex_gone);
    task_put(o);
    return lives;
}

/* What the word becomes: *out_taken says whether the lock is t's then. */
static int pi_decide(uint32_t tid, uint32_t old, bool others_wait, const struct futex_pi_try *p,
                     uint32_t *out_want, bool *out_taken)
{
    const uint32_t owner = old & FUTEX_TID_MASK;

    *out_taken = true;
    if (owner == tid)
        return -EDEADLK;
    /* Never so while somebody waits, but after an owner's end: then the first to come takes it. */
    if (owner == 0) {
        *out_want =
            tid | (old & (FUTEX_OWNER_DIED | FUTEX_WAITERS)) | (others_wait ? FUTEX_WAITERS : 0);
        return 0;
    }
    if (owner == (uint32_t)p->died) {
        *out_want = tid | FUTEX_OWNER_DIED | FUTEX_WAITERS;
        return 0;
    }
    if (p->try)
        return -EAGAIN;
    *out_want = old | FUTEX_WAITERS;
    *out_taken = false;
    return 0;
}

int futex_pi_take_locked(const struct uaccess *ua, int32_t tid, uaddr_t addr, bool others_wait,
                         struct futex_pi_try *p)
{
    for (int i = 0; i < PI_SPINS; i++) {
        uint32_t old, want;
        bool taken;
        int r = user_load32(ua, addr, &old);
        if (r == 0)
            r = pi_decide((uint32_t)tid, old, others_wait, p, &want, &taken);
        if (r)
            return r;
        r = want == old ? 0 : futex_cmpxchg(ua, addr, old, want);
        if (r == 0) {
            p->owner = (int32_t)(old & FUTEX_TID_MASK);
            return taken ? 0 : -EINPROGRESS;
        }
        if (r != -EAGAIN)
            return r;
    }
    return -ERESTARTNOINTR;
}

static int pi_begin(struct task *t, uaddr_t addr, struct futex_waiter *w, struct futex_pi_try *p)
{
    struct futex_bucket *b = futex_bucket_of(t->k, &w->key);

    mutex_lock(&b->mu);
    int r =
        futex_pi_take_locked(&t->ua, t->vtid, addr, futex_pi_first_locked(b, &w->key) != NULL, p);
    if (r == -EINPROGRESS) {
        w->pi_owner = p->owner;
        futex_enqueue_locked(b, w);
    }
    mutex_unlock(&b->mu);
    return r;
}

/* Queued. 0: given the lock. -EINPROGRESS: the owner has ended, try again. */
static int pi_wait(struct task *t, struct futex_waiter *w, int32_t owner, deadline_t deadline)
{
    /* Queued first, looked at then: an owner that ends from now on finds this waiter. */
    int r = owner != 0 && !futex_pi_owner_lives(t, owner) ? -ESRCH : 0;

    while (r == 0 && !atomic_load_explicit(&w->woken, memory_order_acquire)) {
        if (atomic_load_explicit(&w->orphaned, memory_order_acquire))
            r = -EINPROGRESS;
        else
            r = blocker_wait(&t->blocker, deadline);
    }
    return futex_dequeue(w) ? r : 0;
}

void futex_pi_begin(struct task *t)
{
    atomic_fetch_add(&t->k->futexes->pi_waiters, 1);
}

void futex_pi_end(struct task *t)
{
    atomic_fetch_sub(&t->k->futexes->pi_waiters, 1);
}

int futex_lock_pi_key(struct task *t, const struct mm_futex_key *key, uaddr_t addr, bool try,
                      int32_t died, deadline_t deadline)
{
    struct futex_pi_try p = {.try = try, .died = died};
    struct futex_waiter w;
    int r;

    futex_pi_begin(t);
    /* Each turn but the last needs the end of another task. */
    do {
        futex_waiter_init(&w, t, key, FUTEX_BITSET_MATCH_ANY);
        w.pi = true;
        r = pi_begin(t, addr, &w, &p);
        if (r != -EINPROGRESS)
            break;
        r = pi_wait(t, &w, p.owner, deadline);
        p.died = p.owner;
    } while (r == -EINPROGRESS);
    futex_pi_end(t);
    return r;
}

int64_t task_futex_lock_pi(struct task *t, struct task_futex f, bool try, deadline_t deadline)
{
    struct mm_futex_key key;
    int r = mm_futex_key(&t->ua, f.addr, f.shared, &key);

    if (r == 0)
        r = futex_lock_pi_key(t, &key, f.addr, try, 0, deadline);
    return r == -EINTR ? -ERESTARTNOINTR : r;
}

/* Bucket locked. The word goes from old to the next owner, or to nobody. */
static int pi_hand_over_locked(const struct uaccess *ua, struct futex_bucket *b,
                               const struct mm_futex_key *key, uaddr_t addr, uint32_t old,
                               struct futex_wakes *wakes)
{
    struct futex_waiter *next = futex_pi_first_locked(b, key), *w;

    if (!next)
        return futex_cmpxchg(ua, addr, old, 0);
    const int32_t tid = next->t->vtid;
    /* Whether others wait too is not worth a search: the bit only makes the unlock a call. */
    int r = futex_cmpxchg(ua, addr, old, (uint32_t)tid | FUTEX_WAITERS);
    if (r)
        return r;
    futex_grant_locked(next, wakes);
    list_for_each_entry (w, &b->waiters, node)
        if (w->pi && futex_key_equal(&w->key, key))
            w->pi_owner = tid;
    return 0;
}

int64_t task_futex_unlock_pi(struct task *t, struct task_futex f)
{
    struct futex_wakes wakes = {.count = 0};
    struct mm_futex_key key;
    uint32_t old;
    int r = mm_futex_key(&t->ua, f.addr, f.shared, &key);

    if (r)
        return r;
    struct futex_bucket *b = futex_bucket_of(t->k, &key);
    mutex_lock(&b->mu);
    r = user_load32(&t->ua, f.addr, &old);
    if (r == 0 && (old & FUTEX_TID_MASK) != (uint32_t)t->vtid)
        r = -EPERM;
    if (r == 0)
        r = pi_hand_over_locked(&t->ua, b, &key, f.addr, old, &wakes);
    mutex_unlock(&b->mu);
    futex_wakes_run(&wakes);
    return r == -EAGAIN ? -ERESTARTNOINTR : r;
}

/* ---- the owner's end ---- */

void futex_pi_orphan_locked(struct futex_bucket *b, int32_t tid)
{
    struct futex_waiter *w;

    list_for_each_entry (w, &b->waiters, node) {
        if (!w->pi || w->pi_owner != tid)
            continue;
        atomic_store_explicit(&w->orphaned, true, memory_order_release);
        /* Its task cannot go while it is queued: it has to take this lock first. */
        blocker_wake(&w->t->blocker);
    }
}

void futex_pi_exit(struct task *t)
{
    struct futex_table *ft = t->k->futexes;

    atomic_store(&task_priv(t)->futex_gone, true);
    if (atomic_load(&ft->pi_waiters) == 0)
        return;
    for (size_t i = 0; i < FUTEX_BUCKETS; i++) {
        mutex_lock(&ft->buckets[i].mu);
        futex_pi_orphan_locked(&ft->buckets[i], t->vtid);
        mutex_unlock(&ft->buckets[i].mu);
    }
}
