/* What the sentry asks of the process that makes its host sockets (--network=host), and answers.
 * Depends on: base.
 * Threading: one request at a time on a connection of SOCK_SEQPACKET.
 * Ownership: descriptors go along with SCM_RIGHTS; who receives one closes it. */
#ifndef RINGWALL_SENTRY_NET_HOST_BROKER_H
#define RINGWALL_SENTRY_NET_HOST_BROKER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/compiler.h"

/* Names that no header of the C library has, for seccomp_options.def. */
#define LX_UDPLITE_SEND_CSCOV 10
#define LX_UDPLITE_RECV_CSCOV 11

enum broker_op {
    BROKER_SOCKET = 1, /* answered with a socket, non-blocking */
    BROKER_BIND,       /* comes with a socket that it made; addr */
};

struct broker_request {
    uint32_t op;
    int32_t family, type, protocol;
    uint32_t privileged; /* the asker may use ports that take CAP_NET_BIND_SERVICE */
    uint32_t number;     /* for a netlink socket whose address names none; taken if it is free */
    uint32_t addr_len;
    struct sockaddr_storage addr;
};

struct broker_reply {
    int32_t error; /* 0 or a negative errno */
};

/* ---- what seccomp_options.def lists: options that go to the host, for the sentry and its filter
 * ---- */
enum host_option_how { HOST_OPTION_GET = 1, HOST_OPTION_SET = 2, HOST_OPTION_BOTH = 3 };
struct host_option {
    int how, level, name;
};
extern const struct host_option host_options[];
extern const size_t host_option_count;

/* ---- messages ---- */
/* One message, and fd along with it unless that is -1. -EIO. */
MUST_CHECK int broker_send(int conn, const void *data, size_t size, int fd);
/* *out_fd: what came along, also with an error, or -1; the caller's. -EPIPE: the other end is gone;
 * -EIO: not a message of that size, or more than one descriptor. */
MUST_CHECK int broker_receive(int conn, void *data, size_t size, int *out_fd);

#endif
