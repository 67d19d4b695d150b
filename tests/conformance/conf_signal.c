/* Handlers, masks, queues, alternate stacks, restarts, siginfo, stops. */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <ucontext.h>

CONF_FAMILY("signal");

static volatile sig_atomic_t hits;
static volatile sig_atomic_t last_signal;
/* Volatile: libc declares its calls as leaves, which the compiler takes to run no handlers. */
static volatile siginfo_t last_info;

static void count_hit(int sig)
{
    hits++;
    last_signal = sig;
}

static void keep_info(int sig, siginfo_t *si, void *context)
{
    (void)context;
    hits++;
    last_signal = sig;
    last_info = *si;
}

static void block(int sig)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sig);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
}

static void unblock(int sig)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sig);
    OK(sigprocmask(SIG_UNBLOCK, &set, NULL));
}

TEST(handler_runs)
{
    conf_handler(SIGUSR1, count_hit, 0);
    OK(kill(getpid(), SIGUSR1));
    CHECK_EQ(hits, 1);
    CHECK_EQ(last_signal, SIGUSR1);
    raise(SIGUSR1);
    CHECK_EQ(hits, 2);
}

TEST(default_actions)
{
    static const int deadly[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGILL,  SIGTRAP, SIGABRT, SIGBUS,
                                 SIGFPE,  SIGKILL, SIGUSR1, SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM,
                                 SIGTERM, SIGXCPU, SIGXFSZ, SIGPROF, SIGPOLL, SIGSYS,  SIGPWR};
    static const int harmless[] = {SIGCHLD, SIGURG, SIGWINCH, SIGCONT};
    for (size_t i = 0; i < ARRAY_SIZE(deadly); i++) {
        pid_t pid = conf_fork();
        if (pid == 0) {
            OK(kill(getpid(), deadly[i]));
            _exit(0);
        }
        CHECK_KILLED(pid, deadly[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(harmless); i++)
        OK(kill(getpid(), harmless[i]));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(kill(getpid(), SIGRTMIN + 3));
        _exit(0);
    }
    CHECK_KILLED(pid, SIGRTMIN + 3);
}

TEST(sigaction_errors)
{
    struct sigaction sa = {.sa_handler = count_hit};
    CHECK_ERRNO(sigaction(SIGKILL, &sa, NULL), EINVAL);
    CHECK_ERRNO(sigaction(SIGSTOP, &sa, NULL), EINVAL);
    CHECK_ERRNO(sigaction(0, &sa, NULL), EINVAL);
    CHECK_ERRNO(sigaction(65, &sa, NULL), EINVAL);
    CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, 8L, NULL, 8L), EFAULT);
    CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4L), EINVAL);
    CHECK_ERRNO(syscall(SYS_rt_sigprocmask, 77L, &sa, NULL, 8L), EINVAL);
    CHECK_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8L, NULL, 8L), EFAULT);
}

TEST(kill_errors)
{
    CHECK_ERRNO(kill(getpid(), 65), EINVAL);
    CHECK_ERRNO(kill(getpid(), -1), EINVAL);
    CHECK_ERRNO(kill(1 << 22, 0), ESRCH);
    CHECK_ERRNO(kill(1 << 22, SIGTERM), ESRCH);
    OK(kill(getpid(), 0));
    OK(kill(0, 0));
    CHECK_ERRNO(kill(-(1 << 22), 0), ESRCH);
    CHECK_ERRNO(syscall(SYS_tgkill, getpid(), -1, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_tgkill, getpid() + 1, getpid(), 0), ESRCH);
    OK((int)syscall(SYS_tgkill, getpid(), getpid(), 0));
}

