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
    struct jnode swap = jn_member(n, "swap"), lean = jn_member(n, "swappiness");
    int64_t percent = 0;

    /* Go writers put 0 for "not given". */
    if (jn_check_object(n) != 0 || spec_parse_limit(&limit, 0, &out->memory_limit) != 0 ||
        spec_parse_limit(&low, 0, &out->memory_reservation) != 0 ||
        spec_parse_limit(&swap, 0, &out->memory_swap) != 0 || jn_int(&lean, 0, 100, &percent) != 0)
        return -1;
    out->has_swappiness = lean.v != NULL;
    out->swappiness = (uint32_t)percent;
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
    struct jnode mems = jn_member(n, "mems"), burst = jn_member(n, "burst");
    struct jnode idle = jn_member(n, "idle"), rt = jn_member(n, "realtimeRuntime");
    struct jnode rt_period = jn_member(n, "realtimePeriod");
    int64_t idle_value = 0;

    if (jn_check_object(n) != 0 || jn_u64(&shares, &out->cpu_shares) != 0 ||
        spec_parse_limit(&quota, 0, &out->cpu_quota) != 0 ||
        jn_u64(&period, &out->cpu_period) != 0 || jn_string(&cpus, &out->cpuset_cpus) != 0 ||
        jn_u64(&burst, &out->cpu_burst) != 0 || jn_int(&idle, 0, 1, &idle_value) != 0 ||
        spec_parse_limit(&rt, 0, &out->rt_runtime) != 0 ||
        jn_u64(&rt_period, &out->rt_period) != 0 || jn_string(&mems, &out->cpuset_mems) != 0)
        return -1;
    out->has_cpu_idle = idle.v != NULL;
    out->cpu_idle = (int)idle_value;
    if (out->rt_runtime == 0)
        out->rt_runtime = -1;
    if (out->cpu_quota == 0)
        out->cpu_quota = -1;
    if (out->cpuset_cpus != NULL && out->cpuset_cpus[0] == '\0')
        out->cpuset_cpus = NULL;
    if (out->cpuset_mems != NULL && out->cpuset_mems[0] == '\0')
        out->cpuset_mems = NULL;
    return 0;
}

#define THROTTLES_MAX 256u

static int spec_parse_throttles(const struct jnode *n, enum oci_blkio kind,
                                struct oci_resources *out)
{
    size_t count = jn_count(n);

    if (jn_check_array(n) != 0)
        return -1;
    if (count > THROTTLES_MAX)
        return jn_error(n, "more than %u entries", THROTTLES_MAX);
    for (size_t i = 0; i < count; i++) {
        struct oci_throttle *t = &out->throttles[out->throttle_count++];
        struct jnode item = jn_element(n, i), major = jn_member(&item, "major");
        struct jnode minor = jn_member(&item, "minor"), rate = jn_member(&item, "rate");

        t->kind = kind;
        if (jn_check_object(&item) != 0 || jn_u32(&major, &t->major) != 0 ||
            jn_u32(&minor, &t->minor) != 0 || jn_u64(&rate, &t->rate) != 0)
            return -1;
    }
    return 0;
}

/* Nothing would come of it. */
static int spec_refuse_list(const struct jnode *n)
{
    if (jn_check_array(n) != 0)
        return -1;
    return jn_count(n) == 0 ? 0 : jn_error(n, "is not supported");
}

static int spec_refuse_number(const struct jnode *n)
{
    uint32_t v = 0;

    if (jn_u32(n, &v) != 0)
        return -1;
    return v == 0 ? 0 : jn_error(n, "is not supported");
}

/* Marks on packets by control groups of version 1. */
static int spec_refuse_network(const struct jnode *n)
{
    struct jnode class = jn_member(n, "classID"), priorities = jn_member(n, "priorities");

    if (jn_check_object(n) != 0 || spec_refuse_number(&class) != 0)
        return -1;
    return spec_refuse_list(&priorities);
}

