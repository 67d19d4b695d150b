/* Mutexes and reader-writer locks whose order is checked in debug builds (RINGWALL_DEBUG).
 * Depends on: compiler.h, lock_ranks.def.
 * Threading: every function from any thread; not async-signal-safe. Locks are not recursive.
 * Ownership: a lock is embedded in what it guards; the same thread unlocks what it locked. */
#ifndef RINGWALL_BASE_LOCK_H
#define RINGWALL_BASE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

enum lock_rank {
#define LOCK_RANK(name, number, what) LOCK_RANK_##name = (number),
#include "base/lock_ranks.def"
#undef LOCK_RANK
};

/* The order, aborting on a violation: ranks rise; locks of one rank are taken in rising address
 * order, unless the caller has an order of its own (parent before child) and says _nested. */

struct mutex {
    pthread_mutex_t impl;
#ifdef RINGWALL_DEBUG
    uint8_t rank;
#endif
};

struct rwlock {
    pthread_rwlock_t impl;
#ifdef RINGWALL_DEBUG
    uint8_t rank;
#endif
};

#ifdef RINGWALL_DEBUG
#define MUTEX_INITIALIZER(rank_)                                                                   \
    {                                                                                              \
        .impl = PTHREAD_MUTEX_INITIALIZER, .rank = (rank_)                                         \
    }
#else
#define MUTEX_INITIALIZER(rank_)                                                                   \
    {                                                                                              \
        .impl = PTHREAD_MUTEX_INITIALIZER                                                          \
    }
#endif

void mutex_init(struct mutex *m, enum lock_rank rank);
/* Nobody may hold it. */
void mutex_destroy(struct mutex *m);
void mutex_lock(struct mutex *m);
void mutex_lock_nested(struct mutex *m);
/* True when taken. Never blocks, so the order is not checked. */
MUST_CHECK bool mutex_trylock(struct mutex *m);
void mutex_unlock(struct mutex *m);
/* Two locks of one rank in address order; a and b may be the same lock or NULL. */
void mutex_lock_pair(struct mutex *a, struct mutex *b);
void mutex_unlock_pair(struct mutex *a, struct mutex *b);

void rwlock_init(struct rwlock *l, enum lock_rank rank);
void rwlock_destroy(struct rwlock *l);
void rwlock_rdlock(struct rwlock *l);
void rwlock_wrlock(struct rwlock *l);
MUST_CHECK bool rwlock_trywrlock(struct rwlock *l);
void rwlock_unlock(struct rwlock *l);

#ifdef RINGWALL_DEBUG
/* Abort unless the calling thread holds it (rwlock_assert_held: either way). */
void mutex_assert_held(const struct mutex *m);
void rwlock_assert_held(const struct rwlock *l);
void rwlock_assert_write_held(const struct rwlock *l);
/* Aborts when the calling thread holds any lock: for whatever blocks for long. */
void lock_assert_none_held(void);
/* Aborts when the calling thread holds a lock of this rank or a larger one. */
void lock_assert_may_take(enum lock_rank rank);
#else
static inline void mutex_assert_held(const struct mutex *m)
{
    (void)m;
}

static inline void rwlock_assert_held(const struct rwlock *l)
{
    (void)l;
}

static inline void rwlock_assert_write_held(const struct rwlock *l)
{
    (void)l;
}

static inline void lock_assert_none_held(void)
{
}

static inline void lock_assert_may_take(enum lock_rank rank)
{
    (void)rank;
}
#endif

/* Name of a rank, or "?". */
const char *lock_rank_name(unsigned rank);

/* Lock and condition: releases m while it waits. deadline_ns: absolute CLOCK_MONOTONIC, UINT64_MAX
 * for none. False after the deadline. For host-side helpers; guest tasks sleep in sentry/wait. */
struct cond {
    pthread_cond_t impl;
};
void cond_init(struct cond *c);
void cond_destroy(struct cond *c);
bool cond_wait(struct cond *c, struct mutex *m, uint64_t deadline_ns);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);

#endif
