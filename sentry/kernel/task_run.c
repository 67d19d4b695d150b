/* The life of a task's thread: guest code, system calls, faults, signals, stops, until it ends. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/heap.h"
#include "base/log.h"
#include "sentry/kernel/account_priv.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/ptrace_priv.h"
#include "sentry/kernel/seccomp_priv.h"
#include "sentry/kernel/task_priv.h"
#include "sentry/mem/memfile.h"

/* How often a fault finds no memory, and some right after it, before its process ends. */
#define FAULT_TRIES 8u

enum { START_WAIT, START_READY, START_GO, START_ABORT };

/* ---- system calls ---- */

static int64_t syscall_missing(struct task *t, uint32_t nr)
{
    const struct sys_table *st = t->k->cfg.syscalls;

    if (nr >= st->count || !st->entries[nr].name)
        return -ENOSYS;
    if (log_enabled(LOG_DEBUG) && nr / 64 < ARRAY_SIZE(t->k->missing_logged)) {
        const uint64_t bit = 1ull << (nr % 64);
        if (!(atomic_fetch_or_explicit(&t->k->missing_logged[nr / 64], bit, memory_order_relaxed) &
              bit))
            log_debug("system call %s (%u) is not there", st->entries[nr].name, nr);
    }
    return st->entries[nr].err;
}

/* Linux looks at the low 32 bits of the number (do_syscall_64). */
static int64_t syscall_call(struct task *t)
{
    const struct sys_table *st = t->k->cfg.syscalls;
    const struct plat_regs *regs = plat_ctx_regs(t->ctx);
    const uint32_t nr = (uint32_t)regs->orig_rax;
    const uint64_t a[6] = {regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9};
    int64_t ret;

    const bool trace =
        UNLIKELY(atomic_load_explicit(&t->k->strace, memory_order_relaxed)) && st->trace;
    if (trace)
        st->trace(t, nr, a, false, 0);
    if (LIKELY(nr < st->count && st->entries[nr].fn))
        ret = st->entries[nr].fn(t, a);
    else
        ret = syscall_missing(t, nr);
    /* Where Linux has lazy mappings and a copy that waits for memory, the killer comes first. */
    if (UNLIKELY(ret == -ENOMEM || ret == -EFAULT) && task_oom(t))
        ret = -ERESTARTNOINTR;
    else if (UNLIKELY(heap_pressed()))
        task_memory_look(t);
    if (trace)
        st->trace(t, nr, a, true, ret);
    return ret;
}

/* A call that somebody looks at. */
static void syscall_watched(struct task *t)
{
    struct plat_regs *regs = plat_ctx_regs(t->ctx);

    if (!dispatch_enter(t))
        return;
    /* Who looks may change number, arguments and result; -1 is no call at all. */
    if (trace_syscall_enter(t) && seccomp_enter(t) && (int32_t)regs->orig_rax != -1)
        regs->rax = (uint64_t)syscall_call(t);
    trace_syscall_exit(t);
}

/* Only the owner writes it. */
static void syscall_heap(struct task_priv *p, int64_t taken)
{
    const int64_t before = atomic_load_explicit(&p->heap, memory_order_relaxed);

    atomic_store_explicit(&p->heap, before + taken, memory_order_relaxed);
}

static void syscall_dispatch(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct plat_regs *regs = plat_ctx_regs(t->ctx);

    if (LIKELY(!atomic_load_explicit(&p->sys_work, memory_order_relaxed) &&
               !atomic_load_explicit(&p->trace.step, memory_order_relaxed))) {
        regs->rax = (uint64_t)syscall_call(t);
        /* Attached to meanwhile: it stops at the end of the call. */
        if (UNLIKELY(atomic_load_explicit(&p->sys_work, memory_order_relaxed) & SYS_WORK_TRACE))
            trace_syscall_exit(t);
    } else {
        syscall_watched(t);
    }
    const int64_t taken = heap_taken();
    if (taken)
        syscall_heap(p, taken);
    const int64_t ret = (int64_t)regs->rax;
    if (UNLIKELY(ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK))
        sig_deliver(t);
}

/* ---- what guest code does otherwise ---- */

/* True: guest code may go on. Memory that others gave back just after it was missing is no reason
 * to end anybody. */
static bool fault_served(struct task *t, const struct plat_fault *f, struct plat_fault *sig)
{
    struct mm_limits lim;

    task_mm_limits(t, &lim);
    for (unsigned i = 0; i < FAULT_TRIES; i++) {
        if (mm_fault(t->ua.mm, t->ctx, f, &lim, sig) == 0) {
            atomic_fetch_add_explicit(&task_priv(t)->min_flt, 1, memory_order_relaxed);
            if (UNLIKELY(heap_pressed()))
                task_memory_look(t);
            return true;
        }
        if (sig->signo != SIGKILL || task_oom(t))
            return sig->signo == SIGKILL;
    }
    return false;
}

