/* Figures of an address space: /proc/<pid>/{stat,statm,status,maps,smaps}, rusage. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sentry/mm/mm_priv.h"

/* Smaller ranges are taken as resident as a whole: cheaper than to ask the host, which every
 * process that ends would pay for. */
#define STATS_ASK_MIN (UINT64_C(64) << 10)

static uint64_t stats_pma_resident(const struct mm *mm, const struct pma *p, uint64_t lo,
                                   uint64_t hi)
{
    if (p->kind == PMA_HOST || hi - lo <= STATS_ASK_MIN)
        return hi - lo;
    return memfile_resident_range(mm->mf, p->off + (lo - p->start), hi - lo);
}

static uint64_t stats_resident(struct mm *mm)
{
    uint64_t sum = 0;
    for (struct pma *p = pma_first(mm, 0); p; p = pma_next(p))
        sum += stats_pma_resident(mm, p, p->start, p->end);
    return sum;
}

void mm_stats(struct mm *mm, struct mm_stats *out)
{
    rwlock_wrlock(&mm->lock);
    uint64_t rss = stats_resident(mm);
    if (rss > mm->peak_rss)
        mm->peak_rss = rss;
    *out = (struct mm_stats){
        .virt = mm->virt,
        .rss = rss,
        .peak_virt = mm->peak_virt,
        .peak_rss = mm->peak_rss,
        .data = mm->data,
        .stack = mm->stack,
        .exec = mm->exec,
        .shared = mm->shared,
        .locked = mm->locked,
    };
    rwlock_unlock(&mm->lock);
}

static int stats_flags(const struct vma *v)
{
    int flags = v->flags & VMA_SHARED ? MAP_SHARED : MAP_PRIVATE;
    if (v->flags & VMA_GROWSDOWN)
        flags |= MAP_GROWSDOWN;
    if (v->flags & VMA_NORESERVE)
        flags |= MAP_NORESERVE;
    if (v->flags & VMA_LOCKED)
        flags |= MAP_LOCKED;
    return flags;
}

static void stats_name(struct mm *mm, const struct vma *v, struct mm_vma_info *out)
{
    out->path[0] = '\0';
    if (v->m)
        v->m->ops->describe(v->m, &out->dev, &out->ino, out->path, sizeof(out->path));
    if (v->name)
        (void)snprintf(out->path, sizeof(out->path), "%s", v->name);
    else if (!v->m && v->start <= mm->layout.start_stack && v->end >= mm->layout.start_stack)
        (void)snprintf(out->path, sizeof(out->path), "[stack]");
}

/* A piece of memory whose pages have equally many owners. */
static void stats_piece(const struct pma *p, uint64_t bytes, uint32_t owners,
                        struct mm_vma_info *out)
{
    /* The object is an owner of its own. */
    if (p->kind == PMA_MEM && owners > 1)
        owners--;
    *(p->kind == PMA_ANON ? &out->anon : &out->shmem) += bytes;
    *(p->kind == PMA_ANON ? &out->pss_anon : &out->pss_shmem) += bytes / owners;
    out->pss += bytes / owners;
    out->shared += owners > 1 ? bytes : 0;
}

static void stats_pma(struct mm *mm, const struct pma *p, uint64_t lo, uint64_t hi,
                      struct mm_vma_info *out)
{
    const uint64_t before = out->rss;
    while (lo < hi) {
        uint64_t n = hi - lo;
        uint32_t owners = 1;
        if (p->kind != PMA_HOST)
            n = memfile_owners(mm->mf, p->off + (lo - p->start), n, &owners);
        const uint64_t bytes = stats_pma_resident(mm, p, lo, lo + n);
        out->rss += bytes;
        if (p->kind == PMA_HOST)
            out->pss += bytes;
        else
            stats_piece(p, bytes, owners, out);
        lo += n;
    }
    if (p->access != 0)
        out->referenced += out->rss - before;
}

