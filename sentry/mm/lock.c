/* mlock(2) and its relatives, mincore(2), msync(2). */
#include <errno.h>
#include <string.h>

#include "base/ckd.h"
#include "sentry/mm/mm_priv.h"

#define LOCK_FLAGS (VMA_LOCKED | VMA_LOCKONFAULT)

/* ---- mlock ---- */

static uint32_t lock_flags(enum mm_lock_mode mode)
{
    if (mode == MM_UNLOCK)
        return 0;
    return mode == MM_LOCK ? VMA_LOCKED : LOCK_FLAGS;
}

static int lock_vma(struct mm *mm, struct vma *v, uint64_t start, uint64_t end, uint32_t flags)
{
    if ((v->flags & LOCK_FLAGS) == flags)
        return 0;
    unsigned cuts = (start > v->start ? 1u : 0u) + (end < v->end ? 1u : 0u);
    if (cuts > 0 && mm->vma_count + cuts > LIMIT_MAP_COUNT)
        return -ENOMEM;
    int err = mm_stock_locked(mm);
    if (err)
        return err;
    vma_isolate(mm, start, end);
    v = vma_find(mm, start);
    vma_account(mm, v, v->end - v->start, false);
    v->flags = (v->flags & ~LOCK_FLAGS) | flags;
    vma_account(mm, v, v->end - v->start, true);
    return 0;
}

static int lock_range(struct mm *mm, uint64_t start, uint64_t end, uint32_t flags)
{
    int err = 0;
    while (start < end && !err) {
        struct vma *v = vma_find(mm, start);
        if (!v)
            return -ENOMEM;
        uint64_t to = MIN(v->end, end);
        err = lock_vma(mm, v, start, to, flags);
        start = to;
    }
    return err;
}

/* __mm_populate(): what is accessible is made present; a page that cannot be had ends it. */
static int lock_fill(struct mm *mm, uint64_t start, uint64_t end)
{
    for (struct vma *v = vma_first(mm, start); v && v->start < end; v = vma_next(v)) {
        if (v->prot == PROT_NONE || (v->flags & LOCK_FLAGS) != VMA_LOCKED)
            continue;
        unsigned budget = MM_EAGER_TRANSLATIONS;
        uint64_t lo = MAX(v->start, start), hi = MIN(v->end, end);
        int err = mm_populate(mm, v, lo, hi, PLAT_MAP_POPULATE, budget);
        if (err)
            return -ENOMEM;
    }
    return 0;
}

/* Bytes of the range that are locked already. */
static uint64_t lock_counted(struct mm *mm, uint64_t start, uint64_t end)
{
    uint64_t sum = 0;
    for (struct vma *v = vma_first(mm, start); v && v->start < end; v = vma_next(v)) {
        if (v->flags & VMA_LOCKED)
            sum += MIN(v->end, end) - MAX(v->start, start);
    }
    return sum;
}

static int lock_charge(struct mm *mm, const struct mm_limits *lim, uint64_t start, uint64_t end)
{
    if (!lim || lim->ipc_lock)
        return 0;
    if (lim->memlock == 0)
        return -EPERM;
    uint64_t more = end - start, have = mm->locked - lock_counted(mm, start, end);
    return more > lim->memlock || have > lim->memlock - more ? -ENOMEM : 0;
}

int mm_mlock(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size,
             enum mm_lock_mode mode, const struct mm_limits *lim)
{
    uint64_t start = ALIGN_DOWN(addr.v, PAGE_SIZE), len;
    if (mode != MM_UNLOCK && lim && !lim->ipc_lock && lim->memlock == 0)
        return -EPERM;
    if (size > UINT64_MAX - (addr.v - start) ||
        ckd_align_up(&len, size + (addr.v - start), PAGE_SIZE) || start > UINT64_MAX - len)
        return -EINVAL;
    if (len == 0)
        return 0;
    int err = mm_begin(mm, ctx);
    if (err)
        return err;
    if (mode != MM_UNLOCK)
        err = lock_charge(mm, lim, start, start + len);
    if (!err) {
        err = lock_range(mm, start, start + len, lock_flags(mode));
        vma_merge_range(mm, start, start + len);
    }
    if (!err && mode == MM_LOCK)
        err = lock_fill(mm, start, start + len);
    mm_end(mm);
    return err;
}

static int lock_all(struct mm *mm, int flags, const struct mm_limits *lim)
{
    uint32_t want = flags & MCL_ONFAULT ? LOCK_FLAGS : VMA_LOCKED;
    if (flags & MCL_CURRENT && lim && !lim->ipc_lock && mm->virt > lim->memlock)
        return -ENOMEM;
    mm->def_flags = flags & MCL_FUTURE ? want : 0;
    if (!(flags & MCL_CURRENT) && flags != 0)
        return 0;
    struct vma *next;
    for (struct vma *v = vma_first(mm, 0); v; v = next) {
        next = vma_next(v);
        int err = lock_vma(mm, v, v->start, v->end, flags ? want : 0);
        if (err)
            return err;
    }
    vma_merge_range(mm, 0, mm->max_addr);
    /* As Linux, which does not tell what could not be filled in. */
    if (flags & MCL_CURRENT && lock_fill(mm, 0, mm->max_addr) != 0)
        return 0;
    return 0;
}

