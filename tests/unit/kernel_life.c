/* Lives of tasks: fork, threads, vfork, exec, wait, exit, job control, on fakes of everything below
 * the kernel. */
#include <asm/unistd.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/objcount.h"
#include "syscalls/handlers.h"
#include "tests/unit/fakes/fakes.h"

#define NR_KILL 500u   /* (pid, signo), as from outside */
#define NR_LOAD32 501u /* (addr) */
#define NR_WAIT_TIME 502u

#define WORD (FAKE_MEM_START + 64)

/* ---- the calls that these guests make ---- */

static int64_t do_kill(struct task *t, const uint64_t *a)
{
    return kernel_kill(t->k, (int32_t)a[0], (int)a[1], false);
}

static int64_t do_load32(struct task *t, const uint64_t *a)
{
    uint32_t v;

    return user_load32(&t->ua, uaddr(a[0]), &v) ? -EFAULT : (int64_t)v;
}

static int64_t do_pause_ms(struct task *t, const uint64_t *a)
{
    (void)t;
    usleep((useconds_t)a[0] * 1000);
    return 0;
}

#define CALL0(name)                                                                                \
    static int64_t do_##name(struct task *t, const uint64_t *a)                                    \
    {                                                                                              \
        (void)a;                                                                                   \
        return sys_##name(t);                                                                      \
    }
CALL0(getpid)
CALL0(gettid)
CALL0(getppid)
CALL0(fork)
CALL0(vfork)
CALL0(setsid)
CALL0(getpgrp)

static int64_t do_exit(struct task *t, const uint64_t *a)
{
    return sys_exit(t, (int)a[0]);
}

static int64_t do_exit_group(struct task *t, const uint64_t *a)
{
    return sys_exit_group(t, (int)a[0]);
}

static int64_t do_clone(struct task *t, const uint64_t *a)
{
    return sys_clone(t, a[0], a[1], uaddr(a[2]), uaddr(a[3]), a[4]);
}

static int64_t do_wait4(struct task *t, const uint64_t *a)
{
    return sys_wait4(t, (int)a[0], uaddr(a[1]), (int)a[2], uaddr(a[3]));
}

static int64_t do_waitid(struct task *t, const uint64_t *a)
{
    return sys_waitid(t, (int)a[0], (int)a[1], uaddr(a[2]), (int)a[3], uaddr(a[4]));
}

static int64_t do_prctl(struct task *t, const uint64_t *a)
{
    return sys_prctl(t, (int)a[0], a[1], a[2], a[3], a[4]);
}

static int64_t do_setpgid(struct task *t, const uint64_t *a)
{
    return sys_setpgid(t, (int)a[0], (int)a[1]);
}

/* execve of program a[0]: the name is put into guest memory first. */
static int64_t do_execve(struct task *t, const uint64_t *a)
{
    const char name[3] = {'/', (char)('0' + a[0]), '\0'};

    if (copyout(&t->ua, uaddr(FAKE_MEM_START), name, sizeof(name)))
        return -EFAULT;
    return sys_execve(t, uaddr(FAKE_MEM_START), uaddr(0), uaddr(0));
}

#define ENTRY(nr) [__NR_##nr] = {.fn = do_##nr, .name = #nr, .err = -ENOSYS}
static const struct sys_entry entries[] = {
    ENTRY(getpid),
    ENTRY(gettid),
    ENTRY(getppid),
    ENTRY(fork),
    ENTRY(vfork),
    ENTRY(exit),
    ENTRY(exit_group),
    ENTRY(clone),
    ENTRY(wait4),
    ENTRY(waitid),
    ENTRY(execve),
    ENTRY(setsid),
    ENTRY(prctl),
    ENTRY(setpgid),
    ENTRY(getpgrp),
    [NR_KILL] = {.fn = do_kill, .name = "kill"},
    [NR_LOAD32] = {.fn = do_load32, .name = "load32"},
    [NR_WAIT_TIME] = {.fn = do_pause_ms, .name = "pause_ms"},
};
static const struct sys_table table = {.entries = entries, .count = ARRAY_SIZE(entries)};

static int run_init(fake_guest_fn init)
{
    return fake_run_init(&table, init);
}

/* ---- tests ---- */

static void g_exit(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_getpid, 0);
    G_ASSERT(G_RET == 1);
    G_CALL(__NR_getppid, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(499);
    G_ASSERT(G_RET == -ENOSYS);
    G_CALL(0xffffffff);
    G_ASSERT(G_RET == -ENOSYS);
    G_CALL(__NR_exit, 42);
    G_END;
}

