/* Signals as a guest meets them: frames, masks, queues, returns from handlers, hostile frames. A
 * handler here is an address that the guest function looks for in rip. */
#include <asm/unistd.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syscalls/handlers.h"
#include "tests/unit/fakes/fakes.h"

#define NR_STORE64 500u   /* (addr, value) */
#define NR_LOAD64 501u    /* (addr) */
#define NR_SIGACTION 502u /* (signo, handler, flags, mask) with a restorer */
#define NR_SIGNAL_ME 503u /* (signo, code, value) to the calling thread, as rt_tgsigqueueinfo */
#define NR_SET_MASK 504u  /* (how, set) */

#define MEM(off) (FAKE_MEM_START + (off))
#define HANDLER UINT64_C(0x5000)
#define HANDLER2 UINT64_C(0x6000)
#define RESTORER UINT64_C(0x7000)
#define STACK_TOP MEM(0x3000)
#define ALTSTACK MEM(0x400)
#define ALTSTACK_SIZE 0x1800u
#define SA_RESTORER_ 0x04000000u

/* Offsets in the frame, from the stack pointer that a handler starts with. */
#define FRAME_UC 8u
#define FRAME_INFO 312u
#define UC_STACK 16u
#define UC_MC 40u
#define UC_MASK 296u
#define MC_RSP (15u * 8)
#define MC_RIP (16u * 8)
#define MC_CS (18u * 8)
#define MC_FPSTATE (23u * 8)

static int64_t do_store64(struct task *t, const uint64_t *a)
{
    return copyout(&t->ua, uaddr(a[0]), &a[1], 8);
}

static int64_t do_load64(struct task *t, const uint64_t *a)
{
    uint64_t v = 0;

    return copyin(&t->ua, &v, uaddr(a[0]), 8) ? -EFAULT : (int64_t)v;
}

static int64_t do_sigaction(struct task *t, const uint64_t *a)
{
    const uint64_t act[4] = {a[1], a[2] | SA_RESTORER_, RESTORER, a[3]};

    if (copyout(&t->ua, uaddr(MEM(0)), act, sizeof(act)))
        return -EFAULT;
    return sys_rt_sigaction(t, (int)a[0], uaddr(MEM(0)), uaddr(0), 8);
}

static int64_t do_signal_me(struct task *t, const uint64_t *a)
{
    struct lx_siginfo info = {.signo = (int)a[0], .code = (int)(uint32_t)a[1]};

    info.kill.value = a[2];
    if (copyout_obj(&t->ua, uaddr(MEM(0)), &info))
        return -EFAULT;
    return sys_rt_tgsigqueueinfo(t, task_tgid(t), t->tid, (int)a[0], uaddr(MEM(0)));
}

static int64_t do_set_mask(struct task *t, const uint64_t *a)
{
    if (copyout(&t->ua, uaddr(MEM(0)), &a[1], 8))
        return -EFAULT;
    return sys_rt_sigprocmask(t, (int)a[0], uaddr(MEM(0)), uaddr(0), 8);
}

FAKE_THUNK(getpid)
FAKE_THUNK(fork)
FAKE_THUNK(pause)
FAKE_THUNK(exit_group, (int)a[0])
FAKE_THUNK(wait4, (int)a[0], uaddr(a[1]), (int)a[2], uaddr(a[3]))
FAKE_THUNK(kill, (int)a[0], (int)a[1])
FAKE_THUNK(rt_sigprocmask, (int)a[0], uaddr(a[1]), uaddr(a[2]), a[3])
FAKE_THUNK(rt_sigpending, uaddr(a[0]), a[1])
FAKE_THUNK(rt_sigreturn)
FAKE_THUNK(rt_sigsuspend, uaddr(a[0]), a[1])
FAKE_THUNK(rt_sigtimedwait, uaddr(a[0]), uaddr(a[1]), uaddr(a[2]), a[3])
FAKE_THUNK(sigaltstack, uaddr(a[0]), uaddr(a[1]))
FAKE_THUNK(nanosleep, uaddr(a[0]), uaddr(a[1]))
FAKE_THUNK(restart_syscall)
FAKE_THUNK(alarm, (unsigned)a[0])
FAKE_THUNK(setitimer, (int)a[0], uaddr(a[1]), uaddr(a[2]))

