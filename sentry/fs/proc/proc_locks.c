/* /proc/locks and the settings of leases and of directory notification (proc(5)). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/sysmacros.h>

#include "proc_priv.h"
#include "sentry/kernel/dnotify.h"
#include "sentry/kernel/ns.h"
#include "sentry/vfs/lease.h"

static const char *lock_type(int type)
{
    return type == F_WRLCK ? "WRITE" : type == F_RDLCK ? "READ" : "UNLCK";
}

static void put_lock(const struct vfs_lock_info *l, uint64_t number, int32_t pid, FILE *out)
{
    fprintf(out, "%" PRIu64 ": %s%s %-10s%s %d %02x:%02x:%" PRIu64 " %" PRIi64, number,
            l->waits ? "-> " : "", l->kind, l->how, lock_type(l->type), pid, major(l->dev),
            minor(l->dev), l->ino, l->start);
    if (l->end == INT64_MAX)
        fputs(" EOF\n", out);
    else
        fprintf(out, " %" PRIi64 "\n", l->end);
}

/* Those of processes that the reader does not see are left out. */
int proc_show_locks(const struct proc_ctx *pc, FILE *out)
{
    struct vfs_lock_info *v = NULL;
    const int64_t n = vfs_locks(&v);
    uint64_t number = 0;

    for (int64_t k = 0; k < n; k++) {
        const int32_t pid = v[k].pid > 0 ? kernel_pid_out(pc->k, pc->ns, v[k].pid) : v[k].pid;
        number += v[k].waits ? 0 : 1;
        if (pid != 0)
            put_lock(&v[k], number, pid, out);
    }
    free(v);
    return n < 0 ? (int)n : 0;
}

/* One number from 0 to max, from somebody who may set it: len, or an error. */
static int64_t setting(const struct proc_ctx *pc, const char *text, size_t len, unsigned long max,
                       uint32_t *out)
{
    char *end;
    const unsigned long v = strtoul(text, &end, 10);

    if (!pc->c || !cred_capable(pc->c->cred, CAP_SYS_ADMIN))
        return -EPERM;
    if (end == text || (*end != '\0' && *end != '\n') || *text == '-' || v > max)
        return -EINVAL;
    *out = (uint32_t)v;
    return (int64_t)len;
}

int proc_show_dir_notify(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fprintf(out, "%u\n", atomic_load(&file_notify_enabled));
    return 0;
}

int64_t proc_store_dir_notify(const struct proc_ctx *pc, const char *text, size_t len)
{
    uint32_t v;
    const int64_t r = setting(pc, text, len, INT32_MAX, &v);

    if (r > 0)
        atomic_store(&file_notify_enabled, v);
    return r;
}

int proc_show_lease_time(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fprintf(out, "%u\n", atomic_load(&lease_break_time));
    return 0;
}

int64_t proc_store_lease_time(const struct proc_ctx *pc, const char *text, size_t len)
{
    uint32_t v;
    const int64_t r = setting(pc, text, len, INT32_MAX, &v);

    if (r > 0)
        atomic_store(&lease_break_time, v);
    return r;
}

int proc_show_leases(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fprintf(out, "%d\n", atomic_load(&lease_enabled));
    return 0;
}

int64_t proc_store_leases(const struct proc_ctx *pc, const char *text, size_t len)
{
    uint32_t v;
    const int64_t r = setting(pc, text, len, 1, &v);

    if (r > 0)
        atomic_store(&lease_enabled, v != 0);
    return r;
}