TEST(kill_permission)
{
    NEED_ROOT();
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(1234);
        CHECK_ERRNO(kill(getppid(), 0), EPERM);
        CHECK_ERRNO(kill(getppid(), SIGTERM), EPERM);
        OK(kill(getpid(), 0));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(kill_group)
{
    int *ready = conf_shared(CONF_PAGE);
    pid_t leader = conf_fork();
    if (leader == 0) {
        OK(setpgid(0, 0));
        for (int i = 0; i < 3; i++) {
            if (conf_fork() == 0)
                break;
        }
        __atomic_add_fetch(ready, 1, __ATOMIC_SEQ_CST);
        for (;;)
            pause();
    }
    conf_await(ready, 4);
    OK(kill(-leader, SIGTERM));
    CHECK_KILLED(leader, SIGTERM);
}

TEST(mask_and_pending)
{
    sigset_t set, old;
    conf_handler(SIGUSR1, count_hit, 0);
    block(SIGUSR1);
    for (int i = 0; i < 3; i++)
        raise(SIGUSR1);
    CHECK_EQ(hits, 0);
    OK(sigpending(&set));
    CHECK_EQ(sigismember(&set, SIGUSR1), 1);
    CHECK_EQ(sigismember(&set, SIGUSR2), 0);
    OK(sigprocmask(SIG_SETMASK, NULL, &old));
    CHECK_EQ(sigismember(&old, SIGUSR1), 1);
    unblock(SIGUSR1);
    /* A standard signal is pending once. */
    CHECK_EQ(hits, 1);
    OK(sigpending(&set));
    CHECK_EQ(sigismember(&set, SIGUSR1), 0);
    sigfillset(&set);
    OK(sigprocmask(SIG_SETMASK, &set, NULL));
    OK(sigprocmask(SIG_SETMASK, NULL, &old));
    CHECK_EQ(sigismember(&old, SIGKILL), 0);
    CHECK_EQ(sigismember(&old, SIGSTOP), 0);
}

static int rt_order[8];
static volatile sig_atomic_t rt_count;

static void keep_order(int sig, siginfo_t *si, void *context)
{
    (void)context;
    rt_order[rt_count++] = (sig - SIGRTMIN) * 100 + si->si_value.sival_int;
}

TEST(realtime_signals_queue_in_order)
{
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < 2; i++) {
        struct sigaction sa = {.sa_sigaction = keep_order, .sa_flags = SA_SIGINFO};
        sigfillset(&sa.sa_mask);
        OK(sigaction(SIGRTMIN + i, &sa, NULL));
        sigaddset(&set, SIGRTMIN + i);
    }
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    for (int i = 0; i < 3; i++) {
        union sigval v = {.sival_int = i};
        OK(sigqueue(getpid(), SIGRTMIN + 1, v));
        OK(sigqueue(getpid(), SIGRTMIN, v));
    }
    OK(sigprocmask(SIG_UNBLOCK, &set, NULL));
    static const int want[] = {0, 1, 2, 100, 101, 102};
    CHECK_EQ(rt_count, 6);
    /* The lowest number is taken first, but frames stack up before any handler runs only as far
     * as masks allow: with all masked they run one after the other. */
    for (int i = 0; i < 6; i++)
        CHECK_EQ(rt_order[i], want[i]);
}

