/* A guest address space: VMAs (what is promised), PMAs (what backs it), faults.
 * Depends on: base, mem, wait, cred, platform.
 * Threading: every function takes the mm lock (rank MM) itself unless its name ends in _locked.
 * Calls that change mappings take the caller's own context bound to this mm, or NULL when nobody
 * runs it yet (exec) or the caller is foreign.
 * Ownership: reference-counted; users (tasks) and references are the same count. */
#ifndef RINGWALL_SENTRY_MM_MM_H
#define RINGWALL_SENTRY_MM_MM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/uaddr.h"
#include "platform/platform.h"
#include "sentry/mm/mappable.h"
#include "sentry/mm/usercopy.h"

struct memacct;
struct memfile;
struct mm;

/* Limits that bite, read by the caller from the task's rlimits; RLIM_INFINITY = UINT64_MAX. */
struct mm_limits {
    uint64_t as, data, stack, memlock;
    bool ipc_lock; /* CAP_IPC_LOCK */
    bool admin;    /* CAP_SYS_ADMIN: may have the last of what may be promised */
};

#define MM_AUXV_WORDS 48
/* Layout facts kept for exec, brk, prctl(PR_SET_MM) and /proc. */
struct mm_layout {
    uint64_t start_code, end_code, start_data, end_data;
    uint64_t start_brk, brk, start_stack;
    uint64_t arg_start, arg_end, env_start, env_end;
    uint64_t vdso;
    uint64_t auxv[MM_AUXV_WORDS]; /* pairs, as the program got them */
    uint32_t auxv_words;          /* used, with the closing pair */
    uint32_t mdwe;                /* MM_MDWE_* */
};
/* As PR_MDWE_*: nothing becomes executable that was not, nor writable with it; children do not
 * inherit that. */
#define MM_MDWE_REFUSE 1u
#define MM_MDWE_NO_INHERIT 2u
/* What a child, or the next program, has of it. */
static inline uint32_t mm_mdwe_inherited(uint32_t mdwe)
{
    return mdwe & MM_MDWE_NO_INHERIT ? 0 : mdwe;
}

/* An empty address space on the platform. Owned result. */
MUST_CHECK int mm_new(struct plat *plat, struct memfile *mf, struct mm **out_mm);
/* Ends the time from mm_new on in which nothing can run in it, so that changes need not reach the
 * platform one after the other. */
void mm_loaded(struct mm *mm);
/* New memory of mm's is charged to acct from now on (NULL: to nobody); takes a reference. */
void mm_set_account(struct mm *mm, struct memacct *acct);
/* Owned, or NULL. Any lock below LEAF may be held. */
struct memacct *mm_account(struct mm *mm);
/* Before anything is mapped: places are no longer a matter of chance. */
void mm_fix_layout(struct mm *mm);
struct mm *mm_get(struct mm *mm);
void mm_put(struct mm *mm);
/* fork(2): a copy-on-write copy and a context for the child, made through parent_ctx (the calling
 * thread's). Both results are owned by the caller. */
MUST_CHECK int mm_fork(struct mm *mm, struct plat_ctx *parent_ctx, const struct mm_limits *lim,
                       struct mm **out_mm, struct plat_ctx **out_child);
struct plat_as *mm_as(struct mm *mm);
/* CLOCK_MONOTONIC at which it was made, ns: tells it from a later one at the same place. */
uint64_t mm_born(const struct mm *mm);
struct mm_layout *mm_layout(struct mm *mm); /* guarded by the mm lock; exec may write before use */
/* The smallest concurrency id that nobody in mm has: below the number of those who have one. At
 * most LIMIT_CPU_WORDS * 64 at once. Any thread, no lock. */
uint32_t mm_cid_take(struct mm *mm);
void mm_cid_put(struct mm *mm, uint32_t cid);
/* Programs in it have critical sections (rseq(2)); children of fork inherit that. Any thread. */
void mm_set_sections(struct mm *mm);
bool mm_has_sections(const struct mm *mm);
/* Where the first stack ends (below the top, by a random distance). */
uint64_t mm_stack_top(const struct mm *mm);
void mm_lock_layout(struct mm *mm);
void mm_unlock_layout(struct mm *mm);

