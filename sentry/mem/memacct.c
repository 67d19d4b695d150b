/* Accounts of memory. What an account reserves is counted as it happens; what the host has really
 * committed costs a look at every extent, so that is asked for only when the former passes a limit,
 * and not for every allocation. */
#include "sentry/mem/memacct.h"

#include <errno.h>
#include <stdlib.h>

#include "base/objcount.h"
#include "base/ref.h"
#include "sentry/mem/memfile_priv.h"

/* Of a limit, what may be reserved between two looks; when it is nearly reached, between two. */
#define ACCT_STEP 64u
#define ACCT_SMALL_STEP 512u
#define ACCT_BATCH 64u

OBJCOUNT_DEFINE(memacct);

struct memacct {
    struct ref ref; /* one more while own is not 0 */
    struct memacct *parent;
    _Atomic uint64_t limit, reserved;
    _Atomic uint64_t seen, since; /* at the last look; reserved since then */
    _Atomic uint64_t peak, failures;
    uint64_t own; /* the memory file's mu: reserved without those below */
};

int memacct_new(struct memacct *parent, struct memacct **out_acct)
{
    struct memacct *a = calloc(1, sizeof(*a));

    if (!a)
        return -ENOMEM;
    ref_init(&a->ref);
    a->parent = memacct_get(parent);
    a->limit = MEMACCT_NO_LIMIT;
    OBJCOUNT_INC(memacct);
    *out_acct = a;
    return 0;
}

struct memacct *memacct_get(struct memacct *a)
{
    if (a)
        ref_get(&a->ref);
    return a;
}

void memacct_put(struct memacct *a)
{
    while (a && ref_put(&a->ref)) {
        struct memacct *parent = a->parent;
        OBJCOUNT_DEC(memacct);
        free(a);
        a = parent;
    }
}

void memacct_set_limit(struct memacct *a, uint64_t limit)
{
    atomic_store(&a->since, UINT64_MAX / 2);
    atomic_store(&a->limit, limit);
}

uint64_t memacct_limit(const struct memacct *a)
{
    return atomic_load_explicit(&a->limit, memory_order_relaxed);
}

bool memacct_limited(const struct memacct *a)
{
    for (; a; a = a->parent)
        if (memacct_limit(a) != MEMACCT_NO_LIMIT)
            return true;
    return false;
}

bool memacct_is_below(const struct memacct *a, const struct memacct *above)
{
    while (a && a != above)
        a = a->parent;
    return a != NULL;
}

uint64_t memacct_reserved(const struct memacct *a)
{
    return atomic_load_explicit(&a->reserved, memory_order_relaxed);
}

uint64_t memacct_peak(const struct memacct *a)
{
    return atomic_load_explicit(&a->peak, memory_order_relaxed);
}

void memacct_reset_peak(struct memacct *a)
{
    atomic_store(&a->peak, 0);
}

uint64_t memacct_failures(const struct memacct *a)
{
    return atomic_load_explicit(&a->failures, memory_order_relaxed);
}

uint64_t memacct_resident(struct memfile *mf, struct memacct *a)
{
    struct mf_range ranges[ACCT_BATCH];
    uint64_t at = 0, sum = 0;
    size_t n;

    do {
        n = mf_charged_ranges(mf, a, &at, ranges, ACCT_BATCH);
        for (size_t i = 0; i < n; i++)
            sum += memfile_resident_range(mf, ranges[i].off, ranges[i].size);
    } while (n == ACCT_BATCH);
    atomic_store(&a->seen, sum);
    atomic_store(&a->since, 0);
    if (sum > memacct_peak(a))
        atomic_store(&a->peak, sum);
    return sum;
}

/* ---- limits ---- */

static bool acct_full(struct memfile *mf, struct memacct *a)
{
    const uint64_t limit = memacct_limit(a);

    return limit != MEMACCT_NO_LIMIT && memacct_reserved(a) >= limit &&
           memacct_resident(mf, a) >= limit;
}

struct memacct *memacct_over(struct memfile *mf, struct memacct *a)
{
    for (; a; a = a->parent)
        if (acct_full(mf, a))
            return a;
    return NULL;
}

static bool acct_admits(struct memfile *mf, struct memacct *a, uint64_t size)
{
    const uint64_t limit = memacct_limit(a);

    if (limit == MEMACCT_NO_LIMIT)
        return true;
    const uint64_t since = atomic_fetch_add_explicit(&a->since, size, memory_order_relaxed) + size;
    if (memacct_reserved(a) + size <= limit)
        return true;
    uint64_t seen = atomic_load_explicit(&a->seen, memory_order_relaxed);
    if (since >= limit / ACCT_STEP || (seen + since >= limit && since >= limit / ACCT_SMALL_STEP))
        seen = memacct_resident(mf, a);
    return seen < limit;
}

bool memacct_admits(struct memfile *mf, struct memacct *a, uint64_t size)
{
    for (; a; a = a->parent) {
        if (acct_admits(mf, a, size))
            continue;
        atomic_fetch_add_explicit(&a->failures, 1, memory_order_relaxed);
        return false;
    }
    return true;
}

/* ---- charging ---- */

void memacct_charge_locked(struct memacct *a, uint64_t size)
{
    if (!a)
        return;
    if (a->own == 0)
        ref_get(&a->ref);
    a->own += size;
    for (; a; a = a->parent)
        atomic_fetch_add_explicit(&a->reserved, size, memory_order_relaxed);
}

void memacct_uncharge_locked(struct memacct *a, uint64_t size)
{
    if (!a)
        return;
    for (struct memacct *up = a; up; up = up->parent)
        atomic_fetch_sub_explicit(&up->reserved, size, memory_order_relaxed);
    BUG_ON(a->own < size);
    a->own -= size;
    if (a->own == 0)
        memacct_put(a);
}
