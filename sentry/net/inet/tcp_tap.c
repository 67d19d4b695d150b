/* Segments of loopback connections for packet sockets and the link's counters: between two ends in
 * one sandbox there are none, so each event is shown as the one that it would have been. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <string.h>

#include "base/hash.h"
#include "sentry/net/inet/tcp_priv.h"
#include "sentry/net/packet/packet.h"

#define TAP_TTL 64
#define TAP_WINDOW 65535u
/* What fits a packet of IPv4 or IPv6 with a header of TCP. */
#define TAP_PIECE 65000u

/* The number before a socket's first byte. */
static uint32_t tap_first(const struct tcp_sock *s)
{
    return (uint32_t)hash_seeded_u64(s->i.base.cookie, s->i.local.port);
}

/* Bytes that came to s, and its peer's end when that has been seen. */
static uint32_t tap_got(const struct tcp_sock *s)
{
    return (uint32_t)atomic_load(&s->q.in) + (atomic_load(&s->fin_seen) ? 1 : 0);
}

/* True: somebody wants to see them, too. */
static bool tap_passed(const struct tcp_sock *s, uint64_t packets, uint64_t bytes)
{
    inet_lo_passed(s->i.base.net, s->i.remote.addr.family, packets,
                   packets * sizeof(struct tcphdr) + bytes);
    return packet_listens(s->i.base.net);
}

static void tap(const struct tcp_sock *s, uint8_t flags, uint32_t seq, uint32_t ack,
                const uint8_t *data, size_t size)
{
    struct tcphdr h;

    memset(&h, 0, sizeof(h));
    h.th_sport = htons(s->i.local.port);
    h.th_dport = htons(s->i.remote.port);
    h.th_seq = htonl(seq);
    h.th_ack = htonl(flags & TH_ACK ? ack : 0);
    h.th_off = sizeof(h) / 4;
    h.th_flags = flags;
    h.th_win = htons(TAP_WINDOW);
    const struct packet_loop p = {.src = s->i.local.addr,
                                  .dst = s->i.remote.addr,
                                  .protocol = IPPROTO_TCP,
                                  .ttl = TAP_TTL,
                                  .transport = &h,
                                  .transport_size = sizeof(h),
                                  .data = data,
                                  .size = size};
    packet_tap_loop(s->i.base.net, &p);
}

void tcp_tap_opened(const struct tcp_sock *s, const struct tcp_sock *child)
{
    if (LIKELY(!tap_passed(s, 3, 0)))
        return;
    tap(s, TH_SYN, tap_first(s), 0, NULL, 0);
    tap(child, TH_SYN | TH_ACK, tap_first(child), tap_first(s) + 1, NULL, 0);
    tap(s, TH_ACK, tap_first(s) + 1, tap_first(child) + 1, NULL, 0);
}

void tcp_tap_refused(const struct tcp_sock *s)
{
    struct tcphdr h;

    if (LIKELY(!tap_passed(s, 2, 0)))
        return;
    tap(s, TH_SYN, tap_first(s), 0, NULL, 0);
    memset(&h, 0, sizeof(h));
    h.th_sport = htons(s->i.remote.port);
    h.th_dport = htons(s->i.local.port);
    h.th_ack = htonl(tap_first(s) + 1);
    h.th_off = sizeof(h) / 4;
    h.th_flags = TH_RST | TH_ACK;
    const struct packet_loop p = {.src = s->i.remote.addr,
                                  .dst = s->i.local.addr,
                                  .protocol = IPPROTO_TCP,
                                  .ttl = TAP_TTL,
                                  .transport = &h,
                                  .transport_size = sizeof(h)};
    packet_tap_loop(s->i.base.net, &p);
}

void tcp_tap_data(const struct tcp_sock *s, const struct tcp_sock *p, const uint8_t *data,
                  size_t size)
{
    if (LIKELY(!tap_passed(s, (size + TAP_PIECE - 1) / TAP_PIECE, size)))
        return;
    const uint32_t seq = tap_first(s) + 1 + (uint32_t)atomic_load(&p->q.in);
    const uint32_t ack = tap_first(p) + 1 + tap_got(s);

    for (size_t done = 0; done < size; done += TAP_PIECE)
        tap(s, TH_PUSH | TH_ACK, seq + (uint32_t)done, ack, data + done,
            MIN(size - done, (size_t)TAP_PIECE));
}

void tcp_tap_end(const struct tcp_sock *s, const struct tcp_sock *p)
{
    if (LIKELY(!tap_passed(s, 2, 0)))
        return;
    const uint32_t sent = tap_first(s) + 1 + (uint32_t)atomic_load(&p->q.in);
    tap(s, TH_FIN | TH_ACK, sent, tap_first(p) + 1 + tap_got(s), NULL, 0);
    const uint32_t back = tap_first(p) + 1 + tap_got(s);
    tap(p, TH_ACK, back, sent + 1, NULL, 0);
}

void tcp_tap_reset(const struct tcp_sock *s, const struct tcp_sock *p)
{
    if (LIKELY(!tap_passed(s, 1, 0)))
        return;
    tap(s, TH_RST | TH_ACK, tap_first(s) + 1 + (uint32_t)atomic_load(&p->q.in),
        tap_first(p) + 1 + tap_got(s), NULL, 0);
}
