/* Sending: what may go now, and the segments that carry it. */
#include <string.h>

#include "sentry/net/tcp/tcp_priv.h"

/* ---- the window we tell ---- */

/* The window when nothing waits to be read; one that the scale cannot tell would be none. */
static uint32_t widest(const struct tce_conn *c)
{
    if (!c->cfg.window_clamp)
        return c->cfg.rcvbuf;
    return MIN(c->cfg.rcvbuf, MAX(c->cfg.window_clamp, 1u << c->rcv_scale));
}

uint32_t tce_rcv_space(const struct tce_conn *c)
{
    const uint32_t room = c->in.used < c->cfg.rcvbuf ? c->cfg.rcvbuf - (uint32_t)c->in.used : 0;

    return MIN(room, widest(c));
}

/* The right edge never moves back, and forward only by steps worth telling (RFC 9293, 3.8.6.2). */
static uint32_t window_edge(const struct tce_conn *c)
{
    const uint32_t unit = 1u << c->rcv_scale;
    const uint32_t most = 65535u << c->rcv_scale;
    const uint32_t space = MIN(tce_rcv_space(c), most) & ~(unit - 1);
    const uint32_t edge = c->rcv_nxt + space;
    const uint32_t step = MIN(c->mss, widest(c) / 2);

    if (seq_leq(edge, c->rcv_adv))
        return c->rcv_adv;
    if (edge - c->rcv_adv < step && c->rcv_adv != c->rcv_nxt)
        return c->rcv_adv;
    return edge;
}

static uint16_t window_field(struct tce_conn *c, bool syn)
{
    if (syn) {
        const uint32_t w = MIN(tce_rcv_space(c), 65535u);
        c->rcv_adv = c->rcv_nxt + w;
        return (uint16_t)w;
    }
    const uint32_t edge = window_edge(c);
    const uint32_t field = (edge - c->rcv_nxt + (1u << c->rcv_scale) - 1) >> c->rcv_scale;
    c->rcv_adv = edge;
    return (uint16_t)MIN(field, 65535u);
}

void tce_maybe_window_update(struct tce_conn *c, uint64_t now)
{
    if (c->state != TCP_S_ESTABLISHED && c->state != TCP_S_FIN_WAIT1 && c->state != TCP_S_FIN_WAIT2)
        return;
    const uint32_t edge = window_edge(c), told = c->rcv_adv - c->rcv_nxt;

    /* Worth a segment of its own: the peer may be waiting for it. */
    if (edge - c->rcv_adv >= MIN(2 * c->mss, widest(c) / 2) &&
        (told < widest(c) / 2 || edge - c->rcv_adv >= widest(c) / 4))
        tce_send_ack(c, now);
}

/* ---- one segment ---- */

static uint32_t ts_clock(const struct tce_conn *c, uint64_t now)
{
    return (uint32_t)(now / MS) + c->iss;
}

static bool emit(struct tce_conn *c, uint32_t seq, uint8_t flags, const struct iovec *data,
                 int pieces, size_t size, uint64_t now)
{
    struct tce_out o;

    memset(&o, 0, sizeof(o));
    o.seq = seq;
    o.flags = flags;
    o.data = data;
    o.pieces = pieces;
    o.size = size;
    o.mss = c->mss;
    if (flags & TCP_F_ACK)
        o.ack = c->rcv_nxt;
    o.urgent = flags & (TCP_F_RST | TCP_F_SYN) ? 0 : tce_urgent_pointer(c, seq, size);
    if (o.urgent)
        o.flags |= TCP_F_URG;
    if (!(flags & TCP_F_RST))
        o.window = window_field(c, flags & TCP_F_SYN);
    if (flags & TCP_F_SYN) {
        const bool reply = flags & TCP_F_ACK;
        o.o.mss = (uint16_t)MIN(c->cfg.mss, 65535u);
        o.o.has_wscale = !reply || c->rcv_scale || c->snd_scale;
        o.o.wscale = c->rcv_scale;
        o.o.sack_ok = !reply || c->sack_ok;
        o.o.has_ts = !reply || c->ts_ok;
    } else {
        o.o.has_ts = c->ts_ok;
        if (c->sack_ok && c->ooo_count > 0)
            o.o.sack_count = (uint8_t)tce_fill_sacks(c, o.o.sack);
    }
    if (o.o.has_ts) {
        o.o.ts_val = ts_clock(c, now);
        o.o.ts_ecr = flags & TCP_F_ACK ? c->ts_recent : 0;
        if (o.o.sack_count > 3)
            o.o.sack_count = 3;
    }
    c->segs_out += tce_segments(c, size);
    if (size > 0) {
        c->data_segs_out += tce_segments(c, size);
        c->bytes_sent += size;
        c->data_out_ns = now;
    }
    const bool sent = c->ops->output(c, &o);
    if (sent && flags & TCP_F_ACK) {
        c->ack_pending = 0;
        c->ack_now = false;
        c->t_ack = TCP_NEVER;
    }
    return sent;
}

