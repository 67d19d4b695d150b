/* Contexts of asynchronous I/O (io_setup(2)): a queue of finished requests, found by the address of
 * a page that is mapped for each.
 * Depends on: mm, mem, wait.
 * Threading: any thread; rank PIPE.
 * Ownership: the mapping holds the context, a user of aio_find or aio_new too. */
#ifndef RINGWALL_SENTRY_KERNEL_AIO_H
#define RINGWALL_SENTRY_KERNEL_AIO_H

#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/uaddr.h"
#include "sentry/mm/mm.h"
#include "sentry/wait/wait.h"

struct aio_ctx;
struct file;
struct memfile;
struct timer_service;

/* A context for nr requests in the address space of ua, mapped there. *out_addr is its name.
 * -EAGAIN past the limit of all, -ENOMEM. */
MUST_CHECK int aio_new(struct memfile *mf, const struct uaccess *ua, const struct mm_limits *lim,
                       unsigned nr, uaddr_t *out_addr);
/* Owned; -EINVAL: there is none. */
MUST_CHECK int aio_find(const struct uaccess *ua, uaddr_t addr, struct aio_ctx **out);
void aio_put(struct aio_ctx *a);
/* Takes it out of the address space; who waits in it gets -EINVAL. */
MUST_CHECK int aio_destroy(const struct uaccess *ua, uaddr_t addr);
unsigned aio_size(const struct aio_ctx *a);
/* Room for one more result: -EAGAIN when as many as there may be are not fetched yet. */
MUST_CHECK int aio_begin(struct aio_ctx *a);
/* Gives the room back unused. */
void aio_abort(struct aio_ctx *a);
void aio_complete(struct aio_ctx *a, const struct io_event *e);
/* Who else hears of the end: fn(file); file NULL: nobody. */
struct aio_tell {
    struct file *file;
    void (*fn)(struct file *f);
};
/* IOCB_CMD_POLL after aio_begin: completes, now or from another thread, once f has one of the
 * events cb asks for. Borrows f and tell's file. addr: what the event names. -ENOMEM, -EAGAIN,
 * -EINVAL when a is destroyed: not begun. */
MUST_CHECK int aio_poll_start(struct aio_ctx *a, struct timer_service *ts, struct file *f,
                              const struct aio_tell *tell, const struct iocb *cb, uint64_t addr);
/* Ends the one that addr names, with an event without a result: -EINPROGRESS; -EINVAL: none. */
MUST_CHECK int aio_poll_cancel(struct aio_ctx *a, uint64_t addr);
/* Up to max finished ones, oldest first. */
unsigned aio_take(struct aio_ctx *a, struct io_event *out, unsigned max);
/* The last count taken could not be told: they are there again. */
void aio_give_back(struct aio_ctx *a, const struct io_event *ev, unsigned count);
/* Sleeps till min are there (0), -EINTR, -ETIMEDOUT, or -EINVAL when it is destroyed. */
MUST_CHECK int aio_wait(struct aio_ctx *a, unsigned min, struct blocker *b, deadline_t deadline);

#endif