static void stats_vma(const struct vma *v, struct mm_vma_info *out)
{
    *out = (struct mm_vma_info){
        .start = v->start,
        .end = v->end,
        .off = v->m ? v->off : 0,
        .prot = v->prot,
        .max_prot = v->max_prot,
        .flags = stats_flags(v),
        .may_read_write_exec = v->max_prot == (PROT_READ | PROT_WRITE | PROT_EXEC),
        .anonymous = !v->m || mm_is_shmem(v->m),
        .dont_dump = (v->flags & VMA_DONTDUMP) != 0,
        .dont_fork = (v->flags & VMA_DONTFORK) != 0,
        .wipe_on_fork = (v->flags & VMA_WIPEONFORK) != 0,
        .huge = (v->flags & VMA_HUGEPAGE) != 0,
        .no_huge = (v->flags & VMA_NOHUGEPAGE) != 0,
        .lock_on_fault = (v->flags & VMA_LOCKONFAULT) != 0,
        .sealed = (v->flags & VMA_SEALED) != 0,
        .policy = v->policy,
    };
}

int mm_vma_next(struct mm *mm, uint64_t from, struct mm_vma_info *out)
{
    int err = 0;
    rwlock_rdlock(&mm->lock);
    struct vma *v = vma_first(mm, from);
    if (!v) {
        err = -ENOENT;
        goto out_unlock;
    }
    stats_vma(v, out);
    for (struct pma *p = pma_first(mm, v->start); p && p->start < v->end; p = pma_next(p))
        stats_pma(mm, p, MAX(p->start, v->start), MIN(p->end, v->end), out);
    stats_name(mm, v, out);
out_unlock:
    rwlock_unlock(&mm->lock);
    return err;
}

void mm_reset_peak(struct mm *mm)
{
    rwlock_wrlock(&mm->lock);
    mm->peak_rss = stats_resident(mm);
    rwlock_unlock(&mm->lock);
}

/* ---- pages ---- */

static uint64_t page_word(struct mm *mm, uint64_t addr)
{
    const struct pma *p = pma_find(mm, addr);
    uint32_t owners = 1;
    if (!p)
        return 0;
    if (p->kind == PMA_HOST)
        return MM_PAGEMAP_PRESENT | MM_PAGEMAP_FILE;
    const uint64_t off = p->off + (addr - p->start);
    if (memfile_resident_range(mm->mf, off, PAGE_SIZE) == 0)
        return 0;
    (void)memfile_owners(mm->mf, off, PAGE_SIZE, &owners);
    if (p->kind == PMA_ANON)
        return MM_PAGEMAP_PRESENT | (owners == 1 ? MM_PAGEMAP_EXCLUSIVE : 0);
    return MM_PAGEMAP_PRESENT | MM_PAGEMAP_FILE | (owners <= 2 ? MM_PAGEMAP_EXCLUSIVE : 0);
}

void mm_pagemap(struct mm *mm, uint64_t addr, size_t count, uint64_t *out)
{
    rwlock_rdlock(&mm->lock);
    for (size_t i = 0; i < count; i++)
        out[i] = page_word(mm, addr + i * PAGE_SIZE);
    rwlock_unlock(&mm->lock);
}

enum mm_page_state mm_page_state(struct mm *mm, uaddr_t addr)
{
    enum mm_page_state state = MM_PAGE_UNMAPPED;
    rwlock_rdlock(&mm->lock);
    if (vma_find(mm, addr.v))
        state = page_word(mm, ALIGN_DOWN(addr.v, PAGE_SIZE)) ? MM_PAGE_PRESENT : MM_PAGE_ABSENT;
    rwlock_unlock(&mm->lock);
    return state;
}

/* Without access a page that is used again faults once, and is referenced from then on. */
int mm_clear_referenced(struct mm *mm, bool anon, bool objects)
{
    int err = mm_begin(mm, NULL);
    if (err)
        return err;
    for (struct pma *p = pma_first(mm, 0); p && !err; p = pma_next(p)) {
        if (p->access == 0 || !(p->kind == PMA_ANON ? anon : objects))
            continue;
        err = mm_as_protect(mm, p->start, p->end, 0);
        if (!err)
            p->access = 0;
    }
    const int done = mm_commit_locked(mm);
    mm_end(mm);
    return err ? err : done;
}
