/*
 * What: terminals: the pty pair of a container, handing its master over, passing bytes and sizes.
 * Depends on: runsc/err.h.
 * Threading: one thread; console_proxy installs signal handling for the rest of the process.
 * Ownership: descriptors are the caller's.
 */
#ifndef RINGWALL_RUNSC_CONSOLE_H
#define RINGWALL_RUNSC_CONSOLE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "runsc/err.h"

/* A new pty of the host. rows, cols: its size, 0: the size of our own terminal if there is one. */
MUST_CHECK int console_open(uint16_t rows, uint16_t cols, int *out_master, int *out_slave,
                            struct err *e);
/* Sends the master over the AF_UNIX stream socket at path, as runc's --console-socket. */
MUST_CHECK int console_send(const char *path, int master, struct err *e);

struct console_child {
    pid_t pid;
    /* A signal that we got and the child's side should see. NULL: kill(pid). */
    void (*forward)(void *arg, int sig);
    /* The window has a new size. NULL: nothing to do. */
    void (*resized)(void *arg, int rows, int cols);
    void *arg;
};

/* From now on what console_proxy forwards waits for it: no signal is lost before it runs. */
void console_hold_signals(void);
/*
 * Waits for the child's end or, when done_fd >= 0, for that to become readable. master >= 0: bytes
 * go between our terminal (in raw mode meanwhile) and master. Signals that we get are forwarded;
 * SIGWINCH becomes the master's size. The child is not reaped.
 */
void console_proxy(const struct console_child *child, int master, int done_fd);

#endif
