/* Overcommit: __vm_enough_memory() and vm_commit_limit() of mm/util.c. */
#include "sentry/mem/commit.h"

/* Of the memory, what only an administrator may take, and what one process must leave for others'
 * recovery: a 32nd, and no more than these. */
#define RESERVE_PART 32u
#define RESERVE_ADMIN (UINT64_C(8) << 20)
#define RESERVE_USER (UINT64_C(128) << 20)

void mem_commit_init(struct mem_commit *c)
{
    atomic_init(&c->charged, 0);
    atomic_init(&c->mode, MEM_COMMIT_GUESS);
    atomic_init(&c->ratio, MEM_COMMIT_RATIO_DEFAULT);
    atomic_init(&c->kbytes, 0);
}

uint64_t mem_commit_limit(const struct mem_commit *c, uint64_t ram)
{
    const uint64_t kbytes = atomic_load_explicit(&c->kbytes, memory_order_relaxed);

    if (kbytes)
        return kbytes << 10;
    return ram / 100 * atomic_load_explicit(&c->ratio, memory_order_relaxed);
}

static bool never_may(const struct mem_commit *c, uint64_t size, uint64_t own, uint64_t ram,
                      bool admin)
{
    const uint64_t charged = atomic_load_explicit(&c->charged, memory_order_relaxed);
    const uint64_t part = ram / RESERVE_PART, user = MIN(part, RESERVE_USER);
    uint64_t left = mem_commit_limit(c, ram), reserve = MIN(own / RESERVE_PART, user);

    reserve += admin ? 0 : MIN(part, RESERVE_ADMIN);
    left -= MIN(left, reserve);
    return charged < left && size < left - charged;
}

bool mem_commit_may(const struct mem_commit *c, uint64_t size, uint64_t own, uint64_t ram,
                    uint64_t host_ram, bool admin)
{
    switch (atomic_load_explicit(&c->mode, memory_order_relaxed)) {
    case MEM_COMMIT_ALWAYS:
        return true;
    case MEM_COMMIT_NEVER:
        return never_may(c, size, own, ram, admin);
    default:
        /* What could never be had. */
        return size <= host_ram;
    }
}

void mem_commit_set_ratio(struct mem_commit *c, unsigned ratio)
{
    atomic_store(&c->ratio, ratio);
    atomic_store(&c->kbytes, 0);
}

void mem_commit_set_kbytes(struct mem_commit *c, uint64_t kbytes)
{
    atomic_store(&c->kbytes, kbytes);
    if (kbytes)
        atomic_store(&c->ratio, 0);
}