static void fault_handle(struct task *t, const struct plat_fault *f)
{
    struct plat_fault sig = *f;

    /* A general protection fault has no address that mm could help with. */
    if (((f->signo == SIGSEGV && f->code != SI_KERNEL) || f->signo == SIGBUS) &&
        fault_served(t, f, &sig))
        return;
    sig_force_fault(t, &sig);
}

/* Killed from outside the sandbox: the whole process ends as by SIGKILL. */
static void stub_gone(struct task *t)
{
    task_priv(t)->no_guest = true;
    struct sighand *sh = tg_lock_sig(t->tg);
    const bool first = !atomic_load_explicit(&t->tg->exiting, memory_order_relaxed);
    tg_exit_locked(t->tg, SIGKILL);
    sighand_unlock(sh);
    if (first)
        oom_host_look(t->tg);
}

/* Only the owner writes it. */
static inline void guest_leave(struct task_priv *p)
{
    const uint32_t seq = atomic_load_explicit(&p->guest_seq, memory_order_relaxed);

    atomic_store_explicit(&p->guest_seq, seq + 1, memory_order_release);
}

static void task_step(struct task *t)
{
    struct plat_fault f;
    struct task_priv *p = task_priv(t);
    const bool step = atomic_load_explicit(&p->trace.step, memory_order_relaxed);
    /* Somebody looks at its calls from now on. */
    if (UNLIKELY(p->sig_offered) &&
        (step || atomic_load_explicit(&p->sys_work, memory_order_relaxed)))
        sig_offer_end(t);
    enum plat_event ev = plat_ctx_run(t->ctx, step, &f);

    guest_leave(p);
    switch (ev) {
    case PLAT_EVENT_SYSCALL:
        syscall_dispatch(t);
        break;
    case PLAT_EVENT_FAULT:
        plat_ctx_regs(t->ctx)->orig_rax = UINT64_MAX;
        fault_handle(t, &f);
        break;
    case PLAT_EVENT_INTERRUPT:
        /* No call is being made that could be made again. */
        plat_ctx_regs(t->ctx)->orig_rax = UINT64_MAX;
        break;
    case PLAT_EVENT_DEAD:
        stub_gone(t);
        break;
    default:
        BUG_ON(true);
    }
}

static void task_work(struct task *t)
{
    account_hold_task(t);
    if (task_dying(t))
        return;
    if (blocker_interrupted(&t->blocker) || t->has_saved_blocked) {
        sig_deliver(t);
        if (!task_dying(t))
            job_work(t);
    }
    if (!task_dying(t))
        rseq_work(t);
}

/* It has slept. */
static void task_slept(struct task *t, struct task_priv *p, uint32_t sleeps)
{
    const uint64_t now = mono_now();
    const struct blocker_round round = blocker_round(now);
    const struct pairing_wake w = {
        .own = (uint32_t)t->tid,
        .waker = atomic_load_explicit(&t->blocker.waker, memory_order_relaxed),
        .own_cpu = sched_getcpu(),
        .waker_cpu = atomic_load_explicit(&t->blocker.waker_cpu, memory_order_relaxed),
        .now = now,
        .overlap_ns = round.overlap_ns,
        .answered = round.wakes > 0};

    p->paired_sleeps = sleeps;
    /* As for every switch, whether or not anybody had its turn meanwhile. */
    if (t->rseq)
        rseq_event(t);
    switch (pairing_woken(&p->pairing, &w)) {
    case PAIRING_JOIN:
        if (!plat_ctx_follow(t->ctx, w.waker_cpu))
            pairing_refused(&p->pairing, w.now);
        break;
    case PAIRING_LEAVE:
        (void)plat_ctx_follow(t->ctx, -1);
        break;
    case PAIRING_STAY:
        break;
    }
}

