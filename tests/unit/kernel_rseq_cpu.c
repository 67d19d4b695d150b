/* CPU numbers of rseq(2), one rule at a time: who has one, who waits, who has to give way. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "sentry/kernel/rseq.h"
#include "sentry/kernel/task_priv.h"
#include "tests/unit/fakes/fakes.h"

/* As much of a task as a number needs. */
struct member {
    struct task t;
    struct task_priv p;
    pthread_t thread;
    struct rseq_turn turn;
    int r;
};

static struct kernel k;
static struct mm *mm;
static struct member a, b, c;

static void member_init(struct member *m)
{
    m->t.k = &k;
    m->t.impl = &m->p;
    m->p.t = &m->t;
    m->t.ua.mm = mm;
    mutex_init(&m->t.mu, LOCK_RANK_TASK);
    blocker_init(&m->t.blocker);
    memset(m->p.affinity, 0xff, sizeof(m->p.affinity));
    cr_assert_eq(plat_ctx_create(k.cfg.plat, mm_as(mm), &m->t.ctx), 0);
    rseq_cpu_join(&m->t);
}

static void begin(int cpus)
{
    k.cfg.plat = fake_plat();
    cr_assert_eq(mm_new(k.cfg.plat, NULL, &mm), 0);
    cr_assert_eq(rseq_cpus_new(cpus, &k.rseq_cpus), 0);
    member_init(&a);
    member_init(&b);
    member_init(&c);
}

static void member_fini(struct member *m)
{
    rseq_cpu_leave(&m->t);
    plat_ctx_destroy(m->t.ctx);
    mutex_destroy(&m->t.mu);
}

static void end(void)
{
    member_fini(&a);
    member_fini(&b);
    member_fini(&c);
    cr_assert_not(rseq_cpu_wanted(k.rseq_cpus));
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_eq(mm_cid_take(mm), i, "concurrency id %u is held", i);
    rseq_cpus_free(k.rseq_cpus);
    mm_put(mm);
}

TestSuite(kernel_rseq_cpu, .fini = end, .timeout = 60);

static int number(const struct member *m)
{
    return rseq_cpu_number(&m->t);
}

/* As the loop of a task. */
static int take(struct member *m)
{
    blocker_clear(&m->t.blocker, BLOCKER_RSEQ);
    m->r = rseq_cpu_take(&m->t, &m->turn);
    return m->r;
}

static void take_number(struct member *m, int nr)
{
    cr_assert_eq(take(m), 0);
    cr_assert_eq((int)m->turn.cpu, nr);
    cr_assert_eq(number(m), nr);
}

static void *take_main(void *m)
{
    (void)take(m);
    return NULL;
}

/* m waits for its turn, in a thread of its own. */
static void take_later(struct member *m)
{
    cr_assert_eq(pthread_create(&m->thread, NULL, take_main, m), 0);
    while (!rseq_cpu_wanted(k.rseq_cpus))
        (void)sched_yield();
}

static int taken(struct member *m)
{
    (void)pthread_join(m->thread, NULL);
    return m->r;
}

static void guest_enter(struct member *m)
{
    atomic_fetch_add(&m->p.guest_seq, 1);
    cr_assert_not(blocker_due(&m->t.blocker));
}

static void guest_leave(struct member *m)
{
    atomic_fetch_add(&m->p.guest_seq, 1);
}

static void set_affinity(struct member *m, uint64_t mask)
{
    mutex_lock(&m->t.mu);
    memset(m->p.affinity, 0, sizeof(m->p.affinity));
    m->p.affinity[0] = mask;
    rseq_cpu_affinity_locked(&m->t);
    mutex_unlock(&m->t.mu);
}

/* It has had its number for long. */
static void age(struct member *m)
{
    m->p.rseq_user.since_ns = 0;
}

Test(kernel_rseq_cpu, each_has_its_own_and_keeps_it)
{
    begin(3);
    take_number(&a, 0);
    take_number(&b, 1);
    take_number(&c, 2);
    cr_assert_eq(a.turn.cid, 0);
    cr_assert_eq(b.turn.cid, 1);
    cr_assert_eq(c.turn.cid, 2);
    take_number(&b, 1);
    rseq_cpu_idle(&a.t); /* nobody wants it */
    cr_assert_eq(number(&a), 0);
    rseq_cpu_leave(&b.t);
    cr_assert_eq(number(&b), -1);
    rseq_cpu_join(&b.t);
    take_number(&b, 1);
    cr_assert_eq(b.turn.cid, 1);
}

Test(kernel_rseq_cpu, the_last_number_is_preferred)
{
    begin(2);
    set_affinity(&a, 2);
    take_number(&a, 1);
    set_affinity(&a, 3);
    age(&a);
    set_affinity(&b, 2);
    take_number(&b, 1);
    cr_assert_eq(number(&a), -1);
    cr_assert(blocker_due(&a.t.blocker));
    rseq_cpu_leave(&b.t);
    take_number(&a, 1);
}

