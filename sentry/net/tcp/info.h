/* What TCP_INFO and NETLINK_SOCK_DIAG give of a connection, as a guest reads it: struct tcp_info of
 * <linux/tcp.h>, which <netinet/tcp.h> knows the first half of.
 * Depends on: nothing.
 * Threading: plain data.
 * Ownership: the caller's. */
#ifndef RINGWALL_SENTRY_NET_TCP_INFO_H
#define RINGWALL_SENTRY_NET_TCP_INFO_H

#include <stddef.h>
#include <stdint.h>

/* Times in us unless the name says ms; _mss and wnd in bytes, windows of the sender in segments. */
struct lx_tcp_info {
    uint8_t state, ca_state, retransmits, probes, backoff, options;
    uint8_t wscale; /* of the sender in the lower half */
    uint8_t flags;
    uint32_t rto, ato, snd_mss, rcv_mss;
    uint32_t unacked, sacked, lost, retrans, fackets; /* segments */
    uint32_t last_data_sent_ms, last_ack_sent_ms, last_data_recv_ms, last_ack_recv_ms; /* ago */
    uint32_t pmtu, rcv_ssthresh, rtt, rttvar, snd_ssthresh, snd_cwnd, advmss, reordering;
    uint32_t rcv_rtt, rcv_space, total_retrans;
    uint64_t pacing_rate, max_pacing_rate, bytes_acked, bytes_received;
    uint32_t segs_out, segs_in, notsent_bytes, min_rtt, data_segs_in, data_segs_out;
    uint64_t delivery_rate, busy_time, rwnd_limited, sndbuf_limited;
    uint32_t delivered, delivered_ce;
    uint64_t bytes_sent, bytes_retrans;
    uint32_t dsack_dups, reord_seen, rcv_ooopack, snd_wnd;
};

_Static_assert(offsetof(struct lx_tcp_info, total_retrans) == 100 &&
                   offsetof(struct lx_tcp_info, delivery_rate) == 160 &&
                   sizeof(struct lx_tcp_info) == 232,
               "layout of Linux 6.1");

#endif
