/* The life of a connection: opening, segments against the state machine, closing. */
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>

#include "sentry/net/tcp/tcp_priv.h"

#define WSCALE_MAX 14u

_Static_assert(TCP_S_CLOSING == (int)TCP_CLOSING && TCP_S_LISTEN == (int)TCP_LISTEN, "states");

void tce_init(struct tce_conn *c, const struct tce_ops *ops, const struct tce_config *cfg)
{
    memset(c, 0, sizeof(*c));
    c->ops = ops;
    c->cfg = *cfg;
    c->cfg.mss = MAX(cfg->mss, TCP_MSS_MIN);
    c->state = TCP_S_CLOSED;
    c->mss = MIN(c->cfg.mss, TCP_MSS_ASSUMED);
    list_init(&c->sent);
    c->ssthresh = TCP_CWND_MAX;
    c->rto_ns = TCP_RTO_INIT;
    c->t_rto = c->t_probe = c->t_ack = c->t_reorder = TCP_NEVER;
    c->t_persist = c->t_keep = c->t_end = TCP_NEVER;
    /* As much as the buffer may ever grow to, so that it can be told. */
    const uint32_t most = cfg->rcvbuf_fixed ? cfg->rcvbuf : MAX(cfg->rcvbuf, TCP_RCVBUF_MAX);
    while (c->rcv_scale < WSCALE_MAX && (65535u << c->rcv_scale) < most)
        c->rcv_scale++;
}

static void drop_sent(struct tce_conn *c)
{
    while (!list_empty(&c->sent))
        tce_chunk_free(c, list_first_entry(&c->sent, struct tce_chunk, node));
}

void tce_fini(struct tce_conn *c)
{
    drop_sent(c);
    ring_fini(&c->out);
    ring_fini(&c->in);
}

static void stop_timers(struct tce_conn *c)
{
    c->t_rto = c->t_probe = c->t_ack = c->t_reorder = TCP_NEVER;
    c->t_persist = c->t_keep = c->t_end = TCP_NEVER;
}

void tce_end(struct tce_conn *c, int error)
{
    if (c->dead)
        return;
    c->error = error;
    c->state = TCP_S_CLOSED;
    c->dead = true;
    stop_timers(c);
    drop_sent(c);
    ring_fini(&c->out);
    if (c->orphan)
        ring_fini(&c->in);
    c->ops->event(c, EPOLLIN | EPOLLOUT | EPOLLHUP | EPOLLRDHUP | (error ? EPOLLERR : 0));
}

void tce_set_state(struct tce_conn *c, enum tce_state s, uint64_t now)
{
    c->state = s;
    if (s == TCP_S_TIME_WAIT) {
        stop_timers(c);
        drop_sent(c);
        ring_fini(&c->out);
        c->t_end = now + TCP_TIME_WAIT;
        if (c->orphan)
            ring_fini(&c->in);
        c->ops->event(c, EPOLLIN | EPOLLOUT | EPOLLHUP | EPOLLRDHUP);
    } else if (s == TCP_S_FIN_WAIT2 && c->orphan) {
        c->t_end = now + c->cfg.fin_wait2_ns;
    }
}

/* ---- opening ---- */

static void open_numbers(struct tce_conn *c, uint32_t iss)
{
    c->iss = c->snd_una = c->snd_up = iss;
    c->snd_nxt = iss + 1;
    c->recover = iss;
    c->rack.fack = iss;
}

void tce_connect(struct tce_conn *c, uint32_t iss, uint64_t now)
{
    open_numbers(c, iss);
    c->state = TCP_S_SYN_SENT;
    c->stalled_ns = now;
    (void)tce_chunk_add(c, iss, iss + 1, now);
    tce_arm_rto(c, now);
    tce_send_syn(c, now);
}

