/* Files of version 1 (Documentation/admin-guide/cgroup-v1/). */
#include "sentry/fs/cgroup/cgroupfs_priv.h"

typedef const struct vfs_caller *caller_t;

/* What a limit of no limit looks like: pages of a signed long. */
#define V1_NO_LIMIT 9223372036854771712ull

/* ---- core ---- */

static int show_flag(FILE *out, bool on)
{
    (void)fprintf(out, "%d\n", on);
    return 0;
}

static int store_flag(struct cgroup *cg, bool *flag, const char *text)
{
    uint64_t v;
    int r = cgfs_parse(text, &v);

    if (r)
        return r;
    cgroup_lock(cg->root->k);
    *flag = v != 0;
    cgroup_unlock(cg->root->k);
    return 0;
}

static int show_clone_children(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    return show_flag(out, cg->clone_children);
}

static int store_clone_children(struct cgroup *cg, caller_t c, char *text)
{
    (void)c;
    return store_flag(cg, &cg->clone_children, text);
}

/* There is no release agent that it could matter to. */
static int show_notify(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    return show_flag(out, cg->notify_on_release);
}

static int store_notify(struct cgroup *cg, caller_t c, char *text)
{
    (void)c;
    return store_flag(cg, &cg->notify_on_release, text);
}

static int show_sane(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)cg, (void)c;
    (void)fputs("0\n", out);
    return 0;
}

/* ---- cpu ---- */

static int show_shares(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "%u\n", cg->weight);
    return 0;
}

static int store_shares(struct cgroup *cg, caller_t c, char *text)
{
    uint64_t v;
    int r = cgfs_parse(text, &v);

    (void)c;
    if (r)
        return r;
    cgroup_set_weight(cg, (uint32_t)MIN(MAX(v, UINT64_C(2)), UINT64_C(262144)));
    return 0;
}

static int show_period(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "%llu\n", (unsigned long long)cg->period_us);
    return 0;
}

static int store_period(struct cgroup *cg, caller_t c, char *text)
{
    uint64_t v;
    int r = cgfs_parse(text, &v);

    (void)c;
    if (r || v < 1000 || v > 1000000)
        return -EINVAL;
    cgroup_set_cpu(cg, cg->quota_us, v);
    return 0;
}

static int show_quota(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    if (cg->quota_us == CGROUP_NO_LIMIT)
        (void)fputs("-1\n", out);
    else
        (void)fprintf(out, "%llu\n", (unsigned long long)cg->quota_us);
    return 0;
}

static int store_quota(struct cgroup *cg, caller_t c, char *text)
{
    uint64_t v = CGROUP_NO_LIMIT;

    (void)c;
    if (text[0] != '-' && (cgfs_parse(text, &v) || v < 1000))
        return -EINVAL;
    cgroup_set_cpu(cg, v, cg->period_us);
    return 0;
}

static int show_cpu_stat(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    cgroup_lock(cg->root->k);
    (void)fprintf(out, "nr_periods %llu\nnr_throttled %llu\nthrottled_time %llu\n",
                  (unsigned long long)cg->periods, (unsigned long long)cg->throttles,
                  (unsigned long long)cg->throttled_ns);
    cgroup_unlock(cg->root->k);
    return 0;
}

/* ---- cpuacct ---- */

static int show_usage(struct cgroup *cg, caller_t c, FILE *out)
{
    uint64_t user, sys;

    (void)c;
    cgroup_usage(cg, &user, &sys);
    (void)fprintf(out, "%llu\n", (unsigned long long)(user + sys));
    return 0;
}

static int show_acct_stat(struct cgroup *cg, caller_t c, FILE *out)
{
    uint64_t user, sys;

    (void)c;
    cgroup_usage(cg, &user, &sys);
    (void)fprintf(out, "user %llu\nsystem %llu\n", (unsigned long long)(user / 10000000),
                  (unsigned long long)(sys / 10000000));
    return 0;
}

/* ---- memory ---- */

static int show_limit(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "%llu\n",
                  cg->memory_max == CGROUP_NO_LIMIT ? V1_NO_LIMIT
                                                    : (unsigned long long)cg->memory_max);
    return 0;
}

static int show_failcnt(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "%llu\n", (unsigned long long)(cg->acct ? memacct_failures(cg->acct) : 0));
    return 0;
}

static int show_oom_control(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    (void)fprintf(out, "oom_kill_disable 0\nunder_oom 0\noom_kill %llu\n",
                  (unsigned long long)atomic_load(&cg->oom_kill_own));
    return 0;
}

static int show_memory_stat(struct cgroup *cg, caller_t c, FILE *out)
{
    const unsigned long long all = cgroup_memory(cg);

    (void)c;
    (void)fprintf(
        out,
        "cache 0\nrss %llu\nrss_huge 0\nshmem 0\nmapped_file 0\ndirty 0\nwriteback 0\n"
        "inactive_anon 0\nactive_anon %llu\ninactive_file 0\nactive_file 0\n"
        "unevictable 0\nhierarchical_memory_limit %llu\ntotal_cache 0\ntotal_rss %llu\n"
        "total_inactive_file 0\ntotal_active_file 0\n",
        all, all,
        cg->memory_max == CGROUP_NO_LIMIT ? V1_NO_LIMIT : (unsigned long long)cg->memory_max, all);
    return 0;
}

