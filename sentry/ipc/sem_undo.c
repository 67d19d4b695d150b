/* What is undone when a process ends: SEM_UNDO. */
#include <errno.h>
#include <stdlib.h>

#include "sentry/ipc/sem_priv.h"

OBJCOUNT_DEFINE(sem_undo_list);

int sem_undo_list_new(struct sem_undo_list **out_list)
{
    struct sem_undo_list *l = calloc(1, sizeof(*l));

    if (!l)
        return -ENOMEM;
    ref_init(&l->ref);
    mutex_init(&l->mu, LOCK_RANK_IPC_UNDO);
    list_init(&l->undos);
    OBJCOUNT_INC(sem_undo_list);
    *out_list = l;
    return 0;
}

struct sem_undo_list *sem_undo_list_get(struct sem_undo_list *l)
{
    ref_get(&l->ref);
    return l;
}

static uint64_t undo_size(const struct sem_set *s)
{
    return sizeof(struct sem_undo) + s->count * sizeof(int16_t);
}

static void undo_free(struct sem_undo *u)
{
    ipc_uncharge(u->set->o.ns, undo_size(u->set));
    ipc_object_put(&u->set->o);
    free(u);
}

/* Records of sets that are gone are dropped on the way. */
static struct sem_undo *undo_look_locked(struct sem_undo_list *l, const struct sem_set *s,
                                         struct list *dead)
{
    struct sem_undo *u, *next, *found = NULL;

    list_for_each_entry_safe (u, next, &l->undos, list_node) {
        if (u->set == s)
            found = u;
        else if (atomic_load(&u->set->o.gone))
            list_move(&u->list_node, dead);
    }
    return found;
}

static int undo_new(struct sem_set *s, struct sem_undo **out)
{
    int r = ipc_charge(s->o.ns, undo_size(s));

    if (r)
        return r;
    struct sem_undo *u = calloc(1, undo_size(s));
    if (!u) {
        ipc_uncharge(s->o.ns, undo_size(s));
        return -ENOMEM;
    }
    ref_get(&s->o.ref);
    u->set = s;
    list_init(&u->list_node);
    list_init(&u->set_node);
    *out = u;
    return 0;
}

static void undo_free_list(struct list *dead)
{
    while (!list_empty(dead)) {
        struct sem_undo *u = list_first_entry(dead, struct sem_undo, list_node);
        list_del(&u->list_node);
        mutex_lock(&u->set->o.mu);
        list_del(&u->set_node);
        mutex_unlock(&u->set->o.mu);
        undo_free(u);
    }
}

int sem_undo_find(struct sem_undo_list *l, struct sem_set *s, struct sem_undo **out)
{
    struct list dead = LIST_INIT(dead);
    int r = 0;

    mutex_lock(&l->mu);
    *out = undo_look_locked(l, s, &dead);
    if (!*out) {
        r = undo_new(s, out);
        if (r == 0) {
            list_add_tail(&(*out)->list_node, &l->undos);
            mutex_lock(&s->o.mu);
            list_add_tail(&(*out)->set_node, &s->undos);
            mutex_unlock(&s->o.mu);
        }
    }
    mutex_unlock(&l->mu);
    undo_free_list(&dead);
    return r;
}

void sem_undo_clear_locked(struct sem_set *s, uint32_t num)
{
    struct sem_undo *u;

    list_for_each_entry (u, &s->undos, set_node)
        u->adjust[num] = 0;
}

/* exit_sem(): what would leave the range stops at its end. */
static void undo_apply(struct sem_undo *u, int32_t pid)
{
    struct sem_set *s = u->set;

    mutex_lock(&s->o.mu);
    list_del(&u->set_node);
    for (uint32_t i = 0; !atomic_load(&s->o.gone) && i < s->count; i++) {
        if (u->adjust[i] == 0)
            continue;
        const int32_t v = s->sems[i].value + u->adjust[i];
        s->sems[i].value = MIN(MAX(v, 0), IPC_SEM_MAX);
        s->sems[i].pid = pid;
    }
    s->otime = ipc_now();
    sem_update_locked(s);
    mutex_unlock(&s->o.mu);
}

void sem_undo_list_put(struct sem_undo_list *l, int32_t pid)
{
    if (!l || !ref_put(&l->ref))
        return;
    while (!list_empty(&l->undos)) {
        struct sem_undo *u = list_first_entry(&l->undos, struct sem_undo, list_node);
        list_del(&u->list_node);
        undo_apply(u, pid);
        undo_free(u);
    }
    mutex_destroy(&l->mu);
    OBJCOUNT_DEC(sem_undo_list);
    free(l);
}
