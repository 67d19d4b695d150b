/* The calls about processes as a guest sees them: numbers, groups, limits, ids, clone's options. */
#include <asm/unistd.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syscalls/handlers.h"
#include "tests/unit/fakes/fakes.h"

#define NR_KILL 500u    /* (pid, signo), as from outside */
#define NR_LOAD32 501u  /* (addr) */
#define NR_STORE32 502u /* (addr, value) */
#define NR_PAUSE_MS 503u

#define WORD (FAKE_MEM_START + 64)
#define THREAD_FLAGS                                                                               \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
#define STACK (FAKE_MEM_START + 4096)

static int64_t do_kill(struct task *t, const uint64_t *a)
{
    return kernel_kill(t->k, (int32_t)a[0], (int)a[1], false);
}

static int64_t do_load32(struct task *t, const uint64_t *a)
{
    uint32_t v;

    return user_load32(&t->ua, uaddr(a[0]), &v) ? -EFAULT : (int64_t)v;
}

static int64_t do_store32(struct task *t, const uint64_t *a)
{
    return user_store32(&t->ua, uaddr(a[0]), (uint32_t)a[1]);
}

static int64_t do_pause_ms(struct task *t, const uint64_t *a)
{
    (void)t;
    usleep((useconds_t)a[0] * 1000);
    return 0;
}

FAKE_THUNK(getpid)
FAKE_THUNK(gettid)
FAKE_THUNK(getppid)
FAKE_THUNK(fork)
FAKE_THUNK(setsid)
FAKE_THUNK(getpgrp)
FAKE_THUNK(getsid, (int)a[0])
FAKE_THUNK(getpgid, (int)a[0])
FAKE_THUNK(setpgid, (int)a[0], (int)a[1])
FAKE_THUNK(exit, (int)a[0])
FAKE_THUNK(exit_group, (int)a[0])
FAKE_THUNK(clone, a[0], a[1], uaddr(a[2]), uaddr(a[3]), a[4])
FAKE_THUNK(wait4, (int)a[0], uaddr(a[1]), (int)a[2], uaddr(a[3]))
FAKE_THUNK(waitid, (int)a[0], (int)a[1], uaddr(a[2]), (int)a[3], uaddr(a[4]))
FAKE_THUNK(prctl, (int)a[0], a[1], a[2], a[3], a[4])
FAKE_THUNK(prlimit64, (int)a[0], (unsigned)a[1], uaddr(a[2]), uaddr(a[3]))
FAKE_THUNK(setuid, (uint32_t)a[0])
FAKE_THUNK(setresuid, (uint32_t)a[0], (uint32_t)a[1], (uint32_t)a[2])
FAKE_THUNK(geteuid)
FAKE_THUNK(membarrier, (int)a[0], (unsigned)a[1], (int)a[2])

#define ENTRY(nr) [__NR_##nr] = {.fn = do_##nr, .name = #nr, .err = -ENOSYS}
static const struct sys_entry entries[] = {
    ENTRY(getpid),
    ENTRY(gettid),
    ENTRY(getppid),
    ENTRY(fork),
    ENTRY(setsid),
    ENTRY(getpgrp),
    ENTRY(getsid),
    ENTRY(getpgid),
    ENTRY(setpgid),
    ENTRY(exit),
    ENTRY(exit_group),
    ENTRY(clone),
    ENTRY(wait4),
    ENTRY(waitid),
    ENTRY(prctl),
    ENTRY(prlimit64),
    ENTRY(setuid),
    ENTRY(setresuid),
    ENTRY(geteuid),
    ENTRY(membarrier),
    [NR_KILL] = {.fn = do_kill, .name = "kill"},
    [NR_LOAD32] = {.fn = do_load32, .name = "load32"},
    [NR_STORE32] = {.fn = do_store32, .name = "store32"},
    [NR_PAUSE_MS] = {.fn = do_pause_ms, .name = "pause_ms"},
};
static const struct sys_table table = {.entries = entries, .count = ARRAY_SIZE(entries)};

/* ---- sessions and groups ---- */

