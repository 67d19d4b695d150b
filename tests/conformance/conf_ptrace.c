/* ptrace: attaching, stops, registers, memory, events, system calls, waiting for tracees. */
#include "harness.h"

#include <elf.h>
#include <linux/ptrace.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/user.h>

CONF_FAMILY("ptrace");

#define EVENT_STATUS(event) (SIGTRAP | (event) << 8)
/* The kernel's struct user has two words more than that of libc. */
#define USER_SIZE 928
#define STOP_CODE(status) ((status) >> 8)

static long pt(long request, pid_t pid, unsigned long addr, unsigned long data)
{
    return syscall(SYS_ptrace, request, (long)pid, addr, data);
}

static long peek(pid_t pid, const volatile void *addr)
{
    long word = 0;
    OK(pt(PTRACE_PEEKDATA, pid, (unsigned long)addr, (unsigned long)&word));
    return word;
}

static int wait_stop(pid_t pid)
{
    int status = 0;
    CHECK_EQ(OK(waitpid(pid, &status, __WALL)), pid);
    if (!WIFSTOPPED(status))
        conf_fail(__FILE__, __LINE__, "status 0x%x is no stop", (unsigned)status);
    return STOP_CODE(status);
}

static void get_regs(pid_t pid, struct user_regs_struct *regs)
{
    OK(pt(PTRACE_GETREGS, pid, 0, (unsigned long)regs));
}

/* A child that asks to be traced and stops itself. */
static pid_t traced_child(void (*run)(void))
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(pt(PTRACE_TRACEME, 0, 0, 0));
        raise(SIGSTOP);
        run();
        _exit(0);
    }
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    return pid;
}

static void run_nothing(void)
{
}

static void run_pause(void)
{
    for (;;)
        pause();
}

static void run_exit_5(void)
{
    _exit(5);
}

TEST(traceme_stop_continue_exit)
{
    pid_t pid = traced_child(run_exit_5);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 5);
}

