/* Files of version 2 (Documentation/admin-guide/cgroup-v2.rst). */
#include "sentry/fs/cgroup/cgroupfs_priv.h"

typedef const struct vfs_caller *caller_t;

/* ---- core ---- */

static int show_type(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)cg, (void)c;
    (void)fputs("domain\n", out);
    return 0;
}

/* Threads of one process in several groups are not kept track of. */
static int store_type(struct cgroup *cg, caller_t c, char *text)
{
    (void)cg, (void)c;
    return strcmp(text, "threaded") == 0 ? -EOPNOTSUPP : -EINVAL;
}

static void show_ctls(uint32_t ctls, FILE *out)
{
    const char *sep = "";

    for (enum cgroup_ctl ctl = 0; ctl < CG_CTLS; ctl++) {
        if (!(ctls & CG_BIT(ctl)))
            continue;
        (void)fprintf(out, "%s%s", sep, cgroup_ctl_name(ctl));
        sep = " ";
    }
    if (ctls)
        (void)fputc('\n', out);
}

static int show_controllers(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    show_ctls(cgroup_available(cg), out);
    return 0;
}

static int show_subtree(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    show_ctls(cg->subtree_control, out);
    return 0;
}

static uint32_t ctl_by_name(const char *name)
{
    for (enum cgroup_ctl ctl = 0; ctl < CG_CTLS; ctl++)
        if (strcmp(name, cgroup_ctl_name(ctl)) == 0)
            return CG_BIT(ctl) & CG_ALL_V2;
    return 0;
}

static int store_subtree(struct cgroup *cg, caller_t c, char *text)
{
    uint32_t add = 0, remove = 0;
    char *save = NULL;

    (void)c;
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        const uint32_t bit = ctl_by_name(w + 1);
        if ((w[0] != '+' && w[0] != '-') || !bit)
            return -EINVAL;
        add = w[0] == '+' ? add | bit : add & ~bit;
        remove = w[0] == '-' ? remove | bit : remove & ~bit;
    }
    return cgroup_set_subtree(cg, add, remove);
}

static int show_events(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    const bool frozen = cgroup_is_frozen(cg);
    cgroup_lock(cg->root->k);
    const bool populated = cg->live > 0;
    cgroup_unlock(cg->root->k);
    (void)fprintf(out, "populated %d\nfrozen %d\n", populated, frozen);
    return 0;
}

static int show_stat(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "nr_descendants %llu\nnr_dying_descendants 0\n",
                  (unsigned long long)cg->descendants);
    return 0;
}

static int store_number(struct cgroup *cg, uint64_t *to, const char *text)
{
    uint64_t v;
    int r = cgfs_parse(text, &v);

    if (r)
        return r;
    cgroup_lock(cg->root->k);
    *to = v;
    cgroup_unlock(cg->root->k);
    return 0;
}

static int show_max_descendants(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    cgfs_print_limit(out, cg->max_descendants);
    return 0;
}

static int store_max_descendants(struct cgroup *cg, caller_t c, char *text)
{
    (void)c;
    return store_number(cg, &cg->max_descendants, text);
}

static int show_max_depth(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    cgfs_print_limit(out, cg->max_depth);
    return 0;
}

static int store_max_depth(struct cgroup *cg, caller_t c, char *text)
{
    (void)c;
    return store_number(cg, &cg->max_depth, text);
}

static int parse_flag(const char *text, bool *out)
{
    uint64_t v;
    int r = cgfs_parse(text, &v);

    if (r)
        return r;
    if (v > 1)
        return -ERANGE;
    *out = v == 1;
    return 0;
}

static int show_freeze(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "%d\n", cg->freeze);
    return 0;
}

static int store_freeze(struct cgroup *cg, caller_t c, char *text)
{
    bool on;
    int r = parse_flag(text, &on);

    (void)c;
    if (!r)
        cgroup_set_freeze(cg, on);
    return r;
}

static int store_kill(struct cgroup *cg, caller_t c, char *text)
{
    bool on;
    int r = parse_flag(text, &on);

    (void)c;
    if (r)
        return r;
    if (!on)
        return -ERANGE;
    cgroup_kill(cg);
    return 0;
}

