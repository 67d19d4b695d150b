/* How much the process itself has in its heap. Whoever takes guests in must not be filled up by
 * what they make it remember: descriptors, locks, mappings, names. A program linked with the
 * wrappers of runsc/heap_wrap.c counts every allocation; elsewhere (tests, sanitizers) the figure
 * stays 0 and nothing is ever refused. Depends on: compiler.h. Threading: any thread; a few atomic
 * counters, no lock. Ownership: the figures are the process's, as the heap is. */
#ifndef RINGWALL_BASE_HEAP_H
#define RINGWALL_BASE_HEAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

#define HEAP_NO_LIMIT UINT64_MAX

extern _Atomic bool heap_pressed_flag;

/* bytes more, or less, are in use. Also for what the host keeps on the process's behalf: a thread's
 * stacks. */
void heap_add(int64_t bytes);
/* bytes more would keep within the limit, or the calling thread is exempt. */
bool heap_admits(uint64_t bytes);
/* Bytes in use, to within some hundred KiB. */
uint64_t heap_used(void);
/* heap_pressed is true once more than mark bytes are in use, and malloc fails from limit on. */
void heap_set_marks(uint64_t mark, uint64_t limit);
/* heap_pressed is true from now on, till the marks are set. */
void heap_press(void);
/* Gives back to the host what is free in it: slow. */
void heap_trim(void);
/* By how much the calling thread has changed that since it asked last. */
int64_t heap_taken(void);
/* The calling thread is never refused: it is about to give memory back. */
void heap_exempt(bool exempt);
/* Somebody should look where memory goes. One load. */
static inline bool heap_pressed(void)
{
    return atomic_load_explicit(&heap_pressed_flag, memory_order_relaxed);
}

#endif
