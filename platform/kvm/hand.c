/* Calls that are handed over: where leaving the machine is dear, a thread of its own, a runner,
 * stays in KVM_RUN, and the code at SYSCALL tells the context's thread through a page that both
 * look at. It waits there for a moment, then leaves as ever. That pays with a free CPU only, which
 * is what platform/stub/pace.h finds out.
 *
 * The page is the guest's to write. What counts is kvm_ctx.hand: while a runner has the guest, the
 * context's processor is busy and the runner's; it goes back to the pool when the runner comes out,
 * whatever for and whatever the page says. A guest that goes on although it has called runs beside
 * its own call, as a thread of its could, till whoever needs it out kicks the runner. */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "platform/kvm/kvm_priv.h"

#define RUNNER_STACK (64u << 10)

/* kvm_runner.turn */
enum { RUNNER_FREE, RUNNER_CLAIMED, RUNNER_GO, RUNNER_ENDS };

struct kvm_runner {
    struct kvm_plat *p;
    unsigned id;
    pthread_t thread;
    _Atomic uint32_t turn; /* GO by who has claimed it, CLAIMED again by the runner */
    _Atomic bool asleep;
    /* Of who has claimed it; read after GO. */
    struct kvm_ctx *ctx;
    struct kvm_vcpu *_Atomic v;
    _Atomic uint64_t cpu_ns;   /* CPU time of the thread when it went in last */
    _Atomic uint64_t taken_ns; /* since when a call is worked on, or 0 */
};

