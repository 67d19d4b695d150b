/* Inside the semaphores: sets, sleepers, undo records.
 * Depends on: sem.h, ipc_priv.h.
 * Threading: all guarded by the set's lock, unless said.
 * Ownership: a sleeper is on its own stack; an undo record belongs to its list and holds the set.
 */
#ifndef RINGWALL_SENTRY_IPC_SEM_PRIV_H
#define RINGWALL_SENTRY_IPC_SEM_PRIV_H

#include "base/list.h"
#include "sentry/ipc/ipc_priv.h"
#include "sentry/ipc/sem.h"

struct sem {
    int32_t value, pid;
};

struct sem_set {
    struct ipc_object o;
    uint32_t count; /* immutable */
    int64_t otime, ctime;
    struct list sleepers; /* sem_sleeper.node, in the order of coming */
    struct list undos;    /* sem_undo.set_node */
    struct sem sems[];
};

struct sem_undo {
    struct list list_node; /* sem_undo_list.mu */
    struct list set_node;
    struct sem_set *set; /* owned; immutable */
    int16_t adjust[];
};

struct sem_undo_list {
    struct ref ref;
    struct mutex mu; /* rank IPC_UNDO: guards the list */
    struct list undos;
};

struct sem_sleeper {
    struct list node; /* on no list: done, see result */
    const struct ipc_sem_op *ops;
    unsigned count;
    struct sem_undo *undo;
    int32_t pid;
    struct blocker *blocker;
    unsigned blocking; /* the op that cannot be done */
    int result;
};

static inline struct sem_set *sem_set_of(struct ipc_object *o)
{
    return container_of(o, struct sem_set, o);
}

/* Something changed: does what can be done now, and wakes who did it. */
void sem_update_locked(struct sem_set *s);
/* All of w's ops or none. 0, -ERANGE, -EAGAIN (an op with IPC_NOWAIT would wait), 1: has to wait.
 */
MUST_CHECK int sem_try_locked(struct sem_set *s, struct sem_sleeper *w);

/* The record for set s in l, made when there is none. s: a reference that is taken when a record
 * is made. -ENOMEM. */
MUST_CHECK int sem_undo_find(struct sem_undo_list *l, struct sem_set *s, struct sem_undo **out);
/* A value was set: nothing that came before is to be undone. */
void sem_undo_clear_locked(struct sem_set *s, uint32_t num);

#endif
