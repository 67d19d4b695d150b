/* /proc itself, the lesser entries: what programs read of memory, disks, interrupts and the
 * kernel's making. There are no disks, no modules and no interrupts here, and so it says. */
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

#include "proc_priv.h"
#include "sentry/kernel/cgroup.h"

static int show_vmstat(const struct proc_ctx *pc, FILE *out)
{
    struct kernel_info k;

    kernel_info(pc->k, &k);
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"nr_free_pages", k.mem_free >> PAGE_SHIFT},
        {"nr_inactive_anon", 0},
        {"nr_active_anon", k.mem_anon >> PAGE_SHIFT},
        {"nr_inactive_file", 0},
        {"nr_active_file", 0},
        {"nr_unevictable", 0},
        {"nr_mlock", 0},
        {"nr_anon_pages", k.mem_anon >> PAGE_SHIFT},
        {"nr_mapped", 0},
        {"nr_file_pages", k.mem_shmem >> PAGE_SHIFT},
        {"nr_dirty", 0},
        {"nr_writeback", 0},
        {"nr_shmem", k.mem_shmem >> PAGE_SHIFT},
        {"pgpgin", 0},
        {"pgpgout", 0},
        {"pswpin", 0},
        {"pswpout", 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        fprintf(out, "%s %" PRIu64 "\n", rows[i].name, rows[i].value);
    return 0;
}

static int show_per_cpu_head(const struct proc_ctx *pc, FILE *out, int indent)
{
    struct kernel_info k;

    kernel_info(pc->k, &k);
    fprintf(out, "%*s", indent, "");
    for (int i = 0; i < k.cpus; i++)
        fprintf(out, "CPU%-8d", i);
    fputc('\n', out);
    return k.cpus;
}

static int show_interrupts(const struct proc_ctx *pc, FILE *out)
{
    (void)show_per_cpu_head(pc, out, 11);
    return 0;
}

static int show_softirqs(const struct proc_ctx *pc, FILE *out)
{
    static const char *const rows[] = {"HI",       "TIMER",   "NET_TX", "NET_RX",  "BLOCK",
                                       "IRQ_POLL", "TASKLET", "SCHED",  "HRTIMER", "RCU"};
    int cpus = show_per_cpu_head(pc, out, 20);

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        fprintf(out, "%12s:", rows[i]);
        for (int c = 0; c < cpus; c++)
            fprintf(out, " %10u", 0u);
        fputc('\n', out);
    }
    return 0;
}

static int show_schedstat(const struct proc_ctx *pc, FILE *out)
{
    struct kernel_info k;

    kernel_info(pc->k, &k);
    fprintf(out, "version 15\ntimestamp %" PRIu64 "\n", k.uptime_ns / 4000000u);
    for (int i = 0; i < k.cpus; i++) {
        uint64_t n = (uint64_t)k.cpus;
        fprintf(out, "cpu%d 0 0 0 0 0 0 %" PRIu64 " 0 %" PRIu64 "\n", i,
                (k.user_ns + k.system_ns) / n, k.context_switches / n);
    }
    return 0;
}

/* As Linux booted with psi=0. */
static int show_no_pressure(const struct proc_ctx *pc, FILE *out)
{
    (void)pc, (void)out;
    return -EOPNOTSUPP;
}

/* Page frames are the host's: nobody in a sandbox is privileged enough. */
static int open_frames(const struct proc_ctx *pc, struct file *f, const struct vfs_caller *c)
{
    (void)pc, (void)f, (void)c;
    return -EPERM;
}

static int show_kmsg(const struct proc_ctx *pc, FILE *out)
{
    if (pc->c == NULL || !cred_capable(pc->c->cred, CAP_SYSLOG))
        return -EPERM;
    fprintf(out, "<5>[    0.000000] Linux version %s (ringwall) %s\n", kernel_release(),
            kernel_version());
    return 0;
}

static int show_cgroups(const struct proc_ctx *pc, FILE *out)
{
    return cgroup_show_controllers(pc->k, out);
}

/* ---- config.gz: a gzip file that is not compressed ---- */

