/* Actions that are the default, read and set: what posix_spawn does to a child. */
#include "harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>

CONF_FAMILY("sigdefault");

static volatile sig_atomic_t hits;

static void count_hit(int sig)
{
    (void)sig;
    hits++;
}

/* As the kernel has it. */
struct raw_action {
    uint64_t handler, flags, restorer, mask;
};
#define RAW_RESTORER 0x04000000u

static long raw_sigaction(int sig, const struct raw_action *act, struct raw_action *old)
{
    return syscall(SYS_rt_sigaction, sig, act, old, 8L);
}

static void check_action(int sig, const struct raw_action *want)
{
    struct raw_action got;
    memset(&got, 0xee, sizeof(got));
    OK(raw_sigaction(sig, NULL, &got));
    CHECK_EQ(memcmp(&got, want, sizeof(got)), 0);
}

/* What posix_spawn does to a child, and more: every word of an action that is the default is kept.
 */
TEST(kept)
{
    for (unsigned round = 0; round < 4; round++) {
        for (int sig = 1; sig <= 64; sig++) {
            const struct raw_action a = {.flags = round & 1 ? 0 : RAW_RESTORER,
                                         .restorer = 0x1000u * round + (unsigned)sig,
                                         .mask = round == 3 ? 1u << 4 : 0};
            if (sig == SIGKILL || sig == SIGSTOP) {
                CHECK_ERRNO(raw_sigaction(sig, &a, NULL), EINVAL);
                check_action(sig, &(struct raw_action){0});
                continue;
            }
            if (round == 0)
                check_action(sig, &(struct raw_action){0});
            OK(raw_sigaction(sig, &a, NULL));
            check_action(sig, &a);
        }
    }
    struct raw_action last = {.flags = RAW_RESTORER, .restorer = 7};
    OK(raw_sigaction(SIGUSR1, &last, NULL));
    pid_t pid = conf_fork();
    if (pid == 0) {
        check_action(SIGUSR1, &last);
        last.restorer = 8;
        OK(raw_sigaction(SIGUSR1, &last, NULL));
        check_action(SIGUSR1, &last);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    check_action(SIGUSR1, &last);
    conf_handler(SIGUSR1, count_hit, 0);
    OK(raise(SIGUSR1));
    CHECK_EQ(hits, 1);
    OK(raw_sigaction(SIGUSR1, &last, NULL));
    check_action(SIGUSR1, &last);
    pid = conf_fork();
    if (pid == 0) {
        raise(SIGUSR1);
        _exit(0);
    }
    CHECK_KILLED(pid, SIGUSR1);
}

TEST(bad_arguments)
{
    struct raw_action a = {0};
    char *page = conf_pages(2);
    OK(mprotect(page + CONF_PAGE, CONF_PAGE, PROT_NONE));
    for (int round = 0; round < 12; round++) {
        OK(raw_sigaction(SIGUSR1, &a, NULL));
        for (unsigned long off = CONF_PAGE - 24; off <= CONF_PAGE; off += 8) {
            void *bad = page + off;
            CHECK_ERRNO(raw_sigaction(SIGUSR2, bad, NULL), EFAULT);
            CHECK_ERRNO(raw_sigaction(SIGUSR2, NULL, bad), EFAULT);
        }
        OK(raw_sigaction(SIGUSR2, NULL, (void *)(page + CONF_PAGE - 32)));
        CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR2, NULL, 1L << 62, 8L), EFAULT);
        CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR2, -4096L, NULL, 8L), EFAULT);
        CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR2, &a, NULL, 16L), EINVAL);
        CHECK_ERRNO(raw_sigaction(0, &a, NULL), EINVAL);
        CHECK_ERRNO(raw_sigaction(65, &a, NULL), EINVAL);
        CHECK_ERRNO(raw_sigaction(-1, NULL, &a), EINVAL);
        OK(raw_sigaction(SIGUSR2, NULL, NULL));
        OK(raw_sigaction(SIGUSR2, &a, &a));
    }
    OK(mprotect(page, CONF_PAGE, PROT_READ));
    CHECK_ERRNO(raw_sigaction(SIGUSR2, NULL, (void *)page), EFAULT);
    /* One that is ignored by default is no longer pending when that is said again. */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    OK(kill(getpid(), SIGCHLD));
    OK(raw_sigaction(SIGCHLD, &(struct raw_action){.flags = RAW_RESTORER}, NULL));
    sigset_t pending;
    OK(sigpending(&pending));
    CHECK_EQ(sigismember(&pending, SIGCHLD), 0);
}

