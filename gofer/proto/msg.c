#include "gofer/proto/msg.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Room for more descriptors than one, so that a surplus is seen and closed. */
#define MSG_FDS_ROOM 8

union control {
    char bytes[CMSG_SPACE(sizeof(int) * MSG_FDS_ROOM)];
    struct cmsghdr align;
};

int gof_msg_send(int sock, const void *data, size_t size, int fd)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    union control c;
    ssize_t n;

    if (fd >= 0) {
        memset(&c, 0, sizeof(c));
        m.msg_control = c.bytes;
        m.msg_controllen = CMSG_SPACE(sizeof(int));
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &fd, sizeof(fd));
    }
    do
        n = sendmsg(sock, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return (size_t)n == size ? 0 : -EPIPE;
}

/* Takes every descriptor of the message: the count, the first in *out_fd. */
static size_t take_fds(struct msghdr *m, int *out_fd)
{
    size_t count = 0;

    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
            if (count++ == 0)
                *out_fd = fd;
            else
                close(fd);
        }
    }
    return count;
}

int64_t gof_msg_recv(int sock, void *data, size_t size, int flags, int *out_fd)
{
    struct iovec iov = {.iov_base = data, .iov_len = size};
    union control c;
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.bytes, .msg_controllen = sizeof(c)};
    ssize_t n;
    int fd = -1;

    do
        n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | flags);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    size_t fds = take_fds(&m, &fd);
    if (fds > 1 || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        if (fd >= 0)
            close(fd);
        return -EPROTO;
    }
    *out_fd = fd;
    return n;
}
