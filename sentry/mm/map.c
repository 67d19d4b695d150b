/* mmap(2) and munmap(2). */
#include <errno.h>

#include "base/ckd.h"
#include "sentry/mm/mm_priv.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#define MAP_32BIT_LOW UINT64_C(0x40000000)
#define MAP_32BIT_HIGH UINT64_C(0x80000000)

/* ---- limits ---- */

int mm_may_expand(struct mm *mm, const struct mm_limits *lim, uint64_t size, int prot,
                  uint32_t flags)
{
    bool data = !(flags & (VMA_SHARED | VMA_GROWSDOWN)) && (prot & PROT_WRITE);
    if (lim && (size > lim->as || mm->virt > lim->as - size))
        return -ENOMEM;
    if (lim && data && (size > lim->data || mm->data > lim->data - size))
        return -ENOMEM;
    return mm_accountable(flags, prot) && !mm_may_promise(mm, lim, size) ? -ENOMEM : 0;
}

bool mm_may_promise(const struct mm *mm, const struct mm_limits *lim, uint64_t size)
{
    return memfile_may_commit(mm->mf, size, mm->virt, !lim || lim->admin);
}

int mm_may_lock(const struct mm *mm, const struct mm_limits *lim, uint64_t size)
{
    if (!lim || lim->ipc_lock)
        return 0;
    return size > lim->memlock || mm->locked > lim->memlock - size ? -EAGAIN : 0;
}

/* Bytes of [start, end) that VMAs cover. */
static uint64_t map_covered(struct mm *mm, uint64_t start, uint64_t end)
{
    uint64_t sum = 0;
    for (struct vma *v = vma_first(mm, start); v && v->start < end; v = vma_next(v))
        sum += MIN(v->end, end) - MAX(v->start, start);
    return sum;
}

/* ---- unmapping ---- */

void mm_unmap_locked(struct mm *mm, uint64_t start, uint64_t end)
{
    if (!vma_any(mm, start, end))
        return;
    vma_isolate(mm, start, end);
    struct vma *next;
    for (struct vma *v = vma_first(mm, start); v && v->start < end; v = next) {
        next = vma_next(v);
        vma_remove(mm, v);
    }
    (void)pma_drop_range(mm, start, end, false);
}

int mm_munmap(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size)
{
    uint64_t len;
    if (!IS_ALIGNED(addr.v, PAGE_SIZE) || size == 0 || ckd_align_up(&len, size, PAGE_SIZE) ||
        !mm_range_ok(mm, addr.v, len))
        return -EINVAL;
    int err = mm_begin(mm, ctx);
    if (err)
        return err;
    struct vma *v = vma_find(mm, addr.v);
    /* A hole in the middle makes two of one. */
    if (v && v->start < addr.v && v->end > addr.v + len && mm->vma_count >= LIMIT_MAP_COUNT)
        err = -ENOMEM;
    else if (vma_sealed(mm, addr.v, addr.v + len))
        err = -EPERM;
    else
        mm_unmap_locked(mm, addr.v, addr.v + len);
    mm_end(mm);
    return err;
}

/* ---- mmap ---- */

/* Checks that need no lock; *out: arguments with whole pages and plain flags. */
static int map_check(const struct mm *mm, const struct mm_map_args *in, struct mm_map_args *out)
{
    int type = in->flags & MAP_TYPE;
    *out = *in;
    if (in->size == 0)
        return -EINVAL;
    if (ckd_align_up(&out->size, in->size, PAGE_SIZE) || out->size > mm->max_addr)
        return -ENOMEM;
    if (in->m && !IS_ALIGNED(in->off, PAGE_SIZE))
        return -EINVAL;
    if (in->m && out->size > (uint64_t)INT64_MAX - MIN(in->off, (uint64_t)INT64_MAX))
        return -EOVERFLOW;
    if (type != MAP_SHARED && type != MAP_PRIVATE)
        return -EINVAL;
    out->flags = (in->flags & ~MAP_TYPE) | type;
    if (in->flags & MAP_FIXED_NOREPLACE)
        out->flags |= MAP_FIXED;
    if (in->flags & MAP_GROWSDOWN && (type == MAP_SHARED || in->m))
        return -EINVAL;
    if (in->flags & MAP_HUGETLB)
        return in->m ? -EINVAL : -ENOMEM; /* no pool of huge pages */
    out->prot = in->prot & (PROT_READ | PROT_WRITE | PROT_EXEC);
    return out->prot & ~in->max_prot ? -EACCES : 0;
}

