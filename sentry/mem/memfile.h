/* The memory file: one sparse memfd that holds all guest memory, with reference-counted extents.
 * Depends on: base.
 * Threading: every function from any thread (internal lock, rank MEMFILE).
 * Ownership: an extent belongs to whoever holds references on its pages; the last unref punches. */
#ifndef RINGWALL_SENTRY_MEM_MEMFILE_H
#define RINGWALL_SENTRY_MEM_MEMFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "sentry/mem/commit.h"

struct memacct;
struct memfile;

/* size: how much offset space to reserve and map (bytes, page multiple, sparse). limit: bytes of
 * extents that may be committed (0: none). Created before confinement. Owned result. */
MUST_CHECK int memfile_new(uint64_t size, struct memfile **out_mf);
void memfile_free(struct memfile *mf);
int memfile_fd(const struct memfile *mf);
uint64_t memfile_size(const struct memfile *mf);
/* Bytes of memory the host has, as seen when the file was made. */
uint64_t memfile_host_ram(const struct memfile *mf);
/* The smaller of that and the limit: what file systems in memory take half of. */
uint64_t memfile_budget(const struct memfile *mf);
void memfile_set_limit(struct memfile *mf, uint64_t limit);
/* How many page tables the host has for a piece of the file besides the sentry's, and keeps when
 * its pages go: none when it is made. Before the file is used. */
void memfile_set_tables(struct memfile *mf, unsigned tables);
/* Nothing worth mentioning is left of the limit, should guests touch all that was shown to them:
 * with what the sentry's heap takes for guests (base/heap.h), and the host's tables. Without a
 * limit the heap alone may take half of the host's memory. */
bool memfile_full(const struct memfile *mf);
/* Much of the limit is in use, and a good part of that by pages that were shown and not touched. */
bool memfile_slack(const struct memfile *mf);
/* size bytes more would keep within the limit. */
bool memfile_admits(struct memfile *mf, uint64_t size);
/* How much one fault may bring at present: a power of two, from a page to max (bytes). */
uint64_t memfile_piece(const struct memfile *mf, uint64_t max);
/* heap_pressed() was true: full, or the marks of the heap are set anew by what is left. */
bool memfile_heap_full(struct memfile *mf);
/* Whether a limit is set. */
bool memfile_limited(const struct memfile *mf);
/* What was promised of it. */
struct mem_commit *memfile_commit(struct memfile *mf);
/* mem_commit_may for this memory. */
bool memfile_may_commit(struct memfile *mf, uint64_t size, uint64_t own, bool admin);
/* Sentry's address of an offset: valid for the life of the file, readable and writable, may not
 * be executed. Reads of pages never written give zeros. */
void *memfile_ptr(const struct memfile *mf, uint64_t off);
/* A zero-filled range, one reference per page, charged to acct (NULL: to nobody) till its last
 * reference goes. -ENOMEM when space, the limit or that of an account is exhausted. */
MUST_CHECK int memfile_alloc(struct memfile *mf, struct memacct *acct, uint64_t size,
                             uint64_t *out_off);
/* As memfile_alloc with MEMFILE_*: RAW leaves the bytes undefined (old data of the sandbox), only
 * for callers that overwrite all of it before a guest can look; cheaper. UP leaves room to grow
 * behind the range rather than before it. *out_warm (NULL: not asked): all of its pages are there,
 * so that mapping them at once costs no memory. */
#define MEMFILE_RAW 1u
#define MEMFILE_UP 2u
/* Of an object: nobody can touch it, and it does not count for the limit, till memfile_show. */
#define MEMFILE_LAZY 4u
MUST_CHECK int memfile_alloc_flags(struct memfile *mf, struct memacct *acct, uint64_t size,
                                   unsigned flags, uint64_t *out_off, bool *out_warm);
/* Exactly this range, or -ENOMEM when a part of it is in use: keeps what is adjacent in an address
 * space adjacent in the file, so that host mappings merge. */
MUST_CHECK int memfile_alloc_at(struct memfile *mf, struct memacct *acct, uint64_t off,
                                uint64_t size, unsigned flags, bool *out_warm);
/* One more / one less reference for every page in the range, which must be allocated. */
MUST_CHECK int memfile_ref(struct memfile *mf, uint64_t off, uint64_t size);
void memfile_unref(struct memfile *mf, uint64_t off, uint64_t size);
/* A part of an object is going to be mapped, by a caller with a reference of its own, or touched.
 * -ENOMEM: it would pass the limit. */
MUST_CHECK int memfile_show(struct memfile *mf, uint64_t off, uint64_t size);
/* Of all objects, what nobody maps any more and has no page is not shown any more. Bytes. */
uint64_t memfile_hide(struct memfile *mf);
/* Was allocated with MEMFILE_LAZY. */
bool memfile_is_lazy(struct memfile *mf, uint64_t off);
/* First run of pages in the range, which is allocated, that the host has not committed. */
bool memfile_hole(struct memfile *mf, uint64_t off, uint64_t size, uint64_t *out_off,
                  uint64_t *out_size);
/* bytes more, or less, were shown and will be left though nobody touched them. From now on pages
 * that are there count for them, which is looked at more seldom. */
void memfile_left_add(struct memfile *mf, int64_t bytes);
/* Longest prefix of the range whose pages all have exactly one owner; 0 when the first is shared.
 */
uint64_t memfile_sole_owner(struct memfile *mf, uint64_t off, uint64_t size);
/* Longest prefix of the range, which is allocated, whose pages have equally many owners. */
uint64_t memfile_owners(struct memfile *mf, uint64_t off, uint64_t size, uint32_t *out_owners);
/* Gives the pages back to the host; they read as zeros afterwards (MADV_DONTNEED, hole punch). */
void memfile_zero(struct memfile *mf, uint64_t off, uint64_t size);
/* Gives freed but still committed memory back to the host (idle sandboxes, checkpoints). */
void memfile_trim(struct memfile *mf);
/* Bytes that the host has really committed / that extents reserve. */
uint64_t memfile_resident(const struct memfile *mf);
uint64_t memfile_reserved(struct memfile *mf);
/* Half of the offset space is given out: time to reserve only what is really touched. */
bool memfile_crowded(struct memfile *mf);
/* Bytes of the range, which is allocated, that the host has committed. Long runs of pages that were
 * found there once are not looked for again. */
uint64_t memfile_resident_range(struct memfile *mf, uint64_t off, uint64_t size);

#endif
