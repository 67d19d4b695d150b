/* Seats: where a sentry thread and its stub thread take turns, for how long they have, and what of
 * that was guest code. A placer is a platform's; a seat is a context's.
 * Depends on: base.
 * Threading: "owner" is the thread that runs the context; before its first run, whoever holds it.
 * Ownership: seats are embedded in contexts and in a placer's list while they are placed. */
#ifndef RINGWALL_PLATFORM_STUB_SEAT_H
#define RINGWALL_PLATFORM_STUB_SEAT_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/list.h"
#include "base/lock.h"
#include "platform/stub/nice.h"

/* Places that are no CPU: left to the host; to be found at the next turn. */
#define STUB_CPU_FREE (-1)
#define STUB_CPU_NEW (-2)

struct stub_seat;

struct stub_placer {
    cpu_set_t cpus; /* that the sandbox may use; immutable, as cpu_count */
    int cpu_count;
    struct stub_nice nicer; /* immutable */
    /* Called now and then, with mu held, for a seat whose guest has been running for long. May be
     * NULL. */
    void (*long_turn)(struct stub_placer *p, struct stub_seat *s);
    _Atomic int cpu_guests[CPU_SETSIZE]; /* bound seats in the guest, by CPU */
    _Atomic int splits;                  /* seats that have two CPUs */
    struct mutex mu;                     /* rank LEAF: the rest */
    struct list placed;                  /* stub_seat.node */
    struct cond watch_cond;
    pthread_t watcher;
    bool watch_started, watch_stop;
    _Atomic bool watch_asleep;
};

struct stub_seat {
    struct stub_placer *placer;
    pid_t tid; /* of the stub thread */
    cpu_set_t
        cpus; /* of the placer's, those it may have; owner to read, with placer.mu to change */
    /* owner */
    int cpu;                       /* where it is bound, or STUB_CPU_* */
    bool split;                    /* the stub thread is kept off our CPU */
    bool follows;                  /* bound where somebody else is, whom it is not to avoid */
    bool placed;                   /* is in stub_placer.placed */
    bool nice_stays;               /* the stub thread must not become another seat's */
    bool entered;                  /* at least once: the owner's thread is where it should be */
    unsigned company;              /* entries that found somebody else there */
    unsigned quick;                /* short turns in a row, of a free pair */
    uint64_t bond_ns, bond_end_ns; /* length and end of the bond to that CPU */
    bool clock_shared;             /* turns are added to cpu_ns */
    struct list node;              /* guard: stub_placer.mu */
    struct mutex clock_mu;         /* rank PLATFORM; nothing is taken under it */
    pid_t clock_pid;               /* guard: clock_mu: the process whose clock is ours; 0: shared */
    uint64_t clock_before;         /* guard: clock_mu: used before that process */
    /* any thread */
    _Atomic uint64_t entered_ns; /* in the guest since, or 0 */
    _Atomic bool let_go;         /* the stub thread is not bound any more */
    _Atomic uint64_t cpu_ns;     /* guest time of turns that have ended */
};

/* ---- place.c ---- */
void stub_placer_init(struct stub_placer *p);
void stub_placer_fini(struct stub_placer *p);
void stub_seat_init(struct stub_seat *s, struct stub_placer *p);
void stub_seat_fini(struct stub_seat *s);
/* s has a stub thread of its own now; has none any more. */
void stub_seat_place(struct stub_seat *s);
void stub_seat_unplace(struct stub_seat *s);
/* A new seat begins where its parent's is. Owner of parent. */
void stub_seat_inherit(struct stub_seat *s, const struct stub_seat *parent);
/* The CPUs of from that mask names, bit n for the one that is n-th there; none of them: all. */
void stub_cpus_pick(const cpu_set_t *from, const uint64_t *mask, size_t words, cpu_set_t *out);
/* From now on it has only these of the placer's CPUs, named so. Owner, between turns. */
void stub_seat_limit(struct stub_seat *s, const uint64_t *mask, size_t words);
/* Both threads have that CPU for as long as a bond lasts at most, whoever else is there; false if
 * it may not be had. cpu < 0: no longer. Owner, between turns; not while split. */
MUST_CHECK bool stub_seat_follow(struct stub_seat *s, int cpu);
/* Its stub thread gets that nice value, 0 to 19, as far as the host permits. Owner, between turns.
 */
void stub_seat_nice(struct stub_seat *s, int nice);
/* Binds a sleeping stub thread to the CPU of the caller, who is about to wake it. */
void stub_place_fetch(const struct stub_placer *p, pid_t tid);
/* The two threads get different CPUs, if there is one with nobody of ours: true. Till joined, or
 * let go by the watching thread. Owner. */
MUST_CHECK bool stub_seat_split(struct stub_seat *s);
void stub_seat_join(struct stub_seat *s);
/* Around each turn of the guest. leave adds the turn to the seat's time. */
void stub_seat_enter(struct stub_seat *s, uint64_t now);
void stub_seat_leave(struct stub_seat *s, uint64_t entered, uint64_t now);

/* ---- watch.c ---- */
/* The first seat starts it: before, the sentry has one thread. mu held. */
void stub_watch_start_locked(struct stub_placer *p);
void stub_watch_stop(struct stub_placer *p);
void stub_watch_wake(struct stub_placer *p);

/* ---- cputime.c ---- */
/* CLOCK_MONOTONIC, ns. */
uint64_t stub_now(void);
/* s is the only seat of stub process pid, which is new; has company from now on. */
void stub_clock_start(struct stub_seat *s, pid_t pid);
void stub_clock_share(struct stub_seat *s);
/* Any thread. */
uint64_t stub_clock_read(struct stub_seat *s);

#endif
