/* Requests that wait. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/limits.h"
#include "sentry/fs/anon/uring_priv.h"

/* ---- marks: set with locks held that come after the ring's ---- */

static void mark(struct uring_req *q, bool nested)
{
    struct uring *r = q->ring;

    if (!atomic_exchange(&q->ready, true))
        atomic_fetch_add(&r->happened, 1);
    __atomic_fetch_or(&r->words->sq_flags, IORING_SQ_TASKRUN, __ATOMIC_RELEASE);
    if (atomic_load(&r->telling))
        timer_arm(&r->tell, 0);
    if (nested)
        (void)waitq_wake_nested(&r->wq, EPOLLIN | EPOLLRDNORM);
    else
        (void)waitq_wake(&r->wq, EPOLLIN | EPOLLRDNORM);
}

static void on_event(struct waiter *w, uint32_t events)
{
    (void)events;
    mark(container_of(w, struct uring_req, w), true);
}

static void on_time(struct timer *tm)
{
    struct uring_req *q = container_of(tm, struct uring_req, tm);

    atomic_store(&q->expired, true);
    mark(q, false);
}

/* ---- waiting ---- */

int uring_wait(struct uring *r, struct uring_req *q, deadline_t at)
{
    int err = 0;

    q->ring = r;
    waiter_init_fn(&q->w, on_event, q->events | EPOLLERR | EPOLLHUP);
    if (q->timed)
        err = timer_init(&q->tm, r->timers, on_time);
    if (err != 0)
        return err;
    /* Armed before anybody else can find it, and so end it. */
    if (q->timed)
        timer_arm(&q->tm, at);
    if (q->polled && (vfs_poll(q->file, &q->w) & (q->events | EPOLLERR | EPOLLHUP)) != 0)
        mark(q, false);
    mutex_lock(&r->mu);
    if (r->pending_count >= LIMIT_URING_PENDING) {
        err = -EAGAIN;
    } else {
        list_add_tail(&q->node, &r->pending);
        r->pending_count++;
    }
    mutex_unlock(&r->mu);
    if (err != 0)
        uring_stop(q);
    return err;
}

static void take_locked(struct uring *r, struct uring_req *q)
{
    list_del(&q->node);
    r->pending_count--;
    if (atomic_exchange(&q->ready, false))
        atomic_fetch_sub(&r->happened, 1);
}

struct uring_req *uring_ready(struct uring *r)
{
    struct uring_req *q, *found = NULL;

    if (atomic_load(&r->happened) == 0)
        return NULL;
    mutex_lock(&r->mu);
    list_for_each_entry (q, &r->pending, node) {
        if (!atomic_load(&q->ready))
            continue;
        take_locked(r, q);
        found = q;
        break;
    }
    mutex_unlock(&r->mu);
    return found;
}

void uring_again(struct uring *r, struct uring_req *q, bool soon)
{
    mutex_lock(&r->mu);
    list_add_tail(&q->node, &r->pending);
    r->pending_count++;
    /* What happened while nobody had it in a list counts. */
    if (soon)
        mark(q, true);
    mutex_unlock(&r->mu);
}

void uring_stop(struct uring_req *q)
{
    if (q->polled)
        waitq_del(&q->w);
    if (q->timed)
        timer_cancel(&q->tm);
    if (atomic_exchange(&q->ready, false))
        atomic_fetch_sub(&q->ring->happened, 1);
}

void uring_free(struct uring_req *q)
{
    if (q == NULL)
        return;
    while (!list_empty(&q->chain)) {
        struct uring_req *n = list_first_entry(&q->chain, struct uring_req, chain);
        list_del(&n->chain);
        if (n->file != NULL)
            file_put(n->file);
        free(n);
    }
    if (q->file != NULL)
        file_put(q->file);
    free(q);
}

struct uring_req *uring_find(struct uring *r, bool (*fn)(const struct uring_req *q, void *arg),
                             void *arg)
{
    struct uring_req *q, *found = NULL;

    mutex_lock(&r->mu);
    list_for_each_entry (q, &r->pending, node) {
        if (!fn(q, arg))
            continue;
        take_locked(r, q);
        found = q;
        break;
    }
    mutex_unlock(&r->mu);
    if (found != NULL)
        uring_stop(found);
    return found;
}

/* ---- held back: IOSQE_IO_DRAIN ---- */

int uring_hold(struct uring *r, struct uring_req *q, bool drain, bool *out_held)
{
    int err = 0;

    mutex_lock(&r->mu);
    q->drain = drain;
    *out_held = r->held_count > 0 || (drain && r->pending_count > 0);
    if (*out_held && r->held_count >= LIMIT_URING_PENDING) {
        err = -EAGAIN;
    } else if (*out_held) {
        list_add_tail(&q->node, &r->held);
        r->held_count++;
    }
    mutex_unlock(&r->mu);
    return err;
}

struct uring_req *uring_unhold(struct uring *r)
{
    struct uring_req *q = NULL;

    mutex_lock(&r->mu);
    if (r->held_count > 0) {
        q = list_first_entry(&r->held, struct uring_req, node);
        if (q->drain && r->pending_count > 0) {
            q = NULL;
        } else {
            list_del(&q->node);
            list_init(&q->node);
            r->held_count--;
            q->drain = false;
        }
    }
    mutex_unlock(&r->mu);
    return q;
}

static bool any_request(const struct uring_req *q, void *arg)
{
    (void)q;
    (void)arg;
    return true;
}

void uring_end_all(struct uring *r)
{
    struct uring_req *q;

    while ((q = uring_find(r, any_request, NULL)) != NULL || (q = uring_unhold(r)) != NULL)
        uring_free(q);
    (void)!uring_set_files(r, NULL, 0);
    (void)!uring_set_buffers(r, NULL, 0);
    uring_drop_groups(r);
    uring_tell_end(r);
}
