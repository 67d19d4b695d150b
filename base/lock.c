#include "base/lock.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>
#include <string.h>

#ifdef RINGWALL_DEBUG

/* More than any call chain holds; reaching it is itself a bug. */
#define LOCK_HELD_MAX 32

struct lock_held {
    const void *lock;
    uint8_t rank;
    bool write;
};

static __thread struct lock_held lock_stack[LOCK_HELD_MAX];
static __thread unsigned lock_depth;

NORETURN static void lock_fail(const char *what, unsigned rank, unsigned held)
{
    static const char *const labels[] = {"lock order: ", ": ", " while holding "};
    const char *parts[] = {labels[0],           what, labels[1], lock_rank_name(rank), labels[2],
                           lock_rank_name(held)};
    char buf[256];
    size_t at = 0;
    ssize_t ignored;

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        size_t n = strnlen(parts[i], sizeof(buf) - 1 - at);

        memcpy(buf + at, parts[i], n);
        at += n;
    }
    buf[at++] = '\n';
    ignored = write(STDERR_FILENO, buf, at);
    (void)ignored;
    bug_fail(__FILE__, __LINE__, what);
}

/* The check runs before blocking, so that an inversion aborts instead of deadlocking. */
static void lock_check_order(const void *lock, uint8_t rank, bool nested)
{
    for (unsigned i = 0; i < lock_depth; i++) {
        const struct lock_held *h = &lock_stack[i];

        if (h->lock == lock)
            lock_fail("taken twice by one thread", rank, h->rank);
        if (h->rank > rank)
            lock_fail("rank must rise", rank, h->rank);
        if (h->rank == rank && !nested && (uintptr_t)h->lock > (uintptr_t)lock)
            lock_fail("same rank, address must rise", rank, h->rank);
    }
}

static void lock_push(const void *lock, uint8_t rank, bool write)
{
    BUG_ON(lock_depth >= LOCK_HELD_MAX);
    lock_stack[lock_depth++] = (struct lock_held){.lock = lock, .rank = rank, .write = write};
}

static struct lock_held *lock_find(const void *lock)
{
    for (unsigned i = lock_depth; i-- > 0;) {
        if (lock_stack[i].lock == lock)
            return &lock_stack[i];
    }
    return NULL;
}

static void lock_pop(const void *lock)
{
    struct lock_held *h = lock_find(lock);

    BUG_ON(h == NULL);
    lock_depth--;
    memmove(h, h + 1, (size_t)(&lock_stack[lock_depth] - h) * sizeof(*h));
}

void mutex_assert_held(const struct mutex *m)
{
    BUG_ON(lock_find(m) == NULL);
}

void rwlock_assert_held(const struct rwlock *l)
{
    BUG_ON(lock_find(l) == NULL);
}

void rwlock_assert_write_held(const struct rwlock *l)
{
    const struct lock_held *h = lock_find(l);

    BUG_ON(h == NULL || !h->write);
}

void lock_assert_none_held(void)
{
    if (lock_depth != 0)
        lock_fail("blocking with a lock held", 0, lock_stack[lock_depth - 1].rank);
}

void lock_assert_may_take(enum lock_rank rank)
{
    for (unsigned i = 0; i < lock_depth; i++) {
        if (lock_stack[i].rank >= (unsigned)rank)
            lock_fail("would take", (unsigned)rank, lock_stack[i].rank);
    }
}

#define LOCK_CHECK(l, nested) lock_check_order((l), (l)->rank, (nested))
#define LOCK_PUSH(l, write) lock_push((l), (l)->rank, (write))
#define LOCK_POP(l) lock_pop(l)
#define LOCK_SET_RANK(l, r) ((l)->rank = (uint8_t)(r))
#define LOCK_ASSERT_FREE(l) BUG_ON(lock_find(l) != NULL)
#else
#define LOCK_CHECK(l, nested) ((void)(nested))
#define LOCK_PUSH(l, write) ((void)(write))
#define LOCK_POP(l) ((void)(l))
#define LOCK_SET_RANK(l, r) ((void)(r))
#define LOCK_ASSERT_FREE(l) ((void)(l))
#endif

const char *lock_rank_name(unsigned rank)
{
    switch (rank) {
#define LOCK_RANK(name, number, what)                                                              \
    case number:                                                                                   \
        return #name;
#include "base/lock_ranks.def"
#undef LOCK_RANK
    default:
        return "?";
    }
}

void mutex_init(struct mutex *m, enum lock_rank rank)
{
    BUG_ON(pthread_mutex_init(&m->impl, NULL) != 0);
    LOCK_SET_RANK(m, rank);
}

