/* What is known of a path's round-trip time (RFC 6298).
 * Depends on: info.h.
 * Threading: the caller's lock. Ownership: none; zeros are a path of which nothing is known. */
#ifndef RINGWALL_SENTRY_NET_TCP_RTT_H
#define RINGWALL_SENTRY_NET_TCP_RTT_H

#include <stdint.h>

#include "base/compiler.h"
#include "sentry/net/tcp/info.h"

struct tcp_rtt {
    uint64_t smooth_ns, var_ns, min_ns; /* 0: no sample yet */
};

static inline void tcp_rtt_sample(struct tcp_rtt *t, uint64_t rtt_ns)
{
    const uint64_t rtt = MAX(rtt_ns, (uint64_t)1);

    if (t->smooth_ns == 0) {
        *t = (struct tcp_rtt){rtt, rtt / 2, rtt};
        return;
    }
    const uint64_t diff = t->smooth_ns > rtt ? t->smooth_ns - rtt : rtt - t->smooth_ns;
    t->min_ns = MIN(t->min_ns, rtt);
    t->var_ns = (3 * t->var_ns + diff) / 4;
    t->smooth_ns = (7 * t->smooth_ns + rtt) / 8;
}

static inline uint32_t tcp_in_us(uint64_t ns)
{
    return (uint32_t)(MIN(ns, UINT32_MAX * UINT64_C(1000)) / 1000);
}

/* As Linux shows it: a sample is at least 1 us, the smallest of none is all ones. */
static inline void tcp_rtt_show(const struct tcp_rtt *t, struct lx_tcp_info *out)
{
    out->rtt = t->smooth_ns ? MAX(tcp_in_us(t->smooth_ns), 1u) : 0;
    out->rttvar = tcp_in_us(t->var_ns);
    out->min_rtt = t->min_ns ? MAX(tcp_in_us(t->min_ns), 1u) : UINT32_MAX;
}

#endif
