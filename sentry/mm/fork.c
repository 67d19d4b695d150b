/* fork(2): both address spaces share what they have and copy what they write. */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "sentry/mm/mm_priv.h"

/* What the child gets besides the memory itself. */
static void fork_copy_facts(struct mm *from, struct mm *to)
{
    to->mmap_base = from->mmap_base;
    to->stack_top = from->stack_top;
    to->layout = from->layout;
    to->has_sealed = from->has_sealed;
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
    int err = mm_stock_locked(to);
    if (!err && p->kind != PMA_HOST)
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

static int fork_pmas(struct mm *from, struct mm *to)
{
    struct fork_run r = {0, 0, 0};
    struct vma *v = vma_first(from, 0);
    for (struct pma *p = pma_first(from, 0); p; p = pma_next(p)) {
        while (v && v->end <= p->start)
            v = vma_next(v);
        BUG_ON(!v || v->start > p->start);
        if (v->flags & (VMA_DONTFORK | VMA_WIPEONFORK))
            continue;
        int err = fork_pma(from, to, p, &r);
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
    int err = fork_cut_private(mm);
    if (!err)
        err = fork_vmas(mm, child);
    if (!err)
        err = fork_pmas(mm, child);
    if (!err)
        err = mm_commit_locked(mm);
    if (err) {
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
    return 0;
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
    if (lim && mm->virt > lim->as)
        err = -ENOMEM;
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
