/* CUBIC (RFC 9438): the window grows with the time since the last loss, in segments. */
#include "sentry/net/tcp/tcp_priv.h"

#define CUBIC_C 0.4
#define CUBIC_BETA 0.7
/* Additive increase that is fair to Reno: 3 * (1 - beta) / (1 + beta). */
#define CUBIC_ALPHA 0.529

static double cube_root(double x)
{
    double y = x > 1 ? x / 3 : 1;

    for (int i = 0; i < 40; i++)
        y -= (y * y * y - x) / (3 * y * y);
    return y;
}

static double segments(const struct tce_conn *c, uint32_t bytes)
{
    return (double)bytes / (double)c->mss;
}

static void cubic_begin(struct tce_conn *c, double cwnd, uint64_t now)
{
    struct tce_cubic *q = &c->cubic;

    q->epoch_ns = now;
    q->w_est = cwnd;
    if (cwnd < q->w_max) {
        q->k = cube_root((q->w_max - cwnd) / CUBIC_C);
        q->origin = q->w_max;
    } else {
        q->k = 0;
        q->origin = cwnd;
    }
}

static void avoid_congestion(struct tce_conn *c, uint32_t acked, uint64_t now)
{
    struct tce_cubic *q = &c->cubic;
    const double cwnd = segments(c, c->cwnd), n = segments(c, acked);

    if (!q->epoch_ns)
        cubic_begin(c, cwnd, now);
    const double rtt = (double)c->rtt.min_ns / 1e9;
    const double t = (double)(now - q->epoch_ns) / 1e9 + rtt - q->k;
    double target = q->origin + CUBIC_C * t * t * t;
    if (target > cwnd * 1.5)
        target = cwnd * 1.5;
    double next = target > cwnd ? cwnd + (target - cwnd) / cwnd * n : cwnd + n / (100 * cwnd);
    q->w_est += (q->w_est >= q->w_max ? 1.0 : CUBIC_ALPHA) * n / cwnd;
    if (q->w_est > next)
        next = q->w_est;
    if (next > cwnd + n)
        next = cwnd + n;
    const double bytes = next * (double)c->mss;
    c->cwnd = bytes < (double)TCP_CWND_MAX ? (uint32_t)bytes : TCP_CWND_MAX;
}

void tce_cc_ack(struct tce_conn *c, uint32_t acked, uint64_t now)
{
    /* A window that was not used says nothing about the path (RFC 7661). */
    if (!c->cwnd_limited || c->recovering)
        return;
    if (c->cwnd < c->ssthresh) {
        const uint32_t room = c->ssthresh - c->cwnd;
        c->cwnd += MIN(acked, room);
        c->cwnd = MIN(c->cwnd, TCP_CWND_MAX);
        return;
    }
    if (c->cfg.reno)
        tce_reno_avoid(c, acked);
    else
        avoid_congestion(c, acked, now);
}

uint32_t tce_cc_reduce(struct tce_conn *c)
{
    struct tce_cubic *q = &c->cubic;
    const double cwnd = segments(c, c->cwnd);

    if (c->cfg.reno)
        return tce_reno_reduce(c);
    /* Fast convergence: a loss below the last one's window leaves room for others. */
    q->w_max = cwnd < q->w_max ? cwnd * (1 + CUBIC_BETA) / 2 : cwnd;
    q->epoch_ns = 0;
    const uint32_t next = (uint32_t)(cwnd * CUBIC_BETA * (double)c->mss);
    return MAX(next, 2 * c->mss);
}

/* After a pause longer than the RTO the window says little (RFC 5681, 4.1). */
void tce_cc_idle(struct tce_conn *c)
{
    c->cwnd = MIN(c->cwnd, MAX(c->cwnd / 2, TCP_INIT_CWND * c->mss));
    c->cubic.epoch_ns = 0;
}
