/* Contexts: one stub thread each, traced by the sentry thread that runs it. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/ptrace/ptrace_priv.h"

#define DEBUGREG_CONTROL 7u

static int ctx_alloc(struct pt_as *as, struct pt_ctx **out_ctx)
{
    struct pt_ctx *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return -ENOMEM;
    c->base.plat = as->base.plat;
    c->as = as;
    stub_seat_init(&c->seat, &pt_plat(as->base.plat)->placer);
    c->regs = stub_regs_fresh();
    ref_get(&as->ref);
    *out_ctx = c;
    return 0;
}

static void ctx_free(struct pt_ctx *c)
{
    pt_as_put(&c->as->base);
    stub_seat_fini(&c->seat);
    free(c->xstate);
    free(c);
}

/* The thread that is to run c, a thread of c's address space. */
static void ctx_set_thread(struct pt_ctx *c, pid_t tid)
{
    c->tid = c->seat.tid = tid;
    c->synced = false;
    atomic_store(&c->target, (uint64_t)(uint32_t)c->as->pid << 32 | (uint32_t)tid);
}

static bool ctx_take_parked(struct pt_as *as, pid_t *out_tid)
{
    bool found;

    mutex_lock(&as->mu);
    found = as->parked_count > 0 && !as->gone;
    if (found)
        *out_tid = as->parked[--as->parked_count];
    mutex_unlock(&as->mu);
    return found;
}

static void ctx_enlist(struct pt_ctx *c)
{
    stub_seat_place(&c->seat);
    mutex_lock(&c->as->mu);
    list_add_tail(&c->node, &c->as->ctxs);
    atomic_fetch_add(&c->as->users, 1);
    mutex_unlock(&c->as->mu);
}

void pt_ctx_die(struct pt_ctx *c, bool reaped)
{
    struct pt_as *as = c->as;
    struct pt_plat *p = pt_plat(c->base.plat);

    if (c->dead)
        return;
    c->dead = true;
    /* Not seen by the watching thread from here on. */
    stub_seat_unplace(&c->seat);
    stub_clock_share(&c->seat);
    reaped = reaped || atomic_load(&c->reaped);
    mutex_lock(&as->mu);
    bool kill = !reaped && !as->gone, tell = !as->told;
    as->told = true;
    if (c->tid == as->pid)
        as->gone = true;
    mutex_unlock(&as->mu);
    if (tell)
        log_warn("ptrace: stub process %d has ended", as->pid);
    if (!kill)
        return;
    pt_kill(as->pid);
    /* A leader can be waited for only when all its threads have been. */
    if (c->tid == as->pid)
        pt_end(p, c->tid);
    else if (c->attached)
        pt_reap(c->tid);
}

static int ctx_attach(struct pt_as *as, pid_t tid)
{
    int r = pt_seize(tid);

    if (r != 0 || tid != as->pid || as->settled)
        return r;
    as->settled = true;
    return pt_settle(pt_plat(as->base.plat), tid, as->slot);
}

int pt_ctx_own(struct pt_ctx *c)
{
    int r;

    if (c->dead)
        return -ESRCH;
    if (LIKELY(c->attached))
        return 0;
    r = ctx_attach(c->as, c->tid);
    if (r == 0 && c->xstate != NULL)
        r = pt_set_xstate(c->tid, c->xstate, c->xstate_size);
    free(c->xstate);
    c->xstate = NULL;
    c->attached = r == 0;
    if (r == 0)
        return 0;
    pt_ctx_die(c, r == -ECHILD);
    return -ESRCH;
}

static int ctx_create(struct plat *base, struct plat_as *as_base, struct plat_ctx **out_ctx)
{
    struct pt_as *as = pt_as(as_base);
    struct pt_ctx *c;
    int r;

    (void)base;
    r = ctx_alloc(as, &c);
    if (r != 0)
        return r;
    pid_t tid;
    if (!ctx_take_parked(as, &tid)) {
        ctx_free(c);
        return -EAGAIN;
    }
    ctx_set_thread(c, tid);
    r = pt_ctx_own(c);
    if (r != 0) {
        ctx_free(c);
        return r;
    }
    if (tid == as->pid)
        stub_clock_start(&c->seat, c->as->pid);
    ctx_enlist(c);
    *out_ctx = &c->base;
    return 0;
}

/* ---- fork ---- */

static int ctx_save_xstate(struct pt_ctx *from, struct pt_ctx *to)
{
    size_t size = from->base.plat->xstate_size;
    int64_t n;

    to->xstate = malloc(size);
    if (to->xstate == NULL)
        return -ENOMEM;
    n = pt_get_xstate(from->tid, to->xstate, size);
    to->xstate_size = n > 0 ? (size_t)n : 0;
    return n < 0 ? (int)n : 0;
}

