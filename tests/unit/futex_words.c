/* Futexes between the threads of a guest: waiting, waking, moving, owners, robust lists. */
#include <asm/unistd.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "sentry/kernel/task_priv.h"
#include "syscalls/handlers.h"
#include "tests/unit/fakes/fakes.h"

#define NR_STORE 500u   /* (addr, value): 32 bits */
#define NR_LOAD 501u    /* (addr) */
#define NR_WAITERS 502u /* (count): till so many threads sleep in a wait */
#define NR_STORE64 503u

#define MEM(off) (FAKE_MEM_START + (off))
#define WORD MEM(256)
#define WORD2 MEM(512)
#define OTHER MEM(768)
#define TIME MEM(128)
#define PRIV FUTEX_PRIVATE_FLAG
#define THREAD_FLAGS                                                                               \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

static int64_t do_store(struct task *t, const uint64_t *a)
{
    return user_store32(&t->ua, uaddr(a[0]), (uint32_t)a[1]);
}

static int64_t do_store64(struct task *t, const uint64_t *a)
{
    return copyout(&t->ua, uaddr(a[0]), &a[1], 8);
}

static int64_t do_load(struct task *t, const uint64_t *a)
{
    uint32_t v;

    return user_load32(&t->ua, uaddr(a[0]), &v) ? -EFAULT : (int64_t)v;
}

#define WAITS_MAX 256
static _Atomic int woken_sum, woken_count;
/* Who is in a call that waits. */
static pthread_mutex_t waits_mu = PTHREAD_MUTEX_INITIALIZER;
static const struct task *waits[WAITS_MAX];

static void waits_replace(const struct task *old, const struct task *new)
{
    size_t i = 0;

    pthread_mutex_lock(&waits_mu);
    while (i < WAITS_MAX && waits[i] != old)
        i++;
    cr_assert_lt(i, WAITS_MAX);
    waits[i] = new;
    pthread_mutex_unlock(&waits_mu);
}

/* How many of them sleep: what they wait in, they have entered before. */
static int waits_asleep(void)
{
    int count = 0;

    pthread_mutex_lock(&waits_mu);
    for (size_t i = 0; i < WAITS_MAX; i++)
        count += waits[i] != NULL && task_is_asleep(waits[i]);
    pthread_mutex_unlock(&waits_mu);
    return count;
}

static int64_t do_waiters(struct task *t, const uint64_t *a)
{
    (void)t;
    while (waits_asleep() < (int)a[0])
        usleep(1000);
    return 0;
}

static int64_t do_futex(struct task *t, const uint64_t *a)
{
    const int cmd = (int)a[1] & FUTEX_CMD_MASK;
    const bool sleeps = cmd == FUTEX_WAIT || cmd == FUTEX_WAIT_BITSET || cmd == FUTEX_LOCK_PI;

    if (sleeps)
        waits_replace(NULL, t);
    int64_t r =
        sys_futex(t, uaddr(a[0]), (int)a[1], (uint32_t)a[2], a[3], uaddr(a[4]), (uint32_t)a[5]);
    if (sleeps)
        waits_replace(t, NULL);
    return r;
}

static int64_t do_futex_waitv(struct task *t, const uint64_t *a)
{
    waits_replace(NULL, t);
    int64_t r =
        sys_futex_waitv(t, uaddr(a[0]), (unsigned)a[1], (unsigned)a[2], uaddr(a[3]), (int)a[4]);
    waits_replace(t, NULL);
    return r;
}

FAKE_THUNK(gettid)
FAKE_THUNK(exit, (int)a[0])
FAKE_THUNK(exit_group, (int)a[0])
FAKE_THUNK(clone, a[0], a[1], uaddr(a[2]), uaddr(a[3]), a[4])
FAKE_THUNK(set_robust_list, uaddr(a[0]), a[1])
FAKE_THUNK(get_robust_list, (int)a[0], uaddr(a[1]), uaddr(a[2]))