TEST(traceme_twice_fails)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(pt(PTRACE_TRACEME, 0, 0, 0));
        CHECK_ERRNO(pt(PTRACE_TRACEME, 0, 0, 0), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

TEST(errors_of_the_call)
{
    pid_t pid = traced_child(run_pause);
    long word;
    CHECK_ERRNO(pt(PTRACE_CONT, 999999, 0, 0), ESRCH);
    CHECK_ERRNO(pt(PTRACE_CONT, getpid(), 0, 0), ESRCH);
    CHECK_ERRNO(pt(PTRACE_ATTACH, getpid(), 0, 0), EPERM);
    CHECK_ERRNO(pt(PTRACE_ATTACH, pid, 0, 0), EPERM);
    CHECK_ERRNO(pt(12345, pid, 0, 0), EIO);
    CHECK_ERRNO(pt(PTRACE_CONT, pid, 0, 65), EIO);
    CHECK_ERRNO(pt(PTRACE_SETOPTIONS, pid, 0, 0x80000000), EINVAL);
    CHECK_ERRNO(pt(PTRACE_PEEKDATA, pid, 0, (unsigned long)&word), EIO);
    CHECK_ERRNO(pt(PTRACE_POKEDATA, pid, 16, 1), EIO);
    CHECK_ERRNO(pt(PTRACE_PEEKUSR, pid, 3, (unsigned long)&word), EIO);
    CHECK_ERRNO(pt(PTRACE_PEEKUSR, pid, USER_SIZE, (unsigned long)&word), EIO);
    CHECK_ERRNO(pt(PTRACE_POKEUSR, pid, offsetof(struct user, u_tsize), 1), EIO);
    CHECK_ERRNO(pt(PTRACE_GETREGS, pid, 0, 8), EFAULT);
    CHECK_ERRNO(pt(PTRACE_INTERRUPT, pid, 0, 0), EIO);
    CHECK_ERRNO(pt(PTRACE_LISTEN, pid, 0, 0), EIO);
    CHECK_ERRNO(pt(PTRACE_SEIZE, 1, 1, 0), EIO);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_ERRNO(pt(PTRACE_CONT, pid, 0, 0), ESRCH);
    CHECK_ERRNO(pt(PTRACE_GETREGS, pid, 0, (unsigned long)&word), ESRCH);
    conf_kill(pid);
    CHECK_ERRNO(pt(PTRACE_CONT, pid, 0, 0), ESRCH);
}

TEST(kill_request)
{
    pid_t pid = traced_child(run_pause);
    OK(pt(PTRACE_KILL, pid, 0, 0));
    CHECK_KILLED(pid, SIGKILL);
}

TEST(sigkill_ends_a_stop)
{
    pid_t pid = traced_child(run_pause);
    OK(kill(pid, SIGKILL));
    CHECK_KILLED(pid, SIGKILL);
}

/* ---- memory ---- */

static volatile long traced_word = 0x1122334455667788;

static void run_check_word(void)
{
    _exit(traced_word == 0x0102030405060708 ? 0 : 1);
}

TEST(peek_and_poke_data)
{
    pid_t pid = traced_child(run_check_word);
    CHECK_EQ(peek(pid, &traced_word), 0x1122334455667788);
    OK(pt(PTRACE_POKEDATA, pid, (unsigned long)&traced_word, 0x0102030405060708));
    CHECK_EQ(peek(pid, &traced_word), 0x0102030405060708);
    CHECK_EQ(traced_word, 0x1122334455667788);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

static long *protected_page;

static void run_read_protected(void)
{
    CHECK_EQ(mprotect(protected_page, CONF_PAGE, PROT_READ), 0);
    _exit(protected_page[1] == 77 ? 0 : 1);
}

TEST(poke_passes_protection)
{
    protected_page = conf_pages(2);
    protected_page[0] = 5;
    OK(mprotect(protected_page, CONF_PAGE, PROT_NONE));
    pid_t pid = traced_child(run_read_protected);
    CHECK_EQ(peek(pid, protected_page), 5);
    OK(pt(PTRACE_POKEDATA, pid, (unsigned long)&protected_page[1], 77));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
    OK(mprotect(protected_page, CONF_PAGE, PROT_READ));
    CHECK_EQ(protected_page[1], 0);
}

TEST(poke_of_a_shared_read_only_page_fails)
{
    conf_put("f", "some text that is longer than a word");
    int fd = OK(open("f", O_RDONLY));
    char *p = OK(mmap(NULL, CONF_PAGE, PROT_READ, MAP_SHARED, fd, 0));
    pid_t pid = traced_child(run_pause);
    CHECK_EQ((char)peek(pid, p), 's');
    CHECK_ERRNO(pt(PTRACE_POKEDATA, pid, (unsigned long)p, 1), EIO);
    conf_kill(pid);
}

static __attribute__((noinline)) int broken_at(int x)
{
    __asm__ volatile("nop\n\tnop\n\tnop\n\tnop" ::: "memory");
    return x + 1;
}

static void run_breakpoint(void)
{
    int r = broken_at(1);
    _exit(r == 2 ? 0 : 1);
}

TEST(breakpoint_in_text)
{
    pid_t pid = traced_child(run_breakpoint);
    unsigned long at = (unsigned long)broken_at;
    struct user_regs_struct regs;
    siginfo_t si;
    long old = peek(pid, (void *)at);
    OK(pt(PTRACE_POKETEXT, pid, at, ((unsigned long)old & ~0xfful) | 0xcc));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGTRAP);
    get_regs(pid, &regs);
    CHECK_EQ(regs.rip, at + 1);
    OK(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si));
    CHECK_EQ(si.si_signo, SIGTRAP);
    CHECK_EQ(si.si_code, 0x80);
    OK(pt(PTRACE_POKETEXT, pid, at, (unsigned long)old));
    regs.rip = at;
    OK(pt(PTRACE_SETREGS, pid, 0, (unsigned long)&regs));
    /* Over it, and back in. */
    OK(pt(PTRACE_SINGLESTEP, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGTRAP);
    OK(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si));
    CHECK_EQ(si.si_code, TRAP_TRACE);
    get_regs(pid, &regs);
    CHECK(regs.rip > at && regs.rip < at + 16);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
    /* Our own text is as it was. */
    CHECK_EQ(broken_at(3), 4);
}

static void run_stepped(void)
{
    __asm__ volatile("int3\n\t"
                     "nop\n\t"
                     "mov $39, %%eax\n\t"
                     "syscall\n\t"
                     "nop\n\t"
                     "nop\n\t" ::
                         : "rax", "rcx", "r11", "memory");
}

TEST(single_step_over_a_call)
{
    pid_t pid = traced_child(run_stepped);
    struct user_regs_struct regs;
    siginfo_t si;
    unsigned long rip;
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGTRAP);
    get_regs(pid, &regs);
    rip = regs.rip;
    static const unsigned char steps[] = {1, 5, 2, 1};
    for (size_t i = 0; i < sizeof(steps); i++) {
        OK(pt(PTRACE_SINGLESTEP, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP);
        get_regs(pid, &regs);
        rip += steps[i];
        CHECK_EQ(regs.rip, rip);
        CHECK_EQ(regs.eflags & 0x100, 0);
        if (i == 2)
            CHECK_EQ(regs.rax, pid);
        OK(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si));
        CHECK_EQ(si.si_signo, SIGTRAP);
    }
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

/* ---- registers ---- */

static void run_registers(void)
{
    unsigned long r12 = 0x1212, xmm[2] = {3, 4};
    __asm__ volatile("mov $0xabcdef, %%r13\n\t"
                     "movdqu %1, %%xmm7\n\t"
                     "int3\n\t"
                     "mov %%r13, %0\n\t"
                     "movdqu %%xmm7, %1\n\t"
                     : "+r"(r12), "+m"(xmm)
                     :
                     : "r13", "xmm7", "memory");
    _exit(r12 == 0x55aa && xmm[0] == 9 && xmm[1] == 8 ? 0 : 1);
}

