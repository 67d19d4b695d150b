/* Socket filters: programs that say which packets a socket takes and how much of each
 * (SO_ATTACH_FILTER, socket(7); Documentation/networking/filter.rst of the kernel).
 * Depends on: sock.h, sentry/bpf.
 * Threading: any thread; a program is replaced under the namespace's lock (rank LEAF) and runs
 * without one.
 * Ownership: a socket holds its program; who runs it holds it meanwhile. */
#ifndef RINGWALL_SENTRY_NET_FILTER_H
#define RINGWALL_SENTRY_NET_FILTER_H

#include <linux/filter.h>

#include "sentry/net/sock.h"

/* A packet as a filter sees it: two pieces, of which either may be empty. */
struct sock_frame {
    const uint8_t *head, *data;
    size_t head_size, size;
    const uint8_t *link, *net; /* SKF_LL_OFF, SKF_NET_OFF; NULL: none */
    size_t link_size, net_size;
    uint16_t protocol, hatype; /* ETH_P_*, ARPHRD_* */
    uint8_t pkttype;           /* PACKET_* */
    int32_t ifindex;
    uint32_t mark;
};

/* Checks and copies the program. -EINVAL, -ENOMEM, -EPERM (SO_LOCK_FILTER), -ENOPROTOOPT (TCP,
 * whose connections inside a sandbox have no packets; sockets of the host). */
MUST_CHECK int sock_filter_attach(struct sock *s, const struct sock_filter *insns, size_t count);
/* -ENOENT, -EPERM. */
MUST_CHECK int sock_filter_detach(struct sock *s);
/* The program, for SO_GET_FILTER: its count, 0 when there is none. insns NULL: only that. -EINVAL
 * when max is too small. */
MUST_CHECK int sock_filter_get(struct sock *s, struct sock_filter *insns, size_t max);
/* Bytes that s takes of f: 0 drops it, more than its size is all. */
uint32_t sock_filter_run(struct sock *s, const struct sock_frame *f);
/* s is released. */
void sock_filter_fini(struct sock *s);

#endif
