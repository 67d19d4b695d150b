/* Masks changed so often that a kernel may let the program do it by itself: nobody can tell. */
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <ucontext.h>

CONF_FAMILY("sigmask");

#define BIT(sig) (UINT64_C(1) << ((sig)-1))
#define OFTEN 300
#define HEAD_SIZE 24L

static volatile sig_atomic_t hits, bad;
static volatile sig_atomic_t blocking;
static volatile uint64_t seen_mask;

static long raw_mask(int how, const uint64_t *set, uint64_t *old)
{
    return syscall(SYS_rt_sigprocmask, how, set, old, 8L);
}

static uint64_t set_mask(int how, uint64_t set)
{
    uint64_t old = ~UINT64_C(0);

    OK(raw_mask(how, &set, &old));
    return old;
}

static uint64_t get_mask(void)
{
    uint64_t old = ~UINT64_C(0);

    OK(raw_mask(99, NULL, &old));
    return old;
}

/* From here on the call is one that has been made often. */
static void make_hot(void)
{
    for (int i = 0; i < OFTEN; i++)
        (void)get_mask();
}

static void on_signal(int sig, siginfo_t *si, void *uc)
{
    (void)sig;
    (void)si;
    if (blocking)
        bad++;
    seen_mask = *(uint64_t *)&((ucontext_t *)uc)->uc_sigmask;
    hits++;
}

static void catch_signal(int sig)
{
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};

    OK(sigaction(sig, &sa, NULL));
}

static uint64_t status_mask(const char *field)
{
    char line[256];
    unsigned long long mask = 0;
    FILE *f = fopen("/proc/thread-self/status", "r");

    CHECK(f != NULL);
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, field, strlen(field)) == 0)
            CHECK(sscanf(line + strlen(field), " %llx", &mask) == 1);
    fclose(f);
    return mask;
}

TEST(values)
{
    const uint64_t a = BIT(SIGUSR1) | BIT(SIGCHLD) | BIT(64), b = BIT(SIGUSR2) | BIT(34);

    for (int i = 0; i < OFTEN; i++) {
        CHECK_EQ(set_mask(SIG_SETMASK, 0), i == 0 ? 0 : a);
        CHECK_EQ(set_mask(SIG_BLOCK, a), 0);
        CHECK_EQ(set_mask(SIG_BLOCK, b), a);
        CHECK_EQ(get_mask(), a | b);
        CHECK_EQ(set_mask(SIG_UNBLOCK, b | BIT(1)), a | b);
        CHECK_EQ(set_mask(SIG_SETMASK, ~UINT64_C(0)), a);
        CHECK_EQ(get_mask(), ~(BIT(SIGKILL) | BIT(SIGSTOP)));
        CHECK_EQ(set_mask(SIG_SETMASK, a), ~(BIT(SIGKILL) | BIT(SIGSTOP)));
        if (i % 50 == 0)
            CHECK_EQ(status_mask("SigBlk:"), a);
    }
    /* One word for both. */
    for (int i = 0; i < OFTEN; i++) {
        uint64_t word = BIT(1);
        OK(raw_mask(SIG_SETMASK, &word, &word));
        CHECK_EQ(word, i == 0 ? a : BIT(1));
    }
}

