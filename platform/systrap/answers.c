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

void st_answers(struct plat_ctx *base, const struct plat_answer *answers, size_t count)
{
    struct st_shared *s = st_ctx(base)->shared;

    st_drop_answers(base);
    for (size_t i = 0; i < count; i++)
        if (answers[i].nr < ST_ANSWERS_COUNT)
            atomic_store(&s->answers[answers[i].nr],
                         UINT64_C(1) << ST_ANSWER_THERE |
                             (uint64_t)answers[i].yield << ST_ANSWER_YIELD | answers[i].value);
}
