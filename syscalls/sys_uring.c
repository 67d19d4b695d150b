/* io_uring_setup(2), io_uring_enter(2): taking requests, carrying them out, waiting. Requests that
 * would have to sleep wait for their file or their time, and are carried out by whoever enters the
 * ring next, or waits in it: as with IORING_SETUP_COOP_TASKRUN and IORING_SETUP_TASKRUN_FLAG. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "base/limits.h"
#include "sentry/kernel/image.h"
#include "sentry/kernel/timer.h"
#include "sentry/time/clock.h"
#include "syscalls/handlers.h"
#include "syscalls/sys_uring.h"
#include "syscalls/timeout.h"

#define SQE_FLAGS                                                                                  \
    (IOSQE_FIXED_FILE | IOSQE_IO_DRAIN | IOSQE_IO_LINK | IOSQE_IO_HARDLINK | IOSQE_ASYNC |         \
     IOSQE_CQE_SKIP_SUCCESS | IOSQE_BUFFER_SELECT)
/* As many as Linux takes from one file before it looks at others. */
#define SHOTS_AT_ONCE 32u
#define SQE_LINKED (IOSQE_IO_LINK | IOSQE_IO_HARDLINK)

int64_t sys_io_uring_setup(struct task *t, unsigned entries, uaddr_t params)
{
    struct io_uring_params p;
    struct file *f;

    if (copyin_obj(&t->ua, &p, params))
        return -EFAULT;
    for (size_t i = 0; i < ARRAY_SIZE(p.resv); i++)
        if (p.resv[i])
            return -EINVAL;
    if (p.flags & ~URING_SETUP_KNOWN ||
        (p.flags & IORING_SETUP_DEFER_TASKRUN && !(p.flags & IORING_SETUP_SINGLE_ISSUER)))
        return -EINVAL;
    int r = uring_new(kernel_memfile(t->k), kernel_timer_service(t->k), entries, &p, &f);
    if (r)
        return r;
    r = copyout_obj(&t->ua, params, &p) ? -EFAULT : task_fd_install(t, f, true, 0);
    file_put(f);
    return r;
}

/* ---- one request ---- */

static void req_end(struct uring *r, struct uring_req *q, int64_t res, uint32_t flags)
{
    if (res < 0 || !(q->sqe.flags & IOSQE_CQE_SKIP_SUCCESS))
        uring_post(r, q->sqe.user_data, (int32_t)res, flags);
}

static int req_file(struct task *t, struct uring *r, struct uring_req *q)
{
    const struct io_uring_sqe *s = &q->sqe;
    int err;

    if (!uring_op_has_file(s->opcode))
        return 0;
    err = s->flags & IOSQE_FIXED_FILE ? uring_get_file(r, (uint32_t)s->fd, &q->file)
                                      : task_file(t, s->fd, &q->file);
    /* Rings that wait for each other would never end. */
    if (err == 0 && s->opcode != IORING_OP_MSG_RING && uring_of(q->file)) {
        file_put(q->file);
        q->file = NULL;
        err = -EBADF;
    }
    return err;
}

static int req_check(const struct uring_req *q)
{
    const struct io_uring_sqe *s = &q->sqe;

    if (!uring_op_known(s->opcode) || s->flags & ~SQE_FLAGS || s->personality)
        return -EINVAL;
    if (s->flags & IOSQE_BUFFER_SELECT && !uring_op_chooses(s->opcode))
        return -EOPNOTSUPP;
    return uring_op_check(s);
}

/* One try with a buffer of the ring's choice. */
static int64_t req_choose(struct task *t, struct uring *r, struct uring_req *q)
{
    struct io_uring_sqe s = q->sqe;
    struct uring_buf b;
    int64_t res = uring_buf_pick(r, &t->ua, s.buf_group, &b);

    if (res)
        return res;
    if (s.opcode == IORING_OP_RECVMSG) {
        res = uring_op_recvmsg(t, &s, q->file, &b, &q->more);
    } else {
        s.addr = b.addr;
        s.len = s.len ? MIN(s.len, b.len) : b.len;
        res = uring_op_run(t, r, &s, q->file);
        q->more = res > 0;
    }
    if (res < 0)
        uring_buf_back(r, &b);
    else
        q->cqe_flags = IORING_CQE_F_BUFFER | b.id << IORING_CQE_BUFFER_SHIFT;
    return res;
}

/* One try at what the request does. */
static int64_t req_run(struct task *t, struct uring *r, struct uring_req *q)
{
    q->cqe_flags = 0;
    q->more = false;
    if (q->sqe.flags & IOSQE_BUFFER_SELECT)
        return req_choose(t, r, q);
    const int64_t res = uring_op_run(t, r, &q->sqe, q->file);
    q->more = res >= 0;
    return res;
}