static void hand_sleep(_Atomic uint32_t *word, uint32_t value)
{
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void hand_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static uint64_t hand_runner_clock(struct kvm_ctx *c)
{
    clockid_t clock;

    return pthread_getcpuclockid(atomic_load(&c->runner)->thread, &clock) == 0 ? kvm_clock(clock)
                                                                               : 0;
}

/* A guest that waits is out by then; what goes on for longer works beside its own call. */
#define HAND_BESIDE_NS 200000u

/* How long it has done so since c's last call was taken. */
static uint64_t hand_beside(struct kvm_ctx *c)
{
    const struct kvm_runner *r = atomic_load(&c->runner);
    const uint64_t taken = atomic_load(&r->taken_ns), now = kvm_now();

    if (taken == 0 || now < taken + HAND_BESIDE_NS)
        return 0;
    const uint64_t cpu = hand_runner_clock(c), start = atomic_load(&r->cpu_ns);
    return MIN(now - taken, cpu > start ? cpu - start : 0);
}

uint64_t kvm_hand_beside(struct kvm_ctx *c)
{
    const uint32_t hand = atomic_load(&c->hand);

    return hand == KVM_HAND_TAKEN || hand == KVM_HAND_STOP ? hand_beside(c) : 0;
}

/* ---- who watches the runners ---- */

/* A guest may have forged a call and go on beside it: without end, while its task sleeps in the
 * call, is stopped, or held. Nobody who waits for nothing else than the call's end would notice. */
#define WATCH_NS 10000000u

static void watch_runner(struct kvm_runner *r, uint64_t now)
{
    const uint64_t taken = atomic_load(&r->taken_ns);

    /* Should it be out already, or in with another, that one looks up and goes on. */
    if (taken != 0 && now > taken + WATCH_NS && atomic_load(&r->turn) == RUNNER_GO)
        kvm_pool_kick(atomic_load(&r->v));
}

static void *watch_main(void *arg)
{
    const struct timespec step = {.tv_nsec = WATCH_NS};
    struct kvm_plat *p = arg;

    while (!atomic_load(&p->watch_ends)) {
        if (atomic_load(&p->runners_in) == 0) {
            atomic_store(&p->watch_asleep, true);
            hand_sleep(&p->runners_in, 0);
            atomic_store(&p->watch_asleep, false);
        }
        (void)syscall(SYS_futex, &p->watch_ends, FUTEX_WAIT_PRIVATE, 0, &step, NULL, 0);
        for (unsigned i = 0; i < KVM_RUNNERS_MAX; i++) {
            struct kvm_runner *r = atomic_load(&p->runners[i]);
            if (r != NULL)
                watch_runner(r, kvm_now());
        }
    }
    return NULL;
}

static void watch_begin(struct kvm_plat *p)
{
    atomic_fetch_add(&p->runners_in, 1);
    if (atomic_load(&p->watch_asleep))
        hand_wake(&p->runners_in);
}

static void watch_end(struct kvm_plat *p)
{
    atomic_fetch_sub(&p->runners_in, 1);
}

static void watch_fini(struct kvm_plat *p)
{
    if (!p->watched)
        return;
    atomic_store(&p->watch_ends, 1);
    hand_wake(&p->watch_ends);
    watch_begin(p);
    (void)pthread_join(p->watcher, NULL);
}

/* ---- the runner ---- */

static uint32_t runner_wait(struct kvm_runner *r)
{
    uint32_t turn;

    for (uint32_t i = r->p->spin; i > 0; i--) {
        turn = atomic_load_explicit(&r->turn, memory_order_acquire);
        if (turn == RUNNER_GO || turn == RUNNER_ENDS)
            return turn;
        __builtin_ia32_pause();
    }
    atomic_store(&r->asleep, true);
    while ((turn = atomic_load(&r->turn)) == RUNNER_FREE || turn == RUNNER_CLAIMED)
        hand_sleep(&r->turn, turn);
    atomic_store(&r->asleep, false);
    return turn;
}

/* Afterwards c and, if its thread waits, v are not the runner's any more. True: it does not wait;
 * else the runner and the page are its own till it has looked (kvm_hand_release). */
static bool runner_report(struct kvm_ctx *c, struct kvm_vcpu *v)
{
    uint32_t old = atomic_load(&c->hand), new;

    do
        new = old == KVM_HAND_TAKEN || old == KVM_HAND_STOP ? KVM_HAND_NONE : KVM_HAND_OUT;
    while (!atomic_compare_exchange_weak(&c->hand, &old, new));
    if (new == KVM_HAND_NONE) {
        /* c lives as long as its processor is busy. */
        atomic_fetch_add(&c->cpu_ns, hand_beside(c));
        kvm_pool_leave(v);
    }
    /* By its address only: who is woken may have freed it. */
    if (old == KVM_HAND_SLEEPS || old == KVM_HAND_STOP)
        hand_wake(&c->hand);
    return new == KVM_HAND_NONE;
}

static void *runner_main(void *arg)
{
    struct kvm_runner *r = arg;

    while (runner_wait(r) == RUNNER_GO) {
        watch_begin(r->p);
        struct kvm_ctx *c = r->ctx;
        struct kvm_vcpu *v = atomic_load(&r->v);
        atomic_store(&v->runner, gettid());
        atomic_store(&r->cpu_ns, kvm_clock(CLOCK_THREAD_CPUTIME_ID));
        v->error = kvm_run_once(v);
        atomic_store(&v->since_ns, 0);
        atomic_store(&v->last_ns, kvm_now());
        /* Not free before the report: till then c's thread may look at the page that goes with the
         * runner, or answer in it. Nor after the end has been said, which can be at once. */
        uint32_t claimed = RUNNER_CLAIMED;
        watch_end(r->p);
        atomic_store(&r->turn, claimed);
        if (runner_report(c, v))
            (void)atomic_compare_exchange_strong(&r->turn, &claimed, RUNNER_FREE);
    }
    return NULL;
}

static bool hand_thread(pthread_t *out, void *(*run)(void *), void *arg)
{
    pthread_attr_t attr;
    int error = pthread_attr_init(&attr);

    if (error == 0) {
        error = pthread_attr_setstacksize(&attr, RUNNER_STACK);
        if (error == 0)
            error = pthread_create(out, &attr, run, arg);
        (void)pthread_attr_destroy(&attr);
    }
    return error == 0;
}

/* Under runners_mu. */
static struct kvm_runner *runner_new_locked(struct kvm_plat *p, unsigned id)
{
    if (!p->watched)
        p->watched = hand_thread(&p->watcher, watch_main, p);
    struct kvm_runner *r = p->watched ? calloc(1, sizeof(*r)) : NULL;
    if (r == NULL)
        return NULL;
    r->p = p;
    r->id = id;
    if (hand_thread(&r->thread, runner_main, r))
        return r;
    free(r);
    return NULL;
}

static struct kvm_runner *runner_get(struct kvm_plat *p, unsigned id)
{
    struct kvm_runner *r = atomic_load(&p->runners[id]);

    if (LIKELY(r != NULL))
        return r;
    mutex_lock(&p->runners_mu);
    r = atomic_load(&p->runners[id]);
    if (r == NULL) {
        r = runner_new_locked(p, id);
        atomic_store(&p->runners[id], r);
    }
    mutex_unlock(&p->runners_mu);
    return r;
}

static bool runner_try(struct kvm_runner *r)
{
    uint32_t free = RUNNER_FREE;

    return r != NULL && atomic_compare_exchange_strong(&r->turn, &free, RUNNER_CLAIMED);
}

/* A free one, the last one first. */
static struct kvm_runner *runner_claim(struct kvm_ctx *c)
{
    struct kvm_plat *p = kvm_plat(c->base.plat);

    if (runner_try(c->runner))
        return c->runner;
    for (unsigned i = 0; i < p->runner_max; i++) {
        struct kvm_runner *r = runner_get(p, i);
        if (runner_try(r))
            return r;
    }
    return NULL;
}

static void runner_go(struct kvm_runner *r, struct kvm_ctx *c, struct kvm_vcpu *v)
{
    r->ctx = c;
    atomic_store(&r->v, v);
    atomic_store(&r->taken_ns, 0);
    atomic_store(&c->hand, KVM_HAND_RUN);
    atomic_store(&r->turn, RUNNER_GO);
    if (atomic_load(&r->asleep))
        hand_wake(&r->turn);
}

/* ---- registers ---- */

/* x was copied from the page: it may be anything, but stays what it is. */
static void hand_take(struct kvm_ctx *c, const struct kvm_exchange *x)
{
    c->regs = (struct plat_regs){
        .rax = x->rax,
        .rbx = x->rbx,
        .rcx = x->rip,
        .rdx = x->rdx,
        .rsi = x->rsi,
        .rdi = x->rdi,
        .rsp = x->rsp,
        .rbp = x->rbp,
        .r8 = x->r8,
        .r9 = x->r9,
        .r10 = x->r10,
        .r11 = x->flags,
        .r12 = x->r12,
        .r13 = x->r13,
        .r14 = x->r14,
        .r15 = x->r15,
        .rip = x->rip,
        .eflags = x->flags,
        .cs = KVM_USER_CS,
        .ss = KVM_USER_SS,
        .fs_base = x->fs,
        .gs_base = x->gs,
    };
    c->hand_fs = x->fs;
    c->hand_gs = x->gs;
}

static void hand_give(struct kvm_ctx *c)
{
    const struct plat_regs *g = &c->regs;
    struct kvm_exchange *x = c->page;

    x->rip = patch_entry(&c->patch, g->rip);
    x->cs = KVM_USER_CS;
    x->flags = kvm_run_flags(c, false);
    x->rsp = g->rsp;
    x->ss = KVM_USER_SS;
    x->rax = g->rax;
    x->rbx = g->rbx;
    x->rcx = g->rcx;
    x->rdx = g->rdx;
    x->rsi = g->rsi;
    x->rdi = g->rdi;
    x->rbp = g->rbp;
    x->r8 = g->r8;
    x->r9 = g->r9;
    x->r10 = g->r10;
    x->r11 = g->r11;
    x->r12 = g->r12;
    x->r13 = g->r13;
    x->r14 = g->r14;
    x->r15 = g->r15;
    x->fs = g->fs_base;
    x->gs = g->gs_base;
    x->spin = stub_pace_patience(&c->pace, kvm_plat(c->base.plat)->spin);
    x->bases = g->fs_base != c->hand_fs || g->gs_base != c->hand_gs;
}

/* Coming from a patched site: as SYSCALL would have left rcx and r11, and the stack. */
static void hand_regs_call(struct kvm_ctx *c, uint64_t off)
{
    if (c->page == NULL)
        return;
    if (off != (uint64_t)(kvm_hand_call - kvm_hand))
        c->regs.rsp = c->page->rsp;
    c->regs.rcx = c->page->after;
    c->regs.r11 = off < (uint64_t)(kvm_hand_flags - kvm_hand) ? c->regs.eflags : c->page->flags;
}

/* In the middle of handing over, in ring 3, where there are only three things that it can be at:
 * its registers are all there but rcx; they are in the page; it has been answered. The bases are
 * the processor's till then: they may not have come to the page yet. */
bool kvm_hand_regs(struct kvm_ctx *c, const struct kvm_vcpu *v)
{
    const struct kvm_sregs *s = &v->run->s.regs.sregs;
    struct kvm_exchange x;
    const uint64_t off = v->run->s.regs.regs.rip - KVM_HAND_VA;
    const bool entry = off < (uint64_t)KVM_RUNNERS_MAX * KVM_HAND_STEP;

    if (off < (uint64_t)(kvm_hand_saved - kvm_hand)) {
        kvm_run_save(c, v);
        if (off - (uint64_t)(kvm_hand_call - kvm_hand) <
            (uint64_t)(kvm_hand_common - kvm_hand_call))
            hand_regs_call(c, off);
        else if (c->page != NULL && off != (uint64_t)(kvm_hand_out - kvm_hand) &&
                 !(entry && off % KVM_HAND_STEP < KVM_HAND_PRISTINE))
            c->regs.rcx = c->page->rip;
        return true;
    }
    if (c->page == NULL || off >= (uint64_t)(kvm_hand_done - kvm_hand) ||
        atomic_load(&c->page->state) == KVM_TURN_DONE) {
        c->regs.orig_rax = UINT64_MAX;
        return false;
    }
    memcpy(&x, c->page, sizeof(x));
    x.fs = s->fs.base;
    x.gs = s->gs.base;
    hand_take(c, &x);
    return true;
}

/* ---- a turn ---- */

/* False: the guest has given up waiting and leaves. */
static bool hand_answer(struct kvm_ctx *c)
{
    uint32_t call = KVM_TURN_CALL;

    atomic_store(&c->runner->taken_ns, 0);
    patch_enter(&c->patch, kvm_exchange_va(atomic_load(&c->runner)->id), &c->page->negfs);
    hand_give(c);
    return atomic_compare_exchange_strong(&c->page->state, &call, KVM_TURN_DONE);
}

/* Puts c on a processor and a runner in it. */
static bool hand_start(struct kvm_ctx *c, uint64_t now)
{
    struct kvm_runner *r = runner_claim(c);
    struct kvm_vcpu *v;

    if (r == NULL)
        return false;
    if (kvm_as_exchange(c->as, r->id, &c->page) != 0)
        goto out_runner;
    if (kvm_pool_enter(c, &v) != 0)
        goto out_runner;
    if (kvm_vcpu_set_entry(v, KVM_HAND_VA + r->id * KVM_HAND_STEP) != 0)
        goto out_vcpu;
    c->runner = r;
    patch_enter(&c->patch, kvm_exchange_va(r->id), &c->page->negfs);
    kvm_run_load(c, v, false);
    atomic_store(&c->page->state, KVM_TURN_GUEST);
    atomic_store(&c->page->asleep, 0);
    c->page->spin = stub_pace_patience(&c->pace, r->p->spin);
    atomic_store(&v->since_ns, now);
    __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    /* Who interrupted before that has no need to do it again: it comes out at once. */
    if (atomic_load(&c->interrupt))
        __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    runner_go(r, c, v);
    return true;

out_vcpu:
    kvm_pool_leave(v);
out_runner:
    atomic_store(&r->turn, RUNNER_FREE);
    return false;
}

/* Till the runner comes out. The guest that finds us asleep does not wait. */
static void hand_wait_asleep(struct kvm_ctx *c)
{
    uint32_t run = KVM_HAND_RUN;

    atomic_store(&c->page->asleep, 1);
    if (!atomic_compare_exchange_strong(&c->hand, &run, KVM_HAND_SLEEPS))
        return;
    while (atomic_load(&c->hand) == KVM_HAND_SLEEPS)
        hand_sleep(&c->hand, KVM_HAND_SLEEPS);
}

/* A call that is said to be there. It is copied while the page is surely c's: once it is taken, the
 * runner may come out and lend itself and the page to another thread. False: it is out already. */
static bool hand_try_take(struct kvm_ctx *c, struct kvm_exchange *x)
{
    uint32_t run = KVM_HAND_RUN;

    memcpy(x, c->page, sizeof(*x));
    patch_leave(&c->page->negfs);
    c->turn_end = kvm_now();
    atomic_store(&c->runner->taken_ns, c->turn_end);
    return atomic_compare_exchange_strong(&c->hand, &run, KVM_HAND_TAKEN);
}

/* True: a call has been taken, into *x. False: the runner is out. answered: the guest has what it
 * waits for; else it is on its way out, and what the page says is old. */
static bool hand_wait(struct kvm_ctx *c, bool answered, uint64_t looks, uint64_t start,
                      struct kvm_exchange *x)
{
    for (; looks > 0; looks--) {
        if (answered &&
            atomic_load_explicit(&c->page->state, memory_order_acquire) == KVM_TURN_CALL &&
            hand_try_take(c, x))
            return true;
        if (atomic_load_explicit(&c->hand, memory_order_acquire) == KVM_HAND_OUT)
            return false;
        __builtin_ia32_pause();
    }
    c->hand_slept = true;
    const uint64_t before = hand_runner_clock(c), spun = kvm_now() - start;
    hand_wait_asleep(c);
    c->hand_ns = spun + hand_runner_clock(c) - before;
    return false;
}

/* A runner that has slept comes later than anybody waits. A guest that finds us asleep leaves, and
 * the next runner has slept again by then: so who has just come in is waited for this many times as
 * long. */
#define HAND_MEET 4u

enum kvm_hand_end kvm_hand_turn(struct kvm_ctx *c, bool single_step, struct kvm_vcpu **out)
{
    const uint64_t start = kvm_now();
    uint32_t taken = KVM_HAND_TAKEN;
    struct kvm_exchange x;
    bool answered = true;
    uint64_t looks = kvm_plat(c->base.plat)->spin;

    /* A step ends with a trap, and the code that hands over is not to be stepped through. */
    if (!c->pace.split || single_step || (c->regs.eflags & KVM_FLAG_TF)) {
        kvm_hand_stop(c);
        return KVM_HAND_END_NEVER;
    }
    if (atomic_compare_exchange_strong(&c->hand, &taken, KVM_HAND_RUN))
        answered = hand_answer(c);
    else if (hand_start(c, start))
        looks *= HAND_MEET;
    else
        return KVM_HAND_END_NEVER;
    atomic_store(&c->run_start, start);
    c->hand_slept = false;
    const bool call = hand_wait(c, answered, looks, start, &x);
    const uint64_t now = call ? c->turn_end : kvm_now();
    atomic_fetch_add(&c->cpu_ns, c->hand_slept ? c->hand_ns : now - start);
    atomic_store(&c->run_start, 0);
    c->turn_ns = now - start;
    c->turn_end = now;
    if (call) {
        hand_take(c, &x);
        return KVM_HAND_END_CALL;
    }
    patch_leave(&c->page->negfs);
    atomic_store(&c->hand, KVM_HAND_NONE);
    *out = atomic_load(&c->vcpu);
    if (answered)
        return KVM_HAND_END_EXIT;
    kvm_hand_release(c);
    return KVM_HAND_END_AGAIN;
}

void kvm_hand_release(struct kvm_ctx *c)
{
    atomic_store(&c->runner->turn, RUNNER_FREE);
}

void kvm_hand_stop(struct kvm_ctx *c)
{
    uint32_t taken = KVM_HAND_TAKEN;

    if (!atomic_compare_exchange_strong(&c->hand, &taken, KVM_HAND_STOP))
        return;
    kvm_pool_kick(atomic_load(&c->vcpu));
    while (atomic_load(&c->hand) == KVM_HAND_STOP)
        hand_sleep(&c->hand, KVM_HAND_STOP);
}

/* ---- the platform's ---- */

int kvm_hand_init(struct kvm_plat *p, unsigned host_cpus)
{
    struct kvm_page page;
    int r = kvm_table_page(p, &page);

    if (r != 0)
        return r;
    memcpy(page.hva, kvm_hand, (size_t)(kvm_hand_end - kvm_hand));
    p->hand_gpa = page.gpa;
    /* Where SYSCALL comes to ring 0, leaving is cheap. Two threads spin for each other: they need
     * two CPUs. */
    if (p->ring3_syscall)
        p->runner_max = MIN(host_cpus / 2, (unsigned)KVM_RUNNERS_MAX);
    if (p->runner_max > 0)
        p->spin = stub_pace_calibrate();
    return 0;
}

void kvm_hand_fini(struct kvm_plat *p)
{
    watch_fini(p);
    for (unsigned i = 0; i < KVM_RUNNERS_MAX; i++) {
        struct kvm_runner *r = atomic_load(&p->runners[i]);
        if (r == NULL)
            continue;
        atomic_store(&r->turn, RUNNER_ENDS);
        hand_wake(&r->turn);
        (void)pthread_join(r->thread, NULL);
        free(r);
    }
}
