/* /proc/sys, the lesser entries: what programs read of limits, and what a sandbox may be told. A
 * setting that nothing would follow cannot be written. */
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"
#include "proc_priv.h"
#include "sentry/mem/commit.h"

#define TEXT(name_, text_)                                                                         \
    {                                                                                              \
        .name = (name_), .mode = 0444, .text = (text_ "\n")                                        \
    }
#define STRING_(x) #x
#define STRING(x) STRING_(x)

/* ---- fs ---- */

static uint64_t count_fds(struct task *t)
{
    struct fdtable *fdt = task_get_fdtable(t);
    const struct vfs_caller none = {0};
    uint64_t n = 0;

    if (!fdt)
        return 0;
    for (int fd = -1; (fd = fdtable_next(fdt, fd + 1)) >= 0;)
        n++;
    fdtable_put(fdt, &none);
    return n;
}

/* Descriptors rather than files: nothing counts those. */
static int show_file_nr(const struct proc_ctx *pc, FILE *out)
{
    uint64_t n = 0;

    for (int32_t pid = 0; (pid = kernel_next_tgid(pc->k, pid + 1)) > 0;) {
        struct task *t;
        if (kernel_find_task(pc->k, pid, false, &t))
            continue;
        n += count_fds(t);
        task_put(t);
    }
    fprintf(out, "%" PRIu64 "\t0\t%" PRIi64 "\n", n, INT64_MAX);
    return 0;
}

static const struct proc_entry epoll_entries[] = {
    TEXT("max_user_watches", STRING(LIMIT_EPOLL_ITEMS)),
    {0},
};

const struct proc_entry proc_settings_fs[] = {
    {.name = "dir-notify-enable",
     .mode = 0644,
     .show = proc_show_dir_notify,
     .store = proc_store_dir_notify},
    {.name = "epoll", .mode = 0555, .children = epoll_entries},
    {.name = "file-nr", .mode = 0444, .show = show_file_nr},
    {.name = "lease-break-time",
     .mode = 0644,
     .show = proc_show_lease_time,
     .store = proc_store_lease_time},
    {.name = "leases-enable", .mode = 0644, .show = proc_show_leases, .store = proc_store_leases},
    TEXT("mount-max", STRING(LIMIT_MOUNTS)),
    TEXT("overflowgid", "65534"),
    TEXT("overflowuid", "65534"),
    TEXT("pipe-user-pages-hard", "0"),
    TEXT("pipe-user-pages-soft", "16384"),
    TEXT("protected_fifos", "0"),
    TEXT("protected_regular", "0"),
    TEXT("protected_symlinks", "0"),
    {0},
};

/* ---- kernel ---- */

