/* Inside of mm: VMAs, PMAs and the helpers shared by its files.
 * Depends on: base, mem, platform.
 * Threading: everything here needs the mm lock, exclusively unless said.
 * Ownership: nodes belong to their tree; removed ones wait in lists for the next commit. */
#ifndef RINGWALL_SENTRY_MM_PRIV_H
#define RINGWALL_SENTRY_MM_PRIV_H

#include <stdatomic.h>
#include <sys/mman.h>

#include "base/list.h"
#include "base/lock.h"
#include "base/rbtree.h"
#include "base/ref.h"
#include "base/limits.h"
#include "sentry/mem/memacct.h"
#include "sentry/mem/memfile.h"
#include "sentry/mm/mm.h"
#include "sentry/mm/shmem.h"

/* vma.flags */
#define VMA_SHARED 0x001u
#define VMA_GROWSDOWN 0x002u
#define VMA_NORESERVE 0x004u
#define VMA_LOCKED 0x008u
#define VMA_LOCKONFAULT 0x010u
#define VMA_DONTFORK 0x020u
#define VMA_WIPEONFORK 0x040u
#define VMA_HUGEPAGE 0x080u
#define VMA_NOHUGEPAGE 0x100u
#define VMA_DONTDUMP 0x200u
#define VMA_SEALED 0x400u  /* mseal(2) */
#define VMA_ACCOUNT 0x800u /* counts as promised memory, also after it became read-only */

/* What was promised: a range with one protection and one object. */
struct vma {
    struct rb_node node;
    struct list mlink; /* in m->mappings (rank MAPPABLE), or in spares, pending, dead VMAs */
    struct mm *mm;     /* NULL: a marker in m->mappings */
    uint64_t start, end;
    uint32_t flags;
    int prot, max_prot;
    struct mappable *m; /* reference owned; NULL: anonymous private */
    uint64_t off;       /* of start in m */
    const char *name;
    struct mm_policy policy; /* mbind(2) */
};

enum pma_kind {
    PMA_ANON, /* private memory of this mm in the memory file; a reference per page */
    PMA_MEM,  /* the mappable's memory in the memory file; a reference per page */
    PMA_HOST, /* a host file of the mappable */
};

/* What backs a range. Present PMAs are mapped in the stub (or queued) with access. */
struct pma {
    struct rb_node node;
    struct list link; /* spares, pending, held */
    uint64_t start, end;
    uint64_t off;       /* in the memory file or in fd */
    struct mappable *m; /* PMA_MEM, PMA_HOST: borrowed from the VMA; window cache key */
    int fd;             /* PMA_HOST */
    enum pma_kind kind;
    bool cow;        /* PMA_ANON: may be shared with another mm, look before writing */
    bool writable;   /* PMA_MEM, PMA_HOST: translated for writing */
    bool taken;      /* mm_take_back is about to give it back */
    unsigned access; /* PLAT_* of the mapping in the stub */
};

/* A fault for which nothing had to be done: another thread was faster, or it is for real. */
#define MM_SPURIOUS 8u
struct mm_spurious {
    const struct plat_ctx *ctx;
    uint64_t page, changes;
    unsigned count;
};

/* What children of one program and their parents write soon after a fork, as far as was seen:
 * copied by the next fork at once, which costs a tenth of the faults. Shared by all that stem from
 * it. */
#define MM_HOT_RANGES 16u
struct mm_hot {
    struct ref ref;
    _Atomic uint32_t count; /* entries given out; may exceed the size */
    _Atomic uint64_t
        range[MM_HOT_RANGES]; /* address of the first page | number of pages; 0: none */
};

struct mm {
    struct ref ref;
    /* immutable */
    struct plat *plat;
    struct plat_as *as;
    struct memfile *mf;
    uint64_t min_addr, max_addr;
    uint64_t mmap_base, stack_top;
    uint64_t ram;
    uint64_t born_ns;

    _Atomic uint64_t cids[LIMIT_CPU_WORDS]; /* bit set: mm_cid_take has given it */
    _Atomic bool has_sections;              /* mm_set_sections */

    struct mutex acct_mu; /* rank LEAF: acct, which changes under lock as well */
    struct memacct *acct; /* owned, or NULL: who is charged for new memory */

