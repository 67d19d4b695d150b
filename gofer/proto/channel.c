/* The pool of channels and the frame around every request. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "gofer/proto/client_priv.h"
#include "gofer/proto/msg.h"

/* So many requests from elsewhere, and a channel moves. */
#define CHANNEL_STRANGERS 8
/* How long to wait for an answer before looking whether there is still a gofer. */
#define CHANNEL_LOOK_MS 100

int gof_client_new(const int *fds, size_t total, struct gof_client **out_client)
{
    if (total < 2 || total > GOF_CHANNEL_MAX)
        return -EINVAL;
    /* The last one is for events. */
    const size_t count = total - 1;
    struct gof_client *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    int r = gof_areas_take(fds[0], count, &c->areas);
    if (r)
        goto out_client;
    r = -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        c->channels[i].buf = malloc(GOF_MESSAGE_MAX);
        if (!c->channels[i].buf)
            goto out_buffers;
    }
    if (watcher_new(c, fds[count], &c->watcher))
        goto out_buffers;
    for (size_t i = 0; i < count; i++) {
        mutex_init(&c->channels[i].mu, LOCK_RANK_GOFER_CHANNEL);
        c->channels[i].area = &c->areas[i];
        c->channels[i].fd = fds[i];
        atomic_init(&c->channels[i].cpu, GOF_CPU_NONE);
    }
    c->count = count;
    ref_init(&c->ref);
    mutex_init(&c->close_mu, LOCK_RANK_LEAF);
    *out_client = c;
    return 0;

out_buffers:
    for (size_t i = 0; i < count; i++)
        free(c->channels[i].buf);
    gof_areas_drop(c->areas, count);
out_client:
    free(c);
    return r;
}

struct gof_client *gof_client_get(struct gof_client *c)
{
    ref_get(&c->ref);
    return c;
}

void gof_client_put(struct gof_client *c)
{
    if (!c || !ref_put(&c->ref))
        return;
    watcher_end(c->watcher);
    for (size_t i = 0; i < c->count; i++) {
        close(c->channels[i].fd);
        free(c->channels[i].buf);
        mutex_destroy(&c->channels[i].mu);
    }
    gof_areas_drop(c->areas, c->count);
    mutex_destroy(&c->close_mu);
    free(c);
}

bool gof_client_dead(const struct gof_client *c)
{
    return atomic_load_explicit(&c->dead, memory_order_acquire);
}

int gof_client_death_fd(const struct gof_client *c)
{
    return c->channels[0].fd;
}

uint64_t gof_client_requests(const struct gof_client *c)
{
    return atomic_load_explicit(&c->requests, memory_order_relaxed);
}

void client_die(struct gof_client *c, const char *why)
{
    if (atomic_exchange(&c->dead, true))
        return;
    log_error("gofer: %s", why);
    for (size_t i = 0; i < c->count; i++) {
        shutdown(c->channels[i].fd, SHUT_RDWR);
        gof_area_end(c->channels[i].area);
    }
    shutdown(c->watcher->fd, SHUT_RDWR);
}

void gof_client_gone(struct gof_client *c)
{
    client_die(c, "it is gone");
}

/* A free channel that is served on cpu; GOF_CPU_NONE: one without a place. Its lock is held. */
static struct gof_channel *channel_free_on(struct gof_client *c, uint32_t cpu)
{
    for (size_t i = 0; i < c->count; i++)
        if (atomic_load_explicit(&c->channels[i].cpu, memory_order_relaxed) == cpu &&
            mutex_trylock(&c->channels[i].mu))
            return &c->channels[i];
    return NULL;
}

/* Any free one; all busy: waits for one, a different one for different threads. */
static struct gof_channel *channel_any(struct gof_client *c, size_t first)
{
    for (size_t i = 0; i < c->count; i++)
        if (mutex_trylock(&c->channels[i].mu))
            return &c->channels[i];
    struct gof_channel *ch = &c->channels[first % c->count];
    mutex_lock(&ch->mu);
    return ch;
}

/* Waking another CPU, twice for a request, costs several times the whole hand-over on one: a
 * channel is served where those are who use it. */
static struct gof_channel *channel_take(struct gof_client *c)
{
    size_t first = (size_t)atomic_fetch_add_explicit(&c->requests, 1, memory_order_relaxed);
    const uint32_t cpu = MIN((uint32_t)sched_getcpu(), GOF_CPU_NONE);
    struct gof_channel *ch = channel_free_on(c, cpu);