static int ctx_fork_thread(struct pt_ctx *parent, struct pt_ctx *child, bool *interrupted)
{
    const struct pt_plat *p = pt_plat(parent->base.plat);
    pid_t tid;
    int r;

    stub_clock_share(&parent->seat);
    if (ctx_take_parked(parent->as, &tid)) {
        child->seat.cpu = STUB_CPU_NEW;
        r = ctx_save_xstate(parent, child);
        if (r != 0) {
            mutex_lock(&parent->as->mu);
            parent->as->parked[parent->as->parked_count++] = tid;
            mutex_unlock(&parent->as->mu);
        }
    } else {
        parent->synced = false;
        r = pt_clone_thread(p, parent->tid, &tid, interrupted);
    }
    if (r == 0)
        ctx_set_thread(child, tid);
    return r;
}

static int ctx_fork_process(struct pt_ctx *parent, struct pt_as *as, struct pt_ctx *child,
                            bool *interrupted)
{
    const struct pt_plat *p = pt_plat(parent->base.plat);
    bool stale = false;

    mutex_lock(&parent->as->mu);
    /* A mapping that the host refuses is missing in both: each takes the fault on its own. */
    int r = pt_as_flush_locked(parent->as, parent, &stale);
    if (!pt_is_gone(r) && !stale) {
        parent->synced = false;
        r = pt_clone_process(p, parent->tid, as->slot, &as->pid, interrupted);
    }
    mutex_unlock(&parent->as->mu);
    if (r != 0)
        return r;
    as->gone = false;
    ctx_set_thread(child, as->pid);
    stub_clock_start(&child->seat, as->pid);
    return 0;
}

static int ctx_fork(struct plat_ctx *base, struct plat_as **out_as, struct plat_ctx **out_child)
{
    struct pt_ctx *parent = pt_ctx(base), *child;
    struct pt_as *as = parent->as;
    bool interrupted = false;
    int r = pt_ctx_own(parent);

    if (r == 0 && out_as != NULL)
        r = pt_as_alloc(pt_plat(base->plat), &as);
    if (r != 0)
        return r;
    r = ctx_alloc(as, &child);
    if (r == 0) {
        child->regs = parent->regs;
        stub_seat_inherit(&child->seat, &parent->seat);
        if (out_as != NULL)
            r = ctx_fork_process(parent, as, child, &interrupted);
        else
            r = ctx_fork_thread(parent, child, &interrupted);
        if (interrupted)
            atomic_store(&parent->interrupt, true);
        if (pt_is_gone(r))
            pt_ctx_die(parent, r == -ECHILD);
        if (r != 0)
            ctx_free(child);
    }
    if (r != 0) {
        if (out_as != NULL)
            pt_as_put(&as->base);
        return r;
    }
    ctx_enlist(child);
    if (out_as != NULL)
        *out_as = &as->base;
    *out_child = &child->base;
    return 0;
}

/* ---- the end of a stub thread ---- */

/* Nobody runs in this address space any more: the stub goes, its memory with it. */
static void ctx_end_process(struct pt_ctx *c)
{
    struct pt_plat *p = pt_plat(c->base.plat);
    pid_t pid = c->as->pid;

    pt_kill(pid);
    if (c->attached && !c->dead && c->tid != pid && !atomic_load(&c->reaped))
        pt_end(p, c->tid);
    pt_end(p, pid);
}

static void ctx_end_thread(struct pt_ctx *c)
{
    const struct pt_plat *p = pt_plat(c->base.plat);
    const uint64_t args[6] = {0};
    int64_t ret;
    bool interrupted;

    /* Its end is what we wait for: the call does not return. */
    if (pt_call(p, c->tid, SYS_exit, args, &ret, &interrupted) != -ECHILD &&
        !atomic_load(&c->reaped))
        pt_reap(c->tid);
}

static unsigned long ctx_debugreg_offset(unsigned n)
{
    return offsetof(struct user, u_debugreg) + n * sizeof(uint64_t);
}

/* Whoever gets the stub thread next watches nothing. */
static void ctx_watch_end(struct pt_ctx *c)
{
    if (!c->watching || c->dead || !c->attached)
        return;
    (void)syscall(SYS_ptrace, (long)PTRACE_POKEUSER, (long)c->tid,
                  ctx_debugreg_offset(DEBUGREG_CONTROL), 0ul);
    c->watching = false;
}

/* Takes c out of its address space; the thread is parked for the next one, or ends. */
static void ctx_leave(struct pt_ctx *c)
{
    struct pt_as *as = c->as;
    bool last, park = false;

    ctx_watch_end(c);
    stub_seat_unplace(&c->seat);
    mutex_lock(&as->mu);
    list_del(&c->node);
    atomic_fetch_sub(&as->users, 1);
    last = list_empty(&as->ctxs) && !as->gone;
    if (last)
        as->gone = true;
    else if (!c->dead && !as->gone)
        /* The leader must stay, or the process could not be waited for; it has a place kept. */
        park = c->tid == as->pid || (!c->seat.nice_stays && as->parked_count < PT_PARKED_MAX - 1);
    bool parked = park && (!c->attached || pt_detach(pt_plat(c->base.plat), c->tid) == 0);
    if (parked)
        as->parked[as->parked_count++] = c->tid;
    c->seat.nice_stays = false;
    mutex_unlock(&as->mu);
    if (last)
        ctx_end_process(c);
    else if (park && !parked)
        pt_ctx_die(c, false);
    else if (!park && c->attached && !c->dead)
        ctx_end_thread(c);
}

