/* The decoder as a thread of a test.
 * Depends on: platform/patch/decoder, criterion.
 * Threading: one thread of its own, which ends when the other end of its connection is closed.
 * Ownership: rig_decoder_end takes it apart. */
#ifndef RINGWALL_TESTS_DECODER_RIG_H
#define RINGWALL_TESTS_DECODER_RIG_H

#include <criterion/criterion.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "platform/patch/decoder/decoder.h"

struct rig_decoder {
    int asker, fd; /* asker: whoever is to have it closes it */
    struct decoder decoder;
    pthread_t thread;
};

static inline void *rig_decoder_main(void *arg)
{
    struct rig_decoder *d = arg;

    cr_assert_eq(decoder_serve(&d->decoder, d->fd, NULL), 0);
    return NULL;
}

/* The connection, before there is a thread. */
static inline void rig_decoder_open(struct rig_decoder *d)
{
    int pair[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert(decoder_open(&d->decoder));
    d->asker = pair[0];
    d->fd = pair[1];
}

static inline void rig_decoder_start(struct rig_decoder *d)
{
    cr_assert_eq(pthread_create(&d->thread, NULL, rig_decoder_main, d), 0);
}

static inline void rig_decoder_end(struct rig_decoder *d)
{
    cr_assert_eq(pthread_join(d->thread, NULL), 0);
    close(d->fd);
    decoder_close(&d->decoder);
}

#endif
