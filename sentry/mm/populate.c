/* From promise to memory: backing holes of VMAs, and breaking copy-on-write. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "sentry/mm/mm_priv.h"
#include "sentry/mm/safecopy.h"

bool mm_is_eager(const struct vma *v, uint64_t size)
{
    if (v->flags & VMA_LOCKED && !(v->flags & VMA_LOCKONFAULT))
        return v->prot != PROT_NONE;
    if (!(v->m ? v->prot != PROT_NONE : v->prot & PROT_WRITE))
        return false;
    /* What is handed out at once escapes the memory limit until the next look at it, and counts
     * with all the page tables that it may need. */
    if (memfile_limited(v->mm->mf) || memacct_limited(v->mm->acct))
        return size <= memfile_piece(v->mm->mf, MM_CHUNK);
    if (v->m)
        return true;
    if (size > MM_CHUNK && memfile_crowded(v->mm->mf))
        return false;
    return size <= (v->flags & VMA_NORESERVE ? MM_EAGER_NORESERVE_MAX : MM_EAGER_MAX);
}

/* The host bounds the mappings of a stub: refused here, where somebody hears of it, rather than in
 * the middle of a queue. */
static bool populate_may_cut(const struct mm *mm)
{
    return mm->pma_count < LIMIT_MAP_COUNT - MM_PMA_SPARE;
}

/* Whether memory at off may lie behind start: where page tables have entries for more than a page,
 * ranges as large as that should lie alike in both. */
static bool populate_alike(const struct mm *mm, uint64_t start, uint64_t size, uint64_t off)
{
    const uint64_t large = mm->plat->large;
    return large == 0 || size < large || (start - off) % large == 0;
}

/* With room to choose from; what is too much goes back. */
static int populate_alloc_alike(struct mm *mm, uint64_t start, uint64_t size, uint64_t *out_off)
{
    const uint64_t spare = mm->plat->large - PAGE_SIZE;
    uint64_t off;
    int err = memfile_alloc_flags(mm->mf, mm->acct, size + spare, 0, &off, NULL);
    if (err)
        return err;
    const uint64_t before = (start - off) % mm->plat->large;
    if (before > 0)
        memfile_unref(mm->mf, off, before);
    if (before < spare)
        memfile_unref(mm->mf, off + before + size, spare - before);
    *out_off = off + before;
    return 0;
}

/* Memory next to that of the neighbours when it is free, so that all of it stays one mapping. */
static int populate_alloc(struct mm *mm, const struct vma *v, uint64_t start, uint64_t end,
                          uint64_t *out_off, bool *out_warm)
{
    uint64_t size = end - start;
    struct pma *next = pma_first(mm, start);
    struct pma *prev = start > 0 ? pma_find(mm, start - 1) : NULL;
    if (prev && prev->kind == PMA_ANON) {
        *out_off = prev->off + (prev->end - prev->start);
        if (populate_alike(mm, start, size, *out_off) &&
            memfile_alloc_at(mm->mf, mm->acct, *out_off, size, 0, out_warm) == 0)
            return 0;
    }
    if (next && next->start == end && next->kind == PMA_ANON && next->off >= size) {
        *out_off = next->off - size;
        if (populate_alike(mm, start, size, *out_off) &&
            memfile_alloc_at(mm->mf, mm->acct, *out_off, size, 0, out_warm) == 0)
            return 0;
    }
    bool heap = v->start == ALIGN_UP(mm->layout.start_brk, PAGE_SIZE);
    if (!heap && mm->plat->large != 0 && size >= mm->plat->large &&
        populate_alloc_alike(mm, start, size, out_off) == 0) {
        if (out_warm)
            *out_warm = false;
        return 0;
    }
    return memfile_alloc_flags(mm->mf, mm->acct, size, heap ? MEMFILE_UP : 0, out_off, out_warm);
}

/* Links and maps a PMA that is filled in but for its place; gives it back on failure. */
static int populate_install(struct mm *mm, const struct vma *v, struct pma *p, unsigned flags)
{
    pma_link(mm, p);
    uint64_t start = p->start, end = p->end;
    int err = pma_map(mm, v, p, start, end, flags);
    if (err) {
        pma_unlink(mm, p);
        pma_release(mm, p);
        pma_give_spare(mm, p);
        return err;
    }
    pma_merge_range(mm, start, end);
    return 0;
}

