/* What routing asks of addresses beyond sentry/net/addr.h.
 * Depends on: addr.h.
 * Threading: values.
 * Ownership: none. */
#ifndef RINGWALL_SENTRY_NET_NS_PREFIX_H
#define RINGWALL_SENTRY_NET_NS_PREFIX_H

#include <stddef.h>

#include "sentry/net/addr.h"

/* net: in network byte order. */
struct net_addr net_addr_v4(uint32_t net);
struct net_addr net_addr_v6(const void *bytes);
/* size 4 or 16 must fit the family; otherwise an address of family 0 comes out. */
struct net_addr net_addr_from(unsigned family, const void *bytes, size_t size);
/* 4, 16 or 0 bytes; 32, 128 or 0 bits. */
size_t net_addr_size(unsigned family);
unsigned net_addr_bits(unsigned family);
/* 169.254/16 or fe80::/10. */
bool net_addr_is_linklocal(const struct net_addr *a);
/* 255.255.255.255. */
bool net_addr_is_limited_broadcast(const struct net_addr *a);
/* How many leading bits two addresses of one family share. */
unsigned net_addr_common_bits(const struct net_addr *a, const struct net_addr *b);
/* Both of one family, and their first bits bits are the same. */
bool net_addr_in_prefix(const struct net_addr *a, const struct net_addr *prefix, unsigned bits);
/* Clears what lies behind the first bits bits. */
void net_addr_mask(struct net_addr *a, unsigned bits);

#endif
