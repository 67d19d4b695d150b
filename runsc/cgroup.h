/*
 * What: the resource cgroups of a container, v1 and v2 hierarchies of the host.
 * Depends on: runsc/spec.h, runsc/err.h.
 * Threading: one thread.
 * Ownership: paths in struct cgroup are owned; cgroup_fini.
 */
#ifndef RINGWALL_RUNSC_CGROUP_H
#define RINGWALL_RUNSC_CGROUP_H

#include <stddef.h>

#include "base/compiler.h"
#include "runsc/err.h"
#include "runsc/spec.h"

#define CGROUP_MAX 16

struct cgroup {
    char *dirs[CGROUP_MAX]; /* made by us, absolute */
    int procs[CGROUP_MAX];  /* cgroup.procs of each, open for writing */
    size_t count;
};

/*
 * Makes the cgroups that linux.cgroupsPath or linux.resources ask for in every mounted hierarchy
 * whose controller they concern, and sets the limits (cgroup v1: memory, cpu, cpuset, pids; v2: the
 * same through the unified names). Nothing asked for: count is 0. A limit that the host cannot set
 * is an error. On failure nothing is left.
 */
MUST_CHECK int cgroup_create(const struct oci_spec *spec, const char *id, struct cgroup *cg,
                             struct err *e);
/* Closes descriptors and frees texts; the directories stay. */
void cgroup_fini(struct cgroup *cg);
/* rmdir, waiting a short while for processes on their way out. */
void cgroup_remove(const char *dir);

#endif
