/* Requests about what others do on the host: watch, events. */
#include <errno.h>

#include "gofer/server_priv.h"

static int watch_on(struct gof_server *s, struct handle *h, uint32_t *out_wd)
{
    int r = 0;

    rwlock_wrlock(&s->watches.lock);
    if (!h->watch)
        r = watch_get_locked(s, h->fd, &h->watch);
    if (r == 0)
        *out_wd = watch_number(h->watch);
    rwlock_unlock(&s->watches.lock);
    return r;
}

static void watch_off(struct gof_server *s, struct handle *h)
{
    rwlock_wrlock(&s->watches.lock);
    struct watch *w = h->watch;
    h->watch = NULL;
    rwlock_unlock(&s->watches.lock);
    watch_put(&s->watches, w);
}

int srv_watch(struct req *q)
{
    uint64_t id = rbuf_u64(&q->r);
    bool on = rbuf_u8(&q->r) != 0;
    uint32_t wd = 0;
    int r = 0;

    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    struct handle *h = handle_get(&q->s->handles, id);
    if (!h)
        return -EBADF;
    if (on)
        r = watch_on(q->s, h, &wd);
    else
        watch_off(q->s, h);
    handle_put(&q->s->handles, h);
    if (r == 0)
        wbuf_u32(&q->w, wd);
    return r;
}

int srv_events(struct req *q)
{
    if (!rbuf_done(&q->r))
        return SRV_MALFORMED;
    return watch_tell(q->s, q->conn->sock, &q->w);
}
