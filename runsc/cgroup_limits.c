/* The limits of a container's resources, written into files of its cgroup. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "runsc/cgroup_priv.h"

#define DEFAULT_PERIOD_US 100000u

static int cgroup_limit(const char *dir, const char *file, const char *no_limit, int64_t v,
                        struct err *e)
{
    if (v == INT64_MAX)
        return cgroup_write(dir, file, e, "%s", no_limit);
    return cgroup_write(dir, file, e, "%" PRId64, v);
}

/* memory alone may never be above memory plus swap: what grows is written in the other order. */
static int cgroup_memory_v1(const char *dir, const struct oci_resources *r, struct err *e)
{
    static const char limit[] = "memory.limit_in_bytes", swap[] = "memory.memsw.limit_in_bytes";
    bool swap_first = false;

    if (r->memory_limit > 0 && cgroup_limit(dir, limit, "-1", r->memory_limit, e) != 0) {
        if (e->code != EINVAL || r->memory_swap <= 0)
            return -1;
        swap_first = true;
    }
    if (r->memory_swap > 0 && cgroup_limit(dir, swap, "-1", r->memory_swap, e) != 0)
        return -1;
    if (swap_first && cgroup_limit(dir, limit, "-1", r->memory_limit, e) != 0)
        return -1;
    if (r->has_swappiness && cgroup_write(dir, "memory.swappiness", e, "%u", r->swappiness) != 0)
        return -1;
    if (r->memory_reservation > 0)
        return cgroup_limit(dir, "memory.soft_limit_in_bytes", "-1", r->memory_reservation, e);
    return 0;
}

static int cgroup_cpu_v1(const char *dir, const struct oci_resources *r, struct err *e)
{
    int rc = 0;

    if (r->cpu_shares != 0)
        rc = cgroup_write(dir, "cpu.shares", e, "%" PRIu64, r->cpu_shares);
    if (rc == 0 && r->cpu_period != 0)
        rc = cgroup_write(dir, "cpu.cfs_period_us", e, "%" PRIu64, r->cpu_period);
    if (rc == 0 && r->cpu_quota > 0)
        rc = cgroup_limit(dir, "cpu.cfs_quota_us", "-1", r->cpu_quota, e);
    if (rc == 0 && r->cpu_burst != 0)
        rc = cgroup_write(dir, "cpu.cfs_burst_us", e, "%" PRIu64, r->cpu_burst);
    if (rc == 0 && r->rt_period != 0)
        rc = cgroup_write(dir, "cpu.rt_period_us", e, "%" PRIu64, r->rt_period);
    if (rc == 0 && r->rt_runtime > 0)
        rc = cgroup_write(dir, "cpu.rt_runtime_us", e, "%" PRId64, r->rt_runtime);
    if (rc == 0 && r->has_cpu_idle)
        rc = cgroup_write(dir, "cpu.idle", e, "%d", r->cpu_idle);
    return rc;
}

static int cgroup_memory_v2(const char *dir, const struct oci_resources *r, struct err *e)
{
    int rc = 0;

    if (r->memory_limit > 0)
        rc = cgroup_limit(dir, "memory.max", "max", r->memory_limit, e);
    /* The unified hierarchy counts swap alone, the specification memory and swap together. */
    if (rc == 0 && r->memory_swap > 0)
        rc = cgroup_limit(dir, "memory.swap.max", "max",
                          r->memory_swap == INT64_MAX || r->memory_limit <= 0
                              ? INT64_MAX
                              : r->memory_swap - r->memory_limit,
                          e);
    if (rc == 0 && r->memory_reservation > 0)
        rc = cgroup_limit(dir, "memory.low", "max", r->memory_reservation, e);
    return rc;
}

static int cgroup_cpu_v2(const char *dir, const struct oci_resources *r, struct err *e)
{
    uint64_t period = r->cpu_period != 0 ? r->cpu_period : DEFAULT_PERIOD_US;
    int rc = 0;

    /* cpu.shares 2..262144 to cpu.weight 1..10000, as the runtimes agreed on. */
    if (r->cpu_shares >= 2)
        rc =
            cgroup_write(dir, "cpu.weight", e, "%" PRIu64, 1 + (r->cpu_shares - 2) * 9999 / 262142);
    if (rc == 0 && r->has_cpu_idle)
        rc = cgroup_write(dir, "cpu.idle", e, "%d", r->cpu_idle);
    if (rc == 0 && r->cpu_burst != 0)
        rc = cgroup_write(dir, "cpu.max.burst", e, "%" PRIu64, r->cpu_burst);
    if (rc != 0 || (r->cpu_quota <= 0 && r->cpu_period == 0))
        return rc;
    if (r->cpu_quota <= 0 || r->cpu_quota == INT64_MAX)
        return cgroup_write(dir, "cpu.max", e, "max %" PRIu64, period);
    return cgroup_write(dir, "cpu.max", e, "%" PRId64 " %" PRIu64, r->cpu_quota, period);
}

