/* The memory file against a plain array of counts. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/mem/memfile.h"

#define P PAGE_SIZE
#define PAGES 512u
#define STEPS 30000

static struct memfile *mf;
static unsigned counts[PAGES];
static uint32_t seed;

static uint32_t rnd(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed % n;
}

static void check_zero(uint64_t off, uint64_t size)
{
    const unsigned char *p = memfile_ptr(mf, off);
    for (uint64_t i = 0; i < size; i += 509)
        cr_assert_eq(p[i], 0, "old bytes at page %d", (int)((off + i) / P));
    memset(memfile_ptr(mf, off), 0xa5, size);
}

static void do_alloc(bool at)
{
    uint64_t size = (1 + rnd(24)) * P, off = rnd(PAGES) * P;
    unsigned flags = rnd(3) ? 0 : MEMFILE_RAW | (rnd(2) ? MEMFILE_UP : 0);
    bool free_there = off + size <= PAGES * P;
    for (uint64_t i = off / P; free_there && i < (off + size) / P; i++)
        free_there = counts[i] == 0;
    int err = at ? memfile_alloc_at(mf, NULL, off, size, flags, NULL)
                 : memfile_alloc_flags(mf, NULL, size, flags, &off, NULL);
    /* It may also refuse a range that is partly clean and partly not. */
    cr_assert(err == 0 || err == -ENOMEM);
    cr_assert(!at || err || free_there);
    if (err)
        return;
    for (uint64_t i = off / P; i < (off + size) / P; i++) {
        cr_assert_eq(counts[i], 0u);
        counts[i] = 1;
    }
    if (!(flags & MEMFILE_RAW))
        check_zero(off, size);
}

/* A range whose pages are all owned, or 0. */
static uint64_t owned_range(uint64_t *out_off)
{
    unsigned i = rnd(PAGES), n = 0, want = 1 + rnd(24);
    while (n < want && i + n < PAGES && counts[i + n] > 0)
        n++;
    *out_off = i * P;
    return n * P;
}

static void do_count(int by)
{
    uint64_t off, size = owned_range(&off);
    if (size == 0)
        return;
    if (by > 0)
        cr_assert_eq(memfile_ref(mf, off, size), 0);
    else
        memfile_unref(mf, off, size);
    for (uint64_t i = off / P; i < (off + size) / P; i++)
        counts[i] = by > 0 ? counts[i] + 1 : counts[i] - 1;
}

static void do_sole(void)
{
    uint64_t off, size = owned_range(&off), n = 0;
    if (size == 0)
        return;
    while (n < size && counts[(off + n) / P] == 1)
        n += P;
    cr_assert_eq(memfile_sole_owner(mf, off, size), n);
}

Test(mem_file, random_operations, .timeout = 300)
{
    cr_assert_eq(memfile_new(PAGES * P, &mf), 0);
    seed = 12345;
    for (int i = 0; i < STEPS; i++) {
        switch (rnd(8)) {
        case 0:
            do_alloc(false);
            break;
        case 1:
            do_alloc(true);
            break;
        case 2:
        case 3:
            do_count(1);
            break;
        case 4:
            do_sole();
            break;
        default:
            do_count(-1);
            break;
        }
        if (i % 5000 == 0)
            memfile_trim(mf);
    }
    uint64_t used = 0;
    for (unsigned i = 0; i < PAGES; i++)
        used += counts[i] > 0 ? P : 0;
    cr_assert_eq(memfile_reserved(mf), used);
    for (unsigned i = 0; i < PAGES; i++)
        for (; counts[i] > 0; counts[i]--)
            memfile_unref(mf, i * P, P);
    cr_assert_eq(memfile_reserved(mf), 0u);
    memfile_trim(mf);
    cr_assert_eq(memfile_resident(mf), 0u);
    uint64_t off;
    cr_assert_eq(memfile_alloc(mf, NULL, PAGES * P, &off), 0, "all of it is one piece again");
    cr_assert_eq(memfile_alloc(mf, NULL, P, &off), -ENOMEM);
    memfile_free(mf);
}

Test(mem_file, limit)
{
    uint64_t off;
    cr_assert_eq(memfile_new(1u << 30, &mf), 0);
    memfile_set_limit(mf, 4u << 20);
    cr_assert(memfile_limited(mf));
    cr_assert_eq(memfile_budget(mf), 4u << 20);
    cr_assert_eq(memfile_alloc(mf, NULL, 64u << 20, &off), -ENOMEM, "all of it can be touched");
    int count = 0;
    while (memfile_alloc(mf, NULL, 1u << 20, &off) == 0)
        count++;
    cr_assert(count == 3 || count == 4);
    cr_assert_lt(memfile_piece(mf, 2u << 20), 1u << 20);
    memfile_unref(mf, off, 1u << 20);
    cr_assert_eq(memfile_alloc(mf, NULL, 1u << 20, &off), 0);
    memfile_free(mf);
}

