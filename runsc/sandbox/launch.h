/* Inside the launcher: what a new sandbox and a container that joins one have in common.
 * Depends on: runsc/sandbox/sandbox.h, gofer/gofer.h.
 * Threading: the single thread of a runsc command.
 * Ownership: descriptors and the process are the caller's. */
#ifndef RINGWALL_RUNSC_SANDBOX_LAUNCH_H
#define RINGWALL_RUNSC_SANDBOX_LAUNCH_H

#include <stdint.h>

#include "gofer/gofer.h"
#include "runsc/sandbox/sandbox.h"

/* Forks the gofer of a's container. fds: the other ends of its channels. On failure nothing is
 * left. */
MUST_CHECK int launch_gofer(const struct sandbox_args *a, int fds[GOFER_CHANNELS], pid_t *out_pid,
                            struct err *e);
/* fork(2) into new namespaces (CLONE_NEW*; or 0), in the child for a new process of a's container.
 * *out_inside: it is in the container's cgroups already. */
pid_t launch_fork(const struct sandbox_args *a, uint64_t namespaces, bool *out_inside);
/* First act of a new process, unless launch_fork did it: it is counted from its first page on. Ends
 * the process on failure. */
void launch_enter_cgroups(const struct sandbox_args *a);
/* The C library gives memory of further arenas back only after it has read a file of /proc, which
 * these processes may not; one arena also keeps them small. */
void launch_one_arena(void);
/* SIGKILL and wait. *pid becomes -1. */
void launch_end_child(pid_t *pid);

#endif
