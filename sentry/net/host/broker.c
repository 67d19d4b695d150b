#include "sentry/net/host/broker.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

/* Asked for with the length of one descriptor: the space of a message, which is rounded up, would
 * let two in, and nobody would close them. */
#define ONE_FD CMSG_LEN(sizeof(int))

union broker_control {
    struct cmsghdr align;
    char space[CMSG_SPACE(sizeof(int))];
};

int broker_send(int conn, const void *data, size_t size, int fd)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    union broker_control ctl = {.space = {0}};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (fd >= 0) {
        h.msg_control = ctl.space;
        h.msg_controllen = sizeof(ctl.space);
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = ONE_FD;
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    do
        n = sendmsg(conn, &h, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)size ? 0 : -EIO;
}

int broker_receive(int conn, void *data, size_t size, int *out_fd)
{
    struct iovec iov = {.iov_base = data, .iov_len = size};
    union broker_control ctl;
    struct msghdr h = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.space, .msg_controllen = ONE_FD};
    ssize_t n;

    *out_fd = -1;
    do
        n = recvmsg(conn, &h, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&h) : NULL;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == ONE_FD)
        memcpy(out_fd, CMSG_DATA(c), sizeof(int));
    if (n == 0)
        return -EPIPE;
    return n == (ssize_t)size && !(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ? 0 : -EIO;
}
