/* /proc itself: the sandbox as a machine (proc(5)). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proc_priv.h"
#include "sentry/kernel/ns.h"

#define SEC_NS 1000000000u

static int show_meminfo(const struct proc_ctx *pc, FILE *out)
{
    struct kernel_info k;

    kernel_info(pc->k, &k);
    const struct {
        const char *name;
        uint64_t bytes;
    } rows[] = {
        {"MemTotal:", k.mem_total},
        {"MemFree:", k.mem_free},
        {"MemAvailable:", k.mem_free},
        {"Buffers:", 0},
        {"Cached:", k.mem_shmem},
        {"SwapCached:", 0},
        {"Active:", k.mem_anon},
        {"Inactive:", 0},
        {"Active(anon):", k.mem_anon},
        {"Inactive(anon):", 0},
        {"Active(file):", 0},
        {"Inactive(file):", 0},
        {"Unevictable:", 0},
        {"Mlocked:", 0},
        {"SwapTotal:", 0},
        {"SwapFree:", 0},
        {"Dirty:", 0},
        {"Writeback:", 0},
        {"AnonPages:", k.mem_anon},
        {"Mapped:", 0},
        {"Shmem:", k.mem_shmem},
        {"KReclaimable:", 0},
        {"Slab:", 0},
        {"SReclaimable:", 0},
        {"SUnreclaim:", 0},
        {"KernelStack:", 0},
        {"PageTables:", 0},
        {"CommitLimit:", k.commit_limit},
        {"Committed_AS:", k.committed},
        {"VmallocTotal:", UINT64_C(34359738367) << 10},
        {"VmallocUsed:", 0},
        {"VmallocChunk:", 0},
        {"AnonHugePages:", 0},
        {"ShmemHugePages:", 0},
        {"FileHugePages:", 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        fprintf(out, "%-16s%8" PRIu64 " kB\n", rows[i].name, rows[i].bytes >> 10);
    fputs("HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\n"
          "HugePages_Surp:        0\nHugepagesize:       2048 kB\nHugetlb:               0 kB\n",
          out);
    return 0;
}

static int show_stat(const struct proc_ctx *pc, FILE *out)
{
    const int64_t offset = pc->c ? kernel_boottime_offset(pc->k, pc->c->pid) : 0;
    struct kernel_info k;

    kernel_info(pc->k, &k);
    fprintf(out, "cpu  %" PRIu64 " 0 %" PRIu64 " %" PRIu64 " 0 0 0 0 0 0\n", proc_ticks(k.user_ns),
            proc_ticks(k.system_ns), proc_ticks(k.idle_ns));
    for (int i = 0; i < k.cpus; i++) {
        uint64_t n = (uint64_t)k.cpus;
        fprintf(out, "cpu%d %" PRIu64 " 0 %" PRIu64 " %" PRIu64 " 0 0 0 0 0 0\n", i,
                proc_ticks(k.user_ns / n), proc_ticks(k.system_ns / n), proc_ticks(k.idle_ns / n));
    }
    fprintf(out, "intr 0\nctxt %" PRIu64 "\nbtime %" PRIu64 "\nprocesses %" PRIu64 "\n",
            k.context_switches, (k.boot_realtime_ns - (uint64_t)offset) / SEC_NS, k.forks);
    fprintf(out, "procs_running %u\nprocs_blocked %u\n", k.running, k.blocked);
    return 0;
}

static void seconds(FILE *out, uint64_t ns, const char *end)
{
    fprintf(out, "%" PRIu64 ".%02" PRIu64 "%s", ns / SEC_NS, ns % SEC_NS / 10000000u, end);
}

static int show_uptime(const struct proc_ctx *pc, FILE *out)
{
    struct kernel_info k;

    kernel_info(pc->k, &k);
    seconds(out, proc_since_boot(pc, k.uptime_ns), " ");
    seconds(out, k.idle_ns, "\n");
    return 0;
}

static int show_loadavg(const struct proc_ctx *pc, FILE *out)
{
    struct kernel_info k;
    uint32_t loads[3];

    kernel_info(pc->k, &k);
    kernel_loads(pc->k, loads);
    for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
        const uint32_t v = loads[i] + KERNEL_LOAD_ONE / 200;
        fprintf(out, "%u.%02u ", v / KERNEL_LOAD_ONE, v % KERNEL_LOAD_ONE * 100 / KERNEL_LOAD_ONE);
    }
    fprintf(out, "%u/%u %d\n", k.running, k.tasks, k.last_pid);
    return 0;
}

static int show_version(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fprintf(out, "Linux version %s (ringwall) %s\n", kernel_release(), kernel_version());
    return 0;
}

static int show_filesystems(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fputs("nodev\tproc\nnodev\ttmpfs\nnodev\tdevpts\nnodev\tdevtmpfs\nnodev\tsysfs\n"
          "nodev\toverlay\nnodev\tmqueue\nnodev\tpipefs\n"
          "nodev\tsockfs\n",
          out);
    return 0;
}

static int show_cmdline(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fputc('\n', out);
    return 0;
}

static int show_devices(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fputs("Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\n"
          "Block devices:\n",
          out);
    return 0;
}

static int show_swaps(const struct proc_ctx *pc, FILE *out)
{
    (void)pc;
    fputs("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n", out);
    return 0;
}

static int64_t readlink_self(const struct proc_ctx *pc, char *buf, size_t size)
{
    const int32_t tgid = pc->c ? kernel_pid_out(pc->k, pc->ns, pc->c->tgid) : 0;

    return tgid ? snprintf(buf, size, "%d", tgid) : -ENOENT;
}

static int64_t readlink_thread_self(const struct proc_ctx *pc, char *buf, size_t size)
{
    const int32_t tgid = pc->c ? kernel_pid_out(pc->k, pc->ns, pc->c->tgid) : 0;

    return tgid ? snprintf(buf, size, "%d/task/%d", tgid, kernel_pid_out(pc->k, pc->ns, pc->c->pid))
                : -ENOENT;
}

static int64_t readlink_mounts(const struct proc_ctx *pc, char *buf, size_t size)
{
    (void)pc;
    return snprintf(buf, size, "self/mounts");
}

static int64_t readlink_net(const struct proc_ctx *pc, char *buf, size_t size)
{
    (void)pc;
    return snprintf(buf, size, "self/net");
}

const struct proc_entry proc_root_entries[] = {
    {.name = "cmdline", .mode = 0444, .show = show_cmdline},
    {.name = "cpuinfo", .mode = 0444, .show = proc_show_cpuinfo},
    {.name = "devices", .mode = 0444, .show = show_devices},
    {.name = "filesystems", .mode = 0444, .show = show_filesystems},
    {.name = "loadavg", .mode = 0444, .show = show_loadavg},
    {.name = "locks", .mode = 0444, .show = proc_show_locks},
    {.name = "meminfo", .mode = 0444, .show = show_meminfo},
    {.name = "mounts", .mode = 0777, .readlink = readlink_mounts},
    {.name = "net", .mode = 0777, .readlink = readlink_net},
    {.name = "self", .mode = 0777, .readlink = readlink_self},
    {.name = "stat", .mode = 0444, .show = show_stat},
    {.name = "swaps", .mode = 0444, .show = show_swaps},
    {.name = "sys", .mode = 0555, .children = proc_sys_entries},
    {.name = "sysvipc", .mode = 0555, .children = proc_sysvipc_entries},
    {.name = "thread-self", .mode = 0777, .readlink = readlink_thread_self},
    {.name = "uptime", .mode = 0444, .show = show_uptime},
    {.name = "version", .mode = 0444, .show = show_version},
    {0},
};
