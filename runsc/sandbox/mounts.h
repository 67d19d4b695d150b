/*
 * What: which files of the host a container's gofer serves: the root file system and one export per
 * bind mount of the spec.
 * Depends on: runsc/spec.h, runsc/sandbox/sandbox.h, gofer/gofer.h.
 * Threading: called by the single thread of a runsc command, and at boot.
 * Ownership: a configuration owns its list of exports and their paths.
 */
#ifndef RINGWALL_RUNSC_SANDBOX_MOUNTS_H
#define RINGWALL_RUNSC_SANDBOX_MOUNTS_H

#include <stddef.h>

#include "base/compiler.h"
#include "gofer/gofer.h"
#include "runsc/err.h"
#include "runsc/sandbox/sandbox.h"

/* The export of the root file system. */
#define MOUNTS_ROOT_EXPORT 0

/*
 * Fill *out for the container of a; channels are the gofer's ends of count sockets, borrowed. A
 * bind mount without a source, or with one that does not exist, is an error that names it. Free
 * *out with mounts_gofer_config_free. *out is untouched on failure.
 */
MUST_CHECK int mounts_gofer_config(const struct sandbox_args *a, const int *channels, size_t count,
                                   struct gofer_config *out, struct err *e);
void mounts_gofer_config_free(struct gofer_config *cfg);

/*
 * In a root file system that the gofer will serve read-only: makes the missing places that mounts
 * go to, as other runtimes do. What cannot be made is left to the mount, which says so. Called by
 * mounts_gofer_config.
 */
void mounts_make_points(const struct sandbox_args *a, const struct gofer_config *cfg);

/* Number of the export behind spec->mounts[index], or -1 when the gofer has no part in it. */
int mounts_export(const struct oci_spec *spec, size_t index);

#endif
