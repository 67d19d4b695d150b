#include "platform/stub/pace.h"

#include "base/compiler.h"
#include "platform/stub/seat.h"

/* Turns shorter than this, so many in a row, make it worth trying. A longer one takes half of them
 * away: an interrupt of the host's may have met it. */
#define PACE_QUICK_NS 60000u
#define PACE_QUICK_TURNS 128u
/* Turns between two looks at how it goes, how many may end in sleep, and how many of the first do
 * not count: a thread has to get to the other CPU. */
#define PACE_TRIAL_TURNS 64u
#define PACE_WARM_TURNS 8u
#define PACE_MISSES 4u
/* A sleep as long as this says that the other had to wait for a CPU: one is enough. */
#define PACE_HOPELESS_NS 300000u
/* So many good looks in a row, and failures are forgotten. */
#define PACE_GOOD_LOOKS 64u
#define PACE_RETRY_FIRST_NS (UINT64_C(10) * 1000 * 1000)
#define PACE_RETRY_LAST_NS (UINT64_C(1000) * 1000 * 1000)
/* How long to spin before sleeping. */
#define PACE_SPIN_NS 20000u
#define PACE_CALIBRATE 2000u
/* An answer that comes after PACE_ALMOST_NS and within PACE_LONG times PACE_SPIN_NS is worth
 * waiting for a bit longer; one that comes later counts twice against it. From so many on it is
 * done. */
#define PACE_ALMOST_NS (PACE_SPIN_NS - PACE_SPIN_NS / 4)
#define PACE_LONG 2u
#define PACE_LATE_ENOUGH 4u
#define PACE_LATE_MAX 8u

uint32_t stub_pace_calibrate(void)
{
    uint64_t best = UINT64_MAX;

    for (int round = 0; round < 3; round++) {
        uint64_t start = stub_now();
        for (unsigned i = 0; i < PACE_CALIBRATE; i++)
            __builtin_ia32_pause();
        best = MIN(best, stub_now() - start);
    }
    return (uint32_t)(PACE_SPIN_NS * PACE_CALIBRATE / MAX(best, UINT64_C(1)));
}

void stub_pace_split(struct stub_pace *p)
{
    p->split = true;
    p->turns = p->misses = 0;
    p->sum_ns = 0;
    p->good = 0;
    p->warm = PACE_WARM_TURNS;
}

void stub_pace_join(struct stub_pace *p)
{
    p->split = false;
    p->turns = 0;
}

void stub_pace_again(struct stub_pace *p)
{
    p->retry_ns = p->next_ns = 0;
}

static enum stub_advice pace_bound(struct stub_pace *p, uint64_t turn_ns, uint64_t now)
{
    if (turn_ns > PACE_QUICK_NS) {
        p->turns /= 2;
        return STUB_PACE_STAY;
    }
    /* Of the last eight or so. */
    p->bound_ns += ((int64_t)turn_ns - p->bound_ns) / 8;
    if (++p->turns < PACE_QUICK_TURNS)
        return STUB_PACE_STAY;
    p->turns = 0;
    return now >= p->next_ns ? STUB_PACE_SPLIT : STUB_PACE_STAY;
}

static enum stub_advice pace_failed(struct stub_pace *p, uint64_t now)
{
    p->retry_ns = MIN(MAX(2 * p->retry_ns, PACE_RETRY_FIRST_NS), PACE_RETRY_LAST_NS);
    p->next_ns = now + p->retry_ns;
    return STUB_PACE_JOIN;
}

static void pace_answer(struct stub_pace *p, uint64_t took_ns)
{
    if (took_ns < PACE_ALMOST_NS)
        return;
    if (took_ns <= PACE_LONG * PACE_SPIN_NS)
        p->late = MIN(p->late + 1, PACE_LATE_MAX);
    else
        p->late -= MIN(p->late, 2u);
}

uint32_t stub_pace_patience(const struct stub_pace *p, uint32_t spin)
{
    return p->late >= PACE_LATE_ENOUGH ? PACE_LONG * spin : spin;
}

enum stub_advice stub_pace_turn(struct stub_pace *p, uint64_t turn_ns, bool slept, uint64_t now)
{
    pace_answer(p, now - turn_ns - p->last_ns);
    p->last_ns = now;
    if (!p->split)
        return pace_bound(p, turn_ns, now);
    if (slept && turn_ns > PACE_HOPELESS_NS)
        return pace_failed(p, now);
    if (p->warm > 0) {
        p->warm--;
        return STUB_PACE_STAY;
    }
    p->sum_ns += turn_ns;
    p->misses += slept;
    if (p->misses > PACE_MISSES)
        return pace_failed(p, now);
    if (++p->turns < PACE_TRIAL_TURNS)
        return STUB_PACE_STAY;
    if ((int64_t)(p->sum_ns / PACE_TRIAL_TURNS) > p->bound_ns - p->bound_ns / 4)
        return pace_failed(p, now);
    if (++p->good == PACE_GOOD_LOOKS)
        p->retry_ns = 0;
    p->turns = p->misses = 0;
    p->sum_ns = 0;
    return STUB_PACE_STAY;
}
