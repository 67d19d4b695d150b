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
/* A call that the host says is too early. What it says of the socket's readiness is not looked at:
 * an error that is only queued stays, and makes no call succeed. */
struct host_waiting {
    struct waiter w;
    bool listens;
};

/* After the host has said EAGAIN: 0, the call is to be made again, since something may have
 * happened to the socket, of events or a hang-up or an error. -EAGAIN: nobody waits; -ERESTARTSYS,
 * -EINTR. hw is zero at first, and ended afterwards. */
MUST_CHECK int host_wait(struct host_waiting *hw, struct host_sock *s, uint32_t events,
                         bool nonblock, deadline_t until, uint64_t timeo_ns,
                         const struct vfs_caller *c);
void host_wait_end(struct host_waiting *hw);

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
