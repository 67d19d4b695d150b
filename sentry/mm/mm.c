/* An address space's life, its lock, and when freed memory may be used again. */
#include "sentry/mm/mm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/ckd.h"
#include "base/heap.h"
#include "base/log.h"
#include "base/objcount.h"
#include "sentry/mm/mm_priv.h"
#include "sentry/wait/wait.h"

/* What the host remembers of a stub, but for the page tables that come with PMAs: counted as heap.
 */
#define MM_HOST_BYTES (96 << 10)
#define MM_SPARES 6u
#define MM_SPARES_MAX 32u
/* Linux's arch/x86/mm/mmap.c: gap for the stack, and 28 bits of pages of randomness. */
#define MM_STACK_RESERVE (UINT64_C(128) << 20)
#define MM_STACK_RND (UINT64_C(16) << 30)
#define MM_BASE_RND_PAGES (UINT64_C(1) << 28)
#define MM_STACK_DEFAULT (UINT64_C(8) << 20)

OBJCOUNT_DEFINE(mm);

/* The stack is near the top, mappings grow down from below the room the stack may take. */
static void mm_choose_layout(struct mm *mm, const uint64_t rnd[2])
{
    uint64_t room = mm->max_addr - mm->min_addr;
    uint64_t stack_rnd = MIN(MM_STACK_RND, room / 64);
    uint64_t base_rnd = MIN(MM_BASE_RND_PAGES << PAGE_SHIFT, room / 16);
    uint64_t gap = MIN(stack_rnd + MM_STACK_RESERVE, room / 8);
    mm->stack_top = ALIGN_DOWN(mm->max_addr - rnd[0] % stack_rnd, PAGE_SIZE);
    mm->mmap_base = ALIGN_DOWN(mm->max_addr - gap - rnd[1] % base_rnd, PAGE_SIZE);
    for (size_t i = 0; i < mm->plat->reserved_count; i++) {
        const struct plat_range *r = &mm->plat->reserved[i];
        if (mm->stack_top > r->start && mm->stack_top - MM_STACK_RESERVE < r->end)
            mm->stack_top = ALIGN_DOWN(r->start, PAGE_SIZE);
    }
    mm->gap_top = mm->mmap_base;
}

static void mm_random_layout(struct mm *mm)
{
    uint64_t rnd[2] = {0, 0};
    if (getrandom(rnd, sizeof(rnd), 0) != (ssize_t)sizeof(rnd))
        log_warn("mm: no random numbers, layout is predictable");
    mm_choose_layout(mm, rnd);
}

void mm_fix_layout(struct mm *mm)
{
    const uint64_t rnd[2] = {0, 0};
    mm_choose_layout(mm, rnd);
}

int mm_alloc(struct plat *plat, struct memfile *mf, struct plat_as *as, struct mm **out_mm)
{
    struct mm *mm = calloc(1, sizeof(*mm));
    if (!mm)
        return -ENOMEM;
    ref_init(&mm->ref);
    mm->plat = plat;
    mm->as = as;
    mm->mf = mf;
    mm->min_addr = ALIGN_UP(plat->min_addr, PAGE_SIZE);
    mm->max_addr = ALIGN_DOWN(plat->max_addr, PAGE_SIZE);
    mm->ram = memfile_host_ram(mf);
    mm->born_ns = mono_now();
    mm->stack_limit = MM_STACK_DEFAULT;
    mm->as_limit = UINT64_MAX;
    mm->memlock_limit = UINT64_MAX;
    rwlock_init(&mm->lock, LOCK_RANK_MM);
    mutex_init(&mm->acct_mu, LOCK_RANK_LEAF);
    list_init(&mm->spare_vmas);
    list_init(&mm->spare_pmas);
    list_init(&mm->pending_pmas);
    list_init(&mm->pending_vmas);
    list_init(&mm->held_pmas);
    list_init(&mm->dead_vmas);
    mm_random_layout(mm);
    heap_add(MM_HOST_BYTES);
    OBJCOUNT_INC(mm);
    *out_mm = mm;
    return 0;
}

