#include "runsc/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <mntent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* One mounted hierarchy that we use. */
struct hierarchy {
    char dir[120];
    bool v2;
    bool memory, cpu, cpuset, pids;
};

#define HIERARCHIES_MAX 12
/* Longest directory that we make below a hierarchy's root. */
#define CGROUP_DIR_MAX 1800

/* An open file of a cgroup directory, or -1 with errno. */
static int cgroup_open(const char *dir, const char *file, int flags)
{
    char *path;
    int fd;

    if (asprintf(&path, "%s/%s", dir, file) < 0) {
        errno = ENOMEM;
        return -1;
    }
    fd = open(path, flags | O_CLOEXEC);
    free(path);
    return fd;
}

static bool cgroup_has_option(const struct mntent *m, const char *name)
{
    return hasmntopt(m, name) != NULL;
}

/* In a hybrid layout v2 is mounted without controllers: those of v1 then win. */
static size_t cgroup_hierarchies(struct hierarchy *out)
{
    FILE *f = setmntent("/proc/self/mounts", "re");
    size_t count = 0;

    if (f == NULL)
        return 0;
    for (struct mntent *m; count < HIERARCHIES_MAX && (m = getmntent(f)) != NULL;) {
        struct hierarchy h = {0};
        if (strlen(m->mnt_dir) >= sizeof(h.dir))
            continue;
        memcpy(h.dir, m->mnt_dir, strlen(m->mnt_dir) + 1);
        h.v2 = strcmp(m->mnt_type, "cgroup2") == 0;
        if (!h.v2 && strcmp(m->mnt_type, "cgroup") != 0)
            continue;
        h.memory = !h.v2 && cgroup_has_option(m, "memory");
        h.cpu = !h.v2 && cgroup_has_option(m, "cpu");
        h.cpuset = !h.v2 && cgroup_has_option(m, "cpuset");
        h.pids = !h.v2 && cgroup_has_option(m, "pids");
        if (h.v2 || h.memory || h.cpu || h.cpuset || h.pids)
            out[count++] = h;
    }
    (void)endmntent(f);
    return count;
}