static const char config_text[] = "CONFIG_64BIT=y\n"
                                  "CONFIG_X86_64=y\n"
                                  "CONFIG_SMP=y\n"
                                  "CONFIG_MMU=y\n"
                                  "CONFIG_BINFMT_ELF=y\n"
                                  "CONFIG_BINFMT_SCRIPT=y\n"
                                  "CONFIG_SYSVIPC=y\n"
                                  "CONFIG_POSIX_MQUEUE=y\n"
                                  "CONFIG_FUTEX=y\n"
                                  "CONFIG_EPOLL=y\n"
                                  "CONFIG_SIGNALFD=y\n"
                                  "CONFIG_TIMERFD=y\n"
                                  "CONFIG_EVENTFD=y\n"
                                  "CONFIG_SHMEM=y\n"
                                  "CONFIG_TMPFS=y\n"
                                  "CONFIG_TMPFS_XATTR=y\n"
                                  "CONFIG_PROC_FS=y\n"
                                  "CONFIG_PROC_SYSCTL=y\n"
                                  "CONFIG_SYSFS=y\n"
                                  "CONFIG_OVERLAY_FS=y\n"
                                  "# CONFIG_OVERLAY_FS_REDIRECT_DIR is not set\n"
                                  "CONFIG_OVERLAY_FS_REDIRECT_ALWAYS_FOLLOW=y\n"
                                  "# CONFIG_OVERLAY_FS_INDEX is not set\n"
                                  "CONFIG_UNIX98_PTYS=y\n"
                                  "CONFIG_NET=y\n"
                                  "CONFIG_UNIX=y\n"
                                  "CONFIG_IKCONFIG=y\n"
                                  "CONFIG_IKCONFIG_PROC=y\n"
                                  "# CONFIG_MODULES is not set\n"
                                  "# CONFIG_SWAP is not set\n"
                                  "# CONFIG_BLOCK is not set\n";

/* RFC 1952: the checksum of gzip. */
static uint32_t crc32_of(const char *data, size_t size)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < size; i++) {
        crc ^= (unsigned char)data[i];
        for (int b = 0; b < 8; b++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void put_le(FILE *out, uint32_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        fputc((int)(v >> 8 * i & 0xff), out);
}

static int show_config(const struct proc_ctx *pc, FILE *out)
{
    static const unsigned char head[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};
    const size_t size = sizeof(config_text) - 1;

    _Static_assert(sizeof(config_text) < 65536, "one stored block");
    (void)pc;
    fwrite(head, 1, sizeof(head), out);
    fputc(1, out); /* the last block, stored */
    put_le(out, (uint32_t)size, 2);
    put_le(out, ~(uint32_t)size, 2);
    fwrite(config_text, 1, size, out);
    put_le(out, crc32_of(config_text, size), 4);
    put_le(out, (uint32_t)size, 4);
    return 0;
}

/* ---- tables ---- */

static const struct proc_entry pressure_entries[] = {
    {.name = "cpu", .mode = 0444, .show = show_no_pressure},
    {.name = "io", .mode = 0444, .show = show_no_pressure},
    {.name = "memory", .mode = 0444, .show = show_no_pressure},
    {0},
};

static const struct proc_entry tty_entries[] = {
    {.name = "drivers",
     .mode = 0444,
     .text = "/dev/tty             /dev/tty        5       0 system:/dev/tty\n"
             "/dev/console         /dev/console    5       1 system:console\n"
             "/dev/ptmx            /dev/ptmx       5       2 system\n"
             "pty_slave            /dev/pts      136 0-1048575 pty:slave\n"
             "pty_master           /dev/ptm      128 0-1048575 pty:master\n"},
    {.name = "ldiscs", .mode = 0444, .text = "n_tty       0\n"},
    {0},
};

/* Directories that are there for what could be in them. */
static const struct proc_entry no_entries[] = {{0}};

const struct proc_entry proc_machine_entries[] = {
    {.name = "cgroups", .mode = 0444, .show = show_cgroups},
    {.name = "config.gz", .mode = 0444, .show = show_config},
    {.name = "diskstats", .mode = 0444, .text = ""},
    {.name = "execdomains", .mode = 0444, .text = "0-0\tLinux           \t[kernel]\n"},
    {.name = "fs", .mode = 0555, .children = no_entries},
    {.name = "interrupts", .mode = 0444, .show = show_interrupts},
    {.name = "irq", .mode = 0555, .children = no_entries},
    {.name = "kallsyms", .mode = 0444, .text = ""},
    {.name = "kmsg", .mode = 0400, .show = show_kmsg},
    {.name = "kpagecgroup", .mode = 0400, .open = open_frames},
    {.name = "kpagecount", .mode = 0400, .open = open_frames},
    {.name = "kpageflags", .mode = 0400, .open = open_frames},
    {.name = "partitions", .mode = 0444, .text = "major minor  #blocks  name\n\n"},
    {.name = "pressure", .mode = 0555, .children = pressure_entries},
    {.name = "schedstat", .mode = 0444, .show = show_schedstat},
    {.name = "softirqs", .mode = 0444, .show = show_softirqs},
    {.name = "tty", .mode = 0555, .children = tty_entries},
    {.name = "vmstat", .mode = 0444, .show = show_vmstat},
    {0},
};
