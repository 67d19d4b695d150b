/* Data transfer to or from a list of guest (or sentry) ranges, with partial counts.
 * Depends on: base, usercopy.
 * Threading: one thread at a time.
 * Ownership: the iov array is borrowed, or inline for one range. */
#ifndef RINGWALL_SENTRY_MM_UIO_H
#define RINGWALL_SENTRY_MM_UIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "base/uaddr.h"
#include "sentry/mm/usercopy.h"

struct uio_seg {
    uint64_t base; /* guest address, or sentry pointer when !ua */
    uint64_t size;
};

struct uio {
    const struct uaccess *ua; /* NULL: segments are sentry memory */
    const struct uio_seg *segs;
    size_t seg_count;
    size_t seg;        /* current segment */
    uint64_t seg_off;  /* offset in it */
    uint64_t left;     /* bytes still to go */
    bool append;       /* to a file: at its end, wherever that is by then */
    bool stays;        /* from a pipe: it keeps what is read till pipe_took */
    uint64_t reserved; /* to a pipe: of pipe_reserve; 0 once it is given up */
    struct uio_seg inline_seg;
};

/* One guest range. The count is cut to MAX_RW_COUNT as Linux does; -EFAULT when the range leaves
 * the guest's address space. */
MUST_CHECK int uio_init_user(struct uio *u, const struct uaccess *ua, uaddr_t addr, uint64_t size);
/* One range of sentry memory. */
void uio_init_kernel(struct uio *u, void *buf, size_t size);
/* readv/writev: copies and checks iovcnt (<= 1024, else -EINVAL) struct iovec into *out_segs, which
 * the caller frees with free() after use; fast inline case leaves it NULL. */
MUST_CHECK int uio_init_iovec(struct uio *u, const struct uaccess *ua, uaddr_t iov, size_t iovcnt,
                              struct uio_seg **out_segs);
/* Move bytes between buf and the segments and advance. Return bytes done (short on a fault or
 * when the uio is full), or -EFAULT when nothing could be moved and size > 0. */
MUST_CHECK int64_t uio_copy_to(struct uio *u, const void *buf, size_t size);
MUST_CHECK int64_t uio_copy_from(struct uio *u, void *buf, size_t size);
MUST_CHECK int64_t uio_zero(struct uio *u, uint64_t size);
void uio_advance(struct uio *u, uint64_t size);
/* Take back the last n bytes (at most what was advanced). */
void uio_revert(struct uio *u, uint64_t n);

/* Direct host I/O on guest memory: calls fn once or more with host iovecs of the next bytes (at
 * most max in total), mm lock held for reading; fn returns bytes moved or a negative errno, a short
 * count ends it. write: guest memory is written (reads from files). Advances. Returns total or the
 * first error when nothing moved. */
typedef int64_t (*uio_host_fn)(void *arg, const struct iovec *iov, int count, uint64_t done);
MUST_CHECK int64_t uio_host_io(struct uio *u, bool write, uint64_t max, uio_host_fn fn, void *arg);

#endif