    if (!ch)
        ch = channel_free_on(c, GOF_CPU_NONE);
    if (!ch)
        ch = channel_any(c, first);
    const uint32_t there = atomic_load_explicit(&ch->cpu, memory_order_relaxed);
    if (there == cpu) {
        ch->strangers = 0;
    } else if (there == GOF_CPU_NONE || ++ch->strangers == CHANNEL_STRANGERS) {
        atomic_store_explicit(&ch->cpu, cpu, memory_order_relaxed);
        ch->strangers = 0;
    }
    return ch;
}

static void put_closes(struct gof_client *c, const struct gof_channel *ch, struct wbuf *w)
{
    mutex_lock(&c->close_mu);
    wbuf_u16(w, (uint16_t)c->close_count);
    wbuf_u32(w, ch->seq);
    wbuf_u16(w, (uint16_t)atomic_load_explicit(&ch->cpu, memory_order_relaxed));
    for (size_t i = 0; i < c->close_count; i++)
        wbuf_u64(w, c->closes[i]);
    c->close_count = 0;
    mutex_unlock(&c->close_mu);
}

void gof_call_begin(struct gof_client *c, enum gof_op op, struct gof_call *call)
{
    lock_assert_may_take(LOCK_RANK_GOFER_CHANNEL);
    call->c = c;
    call->ch = channel_take(c);
    call->fd = -1;
    wbuf_init(&call->w, call->ch->buf, GOF_MESSAGE_MAX);
    rbuf_init(&call->r, call->ch->buf, 0);
    wbuf_u16(&call->w, (uint16_t)op);
    call->ch->seq++;
    put_closes(c, call->ch, &call->w);
}

static int call_fail(struct gof_call *call, const char *why)
{
    client_die(call->c, why);
    return -EIO;
}

static bool hung_up(const struct gof_channel *ch)
{
    struct pollfd p = {.fd = ch->fd};

    return poll(&p, 1, 0) > 0;
}

/* Whoever watches over the gofer ends the wait when it is gone (gof_client_gone); nobody does while
 * the sandbox starts. */
static int64_t receive_answer(struct gof_call *call)
{
    struct gof_channel *ch = call->ch;
    int64_t n;

    do
        n = gof_area_get(ch->area, GOF_TURN_SENTRY, &call->c->dead, CHANNEL_LOOK_MS, ch->buf);
    while (n == -ETIMEDOUT && !hung_up(ch));
    return n;
}

int gof_call_send(struct gof_call *call)
{
    struct gof_channel *ch = call->ch;

    if (wbuf_status(&call->w))
        return -E2BIG;
    if (gof_client_dead(call->c))
        return -EIO;
    gof_area_put(ch->area, ch->buf, call->w.len, GOF_TURN_GOFER);
    int64_t n = receive_answer(call);
    if (n < 0)
        return call_fail(call, n == -EPROTO ? "malformed answer" : "it is gone");
    rbuf_init(&call->r, ch->buf, (size_t)n);
    int32_t status = (int32_t)rbuf_u32(&call->r);
    uint32_t seq = rbuf_u32(&call->r);
    if (!rbuf_ok(&call->r) || seq != ch->seq || status > 0 || status < -4095 ||
        (status && !rbuf_done(&call->r)))
        return call_fail(call, "malformed answer");
    return status;
}

int gof_call_fd(struct gof_call *call)
{
    char byte;

    /* It was sent before the answer. */
    if (gof_msg_recv(call->ch->fd, &byte, sizeof(byte), MSG_DONTWAIT, &call->fd) <= 0)
        call->fd = -1;
    return call->fd;
}

int gof_call_end(struct gof_call *call, int r)
{
    if (r == 0 && (!rbuf_done(&call->r) || call->fd >= 0))
        r = call_fail(call, "malformed answer");
    if (call->fd >= 0)
        close(call->fd);
    mutex_unlock(&call->ch->mu);
    return r;
}

void gof_close(struct gof_client *c, uint64_t handle)
{
    if (handle == 0)
        return;
    for (;;) {
        mutex_lock(&c->close_mu);
        bool full = c->close_count == GOF_CLOSE_MAX;
        if (!full)
            c->closes[c->close_count++] = handle;
        mutex_unlock(&c->close_mu);
        if (!full)
            return;
        gof_flush(c);
        if (gof_client_dead(c))
            return;
    }
}

void gof_flush(struct gof_client *c)
{
    struct gof_call call;

    gof_call_begin(c, GOF_CLOSE, &call);
    int r = gof_call_send(&call);
    r = gof_call_end(&call, r);
    if (r)
        log_debug("gofer: close: %d", r);
}
