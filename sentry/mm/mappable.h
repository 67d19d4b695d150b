/* What a file gives to mm so that it can be mapped. mm knows files only through this.
 * Depends on: base, mem.
 * Threading: translate may be called from any thread, with the mm lock held; must not block on
 * another mm. get/put from any thread.
 * Ownership: a VMA holds one reference (get/put) on its mappable. */
#ifndef RINGWALL_SENTRY_MM_MAPPABLE_H
#define RINGWALL_SENTRY_MM_MAPPABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/list.h"

struct mappable;
struct memacct;

/* Where the bytes of a range really are. Either in the memory file (mem_off, a reference per page
 * that the caller now owns) or in a host file (fd borrowed while the mappable lives). */
struct mappable_range {
    /* Filled in by who asks: who is charged for pages that are made now (NULL: nobody); borrowed.
     */
    struct memacct *acct;
    bool in_memfile;
    int fd;       /* host file: descriptor open for what access asked */
    uint64_t off; /* offset in the memory file or in fd */
    uint64_t size;
};

struct mappable_ops {
    /* Finds [off, off+size) of the object for access (PLAT_READ/WRITE/EXEC): fills out with a
     * prefix of it, at least one page. -ERANGE: off lies beyond the end (SIGBUS); -ENOMEM; -EIO;
     * -EACCES when it cannot be written. */
    MUST_CHECK int (*translate)(struct mappable *m, uint64_t off, uint64_t size, unsigned access,
                                struct mappable_range *out);
    /* NULL: nothing to write back. */
    int (*msync)(struct mappable *m, uint64_t off, uint64_t size);
    void (*get)(struct mappable *m);
    void (*put)(struct mappable *m);
    /* Frees the bytes of a range, which read as zeros afterwards (MADV_REMOVE). NULL: -EOPNOTSUPP.
     * Called without the mm lock; calls mappable_invalidate itself when pages are replaced. */
    int (*punch)(struct mappable *m, uint64_t off, uint64_t size);
    /* A VMA begins or ceases to show it. NULL: nobody counts. Called with the mm lock held; takes
     * no lock. */
    void (*mapped)(struct mappable *m, bool added);
    /* For /proc/<pid>/maps: device, inode and a NUL-terminated path (truncated to size). */
    void (*describe)(struct mappable *m, uint64_t *out_dev, uint64_t *out_ino, char *path,
                     size_t size);
};

/* Embedded in the object that can be mapped. Objects whose range may shrink or vanish under
 * mappings (truncate, hole punch) call mappable_truncate or mappable_invalidate. */
struct mappable {
    const struct mappable_ops *ops;
    /* VMAs that map it: private to mm (sentry/mm/mappable.c), guarded by its lock. */
    struct list mappings;
    size_t writers; /* of them, those that may write to it or come to (MAP_SHARED) */
    bool sealed;    /* there will be no new ones */
};

void mappable_init(struct mappable *m, const struct mappable_ops *ops);
void mappable_fini(struct mappable *m);
/* Shared mappings will be for reading only from now on (F_SEAL_WRITE of fcntl(2)). -EBUSY: there is
 * one that may write; with leave those that are there may go on (F_SEAL_FUTURE_WRITE). */
MUST_CHECK int mappable_seal(struct mappable *m, bool leave);
/* Takes [off, off+size) (size UINT64_MAX: to the end) out of every address space that maps it
 * shared or has not copied it privately; next touch translates again. Holds no lock of the
 * object that translate takes. Blocks until no stale mapping is usable. */
void mappable_invalidate(struct mappable *m, uint64_t off, uint64_t size);
/* The object ends at size (bytes) now: whole pages beyond go everywhere, private copies too. As
 * mappable_invalidate otherwise. */
void mappable_truncate(struct mappable *m, uint64_t size);

#endif