static void g_groups(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_getsid, 0);
    G_ASSERT(G_RET == 1);
    G_CALL(__NR_setsid, 0);
    G_ASSERT(G_RET == -EPERM);
    G_CALL(__NR_setpgid, 0, 0);
    G_ASSERT(G_RET == -EPERM); /* a session leader */
    G_CALL(__NR_fork, 0);
    if (G_RET == 0) {
        G_CALL(NR_PAUSE_MS, 30);
        G_CALL(__NR_getpid, 0);
        g->r12 = g->rax;
        G_CALL(__NR_getpgrp, 0);
        G_ASSERT(g->rax == g->r12); /* the parent moved us */
        G_CALL(__NR_setsid, 0);
        G_ASSERT(G_RET == -EPERM); /* leads a group */
        G_CALL(__NR_setpgid, 0, 1);
        G_ASSERT(G_RET == 0);
        G_CALL(__NR_setsid, 0);
        G_ASSERT(g->rax == g->r12);
        G_CALL(__NR_getsid, 0);
        G_ASSERT(g->rax == g->r12);
        G_CALL(__NR_getsid, 1);
        G_ASSERT(G_RET == 1);
        G_CALL(__NR_setpgid, 1, 0);
        G_ASSERT(G_RET == -ESRCH); /* no child of ours */
        G_CALL(__NR_exit_group, 0);
    }
    g->r12 = g->rax;
    G_CALL(__NR_setpgid, g->r12, g->r12);
    G_ASSERT(G_RET == 0);
    G_CALL(__NR_getpgid, g->r12);
    G_ASSERT(g->rax == g->r12);
    G_CALL(__NR_setpgid, g->r12, 12345);
    G_ASSERT(G_RET == -EPERM);
    G_CALL(__NR_setpgid, 4711, 0);
    G_ASSERT(G_RET == -ESRCH);
    G_CALL(__NR_setpgid, 0, (uint64_t)-1);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_wait4, -g->r12, 0, 0, 0);
    G_ASSERT(g->rax == g->r12 || G_RET == -ECHILD); /* it left the group meanwhile */
    G_CALL(__NR_wait4, (uint64_t)-1, 0, 0, 0);
    G_CALL(__NR_getpgid, g->r12);
    G_ASSERT(G_RET == -ESRCH);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_calls, groups)
{
    cr_assert_eq(fake_run_init(&table, g_groups), 0);
}

/* ---- clone's options ---- */

static void g_clone_refused(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_clone, CLONE_THREAD, 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_clone, CLONE_SIGHAND, 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_clone, CLONE_PARENT | SIGCHLD, 0);
    G_ASSERT(G_RET == -EINVAL); /* pid 1 */
    G_CALL(__NR_clone, CLONE_PIDFD | CLONE_PARENT_SETTID | SIGCHLD, 0, WORD);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_clone, CLONE_PIDFD | SIGCHLD, 0, 8);
    G_ASSERT(G_RET == -EFAULT);
    G_CALL(__NR_clone, CLONE_NEWUSER | CLONE_FS | SIGCHLD, 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_wait4, (uint64_t)-1, 0, 0, 0);
    G_ASSERT(G_RET == -ECHILD);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_calls, clone_refused)
{
    cr_assert_eq(fake_run_init(&table, g_clone_refused), 0);
}

