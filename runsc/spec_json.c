#include "runsc/spec_json.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Deeper than any field the specification knows; the path of a message is cut there. */
#define PATH_DEPTH_MAX 16

struct spec_block {
    struct spec_block *next;
    max_align_t data[];
};

struct spec_pool {
    struct spec_block *blocks;
};

struct spec_pool *spec_pool_new(void)
{
    return calloc(1, sizeof(struct spec_pool));
}

void spec_pool_free(struct spec_pool *pool)
{
    struct spec_block *b, *next;

    if (pool == NULL)
        return;
    for (b = pool->blocks; b != NULL; b = next) {
        next = b->next;
        free(b);
    }
    free(pool);
}

void *spec_alloc(struct spec_ctx *ctx, size_t count, size_t size)
{
    struct spec_block *b;
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes) ||
        __builtin_add_overflow(bytes, sizeof(*b), &bytes))
        b = NULL;
    else
        b = calloc(1, bytes);
    if (b == NULL) {
        (void)err_set(ctx->e, ENOMEM, "%s: out of memory", ctx->name);
        return NULL;
    }
    b->next = ctx->pool->blocks;
    ctx->pool->blocks = b;
    return b->data;
}

/* Writes ".a.b[2]" without its leading dot for the node at depth of chain. */
static void jn_path(const struct jnode *n, char *out, size_t size)
{
    const struct jnode *chain[PATH_DEPTH_MAX];
    size_t depth = 0, used = 0;

    for (; n != NULL && n->up != NULL && depth < PATH_DEPTH_MAX; n = n->up)
        chain[depth++] = n;
    out[0] = '\0';
    while (depth-- > 0 && used < size) {
        const struct jnode *c = chain[depth];
        int len;

        if (c->key == NULL)
            len = snprintf(out + used, size - used, "[%zu]", c->index);
        else
            len = snprintf(out + used, size - used, "%s%.64s", used == 0 ? "" : ".", c->key);
        if (len < 0)
            return;
        used += (size_t)len;
    }
}

int jn_error(const struct jnode *n, const char *fmt, ...)
{
    char path[256], text[512];
    va_list ap;

    jn_path(n, path, sizeof(path));
    va_start(ap, fmt);
    if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
        text[0] = '\0';
    va_end(ap);
    return err_set(n->ctx->e, EINVAL, "%s: %s%s%s", n->ctx->name, path, path[0] == '\0' ? "" : ": ",
                   text);
}

struct jnode jn_member(const struct jnode *n, const char *key)
{
    struct jnode m = {.up = n, .ctx = n->ctx, .key = key};

    m.v = json_object_get(n->v, key);
    if (json_is_null(m.v))
        m.v = NULL;
    return m;
}

struct jnode jn_element(const struct jnode *n, size_t index)
{
    struct jnode m = {.up = n, .ctx = n->ctx, .index = index};

    m.v = json_array_get(n->v, index);
    return m;
}

size_t jn_count(const struct jnode *n)
{
    return json_array_size(n->v);
}

static const char *jn_type_name(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    default:
        return "something else";
    }
}

static int jn_mismatch(const struct jnode *n, const char *want)
{
    return jn_error(n, "must be %s, not %s", want, jn_type_name(n->v));
}

int jn_check_object(const struct jnode *n)
{
    return n->v == NULL || json_is_object(n->v) ? 0 : jn_mismatch(n, "an object");
}

int jn_check_array(const struct jnode *n)
{
    return n->v == NULL || json_is_array(n->v) ? 0 : jn_mismatch(n, "an array");
}

int jn_need(const struct jnode *n)
{
    return n->v != NULL ? 0 : jn_error(n, "is missing");
}

int jn_string(const struct jnode *n, const char **out)
{
    if (n->v == NULL)
        return 0;
    if (!json_is_string(n->v))
        return jn_mismatch(n, "a string");
    *out = json_string_value(n->v);
    return 0;
}

int jn_bool(const struct jnode *n, bool *out)
{
    if (n->v == NULL)
        return 0;
    if (!json_is_boolean(n->v))
        return jn_mismatch(n, "a boolean");
    *out = json_is_true(n->v);
    return 0;
}

int jn_int(const struct jnode *n, int64_t min, int64_t max, int64_t *out)
{
    int64_t value;

    if (n->v == NULL)
        return 0;
    if (!json_is_integer(n->v))
        return jn_mismatch(n, "an integer");
    value = json_integer_value(n->v);
    if (value < min || value > max)
        return jn_error(n, "%lld is out of range", (long long)value);
    *out = value;
    return 0;
}

int jn_u32(const struct jnode *n, uint32_t *out)
{
    int64_t value = *out;

    if (jn_int(n, 0, UINT32_MAX, &value) != 0)
        return -1;
    *out = (uint32_t)value;
    return 0;
}

/*
 * jansson keeps integers in a signed 64-bit type; spec_text.c turned larger ones into reals.
 * Go writes RLIM_INFINITY as 18446744073709551615, which becomes exactly 2^64 there.
 */
int jn_u64(const struct jnode *n, uint64_t *out)
{
    if (n->v == NULL)
        return 0;
    if (json_is_real(n->v)) {
        double d = json_real_value(n->v);

        if (d < 0 || d > 18446744073709551616.0)
            return jn_error(n, "%g is out of range", d);
        *out = d >= 18446744073709551616.0 ? UINT64_MAX : (uint64_t)d;
        return 0;
    }
    if (!json_is_integer(n->v))
        return jn_mismatch(n, "an integer");
    if (json_integer_value(n->v) < 0)
        return jn_error(n, "%lld is out of range", (long long)json_integer_value(n->v));
    *out = (uint64_t)json_integer_value(n->v);
    return 0;
}

int jn_abs_path(const struct jnode *n, const char **out)
{
    const char *path = NULL;

    if (n->v == NULL)
        return 0;
    if (jn_string(n, &path) != 0)
        return -1;
    if (path == NULL || path[0] != '/')
        return jn_error(n, "\"%.200s\" is not an absolute path", path != NULL ? path : "");
    *out = path;
    return 0;
}

static int jn_list(const struct jnode *n, struct str_list *out,
                   int (*one)(const struct jnode *, const char **))
{
    size_t count = jn_count(n);

    if (jn_check_array(n) != 0)
        return -1;
    out->v = spec_alloc(n->ctx, count + 1, sizeof(*out->v));
    if (out->v == NULL)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct jnode item = jn_element(n, i);

        if (one(&item, &out->v[i]) != 0)
            return -1;
    }
    out->count = count;
    return 0;
}

int jn_strings(const struct jnode *n, struct str_list *out)
{
    return jn_list(n, out, jn_string);
}

int jn_abs_paths(const struct jnode *n, struct str_list *out)
{
    return jn_list(n, out, jn_abs_path);
}

int jn_pairs(const struct jnode *n, struct pair_list *out)
{
    const char *key;
    json_t *value;
    size_t count = json_object_size(n->v);

    if (jn_check_object(n) != 0)
        return -1;
    out->v = spec_alloc(n->ctx, count + 1, sizeof(*out->v));
    if (out->v == NULL)
        return -1;
    json_object_foreach(n->v, key, value)
    {
        struct jnode item = {.up = n, .ctx = n->ctx, .key = key, .v = value};

        if (jn_string(&item, &out->v[out->count].value) != 0)
            return -1;
        out->v[out->count++].key = key;
    }
    return 0;
}