TEST(pending_limit)
{
    NEED_ROOT();
    pid_t pid = conf_fork();
    if (pid == 0) {
        union sigval v = {.sival_int = 0};
        conf_become(5432);
        block(SIGRTMIN);
        OK(setrlimit(RLIMIT_SIGPENDING, &(struct rlimit){1000, 1000}));
        int sent = 0;
        while (sent <= 1000 && sigqueue(getpid(), SIGRTMIN, v) == 0)
            sent++;
        CHECK_EQ(errno, EAGAIN);
        CHECK_EQ(sent, 1000);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

static void nested_mask(int sig)
{
    sigset_t now;
    (void)sig;
    sigprocmask(SIG_SETMASK, NULL, &now);
    hits = 0;
    if (sigismember(&now, SIGUSR1) == 1)
        hits |= 1;
    if (sigismember(&now, SIGUSR2) == 1)
        hits |= 2;
    if (sigismember(&now, SIGTERM) == 1)
        hits |= 4;
}

TEST(mask_inside_handler)
{
    struct sigaction sa = {.sa_handler = nested_mask};
    sigset_t now;
    sigemptyset(&sa.sa_mask);
    sigaddset(&sa.sa_mask, SIGUSR2);
    OK(sigaction(SIGUSR1, &sa, NULL));
    raise(SIGUSR1);
    CHECK_EQ(hits, 3);
    sa.sa_flags = SA_NODEFER;
    OK(sigaction(SIGUSR1, &sa, NULL));
    raise(SIGUSR1);
    CHECK_EQ(hits, 2);
    OK(sigprocmask(SIG_SETMASK, NULL, &now));
    CHECK_EQ(sigismember(&now, SIGUSR1), 0);
    CHECK_EQ(sigismember(&now, SIGUSR2), 0);
}

TEST(resethand)
{
    struct sigaction sa;
    conf_handler(SIGUSR1, count_hit, (int)SA_RESETHAND);
    raise(SIGUSR1);
    CHECK_EQ(hits, 1);
    OK(sigaction(SIGUSR1, NULL, &sa));
    CHECK(sa.sa_handler == SIG_DFL);
    pid_t pid = conf_fork();
    if (pid == 0) {
        raise(SIGUSR1);
        _exit(0);
    }
    CHECK_KILLED(pid, SIGUSR1);
}

TEST(siginfo_of_kill)
{
    conf_sigaction(SIGUSR1, keep_info, 0);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(kill(getppid(), SIGUSR1));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(hits, 1);
    CHECK_EQ(last_info.si_signo, SIGUSR1);
    CHECK_EQ(last_info.si_code, SI_USER);
    CHECK_EQ(last_info.si_pid, pid);
    CHECK_EQ(last_info.si_uid, getuid());
    OK((int)syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1));
    CHECK_EQ(last_info.si_code, SI_TKILL);
    CHECK_EQ(last_info.si_pid, getpid());
    union sigval v = {.sival_int = 1234};
    OK(sigqueue(getpid(), SIGUSR1, v));
    CHECK_EQ(last_info.si_code, SI_QUEUE);
    CHECK_EQ(last_info.si_value.sival_int, 1234);
}

TEST(sigqueueinfo_forgery)
{
    siginfo_t si;
    memset(&si, 0, sizeof(si));
    si.si_code = SI_USER;
    pid_t child = conf_fork();
    if (child == 0) {
        CHECK_ERRNO(syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, &si), EPERM);
        _exit(0);
    }
    CHECK_EXIT(child, 0);
    CHECK_ERRNO(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, 8L), EFAULT);
}

TEST(siginfo_of_child)
{
    conf_sigaction(SIGCHLD, keep_info, 0);
    block(SIGCHLD);
    pid_t pid = conf_fork();
    if (pid == 0)
        _exit(44);
    sigset_t none;
    sigemptyset(&none);
    while (hits == 0)
        CHECK_ERRNO(sigsuspend(&none), EINTR);
    CHECK_EQ(last_info.si_signo, SIGCHLD);
    CHECK_EQ(last_info.si_code, CLD_EXITED);
    CHECK_EQ(last_info.si_pid, pid);
    CHECK_EQ(last_info.si_status, 44);
    CHECK_EXIT(pid, 44);
}

static void *fault_page;
static volatile ucontext_t fault_context;

static void fix_fault(int sig, siginfo_t *si, void *context)
{
    const ucontext_t *uc = context;
    hits++;
    last_signal = sig;
    last_info = *si;
    fault_context.uc_mcontext.gregs[REG_TRAPNO] = uc->uc_mcontext.gregs[REG_TRAPNO];
    fault_context.uc_mcontext.gregs[REG_CR2] = uc->uc_mcontext.gregs[REG_CR2];
    fault_context.uc_mcontext.gregs[REG_ERR] = uc->uc_mcontext.gregs[REG_ERR];
    if (mprotect(fault_page, CONF_PAGE, PROT_READ | PROT_WRITE) == -1)
        _exit(9);
}

