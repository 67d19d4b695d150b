/* Which address spaces map an object, and taking pages out of all of them. */
#include "sentry/mm/mappable.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include "base/hash.h"
#include "sentry/mm/mm_priv.h"

/* Lists are short and touched only when VMAs come and go: a few locks serve all objects. */
#define MAPPABLE_LOCKS 32u

static struct mutex mappable_locks[MAPPABLE_LOCKS];
static pthread_once_t mappable_once = PTHREAD_ONCE_INIT;

static void mappable_init_locks(void)
{
    for (unsigned i = 0; i < MAPPABLE_LOCKS; i++)
        mutex_init(&mappable_locks[i], LOCK_RANK_MAPPABLE);
}

static struct mutex *mappable_lock(const struct mappable *m)
{
    return &mappable_locks[hash_u64((uint64_t)(uintptr_t)m) % MAPPABLE_LOCKS];
}

void mappable_init(struct mappable *m, const struct mappable_ops *ops)
{
    (void)pthread_once(&mappable_once, mappable_init_locks);
    m->ops = ops;
    list_init(&m->mappings);
    m->writers = 0;
    m->sealed = false;
}

void mappable_fini(struct mappable *m)
{
    BUG_ON(!list_empty(&m->mappings));
    hostwin_forget(m);
}

static bool mappable_writer(const struct vma *v)
{
    return v->flags & VMA_SHARED && v->max_prot & PROT_WRITE;
}

bool mappable_claim(struct mappable *m)
{
    struct mutex *mu = mappable_lock(m);
    mutex_lock(mu);
    const bool free = !m->sealed;
    m->writers += free;
    mutex_unlock(mu);
    return free;
}

void mappable_unclaim(struct mappable *m)
{
    struct mutex *mu = mappable_lock(m);
    mutex_lock(mu);
    m->writers--;
    mutex_unlock(mu);
}

int mappable_seal(struct mappable *m, bool leave)
{
    struct mutex *mu = mappable_lock(m);
    mutex_lock(mu);
    const int r = m->writers > 0 && !leave ? -EBUSY : 0;
    if (r == 0)
        m->sealed = true;
    mutex_unlock(mu);
    return r;
}

/* A new mapping translates from now on and goes to the front, where an invalidation under way does
 * not look any more; one that inherits what was translated before goes to the back. */
void mappable_track(struct vma *v, bool inherited)
{
    struct mutex *mu = mappable_lock(v->m);
    mutex_lock(mu);
    if (inherited)
        list_add_tail(&v->mlink, &v->m->mappings);
    else
        list_add(&v->mlink, &v->m->mappings);
    v->m->writers += mappable_writer(v);
    mutex_unlock(mu);
    if (v->m->ops->mapped)
        v->m->ops->mapped(v->m, true);
}

void mappable_untrack(struct vma *v)
{
    struct mutex *mu = mappable_lock(v->m);
    mutex_lock(mu);
    list_del(&v->mlink);
    v->m->writers -= mappable_writer(v);
    mutex_unlock(mu);
    if (v->m->ops->mapped)
        v->m->ops->mapped(v->m, false);
}

/* Part of v that shows [off, off+size) of its object. */
static bool mappable_overlap(const struct vma *v, uint64_t off, uint64_t size, uint64_t *out_start,
                             uint64_t *out_end)
{
    uint64_t len = v->end - v->start;
    uint64_t lo = off > v->off ? off - v->off : 0;
    if (lo >= len)
        return false;
    uint64_t end = size > UINT64_MAX - off ? UINT64_MAX : off + size;
    if (end <= v->off)
        return false;
    uint64_t hi = MIN(end - v->off, len);
    *out_start = v->start + lo;
    *out_end = v->start + ALIGN_UP(hi, PAGE_SIZE);
    return lo < hi;
}

static void mappable_drop_mm(struct mm *mm, struct mappable *m, uint64_t off, uint64_t size,
                             bool keep_copies)
{
    uint64_t start, end;
    bool any = false;
    /* Without spare nodes nothing can be cut; memory comes back as others free it. */
    while (mm_begin(mm, NULL) != 0)
        (void)sched_yield();
    struct vma *next;
    for (struct vma *v = vma_first(mm, 0); v; v = next) {
        next = vma_next(v);
        if (v->m != m || !mappable_overlap(v, off, size, &start, &end))
            continue;
        while (mm_stock_locked(mm) != 0)
            (void)sched_yield();
        any |= pma_drop_range(mm, start, end, keep_copies);
    }
    if (any)
        (void)mm_commit_locked(mm);
    mm_end(mm);
}

static void mappable_drop(struct mappable *m, uint64_t off, uint64_t size, bool keep_copies)
{
    struct mutex *mu = mappable_lock(m);
    struct vma marker = {.mm = NULL};
    struct mm *last = NULL; /* one visit does all VMAs of an mm; kept so that it stays itself */
    mutex_lock(mu);
    list_add(&marker.mlink, &m->mappings);
    while (marker.mlink.next != &m->mappings) {
        struct vma *v = list_first_entry(&marker.mlink, struct vma, mlink);
        list_move(&marker.mlink, &v->mlink);
        struct mm *mm = v->mm;
        if (!mm || mm == last || !mm_tryget(mm))
            continue;
        mutex_unlock(mu);
        mm_put(last);
        last = mm;
        mappable_drop_mm(mm, m, off, size, keep_copies);
        mutex_lock(mu);
    }
    list_del(&marker.mlink);
    mutex_unlock(mu);
    mm_put(last);
    /* The object may be another host file from now on. */
    if (off == 0 && size == UINT64_MAX)
        hostwin_forget(m);
}

void mappable_invalidate(struct mappable *m, uint64_t off, uint64_t size)
{
    mappable_drop(m, ALIGN_DOWN(off, PAGE_SIZE), size, true);
}

void mappable_truncate(struct mappable *m, uint64_t size)
{
    if (size <= UINT64_MAX - PAGE_SIZE)
        mappable_drop(m, ALIGN_UP(size, PAGE_SIZE), UINT64_MAX, false);
}
