/* A container's cgroups while it runs: new limits, freezing, joining, counters. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runsc/cgroup_priv.h"

/* Longer than any freezing takes; it fails only on a host that is stuck. */
#define FREEZE_TRIES 5000

/* ---- limits ---- */

/* The first limit that no hierarchy can set, or NULL. */
static const char *cgroup_lacks(const struct oci_resources *r, const struct hierarchy *have)
{
    if (!have->memory && (r->memory_limit > 0 || r->memory_reservation > 0 || r->memory_swap > 0))
        return "memory";
    if (!have->cpu && (r->cpu_shares != 0 || r->cpu_period != 0 || r->cpu_quota > 0))
        return "cpu";
    if (!have->cpuset && (r->cpuset_cpus != NULL || r->cpuset_mems != NULL))
        return "cpuset";
    if (!have->blkio && (r->blkio_weight != 0 || r->throttle_count > 0))
        return "blockIO";
    if (!have->pids && r->pids_limit > 0 && r->pids_limit != INT64_MAX)
        return "pids";
    return !have->v2 && r->unified.count > 0 ? "unified" : NULL;
}

int cgroup_cover(struct cgroup_dirs d, const struct oci_resources *r, struct err *e)
{
    struct hierarchy h, have = {0};

    for (size_t i = 0; i < d.count; i++) {
        if (!cgroup_find(d.v[i], &h))
            continue;
        have.v2 |= h.v2;
        have.memory |= h.memory;
        have.cpu |= h.cpu;
        have.cpuset |= h.cpuset;
        have.blkio |= h.blkio;
        have.pids |= h.pids;
    }
    const char *lacks = cgroup_lacks(r, &have);
    if (lacks == NULL)
        return 0;
    return err_set(e, ENOTSUP,
                   "linux.resources.%s: the container has no cgroup with that controller "
                   "(--ignore-cgroups goes without)",
                   lacks);
}

int cgroup_update(struct cgroup_dirs d, const struct oci_resources *r, struct err *e)
{
    struct hierarchy h;

    if (cgroup_cover(d, r, e) != 0)
        return -1;
    for (size_t i = 0; i < d.count; i++)
        if (cgroup_find(d.v[i], &h) && cgroup_set_limits(&h, d.v[i], r, e) != 0)
            return -1;
    return 0;
}

int cgroup_enter(struct cgroup_dirs d, struct err *e)
{
    for (size_t i = 0; i < d.count; i++)
        if (cgroup_write(d.v[i], "cgroup.procs", e, "0") != 0)
            return -1;
    return 0;
}

/* ---- freezing ---- */

enum freezer_kind { FREEZER_NONE, FREEZER_V1, FREEZER_V2 };

/* A directory that can freeze: v1's freezer before the unified hierarchy, which is in every mixed
 * layout too and freezes the same processes. */
static enum freezer_kind cgroup_freezer(struct cgroup_dirs d, const char **out_dir)
{
    enum freezer_kind kind = FREEZER_NONE;
    char text[32];

    for (size_t i = 0; i < d.count; i++) {
        if (cgroup_read(d.v[i], "freezer.state", text, sizeof(text)) == 0) {
            *out_dir = d.v[i];
            return FREEZER_V1;
        }
        if (cgroup_read(d.v[i], "cgroup.freeze", text, sizeof(text)) == 0) {
            *out_dir = d.v[i];
            kind = FREEZER_V2;
        }
    }
    return kind;
}

static bool cgroup_has_state(enum freezer_kind kind, const char *dir, bool frozen)
{
    char text[256];

    if (kind == FREEZER_V1)
        return cgroup_read(dir, "freezer.state", text, sizeof(text)) == 0 &&
               strncmp(text, frozen ? "FROZEN" : "THAWED", 6) == 0;
    return cgroup_read(dir, "cgroup.events", text, sizeof(text)) == 0 &&
           strstr(text, frozen ? "frozen 1" : "frozen 0") != NULL;
}

