#include "sentry/wait/pairing.h"

#include "base/compiler.h"

/* Rounds between two looks, and how many of the first on another CPU do not count. */
#define PAIRING_ROUNDS 64u
#define PAIRING_WARM 8u
/* Who takes longer than this for a round does something else, too. */
#define PAIRING_LONG_NS (UINT64_C(500) * 1000)
/* So many wake-ups in a row by others, or after a long time, end it. */
#define PAIRING_STRANGE 16u
/* The part of their time that two may be awake at once. */
#define PAIRING_OVERLAP 8u
#define PAIRING_RETRY_FIRST_NS (UINT64_C(10) * 1000 * 1000)
#define PAIRING_RETRY_LAST_NS (UINT64_C(1000) * 1000 * 1000)

static void begin_window(struct pairing *p)
{
    p->rounds = 0;
    p->sum_ns = p->overlap_ns = 0;
}

static enum pairing_advice leave(struct pairing *p)
{
    const bool joined = p->joined;

    p->joined = false;
    p->partner = 0;
    begin_window(p);
    return joined ? PAIRING_LEAVE : PAIRING_STAY;
}

static enum pairing_advice failed(struct pairing *p, uint64_t now)
{
    p->retry_ns = MIN(MAX(2 * p->retry_ns, PAIRING_RETRY_FIRST_NS), PAIRING_RETRY_LAST_NS);
    p->next_ns = now + p->retry_ns;
    return leave(p);
}

/* No round of the two. */
static enum pairing_advice strange(struct pairing *p, const struct pairing_wake *w)
{
    if (!p->joined) {
        p->partner = w->waker;
        begin_window(p);
        return PAIRING_STAY;
    }
    return ++p->strange < PAIRING_STRANGE ? PAIRING_STAY : leave(p);
}

/* On two CPUs: what a round takes there is learnt. */
static enum pairing_advice apart(struct pairing *p, const struct pairing_wake *w)
{
    if (p->rounds < PAIRING_ROUNDS)
        return PAIRING_STAY;
    p->apart_ns = p->sum_ns / p->rounds;
    const bool alternate = p->overlap_ns < p->sum_ns / PAIRING_OVERLAP;
    begin_window(p);
    if (!alternate || w->now < p->next_ns)
        return PAIRING_STAY;
    p->joined = true;
    p->warm = PAIRING_WARM;
    return PAIRING_JOIN;
}

static enum pairing_advice joined(struct pairing *p, const struct pairing_wake *w)
{
    /* The other has moved, or we were moved. */
    if (w->own_cpu != w->waker_cpu) {
        p->warm = PAIRING_WARM;
        return PAIRING_JOIN;
    }
    if (p->rounds < PAIRING_ROUNDS)
        return PAIRING_STAY;
    if (p->sum_ns / p->rounds > p->apart_ns - p->apart_ns / 4)
        return failed(p, w->now);
    p->retry_ns = 0;
    begin_window(p);
    return PAIRING_JOIN;
}

/* The elder stays where it is met. */
static enum pairing_advice met(struct pairing *p, const struct pairing_wake *w)
{
    if (w->own_cpu != w->waker_cpu) {
        begin_window(p);
        return PAIRING_STAY;
    }
    if (p->rounds < PAIRING_ROUNDS)
        return PAIRING_STAY;
    begin_window(p);
    return PAIRING_JOIN;
}

enum pairing_advice pairing_woken(struct pairing *p, const struct pairing_wake *w)
{
    const uint64_t took = w->now - p->last_ns;

    p->last_ns = w->now;
    if (w->waker == 0 || w->waker != p->partner || took > PAIRING_LONG_NS)
        return strange(p, w);
    p->strange = 0;
    if (p->warm > 0) {
        p->warm--;
    } else {
        p->rounds++;
        p->sum_ns += took;
        p->overlap_ns += w->answered ? MIN(w->overlap_ns, took) : took;
    }
    if (w->own < w->waker)
        return met(p, w);
    if (p->joined)
        return joined(p, w);
    if (w->own_cpu == w->waker_cpu)
        begin_window(p);
    return apart(p, w);
}

void pairing_refused(struct pairing *p, uint64_t now)
{
    (void)failed(p, now);
}
