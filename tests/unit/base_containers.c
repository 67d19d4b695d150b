/* Lists, id allocation, references, checked arithmetic, hashes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/hash.h"
#include "base/idalloc.h"
#include "base/hlist.h"
#include "base/list.h"
#include "base/objcount.h"
#include "base/ref.h"
#include "base/sort.h"

struct element {
    int n;
    struct list node;
};

static int digits(struct list *head)
{
    struct element *e;
    int v = 0;

    list_for_each_entry (e, head, node) {
        v = v * 10 + e->n;
    }
    return v;
}

Test(list, add_delete_splice)
{
    struct element e[5] = {{.n = 1}, {.n = 2}, {.n = 3}, {.n = 4}, {.n = 5}};
    struct element *pos, *tmp;
    struct list a = LIST_INIT(a), b;

    list_init(&b);
    cr_assert(list_empty(&a));
    list_add_tail(&e[1].node, &a);
    list_add(&e[0].node, &a);
    list_add_tail(&e[2].node, &a);
    cr_assert_eq(digits(&a), 123);
    list_add_tail(&e[3].node, &b);
    list_add_tail(&e[4].node, &b);
    list_splice_tail(&b, &a);
    cr_assert_eq(digits(&a), 12345);
    cr_assert(list_empty(&b));
    list_move(&e[4].node, &a);
    cr_assert_eq(digits(&a), 51234);
    list_for_each_entry_safe (pos, tmp, &a, node) {
        if (pos->n % 2 == 0)
            list_del(&pos->node);
    }
    cr_assert_eq(digits(&a), 513);
    list_del(&e[1].node);
    cr_assert(list_empty(&e[1].node), "a second delete does nothing");
    cr_assert_eq(list_first_entry(&a, struct element, node)->n, 5);
    cr_assert_eq(list_last_entry(&a, struct element, node)->n, 3);
}

struct chained {
    int n;
    struct hlist_node node;
};

Test(hlist, add_delete)
{
    struct chained e[3] = {{.n = 1}, {.n = 2}, {.n = 3}}, *pos;
    struct hlist chain = {0};
    int v = 0;

    for (int i = 0; i < 3; i++) {
        cr_assert(!hlist_is_on(&e[i].node));
        hlist_add(&e[i].node, &chain);
    }
    hlist_for_each_entry(pos, &chain, node) v = v * 10 + pos->n;
    cr_assert_eq(v, 321);
    hlist_del(&e[1].node);
    hlist_del(&e[1].node);
    cr_assert(!hlist_is_on(&e[1].node) && hlist_is_on(&e[0].node));
    hlist_del(&e[2].node);
    hlist_add(&e[1].node, &chain);
    v = 0;
    hlist_for_each_entry(pos, &chain, node) v = v * 10 + pos->n;
    cr_assert_eq(v, 21);
    hlist_del(&e[0].node);
    hlist_del(&e[1].node);
    cr_assert_null(chain.first);
}

Test(idalloc, lowest_free_and_range)
{
    struct idalloc a;
    uint32_t id;

    idalloc_init(&a, 10, 200);
    for (uint32_t want = 10; want <= 200; want++) {
        cr_assert_eq(idalloc_lowest(&a, 0, &id), 0);
        cr_assert_eq(id, want);
    }
    cr_assert_eq(idalloc_lowest(&a, 0, &id), -ENOSPC);
    cr_assert_eq(a.used, 191);
    idalloc_free(&a, 77);
    idalloc_free(&a, 150);
    cr_assert_eq(idalloc_lowest(&a, 100, &id), 0);
    cr_assert_eq(id, 150);
    cr_assert_eq(idalloc_take(&a, 77), 0);
    cr_assert_eq(idalloc_take(&a, 77), -EEXIST);
    cr_assert_eq(idalloc_take(&a, 9), -EINVAL);
    cr_assert_eq(idalloc_take(&a, 201), -EINVAL);
    cr_assert_eq(idalloc_lowest(&a, 201, &id), -ENOSPC);
    idalloc_fini(&a);
}

Test(idalloc, next_reuses_late)
{
    struct idalloc a;
    uint32_t id;

    idalloc_init(&a, 1, 4);
    for (uint32_t want = 1; want <= 3; want++) {
        cr_assert_eq(idalloc_next(&a, &id), 0);
        cr_assert_eq(id, want);
    }
    idalloc_free(&a, 1);
    cr_assert_eq(idalloc_next(&a, &id), 0);
    cr_assert_eq(id, 4, "4 was never used, 1 just was");
    cr_assert_eq(idalloc_next(&a, &id), 0);
    cr_assert_eq(id, 1);
    cr_assert_eq(idalloc_next(&a, &id), -ENOSPC);
    idalloc_fini(&a);
}

Test(idalloc, random_against_flags)
{
    static bool used[1000];
    struct idalloc a;
    unsigned seed = 7;

    idalloc_init(&a, 0, 999);
    for (int step = 0; step < 20000; step++) {
        uint32_t id = (uint32_t)rand_r(&seed) % 1000, low = 0;

        if (used[id]) {
            idalloc_free(&a, id);
            used[id] = false;
            continue;
        }
        while (low < 1000 && used[low])
            low++;
        cr_assert_eq(idalloc_lowest(&a, 0, &id), 0);
        cr_assert_eq(id, low);
        used[id] = true;
    }
    idalloc_fini(&a);
}

Test(idalloc, double_free_aborts, .signal = SIGABRT)
{
    struct idalloc a;

    idalloc_init(&a, 0, 9);
    idalloc_free(&a, 3);
}

Test(ref, counts_to_the_last)
{
    struct ref r;

    ref_init(&r);
    ref_get(&r);
    cr_assert(ref_tryget(&r));
    cr_assert(!ref_put(&r));
    cr_assert(!ref_put(&r));
    cr_assert(ref_put(&r));
    cr_assert(!ref_tryget(&r), "on its way out");
}

Test(ref, saturates)
{
    struct ref r;

    atomic_store(&r.count, REF_LIMIT);
    ref_get(&r);
    cr_assert_eq(ref_read(&r), REF_PINNED);
    for (int i = 0; i < 100; i++)
        cr_assert(!ref_put(&r), "a pinned object is never freed");
    cr_assert(ref_tryget(&r));
    cr_assert_eq(ref_read(&r), REF_PINNED);
}

Test(ref, underflow_aborts, .signal = SIGABRT)
{
    struct ref r;

    ref_init(&r);
    cr_assert(ref_put(&r));
    cr_assert(ref_put(&r));
}

Test(ckd, edges)
{
    uint64_t v;
    uint32_t narrow;

    cr_assert(!ckd_add(&v, UINT64_MAX - 1, 1u));
    cr_assert(ckd_add(&v, UINT64_MAX, 1u));
    cr_assert(ckd_mul(&v, UINT64_C(1) << 32, UINT64_C(1) << 32));
    cr_assert(ckd_add(&narrow, UINT64_C(0xffffffff), 1u));
    cr_assert(ckd_sub(&narrow, 1, 2));
    cr_assert(range_ok(10, 0, 10));
    cr_assert(!range_ok(11, 0, 10));
    cr_assert(!range_ok(1, UINT64_MAX, 10));
    cr_assert(range_overlap(0, 10, 9, 1));
    cr_assert(!range_overlap(0, 10, 10, 1));
    cr_assert(!range_overlap(5, 0, 0, 10));
    cr_assert(range_overlap(UINT64_MAX - 1, 1, 0, UINT64_MAX));
    cr_assert(!ckd_align_up(&v, 4097, 4096));
    cr_assert_eq(v, 8192);
    cr_assert(ckd_align_up(&v, UINT64_MAX - 5, 4096));
}

Test(hash, siphash13_is_keyed_and_length_aware)
{
    struct hash_key k1 = {1, 2}, k2 = {1, 3};
    char zeros[32] = {0};

    cr_assert_neq(hash_bytes(&k1, "abc", 3), hash_bytes(&k2, "abc", 3));
    for (size_t i = 0; i < sizeof(zeros); i++)
        cr_assert_neq(hash_bytes(&k1, zeros, i), hash_bytes(&k1, zeros, i + 1));
    cr_assert_eq(hash_seeded_u64(5, 6), hash_seeded_u64(5, 6));
    cr_assert_neq(hash_seeded_u64(5, 6), hash_seeded_u64(6, 5));
}

OBJCOUNT_DEFINE(test_thing);

Test(objcount, counts_in_debug_builds)
{
#ifdef RINGWALL_DEBUG
    OBJCOUNT_INC(test_thing);
    OBJCOUNT_INC(test_thing);
    OBJCOUNT_DEC(test_thing);
    cr_assert_eq(objcount_live("test_thing"), 1);
    cr_assert_eq(objcount_report(), 1);
    OBJCOUNT_DEC(test_thing);
#endif
    cr_assert_eq(objcount_report(), 0);
    cr_assert_eq(objcount_live("no_such_thing"), -1);
}

/* ---- sorting ---- */

static int int_compare(const void *a, const void *b)
{
    const int x = *(const int *)a, y = *(const int *)b;

    return (x > y) - (x < y);
}

Test(sort, any_order_and_size)
{
    int v[300];

    for (size_t n = 0; n < ARRAY_SIZE(v); n++) {
        long sum = 0, sorted_sum = 0;
        for (size_t i = 0; i < n; i++) {
            /* Backwards, forwards, and many equal ones in no order. */
            v[i] = n % 3 == 0 ? -(int)i : n % 3 == 1 ? (int)i : (int)(i * 7919 % 31);
            sum += v[i] * (v[i] + 3L);
        }
        sort_items(v, n, sizeof(v[0]), int_compare);
        for (size_t i = 0; i < n; i++) {
            cr_assert(i == 0 || v[i - 1] <= v[i]);
            sorted_sum += v[i] * (v[i] + 3L);
        }
        cr_assert_eq(sum, sorted_sum);
    }
}
