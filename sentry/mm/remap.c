/* mremap(2). */
#include <errno.h>

#include "base/ckd.h"
#include "sentry/mm/mm_priv.h"

struct remap {
    struct mm *mm;
    const struct mm_limits *lim;
    struct vma *v; /* holds old */
    uint64_t old, old_size, new_size, new;
    int flags;
};

/* vma_to_resize() of mm/mremap.c. */
static int remap_check(const struct remap *r)
{
    const struct vma *v = r->v;
    if (r->old_size == 0 && vma_private(v))
        return -EINVAL;
    if (r->flags & MREMAP_DONTUNMAP && v->flags & VMA_GROWSDOWN)
        return -EINVAL;
    if (r->old_size > v->end - r->old)
        return -EFAULT;
    bool twice = r->flags & MREMAP_DONTUNMAP;
    if (r->new_size <= r->old_size && !twice)
        return 0;
    uint64_t more = twice ? r->new_size : r->new_size - r->old_size;
    if (v->m && v->off + (r->old - v->start) > (uint64_t)INT64_MAX - r->new_size)
        return -EINVAL;
    if (v->flags & VMA_LOCKED && mm_may_lock(r->mm, r->lim, more) != 0)
        return -EAGAIN;
    return mm_may_expand(r->mm, r->lim, more, v->prot, v->flags);
}

static void remap_fill(struct mm *mm, uint64_t start, uint64_t end)
{
    struct vma *v = vma_find(mm, start);
    if (!v || start >= end || !mm_is_eager(v, end - start))
        return;
    int err = mm_populate(mm, v, start, end, 0, MM_EAGER_TRANSLATIONS);
    (void)err; /* left to faults */
}

static bool remap_try_grow(struct remap *r)
{
    struct vma *v = r->v;
    uint64_t end = r->old + r->old_size, new_end = r->old + r->new_size;
    if (end != v->end || !mm_range_ok(r->mm, r->old, r->new_size) ||
        !vma_range_free(r->mm, end, new_end))
        return false;
    v->end = new_end;
    vma_account(r->mm, v, new_end - end, true);
    vma_merge_range(r->mm, v->start, new_end);
    remap_fill(r->mm, end, new_end);
    return true;
}

/* What backs [old, old+size) goes to new. A mapping that the stub refuses is left to a fault. */
static int remap_move_pmas(struct mm *mm, struct vma *to, uint64_t old, uint64_t new, uint64_t size)
{
    struct list moved;
    bool any = false;
    int err = mm_stock_locked(mm);
    if (err)
        return err;
    list_init(&moved);
    pma_isolate(mm, old, old + size);
    struct pma *next;
    for (struct pma *p = pma_first(mm, old); p && p->start < old + size; p = next) {
        next = pma_next(p);
        pma_unlink(mm, p);
        list_add_tail(&p->link, &moved);
        any = true;
    }
    if (any)
        mm_as_unmap(mm, old, old + size);
    while (!list_empty(&moved)) {
        struct pma *p = list_first_entry(&moved, struct pma, link);
        list_del(&p->link);
        p->start = p->start - old + new;
        p->end = p->end - old + new;
        p->access = 0;
        pma_link(mm, p);
        err = pma_map(mm, to, p, p->start, p->end, 0);
        if (err)
            p->access = 0;
    }
    pma_merge_range(mm, new, new + size);
    return 0;
}

static struct vma *remap_copy_vma(struct remap *r)
{
    struct vma *to = vma_take_spare(r->mm);
    *to = *r->v;
    to->start = r->new;
    to->end = r->new + r->new_size;
    if (to->m) {
        to->off += r->old - r->v->start;
        to->m->ops->get(to->m);
    }
    vma_link(r->mm, to, true);
    return to;
}

/* The mapping goes to r->new, which is free; old parts that do not fit go away. */
static int remap_move(struct remap *r)
{
    struct mm *mm = r->mm;
    uint64_t keep = MIN(r->old_size, r->new_size);
    if (mm->vma_count + 3 >= LIMIT_MAP_COUNT)
        return -ENOMEM;
    int err = mm_stock_locked(mm);
    if (err)
        return err;
    struct vma *to = remap_copy_vma(r);
    if (keep > 0)
        err = remap_move_pmas(mm, to, r->old, r->new, keep);
    if (!err)
        err = mm_stock_locked(mm);
    if (err) {
        vma_remove(mm, to);
        return err;
    }
    if (!(r->flags & MREMAP_DONTUNMAP)) {
        if (r->old_size > 0)
            mm_unmap_locked(mm, r->old, r->old + r->old_size);
    } else if (r->v->flags & VMA_LOCKED) {
        vma_isolate(mm, r->old, r->old + r->old_size);
        struct vma *v = vma_find(mm, r->old);
        vma_account(mm, v, v->end - v->start, false);
        v->flags &= ~(VMA_LOCKED | VMA_LOCKONFAULT);
        vma_account(mm, v, v->end - v->start, true);
    }
    vma_merge_range(mm, r->new, r->new + r->new_size);
    remap_fill(mm, r->new + keep, r->new + r->new_size);
    return 0;
}

