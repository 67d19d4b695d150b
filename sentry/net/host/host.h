/* Sockets of the host's network for --network=host: AF_INET, AF_INET6 and NETLINK_ROUTE of the
 * sandbox's own network namespace are then sockets of the host, which a broker process makes and
 * binds and the sentry uses.
 * Depends on: sock.h, wait/hostwatch.h.
 * Threading: any thread. One request to the broker at a time.
 * Ownership: a host_net belongs to its struct net; each socket owns its descriptor. */
#ifndef RINGWALL_SENTRY_NET_HOST_HOST_H
#define RINGWALL_SENTRY_NET_HOST_HOST_H

#include "sentry/net/sock.h"

struct host_net;

/* Takes fd, the connection to the broker, on success. */
MUST_CHECK int host_net_new(int fd, struct host_net **out);
/* No socket is left. NULL is allowed. */
void host_net_free(struct host_net *h);
/* Whether sockets of that family and protocol are the host's. */
bool host_net_serves(int family, int protocol);
/* socket(2) in a namespace that has a host_net. Owned result. */
MUST_CHECK int host_create(struct net *n, int family, int type, int protocol,
                           const struct vfs_caller *c, struct sock **out_sock);
/* A socket of the host that somebody else has made and connected. Takes fd, on failure too. Owned
 * result. */
MUST_CHECK int host_adopt(struct net *n, int family, int type, int fd, struct sock **out_sock);
/* An ioctl about links by a socket that is not the host's. -ENOTTY: not one that is known. */
MUST_CHECK int64_t host_ifioctl(struct net *n, unsigned cmd, uint64_t arg,
                                const struct uaccess *ua);

#endif
