/* fork(2): both address spaces share what they have and copy what they write. */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "sentry/mm/mm_priv.h"
#include "sentry/mm/safecopy.h"

/* ---- what is written after every fork ---- */

void mm_hot_put(struct mm_hot *hot)
{
    if (hot && ref_put(&hot->ref))
        free(hot);
}

static uint64_t hot_start(uint64_t range)
{
    return ALIGN_DOWN(range, PAGE_SIZE);
}

static uint64_t hot_end(uint64_t range)
{
    return hot_start(range) + ((range & (PAGE_SIZE - 1)) << PAGE_SHIFT);
}

/* The first come stay: they are what a program writes whatever it forks for. */
void mm_hot_note(struct mm *mm, uint64_t start, uint64_t end)
{
    if (!mm->hot || end - start > MM_COW_WINDOW)
        return;
    for (unsigned i = 0; i < MM_HOT_RANGES; i++) {
        uint64_t range = atomic_load_explicit(&mm->hot->range[i], memory_order_relaxed);
        if (start >= hot_start(range) && end <= hot_end(range))
            return;
    }
    if (atomic_load_explicit(&mm->hot->count, memory_order_relaxed) >= MM_HOT_RANGES)
        return;
    uint32_t at = atomic_fetch_add_explicit(&mm->hot->count, 1, memory_order_relaxed);
    if (at < MM_HOT_RANGES)
        atomic_store_explicit(&mm->hot->range[at], start | (end - start) >> PAGE_SHIFT,
                              memory_order_relaxed);
}

/* Copies for the child, of ranges that lie in one VMA of the parent each. */
struct fork_hot {
    unsigned count;
    struct {
        uint64_t start, end, off;
    } range[MM_HOT_RANGES];
};

static void hot_add(struct mm *mm, struct fork_hot *h, uint64_t range, uint64_t *left)
{
    uint64_t start = hot_start(range), end = hot_end(range);
    struct vma *v = range ? vma_find(mm, start) : NULL;
    if (!v || !vma_private(v) || v->flags & (VMA_DONTFORK | VMA_WIPEONFORK))
        return;
    end = MIN(end, v->end);
    for (unsigned i = 0; i < h->count; i++) {
        if (start < h->range[i].end && end > h->range[i].start)
            return;
    }
    struct pma *p = pma_find(mm, start);
    if (!p || p->kind != PMA_ANON || p->end < end || end - start > *left ||
        mm_stock_locked(mm) != 0)
        return;
    pma_isolate(mm, start, end);
    h->range[h->count].start = start;
    h->range[h->count++].end = end;
    *left -= end - start;
}

/* Memory for the copies, and the bytes. Other threads would see writes of theirs in a wrong order
 * in the child: only for processes that have one. Without memory nothing is hot. */
static void hot_copy(struct mm *mm, struct fork_hot *h)
{
    uint64_t left = MM_HOT_BYTES, off, done = 0;
    h->count = 0;
    if (!mm->hot || mm->unprotected || ref_read(&mm->ref) > 1)
        return;
    for (unsigned i = 0; i < MM_HOT_RANGES; i++)
        hot_add(mm, h, atomic_load_explicit(&mm->hot->range[i], memory_order_relaxed), &left);
    if (h->count == 0)
        return;
    const uint64_t size = MM_HOT_BYTES - left;
    if (memfile_alloc_flags(mm->mf, mm->acct, size, MEMFILE_RAW | MEMFILE_UP, &off, NULL) != 0) {
        h->count = 0;
        return;
    }
    for (unsigned i = 0; i < h->count; i++) {
        const struct pma *p = pma_find(mm, h->range[i].start);
        const uint64_t n = h->range[i].end - h->range[i].start;
        h->range[i].off = off + done;
        if (safecopy(memfile_ptr(mm->mf, off + done), memfile_ptr(mm->mf, p->off), n) != 0) {
            memfile_unref(mm->mf, off, size);
            h->count = 0;
            return;
        }
        done += n;
    }
}