static int cgroup_cpuset(const char *dir, const struct oci_resources *r, struct err *e)
{
    if (r->cpuset_cpus != NULL && cgroup_write(dir, "cpuset.cpus", e, "%s", r->cpuset_cpus) != 0)
        return -1;
    if (r->cpuset_mems != NULL)
        return cgroup_write(dir, "cpuset.mems", e, "%s", r->cpuset_mems);
    return 0;
}

static const char *const blkio_v1[OCI_BLKIO_KINDS] = {
    [OCI_BLKIO_READ_BPS] = "blkio.throttle.read_bps_device",
    [OCI_BLKIO_WRITE_BPS] = "blkio.throttle.write_bps_device",
    [OCI_BLKIO_READ_IOPS] = "blkio.throttle.read_iops_device",
    [OCI_BLKIO_WRITE_IOPS] = "blkio.throttle.write_iops_device",
};
static const char *const blkio_v2[OCI_BLKIO_KINDS] = {
    [OCI_BLKIO_READ_BPS] = "rbps",
    [OCI_BLKIO_WRITE_BPS] = "wbps",
    [OCI_BLKIO_READ_IOPS] = "riops",
    [OCI_BLKIO_WRITE_IOPS] = "wiops",
};

/* Which of two names the weight has depends on the scheduler the host was built with. */
static int cgroup_blkio_weight(const struct hierarchy *h, const char *dir, unsigned int weight,
                               struct err *e)
{
    const char *bfq = h->v2 ? "io.bfq.weight" : "blkio.bfq.weight";
    const char *plain = h->v2 ? "io.weight" : "blkio.weight";
    int fd = cgroup_open(dir, bfq, O_WRONLY);

    if (fd >= 0)
        (void)close(fd);
    return cgroup_write(dir, fd >= 0 ? bfq : plain, e, "%u", weight);
}

static int cgroup_blkio(const struct hierarchy *h, const char *dir, const struct oci_resources *r,
                        struct err *e)
{
    int rc = 0;

    if (r->blkio_weight != 0)
        rc = cgroup_blkio_weight(h, dir, r->blkio_weight, e);
    for (size_t i = 0; rc == 0 && i < r->throttle_count; i++) {
        const struct oci_throttle *t = &r->throttles[i];
        if (h->v2)
            rc = cgroup_write(dir, "io.max", e, "%u:%u %s=%" PRIu64, t->major, t->minor,
                              blkio_v2[t->kind], t->rate);
        else
            rc = cgroup_write(dir, blkio_v1[t->kind], e, "%u:%u %" PRIu64, t->major, t->minor,
                              t->rate);
    }
    return rc;
}

/* pids counts guest tasks, each of which is two host threads: a sentry thread and a stub. Here is
 * room for both and for our helpers. */
static int cgroup_pids(const char *dir, const struct oci_resources *r, struct err *e)
{
    if (r->pids_limit <= 0)
        return 0;
    int64_t v = r->pids_limit > (INT64_MAX - 64) / 2 ? INT64_MAX : 2 * r->pids_limit + 64;
    return cgroup_limit(dir, "pids.max", "max", v, e);
}

/* resources.unified: files of the unified hierarchy by name. */
static int cgroup_unified(const char *dir, const struct oci_resources *r, struct err *e)
{
    for (size_t i = 0; i < r->unified.count; i++)
        if (cgroup_write(dir, r->unified.v[i].key, e, "%s", r->unified.v[i].value) != 0)
            return -1;
    return 0;
}

int cgroup_set_limits(const struct hierarchy *h, const char *dir, const struct oci_resources *r,
                      struct err *e)
{
    int rc = 0;

    if (h->memory)
        rc = h->v2 ? cgroup_memory_v2(dir, r, e) : cgroup_memory_v1(dir, r, e);
    if (rc == 0 && h->cpu)
        rc = h->v2 ? cgroup_cpu_v2(dir, r, e) : cgroup_cpu_v1(dir, r, e);
    if (rc == 0 && h->cpuset)
        rc = cgroup_cpuset(dir, r, e);
    if (rc == 0 && h->blkio)
        rc = cgroup_blkio(h, dir, r, e);
    if (rc == 0 && h->pids)
        rc = cgroup_pids(dir, r, e);
    if (rc == 0 && h->v2)
        rc = cgroup_unified(dir, r, e);
    return rc;
}
