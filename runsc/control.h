/*
 * What: the control protocol between runsc commands and a running sandbox: wire format, both
 * directions' transport, client. Depends on: runsc/err.h, jansson; control_wire.c needs no
 * allocation besides jansson's and no call but sendmsg/recvmsg. Threading: one request is under way
 * on a connection at a time; different connections are independent. Ownership: json_t arguments are
 * taken or borrowed as each function says; fds received belong to the receiver.
 *
 * Wire format. AF_UNIX, SOCK_SEQPACKET, one JSON object per packet, at most CONTROL_PACKET_MAX
 * bytes, UTF-8, no NUL. The listening socket is bound at STATE_DIR/control.sock (mode 0600,
 * directory 0700) before the sentry is confined; the sentry inherits the listening descriptor and
 * only accepts. A client sends one request and reads its reply, and may then send the next on the
 * same connection. The server answers packets it cannot parse with {"ok":false} and closes.
 *
 *   request  {"op":"<name>", ...}                  [+ SCM_RIGHTS where said]
 *   reply    {"ok":true, ...}   or   {"ok":false,"errno":<positive>,"msg":"<one line>"}
 *
 *   start                                          let the loaded init run. EINVAL when it was
 * started before. state                                          ->
 * "status":"created"|"running"|"paused"|"stopped", "init_pid":1 signal  "sig":N ["all":true]
 * ["pid":P]         to init, to every guest process, or to guest pid P. sig 0 only checks. ESRCH
 * when there is nobody; sig 1..64, else EINVAL. exec    "process":{OCI process} "terminal":B   3
 * descriptors (0, 1, 2; with a terminal the same slave three times)
 *                                                  -> first {"ok":true,"pid":P} (P: guest pid),
 * then, when the process has ended, a packet {"exit":C} with C = 0..255 (128+n for signal n). Only
 * `signal` and `resize` without pid (meaning P) may be sent on this connection in between; they are
 * answered as always. If the client goes away before "exit", the process gets SIGKILL. A missing
 * executable: ok false, ENOENT. resize  "rows":R "cols":C ["pid":P]            new size of init's
 * (or P's) terminal; ENOTTY without one. ps                                             ->
 * "processes":[{"pid","ppid","uid","threads","start"(seconds since the epoch),"time"(CPU
 * milliseconds),"cmd"}] wait    ["pid":P]                              -> "exit":C when init (or P)
 * has ended; the reply may take for ever. pause, resume                                  stop and
 * continue every guest task at a consistent point. events ->
 * "memory":{"usage":bytes},"pids":{"current":N},"cpu":{"usage":ns}
 *
 * The exec connection's own `signal`/`resize` replies carry "re":"signal"|"resize" so that they
 * differ from "exit".
 */
#ifndef RINGWALL_RUNSC_CONTROL_H
#define RINGWALL_RUNSC_CONTROL_H

#include <stddef.h>

#include "base/compiler.h"
#include "runsc/err.h"

struct json_t;

#define CONTROL_SOCKET_NAME "control.sock"
#define CONTROL_PACKET_MAX (160u * 1024)
#define CONTROL_FDS_MAX 3
#define CONTROL_BACKLOG 16

/* ---- transport, for both ends (negative errno) ---- */

/*
 * Send one packet with count (<= CONTROL_FDS_MAX) descriptors. Borrows msg and fds. -EMSGSIZE when
 * it is too long, -EPIPE when the peer is gone; never raises SIGPIPE.
 */
MUST_CHECK int control_send(int fd, const struct json_t *msg, const int *fds, size_t count);

/*
 * Receive one packet. *out_msg is owned by the caller and always an object. Descriptors
 * (close-on-exec) go to fds[0..max-1], *out_count says how many; more than max are closed and give
 * -EBADMSG. 0 bytes from the peer: -EPIPE. flags: MSG_DONTWAIT or 0. fds may be NULL when max is 0.
 */
MUST_CHECK int control_recv(int fd, int flags, struct json_t **out_msg, int *fds, size_t max,
                            size_t *out_count);

/* ---- client ---- */

/* Bind and listen in the directory dir_fd. *out_fd is close-on-exec and the caller's. */
MUST_CHECK int control_listen(int dir_fd, int *out_fd, struct err *e);

/* Connect to the socket in dir_fd. ECONNREFUSED and ENOENT (in e->code) mean that no sandbox is
 * there. */
MUST_CHECK int control_connect(int dir_fd, int *out_fd, struct err *e);

/*
 * One request, one reply on a connected socket. Takes req. timeout_ms < 0: for ever. A reply with
 * ok false becomes an error with its errno and msg. *out_reply (may be NULL when not wanted) is
 * owned by the caller.
 */
MUST_CHECK int control_call(int fd, struct json_t *req, int timeout_ms, struct json_t **out_reply,
                            struct err *e);

/* connect + call + close. Takes req. */
MUST_CHECK int control_request(int dir_fd, struct json_t *req, int timeout_ms,
                               struct json_t **out_reply, struct err *e);

/* Turn a reply into success or an error: shared by control_call and the exec client. Borrows reply.
 */
MUST_CHECK int control_check(const struct json_t *reply, struct err *e);

#endif
