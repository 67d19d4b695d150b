/* Extents of the memory file. The whole offset space is covered by segments, kept in one tree by
 * offset; a segment is allocated (refs > 0), free, or busy (being punched outside the lock).
 * Neighbours of the same state are merged. Free segments are also in bins by size: clean ones read
 * as zeros, dirty ones still hold old bytes and are good for small allocations and copies. */
#include "sentry/mem/memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "sentry/mem/memacct.h"
#include "sentry/mem/memfile_priv.h"

#define MF_BIN_PROBES 8
#define MF_SPARES_MIN 4u
#define MF_SPARES_MAX 64u
/* Freed ranges up to this are kept dirty for reuse, until MF_DIRTY_MAX in total. */
#define MF_DIRTY_RANGE_MAX (2u * 1024 * 1024)
#define MF_DIRTY_MAX (4u * 1024 * 1024)
/* Up to this, zeroing by hand what is there beats a hole punch and new faults. */
#define MF_ZERO_BY_HAND (1024u * 1024)
/* Up to this, without a look at what is there. */
#define MF_ZERO_BLINDLY (64u * 1024)
#define MF_PUNCH_BATCH 16
/* Looked at with one call. */
#define MF_LOOK_PAGES UINT64_C(512)
/* Runs of pages that are there, this long, are worth remembering. */
#define MF_FULL_MIN (1024u * 1024)

/* ---- segments ---- */

static bool mf_stock_locked(struct memfile *mf)
{
    while (mf->spare_count < MF_SPARES_MIN) {
        struct mf_seg *s = calloc(1, sizeof(*s));
        if (!s)
            return false;
        list_add(&s->bin, &mf->spares);
        mf->spare_count++;
    }
    return true;
}

static struct mf_seg *mf_node_take(struct memfile *mf)
{
    BUG_ON(mf->spare_count == 0);
    struct mf_seg *s = list_first_entry(&mf->spares, struct mf_seg, bin);
    list_del(&s->bin);
    mf->spare_count--;
    return s;
}

static void mf_node_give(struct memfile *mf, struct mf_seg *s)
{
    if (mf->spare_count >= MF_SPARES_MAX) {
        free(s);
        return;
    }
    list_add(&s->bin, &mf->spares);
    mf->spare_count++;
}

static struct mf_seg *mf_entry(struct rb_node *n)
{
    return n ? container_of(n, struct mf_seg, node) : NULL;
}

static struct mf_seg *mf_find(struct memfile *mf, uint64_t off)
{
    struct rb_node *n = mf->segs.node;
    while (n) {
        struct mf_seg *s = mf_entry(n);
        if (off < s->off)
            n = n->left;
        else if (off - s->off >= s->size)
            n = n->right;
        else
            return s;
    }
    BUG_ON(true);
    return NULL;
}

static void mf_insert(struct memfile *mf, struct mf_seg *s)
{
    struct rb_node **link = &mf->segs.node, *parent = NULL;
    while (*link) {
        parent = *link;
        link = s->off < mf_entry(parent)->off ? &parent->left : &parent->right;
    }
    rb_link_node(&s->node, parent, link);
    rb_insert_color(&s->node, &mf->segs);
}

static void mf_erase(struct memfile *mf, struct mf_seg *s)
{
    rb_erase(&s->node, &mf->segs);
    mf_node_give(mf, s);
}

static unsigned mf_bin_of(uint64_t size)
{
    unsigned b = 63u - (unsigned)__builtin_clzll(size >> PAGE_SHIFT);
    return b < MF_BINS ? b : MF_BINS - 1;
}

static bool mf_is_free(const struct mf_seg *s)
{
    return s->state == MF_CLEAN || s->state == MF_DIRTY;
}

