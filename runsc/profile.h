/*
 * What: a profile of a running sandbox by samples that the host's kernel takes (perf_event_open):
 * nothing in the sandbox is stopped or asked.
 * Depends on: runsc/symbols.h.
 * Threading: one thread.
 * Ownership: nothing is kept.
 */
#ifndef RINGWALL_RUNSC_PROFILE_H
#define RINGWALL_RUNSC_PROFILE_H

#include <stdio.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "runsc/err.h"

/*
 * Samples process pid, threads that come later included, for seconds, hz times in each second of
 * CPU time, and writes stacks as lines "outer;inner COUNT", which flame graph tools read; time in
 * the host's kernel ends in "[host kernel]".
 */
MUST_CHECK int profile_write(pid_t pid, int seconds, int hz, FILE *out, struct err *e);

#endif
