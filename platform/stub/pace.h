/* Whether two threads that take turns share a CPU, one asleep while the other works, or have two
 * and spin for each other.
 *
 * Sleeping costs two switches a turn; spinning next to none, if the other CPU has nothing else to
 * do, and a great deal if it has. Nobody can be asked about that, so it is tried: a pair that takes
 * short turns is split for some of them, and stays so while that is faster and the other is there
 * when looked for. After each failure it waits twice as long before it tries again. A guest whose
 * long answers mostly come soon after it would have fallen asleep spins for twice as long.
 * Depends on: base.
 * Threading: a pace is its owner's.
 * Ownership: plain data; zeroed is a pair that has just met and is not split. */
#ifndef RINGWALL_PLATFORM_STUB_PACE_H
#define RINGWALL_PLATFORM_STUB_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct stub_pace {
    bool split; /* set by the owner when it has taken the advice */
    unsigned warm, turns, misses, good;
    int64_t bound_ns; /* what a turn takes while not split, about */
    uint64_t sum_ns;
    uint64_t retry_ns, next_ns;
    uint64_t last_ns; /* end of the last turn */
    uint32_t late;    /* answers that came soon after a spin, more than later ones */
};

enum stub_advice { STUB_PACE_STAY, STUB_PACE_SPLIT, STUB_PACE_JOIN };

/* A turn has ended at now (ns, monotonic), after turn_ns; slept: spinning was not enough. */
enum stub_advice stub_pace_turn(struct stub_pace *p, uint64_t turn_ns, bool slept, uint64_t now);
/* Split and join as advised, or for reasons of the owner's. */
void stub_pace_split(struct stub_pace *p);
void stub_pace_join(struct stub_pace *p);
/* What has made trials fail so far has changed: the next one need not wait. */
void stub_pace_again(struct stub_pace *p);
/* How long the guest's side looks for an answer, of spin pauses that the sentry's looks for a call.
 */
uint32_t stub_pace_patience(const struct stub_pace *p, uint32_t spin);
/* How many pauses of the processor are worth a sleep. */
uint32_t stub_pace_calibrate(void);

#endif
