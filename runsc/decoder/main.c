/* The decoder: a process that only disassembles. It comes from the sentry before that has threads,
 * in the sentry's namespaces and without capabilities, has one descriptor, and takes everything
 * else away from itself before it reads a byte from there. */
#include <elf.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/patch/decoder/decoder.h"
#include "runsc/sandbox/confine.h"
#include "runsc/sandbox/decoder.h"

/* ---- confinement ---- */

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_ARG(i, high)                                                                          \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS,                                                             \
             (uint32_t)offsetof(struct seccomp_data, args) + 8 * (i) + 4 * (high))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, (skip))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define EQ(arg, value) arg, value
#define ALLOW(name, owner, reason) UNLESS(SYS_##name, 1), RETURN(SECCOMP_RET_ALLOW),
#define ALLOW_IF(name, owner, reason, ...) ALLOW_ROW(SYS_##name, __VA_ARGS__)
#define ALLOW_ROW(call, ...) ALLOW_EQ(call, __VA_ARGS__)
#define ALLOW_EQ(call, arg, value)                                                                 \
    UNLESS(call, 5), LOAD_ARG(arg, 0), UNLESS(value, 3), LOAD_ARG(arg, 1), UNLESS(0, 1),           \
        RETURN(SECCOMP_RET_ALLOW), LOAD(nr),

static int load_filter(void)
{
    struct sock_filter code[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        RETURN(SECCOMP_RET_KILL_PROCESS),
        LOAD(nr),
#include "runsc/decoder/seccomp_decoder.def"
        RETURN(SECCOMP_RET_KILL_PROCESS),
    };
    const struct sock_fprog prog = {.len = ARRAY_SIZE(code), .filter = code};

    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0 ? 0 : -errno;
}

static int limit(void)
{
    static const struct {
        int resource;
        rlim_t value;
    } limits[] = {{RLIMIT_AS, 32u << 20}, {RLIMIT_DATA, 4u << 20}, {RLIMIT_STACK, 256u << 10},
                  {RLIMIT_NPROC, 0},      {RLIMIT_FSIZE, 0},       {RLIMIT_NOFILE, DECODER_FD + 1}};

    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        const struct rlimit l = {limits[i].value, limits[i].value};
        if (setrlimit((__rlimit_resource_t)limits[i].resource, &l) != 0)
            return -errno;
    }
    return 0;
}

static int confine(void)
{
    const char *step;
    int abi;
    int r = confine_landlock(false, &abi, &step);

    if (r == 0)
        r = limit();
    if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        r = -errno;
    return r != 0 ? r : load_filter();
}

/* ---- waiting ---- */

/* Of the program (ld(1)). */
extern const Elf64_Ehdr __ehdr_start;

/* Its code and constants. */
static struct {
    uintptr_t start, end;
} program;

static void find_program(void)
{
    const uintptr_t start = (uintptr_t)&__ehdr_start,
                    base = __ehdr_start.e_type == ET_DYN ? start : 0;
    const Elf64_Phdr *p = (const void *)((const char *)&__ehdr_start + __ehdr_start.e_phoff);

    program.start = program.end = start;
    for (unsigned i = 0; i < __ehdr_start.e_phnum; i++)
        if (p[i].p_type == PT_LOAD && !(p[i].p_flags & PF_W))
            program.end = MAX(program.end, base + p[i].p_vaddr + p[i].p_memsz);
}

static inline long host_call(long nr, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = 0;
    register long r9 __asm__("r9") = 0;
    long r;

    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
}

/* Code and constants go while it waits, and come back from the page cache. Both calls are made
 * right here: the host maps all that it has cached around each page that is used, so one has to do.
 */
static ssize_t wait_without_pages(int fd, void *buf, size_t size)
{
    (void)host_call(SYS_madvise, (long)program.start, (long)(program.end - program.start),
                    MADV_DONTNEED, 0);
    const long n = host_call(SYS_recvfrom, fd, (long)buf, (long)size, 0);
    if (n >= 0)
        return n;
    errno = (int)-n;
    return -1;
}

int main(void)
{
    struct decoder d;

    (void)prctl(PR_SET_NAME, "runsc-decoder", 0, 0, 0);
    find_program();
    if (!decoder_open(&d) || confine() != 0)
        _exit(126);
    _exit(decoder_serve(&d, DECODER_FD, wait_without_pages) == 0 ? 0 : 1);
}
