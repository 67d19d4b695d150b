/* What is advised to a pair whose turns and answers take given times. */
#include <criterion/criterion.h>

#include "platform/stub/pace.h"

#define US UINT64_C(1000)
#define SPIN 1000u

/* One that has just had count turns of turn_us, each answered after answer_us. */
static enum stub_advice play(struct stub_pace *p, uint64_t *now, int count, uint64_t answer_us,
                             uint64_t turn_us)
{
    enum stub_advice last = STUB_PACE_STAY;

    for (int i = 0; i < count && last == STUB_PACE_STAY; i++) {
        *now += (answer_us + turn_us) * US;
        last = stub_pace_turn(p, turn_us * US, false, *now);
    }
    return last;
}

Test(stub_pace, short_turns_split)
{
    struct stub_pace p = {0};
    uint64_t now = 1000 * US;

    cr_assert_eq(play(&p, &now, 127, 1, 8), STUB_PACE_STAY);
    cr_assert_eq(play(&p, &now, 1, 1, 8), STUB_PACE_SPLIT);
}

/* A turn that an interrupt of the host's met now and then does not matter; a guest that computes
 * does. */
Test(stub_pace, long_turns_count_half)
{
    struct stub_pace p = {0};
    uint64_t now = 1000 * US;
    enum stub_advice advice = STUB_PACE_STAY;

    for (int i = 0; i < 4 && advice == STUB_PACE_STAY; i++) {
        advice = play(&p, &now, 100, 1, 33);
        if (advice == STUB_PACE_STAY)
            advice = play(&p, &now, 1, 1, 70);
    }
    cr_assert_eq(advice, STUB_PACE_SPLIT);

    p = (struct stub_pace){0};
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(play(&p, &now, 50, 1, 33), STUB_PACE_STAY);
        cr_assert_eq(play(&p, &now, 1, 1, 70), STUB_PACE_STAY);
    }
}

Test(stub_pace, patience_is_learned)
{
    struct stub_pace p = {0};
    uint64_t now = 1000 * US;

    (void)play(&p, &now, 1, 1, 1);
    (void)play(&p, &now, 3, 22, 1);
    cr_assert_eq(stub_pace_patience(&p, SPIN), SPIN);
    (void)play(&p, &now, 1, 22, 1);
    cr_assert_eq(stub_pace_patience(&p, SPIN), 2 * SPIN);
    /* Short ones say nothing about long ones. */
    (void)play(&p, &now, 50, 1, 1);
    cr_assert_eq(stub_pace_patience(&p, SPIN), 2 * SPIN);
    (void)play(&p, &now, 1, 500, 1);
    cr_assert_eq(stub_pace_patience(&p, SPIN), SPIN);
}

/* Who is answered late as often as in time is not worth it. */
Test(stub_pace, no_patience_with_sleepers)
{
    struct stub_pace p = {0};
    uint64_t now = 1000 * US;

    for (int i = 0; i < 50; i++) {
        (void)play(&p, &now, 1, 22, 1);
        (void)play(&p, &now, 1, 100, 1);
        cr_assert_eq(stub_pace_patience(&p, SPIN), SPIN);
    }
}

Test(stub_pace, misses_join)
{
    struct stub_pace p = {0};
    uint64_t now = 1000 * US;
    int turns = 0;

    cr_assert_eq(play(&p, &now, 128, 1, 8), STUB_PACE_SPLIT);
    stub_pace_split(&p);
    cr_assert_eq(play(&p, &now, 300, 1, 1), STUB_PACE_STAY);
    for (enum stub_advice a = STUB_PACE_STAY; a == STUB_PACE_STAY; turns++) {
        cr_assert_lt(turns, 64);
        now += 30 * US;
        a = stub_pace_turn(&p, 29 * US, true, now);
        cr_assert_neq(a, STUB_PACE_SPLIT);
    }
    stub_pace_join(&p);
    /* Not again at once. */
    cr_assert_eq(play(&p, &now, 128, 1, 8), STUB_PACE_STAY);
}

/* Who has failed waits before he tries again, unless what made him fail has changed. */
Test(stub_pace, failures_are_forgotten)
{
    struct stub_pace p = {0};
    uint64_t now = 1000 * US;

    for (int again = 0; again < 2; again++) {
        p = (struct stub_pace){0};
        cr_assert_eq(play(&p, &now, 128, 1, 8), STUB_PACE_SPLIT);
        stub_pace_split(&p);
        cr_assert_eq(stub_pace_turn(&p, 400 * US, true, now), STUB_PACE_JOIN);
        stub_pace_join(&p);
        if (again)
            stub_pace_again(&p);
        cr_assert_eq(play(&p, &now, 128, 1, 8), again ? STUB_PACE_SPLIT : STUB_PACE_STAY);
    }
}