TEST(bad_arguments)
{
    const uint64_t a = BIT(SIGUSR1);
    char *page = conf_pages(2);

    OK(mprotect(page + CONF_PAGE, CONF_PAGE, PROT_NONE));
    make_hot();
    for (int i = 0; i < 40; i++) {
        uint64_t old = 77;
        set_mask(SIG_SETMASK, 0);
        CHECK_ERRNO(raw_mask(3, &a, &old), EINVAL);
        CHECK_ERRNO(raw_mask(-1, &a, &old), EINVAL);
        CHECK_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &a, &old, 4L), EINVAL);
        CHECK_EQ(old, 77);
        CHECK_ERRNO(raw_mask(SIG_BLOCK, (void *)(page + CONF_PAGE), &old), EFAULT);
        CHECK_ERRNO(raw_mask(SIG_BLOCK, (void *)(page + CONF_PAGE - 4), &old), EFAULT);
        CHECK_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 1L << 62, &old, 8L), EFAULT);
        CHECK_EQ(old, 77);
        CHECK_EQ(get_mask(), 0);
        /* The mask is changed before the old one cannot be told. */
        CHECK_ERRNO(raw_mask(SIG_BLOCK, &a, (void *)(page + CONF_PAGE)), EFAULT);
        CHECK_EQ(get_mask(), a);
        CHECK_ERRNO(raw_mask(SIG_BLOCK, NULL, (void *)(page + CONF_PAGE)), EFAULT);
        OK(raw_mask(SIG_BLOCK, NULL, NULL));
        OK(raw_mask(17, NULL, NULL));
        OK(syscall(SYS_rt_sigprocmask, (1L << 32) | SIG_UNBLOCK, &a, &old, 8L));
        CHECK_EQ(old, a);
    }
    /* The word has moved into a page that nobody has touched yet. */
    uint64_t *fresh = (void *)conf_pages(1);
    OK(raw_mask(SIG_SETMASK, fresh, NULL));
    CHECK_EQ(get_mask(), 0);
}

/* What is sent to oneself while it is blocked comes with the call that ends that, not before. */
TEST(own_signals)
{
    catch_signal(SIGUSR1);
    make_hot();
    for (int i = 0; i < OFTEN; i++) {
        set_mask(SIG_BLOCK, BIT(SIGUSR1));
        blocking = 1;
        OK(i & 1 ? kill(getpid(), SIGUSR1) : raise(SIGUSR1));
        sigset_t pending;
        OK(sigpending(&pending));
        CHECK_EQ(sigismember(&pending, SIGUSR1), 1);
        set_mask(SIG_BLOCK, BIT(SIGUSR2));
        CHECK_EQ(hits, i);
        blocking = 0;
        set_mask(SIG_UNBLOCK, BIT(SIGUSR1));
        CHECK_EQ(hits, i + 1);
        CHECK_EQ(seen_mask, BIT(SIGUSR2));
        set_mask(SIG_UNBLOCK, BIT(SIGUSR2));
    }
    CHECK_EQ(bad, 0);
}

/* What is ignored by default is kept while it is blocked. */
TEST(ignored_is_kept)
{
    make_hot();
    for (int i = 0; i < 20; i++) {
        siginfo_t si;
        sigset_t set;
        set_mask(SIG_BLOCK, BIT(SIGCHLD));
        pid_t pid = conf_fork();
        if (pid == 0)
            _exit(0);
        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        CHECK_EQ(TEMP_FAILURE_RETRY(sigwaitinfo(&set, &si)), SIGCHLD);
        CHECK_EQ(si.si_pid, pid);
        CHECK_EXIT(pid, 0);
        set_mask(SIG_UNBLOCK, BIT(SIGCHLD));
    }
}

struct sender {
    pthread_t to;
    bool group;
    int count;
    _Atomic int sent;
};

static void *send_main(void *arg)
{
    struct sender *s = arg;

    for (int i = 0; i < s->count; i++) {
        __atomic_store_n(&s->sent, i + 1, __ATOMIC_SEQ_CST);
        if (s->group)
            OK(kill(getpid(), SIGUSR1));
        else
            CHECK_EQ(pthread_kill(s->to, SIGUSR1), 0);
        /* The next one when this one was seen: a lost one is waited for forever. */
        while (hits <= i)
            sched_yield();
    }
    return NULL;
}

/* Blocks and unblocks until all have come, and makes no call when one is due. */
static void toggle(struct sender *s)
{
    for (unsigned i = 0; hits < s->count; i++) {
        set_mask(SIG_BLOCK, BIT(SIGUSR1));
        blocking = 1;
        for (unsigned k = 0; k < i % 16; k++)
            __asm__ volatile("pause");
        blocking = 0;
        set_mask(SIG_UNBLOCK, BIT(SIGUSR1));
        const int sent = __atomic_load_n(&s->sent, __ATOMIC_SEQ_CST);
        while (hits < sent)
            __asm__ volatile("pause");
    }
}