void tce_take_syn_options(struct tce_conn *c, const struct tce_opts *o)
{
    const uint32_t theirs = o->mss ? MAX(o->mss, TCP_MSS_MIN) : TCP_MSS_ASSUMED;

    c->sack_ok = o->sack_ok;
    c->ts_ok = o->has_ts;
    c->ts_recent = o->ts_val;
    if (o->has_wscale)
        c->snd_scale = o->wscale < WSCALE_MAX ? o->wscale : WSCALE_MAX;
    else
        c->snd_scale = c->rcv_scale = 0;
    c->mss = MIN(c->cfg.mss, theirs) - (c->ts_ok ? 12 : 0);
    c->cwnd = TCP_INIT_CWND * c->mss;
}

static void take_irs(struct tce_conn *c, const struct tce_in *in, uint64_t now)
{
    c->irs = in->seq;
    c->rcv_nxt = c->rcv_adv = in->seq + 1;
    c->snd_wl1 = in->seq;
    c->snd_wl2 = c->snd_una;
    c->snd_wnd = c->max_wnd = in->window;
    c->ts_recent_ns = now;
    c->last_in_ns = now;
}

void tce_accept(struct tce_conn *c, const struct tce_in *syn, uint32_t iss, uint64_t now)
{
    c->passive = true;
    open_numbers(c, iss);
    c->state = TCP_S_SYN_RCVD;
    c->stalled_ns = now;
    take_irs(c, syn, now);
    tce_take_syn_options(c, &syn->o);
    (void)tce_chunk_add(c, iss, iss + 1, now);
    tce_arm_rto(c, now);
    tce_send_syn(c, now);
}

void tce_established(struct tce_conn *c, uint64_t now)
{
    tce_set_state(c, TCP_S_ESTABLISHED, now);
    c->backoff = 0;
    c->rcv_epoch_ns = now;
    if (c->cfg.keepalive)
        c->t_keep = now + c->cfg.keep_idle_ns;
    if (c->passive)
        c->ops->established(c);
    c->ops->event(c, EPOLLOUT | EPOLLWRNORM);
}

void tce_accept_cookie(struct tce_conn *c, const struct tce_in *ack, uint32_t mss, uint64_t now)
{
    const struct tce_opts o = {.mss = (uint16_t)MIN(mss, 65535u)};

    c->passive = true;
    open_numbers(c, ack->ack - 1);
    c->snd_una = c->snd_nxt;
    c->syn_acked = true;
    take_irs(c, ack, now);
    c->irs = ack->seq - 1;
    c->rcv_nxt = ack->seq;
    c->snd_wl2 = c->snd_una;
    tce_take_syn_options(c, &o);
    c->rcv_adv = c->rcv_nxt + MIN(tce_rcv_space(c), 65535u);
    tce_established(c, now);
}

/* ---- segments ---- */

static void reset(struct tce_conn *c, int error)
{
    tce_end(c, error);
}

static void input_syn_sent(struct tce_conn *c, const struct tce_in *in, uint64_t now)
{
    const bool acks = in->flags & TCP_F_ACK;

    if (acks && in->ack != c->snd_nxt)
        return; /* the owner answers with a reset: it is not of this connection */
    if (in->flags & TCP_F_RST) {
        if (acks)
            reset(c, -ECONNREFUSED);
        return;
    }
    if (!(in->flags & TCP_F_SYN))
        return;
    take_irs(c, in, now);
    tce_take_syn_options(c, &in->o);
    if (!acks) {
        /* Both called at once (RFC 9293, 3.5). */
        c->state = TCP_S_SYN_RCVD;
        c->backoff = 0;
        c->simultaneous = true;
        tce_send_syn(c, now);
        return;
    }
    tce_ack(c, in, now);
    tce_established(c, now);
    c->ack_now = true;
    tce_output(c, now);
}

/* PAWS (RFC 7323, 5): a segment older than what was seen. */
static bool is_old(const struct tce_conn *c, const struct tce_in *in, uint64_t now)
{
    return c->ts_ok && in->o.has_ts && !(in->flags & TCP_F_RST) &&
           seq_lt(in->o.ts_val, c->ts_recent) && now - c->ts_recent_ns < TCP_PAWS_AGE;
}

