/* System calls that are made often from one place: registers, signals, jumps, code that is read,
 * changed, moved and traced must be as if every call were the first. */
#include "harness.h"
#include "ptrace_util.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <ucontext.h>

CONF_FAMILY("sites");

#define OFTEN 300

/* Sites of their own, whose pages hold nothing else. The first loads its number right before the
 * call, the second is followed by a comparison. */
__asm__(".pushsection .text\n"
        "    .balign 4096\n"
        ".globl page_start, page_end, call_getpid, call_getpid_inside, call_getpgrp, call_any\n"
        ".globl call_any_site, call_any_behind, call_moved, call_kept, call_kept_behind\n"
        ".globl call_rcx, call_rcx_behind\n"
        ".globl kind_sign, kind_address, kind_condition, kind_shift, kind_long, kind_long_call\n"
        "page_start:\n"
        "    nop\n"
        "call_getpid:\n"
        "    mov $39, %eax\n"
        "call_getpid_inside:\n"
        "    syscall\n"
        "    ret\n"
        "    .balign 16\n"
        "call_getpgrp:\n"
        "    mov $111, %eax\n"
        "    syscall\n"
        "    ret\n"
        "    .balign 16\n"
        /* rdi: the number, then three arguments. */
        "call_any:\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %rdi\n"
        "    mov %rdx, %rsi\n"
        "    mov %rcx, %rdx\n"
        "call_any_site:\n"
        "    syscall\n"
        "call_any_behind:\n"
        "    cmp $-4095, %rax\n"
        "    jae 1f\n"
        "    ret\n"
        "1:  mov $-1, %rax\n"
        "    ret\n"
        "    .balign 16\n"
        /* What follows uses a register that the call itself has changed. */
        "call_moved:\n"
        "    mov %rdi, %rax\n"
        "    syscall\n"
        "    mov %rax, %rcx\n"
        "    mov %rcx, %rdx\n"
        "    lea (%rdx,%rcx), %rax\n"
        "    ret\n"
        "    .balign 16\n"
        /* Gives what the call has left in rcx, or who goes on behind it has there. */
        "call_rcx:\n"
        "    mov %rdi, %rax\n"
        "    syscall\n"
        "call_rcx_behind:\n"
        "    mov %rcx, %rdx\n"
        "    cmp $-4095, %rax\n"
        "    mov %rdx, %rax\n"
        "    ret\n"
        "    .balign 16\n"
        /* rdi: the number; rsi: where all registers go afterwards. Their values, the flags and the
         * red zone are known before. */
        "call_kept:\n"
        "    push %rbx\n    push %rbp\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    mov %rsi, kept_to(%rip)\n"
        "    mov %rsp, kept_sp(%rip)\n"
        "    mov %rdi, %rax\n"
        "    pushq $0xed7\n"
        "    popfq\n"
        "    .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16\n"
        "    movq $(0x5a00+\\n), -8*\\n(%rsp)\n"
        "    .endr\n"
        "    .irp r, rdi,rsi,rdx,r10,r8,r9,rbx,rbp,r12,r13,r14,r15\n"
        "    movabs $0x1122334455667788, %\\r\n"
        "    .endr\n"
        "    movq %rdi, %xmm0\n"
        "    movq %rdi, %xmm15\n"
        "    mov $0x77, %ebx\n"
        "    syscall\n"
        "call_kept_behind:\n"
        "    mov %rcx, kept_rcx(%rip)\n"
        "    mov %r11, kept_r11(%rip)\n"
        "    mov kept_to(%rip), %rcx\n"
        "    mov %rax, (%rcx)\n    mov %rdi, 8(%rcx)\n    mov %rsi, 16(%rcx)\n"
        "    mov %rdx, 24(%rcx)\n    mov %r10, 32(%rcx)\n    mov %r8, 40(%rcx)\n"
        "    mov %r9, 48(%rcx)\n    mov %rbx, 56(%rcx)\n    mov %rbp, 64(%rcx)\n"
        "    mov %r12, 72(%rcx)\n    mov %r13, 80(%rcx)\n    mov %r14, 88(%rcx)\n"
        "    mov %r15, 96(%rcx)\n    mov %rsp, 104(%rcx)\n"
        "    movq %xmm0, 112(%rcx)\n    movq %xmm15, 120(%rcx)\n"
        "    .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16\n"
        "    mov -8*\\n(%rsp), %rax\n"
        "    mov %rax, 128+8*\\n(%rcx)\n"
        "    .endr\n"
        "    mov kept_sp(%rip), %rsp\n"
        "    pushfq\n"
        "    pop %rax\n"
        "    mov %rax, 128(%rcx)\n"
        "    pushq $0x202\n"
        "    popfq\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbp\n    pop %rbx\n"
        "    ret\n"
        "    .balign 16\n"
        /* What computes with the result, in ways of its own. rdi: the number. */
        "kind_sign:\n"
        "    mov %rdi, %rax\n"
        "    syscall\n"
        "    movslq %eax, %rdx\n"
        "    test %edx, %edx\n"
        "    js 1f\n"
        "    mov %rdx, %rax\n"
        "    ret\n"
        "1:  mov $-7, %rax\n"
        "    ret\n"
        "    .balign 16\n"
        "kind_address:\n"
        "    mov %rdi, %rax\n"
        "    syscall\n"
        "    lea 16(%rax), %rdx\n"
        "    xor %eax, %eax\n"
        "    add %rdx, %rax\n"
        "    ret\n"
        "    .balign 16\n"
        /* Flags are those from before the call. rsi: what is compared. */
        "kind_condition:\n"
        "    mov %rdi, %rax\n"
        "    cmp $5, %rsi\n"
        "    syscall\n"
        "    cmove %rsi, %rax\n"
        "    adc $0, %eax\n"
        "    ret\n"
        "    .balign 16\n"
        "kind_shift:\n"
        "    mov %rdi, %rax\n"
        "    syscall\n"
        "    shl $1, %rax\n"
        "    setne %dl\n"
        "    movzbl %dl, %edx\n"
        "    add %rdx, %rax\n"
        "    ret\n"
        "    .balign 16\n"
        "kind_long:\n"
        "    nop\n"
        "    mov $39, %rax\n"
        "kind_long_call:\n"
        "    syscall\n"
        "    neg %rax\n"
        "    ret\n"
        "    .balign 4096\n"
        "page_end:\n"
        ".popsection\n"
        ".pushsection .bss\n"
        ".balign 8\n"
        "kept_to: .skip 8\n"
        "kept_sp: .skip 8\n"
        ".globl kept_rcx, kept_r11\n"
        "kept_rcx: .skip 8\n"
        "kept_r11: .skip 8\n"
        ".popsection\n");

