/*
 * What: the control protocol between runsc commands and a running sandbox: wire format, client.
 * Depends on: runsc/err.h, jansson; control_wire.c makes no host call but sendmsg and recvmsg.
 * Threading: one request at a time on a connection; different connections are independent.
 * Ownership: json_t arguments are taken or borrowed as said; received fds are the receiver's.
 *
 * Wire format. AF_UNIX, SOCK_SEQPACKET, one JSON object per packet, at most CONTROL_PACKET_MAX
 * bytes, UTF-8, no NUL. The socket is bound at STATE_DIR/control.sock before the sentry is
 * confined; the sentry inherits the listening descriptor and only accepts. A client sends one
 * request, reads its reply, and may then send the next on the same connection. A packet that does
 * not parse is answered with "ok":false and the connection is closed.
 *
 *   request   {"op":"<name>", ...}    [+ SCM_RIGHTS where said]
 *   reply     {"ok":true, ...}   or   {"ok":false,"errno":<positive>,"msg":"<one line>"}
 *
 * Guest pids are numbers of the container's pid namespace.
 *
 * A request names the container it is for by "container":ID; without that it is the sandbox's own.
 *
 *   create    "id":ID "spec":{config.json}, and 3 descriptors for 0, 1, 2 followed by the sandbox's
 *             ends of the sockets to a gofer ["pid_like":ID, of the container whose pid namespace
 *             it shares]. A container joins the sandbox. Reply: "pid":P (guest
 *             pid); later {"exit":C}, as for exec: the client stands for the container.
 *   end       Kills a container that joined; the reply comes as for `wait`.
 *   start     Lets the loaded init run. EINVAL when it was started before.
 *   state     Reply: "status":"created"|"running"|"paused"|"stopped"
 *   signal    "sig":N ["all":true] ["pid":P]
 *             To init, to every guest process, or to guest pid P. sig 0 only checks.
 *             ESRCH: nobody there. EINVAL: sig above 64.
 *   exec      "process":{OCI process} "terminal":B, and 3 descriptors for 0, 1, 2 (with a
 *             terminal the same slave three times). Reply: "pid":P (guest pid); later, when the
 *             process has ended, a packet {"exit":C}, C = 0..255 (128+n for signal n). Until then
 *             the client may send `signal` and `resize` (without "pid" they mean P) here; their
 *             replies carry "re":"signal"|"resize". If the client goes away before "exit", the
 *             process gets SIGKILL. A missing executable: ENOENT. With "path" it is a hook: that
 *             program, before the container is started.
 *   resize    "rows":R "cols":C ["pid":P]
 *             New size of init's (or P's) terminal. ENOTTY without one.
 *   ps        Reply: "processes":[{"pid":N,"ppid":N,"uid":N,"threads":N,"start":seconds since
 *             the epoch,"time":CPU milliseconds,"cmd":"..."}]
 *   wait      ["pid":P]  Reply: "exit":C once init (or P) has ended.
 *   events    Reply: "memory":{"usage":bytes,"limit":bytes},"pids":{"current":N,"limit":N},
 *             "cpu":{"usage":nanoseconds,"user":N,"kernel":N,"periods":N,"throttledPeriods":N,
 *             "throttledTime":nanoseconds},"oomKills":N
 *   watch     Then a packet {"event":"oom","count":N} whenever N processes of the container have
 *             been ended for want of memory, and {"exit":C} as for `wait`.
 *   limits    "resources":{linux.resources}  New limits of the container, those that are given.
 *   pause     All processes of the container stop; it answers still. `exec` gives EBUSY.
 *   resume
 *   debug     ["level":0..3] ["strace":B]  What the sandbox logs from now on.
 *   tasks     Reply: "tasks":[{"pid","tid","state","cmd","host":thread of the sentry,"container"}]
 *             of every container.
 *   forward   "port":N, and a connected stream socket. A connection to that port of the sandbox's
 *             loopback, whose bytes pass over the socket until both sides have ended.
 *             ECONNREFUSED: nobody listens.
 *   resolver  "addr":IPv4 address, and a UDP socket of the host that is connected to the resolver
 *             of that address: questions to its port 53 in the sandbox go there. EINVAL after
 *             start.
 *   loopback  A listening TCP socket of the host and what brings connections to it: each goes on,
 *             as with `forward`, to the port that it was sent to. EINVAL after start.
 *   network   "links":[{"name","mac","mtu","vnet","addrs":[{"a","len","scope","peer","bcast",
 *             "route":B}]}]
 *             "routes":[{"family","dst","len","via","src","link",...}]
 *             "neighs":[{"link","a","mac"}], an eventfd and a packet socket for each link. EINVAL
 *             after start.
 */
#ifndef RINGWALL_RUNSC_CONTROL_H
#define RINGWALL_RUNSC_CONTROL_H

#include <stddef.h>

#include "base/compiler.h"
#include "runsc/err.h"

struct json_t;

#define CONTROL_SOCKET_NAME "control.sock"
#define CONTROL_PACKET_MAX (160u * 1024)
#define CONTROL_FDS_MAX 9 /* standard streams and the channels of a gofer; links */
#define CONTROL_BACKLOG 16

/* ---- transport, for both ends (negative errno) ---- */

/*
 * Send one packet with count (<= CONTROL_FDS_MAX) descriptors. Borrows msg and fds. -EMSGSIZE when
 * it is too long, -EPIPE when the peer is gone; never raises SIGPIPE.
 */
MUST_CHECK int control_send(int fd, const struct json_t *msg, const int *fds, size_t count);
/* The same without descriptors and without waiting: -EAGAIN. */
MUST_CHECK int control_post(int fd, const struct json_t *msg);

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

/* The next packet of the sandbox, which must say ok. *out_reply is owned. ETIMEDOUT: none came. */
MUST_CHECK int control_next(int fd, int timeout_ms, struct json_t **out_reply, struct err *e);

/* connect + call + close. Takes req. */
MUST_CHECK int control_request(int dir_fd, struct json_t *req, int timeout_ms,
                               struct json_t **out_reply, struct err *e);

/* Turn a reply into success or an error: shared by control_call and the exec client. Borrows reply.
 */
MUST_CHECK int control_check(const struct json_t *reply, struct err *e);

#endif