/* Tries till nothing is there, when the request is one that goes on. *out_soon: there may be more,
 * but others are to have their turn. */
static int64_t req_runs(struct task *t, struct uring *r, struct uring_req *q, bool *out_soon)
{
    const bool repeats = uring_op_repeats(&q->sqe);

    *out_soon = false;
    for (unsigned i = 0; i < SHOTS_AT_ONCE; i++) {
        const int64_t res = req_run(t, r, q);
        if (!repeats || !q->more || !uring_has_room(r))
            return res;
        uring_post(r, q->sqe.user_data, (int32_t)res, q->cqe_flags | IORING_CQE_F_MORE);
        /* No buffer is asked for till there is something to put into it. */
        if ((vfs_poll(q->file, NULL) & (uring_op_events(&q->sqe) | EPOLLERR | EPOLLHUP)) == 0)
            return -EAGAIN;
    }
    *out_soon = true;
    return -EAGAIN;
}

/* ---- timeouts and cancelling ---- */

static int timeout_at(struct task *t, const struct io_uring_sqe *s, uint64_t addr, uint32_t flags,
                      deadline_t *out)
{
    struct {
        int64_t sec, nsec;
    } ts;
    const int clock = flags & IORING_TIMEOUT_REALTIME   ? CLOCK_REALTIME
                      : flags & IORING_TIMEOUT_BOOTTIME ? CLOCK_BOOTTIME
                                                        : CLOCK_MONOTONIC;
    int64_t ns;

    (void)s;
    if (copyin_obj(&t->ua, &ts, uaddr(addr)))
        return -EFAULT;
    if (ts.sec < 0 || ts.nsec < 0 || ts.nsec >= 1000000000)
        return -EINVAL;
    if (__builtin_mul_overflow(ts.sec, INT64_C(1000000000), &ns) ||
        __builtin_add_overflow(ns, ts.nsec, &ns))
        ns = INT64_MAX;
    *out = flags & IORING_TIMEOUT_ABS ? clock_deadline(clock, ns) : deadline_after(ns);
    return 0;
}

struct match {
    uint64_t user_data;
    int fd;
    uint32_t flags;
    int opcode; /* -1: any */
};

static bool match_req(const struct uring_req *q, void *arg)
{
    const struct match *m = arg;

    if (m->opcode >= 0 && q->sqe.opcode != m->opcode)
        return false;
    if (m->flags & IORING_ASYNC_CANCEL_ANY)
        return true;
    if (m->flags & IORING_ASYNC_CANCEL_FD)
        return q->file && q->sqe.fd == m->fd;
    return q->sqe.user_data == m->user_data;
}

static void chain_cancel(struct uring *r, struct uring_req *q)
{
    while (!list_empty(&q->chain)) {
        struct uring_req *n = list_first_entry(&q->chain, struct uring_req, chain);
        list_del(&n->chain);
        list_init(&n->chain);
        req_end(r, n, -ECANCELED, 0);
        uring_free(n);
    }
}

/* Takes q, which is stopped. */
static void req_cancel(struct uring *r, struct uring_req *q)
{
    req_end(r, q, -ECANCELED, 0);
    chain_cancel(r, q);
    uring_free(q);
}

static int64_t op_cancel(struct uring *r, const struct io_uring_sqe *s)
{
    const bool poll = s->opcode == IORING_OP_POLL_REMOVE;
    const uint32_t flags = s->opcode == IORING_OP_ASYNC_CANCEL ? s->cancel_flags : 0;
    struct match m = {.user_data = s->addr,
                      .fd = s->fd,
                      .flags = flags,
                      .opcode = poll                                    ? IORING_OP_POLL_ADD
                                : s->opcode == IORING_OP_TIMEOUT_REMOVE ? IORING_OP_TIMEOUT
                                                                        : -1};
    struct uring_req *q;
    int64_t n = 0;

    if (flags & ~(uint32_t)(IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_FD |
                            IORING_ASYNC_CANCEL_ANY) ||
        (poll && s->len))
        return -EINVAL;
    while ((q = uring_find(r, match_req, &m)) != NULL) {
        req_cancel(r, q);
        n++;
        if (!(flags & (IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY)))
            return 0;
    }
    return n ? n : -ENOENT;
}