static bool fits_window(const struct tce_conn *c, const struct tce_in *in)
{
    const uint32_t len =
        (uint32_t)in->size + (in->flags & TCP_F_FIN ? 1 : 0) + (in->flags & TCP_F_SYN ? 1 : 0);

    return seq_leq(in->seq, c->rcv_adv) && seq_leq(c->rcv_nxt, in->seq + len);
}

static void on_reset(struct tce_conn *c, const struct tce_in *in, uint64_t now)
{
    if (in->seq != c->rcv_nxt) {
        tce_challenge(c, now);
        return;
    }
    if (c->state == TCP_S_SYN_RCVD)
        reset(c, -ECONNREFUSED);
    else if (c->state == TCP_S_CLOSE_WAIT)
        reset(c, -EPIPE);
    else
        reset(c, c->state == TCP_S_TIME_WAIT ? 0 : -ECONNRESET);
}

/* Our FIN went through. */
static void on_fin_acked(struct tce_conn *c, uint64_t now)
{
    switch (c->state) {
    case TCP_S_FIN_WAIT1:
        tce_set_state(c, TCP_S_FIN_WAIT2, now);
        break;
    case TCP_S_CLOSING:
        tce_set_state(c, TCP_S_TIME_WAIT, now);
        break;
    case TCP_S_LAST_ACK:
        tce_end(c, 0);
        break;
    case TCP_S_ESTABLISHED:
    case TCP_S_SYN_SENT:
    case TCP_S_SYN_RCVD:
    case TCP_S_FIN_WAIT2:
    case TCP_S_TIME_WAIT:
    case TCP_S_CLOSED:
    case TCP_S_CLOSE_WAIT:
    case TCP_S_LISTEN:
        break;
    }
}

/* 0: go on. */
static int check_segment(struct tce_conn *c, const struct tce_in *in, uint64_t now)
{
    if (is_old(c, in, now) || !fits_window(c, in)) {
        if (c->state == TCP_S_SYN_RCVD && in->flags & TCP_F_SYN && in->seq == c->irs)
            tce_send_syn(c, now);
        else if (!(in->flags & TCP_F_RST))
            tce_challenge(c, now);
        return 1;
    }
    if (in->flags & TCP_F_RST) {
        on_reset(c, in, now);
        return 1;
    }
    if (in->flags & TCP_F_SYN) {
        if (c->state != TCP_S_SYN_RCVD || !(in->flags & TCP_F_ACK))
            tce_challenge(c, now);
        return 1;
    }
    return !(in->flags & TCP_F_ACK);
}

static int check_ack(struct tce_conn *c, const struct tce_in *in, uint64_t now)
{
    if (c->state == TCP_S_SYN_RCVD) {
        if (!seq_lt(c->snd_una, in->ack) || !seq_leq(in->ack, c->snd_nxt))
            return 1;
        return 0;
    }
    if (seq_lt(c->snd_nxt, in->ack) || seq_lt(in->ack, c->snd_una - c->max_wnd)) {
        tce_challenge(c, now);
        return 1;
    }
    return 0;
}

static void input_open(struct tce_conn *c, const struct tce_in *in, uint64_t now)
{
    if (check_segment(c, in, now) || check_ack(c, in, now))
        return;
    if (c->ts_ok && in->o.has_ts && seq_leq(in->seq, c->rcv_nxt) &&
        seq_leq(c->ts_recent, in->o.ts_val)) {
        c->ts_recent = in->o.ts_val;
        c->ts_recent_ns = now;
    }
    const bool fin_acked = c->fin_acked;
    if (!seq_lt(in->ack, c->snd_una))
        tce_ack(c, in, now);
    if (c->state == TCP_S_SYN_RCVD)
        tce_established(c, now);
    if (!fin_acked && c->fin_acked)
        on_fin_acked(c, now);
    if (!c->dead && c->state != TCP_S_TIME_WAIT)
        tce_data(c, in, now);
    else if (!c->dead && (in->size > 0 || in->flags & TCP_F_FIN)) {
        c->t_end = now + TCP_TIME_WAIT;
        tce_challenge(c, now);
    }
    if (!c->dead && c->state == TCP_S_TIME_WAIT && c->ack_now)
        tce_send_ack(c, now);
    if (!c->dead)
        tce_output(c, now);
}

