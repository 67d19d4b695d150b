/*
 * What: the process that makes the host sockets of a sandbox with --network=host. It has the
 * network namespace, at most CAP_NET_BIND_SERVICE, and no path, file or process of the host; the
 * sentry, which has none of these, asks it over sentry/net/host/broker.h.
 * Depends on: runsc/spec.h, runsc/err.h, sentry/net/host/broker.h.
 * Threading: forked by the single thread of a runsc command; has one thread.
 * Ownership: conn stays the caller's, who closes it after the call.
 */
#ifndef RINGWALL_RUNSC_SANDBOX_BROKER_H
#define RINGWALL_RUNSC_SANDBOX_BROKER_H

#include <sys/types.h>

#include "base/compiler.h"
#include "runsc/err.h"
#include "runsc/sandbox/sandbox.h"

/*
 * Forks it; it ends when the other end of conn is closed. Its namespace: that of the spec's path;
 * sentry's, when the spec names a new one; else the caller's. *out_pid is a child of the caller,
 * set on failure too when there is one.
 */
MUST_CHECK int broker_launch(const struct sandbox_args *a, pid_t sentry, int conn, pid_t *out_pid,
                             struct err *e);

#endif
