/* madvise(2). */
#include <errno.h>

#include "base/ckd.h"
#include "sentry/mm/mm_priv.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* ---- giving memory back ---- */

/* Private memory that nobody else shares is zeroed where it is, so the stub's mappings stay. */
static int advise_drop_anon(struct mm *mm, uint64_t start, uint64_t end)
{
    while (start < end) {
        struct pma *p = pma_first(mm, start);
        if (!p || p->start >= end)
            return 0;
        uint64_t lo = MAX(p->start, start), hi = MIN(p->end, end);
        uint64_t off = p->off + (lo - p->start);
        uint64_t sole = p->kind == PMA_ANON ? memfile_sole_owner(mm->mf, off, hi - lo) : 0;
        if (sole > 0) {
            memfile_zero(mm->mf, off, sole);
            start = lo + sole;
            continue;
        }
        int err = mm_stock_locked(mm);
        if (err)
            return err;
        (void)pma_drop_range(mm, lo, hi, false);
        start = hi;
    }
    return 0;
}

/* Private copies of a file's pages go, the file's own pages show up again. */
static int advise_drop_copies(struct mm *mm, struct vma *v, uint64_t start, uint64_t end)
{
    bool any = false;
    uint64_t at = start;
    while (at < end) {
        struct pma *p = pma_first(mm, at);
        if (!p || p->start >= end)
            break;
        uint64_t lo = MAX(p->start, at), hi = MIN(p->end, end);
        at = hi;
        if (p->kind != PMA_ANON)
            continue;
        int err = mm_stock_locked(mm);
        if (err)
            return err;
        (void)pma_drop_range(mm, lo, hi, false);
        any = true;
    }
    return any ? mm_populate(mm, v, start, end, 0, MM_EAGER_TRANSLATIONS) : 0;
}

static int advise_dontneed(struct mm *mm, struct vma *v, uint64_t start, uint64_t end, int advice)
{
    if (v->flags & VMA_LOCKED && advice != MADV_DONTNEED_LOCKED)
        return -EINVAL;
    if (advice == MADV_FREE && (v->m || !vma_private(v)))
        return -EINVAL;
    if (!vma_private(v))
        return 0; /* the object keeps the bytes */
    if (!v->m)
        return advise_drop_anon(mm, start, end);
    int err = advise_drop_copies(mm, v, start, end);
    return err == -ENOMEM ? 0 : err; /* left to faults */
}

/* ---- flags ---- */

static int advise_flags(const struct vma *v, int advice, uint32_t *set, uint32_t *clear)
{
    *set = 0;
    *clear = 0;
    switch (advice) {
    case MADV_DONTFORK:
        *set = VMA_DONTFORK;
        return 0;
    case MADV_DOFORK:
        *clear = VMA_DONTFORK;
        return 0;
    case MADV_WIPEONFORK:
        *set = VMA_WIPEONFORK;
        return v->m || !vma_private(v) ? -EINVAL : 0;
    case MADV_KEEPONFORK:
        *clear = VMA_WIPEONFORK;
        return 0;
    case MADV_DONTDUMP:
        *set = VMA_DONTDUMP;
        return 0;
    case MADV_DODUMP:
        *clear = VMA_DONTDUMP;
        return 0;
    case MADV_HUGEPAGE:
        *set = VMA_HUGEPAGE;
        *clear = VMA_NOHUGEPAGE;
        return 0;
    case MADV_NOHUGEPAGE:
        *set = VMA_NOHUGEPAGE;
        *clear = VMA_HUGEPAGE;
        return 0;
    default:
        return 0;
    }
}

static int advise_mark(struct mm *mm, struct vma *v, uint64_t start, uint64_t end, int advice)
{
    uint32_t set, clear;
    int err = advise_flags(v, advice, &set, &clear);
    if (err || (v->flags & (set | clear)) == set)
        return err;
    unsigned cuts = (start > v->start ? 1u : 0u) + (end < v->end ? 1u : 0u);
    if (cuts > 0 && mm->vma_count + cuts > LIMIT_MAP_COUNT)
        return -ENOMEM;
    err = mm_stock_locked(mm);
    if (err)
        return err;
    vma_isolate(mm, start, end);
    v = vma_find(mm, start);
    v->flags = (v->flags | set) & ~clear;
    return 0;
}

/* ---- filling in ---- */

/* faultin_page_range(): permission trouble is EINVAL, what cannot be had EFAULT. */
static int advise_populate(struct mm *mm, struct vma *v, uint64_t start, uint64_t end, int advice)
{
    unsigned access = advice == MADV_POPULATE_WRITE ? PLAT_WRITE : PLAT_READ;
    if (!vma_permits(v, access))
        return -EINVAL;
    for (uint64_t at = start; at < end;) {
        bool changed;
        int err = mm_make_usable(mm, v, at, access, &changed);
        if (err)
            return err == -ENOMEM ? err : -EFAULT;
        const struct pma *p = pma_find(mm, at);
        BUG_ON(!p);
        at = p->end;
    }
    return 0;
}