extern const char page_start[], page_end[], call_getpid_inside[], call_any_site[],
    call_any_behind[], call_kept_behind[], call_rcx_behind[], kind_long_call[];
extern uint64_t kept_rcx, kept_r11;
long call_getpid(void);
long call_getpgrp(void);
long call_any(long nr, long a, long b, long c);
/* Twice the result. */
long call_moved(long nr);
long call_rcx(long nr);
void call_kept(long nr, uint64_t to[33]);
long kind_sign(long nr);
long kind_address(long nr);
long kind_condition(long nr, long what);
long kind_shift(long nr);
long kind_long(void);

/* The call of call_any, entered from elsewhere. */
static long jump_to(const char *at, long rax)
{
    long r;

    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tcall *%1\n\tlea 128(%%rsp), %%rsp"
                     : "=a"(r)
                     : "r"(at), "a"(rax)
                     : "rcx", "r11", "memory", "cc");
    return r;
}

static void often(void)
{
    const long pid = getpid(), group = getpgrp();

    for (int i = 0; i < OFTEN; i++) {
        CHECK_EQ(call_getpid(), pid);
        CHECK_EQ(call_getpgrp(), group);
        CHECK_EQ(call_any(SYS_getpid, 0, 0, 0), pid);
        CHECK_EQ(call_any(SYS_getpgrp, 0, 0, 0), group);
        CHECK_EQ(call_any(SYS_close, -1, 0, 0), -1);
        CHECK_EQ(call_any(SYS_openat, AT_FDCWD, 1, 0), -1);
        CHECK_EQ(call_any(SYS_getuid | 1L << 32, 0, 0, 0), getuid());
        CHECK_EQ(call_any(100000, 0, 0, 0), -1);
    }
}

