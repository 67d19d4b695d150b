/* The gofer's answers to requests, apart from the process around them.
 * Depends on: base, gofer/proto.
 * Threading: one server is shared by the threads of all channels; a gof_conn is one thread's.
 * Ownership: the server takes the exports' descriptors. */
#ifndef RINGWALL_GOFER_SERVER_H
#define RINGWALL_GOFER_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct gof_area;
struct gof_server;

struct gof_server_export {
    int fd; /* O_PATH: directory or file */
    bool readonly;
};

struct gof_server_args {
    const struct gof_server_export *exports; /* array borrowed for the call */
    size_t export_count;
    int proc_fd; /* directory /proc/self/fd of this process; borrowed */
    /* The same directory as a path, with a slash at its end; "": the working directory. Borrowed.
     */
    const char *fd_path;
    /* Handles at most; more gives ENFILE. */
    size_t handle_max;
    bool host_uds;  /* sockets may be connected to */
    bool host_fifo; /* FIFOs may be opened */
    bool one_id;    /* files can have no other owner than ours: owners are not set */
};

/* -EINVAL: too many exports. -ENOMEM. */
MUST_CHECK int gof_server_new(const struct gof_server_args *a, struct gof_server **out_server);
void gof_server_free(struct gof_server *s);
/* Handles in use, for tests. */
size_t gof_server_handles(struct gof_server *s);

/* Buffers of one channel. */
struct gof_conn {
    struct gof_server *s;
    uint8_t *in, *out, *scratch; /* GOF_MESSAGE_MAX each */
    uint32_t cpu, wanted_cpu;    /* where it is served, is to be served: GOF_CPU_NONE anywhere */
    int sock;                    /* for descriptors; -1: a request for events does not wait */
};
MUST_CHECK int gof_conn_init(struct gof_conn *c, struct gof_server *s);
void gof_conn_fini(struct gof_conn *c);

/* Answers the request of size bytes in c->in: *out_size bytes in c->out and, unless -1, a
 * descriptor to send along, which the caller closes. -EPROTO: the request is malformed, so that the
 * sender is not to be trusted with anything more. */
MUST_CHECK int gof_server_answer(struct gof_conn *c, size_t size, size_t *out_size, int *out_fd);

/* Serves all channels until the last socket, that of the channel for events, ends: 0, or -EPROTO
 * after a malformed request, which ends all. count: of sockets, 2..GOF_CHANNEL_MAX; areas: those of
 * all but the last. Both borrowed. Negative errno: threads could not be made. */
MUST_CHECK int gof_server_run(struct gof_server *s, struct gof_area *areas, const int *socks,
                              size_t count);

#endif
