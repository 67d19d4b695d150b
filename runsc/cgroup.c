/* The directories of a container's cgroups. */
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runsc/cgroup_priv.h"

/* To make a path whose parents others remove at the same time. */
#define CGROUP_TRIES 50

#define HIERARCHIES_MAX CGROUP_MAX

/* ---- files ---- */

int cgroup_open(const char *dir, const char *file, int flags)
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

int cgroup_read(const char *dir, const char *file, char *buf, size_t size)
{
    int fd = cgroup_open(dir, file, O_RDONLY);
    ssize_t n;

    buf[0] = '\0';
    if (fd < 0)
        return -errno;
    n = read(fd, buf, size - 1);
    int code = errno;
    (void)close(fd);
    if (n < 0)
        return -code;
    buf[n] = '\0';
    return 0;
}

int cgroup_write(const char *dir, const char *file, struct err *e, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    int rc = 0;

    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(text))
        return err_set(e, E2BIG, "cgroup: the value for %s is too long", file);
    int fd = cgroup_open(dir, file, O_WRONLY);
    if (fd < 0 || write(fd, text, (size_t)n) < 0)
        rc = err_errno(e, errno, "cgroup: cannot set %s to %s", file, text);
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

/* ---- hierarchies ---- */

static bool cgroup_read_mount(const struct mntent *m, struct hierarchy *h)
{
    memset(h, 0, sizeof(*h));
    h->v2 = strcmp(m->mnt_type, "cgroup2") == 0;
    if ((!h->v2 && strcmp(m->mnt_type, "cgroup") != 0) || strlen(m->mnt_dir) >= sizeof(h->dir))
        return false;
    memcpy(h->dir, m->mnt_dir, strlen(m->mnt_dir) + 1);
    if (h->v2)
        return true;
    h->memory = hasmntopt(m, "memory") != NULL;
    h->cpu = hasmntopt(m, "cpu") != NULL;
    h->cpuacct = hasmntopt(m, "cpuacct") != NULL;
    h->cpuset = hasmntopt(m, "cpuset") != NULL;
    h->pids = hasmntopt(m, "pids") != NULL;
    h->blkio = hasmntopt(m, "blkio") != NULL;
    h->freezer = hasmntopt(m, "freezer") != NULL;
    return true;
}

/* What a directory of v2 offers. In a mixed layout v1 has most of the controllers. */
static void cgroup_v2_controllers(struct hierarchy *h, const char *dir)
{
    char text[512];
    char *save = NULL;

    if (cgroup_read(dir, "cgroup.controllers", text, sizeof(text)) != 0)
        return;
    for (const char *w = strtok_r(text, " \n", &save); w != NULL;
         w = strtok_r(NULL, " \n", &save)) {
        h->memory |= strcmp(w, "memory") == 0;
        h->pids |= strcmp(w, "pids") == 0;
        h->cpuset |= strcmp(w, "cpuset") == 0;
        h->cpu |= strcmp(w, "cpu") == 0;
        h->blkio |= strcmp(w, "io") == 0;
    }
}

static size_t cgroup_hierarchies(struct hierarchy *out)
{
    FILE *f = setmntent("/proc/self/mounts", "re");
    size_t count = 0;

    if (f == NULL)
        return 0;
    for (struct mntent *m; count < HIERARCHIES_MAX && (m = getmntent(f)) != NULL;)
        if (cgroup_read_mount(m, &out[count])) {
            if (out[count].v2)
                cgroup_v2_controllers(&out[count], out[count].dir);
            count++;
        }
    (void)endmntent(f);
    return count;
}

bool cgroup_find(const char *dir, struct hierarchy *out)
{
    struct hierarchy h[HIERARCHIES_MAX];
    size_t count = cgroup_hierarchies(h), best = 0;

    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(h[i].dir);
        if (len > best && strncmp(dir, h[i].dir, len) == 0 && dir[len] == '/') {
            best = len;
            *out = h[i];
        }
    }
    if (best > 0 && out->v2) {
        out->memory = out->pids = out->cpuset = out->cpu = out->blkio = false;
        cgroup_v2_controllers(out, dir);
    }
    return best > 0;
}