/* One number for the life of the sandbox, which nobody can guess. */
static int show_boot_id(const struct proc_ctx *pc, FILE *out)
{
    const uint64_t v[2] = {hash_seeded_u64(0x626f6f74, 0), hash_seeded_u64(0x626f6f74, 1)};
    uint8_t b[16];

    (void)pc;
    memcpy(b, v, sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    for (size_t i = 0; i < sizeof(b); i++)
        fprintf(out, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
    fputc('\n', out);
    return 0;
}

static const struct proc_entry pty_entries[] = {
    TEXT("max", STRING(LIMIT_PTYS)),
    TEXT("reserve", "0"),
    {0},
};

const struct proc_entry proc_settings_random[] = {
    {.name = "boot_id", .mode = 0444, .show = show_boot_id},
    TEXT("entropy_avail", "256"),
    TEXT("poolsize", "256"),
    {0},
};

const struct proc_entry proc_settings_kernel[] = {
    TEXT("dmesg_restrict", "1"),
    TEXT("kptr_restrict", "2"),
    TEXT("modules_disabled", "1"),
    TEXT("panic", "0"),
    TEXT("perf_event_paranoid", "3"),
    TEXT("printk", "4\t4\t1\t7"),
    {.name = "pty", .mode = 0555, .children = pty_entries},
    TEXT("sched_rt_period_us", "1000000"),
    TEXT("sched_rt_runtime_us", "950000"),
    TEXT("sysrq", "0"),
    TEXT("threads-max", STRING(LIMIT_TASKS)),
    {0},
};

/* ---- vm ---- */

static int64_t store_drop_caches(const struct proc_ctx *pc, const char *text, size_t len)
{
    char *end;
    long v = strtol(text, &end, 10);

    if (!pc->c || !cred_capable(pc->c->cred, CAP_SYS_ADMIN))
        return -EPERM;
    if (end == text || v < 1 || v > 4)
        return -EINVAL;
    /* 1 means pages, of which none is kept without a file. */
    if (v & 2)
        vfs_drop_caches();
    (void)malloc_trim(0);
    return (int64_t)len;
}

static int show_drop_caches(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fputs("0\n", out);
    return 0;
}

static int show_overcommit(const struct proc_ctx *pc, FILE *out)
{
    const struct mem_commit *c = kernel_commit(pc->k);

    fprintf(out, "%d\n", c ? atomic_load(&c->mode) : 0);
    return 0;
}

static int show_overcommit_ratio(const struct proc_ctx *pc, FILE *out)
{
    const struct mem_commit *c = kernel_commit(pc->k);

    fprintf(out, "%u\n", c ? atomic_load(&c->ratio) : MEM_COMMIT_RATIO_DEFAULT);
    return 0;
}

static int show_overcommit_kbytes(const struct proc_ctx *pc, FILE *out)
{
    const struct mem_commit *c = kernel_commit(pc->k);

    fprintf(out, "%" PRIu64 "\n", c ? atomic_load(&c->kbytes) : 0);
    return 0;
}

/* One number from 0 to max; *out_commit is whose setting it is. */
static int overcommit_value(const struct proc_ctx *pc, const char *text, uint64_t max,
                            uint64_t *out, struct mem_commit **out_commit)
{
    char *end;
    const long long v = strtoll(text, &end, 10);

    *out_commit = kernel_commit(pc->k);
    if (!pc->c || !cred_capable(pc->c->cred, CAP_SYS_ADMIN) || !*out_commit)
        return -EPERM;
    if (end == text || (*end != '\0' && *end != '\n') || v < 0 || (uint64_t)v > max)
        return -EINVAL;
    *out = (uint64_t)v;
    return 0;
}

static int64_t store_overcommit(const struct proc_ctx *pc, const char *text, size_t len)
{
    struct mem_commit *c;
    uint64_t v;
    int r = overcommit_value(pc, text, MEM_COMMIT_NEVER, &v, &c);

    if (r)
        return r;
    atomic_store(&c->mode, (int)v);
    return (int64_t)len;
}

static int64_t store_overcommit_ratio(const struct proc_ctx *pc, const char *text, size_t len)
{
    struct mem_commit *c;
    uint64_t v;
    int r = overcommit_value(pc, text, INT32_MAX, &v, &c);

    if (r)
        return r;
    mem_commit_set_ratio(c, (unsigned)v);
    return (int64_t)len;
}

static int64_t store_overcommit_kbytes(const struct proc_ctx *pc, const char *text, size_t len)
{
    struct mem_commit *c;
    uint64_t v;
    int r = overcommit_value(pc, text, UINT64_MAX >> 11, &v, &c);

    if (r)
        return r;
    mem_commit_set_kbytes(c, v);
    return (int64_t)len;
}

const struct proc_entry proc_settings_vm[] = {
    TEXT("dirty_background_ratio", "10"),
    TEXT("dirty_expire_centisecs", "3000"),
    TEXT("dirty_ratio", "20"),
    TEXT("dirty_writeback_centisecs", "500"),
    {.name = "drop_caches", .mode = 0644, .show = show_drop_caches, .store = store_drop_caches},
    TEXT("nr_hugepages", "0"),
    TEXT("nr_overcommit_hugepages", "0"),
    TEXT("oom_kill_allocating_task", "0"),
    {.name = "overcommit_kbytes",
     .mode = 0644,
     .show = show_overcommit_kbytes,
     .store = store_overcommit_kbytes},
    {.name = "overcommit_memory", .mode = 0644, .show = show_overcommit, .store = store_overcommit},
    {.name = "overcommit_ratio",
     .mode = 0644,
     .show = show_overcommit_ratio,
     .store = store_overcommit_ratio},
    TEXT("page-cluster", "3"),
    TEXT("panic_on_oom", "0"),
    TEXT("swappiness", "0"),
    TEXT("vfs_cache_pressure", "100"),
    {0},
};
