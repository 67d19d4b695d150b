/* Shapes of system call sites, and how the sentry asks the decoder for them.
 * Depends on: base.
 * Threading: constants and plain data.
 * Ownership: none. */
#ifndef RINGWALL_PLATFORM_PATCH_SHAPE_H
#define RINGWALL_PLATFORM_PATCH_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes of a site that are replaced. */
#define PATCH_SIZE 7u
/* Of what replaces them, these trap: who jumps there, or was there, is put right. */
#define PATCH_TRAPS_AT(off) ((off) == 2 || (off) == 5 || (off) == 6)
#define PATCH_MOVES_MAX 3u
/* syscall, and the longest instruction there is. */
#define PATCH_CALL_SIZE 2u
#define PATCH_INSN_MAX 15u
#define PATCH_SHAPE_MAX (PATCH_SIZE - 1 + PATCH_INSN_MAX)

/* A site as it is in a program. Offsets are from its first byte. */
struct patch_shape {
    bool loads;          /* mov $nr to eax or rax before the call is part of it */
    uint32_t nr;         /* loads: the number */
    unsigned size;       /* bytes that its code takes the place of */
    unsigned call_end;   /* behind the system call instruction */
    unsigned move_count; /* instructions behind it that are moved as well */
    unsigned moves[PATCH_MOVES_MAX];
};

/* Bytes on either side of a call that are looked at: as far as a short jump goes. */
#define PATCH_REACH 128u
#define PATCH_WINDOW (2 * PATCH_REACH + PATCH_CALL_SIZE)

/* One message each, over a socket of type SOCK_SEQPACKET. */
struct patch_question {
    uint64_t id; /* the answer's */
    uint32_t size, off;
    uint8_t code[PATCH_WINDOW]; /* size bytes, at off of which is the call */
    uint8_t pad[6];             /* zero */
};

struct patch_answer {
    uint64_t id;
    uint8_t found; /* 0: it is left alone, and all that follows is 0 */
    uint8_t back;  /* bytes of the site before the call */
    uint8_t loads, size, call_end, move_count;
    uint8_t moves[PATCH_MOVES_MAX];
    uint8_t pad[7]; /* zero */
};

_Static_assert(sizeof(struct patch_question) == 16 + PATCH_WINDOW + 6, "no holes");
_Static_assert(sizeof(struct patch_answer) == 24, "no holes");

#endif