#define ENTRY(nr) [__NR_##nr] = {.fn = do_##nr, .name = #nr, .err = -ENOSYS}
static const struct sys_entry entries[] = {
    ENTRY(getpid),
    ENTRY(fork),
    ENTRY(pause),
    ENTRY(exit_group),
    ENTRY(wait4),
    ENTRY(kill),
    ENTRY(rt_sigprocmask),
    ENTRY(rt_sigpending),
    ENTRY(rt_sigreturn),
    ENTRY(rt_sigsuspend),
    ENTRY(rt_sigtimedwait),
    ENTRY(sigaltstack),
    ENTRY(nanosleep),
    ENTRY(restart_syscall),
    ENTRY(alarm),
    ENTRY(setitimer),
    [NR_STORE64] = {.fn = do_store64, .name = "store64"},
    [NR_LOAD64] = {.fn = do_load64, .name = "load64"},
    [NR_SIGACTION] = {.fn = do_sigaction, .name = "sigaction"},
    [NR_SET_MASK] = {.fn = do_set_mask, .name = "set_mask"},
    [NR_SIGNAL_ME] = {.fn = do_signal_me, .name = "signal_me"},
};
static const struct sys_table table = {.entries = entries, .count = ARRAY_SIZE(entries)};

#define BIT(s) (UINT64_C(1) << ((s)-1))
/* rbx holds what was counted, r12 and r13 what a handler left behind. */
#define SET_MASK(how, set) G_CALL(NR_SET_MASK, (how), (set))

/* What the handlers saw. One guest runs at a time. */
static uint64_t seen[16], seen_sp[16];
static int seen_count;
static uint64_t wanted_rip, wanted_mask, wanted_fp, wanted_cs;
static bool change_frame, bad_stack;

/* True while g is in a handler: it notes the signal, perhaps spoils its frame, and returns. State
 * beyond the registers lives in static data, since the frame brings the registers back. */
static int handler_step;
static uint64_t handler_frame;

static bool in_handler(struct plat_regs *g)
{
    if (g->rip == HANDLER || g->rip == HANDLER2) {
        seen[seen_count] = g->rdi | (g->rip == HANDLER2 ? 1000 : 0);
        seen_sp[seen_count++] = g->rsp;
        handler_frame = g->rsp;
        handler_step = 1;
        g->rip = RESTORER;
    }
    if (g->rip != RESTORER)
        return false;
    const uint64_t mc = handler_frame + FRAME_UC + UC_MC;
    switch (handler_step++) {
    case 1:
        if (change_frame)
            fake_call(g, NR_STORE64, (const uint64_t[6]){mc + MC_RIP, wanted_rip});
        else
            goto leave;
        return true;
    case 2:
        fake_call(g, NR_STORE64, (const uint64_t[6]){mc + MC_CS, wanted_cs});
        return true;
    case 3:
        fake_call(g, NR_STORE64, (const uint64_t[6]){mc + MC_FPSTATE, wanted_fp});
        return true;
    case 4:
        fake_call(g, NR_STORE64,
                  (const uint64_t[6]){handler_frame + FRAME_UC + UC_MASK, wanted_mask});
        return true;
    default:
    leave:
        g->rsp = bad_stack ? 0x10 : handler_frame + 8;
        fake_call(g, __NR_rt_sigreturn, (const uint64_t[6]){0});
        return true;
    }
}

static void forget(void)
{
    seen_count = 0;
    handler_step = 0;
    change_frame = false;
    bad_stack = false;
}

/* ---- a handler runs and returns ---- */

static void g_handler(struct plat_regs *g)
{
    if (in_handler(g))
        return;
    G_BEGIN
    g->rsp = STACK_TOP;
    G_CALL(NR_SIGACTION, SIGUSR1, HANDLER, 0, 0);
    G_ASSERT(G_RET == 0);
    g->rbx = 0x1234;
    G_CALL(__NR_kill, 1, SIGUSR1);
    G_ASSERT(G_RET == 0 && g->rbx == 0x1234 && g->rsp == STACK_TOP);
    G_ASSERT(seen_count == 1 && seen[0] == SIGUSR1);
    G_ASSERT(seen_sp[0] % 16 == 8 && seen_sp[0] < STACK_TOP - 128);
    /* The siginfo of the frame: signo, code SI_USER, pid. */
    G_CALL(NR_LOAD64, seen_sp[0] + FRAME_INFO);
    G_ASSERT((uint32_t)G_RET == SIGUSR1);
    G_CALL(NR_LOAD64, seen_sp[0] + FRAME_INFO + 16);
    G_ASSERT((uint32_t)G_RET == 1);
    G_CALL(NR_LOAD64, seen_sp[0]);
    G_ASSERT(G_RET == (int64_t)RESTORER);
    /* Blocked while it ran, not any more. */
    G_CALL(__NR_rt_sigprocmask, SIG_BLOCK, 0, MEM(72), 8);
    G_CALL(NR_LOAD64, MEM(72));
    G_ASSERT(G_RET == 0);
    /* SA_RESETHAND: once. */
    G_CALL(NR_SIGACTION, SIGUSR2, HANDLER, 0x80000000u, 0);
    G_CALL(__NR_kill, 1, SIGUSR2);
    G_ASSERT(seen_count == 2 && seen[1] == SIGUSR2);
    /* Pid 1 is not ended by what has no handler. */
    G_CALL(__NR_kill, 1, SIGUSR2);
    G_CALL(__NR_kill, 1, SIGKILL);
    G_ASSERT(G_RET == 0);
    G_CALL(__NR_exit_group, 3);
    G_END;
}

