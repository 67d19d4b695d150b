/* Address spaces: what is wanted of mappings is queued, and carried out by the control thread. */
#include <sys/mman.h>

#include "base/log.h"
#include "platform/systrap/systrap_priv.h"

/* With the first address space: before, the sentry has one thread. */
static int as_start_reaper(struct st_plat *p)
{
    mutex_lock(&p->mu);
    int r = p->reaping ? 0 : st_reaper_start(p);
    mutex_unlock(&p->mu);
    return r;
}

static int as_create(struct plat *base, struct plat_as **out_as)
{
    struct st_plat *p = st_plat(base);
    struct st_as *as;
    int r = as_start_reaper(p);

    if (r == 0)
        r = st_as_alloc(p, &as);
    if (r != 0)
        return r;
    r = st_clone_process(p->template, as);
    if (r == 0)
        *out_as = &as->base;
    else
        st_as_put(&as->base);
    return r;
}

static int as_push(struct plat_as *base, const struct stub_change *change, bool is_text)
{
    struct st_as *as = st_as(base);
    int r;

    if (change->start >= change->end)
        return 0;
    mutex_lock(&as->mu);
    r = patch_cut(&as->patch, change, is_text);
    if (r == 0)
        r = stub_queue_add(&as->queue, change);
    if (r == 0)
        atomic_store(&as->has_changes, true);
    mutex_unlock(&as->mu);
    return r;
}

static int as_map(struct plat_as *base, uaddr_t addr, uint64_t size, unsigned access, int fd,
                  uint64_t off, unsigned flags)
{
    const struct stub_change change = stub_change_map(addr, size, access, fd, off, flags);

    return as_push(base, &change,
                   (flags & PLAT_MAP_CODE) && st_plat(base->plat)->patch.ops != NULL);
}

static int as_unmap(struct plat_as *base, uaddr_t addr, uint64_t size)
{
    const struct stub_change change = {.start = addr.v, .end = addr.v + size, .kind = STUB_UNMAP};

    return as_push(base, &change, false);
}

static int as_protect(struct plat_as *base, uaddr_t addr, uint64_t size, unsigned access)
{
    const struct stub_change change = stub_change_protect(addr, size, access);

    return as_push(base, &change, false);
}

/* Whoever asks: the host changes the mappings under running guests, and no stale one is left. */
static int as_commit(struct plat_as *base, struct plat_ctx *ctx)
{
    struct st_as *as = st_as(base);
    bool stale = false;

    (void)ctx;
    if (!atomic_load(&as->has_changes))
        return 0;
    mutex_lock(&as->mu);
    int r = st_flush_locked(as, &stale);
    mutex_unlock(&as->mu);
    if (stale)
        st_process_kill(as);
    /* Without a process nothing is mapped, which is what a stranger wants to know. */
    if (r == -ESRCH && ctx == NULL)
        r = 0;
    return r;
}

const struct plat_as_ops st_as_ops = {
    .create = as_create,
    .map = as_map,
    .unmap = as_unmap,
    .protect = as_protect,
    .commit = as_commit,
    .put = st_as_put,
};