static void mf_bin_add(struct memfile *mf, struct mf_seg *s)
{
    unsigned b = mf_bin_of(s->size);
    list_add(&s->bin, &mf->bins[s->state][b]);
    mf->bin_map[s->state] |= UINT64_C(1) << b;
    if (s->state == MF_DIRTY)
        mf->dirty += s->size;
}

static void mf_bin_del(struct memfile *mf, struct mf_seg *s)
{
    unsigned b = mf_bin_of(s->size);
    list_del(&s->bin);
    if (list_empty(&mf->bins[s->state][b]))
        mf->bin_map[s->state] &= ~(UINT64_C(1) << b);
    if (s->state == MF_DIRTY)
        mf->dirty -= s->size;
}

/* Cuts s at off (strictly inside); returns the upper part. Not for segments in a bin. */
static struct mf_seg *mf_split(struct memfile *mf, struct mf_seg *s, uint64_t off)
{
    struct mf_seg *hi = mf_node_take(mf);
    hi->off = off;
    hi->size = s->off + s->size - off;
    hi->refs = s->refs;
    hi->state = s->state;
    hi->full = s->full;
    hi->lazy = s->lazy;
    hi->hidden = s->hidden;
    hi->acct = s->acct;
    s->size = off - s->off;
    mf_insert(mf, hi);
    return hi;
}

static bool mf_same(const struct mf_seg *a, const struct mf_seg *b)
{
    return a->state == b->state && a->refs == b->refs && a->full == b->full && a->lazy == b->lazy &&
           a->hidden == b->hidden && a->acct == b->acct && a->state != MF_BUSY;
}

/* Merges s (not in a bin) with an equal predecessor; the result is not in a bin. */
static struct mf_seg *mf_merge_prev(struct memfile *mf, struct mf_seg *s)
{
    struct mf_seg *prev = mf_entry(rb_prev(&s->node));
    if (!prev || !mf_same(prev, s))
        return s;
    if (mf_is_free(prev))
        mf_bin_del(mf, prev);
    prev->size += s->size;
    mf_erase(mf, s);
    return prev;
}

/* Merges s (not in a bin) with equal neighbours; the result is not in a bin. */
static struct mf_seg *mf_merge(struct memfile *mf, struct mf_seg *s)
{
    s = mf_merge_prev(mf, s);
    struct mf_seg *next = mf_entry(rb_next(&s->node));
    if (next && mf_same(s, next)) {
        if (mf_is_free(next))
            mf_bin_del(mf, next);
        s->size += next->size;
        mf_erase(mf, next);
    }
    return s;
}

static void mf_free_seg(struct memfile *mf, struct mf_seg *s, enum mf_state state)
{
    s->state = state;
    s->refs = 0;
    s->full = s->lazy = s->hidden = false;
    s->acct = NULL;
    mf_bin_add(mf, mf_merge(mf, s));
}

/* ---- life ---- */

static size_t mf_spans_size(const struct memfile *mf)
{
    return (mf->size / MF_SPAN + 1) * sizeof(mf->spans[0]);
}

int memfile_new(uint64_t size, struct memfile **out_mf)
{
    int err = -ENOMEM;
    struct memfile *mf = calloc(1, sizeof(*mf));
    if (!mf)
        return -ENOMEM;
    mf->size = ALIGN_UP(size, PAGE_SIZE);
    mf->press_at = UINT64_MAX;
    mf->host_ram = (uint64_t)sysconf(_SC_PHYS_PAGES) << PAGE_SHIFT;
    mf->fd = memfd_create("ringwall-memory", MFD_CLOEXEC);
    if (mf->fd < 0 || ftruncate(mf->fd, (off_t)mf->size) != 0) {
        err = -errno;
        goto out_fd;
    }
    mf->base = mmap(NULL, mf->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, mf->fd, 0);
    if (mf->base == MAP_FAILED) {
        err = -errno;
        goto out_fd;
    }
    mf->spans = mmap(NULL, mf_spans_size(mf), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mf->spans == MAP_FAILED) {
        err = -errno;
        goto out_map;
    }
    mem_commit_init(&mf->commit);
    mutex_init(&mf->mu, LOCK_RANK_MEMFILE);
    list_init(&mf->spares);
    for (unsigned i = 0; i < MF_BINS; i++) {
        list_init(&mf->bins[MF_CLEAN][i]);
        list_init(&mf->bins[MF_DIRTY][i]);
    }
    if (!mf_stock_locked(mf))
        goto out_spans;
    struct mf_seg *all = mf_node_take(mf);
    *all = (struct mf_seg){.size = mf->size, .state = MF_CLEAN};
    mf_insert(mf, all);
    mf_bin_add(mf, all);
    *out_mf = mf;
    return 0;
out_spans:
    (void)munmap(mf->spans, mf_spans_size(mf));
out_map:
    (void)munmap(mf->base, mf->size);
out_fd:
    if (mf->fd >= 0)
        (void)close(mf->fd);
    free(mf);
    return err;
}

