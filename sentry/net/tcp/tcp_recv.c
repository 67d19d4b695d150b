/* Receiving: bytes to their place in the ring, in order or not, and what is told back of it. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "sentry/net/tcp/tcp_priv.h"

#define OOO_MAX (sizeof(((struct tce_conn *)0)->ooo) / sizeof(struct tce_range))
/* Early segments are acknowledged one by one: the peer is in slow start. */
#define QUICK_ACKS 16u

/* The newest first, as RFC 2018 asks. */
unsigned tce_fill_sacks(const struct tce_conn *c, struct tce_range out[TCP_SACK_MAX])
{
    unsigned n = 0, newest = c->ooo_count;

    for (unsigned i = 0; i < c->ooo_count; i++)
        if (seq_leq(c->ooo[i].start, c->ooo_latest) && seq_lt(c->ooo_latest, c->ooo[i].end))
            newest = i;
    if (newest < c->ooo_count)
        out[n++] = c->ooo[newest];
    for (unsigned i = 0; i < c->ooo_count && n < TCP_SACK_MAX; i++)
        if (i != newest)
            out[n++] = c->ooo[i];
    return n;
}

/* Adds [start, end) to the ranges; false when there are too many. */
static bool ooo_add(struct tce_conn *c, uint32_t start, uint32_t end)
{
    unsigned i = 0, j;

    while (i < c->ooo_count && seq_lt(c->ooo[i].end, start))
        i++;
    if (i == c->ooo_count || seq_lt(end, c->ooo[i].start)) {
        if (c->ooo_count == OOO_MAX)
            return false;
        memmove(&c->ooo[i + 1], &c->ooo[i], (c->ooo_count - i) * sizeof(c->ooo[0]));
        c->ooo[i] = (struct tce_range){start, end};
        c->ooo_count++;
        return true;
    }
    c->ooo[i].start = seq_min(c->ooo[i].start, start);
    c->ooo[i].end = seq_max(c->ooo[i].end, end);
    for (j = i + 1; j < c->ooo_count && seq_leq(c->ooo[j].start, c->ooo[i].end); j++)
        c->ooo[i].end = seq_max(c->ooo[i].end, c->ooo[j].end);
    memmove(&c->ooo[i + 1], &c->ooo[j], (c->ooo_count - j) * sizeof(c->ooo[0]));
    c->ooo_count -= j - i - 1;
    return true;
}

static void advance(struct tce_conn *c, uint32_t size)
{
    c->rcv_nxt += size;
    c->in.used += size;
    c->bytes_received += size;
    while (c->ooo_count > 0 && seq_leq(c->ooo[0].start, c->rcv_nxt)) {
        if (seq_lt(c->rcv_nxt, c->ooo[0].end)) {
            const uint32_t more = c->ooo[0].end - c->rcv_nxt;
            c->rcv_nxt += more;
            c->in.used += more;
            c->bytes_received += more;
        }
        memmove(&c->ooo[0], &c->ooo[1], (c->ooo_count - 1) * sizeof(c->ooo[0]));
        c->ooo_count--;
    }
}

/* The part that is new and inside the window, put where it belongs. */
static void take_data(struct tce_conn *c, uint32_t seq, const uint8_t *data, uint32_t size,
                      uint64_t now)
{
    const uint32_t off = seq - c->rcv_nxt;
    const bool had_holes = c->ooo_count > 0;

    if (ring_reserve(&c->in, c->in.used + off + size))
        return; /* as if it had been lost */
    if (off == 0) {
        ring_put(&c->in, c->in.used, data, size);
        advance(c, size);
    } else {
        if (!ooo_add(c, seq, seq + size))
            return;
        ring_put(&c->in, c->in.used + off, data, size);
        c->ooo_latest = seq;
    }
    c->data_segs_in += tce_segments(c, size);
    c->ooo_segs_in += off != 0;
    c->data_in_ns = now;
    c->rcv_mss = MAX(c->rcv_mss, MIN(size, c->mss));
    c->ack_pending += size;
    if (off != 0 || had_holes || c->ack_pending >= 2 * c->mss || c->data_segs_in <= QUICK_ACKS)
        c->ack_now = true;
    else if (c->t_ack == TCP_NEVER)
        c->t_ack = now + TCP_DELACK;
    if (off == 0)
        c->ops->event(c, EPOLLIN | EPOLLRDNORM);
}