#define ENTRY(nr) [__NR_##nr] = {.fn = do_##nr, .name = #nr, .err = -ENOSYS}
static const struct sys_entry entries[] = {
    ENTRY(gettid),
    ENTRY(exit),
    ENTRY(exit_group),
    ENTRY(clone),
    ENTRY(futex),
    ENTRY(futex_waitv),
    ENTRY(set_robust_list),
    ENTRY(get_robust_list),
    [NR_STORE] = {.fn = do_store, .name = "store"},
    [NR_STORE64] = {.fn = do_store64, .name = "store64"},
    [NR_LOAD] = {.fn = do_load, .name = "load"},
    [NR_WAITERS] = {.fn = do_waiters, .name = "waiters"},
};
static const struct sys_table table = {.entries = entries, .count = ARRAY_SIZE(entries)};

static int run(fake_guest_fn init)
{
    atomic_store(&woken_sum, 0);
    atomic_store(&woken_count, 0);
    return fake_run_init(&table, init);
}

/* A thread: the child goes on at its own place. */
#define G_THREAD() G_CALL(__NR_clone, THREAD_FLAGS, MEM(4096), 0, 0, 0)
#define G_AWAIT_WOKEN(count)                                                                       \
    while (atomic_load(&woken_count) < (count))                                                    \
    sched_yield()

/* ---- errors of one thread ---- */

