/* Inside boot: what the parts of the sentry's first thread share.
 * Depends on: boot.h, kernel, vfs.
 * Threading: the boot thread; boot_exit is the one object other threads touch.
 * Ownership: one struct boot, on boot_main's stack, for the life of the process. */
#ifndef RINGWALL_RUNSC_BOOT_BOOT_PRIV_H
#define RINGWALL_RUNSC_BOOT_BOOT_PRIV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>

#include "base/list.h"
#include "base/lock.h"
#include "runsc/boot/boot.h"
#include "sentry/kernel/task.h"

struct gof_client;
struct net;
struct memfile;
struct json_t;

struct boot_tty;

/* A process that somebody outside started: init or an exec. */
struct boot_process {
    struct boot *boot;
    int32_t pid;
    struct boot_tty *tty; /* its terminal, or NULL */
    bool abandoned;       /* boot thread: whoever started it is gone; freed when it has ended */
    struct list node;     /* boot thread: boot.execs */
    bool ended;           /* guard: boot's mu */
    int exit_code;        /* guard: boot's mu; 0..255, 128+n for a signal */
};

struct boot {
    const struct boot_args *args;
    const struct oci_spec *spec;
    int stdio[3];
    int log_fd;
    struct plat *plat;
    struct memfile *mf;
    struct gof_client *gofer;
    struct net *net;
    struct kernel *k;
    struct mount_ns *ns;
    struct boot_process init;
    struct list execs;                   /* boot_process.node */
    struct rlimit rlimits[RLIM_NLIMITS]; /* of the caller: what a guest gets that names none */
    bool started;
    int wake[2];     /* written when a process has ended */
    struct mutex mu; /* rank CONTROL: exit states */
};

/* Reports a failure to the launcher and ends the process. */
NORETURN void boot_fail(const struct boot *b, int code, const char *fmt, ...) PRINTF_FMT(3, 4);
/* Of a memory limit of the host, what the guest may use: the rest is for the sentry and the stubs.
 */
uint64_t boot_memory_for_guest(uint64_t limit);
/* Mounts everything of the spec; ends the process with a message when it cannot. */
void boot_mounts(struct boot *b);
/* Loads process p of the spec (init, or an exec) with the host descriptors stdio, which are taken,
 * on failure too. Negative errno, with a line for the user in text. */
MUST_CHECK int boot_load(struct boot *b, const struct oci_process *p, const int stdio[3],
                         struct boot_process *out, char *text, size_t text_size);
/* Drops what boot_load kept. The process has ended. */
void boot_process_fini(struct boot_process *p);
/* Serves the control socket till the container ends; the result is its exit code. */
int boot_serve(struct boot *b);

/* ---- boot_inspect.c ---- */
/* Control operations that need no connection's state: ps, events, limits, debug. *out_reply is
 * owned. -ENOSYS: not one of them. */
MUST_CHECK int boot_inspect(struct boot *b, const char *op, const struct json_t *req,
                            struct json_t **out_reply);

/* ---- boot_tty.c ---- */
/* A guest terminal (a pty of the container's devpts) whose other side is the host terminal fd,
 * which is set raw and taken. *out_file is the guest's side, owned. */
MUST_CHECK int boot_tty_new(struct boot *b, int fd, uint32_t uid, struct boot_tty **out_tty,
                            struct file **out_file);
MUST_CHECK int boot_tty_resize(struct boot_tty *t, uint16_t rows, uint16_t cols);
/* Passes on what the guest still wrote, then ends. Takes t; NULL is allowed. */
void boot_tty_free(struct boot_tty *t);

#endif
