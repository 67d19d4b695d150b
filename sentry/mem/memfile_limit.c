/* The limit of the memory file. What was shown to a guest can be touched without anybody asking, so
 * all of it counts, together with what the sentry's heap and the host's tables take for guests. Who
 * reaches the limit takes back first what was shown and not touched (sentry/mm/takeback.c). */
#include <sys/stat.h>

#include "base/heap.h"
#include "sentry/mem/memfile_priv.h"

/* What the sentry's heap may have without taking it from guests, at most and as part of the limit;
 * what it may grow by between two looks, at least; what is left to it when there is nothing more,
 * for who has to give memory back. */
#define MF_HEAP_FREE (4u * 1024 * 1024)
#define MF_HEAP_FREE_PART 32u
#define MF_HEAP_STEP (256u * 1024)
#define MF_HEAP_SLACK (2u * 1024 * 1024)
#define MF_HEAP_SLACK_PART 64u
/* What a node of the host's index of a file in memory takes, and how many a span has. */
#define MF_NODE_BYTES 592u
#define MF_SPAN_NODES 8u
/* With less than that the limit is reached: what one operation may want at a time. */
#define MF_LEAST (UINT64_C(256) << 10)
#define MF_LEAST_PART 64u
/* Of what is left, the part that one fault may bring. */
#define MF_PIECE_PART 16u
/* Of the limit: what is free of it while nobody looks; what is worth a look. */
#define MF_PRESS_PART 8u
#define MF_SLACK_PART 32u

void memfile_set_tables(struct memfile *mf, unsigned tables)
{
    mf->tables = tables;
}

bool memfile_limited(const struct memfile *mf)
{
    return atomic_load_explicit(&mf->limit, memory_order_relaxed) != 0;
}

/* ---- what is taken ---- */

/* Bytes of the sentry's heap that count as the guests'; an eighth more is lost between blocks. */
static uint64_t mf_heap(uint64_t limit)
{
    const uint64_t own = MIN(limit / MF_HEAP_FREE_PART, MF_HEAP_FREE);
    const uint64_t used = heap_used() / 8 * 9;

    return used > own ? used - own : 0;
}

/* What the host needs to keep track of size bytes of the file, at most: nodes of its index, and
 * page tables. Those of the sentry are few where it does not look; those of a machine stay. */
static uint64_t mf_index(const struct memfile *mf, uint64_t size)
{
    const uint64_t spans = atomic_load_explicit(&mf->span_count, memory_order_relaxed);
    const uint64_t seen = atomic_load_explicit(&mf->spans_seen, memory_order_relaxed);

    return MIN(size / PAGE_SIZE, spans * MF_SPAN_NODES) * MF_NODE_BYTES +
           (spans + seen * mf->tables) * PAGE_SIZE;
}

void mf_shown_locked(struct memfile *mf, uint64_t off, uint64_t size, bool shown)
{
    const uint64_t end = off + size;

    mf->shown += shown ? size : -size;
    while (off < end) {
        const uint64_t next = MIN(ALIGN_DOWN(off, MF_SPAN) + MF_SPAN, end);
        uint16_t *s = &mf->spans[off / MF_SPAN];
        const uint16_t pages = (uint16_t)((next - off) / PAGE_SIZE);
        const bool before = *s & ~MF_SPAN_SEEN, seen = *s & MF_SPAN_SEEN;
        const unsigned now = (*s & ~MF_SPAN_SEEN) + (shown ? pages : 0u) - (shown ? 0u : pages);
        *s = (uint16_t)(now | MF_SPAN_SEEN);
        mf->span_count += (now != 0) - (uint64_t)before;
        mf->spans_seen += !seen;
        off = next;
    }
}

/* Bytes of the file that are there or can come without anybody asking. */
static uint64_t mf_reach(const struct memfile *mf)
{
    return atomic_load_explicit(&mf->shown, memory_order_relaxed) +
           atomic_load_explicit(&mf->dirty, memory_order_relaxed);
}

