/* Acknowledgements: what arrived, what was lost (RACK, RFC 8985), how long it took (RFC 6298). */
#include <string.h>
#include <sys/epoll.h>

#include "sentry/net/tcp/tcp_priv.h"

#define DUPACKS 3u

/* ---- round-trip time ---- */

void tce_rtt_sample(struct tce_conn *c, uint64_t rtt)
{
    tcp_rtt_sample(&c->rtt, rtt);
    c->rto_ns = MIN(c->rtt.smooth_ns + MAX(4 * c->rtt.var_ns, TCP_RTO_MIN), TCP_RTO_MAX);
}

/* ---- RACK ---- */

static void rack_delivered(struct tce_conn *c, const struct tce_chunk *ch, uint64_t now)
{
    const uint64_t rtt = now - ch->sent_ns;

    if (ch->resent) {
        /* An answer this quick was to the first sending. */
        if (c->rtt.min_ns == 0 || rtt < c->rtt.min_ns)
            return;
    } else {
        if (seq_lt(ch->end, c->rack.fack))
            c->rack.reordering = true;
    }
    c->rack.fack = seq_max(c->rack.fack, ch->end);
    if (ch->sent_ns > c->rack.sent_ns ||
        (ch->sent_ns == c->rack.sent_ns && seq_lt(c->rack.end, ch->end))) {
        c->rack.sent_ns = ch->sent_ns;
        c->rack.end = ch->end;
        c->rack.rtt_ns = rtt;
    }
}

static uint64_t reordering_window(const struct tce_conn *c)
{
    if (!c->rack.reordering && (c->recovering || c->sacked_bytes >= DUPACKS * c->mss))
        return 0;
    return MIN(c->rtt.min_ns / 4, c->rtt.smooth_ns);
}

static void begin_recovery(struct tce_conn *c)
{
    if (c->recovering)
        return;
    c->ssthresh = tce_cc_reduce(c);
    c->cwnd = c->ssthresh;
    c->recovering = true;
    c->recover = c->snd_nxt;
}

void tce_detect_loss(struct tce_conn *c, uint64_t now)
{
    const uint64_t wait = c->rack.rtt_ns + reordering_window(c);
    const uint32_t before = c->lost_bytes;
    struct tce_chunk *ch;
    uint64_t next = TCP_NEVER;

    c->t_reorder = TCP_NEVER;
    if (!c->sack_ok || c->rack.sent_ns == 0)
        return;
    list_for_each_entry (ch, &c->sent, node) {
        if (ch->sacked || ch->lost)
            continue;
        if (!ch->resent && !seq_lt(ch->seq, c->rack.fack))
            break;
        const bool earlier = ch->sent_ns < c->rack.sent_ns ||
                             (ch->sent_ns == c->rack.sent_ns && seq_lt(ch->end, c->rack.end));
        if (!earlier)
            continue;
        if (ch->sent_ns + wait <= now)
            tce_chunk_mark_lost(c, ch);
        else
            next = MIN(next, ch->sent_ns + wait);
    }
    c->t_reorder = next;
    if (c->lost_bytes > before && !c->backoff)
        begin_recovery(c);
}

/* A peer without SACK: three duplicates, then one hole after the other (RFC 6582). */
static void reno_loss(struct tce_conn *c, bool duplicate, bool moved)
{
    if (duplicate)
        c->dupacks++;
    else if (moved)
        c->dupacks = 0;
    if (list_empty(&c->sent))
        return;
    struct tce_chunk *first = list_first_entry(&c->sent, struct tce_chunk, node);
    if (c->recovering ? moved && seq_lt(c->snd_una, c->recover) : c->dupacks == DUPACKS) {
        if (first->end - first->seq > c->mss)
            (void)!tce_chunk_split(c, first, first->seq + c->mss);
        begin_recovery(c);
        tce_chunk_mark_lost(c, first);
    }
}

/* ---- what is acknowledged ---- */

static void sack_range(struct tce_conn *c, const struct tce_range *r, uint64_t now)
{
    struct tce_chunk *ch;

    list_for_each_entry (ch, &c->sent, node) {
        if (seq_leq(r->end, ch->seq))
            break;
        if (ch->sacked || seq_leq(ch->end, r->start))
            continue;
        if (seq_lt(ch->seq, r->start)) {
            if (!tce_chunk_split(c, ch, r->start))
                return;
            continue; /* the second half comes next */
        }
        if (seq_lt(r->end, ch->end) && !tce_chunk_split(c, ch, r->end))
            return;
        c->delivered += ch->end - ch->seq;
        rack_delivered(c, ch, now);
        tce_chunk_mark_sacked(c, ch);
    }
}

