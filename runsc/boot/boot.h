/* The sentry process from its first instruction: confinement, wiring of the parts, control loop.
 * Depends on: everything; this is the only place that knows concrete platforms and file systems.
 * Threading: boot_main runs on the process' first thread and never returns.
 * Ownership: boot_args is borrowed for good (the process holds a copy of its parent's memory). */
#ifndef RINGWALL_RUNSC_BOOT_BOOT_H
#define RINGWALL_RUNSC_BOOT_BOOT_H

#include <stdint.h>

#include "base/compiler.h"
#include "runsc/sandbox/sandbox.h"

struct plat_ops;

/* Sent once over status_fd when the guest's init is loaded (code 0) or boot failed. */
struct boot_status {
    int32_t code; /* positive errno */
    char text[ERR_TEXT_MAX];
};

#define BOOT_GOFER_FDS_MAX 8

struct boot_args {
    const struct sandbox_args *sandbox;
    const struct plat_ops *plat;
    int sync_fd;   /* one byte comes when the id maps are written; EOF: give up */
    int status_fd; /* takes one struct boot_status */
    int life_fd;   /* EOF when the caller died; -1 when the sandbox outlives it */
    int null_fd;   /* /dev/null, read-write */
    int gofer_fds[BOOT_GOFER_FDS_MAX];
    size_t gofer_fd_count;
    bool privileged; /* the caller could write any id map */
};

NORETURN void boot_main(const struct boot_args *a);

/* The platform of that name, or NULL. */
const struct plat_ops *boot_find_platform(const char *name);

#endif
