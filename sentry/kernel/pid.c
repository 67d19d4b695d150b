/* Numbers of tasks, groups and sessions; process groups (credentials(7), kernel/pid.c). */
#include <errno.h>
#include <stdlib.h>

#include "sentry/kernel/task_priv.h"

OBJCOUNT_DEFINE(pgrp);
OBJCOUNT_DEFINE(session);

struct pid *pid_find_locked(struct kernel *k, int32_t nr)
{
    mutex_assert_held(&k->mu);
    if (nr <= 0 || nr > LIMIT_TASKS)
        return NULL;
    return k->pids[nr];
}

struct pid *pid_find_in_locked(struct kernel *k, const struct pid_ns *ns, int32_t nr)
{
    if (LIKELY(!ns))
        return pid_find_locked(k, nr);
    mutex_assert_held(&k->mu);
    return nr <= 0 || nr > LIMIT_TASKS ? NULL : ns->table[nr];
}

int32_t pid_nr_in(const struct pid *p, const struct pid_ns *ns)
{
    if (!p)
        return 0;
    if (LIKELY(!ns))
        return (int32_t)p->nr;
    if (ns->level > p->level || p->slots[ns->level - 1].ns != ns)
        return 0;
    return (int32_t)p->slots[ns->level - 1].nr;
}

int32_t pid_out_locked(struct kernel *k, const struct pid_ns *ns, int32_t nr)
{
    return LIKELY(!ns) ? nr : pid_nr_in(pid_find_locked(k, nr), ns);
}

static int pid_take(struct idalloc *ids, int32_t want, uint32_t *out_nr)
{
    *out_nr = (uint32_t)want;
    int r = want ? idalloc_take(ids, *out_nr) : idalloc_next(ids, out_nr);
    return r == -ENOSPC ? -EAGAIN : r;
}

/* Numbers below the outermost: those of ns and of what stands between. */
static int pid_fill_slots(struct pid *p, struct pid_ns *ns, const int32_t *want, size_t want_count)
{
    size_t i = 0;
    int r = 0;

    for (; ns; ns = ns->parent, i++) {
        struct pid_slot *slot = &p->slots[ns->level - 1];
        /* The first process of a namespace is its init. */
        const int32_t wish = i < want_count ? want[i] : 0;
        if (ns->dying || (!ns->init && wish > 1))
            r = ns->dying ? -ENOMEM : -EINVAL;
        if (!r)
            r = pid_take(&ns->ids, wish, &slot->nr);
        if (r)
            return r;
        slot->ns = pid_ns_get(ns);
        ns->table[slot->nr] = p;
    }
    return 0;
}

static void pid_drop_slots(struct pid *p)
{
    for (uint32_t i = 0; i < p->level; i++) {
        struct pid_slot *slot = &p->slots[i];
        if (!slot->ns)
            continue;
        slot->ns->table[slot->nr] = NULL;
        idalloc_free(&slot->ns->ids, slot->nr);
        pid_ns_put(slot->ns);
    }
}

int pid_new_locked(struct kernel *k, struct pid_ns *ns, const int32_t *want, size_t want_count,
                   struct pid **out_pid)
{
    const uint32_t level = ns ? ns->level : 0;

    mutex_assert_held(&k->mu);
    struct pid *p = calloc(1, sizeof(*p) + level * sizeof(p->slots[0]));
    if (!p)
        return -ENOMEM;
    p->level = level;
    int r = pid_take(&k->ids, want_count > level ? want[level] : 0, &p->nr);
    if (r) {
        free(p);
        return r;
    }
    r = pid_fill_slots(p, ns, want, want_count);
    if (r) {
        pid_drop_slots(p);
        idalloc_free(&k->ids, p->nr);
        free(p);
        return r;
    }
    k->pids[p->nr] = p;
    k->last_pid = (int32_t)p->nr;
    *out_pid = p;
    return 0;
}

void pid_release_locked(struct kernel *k, struct pid *p)
{
    mutex_assert_held(&k->mu);
    if (p->task || p->tg || p->pgrp || p->session)
        return;
    k->pids[p->nr] = NULL;
    idalloc_free(&k->ids, p->nr);
    pid_drop_slots(p);
    free(p);
}

static void session_put_locked(struct session *s)
{
    if (!ref_put(&s->ref))
        return;
    struct pid *p = s->k->pids[s->id];
    p->session = NULL;
    pid_release_locked(s->k, p);
    OBJCOUNT_DEC(session);
    free(s);
}

static void pgrp_put_locked(struct kernel *k, struct pgrp *pg)
{
    if (!ref_put(&pg->ref))
        return;
    struct pid *p = k->pids[pg->id];
    struct session *s = pg->session;

    list_del(&pg->node);
    p->pgrp = NULL;
    pid_release_locked(k, p);
    OBJCOUNT_DEC(pgrp);
    free(pg);
    session_put_locked(s);
}

int pgrp_new_locked(struct kernel *k, int32_t id, struct session *s, struct pgrp **out_pgrp)
{
    struct pgrp *pg = calloc(1, sizeof(*pg));

    if (!pg)
        return -ENOMEM;
    ref_init(&pg->ref);
    ref_get(&s->ref);
    pg->id = id;
    pg->session = s;
    list_init(&pg->members);
    list_add_tail(&pg->node, &s->pgrps);
    k->pids[id]->pgrp = pg;
    OBJCOUNT_INC(pgrp);
    *out_pgrp = pg;
    return 0;
}

void pgrp_leave_locked(struct thread_group *tg)
{
    struct pgrp *pg = tg->pgrp;

    if (!pg)
        return;
    list_del(&tg->pgrp_node);
    tg->pgrp = NULL;
    pgrp_put_locked(tg->k, pg);
}

void pgrp_join_locked(struct thread_group *tg, struct pgrp *pg)
{
    if (tg->pgrp == pg)
        return;
    ref_get(&pg->ref);
    pgrp_leave_locked(tg);
    tg->pgrp = pg;
    list_add_tail(&tg->pgrp_node, &pg->members);
}

void pgrp_release_locked(struct kernel *k, struct pgrp *pg)
{
    pgrp_put_locked(k, pg);
}

int session_new_locked(struct thread_group *tg)
{
    struct kernel *k = tg->k;
    struct session *s = calloc(1, sizeof(*s));
    struct pgrp *pg;

    if (!s)
        return -ENOMEM;
    ref_init(&s->ref);
    s->k = k;
    s->id = tg->tgid;
    s->leader = tg;
    list_init(&s->pgrps);
    k->pids[tg->tgid]->session = s;
    OBJCOUNT_INC(session);
    int r = pgrp_new_locked(k, tg->tgid, s, &pg);
    if (!r) {
        pgrp_join_locked(tg, pg);
        pgrp_put_locked(k, pg);
    }
    session_put_locked(s);
    return r;
}

/* A group is orphaned when no member has a parent in another group of the same session
 * (kernel/exit.c will_become_orphaned_pgrp). Pid 1 counts as any parent, as that of a pid namespace
 * does: an interactive shell may well be pid 1. */
bool pgrp_orphaned_locked(struct pgrp *pg, const struct thread_group *ignored)
{
    struct thread_group *tg;

    list_for_each_entry (tg, &pg->members, pgrp_node) {
        const struct thread_group *up = tg->parent;
        if (tg == ignored || tg->state != TG_LIVE || !up || !up->pgrp)
            continue;
        if (up->pgrp != pg && up->pgrp->session == pg->session)
            return false;
    }
    return true;
}
