/*
 * What: what the threads of a running sandbox are doing: the stack of each, seen from outside, so
 * that one that hangs can be looked at too.
 * Depends on: runsc/symbols.h, ptrace(2).
 * Threading: one thread; each thread of the sandbox is held for a moment, one after the other.
 * Ownership: nothing is kept.
 */
#ifndef RINGWALL_RUNSC_STACKS_H
#define RINGWALL_RUNSC_STACKS_H

#include <sys/types.h>

#include "base/compiler.h"
#include "runsc/err.h"

struct json_t;

/*
 * Prints the threads of process pid. tasks: a reply to the control request `tasks`, which says for
 * which guest task a thread works; NULL: not known. A thread that cannot be held is named all the
 * same, with the host call that it is in.
 */
MUST_CHECK int stacks_print(pid_t pid, const struct json_t *tasks, struct err *e);

#endif
