/* The memory that carries requests and answers: one area for each channel, all in one file that
 * both ends have mapped, and the turn that goes back and forth.
 *
 * An area holds one message at a time: the sentry's request, then the gofer's answer in its place.
 * Whoever does not have the turn may still write to it, being hostile. So a message is copied out
 * once, its size read once before, and only the copy is looked at; nothing that is in an area is
 * believed to stay. A turn that lies gives a message that does not parse, or a wait, never more.
 * Depends on: proto.h.
 * Threading: at each end a channel's area is one thread's at a time; gof_area_end is anybody's.
 * Ownership: whoever took the areas drops them. */
#ifndef RINGWALL_GOFER_PROTO_AREA_H
#define RINGWALL_GOFER_PROTO_AREA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gofer/proto/proto.h"

/* Whose turn it is. The memory begins as zeros: the sentry's. Any other value is an end. */
enum gof_turn { GOF_TURN_SENTRY, GOF_TURN_GOFER, GOF_TURN_ENDED };

/* Of an area: whole pages, of which short messages touch the first. */
#define GOF_AREA_SIZE (17u * 4096)

struct gof_area {
    _Atomic uint32_t turn; /* enum gof_turn; a futex */
    _Atomic uint32_t size; /* of the message */
    uint8_t unused[56];
    uint8_t message[GOF_AREA_SIZE - 64];
};
_Static_assert(sizeof(struct gof_area) == GOF_AREA_SIZE, "areas lie side by side");
_Static_assert(sizeof(((struct gof_area *)0)->message) >= GOF_MESSAGE_MAX, "room for any message");

/* The count (2..GOF_CHANNEL_MAX) pairs of sockets between a sentry, whose ends are the first of
 * each, and its gofer. In the first pair the file with the areas is on its way to both ends; the
 * last pair, which is for events, has none. Negative errno: none was made. */
MUST_CHECK int gof_pairs_new(int (*pairs)[2], size_t count);
/* Receives the file with count areas, which neither end can make shorter, and maps it. -EPROTO: it
 * is something else. -EPIPE: nobody is there. */
MUST_CHECK int gof_areas_take(int sock, size_t count, struct gof_area **out);
/* Nobody uses them any more. NULL is allowed. */
void gof_areas_drop(struct gof_area *areas, size_t count);

/* Puts a message there, of GOF_MESSAGE_MAX at most, and gives the turn away. */
void gof_area_put(struct gof_area *a, const void *data, size_t size, enum gof_turn to);
/* Waits till it is mine, for wait_ms at most (-1: for ever), and copies the message into buf, which
 * has room for GOF_MESSAGE_MAX: its size. -EPROTO: it is longer. -EPIPE: *ended is set, or the
 * other end has ended the channel. -ETIMEDOUT. */
MUST_CHECK int64_t gof_area_get(struct gof_area *a, enum gof_turn mine, const _Atomic bool *ended,
                                int wait_ms, void *buf);
/* Ends the channel and wakes who waits, at either end. What an end has set *ended before sees that,
 * whatever the other writes. */
void gof_area_end(struct gof_area *a);

#endif
