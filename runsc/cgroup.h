/*
 * What: the resource cgroups of a container, v1 and v2 hierarchies of the host, mixed ones too.
 * Depends on: runsc/spec.h, runsc/err.h.
 * Threading: one thread.
 * Ownership: paths in struct cgroup are owned; cgroup_fini. A struct cgroup_dirs borrows its paths.
 */
#ifndef RINGWALL_RUNSC_CGROUP_H
#define RINGWALL_RUNSC_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "runsc/err.h"
#include "runsc/spec.h"

#define CGROUP_MAX 16

struct hierarchy;

struct cgroup {
    char *dirs[CGROUP_MAX]; /* absolute */
    int procs[CGROUP_MAX];  /* cgroup.procs of each, open for writing; -1 before cgroup_create */
    size_t count;
    struct hierarchy *in; /* the hierarchy of each; owned */
};

/* The directories of a container, as its state remembers them. */
struct cgroup_dirs {
    char *const *v;
    size_t count;
};

/*
 * Which cgroups linux.cgroupsPath and linux.resources ask for: with a path one in every mounted
 * hierarchy, without one where a limit needs it. Nothing asked for: count is 0. Nothing is made
 * yet: their names are written down first, for whoever must clean up.
 */
MUST_CHECK int cgroup_plan(const struct oci_spec *spec, const char *id, struct cgroup *cg,
                           struct err *e);
/* Makes them and sets the limits. A limit that the host cannot set is an error. On failure what was
 * made is left, to be removed as after a success. */
MUST_CHECK int cgroup_create(const struct oci_spec *spec, struct cgroup *cg, struct err *e);
/* Closes descriptors and frees texts; the directories stay. */
void cgroup_fini(struct cgroup *cg);
/* The directory, open, when cg is one cgroup of version 2: a process can be made in it. Else -1.
 * After cgroup_create; owned by the caller. */
int cgroup_open_only(const struct cgroup *cg);
/* Where the host counts the processes there that it has ended for want of memory, open for reading,
 * in a line "oom_kill N" (memory.events, memory.oom_control). -1: nowhere. Owned by the caller. */
int cgroup_open_oom(const struct cgroup *cg);
/* rmdir, waiting a short while for processes on their way out. */
void cgroup_remove(const char *dir);

/* Sets the limits that r gives. One for which the container has no cgroup is an error. */
MUST_CHECK int cgroup_update(struct cgroup_dirs d, const struct oci_resources *r, struct err *e);
/* The calling process joins. */
MUST_CHECK int cgroup_enter(struct cgroup_dirs d, struct err *e);

/* Stops or continues every process of the cgroup and waits till it is so. ENOTSUP: no freezer. */
MUST_CHECK int cgroup_freeze(struct cgroup_dirs d, bool freeze, struct err *e);
/* Whether there is a freezer. */
bool cgroup_freezes(struct cgroup_dirs d);
bool cgroup_frozen(struct cgroup_dirs d);

/* What the host counts for the container's processes; UINT64_MAX: not counted or no limit. */
struct cgroup_stats {
    uint64_t memory_usage, memory_limit; /* bytes */
    uint64_t pids_current, pids_limit;
    uint64_t cpu_ns, throttled_ns, throttled_periods, periods;
};
void cgroup_stats(struct cgroup_dirs d, struct cgroup_stats *out);

#endif