/* ---- making ---- */

/* v1: a new cpuset has neither CPUs nor memory nodes, and nobody may enter it, until it has its
 * parent's. */
static void cgroup_inherit_cpuset(const char *dir)
{
    static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
    static const char *const parents[] = {"../cpuset.cpus", "../cpuset.mems"};
    char text[256];
    struct err ignored;

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        if (cgroup_read(dir, files[i], text, sizeof(text)) != 0 || text[strspn(text, "\n")] != '\0')
            continue;
        if (cgroup_read(dir, parents[i], text, sizeof(text)) == 0 &&
            cgroup_write(dir, files[i], &ignored, "%s", text) != 0)
            return; /* entering it says so */
    }
}

/* v2: what a child is to have, its parent must hand down. What it cannot shows at the limit. */
static void cgroup_hand_down(const struct hierarchy *h, const char *dir)
{
    const struct {
        bool has;
        const char *name;
    } list[] = {{h->memory, "+memory"},
                {h->cpu, "+cpu"},
                {h->cpuset, "+cpuset"},
                {h->pids, "+pids"},
                {h->blkio, "+io"}};
    struct err ignored;

    for (size_t i = 0; i < ARRAY_SIZE(list); i++)
        if (list[i].has &&
            cgroup_write(dir, "cgroup.subtree_control", &ignored, "%s", list[i].name) != 0)
            continue;
}

static int cgroup_mkdir(const struct hierarchy *h, const char *dir, struct err *e)
{
    if (mkdir(dir, 0755) == 0 || errno == EEXIST) {
        if (h->cpuset && !h->v2)
            cgroup_inherit_cpuset(dir);
        return 0;
    }
    int code = errno;
    if (code == EACCES || code == EPERM || code == EROFS)
        return err_errno(e, code, "cannot make the cgroup %s (--ignore-cgroups goes without)", dir);
    return err_errno(e, code, "cannot make the cgroup %s", dir);
}

/* mkdir -p below the hierarchy's root. ENOENT: somebody removed one of them meanwhile. */
static int cgroup_make_path(const struct hierarchy *h, char *out, struct err *e)
{
    size_t base = strlen(h->dir);
    int rc = 0;

    if (h->v2)
        cgroup_hand_down(h, h->dir);
    for (size_t i = base + 1, len = strlen(out); i <= len && rc == 0; i++) {
        if (out[i] != '/' && out[i] != '\0')
            continue;
        char c = out[i];
        out[i] = '\0';
        rc = cgroup_mkdir(h, out, e);
        if (rc == 0 && h->v2 && c != '\0')
            cgroup_hand_down(h, out);
        out[i] = c;
    }
    return rc;
}

static int cgroup_make_dir(const struct hierarchy *h, char *out, struct err *e)
{
    int rc;

    for (int i = 0; (rc = cgroup_make_path(h, out, e)) != 0 && e->code == ENOENT; i++)
        if (i == CGROUP_TRIES)
            break;
    return rc;
}

static int cgroup_add(const struct hierarchy *h, const char *rel, struct cgroup *cg, struct err *e)
{
    if (asprintf(&cg->dirs[cg->count], "%s/%s", h->dir, rel) < 0)
        return err_set(e, ENOMEM, "out of memory");
    cg->procs[cg->count] = -1;
    cg->in[cg->count++] = *h;
    return 0;
}

