/* Instructions that a program may not execute, or only with arguments it does not have: signal,
 * code, address and place are the processor's and Linux's, on every platform. And what CPUID
 * promises. */
#include "harness.h"

#include <cpuid.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

CONF_FAMILY("insn");

#define NON_CANONICAL 0x800000000000UL
#define KERNEL_HALF 0xffff900000000000UL
/* Expected address. */
#define AT_INSN 1UL

struct seen {
    int signo, code, trapno, err;
    unsigned long addr, off;
};

static unsigned char *code_page;
static struct seen *seen;

static void on_fault(int sig, siginfo_t *si, void *arg)
{
    const ucontext_t *uc = arg;

    *seen = (struct seen){
        .signo = sig,
        .code = si->si_code,
        .trapno = (int)uc->uc_mcontext.gregs[REG_TRAPNO],
        .err = (int)uc->uc_mcontext.gregs[REG_ERR],
        .addr = (unsigned long)si->si_addr,
        .off = (unsigned long)uc->uc_mcontext.gregs[REG_RIP] - (unsigned long)code_page,
    };
    _exit(0);
}

/* Executes code in a child: rax and rdi hold arg, rdx a port, rcx a number of no MSR of its own. */
static void execute(const unsigned char *code, size_t size, unsigned long arg)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};

    memset(seen, 0, sizeof(*seen));
    pid_t pid = conf_fork();
    if (pid == 0) {
        stack_t alt = {.ss_sp = conf_pages(16), .ss_size = 16 * CONF_PAGE};
        OK(sigaltstack(&alt, NULL));
        for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
            conf_sigaction(signals[i], on_fault, SA_ONSTACK);
        memset(code_page, 0x90, CONF_PAGE);
        memcpy(code_page, code, size);
        code_page[size] = 0x0f;
        code_page[size + 1] = 0x0b;
        OK(mprotect(code_page, CONF_PAGE, PROT_READ | PROT_EXEC));
        __asm__ volatile("mov %1, %%rax\n\tjmp *%0"
                         :
                         : "r"(code_page), "D"(arg), "d"(0x80L), "c"(0x1bL)
                         : "rax", "memory");
    }
    CHECK_EXIT(pid, 0);
}

static void prepare(void)
{
    code_page = conf_pages(1);
    seen = conf_shared(sizeof(*seen));
}

struct insn {
    const char *name;
    unsigned char code[16];
    size_t size;
    unsigned long arg;
    int signo, si_code;
    unsigned long addr, off;
};

#define INSN(name, arg, signo, si_code, addr, off, ...)                                            \
    {                                                                                              \
        name, {__VA_ARGS__}, sizeof((unsigned char[]){__VA_ARGS__}), arg, signo, si_code, addr,    \
            off                                                                                    \
    }
#define PRIVILEGED(name, ...) INSN(name, 0, SIGSEGV, SI_KERNEL, 0, 0, __VA_ARGS__)

static void check_all(const struct insn *list, size_t count)
{
    prepare();
    for (size_t i = 0; i < count; i++) {
        const struct insn *n = &list[i];
        execute(n->code, n->size, n->arg);
        const unsigned long addr = n->addr == AT_INSN ? (unsigned long)code_page + n->off : n->addr;
        if (seen->signo != n->signo || seen->code != n->si_code || seen->addr != addr ||
            seen->off != n->off)
            conf_fail(__FILE__, __LINE__, "%s: signal %d code %d addr %#lx at %#lx, trap %d err %d",
                      n->name, seen->signo, seen->code, seen->addr, seen->off, seen->trapno,
                      seen->err);
    }
}

