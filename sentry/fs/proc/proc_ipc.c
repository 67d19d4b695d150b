/* /proc/sysvipc and the limits in /proc/sys/kernel: the IPC namespace of who reads. */
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdlib.h>

#include "proc_priv.h"
#include "sentry/ipc/msg.h"
#include "sentry/ipc/sem.h"
#include "sentry/ipc/shm.h"

/* Owned; -ESRCH. Before there is a process, of the sandbox: what the configuration sets. */
static int reader_ns(const struct proc_ctx *pc, struct ipc_ns **out)
{
    struct task *t;

    if (!pc->c)
        return -ESRCH;
    if (pc->c->pid == 0) {
        *out = ipc_ns_get(kernel_ipc_ns(pc->k));
        return 0;
    }
    int r = kernel_find_task(pc->k, pc->c->pid, true, &t);
    if (r)
        return r;
    *out = task_get_ipc_ns(t);
    task_put(t);
    return *out ? 0 : -ESRCH;
}

static void show_owner(FILE *out, const struct ipc_perm_info *p)
{
    fprintf(out, " %5u %5u %5u %5u", p->uid, p->gid, p->cuid, p->cgid);
}

static void show_shm_row(struct ipc_ns *ns, int slot, FILE *out)
{
    struct ipc_shm_info s;

    if (ipc_shm_stat(ns, NULL, slot, IPC_BY_SLOT_ANY, &s) < 0)
        return;
    fprintf(out, "%10d %10d  %4o %21" PRIu64 " %5d %5d  %5" PRIu64, s.perm.key, s.perm.id,
            s.perm.mode, s.size, s.cpid, s.lpid, s.attached);
    show_owner(out, &s.perm);
    fprintf(out, " %10" PRId64 " %10" PRId64 " %10" PRId64 " %21" PRIu64 " %21u\n", s.atime,
            s.dtime, s.ctime, s.resident, 0u);
}

static void show_sem_row(struct ipc_ns *ns, int slot, FILE *out)
{
    struct ipc_sem_info s;

    if (ipc_sem_stat(ns, NULL, slot, IPC_BY_SLOT_ANY, &s) < 0)
        return;
    fprintf(out, "%10d %10d  %4o %10u", s.perm.key, s.perm.id, s.perm.mode, s.count);
    show_owner(out, &s.perm);
    fprintf(out, " %10" PRId64 " %10" PRId64 "\n", s.otime, s.ctime);
}

static void show_msg_row(struct ipc_ns *ns, int slot, FILE *out)
{
    struct ipc_msg_info q;

    if (ipc_msg_stat(ns, NULL, slot, IPC_BY_SLOT_ANY, &q) < 0)
        return;
    fprintf(out, "%10d %10d  %4o  %10" PRIu64 " %10" PRIu64 " %5d %5d", q.perm.key, q.perm.id,
            q.perm.mode, q.bytes, q.count, q.lspid, q.lrpid);
    show_owner(out, &q.perm);
    fprintf(out, " %10" PRId64 " %10" PRId64 " %10" PRId64 "\n", q.stime, q.rtime, q.ctime);
}

static int show_all(const struct proc_ctx *pc, FILE *out, enum ipc_kind kind, const char *head,
                    void (*row)(struct ipc_ns *ns, int slot, FILE *out))
{
    struct ipc_ns *ns;
    int r = reader_ns(pc, &ns);

    if (r)
        return r;
    fputs(head, out);
    const int max = ipc_max_slot(ns, kind);
    for (int slot = 0; slot <= max; slot++)
        row(ns, slot, out);
    ipc_ns_put(ns);
    return 0;
}

static int show_shm(const struct proc_ctx *pc, FILE *out)
{
    return show_all(
        pc, out, IPC_KIND_SHM,
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid "
        " cuid  cgid      atime      dtime      ctime                   rss            "
        "      swap\n",
        show_shm_row);
}

static int show_sem(const struct proc_ctx *pc, FILE *out)
{
    return show_all(
        pc, out, IPC_KIND_SEM,
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      "
        "ctime\n",
        show_sem_row);
}

static int show_msg(const struct proc_ctx *pc, FILE *out)
{
    return show_all(pc, out, IPC_KIND_MSG,
                    "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  "
                    "cuid  cgid      stime      rtime      ctime\n",
                    show_msg_row);
}

const struct proc_entry proc_sysvipc_entries[] = {
    {.name = "msg", .mode = 0444, .show = show_msg},
    {.name = "sem", .mode = 0444, .show = show_sem},
    {.name = "shm", .mode = 0444, .show = show_shm},
    {0},
};

/* ---- limits ---- */

static int show_limits(const struct proc_ctx *pc, FILE *out, const enum ipc_limit *which,
                       size_t count)
{
    struct ipc_ns *ns;
    int r = reader_ns(pc, &ns);

    if (r)
        return r;
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s%" PRIu64, i ? "\t" : "", ipc_limit_get(ns, which[i]));
    fputc('\n', out);
    ipc_ns_put(ns);
    return 0;
}

/* As many numbers as there are; what is missing stays as it was. */
static int store_numbers(struct ipc_ns *ns, const char *text, const enum ipc_limit *which,
                         size_t count)
{
    int r = 0;

    for (size_t i = 0; i < count && r == 0; i++) {
        char *end;
        errno = 0;
        const unsigned long long v = strtoull(text, &end, 10);
        if (end == text)
            return i ? 0 : -EINVAL;
        r = errno ? -EINVAL : ipc_limit_set(ns, which[i], v);
        text = end;
    }
    return r;
}

static int64_t store_limits(const struct proc_ctx *pc, const char *text, size_t len,
                            const enum ipc_limit *which, size_t count)
{
    struct ipc_ns *ns;
    int r = reader_ns(pc, &ns);

    if (r)
        return r;
    r = cred_capable(pc->c->cred, CAP_SYS_RESOURCE) ? store_numbers(ns, text, which, count)
                                                    : -EPERM;
    ipc_ns_put(ns);
    return r ? r : (int64_t)len;
}

#define LIMITS(name, ...)                                                                          \
    static const enum ipc_limit which_##name[] = {__VA_ARGS__};                                    \
    int proc_show_##name(const struct proc_ctx *pc, FILE *out)                                     \
    {                                                                                              \
        return show_limits(pc, out, which_##name, ARRAY_SIZE(which_##name));                       \
    }                                                                                              \
    int64_t proc_store_##name(const struct proc_ctx *pc, const char *text, size_t len)             \
    {                                                                                              \
        return store_limits(pc, text, len, which_##name, ARRAY_SIZE(which_##name));                \
    }
LIMITS(shmmax, IPC_SHMMAX)
LIMITS(shmall, IPC_SHMALL)
LIMITS(shmmni, IPC_SHMMNI)
LIMITS(sem, IPC_SEMMSL, IPC_SEMMNS, IPC_SEMOPM, IPC_SEMMNI)
LIMITS(msgmax, IPC_MSGMAX)
LIMITS(msgmnb, IPC_MSGMNB)
LIMITS(msgmni, IPC_MSGMNI)
LIMITS(queues_max, IPC_MQ_QUEUES)
LIMITS(msg_max, IPC_MQ_MSGMAX)
LIMITS(msgsize_max, IPC_MQ_SIZEMAX)
LIMITS(msg_default, IPC_MQ_MSGDEFAULT)
LIMITS(msgsize_default, IPC_MQ_SIZEDEFAULT)
