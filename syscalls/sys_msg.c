/* System V message queues. */
#include <errno.h>
#include <linux/msg.h>

#include "sentry/ipc/msg.h"
#include "sentry/kernel/process.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_ipc.h"

int64_t sys_msgget(struct task *t, int key, int flags)
{
    struct ipc_caller c;

    task_ipc_caller(t, &c);
    return ipc_msgget(task_ipc_ns(t), &c, key, flags);
}

int64_t sys_msgsnd(struct task *t, int id, uaddr_t buf, uint64_t size, int flags)
{
    struct ipc_ns *ns = task_ipc_ns(t);
    struct ipc_caller c;
    struct ipc_msg *m;
    int64_t type;
    int r = copyin_obj(&t->ua, &type, buf);

    if (r)
        return r;
    if (size > ipc_limit_get(ns, IPC_MSGMAX) || id < 0 || type < 1)
        return -EINVAL;
    r = ipc_msg_new(ns, type, size, &m);
    if (r)
        return r;
    task_ipc_caller(t, &c);
    r = copyin(&t->ua, m->text, uaddr_add(buf, sizeof(type)), size);
    if (r == 0)
        r = ipc_msgsnd(ns, &c, id, m, flags);
    if (r)
        ipc_msg_put(m);
    return r;
}

int64_t sys_msgrcv(struct task *t, int id, uaddr_t buf, uint64_t size, int64_t type, int flags)
{
    struct ipc_caller c;
    struct ipc_msg *m;

    if (id < 0 || (int64_t)size < 0)
        return -EINVAL;
    task_ipc_caller(t, &c);
    int r = ipc_msgrcv(task_ipc_ns(t), &c, id, size, type, flags, &m);
    if (r)
        return r;
    const uint64_t n = MIN(size, m->size);
    r = copyout_obj(&t->ua, buf, &m->type);
    if (r == 0)
        r = copyout(&t->ua, uaddr_add(buf, sizeof(m->type)), m->text, n);
    ipc_msg_put(m);
    return r ? r : (int64_t)n;
}

static int64_t msg_info(struct task *t, struct ipc_ns *ns, int cmd, uaddr_t buf)
{
    struct msginfo info = {
        .msgpool = MSGPOOL,
        .msgmap = MSGMAP,
        .msgmax = (int)ipc_limit_get(ns, IPC_MSGMAX),
        .msgmnb = (int)ipc_limit_get(ns, IPC_MSGMNB),
        .msgmni = (int)ipc_limit_get(ns, IPC_MSGMNI),
        .msgssz = MSGSSZ,
        .msgtql = MSGTQL,
        .msgseg = MSGSEG,
    };

    if (cmd == MSG_INFO) {
        uint64_t count, bytes;
        ipc_msg_totals(ns, &count, &bytes);
        info.msgpool = (int)ipc_count(ns, IPC_KIND_MSG);
        info.msgmap = (int)count;
        info.msgtql = (int)bytes;
    }
    int r = copyout_obj(&t->ua, buf, &info);
    return r ? r : ipc_max_slot(ns, IPC_KIND_MSG);
}

static int64_t msg_stat(struct task *t, const struct ipc_caller *c, int id, int cmd, uaddr_t buf)
{
    const enum ipc_by by = cmd == IPC_STAT   ? IPC_BY_ID
                           : cmd == MSG_STAT ? IPC_BY_SLOT
                                             : IPC_BY_SLOT_ANY;
    struct msqid64_ds ds = {0};
    struct ipc_msg_info q;
    int r = ipc_msg_stat(task_ipc_ns(t), c, id, by, &q);

    if (r < 0)
        return r;
    ipc_perm_encode(&q.perm, &ds.msg_perm);
    ds.msg_stime = q.stime;
    ds.msg_rtime = q.rtime;
    ds.msg_ctime = q.ctime;
    ds.msg_cbytes = q.bytes;
    ds.msg_qnum = q.count;
    ds.msg_qbytes = q.max_bytes;
    ds.msg_lspid = task_pid_out(t, q.lspid);
    ds.msg_lrpid = task_pid_out(t, q.lrpid);
    const int copied = copyout_obj(&t->ua, buf, &ds);
    return copied ? copied : cmd == IPC_STAT ? 0 : r;
}

static int64_t msg_set(struct task *t, const struct ipc_caller *c, int id, uaddr_t buf)
{
    struct msqid64_ds ds;
    int r = copyin_obj(&t->ua, &ds, buf);

    if (r)
        return r;
    const struct ipc_perm_set set = ipc_perm_decode(&ds.msg_perm);
    return ipc_msg_set(task_ipc_ns(t), c, id, &set, ds.msg_qbytes);
}

int64_t sys_msgctl(struct task *t, int id, int cmd, uaddr_t buf)
{
    struct ipc_ns *ns = task_ipc_ns(t);
    struct ipc_caller c;

    if (id < 0 || cmd < 0)
        return -EINVAL;
    task_ipc_caller(t, &c);
    switch (cmd) {
    case IPC_INFO:
    case MSG_INFO:
        return msg_info(t, ns, cmd, buf);
    case IPC_STAT:
    case MSG_STAT:
    case MSG_STAT_ANY:
        return msg_stat(t, &c, id, cmd, buf);
    case IPC_SET:
        return msg_set(t, &c, id, buf);
    case IPC_RMID:
        return ipc_msg_rmid(ns, &c, id);
    default:
        return -EINVAL;
    }
}
