/* Virtual processors are few and contexts many. A context keeps the one it ran on, state and all,
 * till another needs it. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/kvm/kvm_priv.h"

/* A context that computes gives way to those that wait after this long. */
#define POOL_SLICE_NS UINT64_C(3000000)

static bool pool_seize(struct kvm_vcpu *v)
{
    bool free = false;

    return atomic_compare_exchange_strong(&v->busy, &free, true);
}

/* The virtual processor that c's state is on, seized; NULL when it is on none. */
static struct kvm_vcpu *pool_own(struct kvm_ctx *c)
{
    for (;;) {
        struct kvm_vcpu *v = atomic_load(&c->vcpu);
        if (v == NULL)
            return NULL;
        if (!pool_seize(v)) {
            (void)sched_yield(); /* somebody takes it away: a moment */
            continue;
        }
        if (v->owner == c)
            return v;
        atomic_store(&v->busy, false);
    }
}

/* v is busy. Its owner's state goes home. */
static int pool_evict(struct kvm_vcpu *v)
{
    struct kvm_ctx *c = v->owner;

    if (c == NULL)
        return 0;
    if (ioctl(v->fd, KVM_GET_XSAVE, c->xsave) != 0)
        return -errno;
    v->owner = NULL;
    atomic_store(&c->vcpu, NULL);
    return 0;
}

/* v is busy and nobody's. */
static int pool_settle(struct kvm_vcpu *v, struct kvm_ctx *c)
{
    if (ioctl(v->fd, KVM_SET_XSAVE, c->xsave) != 0)
        return -errno;
    v->owner = c;
    atomic_store(&c->vcpu, v);
    return 0;
}

/* An idle one, seized: nobody's, or the one that has been idle for longest. */
static struct kvm_vcpu *pool_find_locked(struct kvm_plat *p, bool owned_too)
{
    struct kvm_vcpu *best = NULL;

    for (unsigned i = 0; i < p->cpu_count; i++) {
        struct kvm_vcpu *v = p->cpus[i];
        if (v == NULL || atomic_load(&v->busy) || (v->owner != NULL && !owned_too))
            continue;
        if (best == NULL || atomic_load(&v->last_ns) < atomic_load(&best->last_ns))
            best = v;
    }
    return best != NULL && pool_seize(best) ? best : NULL;
}

void kvm_pool_kick(struct kvm_vcpu *v)
{
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (atomic_load(&v->since_ns) != 0)
        (void)syscall(SYS_tgkill, getpid(), atomic_load(&v->runner), KVM_KICK);
}

/* Makes the one that has run for longest give way. */
static void pool_press_locked(struct kvm_plat *p)
{
    struct kvm_vcpu *oldest = NULL;

    for (unsigned i = 0; i < p->cpu_count; i++) {
        struct kvm_vcpu *v = p->cpus[i];
        uint64_t since = v != NULL ? atomic_load(&v->since_ns) : 0;
        if (since != 0 && (oldest == NULL || since < atomic_load(&oldest->since_ns)))
            oldest = v;
    }
    if (oldest == NULL)
        return;
    atomic_store(&oldest->yield, true);
    kvm_pool_kick(oldest);
}

/* A new one; the lock is dropped meanwhile. NULL when there may be no more. */
static struct kvm_vcpu *pool_grow_locked(struct kvm_plat *p)
{
    struct kvm_vcpu *v = NULL;

    if (p->cpu_count == p->cpu_max)
        return NULL;
    unsigned id = p->cpu_count++;
    mutex_unlock(&p->cpus_mu);
    int r = kvm_vcpu_new(p, id, &v);
    mutex_lock(&p->cpus_mu);
    if (r != 0) {
        /* The host has had enough: those that are there must do. */
        p->cpu_max = id > 0 ? id : 1;
        return NULL;
    }
    atomic_store(&v->busy, true);
    p->cpus[id] = v;
    return v;
}

static struct kvm_vcpu *pool_take(struct kvm_plat *p)
{
    struct kvm_vcpu *v;

    mutex_lock(&p->cpus_mu);
    for (;;) {
        v = pool_find_locked(p, false);
        if (v == NULL)
            v = pool_grow_locked(p);
        if (v == NULL)
            v = pool_find_locked(p, true);
        if (v != NULL)
            break;
        atomic_fetch_add(&p->cpus_wanted, 1);
        if (!cond_wait(&p->cpus_free, &p->cpus_mu, kvm_now() + POOL_SLICE_NS))
            pool_press_locked(p);
        atomic_fetch_sub(&p->cpus_wanted, 1);
    }
    mutex_unlock(&p->cpus_mu);
    return v;
}

int kvm_pool_enter(struct kvm_ctx *c, struct kvm_vcpu **out)
{
    struct kvm_plat *p = kvm_plat(c->base.plat);
    struct kvm_vcpu *v = pool_own(c);

    if (UNLIKELY(v == NULL)) {
        v = pool_take(p);
        int r = pool_evict(v);
        if (r == 0)
            r = pool_settle(v, c);
        if (r != 0) {
            kvm_pool_leave(v);
            return r;
        }
    }
    atomic_store(&v->yield, false);
    *out = v;
    return 0;
}

void kvm_pool_leave(struct kvm_vcpu *v)
{
    struct kvm_plat *p = v->p;

    atomic_store(&v->busy, false);
    if (LIKELY(atomic_load(&p->cpus_wanted) == 0))
        return;
    mutex_lock(&p->cpus_mu);
    cond_signal(&p->cpus_free);
    mutex_unlock(&p->cpus_mu);
}

int kvm_pool_save(struct kvm_ctx *c)
{
    kvm_hand_stop(c);
    struct kvm_vcpu *v = pool_own(c);
    int r = 0;

    if (v == NULL)
        return 0;
    if (ioctl(v->fd, KVM_GET_XSAVE, c->xsave) != 0)
        r = -errno;
    kvm_pool_leave(v);
    return r;
}

void kvm_pool_drop(struct kvm_ctx *c)
{
    kvm_hand_stop(c);
    struct kvm_vcpu *v = pool_own(c);

    if (v == NULL)
        return;
    v->owner = NULL;
    atomic_store(&c->vcpu, NULL);
    kvm_pool_leave(v);
}