Test(signal, handler)
{
    forget();
    cr_assert_eq(fake_run_init(&table, g_handler), 3 << 8);
}

/* ---- a frame without memory ---- */

/* The stack's page has to be copied, say, and all memory is given out: no fault of the guest's. */
static void g_no_memory(struct plat_regs *g)
{
    if (in_handler(g))
        return;
    G_BEGIN
    g->rsp = STACK_TOP;
    G_CALL(NR_SIGACTION, SIGUSR1, HANDLER, 0, 0);
    atomic_store(&fake_memory_gone, true);
    G_CALL(__NR_kill, 1, SIGUSR1);
    G_ASSERT(G_RET == 0 && seen_count == 1 && seen[0] == SIGUSR1);
    G_ASSERT(!atomic_load(&fake_memory_gone));
    G_CALL(__NR_exit_group, 5);
    G_END;
}

Test(signal, frame_without_memory)
{
    forget();
    cr_assert_eq(fake_run_init(&table, g_no_memory), 5 << 8);
}

/* ---- blocked, pending, in order ---- */

static void g_queue(struct plat_regs *g)
{
    if (in_handler(g))
        return;
    G_BEGIN
    g->rsp = STACK_TOP;
    G_CALL(NR_SIGACTION, SIGUSR1, HANDLER, 0, ~UINT64_C(0));
    G_CALL(NR_SIGACTION, 40, HANDLER2, 4, ~UINT64_C(0));
    SET_MASK(SIG_SETMASK, ~UINT64_C(0));
    G_CALL(NR_SIGNAL_ME, 40, (uint32_t)SI_QUEUE, 7);
    G_ASSERT(G_RET == 0);
    G_CALL(NR_SIGNAL_ME, 40, (uint32_t)SI_QUEUE, 8);
    G_CALL(__NR_kill, 1, SIGUSR1);
    G_CALL(__NR_kill, 1, SIGUSR1);
    G_ASSERT(seen_count == 0);
    G_CALL(__NR_rt_sigpending, MEM(80), 8);
    G_CALL(NR_LOAD64, MEM(80));
    G_ASSERT((uint64_t)G_RET == (BIT(40) | BIT(SIGUSR1)));
    /* sigtimedwait takes the first of the two, at once. */
    G_CALL(NR_STORE64, MEM(64), BIT(40));
    G_CALL(__NR_rt_sigtimedwait, MEM(64), MEM(128), 0, 8);
    G_ASSERT(G_RET == 40);
    G_CALL(NR_LOAD64, MEM(128) + 24);
    G_ASSERT(G_RET == 7);
    SET_MASK(SIG_SETMASK, 0);
    /* Each handler blocks everything: the second frame is built when the first has returned. A
     * standard signal is queued once. */
    G_ASSERT(seen_count == 2);
    G_ASSERT(seen[0] + seen[1] == (40 | 1000) + SIGUSR1);
    /* Nothing there, no time: at once. */
    G_CALL(NR_STORE64, MEM(96), 0);
    G_CALL(NR_STORE64, MEM(104), 0);
    G_CALL(__NR_rt_sigtimedwait, MEM(64), 0, MEM(96), 8);
    G_ASSERT(G_RET == -EAGAIN);
    G_CALL(NR_STORE64, MEM(104), 2000000000u);
    G_CALL(__NR_rt_sigtimedwait, MEM(64), 0, MEM(96), 8);
    G_ASSERT(G_RET == -EINVAL);
    /* Ignored later: dropped although blocked. */
    SET_MASK(SIG_SETMASK, ~UINT64_C(0));
    G_CALL(__NR_kill, 1, SIGUSR1);
    G_CALL(NR_SIGACTION, SIGUSR1, 1, 0, 0);
    G_CALL(__NR_rt_sigpending, MEM(80), 8);
    G_CALL(NR_LOAD64, MEM(80));
    G_ASSERT(G_RET == 0);
    G_CALL(__NR_exit_group, 4);
    G_END;
}

