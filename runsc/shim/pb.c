#include "runsc/shim/pb.h"

#include <stdlib.h>
#include <string.h>

enum { WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_32 = 5 };

/* ---- writing ---- */

static void out_raw(struct pb_out *o, const void *data, size_t size)
{
    if (o->failed)
        return;
    if (size > o->room - o->size) {
        size_t room = o->room * 2 + size + 64;
        uint8_t *more = realloc(o->data, room);
        if (more == NULL) {
            o->failed = true;
            return;
        }
        o->data = more;
        o->room = room;
    }
    if (size > 0)
        memcpy(o->data + o->size, data, size);
    o->size += size;
}

static void out_varint(struct pb_out *o, uint64_t v)
{
    uint8_t buf[10];
    size_t n = 0;

    for (; v > 127; v >>= 7)
        buf[n++] = (uint8_t)(v & 127) | 128;
    buf[n++] = (uint8_t)v;
    out_raw(o, buf, n);
}

void pb_uint(struct pb_out *o, unsigned field, uint64_t v)
{
    if (v == 0)
        return;
    out_varint(o, (uint64_t)field << 3 | WIRE_VARINT);
    out_varint(o, v);
}

void pb_bytes(struct pb_out *o, unsigned field, const void *data, size_t size)
{
    if (size == 0)
        return;
    out_varint(o, (uint64_t)field << 3 | WIRE_BYTES);
    out_varint(o, size);
    out_raw(o, data, size);
}

void pb_text(struct pb_out *o, unsigned field, const char *text)
{
    if (text != NULL)
        pb_bytes(o, field, text, strlen(text));
}

void pb_sub(struct pb_out *o, unsigned field, struct pb_out *sub)
{
    out_varint(o, (uint64_t)field << 3 | WIRE_BYTES);
    out_varint(o, sub->size);
    out_raw(o, sub->data, sub->size);
    o->failed |= sub->failed;
    pb_free(sub);
}

void pb_free(struct pb_out *o)
{
    free(o->data);
    *o = (struct pb_out){0};
}

/* ---- reading ---- */

struct pb_in pb_reader(const void *data, size_t size)
{
    return (struct pb_in){.data = data, .size = size};
}

static uint64_t in_varint(struct pb_in *in)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (in->at >= in->size)
            break;
        uint8_t b = in->data[in->at++];
        v |= (uint64_t)(b & 127) << shift;
        if (b < 128)
            return v;
    }
    in->failed = true;
    return 0;
}

static void in_take(struct pb_in *in, uint64_t size, struct pb_field *out)
{
    if (in->failed || size > in->size - in->at) {
        in->failed = true;
        return;
    }
    out->data = in->data + in->at;
    out->size = (size_t)size;
    in->at += (size_t)size;
}

bool pb_next(struct pb_in *in, struct pb_field *out)
{
    *out = (struct pb_field){0};
    if (in->failed || in->at >= in->size)
        return false;
    uint64_t key = in_varint(in);
    out->number = (unsigned)(key >> 3);
    switch (key & 7) {
    case WIRE_VARINT:
        out->value = in_varint(in);
        break;
    case WIRE_BYTES:
        in_take(in, in_varint(in), out);
        break;
    case WIRE_64:
        in_take(in, 8, out);
        break;
    case WIRE_32:
        in_take(in, 4, out);
        break;
    default:
        in->failed = true;
        break;
    }
    return !in->failed;
}

struct pb_in pb_inner(const struct pb_field *f)
{
    return pb_reader(f->data, f->size);
}

char *pb_dup(const struct pb_field *f)
{
    if (f->size > 0 && memchr(f->data, '\0', f->size) != NULL)
        return NULL;
    return f->size > 0 ? strndup((const char *)f->data, f->size) : strdup("");
}
