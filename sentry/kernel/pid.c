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

int pid_new_locked(struct kernel *k, int32_t want, struct pid **out_pid)
{
    uint32_t nr = (uint32_t)want;

    mutex_assert_held(&k->mu);
    struct pid *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    int r = want ? idalloc_take(&k->ids, nr) : idalloc_next(&k->ids, &nr);
    if (r) {
        free(p);
        return r == -ENOSPC ? -EAGAIN : r;
    }
    p->nr = nr;
    k->pids[nr] = p;
    k->last_pid = (int32_t)nr;
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
