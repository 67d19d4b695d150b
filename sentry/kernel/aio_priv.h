/* Inside the contexts of asynchronous I/O.
 * Depends on: aio.h.
 * Threading, ownership: as aio.h. */
#ifndef RINGWALL_SENTRY_KERNEL_AIO_PRIV_H
#define RINGWALL_SENTRY_KERNEL_AIO_PRIV_H

#include "base/lock.h"
#include "base/ref.h"
#include "sentry/kernel/aio.h"
#include "sentry/mm/mappable.h"
#include "sentry/vfs/vfs.h"

struct aio_ctx {
    /* immutable */
    struct mappable m;
    struct ref ref;
    struct memfile *mf;
    uint64_t page;       /* in the memory file: zeros, as libaio looks there for a ring it knows */
    const struct mm *mm; /* whose it is, not a reference: a child's copy is not its own */
    unsigned max;
    struct mutex mu; /* rank PIPE: guards the rest */
    struct io_event *done;
    unsigned first, count; /* finished */
    unsigned used;         /* finished and under way */
    bool dead;
    struct list polls; /* IOCB_CMD_POLL that wait */
    struct list over;  /* those that do no more, and may be freed once nothing calls them back */
    struct waitq wq;
};

/* ---- aio_poll.c ---- */
/* Frees polls that are over. */
void aio_polls_reap(struct aio_ctx *a);
/* Ends those that wait without an event. */
void aio_polls_drop(struct aio_ctx *a);

#endif