/* What a v2 root offers, told by cgroup.controllers. */
static void cgroup_v2_controllers(struct hierarchy *h)
{
    char text[512] = "";
    int fd = cgroup_open(h->dir, "cgroup.controllers", O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

    if (fd >= 0)
        (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    h->memory = strstr(text, "memory") != NULL;
    h->pids = strstr(text, "pids") != NULL;
    h->cpuset = strstr(text, "cpuset") != NULL;
    /* "cpuset" holds "cpu" as well. */
    h->cpu = strstr(text, "cpu ") != NULL || strstr(text, "cpu\n") != NULL;
}

static int cgroup_write(const char *dir, const char *file, struct err *e, const char *fmt, ...)
    PRINTF_FMT(4, 5);

static int cgroup_write(const char *dir, const char *file, struct err *e, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    int rc = 0;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    int fd = cgroup_open(dir, file, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        rc = err_errno(e, errno, "cgroup: cannot set %s to %s", file, text);
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

static int cgroup_limit(const char *dir, const char *file, const char *no_limit, int64_t v,
                        struct err *e)
{
    if (v == INT64_MAX)
        return cgroup_write(dir, file, e, "%s", no_limit);
    return cgroup_write(dir, file, e, "%" PRId64, v);
}

static int cgroup_set_v1(const struct hierarchy *h, const char *dir, const struct oci_resources *r,
                         struct err *e)
{
    int rc = 0;

    if (h->memory && r->memory_limit > 0)
        rc = cgroup_limit(dir, "memory.limit_in_bytes", "-1", r->memory_limit, e);
    if (rc == 0 && h->memory && r->memory_reservation > 0)
        rc = cgroup_limit(dir, "memory.soft_limit_in_bytes", "-1", r->memory_reservation, e);
    if (rc == 0 && h->cpu && r->cpu_shares != 0)
        rc = cgroup_write(dir, "cpu.shares", e, "%" PRIu64, r->cpu_shares);
    if (rc == 0 && h->cpu && r->cpu_period != 0)
        rc = cgroup_write(dir, "cpu.cfs_period_us", e, "%" PRIu64, r->cpu_period);
    if (rc == 0 && h->cpu && r->cpu_quota > 0)
        rc = cgroup_limit(dir, "cpu.cfs_quota_us", "-1", r->cpu_quota, e);
    if (rc == 0 && h->cpuset && r->cpuset_cpus != NULL)
        rc = cgroup_write(dir, "cpuset.cpus", e, "%s", r->cpuset_cpus);
    if (rc == 0 && h->cpuset && r->cpuset_mems != NULL)
        rc = cgroup_write(dir, "cpuset.mems", e, "%s", r->cpuset_mems);
    return rc;
}

static int cgroup_set_v2(const struct hierarchy *h, const char *dir, const struct oci_resources *r,
                         struct err *e)
{
    int rc = 0;

    if (h->memory && r->memory_limit > 0)
        rc = cgroup_limit(dir, "memory.max", "max", r->memory_limit, e);
    if (rc == 0 && h->memory && r->memory_reservation > 0)
        rc = cgroup_limit(dir, "memory.low", "max", r->memory_reservation, e);
    /* cpu.shares 2..262144 to cpu.weight 1..10000, as the runtimes agreed on. */
    if (rc == 0 && h->cpu && r->cpu_shares >= 2)
        rc =
            cgroup_write(dir, "cpu.weight", e, "%" PRIu64, 1 + (r->cpu_shares - 2) * 9999 / 262142);
    if (rc == 0 && h->cpu && r->cpu_quota > 0 && r->cpu_quota != INT64_MAX)
        rc = cgroup_write(dir, "cpu.max", e, "%" PRId64 " %" PRIu64, r->cpu_quota,
                          r->cpu_period != 0 ? r->cpu_period : 100000);
    if (rc == 0 && h->cpuset && r->cpuset_cpus != NULL)
        rc = cgroup_write(dir, "cpuset.cpus", e, "%s", r->cpuset_cpus);
    if (rc == 0 && h->cpuset && r->cpuset_mems != NULL)
        rc = cgroup_write(dir, "cpuset.mems", e, "%s", r->cpuset_mems);
    return rc;
}

/* pids counts guest tasks, each of which is two host threads: a sentry thread and a stub. The
 * sentry keeps the guest's own count; here is room for both and for our helpers. */
static int cgroup_set_pids(const struct hierarchy *h, const char *dir,
                           const struct oci_resources *r, struct err *e)
{
    if (!h->pids || r->pids_limit <= 0)
        return 0;
    int64_t v = r->pids_limit > (INT64_MAX - 64) / 2 ? INT64_MAX : 2 * r->pids_limit + 64;
    return cgroup_limit(dir, "pids.max", "max", v, e);
}

/* mkdir -p below the hierarchy's root, handing cpuset's values down as v1 needs it. */
static int cgroup_make_dir(const struct hierarchy *h, const char *rel, char *out, size_t size,
                           struct err *e)
{
    size_t base = strlen(h->dir);

    if ((size_t)snprintf(out, size, "%s/%s", h->dir, rel) >= size)
        return err_set(e, ENAMETOOLONG, "linux.cgroupsPath is too long");
    for (size_t i = base + 1, len = strlen(out); i <= len; i++) {
        if (out[i] != '/' && out[i] != '\0')
            continue;
        char c = out[i];
        out[i] = '\0';
        int failed = mkdir(out, 0755) != 0 && errno != EEXIST ? errno : 0;
        if (failed != 0)
            return err_errno(e, failed, "cannot make the cgroup %s", out);
        if (h->cpuset && !h->v2) {
            int fd = cgroup_open(out, "cgroup.clone_children", O_WRONLY);
            if (fd >= 0) {
                (void)!write(fd, "1", 1);
                (void)close(fd);
            }
        }
        out[i] = c;
    }
    return 0;
}

static int cgroup_add(const struct hierarchy *h, const char *rel, const struct oci_resources *r,
                      struct cgroup *cg, struct err *e)
{
    char dir[CGROUP_DIR_MAX];

    if (cgroup_make_dir(h, rel, dir, sizeof(dir), e) != 0)
        return -1;
    cg->dirs[cg->count] = strdup(dir);
    cg->procs[cg->count] = cgroup_open(dir, "cgroup.procs", O_WRONLY);
    cg->count++;
    if (cg->procs[cg->count - 1] < 0)
        return err_errno(e, errno, "cgroup %s/cgroup.procs", dir);
    if ((h->v2 ? cgroup_set_v2(h, dir, r, e) : cgroup_set_v1(h, dir, r, e)) != 0)
        return -1;
    return cgroup_set_pids(h, dir, r, e);
}

static bool cgroup_path_ok(const char *path)
{
    return strstr(path, "..") == NULL && strchr(path, '\n') == NULL;
}

static bool cgroup_wanted(const struct hierarchy *h, const struct oci_resources *r, bool path)
{
    if (path)
        return true;
    return (h->memory && (r->memory_limit > 0 || r->memory_reservation > 0)) ||
           (h->cpu && (r->cpu_shares != 0 || r->cpu_period != 0 || r->cpu_quota > 0)) ||
           (h->cpuset && (r->cpuset_cpus != NULL || r->cpuset_mems != NULL)) ||
           (h->pids && r->pids_limit > 0);
}

int cgroup_create(const struct oci_spec *spec, const char *id, struct cgroup *cg, struct err *e)
{
    struct hierarchy h[HIERARCHIES_MAX];
    const char *path = spec->lx.cgroups_path;
    char own[256];

    memset(cg, 0, sizeof(*cg));
    if (path == NULL && !spec->lx.resources.present)
        return 0;
    if (path == NULL)
        (void)snprintf(own, sizeof(own), "ringwall/%s", id);
    else if (!cgroup_path_ok(path))
        return err_set(e, EINVAL, "config.json: linux.cgroupsPath: \"%s\" is not allowed", path);
    while (path != NULL && *path == '/')
        path++;
    size_t count = cgroup_hierarchies(h);
    for (size_t i = 0; i < count && cg->count < CGROUP_MAX; i++) {
        if (h[i].v2)
            cgroup_v2_controllers(&h[i]);
        if (!cgroup_wanted(&h[i], &spec->lx.resources, path != NULL))
            continue;
        if (cgroup_add(&h[i], path != NULL ? path : own, &spec->lx.resources, cg, e) == 0)
            continue;
        for (size_t j = 0; j < cg->count; j++)
            cgroup_remove(cg->dirs[j]);
        cgroup_fini(cg);
        return -1;
    }
    return 0;
}

void cgroup_fini(struct cgroup *cg)
{
    for (size_t i = 0; i < cg->count; i++) {
        free(cg->dirs[i]);
        if (cg->procs[i] >= 0)
            (void)close(cg->procs[i]);
    }
    cg->count = 0;
}

void cgroup_remove(const char *dir)
{
    static const struct timespec pause = {.tv_nsec = 2000000};

    for (int i = 0; i < 500; i++) {
        if (rmdir(dir) == 0 || errno != EBUSY)
            return;
        (void)nanosleep(&pause, NULL);
    }
}
