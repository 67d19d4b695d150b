/* Address spaces: the queue of host mappings and who carries it out. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/ptrace/ptrace_priv.h"

/* ---- life ---- */

int pt_as_alloc(struct pt_plat *p, struct pt_as **out_as)
{
    struct pt_as *as = calloc(1, sizeof(*as));
    int r;

    if (as == NULL)
        return -ENOMEM;
    mutex_lock(&p->mu);
    r = idalloc_lowest(&p->slots, 1, &as->slot);
    mutex_unlock(&p->mu);
    if (r != 0) {
        free(as);
        return -EAGAIN;
    }
    as->base.plat = &p->base;
    ref_init(&as->ref);
    mutex_init(&as->mu, LOCK_RANK_PLATFORM);
    cond_init(&as->idle);
    list_init(&as->ctxs);
    as->gone = true;
    *out_as = as;
    return 0;
}

void pt_as_put(struct plat_as *base)
{
    struct pt_as *as = pt_as(base);
    struct pt_plat *p = pt_plat(base->plat);

    if (!ref_put(&as->ref))
        return;
    if (!as->gone) {
        pt_kill(as->pid);
        pt_end(p, as->pid);
    }
    mutex_lock(&p->mu);
    idalloc_free(&p->slots, as->slot);
    mutex_unlock(&p->mu);
    cond_destroy(&as->idle);
    mutex_destroy(&as->mu);
    stub_queue_fini(&as->queue);
    free(as);
}

static int as_create(struct plat *base, struct plat_as **out_as)
{
    struct pt_plat *p = pt_plat(base);
    struct pt_as *as;
    bool interrupted;
    int r = pt_as_alloc(p, &as);

    if (r != 0)
        return r;
    mutex_lock(&p->mu);
    stub_place_fetch(&p->placer, p->template_pid);
    r = pt_seize(p->template_pid);
    if (r == 0) {
        r = pt_clone_process(p, p->template_pid, as->slot, &as->pid, &interrupted);
        if (pt_detach(p, p->template_pid) != 0)
            log_error("ptrace: the template has ended: no more programs can start");
    }
    mutex_unlock(&p->mu);
    if (r != 0) {
        pt_as_put(&as->base);
        return r;
    }
    as->gone = false;
    as->parked[as->parked_count++] = as->pid;
    *out_as = &as->base;
    return 0;
}

/* ---- the queue ---- */

static int as_push(struct plat_as *base, const struct stub_change *change)
{
    struct pt_as *as = pt_as(base);
    int r;

    if (change->start >= change->end)
        return 0;
    mutex_lock(&as->mu);
    r = stub_queue_add(&as->queue, change);
    if (r == 0)
        atomic_store(&as->has_ops, true);
    mutex_unlock(&as->mu);
    return r;
}

static int as_map(struct plat_as *base, uaddr_t addr, uint64_t size, unsigned access, int fd,
                  uint64_t off, unsigned flags)
{
    const struct stub_change change = stub_change_map(addr, size, access, fd, off, flags);

    return as_push(base, &change);
}

static int as_unmap(struct plat_as *base, uaddr_t addr, uint64_t size)
{
    const struct stub_change change = {.start = addr.v, .end = addr.v + size, .kind = STUB_UNMAP};

    return as_push(base, &change);
}

static int as_protect(struct plat_as *base, uaddr_t addr, uint64_t size, unsigned access)
{
    const struct stub_change change = stub_change_protect(addr, size, access);

    return as_push(base, &change);
}

/* From now on no context runs guest code before the queue has been carried out: by the first that
 * comes out and wants in again, or later if nobody is in. */
static void as_stop_guests_locked(struct pt_as *as)
{
    struct pt_ctx *c;
    bool busy = true;

    atomic_fetch_add(&as->waiting, 1);
    while (busy && as->queue.count > 0) {
        busy = false;
        list_for_each_entry (c, &as->ctxs, node) {
            if (!atomic_load(&c->in_guest))
                continue;
            busy = true;
            pt_ctx_interrupt(&c->base);
        }
        if (busy)
            (void)cond_wait(&as->idle, &as->mu, UINT64_MAX);
    }
    atomic_fetch_sub(&as->waiting, 1);
}

static int as_commit(struct plat_as *base, struct plat_ctx *ctx)
{
    struct pt_as *as = pt_as(base);
    bool stale = false;
    int r = 0;

    if (!atomic_load(&as->has_ops))
        return 0;
    if (ctx != NULL) {
        r = pt_ctx_own(pt_ctx(ctx));
        if (r != 0)
            return r;
    }
    mutex_lock(&as->mu);
    if (ctx != NULL)
        r = pt_as_flush_locked(as, pt_ctx(ctx), &stale);
    else
        as_stop_guests_locked(as);
    mutex_unlock(&as->mu);
    if (pt_is_gone(r)) {
        pt_ctx_die(pt_ctx(ctx), r == -ECHILD);
        r = -ESRCH;
    }
    return r;
}

const struct plat_as_ops pt_as_ops = {
    .create = as_create,
    .map = as_map,
    .unmap = as_unmap,
    .protect = as_protect,
    .commit = as_commit,
    .put = pt_as_put,
};
