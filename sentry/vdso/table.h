/* What stands in the page before the vDSO's image: addresses in the guest, 0 where there is none,
 * and what a time namespace adds to clocks. Depends on: nothing. Threading: addresses are written
 * once before any guest runs; offsets in the address space's own copy of the page, while nobody
 * runs in it but who asked for that. Ownership: none. */
#ifndef RINGWALL_SENTRY_VDSO_TABLE_H
#define RINGWALL_SENTRY_VDSO_TABLE_H

#include <stdint.h>

struct vdso_offset {
    int64_t sec, nsec; /* nsec: 0 to 999999999 */
};

struct vdso_table {
    uint64_t clock_gettime, gettimeofday, clock_getres, time;
    struct vdso_offset mono, boot;
};

#endif
