/* CPU numbers for rseq(2): of two threads that have the same, at most one is in guest code. There
 * are no more than the sandbox has CPUs. A thread takes one before it enters guest code and keeps
 * it, in system calls too, till somebody wants it: then the thread loses it when it sleeps, or when
 * it has had it for a slice. Whoever loses a number knows (BLOCKER_RSEQ) before it enters guest
 * code again. The host schedules threads as ever; a turn is waited for only when more threads are
 * in guest code at once than there are numbers. Depends on: base. Threading: said per function. A
 * user's fields are guarded by the mutex of the set (rank RSEQ), but for nr, which its owner may
 * read. Ownership: one set for a kernel; a user is part of its task and in the set from join to
 * leave. */
#ifndef RINGWALL_SENTRY_KERNEL_RSEQ_CPU_H
#define RINGWALL_SENTRY_KERNEL_RSEQ_CPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/limits.h"
#include "base/list.h"

struct rseq_cpus;
struct task;

/* What a thread shows for rseq(2). */
struct rseq_turn {
    uint32_t cpu, cid; /* the smallest numbers of threads of its address space that have turns */
};

struct rseq_user {
    bool joined;        /* changed by the owner */
    _Atomic bool waits; /* in the set's list of those that wait */
    bool give_way;      /* it has had its number for a slice, and others wait */
    bool settled;       /* it knows of its number */
    _Atomic int nr;     /* the number it has, or -1 */
    int last_nr;        /* which it had before, or -1 */
    uint32_t cid;       /* with nr: mm_cid_take */
    uint64_t since_ns;  /* with nr: from when on, mono_now */
    struct list node;
    uint64_t mask[LIMIT_CPU_WORDS]; /* numbers that it may have */
};

/* count: numbers from 0 on, at most LIMIT_CPU_WORDS * 64. -ENOMEM. Owned result. */
MUST_CHECK int rseq_cpus_new(int count, struct rseq_cpus **out_set);
/* Nobody is in it. NULL is allowed. */
void rseq_cpus_free(struct rseq_cpus *set);

/* From now on t needs a number to enter guest code; idempotent. Owner. */
void rseq_cpu_join(struct task *t);
/* Not any more; idempotent. Owner, while it has its context and its memory. */
void rseq_cpu_leave(struct task *t);
/* t has a number on return, though perhaps no longer: before guest code is entered BLOCKER_RSEQ is
 * looked at once more. Waits for a turn; -EINTR when interrupted. Owner, no lock held. */
MUST_CHECK int rseq_cpu_take(struct task *t, struct rseq_turn *out);
/* t does not need its number for a while: whoever waits may have it. Owner, no lock held. */
void rseq_cpu_idle(struct task *t);
/* t's affinity has changed. Any thread, task.mu held. If t is in guest code it is to be interrupted
 * afterwards. */
void rseq_cpu_affinity_locked(struct task *t);
/* The number that t has, or -1. Any thread; at once out of date. */
int rseq_cpu_number(const struct task *t);
/* Somebody waits for a number. Any thread; at once out of date. */
bool rseq_cpu_wanted(const struct rseq_cpus *set);

#endif
