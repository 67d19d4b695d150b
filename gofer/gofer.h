/* The gofer: the process that opens a container's files for its sentry, and nothing else.
 * Depends on: base, gofer/proto.
 * Threading: gofer_main is called by a process' only thread, right after fork.
 * Ownership: the configuration is borrowed for the life of the process. */
#ifndef RINGWALL_GOFER_GOFER_H
#define RINGWALL_GOFER_GOFER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

/* Channels between one sentry and its gofer (gof_pairs_new), each with a server thread of its own.
 * On the last the sentry waits for what happens on the host. */
#define GOFER_CHANNELS 5

/* One tree, or one file, that the sentry may attach to, by its place in the list. */
struct gofer_export {
    char *path; /* absolute, on the host; symlinks in it are followed, it is the host's */
    bool readonly;
    bool recursive; /* what is mounted below comes along */
};

struct gofer_config {
    int channels[GOFER_CHANNELS]; /* SOCK_SEQPACKET */
    size_t channel_count;
    struct gofer_export *exports;
    size_t export_count;
    int log_fd;    /* or -1 */
    int peer_fd;   /* pidfd of a gofer of the same sandbox, whose empty namespaces will do; or -1 */
    bool host_uds; /* the sentry may connect to sockets in the exports */
    bool host_fifo; /* it may open FIFOs there */
    bool log_json, debug;
};

/* Confines the process and serves until every channel has ended: its exit status. Descriptors that
 * are not named in cfg are closed. */
MUST_CHECK int gofer_main(const struct gofer_config *cfg);

#endif