static uint32_t map_vma_flags(const struct mm *mm, const struct mm_map_args *a)
{
    uint32_t flags = mm->def_flags;
    if ((a->flags & MAP_TYPE) == MAP_SHARED)
        flags |= VMA_SHARED;
    if (a->flags & MAP_GROWSDOWN)
        flags |= VMA_GROWSDOWN;
    if (a->flags & MAP_NORESERVE && atomic_load(&memfile_commit(mm->mf)->mode) != MEM_COMMIT_NEVER)
        flags |= VMA_NORESERVE;
    if (a->flags & MAP_LOCKED)
        flags |= VMA_LOCKED;
    return flags | (mm_accountable(flags, a->prot) ? VMA_ACCOUNT : 0);
}

static int map_place_fixed(struct mm *mm, const struct mm_map_args *a, uint64_t *out)
{
    if (!IS_ALIGNED(a->addr.v, PAGE_SIZE))
        return -EINVAL;
    if (!mm_range_ok(mm, a->addr.v, a->size))
        return -ENOMEM;
    if (a->addr.v < mm->min_addr)
        return -EPERM;
    if (vma_overlaps_reserved(mm, a->addr.v, a->addr.v + a->size))
        return a->flags & MAP_FIXED_NOREPLACE ? -EEXIST : -ENOMEM;
    if (a->flags & MAP_FIXED_NOREPLACE && vma_any(mm, a->addr.v, a->addr.v + a->size))
        return -EEXIST;
    if (vma_sealed(mm, a->addr.v, a->addr.v + a->size))
        return -EPERM;
    *out = a->addr.v;
    return 0;
}

static int map_place(struct mm *mm, const struct mm_map_args *a, uint64_t *out)
{
    if (a->flags & MAP_FIXED)
        return map_place_fixed(mm, a, out);
    uint64_t hint = ALIGN_DOWN(a->addr.v, PAGE_SIZE);
    uint64_t low = mm->min_addr, high = mm->mmap_base;
    if (a->flags & MAP_32BIT) {
        low = MAX(low, MAP_32BIT_LOW);
        high = MAP_32BIT_HIGH;
    }
    /* round_hint_to_min() of mm/mmap.c */
    if (hint != 0 && hint < mm->min_addr)
        hint = mm->min_addr;
    bool fits = hint != 0 && mm_range_ok(mm, hint, a->size);
    if (fits && a->flags & MAP_32BIT)
        fits = hint >= low && hint + a->size <= high;
    if (fits && vma_range_free(mm, hint, hint + a->size)) {
        *out = hint;
        return 0;
    }
    int err = vma_gap(mm, a->size, low, high, out);
    /* Nothing below the usual top: between it and the stack, as Linux's bottom-up fallback. */
    if (err && !(a->flags & MAP_32BIT))
        err = vma_gap(mm, a->size, mm->min_addr, mm->max_addr, out);
    return err;
}

static int map_charge(struct mm *mm, const struct mm_limits *lim, const struct mm_map_args *a,
                      uint32_t flags, uint64_t addr)
{
    if (a->flags & MAP_LOCKED && lim && !lim->ipc_lock && lim->memlock == 0)
        return -EPERM;
    if (flags & VMA_LOCKED) {
        int err = mm_may_lock(mm, lim, a->size);
        if (err)
            return err;
    }
    int err = mm_may_expand(mm, lim, a->size, a->prot, flags);
    if (!err || !(a->flags & MAP_FIXED))
        return err;
    /* What is replaced does not count against RLIMIT_AS. */
    uint64_t over = map_covered(mm, addr, addr + a->size);
    if (over == 0)
        return err;
    uint64_t virt = mm->virt;
    mm->virt -= over;
    err = mm_may_expand(mm, lim, a->size, a->prot, flags);
    mm->virt = virt;
    return err;
}

