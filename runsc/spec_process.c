/* The `process` object: what runs, as whom, with which limits. */
#include <ctype.h>
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

#include "runsc/spec_json.h"

/* Linux: NGROUPS_MAX. */
#define GROUPS_MAX 65536u

static const struct {
    const char *name;
    int resource;
} rlimit_names[] = {
    {"RLIMIT_AS", RLIMIT_AS},
    {"RLIMIT_CORE", RLIMIT_CORE},
    {"RLIMIT_CPU", RLIMIT_CPU},
    {"RLIMIT_DATA", RLIMIT_DATA},
    {"RLIMIT_FSIZE", RLIMIT_FSIZE},
    {"RLIMIT_LOCKS", RLIMIT_LOCKS},
    {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
    {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE},
    {"RLIMIT_NICE", RLIMIT_NICE},
    {"RLIMIT_NOFILE", RLIMIT_NOFILE},
    {"RLIMIT_NPROC", RLIMIT_NPROC},
    {"RLIMIT_RSS", RLIMIT_RSS},
    {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},
    {"RLIMIT_RTTIME", RLIMIT_RTTIME},
    {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
    {"RLIMIT_STACK", RLIMIT_STACK},
};

static const char *const cap_names[] = {
    [CAP_CHOWN] = "CAP_CHOWN",
    [CAP_DAC_OVERRIDE] = "CAP_DAC_OVERRIDE",
    [CAP_DAC_READ_SEARCH] = "CAP_DAC_READ_SEARCH",
    [CAP_FOWNER] = "CAP_FOWNER",
    [CAP_FSETID] = "CAP_FSETID",
    [CAP_KILL] = "CAP_KILL",
    [CAP_SETGID] = "CAP_SETGID",
    [CAP_SETUID] = "CAP_SETUID",
    [CAP_SETPCAP] = "CAP_SETPCAP",
    [CAP_LINUX_IMMUTABLE] = "CAP_LINUX_IMMUTABLE",
    [CAP_NET_BIND_SERVICE] = "CAP_NET_BIND_SERVICE",
    [CAP_NET_BROADCAST] = "CAP_NET_BROADCAST",
    [CAP_NET_ADMIN] = "CAP_NET_ADMIN",
    [CAP_NET_RAW] = "CAP_NET_RAW",
    [CAP_IPC_LOCK] = "CAP_IPC_LOCK",
    [CAP_IPC_OWNER] = "CAP_IPC_OWNER",
    [CAP_SYS_MODULE] = "CAP_SYS_MODULE",
    [CAP_SYS_RAWIO] = "CAP_SYS_RAWIO",
    [CAP_SYS_CHROOT] = "CAP_SYS_CHROOT",
    [CAP_SYS_PTRACE] = "CAP_SYS_PTRACE",
    [CAP_SYS_PACCT] = "CAP_SYS_PACCT",
    [CAP_SYS_ADMIN] = "CAP_SYS_ADMIN",
    [CAP_SYS_BOOT] = "CAP_SYS_BOOT",
    [CAP_SYS_NICE] = "CAP_SYS_NICE",
    [CAP_SYS_RESOURCE] = "CAP_SYS_RESOURCE",
    [CAP_SYS_TIME] = "CAP_SYS_TIME",
    [CAP_SYS_TTY_CONFIG] = "CAP_SYS_TTY_CONFIG",
    [CAP_MKNOD] = "CAP_MKNOD",
    [CAP_LEASE] = "CAP_LEASE",
    [CAP_AUDIT_WRITE] = "CAP_AUDIT_WRITE",
    [CAP_AUDIT_CONTROL] = "CAP_AUDIT_CONTROL",
    [CAP_SETFCAP] = "CAP_SETFCAP",
    [CAP_MAC_OVERRIDE] = "CAP_MAC_OVERRIDE",
    [CAP_MAC_ADMIN] = "CAP_MAC_ADMIN",
    [CAP_SYSLOG] = "CAP_SYSLOG",
    [CAP_WAKE_ALARM] = "CAP_WAKE_ALARM",
    [CAP_BLOCK_SUSPEND] = "CAP_BLOCK_SUSPEND",
    [CAP_AUDIT_READ] = "CAP_AUDIT_READ",
    [CAP_PERFMON] = "CAP_PERFMON",
    [CAP_BPF] = "CAP_BPF",
    [CAP_CHECKPOINT_RESTORE] = "CAP_CHECKPOINT_RESTORE",
};

_Static_assert(ARRAY_SIZE(cap_names) <= 64, "a capability set is one 64-bit word");

const char *spec_cap_name(size_t index)
{
    return index < ARRAY_SIZE(cap_names) ? cap_names[index] : NULL;
}

static uint64_t cap_bit(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(cap_names); i++)
        if (strcasecmp(name, cap_names[i]) == 0)
            return UINT64_C(1) << i;
    return 0;
}

static int spec_parse_cap_set(const struct jnode *n, uint64_t *out)
{
    if (jn_check_array(n) != 0)
        return -1;
    for (size_t i = 0; i < jn_count(n); i++) {
        struct jnode item = jn_element(n, i);
        const char *name = NULL;

        if (jn_string(&item, &name) != 0)
            return -1;
        if (strncasecmp(name, "CAP_", 4) != 0)
            return jn_error(&item, "\"%.64s\" is not the name of a capability", name);
        *out |= cap_bit(name);
    }
    return 0;
}

int spec_parse_caps(const struct jnode *n, struct oci_caps *out)
{
    const struct {
        const char *key;
        uint64_t *set;
    } sets[] = {
        {"bounding", &out->bounding},       {"effective", &out->effective},
        {"inheritable", &out->inheritable}, {"permitted", &out->permitted},
        {"ambient", &out->ambient},
    };

    if (jn_check_object(n) != 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
        struct jnode m = jn_member(n, sets[i].key);

        if (spec_parse_cap_set(&m, sets[i].set) != 0)
            return -1;
    }
    /* capabilities(7): what exec could never keep is a mistake in the bundle, as for runc. */
    out->effective &= out->permitted;
    out->ambient &= out->permitted & out->inheritable;
    return 0;
}

static int spec_parse_gids(const struct jnode *n, struct oci_user *out)
{
    size_t count = jn_count(n);

    if (jn_check_array(n) != 0)
        return -1;
    if (count > GROUPS_MAX)
        return jn_error(n, "more than %u groups", GROUPS_MAX);
    out->additional_gids = spec_alloc(n->ctx, count + 1, sizeof(*out->additional_gids));
    if (out->additional_gids == NULL)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct jnode item = jn_element(n, i);

        if (jn_u32(&item, &out->additional_gids[i]) != 0)
            return -1;
    }
    out->additional_gid_count = count;
    return 0;
}

