/* Clocks and the timer service. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "sentry/time/clock.h"
#include "sentry/time/timer.h"

#define MS UINT64_C(1000000)

/* ---- clocks ---- */

Test(clock, known)
{
    int64_t a, b;

    for (int c = 0; c < 12; c++) {
        const bool known = c != 2 && c != 3 && c != 10; /* CPU time; 10 is not in use */
        cr_assert_eq(clock_is_known(c), known, "clock %d", c);
        cr_assert_eq(clock_read(c, &a) == 0, known);
        cr_assert_eq(clock_resolution(c, &b) == 0, known);
    }
    cr_assert_eq(clock_read(-1, &a), -EINVAL);
    cr_assert_eq(clock_read(CLOCK_MONOTONIC, &a), 0);
    cr_assert_eq(clock_read(CLOCK_MONOTONIC, &b), 0);
    cr_assert_geq(b, a);
    cr_assert_not(clock_can_sleep(CLOCK_MONOTONIC_RAW));
    cr_assert_not(clock_can_sleep(CLOCK_REALTIME_COARSE));
    cr_assert(clock_can_sleep(CLOCK_BOOTTIME));
}

Test(clock, deadlines)
{
    int64_t now;

    cr_assert_eq(clock_deadline(CLOCK_MONOTONIC, 5), 5);
    cr_assert_eq(clock_deadline(CLOCK_MONOTONIC, CLOCK_NS_MAX), DEADLINE_NEVER);
    cr_assert_eq(deadline_after(CLOCK_NS_MAX), DEADLINE_NEVER);
    cr_assert_leq(deadline_after(-5), mono_now());
    cr_assert_eq(clock_read(CLOCK_REALTIME, &now), 0);
    const uint64_t at = clock_deadline(CLOCK_REALTIME, now + (int64_t)(100 * MS));
    const uint64_t mono = mono_now();
    cr_assert(at > mono + 50 * MS && at < mono + 101 * MS);
    cr_assert_leq(clock_deadline(CLOCK_REALTIME, 0), mono_now());
    cr_assert_leq(clock_deadline(CLOCK_REALTIME, INT64_MIN), mono_now());
}

Test(clock, values)
{
    cr_assert(lx_timespec_valid(&(struct lx_timespec){0, 999999999}));
    cr_assert_not(lx_timespec_valid(&(struct lx_timespec){0, 1000000000}));
    cr_assert_not(lx_timespec_valid(&(struct lx_timespec){0, -1}));
    cr_assert_not(lx_timespec_valid(&(struct lx_timespec){-1, 0}));
    cr_assert_not(lx_timeval_valid(&(struct lx_timeval){0, 1000000}));
    cr_assert_eq(lx_timespec_ns(&(struct lx_timespec){INT64_MAX, 1}), CLOCK_NS_MAX);
    cr_assert_eq(lx_timespec_ns(&(struct lx_timespec){2, 3}), 2000000003);
    cr_assert_eq(lx_timeval_ns(&(struct lx_timeval){2, 3}), 2000003000);
    cr_assert_eq(lx_timeval_from(2000003999).usec, 3);
    cr_assert_eq(lx_timespec_from(2000000003).nsec, 3);
}

/* ---- timers ---- */

struct note {
    struct timer tm;
    int number;
};

static _Atomic int fired_count;
static int fired[64];

static void note_fire(struct timer *tm)
{
    const int i = atomic_load(&fired_count);

    fired[i] = container_of(tm, struct note, tm)->number;
    atomic_store(&fired_count, i + 1);
}

static void await_fired(int count)
{
    for (int i = 0; i < 5000 && atomic_load(&fired_count) < count; i++)
        usleep(1000);
    cr_assert_eq(atomic_load(&fired_count), count);
}

static struct timer_service *service(void)
{
    struct timer_service *s;

    cr_assert_eq(timer_service_new(&s), 0);
    return s;
}