/* mmap(2). m NULL: anonymous (shared anonymous when MAP_SHARED). max_prot: what mprotect may later
 * give (PROT_*; a file opened read-only and mapped shared cannot become writable). Takes its own
 * reference on m. flags are MAP_* of Linux, checked here, but for MAP_SHARED_VALIDATE. */
struct mm_map_args {
    uaddr_t addr;
    uint64_t size;
    int prot, flags, max_prot;
    struct mappable *m;
    uint64_t off;
    const char *name; /* "[heap]", "[vdso]", ... static string, or NULL */
};
MUST_CHECK int mm_mmap(struct mm *mm, struct plat_ctx *ctx, const struct mm_limits *lim,
                       const struct mm_map_args *args, uaddr_t *out_addr);
MUST_CHECK int mm_munmap(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size);
/* Unmaps every VMA that shows one object, whose ops are these, where it would be if that object had
 * been mapped whole at addr (shmdt). -EINVAL: there is none. *out_m: the object, owned. */
MUST_CHECK int mm_detach(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr,
                         const struct mappable_ops *ops, struct mappable **out_m);
/* The object with these ops that a VMA shows from its start at addr on. -EINVAL: there is none.
 * Owned. */
MUST_CHECK int mm_find_object(struct mm *mm, uaddr_t addr, const struct mappable_ops *ops,
                              struct mappable **out_m);
/* Where the lowest VMA begins that shows the beginning of an object with these ops; false: none
 * does.
 */
bool mm_find_start(struct mm *mm, const struct mappable_ops *ops, uaddr_t *out_addr);
MUST_CHECK int mm_mprotect(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size,
                           int prot, const struct mm_limits *lim);
MUST_CHECK int mm_mremap(struct mm *mm, struct plat_ctx *ctx, const struct mm_limits *lim,
                         uaddr_t old, uint64_t old_size, uint64_t new_size, int flags,
                         uaddr_t new_addr, uaddr_t *out_addr);
/* A NUMA policy (mbind(2)); all zero: the default. There is one node, number 0. */
struct mm_policy {
    uint64_t nodes;       /* as asked for, or those that are there: what get_mempolicy shows */
    uint16_t mode, flags; /* MPOL_*, of the MPOL_MODE_FLAGS */
};
static inline bool mm_policy_equal(const struct mm_policy *a, const struct mm_policy *b)
{
    return a->nodes == b->nodes && a->mode == b->mode && a->flags == b->flags;
}
/* mbind(2) for whole pages. -EFAULT: a part is not mapped (with the default policy: none is). */
MUST_CHECK int mm_set_policy(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size,
                             const struct mm_policy *policy);
/* That of the VMA at addr, -EFAULT. */
MUST_CHECK int mm_get_policy(struct mm *mm, uaddr_t addr, struct mm_policy *out);
/* set_mempolicy_home_node(2) for the only node: -ENOENT when no VMA of the range has a policy,
 * -EOPNOTSUPP when one has another than bind and preferred-many. */
MUST_CHECK int mm_home_node(struct mm *mm, uaddr_t addr, uint64_t size);
/* What backs one page at this moment. */
enum mm_page_state { MM_PAGE_UNMAPPED, MM_PAGE_ABSENT, MM_PAGE_PRESENT };
enum mm_page_state mm_page_state(struct mm *mm, uaddr_t addr);
/* The words of /proc/<pid>/pagemap for count pages from addr on; frame numbers are never shown. */
#define MM_PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define MM_PAGEMAP_FILE (UINT64_C(1) << 61) /* a file's, or shared */
#define MM_PAGEMAP_EXCLUSIVE (UINT64_C(1) << 56)
void mm_pagemap(struct mm *mm, uint64_t addr, size_t count, uint64_t *out);
/* /proc/<pid>/clear_refs: what was used of private memory and of objects is forgotten, so that
 * mm_vma_info.referenced counts anew. */
MUST_CHECK int mm_clear_referenced(struct mm *mm, bool anon, bool objects);
void mm_reset_peak(struct mm *mm);
/* process_mrelease(2): private memory of a process that ends is given back. */
MUST_CHECK int mm_reap(struct mm *mm);
/* What was handed out and never touched is handed out no more, where there is a limit; coarse: only
 * large pieces, which costs little. Bytes. */