/* ---- cpu ---- */

static int show_cpu_stat(struct cgroup *cg, caller_t c, FILE *out)
{
    uint64_t user, sys;

    (void)c;
    cgroup_usage(cg, &user, &sys);
    (void)fprintf(out, "usage_usec %llu\nuser_usec %llu\nsystem_usec %llu\n",
                  (unsigned long long)((user + sys) / 1000), (unsigned long long)(user / 1000),
                  (unsigned long long)(sys / 1000));
    if (!(cgroup_enabled(cg) & CG_BIT(CG_CPU)))
        return 0;
    cgroup_lock(cg->root->k);
    (void)fprintf(out,
                  "nr_periods %llu\nnr_throttled %llu\nthrottled_usec %llu\nnr_bursts 0\n"
                  "burst_usec 0\n",
                  (unsigned long long)cg->periods, (unsigned long long)cg->throttles,
                  (unsigned long long)(cg->throttled_ns / 1000));
    cgroup_unlock(cg->root->k);
    return 0;
}

static int show_cpu_max(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    if (cg->quota_us == CGROUP_NO_LIMIT)
        (void)fprintf(out, "max %llu\n", (unsigned long long)cg->period_us);
    else
        (void)fprintf(out, "%llu %llu\n", (unsigned long long)cg->quota_us,
                      (unsigned long long)cg->period_us);
    return 0;
}

static int store_cpu_max(struct cgroup *cg, caller_t c, char *text)
{
    char *save = NULL;
    const char *q = strtok_r(text, " \t", &save), *p = strtok_r(NULL, " \t", &save);
    uint64_t quota, period = cg->period_us;

    (void)c;
    if (!q || strtok_r(NULL, " \t", &save) || cgfs_parse(q, &quota) ||
        (p && cgfs_parse(p, &period)))
        return -EINVAL;
    if (period < 1000 || period > 1000000 || quota < 1000)
        return -EINVAL;
    cgroup_set_cpu(cg, quota, period);
    return 0;
}

static int show_weight(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "%u\n", cg->weight);
    return 0;
}

static int store_weight(struct cgroup *cg, caller_t c, char *text)
{
    uint64_t v;
    int r = cgfs_parse(text, &v);

    (void)c;
    if (r)
        return r;
    if (v < 1 || v > 10000)
        return -ERANGE;
    cgroup_set_weight(cg, (uint32_t)v);
    return 0;
}

/* ---- memory ---- */

static int show_memory_max(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    cgfs_print_limit(out, cg->memory_max);
    return 0;
}

static void put_memory_events(const struct cgroup *cg, uint64_t oom, uint64_t killed, FILE *out)
{
    (void)fprintf(out, "low 0\nhigh 0\nmax %llu\noom %llu\noom_kill %llu\noom_group_kill %llu\n",
                  (unsigned long long)(cg->acct ? memacct_failures(cg->acct) : 0),
                  (unsigned long long)oom, (unsigned long long)killed,
                  (unsigned long long)atomic_load(&cg->oom_group_kill));
}

static int show_memory_events(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    put_memory_events(cg, atomic_load(&cg->oom), atomic_load(&cg->oom_kill), out);
    return 0;
}

static int show_memory_events_local(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    put_memory_events(cg, atomic_load(&cg->oom_own), atomic_load(&cg->oom_kill_own), out);
    return 0;
}

/* Pages of files belong to the host, whose cache they are in. */
static int show_memory_stat(struct cgroup *cg, caller_t c, FILE *out)
{
    const unsigned long long all = cgroup_memory(cg);

    (void)c;
    (void)fprintf(out,
                  "anon %llu\nfile 0\nkernel 0\nkernel_stack 0\npagetables 0\nshmem 0\n"
                  "file_mapped 0\nfile_dirty 0\nfile_writeback 0\ninactive_anon 0\n"
                  "active_anon %llu\ninactive_file 0\nactive_file 0\nunevictable 0\n"
                  "slab_reclaimable 0\nslab_unreclaimable 0\nslab 0\n",
                  all, all);
    return 0;
}

