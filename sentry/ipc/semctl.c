/* semctl(2). */
#include <errno.h>
#include <stdlib.h>

#include "sentry/ipc/sem_priv.h"

static int sem_lock(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, uint32_t want,
                    struct sem_set **out)
{
    struct ipc_object *o;
    int r = ipc_lock_id(ns, IPC_KIND_SEM, id, &o);

    if (r)
        return r;
    r = ipc_check(o, c, want);
    if (r) {
        mutex_unlock(&o->mu);
        ipc_object_put(o);
        return r;
    }
    *out = sem_set_of(o);
    return 0;
}

static void sem_unlock(struct sem_set *s)
{
    mutex_unlock(&s->o.mu);
    ipc_object_put(&s->o);
}

int ipc_sem_stat(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, enum ipc_by by,
                 struct ipc_sem_info *out)
{
    struct ipc_object *o;
    int r = ipc_find(ns, IPC_KIND_SEM, id, by, &o);

    if (r)
        return r;
    struct sem_set *s = sem_set_of(o);
    mutex_lock(&o->mu);
    r = by == IPC_BY_SLOT_ANY ? 0 : ipc_check(o, c, IPC_READ);
    *out = (struct ipc_sem_info){.otime = s->otime, .ctime = s->ctime, .count = s->count};
    ipc_perm_show(o, &out->perm);
    mutex_unlock(&o->mu);
    ipc_object_put(o);
    return r ? r : out->perm.id;
}

int ipc_sem_set(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                const struct ipc_perm_set *set)
{
    struct ipc_object *o;
    int r = ipc_lock_id(ns, IPC_KIND_SEM, id, &o);

    if (r)
        return r;
    r = ipc_check_owner(o, c);
    if (r == 0)
        r = ipc_perm_change(o, set);
    if (r == 0)
        sem_set_of(o)->ctime = ipc_now();
    sem_unlock(sem_set_of(o));
    return r;
}

int ipc_sem_rmid(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id)
{
    struct ipc_object *o;
    int r = ipc_lock_id(ns, IPC_KIND_SEM, id, &o);

    if (r)
        return r;
    r = ipc_check_owner(o, c);
    mutex_unlock(&o->mu);
    if (r == 0)
        ipc_sem_remove(o);
    ipc_object_put(o);
    return r;
}

/* Those that wait for num to grow, or to become zero: by the op that holds each up. */
static int sem_waiting(const struct sem_set *s, int num, bool zero)
{
    const struct sem_sleeper *w;
    int n = 0;

    list_for_each_entry (w, &s->sleepers, node) {
        const struct ipc_sem_op *op = &w->ops[w->blocking];
        n += op->num == num && (op->op == 0) == zero;
    }
    return n;
}

int ipc_sem_get(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, int num,
                enum ipc_sem_what what)
{
    struct sem_set *s;
    int r = sem_lock(ns, c, id, IPC_READ, &s);

    if (r)
        return r;
    if (num < 0 || (uint32_t)num >= s->count)
        r = -EINVAL;
    else if (what == IPC_SEM_VALUE)
        r = s->sems[num].value;
    else if (what == IPC_SEM_PID)
        r = s->sems[num].pid;
    else
        r = sem_waiting(s, num, what == IPC_SEM_WAIT_ZERO);
    sem_unlock(s);
    return r;
}

int ipc_sem_setval(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, int num, int value)
{
    struct sem_set *s;

    if (value < 0 || value > IPC_SEM_MAX)
        return -ERANGE;
    int r = sem_lock(ns, c, id, 0, &s);
    if (r)
        return r;
    if (num < 0 || (uint32_t)num >= s->count)
        r = -EINVAL;
    else
        r = ipc_check(&s->o, c, IPC_WRITE);
    if (r == 0) {
        sem_undo_clear_locked(s, (uint32_t)num);
        s->sems[num] = (struct sem){.value = value, .pid = c->pid};
        s->ctime = ipc_now();
        sem_update_locked(s);
    }
    sem_unlock(s);
    return r;
}

int ipc_sem_getall(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, uint16_t **out_values,
                   uint32_t *out_count)
{
    struct sem_set *s;
    int r = sem_lock(ns, c, id, IPC_READ, &s);

    if (r)
        return r;
    uint16_t *v = calloc(s->count, sizeof(*v));
    for (uint32_t i = 0; v && i < s->count; i++)
        v[i] = (uint16_t)s->sems[i].value;
    *out_count = s->count;
    *out_values = v;
    sem_unlock(s);
    return v ? 0 : -ENOMEM;
}

int ipc_sem_setall_count(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                         uint32_t *out_count)
{
    struct sem_set *s;
    int r = sem_lock(ns, c, id, IPC_WRITE, &s);

    if (r)
        return r;
    *out_count = s->count;
    sem_unlock(s);
    return 0;
}

int ipc_sem_setall(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                   const uint16_t *values, uint32_t count)
{
    struct sem_set *s;

    for (uint32_t i = 0; i < count; i++)
        if (values[i] > IPC_SEM_MAX)
            return -ERANGE;
    int r = sem_lock(ns, c, id, IPC_WRITE, &s);
    if (r)
        return r;
    for (uint32_t i = 0; i < MIN(count, s->count); i++) {
        sem_undo_clear_locked(s, i);
        s->sems[i] = (struct sem){.value = values[i], .pid = c->pid};
    }
    s->ctime = ipc_now();
    sem_update_locked(s);
    sem_unlock(s);
    return 0;
}

uint64_t ipc_sem_total(struct ipc_ns *ns)
{
    return atomic_load(&ns->sem_count);
}
