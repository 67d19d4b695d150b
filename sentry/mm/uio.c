/* Lists of guest ranges as the source or target of one transfer. */
#include "sentry/mm/uio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "sentry/mm/mm_priv.h"

/* Host iovecs handed over at once. */
#define UIO_HOST_IOV 16

static bool uio_user_ok(const struct uaccess *ua, uint64_t base, uint64_t size)
{
    return ua->mm && range_ok(base, size, ua->mm->max_addr);
}

int uio_init_user(struct uio *u, const struct uaccess *ua, uaddr_t addr, uint64_t size)
{
    size = MIN(size, (uint64_t)LIMIT_RW_SIZE);
    if (!uio_user_ok(ua, addr.v, size))
        return -EFAULT;
    *u = (struct uio){.ua = ua, .seg_count = 1, .left = size, .inline_seg = {addr.v, size}};
    return 0;
}

void uio_init_kernel(struct uio *u, void *buf, size_t size)
{
    *u = (struct uio){.seg_count = 1, .left = size, .inline_seg = {(uint64_t)(uintptr_t)buf, size}};
}

/* A uio may be copied, so the inline segment is found anew each time. */
static const struct uio_seg *uio_seg_at(const struct uio *u, size_t i)
{
    return u->segs ? &u->segs[i] : &u->inline_seg;
}

/* import_iovec(): every length fits in ssize_t, the sum is cut to MAX_RW_COUNT. */
static int uio_check_segs(const struct uaccess *ua, struct uio_seg *segs, size_t count,
                          uint64_t *out_total)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        if ((int64_t)segs[i].size < 0)
            return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        if (!uio_user_ok(ua, segs[i].base, segs[i].size))
            return -EFAULT;
        segs[i].size = MIN(segs[i].size, LIMIT_RW_SIZE - total);
        total += segs[i].size;
    }
    *out_total = total;
    return 0;
}

int uio_init_iovec(struct uio *u, const struct uaccess *ua, uaddr_t iov, size_t iovcnt,
                   struct uio_seg **out_segs)
{
    struct uio_seg *segs = NULL;
    uint64_t total;
    *out_segs = NULL;
    if (iovcnt > LIMIT_IOV)
        return -EINVAL;
    *u = (struct uio){.ua = ua};
    if (iovcnt == 0)
        return 0;
    if (iovcnt > 1) {
        segs = malloc(iovcnt * sizeof(*segs));
        if (!segs)
            return -ENOMEM;
    }
    struct uio_seg *to = segs ? segs : &u->inline_seg;
    int err = copyin_array(ua, to, iov, iovcnt, sizeof(*to));
    if (!err)
        err = uio_check_segs(ua, to, iovcnt, &total);
    if (err) {
        free(segs);
        return err;
    }
    u->segs = segs;
    u->seg_count = iovcnt;
    u->left = total;
    *out_segs = segs;
    return 0;
}

/* The next bytes in one piece: address and size (0 at the end). */
static uint64_t uio_peek(struct uio *u, uint64_t *out_base)
{
    while (u->seg < u->seg_count) {
        const struct uio_seg *s = uio_seg_at(u, u->seg);
        if (u->seg_off < s->size) {
            *out_base = s->base + u->seg_off;
            return MIN(s->size - u->seg_off, u->left);
        }
        u->seg++;
        u->seg_off = 0;
    }
    return 0;
}

void uio_advance(struct uio *u, uint64_t size)
{
    BUG_ON(size > u->left);
    u->left -= size;
    while (size > 0) {
        const struct uio_seg *s = uio_seg_at(u, u->seg);
        uint64_t n = MIN(size, s->size - u->seg_off);
        u->seg_off += n;
        size -= n;
        if (u->seg_off == s->size && size > 0) {
            u->seg++;
            u->seg_off = 0;
        }
    }
}

void uio_revert(struct uio *u, uint64_t n)
{
    u->left += n;
    while (n > 0) {
        if (u->seg == u->seg_count || u->seg_off == 0) {
            BUG_ON(u->seg == 0);
            u->seg--;
            u->seg_off = uio_seg_at(u, u->seg)->size;
            continue;
        }
        uint64_t back = MIN(n, u->seg_off);
        u->seg_off -= back;
        n -= back;
    }
}

enum uio_op { UIO_TO, UIO_FROM, UIO_ZERO };

static size_t uio_move(const struct uio *u, enum uio_op op, char *buf, uint64_t base, size_t size)
{
    char *ptr = u->ua ? NULL : (char *)(uintptr_t)base;
    switch (op) {
    case UIO_TO:
        if (u->ua)
            return copyout_partial(u->ua, uaddr(base), buf, size);
        memcpy(ptr, buf, size);
        return size;
    case UIO_FROM:
        if (u->ua)
            return copyin_partial(u->ua, buf, uaddr(base), size);
        memcpy(buf, ptr, size);
        return size;
    case UIO_ZERO:
        if (u->ua)
            return user_zero_partial(u->ua, uaddr(base), size);
        memset(ptr, 0, size);
        return size;
    default:
        return 0;
    }
}