void mutex_destroy(struct mutex *m)
{
    LOCK_ASSERT_FREE(m);
    BUG_ON(pthread_mutex_destroy(&m->impl) != 0);
}

static void mutex_lock_checked(struct mutex *m, bool nested)
{
    LOCK_CHECK(m, nested);
    BUG_ON(pthread_mutex_lock(&m->impl) != 0);
    LOCK_PUSH(m, true);
}

void mutex_lock(struct mutex *m)
{
    mutex_lock_checked(m, false);
}

void mutex_lock_nested(struct mutex *m)
{
    mutex_lock_checked(m, true);
}

bool mutex_trylock(struct mutex *m)
{
    int err = pthread_mutex_trylock(&m->impl);

    BUG_ON(err != 0 && err != EBUSY);
    if (err != 0)
        return false;
    LOCK_PUSH(m, true);
    return true;
}

void mutex_unlock(struct mutex *m)
{
    LOCK_POP(m);
    BUG_ON(pthread_mutex_unlock(&m->impl) != 0);
}

void mutex_lock_pair(struct mutex *a, struct mutex *b)
{
    struct mutex *first = (uintptr_t)a < (uintptr_t)b ? a : b;
    struct mutex *second = first == a ? b : a;

    if (first != NULL && first != second)
        mutex_lock(first);
    if (second != NULL)
        mutex_lock(second);
}

void mutex_unlock_pair(struct mutex *a, struct mutex *b)
{
    if (a != NULL)
        mutex_unlock(a);
    if (b != NULL && b != a)
        mutex_unlock(b);
}

void rwlock_init(struct rwlock *l, enum lock_rank rank)
{
    pthread_rwlockattr_t attr;

    /* Readers never nest (the order check forbids it), so writers may overtake waiting readers:
     * a guest with many readers cannot starve a writer. */
    BUG_ON(pthread_rwlockattr_init(&attr) != 0);
    BUG_ON(pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) != 0);
    BUG_ON(pthread_rwlock_init(&l->impl, &attr) != 0);
    BUG_ON(pthread_rwlockattr_destroy(&attr) != 0);
    LOCK_SET_RANK(l, rank);
}

void rwlock_destroy(struct rwlock *l)
{
    LOCK_ASSERT_FREE(l);
    BUG_ON(pthread_rwlock_destroy(&l->impl) != 0);
}

void rwlock_rdlock(struct rwlock *l)
{
    int err;

    LOCK_CHECK(l, false);
    /* EAGAIN: the reader count is full for a moment. */
    do {
        err = pthread_rwlock_rdlock(&l->impl);
    } while (err == EAGAIN);
    BUG_ON(err != 0);
    LOCK_PUSH(l, false);
}

void rwlock_wrlock(struct rwlock *l)
{
    LOCK_CHECK(l, false);
    BUG_ON(pthread_rwlock_wrlock(&l->impl) != 0);
    LOCK_PUSH(l, true);
}

bool rwlock_trywrlock(struct rwlock *l)
{
    int err = pthread_rwlock_trywrlock(&l->impl);

    BUG_ON(err != 0 && err != EBUSY);
    if (err != 0)
        return false;
    LOCK_PUSH(l, true);
    return true;
}

void rwlock_unlock(struct rwlock *l)
{
    LOCK_POP(l);
    BUG_ON(pthread_rwlock_unlock(&l->impl) != 0);
}

void cond_init(struct cond *c)
{
    pthread_condattr_t attr;

    BUG_ON(pthread_condattr_init(&attr) != 0);
    BUG_ON(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0);
    BUG_ON(pthread_cond_init(&c->impl, &attr) != 0);
    BUG_ON(pthread_condattr_destroy(&attr) != 0);
}

void cond_destroy(struct cond *c)
{
    BUG_ON(pthread_cond_destroy(&c->impl) != 0);
}

bool cond_wait(struct cond *c, struct mutex *m, uint64_t deadline_ns)
{
    int err;

    mutex_assert_held(m);
    LOCK_POP(m);
    if (deadline_ns == UINT64_MAX) {
        err = pthread_cond_wait(&c->impl, &m->impl);
    } else {
        struct timespec ts = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                              .tv_nsec = (long)(deadline_ns % 1000000000u)};
        err = pthread_cond_timedwait(&c->impl, &m->impl, &ts);
    }
    BUG_ON(err != 0 && err != ETIMEDOUT);
    LOCK_PUSH(m, true);
    return err == 0;
}

void cond_signal(struct cond *c)
{
    BUG_ON(pthread_cond_signal(&c->impl) != 0);
}

void cond_broadcast(struct cond *c)
{
    BUG_ON(pthread_cond_broadcast(&c->impl) != 0);
}