static void g_clone_tids(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(NR_STORE32, WORD, 77);
    G_CALL(__NR_clone,
           THREAD_FLAGS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID, STACK,
           WORD + 4, WORD);
    if (G_RET == 0) {
        G_CALL(__NR_gettid, 0);
        g->r13 = g->rax;
        G_CALL(NR_LOAD32, WORD);
        G_ASSERT(g->rax == g->r13);
        G_CALL(NR_LOAD32, WORD + 4);
        G_ASSERT(g->rax == g->r13);
        G_CALL(NR_PAUSE_MS, 10);
        G_CALL(__NR_exit, 0);
    }
    g->r13 = g->rax;
    do {
        G_CALL(NR_PAUSE_MS, 1);
        G_CALL(NR_LOAD32, WORD);
    } while (G_RET != 0);
    /* A pidfd of a child, waited for through it. */
    G_CALL(__NR_clone, CLONE_PIDFD | SIGCHLD, 0, WORD);
    if (G_RET == 0)
        G_CALL(__NR_exit_group, 3);
    g->r13 = g->rax;
    G_CALL(NR_LOAD32, WORD);
    g->r12 = g->rax;
    G_CALL(__NR_waitid, 3 /* P_PIDFD */, g->r12, WORD, WEXITED, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(NR_LOAD32, WORD + 16);
    G_ASSERT(g->rax == g->r13);
    G_CALL(NR_LOAD32, WORD + 24);
    G_ASSERT(G_RET == 3);
    G_CALL(__NR_waitid, 3, g->r12, WORD, WEXITED, 0);
    G_ASSERT(G_RET == -ECHILD);
    G_CALL(__NR_waitid, 3, 99, WORD, WEXITED, 0);
    G_ASSERT(G_RET == -EBADF);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_calls, clone_tids)
{
    cr_assert_eq(fake_run_init(&table, g_clone_tids), 0);
}

/* A child that signals its end with something else is a clone child: __WCLONE or __WALL. */
static void g_wclone(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_clone, 0, 0);
    if (G_RET == 0)
        G_CALL(__NR_exit_group, 0);
    g->r12 = g->rax;
    G_CALL(__NR_wait4, (uint64_t)-1, 0, 0, 0);
    G_ASSERT(G_RET == -ECHILD);
    G_CALL(__NR_wait4, (uint64_t)-1, 0, (uint64_t)__WCLONE, 0);
    G_ASSERT(g->rax == g->r12);
    G_CALL(__NR_fork, 0);
    if (G_RET == 0) {
        /* CLONE_PARENT: a sister. */
        G_CALL(__NR_clone, CLONE_PARENT | SIGCHLD, 0);
        if (G_RET == 0) {
            G_CALL(__NR_getppid, 0);
            G_CALL(__NR_exit_group, g->rax);
        }
        G_CALL(__NR_wait4, (uint64_t)-1, 0, 0, 0);
        G_ASSERT(G_RET == -ECHILD);
        G_CALL(__NR_exit_group, 1);
    }
    for (g->r12 = 0; g->r12 < 2; g->r12++) {
        G_CALL(__NR_wait4, (uint64_t)-1, WORD, (uint64_t)__WALL, 0);
        G_ASSERT(G_RET > 0);
        G_CALL(NR_LOAD32, WORD);
        G_ASSERT(G_RET == 1 << 8);
    }
    G_CALL(__NR_wait4, (uint64_t)-1, 0, 0x100, 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_wait4, 0x80000000, 0, 0, 0);
    G_ASSERT(G_RET == -ESRCH);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_calls, wait_options)
{
    cr_assert_eq(fake_run_init(&table, g_wclone), 0);
}

/* ---- limits and ids ---- */

static void g_limits(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_prlimit64, 0, 99, 0, 0);
    G_ASSERT(G_RET == -EINVAL);
    /* soft above hard */
    G_CALL(NR_STORE32, WORD, 200);
    G_CALL(NR_STORE32, WORD + 4, 0);
    G_CALL(NR_STORE32, WORD + 8, 100);
    G_CALL(NR_STORE32, WORD + 12, 0);
    G_CALL(__NR_prlimit64, 0, RLIMIT_NPROC, WORD, 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(NR_STORE32, WORD, 2);
    G_CALL(__NR_prlimit64, 0, RLIMIT_NPROC, WORD, 0);
    G_ASSERT(G_RET == 0);
    /* Root is not held by RLIMIT_NPROC, a plain user is. */
    G_CALL(__NR_fork, 0);
    if (G_RET == 0)
        G_CALL(__NR_exit_group, 0);
    G_ASSERT(G_RET > 0);
    G_CALL(__NR_setresuid, 1000, 1000, 1000);
    G_ASSERT(G_RET == 0);
    G_CALL(__NR_fork, 0);
    if (G_RET == 0) {
        G_CALL(__NR_fork, 0);
        G_ASSERT(G_RET == -EAGAIN);
        G_CALL(__NR_exit_group, 0);
    }
    G_ASSERT(G_RET > 0);
    G_CALL(__NR_setuid, 0);
    G_ASSERT(G_RET == -EPERM);
    G_CALL(__NR_geteuid, 0);
    G_ASSERT(G_RET == 1000);
    G_CALL(NR_STORE32, WORD + 8, 101);
    G_CALL(__NR_prlimit64, 0, RLIMIT_NPROC, WORD, 0);
    G_ASSERT(G_RET == -EPERM);
    do {
        G_CALL(__NR_wait4, (uint64_t)-1, 0, 0, 0);
    } while (G_RET > 0);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_calls, limits)
{
    cr_assert_eq(fake_run_init(&table, g_limits), 0);
}