static int64_t uio_run(struct uio *u, enum uio_op op, char *buf, uint64_t size)
{
    uint64_t done = 0, base, n;
    size = MIN(size, u->left);
    while (done < size && (n = uio_peek(u, &base)) > 0) {
        n = MIN(n, size - done);
        size_t got = uio_move(u, op, buf ? buf + done : NULL, base, n);
        uio_advance(u, got);
        done += got;
        if (got < n)
            return done > 0 ? (int64_t)done : -EFAULT;
    }
    return (int64_t)done;
}

int64_t uio_copy_to(struct uio *u, const void *buf, size_t size)
{
    return uio_run(u, UIO_TO, (char *)(uintptr_t)buf, size);
}

int64_t uio_copy_from(struct uio *u, void *buf, size_t size)
{
    return uio_run(u, UIO_FROM, buf, size);
}

int64_t uio_zero(struct uio *u, uint64_t size)
{
    return uio_run(u, UIO_ZERO, NULL, size);
}

/* ---- host I/O ---- */

struct uio_batch {
    struct iovec iov[UIO_HOST_IOV];
    struct hostwin *windows[UIO_HOST_IOV];
    int count;
    uint64_t bytes;
};

static void uio_batch_add(struct uio_batch *b, void *ptr, uint64_t size, struct hostwin *w)
{
    struct iovec *last = b->count > 0 ? &b->iov[b->count - 1] : NULL;
    b->bytes += size;
    if (last && !w && (char *)last->iov_base + last->iov_len == ptr) {
        last->iov_len += size;
        return;
    }
    b->iov[b->count] = (struct iovec){.iov_base = ptr, .iov_len = size};
    b->windows[b->count++] = w;
}

/* Fills b from at on; stops at what is not usable. Shared lock held. */
static int uio_batch_user(struct uio *at, bool write, uint64_t max, struct uio_batch *b,
                          uint64_t *out_fault)
{
    unsigned access = write ? PLAT_WRITE : PLAT_READ;
    uint64_t base, n;
    while (b->count < UIO_HOST_IOV && b->bytes < max && (n = uio_peek(at, &base)) > 0) {
        struct mm_piece p;
        int err = mm_piece_locked(at->ua->mm, base, MIN(n, max - b->bytes), access, &p);
        *out_fault = base;
        if (err)
            return err;
        uio_batch_add(b, p.ptr, p.size, p.window);
        uio_advance(at, p.size);
    }
    return 0;
}

static void uio_batch_end(struct uio_batch *b)
{
    for (int i = 0; i < b->count; i++)
        hostwin_put(b->windows[i]);
}

/* One call of fn: its result, or -EFAULT when no memory could be had. *out_bytes: what was offered.
 */
static int64_t uio_host_step(struct uio *u, bool write, uint64_t max, uio_host_fn fn, void *arg,
                             uint64_t done, uint64_t *out_bytes)
{
    struct mm *mm = u->ua->mm;
    for (unsigned i = 0; i < 64; i++) {
        struct uio at = *u;
        struct uio_batch b;
        uint64_t fault = 0;
        b.count = 0;
        b.bytes = 0;
        rwlock_rdlock(&mm->lock);
        int err = uio_batch_user(&at, write, max, &b, &fault);
        *out_bytes = b.bytes;
        int64_t r = b.bytes > 0 ? fn(arg, b.iov, b.count, done) : 0;
        uio_batch_end(&b);
        rwlock_unlock(&mm->lock);
        if (b.bytes > 0)
            return r;
        if (err == -EFAULT)
            err = mm_fault_in(mm, u->ua->ctx, fault, write ? PLAT_WRITE : PLAT_READ);
        if (err)
            return -EFAULT;
    }
    return -EFAULT;
}

static int64_t uio_host_kernel(struct uio *u, uint64_t max, uio_host_fn fn, void *arg,
                               uint64_t done, uint64_t *out_bytes)
{
    uint64_t base = 0, n = uio_peek(u, &base);
    struct iovec iov = {.iov_base = (void *)(uintptr_t)base, .iov_len = MIN(n, max)};
    *out_bytes = iov.iov_len;
    return iov.iov_len > 0 ? fn(arg, &iov, 1, done) : 0;
}

int64_t uio_host_io(struct uio *u, bool write, uint64_t max, uio_host_fn fn, void *arg)
{
    uint64_t done = 0;
    max = MIN(max, u->left);
    while (done < max) {
        uint64_t offered = 0;
        int64_t r = u->ua ? uio_host_step(u, write, max - done, fn, arg, done, &offered)
                          : uio_host_kernel(u, max - done, fn, arg, done, &offered);
        if (r < 0)
            return done > 0 ? (int64_t)done : r;
        BUG_ON((uint64_t)r > offered);
        uio_advance(u, (uint64_t)r);
        done += (uint64_t)r;
        if ((uint64_t)r < offered || r == 0)
            break;
    }
    return (int64_t)done;
}