void tce_send_ack(struct tce_conn *c, uint64_t now)
{
    (void)emit(c, c->snd_nxt, TCP_F_ACK, NULL, 0, 0, now);
}

void tce_challenge(struct tce_conn *c, uint64_t now)
{
    if (now - c->challenge_ns >= SEC) {
        c->challenge_ns = now;
        c->challenges = 0;
    }
    if (c->challenges++ < TCP_CHALLENGES)
        tce_send_ack(c, now);
}

void tce_send_rst(struct tce_conn *c, uint64_t now)
{
    (void)emit(c, c->snd_nxt, TCP_F_RST | TCP_F_ACK, NULL, 0, 0, now);
}

void tce_send_syn(struct tce_conn *c, uint64_t now)
{
    const uint8_t flags = (uint8_t)(TCP_F_SYN | (c->passive || c->simultaneous ? TCP_F_ACK : 0));

    (void)emit(c, c->iss, flags, NULL, 0, 0, now);
}

void tce_send_probe(struct tce_conn *c, uint64_t now)
{
    /* An old sequence number is answered by whoever is there (RFC 9293, 3.8.4). */
    (void)emit(c, c->snd_una - 1, TCP_F_ACK, NULL, 0, 0, now);
    /* A mark goes beyond a closed window. */
    if (tce_sends_urgent(c) && !c->dead)
        (void)emit(c, c->snd_una, TCP_F_ACK, NULL, 0, 0, now);
}

/* ---- the queue ---- */

/* The first byte of the queue has the number snd_una, once the SYN is through. */
size_t tce_not_sent(const struct tce_conn *c)
{
    const uint32_t sent = c->snd_nxt - c->snd_una - (c->fin_sent && !c->fin_acked ? 1 : 0);

    if (!c->syn_acked)
        return c->out.used;
    return c->out.used > sent ? c->out.used - sent : 0;
}

static bool emit_range(struct tce_conn *c, uint32_t seq, uint32_t end, bool fin, bool push,
                       uint64_t now)
{
    struct iovec v[2];
    const size_t size = end - seq - (fin ? 1 : 0);
    const int n = ring_pieces(&c->out, seq - c->snd_una, size, v);
    const uint8_t flags = (uint8_t)(TCP_F_ACK | (push ? TCP_F_PSH : 0) | (fin ? TCP_F_FIN : 0));

    return emit(c, seq, flags, v, n, size, now);
}

/* Whether the FIN is the last number of [seq, end). */
static bool has_fin(const struct tce_conn *c, uint32_t end)
{
    return c->fin_sent && end == c->snd_nxt;
}

/* Segments with an urgent pointer are not left to the link to be cut: each has its own. */
static uint32_t segment_max(const struct tce_conn *c)
{
    return tce_sends_urgent(c) ? c->mss : TCP_GSO_MAX;
}

bool tce_resend(struct tce_conn *c, struct tce_chunk *ch, uint64_t now)
{
    if (seq_lt(ch->seq, c->snd_una))
        return true; /* it was acknowledged in part and could not be cut */
    const uint32_t most = segment_max(c);
    if (ch->end - ch->seq > most && !tce_chunk_split(c, ch, ch->seq + most))
        return false;
    c->retrans_total += tce_segments(c, ch->end - ch->seq);
    c->bytes_retrans += ch->end - ch->seq;
    const bool sent = emit_range(c, ch->seq, ch->end, has_fin(c, ch->end), true, now);
    tce_chunk_mark_resent(c, ch, now);
    return sent;
}

