/* Asynchronous I/O (fs/aio.c of the kernel). Requests are carried out when they are submitted, as
 * Linux does for all but O_DIRECT. */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "base/limits.h"
#include "sentry/fs/anon/eventfd.h"
#include "sentry/kernel/aio.h"
#include "sentry/kernel/image.h"
#include "sentry/kernel/timer.h"
#include "sentry/time/clock.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_rw.h"

#define AIO_NR_MAX 0x10000000u
#define AIO_BATCH 32u

int64_t sys_io_setup(struct task *t, unsigned nr, uaddr_t ctxp)
{
    struct mm_limits lim;
    uint64_t ctx;
    uaddr_t at;

    if (copyin_obj(&t->ua, &ctx, ctxp))
        return -EFAULT;
    if (ctx || nr == 0 || nr > AIO_NR_MAX)
        return -EINVAL;
    task_mm_limits(t, &lim);
    int r = aio_new(kernel_memfile(t->k), &t->ua, &lim, nr, &at);
    if (r)
        return r;
    if (copyout_obj(&t->ua, ctxp, &at.v)) {
        (void)!aio_destroy(&t->ua, at);
        return -EFAULT;
    }
    return 0;
}

int64_t sys_io_destroy(struct task *t, uaddr_t ctx)
{
    return aio_destroy(&t->ua, ctx);
}

/* ---- submitting ---- */

static int64_t aio_transfer(struct task *t, struct file *f, const struct iocb *cb)
{
    const bool write =
        cb->aio_lio_opcode == IOCB_CMD_PWRITE || cb->aio_lio_opcode == IOCB_CMD_PWRITEV;
    const bool vector =
        cb->aio_lio_opcode == IOCB_CMD_PREADV || cb->aio_lio_opcode == IOCB_CMD_PWRITEV;
    struct uio_seg *segs = NULL;
    struct vfs_caller c;
    struct uio u;
    int64_t n = vector ? uio_init_iovec(&u, &t->ua, uaddr(cb->aio_buf), cb->aio_nbytes, &segs)
                       : uio_init_user(&u, &t->ua, uaddr(cb->aio_buf), cb->aio_nbytes);

    if (n)
        return n;
    /* What has no position takes none. */
    const int64_t off = file_has_position(f) ? cb->aio_offset : -1;
    task_vfs_caller(t, &c);
    n = write ? rw_write_result(t, f, &c, vfs_write(f, &u, off, cb->aio_rw_flags, &c))
              : vfs_read(f, &u, off, cb->aio_rw_flags, &c);
    task_vfs_caller_end(&c);
    free(segs);
    return n;
}

static int aio_check_transfer(const struct file *f, const struct iocb *cb)
{
    const uint32_t acc = atomic_load(&f->flags) & O_ACCMODE;
    const bool write =
        cb->aio_lio_opcode == IOCB_CMD_PWRITE || cb->aio_lio_opcode == IOCB_CMD_PWRITEV;

    if (acc == (write ? O_RDONLY : O_WRONLY))
        return -EBADF;
    if (cb->aio_offset < 0 || !(write ? (void *)f->ops->write : (void *)f->ops->read))
        return -EINVAL;
    return 0;
}

/* What can be said before anything is done; then it is the request that fails, not the call. */
static int aio_check(const struct file *f, const struct iocb *cb)
{
    switch (cb->aio_lio_opcode) {
    case IOCB_CMD_PREAD:
    case IOCB_CMD_PWRITE:
    case IOCB_CMD_PREADV:
    case IOCB_CMD_PWRITEV:
        return aio_check_transfer(f, cb);
    case IOCB_CMD_FSYNC:
    case IOCB_CMD_FDSYNC:
        if (cb->aio_buf || cb->aio_offset || cb->aio_nbytes || cb->aio_rw_flags || !f->ops->fsync)
            return -EINVAL;
        return 0;
    case IOCB_CMD_POLL:
        return cb->aio_buf > UINT16_MAX || cb->aio_offset || cb->aio_nbytes || cb->aio_rw_flags
                   ? -EINVAL
                   : 0;
    default:
        return -EINVAL;
    }
}

