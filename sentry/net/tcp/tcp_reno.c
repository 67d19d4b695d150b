/* Reno (RFC 5681): a segment more for each window that went through, half of it after a loss. */
#include "sentry/net/tcp/tcp_priv.h"

void tce_reno_avoid(struct tce_conn *c, uint32_t acked)
{
    /* Bytes are counted, not acknowledgements, which a peer can make many of (RFC 3465). */
    c->reno_acked += MIN(acked, c->cwnd);
    if (c->reno_acked < c->cwnd)
        return;
    c->reno_acked -= c->cwnd;
    c->cwnd = MIN(c->cwnd + c->mss, TCP_CWND_MAX);
}

uint32_t tce_reno_reduce(struct tce_conn *c)
{
    c->reno_acked = 0;
    return MAX(c->cwnd / 2, 2 * c->mss);
}