int mm_mlockall(struct mm *mm, struct plat_ctx *ctx, int flags, const struct mm_limits *lim)
{
    if (flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) || flags == MCL_ONFAULT)
        return -EINVAL;
    if (flags != 0 && lim && !lim->ipc_lock && lim->memlock == 0)
        return -EPERM;
    int err = mm_begin(mm, ctx);
    if (err)
        return err;
    err = lock_all(mm, flags, lim);
    mm_end(mm);
    return err;
}

/* ---- mincore ---- */

/* Private memory that was another's before is there as a whole, zeroed: what the guest has not
 * written since is not there to it. */
static void mincore_untouched(struct mm *mm, uint64_t off, size_t pages, unsigned char *vec)
{
    static const char zeros[PAGE_SIZE];

    for (size_t i = 0; i < pages; i++)
        if (vec[i] && memcmp(memfile_ptr(mm->mf, off + (i << PAGE_SHIFT)), zeros, PAGE_SIZE) == 0)
            vec[i] = 0;
}

/* Pages [at, end) of p. A host file's pages are as good as present. */
static void mincore_present(struct mm *mm, const struct pma *p, uint64_t at, uint64_t end,
                            unsigned char *vec)
{
    uint64_t off = p->off + (at - p->start), size = end - at;
    size_t pages = size >> PAGE_SHIFT;
    uint64_t present = p->kind == PMA_HOST ? size : memfile_resident_range(mm->mf, off, size);
    if (present == size || present == 0) {
        memset(vec, present ? 1 : 0, pages);
        return;
    }
    for (size_t i = 0; i < pages; i++)
        vec[i] = memfile_resident_range(mm->mf, off + (i << PAGE_SHIFT), PAGE_SIZE) > 0;
}

/* Locked pages are there, whatever is in them. A PMA may lie in several VMAs. */
static void mincore_pma(struct mm *mm, const struct pma *p, uint64_t lo, uint64_t hi,
                        unsigned char *vec)
{
    mincore_present(mm, p, lo, hi, vec);
    if (p->kind != PMA_ANON)
        return;
    for (const struct vma *v = vma_find(mm, lo); lo < hi; v = vma_find(mm, lo)) {
        BUG_ON(!v);
        const uint64_t to = MIN(v->end, hi);
        const size_t pages = (to - lo) >> PAGE_SHIFT;
        if (!(v->flags & VMA_LOCKED))
            mincore_untouched(mm, p->off + (lo - p->start), pages, vec);
        vec += pages;
        lo = to;
    }
}

int mm_mincore(struct mm *mm, uaddr_t addr, uint64_t size, unsigned char *vec)
{
    uint64_t len, start = addr.v;
    int err = 0;
    if (!IS_ALIGNED(start, PAGE_SIZE))
        return -EINVAL;
    if (ckd_align_up(&len, size, PAGE_SIZE) || !mm_range_ok(mm, start, len))
        return -ENOMEM;
    if (len == 0)
        return 0;
    rwlock_rdlock(&mm->lock);
    if (!vma_covers(mm, start, start + len)) {
        err = -ENOMEM;
        goto out_unlock;
    }
    memset(vec, 0, len >> PAGE_SHIFT);
    for (struct pma *p = pma_first(mm, start); p && p->start < start + len; p = pma_next(p)) {
        uint64_t lo = MAX(p->start, start), hi = MIN(p->end, start + len);
        mincore_pma(mm, p, lo, hi, vec + ((lo - start) >> PAGE_SHIFT));
    }
out_unlock:
    rwlock_unlock(&mm->lock);
    return err;
}

/* ---- msync ---- */

/* The next VMA's part of [start, end): its object with a reference when it has to be written back.
 */
static int msync_next(struct mm *mm, uint64_t start, uint64_t end, int flags,
                      struct mappable **out_m, uint64_t *out_off, uint64_t *lo, uint64_t *hi)
{
    int err = 0;
    *out_m = NULL;
    rwlock_rdlock(&mm->lock);
    struct vma *v = vma_first(mm, start);
    if (!v || v->start >= end) {
        err = -ENOENT;
    } else if (flags & MS_INVALIDATE && v->flags & VMA_LOCKED) {
        err = -EBUSY;
    } else {
        *lo = MAX(v->start, start);
        *hi = MIN(v->end, end);
        *out_off = v->off + (*lo - v->start);
        if (flags & MS_SYNC && v->m && !vma_private(v) && v->m->ops->msync) {
            *out_m = v->m;
            v->m->ops->get(v->m);
        }
    }
    rwlock_unlock(&mm->lock);
    return err;
}

static int msync_range(struct mm *mm, uint64_t start, uint64_t end, int flags)
{
    bool hole = false;
    while (start < end) {
        struct mappable *m;
        uint64_t off, lo, hi;
        int err = msync_next(mm, start, end, flags, &m, &off, &lo, &hi);
        if (err == -ENOENT)
            return -ENOMEM;
        if (!err && m) {
            err = m->ops->msync(m, off, hi - lo);
            m->ops->put(m);
        }
        if (err)
            return err;
        hole |= lo > start;
        start = hi;
    }
    return hole ? -ENOMEM : 0;
}

int mm_msync(struct mm *mm, uaddr_t addr, uint64_t size, int flags)
{
    uint64_t len;
    if (flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) || !IS_ALIGNED(addr.v, PAGE_SIZE) ||
        (flags & (MS_ASYNC | MS_SYNC)) == (MS_ASYNC | MS_SYNC))
        return -EINVAL;
    if (ckd_align_up(&len, size, PAGE_SIZE) || addr.v > UINT64_MAX - len)
        return -ENOMEM;
    return msync_range(mm, addr.v, addr.v + len, flags);
}
