#include "runsc/shim/ttrpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER_SIZE 10u

enum { FRAME_REQUEST = 1, FRAME_RESPONSE = 2 };

static int read_all(int fd, uint8_t *buf, size_t size)
{
    while (size > 0) {
        ssize_t n = read(fd, buf, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EPIPE;
        buf += n;
        size -= (size_t)n;
    }
    return 0;
}

static int write_all(int fd, const uint8_t *buf, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, buf, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        buf += n;
        size -= (size_t)n;
    }
    return 0;
}

static uint32_t get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* The body of the next frame. Owned. */
static int read_frame(int fd, uint8_t **out, size_t *out_size, uint32_t *out_stream, uint8_t *type)
{
    uint8_t h[HEADER_SIZE];
    int r = read_all(fd, h, sizeof(h));

    if (r)
        return r;
    uint32_t size = get_be32(h);
    if (size > TTRPC_MESSAGE_MAX)
        return -EPROTO;
    uint8_t *body = malloc((size_t)size + 1);
    if (!body)
        return -ENOMEM;
    r = read_all(fd, body, size);
    if (r) {
        free(body);
        return r;
    }
    *out = body;
    *out_size = size;
    *out_stream = get_be32(h + 4);
    *type = h[8];
    return 0;
}

/* One write, so that frames of different threads that hold the lock in turn never mix. */
static int write_frame(int fd, uint32_t stream, uint8_t type, struct pb_out *body)
{
    int r = body->failed ? -ENOMEM : 0;
    uint8_t *frame = r ? NULL : malloc(HEADER_SIZE + body->size);

    if (frame) {
        put_be32(frame, (uint32_t)body->size);
        put_be32(frame + 4, stream);
        frame[8] = type;
        frame[9] = 0;
        if (body->size > 0)
            memcpy(frame + HEADER_SIZE, body->data, body->size);
        r = write_all(fd, frame, HEADER_SIZE + body->size);
        free(frame);
    } else {
        r = -ENOMEM;
    }
    pb_free(body);
    return r;
}

int ttrpc_read(int fd, struct ttrpc_request *out)
{
    struct pb_field f;
    uint8_t type;
    size_t size;

    memset(out, 0, sizeof(*out));
    int r = read_frame(fd, &out->frame, &size, &out->stream, &type);
    if (r)
        return r;
    struct pb_in in = pb_reader(out->frame, size);
    while (pb_next(&in, &f)) {
        if (f.number == 1)
            out->service = f;
        else if (f.number == 2)
            out->method = f;
        else if (f.number == 3)
            out->payload = f;
    }
    if (type == FRAME_REQUEST && !in.failed && out->service.data && out->method.data)
        return 0;
    ttrpc_request_free(out);
    return -EPROTO;
}

void ttrpc_request_free(struct ttrpc_request *r)
{
    free(r->frame);
    r->frame = NULL;
}

int ttrpc_reply(int fd, uint32_t stream, int code, const char *message, struct pb_out *payload)
{
    struct pb_out body = {0}, status = {0};

    if (code != TTRPC_OK) {
        pb_uint(&status, 1, (uint64_t)code);
        pb_text(&status, 2, message);
        pb_sub(&body, 1, &status);
    }
    if (code == TTRPC_OK)
        pb_bytes(&body, 2, payload->data, payload->size);
    body.failed |= payload->failed;
    pb_free(payload);
    return write_frame(fd, stream, FRAME_RESPONSE, &body);
}

int ttrpc_call(int fd, uint32_t stream, const char *service, const char *method,
               const struct pb_out *payload)
{
    struct pb_out body = {.failed = payload->failed};
    uint8_t *answer = NULL, type;
    uint32_t got;
    size_t size;

    pb_text(&body, 1, service);
    pb_text(&body, 2, method);
    pb_bytes(&body, 3, payload->data, payload->size);
    int r = write_frame(fd, stream, FRAME_REQUEST, &body);
    if (!r)
        r = read_frame(fd, &answer, &size, &got, &type);
    free(answer);
    return r;
}