static int populate_anon(struct mm *mm, const struct vma *v, uint64_t start, uint64_t end,
                         unsigned flags)
{
    bool warm = false;
    uint64_t off;
    int err = populate_alloc(mm, v, start, end, &off, &warm);
    if (err)
        return err;
    struct pma *p = pma_take_spare(mm);
    p->kind = PMA_ANON;
    p->start = start;
    p->end = end;
    p->off = off;
    mm->given += end - start;
    /* Pages that are there already cost a fault each if they are not mapped now. */
    return populate_install(mm, v, p, warm ? flags | PLAT_MAP_POPULATE : flags);
}

static int populate_file(struct mm *mm, const struct vma *v, uint64_t start, uint64_t end,
                         unsigned flags, uint64_t *out_end)
{
    struct mappable_range r = {.acct = mm->acct, .fd = -1};
    unsigned access = PLAT_READ | (vma_access(v) & PLAT_EXEC);
    if (!vma_private(v) && (v->prot & PROT_WRITE))
        access |= PLAT_WRITE;
    int err = v->m->ops->translate(v->m, v->off + (start - v->start), end - start, access, &r);
    if (err)
        return err;
    BUG_ON(r.size == 0 || r.size % PAGE_SIZE != 0 || r.size > end - start);
    mm->given += r.in_memfile ? r.size : 0;
    if (r.in_memfile)
        err = memfile_show(mm->mf, r.off, r.size);
    /* What shows nothing new needs tables. */
    if (!memfile_admits(mm->mf, 0))
        err = -ENOMEM;
    if (err) {
        if (r.in_memfile)
            memfile_unref(mm->mf, r.off, r.size);
        return err;
    }
    struct pma *p = pma_take_spare(mm);
    p->kind = r.in_memfile ? PMA_MEM : PMA_HOST;
    p->start = start;
    p->end = start + r.size;
    p->off = r.off;
    p->fd = r.in_memfile ? -1 : r.fd;
    p->m = v->m;
    p->writable = access & PLAT_WRITE;
    *out_end = p->end;
    return populate_install(mm, v, p, flags);
}

int mm_populate(struct mm *mm, struct vma *v, uint64_t start, uint64_t end, unsigned flags,
                unsigned budget)
{
    while (start < end) {
        struct pma *p = pma_first(mm, start);
        if (p && p->start <= start) {
            start = p->end;
            continue;
        }
        if (budget-- == 0)
            return 0;
        uint64_t hole_end = p ? MIN(p->start, end) : end;
        int err = populate_may_cut(mm) ? mm_stock_locked(mm) : -ENOMEM;
        if (!err && v->m)
            err = populate_file(mm, v, start, hole_end, flags, &hole_end);
        else if (!err)
            err = populate_anon(mm, v, start, hole_end, flags);
        if (err)
            return err;
        start = hole_end;
    }
    return 0;
}

/* ---- copy-on-write ---- */

/* Writing again to what nobody else owns any more. */
static int cow_reuse(struct mm *mm, const struct vma *v, uint64_t start, uint64_t end)
{
    int err = mm_as_protect(mm, start, end, vma_access(v));
    if (err)
        return err;
    pma_isolate(mm, start, end);
    struct pma *p = pma_find(mm, start);
    p->cow = false;
    p->access = vma_access(v);
    pma_merge_range(mm, start, end);
    return 0;
}

static bool cow_try_reuse(struct mm *mm, const struct vma *v, const struct pma *p, uint64_t page,
                          int *out_err)
{
    uint64_t lo = MAX(v->start, p->start), hi = MIN(v->end, p->end);
    uint64_t sole = memfile_sole_owner(mm->mf, p->off + (lo - p->start), hi - lo);
    if (lo + sole <= page) {
        lo = page;
        sole = memfile_sole_owner(mm->mf, p->off + (lo - p->start), hi - lo);
    }
    if (sole == 0)
        return false;
    uint64_t near = MAX(lo, ALIGN_DOWN(page, MM_COW_WINDOW));
    mm_hot_note(mm, near, MIN(lo + sole, near + MM_COW_WINDOW));
    *out_err = cow_reuse(mm, v, lo, lo + sole);
    return true;
}