static void task_loop(struct task *t)
{
    struct task_priv *p = task_priv(t);

    blocker_waker_id((uint32_t)t->tid);
    /* The thread may be one that was kept somewhere for another task. */
    if (atomic_load(&t->k->sched_used))
        atomic_store(&p->sched_due, true);
    if (t->tid == t->tg->tgid)
        tg_cpu_limit_changed(t->tg);
    for (;;) {
        if (UNLIKELY(blocker_due(&t->blocker) || t->has_saved_blocked)) {
            if (task_dying(t))
                return;
            task_work(t);
            continue;
        }
        if (UNLIKELY(atomic_load_explicit(&p->answers_due, memory_order_relaxed))) {
            task_sched_apply(t);
            task_answers(t);
        }
        const uint32_t sleeps = atomic_load_explicit(&t->blocker.sleeps, memory_order_relaxed);
        if (UNLIKELY(sleeps != p->paired_sleeps))
            task_slept(t, p, sleeps);
        /* Either this thread sees the bit now, or who sets it sees the odd number and interrupts
         * the context (task_interrupt_locked). */
        atomic_fetch_add_explicit(&p->guest_seq, 1, memory_order_acq_rel);
        if (UNLIKELY(blocker_due(&t->blocker))) {
            guest_leave(p);
            continue;
        }
        task_step(t);
    }
}

/* ---- threads ---- */

/* What the thread did for others before does not count. */
static void task_thread_begin(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct timespec ts;
    clockid_t clock;

    heap_exempt(false);
    (void)heap_taken();
    if (pthread_getcpuclockid(pthread_self(), &clock) != 0 || clock_gettime(clock, &ts) != 0)
        return;
    p->cpu_clock_start_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    atomic_store_explicit(&p->cpu_clock, clock, memory_order_release);
}

static void task_thread_main(struct task *t)
{
    struct task_priv *p = task_priv(t);

    task_thread_begin(t);
    if (p->set_child_tid) {
        const int32_t tid = t->tid;
        /* As schedule_tail: a bad address goes unnoticed. */
        (void)!copyout_obj(&t->ua, uaddr(p->set_child_tid), &tid);
    }
    task_loop(t);
    task_exit_final(t);
}

int task_start_thread(struct task *t)
{
    task_priv(t)->thread_fn = task_thread_main;
    return task_pool_start(t);
}

/* ---- the thread of a loaded program that has never run ---- */

static void start_state_set(struct task *t, int state)
{
    struct task_priv *p = task_priv(t);

    mutex_lock(&p->start_mu);
    p->start_state = state;
    cond_broadcast(&p->start_cond);
    mutex_unlock(&p->start_mu);
}

static int start_state_await(struct task *t, int not_state)
{
    struct task_priv *p = task_priv(t);

    mutex_lock(&p->start_mu);
    while (p->start_state == not_state)
        (void)cond_wait(&p->start_cond, &p->start_mu, UINT64_MAX);
    const int state = p->start_state;
    mutex_unlock(&p->start_mu);
    return state;
}

/* A context belongs to the thread that made it, so this thread makes it and then waits. The task is
 * kept by the caller of task_start_loaded till START_READY or START_ABORT was seen. */
static void task_loaded_main(struct task *t)
{
    struct plat_ctx *ctx;

    task_thread_begin(t);
    int r = plat_ctx_create(t->k->cfg.plat, mm_as(t->ua.mm), &ctx);
    if (r) {
        start_state_set(t, r);
        return;
    }
    t->ctx = t->ua.ctx = ctx;
    start_state_set(t, START_READY);
    if (start_state_await(t, START_READY) == START_ABORT) {
        plat_ctx_destroy(ctx);
        t->ctx = t->ua.ctx = NULL;
        start_state_set(t, START_WAIT);
        return;
    }
    task_loop(t);
    task_exit_final(t);
}

void task_init_regs(struct plat_regs *regs, uint64_t entry, uint64_t stack)
{
    *regs = (struct plat_regs){
        .rip = entry,
        .rsp = stack,
        .eflags = 0x202, /* interrupts on, and the bit that is always one */
        .cs = 0x33,
        .ss = 0x2b,
        .orig_rax = UINT64_MAX,
    };
}

int task_start_loaded(struct task *t, uint64_t entry, uint64_t stack)
{
    task_priv(t)->thread_fn = task_loaded_main;
    int r = task_pool_start(t);
    if (r)
        return r;
    const int state = start_state_await(t, START_WAIT);
    if (state < 0)
        return state;
    task_init_regs(plat_ctx_regs(t->ctx), entry, stack);
    return 0;
}

void task_go(struct task *t)
{
    start_state_set(t, START_GO);
}

void task_go_if_waiting(struct task *t)
{
    struct task_priv *p = task_priv(t);

    mutex_lock(&p->start_mu);
    if (p->start_state == START_READY) {
        p->start_state = START_GO;
        cond_broadcast(&p->start_cond);
    }
    mutex_unlock(&p->start_mu);
}

void task_start_abort(struct task *t)
{
    start_state_set(t, START_ABORT);
    (void)start_state_await(t, START_ABORT);
}