/* An object counts by what somebody can touch. */
Test(mem_file, limit_of_objects)
{
    const uint64_t mib = 1u << 20, all = 64 * mib;
    uint64_t off, hole, size;

    cr_assert_eq(memfile_new(1u << 30, &mf), 0);
    memfile_set_limit(mf, 4 * mib);
    cr_assert_eq(memfile_alloc_flags(mf, NULL, all, MEMFILE_LAZY, &off, NULL), 0);
    cr_assert(memfile_is_lazy(mf, off));
    cr_assert_eq(memfile_hide(mf), 0u);
    cr_assert_eq(memfile_show(mf, off, all), -ENOMEM);
    cr_assert_eq(memfile_show(mf, off + P, 3 * mib), 0);
    cr_assert_eq(memfile_show(mf, off, 3 * mib), 0, "most of it is shown already");
    cr_assert_eq(memfile_show(mf, off + 8 * mib, mib), -ENOMEM);
    memset(memfile_ptr(mf, off + mib), 1, mib);
    cr_assert(memfile_hole(mf, off, 3 * mib, &hole, &size));
    cr_assert(hole == off && size == mib);
    cr_assert(memfile_hole(mf, off + mib, 2 * mib, &hole, &size));
    cr_assert(hole == off + 2 * mib && size == mib);
    cr_assert_not(memfile_hole(mf, off + mib, mib, &hole, &size));
    cr_assert_eq(memfile_ref(mf, off + 2 * mib, 2 * mib), 0);
    cr_assert_eq(memfile_hide(mf), mib, "who maps it can touch it");
    cr_assert_eq(memfile_show(mf, off + 8 * mib, mib), 0);
    memfile_unref(mf, off + 2 * mib, 2 * mib);
    cr_assert_eq(memfile_hide(mf), 2 * mib + P);
    cr_assert_eq(memfile_show(mf, off + 2 * mib, 2 * mib), 0);
    memfile_unref(mf, off, all);
    cr_assert_eq(memfile_alloc(mf, NULL, 3 * mib, &off), 0);
    memfile_unref(mf, off, 3 * mib);
    memfile_free(mf);
}

static void *churn(void *arg)
{
    unsigned char mark = *(unsigned char *)arg;
    for (int i = 0; i < 3000; i++) {
        uint64_t off, size = (1 + (uint64_t)i % 40) * P;
        cr_assert_eq(memfile_alloc(mf, NULL, size, &off), 0);
        unsigned char *p = memfile_ptr(mf, off);
        cr_assert(p[0] == 0 && p[size - 1] == 0);
        p[0] = p[size - 1] = mark;
        cr_assert_eq(memfile_ref(mf, off + size / 2 / P * P, P), 0);
        memfile_unref(mf, off, size);
        cr_assert(size > P || p[0] == mark);
        memfile_unref(mf, off + size / 2 / P * P, P);
    }
    return NULL;
}

/* What is known to be there is not looked for again; what was given back is. */
Test(mem_file, resident)
{
    const uint64_t size = 16u << 20, mib = 1u << 20;
    uint64_t off;

    cr_assert_eq(memfile_new(1u << 30, &mf), 0);
    cr_assert_eq(memfile_alloc(mf, NULL, size, &off), 0);
    cr_assert_eq(memfile_resident_range(mf, off, size), 0u);
    memset((char *)memfile_ptr(mf, off) + 2 * mib, 1, 6 * mib);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(memfile_resident_range(mf, off, size), 6 * mib);
        cr_assert_eq(memfile_resident_range(mf, off + 3 * mib, mib), mib);
        cr_assert_eq(memfile_resident_range(mf, off + 7 * mib, 4 * mib), mib);
    }
    cr_assert_eq(memfile_ref(mf, off + 4 * mib, 2 * mib), 0);
    cr_assert_eq(memfile_resident_range(mf, off, size), 6 * mib);
    memfile_zero(mf, off + 4 * mib, P);
    cr_assert_eq(memfile_resident_range(mf, off, size), 6 * mib - P);
    memfile_unref(mf, off + 4 * mib, 2 * mib);
    memfile_zero(mf, off, size);
    cr_assert_eq(memfile_resident_range(mf, off, size), 0u);
    memfile_unref(mf, off, size);
    cr_assert_eq(memfile_alloc(mf, NULL, size, &off), 0);
    cr_assert_eq(memfile_resident_range(mf, off, size), 0u);
    memfile_unref(mf, off, size);
    memfile_free(mf);
}

Test(mem_file, threads, .timeout = 300)
{
    static unsigned char marks[] = {1, 2, 3, 4};
    pthread_t t[4];
    cr_assert_eq(memfile_new(UINT64_C(1) << 32, &mf), 0);
    for (size_t i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, churn, &marks[i]), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    cr_assert_eq(memfile_reserved(mf), 0u);
    memfile_free(mf);
}
