/*
 * What: a process of the host that stands for one of a guest: passes signals and sizes on to it
 * over a control connection and ends with its exit code. Depends on: runsc/console.h,
 * runsc/control.h. Threading: one thread. Ownership: descriptors are the caller's.
 */
#ifndef RINGWALL_RUNSC_KEEPER_H
#define RINGWALL_RUNSC_KEEPER_H

#include "base/compiler.h"

struct keeper {
    int conn;          /* on which the process was started */
    int master, slave; /* of its terminal, or -1; with master, our own terminal is joined to it */
};

/* Away from the caller: a session of its own, no descriptors but the keeper's and keep_fd (or -1).
 * A terminal becomes the controlling one, so that its new sizes are heard of. */
void keeper_detach(struct keeper *k, int keep_fd);
/* Until the guest's process has ended: its exit code, 128+n for signal n. */
int keeper_wait(const struct keeper *k);

#endif