void memfile_free(struct memfile *mf)
{
    if (!mf)
        return;
    struct rb_node *n;
    while ((n = rb_first(&mf->segs)) != NULL) {
        rb_erase(n, &mf->segs);
        free(mf_entry(n));
    }
    while (!list_empty(&mf->spares)) {
        struct mf_seg *s = list_first_entry(&mf->spares, struct mf_seg, bin);
        list_del(&s->bin);
        free(s);
    }
    (void)munmap(mf->spans, mf_spans_size(mf));
    (void)munmap(mf->base, mf->size);
    (void)close(mf->fd);
    free(mf);
}

int memfile_fd(const struct memfile *mf)
{
    return mf->fd;
}

uint64_t memfile_size(const struct memfile *mf)
{
    return mf->size;
}

uint64_t memfile_host_ram(const struct memfile *mf)
{
    return mf->host_ram;
}

uint64_t memfile_budget(const struct memfile *mf)
{
    uint64_t limit = atomic_load_explicit(&mf->limit, memory_order_relaxed);
    return limit != 0 && limit < mf->host_ram ? limit : mf->host_ram;
}

struct mem_commit *memfile_commit(struct memfile *mf)
{
    return &mf->commit;
}

bool memfile_may_commit(struct memfile *mf, uint64_t size, uint64_t own, bool admin)
{
    return mem_commit_may(&mf->commit, size, own, memfile_budget(mf), mf->host_ram, admin);
}

void *memfile_ptr(const struct memfile *mf, uint64_t off)
{
    BUG_ON(off >= mf->size);
    return mf->base + off;
}

static void mf_punch(struct memfile *mf, uint64_t off, uint64_t size)
{
    int rc;
    do {
        rc = fallocate(mf->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)size);
    } while (rc != 0 && errno == EINTR);
    /* Old bytes must never show up in a new owner's memory. */
    if (rc != 0)
        memset(mf->base + off, 0, size);
}

/* ---- allocation ---- */

/* A free segment of the kind with at least size bytes, or NULL. */
static struct mf_seg *mf_pick(struct memfile *mf, enum mf_state kind, uint64_t size)
{
    unsigned b = mf_bin_of(size), probes = 0;
    struct mf_seg *s;
    list_for_each_entry (s, &mf->bins[kind][b], bin) {
        if (s->size >= size)
            return s;
        if (++probes == MF_BIN_PROBES)
            break;
    }
    uint64_t map = b + 1 < MF_BINS ? mf->bin_map[kind] >> (b + 1) << (b + 1) : 0;
    if (map == 0)
        return NULL;
    return list_first_entry(&mf->bins[kind][__builtin_ctzll(map)], struct mf_seg, bin);
}