static int show_oom_group(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "%d\n", atomic_load(&cg->oom_group));
    return 0;
}

static int store_oom_group(struct cgroup *cg, caller_t c, char *text)
{
    bool on;
    int r = parse_flag(text, &on);

    (void)c;
    if (!r)
        atomic_store(&cg->oom_group, on);
    return r == -ERANGE ? -EINVAL : r;
}

#define CPU CG_BIT(CG_CPU)
#define MEMORY CG_BIT(CG_MEMORY)
#define PIDS CG_BIT(CG_PIDS)
#define LIMITS (CGFS_NOT_TOP | CGFS_OUTSIDE)

const struct cgfs_row cgfs_rows_v2[] = {
    {"cgroup.procs", 0644, CGFS_ANY_CTL, 0, cgfs_show_procs, cgfs_store_procs, false},
    {"cgroup.threads", 0644, CGFS_ANY_CTL, 0, cgfs_show_threads, cgfs_store_threads, false},
    {"cgroup.type", 0644, CGFS_ANY_CTL, CGFS_NOT_TOP, show_type, store_type, false},
    {"cgroup.controllers", 0444, CGFS_ANY_CTL, 0, show_controllers, NULL, false},
    {"cgroup.subtree_control", 0644, CGFS_ANY_CTL, 0, show_subtree, store_subtree, false},
    {"cgroup.events", 0444, CGFS_ANY_CTL, CGFS_NOT_TOP, show_events, NULL, true},
    {"cgroup.stat", 0444, CGFS_ANY_CTL, 0, show_stat, NULL, false},
    {"cgroup.max.descendants", 0644, CGFS_ANY_CTL, CGFS_OUTSIDE, show_max_descendants,
     store_max_descendants, false},
    {"cgroup.max.depth", 0644, CGFS_ANY_CTL, CGFS_OUTSIDE, show_max_depth, store_max_depth, false},
    {"cgroup.freeze", 0644, CGFS_ANY_CTL, LIMITS, show_freeze, store_freeze, false},
    {"cgroup.kill", 0200, CGFS_ANY_CTL, LIMITS, NULL, store_kill, false},
    {"cpu.stat", 0444, CGFS_ANY_CTL, 0, show_cpu_stat, NULL, false},
    {"cpu.max", 0644, CPU, LIMITS, show_cpu_max, store_cpu_max, false},
    {"cpu.weight", 0644, CPU, LIMITS, show_weight, store_weight, false},
    {"memory.current", 0444, MEMORY, CGFS_NOT_TOP, cgfs_show_memory_current, NULL, false},
    {"memory.max", 0644, MEMORY, LIMITS, show_memory_max, cgfs_store_memory_max, false},
    {"memory.peak", 0644, MEMORY, LIMITS, cgfs_show_memory_peak, cgfs_store_memory_peak, false},
    {"memory.events", 0444, MEMORY, CGFS_NOT_TOP, show_memory_events, NULL, true},
    {"memory.events.local", 0444, MEMORY, CGFS_NOT_TOP, show_memory_events_local, NULL, true},
    {"memory.stat", 0444, MEMORY, CGFS_NOT_TOP, show_memory_stat, NULL, false},
    {"memory.oom.group", 0644, MEMORY, CGFS_NOT_TOP, show_oom_group, store_oom_group, false},
    {"pids.current", 0444, PIDS, CGFS_NOT_TOP, cgfs_show_pids_current, NULL, false},
    {"pids.max", 0644, PIDS, LIMITS, cgfs_show_pids_max, cgfs_store_pids_max, false},
    {"pids.events", 0444, PIDS, CGFS_NOT_TOP, cgfs_show_pids_events, NULL, true},
    {"pids.peak", 0444, PIDS, CGFS_NOT_TOP, cgfs_show_pids_peak, NULL, false},
    {0},
};
_Static_assert(ARRAY_SIZE(cgfs_rows_v2) <= CGROUP_FILES, "an owner for each file");
