/* Internet addresses as the network's rooms pass them to each other.
 * Depends on: base.
 * Threading: values.
 * Ownership: none. */
#ifndef RINGWALL_SENTRY_NET_ADDR_H
#define RINGWALL_SENTRY_NET_ADDR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

/* family 0: none given. Unused bytes are zero, so that addresses compare as memory. A v4-mapped
 * address of an AF_INET6 socket is AF_INET here. */
struct net_addr {
    uint16_t family; /* AF_INET, AF_INET6 or 0 */
    uint16_t zero;
    union {
        uint8_t b[16];
        uint32_t v4; /* network order */
    };
};

/* One end of a transport: address, port in host order, and the link for scoped addresses (0: any).
 */
struct net_ep {
    struct net_addr addr;
    uint16_t port, zero;
    uint32_t ifindex;
};

static inline bool net_addr_equal(const struct net_addr *a, const struct net_addr *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* INADDR_ANY, in6addr_any, or none at all. */
static inline bool net_addr_is_any(const struct net_addr *a)
{
    static const uint8_t zero[16];

    return memcmp(a->b, zero, sizeof(zero)) == 0;
}

/* 224.0.0.0/4, ff00::/8. */
static inline bool net_addr_is_multicast(const struct net_addr *a)
{
    return a->family == AF_INET ? (a->b[0] & 0xf0) == 0xe0 : a->b[0] == 0xff;
}

/* 127.0.0.0/8, ::1. */
static inline bool net_addr_is_loopback(const struct net_addr *a)
{
    static const uint8_t one[16] = {[15] = 1};

    return a->family == AF_INET ? a->b[0] == 127 : memcmp(a->b, one, sizeof(one)) == 0;
}

#endif