static int64_t op_timeout_update(struct task *t, struct uring *r, const struct io_uring_sqe *s)
{
    struct match m = {.user_data = s->addr, .opcode = IORING_OP_TIMEOUT};
    deadline_t at;
    int err = timeout_at(t, s, s->addr2, s->timeout_flags, &at);

    if (err)
        return err;
    struct uring_req *q = uring_find(r, match_req, &m);
    if (!q)
        return -ENOENT;
    err = uring_wait(r, q, at);
    if (err)
        uring_free(q);
    return err;
}

/* ---- chains ---- */

/* The one behind q becomes the first of what is left. NULL: none. */
static struct uring_req *chain_next(struct uring_req *q)
{
    if (list_empty(&q->chain))
        return NULL;
    struct uring_req *n = list_first_entry(&q->chain, struct uring_req, chain);
    list_del(&n->chain);
    list_init(&n->chain);
    list_splice_tail(&q->chain, &n->chain);
    return n;
}

/* q is over: what is linked behind it begins, or is cancelled. Takes q. Returns what begins. */
static struct uring_req *req_finish(struct uring *r, struct uring_req *q, int64_t res)
{
    /* A short transfer breaks a soft link too. */
    const bool is_rw = q->sqe.opcode == IORING_OP_READ || q->sqe.opcode == IORING_OP_WRITE;
    const bool failed = res < 0 || (is_rw && (uint64_t)res != q->sqe.len);
    struct uring_req *n = NULL;

    req_end(r, q, res, q->cqe_flags);
    if (failed && !(q->sqe.flags & IOSQE_IO_HARDLINK))
        chain_cancel(r, q);
    else
        n = chain_next(q);
    uring_free(q);
    /* A limit on something that is over already. */
    while (n && n->sqe.opcode == IORING_OP_LINK_TIMEOUT) {
        struct uring_req *after = chain_next(n);
        req_end(r, n, -ECANCELED, 0);
        uring_free(n);
        n = after;
    }
    return n;
}

/* A limit that is linked behind what now waits takes effect. */
static int link_timeout(struct task *t, struct uring_req *q, deadline_t *out)
{
    if (list_empty(&q->chain))
        return 0;
    const struct uring_req *n = list_first_entry(&q->chain, struct uring_req, chain);
    if (n->sqe.opcode != IORING_OP_LINK_TIMEOUT)
        return 0;
    int err = timeout_at(t, &n->sqe, n->sqe.addr, n->sqe.timeout_flags, out);
    if (err == 0)
        q->timed = q->linked_timeout = true;
    return err;
}

static int req_wait(struct task *t, struct uring *r, struct uring_req *q)
{
    deadline_t at = DEADLINE_NEVER;
    int err = 0;

    if (q->sqe.opcode == IORING_OP_TIMEOUT) {
        if (q->sqe.len != 1 ||
            q->sqe.timeout_flags & ~(uint32_t)(IORING_TIMEOUT_ABS | IORING_TIMEOUT_CLOCK_MASK |
                                               IORING_TIMEOUT_ETIME_SUCCESS))
            return -EINVAL;
        q->timed = true;
        q->after = q->sqe.off ? uring_posted(r) + (uint32_t)q->sqe.off : 0;
        err = timeout_at(t, &q->sqe, q->sqe.addr, q->sqe.timeout_flags, &at);
    } else {
        q->polled = true;
        q->events = uring_op_events(&q->sqe);
        err = link_timeout(t, q, &at);
    }
    return err ? err : uring_wait(r, q, at);
}

/* The file may be open with O_NONBLOCK: that is about calls that return. */
static bool req_may_wait(const struct uring_req *q)
{
    const struct io_uring_sqe *s = &q->sqe;
    bool now = false;

    switch (s->opcode) {
    case IORING_OP_READV:
    case IORING_OP_WRITEV:
    case IORING_OP_READ:
    case IORING_OP_WRITE:
    case IORING_OP_READ_FIXED:
    case IORING_OP_WRITE_FIXED:
        now = s->rw_flags & RWF_NOWAIT;
        break;
    case IORING_OP_SEND:
    case IORING_OP_RECV:
    case IORING_OP_SENDMSG:
    case IORING_OP_RECVMSG:
        now = s->msg_flags & MSG_DONTWAIT;
        break;
    default:
        break;
    }
    return !now && q->file && q->file->ops->poll && uring_op_events(s);
}

/* IORING_RECVSEND_POLL_FIRST: nothing is there yet, as far as the guest knows. */
static bool req_waits_first(const struct uring_req *q)
{
    switch (q->sqe.opcode) {
    case IORING_OP_SEND:
    case IORING_OP_RECV:
    case IORING_OP_SENDMSG:
    case IORING_OP_RECVMSG:
        return q->sqe.ioprio & IORING_RECVSEND_POLL_FIRST && req_may_wait(q);
    default:
        return false;
    }
}

