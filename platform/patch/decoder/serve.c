/* Questions come one a message, and are answered in turn. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "platform/patch/decoder/decoder.h"

static bool serve_is_whole(const struct patch_question *q, ssize_t n)
{
    return n == (ssize_t)sizeof(*q) && q->size <= PATCH_WINDOW && q->off <= PATCH_REACH;
}

typedef ssize_t serve_wait(int fd, void *buf, size_t size);

static ssize_t serve_receive(int fd, serve_wait *wait, struct patch_question *q)
{
    const ssize_t n = recv(fd, q, sizeof(*q), wait != NULL ? MSG_DONTWAIT : 0);

    return n < 0 && errno == EAGAIN ? wait(fd, q, sizeof(*q)) : n;
}

int decoder_serve(const struct decoder *d, int fd, serve_wait *wait)
{
    struct patch_question q;
    struct patch_answer a;
    int r = 0;

    for (;;) {
        const ssize_t n = serve_receive(fd, wait, &q);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        if (!serve_is_whole(&q, n)) {
            r = -EPROTO;
            break;
        }
        decoder_decode(d, &q, &a);
        if (send(fd, &a, sizeof(a), MSG_NOSIGNAL) != (ssize_t)sizeof(a))
            break;
    }
    return r;
}