static bool take_sacks(struct tce_conn *c, const struct tce_in *in, uint64_t now)
{
    const uint32_t before = c->sacked_bytes;

    if (!c->sack_ok)
        return false;
    for (unsigned i = 0; i < in->o.sack_count; i++) {
        const struct tce_range *r = &in->o.sack[i];
        /* Below snd_una it tells of a duplicate; beyond snd_nxt it is a lie. */
        if (seq_lt(r->start, r->end) && seq_lt(in->ack, r->start) && seq_leq(r->end, c->snd_nxt))
            sack_range(c, r, now);
    }
    return c->sacked_bytes != before;
}

static void take_cumulative(struct tce_conn *c, uint32_t ack, uint64_t now)
{
    uint64_t rtt = 0;

    while (!list_empty(&c->sent)) {
        struct tce_chunk *ch = list_first_entry(&c->sent, struct tce_chunk, node);
        if (seq_leq(ack, ch->seq))
            break;
        if (seq_lt(ack, ch->end) && !tce_chunk_split(c, ch, ack))
            break;
        if (!ch->sacked) {
            c->delivered += ch->end - ch->seq;
            rack_delivered(c, ch, now);
            if (!ch->resent)
                rtt = now - ch->sent_ns;
        }
        tce_chunk_free(c, ch);
    }
    if (rtt)
        tce_rtt_sample(c, rtt);
}

static void update_window(struct tce_conn *c, const struct tce_in *in)
{
    const uint32_t window = (uint32_t)in->window << (in->flags & TCP_F_SYN ? 0 : c->snd_scale);

    if (!(seq_lt(c->snd_wl1, in->seq) || (c->snd_wl1 == in->seq && seq_leq(c->snd_wl2, in->ack))))
        return;
    c->snd_wl1 = in->seq;
    c->snd_wl2 = in->ack;
    c->snd_wnd = window;
    c->max_wnd = MAX(c->max_wnd, window);
}

/* The queue's first acked bytes are through. */
static void drop_acked(struct tce_conn *c, uint32_t ack)
{
    uint32_t bytes = ack - c->snd_una;

    if (!c->syn_acked && bytes > 0) {
        c->syn_acked = true;
        bytes--;
    }
    if (c->fin_sent && !c->fin_acked && ack == c->snd_nxt) {
        c->fin_acked = true;
        bytes--;
    }
    const size_t size = MIN((size_t)bytes, c->out.used);
    ring_consume(&c->out, size);
    c->bytes_acked += size;
    c->snd_una = ack;
    c->snd_up = seq_max(c->snd_up, ack);
    ring_trim(&c->out);
}

static void end_recovery(struct tce_conn *c)
{
    if (seq_lt(c->snd_una, c->recover))
        return;
    if (c->recovering) {
        c->cwnd = MAX(c->ssthresh, 2 * c->mss);
        c->recovering = false;
        c->dupacks = 0;
    }
    c->backoff = 0;
}

void tce_ack(struct tce_conn *c, const struct tce_in *in, uint64_t now)
{
    const uint32_t acked = in->ack - c->snd_una;
    const uint32_t old_wnd = c->snd_wnd;
    const bool moved = acked > 0;

    update_window(c, in);
    const bool sacked = take_sacks(c, in, now);
    if (moved) {
        take_cumulative(c, in->ack, now);
        drop_acked(c, in->ack);
        c->stalled_ns = now;
        c->persist_shift = 0;
        c->tlp_done = false;
        if (!c->recovering && seq_leq(c->recover, c->snd_una))
            c->backoff = 0;
        end_recovery(c);
        tce_cc_ack(c, acked, now);
        if (list_empty(&c->sent))
            c->t_rto = TCP_NEVER;
        else
            tce_arm_rto(c, now);
        if (tce_is_writable(c))
            c->ops->event(c, EPOLLOUT | EPOLLWRNORM);
    }
    if (c->snd_wnd != old_wnd && c->snd_wnd > 0)
        c->t_persist = TCP_NEVER;
    if (!c->sack_ok)
        reno_loss(c, !moved && in->size == 0 && c->snd_wnd == old_wnd && !list_empty(&c->sent),
                  moved);
    else if (moved || sacked)
        tce_detect_loss(c, now);
}
