/* Memory that was given to a guest by the piece and never touched: taken back when it is missing
 * elsewhere. A page that nobody wrote reads as zeros, so its next use may as well be its first. */
#include <errno.h>

#include "base/heap.h"
#include "base/log.h"
#include "sentry/mm/mm_priv.h"

/* A large hole. */
#define TAKE_LARGE (UINT64_C(64) << 10)
/* Has so much been handed out, some of it may be untouched. */
#define TAKE_WORTH (4 * TAKE_LARGE)

/* What is taken out of the middle costs mappings, of which the host has so many and no more. */
static uint64_t take_least(const struct mm *mm, bool coarse)
{
    if (mm->pma_count < LIMIT_MAP_COUNT / 4 && !coarse)
        return PAGE_SIZE;
    return mm->pma_count < LIMIT_MAP_COUNT / 2 ? TAKE_LARGE : MM_CHUNK;
}

/* Whether holes of p, as v has it, can be taken. An object that fills its memory without being
 * mapped keeps it. */
static bool take_may(struct mm *mm, const struct vma *v, const struct pma *p)
{
    return p->kind == PMA_ANON || (!vma_private(v) && memfile_is_lazy(mm->mf, p->off));
}

/* Takes [lo, hi) of a PMA out of the stub's sight. */
static bool take_cut(struct mm *mm, uint64_t lo, uint64_t hi)
{
    if (mm_stock_locked(mm) != 0)
        return false;
    mm->changes++;
    if (plat_as_unmap(mm->as, uaddr(lo), hi - lo) != 0)
        return false;
    pma_isolate(mm, lo, hi);
    struct pma *p = pma_find(mm, lo);
    p->access = 0;
    p->taken = true;
    return true;
}

/* The holes of what backs [lo, hi), part of one VMA and one PMA. Bytes that have to stay. */
static uint64_t take_holes(struct mm *mm, const struct vma *v, uint64_t lo, uint64_t hi,
                           bool coarse, bool *any)
{
    const struct pma *p = pma_find(mm, lo);
    const bool may = take_may(mm, v, p);
    const uint64_t delta = p->off - p->start;
    uint64_t off, size, left = 0;
    while (lo < hi && memfile_hole(mm->mf, lo + delta, hi - lo, &off, &size)) {
        lo = off - delta;
        if (may && size >= take_least(mm, coarse) && take_cut(mm, lo, lo + size))
            *any = true;
        else
            left += size;
        lo += size;
    }
    return left;
}

/* Locked memory was meant to be there. */
static bool take_concerns(const struct vma *v, const struct pma *p)
{
    const bool locked = (v->flags & (VMA_LOCKED | VMA_LOCKONFAULT)) == VMA_LOCKED;
    return p->kind != PMA_HOST && !locked;
}

/* First: nobody can touch the holes any more. True: there are some. */
static bool take_unmap(struct mm *mm, bool coarse)
{
    uint64_t left = 0, at = 0;
    bool any = false;
    for (struct pma *p = pma_first(mm, at); p; p = pma_first(mm, at)) {
        at = MAX(at, p->start);
        const struct vma *v = vma_find(mm, at);
        const uint64_t end = v ? MIN(v->end, p->end) : p->end;
        if (v && take_concerns(v, p))
            left += take_holes(mm, v, at, end, coarse, &any);
        at = end;
    }
    if (coarse)
        return any;
    memfile_left_add(mm->mf, (int64_t)(left - mm->left));
    mm->left = left;
    return any;
}

/* Then: what is a hole still goes. What was touched in the last moment is mapped again, or by its
 * next fault. Bytes of memory that nobody can touch any more, but for an object's. */
static uint64_t take_or_map(struct mm *mm, const struct vma *v, struct pma *p)
{
    const uint64_t size = p->end - p->start;
    const bool object = p->kind == PMA_MEM;
    uint64_t off, hole;
    p->taken = false;
    if (!memfile_hole(mm->mf, p->off, size, &off, &hole) || hole < size) {
        if (pma_map(mm, v, p, p->start, p->end, 0) != 0)
            log_debug("mm: what was touched waits for its next fault");
        return 0;
    }
    pma_unlink(mm, p);
    pma_release(mm, p);
    pma_give_spare(mm, p);
    return object ? 0 : size;
}

static uint64_t take_unmapped(struct mm *mm)
{
    uint64_t sum = 0;
    for (struct pma *p = pma_first(mm, 0), *next; p; p = next) {
        next = pma_next(p);
        if (p->taken)
            sum += take_or_map(mm, vma_find(mm, p->start), p);
    }
    return sum + memfile_hide(mm->mf);
}

/* The stub may still have what no PMA says. */
static void take_forget(struct mm *mm)
{
    for (struct pma *p = pma_first(mm, 0); p; p = pma_next(p))
        p->taken = false;
    mm->unprotected = true;
}

uint64_t mm_take_back_locked(struct mm *mm, bool coarse)
{
    if (!memfile_limited(mm->mf) || mm->fresh || mm->stale || mm->unprotected)
        return 0;
    uint64_t sum = 0;
    mm->given = 0;
    heap_exempt(true);
    if (take_unmap(mm, coarse)) {
        if (mm_commit_locked(mm) == 0 && !mm->stale)
            sum = take_unmapped(mm);
        else
            take_forget(mm);
    }
    heap_exempt(false);
    return sum;
}

uint64_t mm_take_back(struct mm *mm, bool coarse)
{
    /* Each address space costs a turn of its stub. */
    if (coarse && atomic_load_explicit(&mm->given, memory_order_relaxed) < TAKE_WORTH)
        return 0;
    heap_exempt(true);
    int err = mm_begin(mm, NULL);
    heap_exempt(false);
    if (err)
        return 0;
    const uint64_t sum = mm_take_back_locked(mm, coarse);
    mm_end(mm);
    return sum;
}
