/* VMAs: the tree, cutting and merging, figures, and the search for free address space. */
#include <errno.h>
#include <stdlib.h>

#include "sentry/mm/mm_priv.h"

static struct vma *vma_entry(struct rb_node *n)
{
    return n ? container_of(n, struct vma, node) : NULL;
}

struct vma *vma_next(struct vma *vma)
{
    return vma_entry(rb_next(&vma->node));
}

struct vma *vma_prev(struct vma *vma)
{
    return vma_entry(rb_prev(&vma->node));
}

struct vma *vma_first(struct mm *mm, uint64_t addr)
{
    struct vma *best = NULL;
    for (struct rb_node *n = mm->vmas.node; n;) {
        struct vma *v = vma_entry(n);
        if (v->end > addr) {
            best = v;
            if (v->start <= addr)
                break;
            n = n->left;
        } else {
            n = n->right;
        }
    }
    return best;
}

struct vma *vma_find(struct mm *mm, uint64_t addr)
{
    struct vma *v = vma_first(mm, addr);
    return v && v->start <= addr ? v : NULL;
}

static struct vma *vma_last(struct mm *mm)
{
    return vma_entry(rb_last(&mm->vmas));
}

struct vma *vma_take_spare(struct mm *mm)
{
    BUG_ON(mm->spare_vma_count == 0);
    struct vma *v = list_first_entry(&mm->spare_vmas, struct vma, mlink);
    list_del(&v->mlink);
    mm->spare_vma_count--;
    *v = (struct vma){.mm = mm};
    return v;
}

static void vma_give_spare(struct mm *mm, struct vma *v)
{
    list_add(&v->mlink, &mm->spare_vmas);
    mm->spare_vma_count++;
}

static void vma_add(uint64_t *figure, uint64_t size, bool add)
{
    *figure = add ? *figure + size : *figure - size;
}

void vma_account(struct mm *mm, const struct vma *v, uint64_t size, bool add)
{
    vma_add(&mm->virt, size, add);
    if (v->flags & VMA_GROWSDOWN)
        vma_add(&mm->stack, size, add);
    else if (vma_private(v) && (v->prot & PROT_WRITE))
        vma_add(&mm->data, size, add);
    if ((v->prot & (PROT_EXEC | PROT_WRITE)) == PROT_EXEC && !(v->flags & VMA_GROWSDOWN))
        vma_add(&mm->exec, size, add);
    if (v->flags & VMA_SHARED)
        vma_add(&mm->shared, size, add);
    if (v->flags & VMA_LOCKED)
        vma_add(&mm->locked, size, add);
    if (v->flags & VMA_ACCOUNT) {
        vma_add(&mm->promised, size, add);
        if (add)
            mem_commit_charge(memfile_commit(mm->mf), size);
        else
            mem_commit_release(memfile_commit(mm->mf), size);
    }
    if (mm->virt > mm->peak_virt)
        mm->peak_virt = mm->virt;
}

static void vma_tree_insert(struct mm *mm, struct vma *v)
{
    struct rb_node **link = &mm->vmas.node, *parent = NULL;
    while (*link) {
        parent = *link;
        link = v->start < vma_entry(parent)->start ? &parent->left : &parent->right;
    }
    rb_link_node(&v->node, parent, link);
    rb_insert_color(&v->node, &mm->vmas);
    mm->vma_count++;
}

void vma_link(struct mm *mm, struct vma *v, bool inherited)
{
    vma_tree_insert(mm, v);
    vma_account(mm, v, v->end - v->start, true);
    if (v->m)
        mappable_track(v, inherited);
}

void vma_copy(struct mm *mm, struct vma *to, const struct vma *from)
{
    *to = (struct vma){
        .mm = mm,
        .start = from->start,
        .end = from->end,
        .flags = from->flags,
        .prot = from->prot,
        .max_prot = from->max_prot,
        .m = from->m,
        .off = from->off,
        .name = from->name,
        .policy = from->policy,
    };
}

static void vma_split(struct mm *mm, struct vma *v, uint64_t at)
{
    struct vma *hi = vma_take_spare(mm);
    vma_copy(mm, hi, v);
    hi->start = at;
    hi->off = v->m ? v->off + (at - v->start) : 0;
    v->end = at;
    vma_tree_insert(mm, hi);
    if (hi->m) {
        hi->m->ops->get(hi->m);
        mappable_track(hi, true);
    }
}

void vma_isolate(struct mm *mm, uint64_t start, uint64_t end)
{
    struct vma *v = vma_find(mm, start);
    if (v && v->start < start)
        vma_split(mm, v, start);
    v = vma_find(mm, end);
    if (v && v->start < end)
        vma_split(mm, v, end);
}

static bool vma_mergeable(const struct vma *a, const struct vma *b)
{
    return a->end == b->start && a->flags == b->flags && a->prot == b->prot &&
           a->max_prot == b->max_prot && a->m == b->m && a->name == b->name &&
           mm_policy_equal(&a->policy, &b->policy) &&
           (!a->m || a->off + (a->end - a->start) == b->off);
}

static void vma_bury(struct mm *mm, struct vma *v)
{
    if (!v->m) {
        vma_give_spare(mm, v);
        return;
    }
    mappable_untrack(v);
    list_add_tail(&v->mlink, &mm->pending_vmas);
}

void vma_merge_range(struct mm *mm, uint64_t start, uint64_t end)
{
    struct vma *v = vma_first(mm, start > 0 ? start - 1 : 0);
    while (v && v->start <= end) {
        struct vma *next = vma_next(v);
        if (!next || !vma_mergeable(v, next)) {
            v = next;
            continue;
        }
        rb_erase(&next->node, &mm->vmas);
        mm->vma_count--;
        v->end = next->end;
        vma_bury(mm, next);
    }
}

