/* Contexts: registers here, extended state on a virtual processor or in c->xsave. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "platform/kvm/kvm_priv.h"
#include "platform/stub/seat.h"

/* Offsets in the XSAVE area: Intel SDM vol. 1, 13.4; initial values: 13.6. */
#define XSAVE_FCW 0
#define XSAVE_MXCSR 24
#define XSAVE_SW_RESERVED 464
#define XSAVE_HEADER 512
#define XSAVE_LEGACY_SIZE 576
#define XSTATE_X87_SSE UINT64_C(3)

static void xsave_init(struct kvm_xsave *x)
{
    const uint16_t fcw = 0x37f;
    const uint32_t mxcsr = 0x1f80;

    memset(x, 0, sizeof(*x));
    memcpy((uint8_t *)x + XSAVE_FCW, &fcw, sizeof(fcw));
    memcpy((uint8_t *)x + XSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
}

static void ctx_reset(struct kvm_ctx *c)
{
    memset(&c->regs, 0, sizeof(c->regs));
    c->regs.cs = KVM_USER_CS;
    c->regs.ss = KVM_USER_SS;
    c->regs.eflags = KVM_EFLAGS;
    xsave_init(c->xsave);
}

static void ctx_join(struct kvm_ctx *c)
{
    patch_ctx_init(&c->patch, &c->as->patch, &c->regs);
    mutex_lock(&c->as->mu);
    patch_join_locked(&c->patch);
    mutex_unlock(&c->as->mu);
}

/* It runs nowhere afterwards, and its address space is about to be let go. */
static void ctx_leave(struct kvm_ctx *c)
{
    kvm_pool_drop(c);
    mutex_lock(&c->as->mu);
    patch_forget_locked(&c->patch);
    mutex_unlock(&c->as->mu);
}

static int ctx_alloc(struct kvm_as *as, struct kvm_ctx **out_ctx)
{
    struct kvm_ctx *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return -ENOMEM;
    c->xsave = malloc(sizeof(*c->xsave));
    if (c->xsave == NULL) {
        free(c);
        return -ENOMEM;
    }
    c->base.plat = as->base.plat;
    c->as = as;
    ref_get(&as->ref);
    ctx_reset(c);
    ctx_join(c);
    *out_ctx = c;
    return 0;
}

static void ctx_destroy(struct plat_ctx *base)
{
    struct kvm_ctx *c = kvm_ctx(base);

    ctx_leave(c);
    kvm_as_put(&c->as->base);
    free(c->xsave);
    free(c);
}

static int ctx_create(struct plat *base, struct plat_as *as, struct plat_ctx **out_ctx)
{
    struct kvm_ctx *c;
    int r = ctx_alloc(kvm_as(as), &c);

    (void)base;
    if (r == 0)
        *out_ctx = &c->base;
    return r;
}

static int ctx_fork(struct plat_ctx *base, struct plat_as **out_as, struct plat_ctx **out_child)
{
    struct kvm_ctx *parent = kvm_ctx(base), *child;
    struct plat_as *as = &parent->as->base;
    int r = kvm_pool_save(parent);

    if (r == 0 && out_as != NULL)
        r = kvm_as_fork(parent->as, &as);
    if (r != 0)
        return r;
    r = ctx_alloc(kvm_as(as), &child);
    if (r != 0) {
        if (out_as != NULL)
            kvm_as_put(as);
        return r;
    }
    child->regs = parent->regs;
    patch_ctx_inherit(&child->patch, &parent->patch);
    memcpy(child->xsave, parent->xsave, sizeof(*child->xsave));
    if (out_as != NULL)
        *out_as = as;
    *out_child = &child->base;
    return 0;
}

static int ctx_rebind(struct plat_ctx *base, struct plat_as *as_base)
{
    struct kvm_ctx *c = kvm_ctx(base);
    struct kvm_as *as = kvm_as(as_base), *old = c->as;

    ctx_leave(c);
    ref_get(&as->ref);
    c->as = as;
    c->page = NULL;
    ctx_reset(c);
    ctx_join(c);
    kvm_as_put(&old->base);
    return 0;
}

static struct plat_regs *ctx_regs(struct plat_ctx *base)
{
    return &kvm_ctx(base)->regs;
}

static int64_t ctx_xstate_get(struct plat_ctx *base, void *buf, size_t size)
{
    struct kvm_ctx *c = kvm_ctx(base);
    const size_t full = base->plat->xstate_size;
    uint64_t parts;

    if (size < full)
        return -ENOSPC;
    int r = kvm_pool_save(c);
    if (r != 0)
        return r;
    memcpy(buf, c->xsave, full);
    /* The host adds parts that the guest does not have. */
    memcpy(&parts, (uint8_t *)buf + XSAVE_HEADER, sizeof(parts));
    parts &= kvm_plat(base->plat)->xcr0;
    memcpy((uint8_t *)buf + XSAVE_HEADER, &parts, sizeof(parts));
    /* Room for software, which the host fills with words of its own. */
    memset((uint8_t *)buf + XSAVE_SW_RESERVED, 0, XSAVE_HEADER - XSAVE_SW_RESERVED);
    return (int64_t)full;
}

/* What XRSTOR would fault on: features that are off, reserved bits of the header and of MXCSR. */
static bool xsave_valid(const struct kvm_plat *p, const struct kvm_xsave *x)
{
    uint64_t header[8];
    uint32_t mxcsr;

    memcpy(header, (const uint8_t *)x + XSAVE_HEADER, sizeof(header));
    memcpy(&mxcsr, (const uint8_t *)x + XSAVE_MXCSR, sizeof(mxcsr));
    for (size_t i = 1; i < ARRAY_SIZE(header); i++)
        if (header[i] != 0)
            return false;
    return (header[0] & ~p->xcr0) == 0 && (mxcsr & ~p->mxcsr_mask) == 0;
}

static int ctx_xstate_set(struct plat_ctx *base, const void *buf, size_t size)
{
    struct kvm_ctx *c = kvm_ctx(base);
    const uint64_t legacy = XSTATE_X87_SSE;

    if (size < XSAVE_HEADER || size > base->plat->xstate_size)
        return -EINVAL;
    struct kvm_xsave *x = calloc(1, sizeof(*x));
    if (x == NULL)
        return -ENOMEM;
    memcpy(x, buf, size);
    if (size < XSAVE_LEGACY_SIZE) {
        memset((uint8_t *)x + XSAVE_HEADER, 0, sizeof(*x) - XSAVE_HEADER);
        memcpy((uint8_t *)x + XSAVE_HEADER, &legacy, sizeof(legacy));
    }
    if (!xsave_valid(kvm_plat(base->plat), x)) {
        free(x);
        return -EINVAL;
    }
    kvm_pool_drop(c);
    free(c->xsave);
    c->xsave = x;
    return 0;
}

/* The owner's thread is what runs the guest. */
static void ctx_affinity(struct plat_ctx *base, const uint64_t *mask, size_t words)
{
    const struct kvm_plat *p = kvm_plat(base->plat);
    cpu_set_t cpus;

    stub_cpus_pick(&p->host_cpus, mask, words, &cpus);
    (void)sched_setaffinity(0, sizeof(cpus), &cpus);
}

const struct plat_ctx_ops kvm_ctx_ops = {
    .create = ctx_create,
    .fork = ctx_fork,
    .rebind = ctx_rebind,
    .regs = ctx_regs,
    .run = kvm_ctx_run,
    .interrupt = kvm_ctx_interrupt,
    .xstate_get = ctx_xstate_get,
    .xstate_set = ctx_xstate_set,
    .affinity = ctx_affinity,
    .cpu_time = kvm_cpu_time,
    .destroy = ctx_destroy,
};
