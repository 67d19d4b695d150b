/* System V semaphores (ipc/sem.c): operations that are done all at once or waited for in order. */
#include "sentry/ipc/sem.h"

#include <errno.h>
#include <linux/sem.h>
#include <stdlib.h>

#include "sentry/ipc/sem_priv.h"

OBJCOUNT_DEFINE(sem_set);

/* ---- life ---- */

static uint64_t set_size(uint64_t count)
{
    return sizeof(struct sem_set) + count * sizeof(struct sem);
}

static int sem_make(struct ipc_ns *ns, const struct ipc_caller *c, const struct ipc_get *g,
                    struct ipc_object **out)
{
    struct sem_set *s;

    if (g->size == 0)
        return -EINVAL;
    if (!ipc_count_add(&ns->sem_count, g->size, ipc_limit_get(ns, IPC_SEMMNS)))
        return -ENOSPC;
    int r = ipc_charge(ns, set_size(g->size));
    if (r)
        goto out_count;
    s = calloc(1, set_size(g->size));
    if (!s) {
        r = -ENOMEM;
        goto out_charge;
    }
    ipc_object_init(&s->o, ns, IPC_KIND_SEM, c, g);
    s->count = (uint32_t)g->size;
    s->ctime = ipc_now();
    list_init(&s->sleepers);
    list_init(&s->undos);
    OBJCOUNT_INC(sem_set);
    *out = &s->o;
    return 0;
out_charge:
    ipc_uncharge(ns, set_size(g->size));
out_count:
    atomic_fetch_sub(&ns->sem_count, g->size);
    return r;
}

void ipc_sem_free(struct ipc_object *o)
{
    struct sem_set *s = sem_set_of(o);

    BUG_ON(!list_empty(&s->sleepers) || !list_empty(&s->undos));
    ipc_uncharge(o->ns, set_size(s->count));
    atomic_fetch_sub(&o->ns->sem_count, s->count);
    ipc_object_fini(o);
    OBJCOUNT_DEC(sem_set);
    free(s);
}

static int sem_fits(struct ipc_object *o, const struct ipc_get *g)
{
    return sem_set_of(o)->count < g->size ? -EINVAL : 0;
}

int ipc_semget(struct ipc_ns *ns, const struct ipc_caller *c, int32_t key, int count, int flags)
{
    const struct ipc_get g = {
        .key = key,
        .flags = flags,
        .size = (uint64_t)count,
        .make = sem_make,
        .fits = sem_fits,
        .max = ipc_limit_get(ns, IPC_SEMMNI),
    };

    if (count < 0 || (uint64_t)count > ipc_limit_get(ns, IPC_SEMMSL))
        return -EINVAL;
    return ipc_get(ns, c, IPC_KIND_SEM, &g);
}

static void sleeper_end_locked(struct sem_sleeper *w, int result)
{
    list_del(&w->node);
    w->result = result;
    /* The sleeper takes the set's lock before it leaves. */
    blocker_wake(w->blocker);
}

void ipc_sem_remove(struct ipc_object *o)
{
    struct sem_set *s = sem_set_of(o);

    if (!ipc_remove(o))
        return;
    mutex_lock(&o->mu);
    atomic_store(&o->gone, true);
    while (!list_empty(&s->sleepers))
        sleeper_end_locked(list_first_entry(&s->sleepers, struct sem_sleeper, node), -EIDRM);
    mutex_unlock(&o->mu);
    ipc_object_put(o);
}

/* ---- operations ---- */

/* One of them; -EAGAIN when it has to wait. */
static int sem_step(struct sem_set *s, const struct ipc_sem_op *op, struct sem_undo *undo)
{
    struct sem *sem = &s->sems[op->num];
    const int32_t want = sem->value + op->op;

    if ((op->op == 0 && sem->value != 0) || want < 0)
        return -EAGAIN;
    if (want > IPC_SEM_MAX)
        return -ERANGE;
    if (op->flags & SEM_UNDO) {
        const int32_t adjust = undo->adjust[op->num] - op->op;
        if (adjust < -IPC_SEM_MAX - 1 || adjust > IPC_SEM_MAX)
            return -ERANGE;
        undo->adjust[op->num] = (int16_t)adjust;
    }
    sem->value = want;
    return 0;
}

