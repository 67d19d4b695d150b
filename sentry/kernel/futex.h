/* Futexes: futex(2), futex_waitv(2), robust lists.
 * Depends on: task.h.
 * Threading: t is the calling task, on its own thread with no lock held.
 * Ownership: values. */
#ifndef RINGWALL_SENTRY_KERNEL_FUTEX_H
#define RINGWALL_SENTRY_KERNEL_FUTEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/kernel/task.h"

/* A futex word: shared ones are found by what backs the memory, others by the address space. */
struct task_futex {
    uaddr_t addr;
    bool shared;
};

/* Sleeps while the word is val. 0 when woken by a wake-up that meets bitset; -EAGAIN, -EFAULT,
 * -EINVAL, -ETIMEDOUT, -ERESTART*. */
MUST_CHECK int64_t task_futex_wait(struct task *t, struct task_futex f, uint32_t val,
                                   uint32_t bitset, deadline_t deadline);
/* Wakes up to count (at least one) whose bitset meets bitset; how many. */
MUST_CHECK int64_t task_futex_wake(struct task *t, struct task_futex f, int count, uint32_t bitset);
/* Wakes up to wake and moves up to move to another word; how many in all. cmp: NULL, or what the
 * first word must be (-EAGAIN). */
MUST_CHECK int64_t task_futex_requeue(struct task *t, struct task_futex f, struct task_futex to,
                                      int wake, int move, const uint32_t *cmp);
/* Changes the second word as op says, wakes on the first, and on the second if its old value
 * passes op's comparison. -ENOSYS for an unknown op. */
MUST_CHECK int64_t task_futex_wake_op(struct task *t, struct task_futex f, struct task_futex f2,
                                      int wake, int wake2, uint32_t op);

struct task_futex_waitv {
    struct task_futex f;
    uint32_t val;
};
/* Sleeps while every word is its val; the index of one that was woken. */
MUST_CHECK int64_t task_futex_waitv(struct task *t, const struct task_futex_waitv *v, size_t count,
                                    deadline_t deadline);

/* Locks whose word names the owner. -EDEADLK, -ESRCH (the owner has gone), -EAGAIN (trylock, or the
 * owner is exiting), -EPERM (unlock by another), -ETIMEDOUT. */
MUST_CHECK int64_t task_futex_lock_pi(struct task *t, struct task_futex f, bool try,
                                      deadline_t deadline);
MUST_CHECK int64_t task_futex_unlock_pi(struct task *t, struct task_futex f);
/* Sleeps while the word is val, until task_futex_requeue_pi has moved it to lock and that is its
 * own. -EAGAIN: the word is not val, or interrupted once moved. */
MUST_CHECK int64_t task_futex_wait_requeue_pi(struct task *t, struct task_futex f, uint32_t val,
                                              struct task_futex lock, deadline_t deadline);
/* Gives the lock to one of those waiters if it is free and moves up to move others to it: how many
 * in all. wake must be 1. -EAGAIN: the word is not cmp. -EINVAL: somebody waits for something
 * else. -ESRCH, -EDEADLK. */
MUST_CHECK int64_t task_futex_requeue_pi(struct task *t, struct task_futex f,
                                         struct task_futex lock, int wake, int move, uint32_t cmp);

#endif