    struct rwlock lock;   /* rank MM; guards the rest */
    struct plat_ctx *ctx; /* of the operation under way, or NULL */
    struct rb_root vmas, pmas;
    uint64_t vma_count, pma_count;
    uint64_t tables; /* of the lowest level that PMAs need in the stub: counted as heap */
    struct list spare_vmas, spare_pmas;
    unsigned spare_vma_count, spare_pma_count;
    /* Removed, but a stub may still use them until the next commit. */
    struct list pending_pmas, pending_vmas;
    uint64_t pending_bytes;
    unsigned pending_count;
    struct list held_pmas; /* could not be unmapped: kept until the stub is gone */
    bool fresh;            /* not loaded yet: nothing runs in it */
    bool stale;            /* a removal could not even be queued: nothing may be freed any more */
    bool unprotected; /* a fork failed half-way: pma.access may say less than the stub may do */
    struct list dead_vmas; /* mappables to put once the lock is dropped */

    struct mm_layout layout;
    uint64_t gap_top, gap_hole; /* every gap above gap_top is at most gap_hole */
    uint64_t virt, data, stack, exec, shared, locked;
    uint64_t promised; /* of VMA_ACCOUNT */
    uint64_t peak_virt, peak_rss;
    uint64_t stack_limit, as_limit, memlock_limit; /* as last seen, for growing stacks */
    bool has_sealed;                               /* a VMA was sealed once */
    uint32_t def_flags;                            /* mlockall(MCL_FUTURE) */
    struct mm_hot *hot;                            /* reference owned; NULL before the first fork */
    uint64_t cow_end, cow_size; /* end and size of the last copy of shared pages */
    uint64_t changes;           /* of the stub's mappings so far */
    uint64_t left;              /* bytes of holes that were not taken back */
    _Atomic uint64_t given; /* bytes handed out since it was looked for holes; written under lock */
    bool reaped;            /* the process ends, what it had is taken away already */
    uint64_t heap_owed;     /* counted as heap till the stub is gone */
    struct mm_spurious spurious[MM_SPURIOUS];
};

/* Largest private mapping that gets its memory reserved and mapped at once. */
#define MM_EAGER_MAX (UINT64_C(1) << 30)
#define MM_EAGER_NORESERVE_MAX (UINT64_C(64) << 20)
/* Piece populated by one fault in bigger ones: what a page table of the host covers. */
#define MM_CHUNK (UINT64_C(2) << 20)
/* With a limit, the first piece of somewhere, at most, and as a part of what one fault may bring.
 */
#define MM_FIRST_MAX (UINT64_C(512) << 10)
#define MM_FIRST_PART 32u
#define MM_COW_WINDOW (UINT64_C(64) << 10)
/* The largest piece copied at a time for who writes on and on. */
#define MM_COW_WINDOW_MAX (UINT64_C(1) << 20)
/* Bytes that a fork copies at once. */
#define MM_HOT_BYTES (UINT64_C(256) << 10)
/* Calls of translate per system call before the rest is left to faults. */
#define MM_EAGER_TRANSLATIONS 64u
#define MM_STACK_GAP (UINT64_C(256) << PAGE_SHIFT)
#define MM_PENDING_BYTES_MAX (UINT64_C(256) << 10)
#define MM_PENDING_MAX 32u
/* Host mappings that are left for what must not fail. */
#define MM_PMA_SPARE 1024u

/* ---- mm.c: locking and the end of operations ---- */
/* Takes the lock exclusively for an operation on behalf of ctx and stocks spare nodes: a few cuts
 * and insertions cannot fail afterwards. -ENOMEM: not locked. */
MUST_CHECK int mm_begin(struct mm *mm, struct plat_ctx *ctx);
/* Ends it: commits and frees what is pending when that is worth it, drops the lock and puts
 * mappables that lost their last mapping. */
void mm_end(struct mm *mm);
/* Fills the spares up again in the middle of an operation. */
MUST_CHECK int mm_stock_locked(struct mm *mm);
/* An empty one on as (taken on success; NULL: set later). */
MUST_CHECK int mm_alloc(struct plat *plat, struct memfile *mf, struct plat_as *as,
                        struct mm **out_mm);
MUST_CHECK bool mm_tryget(struct mm *mm);
/* Takes out every VMA and drops what they had, without touching a stub. */
void mm_clear_locked(struct mm *mm);
/* 0 or what the commit said; pending memory is free afterwards (or held). */
int mm_commit_locked(struct mm *mm);
/* [addr, addr+size) page-rounded: false when it leaves the address space. */
bool mm_range_ok(const struct mm *mm, uint64_t addr, uint64_t size);
void mm_remember_limits(struct mm *mm, const struct mm_limits *lim);