static int spec_parse_blkio(const struct jnode *n, struct oci_resources *out)
{
    static const char *const keys[OCI_BLKIO_KINDS] = {
        [OCI_BLKIO_READ_BPS] = "throttleReadBpsDevice",
        [OCI_BLKIO_WRITE_BPS] = "throttleWriteBpsDevice",
        [OCI_BLKIO_READ_IOPS] = "throttleReadIOPSDevice",
        [OCI_BLKIO_WRITE_IOPS] = "throttleWriteIOPSDevice",
    };
    struct jnode weight = jn_member(n, "weight"), leaf = jn_member(n, "leafWeight");
    struct jnode weights = jn_member(n, "weightDevice");
    int64_t w = 0;

    if (n->v == NULL)
        return 0;
    if (jn_check_object(n) != 0 || jn_int(&weight, 0, 1000, &w) != 0 ||
        spec_refuse_number(&leaf) != 0 || spec_refuse_list(&weights) != 0)
        return -1;
    out->blkio_weight = (uint32_t)w;
    out->throttles = spec_alloc(n->ctx, OCI_BLKIO_KINDS * THROTTLES_MAX, sizeof(*out->throttles));
    if (out->throttles == NULL)
        return -1;
    for (size_t i = 0; i < OCI_BLKIO_KINDS; i++) {
        struct jnode list = jn_member(n, keys[i]);

        if (spec_parse_throttles(&list, (enum oci_blkio)i, out) != 0)
            return -1;
    }
    return 0;
}

#define RULES_MAX 4096u

static int spec_parse_access(const struct jnode *n, uint32_t *out)
{
    const char *text = NULL;

    if (jn_string(n, &text) != 0)
        return -1;
    /* Absent or empty: all of it. */
    *out = text == NULL || text[0] == '\0' ? 7 : 0;
    for (const char *c = text != NULL ? text : ""; *c != '\0'; c++) {
        if (*c != 'r' && *c != 'w' && *c != 'm')
            return jn_error(n, "\"%.16s\" is not made of r, w and m", text);
        *out |= *c == 'r' ? OCI_DEVICE_READ : *c == 'w' ? OCI_DEVICE_WRITE : OCI_DEVICE_MKNOD;
    }
    return 0;
}

static int spec_parse_rule(const struct jnode *n, struct oci_device_rule *out)
{
    struct jnode allow = jn_member(n, "allow"), type = jn_member(n, "type");
    struct jnode major = jn_member(n, "major"), minor = jn_member(n, "minor");
    struct jnode access = jn_member(n, "access");
    const char *name = "a";

    *out = (struct oci_device_rule){.major = -1, .minor = -1};
    if (jn_check_object(n) != 0 || jn_need(&allow) != 0 || jn_bool(&allow, &out->allow) != 0 ||
        jn_string(&type, &name) != 0 || jn_int(&major, -1, UINT32_MAX, &out->major) != 0 ||
        jn_int(&minor, -1, UINT32_MAX, &out->minor) != 0 ||
        spec_parse_access(&access, &out->access) != 0)
        return -1;
    if (name[0] == '\0')
        name = "a";
    if (name[1] != '\0' || (name[0] != 'a' && name[0] != 'c' && name[0] != 'b' && name[0] != 'u'))
        return jn_error(&type, "unknown \"%.16s\"", name);
    out->type = name[0] == 'u' ? 'c' : name[0];
    return 0;
}

static int spec_parse_rules(const struct jnode *n, struct oci_resources *out)
{
    size_t count = jn_count(n);

    if (jn_check_array(n) != 0)
        return -1;
    if (count > RULES_MAX)
        return jn_error(n, "more than %u entries", RULES_MAX);
    out->device_rules = spec_alloc(n->ctx, count + 1, sizeof(*out->device_rules));
    if (out->device_rules == NULL)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct jnode item = jn_element(n, i);

        if (spec_parse_rule(&item, &out->device_rules[i]) != 0)
            return -1;
    }
    out->device_rule_count = count;
    return 0;
}

int spec_parse_resources(const struct jnode *n, struct oci_resources *out)
{
    struct jnode memory = jn_member(n, "memory"), cpu = jn_member(n, "cpu");
    struct jnode pids = jn_member(n, "pids"), pids_limit = jn_member(&pids, "limit");
    struct jnode blkio = jn_member(n, "blockIO"), unified = jn_member(n, "unified");
    struct jnode rules = jn_member(n, "devices"), network = jn_member(n, "network");

    *out = (struct oci_resources){.memory_limit = -1,
                                  .memory_reservation = -1,
                                  .memory_swap = -1,
                                  .cpu_quota = -1,
                                  .pids_limit = -1,
                                  .rt_runtime = -1,
                                  .present = n->v != NULL};
    if (jn_check_object(n) != 0 || spec_parse_memory(&memory, out) != 0 ||
        spec_parse_cpu(&cpu, out) != 0 || jn_check_object(&pids) != 0 ||
        spec_parse_blkio(&blkio, out) != 0 || spec_parse_rules(&rules, out) != 0 ||
        jn_pairs(&unified, &out->unified) != 0 || spec_refuse_network(&network) != 0)
        return -1;
    if (spec_parse_limit(&pids_limit, 0, &out->pids_limit) != 0)
        return -1;
    if (out->pids_limit == 0)
        out->pids_limit = INT64_MAX;
    return 0;
}
