/* The switch: into guest code, and why it came back. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/ptrace/ptrace_priv.h"

/* Results in this range, with orig_rax set, make the host restart a call when a signal is pending:
 * -ERESTART_RESTARTBLOCK to -ERESTARTSYS. */
#define RUN_RESTART_FIRST UINT64_C(-516)
#define RUN_RESTART_LAST UINT64_C(-512)

#ifndef PTRACE_SYSEMU_SINGLESTEP
#define PTRACE_SYSEMU_SINGLESTEP 32
#endif

static long run_ptrace(long request, pid_t tid, const void *data)
{
    return syscall(SYS_ptrace, request, (long)tid, 0L, data);
}

void pt_ctx_interrupt(struct plat_ctx *base)
{
    struct pt_ctx *c = pt_ctx(base);

    atomic_store(&c->interrupt, true);
    if (!atomic_load(&c->in_guest))
        return;
    /* The owner may have moved on meanwhile: then somebody else's stub gets a signal it ignores. */
    uint64_t target = atomic_load(&c->target);
    (void)syscall(SYS_tgkill, (pid_t)(target >> 32), (pid_t)(uint32_t)target, PT_INTERRUPT);
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

/* What is queued, and a promise to be stopped from now on. Fails when the stub is gone, or holds on
 * to memory that is not its own any more and must not run. */
static int run_enter(struct pt_ctx *c)
{
    struct pt_as *as = c->as;

    for (;;) {
        atomic_store(&c->in_guest, true);
        if (LIKELY(!atomic_load(&as->has_ops)))
            return 0;
        run_leave(c);
        bool stale = false;
        mutex_lock(&as->mu);
        /* A mapping that failed shows as a fault of the guest, which mm then looks at. */
        int r = pt_as_flush_locked(as, c, &stale);
        mutex_unlock(&as->mu);
        if (pt_is_gone(r))
            return r;
        if (stale)
            return -ESRCH;
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
    out->access = PLAT_ACCESS_UNKNOWN;
    if (si->si_code != SI_KERNEL && out->addr == c->regs.rip)
        out->access = PLAT_EXEC;
    stub_fault_trap(out);
    return PLAT_EVENT_FAULT;
}

/* int 0x80, the 32-bit gate, is not offered: as on a host without it. */
static enum plat_event run_gate(struct pt_ctx *c, struct plat_fault *out)
{
    const siginfo_t si = {.si_signo = SIGSEGV, .si_code = SI_KERNEL};

    c->regs.rip -= 2;
    c->regs.rax = c->regs.orig_rax;
    return run_fault(c, &si, out);
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

static bool run_same_but_rax(const struct plat_regs *a, const struct plat_regs *b)
{
    const size_t rax = offsetof(struct plat_regs, rax), orig = offsetof(struct plat_regs, orig_rax),
                 word = sizeof(uint64_t);

    return memcmp((const char *)a + orig + word, (const char *)b + orig + word,
                  sizeof(*a) - orig - word) == 0 &&
           memcmp((const char *)a + rax + word, (const char *)b + rax + word, orig - rax - word) ==
               0 &&
           memcmp(a, b, rax) == 0;
}

/* Gives the stub thread c's registers. After most calls only the result has changed, and one word
 * costs the host less than half of what all cost. -EIO: registers no user code can have. */
static int run_load(struct pt_ctx *c)
{
    const uint64_t rax = c->regs.rax;

    if (LIKELY(c->synced) && run_same_but_rax(&c->regs, &c->seen) &&
        !(rax >= RUN_RESTART_FIRST && rax <= RUN_RESTART_LAST)) {
        if (rax == c->seen.rax)
            return 0;
        return syscall(SYS_ptrace, (long)PTRACE_POKEUSER, (long)c->tid,
                       offsetof(struct user_regs_struct, rax), rax) == 0
                   ? 0
                   : -errno;
    }
    c->regs.orig_rax = UINT64_MAX;
    return pt_set_regs(c->tid, &c->regs);
}

/* As a return to user code that cannot be: the fault is the guest's. */
static enum plat_event run_bad_regs(struct pt_ctx *c, struct plat_fault *out)
{
    const siginfo_t si = {.si_signo = SIGSEGV, .si_code = SI_KERNEL};

    return run_fault(c, &si, out);
}

/* *reaped: with DEAD, whether the end was seen with wait(2). */
static enum plat_event run_guest(struct pt_ctx *c, long request, struct plat_fault *out,
                                 bool *reaped)
{
    enum plat_event event;
    int status;
    int r = run_load(c);

    *reaped = false;
    c->synced = false;
    if (r != 0)
        return r == -EIO ? run_bad_regs(c, out) : PLAT_EVENT_DEAD;
    do {
        if (run_ptrace(request, c->tid, NULL) != 0)
            return PLAT_EVENT_DEAD;
        if (pt_wait_stop(c->tid, &status) != 0) {
            *reaped = true;
            return PLAT_EVENT_DEAD;
        }
        if (pt_get_regs(c->tid, &c->regs) != 0)
            return PLAT_EVENT_DEAD;
        c->seen = c->regs;
        c->synced = true;
    } while (run_stop(c, status, out, &event));
    return event;
}

static enum plat_event run_dead(struct pt_ctx *c, bool reaped)
{
    pt_ctx_die(c, reaped);
    return PLAT_EVENT_DEAD;
}

/* prctl(2) by the stub thread itself. -ECHILD, -ESRCH: it has ended. */
static int run_set_tsc(struct pt_ctx *c)
{
    const uint64_t args[6] = {PR_SET_TSC, (uint64_t)c->tsc_due};
    bool interrupted = false;
    int64_t ret;

    c->tsc_due = 0;
    c->synced = false;
    int r = pt_call(pt_plat(c->base.plat), c->tid, SYS_prctl, args, &ret, &interrupted);
    if (interrupted)
        atomic_store(&c->interrupt, true);
    return r;
}

enum plat_event pt_ctx_run(struct plat_ctx *base, bool single_step, struct plat_fault *out)
{
    struct pt_ctx *c = pt_ctx(base);
    enum plat_event event;
    bool reaped;

    if (pt_ctx_own(c) != 0)
        return PLAT_EVENT_DEAD;
    int r = UNLIKELY(c->tsc_due) ? run_set_tsc(c) : 0;
    if (r == 0)
        r = run_enter(c);
    if (r != 0)
        return run_dead(c, r == -ECHILD);
    if (atomic_exchange(&c->interrupt, false)) {
        run_leave(c);
        return PLAT_EVENT_INTERRUPT;
    }
    uint64_t start = stub_now();
    stub_seat_enter(&c->seat, start);
    event = run_guest(c, single_step ? PTRACE_SYSEMU_SINGLESTEP : PTRACE_SYSEMU, out, &reaped);
    stub_seat_leave(&c->seat, start, stub_now());
    run_leave(c);
    if (event == PLAT_EVENT_INTERRUPT)
        atomic_store(&c->interrupt, false);
    return event == PLAT_EVENT_DEAD ? run_dead(c, reaped) : event;
}