/* ---- vma.c ---- */
struct vma *vma_find(struct mm *mm, uint64_t addr);  /* containing addr; shared lock is enough */
struct vma *vma_first(struct mm *mm, uint64_t addr); /* first with end > addr; shared as well */
struct vma *vma_next(struct vma *vma);
struct vma *vma_prev(struct vma *vma);
struct vma *vma_take_spare(struct mm *mm);
/* What from says, for mm. Links stay out: mlink changes under the lock of from's object. */
void vma_copy(struct mm *mm, struct vma *to, const struct vma *from);
/* Into the tree, figures and m's list. inherited: what it shows was translated before. */
void vma_link(struct mm *mm, struct vma *vma, bool inherited);
void vma_isolate(struct mm *mm, uint64_t start, uint64_t end); /* cuts at both borders */
void vma_merge_range(struct mm *mm, uint64_t start, uint64_t end);
/* Takes an isolated VMA out; its mappable is put after the next commit. */
void vma_remove(struct mm *mm, struct vma *vma);
void vma_account(struct mm *mm, const struct vma *vma, uint64_t size, bool add);
/* Changes what merges and figures depend on, for an isolated VMA. */
void vma_set_prot(struct mm *mm, struct vma *vma, int prot);
/* Whole range is covered by VMAs. */
bool vma_covers(struct mm *mm, uint64_t start, uint64_t end);
bool vma_any(struct mm *mm, uint64_t start, uint64_t end);
/* Part of the range must stay as it is: mseal(2). */
bool vma_sealed(struct mm *mm, uint64_t start, uint64_t end);
/* Highest free place below the top for size bytes; -ENOMEM. */
MUST_CHECK int vma_gap(struct mm *mm, uint64_t size, uint64_t low, uint64_t high, uint64_t *out);
/* A range was freed: the cached search must see it. */
void vma_gap_freed(struct mm *mm, uint64_t start, uint64_t end);
/* No VMA, no reserved range, stack guard gap kept. */
bool vma_range_free(struct mm *mm, uint64_t start, uint64_t end);
bool vma_overlaps_reserved(const struct mm *mm, uint64_t start, uint64_t end);
static inline bool vma_private(const struct vma *vma)
{
    return !(vma->flags & VMA_SHARED);
}

/* ---- pma.c ---- */
struct pma *pma_find(struct mm *mm, uint64_t addr);  /* shared lock is enough */
struct pma *pma_first(struct mm *mm, uint64_t addr); /* first with end > addr; shared as well */
struct pma *pma_next(struct pma *pma);
struct pma *pma_prev(struct pma *pma);
struct pma *pma_take_spare(struct mm *mm);
void pma_give_spare(struct mm *mm, struct pma *pma);
void pma_link(struct mm *mm, struct pma *pma);
void pma_unlink(struct mm *mm, struct pma *pma);
void pma_isolate(struct mm *mm, uint64_t start, uint64_t end);
/* Merges equal neighbours that touch [start, end]. */
void pma_merge_range(struct mm *mm, uint64_t start, uint64_t end);
/* Takes every PMA in the range out (queueing the unmap) and makes it pending. skip_anon leaves
 * private copies alone. true when anything was there. */
bool pma_drop_range(struct mm *mm, uint64_t start, uint64_t end, bool skip_anon);
void pma_make_pending(struct mm *mm, struct pma *pma);
void pma_release(struct mm *mm, struct pma *pma); /* drops page references; not in any tree */
/* What the stub may do with it at present. */
unsigned pma_effective(const struct vma *vma, const struct pma *pma);
int pma_host_fd(const struct mm *mm, const struct pma *pma);
/* Queues the mapping of [start, end) of it with its effective access. */
MUST_CHECK int pma_map(struct mm *mm, const struct vma *vma, struct pma *pma, uint64_t start,
                       uint64_t end, unsigned flags);
/* Queue; retry once after a commit. When an unmap cannot be queued, freed memory is held. What the
 * platform has reserved stays. */
void mm_as_unmap(struct mm *mm, uint64_t start, uint64_t end);
MUST_CHECK int mm_as_protect(struct mm *mm, uint64_t start, uint64_t end, unsigned access);

/* ---- populate.c: from promise to memory ---- */
/* Backs the holes of [start, end), which lies in vma. budget: holes / translations that may be
 * used up; the rest stays for faults. Errors: -ENOMEM, or translate's (-ERANGE: beyond the end;
 * what came before is populated). */
