/* Inside host: a socket of the host as a guest's.
 * Depends on: host.h.
 * Threading: the host orders what happens to a descriptor; fields are immutable or atomic.
 * Ownership: a host_sock owns descriptor and watch. */
#ifndef RINGWALL_SENTRY_NET_HOST_HOST_PRIV_H
#define RINGWALL_SENTRY_NET_HOST_HOST_PRIV_H

#include "base/lock.h"
#include "sentry/net/host/broker.h"
#include "sentry/net/host/host.h"
#include "sentry/wait/hostwatch.h"

struct host_net {
    struct mutex mu; /* rank HOST_BROKER: a request and its answer */
    int broker;      /* owned */
    int query;       /* owned; a socket for ioctls about links, or -1; set once under mu */
};

struct host_sock {
    struct sock base;
    int fd;                  /* owned, non-blocking */
    struct hostwatch *watch; /* owned */
    _Atomic bool cut;        /* the host was told to reset on close */
};

static inline struct host_sock *host_sock(struct sock *s)
{
    return container_of(s, struct host_sock, base);
}

/* One request. fd: a descriptor to go along, or -1. out_fd, owned: what came back; NULL: nothing
 * may. Negative errno; -EIO when the broker is gone or does not answer as it should. */
MUST_CHECK int host_ask(struct host_net *h, const struct broker_request *q, int fd, int *out_fd);
/* Sleeps till fd is ready for one of events (hang-ups and errors count). -EAGAIN, -ERESTARTSYS,
 * -EINTR. */
MUST_CHECK int host_wait(struct host_sock *s, uint32_t events, bool nonblock, deadline_t until,
                         uint64_t timeo_ns, const struct vfs_caller *c);

/* host_msg.c */
MUST_CHECK int64_t host_send(struct sock *s, struct sock_msg *m, bool nonblock,
                             const struct vfs_caller *c);
MUST_CHECK int64_t host_recv(struct sock *s, struct sock_msg *m, bool nonblock,
                             const struct vfs_caller *c);
/* host_opt.c */
MUST_CHECK int host_getsockopt(struct sock *s, int level, int name, void *buf, socklen_t *len);
MUST_CHECK int host_setsockopt(struct sock *s, int level, int name, const void *buf, socklen_t len,
                               const struct vfs_caller *c);
MUST_CHECK int64_t host_ioctl(struct sock *s, unsigned cmd, uint64_t arg, const struct uaccess *ua,
                              const struct vfs_caller *c);
/* Its socket for ioctls, made when first asked for. */
MUST_CHECK int host_query_fd(struct host_net *h);

#endif