/* Interrupted anywhere, with every register its own. */
TEST(under_signals)
{
    enum { COUNT = 3000 };
    const struct raw_action a = {.flags = RAW_RESTORER, .restorer = 5};
    conf_handler(SIGRTMIN + 3, count_hit, 0);
    pid_t parent = getpid(), pid = conf_fork();
    if (pid == 0) {
        for (int sent = 0; sent < COUNT;)
            if (sigqueue(parent, SIGRTMIN + 3, (union sigval){0}) == 0)
                sent++;
        _exit(0);
    }
    while (hits < COUNT) {
        uint64_t in[2] = {0x0123456789abcdef, 0xfedcba9876543210}, out[2] = {0, 0};
        uint64_t r8 = 81, r9 = 91, r12 = 121, r13 = 131, rbx = 31;
        long ret = SYS_rt_sigaction;
        __asm__ volatile("movdqu %[in], %%xmm9\n\t"
                         "movq $8, %%r10\n\t"
                         "movq %[r8], %%r8\n\tmovq %[r9], %%r9\n\t"
                         "movq %[r12], %%r12\n\tmovq %[r13], %%r13\n\tmovq %[rbx], %%rbx\n\t"
                         "std\n\tstc\n\t"
                         "syscall\n\t"
                         "cld\n\t"
                         "movq %%r8, %[r8]\n\tmovq %%r9, %[r9]\n\t"
                         "movq %%r12, %[r12]\n\tmovq %%r13, %[r13]\n\tmovq %%rbx, %[rbx]\n\t"
                         "movdqu %%xmm9, %[out]\n\t"
                         : "+a"(ret), [out] "=m"(out), [r8] "+m"(r8), [r9] "+m"(r9),
                           [r12] "+m"(r12), [r13] "+m"(r13), [rbx] "+m"(rbx)
                         : "D"(SIGUSR2), "S"(&a), "d"(0), [in] "m"(in), "m"(a)
                         : "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "rbx", "xmm9", "memory",
                           "cc");
        CHECK_EQ(ret, 0);
        CHECK(in[0] == out[0] && in[1] == out[1]);
        CHECK(r8 == 81 && r9 == 91 && r12 == 121 && r13 == 131 && rbx == 31);
        check_action(SIGUSR2, &a);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(hits, COUNT);
}

static void *set_in_thread(void *arg)
{
    check_action(SIGUSR2, arg);
    conf_handler(SIGUSR1, count_hit, 0);
    return NULL;
}

TEST(of_threads)
{
    struct raw_action a = {.flags = RAW_RESTORER, .restorer = 9}, got;
    pthread_t t;
    for (int i = 0; i < 3; i++)
        OK(raw_sigaction(SIGUSR2, &a, NULL));
    OK(raw_sigaction(SIGUSR1, &a, NULL));
    CHECK_EQ(pthread_create(&t, NULL, set_in_thread, &a), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
    OK(raw_sigaction(SIGUSR1, NULL, &got));
    CHECK(got.handler != 0);
    a.restorer++;
    OK(raw_sigaction(SIGUSR1, &a, NULL));
    check_action(SIGUSR1, &a);
}

/* 0: every action could be set to the default, and was that afterwards. */
static int reset_all(void *arg)
{
    const struct raw_action a = {.flags = RAW_RESTORER, .restorer = (uintptr_t)arg};
    struct raw_action got;

    for (int sig = 1; sig <= 64; sig++) {
        if (sig == SIGKILL || sig == SIGSTOP)
            continue;
        if (raw_sigaction(sig, NULL, &got) != 0 || raw_sigaction(sig, &a, NULL) != 0 ||
            raw_sigaction(sig, NULL, &got) != 0 || memcmp(&got, &a, sizeof(got)) != 0)
            return sig;
    }
    return 0;
}

/* Children that share memory, one after another: their actions are their own. */
TEST(of_spawned_processes)
{
    char *stack = conf_pages(4);
    struct raw_action before, got;

    conf_handler(SIGUSR1, count_hit, 0);
    OK(raw_sigaction(SIGUSR1, NULL, &before));
    for (uintptr_t i = 1; i <= 6; i++) {
        pid_t pid = OK(
            clone(reset_all, stack + 4 * CONF_PAGE, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)i));
        CHECK_EXIT(pid, 0);
        OK(raw_sigaction(SIGUSR1, NULL, &got));
        CHECK_EQ(memcmp(&got, &before, sizeof(got)), 0);
        check_action(SIGUSR2, &(struct raw_action){0});
        OK(raise(SIGUSR1));
        CHECK_EQ(hits, (int)i);
    }
}

/* A filter sees every call from the moment it is there. */
TEST(seccomp)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigaction, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog prog = {.len = ARRAY_SIZE(code), .filter = code};
    struct raw_action a = {0};
    for (int i = 0; i < 3; i++) {
        OK(raw_sigaction(SIGUSR2, NULL, &a));
        OK(raw_sigaction(SIGUSR2, &a, NULL));
    }
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
    CHECK_ERRNO(raw_sigaction(SIGUSR2, NULL, &a), ENOTTY);
    CHECK_ERRNO(raw_sigaction(SIGUSR2, &a, NULL), ENOTTY);
}