static void ctx_destroy(struct plat_ctx *base)
{
    struct pt_ctx *c = pt_ctx(base);

    ctx_leave(c);
    ctx_free(c);
}

static int ctx_rebind(struct plat_ctx *base, struct plat_as *as_base)
{
    struct pt_ctx *c = pt_ctx(base);
    struct pt_as *as = pt_as(as_base), *old = c->as;
    pid_t tid;

    if (!ctx_take_parked(as, &tid))
        return -EAGAIN;
    int r = ctx_attach(as, tid);
    if (r != 0)
        /* It was the only thread of a stub that has ended; pt_as_put takes what remains. */
        return r;
    stub_clock_share(&c->seat);
    ctx_leave(c);
    ref_get(&as->ref);
    c->as = as;
    ctx_set_thread(c, tid);
    c->attached = true;
    atomic_store(&c->reaped, false);
    c->dead = false;
    c->seat.cpu = STUB_CPU_NEW;
    free(c->xstate);
    c->xstate = NULL;
    c->regs = stub_regs_fresh();
    stub_clock_start(&c->seat, c->as->pid);
    ctx_enlist(c);
    pt_as_put(&old->base);
    return 0;
}

/* ---- state ---- */

static void ctx_affinity(struct plat_ctx *base, const uint64_t *mask, size_t words)
{
    stub_seat_limit(&pt_ctx(base)->seat, mask, words);
}

static bool ctx_follow(struct plat_ctx *base, int cpu)
{
    return stub_seat_follow(&pt_ctx(base)->seat, cpu);
}

static void ctx_nice(struct plat_ctx *base, int nice)
{
    stub_seat_nice(&pt_ctx(base)->seat, nice);
}

static void ctx_tsc(struct plat_ctx *base, bool allowed)
{
    pt_ctx(base)->tsc_due = allowed ? PR_TSC_ENABLE : PR_TSC_SIGSEGV;
}

static uint64_t ctx_cpu_time(struct plat_ctx *base)
{
    return stub_clock_read(&pt_ctx(base)->seat);
}

static struct plat_regs *ctx_regs(struct plat_ctx *base)
{
    return &pt_ctx(base)->regs;
}

static int64_t ctx_xstate_get(struct plat_ctx *base, void *buf, size_t size)
{
    struct pt_ctx *c = pt_ctx(base);
    int r = pt_ctx_own(c);

    if (r != 0)
        return r;
    if (size < base->plat->xstate_size)
        return -ENOSPC;
    return pt_get_xstate(c->tid, buf, size);
}

/* The host wants the whole area. */
static int ctx_xstate_set(struct plat_ctx *base, const void *buf, size_t size)
{
    struct pt_ctx *c = pt_ctx(base);
    size_t full = base->plat->xstate_size;
    char *area;
    int r = pt_ctx_own(c);

    if (r == 0)
        r = stub_xstate_whole(buf, size, full, &area);
    if (r != 0)
        return r;
    r = pt_set_xstate(c->tid, area, full);
    free(area);
    return r != 0 && r != -ESRCH ? -EINVAL : r;
}

/* The call, unlike the library's function, has its result written to the fourth argument. */
static int ctx_debugreg_get(struct plat_ctx *base, unsigned n, uint64_t *out_value)
{
    struct pt_ctx *c = pt_ctx(base);
    int r = pt_ctx_own(c);

    if (r != 0)
        return r;
    return syscall(SYS_ptrace, (long)PTRACE_PEEKUSER, (long)c->tid, ctx_debugreg_offset(n),
                   out_value) == 0
               ? 0
               : -errno;
}

static int ctx_debugreg_set(struct plat_ctx *base, unsigned n, uint64_t value)
{
    struct pt_ctx *c = pt_ctx(base);
    int r = pt_ctx_own(c);

    if (r != 0)
        return r;
    if (syscall(SYS_ptrace, (long)PTRACE_POKEUSER, (long)c->tid, ctx_debugreg_offset(n), value) !=
        0)
        return -errno;
    if (n == DEBUGREG_CONTROL)
        c->watching = value != 0;
    return 0;
}

const struct plat_ctx_ops pt_ctx_ops = {
    .create = ctx_create,
    .fork = ctx_fork,
    .rebind = ctx_rebind,
    .regs = ctx_regs,
    .run = pt_ctx_run,
    .interrupt = pt_ctx_interrupt,
    .xstate_get = ctx_xstate_get,
    .xstate_set = ctx_xstate_set,
    .debugreg_get = ctx_debugreg_get,
    .debugreg_set = ctx_debugreg_set,
    .affinity = ctx_affinity,
    .follow = ctx_follow,
    .nice = ctx_nice,
    .tsc = ctx_tsc,
    .cpu_time = ctx_cpu_time,
    .destroy = ctx_destroy,
};