static int spec_parse_user(const struct jnode *n, struct oci_user *out)
{
    struct jnode uid = jn_member(n, "uid"), gid = jn_member(n, "gid");
    struct jnode mask = jn_member(n, "umask"), gids = jn_member(n, "additionalGids");

    if (jn_check_object(n) != 0)
        return -1;
    if (jn_u32(&uid, &out->uid) != 0 || jn_u32(&gid, &out->gid) != 0 ||
        jn_u32(&mask, &out->umask) != 0)
        return -1;
    if (out->uid == UINT32_MAX)
        return jn_error(&uid, "4294967295 is out of range");
    if (out->gid == UINT32_MAX)
        return jn_error(&gid, "4294967295 is out of range");
    if (out->umask > 0777)
        return jn_error(&mask, "%u is out of range", out->umask);
    out->has_umask = mask.v != NULL;
    return spec_parse_gids(&gids, out);
}

static int spec_parse_rlimit(const struct jnode *n, struct oci_rlimit *out)
{
    struct jnode type = jn_member(n, "type"), soft = jn_member(n, "soft");
    struct jnode hard = jn_member(n, "hard");
    const char *name = NULL;
    size_t i;

    if (jn_check_object(n) != 0 || jn_need(&type) != 0 || jn_string(&type, &name) != 0 ||
        jn_u64(&soft, &out->soft) != 0 || jn_u64(&hard, &out->hard) != 0)
        return -1;
    for (i = 0; i < ARRAY_SIZE(rlimit_names); i++)
        if (strcmp(rlimit_names[i].name, name) == 0)
            break;
    if (i == ARRAY_SIZE(rlimit_names))
        return jn_error(&type, "unknown \"%.64s\"", name);
    out->resource = rlimit_names[i].resource;
    if (out->soft > out->hard)
        return jn_error(&soft, "is above hard");
    return 0;
}

