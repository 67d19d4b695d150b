/* The two filters of stubs. What guest code calls traps, whatever it is, and so does what code of
 * ours calls that it is not told to. Control threads have the wider one alone; threads that run
 * guest code have both. */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/systrap/systrap_priv.h"

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_HIGH(field)                                                                           \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field) + 4)
#define LOAD_ARG(i)                                                                                \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, args) + 8 * (i))
#define LOAD_ARG_HIGH(i)                                                                           \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, args) + 8 * (i) + 4)
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, (skip))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define TRAP RETURN(SECCOMP_RET_TRAP)
#define ALLOW RETURN(SECCOMP_RET_ALLOW)
#define ALLOW_CALL(nr) UNLESS((nr), 1), ALLOW
/* Only with one of two values of an argument. */
#define ALLOW_CALL_IF(nr, arg, a, b)                                                               \
    UNLESS((nr), 6), LOAD_ARG(arg), UNLESS((a), 1), ALLOW, UNLESS((b), 1), ALLOW, TRAP
/* Nothing passes that was not called from the code page, by its native gate. */
#define FROM_TEXT(text)                                                                            \
    LOAD(arch), UNLESS(AUDIT_ARCH_X86_64, 5), LOAD_HIGH(instruction_pointer),                      \
        UNLESS((text) >> 32, 3), LOAD(instruction_pointer),                                        \
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~(uint32_t)(PAGE_SIZE - 1)),                           \
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(text), 1, 0), TRAP, LOAD(nr)

int st_filter_load(const struct st_plat *p)
{
    struct sock_filter code[] = {
        FROM_TEXT(p->text),
        ALLOW_CALL_IF(SYS_futex, 1, FUTEX_WAIT, FUTEX_WAKE),
        ALLOW_CALL(SYS_sched_yield),
        ALLOW_CALL(SYS_mmap),
        ALLOW_CALL(SYS_munmap),
        ALLOW_CALL(SYS_mprotect),
        ALLOW_CALL_IF(SYS_pwrite64, 0, p->ops_fd, p->ops_fd),
        ALLOW_CALL_IF(SYS_clone, 0, ST_PROCESS_FLAGS, ST_THREAD_FLAGS),
        ALLOW_CALL(SYS_rt_sigprocmask),
        ALLOW_CALL(SYS_sigaltstack),
        ALLOW_CALL_IF(SYS_seccomp, 0, SECCOMP_SET_MODE_FILTER, SECCOMP_SET_MODE_FILTER),
        ALLOW_CALL_IF(SYS_prctl, 0, PR_SET_PDEATHSIG, PR_SET_TSC),
        ALLOW_CALL(SYS_exit),
        ALLOW_CALL(SYS_exit_group),
        TRAP,
    };
    const struct sock_fprog prog = {.len = ARRAY_SIZE(code), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -errno;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0 ? 0 : -errno;
}

_Static_assert(PR_SET_TSC == ST_PR_SET_TSC, "prctl(2)");

void st_data_fill(const struct st_plat *p, void *page)
{
    const uint64_t data = p->text + PAGE_SIZE, mask_addr = data + ST_DATA_MASK,
                   mask = UINT64_C(1) << (ST_SIGNAL - 1);
    const struct sock_filter code[] = {
        FROM_TEXT(p->text),
        ALLOW_CALL_IF(SYS_futex, 1, FUTEX_WAIT, FUTEX_WAKE),
        ALLOW_CALL(SYS_sched_yield),
        ALLOW_CALL(SYS_exit),
        ALLOW_CALL_IF(SYS_prctl, 0, PR_SET_TSC, PR_SET_TSC),
        /* Once, at the start; afterwards it changes nothing. */
        UNLESS(SYS_rt_sigprocmask, 9),
        LOAD_ARG(0),
        UNLESS(SIG_UNBLOCK, 7),
        LOAD_ARG(1),
        UNLESS(mask_addr, 5),
        LOAD_ARG_HIGH(1),
        UNLESS(mask_addr >> 32, 3),
        LOAD_ARG(2),
        UNLESS(0, 1),
        ALLOW,
        TRAP,
    };
    const struct sock_fprog prog = {
        .len = ARRAY_SIZE(code),
        .filter = (struct sock_filter *)(uintptr_t)(data + ST_DATA_FPROG + sizeof(prog))};
    char *m = page;

    _Static_assert(ST_DATA_FPROG + sizeof(prog) + sizeof(code) <= PAGE_SIZE, "one page");
    for (int i = 0; i < 256; i++)
        m[ST_DATA_BYTES + i] = (char)i;
    memcpy(m + ST_DATA_MASK, &mask, sizeof(mask));
    memcpy(m + ST_DATA_FPROG, &prog, sizeof(prog));
    memcpy(m + ST_DATA_FPROG + sizeof(prog), code, sizeof(code));
}