TEST(results)
{
    often();
    CHECK_EQ(call_any(SYS_getppid, 0, 0, 0), getppid());
    CHECK_EQ(call_any(SYS_getuid, 0, 0, 0), getuid());
    CHECK_EQ(call_any(SYS_sched_yield, 0, 0, 0), 0);
    CHECK_EQ(call_any(100000, 0, 0, 0), -1);
    int fds[2];
    OK(pipe(fds));
    char c = 'x';
    CHECK_EQ(call_any(SYS_write, fds[1], (long)&c, 1), 1);
    CHECK_EQ(call_any(SYS_read, fds[0], (long)&c, 1), 1);
}

TEST(kinds)
{
    const long pid = getpid(), group = getpgrp();

    for (int i = 0; i < OFTEN; i++)
        CHECK_EQ(kind_long(), -pid);
    for (int i = 0; i < OFTEN; i++) {
        CHECK_EQ(kind_sign(SYS_getpid), pid);
        CHECK_EQ(kind_sign(SYS_getpgrp), group);
        CHECK_EQ(kind_sign(100000), -7);
        CHECK_EQ(kind_address(SYS_getpgrp), group + 16);
        CHECK_EQ(kind_address(SYS_getpid), pid + 16);
        CHECK_EQ(kind_condition(SYS_getpgrp, 4), group + 1);
        CHECK_EQ(kind_condition(SYS_getpid, 5), 5);
        CHECK_EQ(kind_condition(SYS_getpid, 6), pid);
        CHECK_EQ(kind_shift(SYS_getpgrp), 2 * group + 1);
        CHECK_EQ(kind_shift(SYS_getpid), 2 * pid + 1);
        CHECK_EQ(kind_long(), -pid);
        CHECK_EQ(jump_to(kind_long_call, SYS_getpgrp), -group);
    }
}

static void kept_check(long nr, long result)
{
    uint64_t r[33];

    call_kept(nr, r);
    CHECK_EQ(r[0], result);
    for (size_t i = 1; i < 13; i++)
        CHECK_EQ(r[i], i == 7 ? 0x77 : 0x1122334455667788);
    CHECK_EQ(r[14], 0x1122334455667788);
    CHECK_EQ(r[15], 0x1122334455667788);
    CHECK_EQ(kept_rcx, (uintptr_t)call_kept_behind);
    /* What may be set by a program; interrupts are on, and bit 1 is. */
    CHECK_EQ(kept_r11, 0xed7);
    CHECK_EQ(r[16] & 0xcd5, 0xcd5);
    for (size_t i = 1; i <= 16; i++)
        CHECK_EQ(r[16 + i], 0x5a00 + i);
}

TEST(registers)
{
    for (int i = 0; i < OFTEN; i++) {
        kept_check(SYS_getpid, getpid());
        kept_check(SYS_getpgrp, getpgrp());
    }
}

/* Calls getpid OFTEN times with more flags set, and gives those that are set afterwards. */
static uint64_t often_with(uint64_t flags, long *out_pid)
{
    uint64_t left = OFTEN;

    __asm__ volatile("lea -128(%%rsp), %%rsp\n\t"
                     "pushfq\n\t"
                     "or %1, (%%rsp)\n\t"
                     "popfq\n\t"
                     "1: call call_getpid\n\t"
                     "dec %0\n\t"
                     "jnz 1b\n\t"
                     "pushfq\n\t"
                     "pop %1\n\t"
                     "pushq $0x202\n\t"
                     "popfq\n\t"
                     "lea 128(%%rsp), %%rsp"
                     : "+r"(left), "+r"(flags), "=a"(*out_pid)
                     :
                     : "rcx", "r11", "memory", "cc");
    return flags;
}

/* Alignment checks and a nested task: flags that instructions fault on, whoever runs them. (A host
 * that runs machines beside itself takes the second one away now and then.) */
TEST(flags_that_fault)
{
    static const uint64_t flags[] = {0x40000, 0x4000, 0x44000};

    for (size_t i = 0; i < 3 * ARRAY_SIZE(flags); i++) {
        const uint64_t set = flags[i % ARRAY_SIZE(flags)];
        long pid = 0;
        CHECK_EQ(often_with(set, &pid) & 0x40000, set & 0x40000);
        CHECK_EQ(pid, getpid());
    }
}

TEST(jumps)
{
    often();
    for (int i = 0; i < OFTEN; i++) {
        CHECK_EQ(jump_to(call_getpid_inside, SYS_getuid), getuid());
        CHECK_EQ(jump_to(call_getpid_inside, SYS_getpgrp), getpgrp());
        CHECK_EQ(jump_to(call_any_site, SYS_getpgrp), getpgrp());
        CHECK_EQ(jump_to(call_any_behind, 17), 17);
        CHECK_EQ(jump_to(call_any_behind, -EIO), -1);
    }
    often();
}