void tce_input(struct tce_conn *c, const struct tce_in *in, uint64_t now)
{
    if (c->dead)
        return;
    c->segs_in += tce_segments(c, in->size);
    c->last_in_ns = now;
    c->keep_probes = 0;
    if (c->state == TCP_S_SYN_SENT)
        input_syn_sent(c, in, now);
    else
        input_open(c, in, now);
}

void tce_set_mss(struct tce_conn *c, uint32_t mss, uint64_t now)
{
    const uint32_t next = MAX(mss, TCP_MSS_MIN) - (c->ts_ok ? 12 : 0);

    if (c->dead || next >= c->mss)
        return;
    c->mss = next;
    c->cfg.mss = MAX(mss, TCP_MSS_MIN);
    /* What was too long is gone. */
    tce_chunks_all_lost(c);
    tce_output(c, now);
}

void tce_unreachable(struct tce_conn *c, int error)
{
    if (c->state == TCP_S_SYN_SENT || c->state == TCP_S_SYN_RCVD)
        tce_end(c, error);
}

/* ---- the user's side ---- */

static bool may_write(const struct tce_conn *c)
{
    return c->state == TCP_S_ESTABLISHED || c->state == TCP_S_CLOSE_WAIT;
}

#define SEND_PIECE 65536u

/* The buffer follows the window, unless somebody has fixed it. */
static size_t send_limit(struct tce_conn *c)
{
    if (!c->cfg.sndbuf_fixed && c->cwnd > c->cfg.sndbuf / 2)
        c->cfg.sndbuf = MIN(MAX(c->cfg.sndbuf, 2 * c->cwnd), TCP_SNDBUF_MAX);
    const uint32_t lowat = c->cfg.notsent_lowat;
    if (!lowat)
        return c->cfg.sndbuf;
    /* As much as Linux copies before it looks again. */
    return tce_unsent(c) < lowat ? MIN((size_t)c->cfg.sndbuf, c->out.used + SEND_PIECE) : 0;
}

/* Linux wants half of what may wait to be free again (__tcp_stream_memory_free). */
bool tce_is_writable(const struct tce_conn *c)
{
    const uint32_t lowat = c->cfg.notsent_lowat;

    return c->out.used * 3 <= (size_t)c->cfg.sndbuf * 2 && (!lowat || 2 * tce_unsent(c) < lowat);
}

int64_t tce_write(struct tce_conn *c, struct uio *u, unsigned flags, uint64_t now)
{
    if (c->error)
        return c->error;
    if (c->state == TCP_S_SYN_SENT || c->state == TCP_S_SYN_RCVD)
        return -EAGAIN;
    if (!may_write(c) || c->fin_queued)
        return -EPIPE;
    const size_t limit = send_limit(c);
    if (c->out.used >= limit)
        return -EAGAIN;
    const size_t size = (size_t)MIN((uint64_t)(limit - c->out.used), u->left);
    int r = ring_reserve(&c->out, c->out.used + size);
    if (r)
        return r;
    if (list_empty(&c->sent) && c->stalled_ns && now - c->stalled_ns > c->rto_ns && !c->backoff)
        tce_cc_idle(c);
    const int64_t n = ring_append_uio(&c->out, u, size);
    if (n > 0) {
        const bool cork = c->cfg.cork;
        c->cfg.cork |= (flags & TCE_MORE) != 0;
        if (flags & TCE_URGENT && u->left == 0)
            c->snd_up = c->snd_una + (uint32_t)c->out.used;
        tce_output(c, now);
        c->cfg.cork = cork;
    }
    return n;
}