Test(kernel_life, exit_status)
{
    cr_assert_eq(run_init(g_exit), 42 << 8);
}

static void g_fault(struct plat_regs *g)
{
    g->orig_rax = FAKE_FAULT;
}

Test(kernel_life, fault_kills)
{
    cr_assert_eq(run_init(g_fault) & 0x7f, SIGSEGV);
}

static void g_fork_wait(struct plat_regs *g)
{
    G_BEGIN
    for (g->r12 = 0; g->r12 < 20; g->r12++) {
        G_CALL(__NR_fork, 0);
        G_ASSERT(G_RET >= 0);
        if (G_RET == 0) {
            G_CALL(__NR_getppid, 0);
            G_ASSERT(G_RET == 1);
            G_CALL(__NR_exit_group, g->r12);
        }
        g->r13 = g->rax;
        G_CALL(__NR_wait4, (uint64_t)-1, WORD, 0, 0);
        G_ASSERT(g->rax == g->r13);
        G_CALL(NR_LOAD32, WORD);
        G_ASSERT(g->rax == g->r12 << 8);
    }
    G_CALL(__NR_wait4, (uint64_t)-1, WORD, 0, 0);
    G_ASSERT(G_RET == -ECHILD);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_life, fork_wait)
{
    cr_assert_eq(run_init(g_fork_wait), 0);
}

static void g_wnowait(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_fork, 0);
    if (G_RET == 0)
        G_CALL(__NR_exit_group, 7);
    g->r13 = g->rax;
    G_CALL(__NR_waitid, P_PID, g->r13, WORD, WEXITED | WNOWAIT, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(NR_LOAD32, WORD + 8);
    G_ASSERT(G_RET == CLD_EXITED);
    G_CALL(NR_LOAD32, WORD + 16);
    G_ASSERT(g->rax == g->r13);
    G_CALL(NR_LOAD32, WORD + 24);
    G_ASSERT(G_RET == 7);
    G_CALL(__NR_waitid, P_ALL, 0, 0, WEXITED, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(__NR_waitid, P_ALL, 0, 0, WEXITED | WNOHANG, 0);
    G_ASSERT(G_RET == -ECHILD);
    G_CALL(__NR_waitid, P_ALL, 0, 0, 0, 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_life, waitid_keeps_zombie)
{
    cr_assert_eq(run_init(g_wnowait), 0);
}

#define THREAD_FLAGS                                                                               \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
#define THREADS 500

/* Threads that run guest code or wait for children that never come, ended by exit_group. */
static void g_threads(struct plat_regs *g)
{
    G_BEGIN
    for (g->r12 = 0; g->r12 < THREADS; g->r12++) {
        G_CALL(__NR_clone, THREAD_FLAGS, FAKE_MEM_START + 4096);
        G_ASSERT(G_RET >= 0);
        if (G_RET == 0) {
            G_CALL(__NR_getpid, 0);
            G_ASSERT(G_RET == 1);
            if (g->r12 % 4 == 0)
                G_CALL(__NR_exit, 0);
            if (g->r12 == THREADS - 1)
                G_CALL(__NR_exit_group, 5);
            for (;;)
                G_CALL(NR_WAIT_TIME, 20);
        }
    }
    G_CALL(FAKE_SPIN, 0);
    G_END;
}

Test(kernel_life, many_threads_end_together, .timeout = 300)
{
    cr_assert_eq(run_init(g_threads), 5 << 8);
}

/* exit of the first thread leaves the process to the others; its status is the process's. */
static void g_leader_first(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_fork, 0);
    if (G_RET == 0) {
        G_CALL(__NR_clone, THREAD_FLAGS, FAKE_MEM_START + 4096);
        if (G_RET == 0) {
            G_CALL(NR_WAIT_TIME, 50);
            G_CALL(__NR_exit, 9);
        }
        G_CALL(__NR_exit, 3);
    }
    G_CALL(__NR_wait4, (uint64_t)-1, WORD, WNOHANG, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(__NR_wait4, (uint64_t)-1, WORD, 0, 0);
    G_ASSERT(G_RET > 0);
    G_CALL(NR_LOAD32, WORD);
    G_CALL(__NR_exit_group, g->rax >> 8);
    G_END;
}

Test(kernel_life, leader_may_end_first)
{
    cr_assert_eq(run_init(g_leader_first), 3 << 8);
}

static void g_exec_target(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_gettid, 0);
    g->r12 = g->rax;
    G_CALL(__NR_getpid, 0);
    G_ASSERT(g->rax == g->r12);
    G_CALL(__NR_exit_group, 11);
    G_END;
}

/* execve by a thread that is not the leader, while others run. */
static void g_exec_from_thread(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_fork, 0);
    if (G_RET == 0) {
        for (g->r12 = 0; g->r12 < 8; g->r12++) {
            G_CALL(__NR_clone, THREAD_FLAGS, FAKE_MEM_START + 4096);
            if (G_RET == 0) {
                if (g->r12 == 7)
                    G_CALL(__NR_execve, 1);
                G_CALL(FAKE_SPIN, 0);
            }
        }
        G_CALL(FAKE_SPIN, 0);
    }
    g->r13 = g->rax;
    G_CALL(__NR_wait4, g->r13, WORD, 0, 0);
    G_ASSERT(g->rax == g->r13);
    G_CALL(NR_LOAD32, WORD);
    G_ASSERT(G_RET == 11 << 8);
    G_CALL(__NR_execve, 5);
    G_ASSERT(G_RET == -ENOENT);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_life, exec_leaves_one_thread)
{
    fake_programs[1] = g_exec_target;
    cr_assert_eq(run_init(g_exec_from_thread), 0);
}

