/* ptrace(2) and wait4(2) on one stub thread. */
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/ptrace/ptrace_priv.h"

_Static_assert(sizeof(struct plat_regs) == sizeof(struct user_regs_struct), "same layout");

static long pt_ptrace(int request, pid_t tid, uint64_t addr, const void *data)
{
    return syscall(SYS_ptrace, (long)request, (long)tid, addr, data);
}

int pt_get_regs(pid_t tid, struct plat_regs *regs)
{
    return pt_ptrace(PTRACE_GETREGS, tid, 0, regs) == 0 ? 0 : -errno;
}

int pt_set_regs(pid_t tid, const struct plat_regs *regs)
{
    return pt_ptrace(PTRACE_SETREGS, tid, 0, regs) == 0 ? 0 : -errno;
}

int64_t pt_get_xstate(pid_t tid, void *buf, size_t size)
{
    struct iovec iov = {buf, size};

    if (pt_ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &iov) != 0)
        return -errno;
    return (int64_t)iov.iov_len;
}

int pt_set_xstate(pid_t tid, const void *buf, size_t size)
{
    struct iovec iov = {(void *)(uintptr_t)buf, size};

    return pt_ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &iov) == 0 ? 0 : -errno;
}

int pt_wait_stop(pid_t tid, int *out_status)
{
    pid_t r;

    do
        r = wait4(tid, out_status, __WALL, NULL);
    while (r < 0 && errno == EINTR);
    return r == tid && WIFSTOPPED(*out_status) ? 0 : -ECHILD;
}

/* Goes on till the thread has stopped because of PTRACE_INTERRUPT. */
static int pt_wait_interrupt(pid_t tid)
{
    int status;

    for (;;) {
        int r = pt_wait_stop(tid, &status);
        if (r != 0)
            return r;
        if (status >> 16 == PTRACE_EVENT_STOP)
            return 0;
        /* A leftover PT_INTERRUPT of its former use. */
        if (pt_ptrace(PTRACE_CONT, tid, 0, NULL) != 0)
            return -errno;
    }
}

int pt_seize(pid_t tid)
{
    const uintptr_t options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;

    if (pt_ptrace(PTRACE_SEIZE, tid, 0, (const void *)options) != 0 ||
        pt_ptrace(PTRACE_INTERRUPT, tid, 0, NULL) != 0)
        return -errno;
    return pt_wait_interrupt(tid);
}

int pt_settle(const struct pt_plat *p, pid_t tid, uint32_t slot)
{
    struct plat_regs regs;
    bool interrupted;

    pt_fork_regs(p, slot, &regs);
    regs.rip = pt_stub_addr(p, stub_settle);
    regs.rsp = 1;
    return pt_run_stub(tid, &regs, &interrupted);
}

int pt_detach(const struct pt_plat *p, pid_t tid)
{
    const struct plat_regs regs = {
        .rip = pt_stub_addr(p, stub_park),
        .orig_rax = UINT64_MAX,
        .eflags = STUB_EFLAGS,
        .cs = STUB_USER_CS,
        .ss = STUB_USER_SS,
    };

    int r = pt_set_regs(tid, &regs);
    if (r == 0 && pt_ptrace(PTRACE_DETACH, tid, 0, NULL) != 0)
        r = -errno;
    return r;
}

int pt_run_stub(pid_t tid, struct plat_regs *regs, bool *interrupted)
{
    uintptr_t deliver = 0;
    int status;
    int r;

    regs->orig_rax = UINT64_MAX;
    /* The guest may have left the trap flag or the direction flag on. */
    regs->eflags = STUB_EFLAGS;
    r = pt_set_regs(tid, regs);
    if (r != 0)
        return r;
    for (;;) {
        if (pt_ptrace(PTRACE_CONT, tid, 0, (const void *)deliver) != 0)
            return -errno;
        r = pt_wait_stop(tid, &status);
        if (r != 0)
            return r;
        int sig = WSTOPSIG(status);
        if (status >> 16 != 0)
            continue;
        if (sig == SIGTRAP)
            return 0;
        if (sig == SIGILL) {
            r = pt_get_regs(tid, regs);
            return r != 0 ? r : 1;
        }
        if (sig == PT_INTERRUPT)
            *interrupted = true;
        if (sig == SIGSEGV || sig == SIGBUS) {
            /* Ours does not fault. It came from outside, or the host has no memory for its page. */
            log_error("ptrace: signal %d in a stub's own code", sig);
            deliver = SIGKILL;
        }
    }
}

int pt_call(const struct pt_plat *p, pid_t tid, uint64_t nr, const uint64_t args[6],
            int64_t *out_ret, bool *interrupted)
{
    struct plat_regs regs = {.cs = STUB_USER_CS, .ss = STUB_USER_SS};

    regs.rip = pt_stub_addr(p, stub_call);
    regs.rax = nr;
    regs.rdi = args[0];
    regs.rsi = args[1];
    regs.rdx = args[2];
    regs.r10 = args[3];
    regs.r8 = args[4];
    regs.r9 = args[5];
    int r = pt_run_stub(tid, &regs, interrupted);
    *out_ret = (int64_t)regs.rax;
    return MIN(r, 0);
}

void pt_kill(pid_t pid)
{
    (void)syscall(SYS_tgkill, pid, pid, SIGKILL);
}

void pt_reap(pid_t pid)
{
    while (wait4(pid, NULL, __WALL, NULL) < 0 && errno == EINTR)
        ;
}

void pt_end(struct pt_plat *p, pid_t pid)
{
    mutex_lock(&p->mu);
    for (size_t i = 0; i < p->ended_count;) {
        if (wait4(p->ended[i], NULL, __WALL | WNOHANG, NULL) == 0)
            i++;
        else
            p->ended[i] = p->ended[--p->ended_count];
    }
    if (p->ended_count < PT_ENDED_MAX) {
        p->ended[p->ended_count++] = pid;
        pid = 0;
    }
    mutex_unlock(&p->mu);
    if (pid != 0)
        pt_reap(pid);
}