TEST_TIMEOUT(privileged, 60)
{
    static const struct insn list[] = {
        PRIVILEGED("hlt", 0xf4),
        PRIVILEGED("cli", 0xfa),
        PRIVILEGED("sti", 0xfb),
        PRIVILEGED("mov %rax, %cr0", 0x0f, 0x22, 0xc0),
        PRIVILEGED("mov %rax, %cr3", 0x0f, 0x22, 0xd8),
        PRIVILEGED("mov %rax, %cr4", 0x0f, 0x22, 0xe0),
        PRIVILEGED("mov %rax, %cr8", 0x44, 0x0f, 0x22, 0xc0),
        PRIVILEGED("mov %cr0, %rax", 0x0f, 0x20, 0xc0),
        PRIVILEGED("mov %cr3, %rax", 0x0f, 0x20, 0xd8),
        PRIVILEGED("mov %rax, %dr7", 0x0f, 0x23, 0xf8),
        PRIVILEGED("mov %dr0, %rax", 0x0f, 0x21, 0xc0),
        PRIVILEGED("lgdt (%rdi)", 0x0f, 0x01, 0x17),
        PRIVILEGED("lidt (%rdi)", 0x0f, 0x01, 0x1f),
        PRIVILEGED("lldt %ax", 0x0f, 0x00, 0xd0),
        PRIVILEGED("ltr %ax", 0x0f, 0x00, 0xd8),
        PRIVILEGED("invlpg (%rdi)", 0x0f, 0x01, 0x3f),
        PRIVILEGED("wrmsr", 0x0f, 0x30),
        PRIVILEGED("rdmsr", 0x0f, 0x32),
        PRIVILEGED("wbinvd", 0x0f, 0x09),
        PRIVILEGED("invd", 0x0f, 0x08),
        PRIVILEGED("clts", 0x0f, 0x06),
        PRIVILEGED("lmsw %ax", 0x0f, 0x01, 0xf0),
        PRIVILEGED("swapgs", 0x0f, 0x01, 0xf8),
        PRIVILEGED("sysretq", 0x48, 0x0f, 0x07),
        PRIVILEGED("xsetbv", 0x0f, 0x01, 0xd1),
        PRIVILEGED("rdpmc", 0x0f, 0x33),
    };

    check_all(list, ARRAY_SIZE(list));
}

TEST_TIMEOUT(ports, 60)
{
    static const struct insn list[] = {
        PRIVILEGED("in (%dx), %al", 0xec),
        PRIVILEGED("out %al, (%dx)", 0xee),
        PRIVILEGED("in (%dx), %eax", 0xed),
        PRIVILEGED("out %eax, (%dx)", 0xef),
        PRIVILEGED("in $0x80, %al", 0xe4, 0x80),
        PRIVILEGED("out %al, $0x80", 0xe6, 0x80),
        /* Where a platform has its own use for a port. */
        PRIVILEGED("in $0x81, %al", 0xe4, 0x81),
        PRIVILEGED("out %al, $0x81", 0xe6, 0x81),
        PRIVILEGED("out %ax, $0x81", 0x66, 0xe7, 0x81),
        PRIVILEGED("in $0x82, %al", 0xe4, 0x82),
        PRIVILEGED("out %al, $0x82", 0xe6, 0x82),
        PRIVILEGED("insb", 0x6c),
        PRIVILEGED("outsb", 0x6e),
        PRIVILEGED("rep outsl", 0xf3, 0x6f),
    };

    check_all(list, ARRAY_SIZE(list));
}

TEST_TIMEOUT(traps, 60)
{
    static const struct insn list[] = {
        INSN("ud2", 0, SIGILL, ILL_ILLOPN, AT_INSN, 0, 0x0f, 0x0b),
        INSN("push %cs in 64 bits", 0, SIGILL, ILL_ILLOPN, AT_INSN, 0, 0x0e),
        INSN("into in 64 bits", 0, SIGILL, ILL_ILLOPN, AT_INSN, 0, 0xce),
        INSN("int3", 0, SIGTRAP, SI_KERNEL, 0, 1, 0xcc),
        INSN("int $3", 0, SIGTRAP, SI_KERNEL, 0, 2, 0xcd, 0x03),
        INSN("int $4", 0, SIGSEGV, SI_KERNEL, 0, 2, 0xcd, 0x04),
        INSN("int $13", 0, SIGSEGV, SI_KERNEL, 0, 0, 0xcd, 0x0d),
        INSN("int $14", 0, SIGSEGV, SI_KERNEL, 0, 0, 0xcd, 0x0e),
        INSN("int $32", 0, SIGSEGV, SI_KERNEL, 0, 0, 0xcd, 0x20),
        INSN("int $255", 0, SIGSEGV, SI_KERNEL, 0, 0, 0xcd, 0xff),
        /* xor %edx, %edx; xor %ecx, %ecx; div %ecx */
        INSN("div by zero", 0, SIGFPE, FPE_INTDIV, AT_INSN, 4, 0x31, 0xd2, 0x31, 0xc9, 0xf7, 0xf1),
        /* pushq $0x100; popfq; nop */
        INSN("trap flag", 0, SIGTRAP, TRAP_TRACE, AT_INSN, 7, 0x68, 0, 1, 0, 0, 0x9d, 0x90),
    };

    check_all(list, ARRAY_SIZE(list));
}