static int show_use_hierarchy(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)cg, (void)c;
    (void)fputs("1\n", out);
    return 0;
}

static int store_use_hierarchy(struct cgroup *cg, caller_t c, char *text)
{
    (void)cg, (void)c;
    return strcmp(text, "1") == 0 ? 0 : -EINVAL;
}

/* ---- freezer ---- */

static int show_freezer(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    const char *state = "THAWED";
    if (cg->frozen_above)
        state = cgroup_is_frozen(cg) ? "FROZEN" : "FREEZING";
    (void)fprintf(out, "%s\n", state);
    return 0;
}

static int store_freezer(struct cgroup *cg, caller_t c, char *text)
{
    (void)c;
    if (strcmp(text, "FROZEN") != 0 && strcmp(text, "THAWED") != 0)
        return -EINVAL;
    cgroup_set_freeze(cg, text[0] == 'F');
    return 0;
}

static int show_self_freezing(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    return show_flag(out, cg->freeze);
}

static int show_parent_freezing(struct cgroup *cg, caller_t c, FILE *out)
{
    (void)c;
    return show_flag(out, cg->parent && cg->parent->frozen_above);
}

#define CPU CG_BIT(CG_CPU)
#define CPUACCT CG_BIT(CG_CPUACCT)
#define MEMORY CG_BIT(CG_MEMORY)
#define PIDS CG_BIT(CG_PIDS)
#define FREEZER CG_BIT(CG_FREEZER)

const struct cgfs_row cgfs_rows_v1[] = {
    {"cgroup.procs", 0644, CGFS_ANY_CTL, 0, cgfs_show_procs, cgfs_store_procs, false},
    {"tasks", 0644, CGFS_ANY_CTL, 0, cgfs_show_threads, cgfs_store_threads, false},
    {"cgroup.clone_children", 0644, CGFS_ANY_CTL, 0, show_clone_children, store_clone_children,
     false},
    {"notify_on_release", 0644, CGFS_ANY_CTL, 0, show_notify, store_notify, false},
    {"cgroup.sane_behavior", 0444, CGFS_ANY_CTL, CGFS_ONLY_TOP, show_sane, NULL, false},
    {"cpu.shares", 0644, CPU, CGFS_NOT_TOP, show_shares, store_shares, false},
    {"cpu.cfs_period_us", 0644, CPU, CGFS_NOT_TOP, show_period, store_period, false},
    {"cpu.cfs_quota_us", 0644, CPU, CGFS_NOT_TOP, show_quota, store_quota, false},
    {"cpu.stat", 0444, CPU, CGFS_NOT_TOP, show_cpu_stat, NULL, false},
    {"cpuacct.usage", 0444, CPUACCT, 0, show_usage, NULL, false},
    {"cpuacct.stat", 0444, CPUACCT, 0, show_acct_stat, NULL, false},
    {"memory.usage_in_bytes", 0444, MEMORY, CGFS_NOT_TOP, cgfs_show_memory_current, NULL, false},
    {"memory.max_usage_in_bytes", 0644, MEMORY, CGFS_NOT_TOP, cgfs_show_memory_peak,
     cgfs_store_memory_peak, false},
    {"memory.limit_in_bytes", 0644, MEMORY, CGFS_NOT_TOP, show_limit, cgfs_store_memory_max, false},
    {"memory.failcnt", 0444, MEMORY, CGFS_NOT_TOP, show_failcnt, NULL, false},
    {"memory.stat", 0444, MEMORY, CGFS_NOT_TOP, show_memory_stat, NULL, false},
    {"memory.oom_control", 0444, MEMORY, CGFS_NOT_TOP, show_oom_control, NULL, false},
    {"memory.use_hierarchy", 0644, MEMORY, 0, show_use_hierarchy, store_use_hierarchy, false},
    {"pids.current", 0444, PIDS, CGFS_NOT_TOP, cgfs_show_pids_current, NULL, false},
    {"pids.max", 0644, PIDS, CGFS_NOT_TOP, cgfs_show_pids_max, cgfs_store_pids_max, false},
    {"pids.events", 0444, PIDS, CGFS_NOT_TOP, cgfs_show_pids_events, NULL, false},
    {"freezer.state", 0644, FREEZER, CGFS_NOT_TOP, show_freezer, store_freezer, false},
    {"freezer.self_freezing", 0444, FREEZER, CGFS_NOT_TOP, show_self_freezing, NULL, false},
    {"freezer.parent_freezing", 0444, FREEZER, CGFS_NOT_TOP, show_parent_freezing, NULL, false},
    {0},
};
_Static_assert(ARRAY_SIZE(cgfs_rows_v1) <= CGROUP_FILES, "an owner for each file");