/* A first try: true when q is over (*res). What waits is looked at when it has begun to. */
static bool req_try(struct task *t, struct uring *r, struct uring_req *q, int64_t *res)
{
    bool soon;

    switch (q->sqe.opcode) {
    case IORING_OP_POLL_REMOVE:
    case IORING_OP_ASYNC_CANCEL:
        *res = op_cancel(r, &q->sqe);
        return true;
    case IORING_OP_TIMEOUT_REMOVE:
        *res = q->sqe.timeout_flags & IORING_TIMEOUT_UPDATE ? op_timeout_update(t, r, &q->sqe)
                                                            : op_cancel(r, &q->sqe);
        return true;
    case IORING_OP_LINK_TIMEOUT:
        *res = -EINVAL;
        return true;
    case IORING_OP_TIMEOUT:
        return false;
    default:
        if (req_waits_first(q))
            return false;
        *res = req_runs(t, r, q, &soon);
        return *res != -EAGAIN || !req_may_wait(q);
    }
}

/* Takes q, and with it what is linked behind it. */
static void req_start(struct task *t, struct uring *r, struct uring_req *q)
{
    while (q) {
        int64_t res = req_check(q);
        if (res == 0)
            res = req_file(t, r, q);
        if (res == 0 && !req_try(t, r, q, &res)) {
            res = req_wait(t, r, q);
            if (res == 0)
                return;
        }
        q = req_finish(r, q, res);
    }
}

/* ---- what waited ---- */

/* The limit linked behind q is over; it is not started any more. */
static void limit_end(struct uring *r, struct uring_req *q, int64_t res)
{
    struct uring_req *n = list_first_entry(&q->chain, struct uring_req, chain);

    list_del(&n->chain);
    list_init(&n->chain);
    q->linked_timeout = false;
    req_end(r, n, res, 0);
    uring_free(n);
}

static void poll_multi(struct uring *r, struct uring_req *q)
{
    const uint32_t got = vfs_poll(q->file, NULL) & (q->events | EPOLLERR | EPOLLHUP);

    if (got)
        uring_post(r, q->sqe.user_data, (int32_t)got, IORING_CQE_F_MORE);
    uring_again(r, q, false);
}

static void req_resume(struct task *t, struct uring *r, struct uring_req *q)
{
    int64_t res = -ECANCELED;
    bool soon;

    if (q->sqe.opcode == IORING_OP_TIMEOUT) {
        res = atomic_load(&q->expired) ? -ETIME : 0;
    } else if (q->sqe.opcode == IORING_OP_POLL_ADD && q->sqe.len & IORING_POLL_ADD_MULTI &&
               !atomic_load(&q->expired)) {
        poll_multi(r, q);
        return;
    } else if (!atomic_load(&q->expired)) {
        res = req_runs(t, r, q, &soon);
        if (res == -EAGAIN) {
            uring_again(r, q, soon);
            return;
        }
    }
    uring_stop(q);
    const bool limited = q->linked_timeout, late = atomic_load(&q->expired);
    if (limited && !late)
        limit_end(r, q, -ECANCELED);
    if (limited && late)
        limit_end(r, q, -ETIME);
    struct uring_req *n = req_finish(r, q, res);
    if (n)
        req_start(t, r, n);
}

static bool match_count(const struct uring_req *q, void *arg)
{
    const uint32_t posted = *(const uint32_t *)arg;

    return q->sqe.opcode == IORING_OP_TIMEOUT && q->after && (int32_t)(posted - q->after) >= 0;
}

/* What was held back and may begin now. */
static void run_held(struct task *t, struct uring *r)
{
    struct uring_req *q;

    while ((q = uring_unhold(r)) != NULL) {
        if (q->mm == t->ua.mm)
            req_start(t, r, q);
        else
            req_cancel(r, q);
    }
}

/* Whatever can be finished. */
static void run_ready(struct task *t, struct uring *r)
{
    struct uring_req *q;
    uint32_t posted;

    for (unsigned i = 0; i < LIMIT_URING_PENDING && (q = uring_ready(r)) != NULL; i++) {
        if (q->mm == t->ua.mm) {
            req_resume(t, r, q);
            continue;
        }
        /* Another process', whose memory is out of reach. */
        uring_stop(q);
        req_cancel(r, q);
    }
    while (posted = uring_posted(r), (q = uring_find(r, match_count, &posted)) != NULL) {
        struct uring_req *n = req_finish(r, q, 0);
        if (n)
            req_start(t, r, n);
    }
    run_held(t, r);
    (void)uring_flush(r);
}

/* ---- enter ---- */