static uint64_t mf_taken(const struct memfile *mf, uint64_t limit)
{
    const uint64_t heap = mf_heap(limit),
                   left = atomic_load_explicit(&mf->left, memory_order_relaxed);
    uint64_t reach = mf_reach(mf);

    reach = MAX(memfile_resident(mf), reach - MIN(left, reach));
    return reach + mf_index(mf, reach) + heap;
}

/* What guests may still have. */
static uint64_t mf_room(const struct memfile *mf)
{
    uint64_t limit = atomic_load_explicit(&mf->limit, memory_order_relaxed), taken;

    if (limit == 0) {
        limit = mf->host_ram / 2;
        taken = mf_heap(limit);
    } else {
        taken = mf_taken(mf, limit);
    }
    return taken < limit ? limit - taken : 0;
}

/* ---- questions ---- */

bool memfile_full(const struct memfile *mf)
{
    const uint64_t limit = atomic_load_explicit(&mf->limit, memory_order_relaxed);

    return mf_room(mf) < MAX(MIN(limit / MF_LEAST_PART, MF_LEAST), 1u);
}

uint64_t memfile_piece(const struct memfile *mf, uint64_t max)
{
    if (!memfile_limited(mf))
        return max;
    const uint64_t pages = MIN(mf_room(mf) / MF_PIECE_PART, max) / PAGE_SIZE;
    return pages <= 1 ? PAGE_SIZE : PAGE_SIZE << (63 - __builtin_clzll(pages));
}

bool memfile_slack(const struct memfile *mf)
{
    const uint64_t limit = atomic_load_explicit(&mf->limit, memory_order_relaxed);
    const uint64_t left = atomic_load_explicit(&mf->left, memory_order_relaxed);

    if (limit == 0 ||
        mf_taken(mf, limit) <= atomic_load_explicit(&mf->press_at, memory_order_relaxed))
        return false;
    return mf_reach(mf) > memfile_resident(mf) + left + limit / MF_SLACK_PART;
}

static void mf_set_press(struct memfile *mf, uint64_t room)
{
    const uint64_t limit = atomic_load_explicit(&mf->limit, memory_order_relaxed);
    const uint64_t free = MIN(limit / MF_PRESS_PART, room / 2);

    atomic_store_explicit(&mf->press_at, limit == 0 ? UINT64_MAX : limit - free,
                          memory_order_relaxed);
}

bool memfile_heap_full(struct memfile *mf)
{
    const uint64_t room = mf_room(mf), used = heap_used();
    const uint64_t slack = MIN(memfile_budget(mf) / MF_HEAP_SLACK_PART, (uint64_t)MF_HEAP_SLACK);

    mf_set_press(mf, room);
    heap_set_marks(used + MIN(MAX(room / 4, (uint64_t)MF_HEAP_STEP), room), used + room + slack);
    return memfile_full(mf);
}

bool mf_refuses_locked(struct memfile *mf, uint64_t size)
{
    const uint64_t limit = atomic_load_explicit(&mf->limit, memory_order_relaxed);

    if (limit == 0)
        return false;
    uint64_t taken = mf_taken(mf, limit);
    if (taken + size > limit && atomic_load_explicit(&mf->dirty, memory_order_relaxed) > 0) {
        mf_trim_locked(mf, 0);
        taken = mf_taken(mf, limit);
    }
    if (taken + size > atomic_load_explicit(&mf->press_at, memory_order_relaxed))
        heap_press();
    return taken > limit || size > limit - taken;
}

bool memfile_admits(struct memfile *mf, uint64_t size)
{
    if (!memfile_limited(mf))
        return true;
    mutex_lock(&mf->mu);
    const bool over = mf_refuses_locked(mf, size);
    mutex_unlock(&mf->mu);
    return !over;
}

/* ---- changes ---- */

void memfile_set_limit(struct memfile *mf, uint64_t limit)
{
    mutex_lock(&mf->mu);
    atomic_store_explicit(&mf->limit, limit, memory_order_relaxed);
    mutex_unlock(&mf->mu);
    (void)memfile_heap_full(mf);
}

void memfile_left_add(struct memfile *mf, int64_t bytes)
{
    atomic_fetch_add_explicit(&mf->left, (uint64_t)bytes, memory_order_relaxed);
}