/* The stack segment's faults are bus errors. */
TEST_TIMEOUT(addresses, 60)
{
    static const struct insn list[] = {
        INSN("load", NON_CANONICAL, SIGSEGV, SI_KERNEL, 0, 0, 0x48, 0x8b, 0x07),
        INSN("store", NON_CANONICAL, SIGSEGV, SI_KERNEL, 0, 0, 0x48, 0x89, 0x07),
        INSN("load, upper half", KERNEL_HALF, SIGSEGV, SEGV_MAPERR, KERNEL_HALF, 0, 0x48, 0x8b,
             0x07),
        INSN("store, upper half", KERNEL_HALF, SIGSEGV, SEGV_MAPERR, KERNEL_HALF, 0, 0x48, 0x89,
             0x07),
        /* mov %rdi, %rsp; push %rax */
        INSN("push", NON_CANONICAL + 64, SIGBUS, SI_KERNEL, 0, 3, 0x48, 0x89, 0xfc, 0x50),
        /* mov %rdi, %rbp; mov (%rbp), %rax */
        INSN("load by rbp", NON_CANONICAL, SIGBUS, SI_KERNEL, 0, 3, 0x48, 0x89, 0xfd, 0x48, 0x8b,
             0x45, 0x00),
        /* mov %rax, %gs: a selector that is not there */
        INSN("selector", 0xfff0, SIGSEGV, SI_KERNEL, 0, 0, 0x8e, 0xe8),
        /* mov %rsp, %rsi; and $~15, %rsi; movaps 1(%rsi), %xmm0 */
        INSN("movaps", 0, SIGSEGV, SI_KERNEL, 0, 7, 0x48, 0x89, 0xe6, 0x48, 0x83, 0xe6, 0xf0, 0x0f,
             0x28, 0x46, 0x01),
    };

    check_all(list, ARRAY_SIZE(list));
}

/* ---- faults and signals ---- */

__asm__(".pushsection .text\n"
        ".globl fault_at, fault_behind\n"
        "fault_at:\n"
        "    ud2\n"
        "fault_behind:\n"
        "    ret\n"
        ".popsection\n");

void fault_at(void);
extern const char fault_behind[];

static volatile sig_atomic_t alarms, faults, strays;

static void on_alarm(int sig)
{
    (void)sig;
    alarms++;
}

static void on_own_fault(int sig, siginfo_t *si, void *arg)
{
    ucontext_t *uc = arg;

    (void)sig;
    (void)si;
    faults++;
    if (uc->uc_mcontext.gregs[REG_RIP] != (greg_t)(uintptr_t)fault_at)
        strays++;
    else
        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)fault_behind;
}

/* Whichever comes first: an exception is that of its own instruction, once, and not of what a
 * signal has brought to its place. */
TEST_TIMEOUT(faults_meet_signals, 60)
{
    const struct itimerval often = {.it_interval = {0, 300}, .it_value = {0, 300}};
    const struct itimerval never = {{0, 0}, {0, 0}};

    conf_sigaction(SIGILL, on_own_fault, 0);
    conf_handler(SIGALRM, on_alarm, SA_RESTART);
    OK(setitimer(ITIMER_REAL, &often, NULL));
    for (int made = 1; alarms < 500; made++) {
        fault_at();
        CHECK_EQ(faults, made);
    }
    OK(setitimer(ITIMER_REAL, &never, NULL));
    CHECK_EQ(strays, 0);
}