static void sent_while_toggled(void *(*sender)(void *), bool group)
{
    struct sender s = {.to = pthread_self(), .group = group, .count = 1500};
    pthread_t t;

    catch_signal(SIGUSR1);
    make_hot();
    CHECK_EQ(pthread_create(&t, NULL, sender, &s), 0);
    toggle(&s);
    CHECK_EQ(pthread_join(t, NULL), 0);
    CHECK_EQ(hits, s.count);
    CHECK_EQ(bad, 0);
}

TEST_TIMEOUT(sent_by_a_thread, 120)
{
    sent_while_toggled(send_main, false);
}

/* The sender blocks it himself. */
static void *send_group_main(void *arg)
{
    set_mask(SIG_BLOCK, BIT(SIGUSR1));
    return send_main(arg);
}

TEST_TIMEOUT(sent_to_the_group, 120)
{
    sent_while_toggled(send_group_main, true);
}

/* ---- masks that go elsewhere ---- */

HELPER(mask)
{
    (void)argc;
    const uint64_t want = strtoull(argv[1], NULL, 16);

    return get_mask() == want ? 0 : 1;
}

static void *mask_main(void *arg)
{
    return get_mask() == *(uint64_t *)arg ? arg : NULL;
}

TEST(inherited)
{
    make_hot();
    for (int i = 0; i < 12; i++) {
        uint64_t mask = BIT(SIGUSR1) | BIT(20 + i);
        pthread_t t;
        void *ret;
        set_mask(SIG_SETMASK, mask);
        CHECK_EQ(pthread_create(&t, NULL, mask_main, &mask), 0);
        CHECK_EQ(pthread_join(t, &ret), 0);
        CHECK(ret == &mask);
        pid_t pid = conf_fork();
        if (pid == 0) {
            char text[32];
            if (get_mask() != mask)
                _exit(2);
            snprintf(text, sizeof(text), "%llx", (unsigned long long)mask);
            conf_exec_helper("mask", (const char *const[]){text, NULL});
            _exit(3);
        }
        CHECK_EXIT(pid, 0);
        CHECK_EQ(get_mask(), mask);
    }
}

TEST(for_one_call)
{
    catch_signal(SIGUSR1);
    make_hot();
    for (int i = 0; i < 50; i++) {
        sigset_t none;
        sigemptyset(&none);
        set_mask(SIG_SETMASK, BIT(SIGUSR1) | BIT(SIGUSR2));
        OK(raise(SIGUSR1));
        CHECK_ERRNO(sigsuspend(&none), EINTR);
        CHECK_EQ(hits, i + 1);
        CHECK_EQ(seen_mask, BIT(SIGUSR1) | BIT(SIGUSR2));
        CHECK_EQ(get_mask(), BIT(SIGUSR1) | BIT(SIGUSR2));
    }
}

/* A tracer reads what the tracee has made of it, and says what it becomes. */
TEST(traced)
{
    int up[2], down[2];
    char c;

    OK(pipe(up));
    OK(pipe(down));
    pid_t pid = conf_fork();
    if (pid == 0) {
        make_hot();
        set_mask(SIG_SETMASK, BIT(SIGUSR1));
        CHECK_EQ(write(up[1], "x", 1), 1);
        while (get_mask() != BIT(SIGUSR2))
            ;
        CHECK_EQ(read(down[0], &c, 1), 1);
        _exit(get_mask() == BIT(SIGUSR2) ? 0 : 1);
    }
    CHECK_EQ(read(up[0], &c, 1), 1);
    OK(ptrace(PTRACE_SEIZE, pid, NULL, NULL));
    OK(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL));
    int status;
    CHECK_EQ(TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)), pid);
    CHECK(WIFSTOPPED(status));
    uint64_t mask = 0;
    OK(ptrace(PTRACE_GETSIGMASK, pid, (void *)8L, &mask));
    CHECK_EQ(mask, BIT(SIGUSR1));
    mask = BIT(SIGUSR2) | BIT(SIGKILL);
    OK(ptrace(PTRACE_SETSIGMASK, pid, (void *)8L, &mask));
    OK(ptrace(PTRACE_DETACH, pid, NULL, NULL));
    CHECK_EQ(write(down[1], "x", 1), 1);
    CHECK_EXIT(pid, 0);
}