/* The parent of vfork goes on only when the child has called execve. */
static void g_vfork(struct plat_regs *g)
{
    G_BEGIN
    for (g->r12 = 0; g->r12 < 10; g->r12++) {
        G_CALL(__NR_vfork, 0);
        if (G_RET == 0)
            G_CALL(__NR_execve, 1);
        G_ASSERT(G_RET > 0);
        G_CALL(__NR_wait4, g->rax, WORD, 0, 0);
        G_CALL(NR_LOAD32, WORD);
        G_ASSERT(G_RET == 11 << 8);
    }
    G_CALL(__NR_vfork, 0);
    if (G_RET == 0)
        G_CALL(__NR_exit_group, 1);
    G_CALL(__NR_wait4, (uint64_t)-1, 0, 0, 0);
    G_ASSERT(G_RET > 0);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_life, vfork_waits_for_exec)
{
    fake_programs[1] = g_exec_target;
    cr_assert_eq(run_init(g_vfork), 0);
}

/* Orphans go to a subreaper, then to pid 1. */
static void g_orphan(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_fork, 0);
    if (G_RET == 0) {
        G_CALL(__NR_prctl, 36 /* PR_SET_CHILD_SUBREAPER */, 1);
        G_CALL(__NR_getpid, 0);
        g->r14 = g->rax;
        G_CALL(__NR_fork, 0);
        if (G_RET == 0) {
            G_CALL(__NR_fork, 0);
            if (G_RET == 0) {
                G_CALL(NR_WAIT_TIME, 30);
                G_CALL(__NR_getppid, 0);
                G_ASSERT(g->rax == g->r14);
                G_CALL(__NR_exit_group, 21);
            }
            G_CALL(__NR_exit_group, 20);
        }
        for (g->r12 = 0; g->r12 < 2; g->r12++) {
            G_CALL(__NR_wait4, (uint64_t)-1, WORD, 0, 0);
            G_ASSERT(G_RET > 0);
        }
        G_CALL(NR_LOAD32, WORD);
        G_ASSERT(G_RET == 21 << 8);
        G_CALL(__NR_exit_group, 22);
    }
    G_CALL(__NR_wait4, (uint64_t)-1, WORD, 0, 0);
    G_CALL(NR_LOAD32, WORD);
    G_CALL(__NR_exit_group, g->rax >> 8);
    G_END;
}

Test(kernel_life, orphans_are_adopted)
{
    cr_assert_eq(run_init(g_orphan), 22 << 8);
}

/* Pid 1 ends while others run, wait, are stopped and are zombies. */
static void g_init_ends(struct plat_regs *g)
{
    G_BEGIN
    for (g->r12 = 0; g->r12 < 12; g->r12++) {
        G_CALL(__NR_fork, 0);
        if (G_RET == 0) {
            if (g->r12 % 4 == 0)
                G_CALL(__NR_exit_group, 1);
            G_CALL(__NR_setsid, 0);
            G_CALL(__NR_fork, 0);
            if (g->r12 % 4 == 1)
                G_CALL(__NR_wait4, (uint64_t)-1, 0, 0, 0);
            G_CALL(FAKE_SPIN, 0);
        }
        if (g->r12 % 4 == 2)
            G_CALL(NR_KILL, g->rax, SIGSTOP);
    }
    G_CALL(NR_WAIT_TIME, 20);
    G_CALL(__NR_exit_group, 13);
    G_END;
}

