/* Ranges in order: cut at the ends of a request, replaced inside, merged with their neighbours. */
#include "platform/stub/queue.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void stub_queue_fini(struct stub_queue *q)
{
    free(q->changes);
    *q = (struct stub_queue){0};
}

int stub_queue_add(struct stub_queue *q, const struct stub_change *c)
{
    return c->kind == STUB_PROTECT ? stub_queue_protect(q, c->start, c->end, c->prot)
                                   : stub_queue_replace(q, c);
}

void stub_queue_drop(struct stub_queue *q, size_t count)
{
    q->count -= count;
    memmove(q->changes, q->changes + count, q->count * sizeof(*q->changes));
}

static int queue_reserve(struct stub_queue *q, size_t more)
{
    size_t need = q->count + more;

    if (need > STUB_QUEUE_MAX)
        return -ENOMEM;
    if (need <= q->capacity)
        return 0;
    size_t capacity = MAX(2 * q->capacity, (size_t)16);
    capacity = MAX(capacity, need);
    struct stub_change *changes = reallocarray(q->changes, capacity, sizeof(*changes));
    if (changes == NULL)
        return -ENOMEM;
    q->changes = changes;
    q->capacity = capacity;
    return 0;
}

/* First change that ends behind addr. */
static size_t queue_find(const struct stub_queue *q, uint64_t addr)
{
    size_t low = 0, high = q->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (q->changes[mid].end <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Room was reserved. */
static void queue_insert(struct stub_queue *q, size_t at, const struct stub_change *c)
{
    memmove(q->changes + at + 1, q->changes + at, (q->count - at) * sizeof(*c));
    q->changes[at] = *c;
    q->count++;
}

static void queue_remove(struct stub_queue *q, size_t at, size_t count)
{
    memmove(q->changes + at, q->changes + at + count,
            (q->count - at - count) * sizeof(*q->changes));
    q->count -= count;
}

static void change_cut_front(struct stub_change *c, uint64_t start)
{
    c->off += start - c->start;
    c->start = start;
}

/* No change crosses addr afterwards. Room for one more was reserved. The index behind addr. */
static size_t queue_split(struct stub_queue *q, uint64_t addr)
{
    size_t at = queue_find(q, addr);

    if (at == q->count || q->changes[at].start >= addr)
        return at;
    struct stub_change front = q->changes[at];
    front.end = addr;
    change_cut_front(&q->changes[at], addr);
    queue_insert(q, at, &front);
    return at + 1;
}

static bool change_continues(const struct stub_change *a, const struct stub_change *b)
{
    if (a->end != b->start || a->kind != b->kind || a->prot != b->prot)
        return false;
    return a->kind != STUB_MAP ||
           (a->fd == b->fd && a->flags == b->flags && a->off + (a->end - a->start) == b->off);
}

/* Merges what touches in [from, to], one more on either side. */
static void queue_merge(struct stub_queue *q, size_t from, size_t to)
{
    size_t at = from > 0 ? from - 1 : 0;
    size_t left = to - at + 1;

    while (left-- > 0 && at + 1 < q->count) {
        if (change_continues(&q->changes[at], &q->changes[at + 1])) {
            q->changes[at].end = q->changes[at + 1].end;
            queue_remove(q, at + 1, 1);
        } else {
            at++;
        }
    }
}

int stub_queue_replace(struct stub_queue *q, const struct stub_change *c)
{
    int r = queue_reserve(q, 3);

    if (r != 0)
        return r;
    size_t from = queue_split(q, c->start);
    size_t to = queue_split(q, c->end);
    queue_remove(q, from, to - from);
    queue_insert(q, from, c);
    queue_merge(q, from, from);
    return 0;
}

int stub_queue_protect(struct stub_queue *q, uint64_t start, uint64_t end, int prot)
{
    size_t inside = 0;

    for (size_t i = queue_find(q, start); i < q->count && q->changes[i].start < end; i++)
        inside++;
    int r = queue_reserve(q, inside + 3);
    if (r != 0)
        return r;
    size_t from = queue_split(q, start), at = from;
    (void)queue_split(q, end);
    for (uint64_t addr = start; addr < end; at++) {
        if (at == q->count || q->changes[at].start > addr) {
            uint64_t next = at < q->count ? MIN(q->changes[at].start, end) : end;
            const struct stub_change c = {
                .start = addr, .end = next, .kind = STUB_PROTECT, .prot = prot};
            queue_insert(q, at, &c);
        } else if (q->changes[at].kind != STUB_UNMAP) {
            q->changes[at].prot = prot;
        }
        addr = q->changes[at].end;
    }
    queue_merge(q, from, at > from ? at - 1 : from);
    return 0;
}
