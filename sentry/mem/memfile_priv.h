/* Inside mem: the segments of the memory file, and charging them.
 * Depends on: base, memfile.h.
 * Threading: struct memfile's mu (rank MEMFILE) guards what it says.
 * Ownership: segments belong to the file. */
#ifndef RINGWALL_SENTRY_MEM_MEMFILE_PRIV_H
#define RINGWALL_SENTRY_MEM_MEMFILE_PRIV_H

#include <stdatomic.h>

#include "base/list.h"
#include "base/lock.h"
#include "base/rbtree.h"
#include "sentry/mem/commit.h"
#include "sentry/mem/memfile.h"

#define MF_BINS 40

struct memacct;

enum mf_state { MF_CLEAN, MF_DIRTY, MF_USED, MF_BUSY };

struct mf_seg {
    struct rb_node node;
    struct list bin; /* free: in its bin; unused node: in spares */
    uint64_t off, size;
    uint32_t refs; /* > 0 exactly when MF_USED */
    enum mf_state state;
    bool full;            /* used: every page is known to be there */
    struct memacct *acct; /* who is charged while MF_USED; NULL: nobody */
};

struct memfile {
    /* immutable */
    int fd;
    char *base;
    uint64_t size, host_ram;
    unsigned tables;
    _Atomic uint64_t limit; /* written under mu */
    struct mem_commit commit;
    /* guarded by mu */
    struct mutex mu;
    struct rb_root segs;
    struct list bins[2][MF_BINS]; /* by mf_state, log2 of pages */
    uint64_t bin_map[2];
    struct list spares;
    unsigned spare_count;
    _Atomic uint64_t reserved; /* written under mu */
    uint64_t dirty;
    uint64_t since_check, resident_seen; /* for the limit; with the heap */
    uint64_t zeroed;                     /* times that pages in use were given back */
};

struct mf_range {
    uint64_t off, size;
};
/* Ranges charged to a and the accounts below it, from *at on; goes on from *at. How many. */
size_t mf_charged_ranges(struct memfile *mf, const struct memacct *a, uint64_t *at,
                         struct mf_range *out, size_t max);

/* ---- memacct.c; mu held ---- */
/* size bytes more or less for a (NULL: nothing to do) and all above it. */
void memacct_charge_locked(struct memacct *a, uint64_t size);
void memacct_uncharge_locked(struct memacct *a, uint64_t size);

#endif