/* True: the child has a copy of p in its place. */
static bool hot_replace(struct mm *to, const struct fork_hot *h, const struct pma *p)
{
    for (unsigned i = 0; i < h->count; i++) {
        if (h->range[i].start != p->start)
            continue;
        struct pma *c = pma_take_spare(to);
        c->kind = PMA_ANON;
        c->start = p->start;
        c->end = p->end;
        c->off = h->range[i].off;
        pma_link(to, c);
        return true;
    }
    return false;
}

/* The host's fork has mapped the parent's pages there. */
static int hot_map(struct mm *to, const struct fork_hot *h)
{
    int err = 0;
    for (unsigned i = 0; i < h->count && !err; i++) {
        struct pma *c = pma_find(to, h->range[i].start);
        err = pma_map(to, vma_find(to, c->start), c, c->start, c->end, PLAT_MAP_POPULATE);
    }
    return err;
}

/* Copies that no PMA of the child's has taken. */
static void hot_drop(struct mm *mm, struct mm *to, const struct fork_hot *h)
{
    for (unsigned i = 0; i < h->count; i++) {
        const struct pma *c = pma_find(to, h->range[i].start);
        if (!c || c->off != h->range[i].off)
            memfile_unref(mm->mf, h->range[i].off, h->range[i].end - h->range[i].start);
    }
}

/* ---- the child ---- */

/* What the child gets besides the memory itself. */
static void fork_copy_facts(struct mm *from, struct mm *to)
{
    to->given = from->given;
    if (from->hot) {
        ref_get(&from->hot->ref);
        to->hot = from->hot;
    }
    to->mmap_base = from->mmap_base;
    to->stack_top = from->stack_top;
    to->layout = from->layout;
    to->layout.mdwe = mm_mdwe_inherited(from->layout.mdwe);
    to->has_sealed = from->has_sealed;
    atomic_init(&to->has_sections, mm_has_sections(from));
    to->gap_top = from->gap_top;
    to->gap_hole = from->gap_hole;
    to->stack_limit = from->stack_limit;
    to->as_limit = from->as_limit;
    to->memlock_limit = from->memlock_limit;
    to->peak_rss = 0;
}

/* A page range the child does not inherit is cut out of the PMAs: they may span several VMAs. */
static int fork_cut_private(struct mm *mm)
{
    for (struct vma *v = vma_first(mm, 0); v; v = vma_next(v)) {
        if (!(v->flags & (VMA_DONTFORK | VMA_WIPEONFORK)))
            continue;
        int err = mm_stock_locked(mm);
        if (err)
            return err;
        pma_isolate(mm, v->start, v->end);
    }
    return 0;
}

static int fork_vmas(struct mm *from, struct mm *to)
{
    for (struct vma *v = vma_first(from, 0); v; v = vma_next(v)) {
        if (v->flags & VMA_DONTFORK)
            continue;
        int err = mm_stock_locked(to);
        if (err)
            return err;
        struct vma *c = vma_take_spare(to);
        vma_copy(to, c, v);
        c->flags &= ~(VMA_LOCKED | VMA_LOCKONFAULT);
        if (c->m)
            c->m->ops->get(c->m);
        vma_link(to, c, true);
    }
    return 0;
}

/* Takes the right to write from adjacent private PMAs, one host call for each run. */
struct fork_run {
    uint64_t start, end;
    unsigned access;
};

static int fork_flush(struct mm *mm, struct fork_run *r)
{
    int err = 0;
    if (r->end > r->start)
        err = mm_as_protect(mm, r->start, r->end, r->access);
    r->start = r->end;
    return err;
}

static int fork_make_cow(struct mm *mm, struct pma *p, struct fork_run *r)
{
    unsigned access = p->access & ~PLAT_WRITE;
    int err = 0;
    if (p->access & PLAT_WRITE || mm->unprotected) {
        if (r->end != p->start || r->access != access) {
            err = fork_flush(mm, r);
            *r = (struct fork_run){.start = p->start, .access = access};
        }
        r->end = p->end;
    }
    p->cow = true;
    p->access = access;
    return err;
}

