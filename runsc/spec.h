/*
 * What: config.json of an OCI bundle, checked and turned into C structures.
 * Depends on: runsc/err.h, jansson (in the .c files; json_t is opaque here).
 * Threading: built by one thread, read-only after that.
 * Ownership: spec_free releases the spec and every pointer reached from it.
 *
 * Fields that are not known are ignored, as runc does. A known field of the wrong type or out of
 * range is an error whose text names it: `config.json: process.rlimits[2].type: unknown
 * "RLIMIT_FOO"`. JSON null means absent. What the OCI runtime specification 1.x calls required is
 * required here.
 */
#ifndef RINGWALL_RUNSC_SPEC_H
#define RINGWALL_RUNSC_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/limits.h"
#include "runsc/err.h"

struct json_t;
struct spec_pool;

#define SPEC_VERSION "1.2.0"
#define SPEC_FILE_MAX (4u * 1024 * 1024) /* bytes of config.json or of a process file */

struct str_list {
    const char **v; /* v[count] is NULL, so it can serve as an argument vector */
    size_t count;
};

struct str_pair {
    const char *key, *value;
};

struct pair_list {
    struct str_pair *v;
    size_t count;
};

struct oci_user {
    uint32_t uid, gid;
    uint32_t umask;
    bool has_umask;
    uint32_t *additional_gids;
    size_t additional_gid_count;
};

/* Bit n stands for capability number n. Names the host's headers do not know are dropped, as in
 * runc. */
struct oci_caps {
    uint64_t bounding, effective, inheritable, permitted, ambient;
};

struct oci_rlimit {
    int resource; /* RLIMIT_* */
    uint64_t soft, hard;
};

struct oci_process {
    bool terminal;
    uint16_t console_rows, console_cols; /* 0: not given */
    struct oci_user user;
    struct str_list args; /* never empty */
    struct str_list env;
    const char *cwd; /* absolute */
    struct oci_caps caps;
    bool has_caps; /* false: the object is absent, which grants no capability */
    struct oci_rlimit *rlimits;
    size_t rlimit_count;
    bool no_new_privs;
    bool has_oom_score_adj;
    int oom_score_adj;
    const char *apparmor_profile, *selinux_label; /* NULL when absent */
    bool has_scheduler;
    int sched_policy, sched_priority, nice; /* SCHED_*; nice: of SCHED_OTHER, SCHED_BATCH */
    bool sched_reset_on_fork;
    bool has_io_priority;
    int io_priority; /* as ioprio_set(2) has it */
    /* execCPUAffinity.final: CPUs of programs started by exec; without any bit absent. */
    uint64_t exec_cpus[LIMIT_CPU_WORDS];
};

struct oci_mount {
    const char *destination; /* absolute */
    const char *type;        /* NULL when absent */
    const char *source;      /* NULL when absent; relative ones are relative to the bundle */
    struct str_list options; /* as written */
    uint64_t flags;          /* MS_* from the options; bind and rbind give MS_BIND [| MS_REC] */
    uint64_t clear_flags;    /* MS_* that an option such as "rw" or "suid" clears */
    bool copy_up;            /* tmpcopyup */
    uint64_t propagation;    /* MS_PRIVATE, MS_SLAVE, ... [| MS_REC], 0 when none was named */
    struct str_list data;    /* the options that are the file system's own: size=64m, mode=1777 */
};

enum oci_ns {
    OCI_NS_PID,
    OCI_NS_NETWORK,
    OCI_NS_MOUNT,
    OCI_NS_IPC,
    OCI_NS_UTS,
    OCI_NS_USER,
    OCI_NS_CGROUP,
    OCI_NS_TIME,
    OCI_NS_COUNT,
};

struct oci_namespaces {
    bool listed[OCI_NS_COUNT];
    const char *path[OCI_NS_COUNT]; /* NULL: make a new one (when listed) */
};

struct oci_id_map {
    uint32_t container_id, host_id, size; /* ranges do not wrap */
};

struct oci_id_maps {
    struct oci_id_map *v;
    size_t count;
};

struct oci_device {
    const char *path; /* absolute */
    char type;        /* 'c', 'b' or 'p' ("u" becomes 'c') */
    uint32_t major, minor;
    uint32_t mode; /* permission bits; 0666 when absent */
    uint32_t uid, gid;
};

enum oci_blkio {
    OCI_BLKIO_READ_BPS,
    OCI_BLKIO_WRITE_BPS,
    OCI_BLKIO_READ_IOPS,
    OCI_BLKIO_WRITE_IOPS,
    OCI_BLKIO_KINDS,
};

#define OCI_DEVICE_READ 1u
#define OCI_DEVICE_WRITE 2u
#define OCI_DEVICE_MKNOD 4u
/* One of linux.resources.devices; the last that fits decides. */
struct oci_device_rule {
    bool allow;
    char type;            /* 'c', 'b' or 'a' */
    int64_t major, minor; /* -1: any */
    uint32_t access;      /* OCI_DEVICE_* */
};

