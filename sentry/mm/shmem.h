/* Memory without a file: what MAP_SHARED | MAP_ANONYMOUS and System V segments map.
 * Depends on: base, mem, mappable.
 * Threading: any thread.
 * Ownership: reference-counted through the mappable's get and put. */
#ifndef RINGWALL_SENTRY_MM_SHMEM_H
#define RINGWALL_SENTRY_MM_SHMEM_H

#include <stdint.h>

#include "base/compiler.h"
#include "sentry/mm/mappable.h"

struct memfile;

/* size bytes (page multiple) of zeros. name: a static string for /proc/<pid>/maps, such as
 * "/dev/zero (deleted)". -ENOMEM. Owned result. */
MUST_CHECK int mm_shmem_new(struct memfile *mf, uint64_t size, const char *name,
                            struct mappable **out_m);

/* Whether m was made by it. */
bool mm_is_shmem(const struct mappable *m);

#endif