/* Makes [off, off+size) of the free segment s allocated with one reference. */
static void mf_claim(struct memfile *mf, struct mf_seg *s, uint64_t off, uint64_t size,
                     unsigned flags, struct memacct *acct)
{
    enum mf_state kind = s->state;
    const bool hidden = flags & MEMFILE_LAZY && kind == MF_CLEAN;
    mf_bin_del(mf, s);
    if (off + size < s->off + s->size)
        mf_bin_add(mf, mf_split(mf, s, off + size));
    if (off > s->off) {
        struct mf_seg *mid = mf_split(mf, s, off);
        s->state = kind;
        mf_bin_add(mf, s);
        s = mid;
    }
    s->state = MF_USED;
    s->refs = 1;
    s->acct = acct;
    s->lazy = flags & MEMFILE_LAZY;
    s->hidden = hidden;
    memacct_charge_locked(acct, size);
    (void)mf_merge(mf, s);
    mf->reserved += size;
    if (!hidden)
        mf_shown_locked(mf, off, size, true);
}

/* Zeroes the pages that are there; the others read as zeros anyhow. Bytes that were there. */
static uint64_t mf_clear_present(struct memfile *mf, uint64_t off, uint64_t size)
{
    uint64_t end = off + size, sum = 0;
    while (off < end) {
        off_t data = lseek(mf->fd, (off_t)off, SEEK_DATA);
        if (data < 0 && errno != ENXIO) {
            mf_punch(mf, off, end - off);
            break;
        }
        if (data < 0 || (uint64_t)data >= end)
            break;
        off_t hole = lseek(mf->fd, data, SEEK_HOLE);
        off = hole < 0 ? end : MIN((uint64_t)hole, end);
        memset(mf->base + data, 0, off - (uint64_t)data);
        sum += off - (uint64_t)data;
    }
    return sum;
}

/* True: afterwards every page is there. */
static bool mf_clear(struct memfile *mf, uint64_t off, uint64_t size)
{
    if (size <= MF_ZERO_BLINDLY) {
        memset(mf->base + off, 0, size);
        return true;
    }
    if (size <= MF_ZERO_BY_HAND)
        return mf_clear_present(mf, off, size) == size;
    mf_punch(mf, off, size);
    return false;
}

int memfile_alloc_flags(struct memfile *mf, struct memacct *acct, uint64_t size, unsigned flags,
                        uint64_t *out_off, bool *out_warm)
{
    bool warm = false;
    if (size == 0 || size % PAGE_SIZE != 0)
        return -EINVAL;
    if (size > mf->size || !memacct_admits(mf, acct, size))
        return -ENOMEM;
    bool zero = !(flags & MEMFILE_RAW), lazy = flags & MEMFILE_LAZY;
    bool small = size <= (zero ? MF_ZERO_BY_HAND : MF_DIRTY_RANGE_MAX);
    mutex_lock(&mf->mu);
    if ((!lazy && mf_refuses_locked(mf, size)) || !mf_stock_locked(mf))
        goto out_unlock;
    struct mf_seg *s = mf_pick(mf, small ? MF_DIRTY : MF_CLEAN, size);
    if (!s)
        s = mf_pick(mf, small ? MF_CLEAN : MF_DIRTY, size);
    if (!s)
        goto out_unlock;
    bool dirty = s->state == MF_DIRTY;
    /* From the high end: address spaces fill downwards, so neighbours there stay neighbours here.
     */
    uint64_t off = flags & MEMFILE_UP ? s->off : s->off + s->size - size;
    mf_claim(mf, s, off, size, flags, acct);
    mutex_unlock(&mf->mu);
    if (dirty && zero)
        warm = mf_clear(mf, off, size);
    *out_off = off;
    if (out_warm)
        *out_warm = warm;
    return 0;
out_unlock:
    mutex_unlock(&mf->mu);
    return -ENOMEM;
}

int memfile_alloc(struct memfile *mf, struct memacct *acct, uint64_t size, uint64_t *out_off)
{
    return memfile_alloc_flags(mf, acct, size, 0, out_off, NULL);
}

