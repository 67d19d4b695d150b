/* Locks exclude, conditions wake, and debug builds abort on every wrong order. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "base/lock.h"

static struct mutex shared;
static struct cond ready;
static int counter;

static void *count(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20000; i++) {
        mutex_lock(&shared);
        counter++;
        mutex_unlock(&shared);
    }
    return NULL;
}

Test(lock, mutex_excludes)
{
    pthread_t t[4];

    mutex_init(&shared, LOCK_RANK_LEAF);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, count, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    cr_assert_eq(counter, 80000);
    mutex_destroy(&shared);
}

static struct rwlock rw;
static long long pair_a, pair_b;

static void *reader(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5000; i++) {
        rwlock_rdlock(&rw);
        if (pair_a != pair_b)
            cr_assert(false, "torn");
        rwlock_unlock(&rw);
    }
    return NULL;
}

static void *writer(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5000; i++) {
        rwlock_wrlock(&rw);
        pair_a++;
        pair_b++;
        rwlock_unlock(&rw);
    }
    return NULL;
}

Test(lock, rwlock_excludes_writers)
{
    pthread_t t[4];

    rwlock_init(&rw, LOCK_RANK_MM);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, i < 2 ? reader : writer, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    cr_assert_eq(pair_a, 10000);
    rwlock_destroy(&rw);
}

static void *signaller(void *arg)
{
    (void)arg;
    mutex_lock(&shared);
    counter = -1;
    cond_signal(&ready);
    mutex_unlock(&shared);
    return NULL;
}

Test(lock, condition_wakes_and_times_out)
{
    struct timespec now;
    pthread_t t;

    mutex_init(&shared, LOCK_RANK_LEAF);
    cond_init(&ready);
    mutex_lock(&shared);
    clock_gettime(CLOCK_MONOTONIC, &now);
    cr_assert(!cond_wait(&ready, &shared,
                         (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + 1000000u));
    pthread_create(&t, NULL, signaller, NULL);
    while (counter != -1)
        (void)cond_wait(&ready, &shared, UINT64_MAX);
    mutex_unlock(&shared);
    pthread_join(t, NULL);
    cond_destroy(&ready);
    mutex_destroy(&shared);
}

Test(lock, pairs_take_equal_or_missing_locks)
{
    struct mutex m[2];

    mutex_init(&m[0], LOCK_RANK_SOCKET);
    mutex_init(&m[1], LOCK_RANK_SOCKET);
    mutex_lock_pair(&m[1], &m[0]);
    cr_assert(!mutex_trylock(&m[0]) && !mutex_trylock(&m[1]));
    mutex_unlock_pair(&m[0], &m[1]);
    mutex_lock_pair(&m[1], &m[1]);
    mutex_unlock_pair(&m[1], &m[1]);
    mutex_lock_pair(NULL, &m[0]);
    mutex_unlock_pair(&m[0], NULL);
    mutex_destroy(&m[0]);
    mutex_destroy(&m[1]);
}

Test(lock, ranks_have_names)
{
    cr_assert_str_eq(lock_rank_name(LOCK_RANK_MM), "MM");
    cr_assert_str_eq(lock_rank_name(255), "?");
}

#ifdef RINGWALL_DEBUG
static struct mutex outer = MUTEX_INITIALIZER(LOCK_RANK_KERNEL);
static struct mutex inner = MUTEX_INITIALIZER(LOCK_RANK_MM);
static struct mutex twins[2];

Test(lock_order, rising_is_fine)
{
    mutex_lock(&outer);
    mutex_lock(&inner);
    mutex_assert_held(&outer);
    mutex_unlock(&outer);
    mutex_assert_held(&inner);
    lock_assert_may_take(LOCK_RANK_LOG);
    mutex_unlock(&inner);
    lock_assert_none_held();
}

Test(lock_order, inversion_aborts, .signal = SIGABRT)
{
    mutex_lock(&inner);
    mutex_lock(&outer);
}

Test(lock_order, recursion_aborts, .signal = SIGABRT)
{
    mutex_lock(&inner);
    mutex_lock(&inner);
}

Test(lock_order, same_rank_wrong_address_aborts, .signal = SIGABRT)
{
    mutex_init(&twins[0], LOCK_RANK_SOCKET);
    mutex_init(&twins[1], LOCK_RANK_SOCKET);
    mutex_lock(&twins[1]);
    mutex_lock(&twins[0]);
}

Test(lock_order, nested_has_an_order_of_its_own)
{
    mutex_init(&twins[0], LOCK_RANK_INODE_DIR);
    mutex_init(&twins[1], LOCK_RANK_INODE_DIR);
    mutex_lock(&twins[1]);
    mutex_lock_nested(&twins[0]);
    mutex_unlock(&twins[0]);
    mutex_unlock(&twins[1]);
}

Test(lock_order, unlock_of_what_is_not_held_aborts, .signal = SIGABRT)
{
    mutex_unlock(&outer);
}

Test(lock_order, assert_held_aborts, .signal = SIGABRT)
{
    mutex_assert_held(&outer);
}

Test(lock_order, blocking_with_a_lock_aborts, .signal = SIGABRT)
{
    mutex_lock(&outer);
    lock_assert_none_held();
}

Test(lock_order, reader_is_not_a_writer, .signal = SIGABRT)
{
    struct rwlock l;

    rwlock_init(&l, LOCK_RANK_MM);
    rwlock_rdlock(&l);
    rwlock_assert_held(&l);
    rwlock_assert_write_held(&l);
}

Test(lock_order, may_take_aborts, .signal = SIGABRT)
{
    mutex_lock(&inner);
    lock_assert_may_take(LOCK_RANK_MM);
}
#endif