/* Jumps to where nothing can be: the processor says at the jump or at its target. */
TEST(jumps_to_nowhere)
{
    static const unsigned char jump[] = {0xff, 0xe7}; /* jmp *%rdi */
    static const unsigned char ret[] = {0x57, 0xc3};  /* push %rdi; ret */

    prepare();
    execute(jump, sizeof(jump), NON_CANONICAL);
    CHECK_EQ(seen->signo, SIGSEGV);
    CHECK_EQ(seen->code, SI_KERNEL);
    execute(ret, sizeof(ret), NON_CANONICAL);
    CHECK_EQ(seen->signo, SIGSEGV);
    CHECK_EQ(seen->code, SI_KERNEL);
    execute(jump, sizeof(jump), KERNEL_HALF);
    CHECK_EQ(seen->signo, SIGSEGV);
    CHECK_EQ(seen->code, SEGV_MAPERR);
    CHECK_EQ(seen->addr, KERNEL_HALF);
    CHECK_EQ(seen->off + (unsigned long)code_page, KERNEL_HALF);
}

/* pushfq; orl $0x40000, (%rsp); popfq; mov 1(%rsp), %eax */
TEST(alignment_check)
{
    static const unsigned char code[] = {0x9c, 0x81, 0x0c, 0x24, 0,    0,   4,
                                         0,    0x9d, 0x8b, 0x44, 0x24, 0x01};

    prepare();
    execute(code, sizeof(code), 0);
    CHECK_EQ(seen->signo, SIGBUS);
    CHECK_EQ(seen->code, BUS_ADRALN);
    CHECK_EQ(seen->off, 9);
}

/* ---- arithmetic ---- */

/* x87: the next waiting instruction tells. SSE: at once. */
TEST(floating_point)
{
    /* fninit; fstcw; and $~4 of the control word; fldcw; fld1; fldz; fdivrp; fwait */
    static const unsigned char x87[] = {0xdb, 0xe3, 0xd9, 0x7c, 0x24, 0xf0, 0x66, 0x83,
                                        0x64, 0x24, 0xf0, 0xfb, 0xd9, 0x6c, 0x24, 0xf0};
    static const unsigned char x87_div[] = {0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b};
    /* movl $0x1d80 (divisions by zero are told), -16(%rsp); ldmxcsr; pxor; movl 1.0; divss */
    static const unsigned char sse[] = {0xc7, 0x44, 0x24, 0xf0, 0x80, 0x1d, 0,    0,   0x0f,
                                        0xae, 0x54, 0x24, 0xf0, 0x66, 0x0f, 0xef, 0xc0};
    static const unsigned char sse_div[] = {0xc7, 0x44, 0x24, 0xf0, 0,    0,    0x80, 0x3f, 0xf3,
                                            0x0f, 0x10, 0x4c, 0x24, 0xf0, 0xf3, 0x0f, 0x5e, 0xc8};
    unsigned char code[64];

    prepare();
    memcpy(code, x87, sizeof(x87));
    memcpy(code + sizeof(x87), x87_div, sizeof(x87_div));
    execute(code, sizeof(x87) + sizeof(x87_div), 0);
    CHECK_EQ(seen->signo, SIGFPE);
    CHECK_EQ(seen->code, FPE_FLTDIV);
    memcpy(code, sse, sizeof(sse));
    memcpy(code + sizeof(sse), sse_div, sizeof(sse_div));
    execute(code, sizeof(sse) + sizeof(sse_div), 0);
    CHECK_EQ(seen->signo, SIGFPE);
    CHECK_EQ(seen->code, FPE_FLTDIV);
    CHECK_EQ(seen->off, sizeof(sse) + sizeof(sse_div) - 4);
}

/* ---- what CPUID promises ---- */