int memfile_alloc_at(struct memfile *mf, struct memacct *acct, uint64_t off, uint64_t size,
                     unsigned flags, bool *out_warm)
{
    bool warm = false;
    if (off >= mf->size || size == 0 || size > mf->size - off || !memacct_admits(mf, acct, size))
        return -ENOMEM;
    mutex_lock(&mf->mu);
    if (mf_refuses_locked(mf, size) || !mf_stock_locked(mf))
        goto out_unlock;
    struct mf_seg *s = mf_find(mf, off);
    if (!mf_is_free(s) || s->off + s->size - off < size)
        goto out_unlock;
    bool dirty = s->state == MF_DIRTY;
    mf_claim(mf, s, off, size, flags, acct);
    mutex_unlock(&mf->mu);
    if (dirty && !(flags & MEMFILE_RAW))
        warm = mf_clear(mf, off, size);
    if (out_warm)
        *out_warm = warm;
    return 0;
out_unlock:
    mutex_unlock(&mf->mu);
    return -ENOMEM;
}

/* ---- references ---- */

/* The first segment of an allocated range, with segment borders at both ends of the range. */
static struct mf_seg *mf_isolate(struct memfile *mf, uint64_t off, uint64_t size)
{
    BUG_ON(size == 0 || off >= mf->size || size > mf->size - off);
    struct mf_seg *s = mf_find(mf, off);
    BUG_ON(s->state != MF_USED);
    if (s->off < off)
        s = mf_split(mf, s, off);
    struct mf_seg *last = mf_find(mf, off + size - 1);
    BUG_ON(last->state != MF_USED);
    if (last->off + last->size > off + size)
        (void)mf_split(mf, last, off + size);
    return s;
}

int memfile_ref(struct memfile *mf, uint64_t off, uint64_t size)
{
    int err = 0;
    mutex_lock(&mf->mu);
    if (!mf_stock_locked(mf)) {
        err = -ENOMEM;
        goto out_unlock;
    }
    struct mf_seg *s = mf_isolate(mf, off, size), *last = NULL;
    while (s && s->off < off + size) {
        BUG_ON(s->state != MF_USED || s->refs == UINT32_MAX);
        s->refs++;
        /* Not with the next one, whose turn is still to come. */
        last = mf_merge_prev(mf, s);
        s = mf_entry(rb_next(&last->node));
    }
    if (last)
        (void)mf_merge(mf, last);
out_unlock:
    mutex_unlock(&mf->mu);
    return err;
}

/* Punches the segments (busy, so nobody else touches them) and frees them as clean. */
static void mf_punch_batch_locked(struct memfile *mf, struct mf_seg **segs, unsigned count)
{
    if (count == 0)
        return;
    mutex_unlock(&mf->mu);
    for (unsigned i = 0; i < count; i++)
        mf_punch(mf, segs[i]->off, segs[i]->size);
    mutex_lock(&mf->mu);
    for (unsigned i = 0; i < count; i++)
        mf_free_seg(mf, segs[i], MF_CLEAN);
}

void mf_trim_locked(struct memfile *mf, uint64_t keep)
{
    while (mf->dirty > keep) {
        struct mf_seg *batch[MF_PUNCH_BATCH];
        unsigned count = 0;
        while (count < MF_PUNCH_BATCH && mf->dirty > keep) {
            unsigned b = 63u - (unsigned)__builtin_clzll(mf->bin_map[MF_DIRTY]);
            struct mf_seg *s = list_first_entry(&mf->bins[MF_DIRTY][b], struct mf_seg, bin);
            mf_bin_del(mf, s);
            s->state = MF_BUSY;
            batch[count++] = s;
        }
        mf_punch_batch_locked(mf, batch, count);
    }
}

void memfile_trim(struct memfile *mf)
{
    mutex_lock(&mf->mu);
    mf_trim_locked(mf, 0);
    mutex_unlock(&mf->mu);
}

