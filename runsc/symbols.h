/*
 * What: names for code addresses of a running process of this program (the sentry).
 * Depends on: libelf, /proc.
 * Threading: one thread.
 * Ownership: struct symbols is the caller's; names live as long as it.
 */
#ifndef RINGWALL_RUNSC_SYMBOLS_H
#define RINGWALL_RUNSC_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "runsc/err.h"

struct symbols;

/* A section of the program's file. */
struct symbols_section {
    const uint8_t *data; /* borrowed from the symbols */
    size_t size;
    uint64_t addr; /* before the program was moved to its base */
};

/* Of the program that pid runs, which may be an older one than ours. Owned result. */
MUST_CHECK int symbols_open(pid_t pid, struct symbols **out, struct err *e);
void symbols_close(struct symbols *s);
/* The function that addr is in, and how far; NULL: not in the program's code, or it is stripped. */
const char *symbols_find(const struct symbols *s, uint64_t addr, uint64_t *out_offset);
/* False: there is none of that name. */
bool symbols_section(const struct symbols *s, const char *name, struct symbols_section *out);
/* How far the process has its program moved. */
uint64_t symbols_base(const struct symbols *s);
/* Whether addr is in the program's own code. */
bool symbols_covers(const struct symbols *s, uint64_t addr);

#endif
