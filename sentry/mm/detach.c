/* Taking out a whole attachment by where it begins: shmdt(2). */
#include <errno.h>

#include "sentry/mm/mm_priv.h"

/* The first VMA from addr on that shows an object of this kind as if it had been mapped whole at
 * addr: parts of it may have been unmapped or replaced since. */
static struct vma *detach_first(struct mm *mm, uint64_t addr, const struct mappable_ops *ops)
{
    for (struct vma *v = vma_first(mm, addr); v; v = vma_next(v))
        if (v->m && v->m->ops == ops && v->start >= addr && v->start - addr == v->off)
            return v;
    return NULL;
}

int mm_detach(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, const struct mappable_ops *ops,
              struct mappable **out_m)
{
    int r = mm_begin(mm, ctx);

    if (r)
        return r;
    struct vma *v = detach_first(mm, addr.v, ops), *next;
    if (!v) {
        mm_end(mm);
        return -EINVAL;
    }
    struct mappable *m = v->m;
    m->ops->get(m);
    for (; v; v = next) {
        next = vma_next(v);
        const uint64_t start = v->start, end = v->end;
        if (v->m != m || start - addr.v != v->off)
            continue;
        r = mm_stock_locked(mm);
        if (r)
            break;
        vma_remove(mm, v);
        (void)pma_drop_range(mm, start, end, false);
    }
    /* Now rather than later: it may be the last that held a removed segment. */
    (void)mm_commit_locked(mm);
    mm_end(mm);
    if (r)
        m->ops->put(m);
    else
        *out_m = m;
    return r;
}

int mm_find_object(struct mm *mm, uaddr_t addr, const struct mappable_ops *ops,
                   struct mappable **out_m)
{
    int r = -EINVAL;

    rwlock_rdlock(&mm->lock);
    const struct vma *v = vma_find(mm, addr.v);
    if (v && v->m && v->m->ops == ops && v->start == addr.v && v->off == 0) {
        v->m->ops->get(v->m);
        *out_m = v->m;
        r = 0;
    }
    rwlock_unlock(&mm->lock);
    return r;
}

bool mm_find_start(struct mm *mm, const struct mappable_ops *ops, uaddr_t *out_addr)
{
    rwlock_rdlock(&mm->lock);
    struct vma *v = vma_first(mm, 0);
    while (v && !(v->m && v->m->ops == ops && v->off == 0))
        v = vma_next(v);
    if (v)
        *out_addr = uaddr(v->start);
    rwlock_unlock(&mm->lock);
    return v != NULL;
}
