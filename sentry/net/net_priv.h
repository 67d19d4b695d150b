/* Inside net: the namespace object and the AF_UNIX family.
 * Depends on: sock.h.
 * Threading: net's tables are guarded by its own lock (rank LEAF).
 * Ownership: net holds weak pointers to sockets bound to abstract names. */
#ifndef RINGWALL_SENTRY_NET_NET_PRIV_H
#define RINGWALL_SENTRY_NET_NET_PRIV_H

#include "base/list.h"
#include "base/lock.h"
#include "sentry/net/sock.h"

#define UNIX_HASH_SIZE 256

struct net {
    struct mutex mu; /* rank LEAF: guards the rest */
    struct list abstract[UNIX_HASH_SIZE];
    uint32_t next_autobind;
    size_t scm_inflight; /* descriptors in unread messages */
};

MUST_CHECK int unix_create(struct net *n, int type, int protocol, const struct vfs_caller *c,
                           struct sock **out_sock);
MUST_CHECK int unix_create_pair(struct net *n, int type, int protocol, const struct vfs_caller *c,
                                struct sock *out_pair[2]);

/* Charges descriptors that go into a message: -ETOOMANYREFS at LIMIT_SCM_INFLIGHT. */
MUST_CHECK int net_charge_files(struct net *n, size_t count);
void net_uncharge_files(struct net *n, size_t count);

#endif