/* ---- an orphaned group with a stopped member is told to go on ---- */

static void g_orphaned_group(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_prctl, 36 /* PR_SET_CHILD_SUBREAPER */, 1);
    G_CALL(__NR_fork, 0);
    if (G_RET == 0) {
        G_CALL(__NR_setsid, 0);
        G_CALL(__NR_fork, 0);
        if (G_RET == 0) {
            G_CALL(__NR_setpgid, 0, 0);
            G_CALL(FAKE_SPIN, 0);
        }
        g->r12 = g->rax;
        G_CALL(NR_PAUSE_MS, 10);
        G_CALL(NR_KILL, g->r12, SIGSTOP);
        G_CALL(__NR_wait4, g->r12, 0, WUNTRACED, 0);
        G_ASSERT(g->rax == g->r12);
        G_CALL(__NR_exit_group, 0);
    }
    g->r12 = g->rax;
    G_CALL(__NR_wait4, g->r12, 0, 0, 0);
    G_ASSERT(g->rax == g->r12);
    /* The grandchild is ours now, and SIGHUP has ended it. */
    G_CALL(__NR_wait4, (uint64_t)-1, WORD, 0, 0);
    G_ASSERT(G_RET > 0);
    G_CALL(NR_LOAD32, WORD);
    G_ASSERT(G_RET == SIGHUP);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_calls, orphaned_group)
{
    cr_assert_eq(fake_run_init(&table, g_orphaned_group), 0);
}

/* ---- parent death signal goes by the thread ---- */

static void g_pdeath(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_prctl, 36, 1);
    G_CALL(__NR_fork, 0);
    if (G_RET == 0) {
        G_CALL(__NR_fork, 0);
        if (G_RET == 0) {
            G_CALL(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, SIGTERM);
            G_CALL(NR_STORE32, WORD, 1);
            G_CALL(FAKE_SPIN, 0);
        }
        G_CALL(NR_PAUSE_MS, 30);
        G_CALL(__NR_exit_group, 0);
    }
    G_CALL(__NR_wait4, g->rax, 0, 0, 0);
    G_CALL(__NR_wait4, (uint64_t)-1, WORD, 0, 0);
    G_ASSERT(G_RET > 0);
    G_CALL(NR_LOAD32, WORD);
    G_ASSERT(G_RET == SIGTERM);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_calls, parent_death_signal)
{
    cr_assert_eq(fake_run_init(&table, g_pdeath), 0);
}

/* ---- membarrier makes others leave guest code ---- */

static void g_membarrier(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_membarrier, 8 /* PRIVATE_EXPEDITED */, 0, 0);
    G_ASSERT(G_RET == -EPERM);
    G_CALL(__NR_membarrier, 16 /* REGISTER_PRIVATE_EXPEDITED */, 0, 0);
    G_ASSERT(G_RET == 0);
    for (g->r12 = 0; g->r12 < 4; g->r12++) {
        G_CALL(__NR_clone, THREAD_FLAGS, STACK);
        if (G_RET == 0)
            G_CALL(FAKE_SPIN, 0);
    }
    for (g->r12 = 0; g->r12 < 50; g->r12++) {
        G_CALL(__NR_membarrier, g->r12 % 2 ? 8 : 1, 0, 0);
        G_ASSERT(G_RET == 0);
    }
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_calls, membarrier)
{
    cr_assert_eq(fake_run_init(&table, g_membarrier), 0);
}