Test(kernel_life, all_end_with_init)
{
    cr_assert_eq(run_init(g_init_ends), 13 << 8);
}

/* A stop, its report, SIGCONT and its report, then death by signal. */
static void g_jobs(struct plat_regs *g)
{
    G_BEGIN
    G_CALL(__NR_fork, 0);
    if (G_RET == 0) {
        G_CALL(__NR_clone, THREAD_FLAGS, FAKE_MEM_START + 4096);
        G_CALL(FAKE_SPIN, 0);
    }
    g->r13 = g->rax;
    G_CALL(NR_KILL, g->r13, SIGSTOP);
    G_CALL(__NR_wait4, g->r13, WORD, WUNTRACED, 0);
    G_ASSERT(g->rax == g->r13);
    G_CALL(NR_LOAD32, WORD);
    G_ASSERT(G_RET == (SIGSTOP << 8 | 0x7f));
    G_CALL(__NR_wait4, g->r13, WORD, WUNTRACED | WNOHANG, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(NR_KILL, g->r13, SIGCONT);
    G_CALL(__NR_wait4, g->r13, WORD, WCONTINUED, 0);
    G_ASSERT(g->rax == g->r13);
    G_CALL(NR_LOAD32, WORD);
    G_ASSERT(G_RET == 0xffff);
    G_CALL(NR_KILL, g->r13, SIGSTOP);
    G_CALL(__NR_waitid, P_PID, g->r13, WORD, WSTOPPED, 0);
    G_ASSERT(G_RET == 0);
    G_CALL(NR_KILL, g->r13, SIGKILL);
    G_CALL(__NR_wait4, g->r13, WORD, 0, 0);
    G_CALL(NR_LOAD32, WORD);
    G_ASSERT(G_RET == SIGKILL);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_life, job_control)
{
    cr_assert_eq(run_init(g_jobs), 0);
}

/* Two levels of forks in parallel: every task forks and reaps at once. */
static void g_storm(struct plat_regs *g)
{
    G_BEGIN
    for (g->r12 = 0; g->r12 < 8; g->r12++) {
        G_CALL(__NR_fork, 0);
        if (G_RET == 0) {
            for (g->r13 = 0; g->r13 < 10; g->r13++) {
                G_CALL(__NR_fork, 0);
                if (G_RET == 0)
                    G_CALL(__NR_exit_group, 0);
                G_ASSERT(G_RET > 0);
                if (g->r13 % 2)
                    G_CALL(__NR_wait4, (uint64_t)-1, 0, 0, 0);
            }
            G_CALL(__NR_exit_group, 0);
        }
    }
    do {
        G_CALL(__NR_wait4, (uint64_t)-1, 0, 0, 0);
    } while (G_RET > 0);
    G_ASSERT(G_RET == -ECHILD);
    G_CALL(__NR_exit_group, 0);
    G_END;
}

Test(kernel_life, fork_storm, .timeout = 300)
{
    cr_assert_eq(run_init(g_storm), 0);
}

/* From outside: a second process beside init, killed by kernel_kill. */
static _Atomic int second_status = -1;

static void on_second_end(void *arg, int status)
{
    (void)arg;
    atomic_store(&second_status, status);
}

static void g_spin(struct plat_regs *g)
{
    g->orig_rax = FAKE_SPIN;
}

Test(kernel_life, exec_from_outside)
{
    struct kernel *k = fake_container_new(&table);
    int32_t pids[8], init, second, never;

    fake_programs[0] = g_spin;
    cr_assert_eq(fake_container_load(k, "/0", fake_on_end, &init), 0);
    kernel_exec_start(k, init);
    cr_assert_eq(fake_container_load(k, "/0", on_second_end, &second), 0);
    kernel_exec_start(k, second);
    cr_assert_eq(fake_container_load(k, "/7", on_second_end, &never), -ENOENT);
    cr_assert_eq(kernel_pids(k, pids, 8), 2);
    cr_assert_eq(kernel_kill(k, second, SIGKILL, false), 0);
    for (int i = 0; i < 1000 && atomic_load(&second_status) < 0; i++)
        usleep(10000);
    cr_assert_eq(atomic_load(&second_status), SIGKILL);
    cr_assert_eq(kernel_kill(k, second, 0, false), -ESRCH);
    /* Loaded and never started: the end of pid 1 takes it along. */
    cr_assert_eq(fake_container_load(k, "/0", NULL, &never), 0);
    cr_assert_eq(kernel_kill(k, -1, SIGKILL, true), 0);
    cr_assert_eq(fake_container_await(), SIGKILL);
    fake_container_end(k);
}