static int spec_parse_rlimits(const struct jnode *n, struct oci_process *out)
{
    size_t count = jn_count(n);

    if (jn_check_array(n) != 0)
        return -1;
    /* Duplicates are errors, so this bounds the inner loop. */
    if (count > ARRAY_SIZE(rlimit_names))
        return jn_error(n, "more entries than there are limits");
    out->rlimits = spec_alloc(n->ctx, count + 1, sizeof(*out->rlimits));
    if (out->rlimits == NULL)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct jnode item = jn_element(n, i), type = jn_member(&item, "type");

        if (spec_parse_rlimit(&item, &out->rlimits[i]) != 0)
            return -1;
        for (size_t j = 0; j < i; j++)
            if (out->rlimits[j].resource == out->rlimits[i].resource)
                return jn_error(&type, "named twice");
    }
    out->rlimit_count = count;
    return 0;
}

static int spec_parse_console(const struct jnode *n, struct oci_process *out)
{
    struct jnode h = jn_member(n, "height"), w = jn_member(n, "width");
    int64_t rows = 0, cols = 0;

    if (jn_check_object(n) != 0 || jn_int(&h, 0, UINT16_MAX, &rows) != 0 ||
        jn_int(&w, 0, UINT16_MAX, &cols) != 0)
        return -1;
    out->console_rows = (uint16_t)rows;
    out->console_cols = (uint16_t)cols;
    return 0;
}

static int spec_parse_args(const struct jnode *n, struct oci_process *out)
{
    struct jnode args = jn_member(n, "args"), env = jn_member(n, "env");
    struct jnode cwd = jn_member(n, "cwd");

    if (jn_need(&args) != 0 || jn_strings(&args, &out->args) != 0)
        return -1;
    if (out->args.count == 0)
        return jn_error(&args, "must not be empty");
    if (jn_strings(&env, &out->env) != 0 || jn_need(&cwd) != 0)
        return -1;
    return jn_abs_path(&cwd, &out->cwd);
}

static int spec_parse_oom(const struct jnode *n, struct oci_process *out)
{
    int64_t value = 0;

    if (jn_int(n, -1000, 1000, &value) != 0)
        return -1;
    out->has_oom_score_adj = n->v != NULL;
    out->oom_score_adj = (int)value;
    return 0;
}

static const struct {
    const char *name;
    int policy;
} sched_names[] = {
    {"SCHED_OTHER", SCHED_OTHER}, {"SCHED_FIFO", SCHED_FIFO}, {"SCHED_RR", SCHED_RR},
    {"SCHED_BATCH", SCHED_BATCH}, {"SCHED_IDLE", SCHED_IDLE},
};

/* sched_setattr(2). SCHED_DEADLINE needs what the sandbox's threads cannot promise. */
static int spec_parse_scheduler(const struct jnode *n, struct oci_process *out)
{
    struct jnode policy = jn_member(n, "policy"), nice = jn_member(n, "nice");
    struct jnode prio = jn_member(n, "priority"), flags = jn_member(n, "flags");
    const char *name = NULL;
    int64_t nice_value = 0, prio_value = 0;
    size_t i;

    if (jn_check_object(n) != 0 || n->v == NULL)
        return n->v == NULL ? 0 : -1;
    if (jn_need(&policy) != 0 || jn_string(&policy, &name) != 0 ||
        jn_int(&nice, -20, 19, &nice_value) != 0 || jn_int(&prio, 0, 99, &prio_value) != 0 ||
        jn_check_array(&flags) != 0)
        return -1;
    for (i = 0; i < ARRAY_SIZE(sched_names); i++)
        if (strcmp(sched_names[i].name, name) == 0)
            break;
    if (i == ARRAY_SIZE(sched_names))
        return jn_error(&policy, "\"%.64s\" is not supported", name);
    const bool real = sched_names[i].policy == SCHED_FIFO || sched_names[i].policy == SCHED_RR;
    if ((prio_value != 0) != real)
        return jn_error(&prio, "%lld does not go with %s", (long long)prio_value, name);
    for (i = 0; i < jn_count(&flags); i++) {
        struct jnode item = jn_element(&flags, i);
        const char *flag = NULL;
        if (jn_string(&item, &flag) != 0)
            return -1;
        if (strcmp(flag, "SCHED_FLAG_RESET_ON_FORK") != 0)
            return jn_error(&item, "\"%.64s\" is not supported", flag);
        out->sched_reset_on_fork = true;
    }
    for (i = 0; strcmp(sched_names[i].name, name) != 0; i++)
        ;
    out->sched_policy = sched_names[i].policy;
    out->has_scheduler = true;
    out->sched_priority = (int)prio_value;
    out->nice = (int)nice_value;
    return 0;
}