TEST(siginfo_of_fault)
{
    volatile char *page = conf_pages(1);
    fault_page = (void *)(uintptr_t)page;
    conf_sigaction(SIGSEGV, fix_fault, 0);
    OK(mprotect(fault_page, CONF_PAGE, PROT_READ));
    page[123] = 5;
    CHECK_EQ(hits, 1);
    CHECK_EQ(page[123], 5);
    CHECK_EQ(last_info.si_signo, SIGSEGV);
    CHECK_EQ(last_info.si_code, SEGV_ACCERR);
    CHECK((char *)last_info.si_addr == (char *)fault_page + 123);
    CHECK_EQ(fault_context.uc_mcontext.gregs[REG_TRAPNO], 14);
    CHECK_EQ(fault_context.uc_mcontext.gregs[REG_CR2], (uintptr_t)page + 123);
    /* Write, from user mode, to a present or absent page. */
    CHECK_EQ(fault_context.uc_mcontext.gregs[REG_ERR] & 6, 6);
}

static void skip_instruction(int sig, siginfo_t *si, void *context)
{
    ucontext_t *uc = context;
    hits++;
    last_signal = sig;
    last_info = *si;
    /* ud2, int3 (already past) and idiv are placed by the cases below. */
    if (sig == SIGILL || sig == SIGFPE)
        uc->uc_mcontext.gregs[REG_RIP] += 2;
}

TEST(siginfo_of_trap_instructions)
{
    conf_sigaction(SIGILL, skip_instruction, 0);
    conf_sigaction(SIGFPE, skip_instruction, 0);
    conf_sigaction(SIGTRAP, skip_instruction, 0);
    __asm__ volatile("ud2" ::: "memory");
    CHECK_EQ(hits, 1);
    CHECK_EQ(last_info.si_signo, SIGILL);
    CHECK_EQ(last_info.si_code, ILL_ILLOPN);
    unsigned int a = 1, d = 0;
    __asm__ volatile("divl %2" : "+a"(a), "+d"(d) : "r"(0) : "memory");
    CHECK_EQ(hits, 2);
    CHECK_EQ(last_info.si_signo, SIGFPE);
    CHECK_EQ(last_info.si_code, FPE_INTDIV);
    __asm__ volatile("int3" ::: "memory");
    CHECK_EQ(hits, 3);
    CHECK_EQ(last_info.si_signo, SIGTRAP);
    CHECK_EQ(last_info.si_code, SI_KERNEL);
}

TEST(general_protection)
{
    conf_sigaction(SIGSEGV, keep_info, (int)SA_RESETHAND);
    pid_t pid = conf_fork();
    if (pid == 0) {
        __asm__ volatile("hlt" ::: "memory");
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSEGV);
    pid = conf_fork();
    if (pid == 0) {
        volatile char *wild = (volatile char *)0x8000000000000000UL;
        *wild = 1;
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSEGV);
}

static void write_registers(int sig, siginfo_t *si, void *context)
{
    ucontext_t *uc = context;
    (void)sig;
    (void)si;
    hits = uc->uc_mcontext.gregs[REG_R12] == 0x1234;
    uc->uc_mcontext.gregs[REG_R12] = 0x777;
}

TEST(context_is_written_back)
{
    conf_sigaction(SIGUSR1, write_registers, 0);
    long r;
    long pid = getpid();
    __asm__ volatile("mov $0x1234, %%r12\n\t"
                     "syscall\n\t"
                     "mov %%r12, %0"
                     : "=&r"(r)
                     : "a"(SYS_kill), "D"(pid), "S"(SIGUSR1)
                     : "r12", "rcx", "r11", "memory");
    CHECK_EQ(hits, 1);
    CHECK_EQ(r, 0x777);
}

static volatile char *alt_low;
static volatile char *alt_high;

static void on_which_stack(int sig)
{
    volatile char here = 0;
    stack_t ss;
    (void)sig;
    hits = &here >= alt_low && &here < alt_high;
    sigaltstack(NULL, &ss);
    last_signal = ss.ss_flags;
}

