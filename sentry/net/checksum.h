/* The Internet checksum (RFC 1071), in network order.
 * Depends on: net/addr.h.
 * Threading: values.
 * Ownership: none. */
#ifndef RINGWALL_SENTRY_NET_CHECKSUM_H
#define RINGWALL_SENTRY_NET_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "sentry/net/addr.h"

uint32_t csum_add(uint32_t sum, const void *data, size_t size);
/* Of pieces that may be of odd length. */
uint32_t csum_iov(uint32_t sum, const struct iovec *iov, int count);
/* What goes into a header. */
uint16_t csum_fold(uint32_t sum);
/* Of the pseudo header of a transport with size bytes. */
uint32_t csum_pseudo(const struct net_addr *src, const struct net_addr *dst, uint8_t protocol,
                     size_t size);

#endif
