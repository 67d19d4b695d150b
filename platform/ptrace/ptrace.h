/* Guest code in traced host processes (stubs): PTRACE_SYSEMU, one stub process per address space.
 * Depends on: platform/platform.h.
 * Threading: as platform.h; a context is run by one sentry thread, its tracer.
 * Ownership: stubs die with the sentry. */
#ifndef RINGWALL_PLATFORM_PTRACE_PTRACE_H
#define RINGWALL_PLATFORM_PTRACE_PTRACE_H

#include "platform/platform.h"

extern const struct plat_ops ptrace_plat_ops;

#endif
