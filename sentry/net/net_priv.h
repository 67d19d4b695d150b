/* Inside net: the namespace object and what the families share with it.
 * Depends on: sock.h.
 * Threading: net's tables are guarded by its own lock (rank LEAF).
 * Ownership: net holds weak pointers to sockets bound to abstract names and to those in flight. */
#ifndef RINGWALL_SENTRY_NET_NET_PRIV_H
#define RINGWALL_SENTRY_NET_NET_PRIV_H

#include "base/list.h"
#include "base/lock.h"
#include "sentry/net/inet/inet.h"
#include "sentry/net/settings.h"
#include "sentry/net/sock.h"
#include "sentry/wait/procref.h"

#define UNIX_HASH_SIZE 256

/* What socket(2) calls for one address family. */
struct sock_family {
    int family;
    MUST_CHECK int (*create)(struct net *n, int family, int type, int protocol,
                             const struct vfs_caller *c, struct sock **out_sock);
    /* NULL: -EOPNOTSUPP. */
    MUST_CHECK int (*create_pair)(struct net *n, int type, int protocol, const struct vfs_caller *c,
                                  struct sock *out_pair[2]);
};

struct net {
    struct ref ref;              /* one per socket, and of who made it */
    struct user_ns *owner;       /* immutable, owned; NULL: the sandbox's */
    struct inet *inet;           /* immutable, owned */
    struct netns *ns;            /* immutable, owned */
    struct nl_table *netlink;    /* immutable, owned */
    struct ext_stack *ext;       /* immutable, owned */
    struct packet_table *packet; /* immutable, owned */
    struct host_net *host;       /* immutable, owned; NULL but with --network=host */
    struct net_settings settings;
    _Atomic uint64_t next_cookie;
    struct mutex mu;                      /* rank LEAF: guards the rest */
    struct list abstract[UNIX_HASH_SIZE]; /* unix_name.hash */
    uint32_t next_autobind;
    struct list unix_all;   /* unix_sock.all */
    size_t inflight_files;  /* descriptors in unread messages */
    size_t in_flight_count; /* its length */
    size_t skipped;         /* closed sockets since garbage was looked for */
    struct list in_flight;  /* unix_sock.flight: sockets among them */
    struct list drop;       /* unix_msg.node: messages whose files are to be put */
    bool dropping;          /* somebody is at it */
    bool collecting;        /* somebody looks for garbage */
};

MUST_CHECK int unix_create(struct net *n, int family, int type, int protocol,
                           const struct vfs_caller *c, struct sock **out_sock);
MUST_CHECK int unix_create_pair(struct net *n, int type, int protocol, const struct vfs_caller *c,
                                struct sock *out_pair[2]);

#endif
