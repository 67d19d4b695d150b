/*
 * What: the loopback of a container's network namespace on the host, where others look for the
 * container's ports (the CRI's port-forward dials localhost there): connections to any port of it
 * reach one listening socket, which the sandbox accepts from.
 * Depends on: runsc/err.h, bpf(2).
 * Threading: the single thread of a runsc command, inside the namespace.
 * Ownership: descriptors are the caller's.
 */
#ifndef RINGWALL_RUNSC_NETWORK_LOOKUP_H
#define RINGWALL_RUNSC_NETWORK_LOOKUP_H

#include "base/compiler.h"
#include "runsc/err.h"

/*
 * *out_listener: the socket. *out_link: as long as it is open in some process, TCP connections to
 * 127.0.0.0/8 and ::1 of the namespace ns_fd, in which the caller is, go to the socket.
 */
MUST_CHECK int network_lookup(int ns_fd, int *out_listener, int *out_link, struct err *e);

#endif
