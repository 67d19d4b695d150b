/* ioctls that every kind of socket takes about links, addresses and routes (netdevice(7)).
 * Depends on: sock.h, ns/netns.h.
 * Threading: any thread; no lock held.
 * Ownership: nothing is kept. */
#ifndef RINGWALL_SENTRY_NET_IFIOCTL_H
#define RINGWALL_SENTRY_NET_IFIOCTL_H

#include "sentry/net/sock.h"

/* -ENOTTY for a command that is not one of these. */
MUST_CHECK int64_t net_ifioctl(struct net *n, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                               const struct vfs_caller *c);

struct netns_link;
/* SIOCETHTOOL of link l; data begins with the command. -EOPNOTSUPP, -EFAULT. */
MUST_CHECK int net_ethtool(const struct netns_link *l, uaddr_t data, const struct uaccess *ua);

#endif