int cgroup_freeze(struct cgroup_dirs d, bool freeze, struct err *e)
{
    static const struct timespec pause = {.tv_nsec = 1000000};
    const char *dir = NULL;
    enum freezer_kind kind = cgroup_freezer(d, &dir);

    if (kind == FREEZER_NONE)
        return err_set(e, ENOTSUP, "the container has no cgroup with a freezer");
    for (int i = 0; i < FREEZE_TRIES; i++) {
        /* Again each time: v1 may stay at FREEZING when a process was made meanwhile. */
        int rc = kind == FREEZER_V1
                     ? cgroup_write(dir, "freezer.state", e, freeze ? "FROZEN" : "THAWED")
                     : cgroup_write(dir, "cgroup.freeze", e, freeze ? "1" : "0");
        if (rc != 0 || cgroup_has_state(kind, dir, freeze))
            return rc;
        (void)nanosleep(&pause, NULL);
    }
    return err_set(e, ETIMEDOUT, "the container's processes do not %s", freeze ? "stop" : "go on");
}

bool cgroup_freezes(struct cgroup_dirs d)
{
    const char *dir;

    return cgroup_freezer(d, &dir) != FREEZER_NONE;
}

bool cgroup_frozen(struct cgroup_dirs d)
{
    const char *dir = NULL;
    enum freezer_kind kind = cgroup_freezer(d, &dir);

    return kind != FREEZER_NONE && cgroup_has_state(kind, dir, true);
}

/* ---- counters ---- */

static void cgroup_number(const char *dir, const char *file, uint64_t *out)
{
    char text[64], *end;

    if (cgroup_read(dir, file, text, sizeof(text)) != 0)
        return;
    uint64_t v = strtoull(text, &end, 10);
    if (end != text)
        *out = v;
}

/* "name value" lines, as in cpu.stat. */
static void cgroup_keyed(const char *dir, const char *file, const char *key, uint64_t scale,
                         uint64_t *out)
{
    char text[1024];
    size_t len = strlen(key);

    if (cgroup_read(dir, file, text, sizeof(text)) != 0)
        return;
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) == 0 && line[len] == ' ') {
            *out = strtoull(line + len + 1, NULL, 10) * scale;
            return;
        }
    }
}

static void cgroup_stats_v1(const char *dir, struct cgroup_stats *s)
{
    cgroup_number(dir, "memory.usage_in_bytes", &s->memory_usage);
    cgroup_number(dir, "memory.limit_in_bytes", &s->memory_limit);
    cgroup_number(dir, "cpuacct.usage", &s->cpu_ns);
    cgroup_keyed(dir, "cpu.stat", "throttled_time", 1, &s->throttled_ns);
}

static void cgroup_stats_v2(const char *dir, struct cgroup_stats *s)
{
    cgroup_number(dir, "memory.current", &s->memory_usage);
    cgroup_number(dir, "memory.max", &s->memory_limit);
    cgroup_keyed(dir, "cpu.stat", "usage_usec", 1000, &s->cpu_ns);
    cgroup_keyed(dir, "cpu.stat", "throttled_usec", 1000, &s->throttled_ns);
}

void cgroup_stats(struct cgroup_dirs d, struct cgroup_stats *out)
{
    struct hierarchy h;

    memset(out, 0xff, sizeof(*out));
    for (size_t i = 0; i < d.count; i++) {
        if (!cgroup_find(d.v[i], &h))
            continue;
        if (h.v2)
            cgroup_stats_v2(d.v[i], out);
        else
            cgroup_stats_v1(d.v[i], out);
        cgroup_number(d.v[i], "pids.current", &out->pids_current);
        cgroup_number(d.v[i], "pids.max", &out->pids_limit);
        cgroup_keyed(d.v[i], "cpu.stat", "nr_throttled", 1, &out->throttled_periods);
        cgroup_keyed(d.v[i], "cpu.stat", "nr_periods", 1, &out->periods);
    }
    /* v1's "no limit" is the largest multiple of a page. */
    if (out->memory_limit > INT64_MAX / 2)
        out->memory_limit = UINT64_MAX;
}
