/* What the conformance programs about ptrace share: requests, stops, children.
 * Depends on: harness.h.
 * Threading: as harness.h.
 * Ownership: nothing is kept. */
#ifndef CONFORMANCE_PTRACE_UTIL_H
#define CONFORMANCE_PTRACE_UTIL_H

#include "harness.h"

#include <linux/ptrace.h>
#include <stdio.h>
#include <sys/user.h>

#define EVENT_STATUS(event) (SIGTRAP | (event) << 8)
/* The kernel's struct user has two words more than that of libc. */
#define USER_SIZE 928
#define STOP_CODE(status) ((status) >> 8)

static inline long pt(long request, pid_t pid, unsigned long addr, unsigned long data)
{
    return syscall(SYS_ptrace, request, (long)pid, addr, data);
}

static inline long peek(pid_t pid, const volatile void *addr)
{
    long word = 0;
    OK(pt(PTRACE_PEEKDATA, pid, (unsigned long)addr, (unsigned long)&word));
    return word;
}

static inline int wait_stop(pid_t pid)
{
    int status = 0;
    CHECK_EQ(OK(waitpid(pid, &status, __WALL)), pid);
    if (!WIFSTOPPED(status))
        conf_fail(__FILE__, __LINE__, "status 0x%x is no stop", (unsigned)status);
    return STOP_CODE(status);
}

static inline void get_regs(pid_t pid, struct user_regs_struct *regs)
{
    OK(pt(PTRACE_GETREGS, pid, 0, (unsigned long)regs));
}

/* A child that asks to be traced and stops itself. */
static inline pid_t traced_child(void (*run)(void))
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

static inline void run_nothing(void)
{
}

static inline void run_pause(void)
{
    for (;;)
        pause();
}

static inline pid_t plain_child(void (*run)(void))
{
    pid_t pid = conf_fork();
    if (pid == 0) {
        run();
        _exit(0);
    }
    return pid;
}

#endif