/* ---- signals ---- */

static volatile sig_atomic_t signals, strangers;

static void on_signal(int sig, siginfo_t *si, void *context)
{
    extern const char __executable_start[], etext[];
    const ucontext_t *uc = context;
    const uint64_t rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];

    (void)sig;
    (void)si;
    signals++;
    if (rip < (uintptr_t)__executable_start || rip >= (uintptr_t)etext)
        strangers++;
}

static void with_signals(long (*round)(void), long result)
{
    const struct itimerval often_it = {.it_interval = {0, 300}, .it_value = {0, 300}};
    const struct itimerval never = {{0, 0}, {0, 0}};

    signals = strangers = 0;
    OK(setitimer(ITIMER_REAL, &often_it, NULL));
    /* The case's time limit ends it. */
    while (signals < 300)
        for (int i = 0; i < 1000; i++)
            CHECK_EQ(round(), result);
    OK(setitimer(ITIMER_REAL, &never, NULL));
    CHECK_EQ(strangers, 0);
}

static long round_any(void)
{
    return call_any(SYS_getpgrp, 0, 0, 0);
}

static long round_nested(void)
{
    return call_any(SYS_getppid, 0, 0, 0);
}

static long round_moved(void)
{
    return call_moved(SYS_getpgrp);
}

TEST(signals_meet_sites)
{
    conf_sigaction(SIGALRM, on_signal, SA_RESTART);
    with_signals(call_getpid, getpid());
    with_signals(call_getpgrp, getpgrp());
    with_signals(round_any, getpgrp());
    with_signals(round_nested, getppid());
    with_signals(round_moved, 2L * getpgrp());
}

static long round_jump(void)
{
    long r, rcx = 0x1234;

    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tcall *%2\n\tlea 128(%%rsp), %%rsp"
                     : "=a"(r), "+c"(rcx)
                     : "r"(call_rcx_behind)
                     : "rdx", "r11", "memory", "cc");
    return r;
}

/* No call was made: registers that calls do not keep are kept. */
TEST(signals_meet_jumps)
{
    for (int i = 0; i < OFTEN; i++)
        CHECK_EQ(call_rcx(SYS_getpgrp), (intptr_t)call_rcx_behind);
    conf_sigaction(SIGALRM, on_signal, SA_RESTART);
    with_signals(round_jump, 0x1234);
}

TEST(interrupted_and_made_again)
{
    int fds[2];
    char c = 0;

    often();
    OK(pipe(fds));
    conf_sigaction(SIGALRM, on_signal, SA_RESTART);
    signals = strangers = 0;
    pid_t pid = conf_fork();
    if (pid == 0) {
        for (int i = 0; i < 20; i++) {
            conf_sleep_ms(5);
            conf_await_asleep(getppid());
            OK(kill(getppid(), SIGALRM));
        }
        CHECK_EQ(write(fds[1], "y", 1), 1);
        _exit(0);
    }
    CHECK_EQ(call_any(SYS_read, fds[0], (long)&c, 1), 1);
    CHECK_EQ(c, 'y');
    CHECK(signals > 0);
    CHECK_EQ(strangers, 0);
    CHECK_EXIT(pid, 0);
    /* Without SA_RESTART it ends. */
    conf_sigaction(SIGALRM, on_signal, 0);
    const struct itimerval soon = {.it_interval = {0, 20000}, .it_value = {0, 20000}};
    OK(setitimer(ITIMER_REAL, &soon, NULL));
    CHECK_EQ(call_any(SYS_read, fds[0], (long)&c, 1), -1);
}

/* ---- what is around ---- */