static int spec_parse_io_priority(const struct jnode *n, struct oci_process *out)
{
    static const char *const classes[] = {NULL, "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE",
                                          "IOPRIO_CLASS_IDLE"};
    struct jnode class = jn_member(n, "class"), prio = jn_member(n, "priority");
    const char *name = NULL;
    int64_t value = 0;

    if (jn_check_object(n) != 0 || n->v == NULL)
        return n->v == NULL ? 0 : -1;
    if (jn_need(&class) != 0 || jn_string(&class, &name) != 0 || jn_int(&prio, 0, 7, &value) != 0)
        return -1;
    for (int i = 1; i < (int)ARRAY_SIZE(classes); i++)
        if (strcmp(classes[i], name) == 0) {
            out->has_io_priority = true;
            out->io_priority = i << 13 | (int)value;
            return 0;
        }
    return jn_error(&class, "unknown \"%.64s\"", name);
}

/* One end of a range of CPUs: what stands behind it, or NULL. */
static const char *spec_cpu(const char *text, unsigned *out)
{
    char *end;

    if (!isdigit((unsigned char)*text))
        return NULL;
    const unsigned long v = strtoul(text, &end, 10);
    *out = (unsigned)v;
    return v < LIMIT_CPU_WORDS * 64 ? end : NULL;
}

/* "3" or "0-3". The same. */
static const char *spec_cpu_range(const char *text, uint64_t *mask)
{
    unsigned first, last;
    const char *p = spec_cpu(text, &first);

    if (p == NULL)
        return NULL;
    last = first;
    if (*p == '-')
        p = spec_cpu(p + 1, &last);
    if (p == NULL || last < first)
        return NULL;
    for (unsigned i = first; i <= last; i++)
        mask[i / 64] |= 1ull << (i % 64);
    return p;
}

/* "0-3,7". CPUs beyond those that a sandbox can have are an error. */
static int spec_parse_cpus(const struct jnode *n, uint64_t *mask)
{
    const char *text = NULL, *p;

    if (jn_string(n, &text) != 0)
        return -1;
    if (text == NULL || text[0] == '\0')
        return 0;
    for (p = spec_cpu_range(text, mask); p != NULL && *p == ',';)
        p = spec_cpu_range(p + 1, mask);
    return p != NULL && *p == '\0' ? 0 : jn_error(n, "\"%.200s\" is no list of CPUs", text);
}

/* `initial` is about a process of the host before it is one of the container: there is none. */
static int spec_parse_exec_affinity(const struct jnode *n, struct oci_process *out)
{
    struct jnode initial = jn_member(n, "initial"), final = jn_member(n, "final");
    uint64_t unused[LIMIT_CPU_WORDS] = {0};

    if (jn_check_object(n) != 0 || spec_parse_cpus(&initial, unused) != 0)
        return -1;
    return spec_parse_cpus(&final, out->exec_cpus);
}

int spec_parse_process(const struct jnode *n, struct oci_process *out)
{
    struct jnode terminal = jn_member(n, "terminal"), console = jn_member(n, "consoleSize");
    struct jnode user = jn_member(n, "user"), caps = jn_member(n, "capabilities");
    struct jnode rlimits = jn_member(n, "rlimits"), nnp = jn_member(n, "noNewPrivileges");
    struct jnode oom = jn_member(n, "oomScoreAdj"), aa = jn_member(n, "apparmorProfile");
    struct jnode label = jn_member(n, "selinuxLabel"), sched = jn_member(n, "scheduler");
    struct jnode io = jn_member(n, "ioPriority"), cpus = jn_member(n, "execCPUAffinity");

    if (jn_check_object(n) != 0 || jn_bool(&terminal, &out->terminal) != 0 ||
        spec_parse_console(&console, out) != 0 || spec_parse_user(&user, &out->user) != 0 ||
        spec_parse_args(n, out) != 0 || spec_parse_caps(&caps, &out->caps) != 0 ||
        spec_parse_rlimits(&rlimits, out) != 0 || jn_bool(&nnp, &out->no_new_privs) != 0 ||
        spec_parse_oom(&oom, out) != 0 || jn_string(&aa, &out->apparmor_profile) != 0 ||
        jn_string(&label, &out->selinux_label) != 0 || spec_parse_scheduler(&sched, out) != 0 ||
        spec_parse_io_priority(&io, out) != 0 || spec_parse_exec_affinity(&cpus, out) != 0)
        return -1;
    out->has_caps = caps.v != NULL;
    return 0;
}
