/* Contexts: one stub thread each, which waits in its area for its turns. */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "platform/systrap/systrap_priv.h"

static int ctx_alloc(struct st_as *as, struct st_ctx **out_ctx)
{
    struct st_ctx *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return -ENOMEM;
    c->base.plat = as->base.plat;
    c->as = as;
    patch_ctx_init(&c->patch, &as->patch, &c->regs);
    stub_seat_init(&c->seat, &st_plat(as->base.plat)->placer);
    c->regs = stub_regs_fresh();
    ref_get(&as->ref);
    *out_ctx = c;
    return 0;
}

static void ctx_free(struct st_ctx *c)
{
    st_as_put(&c->as->base);
    stub_seat_fini(&c->seat);
    free(c);
}

/* c gets a thread of its address space. *first: it is the only one there. */
static int ctx_join(struct st_ctx *c, struct st_as *as, bool *out_first)
{
    struct st_thread *t;

    mutex_lock(&as->mu);
    *out_first = list_empty(&as->ctxs);
    int r = atomic_load(&as->gone) ? -ESRCH : st_thread_take_locked(as, &t);
    if (r == 0) {
        c->thread = t;
        c->shared = st_area(st_plat(as->base.plat), t);
        atomic_store(&c->area, c->shared);
        st_drop_answers(&c->base);
        st_own_begin(c);
        st_sigactions_begin(c);
        c->seat.tid = t->tid;
        atomic_store(&c->target, (uint64_t)(uint32_t)as->pid << 32 | (uint32_t)t->tid);
        list_add_tail(&c->node, &as->ctxs);
        patch_join_locked(&c->patch);
    }
    mutex_unlock(&as->mu);
    return r;
}

void st_ctx_die(struct st_ctx *c)
{
    if (c->dead)
        return;
    c->dead = true;
    stub_clock_share(&c->seat);
    st_process_kill(c->as);
}

static int ctx_create(struct plat *base, struct plat_as *as_base, struct plat_ctx **out_ctx)
{
    struct st_as *as = st_as(as_base);
    struct st_ctx *c;
    bool first;
    int r = ctx_alloc(as, &c);

    (void)base;
    if (r != 0)
        return r;
    r = ctx_join(c, as, &first);
    if (r != 0) {
        ctx_free(c);
        return r;
    }
    st_xstate_reset(c);
    if (first)
        stub_clock_start(&c->seat, as->pid);
    stub_seat_place(&c->seat);
    *out_ctx = &c->base;
    return 0;
}

/* ---- fork ---- */

static int ctx_fork_into(struct st_ctx *parent, struct st_as *as, struct st_ctx **out_child)
{
    struct st_ctx *child;
    bool first;
    int r = ctx_alloc(as, &child);

    if (r != 0)
        return r;
    child->regs = parent->regs;
    patch_ctx_inherit(&child->patch, &parent->patch);
    stub_seat_inherit(&child->seat, &parent->seat);
    r = ctx_join(child, as, &first);
    if (r != 0) {
        ctx_free(child);
        return r;
    }
    if (first)
        stub_clock_start(&child->seat, as->pid);
    else
        stub_clock_share(&parent->seat);
    stub_seat_place(&child->seat);
    r = st_xstate_copy(parent, child);
    if (r != 0) {
        st_ctx_ops.destroy(&child->base);
        return r;
    }
    *out_child = child;
    return 0;
}

static int ctx_fork(struct plat_ctx *base, struct plat_as **out_as, struct plat_ctx **out_child)
{
    struct st_ctx *parent = st_ctx(base), *child;
    struct st_as *as = parent->as;
    int r = 0;

    if (parent->dead)
        return -ESRCH;
    if (out_as != NULL) {
        r = st_as_alloc(st_plat(base->plat), &as);
        if (r != 0)
            return r;
        r = st_clone_process(parent->as, as);
    }
    if (r == 0)
        r = ctx_fork_into(parent, as, &child);
    if (r != 0) {
        if (out_as != NULL)
            st_as_put(&as->base);
        return r;
    }
    if (out_as != NULL)
        *out_as = &as->base;
    *out_child = &child->base;
    return 0;
}

/* ---- the end ---- */