TEST(alternate_stack)
{
    size_t size = 16 * CONF_PAGE;
    stack_t ss = {.ss_sp = conf_pages(16), .ss_size = size};
    stack_t old;
    alt_low = ss.ss_sp;
    alt_high = alt_low + size;
    OK(sigaltstack(NULL, &old));
    CHECK_EQ(old.ss_flags, SS_DISABLE);
    OK(sigaltstack(&ss, NULL));
    conf_handler(SIGUSR1, on_which_stack, SA_ONSTACK);
    raise(SIGUSR1);
    CHECK_EQ(hits, 1);
    CHECK_EQ(last_signal, SS_ONSTACK);
    conf_handler(SIGUSR1, on_which_stack, 0);
    raise(SIGUSR1);
    CHECK_EQ(hits, 0);
    OK(sigaltstack(NULL, &old));
    CHECK(old.ss_sp == ss.ss_sp && old.ss_size == size && old.ss_flags == 0);
    ss.ss_size = 100;
    CHECK_ERRNO(sigaltstack(&ss, NULL), ENOMEM);
    ss.ss_flags = 0x44;
    CHECK_ERRNO(sigaltstack(&ss, NULL), EINVAL);
    CHECK_ERRNO(syscall(SYS_sigaltstack, 8L, NULL), EFAULT);
}

static void exit_on_alt(int sig)
{
    volatile char here = 0;
    (void)sig;
    _exit(&here >= alt_low && &here < alt_high ? 31 : 32);
}

TEST(alternate_stack_for_overflow)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        stack_t ss = {.ss_sp = conf_pages(16), .ss_size = 16 * CONF_PAGE};
        alt_low = ss.ss_sp;
        alt_high = alt_low + ss.ss_size;
        OK(sigaltstack(&ss, NULL));
        conf_handler(SIGSEGV, exit_on_alt, SA_ONSTACK);
        __asm__ volatile("xor %%esp, %%esp\n\tpush %%rax" ::: "memory");
        _exit(0);
    }
    CHECK_EXIT(pid, 31);
    /* Without it there is no place for the frame: killed. */
    pid = conf_fork();
    if (pid == 0) {
        conf_handler(SIGSEGV, exit_on_alt, 0);
        __asm__ volatile("xor %%esp, %%esp\n\tpush %%rax" ::: "memory");
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSEGV);
}

TEST(blocked_fault_kills)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_handler(SIGSEGV, count_hit, 0);
        block(SIGSEGV);
        *(volatile char *)8 = 1;
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSEGV);
    pid = conf_fork();
    if (pid == 0) {
        conf_handler(SIGSEGV, SIG_IGN, 0);
        *(volatile char *)8 = 1;
        _exit(0);
    }
    CHECK_KILLED(pid, SIGSEGV);
}

TEST(sigreturn_with_garbage)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        syscall(SYS_rt_sigreturn);
        _exit(0);
    }
    int status = conf_wait(pid);
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), SIGSEGV);
}

/* A child that signals its parent over and over until told to stop: no timing to rely on. */
static pid_t pester(int sig, volatile int *stop)
{
    pid_t parent = getpid();
    pid_t pid = conf_fork();
    if (pid == 0) {
        while (*stop == 0) {
            kill(parent, sig);
            conf_sleep_ms(2);
        }
        _exit(0);
    }
    return pid;
}

TEST(interrupted_calls)
{
    volatile int *stop = conf_shared(CONF_PAGE);
    int fds[2], sv[2], status;
    char c;
    struct pollfd pfd = {.events = POLLIN};
    struct epoll_event ev;
    struct timespec ts = {.tv_sec = 60};
    fd_set rd;
    OK(pipe(fds));
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    pfd.fd = fds[0];
    int ep = OK(epoll_create1(0));
    FD_ZERO(&rd);
    FD_SET(fds[0], &rd);
    conf_handler(SIGUSR1, count_hit, 0);
    pid_t pid = pester(SIGUSR1, stop);
    CHECK_ERRNO(read(fds[0], &c, 1), EINTR);
    CHECK_ERRNO(recv(sv[0], &c, 1, 0), EINTR);
    CHECK_ERRNO(poll(&pfd, 1, -1), EINTR);
    CHECK_ERRNO(select(fds[0] + 1, &rd, NULL, NULL, NULL), EINTR);
    CHECK_ERRNO(epoll_wait(ep, &ev, 1, -1), EINTR);
    CHECK_ERRNO(nanosleep(&ts, &ts), EINTR);
    CHECK(ts.tv_sec >= 30 && ts.tv_sec < 60);
    CHECK_ERRNO(pause(), EINTR);
    CHECK_ERRNO(waitpid(pid, &status, 0), EINTR);
    CHECK(hits > 0);
    *stop = 1;
    CHECK_EXIT(pid, 0);
}

