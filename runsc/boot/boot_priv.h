/* Inside boot: what the parts of the sentry's first thread share.
 * Depends on: boot.h, kernel, vfs.
 * Threading: the boot thread; boot_exit is the one object other threads touch.
 * Ownership: one struct boot, on boot_main's stack, for the life of the process. */
#ifndef RINGWALL_RUNSC_BOOT_BOOT_PRIV_H
#define RINGWALL_RUNSC_BOOT_BOOT_PRIV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/lock.h"
#include "runsc/boot/boot.h"
#include "sentry/kernel/task.h"

struct gof_client;
struct memfile;

/* A process that a control client waits for. Guarded by boot's mu. */
struct boot_process {
    struct boot *boot;
    int32_t pid;
    bool ended;
    int exit_code; /* 0..255, 128+n for a signal */
    struct file *tty;
};

struct boot {
    const struct boot_args *args;
    const struct oci_spec *spec;
    int stdio[3];
    int log_fd;
    struct plat *plat;
    struct memfile *mf;
    struct gof_client *gofer;
    struct kernel *k;
    struct mount_ns *ns;
    struct boot_process init;
    bool started;
    int wake[2];     /* written when a process has ended */
    struct mutex mu; /* rank CONTROL: exit states */
};

/* Reports a failure to the launcher and ends the process. */
NORETURN void boot_fail(const struct boot *b, int code, const char *fmt, ...) PRINTF_FMT(3, 4);
/* Mounts everything of the spec; ends the process with a message when it cannot. */
void boot_mounts(struct boot *b);
/* Loads process p of the spec (init, or an exec) with files for 0, 1, 2. Negative errno, with a
 * line for the user in text. */
MUST_CHECK int boot_load(struct boot *b, const struct oci_process *p, const int stdio[3],
                         struct boot_process *out, char *text, size_t text_size);
/* Drops what boot_load kept. The process has ended. */
void boot_process_fini(struct boot_process *p);
/* Serves the control socket till the container ends; the result is its exit code. */
int boot_serve(struct boot *b);

#endif