TEST(registers_and_vectors)
{
    pid_t pid = traced_child(run_registers);
    struct user_regs_struct regs, set;
    struct user_fpregs_struct fp;
    struct iovec iov = {&set, sizeof(set)};
    long word = 0;
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGTRAP);
    get_regs(pid, &regs);
    CHECK_EQ(regs.r13, 0xabcdef);
    CHECK_EQ(regs.cs, 0x33);
    CHECK_EQ(regs.ss, 0x2b);
    CHECK_EQ((long)regs.orig_rax, -1);
    OK(pt(PTRACE_PEEKUSR, pid, offsetof(struct user_regs_struct, r13), (unsigned long)&word));
    CHECK_EQ(word, 0xabcdef);
    OK(pt(PTRACE_GETREGSET, pid, NT_PRSTATUS, (unsigned long)&iov));
    CHECK_EQ(iov.iov_len, sizeof(set));
    CHECK(memcmp(&set, &regs, sizeof(regs)) == 0);
    iov.iov_len = 16;
    OK(pt(PTRACE_GETREGSET, pid, NT_PRSTATUS, (unsigned long)&iov));
    CHECK_EQ(iov.iov_len, 16);
    iov.iov_len = 17;
    CHECK_ERRNO(pt(PTRACE_GETREGSET, pid, NT_PRSTATUS, (unsigned long)&iov), EINVAL);
    iov.iov_len = sizeof(set);
    CHECK_ERRNO(pt(PTRACE_GETREGSET, pid, 0x999, (unsigned long)&iov), EINVAL);
    OK(pt(PTRACE_POKEUSR, pid, offsetof(struct user_regs_struct, r13), 0x55aa));
    CHECK_ERRNO(pt(PTRACE_POKEUSR, pid, offsetof(struct user_regs_struct, fs_base), 1ul << 63),
                EIO);
    OK(pt(PTRACE_GETFPREGS, pid, 0, (unsigned long)&fp));
    CHECK_EQ(fp.xmm_space[28], 3);
    CHECK_EQ(fp.xmm_space[30], 4);
    fp.xmm_space[28] = 9;
    fp.xmm_space[30] = 8;
    OK(pt(PTRACE_SETFPREGS, pid, 0, (unsigned long)&fp));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

TEST(xstate_set)
{
    static unsigned char area[16384];
    pid_t pid = traced_child(run_registers);
    struct iovec iov = {area, sizeof(area)};
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGTRAP);
    OK(pt(PTRACE_POKEUSR, pid, offsetof(struct user_regs_struct, r13), 0x55aa));
    OK(pt(PTRACE_GETREGSET, pid, 0x202, (unsigned long)&iov));
    CHECK(iov.iov_len >= 576 && iov.iov_len < sizeof(area));
    CHECK_EQ(area[160 + 7 * 16], 3);
    CHECK_EQ(area[464] & 3, 3);
    area[160 + 7 * 16] = 9;
    area[160 + 7 * 16 + 8] = 8;
    OK(pt(PTRACE_SETREGSET, pid, 0x202, (unsigned long)&iov));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

/* ---- signals ---- */

static volatile int handled;

static void on_signal(int sig)
{
    handled += sig;
}

static void run_signals(void)
{
    conf_handler(SIGUSR1, on_signal, 0);
    conf_handler(SIGUSR2, on_signal, 0);
    raise(SIGUSR1);
    raise(SIGUSR1);
    raise(SIGUSR1);
    _exit(handled == SIGUSR1 + SIGUSR2 ? 0 : 1);
}

TEST(signals_are_shown_dropped_and_changed)
{
    pid_t pid = traced_child(run_signals);
    siginfo_t si;
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGUSR1);
    OK(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si));
    CHECK_EQ(si.si_signo, SIGUSR1);
    CHECK_EQ(si.si_code, SI_TKILL);
    CHECK_EQ(si.si_pid, pid);
    OK(pt(PTRACE_CONT, pid, 0, SIGUSR1));
    CHECK_EQ(wait_stop(pid), SIGUSR1);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGUSR1);
    OK(pt(PTRACE_CONT, pid, 0, SIGUSR2));
    CHECK_EXIT(pid, 0);
}

static void run_ignored(void)
{
    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
    raise(SIGCHLD);
}

TEST(ignored_signals_are_shown)
{
    pid_t pid = traced_child(run_ignored);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGUSR1);
    OK(pt(PTRACE_CONT, pid, 0, SIGUSR1));
    CHECK_EQ(wait_stop(pid), SIGCHLD);
    OK(pt(PTRACE_CONT, pid, 0, SIGCHLD));
    CHECK_EXIT(pid, 0);
}

static void run_siginfo(void)
{
    sigset_t set;
    siginfo_t si;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR1);
    raise(SIGRTMIN);
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 9});
    raise(SIGSTOP);
    sigdelset(&set, SIGUSR1);
    CHECK_EQ(sigwaitinfo(&set, &si), SIGRTMIN);
}

