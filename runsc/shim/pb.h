/* The wire format of protocol buffers, as far as the shim's messages need it.
 * Depends on: base.
 * Threading: values of one thread.
 * Ownership: a pb_out owns its bytes; pb_free. A pb_in borrows what it reads. */
#ifndef RINGWALL_RUNSC_SHIM_PB_H
#define RINGWALL_RUNSC_SHIM_PB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* Sticky: once memory ran out, nothing is added and failed stays set. */
struct pb_out {
    uint8_t *data;
    size_t size, room;
    bool failed;
};

/* Fields with their zero value are left out, as the format's third version has it. */
void pb_uint(struct pb_out *o, unsigned field, uint64_t v);
void pb_bytes(struct pb_out *o, unsigned field, const void *data, size_t size);
void pb_text(struct pb_out *o, unsigned field, const char *text);
/* A message inside, even an empty one. Takes the bytes of sub. */
void pb_sub(struct pb_out *o, unsigned field, struct pb_out *sub);
void pb_free(struct pb_out *o);

struct pb_in {
    const uint8_t *data;
    size_t size, at;
    bool failed;
};

struct pb_field {
    unsigned number;
    uint64_t value;      /* of a varint */
    const uint8_t *data; /* of a text, bytes or a message; else NULL */
    size_t size;
};

struct pb_in pb_reader(const void *data, size_t size);
/* The next field; false at the end, and when the bytes are no message (failed is then set). */
bool pb_next(struct pb_in *in, struct pb_field *out);
struct pb_in pb_inner(const struct pb_field *f);
/* An owned text, or NULL: out of memory, or a NUL byte in it. */
char *pb_dup(const struct pb_field *f);

#endif