static void queue_fin(struct tce_conn *c, uint64_t now)
{
    if (c->fin_queued)
        return;
    c->fin_queued = true;
    if (c->state == TCP_S_CLOSE_WAIT)
        tce_set_state(c, TCP_S_LAST_ACK, now);
    else
        tce_set_state(c, TCP_S_FIN_WAIT1, now);
    tce_output(c, now);
}

int tce_shutdown(struct tce_conn *c, bool rd, bool wr, uint64_t now)
{
    if (c->state == TCP_S_CLOSED || c->state == TCP_S_SYN_SENT)
        return -ENOTCONN;
    if (rd) {
        c->rd_shut = true;
        c->ops->event(c, EPOLLIN | EPOLLRDHUP);
    }
    if (wr && (may_write(c) || c->state == TCP_S_SYN_RCVD))
        queue_fin(c, now);
    return 0;
}

void tce_abort(struct tce_conn *c, int error, uint64_t now)
{
    if (c->dead)
        return;
    if (c->state != TCP_S_SYN_SENT && c->state != TCP_S_TIME_WAIT)
        tce_send_rst(c, now);
    tce_end(c, error);
}

void tce_close(struct tce_conn *c, bool abort, uint64_t now)
{
    const bool unread = c->in.used > 0;

    c->orphan = true;
    if (c->dead) {
        tce_fini(c);
        return;
    }
    if (abort || unread || c->state == TCP_S_SYN_SENT || c->state == TCP_S_SYN_RCVD) {
        tce_abort(c, -ECONNRESET, now);
        return;
    }
    if (may_write(c))
        queue_fin(c, now);
    else if (c->state == TCP_S_FIN_WAIT2)
        c->t_end = now + c->cfg.fin_wait2_ns;
}

void tce_reconfigure(struct tce_conn *c, const struct tce_config *cfg, uint64_t now)
{
    const bool uncork = c->cfg.cork && !cfg->cork;
    const bool nodelay = !c->cfg.nodelay && cfg->nodelay;
    const bool lowat = c->cfg.notsent_lowat != cfg->notsent_lowat;
    const uint32_t mss = c->cfg.mss, rcvbuf = c->cfg.rcvbuf, sndbuf = c->cfg.sndbuf;

    if (c->cfg.reno != cfg->reno) {
        c->cubic = (struct tce_cubic){.epoch_ns = 0};
        c->reno_acked = 0;
    }
    c->cfg = *cfg;
    c->cfg.mss = mss;
    if (!cfg->rcvbuf_fixed)
        c->cfg.rcvbuf = MAX(rcvbuf, cfg->rcvbuf);
    if (!cfg->sndbuf_fixed)
        c->cfg.sndbuf = MAX(sndbuf, cfg->sndbuf);
    if (c->dead)
        return;
    if (!cfg->keepalive)
        c->t_keep = TCP_NEVER;
    else if (c->state != TCP_S_SYN_SENT && c->state != TCP_S_TIME_WAIT)
        c->t_keep = c->last_in_ns + cfg->keep_idle_ns;
    if (uncork || nodelay)
        tce_output(c, now);
    if (lowat && may_write(c) && tce_is_writable(c))
        c->ops->event(c, EPOLLOUT | EPOLLWRNORM);
}

uint32_t tce_poll_events(const struct tce_conn *c)
{
    const bool fin = c->fin_seen && c->rcv_nxt == c->fin_seq + 1;
    uint32_t ev = 0;

    if (c->error)
        ev |= EPOLLERR;
    if (c->state == TCP_S_SYN_SENT || c->state == TCP_S_SYN_RCVD)
        return ev;
    if (c->urgent == TCE_URGENT_VALID)
        ev |= EPOLLPRI;
    if (c->in.used > tce_urgent_hole(c) || fin || c->rd_shut || c->dead)
        ev |= EPOLLIN | EPOLLRDNORM;
    if (fin || c->rd_shut || c->dead)
        ev |= EPOLLRDHUP;
    if (c->dead || ((fin || c->rd_shut) && c->fin_queued))
        ev |= EPOLLHUP;
    if (c->fin_queued || c->dead || tce_is_writable(c))
        ev |= EPOLLOUT | EPOLLWRNORM;
    return ev;
}

