/* What stands in the page before the vDSO's image: addresses in the guest, 0 where there is none.
 * Depends on: nothing.
 * Threading: written once before any guest runs.
 * Ownership: none. */
#ifndef RINGWALL_SENTRY_VDSO_TABLE_H
#define RINGWALL_SENTRY_VDSO_TABLE_H

#include <stdint.h>

struct vdso_table {
    uint64_t clock_gettime, gettimeofday, clock_getres, time;
};

#endif
