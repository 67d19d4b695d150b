/* Answers that guest code at patched sites takes from its area, without a turn. */
#include "platform/systrap/systrap_priv.h"

/* What others know of c's area may be old: then somebody else's guest code goes the long way. */
void st_drop_answers(struct plat_ctx *base)
{
    struct st_shared *s = atomic_load(&st_ctx(base)->area);

    for (size_t i = 0; i < ST_ANSWERS_COUNT; i++)
        if (atomic_load_explicit(&s->answers[i], memory_order_relaxed) != 0)
            atomic_store_explicit(&s->answers[i], 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

static uint64_t answer_word(const struct plat_answer *a)
{
    const uint64_t there = UINT64_C(1) << ST_ANSWER_THERE;

    switch (a->kind) {
    case PLAT_ANSWER_VALUE:
        return there | (uint64_t)(a->value < 0) << ST_ANSWER_ERRNO | (uint32_t)a->value;
    case PLAT_ANSWER_YIELD:
        return there | UINT64_C(1) << ST_ANSWER_YIELD;
    case PLAT_ANSWER_SIGMASK:
        return UINT64_C(1) << ST_ANSWER_SIGMASK;
    case PLAT_ANSWER_ROBUST:
        return UINT64_C(1) << ST_ANSWER_ROBUST;
    }
    return 0;
}

void st_answers(struct plat_ctx *base, const struct plat_answer *answers, size_t count)
{
    struct st_shared *s = st_ctx(base)->shared;

    st_drop_answers(base);
    for (size_t i = 0; i < count; i++)
        if (answers[i].nr < ST_ANSWERS_COUNT)
            atomic_store(&s->answers[answers[i].nr], answer_word(&answers[i]));
}

struct plat_own *st_own(struct plat_ctx *base)
{
    return &st_ctx(base)->shared->own;
}

void st_own_begin(struct st_ctx *c)
{
    struct plat_own *own = &c->shared->own;

    atomic_store(&own->sigmask_open, 0);
    atomic_store(&own->sigmask, 0);
    atomic_store(&own->robust_set, 0);
}