/* One reference less for s; its successor. Big ranges that nobody owns any more go to *batch. */
static struct mf_seg *mf_drop(struct memfile *mf, struct mf_seg *s, struct mf_seg **batch,
                              unsigned *count)
{
    BUG_ON(s->state != MF_USED);
    if (--s->refs > 0)
        return mf_entry(rb_next(&mf_merge_prev(mf, s)->node));
    struct mf_seg *next = mf_entry(rb_next(&s->node));
    mf->reserved -= s->size;
    if (!s->hidden)
        mf_shown_locked(mf, s->off, s->size, false);
    memacct_uncharge_locked(s->acct, s->size);
    s->acct = NULL;
    if (s->size <= MF_DIRTY_RANGE_MAX) {
        uint64_t end = s->off + s->size;
        mf_free_seg(mf, s, MF_DIRTY);
        /* The merge may have swallowed a free successor, which ends the range anyhow. */
        return end < mf->size ? mf_find(mf, end) : NULL;
    }
    s->state = MF_BUSY;
    batch[(*count)++] = s;
    return next;
}

void memfile_unref(struct memfile *mf, uint64_t off, uint64_t size)
{
    uint64_t end = off + size;
    mutex_lock(&mf->mu);
    while (off < end) {
        struct mf_seg *batch[MF_PUNCH_BATCH];
        unsigned count = 0;
        if (!mf_stock_locked(mf)) {
            /* Cannot cut the range: keep it for ever rather than free what is in use. */
            log_warn("memfile: out of memory, %llu bytes leaked", (unsigned long long)(end - off));
            break;
        }
        struct mf_seg *s = mf_isolate(mf, off, end - off);
        while (s && off < end && count < MF_PUNCH_BATCH) {
            off = s->off + s->size;
            s = mf_drop(mf, s, batch, &count);
        }
        s = mf_find(mf, off - 1);
        if (s->state == MF_USED)
            (void)mf_merge(mf, s);
        mf_punch_batch_locked(mf, batch, count);
    }
    if (mf->dirty > MF_DIRTY_MAX)
        mf_trim_locked(mf, MF_DIRTY_MAX / 2);
    mutex_unlock(&mf->mu);
}

uint64_t memfile_sole_owner(struct memfile *mf, uint64_t off, uint64_t size)
{
    uint64_t end = off + size, at = off;
    mutex_lock(&mf->mu);
    struct mf_seg *s = mf_find(mf, off);
    while (s && at < end && s->state == MF_USED && s->refs == 1) {
        at = s->off + s->size;
        s = mf_entry(rb_next(&s->node));
    }
    mutex_unlock(&mf->mu);
    return MIN(at, end) - off;
}

uint64_t memfile_owners(struct memfile *mf, uint64_t off, uint64_t size, uint32_t *out_owners)
{
    uint64_t end = off + size, at = off;
    mutex_lock(&mf->mu);
    struct mf_seg *s = mf_find(mf, off);
    *out_owners = MAX(s->refs, 1u);
    while (s && at < end && MAX(s->refs, 1u) == *out_owners) {
        at = s->off + s->size;
        s = mf_entry(rb_next(&s->node));
    }
    mutex_unlock(&mf->mu);
    return MIN(at, end) - off;
}

void memfile_zero(struct memfile *mf, uint64_t off, uint64_t size)
{
    BUG_ON(off >= mf->size || size > mf->size - off);
    if (size == 0)
        return;
    mf_punch(mf, off, size);
    mutex_lock(&mf->mu);
    mf->zeroed++;
    for (struct mf_seg *s = mf_find(mf, off); s && s->off < off + size;
         s = mf_entry(rb_next(&s->node)))
        s->full = false;
    mutex_unlock(&mf->mu);
}

/* ---- what guests can touch ---- */

