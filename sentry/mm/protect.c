/* mprotect(2). */
#include <errno.h>

#include "base/ckd.h"
#include "sentry/mm/mm_priv.h"

/* Brings the stub's view of [start, end), which lies in v, to what v says now. */
static int protect_pmas(struct mm *mm, struct vma *v, uint64_t start, uint64_t end)
{
    uint64_t run = start, run_end = start; /* adjacent PMAs that get the same access */
    unsigned run_access = 0;
    int err = mm_stock_locked(mm);
    if (err)
        return err;
    pma_isolate(mm, start, end);
    for (struct pma *p = pma_first(mm, start); p && p->start < end; p = pma_next(p)) {
        unsigned access = pma_effective(v, p);
        if (access == p->access)
            continue;
        if (run_end != p->start || run_access != access) {
            if (run_end > run)
                err = mm_as_protect(mm, run, run_end, run_access);
            if (err)
                return err;
            run = p->start;
            run_access = access;
        }
        run_end = p->end;
        p->access = access;
    }
    if (run_end > run)
        err = mm_as_protect(mm, run, run_end, run_access);
    pma_merge_range(mm, start, end);
    return err;
}

static int protect_charge(struct mm *mm, const struct mm_limits *lim, const struct vma *v,
                          uint64_t size, int prot)
{
    if (!vma_private(v) || v->flags & VMA_GROWSDOWN || v->prot & PROT_WRITE || !(prot & PROT_WRITE))
        return 0;
    if (lim && (size > lim->data || mm->data > lim->data - size))
        return -ENOMEM;
    const bool promise = !(v->flags & VMA_ACCOUNT) && mm_accountable(v->flags, prot);
    return promise && !mm_may_promise(mm, lim, size) ? -ENOMEM : 0;
}

/* One VMA's part of the range. */
static int protect_vma(struct mm *mm, const struct mm_limits *lim, struct vma *v, uint64_t start,
                       uint64_t end, int prot)
{
    if (prot & ~v->max_prot)
        return -EACCES;
    if (UNLIKELY(mm->layout.mdwe) && prot & PROT_EXEC &&
        (prot & PROT_WRITE || !(v->prot & PROT_EXEC)))
        return -EACCES;
    if (v->prot == prot)
        return 0;
    unsigned cuts = (start > v->start ? 1u : 0u) + (end < v->end ? 1u : 0u);
    if (cuts > 0 && (mm->vma_count + cuts > LIMIT_MAP_COUNT ||
                     mm->pma_count + cuts > LIMIT_MAP_COUNT - MM_PMA_SPARE))
        return -ENOMEM;
    int err = protect_charge(mm, lim, v, end - start, prot);
    if (!err)
        err = mm_stock_locked(mm);
    if (err)
        return err;
    vma_isolate(mm, start, end);
    v = vma_find(mm, start);
    vma_set_prot(mm, v, prot);
    err = protect_pmas(mm, v, start, end);
    if (err)
        return err;
    /* Memory that becomes writable is filled in as a whole, as it is by mmap. */
    if (mm_is_eager(v, end - start)) {
        err = mm_populate(mm, v, start, end, 0, MM_EAGER_TRANSLATIONS);
        (void)err; /* left to faults */
    }
    return 0;
}

static int protect_range(struct mm *mm, const struct mm_limits *lim, uint64_t start, uint64_t end,
                         int prot)
{
    uint64_t at = start;
    int err = 0;
    while (at < end && !err) {
        struct vma *v = vma_find(mm, at);
        if (!v)
            return -ENOMEM;
        uint64_t to = MIN(v->end, end);
        err = protect_vma(mm, lim, v, at, to, prot);
        at = to;
    }
    return err;
}

/* PROT_GROWSDOWN: the change goes down to the start of the stack. */
static int protect_grow(struct mm *mm, int prot, uint64_t *start, uint64_t end)
{
    if (!(prot & (PROT_GROWSDOWN | PROT_GROWSUP)))
        return 0;
    struct vma *v = vma_first(mm, *start);
    if (!v || v->start >= end)
        return -ENOMEM;
    if (prot & PROT_GROWSUP || !(v->flags & VMA_GROWSDOWN))
        return -EINVAL;
    *start = v->start;
    return 0;
}

int mm_mprotect(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size, int prot,
                const struct mm_limits *lim)
{
    const int grow = PROT_GROWSDOWN | PROT_GROWSUP;
    uint64_t len, start = addr.v;
    if ((prot & grow) == grow || !IS_ALIGNED(start, PAGE_SIZE))
        return -EINVAL;
    if (size == 0)
        return 0;
    if (ckd_align_up(&len, size, PAGE_SIZE) || start > UINT64_MAX - len)
        return -ENOMEM;
    /* 8: PROT_SEM */
    if (prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC | 8 | grow))
        return -EINVAL;
    if (!mm_range_ok(mm, start, len))
        return -ENOMEM;
    int err = mm_begin(mm, ctx);
    if (err)
        return err;
    uint64_t end = start + len;
    err = protect_grow(mm, prot, &start, end);
    if (!err && vma_sealed(mm, start, end))
        err = -EPERM;
    if (!err) {
        err = protect_range(mm, lim, start, end, prot & (PROT_READ | PROT_WRITE | PROT_EXEC));
        vma_merge_range(mm, start, end);
    }
    mm_end(mm);
    return err;
}