int mm_new(struct plat *plat, struct memfile *mf, struct mm **out_mm)
{
    struct plat_as *as;
    int err = plat_as_create(plat, &as);
    if (err)
        return err;
    err = mm_alloc(plat, mf, as, out_mm);
    if (err)
        plat_as_put(as);
    else
        (*out_mm)->fresh = true;
    return err;
}

void mm_loaded(struct mm *mm)
{
    rwlock_wrlock(&mm->lock);
    mm->fresh = false;
    rwlock_unlock(&mm->lock);
}

struct mm *mm_get(struct mm *mm)
{
    ref_get(&mm->ref);
    return mm;
}

bool mm_tryget(struct mm *mm)
{
    return ref_tryget(&mm->ref);
}

static void mm_put_vmas(struct list *dead)
{
    while (!list_empty(dead)) {
        struct vma *v = list_first_entry(dead, struct vma, mlink);
        list_del(&v->mlink);
        v->m->ops->put(v->m);
        free(v);
    }
}

static void mm_release_pmas(struct mm *mm, struct list *pmas)
{
    while (!list_empty(pmas)) {
        struct pma *p = list_first_entry(pmas, struct pma, link);
        list_del(&p->link);
        pma_release(mm, p);
        pma_give_spare(mm, p);
    }
}

static void mm_free_spares(struct mm *mm)
{
    while (!list_empty(&mm->spare_vmas)) {
        struct vma *v = list_first_entry(&mm->spare_vmas, struct vma, mlink);
        list_del(&v->mlink);
        free(v);
    }
    while (!list_empty(&mm->spare_pmas)) {
        struct pma *p = list_first_entry(&mm->spare_pmas, struct pma, link);
        list_del(&p->link);
        free(p);
    }
}

void mm_clear_locked(struct mm *mm)
{
    struct rb_node *n;
    while ((n = rb_first(&mm->pmas)) != NULL) {
        struct pma *p = container_of(n, struct pma, node);
        pma_unlink(mm, p);
        pma_release(mm, p);
        free(p);
    }
    mm_release_pmas(mm, &mm->pending_pmas);
    mm_release_pmas(mm, &mm->held_pmas);
    while ((n = rb_first(&mm->vmas)) != NULL)
        vma_remove(mm, container_of(n, struct vma, node));
    list_splice_tail(&mm->pending_vmas, &mm->dead_vmas);
}

/* The stub is gone, so nothing needs to be unmapped. */
static void mm_destroy(struct mm *mm)
{
    if (mm->as)
        plat_as_put(mm->as);
    rwlock_wrlock(&mm->lock);
    mm_clear_locked(mm);
    BUG_ON(mm->tables != 0);
    memfile_left_add(mm->mf, -(int64_t)mm->left);
    heap_add(-(int64_t)mm->heap_owed);
    rwlock_unlock(&mm->lock);
    mm_put_vmas(&mm->dead_vmas);
    mm_free_spares(mm);
    mm_hot_put(mm->hot);
    rwlock_destroy(&mm->lock);
    memacct_put(mm->acct);
    mutex_destroy(&mm->acct_mu);
    heap_add(-MM_HOST_BYTES);
    OBJCOUNT_DEC(mm);
    free(mm);
}

void mm_put(struct mm *mm)
{
    if (mm && ref_put(&mm->ref))
        mm_destroy(mm);
}

uint64_t mm_born(const struct mm *mm)
{
    return mm->born_ns;
}

void mm_set_account(struct mm *mm, struct memacct *acct)
{
    (void)memacct_get(acct);
    rwlock_wrlock(&mm->lock);
    mutex_lock(&mm->acct_mu);
    struct memacct *old = mm->acct;
    mm->acct = acct;
    mutex_unlock(&mm->acct_mu);
    rwlock_unlock(&mm->lock);
    memacct_put(old);
}

