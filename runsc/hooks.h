/*
 * What: OCI hooks: programs of the host that are told the container's state on standard input.
 * Depends on: runsc/spec.h, jansson.
 * Threading: one thread; runs a child at a time and waits for it.
 * Ownership: borrows everything.
 */
#ifndef RINGWALL_RUNSC_HOOKS_H
#define RINGWALL_RUNSC_HOOKS_H

#include "base/compiler.h"
#include "runsc/err.h"
#include "runsc/spec.h"

struct json_t;

/* Runs them in order. The first that fails, or does not end within its timeout, ends the list with
 * an error that names it (OCI runtime specification, "POSIX-platform Hooks"). */
MUST_CHECK int hooks_run(const struct oci_hook_list *list, const char *stage,
                         const struct json_t *state, struct err *e);

#endif
