/* The TCP engine: one connection as a state machine that sees segments, calls and a clock, and
 * nothing else (RFC 9293, 7323, 2018, 6298, 5681, 8985, 9438).
 * Depends on: base, ring.h.
 * Threading: none of its own; whoever embeds a tce_conn locks it. Time is given by the caller, so
 * tests run on a clock of their own.
 * Ownership: a tce_conn is embedded in its owner's object; tce_fini frees what it allocated. */
#ifndef RINGWALL_SENTRY_NET_TCP_TCP_H
#define RINGWALL_SENTRY_NET_TCP_TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/list.h"
#include "sentry/net/tcp/info.h"
#include "sentry/net/tcp/ring.h"
#include "sentry/net/tcp/rtt.h"

/* Numbers as <netinet/tcp.h> has them, which /proc/net/tcp shows. */
enum tce_state {
    TCP_S_ESTABLISHED = 1,
    TCP_S_SYN_SENT,
    TCP_S_SYN_RCVD,
    TCP_S_FIN_WAIT1,
    TCP_S_FIN_WAIT2,
    TCP_S_TIME_WAIT,
    TCP_S_CLOSED,
    TCP_S_CLOSE_WAIT,
    TCP_S_LAST_ACK,
    TCP_S_LISTEN,
    TCP_S_CLOSING,
};

#define TCP_F_FIN 0x01u
#define TCP_F_SYN 0x02u
#define TCP_F_RST 0x04u
#define TCP_F_PSH 0x08u
#define TCP_F_ACK 0x10u
#define TCP_F_URG 0x20u

#define TCP_SACK_MAX 4
#define TCP_NEVER UINT64_MAX

struct tce_range {
    uint32_t start, end; /* sequence numbers, end exclusive */
};

/* The options of a segment. */
struct tce_opts {
    uint16_t mss;   /* 0: not given */
    uint8_t wscale; /* with has_wscale */
    bool has_wscale, sack_ok, has_ts;
    uint32_t ts_val, ts_ecr;
    uint8_t sack_count;
    struct tce_range sack[TCP_SACK_MAX];
};

/* A segment that came in; data is borrowed for the call. */
struct tce_in {
    uint32_t seq, ack;
    uint16_t window;
    uint16_t urgent; /* with TCP_F_URG */
    uint8_t flags;   /* TCP_F_* */
    struct tce_opts o;
    const uint8_t *data;
    size_t size;
};

/* A segment to send. Longer than mss: to be cut by whoever sends it. */
struct tce_out {
    uint32_t seq, ack;
    uint16_t window;
    uint16_t urgent; /* with TCP_F_URG */
    uint8_t flags;
    struct tce_opts o;
    const struct iovec *data; /* borrowed for the call */
    int pieces;
    size_t size;
    uint32_t mss;
};

struct tce_conn;
struct tce_ops {
    /* false: it did not go out now; TCP treats that as a loss. */
    bool (*output)(struct tce_conn *c, const struct tce_out *o);
    /* EPOLL* bits that may have changed; 0: any. */
    void (*event)(struct tce_conn *c, uint32_t events);
    /* The three-way handshake of an incoming connection is complete. */
    void (*established)(struct tce_conn *c);
};

/* What was sent and not yet acknowledged, in order. */
struct tce_chunk {
    struct list node;
    uint32_t seq, end; /* SYN and FIN count one */
    uint64_t sent_ns;
    uint64_t delivered; /* tce_conn.delivered when it was sent */
    bool sacked, lost, resent;
};

struct tce_cubic {
    double w_max, k, origin;
    uint64_t epoch_ns; /* 0: no epoch */
    double w_est;
};

struct tce_config {
    uint32_t mss;            /* that the path takes: payload with no options */
    uint32_t sndbuf, rcvbuf; /* largest; with the flags below they may grow to the bounds */
    bool sndbuf_fixed, rcvbuf_fixed;
    uint32_t notsent_lowat; /* bytes that may wait to be sent; 0: as many as the buffer takes */
    uint32_t window_clamp;  /* no larger window is offered; 0: any */
    bool nodelay, cork, keepalive;
    bool reno;       /* controls congestion; else CUBIC does */
    bool oob_inline; /* urgent bytes stay in the stream */
    uint64_t keep_idle_ns, keep_intvl_ns;
    unsigned keep_count, syn_retries;
    uint64_t user_timeout_ns; /* 0: none */
    uint64_t fin_wait2_ns;
};

enum tce_urgent { TCE_URGENT_NONE, TCE_URGENT_EXPECTED, TCE_URGENT_VALID, TCE_URGENT_READ };

struct tce_conn {
    const struct tce_ops *ops;
    struct tce_config cfg;
    enum tce_state state;
    int error;         /* negative errno that ended it; kept */
    bool passive;      /* it began with a SYN of the peer's */
    bool simultaneous; /* both sent a SYN: ours is repeated with an ACK */
    bool orphan;       /* no user: it goes away by itself */
    bool dead;         /* CLOSED for good; the owner drops it */

    /* sending */
    struct ring out; /* from snd_una on (a SYN or FIN is not in it) */
    uint32_t iss, snd_una, snd_nxt, snd_wnd, snd_wl1, snd_wl2, max_wnd;
    uint32_t snd_up; /* behind the last urgent byte, which matters till it is acknowledged */
    bool fin_queued, fin_sent, fin_acked, syn_acked;
    uint32_t mss; /* payload of a full segment with the usual options */
    uint8_t snd_scale, rcv_scale;
    bool ts_ok, sack_ok;
    struct list sent; /* tce_chunk.node */
    size_t chunk_count;
    uint32_t in_flight; /* bytes sent, not acknowledged, not sacked, not lost */
    uint32_t lost_bytes, sacked_bytes;

