/* The bytes between two ends of a connection: a list of chunks, written at one end while the other
 * is read, with no lock over the copies that both need. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/limits.h"
#include "sentry/net/inet/tcp_priv.h"

#define CHUNK_MIN 448u
/* Of so many pieces one is timed, and the first few. */
#define TIMED_EVERY 32u
#define TIMED_FIRST 4u
#define BUF_LOCK_SND 1u
#define BUF_LOCK_RCV 2u

uint64_t tcp_clock(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

struct tcp_sent tcp_queue_sent(const struct tcp_sock *s)
{
    return (struct tcp_sent){
        .bytes = atomic_load_explicit(&s->q.in, memory_order_relaxed) - s->q.before.bytes,
        .pieces = s->q.pieces - s->q.before.pieces,
        .at_ns = s->q.at_ns,
        .rtt = s->q.rtt,
        .fin = atomic_load_explicit(&s->fin_seen, memory_order_relaxed),
    };
}

uint64_t tcp_window(const struct tcp_sock *p)
{
    return atomic_load_explicit(&p->i.base.rcvbuf, memory_order_relaxed);
}

uint64_t tcp_capacity(const struct tcp_sock *s, const struct tcp_sock *p)
{
    const int64_t memory = atomic_load_explicit(&s->i.in->memory, memory_order_relaxed);
    const bool locked =
        atomic_load_explicit(&s->i.base.buf_lock, memory_order_relaxed) & BUF_LOCK_SND;
    const uint64_t snd = locked ? s->i.base.sndbuf : TCP_SNDBUF_GROWN;
    const uint64_t waits =
        s->opt.notsent_lowat
            ? MIN(snd, MAX((uint64_t)s->opt.notsent_lowat, (uint64_t)TCP_CHUNK_MAX))
            : snd;
    const uint64_t all = waits + tcp_window(p);

    if (LIKELY(memory < LIMIT_INET_MEM_PRESSURE))
        return all;
    return MIN(all, memory < LIMIT_INET_MEM ? (uint64_t)32768 : (uint64_t)4096);
}

static void chunk_free(struct inet *in, struct tcp_chunk *c)
{
    atomic_fetch_sub_explicit(&in->memory, (int64_t)(c->size + sizeof(*c)), memory_order_relaxed);
    free(c);
}

static struct tcp_chunk *chunk_new(struct inet *in, uint64_t want)
{
    const size_t size = (size_t)MIN(MAX(want, (uint64_t)CHUNK_MIN), (uint64_t)TCP_CHUNK_MAX);
    struct tcp_chunk *c = malloc(sizeof(*c) + size);

    if (!c)
        return NULL;
    *c = (struct tcp_chunk){.size = (uint32_t)size};
    atomic_fetch_add_explicit(&in->memory, (int64_t)(size + sizeof(*c)), memory_order_relaxed);
    return c;
}

/* The last chunk when it has room, marked as being written to; or NULL. *began: now, if this piece
 * is to be timed. -EPIPE. */
static int push_begin(struct tcp_sock *p, struct tcp_chunk **out, uint64_t *began)
{
    int r = 0;

    *out = NULL;
    *began = 0;
    mutex_lock(&p->i.mu);
    if (p->closed || (p->shut & INET_SHUT_RD && p->shut & INET_SHUT_WR))
        r = -EPIPE;
    else if (p->q.tail && p->q.tail->filled < p->q.tail->size)
        p->q.busy = *out = p->q.tail;
    const uint64_t number = p->q.pieces - p->q.before.pieces;
    mutex_unlock(&p->i.mu);
    if (number < TIMED_FIRST || number % TIMED_EVERY == 0)
        *began = mono_now();
    return r;
}

int64_t tcp_queue_push(const struct tcp_sock *s, struct tcp_sock *p, struct uio *u, uint64_t want)
{
    struct tcp_chunk *c;
    uint64_t began;
    int r = push_begin(p, &c, &began);

    if (r)
        return r;
    const bool fresh = !c;
    if (fresh && !(c = chunk_new(p->i.in, want)))
        return -ENOBUFS;
    const int64_t n =
        uio_copy_from(u, c->data + c->filled, (size_t)MIN(want, (uint64_t)(c->size - c->filled)));
    if (n > 0)
        tcp_tap_data(s, p, c->data + c->filled, (size_t)n);
    const uint64_t now = tcp_clock(), took = began ? mono_now() - began : 0;
    mutex_lock(&p->i.mu);
    p->q.busy = NULL;
    if (n > 0) {
        p->q.at_ns = now;
        if (began)
            tcp_rtt_sample(&p->q.rtt, took);
        if (fresh) {
            if (p->q.tail)
                p->q.tail->next = c;
            else
                p->q.head = c;
            p->q.tail = c;
        }
        c->filled += (uint32_t)n;
        p->q.pieces++;
        atomic_fetch_add_explicit(&p->q.in, (uint64_t)n, memory_order_release);
    }
    mutex_unlock(&p->i.mu);
    if (n <= 0 && fresh)
        chunk_free(p->i.in, c);
    return n;
}

/* Drops chunks that are read to their end and will not be written to; *out_avail: what the first
 * one has. mu held; what is dropped is to be freed. */
static struct tcp_chunk *front_locked(struct tcp_sock *s, struct tcp_chunk **dead,
                                      uint32_t *out_avail)
{
    struct tcp_chunk *c;

    while ((c = s->q.head) != NULL && c->off == c->filled && c != s->q.busy) {
        s->q.head = c->next;
        if (!s->q.head)
            s->q.tail = NULL;
        c->next = *dead;
        *dead = c;
    }
    *out_avail = c ? c->filled - c->off : 0;
    return c;
}

static void chunks_free(struct inet *in, struct tcp_chunk *c)
{
    while (c) {
        struct tcp_chunk *next = c->next;
        chunk_free(in, c);
        c = next;
    }
}

int64_t tcp_queue_pull(struct tcp_sock *s, struct uio *u, uint64_t want)
{
    struct tcp_chunk *dead = NULL;
    uint32_t avail;

    mutex_lock(&s->i.mu);
    struct tcp_chunk *c = front_locked(s, &dead, &avail);
    mutex_unlock(&s->i.mu);
    if (avail == 0) {
        chunks_free(s->i.in, dead);
        return 0;
    }
    const size_t size = (size_t)MIN(want, (uint64_t)avail);
    const int64_t n = u ? uio_copy_to(u, c->data + c->off, size) : (int64_t)size;
    if (n > 0) {
        mutex_lock(&s->i.mu);
        c->off += (uint32_t)n;
        atomic_fetch_add_explicit(&s->q.out, (uint64_t)n, memory_order_release);
        (void)front_locked(s, &dead, &avail);
        mutex_unlock(&s->i.mu);
    }
    chunks_free(s->i.in, dead);
    return n;
}

int64_t tcp_queue_peek(struct tcp_sock *s, struct uio *u, uint64_t off, uint64_t want)
{
    int64_t done = 0;

    /* Only readers take chunks away, and this one is the only reader. */
    mutex_lock(&s->i.mu);
    const struct tcp_chunk *c = s->q.head;
    while (c && want > 0) {
        const uint32_t filled = c->filled;
        mutex_unlock(&s->i.mu);
        const uint64_t avail = filled - c->off;
        if (off < avail) {
            const size_t size = (size_t)MIN(want, avail - off);
            const int64_t n = uio_copy_to(u, c->data + c->off + off, size);
            if (n < 0)
                return done ? done : n;
            done += n;
            want = (uint64_t)n < size ? 0 : want - size;
            off = 0;
        } else {
            off -= avail;
        }
        mutex_lock(&s->i.mu);
        c = c->next;
    }
    mutex_unlock(&s->i.mu);
    return done;
}

void tcp_queue_purge(struct tcp_sock *s)
{
    mutex_lock(&s->q.wr);
    mutex_lock(&s->i.mu);
    struct tcp_chunk *c = s->q.head;
    s->q.head = s->q.tail = NULL;
    atomic_store(&s->q.out, atomic_load(&s->q.in));
    mutex_unlock(&s->i.mu);
    mutex_unlock(&s->q.wr);
    chunks_free(s->i.in, c);
}
