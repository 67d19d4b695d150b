/* Sorting in place. qsort(3) asks the host how much memory it has before it sorts more than a
 * kibibyte, which no filter allows.
 * Depends on: libc.
 * Threading: the array is the caller's.
 * Ownership: none. */
#ifndef RINGWALL_BASE_SORT_H
#define RINGWALL_BASE_SORT_H

#include <stddef.h>

/* As that of qsort(3). */
typedef int sort_compare_fn(const void *a, const void *b);

/* Sorts count items of size bytes each, 16 at most; equal ones in any order. Takes a time of
 * count * log(count) whatever they are, and no memory. */
void sort_items(void *items, size_t count, size_t size, sort_compare_fn *compare);

#endif
