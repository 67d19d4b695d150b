/* What rseq(2) needs to know of an address space: concurrency ids (Linux's mm_cid), and whether
 * anybody has critical sections there. */
#include <stdatomic.h>

#include "sentry/mm/mm_priv.h"

uint32_t mm_cid_take(struct mm *mm)
{
    for (uint32_t i = 0;; i = (i + 1) % LIMIT_CPU_WORDS) {
        uint64_t used = atomic_load_explicit(&mm->cids[i], memory_order_relaxed);
        while (~used) {
            const uint32_t bit = (uint32_t)__builtin_ctzll(~used);
            if (atomic_compare_exchange_weak(&mm->cids[i], &used, used | UINT64_C(1) << bit))
                return i * 64 + bit;
        }
    }
}

void mm_cid_put(struct mm *mm, uint32_t cid)
{
    atomic_fetch_and(&mm->cids[cid / 64], ~(UINT64_C(1) << (cid % 64)));
}

void mm_set_sections(struct mm *mm)
{
    atomic_store(&mm->has_sections, true);
}

bool mm_has_sections(const struct mm *mm)
{
    return atomic_load_explicit(&mm->has_sections, memory_order_acquire);
}
