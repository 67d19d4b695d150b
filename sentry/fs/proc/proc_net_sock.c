/* /proc/<pid>/net: sockets as tables, and counters (proc(5)). */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proc_priv.h"
#include "sentry/net/inet/inet.h"
#include "sentry/net/packet/packet.h"
#include "sentry/net/sock.h"

/* Ticks of USER_HZ. */
#define NS_PER_TICK UINT64_C(10000000)

/* What a row is filled up to; IPv6 rows are not. */
#define TCP_WIDTH 149
#define UDP_WIDTH 127

enum table { TABLE_TCP, TABLE_UDP, TABLE_RAW };

struct sock_text {
    FILE *out;
    int family;
    enum table table;
    unsigned row;
};

/* An address as this machine's words, the way Linux prints them. */
static int put_ep(FILE *out, int family, const struct net_ep *e, uint16_t port)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint32_t w[4] = {0};

    if (family == AF_INET)
        return fprintf(out, "%08X:%04X ", e->addr.v4, port);
    if (e->addr.family == AF_INET) {
        memcpy(w, mapped, sizeof(mapped));
        w[3] = e->addr.v4;
    } else if (e->addr.family == AF_INET6) {
        memcpy(w, e->addr.b, sizeof(w));
    }
    return fprintf(out, "%08X%08X%08X%08X:%04X ", w[0], w[1], w[2], w[3], port);
}

/* Pointers are not shown, as Linux does not to those without privilege. */
static int put_tail(const struct sock_text *x, const struct inet_info *i)
{
    const bool listens = i->state == TCP_LISTEN;

    if (x->table != TABLE_TCP)
        return fprintf(x->out, " %u %016x %" PRIu64, i->refs, 0, i->drops);
    if (i->state == TCP_TIME_WAIT)
        return fprintf(x->out, " %u %016x", i->refs, 0);
    return fprintf(x->out, " %u %016x %u %u %u %u %d", i->refs, 0, listens ? 100 : 20,
                   listens ? 0 : 4, listens ? 0 : 30, 10, listens ? 0 : -1);
}

static int sock_row(void *arg, const struct inet_info *i, struct sock *s)
{
    struct sock_text *x = arg;
    const bool listens = i->state == TCP_LISTEN && x->table == TABLE_TCP;
    const int width = x->family == AF_INET6   ? 0
                      : x->table == TABLE_TCP ? TCP_WIDTH
                      : x->table == TABLE_UDP ? UDP_WIDTH
                                              : 0;

    (void)s;
    int n = fprintf(x->out, x->table == TABLE_UDP ? "%5u: " : "%4u: ", x->row++);
    n += put_ep(x->out, x->family, &i->local, i->local.port);
    n += put_ep(x->out, x->family, &i->remote, i->remote.port);
    n +=
        fprintf(x->out, "%02X %08" PRIX64 ":%08" PRIX64 " %02X:%08" PRIX64 " %08X %5u %8d %" PRIu64,
                (unsigned)i->state, listens ? 0 : i->wqueue, i->rqueue, (unsigned)i->timer,
                i->timer_ns / NS_PER_TICK, i->retransmits, i->uid, 0, i->inode);
    n += put_tail(x, i);
    fprintf(x->out, "%*s\n", n < width ? width - n : 0, "");
    return 0;
}

static int show_table(struct net *n, FILE *out, int family, int protocol, enum table table)
{
    struct sock_text x = {.out = out, .family = family, .table = table};
    const char *names = family == AF_INET6
                            ? "local_address                         remote_address          "
                              "              "
                            : "local_address rem_address   ";
    const char *tail = table != TABLE_TCP ? " ref pointer drops" : "";
    const int pad = family == AF_INET6 ? 0 : table == TABLE_TCP ? 53 : table == TABLE_UDP ? 12 : 0;

    fprintf(out, "%s  sl  %sst tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode%s%*s\n",
            table == TABLE_UDP && family == AF_INET ? " " : "", names, tail, pad, "");
    return inet_for_each(n, family, protocol, sock_row, &x);
}