Test(kernel_rseq_cpu, affinity_takes_a_number_away)
{
    begin(2);
    take_number(&a, 0);
    guest_enter(&a);
    set_affinity(&a, 1);
    cr_assert_not(blocker_due(&a.t.blocker));
    set_affinity(&a, 2);
    cr_assert(blocker_due(&a.t.blocker));
    cr_assert_eq(number(&a), 0, "still in guest code");
    guest_leave(&a);
    take_number(&a, 1);
}

Test(kernel_rseq_cpu, affinity_frees_one_that_waits)
{
    begin(2);
    take_number(&a, 0);
    guest_enter(&a);
    set_affinity(&b, 1);
    take_later(&b);
    set_affinity(&b, 2);
    cr_assert_eq(taken(&b), 0);
    cr_assert_eq(number(&b), 1);
    cr_assert_eq(number(&a), 0);
}

Test(kernel_rseq_cpu, who_sleeps_gives_to_who_waits)
{
    begin(1);
    take_number(&a, 0);
    guest_enter(&a);
    take_later(&b);
    guest_leave(&a);
    cr_assert_eq(blocker_wait(&a.t.blocker, mono_now()), -ETIMEDOUT);
    cr_assert_eq(number(&a), -1);
    cr_assert_eq(number(&b), 0);
    cr_assert(blocker_due(&a.t.blocker));
    cr_assert_eq(taken(&b), 0);
    cr_assert_eq(b.turn.cid, 0);
}

static void *sleep_main(void *m)
{
    struct member *s = m;

    s->r = blocker_wait(&s->t.blocker, DEADLINE_NEVER);
    return NULL;
}

Test(kernel_rseq_cpu, who_sleeps_already_is_robbed)
{
    begin(1);
    take_number(&a, 0);
    cr_assert_eq(pthread_create(&a.thread, NULL, sleep_main, &a), 0);
    while (!task_is_asleep(&a.t))
        (void)sched_yield();
    cr_assert_eq(number(&a), 0, "kept while nobody wants it");
    take_number(&b, 0);
    cr_assert_eq(number(&a), -1);
    cr_assert(blocker_due(&a.t.blocker));
    blocker_wake(&a.t.blocker);
    cr_assert_eq(taken(&a), 0);
}

Test(kernel_rseq_cpu, nobody_is_robbed_in_guest_code)
{
    begin(1);
    take_number(&a, 0);
    guest_enter(&a);
    age(&a);
    blocker_interrupt(&b.t.blocker, BLOCKER_INTERRUPT);
    cr_assert_eq(take(&b), -EINTR);
    cr_assert_eq(number(&a), 0);
    cr_assert_eq(number(&b), -1);
    cr_assert(blocker_due(&a.t.blocker), "before it comes again it is to look");
    guest_leave(&a);
    take_number(&a, 0);
}

Test(kernel_rseq_cpu, after_a_slice_one_gives_way)
{
    begin(1);
    take_number(&a, 0);
    guest_enter(&a);
    age(&a);
    take_later(&b);
    while (!fake_interrupted(a.t.ctx))
        (void)sched_yield();
    cr_assert(blocker_due(&a.t.blocker));
    guest_leave(&a);
    /* It waits, in turn, till the other has had enough. */
    blocker_interrupt(&a.t.blocker, BLOCKER_INTERRUPT);
    const int r = take(&a);
    cr_assert(r == -EINTR || r == 0);
    cr_assert_eq(taken(&b), 0);
}

Test(kernel_rseq_cpu, an_interrupt_ends_the_wait)
{
    begin(1);
    take_number(&a, 0);
    guest_enter(&a);
    take_later(&b);
    blocker_interrupt(&b.t.blocker, BLOCKER_INTERRUPT);
    cr_assert_eq(taken(&b), -EINTR);
    cr_assert_not(rseq_cpu_wanted(k.rseq_cpus));
    cr_assert_eq(number(&b), -1);
    guest_leave(&a);
    /* Nobody is in the queue: it goes to whoever asks. */
    rseq_cpu_leave(&a.t);
    take_number(&c, 0);
    blocker_clear_interrupt(&b.t.blocker);
}

Test(kernel_rseq_cpu, who_leaves_gives_to_who_may_have_it)
{
    begin(2);
    take_number(&a, 0);
    take_number(&b, 1);
    guest_enter(&a);
    guest_enter(&b);
    set_affinity(&c, 2);
    take_later(&c);
    guest_leave(&b);
    rseq_cpu_leave(&b.t);
    cr_assert_eq(taken(&c), 0);
    cr_assert_eq(number(&c), 1);
    cr_assert_eq(number(&a), 0);
}

Test(kernel_rseq_cpu, who_yields_gives_to_who_waits)
{
    begin(1);
    take_number(&a, 0);
    guest_enter(&a);
    take_later(&b);
    guest_leave(&a);
    task_rseq_yield(&a.t);
    cr_assert_eq(number(&a), -1);
    cr_assert(blocker_due(&a.t.blocker));
    cr_assert_eq(taken(&b), 0);
    cr_assert_eq(number(&b), 0);
}
