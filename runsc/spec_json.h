/* Typed access to a JSON document that knows where it is, for messages that name the field.
 * Depends on: runsc/err.h, runsc/spec.h, jansson. Private to the spec_*.c files.
 * Threading: one thread per document.
 * Ownership: nodes live in the caller's frame; memory comes from the spec's pool. */
#ifndef RINGWALL_RUNSC_SPEC_JSON_H
#define RINGWALL_RUNSC_SPEC_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runsc/spec.h"

/* What one parse carries along. */
struct spec_ctx {
    const char *name; /* of the document, first in every message */
    struct spec_pool *pool;
    struct err *e;
};

/* One place in the document. `up` is NULL at the root; key NULL means element [index] of up. */
struct jnode {
    const struct jnode *up;
    struct spec_ctx *ctx;
    const char *key;
    size_t index;
    json_t *v; /* NULL: absent (or null) */
};

/* "<name>: a.b[2].c: <text>". Returns -1. */
int jn_error(const struct jnode *n, const char *fmt, ...) PRINTF_FMT(2, 3);

/* The member key of the object at n (absent when n is). */
struct jnode jn_member(const struct jnode *n, const char *key);
struct jnode jn_element(const struct jnode *n, size_t index);

/* Type checks. Absent passes unless the name says need. */
MUST_CHECK int jn_check_object(const struct jnode *n);
MUST_CHECK int jn_check_array(const struct jnode *n);
MUST_CHECK int jn_need(const struct jnode *n);

/* Scalars: *out stays as it is when the member is absent. */
MUST_CHECK int jn_string(const struct jnode *n, const char **out);
MUST_CHECK int jn_bool(const struct jnode *n, bool *out);
MUST_CHECK int jn_int(const struct jnode *n, int64_t min, int64_t max, int64_t *out);
MUST_CHECK int jn_u32(const struct jnode *n, uint32_t *out);
/* 0 .. 2^64-1. Above 2^63 only the upper 53 bits count. */
MUST_CHECK int jn_u64(const struct jnode *n, uint64_t *out);
/* A string that must be an absolute path. */
MUST_CHECK int jn_abs_path(const struct jnode *n, const char **out);
MUST_CHECK int jn_strings(const struct jnode *n, struct str_list *out);
MUST_CHECK int jn_abs_paths(const struct jnode *n, struct str_list *out);
/* An object whose values are strings. */
MUST_CHECK int jn_pairs(const struct jnode *n, struct pair_list *out);

/* Zeroed memory that lives as long as the spec; NULL sets "out of memory" in the context. */
void *spec_alloc(struct spec_ctx *ctx, size_t count, size_t size);
struct spec_pool *spec_pool_new(void);
void spec_pool_free(struct spec_pool *pool);
/* Number of elements of the array at n, 0 when absent. */
size_t jn_count(const struct jnode *n);

/* Parse JSON text; integers that do not fit int64_t become reals. Returns an owned document. */
MUST_CHECK int spec_text_to_json(const char *text, size_t size, const char *name, json_t **out_json,
                                 struct err *e);

/* The parts, one file each. n is the object's node, which may be absent. */
MUST_CHECK int spec_parse_process(const struct jnode *n, struct oci_process *out);
MUST_CHECK int spec_parse_caps(const struct jnode *n, struct oci_caps *out);
MUST_CHECK int spec_parse_mounts(const struct jnode *n, struct oci_spec *spec);
MUST_CHECK int spec_parse_hooks(const struct jnode *n, struct oci_hooks *out);
MUST_CHECK int spec_parse_linux(const struct jnode *n, struct oci_linux *out);
MUST_CHECK int spec_parse_resources(const struct jnode *n, struct oci_resources *out);
MUST_CHECK int spec_parse_propagation(const struct jnode *n, uint64_t *out);

#endif
