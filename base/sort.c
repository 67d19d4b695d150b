#include "base/sort.h"

#include <stdint.h>
#include <string.h>

#include "base/compiler.h"

#define SORT_ITEM_MAX 16u

struct sort {
    uint8_t *items;
    size_t size;
    sort_compare_fn *compare;
};

static uint8_t *sort_at(const struct sort *s, size_t i)
{
    return s->items + i * s->size;
}

static void sort_swap(const struct sort *s, size_t a, size_t b)
{
    uint8_t kept[SORT_ITEM_MAX];

    memcpy(kept, sort_at(s, a), s->size);
    memcpy(sort_at(s, a), sort_at(s, b), s->size);
    memcpy(sort_at(s, b), kept, s->size);
}

/* The item at i goes below those of the first count that are larger: a heap again. */
static void sort_sink(const struct sort *s, size_t i, size_t count)
{
    for (size_t below; (below = 2 * i + 1) < count; i = below) {
        if (below + 1 < count && s->compare(sort_at(s, below), sort_at(s, below + 1)) < 0)
            below++;
        if (s->compare(sort_at(s, i), sort_at(s, below)) >= 0)
            return;
        sort_swap(s, i, below);
    }
}

void sort_items(void *items, size_t count, size_t size, sort_compare_fn *compare)
{
    const struct sort s = {.items = items, .size = size, .compare = compare};

    BUG_ON(size > SORT_ITEM_MAX);
    for (size_t i = count / 2; i-- > 0;)
        sort_sink(&s, i, count);
    for (size_t end = count; end-- > 1;) {
        sort_swap(&s, 0, end);
        sort_sink(&s, 0, end);
    }
}
