/* Mappings that may not change any more: mseal(2). And the old remap_file_pages(2), which Linux too
 * makes of plain mappings. */
#include <errno.h>

#include "base/ckd.h"
#include "sentry/mm/mm_priv.h"

static int seal_range(struct mm *mm, uint64_t start, uint64_t end)
{
    if (!vma_covers(mm, start, end))
        return -ENOMEM;
    if (mm->vma_count + 2 > LIMIT_MAP_COUNT)
        return -ENOMEM;
    mm->has_sealed = true;
    vma_isolate(mm, start, end);
    for (struct vma *v = vma_find(mm, start); v && v->start < end; v = vma_next(v))
        v->flags |= VMA_SEALED;
    vma_merge_range(mm, start, end);
    return 0;
}

int mm_seal(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size)
{
    uint64_t len;
    if (!IS_ALIGNED(addr.v, PAGE_SIZE) || ckd_align_up(&len, size, PAGE_SIZE) ||
        addr.v > UINT64_MAX - len)
        return -EINVAL;
    if (len == 0)
        return 0;
    int err = mm_begin(mm, ctx);
    if (err)
        return err;
    err = seal_range(mm, addr.v, addr.v + len);
    mm_end(mm);
    return err;
}

/* One object, mapped shared, over all of the range; with a reference. */
static int remap_object(struct mm *mm, uint64_t start, uint64_t end, struct mm_map_args *out)
{
    struct vma *v = vma_find(mm, start);
    if (!v || !(v->flags & VMA_SHARED))
        return -EINVAL;
    out->prot = v->prot;
    out->max_prot = v->max_prot;
    out->flags = v->flags & VMA_LOCKED ? MAP_LOCKED : 0;
    out->m = v->m;
    while (v->end < end) {
        struct vma *next = vma_next(v);
        if (!next || next->start != v->end || next->m != out->m || next->prot != out->prot ||
            next->flags != v->flags)
            return -EINVAL;
        v = next;
    }
    out->m->ops->get(out->m);
    return 0;
}

int mm_remap_file_pages(struct mm *mm, struct plat_ctx *ctx, const struct mm_limits *lim,
                        uaddr_t addr, uint64_t size, uint64_t page_off, int flags)
{
    struct mm_map_args args = {.addr = uaddr(ALIGN_DOWN(addr.v, (uint64_t)PAGE_SIZE)),
                               .size = ALIGN_DOWN(size, (uint64_t)PAGE_SIZE)};
    uint64_t end;
    uaddr_t at;
    if (ckd_add(&end, args.addr.v, args.size) || args.size == 0 ||
        page_off > (UINT64_MAX - args.size) >> PAGE_SHIFT)
        return -EINVAL;
    rwlock_rdlock(&mm->lock);
    int err = remap_object(mm, args.addr.v, end, &args);
    rwlock_unlock(&mm->lock);
    if (err)
        return err;
    args.off = page_off << PAGE_SHIFT;
    args.flags |= MAP_SHARED | MAP_FIXED | MAP_POPULATE | (flags & MAP_NONBLOCK);
    err = mm_mmap(mm, ctx, lim, &args, &at);
    args.m->ops->put(args.m);
    return err;
}