Test(signal, queue)
{
    forget();
    cr_assert_eq(fake_run_init(&table, g_queue), 4 << 8);
}

/* ---- the alternate stack ---- */

static void g_altstack(struct plat_regs *g)
{
    if (in_handler(g))
        return;
    G_BEGIN
    g->rsp = STACK_TOP;
    G_CALL(NR_STORE64, MEM(64), ALTSTACK);
    G_CALL(NR_STORE64, MEM(72), 0);
    G_CALL(NR_STORE64, MEM(80), 1024);
    G_CALL(__NR_sigaltstack, MEM(64), 0);
    G_ASSERT(G_RET == -ENOMEM);
    G_CALL(NR_STORE64, MEM(80), ALTSTACK_SIZE);
    G_CALL(NR_STORE64, MEM(72), 4);
    G_CALL(__NR_sigaltstack, MEM(64), 0);
    G_ASSERT(G_RET == -EINVAL);
    G_CALL(NR_STORE64, MEM(72), 0);
    G_CALL(__NR_sigaltstack, MEM(64), 0);
    G_ASSERT(G_RET == 0);
    G_CALL(NR_SIGACTION, SIGUSR1, HANDLER, 0x08000000u, 0);
    G_CALL(__NR_kill, 1, SIGUSR1);
    G_ASSERT(seen_count == 1 && seen_sp[0] > ALTSTACK && seen_sp[0] < ALTSTACK + ALTSTACK_SIZE);
    G_CALL(NR_LOAD64, seen_sp[0] + FRAME_UC + UC_STACK);
    G_ASSERT(G_RET == ALTSTACK);
    /* On it, it cannot be changed. */
    g->rsp = ALTSTACK + 300;
    G_CALL(__NR_sigaltstack, MEM(64), 0);
    G_ASSERT(G_RET == -EPERM);
    /* On it with too little room left: fatal, also for pid 1. */
    G_CALL(__NR_kill, 1, SIGUSR1);
    G_CALL(__NR_exit_group, 1);
    G_END;
}

Test(signal, altstack)
{
    forget();
    cr_assert_eq(fake_run_init(&table, g_altstack), SIGSEGV);
}

/* ---- hostile frames ---- */

static void g_hostile(struct plat_regs *g)
{
    if (in_handler(g))
        return;
    G_BEGIN
    g->rsp = STACK_TOP;
    G_CALL(NR_SIGACTION, SIGUSR1, HANDLER, 0, 0);
    G_CALL(__NR_kill, 1, SIGUSR1);
    G_ASSERT(change_frame && wanted_rip == 0);
    G_CALL(__NR_exit_group, 1);
    G_END;
}

static int run_hostile(uint64_t rip, uint64_t cs, uint64_t fp, bool stack)
{
    forget();
    change_frame = !stack;
    bad_stack = stack;
    wanted_rip = rip;
    wanted_cs = cs;
    wanted_fp = fp;
    wanted_mask = 0;
    return fake_run_init(&table, g_hostile);
}

Test(signal, frame_with_a_hole_address)
{
    cr_assert_eq(run_hostile(UINT64_C(1) << 47, 0x33, 0, false), SIGSEGV);
}

Test(signal, frame_with_a_kernel_address)
{
    cr_assert_eq(run_hostile(UINT64_C(0xffffffff81000000), 0x33, 0, false), SIGSEGV);
}

Test(signal, frame_with_a_kernel_segment)
{
    cr_assert_eq(run_hostile(0x1000, 0x10, 0, false), SIGSEGV);
}

Test(signal, frame_with_a_bad_fpstate)
{
    cr_assert_eq(run_hostile(0x1000, 0x33, 0x10, false), SIGSEGV);
}

Test(signal, frame_nowhere)
{
    cr_assert_eq(run_hostile(0x1000, 0x33, 0, true), SIGSEGV);
}

/* ---- faults ---- */

static void g_fault(struct plat_regs *g)
{
    if (g->rip == HANDLER) {
        /* The handler of the fault leaves for good. */
        G_ASSERT(g->rdi == SIGSEGV);
        fake_call(g, __NR_exit_group, (const uint64_t[6]){6});
        return;
    }
    G_BEGIN
    g->rsp = STACK_TOP;
    G_CALL(NR_SIGACTION, SIGSEGV, HANDLER, 4, 0);
    G_CALL(FAKE_FAULT, 0);
    G_END;
}

