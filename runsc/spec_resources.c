/* `linux.resources`, and the same object on its own for `runsc update`. */
#include "runsc/spec_json.h"

/* -1 in the file means "no limit". */
static int spec_parse_limit(const struct jnode *n, int64_t min, int64_t *out)
{
    int64_t value = 0;

    if (n->v == NULL)
        return 0;
    if (jn_int(n, -1, INT64_MAX, &value) != 0)
        return -1;
    if (value >= 0 && value < min)
        return jn_error(n, "%lld is out of range", (long long)value);
    *out = value < 0 ? INT64_MAX : value;
    return 0;
}

static int spec_parse_memory(const struct jnode *n, struct oci_resources *out)
{
    struct jnode limit = jn_member(n, "limit"), low = jn_member(n, "reservation");
    struct jnode swap = jn_member(n, "swap");

    /* Go writers put 0 for "not given". */
    if (jn_check_object(n) != 0 || spec_parse_limit(&limit, 0, &out->memory_limit) != 0 ||
        spec_parse_limit(&low, 0, &out->memory_reservation) != 0 ||
        spec_parse_limit(&swap, 0, &out->memory_swap) != 0)
        return -1;
    if (out->memory_limit == 0)
        out->memory_limit = -1;
    if (out->memory_swap == 0)
        out->memory_swap = -1;
    if (out->memory_swap >= 0 && out->memory_limit >= 0 && out->memory_swap < out->memory_limit)
        return jn_error(&swap, "is below limit");
    return 0;
}

static int spec_parse_cpu(const struct jnode *n, struct oci_resources *out)
{
    struct jnode shares = jn_member(n, "shares"), quota = jn_member(n, "quota");
    struct jnode period = jn_member(n, "period"), cpus = jn_member(n, "cpus");
    struct jnode mems = jn_member(n, "mems");

    if (jn_check_object(n) != 0 || jn_u64(&shares, &out->cpu_shares) != 0 ||
        spec_parse_limit(&quota, 0, &out->cpu_quota) != 0 ||
        jn_u64(&period, &out->cpu_period) != 0 || jn_string(&cpus, &out->cpuset_cpus) != 0 ||
        jn_string(&mems, &out->cpuset_mems) != 0)
        return -1;
    if (out->cpu_quota == 0)
        out->cpu_quota = -1;
    if (out->cpuset_cpus != NULL && out->cpuset_cpus[0] == '\0')
        out->cpuset_cpus = NULL;
    if (out->cpuset_mems != NULL && out->cpuset_mems[0] == '\0')
        out->cpuset_mems = NULL;
    return 0;
}

int spec_parse_resources(const struct jnode *n, struct oci_resources *out)
{
    struct jnode memory = jn_member(n, "memory"), cpu = jn_member(n, "cpu");
    struct jnode pids = jn_member(n, "pids"), pids_limit = jn_member(&pids, "limit");

    *out = (struct oci_resources){.memory_limit = -1,
                                  .memory_reservation = -1,
                                  .memory_swap = -1,
                                  .cpu_quota = -1,
                                  .pids_limit = -1,
                                  .present = n->v != NULL};
    if (jn_check_object(n) != 0 || spec_parse_memory(&memory, out) != 0 ||
        spec_parse_cpu(&cpu, out) != 0 || jn_check_object(&pids) != 0)
        return -1;
    if (spec_parse_limit(&pids_limit, 0, &out->pids_limit) != 0)
        return -1;
    if (out->pids_limit == 0)
        out->pids_limit = INT64_MAX;
    return 0;
}
