/* brk(2). */
#include "base/ckd.h"
#include "sentry/mm/mm_priv.h"

static bool brk_grow(struct mm *mm, const struct mm_limits *lim, uint64_t start, uint64_t end)
{
    if (!vma_range_free(mm, start, end) || mm->vma_count >= LIMIT_MAP_COUNT)
        return false;
    if (mm_may_expand(mm, lim, end - start, PROT_READ | PROT_WRITE, mm->def_flags) != 0)
        return false;
    if (mm->def_flags & VMA_LOCKED && mm_may_lock(mm, lim, end - start) != 0)
        return false;
    struct vma *v = vma_take_spare(mm);
    v->start = start;
    v->end = end;
    v->flags = mm->def_flags | VMA_ACCOUNT;
    v->prot = PROT_READ | PROT_WRITE;
    v->max_prot = PROT_READ | PROT_WRITE | PROT_EXEC;
    v->name = "[heap]";
    vma_link(mm, v, false);
    vma_merge_range(mm, start, end);
    v = vma_find(mm, start);
    if (v && mm_is_eager(v, end - start)) {
        int err = mm_populate(mm, v, start, end, 0, MM_EAGER_TRANSLATIONS);
        (void)err; /* left to faults */
    }
    return true;
}

/* RLIMIT_DATA counts the program's data with the heap: check_data_rlimit(). */
static bool brk_within(const struct mm_layout *l, const struct mm_limits *lim, uint64_t brk)
{
    if (!lim || lim->data == UINT64_MAX)
        return true;
    uint64_t heap = brk - l->start_brk, data = l->end_data - l->start_data;
    return heap <= lim->data && data <= lim->data - heap;
}

static bool brk_move(struct mm *mm, const struct mm_limits *lim, uint64_t brk)
{
    struct mm_layout *l = &mm->layout;
    uint64_t old = ALIGN_UP(l->brk, PAGE_SIZE), new;
    if (brk < l->start_brk || ckd_align_up(&new, brk, PAGE_SIZE) || new > mm->max_addr ||
        !brk_within(l, lim, brk))
        return false;
    if (new < old && vma_sealed(mm, new, old))
        return false;
    if (new < old)
        mm_unmap_locked(mm, new, old);
    else if (new > old && !brk_grow(mm, lim, old, new))
        return false;
    l->brk = brk;
    return true;
}

uint64_t mm_brk(struct mm *mm, struct plat_ctx *ctx, const struct mm_limits *lim, uint64_t brk)
{
    if (mm_begin(mm, ctx) != 0) {
        mm_lock_layout(mm);
        uint64_t now = mm->layout.brk;
        mm_unlock_layout(mm);
        return now;
    }
    mm_remember_limits(mm, lim);
    (void)brk_move(mm, lim, brk);
    uint64_t now = mm->layout.brk;
    mm_end(mm);
    return now;
}
