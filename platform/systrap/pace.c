/* Whether a pair of threads shares a CPU and sleeps while the other works, or has two and spins.
 *
 * Sharing costs two switches a turn; spinning next to none, if the other CPU has nothing else to
 * do, and a great deal if it has. Nobody can be asked about that, so it is tried: a pair that calls
 * often is split for some turns, and stays so while that is faster and the other is there when
 * looked for. After each failure it waits twice as long before it tries again. */
#include "platform/systrap/systrap_priv.h"

/* Turns shorter than this, so many in a row, make it worth trying. */
#define PACE_QUICK_NS 60000u
#define PACE_QUICK_TURNS 128u
/* Turns between two looks at how it goes, how many may end in sleep, and how many of the first do
 * not count: the stub thread has to get to the other CPU. */
#define PACE_TRIAL_TURNS 64u
#define PACE_WARM_TURNS 8u
#define PACE_MISSES 4u
#define PACE_RETRY_FIRST_NS (UINT64_C(10) * 1000 * 1000)
#define PACE_RETRY_LAST_NS (UINT64_C(1000) * 1000 * 1000)
/* Turns of a window in which one way of waiting is tried, and windows till it is tried again; what
 * one turn counts at most. */
#define PACE_WAIT_TURNS 128u
#define PACE_WAIT_WINDOWS 18u
#define PACE_WAIT_MAX_NS (UINT64_C(4) * 1000 * 1000)
/* How long to spin before sleeping. */
#define PACE_SPIN_NS 20000u
#define PACE_CALIBRATE 2000u

uint32_t st_pace_calibrate(void)
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

static void pace_split(struct st_ctx *c)
{
    c->pace.turns = c->pace.misses = 0;
    c->pace.sum_ns = 0;
    c->pace.warm = PACE_WARM_TURNS;
    if (stub_seat_split(&c->seat))
        c->spin = st_plat(c->base.plat)->spin;
}

void st_pace_join(struct st_ctx *c)
{
    if (c->spin == 0)
        return;
    c->spin = 0;
    c->pace.turns = 0;
    stub_seat_join(&c->seat);
}

static void pace_bound(struct st_ctx *c, uint64_t turn_ns, uint64_t now)
{
    struct st_pace *p = &c->pace;

    if (turn_ns > PACE_QUICK_NS) {
        p->turns = 0;
        return;
    }
    /* Of the last eight or so. */
    p->bound_ns += ((int64_t)turn_ns - p->bound_ns) / 8;
    if (++p->turns < PACE_QUICK_TURNS)
        return;
    p->turns = 0;
    if (now >= p->next_ns)
        pace_split(c);
}

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

static void pace_failed(struct st_ctx *c, uint64_t now)
{
    struct st_pace *p = &c->pace;

    st_pace_join(c);
    p->retry_ns = MIN(MAX(2 * p->retry_ns, PACE_RETRY_FIRST_NS), PACE_RETRY_LAST_NS);
    p->next_ns = now + p->retry_ns;
}

void st_pace_turn(struct st_ctx *c, uint64_t turn_ns, bool slept, uint64_t now)
{
    struct st_pace *p = &c->pace;

    if (c->spin == 0) {
        pace_wait(p, now);
        pace_bound(c, turn_ns, now);
        return;
    }
    if (p->warm > 0) {
        p->warm--;
        return;
    }
    p->sum_ns += turn_ns;
    p->misses += slept;
    if (p->misses > PACE_MISSES) {
        pace_failed(c, now);
    } else if (++p->turns == PACE_TRIAL_TURNS) {
        if ((int64_t)(p->sum_ns / PACE_TRIAL_TURNS) > p->bound_ns - p->bound_ns / 4) {
            pace_failed(c, now);
            return;
        }
        p->retry_ns = 0;
        p->turns = p->misses = 0;
        p->sum_ns = 0;
    }
}