/* A mapping goes, with much where nothing is mapped: whatever makes sites work is not among it. */
TEST(around_is_unmapped)
{
    char *const low = (char *)(uintptr_t)0x50000000;
    const size_t size = 0x30000000;

    for (int i = 0; i < 3; i++) {
        often();
        char *p = mmap(low, CONF_PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        CHECK(p == low);
        p[0] = 1;
        OK(munmap(low, size));
    }
    often();
}

/* ---- the code itself ---- */

static void code_is(const char *copy)
{
    static char seen[2 * CONF_PAGE];
    const size_t size = (size_t)(page_end - page_start);
    struct iovec to = {seen, size}, from = {(void *)(uintptr_t)page_start, size};
    unsigned eax, ebx, ecx, edx;

    CHECK(size <= sizeof(seen));
    int fd = OK(open("/proc/self/mem", O_RDONLY));
    CHECK_EQ(pread(fd, seen, size, (off_t)(uintptr_t)page_start), (ssize_t)size);
    CHECK_EQ(memcmp(seen, copy, size), 0);
    close(fd);
    memset(seen, 0, size);
    CHECK_EQ(OK(process_vm_readv(getpid(), &to, 1, &from, 1, 0)), (ssize_t)size);
    CHECK_EQ(memcmp(seen, copy, size), 0);
    int fds[2];
    OK(pipe(fds));
    CHECK_EQ(write(fds[1], page_start, size), (ssize_t)size);
    CHECK_EQ(read(fds[0], seen, size), (ssize_t)size);
    CHECK_EQ(memcmp(seen, copy, size), 0);
    /* Read by the program itself: with protection keys (OSPKE). */
    CHECK(__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx));
    if (ecx & 16) {
        CHECK_EQ(memcmp(page_start, copy, size), 0);
        often();
        CHECK_EQ(memcmp(page_start, copy, size), 0);
    }
}

TEST(code_reads_as_it_was)
{
    static char copy[2 * CONF_PAGE];

    memcpy(copy, page_start, (size_t)(page_end - page_start));
    code_is(copy);
    /* Another process has not read it yet. */
    pid_t pid = conf_fork();
    if (pid == 0) {
        often();
        code_is(copy);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

/* mov $nr: its first byte of the number. */
static void change_number(unsigned char nr)
{
    *(volatile unsigned char *)(uintptr_t)((const char *)call_getpid + 1) = nr;
}

TEST(code_is_changed)
{
    char *page = (char *)(uintptr_t)page_start;
    const size_t size = (size_t)(page_end - page_start);

    often();
    OK(mprotect(page, size, PROT_READ | PROT_WRITE | PROT_EXEC));
    for (int i = 0; i < OFTEN; i++) {
        change_number(SYS_getuid);
        CHECK_EQ(call_getpid(), getuid());
        change_number(SYS_getpgrp);
        CHECK_EQ(call_getpid(), getpgrp());
        CHECK_EQ(call_any(SYS_getpid, 0, 0, 0), getpid());
    }
    OK(mprotect(page, size, PROT_READ | PROT_EXEC));
    for (int i = 0; i < OFTEN; i++)
        CHECK_EQ(call_getpid(), getpgrp());
}

static void on_fault(int sig)
{
    (void)sig;
    _exit(7);
}

TEST(code_is_protected)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_handler(SIGSEGV, on_fault, 0);
        often();
        OK(mprotect((char *)(uintptr_t)page_start, CONF_PAGE, PROT_READ));
        call_getpid();
        _exit(0);
    }
    CHECK_EXIT(pid, 7);
    often();
    OK(mprotect((char *)(uintptr_t)page_start, CONF_PAGE, PROT_NONE));
    OK(mprotect((char *)(uintptr_t)page_start, CONF_PAGE, PROT_READ | PROT_EXEC));
    often();
}

typedef long (*call_fn)(void);

/* mov $nr, %eax; syscall; ret at p. */
static call_fn make_code(unsigned char *p, unsigned char nr)
{
    const unsigned char code[] = {0xb8, nr, 0, 0, 0, 0x0f, 0x05, 0xc3};

    memcpy(p, code, sizeof(code));
    return (call_fn)(uintptr_t)p;
}

