/* A platform whose guests are C functions. */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakes.h"

_Atomic int fake_failures, fake_as_live, fake_ctx_live;
fake_guest_fn fake_programs[8];

struct fake_as {
    struct plat_as base;
    _Atomic int refs;
};

struct fake_ctx {
    struct plat_ctx base;
    struct fake_as *as;
    struct plat_regs regs;
    uint64_t fn;   /* the guest's step function; 0: not begun. rip is there, or past its call */
    bool spinning; /* guest code that makes no call; an interrupt changes nothing about that */
    _Atomic bool interrupted;
    _Atomic uint64_t steps;
};

#define SYSCALL_SIZE 2u

static struct plat fake;

void fake_failed(const char *file, int line, const char *what, int64_t result)
{
    atomic_fetch_add(&fake_failures, 1);
    fprintf(stderr, "%s:%d: %s: %" PRIi64 "\n", file, line, what, result);
}

void fake_call(struct plat_regs *g, uint64_t nr, const uint64_t a[6])
{
    g->orig_rax = nr;
    g->rdi = a[0];
    g->rsi = a[1];
    g->rdx = a[2];
    g->r10 = a[3];
    g->r8 = a[4];
    g->r9 = a[5];
}

static struct fake_as *to_as(struct plat_as *as)
{
    return container_of(as, struct fake_as, base);
}

static struct fake_ctx *to_ctx(struct plat_ctx *ctx)
{
    return container_of(ctx, struct fake_ctx, base);
}

static int as_create(struct plat *p, struct plat_as **out_as)
{
    struct fake_as *as = calloc(1, sizeof(*as));

    if (!as)
        return -ENOMEM;
    as->base.plat = p;
    as->refs = 1;
    atomic_fetch_add(&fake_as_live, 1);
    *out_as = &as->base;
    return 0;
}

static void as_put(struct plat_as *as)
{
    if (atomic_fetch_sub(&to_as(as)->refs, 1) != 1)
        return;
    atomic_fetch_sub(&fake_as_live, 1);
    free(to_as(as));
}

static struct fake_ctx *ctx_alloc(struct plat *p, struct fake_as *as)
{
    struct fake_ctx *c = calloc(1, sizeof(*c));

    if (!c)
        abort();
    c->base.plat = p;
    c->as = as;
    atomic_fetch_add(&as->refs, 1);
    atomic_fetch_add(&fake_ctx_live, 1);
    return c;
}

static int ctx_create(struct plat *p, struct plat_as *as, struct plat_ctx **out_ctx)
{
    *out_ctx = &ctx_alloc(p, to_as(as))->base;
    return 0;
}

static int ctx_fork(struct plat_ctx *parent, struct plat_as **out_as, struct plat_ctx **out_child)
{
    struct fake_as *as = to_ctx(parent)->as;

    if (out_as) {
        int r = as_create(parent->plat, out_as);
        if (r)
            return r;
        as = to_as(*out_as);
    }
    struct fake_ctx *c = ctx_alloc(parent->plat, as);
    c->regs = to_ctx(parent)->regs;
    c->fn = to_ctx(parent)->fn;
    *out_child = &c->base;
    return 0;
}

static int ctx_rebind(struct plat_ctx *ctx, struct plat_as *as)
{
    struct fake_ctx *c = to_ctx(ctx);

    atomic_fetch_add(&to_as(as)->refs, 1);
    as_put(&c->as->base);
    c->as = to_as(as);
    memset(&c->regs, 0, sizeof(c->regs));
    c->fn = 0;
    c->spinning = false;
    return 0;
}

static struct plat_regs *ctx_regs(struct plat_ctx *ctx)
{
    return &to_ctx(ctx)->regs;
}

static enum plat_event ctx_run(struct plat_ctx *ctx, bool single_step, struct plat_fault *out_fault)
{
    struct fake_ctx *c = to_ctx(ctx);
    struct plat_regs *g = &c->regs;