TEST(restarted_calls)
{
    volatile int *stop = conf_shared(CONF_PAGE);
    int fds[2];
    char c = 0;
    OK(pipe(fds));
    conf_handler(SIGUSR1, count_hit, SA_RESTART);
    pid_t noisy = pester(SIGUSR1, stop);
    EVENTUALLY(hits > 0);
    pid_t writer = conf_fork();
    if (writer == 0) {
        /* Some signals come while the parent reads. */
        conf_await_asleep(getppid());
        conf_sleep_ms(50);
        CHECK_EQ(write(fds[1], "z", 1), 1);
        _exit(0);
    }
    CHECK_EQ(read(fds[0], &c, 1), 1);
    CHECK_EQ(c, 'z');
    CHECK_EXIT(writer, 0);
    /* poll and nanosleep are never restarted when a handler ran. */
    struct pollfd pfd = {.fd = fds[0], .events = POLLIN};
    CHECK_ERRNO(poll(&pfd, 1, 60000), EINTR);
    pid_t slow = conf_fork();
    if (slow == 0) {
        conf_handler(SIGUSR1, SIG_IGN, 0);
        conf_await_asleep(getppid());
        conf_sleep_ms(50);
        _exit(3);
    }
    int status;
    CHECK_EQ(waitpid(slow, &status, 0), slow);
    CHECK_EQ(WEXITSTATUS(status), 3);
    *stop = 1;
    CHECK_EXIT(noisy, 0);
}

TEST(ignored_signal_does_not_interrupt)
{
    volatile int *stop = conf_shared(CONF_PAGE);
    struct timespec ts = {.tv_nsec = 100000000};
    conf_handler(SIGUSR1, SIG_IGN, 0);
    pid_t pid = pester(SIGUSR1, stop);
    int64_t start = conf_now();
    OK(nanosleep(&ts, NULL));
    CHECK(conf_now() - start >= 100000000);
    struct pollfd pfd = {.fd = -1};
    CHECK_EQ(poll(&pfd, 1, 50), 0);
    *stop = 1;
    CHECK_EXIT(pid, 0);
}

TEST(stop_does_not_fail_sleep)
{
    volatile int *stopped = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        struct timespec ts = {.tv_nsec = 200000000};
        int64_t start = conf_now();
        OK(nanosleep(&ts, NULL));
        CHECK(conf_now() - start >= 200000000);
        conf_await(stopped, 1);
        _exit(0);
    }
    int status;
    conf_await_asleep(pid);
    OK(kill(pid, SIGSTOP));
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    *stopped = 1;
    OK(kill(pid, SIGCONT));
    CHECK_EXIT(pid, 0);
}

TEST(sigsuspend_swaps_mask)
{
    sigset_t none, now;
    sigemptyset(&none);
    conf_handler(SIGUSR1, count_hit, 0);
    block(SIGUSR1);
    raise(SIGUSR1);
    CHECK_EQ(hits, 0);
    CHECK_ERRNO(sigsuspend(&none), EINTR);
    CHECK_EQ(hits, 1);
    OK(sigprocmask(SIG_SETMASK, NULL, &now));
    CHECK_EQ(sigismember(&now, SIGUSR1), 1);
}