/* The host bounds the number of mappings: the more there are, the bigger the pieces. */
static uint64_t cow_window_least(const struct mm *mm)
{
    if (mm->pma_count > LIMIT_MAP_COUNT / 4)
        return MM_CHUNK;
    if (mm->pma_count > LIMIT_MAP_COUNT / 16)
        return MM_COW_WINDOW * 4;
    return memfile_piece(mm->mf, MM_COW_WINDOW);
}

/* The piece around page that is copied: its surroundings, or for who comes from the end of the last
 * one twice as much ahead. */
static void cow_window(const struct mm *mm, uint64_t page, uint64_t *lo, uint64_t *hi)
{
    uint64_t window = cow_window_least(mm), base = ALIGN_DOWN(page, window);
    if (page == mm->cow_end && !memfile_limited(mm->mf)) {
        window = MAX(window, MIN(2 * mm->cow_size, MM_COW_WINDOW_MAX));
        base = page;
    }
    *lo = MAX(base, *lo);
    *hi = MIN(base + window, *hi);
}

static int cow_copy_bytes(struct mm *mm, const struct pma *p, uint64_t at, uint64_t size, char *dst)
{
    uint64_t off = p->off + (at - p->start), done = 0;
    if (p->kind != PMA_HOST)
        return safecopy(dst, memfile_ptr(mm->mf, off), size) == 0 ? 0 : -EIO;
    while (done < size) {
        ssize_t n = pread(p->fd, dst + done, size - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -EIO;
        if (n == 0)
            break;
        done += (uint64_t)n;
    }
    memset(dst + done, 0, size - done); /* the rest of the page that holds the end of the file */
    return 0;
}

static int cow_alloc(struct mm *mm, uint64_t lo, uint64_t size, uint64_t *out_off)
{
    struct pma *prev = lo > 0 ? pma_find(mm, lo - 1) : NULL;
    if (prev && prev->kind == PMA_ANON && !prev->cow) {
        *out_off = prev->off + (lo - prev->start);
        if (memfile_alloc_at(mm->mf, mm->acct, *out_off, size, MEMFILE_RAW, NULL) == 0)
            return 0;
    }
    return memfile_alloc_flags(mm->mf, mm->acct, size, MEMFILE_RAW | MEMFILE_UP, out_off, NULL);
}

static int cow_copy(struct mm *mm, const struct vma *v, struct pma *p, uint64_t page)
{
    uint64_t lo = MAX(v->start, p->start), hi = MIN(v->end, p->end), off;
    cow_window(mm, page, &lo, &hi);
    if (p->kind == PMA_ANON && lo != mm->cow_end)
        mm_hot_note(mm, lo, hi);
    mm->cow_end = hi;
    mm->cow_size = hi - lo;
    int err = cow_alloc(mm, lo, hi - lo, &off);
    if (err)
        return err;
    err = cow_copy_bytes(mm, p, lo, hi - lo, memfile_ptr(mm->mf, off));
    if (err)
        goto out_mem;
    pma_isolate(mm, lo, hi);
    p = pma_find(mm, lo);
    struct pma *old = pma_take_spare(mm);
    *old = *p;
    *p = (struct pma){.node = p->node, .start = lo, .end = hi, .off = off, .fd = -1};
    p->kind = PMA_ANON;
    /* The copy is there as a whole, and who writes to one page is likely to go on. */
    err = pma_map(mm, v, p, lo, hi, PLAT_MAP_POPULATE);
    if (err) {
        struct rb_node node = p->node;
        *p = *old;
        p->node = node;
        pma_give_spare(mm, old);
        goto out_mem;
    }
    pma_make_pending(mm, old);
    pma_merge_range(mm, lo, hi);
    return 0;
out_mem:
    memfile_unref(mm->mf, off, hi - lo);
    return err;
}

int mm_copy_host(struct mm *mm, struct vma *v, uint64_t addr)
{
    struct pma *p = pma_find(mm, addr);
    if (!p || p->kind != PMA_HOST || !vma_private(v))
        return -EIO;
    int err = mm_stock_locked(mm);
    return err ? err : cow_copy(mm, v, p, ALIGN_DOWN(addr, PAGE_SIZE));
}

static int mm_allow_write(struct mm *mm, struct vma *v, struct pma *p, uint64_t page)
{
    int err;
    if (p->kind == PMA_ANON) {
        if (cow_try_reuse(mm, v, p, page, &err))
            return err;
        return cow_copy(mm, v, p, page);
    }
    if (vma_private(v))
        return cow_copy(mm, v, p, page);
    /* Shared, translated for reading so far: ask the object again. */
    uint64_t lo = MAX(v->start, p->start), hi = MIN(v->end, p->end);
    (void)pma_drop_range(mm, lo, hi, false);
    err = mm_populate(mm, v, page, hi, 0, 1);
    return err;
}

/* ---- one page ---- */

/* How much to bring at once: where memory is limited, little to who begins somewhere, and as much
 * as is there already to who goes on. */
static uint64_t populate_piece(struct mm *mm, uint64_t page)
{
    const uint64_t most = memfile_piece(mm->mf, MM_CHUNK);
    if (!memfile_limited(mm->mf))
        return most;
    const struct pma *next = pma_first(mm, page), *prev = page > 0 ? pma_find(mm, page - 1) : NULL;
    uint64_t there = memfile_piece(mm->mf, MM_FIRST_MAX * MM_FIRST_PART) / MM_FIRST_PART;
    if (prev)
        there = MAX(there, prev->end - prev->start);
    if (next && next->start == page + PAGE_SIZE)
        there = MAX(there, next->end - next->start);
    while (there & (there - 1))
        there &= there - 1;
    return MAX(MIN(most, there), PAGE_SIZE);
}

static int populate_hole(struct mm *mm, struct vma *v, uint64_t page, uint64_t piece)
{
    uint64_t lo = MAX(v->start, ALIGN_DOWN(page, piece));
    uint64_t hi = MIN(v->end, ALIGN_DOWN(page, piece) + piece);
    struct pma *next = pma_first(mm, page);
    if (next && next->start < hi)
        hi = next->start;
    /* Only the hole around the page. */
    for (struct pma *p = pma_first(mm, lo); p && p->start < page; p = pma_next(p))
        lo = p->end;
    int err = mm_populate(mm, v, lo, hi, 0, MM_EAGER_TRANSLATIONS);
    if (pma_find(mm, page))
        return 0;
    if (lo < page)
        err = mm_populate(mm, v, page, hi, 0, 1);
    return err;
}

static int populate_around(struct mm *mm, struct vma *v, uint64_t page)
{
    const uint64_t piece = populate_piece(mm, page);
    int err = populate_hole(mm, v, page, piece);
    const struct pma *p = pma_find(mm, page);
    /* The pages of a host file are there or not, whoever maps them. */
    if (p && p->kind == PMA_HOST && piece < MM_CHUNK) {
        const uint64_t lo = MAX(v->start, ALIGN_DOWN(page, MM_CHUNK));
        int more = mm_populate(mm, v, lo, MIN(v->end, ALIGN_DOWN(page, MM_CHUNK) + MM_CHUNK), 0,
                               MM_EAGER_TRANSLATIONS);
        (void)more;
    }
    return err;
}

static int make_usable(struct mm *mm, struct vma *v, uint64_t addr, unsigned access,
                       bool *out_changed)
{
    uint64_t page = ALIGN_DOWN(addr, PAGE_SIZE);
    struct pma *p = pma_find(mm, page);
    *out_changed = false;
    if (!p) {
        int err = populate_around(mm, v, page);
        if (err)
            return err;
        p = pma_find(mm, page);
        BUG_ON(!p);
        *out_changed = true;
    }
    if (p->access == 0 && pma_effective(v, p) != 0) {
        /* It was moved here and the stub did not take it then. */
        int err = mm_stock_locked(mm);
        if (err)
            return err;
        pma_isolate(mm, MAX(p->start, v->start), MIN(p->end, v->end));
        p = pma_find(mm, page);
        err = pma_map(mm, v, p, p->start, p->end, 0);
        if (err)
            return err;
        *out_changed = true;
    }
    if (!(access & PLAT_WRITE) || (p->access & PLAT_WRITE))
        return 0;
    int err = populate_may_cut(mm) ? mm_stock_locked(mm) : -ENOMEM;
    if (!err)
        err = mm_allow_write(mm, v, p, page);
    if (!err)
        *out_changed = true;
    return err;
}

int mm_make_usable(struct mm *mm, struct vma *v, uint64_t addr, unsigned access, bool *out_changed)
{
    int err = make_usable(mm, v, addr, access, out_changed);
    if (err == -ENOMEM && mm_take_back_locked(mm, false) > 0)
        err = make_usable(mm, v, addr, access, out_changed);
    return err;
}
