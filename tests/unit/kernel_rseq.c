/* rseq(2)'s CPU numbers under a storm: more threads than numbers that compute, sleep, yield, move,
 * register and are interrupted at random. No two are ever in guest code with one number. */
#include <asm/unistd.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/rseq.h>
#include <linux/sched.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "sentry/kernel/rseq.h"
#include "sentry/kernel/task_priv.h"
#include "syscalls/handlers.h"
#include "tests/unit/fakes/fakes.h"

#define NR_SECTIONS 500u  /* the program has critical sections */
#define NR_HERE 501u      /* (index): the caller is that one of the storm */
#define NR_REGISTER 502u  /* (index, flags): rseq(2) */
#define NR_NAP 503u       /* (us) */
#define NR_WAKE 504u      /* (index) */
#define NR_AFFINITY 505u  /* (index, mask) */
#define NR_INTERRUPT 506u /* (index) */
#define NR_BARRIER 507u   /* (cpu) */
#define NR_AWAIT 508u     /* till the caller is alone */
#define NR_NOTHING 509u

#define THREAD_FLAGS                                                                               \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
#define STACK (FAKE_MEM_START + FAKE_MEM_SIZE)
#define AREA(i) (FAKE_MEM_START + 0x1000 + (uint64_t)(i)*64)
#define SIGNATURE 0x53053053u

#define CPUS 3
#define THREADS 8
#define TURNS 1000

static struct task *storm[THREADS]; /* owned; written before any of them is in the storm */
static _Atomic int here, ready;
static _Atomic int turns[THREADS];
static _Atomic int owners[CPUS], concurrent[CPUS]; /* index + 1 of who is inside with it */

static bool storm_over(void)
{
    return atomic_load(&ready) == THREADS;
}

/* ---- the calls that these guests make ---- */

static int64_t do_sections(struct task *t, const uint64_t *a)
{
    (void)a;
    mm_set_sections(t->ua.mm);
    return 0;
}

static int64_t do_here(struct task *t, const uint64_t *a)
{
    storm[a[0]] = task_get(t);
    atomic_fetch_add(&here, 1);
    while (atomic_load(&here) < THREADS)
        (void)sched_yield();
    return 0;
}

static int64_t do_register(struct task *t, const uint64_t *a)
{
    return task_rseq(t, uaddr(AREA(a[0])), 32, (int)a[1], SIGNATURE);
}

static int64_t do_nap(struct task *t, const uint64_t *a)
{
    return blocker_wait(&t->blocker, mono_now() + a[0] * 1000);
}

static int64_t do_wake(struct task *t, const uint64_t *a)
{
    (void)t;
    blocker_wake(&storm[a[0]]->blocker);
    return 0;
}

static int64_t do_affinity(struct task *t, const uint64_t *a)
{
    const uint64_t mask[LIMIT_CPU_WORDS] = {a[1]};

    (void)t;
    return task_affinity_set(storm[a[0]], mask);
}

static int64_t do_interrupt(struct task *t, const uint64_t *a)
{
    struct sighand *sh = tg_lock_sig(t->tg);

    if (!task_priv(storm[a[0]])->dead)
        task_interrupt_locked(storm[a[0]], BLOCKER_INTERRUPT);
    sighand_unlock(sh);
    return 0;
}

static int64_t do_barrier(struct task *t, const uint64_t *a)
{
    return task_membarrier(t, TASK_BARRIER_RSEQ, (int)a[0]);
}

static bool is_alone(struct task *t)
{
    struct sighand *sh = tg_lock_sig(t->tg);
    const bool alone = t->tg->thread_count == 1;

    sighand_unlock(sh);
    return alone;
}

/* Afterwards every concurrency id is free; numbers are looked at when the set is freed. */
static int64_t do_await(struct task *t, const uint64_t *a)
{
    (void)a;
    while (!is_alone(t))
        usleep(1000);
    for (uint32_t i = 0; i < THREADS; i++)
        if (mm_cid_take(t->ua.mm) != i)
            fake_failed(__FILE__, __LINE__, "a concurrency id is held", i);
    for (int i = 0; i < THREADS; i++)
        task_put(storm[i]);
    return 0;
}

/* Answers are looked up between the first look at what there is to do and the entry to guest code:
 * others have time to take the number there. */
static int64_t do_getpid(struct task *t, const uint64_t *a)
{
    (void)a;
    if (t->rseq && fake_chance(4) == 0)
        usleep((useconds_t)fake_chance(6000));
    return t->vtid;
}

static int64_t do_nothing(struct task *t, const uint64_t *a)
{
    (void)t, (void)a;
    return 0;
}

FAKE_THUNK(sched_yield)
FAKE_THUNK(exit, (int)a[0])
FAKE_THUNK(exit_group, (int)a[0])
FAKE_THUNK(clone, a[0], a[1], uaddr(a[2]), uaddr(a[3]), a[4])

#define ENTRY(nr) [__NR_##nr] = {.fn = do_##nr, .name = #nr, .err = -ENOSYS}
#define EXTRA(nr, fn_) [nr] = {.fn = fn_, .name = #fn_}
static const struct sys_entry entries[] = {
    ENTRY(getpid),
    ENTRY(sched_yield),
    ENTRY(exit),
    ENTRY(exit_group),
    ENTRY(clone),
    EXTRA(NR_SECTIONS, do_sections),
    EXTRA(NR_HERE, do_here),
    EXTRA(NR_REGISTER, do_register),
    EXTRA(NR_NAP, do_nap),
    EXTRA(NR_WAKE, do_wake),
    EXTRA(NR_AFFINITY, do_affinity),
    EXTRA(NR_INTERRUPT, do_interrupt),
    EXTRA(NR_BARRIER, do_barrier),
    EXTRA(NR_AWAIT, do_await),
    EXTRA(NR_NOTHING, do_nothing),
};
static const struct sys_table table = {.entries = entries, .count = ARRAY_SIZE(entries)};

