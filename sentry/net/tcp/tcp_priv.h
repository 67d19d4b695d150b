/* Inside tcp: constants and what its files share.
 * Depends on: tcp.h.
 * Threading: as tcp.h.
 * Ownership: as tcp.h. */
#ifndef RINGWALL_SENTRY_NET_TCP_TCP_PRIV_H
#define RINGWALL_SENTRY_NET_TCP_TCP_PRIV_H

#include "sentry/net/tcp/tcp.h"

#define MS UINT64_C(1000000)
#define SEC UINT64_C(1000000000)

#define TCP_MSS_MIN 88u
#define TCP_MSS_ASSUMED 536u
#define TCP_INIT_CWND 10u
#define TCP_CWND_MAX (32u << 20)
#define TCP_RTO_INIT (1 * SEC)
#define TCP_RTO_MIN (200 * MS)
#define TCP_RTO_MAX (120 * SEC)
#define TCP_DELACK (40 * MS)
#define TCP_CORK_TIME (200 * MS)
#define TCP_TIME_WAIT (60 * SEC)
#define TCP_RETRIES 15u /* tcp_retries2 */
#define TCP_ORPHAN_RETRIES 8u
#define TCP_SYNACK_RETRIES 5u
#define TCP_PAWS_AGE (24 * 24 * 3600 * SEC)
/* Growth stops here (tcp_rmem, tcp_wmem). */
#define TCP_RCVBUF_MAX (6u << 20)
#define TCP_SNDBUF_MAX (4u << 20)
/* Payload of one segment handed to the link to be cut. */
#define TCP_GSO_MAX 64000u
/* Pieces of the send queue that are told apart; more wait. */
#define TCP_CHUNKS_MAX 8192u
/* Answers to segments that do not fit, per second (RFC 5961). */
#define TCP_CHALLENGES 100u

static inline bool seq_lt(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}
static inline bool seq_leq(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) <= 0;
}
static inline uint32_t seq_max(uint32_t a, uint32_t b)
{
    return seq_lt(a, b) ? b : a;
}
static inline uint32_t seq_min(uint32_t a, uint32_t b)
{
    return seq_lt(a, b) ? a : b;
}

/* Segments on the wire that so many bytes make, a bare one included. */
static inline uint32_t tce_segments(const struct tce_conn *c, size_t size)
{
    return size <= c->mss ? 1 : (uint32_t)((size + c->mss - 1) / c->mss);
}

/* tcp_out.c */
void tce_output(struct tce_conn *c, uint64_t now);
void tce_send_ack(struct tce_conn *c, uint64_t now);
/* An ACK that anybody can provoke: so many a second. */
void tce_challenge(struct tce_conn *c, uint64_t now);
void tce_send_rst(struct tce_conn *c, uint64_t now);
void tce_send_syn(struct tce_conn *c, uint64_t now);
/* One byte or none beyond the window, to be answered. */
void tce_send_probe(struct tce_conn *c, uint64_t now);
/* Sends a chunk again; false: it did not go out. */
bool tce_resend(struct tce_conn *c, struct tce_chunk *ch, uint64_t now);
uint32_t tce_rcv_space(const struct tce_conn *c);
void tce_maybe_window_update(struct tce_conn *c, uint64_t now);
/* Bytes in the send queue that were never sent. */
size_t tce_not_sent(const struct tce_conn *c);

/* tcp_chunk.c */
struct tce_chunk *tce_chunk_add(struct tce_conn *c, uint32_t seq, uint32_t end, uint64_t now);
/* Cuts ch in two at seq, which lies inside. False without memory. */
bool tce_chunk_split(struct tce_conn *c, struct tce_chunk *ch, uint32_t seq);
void tce_chunk_free(struct tce_conn *c, struct tce_chunk *ch);
void tce_chunk_mark_lost(struct tce_conn *c, struct tce_chunk *ch);
void tce_chunk_mark_sacked(struct tce_conn *c, struct tce_chunk *ch);
void tce_chunk_mark_resent(struct tce_conn *c, struct tce_chunk *ch, uint64_t now);
void tce_chunks_all_lost(struct tce_conn *c);

/* tcp_ack.c */
void tce_ack(struct tce_conn *c, const struct tce_in *in, uint64_t now);
/* Looks for losses by time; arms the reordering timer. */
void tce_detect_loss(struct tce_conn *c, uint64_t now);
void tce_rtt_sample(struct tce_conn *c, uint64_t rtt_ns);

/* tcp_reno.c */
void tce_reno_avoid(struct tce_conn *c, uint32_t acked);
uint32_t tce_reno_reduce(struct tce_conn *c);

/* tcp_cubic.c: both kinds of congestion control, CUBIC itself */
void tce_cc_ack(struct tce_conn *c, uint32_t acked, uint64_t now);
/* A loss: the new slow-start threshold. */
uint32_t tce_cc_reduce(struct tce_conn *c);
void tce_cc_idle(struct tce_conn *c);

/* tcp_recv.c */
void tce_data(struct tce_conn *c, const struct tce_in *in, uint64_t now);
unsigned tce_fill_sacks(const struct tce_conn *c, struct tce_range out[TCP_SACK_MAX]);

/* tcp_conn.c */
void tce_set_state(struct tce_conn *c, enum tce_state s, uint64_t now);
/* It is over: error 0 or a negative errno for the user. */
void tce_end(struct tce_conn *c, int error);
void tce_take_syn_options(struct tce_conn *c, const struct tce_opts *o);
void tce_established(struct tce_conn *c, uint64_t now);

/* tcp_urgent.c */
static inline bool tce_sends_urgent(const struct tce_conn *c)
{
    return seq_lt(c->snd_una, c->snd_up);
}
/* Of a segment; 0: it has none. */
uint16_t tce_urgent_pointer(const struct tce_conn *c, uint32_t seq, size_t size);
/* Before the segment's data is taken. */
void tce_take_urgent(struct tce_conn *c, const struct tce_in *in);
/* 1: the next byte is urgent and a read passes over it. */
size_t tce_urgent_hole(const struct tce_conn *c);
/* How much of size bytes from off on comes before the mark; all when that is at off. */
size_t tce_before_mark(const struct tce_conn *c, size_t off, size_t size);
/* Bytes were taken: forgets a mark that lies behind. */
void tce_past_mark(struct tce_conn *c);

/* Room enough in the send buffer to tell of. */
bool tce_is_writable(const struct tce_conn *c);

/* tcp_timer.c */
void tce_arm_rto(struct tce_conn *c, uint64_t now);
void tce_arm_probe(struct tce_conn *c, uint64_t now);

#endif