TEST(sigtimedwait_cases)
{
    sigset_t set;
    siginfo_t si;
    struct timespec zero = {0, 0}, soon = {0, 20000000}, bad = {0, -1};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    CHECK_ERRNO(sigtimedwait(&set, &si, &zero), EAGAIN);
    CHECK_ERRNO(sigtimedwait(&set, &si, &soon), EAGAIN);
    CHECK_ERRNO(sigtimedwait(&set, &si, &bad), EINVAL);
    raise(SIGUSR1);
    CHECK_EQ(sigtimedwait(&set, &si, &zero), SIGUSR1);
    CHECK_EQ(si.si_signo, SIGUSR1);
    /* libc folds SI_TKILL into SI_USER here. */
    CHECK_EQ(si.si_code, SI_USER);
    CHECK_EQ(si.si_pid, getpid());
    pid_t pid = conf_fork();
    if (pid == 0) {
        union sigval v = {.sival_int = 77};
        conf_await_asleep(getppid());
        OK(sigqueue(getppid(), SIGRTMIN, v));
        _exit(0);
    }
    CHECK_EQ(sigwaitinfo(&set, &si), SIGRTMIN);
    CHECK_EQ(si.si_value.sival_int, 77);
    CHECK_EQ(si.si_pid, pid);
    CHECK_EXIT(pid, 0);
}

TEST(signalfd_reads)
{
    sigset_t set;
    struct signalfd_siginfo info[4];
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    int fd = OK(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    CHECK_ERRNO(read(fd, info, sizeof(info)), EAGAIN);
    CHECK_EQ(poll(&pfd, 1, 0), 0);
    raise(SIGUSR1);
    union sigval v = {.sival_int = 9};
    OK(sigqueue(getpid(), SIGRTMIN + 1, v));
    CHECK_EQ(poll(&pfd, 1, 0), 1);
    CHECK_EQ(read(fd, info, sizeof(info)), 2 * sizeof(info[0]));
    CHECK_EQ(info[0].ssi_signo, SIGUSR1);
    CHECK_EQ(info[0].ssi_pid, getpid());
    CHECK_EQ(info[1].ssi_signo, SIGRTMIN + 1);
    CHECK_EQ(info[1].ssi_int, 9);
    CHECK_ERRNO(read(fd, info, 10), EINVAL);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    CHECK_EQ(signalfd(fd, &set, 0), fd);
    raise(SIGUSR1);
    CHECK_ERRNO(read(fd, info, sizeof(info)), EAGAIN);
    CHECK_ERRNO(signalfd(0x7fffffff, &set, 0), EBADF);
    CHECK_ERRNO(syscall(SYS_signalfd4, -1, &set, 4L, 0), EINVAL);
}

TEST(stop_and_continue)
{
    int status;
    siginfo_t si;
    pid_t pid = conf_fork();
    if (pid == 0) {
        raise(SIGSTOP);
        _exit(5);
    }
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    CHECK_EQ(WSTOPSIG(status), SIGSTOP);
    CHECK_EQ(waitpid(pid, &status, WUNTRACED | WNOHANG), 0);
    OK(kill(pid, SIGCONT));
    OK(waitid(P_PID, (id_t)pid, &si, WCONTINUED | WEXITED | WNOWAIT));
    CHECK(si.si_code == CLD_CONTINUED || si.si_code == CLD_EXITED);
    CHECK_EXIT(pid, 5);
}

TEST(continued_is_reported)
{
    int status;
    pid_t pid = conf_fork();
    if (pid == 0) {
        for (;;)
            pause();
    }
    OK(kill(pid, SIGSTOP));
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    OK(kill(pid, SIGCONT));
    CHECK_EQ(waitpid(pid, &status, WCONTINUED), pid);
    CHECK(WIFCONTINUED(status));
    OK(kill(pid, SIGSTOP));
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    /* SIGKILL ends a stopped process. */
    conf_kill(pid);
}

TEST(stopped_signals_wait_for_continue)
{
    int status;
    int *shared = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_handler(SIGUSR1, count_hit, 0);
        shared[0] = 1;
        while (hits == 0)
            pause();
        _exit(6);
    }
    conf_await(shared, 1);
    OK(kill(pid, SIGSTOP));
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    OK(kill(pid, SIGUSR1));
    conf_sleep_ms(20);
    CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
    OK(kill(pid, SIGCONT));
    CHECK_EXIT(pid, 6);
}