/* ---- guest code ---- */

/* What it is shown, which is what it has: nobody takes a number from a thread in guest code. */
static bool shown(struct task *t, uint64_t i, struct rseq_turn *out)
{
    struct {
        uint32_t cpu_start, cpu;
        uint64_t section;
        uint32_t flags, node, cid;
    } area;

    if (copyin(&t->ua, &area, uaddr(AREA(i)), RSEQ_FEATURE_SIZE))
        return false;
    *out = (struct rseq_turn){.cpu = area.cpu, .cid = area.cid};
    return area.cpu < CPUS && area.cpu == area.cpu_start && area.cid < CPUS &&
           (int)area.cpu == rseq_cpu_number(t);
}

/* Where it may not be any more it is told so, at the moment when that changes. */
static bool may_be_there(struct task *t, uint32_t cpu)
{
    uint64_t mask[LIMIT_CPU_WORDS];

    task_affinity_get(t, mask);
    return (mask[0] >> cpu & 1) || blocker_due(&t->blocker);
}

/* For a short while, or for as long as others want its number till it is interrupted. */
static void compute(struct task *t)
{
    const bool stays = fake_chance(16) == 0;
    const uint64_t rounds = fake_chance(40);

    for (uint64_t i = 0; i < rounds; i++)
        (void)sched_yield();
    while (stays && !fake_interrupted(t->ctx) && rseq_cpu_wanted(t->k->rseq_cpus) && !storm_over())
        (void)sched_yield();
}

static void enter(_Atomic int *who, uint64_t i)
{
    const int other = atomic_exchange(who, (int)i + 1);

    if (other)
        fake_failed(__FILE__, __LINE__, "two in guest code with one number", other - 1);
}

static void leave(_Atomic int *who, uint64_t i)
{
    const int seen = atomic_exchange(who, 0);

    if (seen != (int)i + 1)
        fake_failed(__FILE__, __LINE__, "another came with the same number", seen - 1);
}

/* One stay in guest code of a thread that is registered. */
static void take_turn(uint64_t i)
{
    struct task *t = storm[i];
    struct rseq_turn turn = {0};

    if (!shown(t, i, &turn)) {
        fake_failed(__FILE__, __LINE__, "shown what it has not", turn.cpu);
        return;
    }
    enter(&owners[turn.cpu], i);
    enter(&concurrent[turn.cid], i);
    if (!may_be_there(t, turn.cpu))
        fake_failed(__FILE__, __LINE__, "on a CPU that is not allowed", turn.cpu);
    compute(t);
    if ((int)turn.cpu != rseq_cpu_number(t))
        fake_failed(__FILE__, __LINE__, "lost its number in guest code", turn.cpu);
    leave(&concurrent[turn.cid], i);
    leave(&owners[turn.cpu], i);
    if (atomic_fetch_add(&turns[i], 1) + 1 == TURNS)
        atomic_fetch_add(&ready, 1);
}

/* r14: registered. */
static void random_call(struct plat_regs *g)
{
    const uint64_t other = fake_chance(THREADS);

    if (!g->r14 || fake_chance(24) == 0) {
        fake_call(g, NR_REGISTER, (const uint64_t[6]){g->r13, g->r14 ? RSEQ_FLAG_UNREGISTER : 0});
        g->r14 = !g->r14;
        return;
    }
    switch (fake_chance(12)) {
    case 0:
        fake_call(g, NR_NAP, (const uint64_t[6]){fake_chance(2000)});
        break;
    case 1: /* till it is woken, most often */
        fake_call(g, NR_NAP, (const uint64_t[6]){50000});
        break;
    case 2:
    case 3:
        fake_call(g, NR_WAKE, (const uint64_t[6]){other});
        break;
    case 4:
        fake_call(g, NR_AFFINITY, (const uint64_t[6]){other, 1 + fake_chance((1u << CPUS) - 1)});
        break;
    case 5:
        fake_call(g, NR_INTERRUPT, (const uint64_t[6]){other});
        break;
    case 6:
        fake_call(g, NR_BARRIER, (const uint64_t[6]){fake_chance(CPUS + 1) - 1});
        break;
    case 7:
        fake_call(g, __NR_sched_yield, (const uint64_t[6]){0});
        break;
    default:
        fake_call(g, NR_NOTHING, (const uint64_t[6]){0});
        break;
    }
}

/* G_CALL of a call that is chosen already. */
#define G_MADE                                                                                     \
    do {                                                                                           \
        g->r15 = __LINE__;                                                                         \
        return;                                                                                    \
    case __LINE__:;                                                                                \
    } while (0)

/* r13: which one of the storm. */
static void g_storm(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(NR_SECTIONS);
    for (g->r13 = 0; g->r13 < THREADS; g->r13++) {
        G_CALL(__NR_clone, THREAD_FLAGS, STACK);
        G_ASSERT(G_RET >= 0);
        if (G_RET != 0)
            continue;
        G_CALL(NR_HERE, g->r13);
        while (!storm_over()) {
            if (g->r14)
                take_turn(g->r13);
            random_call(g);
            G_MADE;
        }
        G_CALL(__NR_exit, 0);
    }
    G_CALL(NR_AWAIT);
    G_CALL(__NR_exit_group, 17);
    G_END;
}

Test(kernel_rseq, never_two_with_one_number, .timeout = 600)
{
    const char *s = getenv("STORM_SEED");

    atomic_store(&fake_seed, s ? strtoull(s, NULL, 0) : 20260101u);
    fake_cpus = CPUS;
    cr_assert_eq(fake_run_init(&table, g_storm), 17 << 8);
}
