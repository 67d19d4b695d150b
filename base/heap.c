/* The heap's counters. Threads add to shards, so that they do not meet on one word; a shard goes
 * into the sum when it has become large. Threads come and go, and free what others made: none has a
 * share of its own in the sum. */
#include "base/heap.h"

#include <malloc.h>

#define HEAP_SHARDS 32u
#define HEAP_BATCH 16384

struct heap_shard {
    _Alignas(64) _Atomic int64_t bytes;
};

_Atomic bool heap_pressed_flag;
static struct heap_shard heap_shards[HEAP_SHARDS];
static _Atomic int64_t heap_sum;
static _Atomic uint64_t heap_mark = HEAP_NO_LIMIT, heap_limit = HEAP_NO_LIMIT;
static _Thread_local bool heap_free_for_all;
static _Thread_local int64_t heap_mine;

static uint64_t heap_bytes(int64_t n)
{
    return n > 0 ? (uint64_t)n : 0;
}

static void heap_look(int64_t sum)
{
    if (UNLIKELY(heap_bytes(sum) > atomic_load_explicit(&heap_mark, memory_order_relaxed)) &&
        !heap_pressed())
        atomic_store_explicit(&heap_pressed_flag, true, memory_order_relaxed);
}

void heap_add(int64_t bytes)
{
    /* Threads have thread-local data in places of their own. */
    const uintptr_t self = (uintptr_t)&heap_free_for_all;
    struct heap_shard *s = &heap_shards[((self >> 12) ^ (self >> 17)) % HEAP_SHARDS];
    heap_mine += bytes;
    int64_t n = atomic_fetch_add_explicit(&s->bytes, bytes, memory_order_relaxed) + bytes;

    if (LIKELY(n < HEAP_BATCH && n > -HEAP_BATCH))
        return;
    n = atomic_exchange_explicit(&s->bytes, 0, memory_order_relaxed);
    heap_look(atomic_fetch_add_explicit(&heap_sum, n, memory_order_relaxed) + n);
}

bool heap_admits(uint64_t bytes)
{
    const uint64_t limit = atomic_load_explicit(&heap_limit, memory_order_relaxed);

    if (LIKELY(limit == HEAP_NO_LIMIT) || heap_free_for_all)
        return true;
    const uint64_t used = heap_bytes(atomic_load_explicit(&heap_sum, memory_order_relaxed));
    return used < limit && bytes <= limit - used;
}

uint64_t heap_used(void)
{
    return heap_bytes(atomic_load_explicit(&heap_sum, memory_order_relaxed));
}

void heap_set_marks(uint64_t mark, uint64_t limit)
{
    atomic_store_explicit(&heap_mark, mark, memory_order_relaxed);
    atomic_store_explicit(&heap_limit, limit, memory_order_relaxed);
    atomic_store_explicit(&heap_pressed_flag, heap_used() > mark, memory_order_relaxed);
}

void heap_press(void)
{
    if (!heap_pressed())
        atomic_store_explicit(&heap_pressed_flag, true, memory_order_relaxed);
}

int64_t heap_taken(void)
{
    const int64_t n = heap_mine;

    heap_mine = 0;
    return n;
}

void heap_trim(void)
{
    (void)malloc_trim(0);
}

void heap_exempt(bool exempt)
{
    heap_free_for_all = exempt;
}
