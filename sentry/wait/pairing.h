/* Whether a task had better run on the CPU of the one that keeps waking it.
 *
 * Of two that wake each other in turn one always sleeps. On two CPUs each wake-up is an interrupt
 * to an idle processor, which costs several times what the work between them does; on one it is a
 * switch. But two that have work at the same time lose by sharing. So those are paired of which
 * nearly always one sleeps while the other is awake, and it is tried: the younger one joins the
 * other for some rounds and stays while those are a quarter shorter. After each failure it waits
 * twice as long before it tries again. Depends on: base. Threading: a pairing is its owner's.
 * Ownership: plain data; zeroed is a task that nobody has woken yet. */
#ifndef RINGWALL_SENTRY_WAIT_PAIRING_H
#define RINGWALL_SENTRY_WAIT_PAIRING_H

#include <stdbool.h>
#include <stdint.h>

/* A task was woken from sleep by another: their ids and CPUs, and when (ns, monotonic). */
struct pairing_wake {
    uint32_t own, waker;
    int own_cpu, waker_cpu;
    uint64_t now;
    uint64_t overlap_ns; /* how long of the time since the last time both were awake */
    bool answered;       /* the other slept at some time since, and was woken by us */
};

struct pairing {
    uint32_t partner; /* or 0 */
    bool joined;      /* by our advice */
    unsigned rounds, warm, strange;
    uint64_t last_ns, sum_ns, overlap_ns; /* sums of a window */
    uint64_t apart_ns;                    /* what a round takes on two CPUs */
    uint64_t retry_ns, next_ns;
};

enum pairing_advice {
    PAIRING_STAY,
    PAIRING_JOIN, /* have the waker's CPU, if that is another one, and keep it */
    PAIRING_LEAVE /* be where there is room */
};

enum pairing_advice pairing_woken(struct pairing *p, const struct pairing_wake *w);
/* That CPU cannot be had. */
void pairing_refused(struct pairing *p, uint64_t now);

#endif
