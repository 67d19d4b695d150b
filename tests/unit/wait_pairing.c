/* When one of two that wake each other joins the other's CPU. Time is the test's. */
#include <criterion/criterion.h>

#include "sentry/wait/pairing.h"

#define US UINT64_C(1000)
#define WINDOW 64

static struct pairing p;
static struct pairing_wake w;

static void meet(void)
{
    p = (struct pairing){0};
    /* The younger one, on another CPU. */
    w = (struct pairing_wake){.own = 2, .waker = 1, .own_cpu = 1, .answered = true, .now = US};
    cr_assert_eq(pairing_woken(&p, &w), PAIRING_STAY);
}

TestSuite(wait_pairing, .init = meet, .timeout = 60);

/* The first advice other than to stay within so many rounds. */
static enum pairing_advice play(unsigned rounds, uint64_t took)
{
    enum pairing_advice advice = PAIRING_STAY;

    while (rounds-- > 0 && advice == PAIRING_STAY) {
        w.now += took;
        advice = pairing_woken(&p, &w);
    }
    return advice;
}

static void join(void)
{
    cr_assert_eq(play(WINDOW - 1, 50 * US), PAIRING_STAY);
    cr_assert_eq(play(1, 50 * US), PAIRING_JOIN);
    w.own_cpu = w.waker_cpu;
}

Test(wait_pairing, stays_joined_while_that_is_faster)
{
    join();
    for (int window = 0; window < 20; window++)
        cr_assert_eq(play(2 * WINDOW, 20 * US), PAIRING_JOIN);
}

Test(wait_pairing, leaves_when_it_is_not_and_waits_longer_each_time)
{
    uint64_t last = 0;

    for (int attempt = 0; attempt < 4; attempt++) {
        const uint64_t before = w.now;
        while (play(1, 50 * US) != PAIRING_JOIN)
            ;
        const uint64_t waited = w.now - before;
        cr_assert_gt(waited, last + last / 2);
        last = waited;
        w.own_cpu = w.waker_cpu;
        cr_assert_eq(play(2 * WINDOW, 45 * US), PAIRING_LEAVE);
        w.own_cpu = 1;
    }
}

Test(wait_pairing, two_that_work_at_the_same_time_are_left_alone)
{
    w.overlap_ns = 10 * US;
    cr_assert_eq(play(100 * WINDOW, 50 * US), PAIRING_STAY);
}

Test(wait_pairing, one_that_never_wakes_the_other_is_left_alone)
{
    w.answered = false;
    cr_assert_eq(play(100 * WINDOW, 50 * US), PAIRING_STAY);
}

Test(wait_pairing, one_that_is_woken_seldom_is_left_alone)
{
    cr_assert_eq(play(100 * WINDOW, 5000 * US), PAIRING_STAY);
}

Test(wait_pairing, follows_when_the_other_moves)
{
    join();
    w.waker_cpu = 3;
    cr_assert_eq(play(1, 20 * US), PAIRING_JOIN);
    w.own_cpu = 3;
    cr_assert_eq(play(2 * WINDOW, 20 * US), PAIRING_JOIN);
}

Test(wait_pairing, leaves_when_others_wake_it)
{
    join();
    w.waker = 7;
    cr_assert_eq(play(WINDOW, 20 * US), PAIRING_LEAVE);
    w.own_cpu = 1;
    cr_assert_eq(play(WINDOW, 50 * US), PAIRING_STAY);
}

Test(wait_pairing, the_elder_stays_where_they_meet_and_never_moves)
{
    w.own = 1;
    w.waker = 2;
    cr_assert_eq(play(100 * WINDOW, 50 * US), PAIRING_STAY);
    w.own_cpu = w.waker_cpu;
    cr_assert_eq(play(WINDOW + 1, 20 * US), PAIRING_JOIN);
}

Test(wait_pairing, refused_is_failed)
{
    join();
    pairing_refused(&p, w.now);
    w.own_cpu = 1;
    cr_assert_eq(play(WINDOW + 1, 50 * US), PAIRING_STAY);
    cr_assert_eq(play(100 * WINDOW, 50 * US), PAIRING_JOIN);
}