/* Fills in part of what was promised; what cannot be had now is left to faults. */
static void map_populate(struct mm *mm, struct vma *v, uint64_t start, uint64_t end, int flags)
{
    bool now = (flags & MAP_POPULATE && !(flags & MAP_NONBLOCK)) ||
               (v->flags & VMA_LOCKED && !(v->flags & VMA_LOCKONFAULT));
    if (v->prot == PROT_NONE || (!now && !mm_is_eager(v, end - start)))
        return;
    uint64_t to = end - start > MM_EAGER_MAX ? start + MM_EAGER_MAX : end;
    int err = mm_populate(mm, v, start, to, now ? PLAT_MAP_POPULATE : 0, MM_EAGER_TRANSLATIONS);
    (void)err;
}

static void map_install(struct mm *mm, const struct mm_map_args *a, uint32_t flags, uint64_t addr)
{
    uint64_t end = addr + a->size;
    if (a->flags & MAP_FIXED)
        mm_unmap_locked(mm, addr, end);
    struct vma *v = vma_take_spare(mm);
    v->start = addr;
    v->end = end;
    v->flags = flags;
    v->prot = a->prot;
    v->max_prot = a->max_prot;
    v->m = a->m;
    v->off = a->m ? a->off : 0;
    v->name = a->name;
    if (v->m)
        v->m->ops->get(v->m);
    vma_link(mm, v, false);
    vma_merge_range(mm, addr, end);
    map_populate(mm, vma_find(mm, addr), addr, end, a->flags);
}

/* A shared mapping of a sealed object stays one to read. *out_claimed: nobody seals it till
 * mappable_unclaim. */
static int map_claim(struct mm_map_args *a, bool *out_claimed)
{
    *out_claimed = false;
    if (!a->m || (a->flags & MAP_TYPE) != MAP_SHARED || !(a->max_prot & PROT_WRITE))
        return 0;
    *out_claimed = mappable_claim(a->m);
    if (*out_claimed)
        return 0;
    a->max_prot &= ~PROT_WRITE;
    return a->prot & PROT_WRITE ? -EPERM : 0;
}

int mm_mmap(struct mm *mm, struct plat_ctx *ctx, const struct mm_limits *lim,
            const struct mm_map_args *args, uaddr_t *out_addr)
{
    struct mm_map_args a;
    struct mappable *own = NULL;
    uint64_t addr;
    bool claimed;
    int err = map_check(mm, args, &a);
    if (!err)
        err = map_claim(&a, &claimed);
    if (err)
        return err;
    if (!a.m && (a.flags & MAP_TYPE) == MAP_SHARED) {
        /* Its memory is reserved as a whole: nothing that could never be had, and no squatting. */
        if (a.size > mm->ram || (a.size > MM_CHUNK && memfile_crowded(mm->mf)))
            return -ENOMEM;
        const bool promise = !(map_vma_flags(mm, &a) & VMA_NORESERVE);
        if (promise && !mm_may_promise(mm, lim, a.size))
            return -ENOMEM;
        struct memacct *acct = mm_account(mm);
        err = mm_shmem_new(mm->mf, acct, a.size, promise, "/dev/zero (deleted)", &own);
        memacct_put(acct);
        if (err)
            return err;
        a.m = own;
        a.off = 0;
    }
    err = mm_begin(mm, ctx);
    if (err)
        goto out_own;
    mm_remember_limits(mm, lim);
    uint32_t flags = map_vma_flags(mm, &a);
    const bool denied = UNLIKELY(mm->layout.mdwe) && a.prot & PROT_WRITE && a.prot & PROT_EXEC;
    err = mm->vma_count >= LIMIT_MAP_COUNT ? -ENOMEM : denied ? -EACCES : map_place(mm, &a, &addr);
    if (!err)
        err = map_charge(mm, lim, &a, flags, addr);
    if (!err) {
        map_install(mm, &a, flags, addr);
        *out_addr = uaddr(addr);
    }
    mm_end(mm);
out_own:
    if (claimed)
        mappable_unclaim(a.m);
    if (own)
        own->ops->put(own);
    return err;
}
