/* /sys/devices/system: CPUs and the one memory node (Documentation/ABI/stable/sysfs-devices-*). All
 * CPUs are cores of one package, without threads. */
#include <errno.h>
#include <inttypes.h>

#include "proc_priv.h"

static int cpu_count(const struct proc_ctx *pc)
{
    struct kernel_info k;

    kernel_info(pc->k, &k);
    return k.cpus;
}

/* "0-3", or "0". */
static int show_cpu_list(const struct proc_ctx *pc, FILE *out)
{
    int n = cpu_count(pc);

    fprintf(out, n > 1 ? "0-%d\n" : "0\n", n - 1);
    return 0;
}

/* A mask of CPUs first to last, as Linux prints it: words of 32 bits, the highest first. */
static void cpu_mask(FILE *out, int count, int first, int last)
{
    for (int word = (count - 1) / 32; word >= 0; word--) {
        uint32_t bits = 0;
        for (int i = MAX(first, word * 32); i <= MIN(last, word * 32 + 31); i++)
            bits |= 1u << (i & 31);
        int left = MIN(count - word * 32, 32);
        fprintf(out, "%0*x%s", (left + 3) / 4, bits, word > 0 ? "," : "\n");
    }
}

static int show_all_mask(const struct proc_ctx *pc, FILE *out)
{
    int n = cpu_count(pc);

    cpu_mask(out, n, 0, n - 1);
    return 0;
}

static int show_own_mask(const struct proc_ctx *pc, FILE *out)
{
    cpu_mask(out, cpu_count(pc), pc->fd, pc->fd);
    return 0;
}

static int show_own_number(const struct proc_ctx *pc, FILE *out)
{
    fprintf(out, "%d\n", pc->fd);
    return 0;
}

static int32_t list_cpus(const struct proc_ctx *pc, int32_t from)
{
    return from < cpu_count(pc) ? MAX(from, 0) : -ENOENT;
}

static const struct proc_entry topology_entries[] = {
    {.name = "core_cpus", .mode = 0444, .show = show_own_mask},
    {.name = "core_cpus_list", .mode = 0444, .show = show_own_number},
    {.name = "core_id", .mode = 0444, .show = show_own_number},
    {.name = "core_siblings", .mode = 0444, .show = show_all_mask},
    {.name = "core_siblings_list", .mode = 0444, .show = show_cpu_list},
    {.name = "die_id", .mode = 0444, .text = "0\n"},
    {.name = "package_cpus", .mode = 0444, .show = show_all_mask},
    {.name = "package_cpus_list", .mode = 0444, .show = show_cpu_list},
    {.name = "physical_package_id", .mode = 0444, .text = "0\n"},
    {.name = "thread_siblings", .mode = 0444, .show = show_own_mask},
    {.name = "thread_siblings_list", .mode = 0444, .show = show_own_number},
    {0},
};

static const struct proc_entry cpu_entries[] = {
    {.name = "online", .mode = 0444, .text = "1\n"},
    {.name = "topology", .mode = 0555, .children = topology_entries},
    {0},
};

static const struct proc_entry cpu_item = {.name = "cpu", .mode = 0555, .children = cpu_entries};

static const struct proc_entry smt_entries[] = {
    {.name = "active", .mode = 0444, .text = "0\n"},
    {.name = "control", .mode = 0444, .text = "notsupported\n"},
    {0},
};

static const struct proc_entry cpus_entries[] = {
    {.name = "isolated", .mode = 0444, .text = "\n"},
    {.name = "kernel_max", .mode = 0444, .text = "511\n"},
    {.name = "offline", .mode = 0444, .text = "\n"},
    {.name = "online", .mode = 0444, .show = show_cpu_list},
    {.name = "possible", .mode = 0444, .show = show_cpu_list},
    {.name = "present", .mode = 0444, .show = show_cpu_list},
    {.name = "smt", .mode = 0555, .children = smt_entries},
    {0},
};

/* ---- the memory node ---- */

static int show_node_meminfo(const struct proc_ctx *pc, FILE *out)
{
    struct kernel_info k;

    kernel_info(pc->k, &k);
    fprintf(out, "Node 0 MemTotal:       %8" PRIu64 " kB\n", k.mem_total >> 10);
    fprintf(out, "Node 0 MemFree:        %8" PRIu64 " kB\n", k.mem_free >> 10);
    fprintf(out, "Node 0 MemUsed:        %8" PRIu64 " kB\n", (k.mem_total - k.mem_free) >> 10);
    fprintf(out, "Node 0 AnonPages:      %8" PRIu64 " kB\n", k.mem_anon >> 10);
    fprintf(out, "Node 0 Shmem:          %8" PRIu64 " kB\n", k.mem_shmem >> 10);
    return 0;
}

static const struct proc_entry node_entries[] = {
    {.name = "cpulist", .mode = 0444, .show = show_cpu_list},
    {.name = "cpumap", .mode = 0444, .show = show_all_mask},
    {.name = "distance", .mode = 0444, .text = "10\n"},
    {.name = "meminfo", .mode = 0444, .show = show_node_meminfo},
    {0},
};

static const struct proc_entry node_item = {.name = "node", .mode = 0555, .children = node_entries};

static int32_t list_nodes(const struct proc_ctx *pc, int32_t from)
{
    (void)pc;
    return from <= 0 ? 0 : -ENOENT;
}

static const struct proc_entry nodes_entries[] = {
    {.name = "has_cpu", .mode = 0444, .text = "0\n"},
    {.name = "has_memory", .mode = 0444, .text = "0\n"},
    {.name = "has_normal_memory", .mode = 0444, .text = "0\n"},
    {.name = "online", .mode = 0444, .text = "0\n"},
    {.name = "possible", .mode = 0444, .text = "0\n"},
    {0},
};

const struct proc_entry sysfs_system_entries[] = {
    {.name = "cpu",
     .mode = 0555,
     .children = cpus_entries,
     .list = list_cpus,
     .item = &cpu_item,
     .prefix = "cpu"},
    {.name = "node",
     .mode = 0555,
     .children = nodes_entries,
     .list = list_nodes,
     .item = &node_item,
     .prefix = "node"},
    {0},
};