static uint32_t since_ms(uint64_t then, uint64_t now)
{
    return then && then < now ? (uint32_t)((now - then) / MS) : 0;
}

static void fill_sender(const struct tce_conn *c, struct lx_tcp_info *o)
{
    const uint32_t out = c->snd_nxt - c->snd_una;

    o->snd_mss = c->mss;
    o->snd_cwnd = c->cwnd / c->mss;
    o->snd_ssthresh = c->ssthresh == TCP_CWND_MAX ? INT32_MAX : c->ssthresh / c->mss;
    o->snd_wnd = c->snd_wnd;
    o->unacked = (out + c->mss - 1) / c->mss;
    o->sacked = c->sacked_bytes / c->mss;
    o->lost = (c->lost_bytes + c->mss - 1) / c->mss;
    o->retransmits = o->backoff = (uint8_t)MIN(c->backoff, 255u);
    o->probes = (uint8_t)MIN(c->keep_probes + c->persist_shift, 255u);
    o->total_retrans = (uint32_t)c->retrans_total;
    o->notsent_bytes = (uint32_t)tce_not_sent(c);
    /* A SYN and a FIN are numbers too, but for the SYN of an end that was called. */
    o->bytes_acked = c->bytes_acked + (c->syn_acked && !c->passive) + c->fin_acked;
    o->bytes_sent = c->bytes_sent;
    o->bytes_retrans = c->bytes_retrans;
    o->segs_out = (uint32_t)c->segs_out;
    o->data_segs_out = (uint32_t)c->data_segs_out;
    o->pacing_rate = UINT64_MAX;
}

static void fill_receiver(const struct tce_conn *c, struct lx_tcp_info *o)
{
    o->rcv_mss = c->rcv_mss ? c->rcv_mss : MIN(c->mss, TCP_MSS_ASSUMED);
    o->rcv_ssthresh = o->rcv_space = c->cfg.rcvbuf;
    o->bytes_received = c->bytes_received + (c->fin_seen && c->rcv_nxt == c->fin_seq + 1);
    o->segs_in = (uint32_t)c->segs_in;
    o->data_segs_in = (uint32_t)c->data_segs_in;
    o->rcv_ooopack = (uint32_t)c->ooo_segs_in;
}

void tce_fill_info(const struct tce_conn *c, struct lx_tcp_info *o, uint64_t now)
{
    memset(o, 0, sizeof(*o));
    o->state = (uint8_t)c->state;
    o->ca_state = c->backoff ? TCP_CA_Loss : c->recovering ? TCP_CA_Recovery : TCP_CA_Open;
    o->options = (uint8_t)((c->ts_ok ? TCPI_OPT_TIMESTAMPS : 0) | (c->sack_ok ? TCPI_OPT_SACK : 0) |
                           (c->snd_scale || c->rcv_scale ? TCPI_OPT_WSCALE : 0));
    o->wscale = (uint8_t)(c->snd_scale | c->rcv_scale << 4);
    o->rto = tcp_in_us(MIN(c->rto_ns << MIN(c->backoff, 20u), TCP_RTO_MAX));
    o->ato = tcp_in_us(TCP_DELACK);
    tcp_rtt_show(&c->rtt, o);
    o->last_data_sent_ms = since_ms(c->data_out_ns, now);
    o->last_data_recv_ms = since_ms(c->data_in_ns, now);
    o->last_ack_recv_ms = since_ms(c->last_in_ns, now);
    o->pmtu = c->cfg.mss + 40;
    o->advmss = c->cfg.mss;
    o->reordering = 3;
    fill_sender(c, o);
    fill_receiver(c, o);
}

size_t tce_unsent(const struct tce_conn *c)
{
    return tce_not_sent(c);
}
