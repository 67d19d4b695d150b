/* Patched pages in stubs: what is mapped there is a matter of the stub's alone. */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "platform/systrap/systrap_priv.h"

static struct st_as *patch_owner(struct patch_as *pa)
{
    return container_of(pa, struct st_as, patch);
}

static int patch_settle(struct patch_as *pa)
{
    bool stale = false;

    return st_flush_locked(patch_owner(pa), &stale);
}

static bool patch_show(struct patch_as *pa, bool first, uint64_t addr, uint64_t slice, uint64_t off)
{
    struct st_as *as = patch_owner(pa);
    const struct st_plat *p = st_plat(as->base.plat);
    const uint64_t fd = (uint64_t)pa->plat->fd;
    struct st_ops *o = st_ops(as);
    size_t n = 0;
    int32_t value;

    if (first)
        o->ops[n++] = (struct stub_op){.nr = SYS_mmap,
                                       .args = {PATCH_TABLE, PATCH_MAPPED, PROT_READ | PROT_EXEC,
                                                MAP_SHARED | MAP_FIXED, fd, slice}};
    o->ops[n++] = (struct stub_op){
        .nr = SYS_mmap,
        .args = {addr, PAGE_SIZE, (uint64_t)p->patch_prot, MAP_SHARED | MAP_FIXED, fd, off}};
    return st_batch_locked(as, n, &value) == 0;
}

static int patch_unshow(struct patch_as *pa, const struct patch_page *pg, int prot)
{
    struct st_as *as = patch_owner(pa);
    const struct stub_change c = {.start = pg->addr,
                                  .end = pg->addr + PAGE_SIZE,
                                  .kind = STUB_MAP,
                                  .prot = prot,
                                  .flags = MAP_FIXED | MAP_SHARED,
                                  .fd = pg->fd,
                                  .off = pg->off};
    int r = stub_queue_replace(&as->queue, &c);

    if (r == 0)
        atomic_store(&as->has_changes, true);
    return r;
}

const struct patch_ops st_patch_ops = {
    .settle = patch_settle,
    .show = patch_show,
    .restore = patch_unshow,
};
