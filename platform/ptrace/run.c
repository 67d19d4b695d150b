/* The switch: into guest code, and why it came back. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "platform/ptrace/ptrace_priv.h"

#ifndef PTRACE_SYSEMU_SINGLESTEP
#define PTRACE_SYSEMU_SINGLESTEP 32
#endif

static long run_ptrace(long request, pid_t tid, const void *data)
{
    return syscall(SYS_ptrace, request, (long)tid, 0L, data);
}

static uint64_t run_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

void pt_ctx_interrupt(struct plat_ctx *base)
{
    struct pt_ctx *c = pt_ctx(base);

    atomic_store(&c->interrupt, true);
    if (atomic_load(&c->in_guest))
        (void)syscall(SYS_tgkill, c->as->pid, c->tid, PT_INTERRUPT);
}

static void run_leave(struct pt_ctx *c)
{
    struct pt_as *as = c->as;

    atomic_store(&c->in_guest, false);
    if (UNLIKELY(atomic_load(&as->waiting) != 0)) {
        mutex_lock(&as->mu);
        cond_broadcast(&as->idle);
        mutex_unlock(&as->mu);
    }
}

/* What is queued, and a promise to be stopped from now on. False: the stub is gone. */
static bool run_enter(struct pt_ctx *c)
{
    struct pt_as *as = c->as;

    for (;;) {
        atomic_store(&c->in_guest, true);
        if (LIKELY(!atomic_load(&as->has_ops)))
            return true;
        run_leave(c);
        mutex_lock(&as->mu);
        /* A mapping that failed shows as a fault of the guest, which mm then looks at. */
        (void)!pt_as_flush_locked(as, c);
        mutex_unlock(&as->mu);
        if (c->dead)
            return false;
    }
}

/* `syscall` leaves the return address in rcx and the flags in r11; int 0x80 does not, and a guest
 * that imitates that only makes an ordinary call. */
static bool run_is_syscall(const struct pt_ctx *c)
{
    struct __ptrace_syscall_info info;

    if (LIKELY(c->regs.rcx == c->regs.rip))
        return true;
    memset(&info, 0, sizeof(info));
    if (syscall(SYS_ptrace, (long)PTRACE_GET_SYSCALL_INFO, (long)c->tid, sizeof(info), &info) < 0)
        return false;
    return info.arch == 0xc000003eu;
}

static enum plat_event run_fault(struct pt_ctx *c, const siginfo_t *si, struct plat_fault *out)
{
    out->signo = si->si_signo;
    out->code = si->si_code;
    out->addr = (uint64_t)(uintptr_t)si->si_addr;
    out->access = out->addr == c->regs.rip ? PLAT_EXEC : PLAT_ACCESS_UNKNOWN;
    out->trapno = 0;
    out->errcode = 0;
    return PLAT_EVENT_FAULT;
}

/* int 0x80, the 32-bit gate, is not offered: as on a host without it. */
static enum plat_event run_gate(struct pt_ctx *c, struct plat_fault *out)
{
    const siginfo_t si = {.si_signo = SIGSEGV, .si_code = SI_KERNEL};

    c->regs.rip -= 2;
    c->regs.rax = c->regs.orig_rax;
    run_fault(c, &si, out);
    out->access = PLAT_ACCESS_UNKNOWN;
    return PLAT_EVENT_FAULT;
}

/* A signal stop: true when guest code goes on. */
static bool run_signal(struct pt_ctx *c, int sig, struct plat_fault *out, enum plat_event *event)
{
    siginfo_t si;

    *event = PLAT_EVENT_INTERRUPT;
    if (sig == PT_INTERRUPT)
        return false;
    if (sig != SIGSEGV && sig != SIGBUS && sig != SIGFPE && sig != SIGILL && sig != SIGTRAP &&
        sig != SIGSYS)
        return true;
    memset(&si, 0, sizeof(si));
    if (run_ptrace(PTRACE_GETSIGINFO, c->tid, &si) != 0 || si.si_code <= 0)
        return true;
    if (sig == SIGSYS) {
        /* The vsyscall page: the host has carried out the return, the call is ours. */
        c->regs.orig_rax = (uint64_t)(int64_t)si.si_syscall;
        c->regs.rax = (uint64_t)-ENOSYS;
        *event = PLAT_EVENT_SYSCALL;
        return false;
    }
    *event = run_fault(c, &si, out);
    return false;
}

/* Looks at one stop, with the registers read. True when guest code goes on. */
static bool run_stop(struct pt_ctx *c, int status, struct plat_fault *out, enum plat_event *event)
{
    int sig = WSTOPSIG(status);

    if (LIKELY(sig == (SIGTRAP | 0x80))) {
        *event = run_is_syscall(c) ? PLAT_EVENT_SYSCALL : run_gate(c, out);
        return false;
    }
    if (status >> 16 != 0) {
        *event = PLAT_EVENT_INTERRUPT;
        return false;
    }
    return run_signal(c, sig, out, event);
}

static enum plat_event run_guest(struct pt_ctx *c, long request, struct plat_fault *out)
{
    enum plat_event event;
    int status;

    c->regs.orig_rax = UINT64_MAX;
    if (pt_set_regs(c->tid, &c->regs) != 0)
        return PLAT_EVENT_DEAD;
    do {
        if (run_ptrace(request, c->tid, NULL) != 0 || pt_wait_stop(c->tid, &status) != 0 ||
            pt_get_regs(c->tid, &c->regs) != 0)
            return PLAT_EVENT_DEAD;
    } while (run_stop(c, status, out, &event));
    return event;
}

static enum plat_event run_dead(struct pt_ctx *c)
{
    c->dead = true;
    mutex_lock(&c->as->mu);
    /* The leader's end has been taken with the wait: its number may already be another's. */
    if (c->tid == c->as->pid)
        c->as->gone = true;
    mutex_unlock(&c->as->mu);
    return PLAT_EVENT_DEAD;
}

enum plat_event pt_ctx_run(struct plat_ctx *base, bool single_step, struct plat_fault *out)
{
    struct pt_ctx *c = pt_ctx(base);
    enum plat_event event;

    if (pt_ctx_own(c) != 0)
        return PLAT_EVENT_DEAD;
    if (!run_enter(c)) {
        run_leave(c);
        return run_dead(c);
    }
    if (atomic_exchange(&c->interrupt, false)) {
        run_leave(c);
        return PLAT_EVENT_INTERRUPT;
    }
    pt_place_enter(c);
    uint64_t start = run_now();
    event = run_guest(c, single_step ? PTRACE_SYSEMU_SINGLESTEP : PTRACE_SYSEMU, out);
    atomic_fetch_add_explicit(&c->cpu_ns, run_now() - start, memory_order_relaxed);
    pt_place_leave(c);
    run_leave(c);
    if (event == PLAT_EVENT_INTERRUPT)
        atomic_store(&c->interrupt, false);
    return event == PLAT_EVENT_DEAD ? run_dead(c) : event;
}