static bool is_call(pid_t pid, uint64_t rip)
{
    errno = 0;
    const long word = ptrace(PTRACE_PEEKTEXT, pid, (void *)rip, NULL);

    return errno == 0 && (word & 0xffff) == 0x050f;
}

/* Step by step a call is one step, however it is made. */
TEST(stepped)
{
    enum { STEPS = 3000, CALLS = 20 };
    int status, calls = 0;
    pid_t pid = conf_fork();

    if (pid == 0) {
        const uint64_t set = BIT(SIGUSR1);
        make_hot();
        OK(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
        OK(raise(SIGSTOP));
        for (;;) {
            OK(raw_mask(SIG_BLOCK, &set, NULL));
            OK(sigprocmask(SIG_UNBLOCK, (const sigset_t *)&set, NULL));
        }
    }
    CHECK_EQ(TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)), pid);
    CHECK(WIFSTOPPED(status));
    for (int i = 0; i < STEPS && calls < CALLS; i++) {
        struct user_regs_struct r;
        OK(ptrace(PTRACE_GETREGS, pid, NULL, &r));
        const uint64_t before = r.rip;
        const bool call = is_call(pid, before);
        OK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL));
        CHECK_EQ(TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)), pid);
        CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
        OK(ptrace(PTRACE_GETREGS, pid, NULL, &r));
        if (call)
            CHECK_EQ(r.rip, before + 2);
        calls += call;
    }
    CHECK_EQ(calls, CALLS);
}

/* ---- robust lists, which each thread sets once ---- */

static void *robust_main(void *arg)
{
    CHECK_EQ(pthread_mutex_lock(arg), 0);
    return NULL;
}

TEST(robust_list)
{
    pthread_mutexattr_t attr;
    pthread_mutex_t m;

    CHECK_EQ(pthread_mutexattr_init(&attr), 0);
    CHECK_EQ(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST), 0);
    CHECK_EQ(pthread_mutex_init(&m, &attr), 0);
    for (int i = 0; i < OFTEN; i++) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, robust_main, &m), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
        CHECK_EQ(pthread_mutex_lock(&m), EOWNERDEAD);
        CHECK_EQ(pthread_mutex_consistent(&m), 0);
        CHECK_EQ(pthread_mutex_unlock(&m), 0);
    }
}

static void *listed_main(void *arg)
{
    void *head = NULL;
    size_t size = 0;

    OK(syscall(SYS_get_robust_list, 0, &head, &size));
    CHECK_EQ(size, HEAD_SIZE);
    for (long i = 1; i <= OFTEN; i++) {
        void *mine = (void *)(i * 4096), *got = NULL;
        OK(syscall(SYS_set_robust_list, mine, HEAD_SIZE));
        CHECK_ERRNO(syscall(SYS_set_robust_list, mine, HEAD_SIZE - 1), EINVAL);
        if (i % 16 == 0) {
            OK(syscall(SYS_get_robust_list, 0, &got, &size));
            CHECK(got == mine);
        }
    }
    OK(syscall(SYS_set_robust_list, head, HEAD_SIZE));
    int *pipes = arg;
    pid_t tid = gettid();
    CHECK_EQ(write(pipes[1], &tid, sizeof(tid)), sizeof(tid));
    CHECK_EQ(write(pipes[1], &head, sizeof(head)), sizeof(head));
    pause();
    return NULL;
}

TEST(robust_list_of_others)
{
    int pipes[2];
    pthread_t t;
    pid_t tid;
    void *head, *got = NULL;
    size_t size;

    OK(pipe(pipes));
    CHECK_EQ(pthread_create(&t, NULL, listed_main, pipes), 0);
    CHECK_EQ(read(pipes[0], &tid, sizeof(tid)), sizeof(tid));
    CHECK_EQ(read(pipes[0], &head, sizeof(head)), sizeof(head));
    OK(syscall(SYS_get_robust_list, tid, &got, &size));
    CHECK(got == head);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(syscall(SYS_get_robust_list, 0, &got, &size));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}
