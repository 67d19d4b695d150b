/* The steps that take everything away from the sentry process, in the order they must run.
 * Depends on: base.
 * Threading: before the process has a second thread; confine_seccomp covers threads made later.
 * Ownership: nothing is kept. All return 0 or a negative errno and name the failing step in *step
 * (a static string). */
#ifndef RINGWALL_RUNSC_SANDBOX_CONFINE_H
#define RINGWALL_RUNSC_SANDBOX_CONFINE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"

/* The id the sentry runs as, inside its user namespace and (with privileges) outside. */
#define SENTRY_ID 65534u

/* Parent: writes the id maps of the child's fresh user namespace: SENTRY_ID inside is SENTRY_ID
 * outside, or the caller's own ids when it is not privileged (user_namespaces(7)). */
MUST_CHECK int confine_write_id_maps(pid_t child, const char **step);
/* Child: becomes SENTRY_ID for good, with no supplementary groups. Keeps its namespace
 * capabilities for the mounts that follow. */
MUST_CHECK int confine_become_sentry_id(bool can_set_groups, const char **step);
/* Child: an empty tmpfs, read-only, is all it can see (mount_namespaces(7), pivot_root(2)). */
MUST_CHECK int confine_empty_root(const char **step);
/* Drops every capability in every set, bounding and ambient included, and locks the securebits. */
MUST_CHECK int confine_drop_capabilities(const char **step);
/* no_new_privs, and Landlock deny-all where the kernel has it (*out_abi: its ABI, 0 without), but
 * for TCP ports with network. */
MUST_CHECK int confine_landlock(bool network, int *out_abi, const char **step);
/* Parent: the child's threads may come back to the nice value that it starts with. Without
 * privilege they may not, and then nobody's is changed. */
void confine_allow_nice(pid_t child);
/* Core files off, locked memory off, no better nice value than now, no further limits that the
 * guest's work needs. */
MUST_CHECK int confine_rlimits(const char **step);
/* Loads the allow-list of seccomp_sentry.def for every thread from now on; platform: the name of
 * the one that runs the guests; host_network: with the rows for sockets of the host. */
MUST_CHECK int confine_seccomp(const char *platform, bool host_network, const char **step);
/* Loads that of seccomp_broker.def. */
MUST_CHECK int confine_broker_seccomp(const char **step);
/* Closes every descriptor from 3 up that is not in keep. */
MUST_CHECK int confine_close_fds(const int *keep, size_t count, const char **step);

#endif
