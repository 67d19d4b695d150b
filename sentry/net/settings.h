/* What /proc/sys/net sets for a network namespace (ip-sysctl of the kernel's documentation).
 * Depends on: base.
 * Threading: each value is atomic and stands alone, but for ranges, whose two ends are one value.
 * Ownership: part of struct net. */
#ifndef RINGWALL_SENTRY_NET_SETTINGS_H
#define RINGWALL_SENTRY_NET_SETTINGS_H

#include <stdatomic.h>
#include <stdint.h>

struct net;

struct net_settings {
    _Atomic uint32_t somaxconn;         /* longest queue of a listening socket */
    _Atomic uint32_t max_dgram_qlen;    /* packets in a queue of AF_UNIX */
    _Atomic uint64_t port_range;        /* for sockets that name none: first << 32 | last */
    _Atomic uint64_t ping_groups;       /* who may have ICMP echo sockets: first << 32 | last */
    _Atomic uint32_t unprivileged_port; /* the first that needs no CAP_NET_BIND_SERVICE */
    _Atomic uint32_t ttl, nonlocal_bind;
    _Atomic uint32_t keepalive_time, keepalive_intvl, fin_timeout; /* s */
    _Atomic uint32_t keepalive_probes, syn_retries;
};

struct net_settings *net_settings(struct net *n);

#endif
