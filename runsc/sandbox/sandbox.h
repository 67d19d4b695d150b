/*
 * What: the launcher: makes the processes of one sandbox (sentry and gofer) from a checked spec.
 * Depends on: runsc/spec.h, runsc/err.h.
 * Threading: called once, by the single thread of a runsc command.
 * Ownership: sandbox_args is borrowed for the call; the processes are the caller's children.
 */
#ifndef RINGWALL_RUNSC_SANDBOX_SANDBOX_H
#define RINGWALL_RUNSC_SANDBOX_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "runsc/err.h"
#include "runsc/sandbox/guest_seccomp.h"
#include "runsc/spec.h"

struct sandbox {
    pid_t sentry_pid; /* or the keeper's; in the caller's pid namespace; exits with the container's
                         exit code, 128+n for signal n */
    pid_t gofer_pid;
};

struct sandbox_args {
    const struct oci_spec *spec;
    const char *id;
    const char *pid_like; /* joining: the container whose pid namespace it shares, or NULL */
    const char *bundle;   /* absolute; relative mount sources start here */
    const char *rootfs;   /* absolute, exists, is a directory */
    const char *platform;
    bool patch_sites; /* plat_config.patch */
    bool strace, debug, log_json;
    struct guest_seccomp seccomp; /* of spec; borrowed */
    bool overlay;                 /* changes of the root file system stay in the sandbox */
    const char *overlay_options;  /* of the file system they go to: "size=..." */
    bool host_uds;                /* sockets of the host in mounts may be connected to */
    bool host_fifo;               /* FIFOs of the host in mounts may be opened */
    bool host_network;            /* sockets are those of the container's network namespace */
    bool attached;                /* the sentry dies when the caller dies */
    int stdio[3];                 /* the guest's 0, 1, 2 (all the pty slave with a terminal) */
    int console_fd;               /* the pty slave, or -1 */
    int log_fd;                   /* where the sentry and the gofer log, or -1 */
    int peer_fd;                  /* joining: pidfd of the sandbox's gofer; else -1 */
    int control_fd; /* bound, listening AF_UNIX SOCK_SEQPACKET socket; see runsc/control.h */
    /* Each a cgroup.procs file open for writing: sentry and gofer write "0" before all else. */
    const int *cgroup_fds;
    size_t cgroup_fd_count;
    int cgroup_dir_fd; /* its directory, when there is one and of version 2; or -1 */
    int oom_count_fd;  /* cgroup_open_oom, or -1: the sentry reads it */
    /* Called once the processes exist and before they would outlive the caller's sudden end: to
     * write down whom to end. Not 0: they are ended, and the launch fails with e. */
    int (*made)(void *arg, const struct sandbox *s, struct err *e);
    void *made_arg;
};

/*
 * Fork sentry and gofer. Returns 0 when the guest's init is loaded but not started: it runs on the
 * control request `start`. A missing or unusable executable, rootfs, mount or namespace fails here,
 * with a text for the user in e, and then no process and no mount is left. The new processes keep
 * none of the caller's descriptors but those named in a. *out is untouched on failure.
 */
MUST_CHECK int sandbox_create(const struct sandbox_args *a, struct sandbox *out, struct err *e);

/*
 * A container joins a running sandbox, asked over control_fd of a, here a connection to the
 * sandbox's socket: a gofer of its own is forked, and a keeper, the process that stands for the
 * container and ends with its exit code. Fills *out with the two.
 */
MUST_CHECK int sandbox_join(const struct sandbox_args *a, struct sandbox *out, struct err *e);

#endif