/* Takes c out of its address space; its thread is parked for the next one, or ends. When nobody
 * runs there any more the process goes, its memory with it. */
static void ctx_leave(struct st_ctx *c)
{
    struct st_as *as = c->as;

    st_pace_join(c);
    stub_seat_unplace(&c->seat);
    mutex_lock(&as->mu);
    patch_forget_locked(&c->patch);
    list_del(&c->node);
    bool last = list_empty(&as->ctxs);
    if (!last && !c->dead && !atomic_load(&as->gone))
        st_thread_give_locked(as, c->thread, !c->seat.nice_stays);
    c->seat.nice_stays = false;
    mutex_unlock(&as->mu);
    if (last)
        st_process_kill(as);
}

static void ctx_destroy(struct plat_ctx *base)
{
    struct st_ctx *c = st_ctx(base);

    ctx_leave(c);
    ctx_free(c);
}

static int ctx_rebind(struct plat_ctx *base, struct plat_as *as_base)
{
    struct st_ctx *c = st_ctx(base);
    struct st_as *as = st_as(as_base), *old = c->as;
    struct st_thread *t;

    mutex_lock(&as->mu);
    int r = atomic_load(&as->gone) ? -ESRCH : st_thread_take_locked(as, &t);
    mutex_unlock(&as->mu);
    if (r != 0)
        return r;
    stub_clock_share(&c->seat);
    ctx_leave(c);
    ref_get(&as->ref);
    c->as = as;
    mutex_lock(&as->mu);
    c->thread = t;
    c->shared = st_area(st_plat(base->plat), t);
    atomic_store(&c->area, c->shared);
    st_drop_answers(base);
    st_own_begin(c);
    patch_ctx_init(&c->patch, &as->patch, &c->regs);
    st_sigactions_begin(c);
    list_add_tail(&c->node, &as->ctxs);
    patch_join_locked(&c->patch);
    mutex_unlock(&as->mu);
    c->seat.tid = t->tid;
    c->seat.cpu = STUB_CPU_NEW;
    atomic_store(&c->target, (uint64_t)(uint32_t)as->pid << 32 | (uint32_t)t->tid);
    c->dead = false;
    c->regs = stub_regs_fresh();
    st_xstate_reset(c);
    stub_clock_start(&c->seat, as->pid);
    stub_seat_place(&c->seat);
    st_as_put(&old->base);
    return 0;
}

static struct plat_regs *ctx_regs(struct plat_ctx *base)
{
    return &st_ctx(base)->regs;
}

static void ctx_affinity(struct plat_ctx *base, const uint64_t *mask, size_t words)
{
    stub_seat_limit(&st_ctx(base)->seat, mask, words);
}

static bool ctx_follow(struct plat_ctx *base, int cpu)
{
    struct st_ctx *c = st_ctx(base);

    if (cpu >= 0)
        st_pace_join(c);
    return stub_seat_follow(&c->seat, cpu);
}

static void ctx_nice(struct plat_ctx *base, int nice)
{
    stub_seat_nice(&st_ctx(base)->seat, nice);
}

static void ctx_tsc(struct plat_ctx *base, bool allowed)
{
    st_ctx(base)->tsc_due = allowed ? PR_TSC_ENABLE : PR_TSC_SIGSEGV;
}

static uint64_t ctx_cpu_time(struct plat_ctx *base)
{
    return stub_clock_read(&st_ctx(base)->seat);
}

const struct plat_ctx_ops st_ctx_ops = {
    .create = ctx_create,
    .fork = ctx_fork,
    .rebind = ctx_rebind,
    .regs = ctx_regs,
    .run = st_ctx_run,
    .interrupt = st_ctx_interrupt,
    .xstate_get = st_xstate_get,
    .xstate_set = st_xstate_set,
    .answers = st_answers,
    .drop_answers = st_drop_answers,
    .own = st_own,
    .sigactions_offer = st_sigactions_offer,
    .sigactions_taken = st_sigactions_taken,
    .affinity = ctx_affinity,
    .follow = ctx_follow,
    .nice = ctx_nice,
    .tsc = ctx_tsc,
    .cpu_time = ctx_cpu_time,
    .destroy = ctx_destroy,
};