void vma_remove(struct mm *mm, struct vma *v)
{
    rb_erase(&v->node, &mm->vmas);
    mm->vma_count--;
    vma_account(mm, v, v->end - v->start, false);
    vma_gap_freed(mm, v->start, v->end);
    vma_bury(mm, v);
}

void vma_set_prot(struct mm *mm, struct vma *v, int prot)
{
    vma_account(mm, v, v->end - v->start, false);
    v->prot = prot;
    if (mm_accountable(v->flags, prot))
        v->flags |= VMA_ACCOUNT;
    vma_account(mm, v, v->end - v->start, true);
}

bool vma_covers(struct mm *mm, uint64_t start, uint64_t end)
{
    struct vma *v = vma_find(mm, start);
    while (v && v->end < end) {
        struct vma *next = vma_next(v);
        if (!next || next->start != v->end)
            return false;
        v = next;
    }
    return v != NULL;
}

bool vma_any(struct mm *mm, uint64_t start, uint64_t end)
{
    struct vma *v = vma_first(mm, start);
    return v && v->start < end;
}

bool vma_sealed(struct mm *mm, uint64_t start, uint64_t end)
{
    if (!mm->has_sealed)
        return false;
    for (struct vma *v = vma_first(mm, start); v && v->start < end; v = vma_next(v))
        if (v->flags & VMA_SEALED)
            return true;
    return false;
}

bool vma_overlaps_reserved(const struct mm *mm, uint64_t start, uint64_t end)
{
    for (size_t i = 0; i < mm->plat->reserved_count; i++) {
        const struct plat_range *r = &mm->plat->reserved[i];
        if (start < r->end && r->start < end)
            return true;
    }
    return false;
}

/* Where v begins to be in the way: stacks keep a gap below them to grow into. */
static uint64_t vma_start_gap(const struct mm *mm, const struct vma *v)
{
    if (!(v->flags & VMA_GROWSDOWN))
        return v->start;
    return v->start - mm->min_addr > MM_STACK_GAP ? v->start - MM_STACK_GAP : mm->min_addr;
}

bool vma_range_free(struct mm *mm, uint64_t start, uint64_t end)
{
    if (start < mm->min_addr || end > mm->max_addr || vma_overlaps_reserved(mm, start, end))
        return false;
    struct vma *v = vma_first(mm, start);
    return !v || end <= vma_start_gap(mm, v);
}

/* ---- free space ---- */

void vma_gap_freed(struct mm *mm, uint64_t start, uint64_t end)
{
    struct vma *next = vma_first(mm, end);
    struct vma *prev = next ? vma_prev(next) : vma_last(mm);
    uint64_t top = next ? next->start : mm->max_addr;
    uint64_t bottom = prev ? prev->end : mm->min_addr;
    (void)start;
    if (top > mm->gap_top && top - bottom > mm->gap_hole)
        mm->gap_hole = top - bottom;
}

/* The reserved range that ends highest among those that begin below top and end above low. */
static const struct plat_range *vma_reserved_below(const struct mm *mm, uint64_t low, uint64_t top)
{
    const struct plat_range *best = NULL;
    for (size_t i = 0; i < mm->plat->reserved_count; i++) {
        const struct plat_range *r = &mm->plat->reserved[i];
        if (r->start < top && r->end > low && (!best || r->end > best->end))
            best = r;
    }
    return best;
}

/* Highest place for size bytes in the free range [low, high), reserved ranges left out. */
static bool vma_fit(const struct mm *mm, uint64_t low, uint64_t high, uint64_t size, uint64_t *out)
{
    while (high > low && high - low >= size) {
        const struct plat_range *r = vma_reserved_below(mm, high - size, high);
        if (!r) {
            *out = high - size;
            return true;
        }
        high = r->start;
    }
    return false;
}

/* Walks the gaps below high downwards. Learns the largest one it passes in *hole and where it
 * ended in *out_top. */
static int vma_walk_gaps(struct mm *mm, uint64_t size, uint64_t low, uint64_t high, uint64_t *hole,
                         uint64_t *out_top, uint64_t *out)
{
    struct vma *above = vma_first(mm, high - 1);
    struct vma *v = above ? vma_prev(above) : vma_last(mm);
    uint64_t top = above ? MIN(high, vma_start_gap(mm, above)) : high;
    for (;;) {
        uint64_t bottom = v && v->end > low ? v->end : low;
        if (top > bottom) {
            if (vma_fit(mm, bottom, top, size, out)) {
                *out_top = top;
                return 0;
            }
            if (top - bottom > *hole)
                *hole = top - bottom;
        }
        if (!v || v->start <= low)
            return -ENOMEM;
        top = MIN(top, vma_start_gap(mm, v));
        v = vma_prev(v);
    }
}

int vma_gap(struct mm *mm, uint64_t size, uint64_t low, uint64_t high, uint64_t *out)
{
    uint64_t hole = 0, top = high;
    if (low != mm->min_addr || high != mm->mmap_base)
        return vma_walk_gaps(mm, size, low, high, &hole, &top, out);
    /* The usual search goes on from where the last one had to go down to, as long as nothing above
     * can fit. */
    bool resume = size > mm->gap_hole && mm->gap_top < high && mm->gap_top > low;
    if (resume)
        hole = mm->gap_hole;
    int err = vma_walk_gaps(mm, size, low, resume ? mm->gap_top : high, &hole, &top, out);
    if (err)
        return err;
    mm->gap_top = top;
    mm->gap_hole = hole;
    return 0;
}