static int64_t aio_do(struct task *t, struct file *f, const struct iocb *cb)
{
    if (cb->aio_lio_opcode == IOCB_CMD_FSYNC || cb->aio_lio_opcode == IOCB_CMD_FDSYNC)
        return vfs_fsync(f, cb->aio_lio_opcode == IOCB_CMD_FDSYNC);
    int64_t n = aio_transfer(t, f, cb);
    /* A request cannot be restarted. */
    return n <= -ERESTARTSYS && n >= -ERESTART_RESTARTBLOCK ? -EINTR : n;
}

static int aio_eventfd(struct task *t, const struct iocb *cb, struct file **out)
{
    *out = NULL;
    if (!(cb->aio_flags & IOCB_FLAG_RESFD))
        return 0;
    int r = task_file(t, (int)cb->aio_resfd, out);
    if (r == 0 && !eventfd_is(*out)) {
        file_put(*out);
        *out = NULL;
        r = -EINVAL;
    }
    return r;
}

static int aio_run(struct task *t, struct aio_ctx *a, uaddr_t addr, const struct iocb *cb,
                   struct file *f)
{
    const uint32_t key = 0;
    struct file *tell;
    int r = aio_eventfd(t, cb, &tell);

    if (r == 0)
        r = aio_check(f, cb);
    if (r == 0 && copyout_obj(&t->ua, uaddr_add(addr, offsetof(struct iocb, aio_key)), &key))
        r = -EFAULT;
    if (r == 0 && cb->aio_lio_opcode == IOCB_CMD_POLL) {
        const struct aio_tell told = {.file = tell, .fn = eventfd_signal};
        r = aio_poll_start(a, kernel_timer_service(t->k), f, &told, cb, addr.v);
    } else if (r == 0) {
        const struct io_event e = {.data = cb->aio_data, .obj = addr.v, .res = aio_do(t, f, cb)};
        aio_complete(a, &e);
        if (tell)
            eventfd_signal(tell);
    }
    if (tell)
        file_put(tell);
    return r;
}

static int aio_submit_one(struct task *t, struct aio_ctx *a, uaddr_t addr)
{
    struct iocb cb;
    struct file *f;

    if (copyin_obj(&t->ua, &cb, addr))
        return -EFAULT;
    if (cb.aio_reserved2 || (int64_t)cb.aio_nbytes < 0 ||
        cb.aio_flags & ~(uint32_t)(IOCB_FLAG_RESFD | IOCB_FLAG_IOPRIO))
        return -EINVAL;
    int r = aio_begin(a);
    if (r)
        return r;
    r = task_file(t, (int)cb.aio_fildes, &f);
    if (r == 0) {
        r = aio_run(t, a, addr, &cb, f);
        file_put(f);
    }
    if (r)
        aio_abort(a);
    return r;
}

int64_t sys_io_submit(struct task *t, uaddr_t ctx, int64_t nr, uaddr_t iocbpp)
{
    struct aio_ctx *a;
    int64_t done = 0;

    if (nr < 0)
        return -EINVAL;
    int r = aio_find(&t->ua, ctx, &a);
    if (r)
        return r;
    nr = MIN(nr, (int64_t)aio_size(a));
    for (; done < nr && r == 0; done += r == 0) {
        uint64_t cb;
        r = copyin_obj(&t->ua, &cb, uaddr_add(iocbpp, (uint64_t)done * sizeof(cb)));
        if (r == 0)
            r = aio_submit_one(t, a, uaddr(cb));
    }
    aio_put(a);
    return done ? done : r;
}

