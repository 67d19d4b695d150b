/* PMAs: what backs a range, and its reflection in the stub. */
#include <errno.h>
#include <stdlib.h>

#include "base/heap.h"
#include "base/log.h"
#include "sentry/mm/mm_priv.h"

/* What the host has for a mapping of a stub: counted as heap. */
#define PMA_HOST_BYTES 256

static struct pma *pma_entry(struct rb_node *n)
{
    return n ? container_of(n, struct pma, node) : NULL;
}

struct pma *pma_next(struct pma *p)
{
    return pma_entry(rb_next(&p->node));
}

struct pma *pma_prev(struct pma *p)
{
    return pma_entry(rb_prev(&p->node));
}

struct pma *pma_first(struct mm *mm, uint64_t addr)
{
    struct pma *best = NULL;
    for (struct rb_node *n = mm->pmas.node; n;) {
        struct pma *p = pma_entry(n);
        if (p->end > addr) {
            best = p;
            if (p->start <= addr)
                break;
            n = n->left;
        } else {
            n = n->right;
        }
    }
    return best;
}

struct pma *pma_find(struct mm *mm, uint64_t addr)
{
    struct pma *p = pma_first(mm, addr);
    return p && p->start <= addr ? p : NULL;
}

struct pma *pma_take_spare(struct mm *mm)
{
    BUG_ON(mm->spare_pma_count == 0);
    struct pma *p = list_first_entry(&mm->spare_pmas, struct pma, link);
    list_del(&p->link);
    mm->spare_pma_count--;
    *p = (struct pma){.fd = -1};
    return p;
}

void pma_give_spare(struct mm *mm, struct pma *p)
{
    list_add(&p->link, &mm->spare_pmas);
    mm->spare_pma_count++;
}

/* Page tables that the stub has for p alone, its neighbours having others. */
static int64_t pma_tables(struct pma *p)
{
    const struct pma *prev = pma_prev(p), *next = pma_next(p);
    uint64_t first = p->start / MM_CHUNK, end = (p->end - 1) / MM_CHUNK + 1;
    if (prev && (prev->end - 1) / MM_CHUNK == first)
        first++;
    if (first < end && next && next->start / MM_CHUNK == end - 1)
        end--;
    return (int64_t)(end - first);
}

/* What the host has for a stub that ends is there till it has ended. */
static void pma_count_heap(struct mm *mm, int64_t bytes)
{
    if (bytes < 0 && mm->reaped)
        mm->heap_owed += (uint64_t)-bytes;
    else
        heap_add(bytes);
}

static void pma_insert(struct mm *mm, struct pma *p)
{
    struct rb_node **link = &mm->pmas.node, *parent = NULL;
    while (*link) {
        parent = *link;
        link = p->start < pma_entry(parent)->start ? &parent->left : &parent->right;
    }
    rb_link_node(&p->node, parent, link);
    rb_insert_color(&p->node, &mm->pmas);
    mm->pma_count++;
    pma_count_heap(mm, PMA_HOST_BYTES);
}

static void pma_erase(struct mm *mm, struct pma *p)
{
    rb_erase(&p->node, &mm->pmas);
    mm->pma_count--;
    pma_count_heap(mm, -PMA_HOST_BYTES);
}

static void pma_count_tables(struct mm *mm, int64_t tables)
{
    if (tables == 0)
        return;
    mm->tables += (uint64_t)tables;
    pma_count_heap(mm, tables * (int64_t)PAGE_SIZE);
}

void pma_link(struct mm *mm, struct pma *p)
{
    pma_insert(mm, p);
    pma_count_tables(mm, pma_tables(p));
}

void pma_unlink(struct mm *mm, struct pma *p)
{
    pma_count_tables(mm, -pma_tables(p));
    pma_erase(mm, p);
}

static void pma_split(struct mm *mm, struct pma *p, uint64_t at)
{
    struct pma *hi = pma_take_spare(mm);
    *hi = *p;
    hi->start = at;
    hi->off = p->off + (at - p->start);
    p->end = at;
    pma_insert(mm, hi);
}

void pma_isolate(struct mm *mm, uint64_t start, uint64_t end)
{
    struct pma *p = pma_find(mm, start);
    if (p && p->start < start)
        pma_split(mm, p, start);
    p = pma_find(mm, end);
    if (p && p->start < end)
        pma_split(mm, p, end);
}

static bool pma_mergeable(const struct pma *a, const struct pma *b)
{
    return a->end == b->start && a->kind == b->kind && a->m == b->m && a->fd == b->fd &&
           a->cow == b->cow && a->writable == b->writable && a->access == b->access &&
           a->off + (a->end - a->start) == b->off;
}

