/* System V shared memory. */
#include <errno.h>
#include <linux/shm.h>

#include "base/limits.h"
#include "sentry/ipc/shm.h"
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_ipc.h"

int64_t sys_shmget(struct task *t, int key, uint64_t size, int flags)
{
    struct ipc_caller c;

    task_ipc_caller(t, &c);
    return ipc_shmget(task_ipc_ns(t), &c, key, size, flags);
}

int64_t sys_shmat(struct task *t, int id, uaddr_t addr, int flags)
{
    struct mm_limits lim;
    struct ipc_caller c;
    uaddr_t at;

    task_ipc_caller(t, &c);
    task_mm_limits(t, &lim);
    int r = ipc_shmat(task_ipc_ns(t), &c, id, addr, flags, &t->ua, &lim, &at);
    return r ? r : (int64_t)at.v;
}

int64_t sys_shmdt(struct task *t, uaddr_t addr)
{
    struct ipc_caller c;

    task_ipc_caller(t, &c);
    return ipc_shmdt(&c, addr, &t->ua);
}

static int64_t shm_ipc_info(struct task *t, struct ipc_ns *ns, uaddr_t buf)
{
    struct shminfo64 info = {
        .shmmax = ipc_limit_get(ns, IPC_SHMMAX),
        .shmmin = SHMMIN,
        .shmmni = ipc_limit_get(ns, IPC_SHMMNI),
        .shmseg = ipc_limit_get(ns, IPC_SHMMNI),
        .shmall = ipc_limit_get(ns, IPC_SHMALL),
    };
    int r = copyout_obj(&t->ua, buf, &info);

    return r ? r : ipc_max_slot(ns, IPC_KIND_SHM);
}

static int64_t shm_shm_info(struct task *t, struct ipc_ns *ns, uaddr_t buf)
{
    struct shm_info info = {
        .used_ids = (int)ipc_count(ns, IPC_KIND_SHM), .shm_tot = ipc_shm_pages(ns), .shm_rss = 0};
    const int max = ipc_max_slot(ns, IPC_KIND_SHM);

    for (int slot = 0; slot <= max; slot++) {
        struct ipc_shm_info s;
        if (ipc_shm_stat(ns, NULL, slot, IPC_BY_SLOT_ANY, &s) >= 0)
            info.shm_rss += s.resident >> PAGE_SHIFT;
    }
    int r = copyout_obj(&t->ua, buf, &info);
    return r ? r : max;
}

static int64_t shm_stat(struct task *t, const struct ipc_caller *c, int id, int cmd, uaddr_t buf)
{
    const enum ipc_by by = cmd == IPC_STAT   ? IPC_BY_ID
                           : cmd == SHM_STAT ? IPC_BY_SLOT
                                             : IPC_BY_SLOT_ANY;
    struct shmid64_ds ds = {0};
    struct ipc_shm_info s;
    int r = ipc_shm_stat(task_ipc_ns(t), c, id, by, &s);

    if (r < 0)
        return r;
    ipc_perm_encode(&s.perm, &ds.shm_perm);
    ds.shm_segsz = s.size;
    ds.shm_atime = s.atime;
    ds.shm_dtime = s.dtime;
    ds.shm_ctime = s.ctime;
    ds.shm_cpid = task_pid_out(t, s.cpid);
    ds.shm_lpid = task_pid_out(t, s.lpid);
    ds.shm_nattch = s.attached;
    const int copied = copyout_obj(&t->ua, buf, &ds);
    return copied ? copied : cmd == IPC_STAT ? 0 : r;
}

int64_t sys_shmctl(struct task *t, int id, int cmd, uaddr_t buf)
{
    struct ipc_ns *ns = task_ipc_ns(t);
    struct shmid64_ds ds;
    struct ipc_caller c;
    int r;

    if (cmd < 0 || id < 0)
        return -EINVAL;
    task_ipc_caller(t, &c);
    switch (cmd) {
    case IPC_INFO:
        return shm_ipc_info(t, ns, buf);
    case SHM_INFO:
        return shm_shm_info(t, ns, buf);
    case IPC_STAT:
    case SHM_STAT:
    case SHM_STAT_ANY:
        return shm_stat(t, &c, id, cmd, buf);
    case IPC_SET:
        r = copyin_obj(&t->ua, &ds, buf);
        if (r == 0) {
            const struct ipc_perm_set set = ipc_perm_decode(&ds.shm_perm);
            r = ipc_shm_set(ns, &c, id, &set);
        }
        return r;
    case IPC_RMID:
        return ipc_shm_rmid(ns, &c, id);
    case SHM_LOCK:
    case SHM_UNLOCK:
        return ipc_shm_lock(ns, &c, id, cmd == SHM_LOCK);
    default:
        return -EINVAL;
    }
}
