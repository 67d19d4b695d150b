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
#define BOOT_PLATFORMS_MAX 4
/* Names whatever is best here. */
#define BOOT_PLATFORM_AUTO "auto"

struct boot_args {
    const struct sandbox_args *sandbox;
    /* In order of preference: the first that starts runs the guests. */
    const struct plat_ops *plats[BOOT_PLATFORMS_MAX];
    size_t plat_count;
    int sync_fd;    /* one byte comes when the id maps are written; EOF: give up */
    int status_fd;  /* takes one struct boot_status */
    int life_fd;    /* EOF when the caller died; -1 when the sandbox outlives it */
    int null_fd;    /* /dev/null, read-write */
    int plat_fd;    /* what the platform opened, or -1 */
    int decoder_fd; /* the decoder's program (runsc/sandbox/decoder.h), or -1 */
    int net_fd;     /* connection to the broker with --network=host, or -1 */
    int gofer_fds[BOOT_GOFER_FDS_MAX];
    size_t gofer_fd_count;
    bool privileged; /* the caller could write any id map */
    bool in_cgroups; /* made in the sandbox's */
};

NORETURN void boot_main(const struct boot_args *a);

/* The platforms that a name stands for and that can be used here; with BOOT_PLATFORM_AUTO the log
 * says why one cannot. -EINVAL: no such name. -ENOTSUP: none can be used; why says for which
 * reason.
 */
MUST_CHECK int boot_find_platforms(const char *name,
                                   const struct plat_ops *out_plats[BOOT_PLATFORMS_MAX],
                                   size_t *out_count, char *why, size_t why_size);

#endif