/* What was lost goes before what is new, as far as the window lets it. */
static void resend_lost(struct tce_conn *c, uint64_t now)
{
    struct tce_chunk *ch, *next;

    if (c->lost_bytes == 0)
        return;
    list_for_each_entry_safe (ch, next, &c->sent, node) {
        if (!ch->lost)
            continue;
        if (c->in_flight >= c->cwnd)
            return;
        const uint32_t room = MIN(MAX(c->cwnd - c->in_flight, c->mss), segment_max(c));
        const uint32_t fits = room / c->mss * c->mss;
        if (ch->end - ch->seq > fits && !tce_chunk_split(c, ch, ch->seq + fits))
            return;
        next = list_entry(ch->node.next, struct tce_chunk, node);
        if (!tce_resend(c, ch, now) || c->lost_bytes == 0)
            return;
    }
}

/* How much of what is not sent may go now as one segment; 0: nothing. */
static uint32_t may_send(struct tce_conn *c, size_t left, uint64_t now)
{
    const uint32_t edge = c->snd_una + c->snd_wnd;
    const uint32_t window = seq_lt(c->snd_nxt, edge) ? edge - c->snd_nxt : 0;
    const uint32_t room = c->in_flight < c->cwnd ? c->cwnd - c->in_flight : 0;
    const uint32_t allowed = MIN(window, room);
    const uint32_t at_once = MIN(allowed, segment_max(c));
    uint32_t size = (uint32_t)MIN(left, (size_t)at_once);

    if (room < left && room <= window)
        c->cwnd_limited = true;
    if (size >= c->mss)
        return size / c->mss * c->mss;
    if (size == 0)
        return 0;
    if (size < left) {
        /* The window cuts it: only worth it when nothing else moves (RFC 9293, 3.8.6.2.1). */
        return c->in_flight == 0 && size >= c->max_wnd / 2 ? size : 0;
    }
    if (c->fin_queued || tce_sends_urgent(c))
        return size;
    if (c->cfg.cork) {
        if (c->t_probe == TCP_NEVER)
            c->t_probe = now + TCP_CORK_TIME;
        return 0;
    }
    return c->cfg.nodelay || c->snd_nxt == c->snd_una ? size : 0;
}

static bool send_new(struct tce_conn *c, uint64_t now)
{
    const size_t left = tce_not_sent(c);

    if (left == 0 || c->fin_sent || c->chunk_count >= TCP_CHUNKS_MAX)
        return false;
    const uint32_t size = may_send(c, left, now);
    if (size == 0)
        return false;
    if (c->in_flight == 0 && c->snd_nxt == c->snd_una)
        c->stalled_ns = now;
    const uint32_t end = c->snd_nxt + size;
    const bool fin = c->fin_queued && size == left;
    if (!tce_chunk_add(c, c->snd_nxt, end + (fin ? 1 : 0), now))
        return false;
    const uint32_t seq = c->snd_nxt;
    c->snd_nxt = end + (fin ? 1 : 0);
    c->fin_sent |= fin;
    return emit_range(c, seq, c->snd_nxt, fin, size == left, now) && !fin;
}

static void send_fin(struct tce_conn *c, uint64_t now)
{
    if (!c->fin_queued || c->fin_sent || tce_not_sent(c) > 0 || !c->syn_acked)
        return;
    if (!tce_chunk_add(c, c->snd_nxt, c->snd_nxt + 1, now))
        return;
    c->fin_sent = true;
    c->snd_nxt++;
    (void)emit_range(c, c->snd_nxt - 1, c->snd_nxt, true, false, now);
}

void tce_output(struct tce_conn *c, uint64_t now)
{
    if (!c->syn_acked || c->dead || c->state == TCP_S_TIME_WAIT || c->state == TCP_S_CLOSED)
        return;
    const bool idle = c->in_flight == 0;
    c->cwnd_limited = false;
    resend_lost(c, now);
    while (c->lost_bytes == 0 && send_new(c, now))
        ;
    if (c->lost_bytes == 0)
        send_fin(c, now);
    if (c->ack_now)
        tce_send_ack(c, now);
    if (!list_empty(&c->sent)) {
        c->t_persist = TCP_NEVER;
        if (idle || c->t_rto == TCP_NEVER)
            tce_arm_rto(c, now);
        tce_arm_probe(c, now);
    } else if (tce_not_sent(c) > 0 && c->t_persist == TCP_NEVER &&
               c->snd_una + c->snd_wnd - c->snd_nxt < MIN(c->mss, (uint32_t)tce_not_sent(c))) {
        c->persist_shift = 0;
        c->t_persist = now + c->rto_ns;
    }
}