TEST(code_is_made)
{
    const int prot = PROT_READ | PROT_WRITE | PROT_EXEC;
    unsigned char *p =
        OK((unsigned char *)mmap(NULL, CONF_PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    for (int i = 0; i < OFTEN; i++) {
        CHECK_EQ(make_code(p + 64, SYS_getpid)(), getpid());
        CHECK_EQ(make_code(p + 64, SYS_getpgrp)(), getpgrp());
    }
    OK(mprotect(p, CONF_PAGE, PROT_READ | PROT_EXEC));
    call_fn f = (call_fn)(uintptr_t)(p + 64);
    for (int i = 0; i < OFTEN; i++)
        CHECK_EQ(f(), getpgrp());
    OK(mprotect(p, CONF_PAGE, prot));
    CHECK_EQ(make_code(p + 64, SYS_getuid)(), getuid());
}

TEST(code_is_mapped_again)
{
    char name[] = "code";
    static unsigned char page[2 * CONF_PAGE];

    memset(page, 0x90, sizeof(page));
    make_code(page + 64, SYS_getpid);
    make_code(page + CONF_PAGE + 64, SYS_getpgrp);
    int fd = OK(open(name, O_RDWR | O_CREAT, 0700));
    CHECK_EQ(write(fd, page, sizeof(page)), (ssize_t)sizeof(page));
    char *at = OK((char *)mmap(NULL, CONF_PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0));
    call_fn f = (call_fn)(uintptr_t)(at + 64);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < OFTEN; i++)
            CHECK_EQ(f(), getpid());
        OK(mmap(at, CONF_PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, CONF_PAGE));
        for (int i = 0; i < OFTEN; i++)
            CHECK_EQ(f(), getpgrp());
        OK(mmap(at, CONF_PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0));
    }
    char *moved = OK((char *)mmap(NULL, CONF_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    OK(mremap(at, CONF_PAGE, CONF_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, moved));
    f = (call_fn)(uintptr_t)(moved + 64);
    for (int i = 0; i < OFTEN; i++)
        CHECK_EQ(f(), getpid());
}

/* As programs do that make code through one mapping and run it in another. */
static void code_is_written(int flags)
{
    const unsigned char numbers[] = {SYS_getpid, SYS_getpgrp, SYS_getuid};
    const long results[] = {getpid(), getpgrp(), getuid()};
    int fd = OK(memfd_create("code", 0));
    OK(ftruncate(fd, CONF_PAGE));
    unsigned char *w =
        OK((unsigned char *)mmap(NULL, CONF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    char *x = OK((char *)mmap(NULL, CONF_PAGE, PROT_READ | PROT_EXEC, flags, fd, 0));
    call_fn f = (call_fn)(uintptr_t)(x + 64);
    for (size_t round = 0; round < 9; round++) {
        make_code(w + 64, numbers[round % 3]);
        for (int i = 0; i < OFTEN; i++)
            CHECK_EQ(f(), results[round % 3]);
    }
}

TEST(code_is_written_elsewhere)
{
    code_is_written(MAP_SHARED);
    code_is_written(MAP_PRIVATE);
}

/* ---- processes and threads ---- */

TEST(numbers_after_fork)
{
    often();
    const long pid = getpid();
    for (int i = 0; i < 20; i++) {
        pid_t child = conf_fork();
        if (child == 0) {
            CHECK_EQ(call_any(SYS_getppid, 0, 0, 0), pid);
            CHECK(call_getpid() != pid);
            CHECK_EQ(call_getpid(), call_any(SYS_gettid, 0, 0, 0));
            often();
            _exit(0);
        }
        CHECK_EXIT(child, 0);
        CHECK_EQ(call_getpid(), pid);
    }
}

TEST(numbers_after_a_parent_ended)
{
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    int fds[2];
    OK(pipe(fds));
    pid_t middle = conf_fork();
    if (middle == 0) {
        const long up = getpid(), above = getppid();
        pid_t low = conf_fork();
        if (low == 0) {
            often();
            CHECK_EQ(call_any(SYS_getppid, 0, 0, 0), up);
            CHECK_EQ(write(fds[1], "r", 1), 1);
            const int64_t end = conf_now() + CONF_PATIENCE_NS;
            while (call_any(SYS_getppid, 0, 0, 0) == up && conf_now() < end)
                continue;
            CHECK_EQ(call_any(SYS_getppid, 0, 0, 0), above);
            CHECK_EQ(write(fds[1], "d", 1), 1);
            _exit(0);
        }
        char c;
        CHECK_EQ(read(fds[0], &c, 1), 1);
        _exit(0);
    }
    CHECK_EXIT(middle, 0);
    char c = 0;
    CHECK_EQ(read(fds[0], &c, 1), 1);
    CHECK_EQ(c, 'd');
    CHECK_EQ(wait(NULL) > 0, 1);
}

TEST(ids_after_they_changed)
{
    NEED_ROOT();
    pid_t pid = conf_fork();
    if (pid == 0) {
        often();
        for (int i = 0; i < OFTEN; i++) {
            CHECK_EQ(call_any(SYS_getuid, 0, 0, 0), 0);
            CHECK_EQ(call_any(SYS_getegid, 0, 0, 0), 0);
        }
        OK((int)syscall(SYS_setresgid, 71, 72, 73));
        CHECK_EQ(call_any(SYS_getgid, 0, 0, 0), 71);
        CHECK_EQ(call_any(SYS_getegid, 0, 0, 0), 72);
        OK((int)syscall(SYS_setresuid, 81, 0, 83));
        CHECK_EQ(call_any(SYS_getuid, 0, 0, 0), 81);
        CHECK_EQ(call_any(SYS_geteuid, 0, 0, 0), 0);
        OK((int)syscall(SYS_setresuid, 81, 82, 83));
        CHECK_EQ(call_any(SYS_geteuid, 0, 0, 0), 82);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}

HELPER(says_numbers)
{
    CHECK_EQ(argc, 2);
    CHECK_EQ(call_getpid(), atoi(argv[1]));
    often();
    CHECK_EQ(call_any(SYS_gettid, 0, 0, 0), atoi(argv[1]));
    return 0;
}

static void *execs(void *arg)
{
    char text[24];
    const char *args[] = {text, NULL};

    (void)arg;
    for (int i = 0; i < OFTEN; i++)
        CHECK(call_any(SYS_gettid, 0, 0, 0) != getpid());
    snprintf(text, sizeof(text), "%d", getpid());
    conf_exec_helper("says_numbers", args);
}

TEST(numbers_after_execve_by_a_thread)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        pthread_t t;
        often();
        CHECK_EQ(pthread_create(&t, NULL, execs, NULL), 0);
        for (;;)
            call_any(SYS_gettid, 0, 0, 0);
    }
    CHECK_EXIT(pid, 0);
}

static void *thread_main(void *arg)
{
    const long tid = syscall(SYS_gettid), group = getpgrp();

    (void)arg;
    for (int i = 0; i < 400; i++) {
        CHECK_EQ(call_any(SYS_gettid, 0, 0, 0), tid);
        CHECK_EQ(call_any(SYS_getpgrp, 0, 0, 0), group);
        CHECK_EQ(call_getpgrp(), group);
        CHECK_EQ(call_getpid(), getpid());
    }
    return NULL;
}

TEST_TIMEOUT(threads, 60)
{
    pthread_t t[8];

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < ARRAY_SIZE(t); i++)
            CHECK_EQ(pthread_create(&t[i], NULL, thread_main, NULL), 0);
        for (size_t i = 0; i < ARRAY_SIZE(t); i++)
            CHECK_EQ(pthread_join(t[i], NULL), 0);
    }
}

/* ---- tasks that share more than Linux programs usually do ---- */

static volatile int sharer_state;

/* Without anything of the C library, whose thread pointer is not its own. */
static int sharer_main(void *arg)
{
    const long tid = call_any(SYS_gettid, 0, 0, 0);

    (void)arg;
    sharer_state = 1;
    for (int i = 0; i < 2000; i++)
        if (call_any(SYS_gettid, 0, 0, 0) != tid || call_getpid() != tid)
            return 1;
    return 0;
}

TEST_TIMEOUT(same_thread_pointer, 60)
{
    char *stack = conf_pages(16);

    often();
    for (int round = 0; round < 3; round++) {
        sharer_state = 0;
        pid_t pid = OK(clone(sharer_main, stack + 16 * CONF_PAGE, CLONE_VM | SIGCHLD, NULL));
        const long tid = syscall(SYS_gettid);
        conf_await(&sharer_state, 1);
        for (int i = 0; i < 2000; i++) {
            CHECK_EQ(call_any(SYS_gettid, 0, 0, 0), tid);
            CHECK_EQ(call_getpid(), tid);
        }
        CHECK_EXIT(pid, 0);
        /* As vfork does. */
        pid =
            OK(clone(sharer_main, stack + 16 * CONF_PAGE, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL));
        CHECK_EQ(call_any(SYS_gettid, 0, 0, 0), tid);
        CHECK_EXIT(pid, 0);
        often();
    }
}

TEST(thread_pointer_changes)
{
    uint64_t base = 0;
    char *other = conf_pages(2);
    bool same = true;

    often();
    OK((int)syscall(SYS_arch_prctl, ARCH_GET_FS, &base));
    const long tid = getpid();
    for (int i = 0; i < OFTEN; i++) {
        call_any(SYS_arch_prctl, ARCH_SET_FS, (long)other, 0);
        same &= call_any(SYS_gettid, 0, 0, 0) == tid;
        same &= call_getpid() == tid;
        call_any(SYS_arch_prctl, ARCH_SET_FS, (long)base, 0);
    }
    CHECK(same);
}

/* ---- tasks that are watched ---- */

static void traced_main(void)
{
    often();
    raise(SIGSTOP);
    for (int i = 0; i < 5; i++)
        call_getpid();
    raise(SIGSTOP);
    call_getpid();
}

TEST(every_call_is_traced)
{
    struct user_regs_struct regs;
    int seen = 0, sig;

    pid_t pid = traced_child(traced_main);
    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    for (;;) {
        OK(pt(PTRACE_SYSCALL, pid, 0, 0));
        sig = wait_stop(pid);
        if (sig == SIGSTOP)
            break;
        get_regs(pid, &regs);
        if (regs.orig_rax != SYS_getpid || regs.rip != (uintptr_t)call_getpid_inside + 2)
            continue;
        seen++;
        CHECK_EQ(regs.rax, seen % 2 == 1 ? (unsigned long long)-ENOSYS : (unsigned long long)pid);
    }
    CHECK_EQ(seen, 10);
    /* Step by step, only the program is seen. */
    bool inside = false;
    for (int i = 0; i < 100000 && !inside; i++) {
        OK(pt(PTRACE_SINGLESTEP, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP);
        get_regs(pid, &regs);
        inside = regs.rip == (uintptr_t)call_getpid;
    }
    CHECK(inside);
    static const int steps[] = {5, 7};
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        OK(pt(PTRACE_SINGLESTEP, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP);
        get_regs(pid, &regs);
        CHECK_EQ(regs.rip, (uintptr_t)call_getpid + (unsigned)steps[i]);
    }
    CHECK_EQ(regs.rax, (unsigned long long)pid);
    conf_kill(pid);
}

TEST(breakpoints)
{
    struct user_regs_struct regs;
    pid_t pid = traced_child(traced_main);

    OK(pt(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(wait_stop(pid), SIGSTOP);
    const long word = peek(pid, (const void *)call_getpid);
    CHECK_EQ(word & 0xff, 0xb8);
    OK(pt(PTRACE_POKETEXT, pid, (unsigned long)call_getpid,
          (unsigned long)((word & ~0xffL) | 0xcc)));
    for (int i = 0; i < 5; i++) {
        OK(pt(PTRACE_CONT, pid, 0, 0));
        CHECK_EQ(wait_stop(pid), SIGTRAP);
        get_regs(pid, &regs);
        CHECK_EQ(regs.rip, (uintptr_t)call_getpid + 1);
        regs.rip += 4;
        regs.rax = SYS_getpid;
        OK(pt(PTRACE_SETREGS, pid, 0, (unsigned long)&regs));
    }
    conf_kill(pid);
}

static int lay(unsigned flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOLINK),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {ARRAY_SIZE(code), code};

    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}

static volatile int filter_state;

static void *filtered_main(void *arg)
{
    const int64_t end = conf_now() + CONF_PATIENCE_NS;

    (void)arg;
    for (int i = 0; i < OFTEN; i++)
        CHECK(call_any(SYS_getppid, 0, 0, 0) > 0);
    filter_state = 1;
    while (filter_state == 1 && conf_now() < end)
        for (int i = 0; i < 1000; i++)
            call_any(SYS_getppid, 0, 0, 0);
    for (int i = 0; i < OFTEN; i++)
        CHECK_EQ(call_any(SYS_getppid, 0, 0, 0), -1);
    return NULL;
}

TEST(filters_see_every_call)
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        pthread_t t;
        for (int i = 0; i < OFTEN; i++)
            CHECK(call_any(SYS_getppid, 0, 0, 0) > 0);
        CHECK_EQ(pthread_create(&t, NULL, filtered_main, NULL), 0);
        conf_await(&filter_state, 1);
        OK(lay(SECCOMP_FILTER_FLAG_TSYNC));
        CHECK_EQ(call_any(SYS_getppid, 0, 0, 0), -1);
        filter_state = 2;
        CHECK_EQ(pthread_join(t, NULL), 0);
        pid_t child = conf_fork();
        if (child == 0)
            _exit(call_any(SYS_getppid, 0, 0, 0) == -1 ? 0 : 1);
        CHECK_EXIT(child, 0);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
}
