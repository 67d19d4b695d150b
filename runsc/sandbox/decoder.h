/* The process that disassembles code of guests for the sentry: runsc/decoder, beside runsc.
 * Depends on: base.
 * Threading: single-threaded processes.
 * Ownership: descriptors are the caller's. */
#ifndef RINGWALL_RUNSC_SANDBOX_DECODER_H
#define RINGWALL_RUNSC_SANDBOX_DECODER_H

#include "base/compiler.h"

/* What the decoder has: its connection. */
#define DECODER_FD 0

/* The launcher: the program, or -1 when it is not there. */
int decoder_open_program(void);
/* The sentry, in its namespaces, without capabilities, and still free to execute: starts the
 * program. One end of its connection, or a negative errno. It ends with the other end. */
MUST_CHECK int decoder_launch(int program);

#endif