uint64_t mm_take_back(struct mm *mm, bool coarse);
/* mseal(2): the range may be used, but neither unmapped, moved, replaced nor protected otherwise.
 */
MUST_CHECK int mm_seal(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size);
/* remap_file_pages(2): the object of a shared mapping from another page on. flags: MAP_NONBLOCK. */
MUST_CHECK int mm_remap_file_pages(struct mm *mm, struct plat_ctx *ctx, const struct mm_limits *lim,
                                   uaddr_t addr, uint64_t size, uint64_t page_off, int flags);
/* brk(2): the new break, or the old one when it cannot be moved. */
uint64_t mm_brk(struct mm *mm, struct plat_ctx *ctx, const struct mm_limits *lim, uint64_t brk);
MUST_CHECK int mm_madvise(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size,
                          int advice);
MUST_CHECK int mm_msync(struct mm *mm, uaddr_t addr, uint64_t size, int flags);
/* addr page-aligned, size bytes: one byte of vec for each page. */
MUST_CHECK int mm_mincore(struct mm *mm, uaddr_t addr, uint64_t size, unsigned char *vec);
/* mlock(2), mlock2(2), munlock(2): counted against RLIMIT_MEMLOCK and filled in. */
enum mm_lock_mode { MM_UNLOCK, MM_LOCK, MM_LOCK_ONFAULT };
MUST_CHECK int mm_mlock(struct mm *mm, struct plat_ctx *ctx, uaddr_t addr, uint64_t size,
                        enum mm_lock_mode mode, const struct mm_limits *lim);
/* flags: MCL_*, 0 for munlockall(2). */
MUST_CHECK int mm_mlockall(struct mm *mm, struct plat_ctx *ctx, int flags,
                           const struct mm_limits *lim);

/* A fault of guest code: 0 when it may be retried, else fills *sig (signo, code, addr) for the
 * signal and returns -EFAULT. Grows the stack (MAP_GROWSDOWN) within lim->stack. */
MUST_CHECK int mm_fault(struct mm *mm, struct plat_ctx *ctx, const struct plat_fault *f,
                        const struct mm_limits *lim, struct plat_fault *sig);

/* Key of a futex word: private ones by (mm, address), shared ones by what backs them. */
struct mm_futex_key {
    uint64_t object; /* unique id of mm or mappable / memory file */
    uint64_t off;
};
/* A shared one needs the page (populates it). -EFAULT, -EINVAL when not 4-aligned. */
MUST_CHECK int mm_futex_key(const struct uaccess *ua, uaddr_t addr, bool shared,
                            struct mm_futex_key *out);

/* Sizes for /proc and rusage, bytes. */
struct mm_stats {
    uint64_t virt, rss, peak_virt, peak_rss, data, stack, exec, shared, locked;
};
void mm_stats(struct mm *mm, struct mm_stats *out);
/* One VMA for /proc/<pid>/maps; walks by address: the first VMA whose end is > from. -ENOENT. */
struct mm_vma_info {
    uint64_t start, end, off, dev, ino;
    int prot, flags; /* PROT_*, MAP_SHARED/MAP_PRIVATE/MAP_GROWSDOWN */
    bool may_read_write_exec;
    bool anonymous; /* no file behind it: private memory, shared memory without a name */
    bool dont_dump; /* MADV_DONTDUMP */
    bool dont_fork, wipe_on_fork, huge, no_huge, lock_on_fault, sealed;
    int max_prot;
    uint64_t rss, anon; /* bytes that are there; of these private memory */
    uint64_t shmem;     /* ... memory of objects in memory */
    uint64_t shared;    /* ... of private and object memory: what others have as well */
    uint64_t pss, pss_anon, pss_shmem; /* each page by the number of who has it */
    uint64_t referenced;               /* ... what was used since mm_clear_referenced, in pieces */
    struct mm_policy policy;
    char path[4096 - 128];
};
MUST_CHECK int mm_vma_next(struct mm *mm, uint64_t from, struct mm_vma_info *out);

#endif
