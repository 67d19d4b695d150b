/*
 * What: the callers of a function of a running process of this program, by the tables that its
 * compiler wrote (.eh_frame, DWARF 5 section 6.4): frames need no pointers of their own.
 * Depends on: runsc/symbols.h.
 * Threading: one thread.
 * Ownership: struct unwind borrows the symbols.
 */
#ifndef RINGWALL_RUNSC_UNWIND_H
#define RINGWALL_RUNSC_UNWIND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "runsc/symbols.h"

struct unwind {
    const struct symbols *s;
    struct symbols_section hdr, frame;
};

/* What is followed from frame to frame. */
struct unwind_regs {
    uint64_t ip, sp, bp;
    bool called; /* ip is where a call returns to, not an instruction that runs */
};

/* Eight bytes of the process' memory. */
typedef bool (*unwind_read_fn)(void *arg, uint64_t addr, uint64_t *out);

/* False: the program has no such tables. */
bool unwind_init(struct unwind *u, const struct symbols *s);
/* From a frame to that of its caller. False: there is none, or it cannot be found. */
bool unwind_step(const struct unwind *u, struct unwind_regs *r, unwind_read_fn read, void *arg);

#endif
