/* Inside the cgroup files: one mounted hierarchy of the host and access to a directory's files.
 * Depends on: runsc/cgroup.h.
 * Threading: one thread.
 * Ownership: values. */
#ifndef RINGWALL_RUNSC_CGROUP_PRIV_H
#define RINGWALL_RUNSC_CGROUP_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "runsc/cgroup.h"

struct hierarchy {
    char dir[120];
    bool v2;
    bool memory, cpu, cpuacct, cpuset, pids, blkio, freezer; /* controllers it has */
};

/* Of containers whose configuration names no cgroup and has limits. */
#define CGROUP_PARENT "ringwall"

/* The name below every hierarchy's root of linux.cgroupsPath, which may be NULL or a unit of
 * systemd (SLICE:PREFIX:NAME). *out is owned. EINVAL, ENOMEM. */
MUST_CHECK int cgroup_name(const char *path, const char *id, char **out, struct err *e);
/* An open file of a cgroup directory, or -1 with errno. */
int cgroup_open(const char *dir, const char *file, int flags);
/* The file's text, cut to size - 1; a negative errno. */
MUST_CHECK int cgroup_read(const char *dir, const char *file, char *buf, size_t size);
MUST_CHECK int cgroup_write(const char *dir, const char *file, struct err *e, const char *fmt, ...)
    PRINTF_FMT(4, 5);
/* The hierarchy that dir lies in; its controllers are those that dir itself has. */
MUST_CHECK bool cgroup_find(const char *dir, struct hierarchy *out);
/* ENOTSUP when r gives a limit that none of the directories can hold. */
MUST_CHECK int cgroup_cover(struct cgroup_dirs d, const struct oci_resources *r, struct err *e);
/* Sets what r gives and h has. */
MUST_CHECK int cgroup_set_limits(const struct hierarchy *h, const char *dir,
                                 const struct oci_resources *r, struct err *e);

#endif
