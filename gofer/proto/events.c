/* What others do on the host to what is watched: one thread asks for it, on a channel of its own,
 * and hands it to whom it concerns. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "gofer/proto/client_priv.h"
#include "gofer/proto/msg.h"

/* Files that are watched under one number: one for each export that shows it. */
#define SAME_MAX GOF_EXPORT_MAX

static struct list *bucket(struct gof_watcher *w, uint32_t wd)
{
    return &w->watches[wd % WATCHER_BUCKETS];
}

int watcher_new(struct gof_client *c, int fd, struct gof_watcher **out)
{
    struct gof_watcher *w = calloc(1, sizeof(*w));
    uint8_t *buf = malloc(GOF_MESSAGE_MAX);

    if (!w || !buf) {
        free(w);
        free(buf);
        return -ENOMEM;
    }
    ref_init(&w->ref);
    mutex_init(&w->mu, LOCK_RANK_LEAF);
    for (size_t i = 0; i < WATCHER_BUCKETS; i++)
        list_init(&w->watches[i]);
    w->client = c;
    w->fd = fd;
    w->buf = buf;
    *out = w;
    return 0;
}

static void watcher_put(struct gof_watcher *w)
{
    if (!ref_put(&w->ref))
        return;
    close(w->fd);
    free(w->buf);
    mutex_destroy(&w->mu);
    free(w);
}

void watcher_end(struct gof_watcher *w)
{
    if (!w)
        return;
    mutex_lock(&w->mu);
    w->client = NULL;
    mutex_unlock(&w->mu);
    shutdown(w->fd, SHUT_RDWR);
    watcher_put(w);
}

/* ---- the thread ---- */

static void tell(struct gof_watcher *w, const struct gof_event *e)
{
    struct gof_watch *held[SAME_MAX], *x;
    size_t n = 0;

    mutex_lock(&w->mu);
    list_for_each_entry (x, bucket(w, e->wd), node)
        if (x->wd == e->wd && n < SAME_MAX && x->ops->hold(x))
            held[n++] = x;
    mutex_unlock(&w->mu);
    for (size_t i = 0; i < n; i++)
        held[i]->ops->event(held[i], e);
}

static void tell_lost(struct gof_watcher *w)
{
    void (*lost)(void) = NULL;

    mutex_lock(&w->mu);
    for (size_t i = 0; i < WATCHER_BUCKETS && !lost; i++)
        if (!list_empty(&w->watches[i]))
            lost = list_first_entry(&w->watches[i], struct gof_watch, node)->ops->lost;
    mutex_unlock(&w->mu);
    if (lost)
        lost();
}

/* Well-formed as a whole, before the first is told. */
static bool events_ok(struct rbuf r, uint32_t count)
{
    struct gof_event e;

    for (uint32_t i = 0; i < count && rbuf_ok(&r); i++)
        gof_get_event(&r, &e);
    return rbuf_done(&r);
}

/* The next ones are told: 0. Otherwise there will be no more, -EPROTO: because they made no sense.
 */
static int ask(struct gof_watcher *w)
{
    struct gof_event e;
    struct wbuf out;
    struct rbuf r;
    int fd;

    wbuf_init(&out, w->buf, GOF_MESSAGE_MAX);
    wbuf_u16(&out, GOF_EVENTS);
    wbuf_u16(&out, 0);
    wbuf_u32(&out, ++w->seq);
    wbuf_u16(&out, GOF_CPU_NONE);
    if (gof_msg_send(w->fd, w->buf, out.len, -1))
        return -EIO;
    int64_t n = gof_msg_recv(w->fd, w->buf, GOF_MESSAGE_MAX, 0, &fd);
    if (n <= 0)
        return n == -EPROTO ? -EPROTO : -EIO;
    if (fd >= 0) {
        close(fd);
        return -EPROTO;
    }
    rbuf_init(&r, w->buf, (size_t)n);
    int32_t status = (int32_t)rbuf_u32(&r);
    uint32_t seq = rbuf_u32(&r);
    if (!rbuf_ok(&r) || seq != w->seq)
        return -EPROTO;
    if (status)
        return -EIO;
    bool lost = rbuf_u8(&r) != 0;
    uint32_t count = rbuf_u16(&r);
    if (!events_ok(r, count))
        return -EPROTO;
    for (uint32_t i = 0; i < count; i++) {
        gof_get_event(&r, &e);
        tell(w, &e);
    }
    if (lost)
        tell_lost(w);
    return 0;
}

static void *watcher_main(void *arg)
{
    struct gof_watcher *w = arg;
    int r;

    do
        r = ask(w);
    while (r == 0);
    mutex_lock(&w->mu);
    struct gof_client *c = r == -EPROTO ? w->client : NULL;
    if (c)
        client_die(c, "malformed event");
    mutex_unlock(&w->mu);
    watcher_put(w);
    return NULL;
}

/* The thread is only there once something is watched. */
static int start_locked(struct gof_watcher *w)
{
    pthread_t t;

    if (w->running)
        return 0;
    ref_get(&w->ref);
    int r = -pthread_create(&t, NULL, watcher_main, w);
    if (r) {
        BUG_ON(ref_put(&w->ref));
        return -ENOMEM;
    }
    (void)pthread_detach(t);
    w->running = true;
    return 0;
}

/* ---- watches ---- */

static int watch_request(struct gof_client *c, uint64_t node, bool on, uint32_t *out_wd)
{
    struct gof_call call;
    uint32_t wd = 0;

    gof_call_begin(c, GOF_WATCH, &call);
    wbuf_u64(&call.w, node);
    wbuf_u8(&call.w, on);
    int r = gof_call_send(&call);
    if (r == 0)
        wd = rbuf_u32(&call.r);
    r = gof_call_end(&call, r);
    if (r == 0)
        *out_wd = wd;
    return r;
}

int gof_watch(struct gof_client *c, uint64_t node, struct gof_watch *w)
{
    struct gof_watcher *watcher = c->watcher;

    int r = watch_request(c, node, true, &w->wd);
    if (r)
        return r;
    mutex_lock(&watcher->mu);
    r = start_locked(watcher);
    if (r == 0)
        list_add_tail(&w->node, bucket(watcher, w->wd));
    mutex_unlock(&watcher->mu);
    return r;
}

void gof_watch_drop(struct gof_client *c, struct gof_watch *w)
{
    mutex_lock(&c->watcher->mu);
    list_del(&w->node);
    mutex_unlock(&c->watcher->mu);
}

void gof_unwatch(struct gof_client *c, uint64_t node, struct gof_watch *w)
{
    uint32_t wd;

    gof_watch_drop(c, w);
    int r = watch_request(c, node, false, &wd);
    if (r)
        log_debug("gofer: unwatch: %d", r);
}