static bool cgroup_wanted(const struct hierarchy *h, const struct oci_resources *r)
{
    return (h->memory && (r->memory_limit > 0 || r->memory_reservation > 0)) ||
           (h->cpu && (r->cpu_shares != 0 || r->cpu_period != 0 || r->cpu_quota > 0)) ||
           (h->cpuset && (r->cpuset_cpus != NULL || r->cpuset_mems != NULL)) ||
           (h->blkio && (r->blkio_weight != 0 || r->throttle_count > 0)) ||
           (h->pids && r->pids_limit > 0) || (h->v2 && r->unified.count > 0);
}

int cgroup_plan(const struct oci_spec *spec, const char *id, struct cgroup *cg, struct err *e)
{
    struct hierarchy h[HIERARCHIES_MAX];
    const char *path = spec->lx.cgroups_path;
    char *rel = NULL;
    int rc = 0;

    memset(cg, 0, sizeof(*cg));
    if (path == NULL && !spec->lx.resources.present)
        return 0;
    cg->in = calloc(CGROUP_MAX, sizeof(*cg->in));
    if (cg->in == NULL)
        return err_set(e, ENOMEM, "out of memory");
    if (cgroup_name(path, id, &rel, e) != 0) {
        cgroup_fini(cg);
        return -1;
    }
    size_t count = cgroup_hierarchies(h);
    for (size_t i = 0; i < count && rc == 0; i++)
        if (path != NULL || cgroup_wanted(&h[i], &spec->lx.resources))
            rc = cgroup_add(&h[i], rel, cg, e);
    free(rel);
    if (rc != 0)
        cgroup_fini(cg);
    return rc;
}

int cgroup_create(const struct oci_spec *spec, struct cgroup *cg, struct err *e)
{
    for (size_t i = 0; i < cg->count; i++) {
        if (cgroup_make_dir(&cg->in[i], cg->dirs[i], e) != 0)
            return -1;
        cg->procs[i] = cgroup_open(cg->dirs[i], "cgroup.procs", O_WRONLY);
        if (cg->procs[i] < 0)
            return err_errno(e, errno, "cgroup %s/cgroup.procs", cg->dirs[i]);
        if (cgroup_set_limits(&cg->in[i], cg->dirs[i], &spec->lx.resources, e) != 0)
            return -1;
    }
    if (!spec->lx.resources.present)
        return 0;
    const struct cgroup_dirs all = {.v = cg->dirs, .count = cg->count};
    return cgroup_cover(all, &spec->lx.resources, e);
}

int cgroup_open_only(const struct cgroup *cg)
{
    if (cg->count != 1 || !cg->in[0].v2)
        return -1;
    return open(cg->dirs[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int cgroup_open_oom(const struct cgroup *cg)
{
    for (size_t i = 0; i < cg->count; i++)
        if (cg->in[i].memory)
            return cgroup_open(cg->dirs[i], cg->in[i].v2 ? "memory.events" : "memory.oom_control",
                               O_RDONLY);
    return -1;
}

void cgroup_fini(struct cgroup *cg)
{
    for (size_t i = 0; i < cg->count; i++) {
        free(cg->dirs[i]);
        if (cg->procs[i] >= 0)
            (void)close(cg->procs[i]);
    }
    free(cg->in);
    cg->in = NULL;
    cg->count = 0;
}

/* The parent that we chose ourselves goes with the last container in it. */
static void cgroup_remove_parent(const char *dir)
{
    const char *slash = strrchr(dir, '/'), *parent = "/" CGROUP_PARENT;
    const size_t n = slash != NULL ? (size_t)(slash - dir) : 0;

    if (n < strlen(parent) || memcmp(slash - strlen(parent), parent, strlen(parent)) != 0)
        return;
    char *path = strndup(dir, n);
    if (path != NULL)
        (void)rmdir(path);
    free(path);
}

void cgroup_remove(const char *dir)
{
    static const struct timespec pause = {.tv_nsec = 2000000};

    for (int i = 0; i < 500; i++) {
        if (rmdir(dir) == 0 || errno != EBUSY)
            break;
        (void)nanosleep(&pause, NULL);
    }
    cgroup_remove_parent(dir);
}