struct oci_throttle {
    enum oci_blkio kind;
    uint32_t major, minor;
    uint64_t rate; /* bytes or operations a second */
};

/* -1 stands for "not given" in the signed fields, 0 in the unsigned ones, NULL in the texts. */
struct oci_resources {
    bool present;
    /* Bytes; INT64_MAX: no limit (-1 in the file). memory_swap is memory plus swap. */
    int64_t memory_limit, memory_reservation, memory_swap;
    uint64_t cpu_shares, cpu_period; /* cpu_period: microseconds */
    int64_t cpu_quota;               /* microseconds; INT64_MAX: no limit */
    const char *cpuset_cpus, *cpuset_mems;
    int64_t pids_limit; /* INT64_MAX: no limit */
    bool has_swappiness;
    uint32_t swappiness; /* percent */
    uint64_t cpu_burst;  /* microseconds */
    bool has_cpu_idle;
    int cpu_idle;
    int64_t rt_runtime; /* microseconds; -1: not given */
    uint64_t rt_period; /* microseconds */
    struct oci_device_rule *device_rules;
    size_t device_rule_count;
    uint32_t blkio_weight;
    struct oci_throttle *throttles;
    size_t throttle_count;
    struct pair_list unified; /* files of cgroup v2 and what is written to them */
};

struct oci_hook {
    const char *path; /* absolute */
    struct str_list args;
    struct str_list env;
    unsigned int timeout_s; /* 0: none */
};

struct oci_hook_list {
    struct oci_hook *v;
    size_t count;
};

struct oci_hooks {
    struct oci_hook_list prestart, create_runtime, create_container, start_container, poststart,
        poststop;
};

struct oci_time_offset {
    int64_t secs;
    uint32_t nanosecs; /* below 10^9 */
};

struct oci_linux {
    struct oci_namespaces ns;
    struct oci_id_maps uid_maps, gid_maps;
    struct oci_device *devices;
    size_t device_count;
    const char *cgroups_path; /* NULL when absent */
    struct oci_resources resources;
    struct str_list masked_paths, readonly_paths; /* absolute */
    struct pair_list sysctl;
    const struct json_t
        *seccomp; /* the object as it stands in the file, or NULL; borrowed from the spec */
    uint64_t rootfs_propagation; /* MS_* [| MS_REC], 0 when absent */
    uint32_t personality;        /* PER_LINUX or PER_LINUX32 */
    struct oci_time_offset monotonic, boottime;
};

struct oci_spec {
    const char *oci_version;
    struct oci_process process;
    const char *root_path; /* as written; relative ones are relative to the bundle */
    bool root_readonly;
    const char *hostname, *domainname; /* NULL when absent */
    struct oci_mount *mounts;
    size_t mount_count;
    struct oci_hooks hooks;
    struct pair_list annotations;
    struct oci_linux lx;
    struct json_t *json; /* the whole document; integers beyond int64_t are reals in it */
    struct spec_pool *pool;
};

/* Read, parse and check BUNDLE/config.json. On success *out_spec is owned by the caller. */
MUST_CHECK int spec_load(const char *bundle, struct oci_spec **out_spec, struct err *e);

/* As spec_load, from memory. name stands before the field in messages ("config.json"). */
MUST_CHECK int spec_parse(const char *text, size_t size, const char *name,
                          struct oci_spec **out_spec, struct err *e);

/* As spec_parse, from a document built in memory. Takes the reference to json, on failure too. */
MUST_CHECK int spec_from_json(struct json_t *json, const char *name, struct oci_spec **out_spec,
                              struct err *e);

/* A `process` object alone (runsc exec): a spec of which only process and json are filled in. Takes
 * json. */
MUST_CHECK int spec_process_from_json(struct json_t *json, const char *name,
                                      struct oci_spec **out_spec, struct err *e);

/*
 * A `resources` object alone (runsc update). *out borrows its texts from *out_spec, a spec of which
 * nothing but json is filled in. Takes json.
 */
MUST_CHECK int spec_resources_from_json(struct json_t *json, struct oci_resources *out,
                                        struct oci_spec **out_spec, struct err *e);

/* Read a whole JSON file ("-": standard input) of at most SPEC_FILE_MAX bytes. name is used in
 * messages. Returns an owned document. */
MUST_CHECK int spec_read_json(const char *path, const char *name, struct json_t **out_json,
                              struct err *e);

/* Names that configurations may use, one by one from 0; NULL behind the last. */
const char *spec_mount_option_name(size_t index);
const char *spec_cap_name(size_t index);

/* spec may be NULL. */
void spec_free(struct oci_spec *spec);

/* Value of the annotation or NULL. */
const char *spec_annotation(const struct oci_spec *spec, const char *key);

#endif
