/* ptrace: stops, memory, registers, signals, debug registers. */
#include "ptrace_util.h"

#include <elf.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/uio.h>

CONF_FAMILY("ptrace");

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

TEST(proc_mem)
{
    char path[64];
    uint64_t auxv[128];
    long word = 0;
    pid_t pid = traced_child(run_check_word);
    snprintf(path, sizeof(path), "/proc/%d/mem", pid);
    int fd = OK(open(path, O_RDWR));
    CHECK_EQ(pread(fd, &word, sizeof(word), (off_t)(uintptr_t)&traced_word), sizeof(word));
    CHECK_EQ(word, 0x1122334455667788);
    CHECK_ERRNO(pread(fd, &word, sizeof(word), 16), EIO);
    word = 0x0102030405060708;
    CHECK_EQ(lseek(fd, (off_t)(uintptr_t)&traced_word, SEEK_SET), (off_t)(uintptr_t)&traced_word);
    CHECK_EQ(write(fd, &word, sizeof(word)), sizeof(word));
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), (off_t)(uintptr_t)&traced_word + 8);
    CHECK_ERRNO(lseek(fd, 0, SEEK_END), EINVAL);
    snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
    int aux = OK(open(path, O_RDONLY));
    CHECK(OK(read(aux, auxv, sizeof(auxv))) > 64);
    bool entry = false;
    for (size_t i = 0; i < 64 && auxv[2 * i]; i++)
        entry |= auxv[2 * i] == AT_ENTRY && auxv[2 * i + 1] == getauxval(AT_ENTRY);
    CHECK(entry);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EXIT(pid, 0);
    CHECK_EQ(pread(fd, &word, sizeof(word), (off_t)(uintptr_t)&traced_word), 0);
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
    /* Where none can be had, as when other tracers have them all, debuggers step instead. */
    if (pt(PTRACE_POKEUSR, pid, dr, (unsigned long)&watched[1]) == -1) {
        CHECK_EQ(errno, ENOSPC);
        conf_kill(pid);
        return;
    }
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
