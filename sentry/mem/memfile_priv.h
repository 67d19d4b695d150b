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
/* What a page table covers. */
#define MF_SPAN (UINT64_C(2) << 20)
#define MF_SPAN_SEEN 0x8000u

struct memacct;

enum mf_state { MF_CLEAN, MF_DIRTY, MF_USED, MF_BUSY };

struct mf_seg {
    struct rb_node node;
    struct list bin; /* free: in its bin; unused node: in spares */
    uint64_t off, size;
    uint32_t refs; /* > 0 exactly when MF_USED */
    enum mf_state state;
    bool full;            /* used: every page is known to be there */
    bool lazy, hidden;    /* used: of an object that shows it bit by bit; nobody can touch it */
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
    uint16_t *spans; /* written under mu: by MF_SPAN, pages of shown, MF_SPAN_SEEN: ever */
    /* guarded by mu */
    struct mutex mu;
    struct rb_root segs;
    struct list bins[2][MF_BINS]; /* by mf_state, log2 of pages */
    uint64_t bin_map[2];
    struct list spares;
    unsigned spare_count;
    /* Written under mu, in bytes. shown: of what is reserved, what somebody can touch. */
    _Atomic uint64_t reserved, shown, dirty;
    _Atomic uint64_t span_count, spans_seen; /* that have pages, or had */
    uint64_t zeroed;                         /* times that pages in use were given back */
    /* atomic */
    _Atomic uint64_t left; /* of shown: holes that were looked for and could not be taken back */
    _Atomic uint64_t press_at; /* bytes in use from which on somebody is to look */
};

struct mf_range {
    uint64_t off, size;
};
/* Ranges charged to a and the accounts below it, from *at on; goes on from *at. How many. */
size_t mf_charged_ranges(struct memfile *mf, const struct memacct *a, uint64_t *at,
                         struct mf_range *out, size_t max);

/* Gives back freed ranges that are still committed, but for keep bytes of them. mu held; dropped
 * meanwhile. */
void mf_trim_locked(struct memfile *mf, uint64_t keep);

/* ---- memfile_limit.c ---- */
/* [off, off+size) can be touched from now on, or not any more. mu held. */
void mf_shown_locked(struct memfile *mf, uint64_t off, uint64_t size, bool shown);
/* size bytes more that can be touched would pass the limit. mu held; dropped meanwhile. */
bool mf_refuses_locked(struct memfile *mf, uint64_t size);

/* ---- memacct.c; mu held ---- */
/* size bytes more or less for a (NULL: nothing to do) and all above it. */
void memacct_charge_locked(struct memacct *a, uint64_t size);
void memacct_uncharge_locked(struct memacct *a, uint64_t size);

#endif
