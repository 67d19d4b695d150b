/* What the socket calls share: descriptor to socket, addresses, ancillary data.
 * Depends on: task.h, sentry/net/sock.h.
 * Threading: the task's own thread.
 * Ownership: sock_arg holds the file till sock_arg_put. */
#ifndef RINGWALL_SYSCALLS_SYS_SOCKET_H
#define RINGWALL_SYSCALLS_SYS_SOCKET_H

#include "sentry/kernel/task.h"
#include "sentry/net/sock.h"

struct sock_arg {
    struct file *file; /* owned */
    struct sock *sock; /* borrowed from file */
    struct vfs_caller c;
};
/* -EBADF, -ENOTSOCK. */
MUST_CHECK int sock_arg_get(struct task *t, int fd, struct sock_arg *out);
void sock_arg_put(struct sock_arg *a);
bool sock_arg_nonblock(const struct sock_arg *a, int flags);

/* -EINVAL for a length that no address has. */
MUST_CHECK int sock_addr_in(struct task *t, uaddr_t addr, uint64_t len, struct sock_addr *out);
/* Writes what fits into the space at *len_addr and the whole length there. */
MUST_CHECK int sock_addr_out(struct task *t, const struct sock_addr *a, uaddr_t addr,
                             uaddr_t len_addr);

/* struct msghdr of the 64-bit ABI. */
struct lx_msghdr {
    uint64_t name;
    uint32_t namelen, pad;
    uint64_t iov, iovlen, control, controllen;
    uint32_t flags, pad2;
};

/* A range of guest memory that takes a message in place of the ranges of its msghdr. */
struct sock_msg_buf {
    uaddr_t addr;
    uint32_t len;
    bool layout; /* as IORING_RECV_MULTISHOT has it: a header, the name, what is ancillary, bytes */
};
/* recvmsg(2) into buf: the bytes there. *out_got: more than nothing. -EFAULT, -EINVAL beside what
 * recvmsg returns. */
MUST_CHECK int64_t sock_recvmsg_into(struct task *t, int fd, uaddr_t msg, int flags,
                                     const struct sock_msg_buf *buf, bool *out_got);

/* Ancillary data from the guest. Owned *out on success (sock_control_fini). -EINVAL, -EBADF,
 * -EPERM, -ETOOMANYREFS ... */
MUST_CHECK int sock_cmsg_in(struct task *t, const struct vfs_caller *c, int family, uaddr_t control,
                            uint64_t len, struct sock_control *out);
/* cr as the guest knows who it is about. */
struct sock_cred sock_cred_out(struct task *t, const struct sock_cred *cr);
/* What was received goes to the guest as far as it has space: descriptors are installed.
 * h->controllen becomes what was used; MSG_CTRUNC is added to *flags. */
MUST_CHECK int sock_cmsg_out(struct task *t, struct sock_control *ctl, bool cloexec,
                             struct lx_msghdr *h, int *flags);

#endif