    /* receiving */
    struct ring in; /* from the first unread byte on; what is out of order lies behind */
    uint32_t irs, rcv_nxt, rcv_adv; /* rcv_adv: right edge of the window we told */
    uint32_t ts_recent;
    uint64_t ts_recent_ns;
    struct tce_range ooo[32]; /* sorted, disjoint */
    unsigned ooo_count;
    uint32_t ooo_latest; /* where the newest piece begins */
    bool fin_seen, rd_shut;
    uint32_t fin_seq;
    unsigned ack_pending; /* bytes of data not acknowledged */
    bool ack_now;
    enum tce_urgent urgent;
    uint8_t urgent_byte;
    uint32_t urgent_seq;               /* of the urgent byte */
    uint64_t rcv_copied, rcv_epoch_ns; /* how fast the reader is: lets the buffer grow */

    /* congestion and loss */
    uint32_t cwnd, ssthresh;
    struct tce_cubic cubic;
    uint32_t reno_acked; /* bytes of this window that went through */
    bool recovering;
    uint32_t recover; /* snd_nxt when recovery began */
    unsigned dupacks, backoff;
    struct tcp_rtt rtt;
    uint64_t rto_ns;
    struct {
        uint64_t sent_ns, rtt_ns;
        uint32_t end;
        bool reordering;
        uint32_t fack;
    } rack;
    uint64_t delivered;
    bool cwnd_limited;

    /* timers: absolute ns or TCP_NEVER */
    uint64_t t_rto, t_probe, t_ack, t_reorder, t_persist, t_keep, t_end;
    bool tlp_done;
    unsigned keep_probes, persist_shift;
    uint64_t last_in_ns, stalled_ns; /* stalled: since when nothing sent was acknowledged */
    uint64_t challenge_ns;
    unsigned challenges;

    /* counted for lx_tcp_info: bytes, segments as they are on the wire */
    uint64_t bytes_acked, bytes_received, bytes_sent, bytes_retrans;
    uint64_t segs_in, segs_out, retrans_total, data_segs_in, data_segs_out, ooo_segs_in;
    uint64_t data_in_ns, data_out_ns; /* when the last one with bytes came, or went */
    uint32_t rcv_mss;                 /* largest segment that came */
};

/* mss and buffers from cfg; nothing is sent. */
void tce_init(struct tce_conn *c, const struct tce_ops *ops, const struct tce_config *cfg);
void tce_fini(struct tce_conn *c);
/* Active open: sends the SYN. */
void tce_connect(struct tce_conn *c, uint32_t iss, uint64_t now);
/* Passive open from a peer's SYN: sends the SYN with an ACK. */
void tce_accept(struct tce_conn *c, const struct tce_in *syn, uint32_t iss, uint64_t now);
/* Passive open from the ACK that answers a SYN cookie. */
void tce_accept_cookie(struct tce_conn *c, const struct tce_in *ack, uint32_t mss, uint64_t now);
void tce_input(struct tce_conn *c, const struct tce_in *in, uint64_t now);
/* Runs whatever is due. */
void tce_timers(struct tce_conn *c, uint64_t now);
uint64_t tce_next_timer(const struct tce_conn *c);
/* The path takes less than was thought. */
void tce_set_mss(struct tce_conn *c, uint32_t mss, uint64_t now);
/* An ICMP error, negative errno: ends a connection that is not established yet. */
void tce_unreachable(struct tce_conn *c, int error);

#define TCE_MORE 1u   /* a short segment may wait */
#define TCE_URGENT 2u /* the last byte is urgent */
MUST_CHECK int64_t tce_write(struct tce_conn *c, struct uio *u, unsigned flags, uint64_t now);
/* peek_off < 0: takes what it copies. */
MUST_CHECK int64_t tce_read(struct tce_conn *c, struct uio *u, int64_t peek_off, uint64_t now);
MUST_CHECK int tce_shutdown(struct tce_conn *c, bool rd, bool wr, uint64_t now);
/* The user goes: what is left happens without it. */
void tce_close(struct tce_conn *c, bool abort, uint64_t now);
void tce_abort(struct tce_conn *c, int error, uint64_t now);
void tce_reconfigure(struct tce_conn *c, const struct tce_config *cfg, uint64_t now);
uint32_t tce_poll_events(const struct tce_conn *c);
size_t tce_readable(const struct tce_conn *c);
/* Those of them that a read gives before the mark. */
size_t tce_inq(const struct tce_conn *c);
/* The byte that off more bytes lie before is the urgent one. */
bool tce_at_mark(const struct tce_conn *c, size_t off);
/* The urgent byte: 1; 0 at the end; -EINVAL: there is none, or it stays in the stream; -EAGAIN. */
MUST_CHECK int tce_read_urgent(struct tce_conn *c, bool peek, uint8_t *out);
/* Bytes that were never sent. */
size_t tce_unsent(const struct tce_conn *c);
void tce_fill_info(const struct tce_conn *c, struct lx_tcp_info *out, uint64_t now);

/* Headers as bytes. size is what there is from the first byte of the header on; on success
 * *out_header is the header's length. -EINVAL. */
MUST_CHECK int tce_parse(const uint8_t *p, size_t size, uint16_t *sport, uint16_t *dport,
                         struct tce_in *out, size_t *out_header);
#define TCP_HEADER_MAX 60u
/* The header with its options, checksum 0: its length. */
size_t tce_build(uint8_t out[TCP_HEADER_MAX], uint16_t sport, uint16_t dport,
                 const struct tce_out *o);

#endif