struct memacct *mm_account(struct mm *mm)
{
    mutex_lock(&mm->acct_mu);
    struct memacct *acct = memacct_get(mm->acct);
    mutex_unlock(&mm->acct_mu);
    return acct;
}

struct plat_as *mm_as(struct mm *mm)
{
    return mm->as;
}

struct mm_layout *mm_layout(struct mm *mm)
{
    return &mm->layout;
}

void mm_lock_layout(struct mm *mm)
{
    rwlock_wrlock(&mm->lock);
}

void mm_unlock_layout(struct mm *mm)
{
    rwlock_unlock(&mm->lock);
}

uint64_t mm_stack_top(const struct mm *mm)
{
    return mm->stack_top;
}

/* ---- operations ---- */

int mm_stock_locked(struct mm *mm)
{
    while (mm->spare_vma_count < MM_SPARES) {
        struct vma *v = calloc(1, sizeof(*v));
        if (!v)
            return -ENOMEM;
        list_add(&v->mlink, &mm->spare_vmas);
        mm->spare_vma_count++;
    }
    while (mm->spare_pma_count < MM_SPARES) {
        struct pma *p = calloc(1, sizeof(*p));
        if (!p)
            return -ENOMEM;
        list_add(&p->link, &mm->spare_pmas);
        mm->spare_pma_count++;
    }
    return 0;
}

static void mm_trim_spares(struct mm *mm)
{
    while (mm->spare_vma_count > MM_SPARES_MAX) {
        struct vma *v = list_first_entry(&mm->spare_vmas, struct vma, mlink);
        list_del(&v->mlink);
        free(v);
        mm->spare_vma_count--;
    }
    while (mm->spare_pma_count > MM_SPARES_MAX) {
        struct pma *p = list_first_entry(&mm->spare_pmas, struct pma, link);
        list_del(&p->link);
        free(p);
        mm->spare_pma_count--;
    }
}

int mm_begin(struct mm *mm, struct plat_ctx *ctx)
{
    rwlock_wrlock(&mm->lock);
    mm->ctx = ctx;
    int err = mm_stock_locked(mm);
    if (err)
        rwlock_unlock(&mm->lock);
    return err;
}

int mm_commit_locked(struct mm *mm)
{
    int err = plat_as_commit(mm->as, mm->ctx);
    if (err || mm->stale)
        list_splice_tail(&mm->pending_pmas, &mm->held_pmas);
    else
        mm_release_pmas(mm, &mm->pending_pmas);
    list_splice_tail(&mm->pending_vmas, &mm->dead_vmas);
    mm->pending_bytes = 0;
    mm->pending_count = 0;
    return err;
}

void mm_end(struct mm *mm)
{
    struct list dead;
    list_init(&dead);
    /* A removed VMA's file must stay open until queued mappings of it are done. */
    if ((!mm->fresh && !list_empty(&mm->pending_vmas)) ||
        mm->pending_bytes > MM_PENDING_BYTES_MAX || mm->pending_count > MM_PENDING_MAX) {
        if (mm_commit_locked(mm) != 0)
            log_debug("mm: some host mappings failed");
    }
    mm_trim_spares(mm);
    list_splice_tail(&mm->dead_vmas, &dead);
    mm->ctx = NULL;
    rwlock_unlock(&mm->lock);
    mm_put_vmas(&dead);
}

bool mm_range_ok(const struct mm *mm, uint64_t addr, uint64_t size)
{
    return range_ok(addr, size, mm->max_addr);
}

void mm_remember_limits(struct mm *mm, const struct mm_limits *lim)
{
    if (!lim)
        return;
    mm->stack_limit = lim->stack;
    mm->as_limit = lim->as;
    mm->memlock_limit = lim->ipc_lock ? UINT64_MAX : lim->memlock;
}
