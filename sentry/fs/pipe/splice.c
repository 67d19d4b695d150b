/* What splice(2), tee(2) and vmsplice(2) need of pipes. Who splices from one is its only reader
 * till it is known what went; who splices to one has the room before he takes anything elsewhere.
 * So nothing is put back, is lost, or goes beyond the size of a pipe. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "sentry/errno_internal.h"
#include "sentry/fs/pipe/pipe_priv.h"

void pipe_took(struct file *f, uint64_t size)
{
    struct pipe *p = pipe_of(f);

    mutex_lock(&p->mu);
    p->taken = false;
    pipe_drop_locked(p, size);
    mutex_unlock(&p->mu);
    (void)waitq_wake(&p->wq, 0);
}

/* ---- room ---- */

static bool room_ready(struct pipe *p)
{
    mutex_lock(&p->mu);
    const bool yes = p->readers == 0 || pipe_room_locked(p) > 0;
    mutex_unlock(&p->mu);
    return yes;
}

static int room_wait(struct pipe *p, const struct vfs_caller *c)
{
    int err;

    if (!c->blocker)
        return -EAGAIN;
    WAIT_EVENT(&p->wq, c->blocker, 0, DEADLINE_NEVER, room_ready(p), err);
    return err ? -ERESTARTSYS : 0;
}

int64_t pipe_reserve(struct file *f, uint64_t max, const struct vfs_caller *c)
{
    struct pipe *p = pipe_of(f);

    for (;;) {
        mutex_lock(&p->mu);
        const bool gone = p->readers == 0;
        const uint64_t n = gone ? 0 : MIN(max, pipe_room_locked(p));
        p->reserved += n;
        mutex_unlock(&p->mu);
        if (gone)
            return -EPIPE;
        if (n > 0)
            return (int64_t)n;
        const int r = room_wait(p, c);
        if (r)
            return r;
    }
}

void pipe_unreserve(struct file *f, uint64_t size)
{
    struct pipe *p = pipe_of(f);

    mutex_lock(&p->mu);
    p->reserved -= size;
    mutex_unlock(&p->mu);
    (void)waitq_wake(&p->wq, EPOLLOUT | EPOLLWRNORM);
}

int64_t pipe_fill(struct file *f, struct uio *u, const struct vfs_caller *c)
{
    struct pipe *p = pipe_of(f);

    if (u->left == 0)
        return 0;
    for (;;) {
        mutex_lock(&p->mu);
        const int64_t n = p->readers == 0 ? -EPIPE : pipe_put_locked(p, u, UINT64_MAX);
        mutex_unlock(&p->mu);
        if (n > 0)
            (void)waitq_wake(&p->wq, EPOLLIN | EPOLLRDNORM);
        if (n)
            return n;
        const int r = room_wait(p, c);
        if (r)
            return r;
    }
}

/* ---- from pipe to pipe ---- */

/* As pipe_put_locked, from the byte at of in, as one packet or in none. */
static int64_t span_copy(struct pipe *in, uint64_t at, uint64_t size, bool packet, struct pipe *out)
{
    const uint64_t from = (in->start + at) % in->capacity, room = pipe_room_locked(out);
    struct packet *k = NULL;
    int64_t done = 0;

    if (room < (packet ? PIPE_ATOMIC : 1u))
        return 0;
    if (packet && !(k = malloc(sizeof(*k))))
        return -ENOMEM;
    size = MIN(size, room);
    while ((uint64_t)done < size) {
        const uint64_t pos = (from + (uint64_t)done) % in->capacity;
        struct uio u;
        uio_init_kernel(&u, in->buf + pos, MIN(size - (uint64_t)done, in->capacity - pos));
        const int64_t n = pipe_put_locked(out, &u, UINT64_MAX);
        if (n <= 0) {
            free(k);
            return n;
        }
        done += n;
    }
    if (k)
        pipe_mark_locked(out, (uint64_t)done, k);
    return done;
}

static int64_t copy_locked(struct pipe *in, struct pipe *out, uint64_t max)
{
    struct list *l = in->packets.next;
    bool packet = false;
    uint64_t at = 0;

    while (at < MIN(max, in->used)) {
        const struct packet *k = l != &in->packets ? list_entry(l, struct packet, node) : NULL;
        const uint64_t size = !k ? in->used - at : packet ? k->left : k->gap;
        const uint64_t want = MIN(size, max - at);
        const int64_t n = want > 0 ? span_copy(in, at, want, packet, out) : 0;
        if (n < 0 && at == 0)
            return n;
        if (n > 0)
            at += (uint64_t)n;
        if (n < (int64_t)size)
            break;
        if (packet)
            l = l->next;
        packet = !packet;
    }
    return (int64_t)at;
}

/* Whom to wait for before the next attempt. */
enum splice_next { SPLICE_DONE, SPLICE_WAIT_IN, SPLICE_WAIT_OUT };

static enum splice_next splice_once(struct pipe *in, struct pipe *out, uint64_t max, bool copy,
                                    int64_t *r)
{
    enum splice_next next = SPLICE_DONE;

    mutex_lock_pair(&in->mu, &out->mu);
    if (out->readers == 0)
        *r = -EPIPE;
    else if (!pipe_readable_locked(in))
        next = SPLICE_WAIT_IN;
    else if (in->used > 0)
        *r = copy_locked(in, out, max);
    if (next == SPLICE_DONE && in->used > 0 && *r == 0)
        next = SPLICE_WAIT_OUT;
    if (*r > 0 && !copy)
        pipe_drop_locked(in, (uint64_t)*r);
    mutex_unlock_pair(&in->mu, &out->mu);
    return next;
}

static bool splice_ready(struct pipe *in, struct pipe *out, enum splice_next next)
{
    struct pipe *p = next == SPLICE_WAIT_IN ? in : out;

    mutex_lock(&p->mu);
    const bool yes = next == SPLICE_WAIT_IN ? pipe_readable_locked(p)
                                            : p->readers == 0 || pipe_room_locked(p) >= PIPE_ATOMIC;
    mutex_unlock(&p->mu);
    return yes;
}

static bool is_nonblock(const struct file *f)
{
    return atomic_load_explicit(&f->flags, memory_order_relaxed) & O_NONBLOCK;
}

int64_t pipe_splice(struct file *in_file, struct file *out_file, uint64_t max, bool copy,
                    const struct vfs_caller *c)
{
    struct pipe *in = pipe_of(in_file), *out = pipe_of(out_file);
    int64_t r = 0;

    if (in == out)
        return -EINVAL;
    for (;;) {
        const enum splice_next next = splice_once(in, out, max, copy, &r);
        if (next == SPLICE_DONE)
            break;
        if (!c->blocker || is_nonblock(in_file) || is_nonblock(out_file))
            return -EAGAIN;
        int err;
        struct pipe *p = next == SPLICE_WAIT_IN ? in : out;
        WAIT_EVENT(&p->wq, c->blocker, 0, DEADLINE_NEVER, splice_ready(in, out, next), err);
        if (err)
            return -ERESTARTSYS;
    }
    if (r > 0)
        (void)waitq_wake(&out->wq, EPOLLIN | EPOLLRDNORM);
    if (r > 0 && !copy)
        (void)waitq_wake(&in->wq, EPOLLOUT | EPOLLWRNORM);
    return r;
}
