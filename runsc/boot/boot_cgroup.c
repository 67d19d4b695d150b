/* The control group of each container: what its processes see as the top of all groups. CPU time
 * and tasks are the account's to limit, memory of the first container the host's: the group shows
 * that. */
#include <errno.h>

#include "runsc/boot/boot_priv.h"

/* runc's conversion of shares to a weight. */
static uint32_t weight_of(uint64_t shares)
{
    shares = MIN(MAX(shares, UINT64_C(2)), UINT64_C(262144));
    return (uint32_t)(1 + (shares - 2) * 9999 / 262142);
}

static uint64_t limit_of(int64_t v)
{
    return v != INT64_MAX ? (uint64_t)v : CGROUP_NO_LIMIT;
}

void boot_cgroup_limit(struct boot_container *ct, const struct oci_resources *r)
{
    struct cgroup_limits *lim = &ct->cgroup_limits;

    if (r->memory_limit > 0)
        lim->memory = limit_of(r->memory_limit);
    if (r->pids_limit > 0)
        lim->pids = limit_of(r->pids_limit);
    if (r->cpu_quota > 0)
        lim->quota_us = limit_of(r->cpu_quota);
    if (r->cpu_period > 0)
        lim->period_us = r->cpu_period;
    if (r->cpu_shares > 0)
        lim->weight = weight_of(r->cpu_shares);
    cgroup_container_limits(ct->cgroups, lim);
}

int boot_cgroup(struct boot *b, struct boot_container *ct, struct boot_text *t)
{
    ct->cgroup_limits = (struct cgroup_limits){
        .memory = CGROUP_NO_LIMIT,
        .pids = CGROUP_NO_LIMIT,
        .quota_us = CGROUP_NO_LIMIT,
        .period_us = CGROUP_PERIOD_DEFAULT,
        .weight = CGROUP_WEIGHT_DEFAULT,
        .memory_outside = ct == &b->root,
        .quota_outside = true,
    };
    int r = cgroup_new_container(b->k, ct->id, &ct->cgroup_limits, &ct->cgroups);

    return r ? boot_say(t, r, "the container's control group") : 0;
}

void boot_cgroup_end(struct boot_container *ct)
{
    if (!ct->cgroups)
        return;
    cgroup_container_gone(ct->cgroups);
    cgroup_ns_put(ct->cgroups);
    ct->cgroups = NULL;
}
