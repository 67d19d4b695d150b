/* Urgent data: where the mark is, and the byte before it, which is no part of the stream unless it
 * is asked for there (RFC 6093; tcp_check_urg of Linux, whose pointer is to the byte after). */
#include <errno.h>
#include <sys/epoll.h>

#include "sentry/net/tcp/tcp_priv.h"

#define POINTER_MAX 0xffffu

/* ---- sending ---- */

uint16_t tce_urgent_pointer(const struct tce_conn *c, uint32_t seq, size_t size)
{
    if (!tce_sends_urgent(c) || !seq_lt(seq, c->snd_up) || size > c->mss)
        return 0;
    const uint32_t ahead = c->snd_up - seq;
    if (ahead <= POINTER_MAX)
        return (uint16_t)ahead;
    /* Further on: a mark that is not in reach yet, unless bytes of before it were sent already. */
    return seq_lt(c->snd_nxt, seq + POINTER_MAX) ? POINTER_MAX : 0;
}

/* ---- receiving ---- */

/* The number of the next byte that a read gives. */
static uint32_t read_seq(const struct tce_conn *c)
{
    const bool fin = c->fin_seen && c->rcv_nxt == c->fin_seq + 1;

    return c->rcv_nxt - (fin ? 1 : 0) - (uint32_t)c->in.used;
}

bool tce_at_mark(const struct tce_conn *c, size_t off)
{
    return c->urgent != TCE_URGENT_NONE && c->urgent_seq == read_seq(c) + (uint32_t)off;
}

size_t tce_urgent_hole(const struct tce_conn *c)
{
    return c->in.used > 0 && !c->cfg.oob_inline && tce_at_mark(c, 0);
}

size_t tce_before_mark(const struct tce_conn *c, size_t off, size_t size)
{
    if (c->urgent == TCE_URGENT_NONE)
        return size;
    const uint32_t ahead = c->urgent_seq - read_seq(c);
    return ahead > off && ahead - off < size ? ahead - off : size;
}

void tce_past_mark(struct tce_conn *c)
{
    if (c->urgent != TCE_URGENT_NONE && seq_lt(c->urgent_seq, read_seq(c)))
        c->urgent = TCE_URGENT_NONE;
}

/* True: the mark is a new one. */
static bool take_pointer(struct tce_conn *c, const struct tce_in *in)
{
    const uint32_t at = in->seq + (in->urgent ? in->urgent - 1u : 0);

    if (seq_lt(at, read_seq(c)) || seq_lt(at, c->rcv_nxt))
        return false;
    if (c->urgent != TCE_URGENT_NONE && seq_leq(at, c->urgent_seq))
        return false;
    /* An urgent byte that nobody asked for does not get into the stream by a newer one. */
    if (tce_urgent_hole(c))
        ring_consume(&c->in, 1);
    c->urgent = TCE_URGENT_EXPECTED;
    c->urgent_seq = at;
    return true;
}

void tce_take_urgent(struct tce_conn *c, const struct tce_in *in)
{
    const bool told = in->flags & TCP_F_URG && take_pointer(c, in);
    const uint32_t off = c->urgent_seq - in->seq;
    const bool here = c->urgent == TCE_URGENT_EXPECTED && off < in->size;

    if (here) {
        c->urgent_byte = in->data[off];
        c->urgent = TCE_URGENT_VALID;
    }
    /* SIGURG is for the mark, also before the byte has come; then whoever waits looks again. */
    if (told || here)
        c->ops->event(c, told ? EPOLLPRI : 0);
}

int tce_read_urgent(struct tce_conn *c, bool peek, uint8_t *out)
{
    if (c->cfg.oob_inline || c->urgent == TCE_URGENT_NONE || c->urgent == TCE_URGENT_READ)
        return -EINVAL;
    if (c->urgent == TCE_URGENT_EXPECTED)
        return c->dead || c->rd_shut || c->fin_seen ? 0 : -EAGAIN;
    *out = c->urgent_byte;
    if (!peek)
        c->urgent = TCE_URGENT_READ;
    return 1;
}

size_t tce_inq(const struct tce_conn *c)
{
    if (c->cfg.oob_inline || c->urgent == TCE_URGENT_NONE)
        return c->in.used;
    return MIN(c->in.used, (size_t)(c->urgent_seq - read_seq(c)));
}
