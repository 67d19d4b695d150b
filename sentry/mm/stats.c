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

static uint64_t stats_resident(struct mm *mm, uint64_t start, uint64_t end, uint64_t *out_anon)
{
    uint64_t sum = 0;
    for (struct pma *p = pma_first(mm, start); p && p->start < end; p = pma_next(p)) {
        uint64_t n = stats_pma_resident(mm, p, MAX(p->start, start), MIN(p->end, end));
        sum += n;
        if (p->kind == PMA_ANON)
            *out_anon += n;
    }
    return sum;
}

void mm_stats(struct mm *mm, struct mm_stats *out)
{
    uint64_t anon = 0;
    rwlock_wrlock(&mm->lock);
    uint64_t rss = stats_resident(mm, 0, UINT64_MAX, &anon);
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

int mm_vma_next(struct mm *mm, uint64_t from, struct mm_vma_info *out)
{
    int err = 0;
    rwlock_rdlock(&mm->lock);
    struct vma *v = vma_first(mm, from);
    if (!v) {
        err = -ENOENT;
        goto out_unlock;
    }
    out->start = v->start;
    out->end = v->end;
    out->off = v->m ? v->off : 0;
    out->dev = 0;
    out->ino = 0;
    out->prot = v->prot;
    out->flags = stats_flags(v);
    out->may_read_write_exec = v->max_prot == (PROT_READ | PROT_WRITE | PROT_EXEC);
    out->anonymous = !v->m || mm_is_shmem(v->m);
    out->dont_dump = (v->flags & VMA_DONTDUMP) != 0;
    out->anon = 0;
    out->rss = stats_resident(mm, v->start, v->end, &out->anon);
    out->pss = out->rss;
    stats_name(mm, v, out);
out_unlock:
    rwlock_unlock(&mm->lock);
    return err;
}
