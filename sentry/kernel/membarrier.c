/* membarrier(2): a thread that leaves guest code passes a full barrier, so those that are in it are
 * made to leave once. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/rseq_cpu.h"
#include "sentry/kernel/task_priv.h"

struct barrier_wait {
    struct task *t; /* owned */
    uint32_t seq;   /* odd */
};

struct barrier {
    struct task *self;
    enum task_barrier kind;
    int cpu; /* TASK_BARRIER_RSEQ: negative, or the number that is meant */
    struct barrier_wait *waits;
    size_t count, size;
};

/* Before guest code goes on it finds that it was disturbed. False: it is not meant. */
static bool barrier_disturb(const struct barrier *b, struct task *o)
{
    if (b->kind != TASK_BARRIER_RSEQ)
        return true;
    const int nr = rseq_cpu_number(o);
    if (b->cpu >= 0 && nr >= 0 && nr != b->cpu)
        return false;
    rseq_event(o);
    return true;
}

static void barrier_group_locked(struct barrier *b, struct thread_group *tg)
{
    struct sighand *sh = tg_lock_sig(tg);
    struct task_priv *p;

    list_for_each_entry (p, &tg->threads, thread_node) {
        if (p->t == b->self || p->dead || !p->t->ctx || b->count == b->size ||
            !barrier_disturb(b, p->t))
            continue;
        const uint32_t seq = atomic_fetch_or_explicit(&p->guest_seq, 0, memory_order_acq_rel);
        if (!(seq & 1))
            continue;
        b->waits[b->count++] = (struct barrier_wait){task_get(p->t), seq};
        plat_ctx_interrupt(p->t->ctx);
    }
    sighand_unlock(sh);
}

int task_membarrier(struct task *t, enum task_barrier kind, int cpu)
{
    struct kernel *k = t->k;
    struct barrier b = {.self = t, .kind = kind, .cpu = cpu, .size = atomic_load(&k->task_count)};
    struct thread_group *tg;

    /* Tasks that come later start with a barrier of their own. */
    b.waits = calloc(b.size, sizeof(*b.waits));
    if (!b.waits)
        return -ENOMEM;
    mutex_lock(&k->mu);
    if (kind == TASK_BARRIER_ALL)
        list_for_each_entry (tg, &k->groups, node)
            barrier_group_locked(&b, tg);
    else
        barrier_group_locked(&b, t->tg);
    mutex_unlock(&k->mu);
    for (size_t i = 0; i < b.count; i++) {
        struct task *o = b.waits[i].t;
        while (atomic_load_explicit(&task_priv(o)->guest_seq, memory_order_acquire) ==
               b.waits[i].seq)
            (void)sched_yield();
        task_put(o);
    }
    free(b.waits);
    return 0;
}