Test(timer, in_order)
{
    static const int after_ms[8] = {40, 10, 30, 20, 35, 15, 5, 25};
    static const int order[8] = {6, 1, 5, 3, 7, 2, 4, 0};
    struct timer_service *s = service();
    struct note n[8];
    const uint64_t start = mono_now();

    for (int i = 0; i < 8; i++) {
        n[i].number = i;
        cr_assert_eq(timer_init(&n[i].tm, s, note_fire), 0);
        timer_arm(&n[i].tm, start + (uint64_t)after_ms[i] * MS);
    }
    await_fired(8);
    cr_assert_geq(mono_now(), start + 40 * MS);
    for (int i = 0; i < 8; i++) {
        cr_assert_eq(fired[i], order[i]);
        cr_assert_not(timer_disarm(&n[i].tm));
    }
    timer_service_free(s);
}

Test(timer, earlier_after_later)
{
    struct timer_service *s = service();
    struct note late = {.number = 1}, early = {.number = 2};
    const uint64_t start = mono_now();

    cr_assert_eq(timer_init(&late.tm, s, note_fire), 0);
    cr_assert_eq(timer_init(&early.tm, s, note_fire), 0);
    timer_arm(&late.tm, start + 60000 * MS);
    usleep(2000);
    timer_arm(&early.tm, start);
    await_fired(1);
    cr_assert_eq(fired[0], 2);
    /* Armed anew: earlier this time. */
    timer_arm(&late.tm, start);
    await_fired(2);
    timer_arm(&late.tm, DEADLINE_NEVER);
    cr_assert_not(timer_disarm(&late.tm));
    timer_arm(&late.tm, start + 60000 * MS);
    cr_assert(timer_disarm(&late.tm));
    timer_service_free(s);
}

struct again {
    struct timer tm;
    _Atomic int turns;
};

static void again_fire(struct timer *tm)
{
    struct again *a = container_of(tm, struct again, tm);

    atomic_fetch_add(&a->turns, 1);
    usleep(500);
    timer_arm(tm, mono_now());
}

Test(timer, cancel_waits_for_the_function)
{
    struct timer_service *s = service();

    for (int i = 0; i < 100; i++) {
        struct again a = {.turns = 0};
        cr_assert_eq(timer_init(&a.tm, s, again_fire), 0);
        timer_arm(&a.tm, mono_now());
        while (i % 2 && atomic_load(&a.turns) == 0)
            usleep(100);
        timer_cancel(&a.tm);
        const int turns = atomic_load(&a.turns);
        usleep(200);
        cr_assert_eq(atomic_load(&a.turns), turns);
        cr_assert_not(a.tm.armed);
    }
    timer_service_free(s);
}

#define STORM_TIMERS 16
struct storm {
    struct timer_service *s;
    struct again t[STORM_TIMERS];
};

static void storm_fire(struct timer *tm)
{
    atomic_fetch_add(&container_of(tm, struct again, tm)->turns, 1);
}

static void *storm_main(void *arg)
{
    struct storm *st = arg;
    unsigned x = (unsigned)(uintptr_t)&x;

    for (int i = 0; i < 3000; i++) {
        x = x * 1103515245 + 12345;
        struct timer *tm = &st->t[(x >> 16) % STORM_TIMERS].tm;
        if ((x >> 8) % 4)
            timer_arm(tm, mono_now() + (x >> 12) % 1000000);
        else if ((x >> 10) % 2)
            (void)timer_disarm(tm);
        else
            timer_cancel(tm);
    }
    return NULL;
}

Test(timer, storm)
{
    static struct storm st;
    pthread_t th[3];

    st.s = service();
    for (int i = 0; i < STORM_TIMERS; i++)
        cr_assert_eq(timer_init(&st.t[i].tm, st.s, storm_fire), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&th[i], NULL, storm_main, &st), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(th[i], NULL);
    for (int i = 0; i < STORM_TIMERS; i++)
        timer_cancel(&st.t[i].tm);
    timer_service_free(st.s);
}

Test(timer, service_without_timers)
{
    timer_service_free(service());
    timer_service_free(NULL);
}
