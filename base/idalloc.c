#include "base/idalloc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IDALLOC_BITS 64u

void idalloc_init(struct idalloc *a, uint32_t min, uint32_t max)
{
    BUG_ON(min > max || max == UINT32_MAX);
    *a = (struct idalloc){.min = min, .max = max, .next = min};
}

void idalloc_fini(struct idalloc *a)
{
    free(a->words);
    *a = (struct idalloc){.min = a->min, .max = a->max, .next = a->min};
}

bool idalloc_used(const struct idalloc *a, uint32_t id)
{
    size_t word;

    if (id < a->min || id > a->max)
        return false;
    word = (id - a->min) / IDALLOC_BITS;
    return word < a->word_count && (a->words[word] >> ((id - a->min) % IDALLOC_BITS) & 1);
}

static int idalloc_grow(struct idalloc *a, size_t word)
{
    size_t most = (size_t)(a->max - a->min) / IDALLOC_BITS + 1;
    size_t count = a->word_count * 2;
    uint64_t *words;

    count = MIN(MAX(count, word + 1), most);
    words = realloc(a->words, count * sizeof(*words));
    if (words == NULL)
        return -ENOMEM;
    memset(words + a->word_count, 0, (count - a->word_count) * sizeof(*words));
    a->words = words;
    a->word_count = count;
    return 0;
}

static MUST_CHECK int idalloc_mark(struct idalloc *a, uint32_t bit)
{
    size_t word = bit / IDALLOC_BITS;
    int err;

    if (word >= a->word_count) {
        err = idalloc_grow(a, word);
        if (err != 0)
            return err;
    }
    a->words[word] |= UINT64_C(1) << (bit % IDALLOC_BITS);
    a->used++;
    return 0;
}

/* First free bit >= from; may lie beyond the bitmap or the range. */
static uint64_t idalloc_scan(const struct idalloc *a, uint64_t from)
{
    size_t word = (size_t)(from / IDALLOC_BITS);
    uint64_t busy;

    if (word >= a->word_count)
        return from;
    /* Bits below from count as busy in the first word. */
    busy = a->words[word] | ((UINT64_C(1) << (from % IDALLOC_BITS)) - 1);
    while (busy == UINT64_MAX) {
        if (++word >= a->word_count)
            return (uint64_t)word * IDALLOC_BITS;
        busy = a->words[word];
    }
    return (uint64_t)word * IDALLOC_BITS + (uint64_t)__builtin_ctzll(~busy);
}

int idalloc_lowest(struct idalloc *a, uint32_t from, uint32_t *out_id)
{
    uint64_t bit;
    int err;

    if (from > a->max)
        return -ENOSPC;
    bit = idalloc_scan(a, from <= a->min ? 0 : from - a->min);
    if (bit > a->max - a->min)
        return -ENOSPC;
    err = idalloc_mark(a, (uint32_t)bit);
    if (err != 0)
        return err;
    *out_id = a->min + (uint32_t)bit;
    return 0;
}

int idalloc_next(struct idalloc *a, uint32_t *out_id)
{
    int err = idalloc_lowest(a, a->next, out_id);

    if (err == -ENOSPC)
        err = idalloc_lowest(a, a->min, out_id);
    if (err == 0)
        a->next = *out_id == a->max ? a->min : *out_id + 1;
    return err;
}

int idalloc_take(struct idalloc *a, uint32_t id)
{
    if (id < a->min || id > a->max)
        return -EINVAL;
    if (idalloc_used(a, id))
        return -EEXIST;
    return idalloc_mark(a, id - a->min);
}

void idalloc_free(struct idalloc *a, uint32_t id)
{
    BUG_ON(!idalloc_used(a, id));
    a->words[(id - a->min) / IDALLOC_BITS] &= ~(UINT64_C(1) << ((id - a->min) % IDALLOC_BITS));
    a->used--;
}
