/* What splice(2) and tee(2) need of pipes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "sentry/errno_internal.h"
#include "sentry/fs/pipe/pipe_priv.h"

uint64_t pipe_room(struct file *f)
{
    struct pipe *p = pipe_of(f);

    mutex_lock(&p->mu);
    const uint64_t room = p->capacity - p->used;
    mutex_unlock(&p->mu);
    return room;
}

/* Others may have filled the pipe meanwhile: then it grows, for what was promised must not go. */
static bool unread_make_room(struct pipe *p, uint64_t size)
{
    uint64_t want = p->capacity;

    while (want - p->used < size)
        want *= 2;
    return (want == p->capacity && p->buf) || pipe_resize_locked(p, want) > 0;
}

void pipe_unread(struct file *f, const void *data, uint64_t size)
{
    struct packet *k = malloc(sizeof(*k));
    struct pipe *p = pipe_of(f);

    mutex_lock(&p->mu);
    if (unread_make_room(p, size)) {
        p->start = (p->start + p->capacity - size) % p->capacity;
        p->used += size;
        const uint64_t head = MIN(size, p->capacity - p->start);
        memcpy(p->buf + p->start, data, head);
        memcpy(p->buf, (const char *)data + head, size - head);
        if (!list_empty(&p->packets) && k) {
            k->left = size;
            list_add(&k->node, &p->packets);
            k = NULL;
        }
    }
    mutex_unlock(&p->mu);
    free(k);
    (void)waitq_wake(&p->wq, EPOLLIN | EPOLLRDNORM);
}

/* ---- tee ---- */

static int64_t tee_copy_locked(struct pipe *in, struct pipe *out, uint64_t max)
{
    uint64_t left = MIN(MIN(max, in->used), out->capacity - out->used), at = in->start;
    int64_t done = 0;

    while (left > 0) {
        const uint64_t n = MIN(left, in->capacity - at);
        struct uio u;
        uio_init_kernel(&u, in->buf + at, n);
        int64_t put = pipe_put_locked(out, &u, n);
        if (put <= 0)
            return done ? done : put;
        done += put;
        left -= (uint64_t)put;
        at = (at + (uint64_t)put) % in->capacity;
    }
    return done;
}

/* Whom to wait for before the next attempt. */
enum tee_next { TEE_DONE, TEE_WAIT_IN, TEE_WAIT_OUT };

static enum tee_next tee_once(struct pipe *in, struct pipe *out, uint64_t max, int64_t *r)
{
    enum tee_next next = TEE_DONE;

    mutex_lock_pair(&in->mu, &out->mu);
    if (out->readers == 0)
        *r = -EPIPE;
    else if (in->used == 0 && in->writers == 0)
        *r = 0;
    else if (in->used == 0)
        next = TEE_WAIT_IN;
    else if (out->used == out->capacity)
        next = TEE_WAIT_OUT;
    else
        *r = tee_copy_locked(in, out, max);
    mutex_unlock_pair(&in->mu, &out->mu);
    return next;
}

static bool tee_ready(struct pipe *p, bool in)
{
    mutex_lock(&p->mu);
    const bool yes = in ? p->used > 0 || p->writers == 0 : p->used < p->capacity || p->readers == 0;
    mutex_unlock(&p->mu);
    return yes;
}

int64_t pipe_tee(struct file *in_file, struct file *out_file, uint64_t max,
                 const struct vfs_caller *c)
{
    struct pipe *in = pipe_of(in_file), *out = pipe_of(out_file);
    int64_t r = 0;

    if (in == out)
        return -EINVAL;
    for (;;) {
        const enum tee_next next = tee_once(in, out, max, &r);
        if (next == TEE_DONE)
            break;
        if (!c->blocker)
            return -EAGAIN;
        int err;
        struct pipe *p = next == TEE_WAIT_IN ? in : out;
        WAIT_EVENT(&p->wq, c->blocker, 0, DEADLINE_NEVER, tee_ready(p, next == TEE_WAIT_IN), err);
        if (err)
            return -ERESTARTSYS;
    }
    if (r > 0)
        (void)waitq_wake(&out->wq, EPOLLIN | EPOLLRDNORM);
    return r;
}