MUST_CHECK int mm_populate(struct mm *mm, struct vma *vma, uint64_t start, uint64_t end,
                           unsigned flags, unsigned budget);
/* Makes addr usable for access (one of PLAT_READ/WRITE/EXEC, permission already checked).
 * *out_changed: something was done. */
MUST_CHECK int mm_make_usable(struct mm *mm, struct vma *vma, uint64_t addr, unsigned access,
                              bool *out_changed);
/* Puts a private copy in the place of a host file's pages around addr, for a file system that the
 * stub cannot map as it should (noexec). */
MUST_CHECK int mm_copy_host(struct mm *mm, struct vma *vma, uint64_t addr);
/* True when size bytes of a mapping of this kind are populated as soon as they are made. */
bool mm_is_eager(const struct vma *vma, uint64_t size);
unsigned vma_access(const struct vma *vma);

/* ---- fork.c ---- */
/* [start, end) had to be copied, or made writable again, after a fork. */
void mm_hot_note(struct mm *mm, uint64_t start, uint64_t end);
void mm_hot_put(struct mm_hot *hot); /* NULL: nothing */

/* ---- takeback.c ---- */
/* mm_take_back inside an operation. Cuts PMAs and commits; VMAs stay. */
uint64_t mm_take_back_locked(struct mm *mm, bool coarse);

/* ---- fault.c ---- */
/* The VMA for addr, growing a stack down to it when that is allowed; NULL. */
struct vma *mm_vma_or_grow(struct mm *mm, uint64_t addr, uint64_t stack_limit);
bool vma_permits(const struct vma *vma, unsigned access);
/* Usercopy's slow path: takes the lock exclusively, makes [addr's page] usable. */
MUST_CHECK int mm_fault_in(struct mm *mm, struct plat_ctx *ctx, uint64_t addr, unsigned access);

/* ---- map.c ---- */
/* Removes VMAs and PMAs of the range. Needs 2 spare cuts. */
void mm_unmap_locked(struct mm *mm, uint64_t start, uint64_t end);
/* RLIMIT_AS, RLIMIT_DATA and overcommit for size more bytes. */
MUST_CHECK int mm_may_expand(struct mm *mm, const struct mm_limits *lim, uint64_t size, int prot,
                             uint32_t flags);
/* Private memory that can be written is promised (accountable_mapping()). */
static inline bool mm_accountable(uint32_t flags, int prot)
{
    return (flags & VMA_ACCOUNT) ||
           (!(flags & (VMA_SHARED | VMA_NORESERVE)) && (prot & PROT_WRITE));
}
/* May size more bytes be promised? lim NULL: nobody in particular asks. */
bool mm_may_promise(const struct mm *mm, const struct mm_limits *lim, uint64_t size);
/* RLIMIT_MEMLOCK for size more bytes. */
MUST_CHECK int mm_may_lock(const struct mm *mm, const struct mm_limits *lim, uint64_t size);

/* ---- mappable.c ---- */
/* Till mappable_unclaim a writer is counted, whom nobody has to see yet. False: it is sealed. */
MUST_CHECK bool mappable_claim(struct mappable *m);
void mappable_unclaim(struct mappable *m);
void mappable_track(struct vma *vma, bool inherited); /* inherited: from a fork, must be seen */
void mappable_untrack(struct vma *vma);

/* ---- hostwin.c: parts of host files that the sentry has mapped for itself ---- */
struct hostwin;
/* A pinned window with bytes off.. of m's descriptor fd: *out_ptr for at least one byte and at most
 * *size, which is cut to the window. -ENOMEM, -EACCES, -EIO. Takes and drops leaf locks. */
MUST_CHECK int hostwin_get(const struct mappable *m, int fd, uint64_t off, bool write,
                           uint64_t *size, void **out_ptr, struct hostwin **out_win);
void hostwin_put(struct hostwin *w); /* NULL: nothing */
/* m is going away: its address may come back as another object. */
void hostwin_forget(const struct mappable *m);

/* ---- usercopy.c ---- */
/* A piece of guest memory as the sentry can reach it. */
struct mm_piece {
    void *ptr;              /* sentry address */
    uint64_t size;          /* bytes from ptr that are good */
    struct hostwin *window; /* pinned, or NULL: hostwin_put */
};
/* Shared lock held. -EFAULT: the slow path must make it usable first; others are final. */
MUST_CHECK int mm_piece_locked(struct mm *mm, uint64_t addr, uint64_t size, unsigned access,
                               struct mm_piece *out);

#endif