static int fork_pma(struct mm *from, struct mm *to, struct pma *p, struct fork_run *r)
{
    int err = 0;
    if (p->kind != PMA_HOST)
        err = memfile_ref(from->mf, p->off, p->end - p->start);
    if (err)
        return err;
    if (p->kind == PMA_ANON)
        err = fork_make_cow(from, p, r);
    struct pma *c = pma_take_spare(to);
    *c = *p;
    pma_link(to, c);
    return err;
}

static int fork_pmas(struct mm *from, struct mm *to, const struct fork_hot *hot)
{
    struct fork_run r = {0, 0, 0};
    struct vma *v = vma_first(from, 0);
    for (struct pma *p = pma_first(from, 0); p; p = pma_next(p)) {
        while (v && v->end <= p->start)
            v = vma_next(v);
        BUG_ON(!v || v->start > p->start);
        if (v->flags & (VMA_DONTFORK | VMA_WIPEONFORK))
            continue;
        int err = mm_stock_locked(to);
        if (!err && !hot_replace(to, hot, p))
            err = fork_pma(from, to, p, &r);
        if (err)
            return err;
    }
    return fork_flush(from, &r);
}

/* The host's fork copied every mapping: takes away those that the child is not to have. */
static void fork_unmap_private(struct mm *from, struct mm *to)
{
    for (struct vma *v = vma_first(from, 0); v; v = vma_next(v)) {
        if (v->flags & (VMA_DONTFORK | VMA_WIPEONFORK))
            mm_as_unmap(to, v->start, v->end);
    }
}

static int fork_locked(struct mm *mm, struct mm *child, struct plat_ctx *parent_ctx,
                       struct plat_ctx **out_child)
{
    struct plat_as *as;
    struct fork_hot hot = {.count = 0};
    int err = fork_cut_private(mm);
    if (!err)
        err = fork_vmas(mm, child);
    if (!err) {
        hot_copy(mm, &hot);
        err = fork_pmas(mm, child, &hot);
    }
    if (!err)
        err = mm_commit_locked(mm);
    if (err) {
        hot_drop(mm, child, &hot);
        /* Writes that were not taken away would be seen by a child: the next fork tries again. */
        log_debug("mm: fork cannot protect the parent's memory: %d", -err);
        mm->unprotected = true;
        return err;
    }
    mm->unprotected = false;
    err = plat_ctx_fork(parent_ctx, &as, out_child);
    if (err)
        return err;
    child->as = as;
    fork_unmap_private(mm, child);
    err = hot_map(child, &hot);
    if (err)
        plat_ctx_destroy(*out_child);
    return err;
}

int mm_fork(struct mm *mm, struct plat_ctx *parent_ctx, const struct mm_limits *lim,
            struct mm **out_mm, struct plat_ctx **out_child)
{
    struct mm *child;
    int err = mm_alloc(mm->plat, mm->mf, NULL, &child);
    if (err)
        return err;
    err = mm_begin(mm, parent_ctx);
    if (err)
        goto out_child_mm;
    mm_remember_limits(mm, lim);
    child->acct = memacct_get(mm->acct);
    if (lim && mm->virt > lim->as)
        err = -ENOMEM;
    /* The other modes look at single mappings, which were there before. */
    if (atomic_load(&memfile_commit(mm->mf)->mode) == MEM_COMMIT_NEVER &&
        !mm_may_promise(mm, lim, mm->promised))
        err = -ENOMEM;
    if (!mm->hot) {
        mm->hot = calloc(1, sizeof(*mm->hot));
        if (mm->hot)
            ref_init(&mm->hot->ref);
    }
    fork_copy_facts(mm, child);
    /* Nobody else can hold it, but an invalidation may find it and has to wait. */
    BUG_ON(!rwlock_trywrlock(&child->lock));
    if (!err)
        err = fork_locked(mm, child, parent_ctx, out_child);
    if (err)
        mm_clear_locked(child);
    rwlock_unlock(&child->lock);
    mm_end(mm);
    if (!err) {
        *out_mm = child;
        return 0;
    }
out_child_mm:
    mm_put(child);
    return err;
}