/* Every request but polls is finished by the time somebody could want to cancel it. */
int64_t sys_io_cancel(struct task *t, uaddr_t ctx, uaddr_t iocb, uaddr_t result)
{
    struct aio_ctx *a;
    uint32_t key;

    (void)result;
    if (copyin_obj(&t->ua, &key, uaddr_add(iocb, offsetof(struct iocb, aio_key))))
        return -EFAULT;
    int r = aio_find(&t->ua, ctx, &a);
    if (r)
        return r;
    r = key ? -EINVAL : aio_poll_cancel(a, iocb.v);
    aio_put(a);
    return r;
}

/* ---- results ---- */

static int64_t aio_fetch(struct task *t, struct aio_ctx *a, int64_t nr, uaddr_t events)
{
    struct io_event some[AIO_BATCH];
    int64_t got = 0;
    unsigned n;

    while (got < nr && (n = aio_take(a, some, (unsigned)MIN(nr - got, (int64_t)AIO_BATCH))) > 0) {
        if (copyout_array(&t->ua, uaddr_add(events, (uint64_t)got * sizeof(*some)), some, n,
                          sizeof(*some))) {
            aio_give_back(a, some, n);
            return got ? got : -EFAULT;
        }
        got += n;
    }
    return got;
}

static int64_t aio_getevents(struct task *t, uaddr_t ctx, int64_t min, int64_t nr, uaddr_t events,
                             deadline_t deadline)
{
    struct aio_ctx *a;
    int r = aio_find(&t->ua, ctx, &a);

    if (r)
        return r;
    if (min < 0 || min > nr) {
        aio_put(a);
        return -EINVAL;
    }
    /* No more than all can ever be there at once. */
    int64_t got = aio_fetch(t, a, nr, events);
    while (got >= 0 && got < min) {
        r = aio_wait(a, 1, &t->blocker, deadline);
        if (r)
            break;
        int64_t n =
            aio_fetch(t, a, nr - got, uaddr_add(events, (uint64_t)got * sizeof(struct io_event)));
        if (n < 0)
            break;
        got += n;
    }
    aio_put(a);
    return got == 0 && r && r != -ETIMEDOUT ? r : got;
}

/* Any numbers, as fs/aio.c takes them. */
static int aio_timeout(struct task *t, uaddr_t p, deadline_t *out)
{
    struct {
        int64_t sec, nsec;
    } ts;
    int64_t ns;

    *out = DEADLINE_NEVER;
    if (uaddr_is_null(p))
        return 0;
    if (copyin_obj(&t->ua, &ts, p))
        return -EFAULT;
    if (__builtin_mul_overflow(ts.sec, INT64_C(1000000000), &ns) ||
        __builtin_add_overflow(ns, ts.nsec, &ns))
        ns = ts.sec < 0 ? 0 : INT64_MAX;
    *out = ns > 0 ? deadline_after(ns) : 0;
    return 0;
}

int64_t sys_io_getevents(struct task *t, uaddr_t ctx, int64_t min, int64_t nr, uaddr_t events,
                         uaddr_t timeout)
{
    deadline_t deadline;
    int r = aio_timeout(t, timeout, &deadline);

    return r ? r : aio_getevents(t, ctx, min, nr, events, deadline);
}

struct lx_aio_sigset {
    uint64_t mask, size;
};

int64_t sys_io_pgetevents(struct task *t, uaddr_t ctx, int64_t min, int64_t nr, uaddr_t events,
                          uaddr_t timeout, uaddr_t usig)
{
    struct lx_aio_sigset sig = {0};
    deadline_t deadline;
    int64_t r = aio_timeout(t, timeout, &deadline);

    if (r == 0 && !uaddr_is_null(usig) && copyin_obj(&t->ua, &sig, usig))
        r = -EFAULT;
    if (r == 0 && sig.mask)
        r = task_set_temp_sigmask(t, uaddr(sig.mask), sig.size);
    if (r)
        return r;
    r = aio_getevents(t, ctx, min, nr, events, deadline);
    if (r == -EINTR)
        return -ERESTARTNOHAND;
    if (sig.mask)
        task_restore_sigmask(t);
    return r;
}
