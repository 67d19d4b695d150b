/* The limits of a container's resources, written into files of its cgroup. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runsc/cgroup_priv.h"

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

/* What a file says now; "max" is INT64_MAX. */
static int64_t cgroup_current(const char *dir, const char *file)
{
    char text[64], *end;

    if (cgroup_read(dir, file, text, sizeof(text)) != 0)
        return INT64_MAX;
    const int64_t v = strtoll(text, &end, 10);
    return end == text ? INT64_MAX : v;
}

/* The unified hierarchy counts swap alone, the specification memory and swap together. */
static int cgroup_swap_v2(const char *dir, const struct oci_resources *r, struct err *e)
{
    static const char file[] = "memory.swap.max";
    const int64_t limit = r->memory_limit > 0 ? r->memory_limit : cgroup_current(dir, "memory.max");

    if (r->memory_swap == INT64_MAX)
        return cgroup_limit(dir, file, "max", INT64_MAX, e);
    if (r->memory_swap < limit)
        return err_set(e, EINVAL, "linux.resources.memory.swap is below the memory limit");
    return cgroup_limit(dir, file, "max", r->memory_swap - limit, e);
}

static int cgroup_memory_v2(const char *dir, const struct oci_resources *r, struct err *e)
{
    int rc = 0;

    if (r->memory_limit > 0)
        rc = cgroup_limit(dir, "memory.max", "max", r->memory_limit, e);
    if (rc == 0 && r->memory_swap > 0)
        rc = cgroup_swap_v2(dir, r, e);
    if (rc == 0 && r->memory_reservation > 0)
        rc = cgroup_limit(dir, "memory.low", "max", r->memory_reservation, e);
    return rc;
}

/* Quota and period are one file. A quota that is written alone leaves the period. */
static int cgroup_cpu_max(const char *dir, const struct oci_resources *r, struct err *e)
{
    const int64_t quota = r->cpu_quota > 0 ? r->cpu_quota : cgroup_current(dir, "cpu.max");

    if (r->cpu_quota <= 0 && r->cpu_period == 0)
        return 0;
    if (r->cpu_period == 0)
        return cgroup_limit(dir, "cpu.max", "max", quota, e);
    if (quota == INT64_MAX)
        return cgroup_write(dir, "cpu.max", e, "max %" PRIu64, r->cpu_period);
    return cgroup_write(dir, "cpu.max", e, "%" PRId64 " %" PRIu64, quota, r->cpu_period);
}

static int cgroup_cpu_v2(const char *dir, const struct oci_resources *r, struct err *e)
{
    int rc = 0;

    /* cpu.shares 2..262144 to cpu.weight 1..10000, as the runtimes agreed on. */
    if (r->cpu_shares >= 2)
        rc =
            cgroup_write(dir, "cpu.weight", e, "%" PRIu64, 1 + (r->cpu_shares - 2) * 9999 / 262142);
    if (rc == 0 && r->has_cpu_idle)
        rc = cgroup_write(dir, "cpu.idle", e, "%d", r->cpu_idle);
    if (rc == 0 && r->cpu_burst != 0)
        rc = cgroup_write(dir, "cpu.max.burst", e, "%" PRIu64, r->cpu_burst);
    return rc == 0 ? cgroup_cpu_max(dir, r, e) : rc;
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
        if (strchr(r->unified.v[i].key, '/') != NULL)
            return err_set(e, EINVAL, "linux.resources.unified: \"%s\" is no file of a cgroup",
                           r->unified.v[i].key);
        else if (cgroup_write(dir, r->unified.v[i].key, e, "%s", r->unified.v[i].value) != 0)
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