void pma_merge_range(struct mm *mm, uint64_t start, uint64_t end)
{
    struct pma *p = pma_first(mm, start > 0 ? start - 1 : 0);
    while (p && p->start <= end) {
        struct pma *next = pma_next(p);
        if (!next || !pma_mergeable(p, next)) {
            p = next;
            continue;
        }
        pma_erase(mm, next);
        p->end = next->end;
        pma_give_spare(mm, next);
    }
}

void pma_release(struct mm *mm, struct pma *p)
{
    if (p->kind != PMA_HOST)
        memfile_unref(mm->mf, p->off, p->end - p->start);
}

void pma_make_pending(struct mm *mm, struct pma *p)
{
    list_add_tail(&p->link, &mm->pending_pmas);
    mm->pending_count++;
    if (p->kind != PMA_HOST)
        mm->pending_bytes += p->end - p->start;
}

bool pma_drop_range(struct mm *mm, uint64_t start, uint64_t end, bool skip_anon)
{
    bool any = false;
    pma_isolate(mm, start, end);
    uint64_t run = start; /* start of what is to be unmapped */
    struct pma *next;
    for (struct pma *p = pma_first(mm, start); p && p->start < end; p = next) {
        next = pma_next(p);
        if (skip_anon && p->kind == PMA_ANON) {
            if (any && run < p->start)
                mm_as_unmap(mm, run, p->start);
            run = p->end;
            continue;
        }
        any = true;
        pma_unlink(mm, p);
        pma_make_pending(mm, p);
    }
    if (any && run < end)
        mm_as_unmap(mm, run, end);
    return any;
}

/* ---- the stub's view ---- */

unsigned vma_access(const struct vma *v)
{
    unsigned a = 0;
    if (v->prot & PROT_READ)
        a |= PLAT_READ;
    if (v->prot & PROT_WRITE)
        a |= PLAT_READ | PLAT_WRITE;
    if (v->prot & PROT_EXEC)
        a |= PLAT_EXEC;
    return a;
}

unsigned pma_effective(const struct vma *v, const struct pma *p)
{
    unsigned a = vma_access(v);
    bool may_write = p->kind == PMA_ANON ? !p->cow : !vma_private(v) && p->writable;
    return may_write ? a : a & ~PLAT_WRITE;
}

int pma_host_fd(const struct mm *mm, const struct pma *p)
{
    return p->kind == PMA_HOST ? p->fd : memfile_fd(mm->mf);
}

/* Makes room in the platform's queue. Pending memory must not be freed here: its unmap may be the
 * very call that did not fit. */
static bool mm_drain_queue(struct mm *mm)
{
    if (plat_as_commit(mm->as, mm->ctx) == 0)
        return true;
    mm->stale = true;
    return false;
}

int pma_map(struct mm *mm, const struct vma *v, struct pma *p, uint64_t start, uint64_t end,
            unsigned flags)
{
    unsigned access = pma_effective(v, p);
    int fd = pma_host_fd(mm, p);
    uint64_t off = p->off + (start - p->start);
    mm->changes++;
    /* What lies in memory, a memfd, may be where a program makes its code. */
    if (p->kind == PMA_HOST && vma_private(v) && (access & PLAT_EXEC) && !(access & PLAT_WRITE))
        flags |= PLAT_MAP_CODE;
    int err = plat_as_map(mm->as, uaddr(start), end - start, access, fd, off, flags);
    if (err && mm_drain_queue(mm))
        err = plat_as_map(mm->as, uaddr(start), end - start, access, fd, off, flags);
    if (!err)
        p->access = access;
    return err;
}

static void as_unmap_piece(struct mm *mm, uint64_t start, uint64_t end)
{
    mm->changes++;
    int err = plat_as_unmap(mm->as, uaddr(start), end - start);
    if (err && mm_drain_queue(mm))
        err = plat_as_unmap(mm->as, uaddr(start), end - start);
    if (err) {
        log_warn("mm: cannot take a mapping away (%d), its memory is kept", -err);
        mm->stale = true;
    }
}

/* The platform's own memory may lie between what a guest unmaps at once: it stays. */
void mm_as_unmap(struct mm *mm, uint64_t start, uint64_t end)
{
    while (start < end) {
        struct plat_range next = {end, end};
        for (size_t i = 0; i < mm->plat->reserved_count; i++) {
            const struct plat_range *r = &mm->plat->reserved[i];
            if (r->end > start && r->start < next.start)
                next = *r;
        }
        if (start < next.start)
            as_unmap_piece(mm, start, next.start);
        start = next.end;
    }
}

int mm_as_protect(struct mm *mm, uint64_t start, uint64_t end, unsigned access)
{
    mm->changes++;
    int err = plat_as_protect(mm->as, uaddr(start), end - start, access);
    if (err && mm_drain_queue(mm))
        err = plat_as_protect(mm->as, uaddr(start), end - start, access);
    return err;
}