#define TABLE(name, family, protocol, table)                                                       \
    static int put_##name(struct net *n, FILE *out)                                                \
    {                                                                                              \
        return show_table(n, out, family, protocol, table);                                        \
    }                                                                                              \
    PROC_NET_SHOW(show_##name, put_##name)
TABLE(tcp, AF_INET, IPPROTO_TCP, TABLE_TCP)
TABLE(tcp6, AF_INET6, IPPROTO_TCP, TABLE_TCP)
TABLE(udp, AF_INET, IPPROTO_UDP, TABLE_UDP)
TABLE(udp6, AF_INET6, IPPROTO_UDP, TABLE_UDP)
TABLE(icmp, AF_INET, IPPROTO_ICMP, TABLE_RAW)
TABLE(icmp6, AF_INET6, IPPROTO_ICMPV6, TABLE_RAW)
TABLE(raw, AF_INET, INET_ANY_RAW, TABLE_RAW)
TABLE(raw6, AF_INET6, INET_ANY_RAW, TABLE_RAW)

/* ---- unix ---- */

static int unix_row(void *arg, const struct unix_info *i)
{
    FILE *out = arg;

    fprintf(out, "%016x: %08X %08X %08X %04X %02X %5" PRIu64, 0, i->refs, 0,
            i->listening ? 0x10000u : 0u, (unsigned)i->type, i->connected ? 3u : 1u, i->inode);
    if (i->name_size > 0)
        fprintf(out, " %s%.*s", i->abstract ? "@" : "", (int)i->name_size, i->name);
    fputc('\n', out);
    return 0;
}

static int put_unix(struct net *n, FILE *out)
{
    fputs("Num       RefCount Protocol Flags    Type St Inode Path\n", out);
    return unix_for_each(n, unix_row, out);
}

/* ---- packet ---- */

static void packet_row(void *arg, const struct packet_info *i)
{
    FILE *out = arg;

    fprintf(out, "%016x %-6u %-4d %04x   %-5d %1d %-6u %-6u %-6" PRIu64 "\n", 0, i->refs, i->type,
            i->protocol, i->ifindex, i->running, i->rmem, i->uid, i->inode);
}

static int put_packet(struct net *n, FILE *out)
{
    fputs("sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n", out);
    packet_for_each(n, packet_row, out);
    return 0;
}

/* ---- counters ---- */

static int put_sockstat(struct net *n, FILE *out)
{
    struct inet_counts c;
    int r = inet_counts(n, &c);

    if (r)
        return r;
    fprintf(out,
            "sockets: used %u\n"
            "TCP: inuse %u orphan %u tw %u alloc %u mem %" PRIu64 "\n"
            "UDP: inuse %u mem %" PRIu64 "\nUDPLITE: inuse 0\nRAW: inuse %u\n"
            "FRAG: inuse 0 memory 0\n",
            c.sockets, c.tcp4, c.orphans, c.time_wait, c.tcp_all, c.memory / PAGE_SIZE, c.udp4,
            c.memory / PAGE_SIZE, c.raw4);
    return 0;
}

static int put_sockstat6(struct net *n, FILE *out)
{
    struct inet_counts c;
    int r = inet_counts(n, &c);

    if (r)
        return r;
    fprintf(out,
            "TCP6: inuse %u\nUDP6: inuse %u\nUDPLITE6: inuse 0\nRAW6: inuse %u\n"
            "FRAG6: inuse 0 memory 0\n",
            c.tcp6, c.udp6, c.raw6);
    return 0;
}

static int put_snmp(struct net *n, FILE *out)
{
    struct inet_counts c;
    int r = inet_counts(n, &c);

    if (r)
        return r;
    fprintf(out,
            "Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails "
            "EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors\n"
            "Tcp: 1 200 120000 -1 %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %u %" PRIu64
            " %" PRIu64 " 0 0 %" PRIu64 " 0\n",
            c.active, c.passive, c.failed, c.resets, c.established, c.segments, c.segments,
            c.resets);
    fprintf(out,
            "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors "
            "InCsumErrors IgnoredMulti MemErrors\n"
            "Udp: %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " 0 0 0 0\n",
            c.udp_in, c.udp_no_ports, c.udp_full, c.udp_out, c.udp_full);
    return 0;
}

PROC_NET_SHOW(show_packet, put_packet)
PROC_NET_SHOW(show_snmp, put_snmp)
PROC_NET_SHOW(show_sockstat, put_sockstat)
PROC_NET_SHOW(show_sockstat6, put_sockstat6)
PROC_NET_SHOW(show_unix, put_unix)

const struct proc_entry proc_net_sock_entries[] = {
    {.name = "icmp", .mode = 0444, .show = show_icmp},
    {.name = "icmp6", .mode = 0444, .show = show_icmp6},
    {.name = "packet", .mode = 0444, .show = show_packet},
    {.name = "raw", .mode = 0444, .show = show_raw},
    {.name = "raw6", .mode = 0444, .show = show_raw6},
    {.name = "snmp", .mode = 0444, .show = show_snmp},
    {.name = "sockstat", .mode = 0444, .show = show_sockstat},
    {.name = "sockstat6", .mode = 0444, .show = show_sockstat6},
    {.name = "tcp", .mode = 0444, .show = show_tcp},
    {.name = "tcp6", .mode = 0444, .show = show_tcp6},
    {.name = "udp", .mode = 0444, .show = show_udp},
    {.name = "udp6", .mode = 0444, .show = show_udp6},
    {.name = "unix", .mode = 0444, .show = show_unix},
    {0},
};