TEST(pending_signals_and_masks)
{
    struct __ptrace_peeksiginfo_args {
        uint64_t off;
        uint32_t flags;
        int32_t nr;
    } args = {0, 0, 8};
    pid_t pid = traced_child(run_siginfo);
    siginfo_t si[8];
    uint64_t mask = 0;
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    CHECK_EQ(OK(pt(PTRACE_PEEKSIGINFO, pid, (unsigned long)&args, (unsigned long)si)), 2);
    CHECK_EQ(si[0].si_signo, SIGUSR1);
    CHECK_EQ(si[1].si_signo, SIGRTMIN);
    args.flags = PTRACE_PEEKSIGINFO_SHARED;
    CHECK_EQ(OK(pt(PTRACE_PEEKSIGINFO, pid, (unsigned long)&args, (unsigned long)si)), 1);
    CHECK_EQ(si[0].si_value.sival_int, 9);
    args.off = 5;
    CHECK_EQ(OK(pt(PTRACE_PEEKSIGINFO, pid, (unsigned long)&args, (unsigned long)si)), 0);
    args.flags = 4;
    CHECK_ERRNO(pt(PTRACE_PEEKSIGINFO, pid, (unsigned long)&args, (unsigned long)si), EINVAL);
    OK(pt(PTRACE_GETSIGMASK, pid, 8, (unsigned long)&mask));
    CHECK_EQ(mask, 1ull << (SIGUSR1 - 1) | 1ull << (SIGRTMIN - 1));
    CHECK_ERRNO(pt(PTRACE_GETSIGMASK, pid, 4, (unsigned long)&mask), EINVAL);
    mask = UINT64_MAX;
    OK(pt(PTRACE_SETSIGMASK, pid, 8, (unsigned long)&mask));
    OK(pt(PTRACE_GETSIGMASK, pid, 8, (unsigned long)&mask));
    CHECK_EQ(mask, ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1)));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

static void run_value(void)
{
    sigset_t set;
    siginfo_t si;
    (void)set;
    sigset_t all;
    sigfillset(&all);
    int got = 0;
    conf_handler(SIGUSR2, on_signal, 0);
    raise(SIGUSR2);
    got = handled;
    (void)si;
    _exit(got == SIGUSR2 ? 0 : 1);
}

TEST(setsiginfo)
{
    pid_t pid = traced_child(run_value);
    siginfo_t si;
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGUSR2);
    OK(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si));
    si.si_code = SI_QUEUE;
    OK(pt(PTRACE_SETSIGINFO, pid, 0, (unsigned long)&si));
    memset(&si, 0, sizeof(si));
    OK(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si));
    CHECK_EQ(si.si_code, SI_QUEUE);
    OK(pt(PTRACE_CONT, pid, 0, SIGUSR2));
    CHECK_EXIT(pid, 0);
}

static void run_segv(void)
{
    *(volatile int *)16 = 1;
}

TEST(fault_is_shown_then_kills)
{
    pid_t pid = traced_child(run_segv);
    siginfo_t si;
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSEGV);
    OK(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si));
    CHECK_EQ(si.si_code, SEGV_MAPERR);
    CHECK_EQ((long)si.si_addr, 16);
    OK(pt(PTRACE_CONT, pid, 0, SIGSEGV));
    CHECK_KILLED(pid, SIGSEGV);
}

/* ---- system calls ---- */

static void run_calls(void)
{
    long r = syscall(SYS_getppid);
    (void)r;
    r = syscall(SYS_dup, 12345);
    _exit(r == 4242 ? 0 : 1);
}

TEST(system_call_stops)
{
    pid_t pid = traced_child(run_calls);
    struct ptrace_syscall_info info;
    struct user_regs_struct regs;
    OK(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    bool entry = true, seen = false;
    unsigned long nr = 0;
    for (;;) {
        int status;
        OK(pt(PTRACE_SYSCALL, pid, 0, 0));
        CHECK_EQ(OK(waitpid(pid, &status, 0)), pid);
        if (WIFEXITED(status)) {
            CHECK_EQ(WEXITSTATUS(status), 0);
            break;
        }
        CHECK_EQ(STOP_CODE(status), SIGTRAP | 0x80);
        get_regs(pid, &regs);
        long n = OK(pt(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), (unsigned long)&info));
        CHECK_EQ(info.arch, 0xc000003e);
        CHECK_EQ(info.instruction_pointer, regs.rip);
        CHECK_EQ(info.stack_pointer, regs.rsp);
        if (n < (long)offsetof(struct ptrace_syscall_info, entry) + 8)
            conf_fail(__FILE__, __LINE__, "%ld bytes", n);
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
            CHECK(entry);
            nr = info.entry.nr;
            CHECK_EQ(regs.orig_rax, nr);
            CHECK_EQ((long)regs.rax, -ENOSYS);
        } else {
            CHECK_EQ(info.op, PTRACE_SYSCALL_INFO_EXIT);
            CHECK(!entry);
            CHECK_EQ((long)regs.rax, info.exit.rval);
            if (nr == SYS_getppid)
                CHECK_EQ(info.exit.rval, getpid());
            if (nr == SYS_dup) {
                CHECK_EQ(info.exit.rval, -EBADF);
                CHECK_EQ(info.exit.is_error, 1);
                regs.rax = 4242;
                OK(pt(PTRACE_SETREGS, pid, 0, (unsigned long)&regs));
                seen = true;
            }
        }
        entry = !entry;
    }
    CHECK(seen);
}

