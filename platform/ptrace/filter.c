/* The filter of stubs: nothing but what stub.S is told to do, from its page. Calls of guest code
 * never get here, they are stopped before; the vsyscall page, which the host emulates, traps. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/ptrace/ptrace_priv.h"

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_HIGH(field)                                                                           \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field) + 4)
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define LOAD_ARG(i)                                                                                \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, args) + 8 * (i))
#define KILL RETURN(SECCOMP_RET_KILL_PROCESS)
#define ALLOW RETURN(SECCOMP_RET_ALLOW)
#define ALLOW_CALL(nr) UNLESS((nr), 1), ALLOW
/* Only with one of two first arguments. */
#define ALLOW_CALL_IF(nr, a, b)                                                                    \
    UNLESS((nr), 6), LOAD_ARG(0), UNLESS((uint32_t)(a), 1), ALLOW, UNLESS((uint32_t)(b), 1),       \
        ALLOW, KILL

int pt_filter_load(uint64_t text)
{
    struct sock_filter code[] = {
        LOAD(arch),
        UNLESS(AUDIT_ARCH_X86_64, 5),
        LOAD_HIGH(instruction_pointer),
        UNLESS((uint32_t)(text >> 32), 4),
        LOAD(instruction_pointer),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~(uint32_t)(PAGE_SIZE - 1)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)text, 2, 1),
        KILL,
        RETURN(SECCOMP_RET_TRAP),
        LOAD(nr),
        ALLOW_CALL(SYS_mmap),
        ALLOW_CALL(SYS_munmap),
        ALLOW_CALL(SYS_mprotect),
        ALLOW_CALL(SYS_pause),
        ALLOW_CALL(SYS_restart_syscall),
        ALLOW_CALL(SYS_exit),
        ALLOW_CALL(SYS_exit_group),
        ALLOW_CALL_IF(SYS_prctl, PR_SET_PDEATHSIG, PR_SET_TSC),
        UNLESS(SYS_clone, 5),
        LOAD_ARG(0),
        UNLESS((uint32_t)PT_PROCESS_FLAGS, 1),
        ALLOW,
        UNLESS((uint32_t)PT_THREAD_FLAGS, 1),
        ALLOW,
        KILL,
    };
    const struct sock_fprog prog = {.len = ARRAY_SIZE(code), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -errno;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0 ? 0 : -errno;
}