static void g_errors(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(NR_STORE, WORD, 5);
    G_CALL(__NR_futex, WORD, FUTEX_WAIT | PRIV, 4, 0, 0, 0);
    G_ASSERT(G_RET == -EAGAIN);
    G_CALL(__NR_futex, WORD + 1, FUTEX_WAIT, 5, 0, 0, 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_futex, 0x100, FUTEX_WAIT, 5, 0, 0, 0);
    G_ASSERT(G_RET == -EFAULT);
    G_CALL(__NR_futex, WORD, FUTEX_WAIT_BITSET, 5, 0, 0, 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_futex, WORD, FUTEX_WAKE_BITSET, 5, 0, 0, 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_futex, WORD, FUTEX_WAIT | FUTEX_CLOCK_REALTIME, 5, 0, 0, 0);
    G_ASSERT(G_RET == -ENOSYS);
    G_CALL(__NR_futex, WORD, 77, 5, 0, 0, 0);
    G_ASSERT(G_RET == -ENOSYS);
    G_CALL(NR_STORE64, TIME, 0);
    G_CALL(NR_STORE64, TIME + 8, 1000000000);
    G_CALL(__NR_futex, WORD, FUTEX_WAIT, 5, TIME, 0, 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(NR_STORE64, TIME + 8, 20000000);
    G_CALL(__NR_futex, WORD, FUTEX_WAIT, 5, TIME, 0, 0);
    G_ASSERT(G_RET == -ETIMEDOUT);
    /* Absolute times that are past. */
    G_CALL(__NR_futex, WORD, FUTEX_WAIT_BITSET, 5, TIME, 0, 1);
    G_ASSERT(G_RET == -ETIMEDOUT);
    G_CALL(__NR_futex, WORD, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 5, TIME, 0, 1);
    G_ASSERT(G_RET == -ETIMEDOUT);
    G_CALL(__NR_futex, WORD, FUTEX_WAKE, 1, 0, 0, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(__NR_futex, WORD, FUTEX_CMP_REQUEUE, 1, 1, WORD2, 6);
    G_ASSERT(G_RET == -EAGAIN);
    G_CALL(__NR_futex, WORD, FUTEX_REQUEUE, (uint32_t)-1, 1, WORD2, 6);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_futex_waitv, MEM(64), 0, 0, 0, 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_set_robust_list, MEM(64), 23);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_set_robust_list, MEM(64), 24);
    G_CALL(__NR_get_robust_list, 0, MEM(0), MEM(8));
    G_ASSERT(G_RET == 0);
    G_CALL(NR_LOAD, MEM(0));
    G_ASSERT(G_RET == MEM(64));
    G_CALL(__NR_set_robust_list, 0, 24);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(futex, errors)
{
    cr_assert_eq(run(g_errors), 0);
}

/* ---- FUTEX_WAKE_OP ---- */

/* FUTEX_OP with numbers: set add or andn xor (8: a shift), eq ne lt le gt ge. */
#define OP(op, arg, cmp, cmparg) ((op##u) << 28 | (cmp##u) << 24 | (arg##u) << 12 | (cmparg##u))

static void g_wake_op(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(NR_STORE, WORD2, 10);
    G_CALL(__NR_futex, WORD, FUTEX_WAKE_OP, 1, 1, WORD2, OP(1, 0xffe, 0, 10));
    G_ASSERT(G_RET == 0);
    G_CALL(NR_LOAD, WORD2);
    G_ASSERT(G_RET == 8);
    G_CALL(__NR_futex, WORD, FUTEX_WAKE_OP, 1, 1, WORD2, OP(10, 5, 2, 0));
    G_CALL(NR_LOAD, WORD2);
    G_ASSERT(G_RET == 40);
    G_CALL(__NR_futex, WORD, FUTEX_WAKE_OP, 1, 1, WORD2, OP(3, 8, 4, 0));
    G_CALL(NR_LOAD, WORD2);
    G_ASSERT(G_RET == 32);
    G_CALL(__NR_futex, WORD, FUTEX_WAKE_OP, 1, 1, WORD2, OP(4, 33, 4, 0));
    G_CALL(NR_LOAD, WORD2);
    G_ASSERT(G_RET == 1);
    G_CALL(__NR_futex, WORD, FUTEX_WAKE_OP, 1, 1, WORD2, 0x7u << 28);
    G_ASSERT(G_RET == -ENOSYS);
    G_CALL(__NR_futex, WORD, FUTEX_WAKE_OP, 1, 1, 0x100, 0);
    G_ASSERT(G_RET == -EFAULT);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(futex, wake_op)
{
    cr_assert_eq(run(g_wake_op), 0);
}

/* ---- many waiters ---- */

#define THREADS 40

static void g_many(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(NR_STORE, WORD, 1);
    for (g->rbx = 0; g->rbx < THREADS; g->rbx++) {
        G_THREAD();
        G_ASSERT(G_RET >= 0);
        if (G_RET == 0) {
            G_CALL(__NR_futex, WORD, FUTEX_WAIT_BITSET | PRIV, 1, 0, 0, g->rbx % 2 ? 1 : 6);
            G_ASSERT(G_RET == 0);
            atomic_fetch_add(&woken_sum, g->rbx % 2 ? 1 : 100);
            atomic_fetch_add(&woken_count, 1);
            G_CALL(__NR_exit, 0);
        }
    }
    G_CALL(NR_WAITERS, THREADS);
    G_CALL(__NR_futex, WORD, FUTEX_WAKE_BITSET | PRIV, 3, 0, 0, 8);
    G_ASSERT(G_RET == 0);
    G_CALL(__NR_futex, WORD, FUTEX_WAKE_BITSET | PRIV, 3, 0, 0, 1);
    G_ASSERT(G_RET == 3);
    G_AWAIT_WOKEN(3);
    G_ASSERT(atomic_load(&woken_sum) == 3);
    /* One wakes, ten move to the other word, those of bit 1 among them. */
    G_CALL(__NR_futex, WORD, FUTEX_CMP_REQUEUE | PRIV, 1, 10, WORD2, 1);
    G_ASSERT(G_RET == 11);
    G_AWAIT_WOKEN(4);
    G_CALL(__NR_futex, WORD2, FUTEX_WAKE | PRIV, 100, 0, 0, 0);
    G_ASSERT(G_RET == 10);
    /* All the others, more than one turn of wake-ups takes. */
    G_CALL(__NR_futex, WORD, FUTEX_WAKE | PRIV, INT32_MAX, 0, 0, 0);
    G_ASSERT(G_RET == THREADS - 14);
    G_AWAIT_WOKEN(THREADS);
    G_ASSERT(atomic_load(&woken_sum) == THREADS / 2 * 101);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(futex, many)
{
    cr_assert_eq(run(g_many), 0);
}

/* ---- waitv ---- */

static void g_waitv(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(NR_STORE, WORD, 1);
    G_CALL(NR_STORE, WORD2, 2);
    G_CALL(NR_STORE64, MEM(1024), 1);
    G_CALL(NR_STORE64, MEM(1032), WORD);
    G_CALL(NR_STORE64, MEM(1040), 2 | PRIV);
    G_CALL(NR_STORE64, MEM(1048), 2);
    G_CALL(NR_STORE64, MEM(1056), WORD2);
    G_CALL(NR_STORE64, MEM(1064), 2 | PRIV);
    G_THREAD();
    if (G_RET == 0) {
        G_CALL(__NR_futex_waitv, MEM(1024), 2, 0, 0, 0);
        G_ASSERT(G_RET == 1);
        atomic_fetch_add(&woken_count, 1);
        G_CALL(__NR_exit, 0);
    }
    G_CALL(NR_WAITERS, 1);
    G_CALL(__NR_futex, WORD2, FUTEX_WAKE | PRIV, 1, 0, 0, 0);
    G_ASSERT(G_RET == 1);
    G_AWAIT_WOKEN(1);
    /* Nothing of it is left on the first word. */
    G_CALL(__NR_futex, WORD, FUTEX_WAKE | PRIV, 1, 0, 0, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(NR_STORE, WORD2, 3);
    G_CALL(__NR_futex_waitv, MEM(1024), 2, 0, 0, 0);
    G_ASSERT(G_RET == -EAGAIN);
    G_CALL(__NR_futex, WORD, FUTEX_WAKE | PRIV, 1, 0, 0, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(futex, waitv)
{
    cr_assert_eq(run(g_waitv), 0);
}

/* ---- owners ---- */

static void g_pi(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_gettid, 0);
    g->rbp = g->rax;
    G_CALL(__NR_futex, WORD, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0);
    G_ASSERT(G_RET == -EPERM);
    G_CALL(__NR_futex, WORD, FUTEX_TRYLOCK_PI | PRIV, 0, 0, 0, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(NR_LOAD, WORD);
    G_ASSERT(g->rax == g->rbp);
    G_CALL(__NR_futex, WORD, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0);
    G_ASSERT(G_RET == -EDEADLK);
    for (g->rbx = 0; g->rbx < 3; g->rbx++) {
        G_THREAD();
        if (G_RET == 0) {
            G_CALL(__NR_futex, WORD, FUTEX_TRYLOCK_PI | PRIV, 0, 0, 0, 0);
            G_ASSERT(G_RET == -EAGAIN);
            G_CALL(__NR_futex, WORD, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0);
            G_ASSERT(G_RET == 0);
            g->rbp = (uint64_t)atomic_fetch_add(&woken_count, 1);
            G_CALL(NR_LOAD, WORD);
            g->r12 = g->rax;
            G_CALL(__NR_gettid, 0);
            G_ASSERT((g->r12 & FUTEX_TID_MASK) == g->rax);
            G_CALL(__NR_futex, WORD, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0);
            G_ASSERT(G_RET == 0);
            atomic_fetch_add(&woken_sum, 1);
            G_CALL(__NR_exit, 0);
        }
    }
    G_CALL(NR_WAITERS, 3);
    G_ASSERT(atomic_load(&woken_count) == 0);
    G_CALL(__NR_futex, WORD, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0);
    G_ASSERT(G_RET == 0);
    while (atomic_load(&woken_sum) < 3)
        sched_yield();
    /* Nobody's, or free to take by a call at least. */
    G_CALL(__NR_futex, WORD, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0);
    G_ASSERT(G_RET == 0);
    /* A past time: not at all while another has it. */
    G_CALL(NR_STORE, WORD2, 30000);
    G_CALL(__NR_futex, WORD2, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0);
    G_ASSERT(G_RET == -ESRCH);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(futex, pi)
{
    cr_assert_eq(run(g_pi), 0);
}

/* The owner ends; two wait for its lock, one after the other gets it. */
static void g_pi_owner_ends(struct plat_regs *g)
{
    G_BEGIN
    G_THREAD();
    if (G_RET == 0) {
        G_CALL(NR_STORE64, MEM(2048), MEM(2048));
        G_CALL(NR_STORE64, MEM(2056), 0);
        G_CALL(NR_STORE64, MEM(2064), 0);
        G_CALL(__NR_set_robust_list, MEM(2048), 24);
        G_CALL(__NR_futex, WORD, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0);
        G_ASSERT(G_RET == 0);
        atomic_fetch_add(&woken_count, 1);
        G_CALL(NR_WAITERS, 2);
        G_CALL(__NR_exit, 0);
    }
    G_AWAIT_WOKEN(1);
    G_THREAD();
    if (G_RET == 0) {
        G_CALL(__NR_futex, WORD, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0);
        G_ASSERT(G_RET == 0);
        atomic_fetch_add(&woken_count, 1);
        G_CALL(__NR_futex, WORD, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0);
        G_CALL(__NR_exit, 0);
    }
    G_CALL(__NR_futex, WORD, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(NR_LOAD, WORD);
    /* Set for the first of the two. */
    G_ASSERT((g->rax & FUTEX_WAITERS) || atomic_load(&woken_count) == 2);
    G_CALL(__NR_futex, WORD, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0);
    G_ASSERT(G_RET == 0);
    G_AWAIT_WOKEN(2);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(futex, pi_owner_ends)
{
    cr_assert_eq(run(g_pi_owner_ends), 0);
}

/* ---- robust lists ---- */

static void g_robust(struct plat_regs *g)
{
    G_BEGIN
    G_THREAD();
    if (G_RET == 0) {
        G_CALL(__NR_gettid, 0);
        g->rbp = g->rax;
        /* Two locks 16 bytes behind their entries, then the list runs in a circle. */
        G_CALL(NR_STORE, WORD + 16, g->rbp | FUTEX_WAITERS);
        G_CALL(NR_STORE, WORD2 + 16, g->rbp);
        G_CALL(NR_STORE, OTHER + 16, 0);
        G_CALL(NR_STORE64, MEM(2048), WORD);
        G_CALL(NR_STORE64, WORD, WORD2);
        G_CALL(NR_STORE64, WORD2, WORD);
        G_CALL(NR_STORE64, MEM(2056), 16);
        G_CALL(NR_STORE64, MEM(2064), OTHER);
        G_CALL(__NR_set_robust_list, MEM(2048), 24);
        atomic_fetch_add(&woken_count, 1);
        G_CALL(NR_WAITERS, 1);
        G_CALL(__NR_exit, 0);
    }
    g->rbx = g->rax;
    G_AWAIT_WOKEN(1);
    G_CALL(__NR_futex, WORD + 16, FUTEX_WAIT, g->rbx | FUTEX_WAITERS, 0, 0, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(NR_LOAD, WORD + 16);
    G_ASSERT(g->rax == (FUTEX_WAITERS | FUTEX_OWNER_DIED));
    while (1) {
        G_CALL(NR_LOAD, WORD2 + 16);
        if (g->rax == FUTEX_OWNER_DIED)
            break;
    }
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(futex, robust)
{
    cr_assert_eq(run(g_robust), 0);
}

/* ---- the end of a waiter ---- */

static void g_killed(struct plat_regs *g)
{
    G_BEGIN
    for (g->rbx = 0; g->rbx < 4; g->rbx++) {
        G_THREAD();
        if (G_RET == 0) {
            G_CALL(__NR_futex, WORD, g->rbx % 2 ? FUTEX_WAIT : FUTEX_WAIT | PRIV, 0, 0, 0, 0);
            G_ASSERT(false);
        }
    }
    G_CALL(NR_WAITERS, 4);
    G_CALL(__NR_exit_group, 9);
    G_END;
}

Test(futex, killed_while_waiting)
{
    cr_assert_eq(run(g_killed), 9 << 8);
}