/* Bytes of [off, off+size) that nobody can touch. */
static uint64_t mf_hidden_locked(struct memfile *mf, uint64_t off, uint64_t size)
{
    uint64_t end = off + size, sum = 0;
    for (struct mf_seg *s = mf_find(mf, off); s && s->off < end; s = mf_entry(rb_next(&s->node)))
        if (s->hidden)
            sum += MIN(s->off + s->size, end) - MAX(s->off, off);
    return sum;
}

int memfile_show(struct memfile *mf, uint64_t off, uint64_t size)
{
    int err = 0;
    mutex_lock(&mf->mu);
    const uint64_t more = mf_hidden_locked(mf, off, size);
    if (more == 0)
        goto out_unlock;
    err = -ENOMEM;
    if (mf_refuses_locked(mf, more) || !mf_stock_locked(mf))
        goto out_unlock;
    err = 0;
    struct mf_seg *s = mf_isolate(mf, off, size), *last = NULL;
    while (s && s->off < off + size) {
        if (s->hidden)
            mf_shown_locked(mf, s->off, s->size, true);
        s->hidden = false;
        last = mf_merge_prev(mf, s);
        s = mf_entry(rb_next(&last->node));
    }
    if (last)
        (void)mf_merge(mf, last);
out_unlock:
    mutex_unlock(&mf->mu);
    return err;
}

/* First page from off on that is not in memory, or end. */
static uint64_t mf_absent(const struct memfile *mf, uint64_t off, uint64_t end)
{
    unsigned char there[MF_LOOK_PAGES];
    while (off < end) {
        const uint64_t pages = MIN((end - off) / PAGE_SIZE, MF_LOOK_PAGES);
        if (mincore(mf->base + off, pages * PAGE_SIZE, there) != 0)
            return end;
        for (uint64_t i = 0; i < pages; i++)
            if (!(there[i] & 1))
                return off + i * PAGE_SIZE;
        off += pages * PAGE_SIZE;
    }
    return end;
}

/* First run without pages in [off, end). False: there is none. SEEK_HOLE would look beyond end, for
 * all that is there in one piece; but a page that is not in memory may be swapped out. */
