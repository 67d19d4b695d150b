/* Packets of the control protocol, for both ends. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runsc/control.h"

union control_cmsg {
    struct cmsghdr align;
    char room[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))];
};

static void control_put_fds(struct msghdr *mh, union control_cmsg *cm, const int *fds, size_t count)
{
    struct cmsghdr *c;

    memset(cm, 0, sizeof(*cm));
    mh->msg_control = cm->room;
    mh->msg_controllen = CMSG_SPACE(count * sizeof(int));
    c = CMSG_FIRSTHDR(mh);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(c), fds, count * sizeof(int));
}

static int control_send_flags(int fd, const json_t *msg, const int *fds, size_t count, int flags)
{
    char *text = json_dumps(msg, JSON_COMPACT);
    struct iovec iov = {.iov_base = text};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    union control_cmsg cm;
    ssize_t n;
    int rc = 0;

    if (text == NULL)
        return -ENOMEM;
    iov.iov_len = strlen(text);
    if (iov.iov_len > CONTROL_PACKET_MAX || count > CONTROL_FDS_MAX) {
        rc = -EMSGSIZE;
        goto out_free;
    }
    if (count > 0)
        control_put_fds(&mh, &cm, fds, count);
    do {
        n = sendmsg(fd, &mh, MSG_NOSIGNAL | flags);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        rc = errno == ECONNRESET ? -EPIPE : -errno;

out_free:
    free(text);
    return rc;
}

int control_send(int fd, const json_t *msg, const int *fds, size_t count)
{
    return control_send_flags(fd, msg, fds, count, 0);
}

int control_post(int fd, const json_t *msg)
{
    return control_send_flags(fd, msg, NULL, 0, MSG_DONTWAIT);
}

static void control_close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        (void)close(fds[i]);
}

/* Collects at most CONTROL_FDS_MAX descriptors; the buffer has room for no more. */
static size_t control_take_fds(struct msghdr *mh, int *got)
{
    size_t count = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c != NULL; c = CMSG_NXTHDR(mh, c)) {
        size_t n;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        n = MIN(n, CONTROL_FDS_MAX - count);
        memcpy(got + count, CMSG_DATA(c), n * sizeof(int));
        count += n;
    }
    return count;
}

static int control_parse(const char *text, size_t size, json_t **out_msg)
{
    json_t *msg = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);

    if (!json_is_object(msg)) {
        json_decref(msg);
        return -EBADMSG;
    }
    *out_msg = msg;
    return 0;
}

int control_recv(int fd, int flags, json_t **out_msg, int *fds, size_t max, size_t *out_count)
{
    char *text = malloc(CONTROL_PACKET_MAX);
    struct iovec iov = {.iov_base = text, .iov_len = CONTROL_PACKET_MAX};
    union control_cmsg cm;
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = cm.room,
                        .msg_controllen = sizeof(cm.room)};
    int got[CONTROL_FDS_MAX], rc = 0;
    size_t count = 0;
    ssize_t n;

    if (text == NULL)
        return -ENOMEM;
    do {
        n = recvmsg(fd, &mh, flags | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        count = control_take_fds(&mh, got);
    if (n < 0)
        rc = errno == ECONNRESET ? -EPIPE : -errno;
    else if (n == 0)
        rc = -EPIPE;
    else if ((mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || count > max)
        rc = -EBADMSG;
    else
        rc = control_parse(text, (size_t)n, out_msg);
    free(text);
    if (rc != 0) {
        control_close_all(got, count);
        return rc;
    }
    if (count > 0)
        memcpy(fds, got, count * sizeof(int));
    if (out_count != NULL)
        *out_count = count;
    return 0;
}
