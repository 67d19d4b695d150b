/* System V semaphores. */
#include <errno.h>
#include <linux/sem.h>
#include <stdlib.h>

#include "sentry/ipc/sem.h"
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_ipc.h"
#include "syscalls/sys_time.h"

/* Operations that need no allocation. */
#define SEM_OPS_FEW 16u

int64_t sys_semget(struct task *t, int key, int count, int flags)
{
    struct ipc_caller c;

    task_ipc_caller(t, &c);
    return ipc_semget(task_ipc_ns(t), &c, key, count, flags);
}

static int64_t sem_do(struct task *t, int id, const struct ipc_sem_op *ops, unsigned count,
                      deadline_t deadline)
{
    struct sem_undo_list *undo = NULL;
    struct ipc_caller c;
    bool undoes = false;

    if (id < 0)
        return -EINVAL;
    for (unsigned i = 0; i < count; i++)
        undoes |= (ops[i].flags & SEM_UNDO) != 0;
    if (undoes) {
        int r = task_sem_undo(t, &undo);
        if (r)
            return r;
    }
    task_ipc_caller(t, &c);
    return ipc_semop(task_ipc_ns(t), &c, undo, id, ops, count, deadline);
}

static int64_t sem_timed(struct task *t, int id, uaddr_t user_ops, unsigned count,
                         deadline_t deadline)
{
    struct ipc_sem_op few[SEM_OPS_FEW], *ops = few;

    _Static_assert(sizeof(few[0]) == sizeof(struct sembuf), "struct sembuf");
    if (count == 0)
        return -EINVAL;
    if (count > ipc_limit_get(task_ipc_ns(t), IPC_SEMOPM))
        return -E2BIG;
    if (count > SEM_OPS_FEW) {
        ops = calloc(count, sizeof(*ops));
        if (!ops)
            return -ENOMEM;
    }
    int64_t r = copyin_array(&t->ua, ops, user_ops, count, sizeof(*ops));
    if (r == 0)
        r = sem_do(t, id, ops, count, deadline);
    if (ops != few)
        free(ops);
    return r;
}

int64_t sys_semop(struct task *t, int id, uaddr_t ops, unsigned count)
{
    return sem_timed(t, id, ops, count, DEADLINE_NEVER);
}

int64_t sys_semtimedop(struct task *t, int id, uaddr_t ops, unsigned count, uaddr_t timeout)
{
    deadline_t deadline;
    int r = time_copyin_timeout(t, timeout, &deadline);

    return r ? r : sem_timed(t, id, ops, count, deadline);
}

static int64_t sem_info(struct task *t, struct ipc_ns *ns, int cmd, uaddr_t buf)
{
    struct seminfo info = {
        .semmap = SEMMAP,
        .semmni = (int)ipc_limit_get(ns, IPC_SEMMNI),
        .semmns = (int)ipc_limit_get(ns, IPC_SEMMNS),
        .semmnu = SEMMNU,
        .semmsl = (int)ipc_limit_get(ns, IPC_SEMMSL),
        .semopm = (int)ipc_limit_get(ns, IPC_SEMOPM),
        .semume = SEMUME,
        .semusz = cmd == SEM_INFO ? (int)ipc_count(ns, IPC_KIND_SEM) : SEMUSZ,
        .semvmx = SEMVMX,
        .semaem = cmd == SEM_INFO ? (int)ipc_sem_total(ns) : SEMAEM,
    };
    int r = copyout_obj(&t->ua, buf, &info);

    return r ? r : ipc_max_slot(ns, IPC_KIND_SEM);
}

static int64_t sem_stat(struct task *t, const struct ipc_caller *c, int id, int cmd, uaddr_t buf)
{
    const enum ipc_by by = cmd == IPC_STAT   ? IPC_BY_ID
                           : cmd == SEM_STAT ? IPC_BY_SLOT
                                             : IPC_BY_SLOT_ANY;
    struct semid64_ds ds = {0};
    struct ipc_sem_info s;
    int r = ipc_sem_stat(task_ipc_ns(t), c, id, by, &s);

    if (r < 0)
        return r;
    ipc_perm_encode(&s.perm, &ds.sem_perm);
    ds.sem_otime = s.otime;
    ds.sem_ctime = s.ctime;
    ds.sem_nsems = s.count;
    const int copied = copyout_obj(&t->ua, buf, &ds);
    return copied ? copied : cmd == IPC_STAT ? 0 : r;
}

static int64_t sem_getall(struct task *t, const struct ipc_caller *c, int id, uaddr_t array)
{
    uint16_t *values;
    uint32_t count;
    int r = ipc_sem_getall(task_ipc_ns(t), c, id, &values, &count);

    if (r)
        return r;
    r = copyout_array(&t->ua, array, values, count, sizeof(*values));
    free(values);
    return r;
}

static int64_t sem_setall(struct task *t, const struct ipc_caller *c, int id, uaddr_t array)
{
    uint32_t count;
    int r = ipc_sem_setall_count(task_ipc_ns(t), c, id, &count);

    if (r)
        return r;
    uint16_t *values = calloc(count, sizeof(*values));
    if (!values)
        return -ENOMEM;
    r = copyin_array(&t->ua, values, array, count, sizeof(*values));
    if (r == 0)
        r = ipc_sem_setall(task_ipc_ns(t), c, id, values, count);
    free(values);
    return r;
}

static int64_t sem_set(struct task *t, const struct ipc_caller *c, int id, uaddr_t buf)
{
    struct semid64_ds ds;
    int r = copyin_obj(&t->ua, &ds, buf);

    if (r)
        return r;
    const struct ipc_perm_set set = ipc_perm_decode(&ds.sem_perm);
    return ipc_sem_set(task_ipc_ns(t), c, id, &set);
}

static int64_t sem_pid(struct task *t, int64_t pid)
{
    return pid > 0 ? task_pid_out(t, (int32_t)pid) : pid;
}

int64_t sys_semctl(struct task *t, int id, int num, int cmd, uint64_t arg)
{
    struct ipc_ns *ns = task_ipc_ns(t);
    struct ipc_caller c;

    if (id < 0)
        return -EINVAL;
    task_ipc_caller(t, &c);
    switch (cmd) {
    case IPC_INFO:
    case SEM_INFO:
        return sem_info(t, ns, cmd, uaddr(arg));
    case IPC_STAT:
    case SEM_STAT:
    case SEM_STAT_ANY:
        return sem_stat(t, &c, id, cmd, uaddr(arg));
    case GETALL:
        return sem_getall(t, &c, id, uaddr(arg));
    case GETVAL:
        return ipc_sem_get(ns, &c, id, num, IPC_SEM_VALUE);
    case GETPID:
        return sem_pid(t, ipc_sem_get(ns, &c, id, num, IPC_SEM_PID));
    case GETNCNT:
        return ipc_sem_get(ns, &c, id, num, IPC_SEM_WAIT_MORE);
    case GETZCNT:
        return ipc_sem_get(ns, &c, id, num, IPC_SEM_WAIT_ZERO);
    case SETALL:
        return sem_setall(t, &c, id, uaddr(arg));
    case SETVAL:
        return ipc_sem_setval(ns, &c, id, num, (int)(uint32_t)arg);
    case IPC_SET:
        return sem_set(t, &c, id, uaddr(arg));
    case IPC_RMID:
        return ipc_sem_rmid(ns, &c, id);
    default:
        return -EINVAL;
    }
}