    (void)single_step;
    if (atomic_exchange(&c->interrupted, false))
        return PLAT_EVENT_INTERRUPT;
    if (!c->fn) {
        c->fn = g->rip;
        g->rip += SYSCALL_SIZE;
    }
    if (g->rip == c->fn) {
        /* Set back to make its call again. */
        g->orig_rax = g->rax;
        g->rip += SYSCALL_SIZE;
    } else if (!c->spinning) {
        fake_guest_fn fn;
        memcpy(&fn, &c->fn, sizeof(fn));
        atomic_fetch_add(&c->steps, 1);
        g->orig_rax = UINT64_MAX;
        fn(g);
        c->spinning = g->orig_rax == FAKE_SPIN;
    }
    if (g->orig_rax == FAKE_FAULT) {
        *out_fault = (struct plat_fault){.signo = SIGSEGV, .code = 1, .access = PLAT_READ};
        return PLAT_EVENT_FAULT;
    }
    if (!c->spinning) {
        g->rax = (uint64_t)-ENOSYS;
        return PLAT_EVENT_SYSCALL;
    }
    while (!atomic_exchange(&c->interrupted, false))
        sched_yield();
    return PLAT_EVENT_INTERRUPT;
}

static void ctx_interrupt(struct plat_ctx *ctx)
{
    atomic_store(&to_ctx(ctx)->interrupted, true);
}

bool fake_interrupted(struct plat_ctx *ctx)
{
    return atomic_load(&to_ctx(ctx)->interrupted);
}

static int64_t ctx_xstate_get(struct plat_ctx *ctx, void *buf, size_t size)
{
    (void)ctx;
    memset(buf, 0, size);
    return size < 576 ? -ENOSPC : 576;
}

static int ctx_xstate_set(struct plat_ctx *ctx, const void *buf, size_t size)
{
    (void)ctx;
    (void)buf;
    (void)size;
    return 0;
}

static uint64_t ctx_cpu_time(struct plat_ctx *ctx)
{
    return atomic_load(&to_ctx(ctx)->steps) * 1000;
}

static void ctx_destroy(struct plat_ctx *ctx)
{
    struct fake_ctx *c = to_ctx(ctx);

    as_put(&c->as->base);
    atomic_fetch_sub(&fake_ctx_live, 1);
    free(c);
}

static int as_map(struct plat_as *as, uaddr_t addr, uint64_t size, unsigned access, int fd,
                  uint64_t off, unsigned flags)
{
    (void)as;
    (void)addr;
    (void)size;
    (void)access;
    (void)fd;
    (void)off;
    (void)flags;
    return 0;
}

static int as_unmap(struct plat_as *as, uaddr_t addr, uint64_t size)
{
    (void)as;
    (void)addr;
    (void)size;
    return 0;
}

static int as_protect(struct plat_as *as, uaddr_t addr, uint64_t size, unsigned access)
{
    (void)as;
    (void)addr;
    (void)size;
    (void)access;
    return 0;
}

static int as_commit(struct plat_as *as, struct plat_ctx *ctx)
{
    (void)as;
    (void)ctx;
    return 0;
}

static const struct plat_as_ops as_ops = {
    .create = as_create,
    .map = as_map,
    .unmap = as_unmap,
    .protect = as_protect,
    .commit = as_commit,
    .put = as_put,
};

static const struct plat_ctx_ops ctx_ops = {
    .create = ctx_create,
    .fork = ctx_fork,
    .rebind = ctx_rebind,
    .regs = ctx_regs,
    .run = ctx_run,
    .interrupt = ctx_interrupt,
    .xstate_get = ctx_xstate_get,
    .xstate_set = ctx_xstate_set,
    .cpu_time = ctx_cpu_time,
    .destroy = ctx_destroy,
};

static const struct plat_ops ops = {.name = "fake", .as = &as_ops, .ctx = &ctx_ops};

struct plat *fake_plat(void)
{
    fake = (struct plat){
        .ops = &ops, .min_addr = 0x1000, .max_addr = 0x7ffffffff000, .xstate_size = 576};
    return &fake;
}
