/*
 * What: takes the links of a container's network namespace over for its sandbox: a packet socket
 * for each, and the addresses, routes and fixed neighbours that others (CNI) configured there.
 * Depends on: runsc/err.h, runsc/spec.h, jansson.
 * Threading: the single thread of a runsc command, which visits the namespace and comes back.
 * Ownership: sockets are handed to the sandbox and closed here.
 */
#ifndef RINGWALL_RUNSC_NETWORK_H
#define RINGWALL_RUNSC_NETWORK_H

#include <sys/types.h>

#include "base/compiler.h"
#include "runsc/err.h"
#include "runsc/spec.h"

/*
 * For a sandbox that is created and not started. sentry: its process, whose namespace counts when
 * the spec names no other. dir_fd: where its control socket is. The addresses leave the host's side
 * of the namespace, whose kernel would answer for them otherwise. Nothing happens where the spec
 * has no namespace of its own, or one without links.
 */
MUST_CHECK int network_take_over(const struct oci_spec *spec, pid_t sentry, int dir_fd,
                                 struct err *e);

#endif
