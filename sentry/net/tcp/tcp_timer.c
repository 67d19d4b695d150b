/* Timers: what happens when nothing comes. */
#include <errno.h>
#include <sys/epoll.h>

#include "sentry/net/tcp/tcp_priv.h"

void tce_arm_rto(struct tce_conn *c, uint64_t now)
{
    uint64_t rto = c->rto_ns;

    for (unsigned i = 0; i < c->backoff && rto < TCP_RTO_MAX; i++)
        rto *= 2;
    c->t_rto = now + MIN(rto, TCP_RTO_MAX);
}

/* A tail that was lost makes no duplicates: it is asked about once (RFC 8985, 7). */
void tce_arm_probe(struct tce_conn *c, uint64_t now)
{
    if (c->cfg.cork && c->in_flight == 0)
        return; /* the timer is the cork's */
    c->t_probe = TCP_NEVER;
    if (!c->sack_ok || c->recovering || c->backoff || c->tlp_done || c->sacked_bytes ||
        c->lost_bytes || c->in_flight == 0 || c->rtt.smooth_ns == 0)
        return;
    uint64_t pto = 2 * c->rtt.smooth_ns + 2 * MS;
    if (c->in_flight <= c->mss)
        pto += TCP_RTO_MIN;
    if (now + pto < c->t_rto)
        c->t_probe = now + pto;
}

uint64_t tce_next_timer(const struct tce_conn *c)
{
    const uint64_t all[] = {c->t_rto,     c->t_probe, c->t_ack, c->t_reorder,
                            c->t_persist, c->t_keep,  c->t_end};
    uint64_t next = TCP_NEVER;

    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        next = MIN(next, all[i]);
    return next;
}

static bool gave_up(const struct tce_conn *c, uint64_t now)
{
    if (c->state == TCP_S_SYN_SENT)
        return c->backoff >= c->cfg.syn_retries;
    if (c->state == TCP_S_SYN_RCVD)
        return c->backoff >= TCP_SYNACK_RETRIES;
    if (c->cfg.user_timeout_ns)
        return now - c->stalled_ns >= c->cfg.user_timeout_ns;
    return c->backoff >= (c->orphan ? TCP_ORPHAN_RETRIES : TCP_RETRIES);
}

static void on_rto(struct tce_conn *c, uint64_t now)
{
    if (gave_up(c, now)) {
        tce_end(c, -ETIMEDOUT);
        return;
    }
    if (c->state == TCP_S_SYN_SENT || c->state == TCP_S_SYN_RCVD) {
        c->backoff++;
        c->retrans_total++;
        tce_arm_rto(c, now);
        tce_send_syn(c, now);
        return;
    }
    if (c->backoff == 0) {
        c->ssthresh = tce_cc_reduce(c);
        c->recover = c->snd_nxt;
    }
    c->backoff++;
    c->recovering = false;
    c->dupacks = 0;
    c->cwnd = c->mss;
    c->rack.reordering = false;
    tce_chunks_all_lost(c);
    tce_arm_rto(c, now);
    tce_output(c, now);
}

static void on_probe(struct tce_conn *c, uint64_t now)
{
    c->t_probe = TCP_NEVER;
    if (c->in_flight == 0) {
        /* A cork holds a short segment for so long only. */
        const bool cork = c->cfg.cork;
        c->cfg.cork = false;
        tce_output(c, now);
        c->cfg.cork = cork;
        return;
    }
    c->tlp_done = true;
    struct tce_chunk *last = list_last_entry(&c->sent, struct tce_chunk, node);
    if (last->sacked || last->lost)
        return;
    if (last->end - last->seq > c->mss) {
        if (!tce_chunk_split(c, last, last->end - c->mss))
            return;
        last = list_last_entry(&c->sent, struct tce_chunk, node);
    }
    (void)tce_resend(c, last, now);
    tce_arm_rto(c, now);
}

static void on_persist(struct tce_conn *c, uint64_t now)
{
    if (c->cfg.user_timeout_ns && now - c->stalled_ns >= c->cfg.user_timeout_ns) {
        tce_end(c, -ETIMEDOUT);
        return;
    }
    if (c->orphan && c->persist_shift >= TCP_ORPHAN_RETRIES) {
        tce_abort(c, -ETIMEDOUT, now);
        return;
    }
    if (c->persist_shift < 16)
        c->persist_shift++;
    c->t_persist = now + MIN(c->rto_ns << c->persist_shift, TCP_RTO_MAX);
    if (c->snd_wnd > 0 && c->cwnd >= c->mss) {
        /* A window that is too small to be worth it, used at last. */
        const uint32_t max = c->max_wnd;
        c->max_wnd = 0;
        tce_output(c, now);
        c->max_wnd = max;
        return;
    }
    tce_send_probe(c, now);
}

static void on_keep(struct tce_conn *c, uint64_t now)
{
    const uint64_t quiet = now - c->last_in_ns;

    c->t_keep = TCP_NEVER;
    if (!c->cfg.keepalive)
        return;
    if (!list_empty(&c->sent) || quiet < c->cfg.keep_idle_ns) {
        c->keep_probes = 0;
        c->t_keep = quiet < c->cfg.keep_idle_ns ? c->last_in_ns + c->cfg.keep_idle_ns
                                                : now + c->cfg.keep_idle_ns;
        return;
    }
    if (c->cfg.user_timeout_ns ? quiet >= c->cfg.user_timeout_ns && c->keep_probes > 0
                               : c->keep_probes >= c->cfg.keep_count) {
        tce_abort(c, -ETIMEDOUT, now);
        return;
    }
    c->keep_probes++;
    c->t_keep = now + c->cfg.keep_intvl_ns;
    tce_send_probe(c, now);
}

void tce_timers(struct tce_conn *c, uint64_t now)
{
    if (!c->dead && c->t_end <= now)
        tce_end(c, 0);
    if (!c->dead && c->t_ack <= now) {
        c->t_ack = TCP_NEVER;
        tce_send_ack(c, now);
    }
    if (!c->dead && c->t_reorder <= now) {
        tce_detect_loss(c, now);
        tce_output(c, now);
    }
    if (!c->dead && c->t_rto <= now)
        on_rto(c, now);
    if (!c->dead && c->t_probe <= now)
        on_probe(c, now);
    if (!c->dead && c->t_persist <= now)
        on_persist(c, now);
    if (!c->dead && c->t_keep <= now)
        on_keep(c, now);
}
