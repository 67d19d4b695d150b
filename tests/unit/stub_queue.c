/* The queue of changes against a page by page model. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/stub/queue.h"

#define PAGES 64
#define BASE UINT64_C(0x10000)

struct model {
    int kind; /* -1: nothing asked */
    int prot, fd;
    uint64_t off;
};

/* The same numbers every time. */
static uint64_t seed = 1;

static uint64_t random_below(uint64_t bound)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (seed >> 33) % bound;
}

static struct stub_change change(enum stub_change_kind kind, uint64_t first, uint64_t end)
{
    return (struct stub_change){
        .start = BASE + first * PAGE_SIZE, .end = BASE + end * PAGE_SIZE, .kind = kind};
}

static void model_check(const struct stub_queue *q, const struct model *m)
{
    struct model seen[PAGES];
    uint64_t last = 0;

    for (int i = 0; i < PAGES; i++)
        seen[i].kind = -1;
    for (size_t i = 0; i < q->count; i++) {
        const struct stub_change *c = &q->changes[i];
        cr_assert(c->start < c->end && c->start >= last);
        last = c->end;
        for (uint64_t a = c->start; a < c->end; a += PAGE_SIZE)
            seen[(a - BASE) / PAGE_SIZE] =
                (struct model){(int)c->kind, c->prot, c->fd, c->off + (a - c->start)};
    }
    for (int i = 0; i < PAGES; i++) {
        cr_assert_eq(seen[i].kind, m[i].kind, "page %d: kind %d, wanted %d", i, seen[i].kind,
                     m[i].kind);
        if (m[i].kind >= 0 && m[i].kind != STUB_UNMAP)
            cr_assert_eq(seen[i].prot, m[i].prot);
        if (m[i].kind == STUB_MAP)
            cr_assert(seen[i].fd == m[i].fd && seen[i].off == m[i].off);
    }
}

static void model_step(struct stub_queue *q, struct model *m)
{
    uint64_t first = random_below(PAGES), end = first + 1 + random_below(PAGES - first);
    struct stub_change c = change((enum stub_change_kind)random_below(3), first, end);
    int prot = (int)random_below(4);

    c.prot = prot;
    c.fd = (int)random_below(2);
    c.off = random_below(2) * PAGES * PAGE_SIZE + first * PAGE_SIZE;
    if (c.kind == STUB_PROTECT)
        cr_assert_eq(stub_queue_protect(q, c.start, c.end, prot), 0);
    else
        cr_assert_eq(stub_queue_replace(q, &c), 0);
    for (uint64_t i = first; i < end; i++) {
        if (c.kind == STUB_PROTECT && m[i].kind == STUB_UNMAP)
            continue;
        if (c.kind == STUB_PROTECT && m[i].kind == STUB_MAP)
            m[i].prot = prot;
        else
            m[i] = (struct model){(int)c.kind, prot, c.fd, c.off + (i - first) * PAGE_SIZE};
    }
}

Test(stub_queue, any_order_of_requests_gives_the_last_state)
{
    for (int round = 0; round < 300; round++) {
        struct stub_queue q = {0};
        struct model m[PAGES];
        for (int i = 0; i < PAGES; i++)
            m[i].kind = -1;
        for (int step = 0; step < 60; step++) {
            model_step(&q, m);
            model_check(&q, m);
        }
        stub_queue_fini(&q);
    }
}

Test(stub_queue, neighbours_become_one)
{
    struct stub_queue q = {0};

    for (uint64_t i = 0; i < 100; i += 2) {
        struct stub_change c = change(STUB_MAP, i, i + 1);
        c.off = i * PAGE_SIZE;
        cr_assert_eq(stub_queue_replace(&q, &c), 0);
    }
    cr_assert_eq(q.count, 50);
    for (uint64_t i = 1; i < 100; i += 2) {
        struct stub_change c = change(STUB_MAP, i, i + 1);
        c.off = i * PAGE_SIZE;
        cr_assert_eq(stub_queue_replace(&q, &c), 0);
    }
    cr_assert_eq(q.count, 1);
    cr_assert_eq(stub_queue_protect(&q, BASE, BASE + 200 * PAGE_SIZE, 1), 0);
    cr_assert_eq(q.count, 2);
    struct stub_change gone = change(STUB_UNMAP, 0, 200);
    cr_assert_eq(stub_queue_replace(&q, &gone), 0);
    cr_assert_eq(q.count, 1);
    stub_queue_fini(&q);
}

Test(stub_queue, is_bounded)
{
    struct stub_queue q = {0};
    uint64_t i = 0;
    int r;

    do {
        struct stub_change c = change(STUB_UNMAP, 2 * i, 2 * i + 1);
        r = stub_queue_replace(&q, &c);
        i++;
    } while (r == 0);
    cr_assert_eq(r, -ENOMEM);
    cr_assert(q.count <= STUB_QUEUE_MAX && q.count > STUB_QUEUE_MAX - 8);
    stub_queue_drop(&q, q.count - 1);
    cr_assert_eq(q.count, 1);
    struct stub_change c = change(STUB_UNMAP, 0, 1);
    cr_assert_eq(stub_queue_replace(&q, &c), 0);
    stub_queue_fini(&q);
}