/* What a sealed VMA that cannot be written must not lose: can_modify_vma_madv(). */
static bool advise_discards(int advice)
{
    return advice == MADV_FREE || advice == MADV_DONTNEED || advice == MADV_DONTNEED_LOCKED ||
           advice == MADV_REMOVE || advice == MADV_DONTFORK || advice == MADV_WIPEONFORK;
}

static bool advise_sealed(const struct vma *v, int advice)
{
    return v->flags & VMA_SEALED && advise_discards(advice) && !v->m && !(v->prot & PROT_WRITE);
}

static int advise_vma(struct mm *mm, struct vma *v, uint64_t start, uint64_t end, int advice)
{
    switch (advice) {
    case MADV_DONTNEED:
    case MADV_DONTNEED_LOCKED:
    case MADV_FREE:
        return advise_dontneed(mm, v, start, end, advice);
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
        return advise_populate(mm, v, start, end, advice);
    case MADV_WILLNEED:
        if (v->m && v->prot != PROT_NONE) {
            int err = mm_populate(mm, v, start, end, 0, MM_EAGER_TRANSLATIONS);
            (void)err; /* a hint */
        }
        return 0;
    case MADV_COLD:
    case MADV_PAGEOUT:
        return v->flags & VMA_LOCKED ? -EINVAL : 0;
    default:
        return advise_mark(mm, v, start, end, advice);
    }
}

/* ---- MADV_REMOVE ---- */

/* The part of [start, end) in the first VMA: what to punch, with a reference; the lock is taken
 * and dropped inside, since punching may invalidate. */
static int advise_remove_next(struct mm *mm, uint64_t start, uint64_t end, struct mappable **out_m,
                              uint64_t *out_off, uint64_t *lo, uint64_t *hi)
{
    int err = 0;
    rwlock_rdlock(&mm->lock);
    struct vma *v = vma_first(mm, start);
    if (!v || v->start >= end) {
        err = -ENOENT;
    } else if (v->flags & VMA_LOCKED || !v->m) {
        err = -EINVAL;
    } else if (vma_private(v) || !(v->prot & PROT_WRITE)) {
        err = -EACCES;
    } else if (!v->m->ops->punch) {
        err = -EOPNOTSUPP;
    } else {
        *lo = MAX(v->start, start);
        *hi = MIN(v->end, end);
        *out_off = v->off + (*lo - v->start);
        *out_m = v->m;
        v->m->ops->get(v->m);
    }
    rwlock_unlock(&mm->lock);
    return err;
}

static int advise_remove(struct mm *mm, uint64_t start, uint64_t end)
{
    bool hole = false;
    while (start < end) {
        struct mappable *m;
        uint64_t off, lo, hi;
        int err = advise_remove_next(mm, start, end, &m, &off, &lo, &hi);
        if (err == -ENOENT)
            return -ENOMEM;
        if (err)
            return err;
        hole |= lo > start;
        err = m->ops->punch(m, off, hi - lo);
        m->ops->put(m);
        if (err)
            return err;
        start = hi;
    }
    return hole ? -ENOMEM : 0;
}

/* ---- all of the range ---- */

static int advise_range(struct mm *mm, uint64_t start, uint64_t end, int advice)
{
    bool populate = advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE;
    bool hole = false;
    while (start < end) {
        struct vma *v = vma_first(mm, start);
        if (!v || v->start >= end)
            return -ENOMEM;
        if (v->start > start) {
            if (populate)
                return -ENOMEM;
            hole = true;
            start = v->start;
        }
        uint64_t to = MIN(v->end, end);
        if (advise_sealed(v, advice))
            return -EPERM;
        int err = advise_vma(mm, v, start, to, advice);
        if (err)
            return err;
        start = to;
    }
    return hole ? -ENOMEM : 0;
}

static bool advise_known(int advice)
{
    switch (advice) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_REMOVE:
    case MADV_DONTFORK:
    case MADV_DOFORK:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
    case MADV_DONTNEED_LOCKED:
        return true;
    default:
        return false;
    }
}

int mm_madvise(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size, int advice)
{
    uint64_t len;
    if (!advise_known(advice) || !IS_ALIGNED(addr.v, PAGE_SIZE) ||
        ckd_align_up(&len, size, PAGE_SIZE) || addr.v > UINT64_MAX - len)
        return -EINVAL;
    if (len == 0)
        return 0;
    if (advice == MADV_REMOVE)
        return advise_remove(mm, addr.v, addr.v + len);
    int err = mm_begin(mm, ctx);
    if (err)
        return err;
    err = advise_range(mm, addr.v, addr.v + len, advice);
    vma_merge_range(mm, addr.v, addr.v + len);
    mm_end(mm);
    return err;
}

/* ---- the end ---- */

/* __oom_reap_task_mm(): what only this process has. */
int mm_reap(struct mm *mm)
{
    int err = mm_begin(mm, NULL);
    if (err)
        return err;
    mm->reaped = true;
    for (struct vma *v = vma_first(mm, 0); v && !err; v = vma_next(v))
        if (vma_private(v))
            err = v->m ? advise_drop_copies(mm, v, v->start, v->end)
                       : advise_drop_anon(mm, v->start, v->end);
    mm_end(mm);
    return err;
}