static void run_changed(void)
{
    long a = syscall(SYS_dup, 12345), b = syscall(SYS_dup, 12346);
    _exit(a == getpid() && b == 7 ? 0 : 1);
}

TEST(calls_are_changed_and_skipped)
{
    pid_t pid = traced_child(run_changed);
    struct user_regs_struct regs;
    int dups = 0;
    OK(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    while (dups < 2) {
        OK(pt(PTRACE_SYSCALL, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP | 0x80);
        get_regs(pid, &regs);
        if (regs.orig_rax != SYS_dup)
            continue;
        regs.orig_rax = dups == 0 ? (unsigned long)SYS_getpid : -1ul;
        regs.rax = 7;
        OK(pt(PTRACE_SETREGS, pid, 0, (unsigned long)&regs));
        OK(pt(PTRACE_SYSCALL, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP | 0x80);
        dups++;
    }
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

static void run_emulated(void)
{
    long a = syscall(SYS_dup, 12345);
    _exit(a == 99 ? 0 : 1);
}

TEST(sysemu)
{
    pid_t pid = traced_child(run_emulated);
    struct user_regs_struct regs;
    OK(pt(31 /* PTRACE_SYSEMU */, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGTRAP);
    get_regs(pid, &regs);
    while (regs.orig_rax != SYS_dup) {
        /* What raise and libc do meanwhile is done for real. */
        OK(pt(PTRACE_SYSCALL, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP);
        get_regs(pid, &regs);
        OK(pt(31, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP);
        get_regs(pid, &regs);
    }
    regs.rax = 99;
    OK(pt(PTRACE_SETREGS, pid, 0, (unsigned long)&regs));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

static void run_sleep(void)
{
    struct timespec ts = {0, 300000000};
    int r = nanosleep(&ts, NULL);
    _exit(r == 0 ? 0 : 1);
}

TEST(interrupted_call_restarts)
{
    pid_t pid = traced_child(run_sleep);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    conf_sleep_ms(50);
    OK(kill(pid, SIGUSR1));
    CHECK_EQ(wait_stop(pid), SIGUSR1);
    struct user_regs_struct regs;
    get_regs(pid, &regs);
    CHECK_EQ((long)regs.rax, -516);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

/* ---- attaching ---- */

static pid_t plain_child(void (*run)(void))
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        run();
        _exit(0);
    }
    return pid;
}

static int tracer_of(pid_t pid)
{
    char path[64], text[2048];
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    conf_get(path, text, sizeof(text));
    const char *p = strstr(text, "TracerPid:");
    return p ? atoi(p + 10) : -1;
}

TEST(attach_and_detach)
{
    pid_t pid = plain_child(run_pause);
    CHECK_EQ(tracer_of(pid), 0);
    OK(pt(PTRACE_ATTACH, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    CHECK_EQ(tracer_of(pid), getpid());
    CHECK_ERRNO(pt(PTRACE_DETACH, pid, 0, 65), EIO);
    OK(pt(PTRACE_DETACH, pid, 0, 0));
    CHECK_EQ(tracer_of(pid), 0);
    CHECK_ERRNO(pt(PTRACE_CONT, pid, 0, 0), ESRCH);
    CHECK_EQ(waitpid(pid, NULL, WNOHANG | WUNTRACED), 0);
    conf_kill(pid);
}

TEST(detach_with_a_signal)
{
    pid_t pid = plain_child(run_pause);
    OK(pt(PTRACE_ATTACH, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    OK(pt(PTRACE_DETACH, pid, 0, SIGTERM));
    CHECK_KILLED(pid, SIGTERM);
}

TEST(attach_to_a_stopped_process)
{
    int status;
    pid_t pid = plain_child(run_pause);
    OK(kill(pid, SIGSTOP));
    CHECK_EQ(OK(waitpid(pid, &status, WUNTRACED)), pid);
    OK(pt(PTRACE_ATTACH, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    /* And it stays stopped after all. */
    OK(pt(PTRACE_DETACH, pid, 0, 0));
    conf_sleep_ms(20);
    char path[64], text[512];
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    conf_get(path, text, sizeof(text));
    CHECK_EQ(strrchr(text, ')')[2], 'T');
    conf_kill(pid);
}

TEST(seize_interrupt_listen)
{
    pid_t pid = plain_child(run_pause);
    siginfo_t si;
    int status;
    CHECK_ERRNO(pt(PTRACE_SEIZE, pid, 0, 0x80000000), EIO);
    OK(pt(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD));
    CHECK_EQ(waitpid(pid, &status, WNOHANG | __WALL), 0);
    CHECK_ERRNO(pt(PTRACE_CONT, pid, 0, 0), ESRCH);
    OK(pt(PTRACE_INTERRUPT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), EVENT_STATUS(PTRACE_EVENT_STOP));
    OK(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si));
    CHECK_EQ(si.si_code, EVENT_STATUS(PTRACE_EVENT_STOP));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    /* A group stop: seen as a signal, then as the stop. */
    OK(kill(pid, SIGSTOP));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    OK(pt(PTRACE_CONT, pid, 0, SIGSTOP));
    CHECK_EQ(wait_stop(pid), SIGSTOP | PTRACE_EVENT_STOP << 8);
    OK(pt(PTRACE_LISTEN, pid, 0, 0));
    CHECK_ERRNO(pt(PTRACE_CONT, pid, 0, 0), ESRCH);
    CHECK_EQ(waitpid(pid, &status, WNOHANG | __WALL), 0);
    OK(kill(pid, SIGCONT));
    CHECK_EQ(wait_stop(pid), EVENT_STATUS(PTRACE_EVENT_STOP));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGCONT);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    conf_kill(pid);
}

TEST(group_stop_of_an_attached_process)
{
    pid_t pid = traced_child(run_pause);
    siginfo_t si;
    OK(pt(PTRACE_CONT, pid, 0, 0));
    OK(kill(pid, SIGTSTP));
    CHECK_EQ(wait_stop(pid), SIGTSTP);
    /* Orphaned groups do not stop for it: SIGSTOP instead. */
    OK(pt(PTRACE_CONT, pid, 0, SIGSTOP));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    CHECK_ERRNO(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si), EINVAL);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    conf_kill(pid);
}

TEST(tracers_exit_lets_go)
{
    volatile int *shared = conf_shared(CONF_PAGE);
    pid_t pid = plain_child(run_pause);
    pid_t tracer = conf_fork();
    if (tracer == 0) {
        OK(pt(PTRACE_ATTACH, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGSTOP);
        shared[0] = 1;
        _exit(0);
    }
    CHECK_EXIT(tracer, 0);
    CHECK_EQ(tracer_of(pid), 0);
    CHECK_EQ(waitpid(pid, NULL, WNOHANG), 0);
    conf_kill(pid);
}

TEST(exitkill)
{
    pid_t pid = plain_child(run_pause);
    pid_t tracer = conf_fork();
    if (tracer == 0) {
        OK(pt(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL));
        _exit(0);
    }
    CHECK_EXIT(tracer, 0);
    CHECK_KILLED(pid, SIGKILL);
}

TEST(a_foreign_tracer_waits_first)
{
    pid_t pid = plain_child(run_pause);
    int status;
    pid_t tracer = conf_fork();
    if (tracer == 0) {
        OK(pt(PTRACE_SEIZE, pid, 0, 0));
        OK(kill(pid, SIGTERM));
        CHECK_EQ(wait_stop(pid), SIGTERM);
        OK(pt(PTRACE_CONT, pid, 0, SIGTERM));
        CHECK_EQ(OK(waitpid(pid, &status, 0)), pid);
        CHECK(WIFSIGNALED(status));
        _exit(0);
    }
    CHECK_KILLED(pid, SIGTERM);
    CHECK_EXIT(tracer, 0);
}

TEST(attach_needs_the_same_user)
{
    NEED_ROOT();
    pid_t pid = plain_child(run_pause);
    pid_t other = conf_fork();
    if (other == 0) {
        conf_become(12345);
        CHECK_ERRNO(pt(PTRACE_ATTACH, pid, 0, 0), EPERM);
        CHECK_ERRNO(pt(PTRACE_SEIZE, pid, 0, 0), EPERM);
        _exit(0);
    }
    CHECK_EXIT(other, 0);
    conf_kill(pid);
}

TEST(attach_needs_a_dumpable_process)
{
    NEED_ROOT();
    volatile int *shared = conf_shared(CONF_PAGE);
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(12345);
        prctl(PR_SET_DUMPABLE, 1);
        shared[0] = 1;
        conf_await(&shared[0], 2);
        prctl(PR_SET_DUMPABLE, 0);
        shared[0] = 3;
        run_pause();
    }
    conf_await(&shared[0], 1);
    pid_t other = conf_fork();
    if (other == 0) {
        conf_become(12345);
        OK(pt(PTRACE_SEIZE, pid, 0, 0));
        OK(pt(PTRACE_INTERRUPT, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), EVENT_STATUS(PTRACE_EVENT_STOP));
        OK(pt(PTRACE_DETACH, pid, 0, 0));
        shared[0] = 2;
        conf_await(&shared[0], 3);
        CHECK_ERRNO(pt(PTRACE_SEIZE, pid, 0, 0), EPERM);
        _exit(0);
    }
    CHECK_EXIT(other, 0);
    conf_kill(pid);
}

/* ---- events ---- */

static void run_fork_exec(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(3);
    int status;
    waitpid(pid, &status, 0);
    pid = vfork();
    if (pid == 0)
        _exit(4);
    waitpid(pid, &status, 0);
    _exit(9);
}

TEST(fork_and_exit_events)
{
    pid_t pid = traced_child(run_fork_exec);
    int forks = 0, vforks = 0, dones = 0, exits = 0, children = 0, news = 0;
    unsigned long msg;
    OK(pt(PTRACE_SETOPTIONS, pid, 0,
          PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    for (;;) {
        int status;
        pid_t got = OK(waitpid(-1, &status, __WALL));
        if (WIFEXITED(status)) {
            if (got == pid) {
                CHECK_EQ(WEXITSTATUS(status), 9);
                break;
            }
            children += WEXITSTATUS(status);
            continue;
        }
        CHECK(WIFSTOPPED(status));
        int sig = WSTOPSIG(status), event = status >> 16;
        if (event)
            OK(pt(PTRACE_GETEVENTMSG, got, 0, (unsigned long)&msg));
        if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK) {
            CHECK_EQ(got, pid);
            CHECK((pid_t)msg > 0 && (pid_t)msg != pid);
            forks += event == PTRACE_EVENT_FORK;
            vforks += event == PTRACE_EVENT_VFORK;
        }
        dones += event == PTRACE_EVENT_VFORK_DONE;
        if (event == PTRACE_EVENT_EXIT) {
            exits++;
            CHECK(WIFEXITED((int)msg));
            CHECK_EQ(WEXITSTATUS((int)msg), got == pid ? 9 : exits == 1 ? 3 : 4);
        }
        if (!event && sig == SIGSTOP && got != pid) {
            news++;
            sig = 0;
        }
        OK(pt(PTRACE_CONT, got, 0, event || sig == SIGTRAP ? 0 : (unsigned long)sig));
    }
    CHECK_EQ(forks, 1);
    CHECK_EQ(vforks, 1);
    CHECK_EQ(dones, 1);
    CHECK_EQ(exits, 3);
    CHECK_EQ(children, 7);
    CHECK_EQ(news, 2);
}

HELPER(quiet)
{
    (void)argc;
    (void)argv;
    return 6;
}

static void run_exec(void)
{
    conf_exec_helper("quiet", (const char *const[]){NULL});
}

TEST(exec_is_a_trap)
{
    pid_t pid = traced_child(run_exec);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGTRAP);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 6);
}

TEST(exec_event)
{
    pid_t pid = traced_child(run_exec);
    unsigned long msg = 0;
    OK(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), EVENT_STATUS(PTRACE_EVENT_EXEC));
    OK(pt(PTRACE_GETEVENTMSG, pid, 0, (unsigned long)&msg));
    CHECK_EQ(msg, pid);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 6);
}

static void *thread_main(void *arg)
{
    *(volatile int *)arg = (int)syscall(SYS_gettid);
    return NULL;
}

static void run_thread(void)
{
    static volatile int tid;
    pthread_t th;
    pthread_create(&th, NULL, thread_main, (void *)(uintptr_t)&tid);
    pthread_join(th, NULL);
    _exit(tid > 0 ? 0 : 1);
}

TEST(threads_are_followed)
{
    pid_t pid = traced_child(run_thread), thread = 0;
    unsigned long msg = 0;
    bool started = false, ended = false;
    OK(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACECLONE));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    for (;;) {
        int status;
        pid_t got = OK(waitpid(-1, &status, __WALL));
        if (got == pid && WIFEXITED(status)) {
            CHECK_EQ(WEXITSTATUS(status), 0);
            break;
        }
        if (WIFEXITED(status)) {
            ended = true;
            CHECK(thread == 0 || got == thread);
            continue;
        }
        if (status >> 8 == EVENT_STATUS(PTRACE_EVENT_CLONE)) {
            OK(pt(PTRACE_GETEVENTMSG, got, 0, (unsigned long)&msg));
            thread = (pid_t)msg;
        } else {
            CHECK_EQ(status >> 8, SIGSTOP);
            CHECK(got != pid);
            started = true;
        }
        OK(pt(PTRACE_CONT, got, 0, 0));
    }
    CHECK(started);
    CHECK(ended);
    CHECK(thread > 0);
}

TEST(seized_children_stop_by_event)
{
    pid_t pid = plain_child(run_fork_exec);
    (void)pid;
    conf_kill(pid);
    volatile int *shared = conf_shared(CONF_PAGE);
    pid = conf_fork();
    if (pid == 0) {
        conf_await(&shared[0], 1);
        pid_t c = fork();
        if (c == 0)
            _exit(0);
        waitpid(c, NULL, 0);
        _exit(0);
    }
    OK(pt(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEFORK));
    shared[0] = 1;
    CHECK_EQ(wait_stop(pid), EVENT_STATUS(PTRACE_EVENT_FORK));
    unsigned long msg;
    OK(pt(PTRACE_GETEVENTMSG, pid, 0, (unsigned long)&msg));
    CHECK_EQ(wait_stop((pid_t)msg), EVENT_STATUS(PTRACE_EVENT_STOP));
    OK(pt(PTRACE_CONT, (pid_t)msg, 0, 0));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    int status;
    CHECK_EQ(OK(waitpid((pid_t)msg, &status, __WALL)), (pid_t)msg);
    CHECK(WIFEXITED(status));
    CHECK_EQ(wait_stop(pid), SIGCHLD);
    OK(pt(PTRACE_CONT, pid, 0, SIGCHLD));
    CHECK_EXIT(pid, 0);
}

/* ---- waiting ---- */

TEST(waitid_of_tracees)
{
    pid_t pid = traced_child(run_exec);
    siginfo_t si;
    OK(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    OK(waitid(P_PID, (id_t)pid, &si, WSTOPPED | WNOWAIT | __WALL));
    CHECK_EQ(si.si_code, CLD_TRAPPED);
    CHECK_EQ(si.si_status, EVENT_STATUS(PTRACE_EVENT_EXEC));
    OK(waitid(P_PID, (id_t)pid, &si, WSTOPPED));
    CHECK_EQ(si.si_status, EVENT_STATUS(PTRACE_EVENT_EXEC));
    si.si_pid = 1;
    OK(waitid(P_PID, (id_t)pid, &si, WSTOPPED | WNOHANG));
    CHECK_EQ(si.si_pid, 0);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    OK(waitid(P_PID, (id_t)pid, &si, WEXITED));
    CHECK_EQ(si.si_code, CLD_EXITED);
    CHECK_EQ(si.si_status, 6);
}

static volatile int chld_code, chld_status;

static void on_chld(int sig, siginfo_t *si, void *uc)
{
    (void)sig;
    (void)uc;
    chld_code = si->si_code;
    chld_status = si->si_status;
}

TEST(stops_send_sigchld)
{
    conf_sigaction(SIGCHLD, on_chld, 0);
    pid_t pid = traced_child(run_pause);
    CHECK_EQ(chld_code, CLD_TRAPPED);
    CHECK_EQ(chld_status, SIGSTOP);
    conf_kill(pid);
}

/* Only the thread that traces may ask; any may wait, except with __WNOTHREAD. */
static void *other_thread(void *arg)
{
    pid_t pid = *(pid_t *)arg;
    int status;
    CHECK_ERRNO(pt(PTRACE_CONT, pid, 0, 0), ESRCH);
    CHECK_ERRNO(waitpid(pid, &status, __WALL | __WNOTHREAD), ECHILD);
    CHECK_EQ(OK(waitpid(pid, &status, __WALL)), pid);
    CHECK_EQ(STOP_CODE(status), SIGUSR1);
    return NULL;
}

TEST(threads_of_the_tracer)
{
    pid_t pid = traced_child(run_pause);
    pthread_t th;
    OK(pt(PTRACE_CONT, pid, 0, 0));
    OK(kill(pid, SIGUSR1));
    CHECK_EQ(pthread_create(&th, NULL, other_thread, &pid), 0);
    CHECK_EQ(pthread_join(th, NULL), 0);
    conf_kill(pid);
}

/* ---- debug registers ---- */

static volatile long watched[8];

static void run_watched(void)
{
    watched[0] = 1;
    watched[1] = 2;
    watched[2] = 3;
}

TEST(watchpoint)
{
    pid_t pid = traced_child(run_watched);
    const size_t dr = offsetof(struct user, u_debugreg);
    long v = -1;
    siginfo_t si;
    OK(pt(PTRACE_PEEKUSR, pid, dr + 7 * 8, (unsigned long)&v));
    CHECK_EQ(v & 0xff, 0);
    CHECK_ERRNO(pt(PTRACE_POKEUSR, pid, dr, 1ul << 63), EINVAL);
    OK(pt(PTRACE_POKEUSR, pid, dr, (unsigned long)&watched[1]));
    OK(pt(PTRACE_POKEUSR, pid, dr + 7 * 8, 1 | 0xd << 16));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGTRAP);
    OK(pt(PTRACE_GETSIGINFO, pid, 0, (unsigned long)&si));
    CHECK_EQ(si.si_code, 4 /* TRAP_HWBKPT */);
    OK(pt(PTRACE_PEEKUSR, pid, dr + 6 * 8, (unsigned long)&v));
    CHECK_EQ(v & 0xf, 1);
    CHECK_EQ(peek(pid, &watched[1]), 2);
    CHECK_EQ(peek(pid, &watched[2]), 0);
    OK(pt(PTRACE_POKEUSR, pid, dr + 7 * 8, 0));
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
}

TEST(step_into_a_handler)
{
    pid_t pid = traced_child(run_signals);
    struct user_regs_struct regs;
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGUSR1);
    OK(pt(PTRACE_SINGLESTEP, pid, 0, SIGUSR1));
    CHECK_EQ(wait_stop(pid), SIGTRAP);
    get_regs(pid, &regs);
    CHECK_EQ(regs.rip, (unsigned long)on_signal);
    CHECK_EQ(regs.rdi, SIGUSR1);
    conf_kill(pid);
}

TEST(nothing_runs_twice)
{
    /* The tracer goes while its tracees are everywhere. */
    for (int i = 0; i < 30; i++) {
        pid_t tracer = conf_fork();
        if (tracer == 0) {
            pid_t pid = plain_child(run_nothing);
            if (pt(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACEEXIT) == 0 && i % 2)
                pt(PTRACE_INTERRUPT, pid, 0, 0);
            _exit(0);
        }
        CHECK_EXIT(tracer, 0);
    }
}