static struct uring_req *req_new(struct task *t, const struct io_uring_sqe *s)
{
    struct uring_req *q = calloc(1, sizeof(*q));

    if (!q)
        return NULL;
    q->sqe = *s;
    q->mm = t->ua.mm;
    list_init(&q->node);
    list_init(&q->chain);
    return q;
}

/* Begins with a chain, or holds it back. Takes first. */
static void chain_begin(struct task *t, struct uring *r, struct uring_req *first, bool drain)
{
    bool held;
    const int err = uring_hold(r, first, drain, &held);

    if (err) {
        req_end(r, first, err, 0);
        chain_cancel(r, first);
        uring_free(first);
    } else if (!held) {
        req_start(t, r, first);
    }
}

/* Takes up to max entries, whole chains at a time where they are there. */
static int64_t submit(struct task *t, struct uring *r, uint32_t max)
{
    struct io_uring_sqe s;
    int64_t taken = 0;

    /* The guest's tail may say anything: a ring holds no more than its entries. */
    max = MIN(max, uring_waiting(r));
    while (taken < max && uring_next(r, &s)) {
        struct uring_req *first = req_new(t, &s);
        bool drain = s.flags & IOSQE_IO_DRAIN;
        taken++;
        if (!first) {
            uring_post(r, s.user_data, -ENOMEM, 0);
            break;
        }
        while (s.flags & SQE_LINKED && taken < max && uring_next(r, &s)) {
            struct uring_req *q = req_new(t, &s);
            taken++;
            if (!q) {
                uring_post(r, s.user_data, -ENOMEM, 0);
                break;
            }
            list_add_tail(&q->chain, &first->chain);
            drain |= s.flags & IOSQE_IO_DRAIN;
        }
        chain_begin(t, r, first, drain);
        run_held(t, r);
    }
    return taken;
}

struct enter_arg {
    deadline_t deadline;
    uint64_t mask, mask_size;
};

static int enter_arg(struct task *t, unsigned flags, uaddr_t arg, uint64_t size,
                     struct enter_arg *out)
{
    struct io_uring_getevents_arg a;

    *out = (struct enter_arg){.deadline = DEADLINE_NEVER, .mask = arg.v, .mask_size = size};
    if (!(flags & IORING_ENTER_EXT_ARG))
        return 0;
    if (size != sizeof(a))
        return -EINVAL;
    if (copyin_obj(&t->ua, &a, arg))
        return -EFAULT;
    out->mask = a.sigmask;
    out->mask_size = a.sigmask_sz;
    return timeout_read(t, uaddr(a.ts), &out->deadline);
}

static int enter_wait(struct task *t, struct uring *r, uint32_t min, const struct enter_arg *a)
{
    int err = 0;

    run_ready(t, r);
    while (err == 0 && uring_finished(r) < min) {
        err = uring_sleep(r, min, &t->blocker, a->deadline);
        run_ready(t, r);
    }
    if (uring_finished(r) >= min)
        return 0;
    return err == -ETIMEDOUT ? -ETIME : err;
}

static int64_t enter_ring(struct task *t, struct uring *r, uint32_t to_submit, uint32_t min,
                          unsigned flags, const struct enter_arg *a)
{
    int64_t done = 0, err = 0;

    if (uring_disabled(r))
        return -EBADFD;
    run_ready(t, r);
    if (to_submit)
        done = submit(t, r, to_submit);
    if (flags & IORING_ENTER_GETEVENTS) {
        if (a->mask)
            err = task_set_temp_sigmask(t, uaddr(a->mask), a->mask_size);
        if (err == 0)
            err = enter_wait(t, r, min, a);
        if (a->mask && err != -EINTR)
            task_restore_sigmask(t);
    }
    return done ? done : err;
}

int64_t sys_io_uring_enter(struct task *t, int fd, unsigned to_submit, unsigned min, unsigned flags,
                           uaddr_t arg, uint64_t size)
{
    const unsigned known = IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP | IORING_ENTER_SQ_WAIT |
                           IORING_ENTER_EXT_ARG;
    struct enter_arg a = {.deadline = DEADLINE_NEVER};
    struct file *f;

    if (flags & ~known)
        return -EINVAL;
    int r = task_file(t, fd, &f);
    if (r)
        return r;
    int64_t n = uring_of(f) ? 0 : -EOPNOTSUPP;
    if (n == 0 && flags & IORING_ENTER_GETEVENTS)
        n = enter_arg(t, flags, arg, size, &a);
    if (n == 0)
        n = enter_ring(t, uring_of(f), to_submit, min, flags, &a);
    file_put(f);
    return n;
}