/* Every feature that CPUID and XCR0 show can be used: none of these gives SIGILL. */
TEST(features_work)
{
    unsigned a, b, c, d;

    CHECK(__get_cpuid(1, &a, &b, &c, &d));
    CHECK((d & bit_SSE2) && (d & bit_FXSAVE));
    if (!(c & bit_OSXSAVE))
        return;
    unsigned xcr0, high;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    CHECK_EQ(xcr0 & 3, 3);
    if (c & bit_AVX) {
        CHECK_EQ(xcr0 & 7, 7);
        __asm__ volatile("vpxor %%ymm0, %%ymm0, %%ymm0" ::: "xmm0");
    }
    CHECK(__get_cpuid_count(7, 0, &a, &b, &c, &d));
    if (b & bit_AVX2)
        __asm__ volatile("vpaddd %%ymm0, %%ymm0, %%ymm0" ::: "xmm0");
    if (b & bit_BMI2)
        __asm__ volatile("rorx $1, %%rax, %%rax" ::: "rax");
    if ((b & bit_AVX512F) && (xcr0 & 0xe0) == 0xe0)
        __asm__ volatile("vpxord %%zmm17, %%zmm17, %%zmm17\n\tkxnorw %%k1, %%k1, %%k1" ::
                             : "memory");
    if ((b & bit_FSGSBASE) && (getauxval(AT_HWCAP2) & 2)) {
        unsigned long fs;
        __asm__ volatile("rdfsbase %0\n\twrfsbase %0" : "=r"(fs));
        CHECK(fs != 0);
    }
    /* Room for all enabled parts is no more than for all there are. */
    __cpuid_count(13, 0, a, b, c, d);
    CHECK((a & xcr0) == xcr0);
    CHECK(b >= 576 && b <= c);
}

/* Vectors, masks and FS are those of the program over calls, other programs and signals. */
static volatile int ticks;

static void on_tick(int sig)
{
    (void)sig;
    /* A handler with vectors of its own. */
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n\tpcmpeqd %%xmm7, %%xmm7" ::: "xmm0", "xmm7");
    ticks++;
}

static bool have_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

static void vectors_round(unsigned char *want, unsigned char *got, unsigned seed)
{
    const bool avx = __builtin_cpu_supports("avx"), avx512 = have_avx512();
    const size_t size = avx512 ? 64 : avx ? 32 : 16;

    for (size_t i = 0; i < 64; i++)
        want[i] = (unsigned char)(seed * 31 + i);
    if (avx512)
        __asm__ volatile("vmovdqu64 (%0), %%zmm31\n\tmov $39, %%eax\n\tsyscall\n\t"
                         "vmovdqu64 %%zmm31, (%1)" ::"r"(want),
                         "r"(got)
                         : "rax", "rcx", "r11", "memory");
    else if (avx)
        __asm__ volatile("vmovdqu (%0), %%ymm15\n\tmov $39, %%eax\n\tsyscall\n\t"
                         "vmovdqu %%ymm15, (%1)" ::"r"(want),
                         "r"(got)
                         : "rax", "rcx", "r11", "xmm15", "memory");
    else
        __asm__ volatile("movdqu (%0), %%xmm15\n\tmov $39, %%eax\n\tsyscall\n\t"
                         "movdqu %%xmm15, (%1)" ::"r"(want),
                         "r"(got)
                         : "rax", "rcx", "r11", "xmm15", "memory");
    CHECK(memcmp(want, got, size) == 0);
}

TEST_TIMEOUT(vectors_are_kept, 60)
{
    unsigned char want[64], got[64];
    const pid_t pid = conf_fork();

    if (pid == 0)
        for (unsigned i = 0;; i++)
            vectors_round(want, got, i * 7 + 3);
    conf_handler(SIGUSR1, on_tick, 0);
    for (unsigned i = 0; i < 300; i++) {
        vectors_round(want, got, i);
        if (i % 10 == 0)
            raise(SIGUSR1);
    }
    CHECK_EQ(ticks, 30);
    conf_kill(pid);
}
