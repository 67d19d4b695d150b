/* Who is charged for extents of the memory file: a tree of accounts with limits.
 * Depends on: base.
 * Threading: every function from any thread; figures change under the memory file's lock.
 * Ownership: reference-counted; an account lives as long as it has extents, whoever else let go. */
#ifndef RINGWALL_SENTRY_MEM_MEMACCT_H
#define RINGWALL_SENTRY_MEM_MEMACCT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct memacct;
struct memfile;

#define MEMACCT_NO_LIMIT UINT64_MAX

/* Below parent (borrowed, kept alive by its children; NULL: a top). No limit. Owned result. */
MUST_CHECK int memacct_new(struct memacct *parent, struct memacct **out_acct);
struct memacct *memacct_get(struct memacct *a); /* NULL allowed, as below */
void memacct_put(struct memacct *a);
/* Bytes that the host may have committed for extents of a and all below it. */
void memacct_set_limit(struct memacct *a, uint64_t limit);
uint64_t memacct_limit(const struct memacct *a);
/* a or an account above it has a limit. */
bool memacct_limited(const struct memacct *a);
bool memacct_is_below(const struct memacct *a, const struct memacct *above); /* or the same */
/* Bytes that extents of a and all below reserve: never less than what is committed. */
uint64_t memacct_reserved(const struct memacct *a);
/* Bytes that the host has committed for them: looks at every extent. */
uint64_t memacct_resident(struct memfile *mf, struct memacct *a);
/* The most that memacct_resident has seen since memacct_reset_peak. */
uint64_t memacct_peak(const struct memacct *a);
void memacct_reset_peak(struct memacct *a);
/* How often an allocation was refused because of this account's limit. */
uint64_t memacct_failures(const struct memacct *a);
/* Which of a and the accounts above it has reached its limit; borrowed from a, NULL: none. Cheap
 * while what is reserved keeps below the limits. */
struct memacct *memacct_over(struct memfile *mf, struct memacct *a);
/* An extent of size bytes may be made: within every limit, as far as known without looking too
 * often. False counts as a failure of the account that is full. */
bool memacct_admits(struct memfile *mf, struct memacct *a, uint64_t size);

#endif
