/* IOCB_CMD_POLL: requests that wait for their file. A wait queue's callback may not do what the end
 * of one takes, so it arms a timer that does. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/objcount.h"
#include "sentry/kernel/aio_priv.h"
#include "sentry/time/timer.h"

OBJCOUNT_DEFINE(aio_poll);

struct aio_poll {
    /* immutable */
    struct aio_ctx *ctx;  /* holds it */
    struct file *file;    /* owned */
    struct aio_tell tell; /* its file is owned */
    uint32_t events;
    uint64_t data, iocb;
    struct waiter w;
    struct timer tm;
    struct list node; /* guard: ctx->mu, as for what follows */
    bool listed, over;
};

static void poll_finish(struct aio_ctx *a, uint64_t data, uint64_t iocb, uint32_t mask,
                        const struct aio_tell *tell)
{
    const struct io_event e = {.data = data, .obj = iocb, .res = mask};

    aio_complete(a, &e);
    if (tell->file != NULL)
        tell->fn(tell->file);
}

static void poll_over_locked(struct aio_poll *p)
{
    p->over = true;
    list_del(&p->node);
    list_add_tail(&p->node, &p->ctx->over);
}

/* True: p is over by this, and the caller says so. */
static bool poll_take(struct aio_poll *p)
{
    struct aio_ctx *a = p->ctx;

    mutex_lock(&a->mu);
    const bool mine = p->listed && !p->over;
    if (mine)
        poll_over_locked(p);
    mutex_unlock(&a->mu);
    return mine;
}

static uint32_t poll_look(const struct aio_poll *p, struct waiter *w)
{
    return vfs_poll(p->file, w) & p->events;
}

/* What frees p waits for this to end. */
static void on_time(struct timer *tm)
{
    struct aio_poll *p = container_of(tm, struct aio_poll, tm);
    const uint32_t mask = poll_look(p, NULL);

    if (mask != 0 && poll_take(p))
        poll_finish(p->ctx, p->data, p->iocb, mask, &p->tell);
}

static void on_event(struct waiter *w, uint32_t events)
{
    (void)events;
    timer_arm(&container_of(w, struct aio_poll, w)->tm, 0);
}

/* Nothing refers to it any more once its callbacks have ended. */
static void poll_free(struct aio_poll *p)
{
    waitq_del(&p->w);
    timer_cancel(&p->tm);
    if (p->tell.file != NULL)
        file_put(p->tell.file);
    file_put(p->file);
    OBJCOUNT_DEC(aio_poll);
    free(p);
}

static void polls_free(struct list *all)
{
    while (!list_empty(all)) {
        struct aio_poll *p = list_first_entry(all, struct aio_poll, node);
        list_del(&p->node);
        poll_free(p);
    }
}

void aio_polls_reap(struct aio_ctx *a)
{
    struct list all;

    list_init(&all);
    mutex_lock(&a->mu);
    list_splice_tail(&a->over, &all);
    mutex_unlock(&a->mu);
    polls_free(&all);
}

void aio_polls_drop(struct aio_ctx *a)
{
    struct aio_poll *p;

    mutex_lock(&a->mu);
    list_for_each_entry (p, &a->polls, node)
        p->over = true;
    list_splice_tail(&a->polls, &a->over);
    mutex_unlock(&a->mu);
    aio_polls_reap(a);
}

/* Looked at once more, by the timer: events that came before it was listed were not taken. */
static int poll_list(struct aio_ctx *a, struct aio_poll *p)
{
    mutex_lock(&a->mu);
    const bool dead = a->dead;
    if (!dead) {
        p->listed = true;
        list_add_tail(&p->node, &a->polls);
        timer_arm(&p->tm, 0);
    }
    mutex_unlock(&a->mu);
    return dead ? -EINVAL : 0;
}

static int poll_new(struct aio_ctx *a, struct timer_service *ts, struct file *f,
                    const struct aio_tell *tell, struct aio_poll **out)
{
    struct aio_poll *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return -ENOMEM;
    int err = timer_init(&p->tm, ts, on_time);
    if (err != 0) {
        free(p);
        return err;
    }
    OBJCOUNT_INC(aio_poll);
    p->ctx = a;
    p->file = file_get(f);
    p->tell = *tell;
    if (tell->file != NULL)
        (void)file_get(tell->file);
    *out = p;
    return 0;
}

int aio_poll_start(struct aio_ctx *a, struct timer_service *ts, struct file *f,
                   const struct aio_tell *tell, const struct iocb *cb, uint64_t addr)
{
    struct aio_poll *p;
    int err = poll_new(a, ts, f, tell, &p);

    if (err != 0)
        return err;
    p->events = (uint32_t)cb->aio_buf | EPOLLERR | EPOLLHUP;
    p->data = cb->aio_data;
    p->iocb = addr;
    waiter_init_fn(&p->w, on_event, p->events);
    const uint32_t mask = poll_look(p, &p->w);
    if (mask == 0)
        err = poll_list(a, p);
    if (mask != 0 || err != 0)
        poll_free(p);
    if (mask != 0)
        poll_finish(a, cb->aio_data, addr, mask, tell);
    return err;
}

int aio_poll_cancel(struct aio_ctx *a, uint64_t addr)
{
    struct aio_tell tell = {0};
    struct aio_poll *p;
    uint64_t data = 0;
    bool found = false;

    mutex_lock(&a->mu);
    list_for_each_entry (p, &a->polls, node) {
        if (p->iocb != addr)
            continue;
        found = true;
        data = p->data;
        tell = p->tell;
        if (tell.file != NULL)
            (void)file_get(tell.file);
        poll_over_locked(p);
        break;
    }
    mutex_unlock(&a->mu);
    if (!found)
        return -EINVAL;
    poll_finish(a, data, addr, 0, &tell);
    if (tell.file != NULL)
        file_put(tell.file);
    aio_polls_reap(a);
    return -EINPROGRESS;
}