static int remap_place(struct remap *r)
{
    struct mm *mm = r->mm;
    uint64_t hint = ALIGN_DOWN(r->new, PAGE_SIZE);
    if (hint != 0 && mm_range_ok(mm, hint, r->new_size) &&
        vma_range_free(mm, hint, hint + r->new_size)) {
        r->new = hint;
        return 0;
    }
    int err = vma_gap(mm, r->new_size, mm->min_addr, mm->mmap_base, &r->new);
    return err ? vma_gap(mm, r->new_size, mm->min_addr, mm->max_addr, &r->new) : 0;
}

/* mremap_to(): the caller chose the place, or wants the old one kept. */
static int remap_to(struct remap *r)
{
    struct mm *mm = r->mm;
    if (!IS_ALIGNED(r->new, PAGE_SIZE) || !mm_range_ok(mm, r->new, r->new_size))
        return -EINVAL;
    if (range_overlap(r->old, r->old_size, r->new, r->new_size))
        return -EINVAL;
    if (mm->vma_count + 2 >= LIMIT_MAP_COUNT)
        return -ENOMEM;
    bool fixed = r->flags & MREMAP_FIXED;
    if (fixed && (r->new < mm->min_addr))
        return -EPERM;
    if (fixed && vma_overlaps_reserved(mm, r->new, r->new + r->new_size))
        return -ENOMEM;
    if (fixed && vma_sealed(mm, r->new, r->new + r->new_size))
        return -EPERM;
    if (fixed)
        mm_unmap_locked(mm, r->new, r->new + r->new_size);
    int err = mm_stock_locked(mm);
    if (err)
        return err;
    r->v = vma_find(mm, r->old);
    if (r->old_size > r->new_size) {
        /* As munmap(2): whatever is there, or nothing. */
        mm_unmap_locked(mm, r->old + r->new_size, r->old + r->old_size);
        err = mm_stock_locked(mm);
        if (err)
            return err;
        r->old_size = r->new_size;
        r->v = vma_find(mm, r->old);
    }
    err = r->v ? remap_check(r) : -EFAULT;
    if (!err && !fixed)
        err = remap_place(r);
    return err ? err : remap_move(r);
}

static int remap_in_place(struct remap *r)
{
    struct mm *mm = r->mm;
    if (r->old_size >= r->new_size) {
        if (r->old_size > r->v->end - r->old && r->old_size == r->new_size)
            return -EFAULT;
        if (r->old_size > r->new_size)
            mm_unmap_locked(mm, r->old + r->new_size, r->old + r->old_size);
        r->new = r->old;
        return 0;
    }
    int err = remap_check(r);
    if (err)
        return err;
    if (r->old_size > 0 && remap_try_grow(r)) {
        r->new = r->old;
        return 0;
    }
    if (!(r->flags & MREMAP_MAYMOVE))
        return -ENOMEM;
    r->new = 0;
    err = remap_place(r);
    return err ? err : remap_move(r);
}

int mm_mremap(struct mm *mm, struct plat_ctx *ctx, const struct mm_limits *lim, uaddr_t old,
              uint64_t old_size, uint64_t new_size, int flags, uaddr_t new_addr, uaddr_t *out_addr)
{
    struct remap r = {.mm = mm, .lim = lim, .old = old.v, .new = new_addr.v, .flags = flags};
    const int move = MREMAP_FIXED | MREMAP_DONTUNMAP;
    if (flags & ~(MREMAP_MAYMOVE | move) || (flags & move && !(flags & MREMAP_MAYMOVE)))
        return -EINVAL;
    if (flags & MREMAP_DONTUNMAP && old_size != new_size)
        return -EINVAL;
    if (!IS_ALIGNED(old.v, PAGE_SIZE) || ckd_align_up(&r.old_size, old_size, PAGE_SIZE) ||
        ckd_align_up(&r.new_size, new_size, PAGE_SIZE) || r.new_size == 0)
        return -EINVAL;
    if (r.old_size > mm->max_addr || old.v >= mm->max_addr || r.old_size > mm->max_addr - old.v)
        return -EFAULT;
    int err = mm_begin(mm, ctx);
    if (err)
        return err;
    mm_remember_limits(mm, lim);
    r.v = vma_find(mm, old.v);
    if (!r.v)
        err = -EFAULT;
    else if (vma_sealed(mm, r.old, r.old + MAX(r.old_size, PAGE_SIZE)))
        err = -EPERM;
    else if (r.new_size > mm->max_addr)
        err = -EINVAL; /* before Linux 6.17 ENOMEM, when it may be moved anywhere */
    else
        err = flags & move ? remap_to(&r) : remap_in_place(&r);
    mm_end(mm);
    if (!err)
        *out_addr = uaddr(r.new);
    return err;
}
