/* Memory without a file: what MAP_SHARED | MAP_ANONYMOUS and System V segments map.
 * Depends on: base, mem, mappable.
 * Threading: any thread.
 * Ownership: reference-counted through the mappable's get and put. */
#ifndef RINGWALL_SENTRY_MM_SHMEM_H
#define RINGWALL_SENTRY_MM_SHMEM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/mm/mappable.h"

struct memfile;

/* size bytes (page multiple) of zeros. promise: they count as promised; the caller has asked
 * whether they may be. name: a static string for /proc/<pid>/maps, such as
 * "/dev/zero (deleted)". -ENOMEM. Owned result. */
MUST_CHECK int mm_shmem_new(struct memfile *mf, struct memacct *acct, uint64_t size, bool promise,
                            const char *name, struct mappable **out_m);

/* Whether m was made by it. */
bool mm_is_shmem(const struct mappable *m);

#endif