static void sem_step_back(struct sem_set *s, const struct ipc_sem_op *op, struct sem_undo *undo)
{
    s->sems[op->num].value -= op->op;
    if (op->flags & SEM_UNDO)
        undo->adjust[op->num] = (int16_t)(undo->adjust[op->num] + op->op);
}

int sem_try_locked(struct sem_set *s, struct sem_sleeper *w)
{
    int r = 0;
    unsigned i = 0;

    for (; i < w->count; i++) {
        r = sem_step(s, &w->ops[i], w->undo);
        if (r)
            break;
    }
    if (r == 0) {
        for (unsigned j = 0; j < w->count; j++)
            s->sems[w->ops[j].num].pid = w->pid;
        return 0;
    }
    w->blocking = i;
    if (r == -EAGAIN && !(w->ops[i].flags & IPC_NOWAIT))
        r = 1;
    while (i-- > 0)
        sem_step_back(s, &w->ops[i], w->undo);
    return r;
}

static bool sem_alters(const struct sem_sleeper *w)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->ops[i].op != 0)
            return true;
    return false;
}

/* Whether the op that w waits for could be done: most sleepers need no second look. */
static bool sem_may_go(const struct sem_set *s, const struct sem_sleeper *w)
{
    const struct ipc_sem_op *op = &w->ops[w->blocking];
    const int32_t value = s->sems[op->num].value;

    return w->blocking > 0 || (op->op == 0 ? value == 0 : value + op->op >= 0);
}

void sem_update_locked(struct sem_set *s)
{
    struct sem_sleeper *w, *next;
    bool again;

    /* Each further turn has ended a sleeper. */
    do {
        again = false;
        list_for_each_entry_safe (w, next, &s->sleepers, node) {
            if (!sem_may_go(s, w))
                continue;
            const int r = sem_try_locked(s, w);
            if (r == 1)
                continue;
            const bool altered = r == 0 && sem_alters(w);
            sleeper_end_locked(w, r);
            s->otime = ipc_now();
            if (altered) {
                again = true;
                break;
            }
        }
    } while (again);
}

/* Set locked: queues w and sleeps. Unlocks meanwhile; locked again when it returns. */
static int sem_sleep_locked(struct sem_set *s, struct sem_sleeper *w, deadline_t deadline)
{
    int r = 0;

    list_add_tail(&w->node, &s->sleepers);
    while (r == 0 && !list_empty(&w->node)) {
        mutex_unlock(&s->o.mu);
        r = blocker_wait(w->blocker, deadline);
        mutex_lock(&s->o.mu);
    }
    if (list_empty(&w->node))
        return w->result;
    list_del(&w->node);
    return r == -ETIMEDOUT ? -EAGAIN : -EINTR;
}

static int sem_op_locked(struct sem_set *s, const struct ipc_caller *c, struct sem_sleeper *w,
                         deadline_t deadline)
{
    uint32_t max = 0;

    for (unsigned i = 0; i < w->count; i++)
        max = MAX(max, w->ops[i].num);
    if (max >= s->count)
        return -EFBIG;
    int r = ipc_check(&s->o, c, sem_alters(w) ? IPC_WRITE : IPC_READ);
    if (r == 0)
        r = sem_try_locked(s, w);
    if (r == 0) {
        s->otime = ipc_now();
        if (sem_alters(w))
            sem_update_locked(s);
    }
    return r == 1 ? sem_sleep_locked(s, w, deadline) : r;
}

int ipc_semop(struct ipc_ns *ns, const struct ipc_caller *c, struct sem_undo_list *undo, int32_t id,
              const struct ipc_sem_op *ops, unsigned count, deadline_t deadline)
{
    struct sem_sleeper w = {.ops = ops, .count = count, .pid = c->pid, .blocker = c->blocker};
    struct ipc_object *o;
    int r = ipc_find(ns, IPC_KIND_SEM, id, IPC_BY_ID, &o);

    if (r)
        return r;
    if (undo)
        r = sem_undo_find(undo, sem_set_of(o), &w.undo);
    if (r == 0) {
        mutex_lock(&o->mu);
        r = atomic_load(&o->gone) ? -EIDRM : sem_op_locked(sem_set_of(o), c, &w, deadline);
        mutex_unlock(&o->mu);
    }
    ipc_object_put(o);
    return r;
}
