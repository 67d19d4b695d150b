/* What both versions' files show and take. */
#include <limits.h>

#include "sentry/fs/cgroup/cgroupfs_priv.h"

int cgfs_parse(const char *text, uint64_t *out)
{
    char *end;

    if (strcmp(text, "max") == 0) {
        *out = CGROUP_NO_LIMIT;
        return 0;
    }
    errno = 0;
    const unsigned long long v = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-')
        return -EINVAL;
    *out = v;
    return 0;
}

int cgfs_parse_size(const char *text, uint64_t *out)
{
    char *end;

    if (strcmp(text, "max") == 0 || strcmp(text, "-1") == 0) {
        *out = CGROUP_NO_LIMIT;
        return 0;
    }
    errno = 0;
    const unsigned long long v = strtoull(text, &end, 0);
    if (errno || end == text || text[0] == '-')
        return -EINVAL;
    static const char units[] = "kmgt";
    const char *unit = *end ? strchr(units, *end | 0x20) : NULL;
    const unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    if (end[unit ? 1 : 0] || v > UINT64_MAX >> shift)
        return -EINVAL;
    *out = ALIGN_DOWN((uint64_t)v << shift, PAGE_SIZE);
    return 0;
}

void cgfs_print_limit(FILE *out, uint64_t v)
{
    if (v == CGROUP_NO_LIMIT)
        (void)fputs("max\n", out);
    else
        (void)fprintf(out, "%llu\n", (unsigned long long)v);
}

/* ---- who is there ---- */

static int show_pids(struct cgroup *cg, const struct vfs_caller *c, bool threads, FILE *out)
{
    int32_t *pids;
    size_t n;
    int r = cgroup_pids(cg, c, threads, &pids, &n);

    if (r)
        return r;
    for (size_t i = 0; i < n; i++)
        (void)fprintf(out, "%d\n", pids[i]);
    free(pids);
    return 0;
}

int cgfs_show_procs(struct cgroup *cg, const struct vfs_caller *c, FILE *out)
{
    return show_pids(cg, c, false, out);
}

int cgfs_show_threads(struct cgroup *cg, const struct vfs_caller *c, FILE *out)
{
    return show_pids(cg, c, true, out);
}

static int store_pid(struct cgroup *cg, const struct vfs_caller *c, const char *text, bool thread)
{
    char *end;

    errno = 0;
    const long v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < 0 || v > INT_MAX)
        return -EINVAL;
    return cgroup_attach(cg, c, (int32_t)v, thread);
}

int cgfs_store_procs(struct cgroup *cg, const struct vfs_caller *c, char *text)
{
    return store_pid(cg, c, text, false);
}

int cgfs_store_threads(struct cgroup *cg, const struct vfs_caller *c, char *text)
{
    return store_pid(cg, c, text, true);
}

/* ---- pids ---- */

int cgfs_show_pids_current(struct cgroup *cg, const struct vfs_caller *c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "%llu\n", (unsigned long long)atomic_load(&cg->pids));
    return 0;
}

int cgfs_show_pids_max(struct cgroup *cg, const struct vfs_caller *c, FILE *out)
{
    (void)c;
    cgfs_print_limit(out, atomic_load(&cg->pids_max));
    return 0;
}

int cgfs_store_pids_max(struct cgroup *cg, const struct vfs_caller *c, char *text)
{
    uint64_t v;
    int r = cgfs_parse(text, &v);

    (void)c;
    if (r)
        return r;
    if (v != CGROUP_NO_LIMIT && v > 4u << 20)
        return -EINVAL;
    atomic_store(&cg->pids_max, v);
    return 0;
}

int cgfs_show_pids_events(struct cgroup *cg, const struct vfs_caller *c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "max %llu\n", (unsigned long long)atomic_load(&cg->pids_refused));
    return 0;
}

int cgfs_show_pids_peak(struct cgroup *cg, const struct vfs_caller *c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "%llu\n", (unsigned long long)atomic_load(&cg->pids_peak));
    return 0;
}

/* ---- memory ---- */

int cgfs_show_memory_current(struct cgroup *cg, const struct vfs_caller *c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "%llu\n", (unsigned long long)cgroup_memory(cg));
    return 0;
}

int cgfs_show_memory_peak(struct cgroup *cg, const struct vfs_caller *c, FILE *out)
{
    (void)c, (void)cgroup_memory(cg);
    (void)fprintf(out, "%llu\n", (unsigned long long)(cg->acct ? memacct_peak(cg->acct) : 0));
    return 0;
}

int cgfs_store_memory_max(struct cgroup *cg, const struct vfs_caller *c, char *text)
{
    uint64_t v;
    int r = cgfs_parse_size(text, &v);

    (void)c;
    if (!r)
        cgroup_set_memory(cg, v);
    return r;
}

/* Whatever is written: it counts anew from now on. */
int cgfs_store_memory_peak(struct cgroup *cg, const struct vfs_caller *c, char *text)
{
    (void)c, (void)text;
    if (cg->acct)
        memacct_reset_peak(cg->acct);
    return 0;
}