static bool mf_hole(const struct memfile *mf, uint64_t off, uint64_t end, uint64_t *out_off,
                    uint64_t *out_size)
{
    for (off = mf_absent(mf, off, end); off < end; off = mf_absent(mf, off + PAGE_SIZE, end)) {
        off_t data = lseek(mf->fd, (off_t)off, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
            return false;
        if (data >= 0 && (uint64_t)data <= off)
            continue;
        *out_off = off;
        *out_size = (data < 0 ? end : MIN((uint64_t)data, end)) - off;
        return true;
    }
    return false;
}

/* The object's reference is the only one on [off, end): nobody maps it, and nobody can while mu is
 * held. Bytes. */
static uint64_t mf_hide_locked(struct memfile *mf, uint64_t off, uint64_t end)
{
    uint64_t sum = 0, size;
    while (mf_hole(mf, off, end, &off, &size) && mf_stock_locked(mf)) {
        struct mf_seg *s = mf_isolate(mf, off, size);
        s->hidden = true;
        (void)mf_merge(mf, s);
        mf_shown_locked(mf, off, size, false);
        sum += size;
        off += size;
    }
    return sum;
}

uint64_t memfile_hide(struct memfile *mf)
{
    uint64_t at = 0, sum = 0;
    mutex_lock(&mf->mu);
    while (at < mf->size) {
        struct mf_seg *s = mf_find(mf, at);
        const uint64_t end = s->off + s->size;
        if (s->state == MF_USED && s->lazy && !s->hidden && !s->full && s->refs == 1) {
            const uint64_t hidden = mf_hide_locked(mf, at, end);
            if (hidden == 0)
                s->full = true;
            sum += hidden;
        }
        at = end;
    }
    mutex_unlock(&mf->mu);
    return sum;
}

bool memfile_is_lazy(struct memfile *mf, uint64_t off)
{
    mutex_lock(&mf->mu);
    const bool lazy = mf_find(mf, off)->lazy;
    mutex_unlock(&mf->mu);
    return lazy;
}

/* ---- figures ---- */

uint64_t memfile_resident(const struct memfile *mf)
{
    struct stat st;
    return fstat(mf->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

uint64_t memfile_reserved(struct memfile *mf)
{
    mutex_lock(&mf->mu);
    uint64_t n = mf->reserved;
    mutex_unlock(&mf->mu);
    return n;
}

bool memfile_crowded(struct memfile *mf)
{
    return memfile_reserved(mf) > mf->size / 2;
}

/* End of the pages from off on that are known to be there. *out_zeroed: to tell whether what the
 * host says next still holds when it is noted. */
static uint64_t mf_known_full(struct memfile *mf, uint64_t off, uint64_t end, uint64_t *out_zeroed)
{
    mutex_lock(&mf->mu);
    struct mf_seg *s = mf_find(mf, off);
    while (s && s->off < end && s->full) {
        off = s->off + s->size;
        s = mf_entry(rb_next(&s->node));
    }
    *out_zeroed = mf->zeroed;
    mutex_unlock(&mf->mu);
    return MIN(off, end);
}

/* All pages of [off, end), which the caller holds, were there. */
static void mf_note_full(struct memfile *mf, uint64_t off, uint64_t end, uint64_t zeroed)
{
    mutex_lock(&mf->mu);
    if (mf->zeroed == zeroed && mf_stock_locked(mf)) {
        struct mf_seg *s = mf_isolate(mf, off, end - off), *last = NULL;
        while (s && s->off < end) {
            s->full = true;
            last = mf_merge_prev(mf, s);
            s = mf_entry(rb_next(&last->node));
        }
        if (last)
            (void)mf_merge(mf, last);
    }
    mutex_unlock(&mf->mu);
}

uint64_t memfile_resident_range(struct memfile *mf, uint64_t off, uint64_t size)
{
    uint64_t end = off + size, sum = 0, zeroed;
    while (off < end) {
        uint64_t known = mf_known_full(mf, off, end, &zeroed);
        sum += known - off;
        off = known;
        off_t data = off < end ? lseek(mf->fd, (off_t)off, SEEK_DATA) : -1;
        if (data < 0 || (uint64_t)data >= end)
            break;
        off_t hole = lseek(mf->fd, data, SEEK_HOLE);
        if (hole < 0)
            break;
        off = MIN((uint64_t)hole, end);
        sum += off - (uint64_t)data;
        if (off - (uint64_t)data >= MF_FULL_MIN)
            mf_note_full(mf, (uint64_t)data, off, zeroed);
    }
    return sum;
}

bool memfile_hole(struct memfile *mf, uint64_t off, uint64_t size, uint64_t *out_off,
                  uint64_t *out_size)
{
    uint64_t end = off + size, zeroed;
    off = mf_known_full(mf, off, end, &zeroed);
    const bool any = mf_hole(mf, off, end, out_off, out_size);
    const uint64_t full = any ? *out_off : end;
    if (full >= off + MF_FULL_MIN)
        mf_note_full(mf, off, full, zeroed);
    return any;
}

size_t mf_charged_ranges(struct memfile *mf, const struct memacct *a, uint64_t *at,
                         struct mf_range *out, size_t max)
{
    size_t n = 0;
    mutex_lock(&mf->mu);
    struct mf_seg *s = *at < mf->size ? mf_find(mf, *at) : NULL;
    for (; s && n < max; s = mf_entry(rb_next(&s->node))) {
        *at = s->off + s->size;
        if (s->acct && memacct_is_below(s->acct, a))
            out[n++] = (struct mf_range){s->off, s->size};
    }
    mutex_unlock(&mf->mu);
    return n;
}
