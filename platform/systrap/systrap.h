/* Guest code in host processes (stubs) that catch their own system calls and faults with signals
 * and hand over through shared memory; nothing is traced.
 * Depends on: platform/platform.h.
 * Threading: as platform.h.
 * Ownership: stubs die with the sentry. */
#ifndef RINGWALL_PLATFORM_SYSTRAP_SYSTRAP_H
#define RINGWALL_PLATFORM_SYSTRAP_SYSTRAP_H

#include "platform/platform.h"

extern const struct plat_ops systrap_plat_ops;

#endif
