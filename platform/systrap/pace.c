/* How a pair of threads waits for each other's turns: spinning on two CPUs (platform/stub/pace.h
 * says when), or on one, and there asleep or after a yield. */
#include "platform/systrap/systrap_priv.h"

/* Turns of a window in which one way of waiting is tried, and windows till it is tried again; what
 * one turn counts at most. */
#define PACE_WAIT_TURNS 128u
#define PACE_WAIT_WINDOWS 18u
#define PACE_WAIT_MAX_NS (UINT64_C(4) * 1000 * 1000)

/* Yielding costs half of what sleeping and being woken does, but who yields lets everybody else run
 * first, and who is woken runs before them. What is better depends on who else is there: each way
 * gets a window now and then, and the faster one those between. */
static void pace_wait(struct st_pace *p, uint64_t now)
{
    p->wait_sum_ns += MIN(now - p->wait_since, PACE_WAIT_MAX_NS);
    p->wait_since = now;
    if (++p->wait_turns < PACE_WAIT_TURNS)
        return;
    if (p->wait_window == 0) {
        p->wait_yields_ns = p->wait_sum_ns;
        p->sleeps = true;
    } else if (p->wait_window == 1) {
        p->sleeps = p->wait_sum_ns < p->wait_yields_ns;
    } else if (p->wait_window == PACE_WAIT_WINDOWS) {
        p->sleeps = false;
    }
    p->wait_window = p->wait_window == PACE_WAIT_WINDOWS ? 0 : p->wait_window + 1;
    p->wait_turns = 0;
    p->wait_sum_ns = 0;
}

static void pace_split(struct st_ctx *c)
{
    if (!stub_seat_split(&c->seat))
        return;
    stub_pace_split(&c->pace.split);
    c->spin = st_plat(c->base.plat)->spin;
}

void st_pace_join(struct st_ctx *c)
{
    if (c->spin == 0)
        return;
    c->spin = 0;
    stub_pace_join(&c->pace.split);
    stub_seat_join(&c->seat);
}

void st_pace_turn(struct st_ctx *c, uint64_t turn_ns, bool slept, uint64_t now)
{
    if (c->spin == 0)
        pace_wait(&c->pace, now);
    switch (stub_pace_turn(&c->pace.split, turn_ns, slept, now)) {
    case STUB_PACE_SPLIT:
        pace_split(c);
        break;
    case STUB_PACE_JOIN:
        st_pace_join(c);
        break;
    case STUB_PACE_STAY:
        break;
    }
}