static void take_fin(struct tce_conn *c, uint64_t now)
{
    if (!c->fin_seen || c->rcv_nxt != c->fin_seq)
        return;
    c->rcv_nxt++;
    c->rcv_adv = seq_max(c->rcv_adv, c->rcv_nxt);
    c->ack_now = true;
    switch (c->state) {
    case TCP_S_ESTABLISHED:
        tce_set_state(c, TCP_S_CLOSE_WAIT, now);
        break;
    case TCP_S_FIN_WAIT1:
        tce_set_state(c, TCP_S_CLOSING, now);
        break;
    case TCP_S_FIN_WAIT2:
        tce_set_state(c, TCP_S_TIME_WAIT, now);
        break;
    case TCP_S_SYN_SENT:
    case TCP_S_SYN_RCVD:
    case TCP_S_TIME_WAIT:
    case TCP_S_CLOSED:
    case TCP_S_CLOSE_WAIT:
    case TCP_S_LAST_ACK:
    case TCP_S_LISTEN:
    case TCP_S_CLOSING:
        break;
    }
    c->ops->event(c, EPOLLIN | EPOLLRDNORM | EPOLLRDHUP);
}

void tce_data(struct tce_conn *c, const struct tce_in *in, uint64_t now)
{
    uint32_t seq = in->seq, size = (uint32_t)in->size;
    const uint8_t *data = in->data;
    bool fin = in->flags & TCP_F_FIN;

    if (UNLIKELY(in->flags & TCP_F_URG || c->urgent == TCE_URGENT_EXPECTED))
        tce_take_urgent(c, in);
    if (c->fin_seen && c->rcv_nxt == c->fin_seq + 1) {
        if (size > 0 || fin)
            c->ack_now = true;
        return;
    }
    if (seq_lt(seq, c->rcv_nxt)) {
        const uint32_t old = c->rcv_nxt - seq;
        if (size > 0 || fin)
            c->ack_now = true;
        if (old > size)
            return;
        data += old;
        seq += old;
        size -= old;
    }
    if (seq_lt(c->rcv_adv, seq + size)) {
        if (seq_leq(c->rcv_adv, seq)) {
            c->ack_now = true;
            return;
        }
        size = c->rcv_adv - seq;
        fin = false;
    }
    if (fin && !c->fin_seen) {
        c->fin_seen = true;
        c->fin_seq = seq + size;
    }
    if (size > 0) {
        /* Nobody will read it: RFC 2525, 2.17. */
        const bool unheard = c->orphan || (c->rd_shut && c->fin_queued);
        if (unheard && c->state != TCP_S_CLOSE_WAIT) {
            tce_abort(c, -ECONNRESET, now);
            return;
        }
        take_data(c, seq, data, size, now);
    }
    take_fin(c, now);
}

/* ---- the reader ---- */

/* A reader that keeps up with more than half a window per round trip gets a larger one. */
static void grow_buffer(struct tce_conn *c, size_t size, uint64_t now)
{
    const uint64_t rtt = c->rtt.smooth_ns ? MAX(c->rtt.smooth_ns, 1 * MS) : 10 * MS;

    c->rcv_copied += size;
    if (now - c->rcv_epoch_ns < rtt)
        return;
    if (!c->cfg.rcvbuf_fixed && c->rcv_copied * 2 > c->cfg.rcvbuf && c->cfg.rcvbuf < TCP_RCVBUF_MAX)
        c->cfg.rcvbuf = MIN(c->cfg.rcvbuf * 2, TCP_RCVBUF_MAX);
    c->rcv_copied = 0;
    c->rcv_epoch_ns = now;
}

size_t tce_readable(const struct tce_conn *c)
{
    return c->in.used;
}

int64_t tce_read(struct tce_conn *c, struct uio *u, int64_t peek_off, uint64_t now)
{
    const size_t hole = tce_urgent_hole(c);
    size_t off = peek_off > 0 ? (size_t)peek_off : 0;

    if (UNLIKELY(hole) && peek_off < 0) {
        ring_consume(&c->in, hole);
        tce_past_mark(c);
    } else {
        off += hole;
    }
    if (c->in.used > off) {
        const size_t all = (size_t)MIN((uint64_t)(c->in.used - off), u->left);
        const size_t size = tce_before_mark(c, off, all);
        const int64_t n = ring_copy_uio(&c->in, off, u, size);
        if (n <= 0 || peek_off >= 0)
            return n;
        ring_consume(&c->in, (size_t)n);
        tce_past_mark(c);
        grow_buffer(c, (size_t)n, now);
        if (c->ooo_count == 0)
            ring_trim(&c->in);
        tce_maybe_window_update(c, now);
        return n;
    }
    if (c->error)
        return c->error;
    if (c->rd_shut || (c->fin_seen && c->rcv_nxt == c->fin_seq + 1))
        return 0;
    switch (c->state) {
    case TCP_S_SYN_SENT:
    case TCP_S_SYN_RCVD:
        return -EAGAIN;
    case TCP_S_CLOSED:
        return 0;
    case TCP_S_ESTABLISHED:
    case TCP_S_FIN_WAIT1:
    case TCP_S_FIN_WAIT2:
    case TCP_S_TIME_WAIT:
    case TCP_S_CLOSE_WAIT:
    case TCP_S_LAST_ACK:
    case TCP_S_LISTEN:
    case TCP_S_CLOSING:
        break;
    }
    return -EAGAIN;
}