Test(signal, fault_with_a_handler)
{
    cr_assert_eq(fake_run_init(&table, g_fault), 6 << 8);
}

static void g_fault_blocked(struct plat_regs *g)
{
    G_BEGIN
    g->rsp = STACK_TOP;
    G_CALL(NR_SIGACTION, SIGSEGV, HANDLER, 4, 0);
    SET_MASK(SIG_SETMASK, BIT(SIGSEGV));
    G_CALL(FAKE_FAULT, 0);
    G_END;
}

Test(signal, fault_while_blocked)
{
    cr_assert_eq(fake_run_init(&table, g_fault_blocked), SIGSEGV);
}

static void g_no_stack(struct plat_regs *g)
{
    G_BEGIN
    g->rsp = 0x100;
    G_CALL(NR_SIGACTION, SIGUSR1, HANDLER, 4, 0);
    G_CALL(NR_SIGACTION, SIGSEGV, HANDLER2, 4, 0);
    G_CALL(__NR_kill, 1, SIGUSR1);
    G_END;
}

Test(signal, no_stack_for_a_frame)
{
    cr_assert_eq(fake_run_init(&table, g_no_stack), SIGSEGV);
}

/* ---- interrupted calls ---- */

#define SLEEP_SHORT_NS 50000000u

static void g_restarts(struct plat_regs *g)
{
    if (in_handler(g))
        return;
    G_BEGIN
    g->rsp = STACK_TOP;
    /* A timer in 50 ms, then a sleep of 10 s that its handler ends. */
    G_CALL(NR_SIGACTION, SIGALRM, HANDLER, 0x10000000u, 0);
    G_CALL(NR_STORE64, MEM(64), 0);
    G_CALL(NR_STORE64, MEM(72), 0);
    G_CALL(NR_STORE64, MEM(80), 0);
    G_CALL(NR_STORE64, MEM(88), SLEEP_SHORT_NS / 1000);
    G_CALL(NR_STORE64, MEM(96), 10);
    G_CALL(NR_STORE64, MEM(104), 0);
    G_CALL(__NR_setitimer, 0, MEM(64), 0);
    G_ASSERT(G_RET == 0);
    G_CALL(__NR_nanosleep, MEM(96), MEM(112));
    G_ASSERT(G_RET == -EINTR && seen_count == 1);
    G_CALL(NR_LOAD64, MEM(112));
    G_ASSERT(G_RET == 9);
    /* pause ends though the handler says restart. */
    G_CALL(__NR_setitimer, 0, MEM(64), 0);
    G_CALL(__NR_pause, 0);
    G_ASSERT(G_RET == -EINTR && seen_count == 2);
    /* Without a handler the sleep goes on: SIGALRM ignored, the sleep itself short. */
    G_CALL(NR_SIGACTION, SIGALRM, 1, 0, 0);
    G_CALL(__NR_setitimer, 0, MEM(64), 0);
    G_CALL(NR_STORE64, MEM(96), 0);
    G_CALL(NR_STORE64, MEM(104), 2 * SLEEP_SHORT_NS);
    G_CALL(__NR_nanosleep, MEM(96), 0);
    G_ASSERT(G_RET == 0);
    /* sigsuspend: the signal that the mask lets through; the old mask is in the frame. */
    G_CALL(NR_SIGACTION, SIGALRM, HANDLER, 0, 0);
    SET_MASK(SIG_SETMASK, BIT(SIGALRM));
    G_CALL(__NR_setitimer, 0, MEM(64), 0);
    G_CALL(NR_STORE64, MEM(120), 0);
    G_CALL(__NR_rt_sigsuspend, MEM(120), 8);
    G_ASSERT(G_RET == -EINTR && seen_count == 3);
    G_CALL(NR_LOAD64, seen_sp[2] + FRAME_UC + UC_MASK);
    G_ASSERT((uint64_t)G_RET == BIT(SIGALRM));
    G_CALL(__NR_rt_sigprocmask, SIG_BLOCK, 0, MEM(72), 8);
    G_CALL(NR_LOAD64, MEM(72));
    G_ASSERT((uint64_t)G_RET == BIT(SIGALRM));
    /* alarm shows what is left, rounded. */
    G_CALL(__NR_alarm, 100);
    G_ASSERT(G_RET == 0);
    G_CALL(__NR_alarm, 0);
    G_ASSERT(G_RET == 100);
    G_CALL(__NR_exit_group, 5);
    G_END;
}

Test(signal, restarts)
{
    forget();
    cr_assert_eq(fake_run_init(&table, g_restarts), 5 << 8);
}
