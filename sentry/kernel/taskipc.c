/* What a task has to do with System V IPC: its namespace, and what is undone at its end. */
#include <sys/resource.h>

#include "sentry/ipc/sem.h"
#include "sentry/kernel/inspect.h"
#include "sentry/kernel/process.h"
#include "sentry/kernel/task_priv.h"

struct ipc_ns *task_ipc_ns(struct task *t)
{
    return task_priv(t)->ipc;
}

struct ipc_ns *task_get_ipc_ns(struct task *t)
{
    mutex_lock(&t->mu);
    struct ipc_ns *ns = task_priv(t)->ipc;
    if (ns)
        (void)ipc_ns_get(ns);
    mutex_unlock(&t->mu);
    return ns;
}

void task_ipc_caller(struct task *t, struct ipc_caller *out)
{
    *out = (struct ipc_caller){
        .cred = t->cred,
        .blocker = &t->blocker,
        .pid = t->tg->tgid,
        .memlock = task_rlimit(t, RLIMIT_MEMLOCK),
        .mm = t->ua.mm,
    };
}

int task_sem_undo(struct task *t, struct sem_undo_list **out_list)
{
    struct task_priv *p = task_priv(t);
    struct sem_undo_list *l = p->sem_undo;
    int r = l ? 0 : sem_undo_list_new(&l);

    if (r == 0)
        p->sem_undo = *out_list = l;
    return r;
}

int task_sem_undo_share(struct task *t, struct task *c)
{
    struct sem_undo_list *l;
    int r = task_sem_undo(t, &l);

    if (r == 0)
        task_priv(c)->sem_undo = sem_undo_list_get(l);
    return r;
}

void task_sem_undo_exit(struct task *t)
{
    struct task_priv *p = task_priv(t);
    struct sem_undo_list *l = p->sem_undo;

    p->sem_undo = NULL;
    if (l)
        sem_undo_list_put(l, t->tg ? t->tg->tgid : 0);
}