TEST(stop_discards_pending_continue)
{
    sigset_t set;
    block(SIGCONT);
    block(SIGTSTP);
    raise(SIGTSTP);
    OK(sigpending(&set));
    CHECK_EQ(sigismember(&set, SIGTSTP), 1);
    raise(SIGCONT);
    OK(sigpending(&set));
    CHECK_EQ(sigismember(&set, SIGTSTP), 0);
    raise(SIGTSTP);
    OK(sigpending(&set));
    CHECK_EQ(sigismember(&set, SIGCONT), 0);
}

TEST(nocldstop)
{
    int status;
    conf_handler(SIGCHLD, count_hit, SA_NOCLDSTOP);
    pid_t pid = conf_fork();
    if (pid == 0) {
        for (;;)
            pause();
    }
    OK(kill(pid, SIGSTOP));
    while (waitpid(pid, &status, WUNTRACED) == -1)
        ;
    CHECK_EQ(hits, 0);
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
    CHECK_EQ(hits, 1);
}

TEST(orphaned_group_ignores_tty_stops)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(setsid());
        raise(SIGTSTP);
        raise(SIGTTIN);
        raise(SIGTTOU);
        _exit(8);
    }
    CHECK_EXIT(pid, 8);
}

TEST(sigpipe)
{
    int fds[2];
    OK(pipe(fds));
    OK(close(fds[0]));
    pid_t pid = conf_fork();
    if (pid == 0) {
        ssize_t r = write(fds[1], "x", 1);
        _exit(r == 1);
    }
    CHECK_KILLED(pid, SIGPIPE);
    conf_handler(SIGPIPE, SIG_IGN, 0);
    CHECK_ERRNO(write(fds[1], "x", 1), EPIPE);
}

static pthread_t other_thread;
static volatile int caught_by_other;

static void who_caught(int sig)
{
    (void)sig;
    caught_by_other = pthread_equal(pthread_self(), other_thread) ? 1 : 2;
}

static void *wait_in_thread(void *arg)
{
    volatile int *ready = arg;
    *ready = 1;
    while (caught_by_other == 0)
        pause();
    return NULL;
}

TEST(process_signal_goes_to_willing_thread)
{
    volatile int ready = 0;
    sigset_t set;
    conf_handler(SIGUSR1, who_caught, 0);
    CHECK_EQ(pthread_create(&other_thread, NULL, wait_in_thread, (void *)(uintptr_t)&ready), 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
    conf_await(&ready, 1);
    OK(kill(getpid(), SIGUSR1));
    conf_await(&caught_by_other, 1);
    /* pause may have been entered just after the handler ran. */
    while (pthread_tryjoin_np(other_thread, NULL) != 0) {
        CHECK_EQ(pthread_kill(other_thread, SIGUSR1), 0);
        conf_sleep_ms(1);
    }
}

TEST(nested_handlers_race)
{
    pid_t pids[3];
    volatile int *stop = conf_shared(CONF_PAGE);
    conf_handler(SIGUSR1, count_hit, SA_NODEFER);
    conf_handler(SIGUSR2, count_hit, SA_NODEFER);
    conf_handler(SIGALRM, count_hit, 0);
    pids[0] = pester(SIGUSR1, stop);
    pids[1] = pester(SIGUSR2, stop);
    pids[2] = pester(SIGALRM, stop);
    unsigned long sum = 0;
    while (hits < 50) {
        for (unsigned long i = 0; i < 10000; i++)
            sum += i;
        CHECK_EQ(sum, 10000UL * 9999 / 2);
        sum = 0;
        CHECK_EQ(getppid() > 0 || getppid() == 0, 1);
    }
    *stop = 1;
    for (size_t i = 0; i < 3; i++)
        CHECK_EXIT(pids[i], 0);
}
