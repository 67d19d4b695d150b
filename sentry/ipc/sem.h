/* System V semaphores: semget(2), semop(2), semctl(2), and what is undone when a process ends.
 * Depends on: ipc.h.
 * Threading: any thread, no lock held.
 * Ownership: an undo list is shared by the tasks that cloned it with CLONE_SYSVSEM; the last one to
 * put it undoes. */
#ifndef RINGWALL_SENTRY_IPC_SEM_H
#define RINGWALL_SENTRY_IPC_SEM_H

#include "sentry/ipc/ipc.h"

#define IPC_SEM_MAX 32767 /* SEMVMX */

struct sem_undo_list;

MUST_CHECK int ipc_semget(struct ipc_ns *ns, const struct ipc_caller *c, int32_t key, int count,
                          int flags);

/* struct sembuf. */
struct ipc_sem_op {
    uint16_t num;
    int16_t op;
    int16_t flags;
};
/* Does all of ops or waits; undo: the caller's list, needed when an op has SEM_UNDO, else NULL. No
 * restart: -EINTR. -EAGAIN past the deadline. ops stay the caller's. */
MUST_CHECK int ipc_semop(struct ipc_ns *ns, const struct ipc_caller *c, struct sem_undo_list *undo,
                         int32_t id, const struct ipc_sem_op *ops, unsigned count,
                         deadline_t deadline);

struct ipc_sem_info {
    struct ipc_perm_info perm;
    int64_t otime, ctime;
    uint32_t count;
};
/* The id. */
MUST_CHECK int ipc_sem_stat(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                            enum ipc_by by, struct ipc_sem_info *out);
MUST_CHECK int ipc_sem_set(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                           const struct ipc_perm_set *set);
MUST_CHECK int ipc_sem_rmid(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id);
/* GETVAL, GETPID, GETNCNT, GETZCNT: the number. */
enum ipc_sem_what { IPC_SEM_VALUE, IPC_SEM_PID, IPC_SEM_WAIT_MORE, IPC_SEM_WAIT_ZERO };
MUST_CHECK int ipc_sem_get(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, int num,
                           enum ipc_sem_what what);
/* SETVAL. -ERANGE. */
MUST_CHECK int ipc_sem_setval(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id, int num,
                              int value);
/* GETALL: the values, count of them, freed by the caller. */
MUST_CHECK int ipc_sem_getall(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                              uint16_t **out_values, uint32_t *out_count);
/* SETALL: how many there are to give, if c may; then the values. */
MUST_CHECK int ipc_sem_setall(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                              const uint16_t *values, uint32_t count);
MUST_CHECK int ipc_sem_setall_count(struct ipc_ns *ns, const struct ipc_caller *c, int32_t id,
                                    uint32_t *out_count);
/* Semaphores in all sets. */
uint64_t ipc_sem_total(struct ipc_ns *ns);

/* Owned result; -ENOMEM. */
MUST_CHECK int sem_undo_list_new(struct sem_undo_list **out_list);
struct sem_undo_list *sem_undo_list_get(struct sem_undo_list *l);
/* The last one undoes everything, as pid. NULL: nothing. */
void sem_undo_list_put(struct sem_undo_list *l, int32_t pid);

#endif
