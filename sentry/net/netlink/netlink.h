/* AF_NETLINK sockets (netlink(7)): NETLINK_ROUTE, NETLINK_KOBJECT_UEVENT, NETLINK_SOCK_DIAG.
 * Depends on: sock.h, ns/netns.h.
 * Threading: any thread.
 * Ownership: one nl_table per network namespace; it holds weak pointers to its sockets. */
#ifndef RINGWALL_SENTRY_NET_NETLINK_NETLINK_H
#define RINGWALL_SENTRY_NET_NETLINK_NETLINK_H

#include "sentry/net/sock.h"

struct netns;
struct nl_table;

/* Listens to changes of ns from here on, so ns has no second thread yet. Owned result. */
MUST_CHECK int netlink_new(struct net *n, struct netns *ns, struct nl_table **out_table);
/* No socket is left. NULL is allowed. */
void netlink_free(struct nl_table *t);
/* socket(2). Owned result. -ESOCKTNOSUPPORT, -EPROTONOSUPPORT. */
MUST_CHECK int netlink_create(struct net *n, int family, int type, int protocol,
                              const struct vfs_caller *c, struct sock **out_sock);

/* A message from the kernel for s alone, whatever it speaks; one that has no room for it loses it,
 * as with any notice. Takes locks of rank NETLINK_SOCK. */
void netlink_tell(struct sock *s, const void *data, size_t size);

/* A row of /proc/net/netlink. fn runs under the table's lock. */
struct nl_info {
    int protocol;
    uint32_t portid, groups;
    uint64_t queued, drops, inode;
    bool dumping;
};
typedef void (*nl_info_fn)(void *arg, const struct nl_info *i);
void netlink_for_each(struct nl_table *t, nl_info_fn fn, void *arg);

#endif
